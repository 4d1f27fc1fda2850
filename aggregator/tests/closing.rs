//! When rounds close: as soon as every probe that had look-ups is done, however long the grace.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "shared/stepping.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod stepping;

use stepping::{catch_up, submit};
use uptime_aggregator::engine::{Engine, EngineOptions, Submission};
use uptime_aggregator::store::{Registry, SqliteStore};
use uptime_proto::{Class, Epoch, Kind, NodeId, Outcome, Part, PartKey, Period, Round, Sets};

const START_S: u64 = 1_769_904_000;

/// The grace of a round reaches over the four rounds after it.
#[tokio::test]
async fn rounds_whose_graces_overlap_close_when_their_probes_are_done() {
    let period = Period::new(5).unwrap();
    let rules = Epoch { grace_s: 20, ..Epoch::with_defaults(period) };
    let mut round = Round::new(START_S, period).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(directory.path()).await.unwrap();
    let probe = store.add_probe("alpha", &[1; 32], &[], 0).await.unwrap().unwrap().number;
    let options = EngineOptions::new(rules);
    let mut engine = Engine::open(store, options, round.start_ms()).await.unwrap();
    for number in 0..12 {
        let part = Part {
            key: PartKey { subnet: String::new(), round, number: 0 },
            kind: Kind::Lookup,
            outcome: Outcome::Looked,
            observed_at_ms: round.start_ms() + 4_000,
            relay_session_age_s: Some(600),
            sets: Sets::default().with(Class::Seen, vec![NodeId::new([1; 20])]),
        };
        let submission = Submission {
            probe,
            parts: vec![part],
            done_round_s: Some(round.start_s()),
            ..Submission::default()
        };
        submit(&mut engine, submission, round.start_ms() + 4_100).await;
        catch_up(&mut engine, round.end_ms() + 100).await;
        // Of the rounds before the first one nobody said anything: their grace is waited for.
        if number >= 4 {
            assert_eq!(engine.snapshot().closed, Some(round), "round {number}");
        }
        round = round.next();
    }
}
