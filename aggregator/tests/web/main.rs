//! The pages, the API, the CSV and the badges, asked over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod api;
mod files;
mod pages;
mod stage;
