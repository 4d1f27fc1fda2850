//! The engine: a store and the accounting state that its facts make.
//!
//! Owns every verb that changes either: commit, close, judge again, rebuild, checkpoint, compact,
//! expire. All verbs take the time. What is committed is applied before the verb returns; so what
//! is in memory can always be made again from what is stored. Refuses channels, timers and tasks:
//! the ledger has those, and calls the same verbs as tests and benchmarks do.

mod agreement;
mod as_of;
mod checkpoint;
mod closing;
mod commit;
mod core;
pub mod details;
mod done;
mod epochs;
mod expiry;
mod explaining;
mod lookups;
mod names;
mod numbering;
mod rebuild;
pub mod replay;
mod since;
mod time;
mod trouble;
mod urgency;
mod vouched;

pub use as_of::as_of;
pub use commit::{Committed, PartOutcome, Submission};
pub use core::{Engine, EngineOptions, LATENESS_S_MAX, RETENTION_S_MIN, Snapshot, TimeAtStart};
pub use expiry::{Expiry, Retention, compaction_before_s, expiry_plan, has_expired};
pub use explaining::explain;
pub use lookups::LookupState;
pub use rebuild::{RebuildJob, Rebuilt};
pub use since::Stamp;
pub use time::note_deliveries;
pub use urgency::Urgency;
pub use vouched::vouched_ms;
