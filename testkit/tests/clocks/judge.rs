//! Whether anything is missing after a clock was wrong.

use std::collections::BTreeSet;

use uptime_accounting::fact::Gap;
use uptime_aggregator::engine::replay::rebuild;
use uptime_aggregator::publish::write_csv;
use uptime_aggregator::store::{FactLog, SqliteStore, Store};
use uptime_proto::{Epochs, Reason, Round};
use uptime_testkit::oracle::{self, OracleFact};

use super::PERIOD_S;
use super::fixture::{Fixture, Who};
use super::stored::stored;

/// The CSV may be of a round some rounds before or after the stop.
const ROUNDS_AROUND: u64 = 10;
/// The maximum number of seconds that the oracle is asked about.
const ORACLE_S_MAX: u64 = 86_400;
/// Right time begins so long after the start: a probe may start while the first round goes on.
const FIRST_ROUNDS_S: u64 = 2 * PERIOD_S;

pub(crate) async fn judge(fixture: &Fixture) {
    let data = fixture.directory.path().join("data");
    let (facts, epochs) = stored(&data).await;
    let mut store = SqliteStore::open(&data).await.unwrap();
    let gaps = store.gaps(0, u64::from(u32::MAX)).await.unwrap();
    let rounds: BTreeSet<u64> = facts.iter().map(|fact| fact.part.key.round.start_s()).collect();
    let (first_s, last_s) = (rounds.first().copied(), rounds.last().copied());
    // The oracle goes through all rounds, and forty days have millions of them.
    if last_s.unwrap_or(0) - first_s.unwrap_or(0) < ORACLE_S_MAX {
        published_is_what_the_oracle_says(fixture, &facts, &epochs);
    } else {
        published_is_what_facts_say(fixture, &mut store).await;
    }
    for place in 0..fixture.probes.len() {
        each_round_is_handed_in_or_told_as_a_gap(fixture, place, &facts, &gaps);
    }
    // A probe that believes a wrong clock makes parts of rounds to come for a while; nothing in
    // them is true.
    if !fixture.case.believes_a_wrong_clock() {
        assert!(fixture.refused < 0.5, "{} parts were refused or conflict", fixture.refused);
    }
}

/// The same, by the ledger's own fold of all facts.
async fn published_is_what_facts_say(fixture: &Fixture, store: &mut SqliteStore) {
    let csv = published(fixture);
    store.hold().await.unwrap();
    let around_s = ROUNDS_AROUND * PERIOD_S;
    for now_s in rounds(fixture.stopped_s - around_s, fixture.stopped_s + around_s) {
        let now_ms = i64::try_from(now_s * 1_000).unwrap();
        let rebuilt = rebuild(store, now_ms, false).await.unwrap().unwrap();
        let mut bytes = Vec::new();
        write_csv(&rebuilt.snapshot, &mut bytes).unwrap();
        if bytes == csv.as_bytes() {
            return;
        }
    }
    panic!("the CSV is none that comes of the facts:\n{csv}");
}

fn published(fixture: &Fixture) -> String {
    let csv = fixture.directory.path().join("data/nodes_status.csv");
    let csv = std::fs::read_to_string(csv).unwrap();
    let nodes = csv.lines().count() - 1;
    assert!(csv.matches(",True,").count() == nodes && nodes > 0, "all of them live:\n{csv}");
    csv
}

/// The CSV is a function of the stored facts and the last closed round, which is over.
fn published_is_what_the_oracle_says(fixture: &Fixture, facts: &[OracleFact], epochs: &Epochs) {
    let csv = published(fixture);
    let rounds = rounds(
        fixture.stopped_s - ROUNDS_AROUND * PERIOD_S,
        fixture.stopped_s + ROUNDS_AROUND * PERIOD_S,
    );
    let is_of = |start_s: &u64| {
        let round = epochs.round_at_ms(i64::try_from(start_s * 1_000).unwrap());
        oracle::csv(facts, epochs, Some(round)) == csv
    };
    assert!(rounds.iter().any(is_of), "the CSV is none that the oracle makes of the facts:\n{csv}");
}

fn rounds(from_s: u64, to_s: u64) -> Vec<u64> {
    let period = uptime_proto::Period::new(u32::try_from(PERIOD_S).unwrap()).unwrap();
    let first = Round::new(from_s.next_multiple_of(PERIOD_S), period).unwrap();
    (first.start_s()..to_s).step_by(usize::try_from(PERIOD_S).unwrap()).collect()
}

/// From the first round that a probe handed in, or told of, by right time. Where only the
/// aggregator's clock is wrong a probe has no gaps.
fn each_round_is_handed_in_or_told_as_a_gap(
    fixture: &Fixture,
    place: usize,
    facts: &[OracleFact],
    gaps: &[Gap],
) {
    let number = u32::try_from(place).unwrap() + 1;
    let begun_s = fixture.right_s - 300;
    let there: BTreeSet<u64> = facts
        .iter()
        .filter(|fact| fact.probe == number)
        .map(|fact| fact.part.key.round.start_s())
        .filter(|start_s| (begun_s..fixture.stopped_s).contains(start_s))
        .collect();
    let gaps: Vec<&Gap> = gaps.iter().filter(|gap| gap.probe == number).collect();
    let handed_in_s = *there.first().expect("it handed in something");
    let first_s = handed_in_s.min(fixture.right_s) + FIRST_ROUNDS_S;
    let told = |start_s: &u64| gaps.iter().any(|gap| (gap.from_s..gap.to_s).contains(start_s));
    // The last rounds may have been going on at the stop.
    let last_s = fixture.stopped_s - 2 * PERIOD_S;
    let missing: Vec<u64> = rounds(first_s, last_s)
        .into_iter()
        .filter(|start_s| !there.contains(start_s) && !told(start_s))
        .collect();
    assert!(missing.is_empty(), "probe-{place}: {missing:?} of {first_s}–{last_s}; gaps: {gaps:?}");
    let was_wrong = fixture.case.who == Who::All || fixture.case.who == Who::Probe && place == 0;
    let of_clock = gaps.iter().filter(|gap| gap.reason == Reason::Clock).count();
    assert!(was_wrong || of_clock == 0, "probe-{place} blames its clock: {gaps:?}");
}
