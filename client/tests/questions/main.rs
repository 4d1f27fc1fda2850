//! The library and the command against a real aggregator, and against one that misbehaves.
//!
//! Everything runs over loopback sockets on ports the system chose. What takes a while is watched
//! until it is so, within a deadline; nothing waits for a fixed time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod answers;
mod audit_log;
mod command;
mod contrary;
mod failures;
mod garbage;
mod genuine;
mod help;
mod hostile;
mod library;
mod listings;
mod secure;
mod terminal;
mod watch_command;
mod watching;
mod wire;

use std::time::Duration;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// An id with this number in its last bytes.
fn id(number: u32) -> uptime_client::NodeId {
    let mut bytes = [0; 20];
    bytes[16..].copy_from_slice(&number.to_be_bytes());
    uptime_client::NodeId::new(bytes)
}
