//! Whether the aggregator is right: what it stored, said and published beside what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};

use uptime_proto::v1::Verdict as Said;
use uptime_proto::{Epochs, NodeId, Round};
use uptime_testkit::oracle::{self, Oracle, OracleFact, Verdict};

use super::PERIOD_S;
use super::children::Program;
use super::network::Stretch;
use super::script::{Resident, Soak};
use super::stored::stored;

/// How long after its death a node may still be found fresh: the freshness of 3 s, and a second
/// each for the whole seconds that `seen` and the clock are told in.
const FRESH_MS: i64 = 5_000;
/// From the end of a round to its close, as the aggregator is started.
const GRACE_MS: i64 = 4_000;
/// Memory is held to its first rounds only where there were so many.
const MEMORY_ROUNDS_MIN: u64 = 200;
/// Resident memory may have grown by so much and by a tenth: allocators give back late, and the
/// aggregator holds the history.
const GROWTH_BYTES_MAX: u64 = 6 << 20;

/// Panics where something is not as it should be; prints the figures.
pub(crate) async fn judge(soak: Soak, rounds: u64) {
    eprintln!("trouble: {:?}", soak.troubles);
    let (facts, epochs) = stored(&soak.directory.path().join("data")).await;
    // The last round that was closed is the one the aggregator answered by.
    let end_s = soak.nodes.iter().filter_map(|node| node.all.as_ref()?.window);
    let end_s = end_s.map(|window| window.to_unix_s).max().expect("there are nodes");
    let last_closed = Some(epochs.round_at_ms(i64::try_from(end_s * 1_000).unwrap() - 1));
    nothing_is_twice(&facts);
    nothing_is_lost(&soak.probes, &facts);
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

/// Every round a probe says it has scanned is there: its parts were on disk before it said so. But
/// for rounds of which it says that they came too late, as on a machine that stood still.
fn nothing_is_lost(probes: &[Program], facts: &[OracleFact]) {
    let there: BTreeSet<(u32, u64)> =
        facts.iter().map(|fact| (fact.probe, fact.part.key.round.start_s())).collect();
    for (number, probe) in (1..).zip(probes) {
        let log = BufReader::new(std::fs::File::open(&probe.log).unwrap());
        // A line of a program that was killed may end anywhere.
        let lines = log.lines().filter_map(|line| serde_json::from_str(&line.ok()?).ok());
        let lines: Vec<serde_json::Value> = lines.collect();
        let scanned = rounds_of(&lines, "round scanned");
        let late = rounds_of(&lines, "a part came too late for its round");
        let is_lost = |round: &&u64| !there.contains(&(number, **round)) && !late.contains(round);
        let lost: Vec<&u64> = scanned.iter().filter(is_lost).collect();
        assert!(lost.is_empty(), "scanned by {} and not stored: {lost:?}", probe.name);
        assert!(!scanned.is_empty(), "{} scanned nothing", probe.name);
        eprintln!(
            "{}: {} rounds scanned, {} with late parts",
            probe.name,
            scanned.len(),
            late.len()
        );
    }
}

/// The rounds of which a log says this.
fn rounds_of(log: &[serde_json::Value], message: &str) -> BTreeSet<u64> {
    let fields = log.iter().filter_map(|line| line.get("fields"));
    let told = fields.filter(|fields| fields["message"] == message);
    told.filter_map(|fields| fields["round"].as_u64()).collect()
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
        let megabytes = |bytes: u64| format!("{}.{} MB", bytes >> 20, (bytes >> 10) % 1_024 / 103);
        eprintln!("{name}: {} early, {} late", megabytes(*early), megabytes(*late));
        if rounds >= MEMORY_ROUNDS_MIN {
            assert!(*early > 0 && *late > 0, "{name} was not measured");
            assert!(*late <= early + early / 10 + GROWTH_BYTES_MAX, "{name} grew");
        }
    }
}
