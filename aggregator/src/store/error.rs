//! Why a store could not do what it was asked to.
//!
//! Owns the errors and what they advise. Refuses to know which call failed.

use std::path::{Path, PathBuf};

use crate::disk::directory_of;

/// What a database keeps beside its file: what it wrote ahead, the index of that, and what a
/// transaction is taken back with.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The path with more at the end of its name.
#[must_use]
pub fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// What may lie beside a database and belongs to it.
pub(super) fn companions(database: &Path) -> impl Iterator<Item = PathBuf> + '_ {
    COMPANIONS.into_iter().map(|ending| with_ending(database, ending))
}

/// What to do with a store before another one takes its place: all its files, by name.
#[must_use]
pub fn advice(database: &Path) -> String {
    let name = |path: &Path| {
        path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    let beside: Vec<String> = companions(database).map(|path| name(&path)).collect();
    format!(
        "stop whatever uses it and move {} out of {}, together with those of {} that are there",
        name(database),
        directory_of(database).display(),
        beside.join(", ")
    )
}

/// Why a store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory or a file in it cannot be used.
    #[error("cannot use {path}: {detail}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        detail: String,
    },
    /// The disk would not let a file of it be made or written.
    #[error("cannot use {path}: {detail}; is its disk full, or may this user not write there?")]
    NoRoom {
        /// Which.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// The file was written by a newer version of this program.
    #[error("{path} has schema version {found}, this program knows {known}: use a newer program")]
    TooNew {
        /// Which.
        path: PathBuf,
        /// What it says of itself.
        found: i64,
        /// What this program can read.
        known: i64,
    },
    /// The file was written by an older version of this program.
    #[error(
        "{path} has schema version {found}, this program works with {known}: run \
         uptime-aggregator migrate, or start serve once"
    )]
    TooOld {
        /// Which.
        path: PathBuf,
        /// What it says of itself.
        found: i64,
        /// What this program works with.
        known: i64,
    },
    /// What had to be told before it was stored could not be.
    #[error("nothing was changed, as what goes to standard output could not be written: {0}")]
    Untold(#[source] std::io::Error),
    /// There was no room on the disk when it was opened.
    #[error(
        "the store was opened for reading alone: {0}; make room on its disk, and it is written to \
         again by itself"
    )]
    ReadOnly(String),
    /// The files that were opened are not those that lie there.
    #[error(
        "the store was removed or replaced while it was in use: {0}; nothing is stored or \
         acknowledged any more, and what was acknowledged since is at risk: stop this process, put \
         the store's files back, or restore a backup, and start it again"
    )]
    Gone(String),
    /// There is no store.
    #[error(
        "there is no store: {0} does not exist; name the directory that serve uses with --data-dir \
         (or UPTIME_DATA_DIR), or start `uptime-aggregator serve` first, which makes the store"
    )]
    Missing(PathBuf),
    /// What is there under the store's name is none.
    #[error(
        "{path} is {what}; {advice}; then restore a backup (uptime-aggregator restore --help), or \
         start serve without any for a new store",
        advice = advice(path)
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The database did not say whether a commit was stored.
    #[error(
        "it is not known whether this was stored: {0}; it is looked up before anything else is \
             stored, and what is sent again counts once"
    )]
    Indeterminate(String),
    /// Another process numbered ids or subnets meanwhile; nothing of the call was stored.
    #[error("another process numbered nodes or subnets meanwhile; try again")]
    NamesChanged,
    /// Another process took the lease; nothing of the call was stored.
    #[error("another process maintains this store now; nothing was changed")]
    LeaseLost,
    /// The database refused; nothing of the call was stored.
    #[error("the database refused: {0}")]
    Database(#[from] sqlx::Error),
    /// Something stored does not read back.
    #[error("damaged: {0}")]
    Damaged(String),
    /// A file could not be written.
    #[error("cannot write: {0}")]
    Io(#[from] std::io::Error),
}
