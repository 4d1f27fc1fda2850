//! That a file is still there, under its name, after a power cut.
//!
//! Owns the way of every write that puts a file somewhere: which file a link means, that the one
//! before stays until the new one is whole, and that the directory is synced. Where the system does
//! not let a file be put in the place of another, as where a single file is mounted, the one there
//! is written over, and that is answered: a reader may then see half of it. Refuses to decide what
//! is written, or whether it may take another's place.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Files are handed to the system in whole pieces.
const BUFFER_BYTES: usize = 1 << 18;
/// So many links may lead to one another.
const LINKS_MAX: usize = 40;

/// The directory a file is in.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What the directory of this file holds is on disk when this returns: names made, given anew or
/// taken away.
///
/// # Errors
/// With the directory named.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = directory_of(path);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| named(error, directory))
}

/// The error, with the file or directory it is about.
#[must_use]
pub fn named(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The file that is meant: where links lead, if only to where nothing is yet.
///
/// # Errors
/// When they lead nowhere in the end.
pub fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..LINKS_MAX {
        match at.read_link() {
            Ok(to) => at = directory_of(&at).join(to),
            Err(_) => return Ok(at),
        }
    }
    Err(named(io::Error::other("links lead to one another"), path))
}

/// How a file got its new content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// All at once: whoever reads it sees the old one or the new one.
    AtOnce,
    /// It was written over: whoever reads it meanwhile may see some of both.
    WrittenOver,
}

/// Puts bytes in the place of a file, all or nothing where that can be, and syncs them. A link
/// stays a link: the file it leads to is replaced.
///
/// # Errors
/// With the path in question; where it could be replaced at once, the file before stays as it was.
pub fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Replaced> {
    let path = &writable(path)?;
    let temporary = temporary(path);
    let file = match File::create(&temporary) {
        Ok(file) => file,
        Err(error) if may_write_over(&error, path) => {
            let mut content = Vec::new();
            write(&mut content)?;
            write_over(path, &mut content.as_slice()).map_err(|error| named(error, path))?;
            return Ok(Replaced::WrittenOver);
        }
        Err(error) => return Err(named(error, &temporary)),
    };
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, file);
    let written = write(&mut buffered).and_then(|()| buffered.flush());
    written
        .and_then(|()| buffered.get_ref().sync_all())
        .map_err(|error| named(error, &temporary))?;
    drop(buffered);
    put_over(&temporary, path)
}

/// Puts a whole, synced file in the place of another.
///
/// # Errors
/// With the path in question.
pub fn put_over(temporary: &Path, path: &Path) -> io::Result<Replaced> {
    match std::fs::rename(temporary, path) {
        Ok(()) => {
            sync_directory_of(path)?;
            Ok(Replaced::AtOnce)
        }
        // Something is mounted here.
        Err(error)
            if matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::CrossesDevices) =>
        {
            let written = File::open(temporary).and_then(|mut new| write_over(path, &mut new));
            written.map_err(|error| named(error, path))?;
            std::fs::remove_file(temporary).map_err(|error| named(error, temporary))?;
            Ok(Replaced::WrittenOver)
        }
        Err(error) => Err(named(error, path)),
    }
}

/// Whether a file can be put here, as far as can be told without writing it.
///
/// # Errors
/// With the path in question.
pub fn try_out(path: &Path) -> io::Result<()> {
    let path = &writable(path)?;
    let temporary = temporary(path);
    match OpenOptions::new().write(true).create(true).truncate(false).open(&temporary) {
        Ok(_) => std::fs::remove_file(&temporary).map_err(|error| named(error, &temporary)),
        Err(error) if may_write_over(&error, path) => {
            let opened = OpenOptions::new().write(true).open(path);
            opened.map(drop).map_err(|error| named(error, path))
        }
        Err(error) => Err(named(error, &temporary)),
    }
}

