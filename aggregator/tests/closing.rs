//! When rounds close: as soon as every probe that had look-ups is done, however long the grace.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod fixture;
#[path = "shared/stepping.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod stepping;

use fixture::{DAY_S, engine, part, period};
use stepping::{catch_up, submit};
use uptime_aggregator::engine::{EngineOptions, Submission};
use uptime_proto::{Class, Epoch, Kind, NodeId, Part, Round, Sets};

/// The grace of a round reaches over the four rounds after it.
#[tokio::test]
async fn rounds_whose_graces_overlap_close_when_their_probes_are_done() {
    let period = period(5);
    let rules = Epoch { grace_s: 20, ..Epoch::with_defaults(period) };
    let mut round = Round::new(DAY_S, period).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (data_dir, options) = (directory.path(), EngineOptions::new(rules));
    let (mut engine, probes) = engine(data_dir, &["alpha"], options, round.start_ms()).await;
    for number in 0..12 {
        let seen = Sets::default().with(Class::Seen, vec![NodeId::new([1; 20])]);
        let part = part(round, "", Kind::Lookup, seen);
        let part = Part { observed_at_ms: round.start_ms() + 4_000, ..part };
        let submission = Submission {
            probe: probes[0],
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
