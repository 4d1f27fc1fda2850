//! Where an export goes: standard output, or a file that is whole or not there.
//!
//! Owns the way of a file: written beside its place, synced, then put there. Refuses to overwrite
//! unasked, also what came to be there meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::{Path, PathBuf};

use super::TransferError;
use crate::disk::{Replaced, directory_of, put_over, resolved, sync_directory_of};

/// Rows are small; the system is asked for whole pieces.
const BUFFER_BYTES: usize = 1 << 18;

enum Place {
    Standard(BufWriter<Stdout>),
    File { path: PathBuf, temporary: PathBuf, file: BufWriter<File>, force: bool },
}

/// An output being written.
pub(super) struct Output {
    place: Place,
    /// Nobody reads it any more.
    gone: bool,
}

fn fault(path: &Path, detail: impl ToString) -> TransferError {
    TransferError::File { path: path.to_owned(), detail: detail.to_string() }
}

fn is_there(path: &Path) -> TransferError {
    TransferError::Refused(format!(
        "{} is there already; to put the export in its place say --force",
        path.display()
    ))
}

impl Output {
    /// Standard output.
    pub(super) fn standard() -> Self {
        let out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
        Self { place: Place::Standard(out), gone: false }
    }

    /// A file, which is not there before [`Output::finish`].
    pub(super) fn file(path: &Path, force: bool) -> Result<Self, TransferError> {
        let path = &resolved(path).map_err(|error| fault(path, error))?;
        let usage = |why: &str| TransferError::Usage(format!("--out {}: {why}", path.display()));
        if !directory_of(path).is_dir() {
            return Err(usage("its directory is not there; make it, or name another file"));
        }
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            return Err(usage("it is no regular file; say - for standard output"));
        }
        if !force && path.symlink_metadata().is_ok() {
            return Err(is_there(path));
        }
        let mut name = path
            .file_name()
            .ok_or_else(|| TransferError::Usage(format!("{} is no file", path.display())))?
            .to_owned();
        name.push(".new");
        let temporary = path.with_file_name(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&temporary);
        let file = file.map_err(|error| fault(&temporary, error))?;
        // One that was left behind is free, and its content goes; one that is written to is not.
        file.try_lock().map_err(|_| fault(&temporary, "another export writes it now"))?;
        file.set_len(0).map_err(|error| fault(&temporary, error))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let place = Place::File { path: path.to_owned(), temporary, file, force };
        Ok(Self { place, gone: false })
    }

    /// Whether it would be shown to a person.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(&self.place, Place::Standard(out) if out.get_ref().is_terminal())
    }

    /// What a failed write means.
    pub(super) fn failed(&self, error: &io::Error) -> TransferError {
        match &self.place {
            _ if self.gone => TransferError::Gone,
            Place::Standard(_) => fault(Path::new("standard output"), error),
            Place::File { temporary, .. } => fault(temporary, error),
        }
    }

    /// Everything is written: puts it in its place.
    pub(super) fn finish(mut self) -> Result<(), TransferError> {
        self.flush().map_err(|error| self.failed(&error))?;
        let Place::File { path, temporary, file, force } = &mut self.place else {
            return Ok(());
        };
        let temporary = std::mem::take(temporary);
        let placed = file.get_ref().sync_all().map_err(|error| fault(&temporary, error));
        let placed = placed.and_then(|()| place(&temporary, path, *force));
        if placed.is_err() {
            std::fs::remove_file(&temporary).ok();
        }
        placed
    }
}

fn place(temporary: &Path, path: &Path, force: bool) -> Result<(), TransferError> {
    let linked = if force { None } else { Some(std::fs::hard_link(temporary, path)) };
    match linked {
        Some(Ok(())) => std::fs::remove_file(temporary).map_err(|error| fault(temporary, error))?,
        Some(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(is_there(path));
        }
        // With --force, or where the file system knows no links.
        _ if !force && path.symlink_metadata().is_ok() => return Err(is_there(path)),
        _ => {
            if put_over(temporary, path).map_err(|error| fault(path, error))?
                == Replaced::WrittenOver
            {
                crate::telemetry::say(&format!(
                    "note: no file can be put in the place of {}, so it was written over; whoever \
                     read it meanwhile may have seen half of it",
                    path.display()
                ));
            }
            return Ok(());
        }
    }
    sync_directory_of(path).map_err(|error| fault(path, error))
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.place {
            Place::Standard(out) => out.write(bytes),
            Place::File { file, .. } => file.write(bytes),
        };
        let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        self.gone |= written.as_ref().is_err_and(broken);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = match &mut self.place {
            Place::Standard(out) => out.flush(),
            Place::File { file, .. } => file.flush(),
        };
        let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        self.gone |= flushed.as_ref().is_err_and(broken);
        flushed
    }
}

impl Drop for Output {
    /// What was not finished leaves nothing behind.
    fn drop(&mut self) {
        if let Place::File { temporary, .. } = &self.place
            && !temporary.as_os_str().is_empty()
        {
            std::fs::remove_file(temporary).ok();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.ndjson");
        let mut output = Output::file(&path, false).unwrap();
        output.write_all(b"half").unwrap();
        assert_eq!(names(directory.path()), ["out.ndjson.new"]);
        let second = Output::file(&path, false).err().unwrap().to_string();
        assert!(second.contains("another export"), "{second}");
        drop(output);
        assert!(names(directory.path()).is_empty());
        // As a kill would leave it.
        std::fs::write(directory.path().join("out.ndjson.new"), "left behind, and longer").unwrap();
        let mut output = Output::file(&path, false).unwrap();
        output.write_all(b"whole").unwrap();
        output.finish().unwrap();
        assert_eq!(names(directory.path()), ["out.ndjson"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.ndjson");
        let mut late = Output::file(&path, false).unwrap();
        late.write_all(b"late").unwrap();
        std::fs::write(&path, "came meanwhile").unwrap();
        assert!(late.finish().unwrap_err().to_string().contains("--force"));
        assert!(Output::file(&path, false).err().unwrap().to_string().contains("--force"));
        assert_eq!(std::fs::read(&path).unwrap(), b"came meanwhile");
        assert_eq!(names(directory.path()), ["out.ndjson"]);
        let mut forced = Output::file(&path, true).unwrap();
        forced.write_all(b"forced").unwrap();
        forced.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"forced");
        assert_eq!(names(directory.path()), ["out.ndjson"]);
        let usage = |path: &Path| Output::file(path, true).err().unwrap();
        for wrong in [&directory.path().join("none/out"), directory.path(), Path::new("/dev/null")]
        {
            let fault = usage(wrong);
            assert!(matches!(fault, TransferError::Usage(_)), "{fault}");
        }
    }

    #[test]
    fn a_link_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let (link, meant) = (directory.path().join("link"), directory.path().join("meant"));
        std::os::unix::fs::symlink("meant", &link).unwrap();
        for (text, force) in [("first", false), ("second", true)] {
            let mut output = Output::file(&link, force).unwrap();
            output.write_all(text.as_bytes()).unwrap();
            output.finish().unwrap();
            assert!(link.is_symlink());
            assert_eq!(std::fs::read(&meant).unwrap(), text.as_bytes());
        }
        assert!(Output::file(&link, false).is_err(), "what it means is there");
    }
}
