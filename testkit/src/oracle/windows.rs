//! Windows, outages and the second method, round by round, as on the accounting page.

use std::collections::BTreeSet;

use uptime_proto::{Class, Kind, NodeId, Outcome};

use super::method::{Evidence, Oracle, Verdict, epoch_at};

/// Seconds and rounds by verdict over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "named as on the accounting page")]
pub struct Sums {
    pub up_s: u64,
    pub down_s: u64,
    pub unknown_s: u64,
    pub rounds: u64,
}

impl Oracle<'_> {
    /// The round of its first offer.
    fn first(&self, id: NodeId) -> Option<usize> {
        let offered = |index: &usize| {
            self.rounds[*index].facts.iter().any(|fact| fact.part.has(Class::Offer, id))
        };
        (0..self.rounds.len()).find(offered)
    }

    /// The subnets it offered in.
    #[must_use]
    pub fn subnets(&self, id: NodeId) -> BTreeSet<&str> {
        let facts = self.rounds.iter().flat_map(|book| &book.facts);
        let offers = facts.filter(|fact| fact.part.has(Class::Offer, id));
        offers.map(|fact| fact.part.key.subnet.as_str()).collect()
    }

    /// Sums over the rounds that start in `[from_s, to_s)`, from its first offer on.
    #[must_use]
    pub fn sums(&self, id: NodeId, from_s: u64, to_s: u64) -> Sums {
        let mut sums = Sums::default();
        for index in self.first(id).unwrap_or(usize::MAX)..self.rounds.len() {
            let round = self.rounds[index].round;
            if round.start_s() < from_s || round.start_s() >= to_s {
                continue;
            }
            let seconds = round.end_s() - round.start_s();
            sums.rounds += 1;
            match self.verdict(id, index) {
                Verdict::Up => sums.up_s += seconds,
                Verdict::Down => sums.down_s += seconds,
                Verdict::Unknown => sums.unknown_s += seconds,
            }
        }
        sums
    }

    /// Outages as (start, end, open), among all rounds since its first offer.
    #[must_use]
    pub fn outages(&self, id: NodeId) -> Vec<(u64, u64, bool)> {
        let mut outages: Vec<(u64, u64, bool)> = Vec::new();
        for index in self.first(id).unwrap_or(usize::MAX)..self.rounds.len() {
            let round = self.rounds[index].round;
            let open = outages.last_mut().filter(|outage| outage.2);
            match (self.verdict(id, index), open) {
                (Verdict::Down, Some(outage)) => outage.1 = round.end_s(),
                (Verdict::Down, None) => outages.push((round.start_s(), round.end_s(), true)),
                (Verdict::Up, Some(outage)) => (outage.1, outage.2) = (round.start_s(), false),
                _ => {}
            }
        }
        outages
    }

    /// `seed-v1` in one subnet: rounds that were covered, and those of them in which the node was
    /// online.
    #[must_use]
    pub fn seed_counts(&self, id: NodeId, subnet: &str) -> (u64, u64) {
        let (mut covered, mut online) = (0, 0);
        for book in &self.rounds {
            let succeeded = book.facts.iter().any(|fact| {
                let part = &fact.part;
                part.kind == Kind::Market
                    && part.outcome == Outcome::Looked
                    && part.key.subnet == subnet
            });
            let found = book
                .facts
                .iter()
                .any(|fact| fact.part.has(Class::Offer, id) || fact.part.positive(id));
            covered += u64::from(succeeded);
            online += u64::from(succeeded && found);
        }
        (covered, online)
    }

    /// For a node and a round, the number of probes with positive evidence, of eligible probes, of
    /// eligible probes that looked, and of those that found it unreachable.
    #[must_use]
    pub fn votes(&self, id: NodeId, index: usize) -> [usize; 4] {
        let book = &self.rounds[index];
        let mut probes: Vec<u32> = book.facts.iter().map(|fact| fact.probe).collect();
        probes.sort_unstable();
        probes.dedup();
        let mut votes = [0; 4];
        for probe in probes {
            let found = book.positive(probe, id);
            let epoch = epoch_at(self.epochs, book.round.start_s());
            let accused = book.sound(probe, epoch).any(|part| part.has(Class::Unreachable, id));
            let eligible = self.eligible(probe, index);
            votes[0] += usize::from(found);
            votes[1] += usize::from(eligible);
            votes[2] += usize::from(eligible && (found || accused));
            votes[3] += usize::from(eligible && accused && !found);
        }
        votes
    }
}
