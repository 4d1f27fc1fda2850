//! Asking the relay itself: who is registered there, and when it last heard of each.
//!
//! Owns turning the relay's pages, which are cut off silently, into a complete listing. `watch`
//! adds the relay's events. Does not judge ages. Needs no key.
//!
//! Invariants:
//! * A listing is complete or an error. A page that may be cut off is never trusted; sixteen finer
//!   pages replace it. One failed page fails the listing, because its nodes would be missing.
//! * An age may be too large by the time that the answer took, but never too small.
//! * A failed listing changes nothing that is remembered.

mod client;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod listing;
mod moment;
mod page;
mod prefix;
#[cfg(test)]
mod recordings;
mod view;
mod watch;

pub use client::{Relay, RelayConfigError, RelayLimits, RelayOptions};
pub use moment::Listed;
pub use watch::RelayWatch;
