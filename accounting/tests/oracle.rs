//! The replay of any history, without a database, is what the oracle makes of the same facts:
//! from nothing, through checkpoints at any moment, and put aside between any two stretches.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../testkit/tests/ledger_oracle/world.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the suite of the whole ledger")]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use roaring::RoaringBitmap;
use uptime_accounting::checkpoint;
use uptime_accounting::dictionary::NodeDictionary;
use uptime_accounting::fact::{Fact, FactKey};
use uptime_accounting::position::Positions;
use uptime_accounting::replay::{Late, Plan, Replay, Step, Stretch, last_over, slack_s};
use uptime_accounting::snapshot::{Snapshot, SnapshotInputs};
use uptime_accounting::state::State;
use uptime_accounting::verdict::Verdict;
use uptime_proto::round::DAY_S;
use uptime_proto::{Class, Epoch, Epochs, NodeId};
use uptime_testkit::oracle::{self, Oracle, OracleFact};

use world::{World, worlds, worlds_of_newcomers};

/// What is stored: facts by key and digest, as a store answers them.
struct Stored {
    nodes: NodeDictionary,
    facts: Vec<Fact>,
}

impl Stored {
    fn new(made: &[OracleFact]) -> Self {
        let mut nodes = NodeDictionary::default();
        let mut subnets = vec![String::new()];
        let mut facts: BTreeMap<_, Fact> = BTreeMap::new();
        for OracleFact { probe, part } in made {
            let named = subnets.iter().position(|subnet| *subnet == part.key.subnet);
            let subnet = named.unwrap_or_else(|| {
                subnets.push(part.key.subnet.clone());
                subnets.len() - 1
            });
            let (round, number) = (part.key.round, part.key.number);
            let key =
                FactKey { round, subnet: u32::try_from(subnet).unwrap(), probe: *probe, number };
            let sets = Class::ALL.map(|class| {
                let ids = part.sets.of(class).iter();
                ids.map(|id| nodes.intern(*id)).collect::<RoaringBitmap>()
            });
            let digest = part.digest();
            let fact = Fact {
                key,
                kind: part.kind,
                outcome: part.outcome,
                digest: Some(digest),
                observed_at_ms: part.observed_at_ms,
                received_at_ms: part.observed_at_ms,
                relay_session_age_s: part.relay_session_age_s,
                sets: Arc::new(sets),
            };
            facts.insert((key, digest), fact);
        }
        Self { nodes, facts: facts.into_values().collect() }
    }

    fn read(
        &self,
        stretch: Stretch,
        is_there: impl Fn(&Fact) -> bool,
    ) -> Vec<Result<Fact, String>> {
        let starts = |fact: &&Fact| fact.key.round.start_s();
        let within = |fact: &&Fact| (stretch.from_s..stretch.to_s).contains(&starts(fact));
        self.facts.iter().filter(within).filter(|it| is_there(it)).cloned().map(Ok).collect()
    }

    fn extent(&self) -> Option<(u64, u64)> {
        let start_s = |fact: &Fact| fact.key.round.start_s();
        self.facts.first().map(start_s).zip(self.facts.last().map(start_s))
    }

    /// Replays the facts that are there.
    fn replayed(&self, state: State, plan: Plan, is_there: impl Fn(&Fact) -> bool) -> State {
        let mut replay = Replay::new(state, plan);
        loop {
            match replay.step() {
                Step::Read(stretch) => replay.take(self.read(stretch, &is_there)),
                Step::Again => {}
                Step::Done => break,
            }
        }
        let (state, late, left_out) = replay.end();
        assert!(late.is_empty() && left_out.count == 0);
        state
    }
}

/// The epochs of a world, each announced as long before it begins as the accounting page asks.
fn epochs_of(world: &World) -> Arc<Epochs> {
    let mut epochs: Vec<Epoch> = Vec::new();
    for rules in &world.rules {
        let next = rules.epoch();
        let start_s = epochs.last().map_or(0, |last| {
            let (old_s, new_s) = (last.period.seconds(), next.period.seconds());
            let announced_s = u64::try_from(rules.announced_ms() / 1000).unwrap();
            let earliest_s = announced_s.max(last.start_s) + 2 * u64::from(old_s) + 1;
            let both = |second: &u64| {
                second.is_multiple_of(old_s.into()) && second.is_multiple_of(new_s.into())
            };
            (earliest_s..).find(both).unwrap()
        });
        epochs.push(Epoch { start_s, ..next });
    }
    Arc::new(Epochs::new(epochs).unwrap())
}

/// What readers see of every node: id, online, last seen, seconds up and down, retired, verdict.
type Seen = (NodeId, bool, Option<i64>, u64, u64, bool, Verdict);

