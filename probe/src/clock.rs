//! Clocks: reading them, and how far they are trusted.
//!
//! Everything else is told what time it is, by [`Timekeeper`] in rounds.

mod reading;
mod rule;
mod timekeeper;

pub use reading::{boot_id, kernel_clock, moment, now_unix_ms};
pub use timekeeper::{NoTime, Now, Timekeeper};
