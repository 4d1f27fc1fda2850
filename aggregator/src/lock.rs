//! One process at a time works a data directory.
//!
//! Owns the file `lock` in it. Whoever only reads, or enrols probes, needs no lock.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Why the data directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error("{0} is in use by another aggregator; stop that one or choose another --data-dir")]
    Held(PathBuf),
    /// The lock file cannot be created or locked.
    #[error("cannot lock {path}: {error}")]
    File {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
}

/// Held while this process owns a data directory; it goes with the process, however that ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes a data directory, which must be there, without waiting for it.
    ///
    /// # Errors
    /// When another process has it, or the file cannot be written.
    pub fn take(data_dir: &Path) -> Result<Self, LockError> {
        let path = data_dir.join("lock");
        let fault = |error| LockError::File { path: path.clone(), error };
        let file = File::create(&path).map_err(fault)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(data_dir.to_owned())),
            Err(TryLockError::Error(error)) => Err(fault(error)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_and_the_next_may_have_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(directory.path()).unwrap();
        let fault = DirectoryLock::take(directory.path()).unwrap_err();
        assert!(fault.to_string().contains("in use by another aggregator"), "{fault}");
        drop(first);
        DirectoryLock::take(directory.path()).unwrap();
        let fault = DirectoryLock::take(&directory.path().join("none")).unwrap_err();
        assert!(matches!(fault, LockError::File { .. }), "{fault}");
    }
}
