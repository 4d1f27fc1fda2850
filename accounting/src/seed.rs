//! `seed-v1`: the method of the script this project replaces, from the same evidence.
//!
//! Pure. Owns the accounting page's "`seed-v1`": a round is covered in a subnet when a market part
//! of it succeeded; in a covered round a node is online when any probe saw its offer or found it.
//! What is online in a round that is not covered counts nowhere, or more scans could be online than
//! there were. Kept only where it is asked for: it costs a second timeline per node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use roaring::RoaringBitmap;
use uptime_proto::{Class, Epochs, Kind, Outcome, Round};

use crate::cow_vec::CowVec;
use crate::evidence::RoundFacts;
use crate::timeline::Timeline;
use crate::verdict::Verdict;

/// Online or not for every node, covered or not for every subnet, over time.
#[derive(Debug, Clone, Default)]
pub struct Seed {
    lines: CowVec<Arc<Timeline>>,
    covered: BTreeMap<u32, Timeline>,
    last_up: RoaringBitmap,
}

/// What the facts of a round say.
struct Said {
    online: RoaringBitmap,
    covered: BTreeSet<u32>,
}

fn said(facts: Option<&RoundFacts>) -> Said {
    let mut said = Said { online: RoaringBitmap::new(), covered: BTreeSet::new() };
    for fact in facts.into_iter().flat_map(RoundFacts::facts) {
        said.online |= fact.of(Class::Offer) | &fact.positive();
        if fact.kind == Kind::Market && fact.outcome == Outcome::Looked {
            said.covered.insert(fact.key.subnet);
        }
    }
    said
}

const fn verdict(yes: bool) -> Verdict {
    if yes { Verdict::Up } else { Verdict::Unknown }
}

impl Seed {
    /// From what was kept.
    pub(crate) fn of(
        lines: CowVec<Arc<Timeline>>,
        covered: BTreeMap<u32, Timeline>,
        last_up: RoaringBitmap,
    ) -> Self {
        Self { lines, covered, last_up }
    }

    pub(crate) fn last_up(&self) -> &RoaringBitmap {
        &self.last_up
    }

    pub(crate) fn covered(&self) -> &BTreeMap<u32, Timeline> {
        &self.covered
    }

    /// There are lines of nodes below this number.
    pub(crate) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// When a node was online.
    #[must_use]
    pub fn line(&self, node: u32) -> Option<&Timeline> {
        self.lines.get(node as usize).map(|line| &**line)
    }

    /// Closes a round.
    pub(crate) fn close(&mut self, round: Round, facts: Option<&RoundFacts>) {
        let said = said(facts);
        let changed = &said.online ^ &self.last_up;
        for node in &changed {
            self.set(node, round, said.online.contains(node), round.end_s());
        }
        self.cover(round, &said.covered, round.end_s());
        self.last_up = said.online;
    }

    /// Judges a closed round again; facts only ever come to it.
    pub(crate) fn again(&mut self, round: Round, facts: Option<&RoundFacts>, closed_end_s: u64) {
        let said = said(facts);
        for node in &said.online {
            self.set(node, round, true, closed_end_s);
        }
        self.cover(round, &said.covered, closed_end_s);
        if round.end_s() == closed_end_s {
            self.last_up = said.online;
        }
    }

    fn set(&mut self, node: u32, round: Round, online: bool, closed_end_s: u64) {
        while self.lines.len() <= node as usize {
            self.lines.push(Arc::default());
        }
        if let Some(line) = self.lines.get_mut(node as usize)
            && line.at(round.start_s()) != verdict(online)
        {
            Arc::make_mut(line).set(round.start_s(), round.end_s(), verdict(online), closed_end_s);
        }
    }

    fn cover(&mut self, round: Round, covered: &BTreeSet<u32>, closed_end_s: u64) {
        for subnet in covered {
            self.covered.entry(*subnet).or_default();
        }
        for (subnet, line) in &mut self.covered {
            let there = verdict(covered.contains(subnet));
            line.set(round.start_s(), round.end_s(), there, closed_end_s);
        }
    }

