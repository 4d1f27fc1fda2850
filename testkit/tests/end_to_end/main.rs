//! Everything in one process: fake daemons, real probes, a real aggregator, real sockets, and
//! injected faults. The results must equal those of the oracle, to the byte.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../../aggregator/tests/shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod aggregator;
mod fixture;
#[path = "../shared/stored.rs"]
mod stored;

use std::time::Duration;

use fixture::{Fixture, PERIOD_S};
use uptime_proto::{Class, Kind, NodeId, Outcome, Part, PartKey, Period, Reason, Round, Sets};
use uptime_testkit::oracle;

/// A provider dies, a daemon freezes, the aggregator stops for some rounds, a probe is killed
/// without notice: the CSV shows the dead one, nobody else, and is what the oracle says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scripted_run_equals_the_oracle_to_the_byte() {
    let mut fixture = Fixture::open(24).await;
    fixture.start_aggregator().await;
    for probe in 0..3 {
        fixture.start_probe(probe);
    }
    fixture.rounds_closed_with(3, |summary| summary.up == 24).await;

    let dead = fixture.world.alive_ids()[5].clone();
    fixture.world.kill(&dead);
    fixture.daemons[2].freeze();
    fixture.rounds_closed_with(1, |summary| summary.down == 1).await;

    // The aggregator is away for two rounds; probes go on and spool.
    fixture.stop_aggregator().await;
    fixture.kill_probe(1).await;
    fixture.start_probe(1);
    tokio::time::sleep(Duration::from_secs(2 * PERIOD_S)).await;
    fixture.start_aggregator().await;
    fixture.rounds_closed_with(3, |summary| summary.down == 1 && summary.up == 23).await;
    for probe in 0..3 {
        fixture.kill_probe(probe).await;
    }
    fixture.all_delivered().await;
    fixture.stop_aggregator().await;

    let (facts, epochs, closed) = fixture.facts().await;
    let csv = fixture.csv();
    assert_eq!(csv, oracle::csv(&facts, &epochs, closed));
    let offline: Vec<&str> = csv.lines().skip(1).filter(|row| row.contains(",False,")).collect();
    assert_eq!(offline.len(), 1, "{csv}");
    assert!(offline[0].starts_with(&dead), "{offline:?}");
    assert_eq!(csv.lines().count(), 25);
    // The frozen daemon's probe said that it could not look, and why.
    assert!(fixture.reasons(&facts, 2).contains(&Reason::TimedOut));
}

/// Everything a daemon can do wrong, one after another: the report says so, nobody becomes down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong_with_a_daemon_nobody_becomes_down() {
    use uptime_testkit::fake_yagna::{Fault, FaultKind};
    let mut fixture = Fixture::open(12).await;
    fixture.start_aggregator().await;
    fixture.start_probe(0);
    fixture.rounds_closed_with(1, |summary| summary.up == 12).await;
    let all = |kind: FaultKind| Some(Fault::new("/", kind));
    let faults: Vec<(Option<Fault>, bool, Reason)> = vec![
        (None, true, Reason::Unauthorised),
        (all(FaultKind::Status(500, "broken".into())), false, Reason::NetError),
        (all(FaultKind::MalformedJson), false, Reason::MalformedAnswer),
        (all(FaultKind::CloseWithoutByte), false, Reason::YagnaUnreachable),
    ];
    for (fault, refuse_key, reason) in faults {
        fixture.daemons[0].set_fault(fault);
        fixture.daemons[0].refuse_key(refuse_key);
        let said = |summary: &fixture::Summary| {
            summary.probes.values().any(|probe| probe.could_not_look.contains(&reason))
        };
        fixture.rounds_closed_with(1, |summary| said(summary) && summary.down == 0).await;
    }
    fixture.daemons[0].set_fault(None);
    fixture.daemons[0].refuse_key(false);
    fixture.rounds_closed_with(1, |summary| summary.up == 12).await;
    fixture.kill_probe(0).await;
    fixture.stop_aggregator().await;
    let csv = fixture.csv();
    assert!(!csv.contains("False"), "{csv}");
    let (facts, epochs, closed) = fixture.facts().await;
    assert_eq!(csv, oracle::csv(&facts, &epochs, closed));
    // Scans whose deletion a fault swallowed end by their own timeout; demands would live an hour.
    assert_eq!(fixture.daemons[0].open_demands(), 0);
}

