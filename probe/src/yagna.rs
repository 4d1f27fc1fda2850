//! The only room that knows yagna's REST API, its command line where that has to stand in, and
//! the relay's listing.
//!
//! Owns: how the daemon is asked (one shared HTTP client, limits on everything), what its answers
//! mean, and the clearing away of every scan and demand that was opened to ask. `relay` asks the
//! relay itself, past the daemon. Refuses to decide when to ask, how often to repeat a question
//! and what an answer is worth as evidence: that is the scan's. Reads no wall clock.
//!
//! Invariants:
//! * Every answer that is interpreted stands in one table, `answers.rs`, with the recording of a
//!   real daemon that it rests on. Any other answer is "could not look": an error with a reason of
//!   the closed list, which is never turned into "not found" or "unanswered".
//! * Whatever was opened at the daemon is deleted again, also after errors, time limits and
//!   cancellation; a demand of anybody else is never touched.
//! * The application key is in no error, log or debug output.
//! * What the daemon or a provider says is bounded in bytes, items and time before it is believed.

mod adjustable_semaphore;
mod answers;
mod by_command;
mod capability_cache;
mod client;
mod command;
mod fault;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod http;
mod market;
mod net;
mod offer;
mod open;
mod options;
mod outcome;
mod peer;
mod peer_scans;
mod ping;
mod rate_limiter;
#[cfg(test)]
mod recordings;
pub mod relay;
mod sse;
mod time_text;

pub use client::Yagna;
pub use command::CommandOptions;
pub use fault::CouldNotLook;
pub use market::{Offer, valid_subnet};
pub use options::{AppKey, Limits, YagnaConfigError, YagnaOptions, valid_url};
pub use outcome::{Found, PeerAnswer};
pub use peer::PeerQuestions;
pub use ping::RoundTrip;
pub use relay::{Relay, RelayLimits, RelayOptions};