    /// How many rounds were covered in a subnet.
    #[must_use]
    pub fn scan_count(&self, subnet: u32, closed_end_s: u64, epochs: &Epochs) -> u64 {
        self.covered.get(&subnet).map_or(0, |line| line.tally(0, closed_end_s, epochs).up_rounds)
    }

    /// In how many rounds that were covered in this subnet a node was online.
    #[must_use]
    pub fn online_scans(&self, node: u32, subnet: u32, closed_end_s: u64, epochs: &Epochs) -> u64 {
        let (Some(line), Some(covered)) = (self.line(node), self.covered.get(&subnet)) else {
            return 0;
        };
        let online = line.stretches(0, closed_end_s).filter(|(.., it)| *it == Verdict::Up);
        online.map(|(from_s, to_s, _)| covered.tally(from_s, to_s, epochs).up_rounds).sum()
    }
}

/// A stretch of covered rounds.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from_s: u64,
    to_s: u64,
    /// Covered rounds before it.
    before: u64,
}

/// The covered rounds of one subnet, up to the last closed round.
#[derive(Debug)]
pub struct Covered<'a> {
    seed: &'a Seed,
    epochs: &'a Epochs,
    closed_end_s: u64,
    stretches: Vec<Stretch>,
    scan_count: u64,
    last_s: Option<u64>,
}

impl Seed {
    /// What `seed-v1` says in a subnet; `None`: it has no name here yet, and no covered round.
    #[must_use]
    pub fn in_subnet<'a>(
        &'a self,
        subnet: Option<u32>,
        closed_end_s: u64,
        epochs: &'a Epochs,
    ) -> Covered<'a> {
        let mut scan_count = 0;
        let mut stretches = Vec::new();
        let line = subnet.and_then(|subnet| self.covered.get(&subnet));
        for (from_s, to_s, verdict) in line.iter().flat_map(|line| line.stretches(0, closed_end_s))
        {
            if verdict == Verdict::Up {
                stretches.push(Stretch { from_s, to_s, before: scan_count });
                scan_count += epochs.rounds_between(from_s, to_s);
            }
        }
        let last_s = stretches.last().map(|last| {
            let end_ms = i64::try_from(last.to_s.saturating_mul(1000)).unwrap_or(i64::MAX);
            epochs.round_at_ms(end_ms - 1).start_s()
        });
        Covered { seed: self, epochs, closed_end_s, stretches, scan_count, last_s }
    }
}

impl Covered<'_> {
    /// How many rounds were covered.
    #[must_use]
    pub fn scan_count(&self) -> u64 {
        self.scan_count
    }

    /// In how many of them a node was online.
    #[must_use]
    pub fn online_scans(&self, node: u32) -> u64 {
        let online = self.seed.line(node).into_iter().flat_map(|line| {
            line.stretches(0, self.closed_end_s).filter(|(.., verdict)| *verdict == Verdict::Up)
        });
        online.map(|(from_s, to_s, _)| self.before(to_s) - self.before(from_s)).sum()
    }

    /// Whether a node was online in the last of them.
    #[must_use]
    pub fn is_online(&self, node: u32) -> bool {
        let last = self.last_s.zip(self.seed.line(node));
        last.is_some_and(|(last_s, line)| line.at(last_s) == Verdict::Up)
    }

    /// Covered rounds that start before this moment, which is on the grid.
    fn before(&self, moment_s: u64) -> u64 {
        let after = self.stretches.partition_point(|stretch| stretch.from_s < moment_s);
        let last = after.checked_sub(1).and_then(|at| self.stretches.get(at));
        last.map_or(0, |last| {
            last.before + self.epochs.rounds_between(last.from_s, last.to_s.min(moment_s))
        })
    }
}
