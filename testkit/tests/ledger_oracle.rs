//! The engine on its real store agrees with the oracle on the same facts: byte for byte, at every
//! moment, in any order of arrival, through restarts, conflicts and changes of the rules.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the parts of one test binary")]

#[path = "../../aggregator/tests/shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod aggregator;
#[path = "ledger_oracle/census.rs"]
mod census;
#[path = "ledger_oracle/corners.rs"]
mod corners;
#[path = "ledger_oracle/drive.rs"]
mod drive;
#[path = "ledger_oracle/learning.rs"]
mod learning;
#[path = "../../aggregator/tests/shared/stepping.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod stepping;
#[path = "ledger_oracle/story.rs"]
mod story;
#[path = "ledger_oracle/world.rs"]
mod world;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use world::{Delivery, World, busy_deliveries, deliveries, worlds, worlds_of_newcomers};

/// The default number of histories of all properties together.
const CASES: u32 = 100;

fn check(share_percent: u32, histories: &impl Strategy<Value = (World, Delivery, Delivery)>) {
    let told = std::env::var("UPTIME_TEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = (told.unwrap_or(CASES) * share_percent).div_ceil(100);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(cases) };
    let result = TestRunner::new(config).run(histories, |(world, one, other)| {
        runtime.block_on(async {
            let epochs = drive::epochs_of(&world).await;
            let facts = world.facts(&epochs);
            let first = drive::run(&world, &facts, &one).await;
            let second = drive::run(&world, &facts, &other).await;
            prop_assert_eq!(first, second, "the order of arrival shows");
            Ok(())
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn any_history_under_one_set_of_rules() {
    check(60, &(worlds(0..=0), deliveries(), deliveries()));
}

#[test]
fn any_history_through_changes_of_the_rules() {
    check(40, &(worlds(1..=2), deliveries(), deliveries()));
}

#[test]
fn any_history_in_which_nodes_are_seen_before_they_offer() {
    check(15, &(worlds_of_newcomers(), busy_deliveries(), deliveries()));
}
