//! Several engines on one model store, model probes, clocks and faults, in one queue of events:
//! what no test of real processes plays through in an hour is played in seconds.
//!
//! A seed decides everything, so that a course that fails is played again by its seed. In each
//! course: equal stamps have equal CSVs; at the end all engines have the CSV of the slow oracle,
//! every acknowledged part is stored and counts once, and nothing expired ahead of its time.
//! `UPTIME_TEST_CASES` says how many seeds are played.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, reason = "the parts of one test binary")]

#[path = "simulation/chance.rs"]
mod chance;
#[path = "simulation/course.rs"]
mod course;
#[path = "simulation/model_store.rs"]
mod model_store;
#[path = "simulation/probes.rs"]
mod probes;

use std::collections::BTreeMap;

use course::Course;

/// Seeds that found something, with what it was.
const FOUND: [(u64, &str); 1] =
    [(146, "rounds that were judged again counted commits that were in no position")];
const SEEDS: u64 = 300;
/// Seeds are played by so many tests, beside each other.
const SHARDS: u64 = 4;

fn played(seed: u64) -> Course {
    let mut course = Course::new(seed);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| course.play()));
    if let Err(panic) = result {
        let tail: Vec<&str> = course.trace.lines().rev().take(30).collect();
        for line in tail.iter().rev() {
            eprintln!("{line}");
        }
        eprintln!("seed {seed}");
        std::panic::resume_unwind(panic);
    }
    course
}

fn seeds() -> u64 {
    std::env::var("UPTIME_TEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(SEEDS)
}

/// Plays every fourth seed twice.
fn play_shard(shard: u64) {
    let mut census: BTreeMap<&str, u64> = BTreeMap::new();
    // The first course is the long one.
    let first = if shard == 0 { SHARDS } else { shard };
    for seed in (first..seeds()).step_by(usize::try_from(SHARDS).unwrap()) {
        let course = played(seed);
        assert_eq!(course.trace, played(seed).trace, "seed {seed} is not played twice the same");
        for (what, count) in course.count {
            *census.entry(what).or_default() += count;
        }
    }
    eprintln!("{census:#?}");
    // What is never tried is not tested.
    let often = seeds() >= SEEDS;
    for what in HAPPENS.iter().filter(|_| often) {
        assert!(census.contains_key(what), "it never happened: {what}");
    }
}

/// What must have happened in some course of each shard.
const HAPPENS: [&str; 18] = [
    "acknowledged",
    "against the oracle",
    "checkpoint",
    "compacted",
    "crash",
    "died at a commit",
    "equal stamps of two engines",
    "landed",
    "landed too late",
    "lease is held",
    "lease lost",
    "lost",
    "not acknowledged",
    "on its way",
    "rebuild",
    "refused",
    "start",
    "unanswered",
];

#[test]
fn engines_agree_with_the_oracle_0() {
    play_shard(0);
}

#[test]
fn engines_agree_with_the_oracle_1() {
    play_shard(1);
}

#[test]
fn engines_agree_with_the_oracle_2() {
    play_shard(2);
}

#[test]
fn engines_agree_with_the_oracle_3() {
    play_shard(3);
}

#[test]
fn facts_expire_over_some_weeks() {
    let course = played(0);
    assert!(course.count.contains_key("expired"), "{:#?}", course.count);
}

#[test]
fn seeds_that_found_something_find_it_no_more() {
    for (seed, _) in FOUND {
        played(seed);
    }
}
