//! Rules that the engine learns too late: it has closed rounds by the old ones, or accepted facts.
//!
//! Owns one way to be late per test. The oracle gives the expected result.

use uptime_proto::{Class, Kind, Outcome, Part, PartKey, Period, Round, Sets};
use uptime_testkit::oracle::OracleFact;

use crate::drive::Driver;
use crate::world::{BEGIN_S, Rules, node_id};

const RULES: Rules = Rules { announced_slot: 0, period_s: 30, k: 1, retire_after_s: 30 * 86_400 };
/// Of the new rules; on one grid the old rounds are halved, on the other joined.
const PERIODS: [u32; 2] = [15, 60];

/// So many seconds after the beginning, milliseconds.
fn moment(after_s: u64) -> i64 {
    i64::try_from((BEGIN_S + after_s) * 1000).unwrap()
}

/// What probe 1 finds in the round of this grid that begins so many seconds after the beginning:
/// node 0 always, node 1 in every other half minute; node 2 makes an offer and is never found.
fn facts(after_s: u64, period_s: u32) -> Vec<OracleFact> {
    let round = Round::new(BEGIN_S + after_s, Period::new(period_s).unwrap()).unwrap();
    let seen = if after_s.is_multiple_of(60) { 0..2 } else { 0..1 };
    let unreachable = seen.end..3;
    let looked = Sets::default()
        .with(Class::Seen, seen.map(node_id).collect())
        .with(Class::Unreachable, unreachable.map(node_id).collect());
    let offered = Sets::default().with(Class::Offer, (0..3).map(node_id).collect());
    [(Kind::Market, "public", offered), (Kind::Lookup, "", looked)]
        .into_iter()
        .map(|(kind, subnet, sets)| {
            let part = Part {
                key: PartKey { subnet: subnet.to_owned(), round, number: 0 },
                kind,
                outcome: Outcome::Looked,
                observed_at_ms: round.start_ms() + 10_000,
                relay_session_age_s: Some(600),
                sets,
            };
            OracleFact { probe: 1, part }
        })
        .collect()
}

/// A ledger with facts of rounds of 30 s, of which it has closed those before the new rules were
/// announced. They begin before the 500th second, and nobody has told it.
async fn late(period_s: u32, until_s: u64) -> Driver {
    let mut driver = Driver::new(&RULES.epoch(), 1, moment(0)).await;
    for after_s in (0..until_s).step_by(30) {
        if after_s == 120 {
            driver.catch_up(moment(after_s)).await;
            let rules = Rules { period_s, ..RULES };
            driver.announce(&rules.epoch(), moment(after_s)).await;
        }
        driver.submit(&facts(after_s, 30), moment(after_s + 11)).await;
    }
    let begins_s = driver.epochs.all()[1].start_s;
    assert!((BEGIN_S + 150..BEGIN_S + 500).contains(&begins_s), "{begins_s}");
    driver
}

#[tokio::test]
async fn rounds_that_were_closed_by_other_rules_are_decided_again() {
    for period_s in PERIODS {
        // Also where nobody handed in anything since they began.
        for until_s in [600, 150] {
            let mut driver = late(period_s, until_s).await;
            // It closes what is over, and learns afterwards. The 670th second is within a round of
            // either grid.
            for now_ms in [moment(670), moment(760)] {
                driver.catch_up(now_ms).await;
                driver.compare(now_ms, "learnt at a close");
            }
            driver.compare_accounts("learnt at a close").await;
            driver.restart(true, moment(761)).await;
            driver.compare(moment(761), "after a restart");
        }
    }
}

#[tokio::test]
async fn facts_of_open_rounds_move_to_those_of_the_new_grid() {
    for period_s in PERIODS {
        let mut driver = late(period_s, 600).await;
        driver.learn().await;
        driver.catch_up(moment(700)).await;
        driver.compare(moment(700), "learnt before the close");
    }
}

#[tokio::test]
async fn what_comes_while_all_is_folded_by_the_new_rules_counts() {
    for period_s in PERIODS {
        for restarts in [false, true] {
            let mut driver = late(period_s, 600).await;
            driver.learn().await;
            // Begun, folded, handed over; between them facts of both grids come, some late.
            for (step, after_s) in [600, 660, 720].into_iter().enumerate() {
                driver.refold(moment(after_s)).await;
                driver.submit(&facts(after_s, period_s), moment(after_s + 11)).await;
                let late_s = 60 * step as u64;
                driver.submit(&facts(300 + late_s, period_s), moment(after_s + 12)).await;
                driver.submit(&facts(after_s + 30, 30), moment(after_s + 41)).await;
            }
            if restarts {
                driver.restart(true, moment(800)).await;
            }
            driver.settle(moment(800)).await;
            driver.compare(moment(800), "handed over");
        }
    }
}
