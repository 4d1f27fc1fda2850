//! That a file is still there, under its name, after a power cut.
//!
//! Owns the last step of every write that puts a file somewhere: the directory is synced, too.
//! Refuses to decide what is written, or whether it may take another's place.

use std::fs::File;
use std::io;
use std::path::Path;

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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
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
}
