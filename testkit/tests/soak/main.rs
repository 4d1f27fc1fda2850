//! The soak test: the shipped programs as processes, round after round, with random faults around
//! them from a seed. At the end the answers of the aggregator must match what happened.
//!
//! Rounds of two seconds are the shortest there are: listing a market takes one, because a pause
//! of a second is what ends it. `UPTIME_SOAK_ROUNDS` says how many rounds of trouble `long_soak`
//! has, `UPTIME_SOAK_SEED` repeats a run's dice.
//!
//! The programs must be built: `cargo nextest run --workspace` builds them, a test run of this
//! crate alone does not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../../aggregator/tests/shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod aggregator;
mod children;
mod damage;
mod judge;
mod network;
#[path = "../shared/program.rs"]
mod program;
mod script;
#[path = "../shared/stored.rs"]
mod stored;

use std::time::Duration;

use script::Soak;

/// Seconds of a round.
const PERIOD_S: u64 = 2;
/// The time limit of a condition: much more than it ever takes, for busy machines.
const PATIENCE: Duration = Duration::from_secs(90);
/// Rounds of trouble in the ordinary suite: with starting, healing and the last close well below a
/// minute.
const ROUNDS_SHORT: u64 = 10;
/// Rounds of trouble in the profile `long`: 35 minutes.
const ROUNDS_LONG: u64 = 1_000;
/// The dice of the ordinary suite: the aggregator stands still, probes are killed four times, and
/// spools are damaged, one of them while parts wait in it.
const SEED_SHORT: u64 = 9;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: must be a number, not {text:?}")))
}

async fn soak(rounds: u64, seed: u64) {
    // The metrics client needs a provider, though metrics are plain text. An error means that the
    // other test of this process has installed one.
    rustls::crypto::ring::default_provider().install_default().ok();
    eprintln!("{rounds} rounds of trouble, seed {seed} (UPTIME_SOAK_SEED)");
    let mut soak = Box::pin(Soak::open(seed)).await;
    for round in 0..rounds {
        soak.round(round, rounds).await;
    }
    soak.heal().await;
    soak.settle().await;
    judge::judge(soak, rounds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_made_up_whatever_goes_wrong() {
    soak(ROUNDS_SHORT, number("UPTIME_SOAK_SEED").unwrap_or(SEED_SHORT)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_soak_stays_right_and_does_not_grow() {
    let rounds = number("UPTIME_SOAK_ROUNDS").unwrap_or(ROUNDS_LONG);
    soak(rounds, number("UPTIME_SOAK_SEED").unwrap_or_else(rand::random)).await;
}
