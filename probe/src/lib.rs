//! The probe of Golem Uptime: scans through one yagna daemon and streams what it found.
//!
//! Source → scan → spool → uplink. Scan and uplink share only the spool, outwards, and the
//! control state, inwards. See ARCHITECTURE.md at the top of the repository.

mod atomic_file;
pub mod check;
pub mod clock;
pub mod config;
pub mod control_state;
pub mod daemon;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod join;
pub mod scan;
pub mod scan_command;
pub mod spool;
mod systemd;
pub mod telemetry;
mod time_format;
pub mod uplink;
pub mod yagna;
