//! The dead are shown as dead and the living never are: the shipped programs as processes beside
//! fake daemons, through every kind of death, and random courses of them.
//!
//! The network's times are shortened in one ratio, which each test names. With 36 an hour is 100 s,
//! which are 20 rounds of 5 s, and the relay forgets a silent session after 17 s instead of ten
//! minutes. `long_` tests have as many rounds in an hour as there are by default. Each scenario
//! needs many rounds, so they go on side by side, many nodes in one network.
//!
//! The programs must be built: `cargo nextest run --workspace` builds them, a test run of this
//! crate alone does not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../../aggregator/tests/shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod aggregator;
mod closes;
mod courses;
mod daemons;
mod fixture;
mod kinds;
#[path = "../shared/program.rs"]
#[allow(dead_code, reason = "shared with the soak, which does more with it")]
mod program;
mod relay;
#[path = "../../../aggregator/tests/shared/stepping.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod stepping;

use std::time::Duration;

/// The time limit of a condition: much more than it ever takes, for busy machines.
const PATIENCE: Duration = Duration::from_secs(90);
