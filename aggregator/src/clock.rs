//! Clocks: reading them, and how far they are trusted.
//!
//! Everything else is told what time it is, and by [`Timekeeper`] how far that is trusted.

mod reading;
mod rule;
mod timekeeper;

pub use reading::{kernel_clock, moment, now_unix_ms};
pub use rule::{Judged, PeerClock, Rule};
pub use timekeeper::Timekeeper;