fn seen(state: &State, nodes: &mut NodeDictionary) -> Vec<Seen> {
    let inputs = SnapshotInputs { ids: nodes.ids(), ..SnapshotInputs::default() };
    let snapshot = Snapshot::<()>::new(state, inputs);
    let view = |node: uptime_accounting::snapshot::NodeView<'_>| {
        let (up_s, down_s) = (node.tally.up_s, node.tally.down_s);
        (node.id, node.is_online, node.last_seen_ms, up_s, down_s, node.retired, node.verdict)
    };
    snapshot.nodes().map(view).collect()
}

fn wanted(facts: &[OracleFact], epochs: &Epochs, now_ms: i64) -> Vec<Seen> {
    let verdict = |it| match it {
        oracle::Verdict::Up => Verdict::Up,
        oracle::Verdict::Down => Verdict::Down,
        oracle::Verdict::Unknown => Verdict::Unknown,
    };
    let closed = oracle::last_closed(epochs, now_ms);
    let rows = Oracle::new(facts, epochs, closed).rows().into_iter();
    rows.map(|row| {
        let (up_s, down_s) = (row.up_s, row.down_s);
        (row.id, row.is_online, row.last_seen_ms, up_s, down_s, row.retired, verdict(row.verdict))
    })
    .collect()
}

/// Replays a history as a whole, and by way of a checkpoint of a moment in it, after which what
/// comes late is told.
fn check(world: &World, permille: i64, late_percent: u64) -> Result<(), TestCaseError> {
    let epochs = epochs_of(world);
    let made = world.facts(&epochs);
    let mut stored = Stored::new(&made);
    let end_ms = world.end_ms();
    let plan = Plan::new(stored.extent(), last_over(&epochs, end_ms));
    let whole = stored.replayed(State::new(Arc::clone(&epochs)), plan.clone(), |_| true);
    let rows = seen(&whole, &mut stored.nodes);
    prop_assert_eq!(&rows, &wanted(&made, &epochs, end_ms), "as a whole");

    let begin_ms = i64::try_from(world::BEGIN_S * 1000).unwrap();
    let saved_ms = begin_ms + (end_ms - begin_ms) / 1000 * permille;
    // All facts of a key come at one time: which of them counts does not change afterwards.
    let is_late = |key: &FactKey| {
        let about = [key.round.start_s(), key.subnet.into(), key.probe.into(), key.number.into()];
        world::Dice(world.seed).chance(late_percent, &about)
    };
    let reach_ms = i64::try_from(slack_s(&epochs) * 1000).unwrap();
    let was_there = |fact: &Fact| {
        fact.observed_at_ms.max(fact.key.round.end_ms() + reach_ms) < saved_ms
            && !is_late(&fact.key)
    };
    let plan_then = Plan::new(stored.extent(), last_over(&epochs, saved_ms));
    let then = stored.replayed(State::new(Arc::clone(&epochs)), plan_then, was_there);
    let pieces = checkpoint::write(&then, then.retractions(), &Positions::default());
    let (read, _) = checkpoint::read(&pieces, &epochs, then.retractions()).unwrap().unwrap();
    let late = |fact: &&Fact| !was_there(fact) && fact.key.round.start_s() < read.closed_end_s();
    let keys: BTreeSet<FactKey> = stored.facts.iter().filter(late).map(|fact| fact.key).collect();
    let day_of = |key: &FactKey| key.round.start_s() - key.round.start_s() % u64::from(DAY_S);
    // As where the days of some were compacted: the whole of them may be late.
    let (compacted, single): (BTreeSet<FactKey>, BTreeSet<FactKey>) =
        keys.iter().partition(|key| world::Dice(world.seed).chance(50, &[day_of(key), 7]));
    let days = compacted.iter().map(day_of).collect();
    for late in [Late { keys, ..Late::default() }, Late { keys: single, days }] {
        let resumed = stored.replayed(read.clone(), Plan { late, ..plan.clone() }, |_| true);
        prop_assert_eq!(resumed.differs_from(&whole), None, "by way of a checkpoint");
        prop_assert_eq!(seen(&resumed, &mut stored.nodes), rows.clone());
    }
    Ok(())
}

/// How many histories each property tries.
fn cases() -> u32 {
    std::env::var("UPTIME_TEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40)
}

proptest! {
    #![proptest_config(ProptestConfig {
        source_file: Some(file!()),
        ..ProptestConfig::with_cases(cases())
    })]

    #[test]
    fn any_history_under_one_set_of_rules(
        world in worlds(0..=0), permille in 0i64..=1000, late in 0u64..30,
    ) {
        check(&world, permille, late)?;
    }

    #[test]
    fn any_history_through_changes_of_the_rules(
        world in worlds(1..=2), permille in 0i64..=1000, late in 0u64..30,
    ) {
        check(&world, permille, late)?;
    }

    #[test]
    fn any_history_in_which_nodes_are_seen_before_they_offer(
        world in worlds_of_newcomers(), permille in 0i64..=1000, late in 0u64..30,
    ) {
        check(&world, permille, late)?;
    }
}
