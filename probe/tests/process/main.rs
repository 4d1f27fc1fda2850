//! The probe's process, as its host runs it: killed, told to read its settings anew, watched by a
//! service manager, speaking TLS. Each test has a fake daemon and a collector of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod check;
mod clocks;
mod fake_collector;
mod frozen;
mod joining;
mod killed;
mod large;
mod memory;
mod neighbours;
mod relay;
mod scan;
mod service;
mod sources;
mod spool;
mod tls;
mod uplink;
