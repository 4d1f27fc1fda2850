//! When rounds close: with the votes about the silent, and no later than the probes are done.

use std::time::Duration;

use uptime_proto::v1::{EvidenceClass, Verdict};
use uptime_testkit::fake_yagna::NetTiming;

use super::fixture::{Fixture, PROBES, Rules};

const NODES: usize = 30;

/// As long as the defaults, but that the living are heard of every second.
fn timing() -> NetTiming {
    NetTiming { ping_interval: Duration::from_secs(1), ..NetTiming::default() }
}

/// The slowest answers there are, in the shortest rounds that have room for them: two questions of
/// four seconds each, a second apart, and `FindNode` before and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_rounds_of_ten_seconds_the_silent_are_down_when_the_round_closes() {
    const PERIOD_S: u64 = 10;
    let fixture = Fixture::open(&Rules {
        period_s: PERIOD_S,
        aggregator: &[("--freshness-s", "3"), ("--relay-session-age-min-s", "10")],
        timing: timing(),
        channels: [true, false, false],
        nodes: NODES,
    })
    .await;
    let (silent, living) = fixture.ids.split_at(3);
    let died_s = fixture.at_next_round(0).await;
    fixture.world.kill(&silent[0]);
    fixture.world.freeze(&silent[1]);
    fixture.world.link_down(&silent[2]);
    let last_s = died_s + 3 * PERIOD_S;
    let rounds = fixture.closed(last_s).await;
    for (round_s, round) in rounds.range(died_s + PERIOD_S..=last_s) {
        assert_eq!(round.down, silent.len() as u64, "when {round_s} closed: {round:?}");
        for id in silent {
            let told = fixture.explain(id, *round_s).await;
            assert_eq!(told.verdict(), Verdict::Down);
            let parts = told.probes.iter().flat_map(|probe| &probe.parts);
            let votes = parts.filter(|part| {
                part.evidence().any(|evidence| evidence == EvidenceClass::Unreachable)
            });
            let received: Vec<i64> = votes.map(|part| part.received_at_unix_ms).collect();
            assert_eq!(received.len(), PROBES, "{told:?}");
            assert!(received.iter().all(|at_ms| *at_ms <= round.at_ms), "{received:?} {round:?}");
        }
    }
    fixture.always_lived(living).await;
    fixture.nothing_was_strange().await;
    fixture.end().await;
}

/// A grace of 20 s is not waited for when every probe has said that it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_closes_before_its_grace_is_over_when_all_probes_are_done() {
    const PERIOD_S: u64 = 5;
    const GRACE_S: u64 = 20;
    let fixture = Fixture::open(&Rules {
        period_s: PERIOD_S,
        aggregator: &[
            ("--grace-s", "20"),
            ("--freshness-s", "3"),
            ("--direct-timeout-ms", "1000"),
            ("--relay-session-age-min-s", "10"),
        ],
        timing: timing(),
        channels: [true, false, false],
        nodes: NODES,
    })
    .await;
    let died_s = fixture.at_next_round(0).await;
    fixture.world.kill(&fixture.ids[0]);
    let last_s = died_s + 3 * PERIOD_S;
    let rounds = fixture.closed(last_s).await;
    let written_ms = fixture.csv_written_ms();
    let over_ms = |round_s: u64| i64::try_from((round_s + PERIOD_S + GRACE_S) * 1_000).unwrap();
    for (round_s, round) in rounds.range(died_s..=last_s) {
        assert!(round.at_ms < over_ms(*round_s), "{round_s}: {round:?}");
        assert!(round_s < &(died_s + 2 * PERIOD_S) || round.down == 1, "{round_s}: {round:?}");
    }
    assert!(written_ms < over_ms(last_s));
    assert_eq!(fixture.csv()[&fixture.ids[0]], "False");
    fixture.end().await;
}
