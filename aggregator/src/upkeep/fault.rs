//! Why looking after a store failed, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::lock::LockError;
use crate::store::StoreError;
use crate::store::place::advice;

/// Why looking after a store failed.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something is there already.
    #[error("{0} exists and is not overwritten; choose another name")]
    Exists(PathBuf),
    /// A folder, and nobody said how many are to be kept in it.
    #[error("{0} is a directory; give --keep N to limit its backups, or name a new file")]
    Folder(PathBuf),
    /// There is a store already.
    #[error(
        "{0} exists and is not overwritten; give another --data-dir, or {advice}",
        advice = advice(.0)
    )]
    StoreExists(PathBuf),
    /// What is to be restored is a store's own file and not all of it.
    #[error(
        "{0} has a -wal beside it, so it is the file of a store in use and not all of it; make a \
         backup of that store: uptime-aggregator backup FILE --data-dir DIR"
    )]
    NotABackup(PathBuf),
    /// The data directory is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file could not be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A backup is damaged.
    #[error("{path} is damaged and was not restored: {fault}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// The first fault.
        fault: String,
    },
    /// What was put in place does not read back there.
    #[error(
        "the backup is sound, and in its place it is not: {path}: {fault}; look to the disk, {}, \
         and restore again", advice(.path)
    )]
    InPlace {
        /// The store.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
}

pub(super) fn file_error(path: &Path) -> impl FnOnce(io::Error) -> UpkeepError + '_ {
    move |source| UpkeepError::File { path: path.to_owned(), source }
}
