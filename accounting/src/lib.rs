//! How uptime is counted: facts in, verdicts and figures out (accounting page).
//!
//! Owns the records of facts, the rules that turn them into verdicts, and everything that follows
//! from verdicts: timelines, sums, outages, explanations, what readers see. Refuses I/O, async,
//! clocks and storage: whoever calls passes facts and the time in.

pub mod agreement;
pub mod checkpoint;
pub mod cow_vec;
pub mod dictionary;
pub mod evidence;
pub mod explain;
pub mod fact;
pub mod last_seen;
pub mod node;
pub mod outage;
pub mod position;
pub mod probe_status;
pub mod replay;
mod retirement;
pub mod retraction;
pub mod seed;
pub mod snapshot;
pub mod state;
pub mod timeline;
pub mod uptime;
pub mod verdict;
