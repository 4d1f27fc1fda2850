//! Clocks: reads them and decides how far they are trusted.
//!
//! All other modules get the time from [`Timekeeper`].

mod reading;
mod rule;
mod timekeeper;

pub use reading::{boot_id, kernel_clock, moment, now_unix_ms};
pub use timekeeper::{NoTime, Now, Timekeeper};
