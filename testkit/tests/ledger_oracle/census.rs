//! Checks that the generated worlds have the cases that the comparison is for.
//!
//! Owns a count of every case that must occur often: a property that is never tested always holds.
//! Uses only the oracle, not the engine.

use std::collections::{BTreeMap, BTreeSet};

use proptest::strategy::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use uptime_proto::{Class, Epochs, Kind, NodeId, Outcome};
use uptime_testkit::oracle::{Oracle, OracleFact, Verdict, last_closed};

use crate::world::{World, worlds};

const WORLDS: usize = 60;

#[derive(Debug, Default)]
struct Census(BTreeMap<&'static str, usize>);

impl Census {
    fn count(&mut self, what: &'static str, times: usize) {
        *self.0.entry(what).or_default() += times;
    }

    fn facts(&mut self, facts: &[OracleFact]) {
        let mut keys = BTreeSet::new();
        for OracleFact { probe, part } in facts {
            let blind = part.outcome != Outcome::Looked;
            let lookup = part.kind == Kind::Lookup;
            let young = part.relay_session_age_s.is_some_and(|age_s| age_s < 60);
            self.count("conflicting parts", usize::from(!keys.insert((*probe, &part.key))));
            self.count("could-not-look parts", usize::from(blind));
            self.count(
                "could-not-look parts with evidence",
                usize::from(blind && part.sets.count() > 0),
            );
            self.count("young sessions", usize::from(lookup && young));
            self.count(
                "missing sessions",
                usize::from(lookup && part.relay_session_age_s.is_none()),
            );
            self.count("relay parts", usize::from(part.kind == Kind::Relay));
        }
    }

    fn outcome(&mut self, world: &World, facts: &[OracleFact], epochs: &Epochs) {
        let oracle = Oracle::new(facts, epochs, last_closed(epochs, world.end_ms()));
        let rows = oracle.rows();
        let starts: Vec<u64> = oracle.rounds().iter().map(|round| round.start_s()).collect();
        let begin_s = starts.first().copied().unwrap_or(0);
        let last_round_s = starts.last().copied().unwrap_or(0);
        for row in &rows {
            self.count("retired nodes", usize::from(row.retired));
            self.count("nodes online", usize::from(row.is_online));
            let unknown_but_online = row.is_online && row.verdict == Verdict::Unknown;
            self.count("nodes online though unknown at last", usize::from(unknown_but_online));
            self.count("nodes with up and down rounds", usize::from(row.up_s * row.down_s > 0));
            self.count(
                "nodes first seen late",
                usize::from(row.first_seen_s > begin_s + (last_round_s - begin_s) / 3),
            );
            let before_first =
                row.last_seen_ms.is_some_and(|ms| ms.unsigned_abs() / 1000 < row.first_seen_s);
            self.count("nodes last seen before first seen", usize::from(before_first));
            self.count("nodes never found", usize::from(row.last_seen_ms.is_none()));
        }
        let of = |classes: &[Class]| -> BTreeSet<NodeId> {
            let sets = facts.iter().flat_map(|fact| classes.iter().map(|c| fact.part.sets.of(*c)));
            sets.flatten().copied().collect()
        };
        let offered = of(&[Class::Offer]);
        let listed: BTreeSet<NodeId> = rows.iter().map(|row| row.id).collect();
        self.count("offered but not confirmed", offered.difference(&listed).count());
        self.count("found but never offered", of(&[Class::Seen]).difference(&offered).count());
        for index in 0..oracle.rounds().len() {
            for probe in 1..=world.probes {
                self.count("mass losses", usize::from(oracle.mass_loss(probe, index)));
            }
        }
    }
}

#[test]
fn worlds_hold_what_is_to_be_compared() {
    let mut runner = TestRunner::deterministic();
    let mut census = Census::default();
    for _ in 0..WORLDS {
        let world = worlds(0..=0).new_tree(&mut runner).unwrap().current();
        let epochs = Epochs::new(vec![world.rules[0].epoch()]).unwrap();
        let facts = world.facts(&epochs);
        census.facts(&facts);
        census.outcome(&world, &facts, &epochs);
    }
    for (what, times) in &census.0 {
        assert!(*times >= WORLDS / 6, "{what}: only {times} in {WORLDS} worlds; all: {census:#?}");
    }
}
