//! Wrong clocks: the shipped programs as processes whose wall clock is set ahead or back, at their
//! start or while they run, and set right again.
//!
//! A minute and a half later nothing is missing: each round of right time was handed in or is told
//! as a gap, nothing was refused for good, and the CSV is what the oracle makes of the facts.
//!
//! The clocks are moved by libfaketime, which Debian has as a package. The boot clock and the
//! monotonic clock go on as they are. The programs must be built: `cargo nextest run --workspace`
//! builds them, a test run of this crate alone does not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../../aggregator/tests/shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod aggregator;
mod fixture;
mod judge;
#[allow(dead_code, reason = "other suites kill programs and make them stand still")]
#[path = "../shared/program.rs"]
mod program;
#[path = "../shared/stored.rs"]
mod stored;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use fixture::{Case, Fixture, Kernel, When, Who};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// The time limit of a condition: much more than it ever takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds of a round.
const PERIOD_S: u64 = 2;
/// The clock is wrong for so long: two clocks are held to contradict after 45 s at the latest.
const WRONG_FOR: Duration = Duration::from_secs(50);
/// All is well again at the latest so long after the clock is right: a step is confirmed after a
/// minute, and what was put off is sent again within half a minute.
const RIGHT_WITHIN: Duration = Duration::from_secs(90);

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;

async fn run(case: Case) {
    let mut fixture = Fixture::open(case).await;
    fixture.go_wrong().await;
    fixture.be_right().await;
    fixture.stop().await;
    judge::judge(&fixture).await;
}

macro_rules! cases {
    ($($name:ident: $who:ident $by_s:expr, $when:ident, $kernel:ident;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (who, when, kernel) = (Who::$who, When::$when, Kernel::$kernel);
            run(Case { who, by_s: $by_s, when, kernel }).await;
        })+
    };
}

// Where all clocks are wrong alike, their kernels say that they are synchronised: by one time
// server that is wrong. Elsewhere the kernel of the host with the wrong clock says that it is not.
cases! {
    the_aggregator_is_half_a_minute_ahead_for_a_while: Aggregator 30, Running, Unsynchronised;
    the_aggregator_starts_an_hour_back: Aggregator -HOUR_S, AtStart, Unsynchronised;
    the_aggregator_starts_forty_days_ahead: Aggregator 40 * DAY_S, AtStart, Unsynchronised;
    the_aggregator_is_500_days_back_for_a_while: Aggregator -500 * DAY_S, Running, Unsynchronised;
    a_probe_is_an_hour_ahead_for_a_while: Probe HOUR_S, Running, Unsynchronised;
    a_probe_starts_forty_days_back: Probe -40 * DAY_S, AtStart, Unsynchronised;
    all_start_500_days_ahead: All 500 * DAY_S, AtStart, Synchronised;
    all_are_half_a_minute_back_for_a_while: All -30, Running, Synchronised;
}

/// Number of cases at a time: they wait for minutes and compute little.
const CASES_AT_ONCE: usize = 8;

/// Every combination.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_every_wrong_clock_is_survived() {
    let mut cases = Vec::new();
    for who in [Who::Aggregator, Who::Probe, Who::All] {
        for kernel in [Kernel::Synchronised, Kernel::Unsynchronised] {
            // Where nothing says which of two times is right, what was stored ahead of its time
            // stays the word of two clocks. And an aggregator whose kernel says that its wrong
            // clock is synchronised is sure of it, until two probes contradict it.
            let beyond =
                [(Who::All, Kernel::Unsynchronised), (Who::Aggregator, Kernel::Synchronised)];
            if beyond.contains(&(who, kernel)) {
                continue;
            }
            for by_s in [30, HOUR_S, 40 * DAY_S, 500 * DAY_S] {
                for when in [When::AtStart, When::Running] {
                    cases.extend([by_s, -by_s].map(|by_s| Case { who, by_s, when, kernel }));
                }
            }
        }
    }
    let (mut running, mut failed) = (JoinSet::new(), Vec::new());
    for case in cases {
        if running.len() == CASES_AT_ONCE {
            failed.extend(running.join_next().await.unwrap().unwrap());
        }
        // On threads of their own: what judges a case computes for a while.
        running.spawn_blocking(move || {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let ran = catch_unwind(AssertUnwindSafe(|| runtime.unwrap().block_on(run(case))));
            ran.is_err().then_some(case)
        });
    }
    while let Some(ended) = running.join_next().await {
        failed.extend(ended.unwrap());
    }
    assert!(failed.is_empty(), "see above: {failed:?}");
}
