//! Who is let in and who is not, and what a hostile or broken peer can do: over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod abuse;
mod administering;
mod certificates;
mod document;
mod flood;
mod frames;
mod matrix;
#[expect(dead_code, reason = "shared with the collector's tests, which use all of it")]
#[path = "../collector/support.rs"]
mod reports;
mod streams;
mod support;
