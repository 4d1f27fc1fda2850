//! The pages, the API, the CSV and the badges, asked over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod api;
mod files;
mod fixture;
mod front;
mod pages;
#[path = "../shared/stepping.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod stepping;
