//! Data in and out in bulk, on the aggregator's own host.
//!
//! Owns the commands `import-csv` and `export`: what they are told, what they read and write. They
//! reach the store through its trait, as the ledger does, and work beside it, never through it.
//! Refuses to decide anything: verdicts come from the ledger's own fold.

pub mod columns;
pub mod export;
pub mod import;
mod ndjson;
mod output;
mod parquet;
pub mod seed_file;
pub mod stamp;

/// Why a command ended without what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// What was asked for cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("{path}: {detail}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why, and what to do.
        detail: String,
    },
    /// Something there stands in the way.
    #[error("{0}")]
    Refused(String),
    /// The data directory is in use.
    #[error("{0}")]
    Lock(#[from] crate::lock::LockError),
    /// The store cannot be used.
    #[error("{0}")]
    Store(#[from] crate::store::StoreError),
    /// Something was left out; the rest was done.
    #[error("{0}")]
    Damaged(String),
    /// Whoever reads the output went away.
    #[error("the reader of the output is gone")]
    Gone,
}

/// What a failed write to the output means.
fn written(error: std::io::Error) -> TransferError {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        TransferError::Gone
    } else {
        TransferError::File { path: "standard output".into(), detail: error.to_string() }
    }
}
