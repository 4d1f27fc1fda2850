//! The probe of Golem Uptime: scans beside one yagna daemon and streams what it saw.
//!
//! Source → scan → spool → uplink. Scan and uplink meet only in the spool, outwards, and in the
//! orders, inwards. See ARCHITECTURE.md at the top of the repository.

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
pub mod uplink;
pub mod yagna;
