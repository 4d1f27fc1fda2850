//! The only module that knows yagna's REST API, its command line as a fallback, and the relay's
//! listing.
//!
//! Owns how the daemon is asked (one shared HTTP client, limits on everything), what its answers
//! mean, and the deletion of every scan and demand opened to ask. `relay` asks the relay itself,
//! without the daemon. Does not decide when to ask, how often to repeat a question, or what an
//! answer is worth as evidence: the scan does. Reads no wall clock.
//!
//! Invariants:
//! * One table, `answers.rs`, has every answer that is interpreted, with its recording of a real
//!   daemon. Any other answer is "could not look": an error with a reason of the closed list, which
//!   never becomes "not found" or "unanswered".
//! * Everything opened at the daemon is deleted again, also after errors, time limits and
//!   cancellation. Demands of others are never touched.
//! * The application key is in no error, log or debug output.
//! * Input from the daemon or a provider is bounded in bytes, items and time.

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
