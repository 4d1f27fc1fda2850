//! Asking the relay itself: who is registered there, and when it last heard of each.
//!
//! Owns the way from the relay's pages, which are cut off silently, to a listing that is whole.
//! `watch` adds the relay's own news. Refuses to judge ages. Needs no key.
//!
//! Invariants:
//! * A listing is whole or an error. A page that may have been cut off is never trusted; sixteen
//!   finer ones are asked in its place. One page that failed fails the listing, since a node of
//!   that page would be absent from it for no fault of its own.
//! * An age may be too great by as much as the answer took, never too small.
//! * What a failed listing saw changes nothing of what is remembered.

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
