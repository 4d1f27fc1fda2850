//! Data in and out in bulk, over real stores: what was imported and observed comes out again, in
//! every format, and says the same as the ledger does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod export;
#[path = "../shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod fixture;
mod python;
mod seed;
#[path = "../shared/stepping.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod stepping;
mod support;