/// The file a path means, which is a regular one or none yet.
fn writable(path: &Path) -> io::Result<PathBuf> {
    let path = resolved(path)?;
    match path.metadata() {
        Ok(there) if !there.is_file() => {
            Err(named(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"), &path))
        }
        _ => Ok(path),
    }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    directory_of(path).join(name)
}

/// Whether there is a file that may be written though no other may be made beside it.
fn may_write_over(error: &io::Error, path: &Path) -> bool {
    let forbidden =
        matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem);
    forbidden && path.is_file()
}

/// Not emptied first: of what a reader may see, nothing is the worst.
fn write_over(path: &Path, content: &mut impl Read) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(false).open(path)?;
    let length = io::copy(content, &mut file)?;
    file.set_len(length)?;
    file.sync_all()
}

/// The default data directory.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    PathBuf::from("uptime-data")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_directory_is_in_this_one() {
        assert_eq!(directory_of(Path::new("a.csv")), Path::new("."));
        assert_eq!(directory_of(Path::new("/a.csv")), Path::new("/"));
        assert_eq!(directory_of(Path::new("data/a.csv")), Path::new("data"));
        sync_directory_of(Path::new("a.csv")).unwrap();
        let fault = sync_directory_of(Path::new("/nowhere/at/all/a.csv")).unwrap_err();
        assert!(fault.to_string().starts_with("/nowhere/at/all: "), "{fault}");
    }

    fn write(text: &'static str) -> impl FnOnce(&mut dyn Write) -> io::Result<()> {
        move |out| out.write_all(text.as_bytes())
    }

    /// What is in a directory, by name.
    pub(crate) fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_link_stays_one_and_the_file_it_means_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("there")).unwrap();
        std::os::unix::fs::symlink("there/b.csv", at("a.csv")).unwrap();
        std::os::unix::fs::symlink("c.csv", at("there/b.csv")).unwrap();
        for text in ["first", "second"] {
            try_out(&at("a.csv")).unwrap();
            assert_eq!(replace_file(&at("a.csv"), write(text)).unwrap(), Replaced::AtOnce);
            assert_eq!(std::fs::read(at("there/c.csv")).unwrap(), text.as_bytes());
            assert!(at("a.csv").is_symlink() && at("there/b.csv").is_symlink());
        }
        assert_eq!(names(&at("there")), ["b.csv", "c.csv"]);
        std::os::unix::fs::symlink("y", at("x")).unwrap();
        std::os::unix::fs::symlink("x", at("y")).unwrap();
        assert!(try_out(&at("x")).is_err());
    }

    #[test]
    fn what_can_never_be_written_is_told_before_anything_is() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let fault = try_out(&at("none/a.csv")).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::NotFound);
        assert!(fault.to_string().contains("none"), "{fault}");
        for no_file in [directory.path(), Path::new("/dev/null")] {
            let fault = try_out(no_file).unwrap_err();
            assert!(fault.to_string().contains("no regular file"), "{fault}");
            replace_file(no_file, write("x")).unwrap_err();
        }
        std::fs::write(at("a.csv"), "there").unwrap();
        try_out(&at("a.csv")).unwrap();
        assert_eq!(std::fs::read(at("a.csv")).unwrap(), b"there");
        assert_eq!(names(directory.path()), ["a.csv"]);
    }

    #[test]
    fn where_nothing_can_be_put_over_it_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("a.csv"), "longer than what comes").unwrap();
        write_over(&at("a.csv"), &mut &b"short"[..]).unwrap();
        assert_eq!(std::fs::read(at("a.csv")).unwrap(), b"short");
        let forbidden = io::Error::from(ErrorKind::PermissionDenied);
        assert!(may_write_over(&forbidden, &at("a.csv")));
        assert!(!may_write_over(&forbidden, &at("b.csv")));
        assert!(!may_write_over(&io::Error::from(ErrorKind::StorageFull), &at("a.csv")));
    }
}
