//! Whether the aggregator is right: what it stored, said and published beside what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};

use uptime_accounting::fact::Gap;
use uptime_aggregator::store::{FactLog, SqliteStore};
use uptime_proto::v1::Verdict as Said;
use uptime_proto::{Epochs, NodeId, Reason, Round};
use uptime_testkit::oracle::{self, Oracle, OracleFact, Verdict};

use super::PERIOD_S;
use super::children::Program;
use super::network::Stretch;
use super::script::{DAMAGED_FULL, Resident, STANDS_STILL, Soak};
use super::stored::stored;

/// How long after its death a node may still be found fresh: the freshness of 3 s, and a second
/// each for the whole seconds that `seen` and the clock are told in.
const FRESH_MS: i64 = 5_000;
/// From the end of a round to its close, as the aggregator is started.
const GRACE_MS: i64 = 4_000;
/// Damage is told of as about some rounds: those around what is missing, and parts of rounds that
/// overlap, here by their grace, are not written in the order of their rounds.
const ABOUT_S: u64 = GRACE_MS as u64 / 1_000;
/// Memory is held to its first rounds, and the worst trouble has surely come, only where there were
/// so many.
const ROUNDS_MANY: u64 = 200;
/// Resident memory of a probe may have grown by so much and by a twentieth: allocators give back
/// late.
const PROBE_GROWTH_BYTES_MAX: u64 = 3 << 19;
/// That of the aggregator, which holds the history, by so much and by a tenth.
const AGGREGATOR_GROWTH_BYTES_MAX: u64 = 6 << 20;

/// Panics where something is not as it should be; prints the figures.
pub(crate) async fn judge(soak: Soak, rounds: u64) {
    eprintln!("trouble: {:?}", soak.troubles);
    for worst in [STANDS_STILL, DAMAGED_FULL] {
        let came = soak.troubles.contains_key(worst);
        assert!(came || rounds < ROUNDS_MANY, "this never came: {worst}");
    }
    let data = soak.directory.path().join("data");
    let (facts, epochs) = stored(&data).await;
    let gaps = SqliteStore::open(&data).await.unwrap().gaps(0, u64::from(u32::MAX)).await.unwrap();
    // The last round that was closed is the one the aggregator answered by.
    let end_s = soak.nodes.iter().filter_map(|node| node.all.as_ref()?.window);
    let end_s = end_s.map(|window| window.to_unix_s).max().expect("there are nodes");
    let last_closed = Some(epochs.round_at_ms(i64::try_from(end_s * 1_000).unwrap() - 1));
    nothing_is_twice(&facts);
    nothing_is_lost_untold(&soak, &facts, &gaps);
    published_is_what_the_oracle_says(&soak, &facts, &epochs);
    as_it_was(&soak, &Oracle::new(&facts, &epochs, last_closed));
    said_is_what_was(&soak);
    memory_is_flat(&soak.resident, rounds);
}

/// A store keeps both contents of a key that came with two.
fn nothing_is_twice(facts: &[OracleFact]) {
    let mut keys = BTreeSet::new();
    for fact in facts {
        let key = &fact.part.key;
        assert!(keys.insert((fact.probe, key)), "two contents: {} {key:?}", fact.probe);
    }
}

/// Every part a probe says it has made of a round is there: it was on disk before it said so. But
/// where its spool was damaged, for rounds that it told of as a gap afterwards.
fn nothing_is_lost_untold(soak: &Soak, facts: &[OracleFact], gaps: &[Gap]) {
    let mut there: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for fact in facts {
        *there.entry((fact.probe, fact.part.key.round.start_s())).or_default() += 1;
    }
    for (place, probe) in soak.probes.iter().enumerate() {
        let number = u32::try_from(place).unwrap() + 1;
        let told = gaps.iter().filter(|gap| gap.probe == number && gap.reason == Reason::SpoolFull);
        let told: Vec<_> = told.map(|gap| gap.from_s - ABOUT_S..gap.to_s + ABOUT_S).collect();
        assert!(
            told.is_empty() || soak.damaged.contains(&place),
            "{} tells of damage and has none: {told:?}",
            probe.name
        );
        let made = made_of(probe);
        assert!(!made.is_empty(), "{} scanned nothing", probe.name);
        let short = made.iter().filter(|(round, parts)| {
            there.get(&(number, **round)).is_none_or(|stored| stored < *parts)
        });
        let (excused, lost): (Vec<u64>, Vec<u64>) = short
            .map(|(round, _)| *round)
            .partition(|round| told.iter().any(|gap| gap.contains(round)));
        assert!(lost.is_empty(), "made by {} and not stored: {lost:?}; told: {told:?}", probe.name);
        let within = made.keys().filter(|round| told.iter().any(|gap| gap.contains(round)));
        eprintln!(
            "{}: {} rounds scanned, {} told as damaged in {} gaps, {} of them short of parts",
            probe.name,
            made.len(),
            within.count(),
            told.len(),
            excused.len()
        );
    }
}

