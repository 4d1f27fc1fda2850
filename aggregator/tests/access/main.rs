//! Who has access, and what a hostile or broken peer can do: over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod abuse;
mod administering;
mod certificates;
mod document;
#[path = "../shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod fixture;
mod flood;
mod frames;
mod matrix;
#[path = "../shared/reports.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod reports;
mod streams;
mod support;
