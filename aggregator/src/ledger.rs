//! The ledger: a handle to the task that owns the engine.
//!
//! Owns what may be asked of the task, and how: every queue is bounded, and whoever asks waits for
//! its place. Everything else holds a [`Ledger`]; nobody but the task drives the engine. Refuses to
//! know where parts come from and where snapshots go.

mod access;
mod handle;
mod history_reader;
mod maintenance;
mod request;
mod task;

pub use crate::engine::{LookupState, PartOutcome, Snapshot, Submission};
pub use access::AccessError;
pub use handle::Ledger;
pub use request::{Greeting, Unavailable};
pub use task::Task;