/// How many parts a probe says it has made, by rounds.
fn made_of(probe: &Program) -> BTreeMap<u64, u64> {
    let log = BufReader::new(std::fs::File::open(&probe.log).unwrap());
    let mut made: BTreeMap<u64, u64> = BTreeMap::new();
    // A line of a program that was killed may end anywhere.
    for line in log.lines().map_while(Result::ok) {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let fields = &line["fields"];
        if fields["message"] == "round scanned" {
            let round = fields["round"].as_str().unwrap();
            let round_s = chrono::DateTime::parse_from_rfc3339(round).unwrap().timestamp();
            let round_s = u64::try_from(round_s).unwrap();
            *made.entry(round_s).or_default() += fields["parts"].as_u64().unwrap();
        }
    }
    made
}

/// The CSV is a function of the stored facts alone: nothing in memory was lost or counted twice.
fn published_is_what_the_oracle_says(soak: &Soak, facts: &[OracleFact], epochs: &Epochs) {
    let csv = soak.directory.path().join("data/nodes_status.csv");
    let csv = std::fs::read_to_string(csv).unwrap();
    // Rounds may have closed after the last answer: it is one of a few.
    let mut closed = last_round_of(facts, epochs);
    for _ in 0..20 {
        if oracle::csv(facts, epochs, Some(closed)) == csv {
            return;
        }
        closed = epochs.next(closed);
    }
    panic!("the CSV is none that the oracle makes of the facts:\n{csv}");
}

fn last_round_of(facts: &[OracleFact], epochs: &Epochs) -> Round {
    let last = facts.iter().map(|fact| fact.part.key.round).max().expect("there are facts");
    epochs.round_at_ms(last.start_ms())
}

/// Nobody is down in a round in which it lived, or up in one through which it was dead.
fn as_it_was(soak: &Soak, oracle: &Oracle<'_>) {
    let (mut right, mut open) = (BTreeMap::<&str, u64>::new(), 0_u64);
    for (id, stretches) in &soak.network.lives {
        let node: NodeId = id.parse().unwrap();
        for (index, round) in oracle.rounds().into_iter().enumerate() {
            let through = |stretch: &&Stretch| {
                let settles_ms = if stretch.alive { 0 } else { FRESH_MS };
                stretch.from_ms + settles_ms <= round.start_ms()
                    && round.end_ms() + GRACE_MS <= stretch.to_ms
            };
            let Some(stretch) = stretches.iter().find(through) else { continue };
            let verdict = oracle.verdict(node, index);
            match (stretch.alive, verdict) {
                (true, Verdict::Up) => *right.entry("alive and up").or_default() += 1,
                (false, Verdict::Down) => *right.entry("dead and down").or_default() += 1,
                (_, Verdict::Unknown) => open += 1,
                _ => panic!("{id} is {verdict:?} in round {} of {stretches:?}", round.start_s()),
            }
        }
    }
    eprintln!("verdicts: {right:?}, {open} unknown");
    assert!(right.get("alive and up").is_some_and(|count| *count > open), "hardly anything seen");
}

/// What was answered at the end agrees with the network, node by node.
fn said_is_what_was(soak: &Soak) {
    assert_eq!(soak.nodes.len(), soak.network.lives.len(), "every node, and nobody else");
    for node in &soak.nodes {
        let stretches = soak.network.lives.get(&node.id).expect("a node of this network");
        let figures = node.all.as_ref().expect("figures");
        let window = figures.window.expect("a window");
        let rounds = (window.to_unix_s - window.from_unix_s) / PERIOD_S;
        let counted = figures.up_rounds + figures.down_rounds + figures.unknown_rounds;
        assert_eq!(counted, rounds, "each round counts once: {node:?}");
        assert_eq!(window.from_unix_s, node.first_seen_unix_s);
        if stretches.len() == 1 {
            assert_eq!(figures.down_rounds, 0, "was there all the time: {node:?}");
        }
        // Nobody looked in the very last rounds: then the verdict before them stands.
        assert_ne!(node.verdict(), Said::Unspecified);
        let alive = stretches.last().is_some_and(|stretch| stretch.alive);
        assert_eq!(node.is_online, alive, "{node:?}");
    }
    let down: u64 = soak.nodes.iter().filter_map(|node| Some(node.all.as_ref()?.down_rounds)).sum();
    eprintln!("{} nodes, {down} rounds of theirs down", soak.nodes.len());
}

fn memory_is_flat(resident: &BTreeMap<String, Resident>, rounds: u64) {
    for (name, Resident { early, late }) in resident {
        let (Some(early), Some(late)) = (middle(early), middle(late)) else {
            assert!(rounds < ROUNDS_MANY, "{name} was not measured");
            continue;
        };
        let most = match name.as_str() {
            "aggregator" => early + early / 10 + AGGREGATOR_GROWTH_BYTES_MAX,
            _ => early + early / 20 + PROBE_GROWTH_BYTES_MAX,
        };
        let megabytes = |bytes: u64| format!("{}.{} MB", bytes >> 20, (bytes >> 10) % 1_024 / 103);
        let [early, at_end, most_then] = [early, late, most].map(megabytes);
        eprintln!("{name}: {early} early, {at_end} late, {most_then} at most");
        assert!(rounds < ROUNDS_MANY || late <= most, "{name} grew");
    }
}

/// The middle one of these: a round more or less on its way is not growth.
fn middle(bytes: &[u64]) -> Option<u64> {
    let mut bytes = bytes.to_vec();
    bytes.sort_unstable();
    bytes.get(bytes.len() / 2).copied()
}