/// The length of a round changes while a probe runs: it goes on with rounds of the new length, and
/// nothing that it hands in is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_probe_takes_over_rounds_of_another_length() {
    const NEW_PERIOD_S: u64 = PERIOD_S / 2;
    let mut fixture = Fixture::open(6).await;
    fixture.start_aggregator().await;
    fixture.start_probe(0);
    fixture.rounds_closed_with(1, |summary| summary.up == 6).await;
    fixture.set_period(NEW_PERIOD_S).await;
    let is_new =
        |summary: &fixture::Summary| u64::from(summary.round.period().seconds()) == NEW_PERIOD_S;
    fixture.rounds_closed_with(3, |summary| is_new(summary) && summary.up == 6).await;
    assert_eq!(fixture.parts_refused(), 0);
    fixture.kill_probe(0).await;
    fixture.stop_aggregator().await;
    let (facts, epochs, closed) = fixture.facts().await;
    assert_eq!(epochs.all().len(), 2);
    assert_eq!(fixture.csv(), oracle::csv(&facts, &epochs, closed));
    // Of each round it has parts by the length of its time.
    assert!(facts.iter().all(|fact| epochs.in_force(fact.part.key.round)), "{facts:?}");
}

/// One identity, one stream; and `check` with the token of a probe that runs ends none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_keeps_its_stream_while_check_runs_with_its_token() {
    let mut fixture = Fixture::open(6).await;
    fixture.start_aggregator().await;
    fixture.start_probe(0);
    fixture.rounds_closed_with(1, |summary| summary.up == 6).await;
    let lost = fixture.stream_lost(0);
    let checked = async {
        let output = fixture.check(0).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        for well in ["knows this probe as alpha", "3 of 3 nodes answered", "a running probe uses"] {
            assert!(said.contains(well), "no {well:?} in {said}");
        }
        // What the probe sends afterwards arrives, too.
        fixture.rounds_closed_with(1, |summary| summary.up == 6).await;
    };
    tokio::select! {
        () = lost => panic!("check took over the stream of the probe that runs"),
        () = checked => {}
    }
    fixture.kill_probe(0).await;
    fixture.stop_aggregator().await;
}

/// A gap waits in the spool like a part, is sent alone, and leaves it when it is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_delivered_without_any_part() {
    let mut fixture = Fixture::open(1).await;
    fixture.start_aggregator().await;
    let reason = uptime_proto::v1::CouldNotLookReason::Missed as i32;
    let gap = uptime_proto::v1::Gap { from_round_unix_s: 8_000, to_round_unix_s: 8_008, reason };
    fixture.leave_gap(0, gap);
    fixture.all_drained().await;
    fixture.stop_aggregator().await;
}

/// What a probe found in a past round: of these nodes one dies in each hundredth round.
fn found(round: Round, kind: Kind) -> Part {
    let age = round.start_s() / u64::from(round.period().seconds());
    let dead = u8::try_from(age / 100 % 20).unwrap();
    let ids = |bytes: std::ops::Range<u8>| bytes.map(|byte| NodeId::new([byte + 1; 20])).collect();
    let market = kind == Kind::Market;
    let sets = match kind {
        Kind::Market => Sets::default().with(Class::Offer, ids(0..40)),
        _ => {
            Sets::default().with(Class::Unreachable, ids(0..dead)).with(Class::Seen, ids(dead..40))
        }
    };
    Part {
        key: PartKey {
            subnet: if market { "public".into() } else { String::new() },
            round,
            number: 0,
        },
        kind,
        outcome: Outcome::Looked,
        observed_at_ms: round.start_ms() + if market { 500 } else { 3_000 },
        relay_session_age_s: (!market).then_some(3_600),
        sets,
    }
}

/// Half an hour without an aggregator: every part that was spooled is stored as it was, none twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_is_drained_into_the_aggregator_to_the_last_part() {
    const ROUNDS: u64 = 450;
    let mut fixture = Fixture::open(1).await;
    fixture.start_aggregator().await;
    let period = Period::new(u32::try_from(PERIOD_S).unwrap()).unwrap();
    let now_s = u64::try_from(uptime_probe::clock::now_unix_ms()).unwrap() / 1_000;
    let last_s = now_s / PERIOD_S * PERIOD_S - 10 * PERIOD_S;
    let rounds = (0..ROUNDS).rev().map(|back| last_s - back * PERIOD_S);
    let rounds = rounds.map(|start_s| Round::new(start_s, period).unwrap());
    let parts: Vec<Part> = rounds
        .flat_map(|round| [Kind::Market, Kind::Lookup].map(|kind| found(round, kind)))
        .collect();
    fixture.leave_parts(0, &parts);
    fixture.all_drained().await;
    fixture.stop_aggregator().await;
    let (facts, ..) = fixture.facts().await;
    let mut stored: Vec<&Part> = facts.iter().map(|fact| &fact.part).collect();
    stored.sort_by(|one, other| one.key.cmp(&other.key));
    let mut wanted: Vec<&Part> = parts.iter().collect();
    wanted.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!(stored.len(), wanted.len());
    assert!(stored == wanted, "something was stored otherwise than it was spooled");
}
