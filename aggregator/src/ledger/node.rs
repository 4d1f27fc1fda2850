//! One node, as far as facts tell: where it offered, the verdicts on it, and their sums.
//!
//! Pure. Owns how little memory that takes: there may be a million. Refuses to judge: the fold in
//! `state.rs` does.

use std::sync::Arc;

use uptime_proto::Epochs;

use super::timeline::Timeline;
use super::uptime::Tally;

/// One node, as far as facts tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// The round of its first offer; `None`: it never made one, so it is no node.
    pub first_seen_s: Option<u64>,
    /// The subnets it has offered in.
    pub subnets: Subnets,
    /// The verdicts on it.
    pub timeline: Timeline,
    /// The end of the closed round by which it was last confirmed or new in a subnet, unix seconds.
    pub changed_s: u64,
    /// The sums from first seen to the start of the timeline's last run.
    settled: Sums,
    /// Most have none.
    carried: Option<Box<Carried>>,
}

/// The sums of rounds that the timeline has forgotten, and where they end.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Carried {
    tally: Tally,
    to_s: u64,
}

/// A [`Tally`] in half the memory: 32 bits of seconds are 136 years.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums([u32; 6]);

impl From<Tally> for Sums {
    fn from(tally: Tally) -> Self {
        let Tally { up_s, down_s, unknown_s, up_rounds, down_rounds, unknown_rounds } = tally;
        let all = [up_s, down_s, unknown_s, up_rounds, down_rounds, unknown_rounds];
        Self(all.map(|sum| u32::try_from(sum).unwrap_or(u32::MAX)))
    }
}

impl From<Sums> for Tally {
    fn from(Sums(sums): Sums) -> Self {
        let [up_s, down_s, unknown_s, up_rounds, down_rounds, unknown_rounds] = sums.map(u64::from);
        Self { up_s, down_s, unknown_s, up_rounds, down_rounds, unknown_rounds }
    }
}

/// Numbers of subnets, ascending. Most nodes offer in one, so that one takes no memory of its own.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Subnets {
    /// None so far.
    #[default]
    None,
    /// This one.
    One(u32),
    /// Several.
    Several(Arc<Vec<u32>>),
}

impl Subnets {
    /// Of ascending numbers.
    #[must_use]
    pub fn of(numbers: &[u32]) -> Self {
        match numbers {
            [] => Self::None,
            [one] => Self::One(*one),
            several => Self::Several(Arc::new(several.to_vec())),
        }
    }

    /// The numbers, ascending.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }

    /// Adds one, unless it is there.
    pub fn insert(&mut self, subnet: u32) {
        let numbers = self.numbers();
        if let Err(place) = numbers.binary_search(&subnet) {
            let mut numbers = numbers.to_vec();
            numbers.insert(place, subnet);
            *self = Self::of(&numbers);
        }
    }
}

impl Node {
    pub(super) fn of(
        first_seen_s: Option<u64>,
        subnets: &[u32],
        timeline: Timeline,
        changed_s: u64,
        (tally, to_s): (Tally, u64),
        epochs: &Epochs,
    ) -> Self {
        let carried = (to_s > 0).then(|| Box::new(Carried { tally, to_s }));
        let (subnets, settled) = (Subnets::of(subnets), Sums::default());
        let mut node = Self { first_seen_s, subnets, timeline, changed_s, settled, carried };
        node.resettle(epochs);
        node
    }

    /// The sums over all its rounds, from first seen to `closed_end_s`.
    #[must_use]
    pub fn tally(&self, closed_end_s: u64, epochs: &Epochs) -> Tally {
        let Some(first) = self.first_seen_s else {
            return Tally::default();
        };
        let mut tally = Tally::from(self.settled);
        let first = first.max(self.carried_to_s());
        let from = self.timeline.last_start_s().unwrap_or(first).max(first);
        if from < closed_end_s {
            let rounds = epochs.rounds_between(from, closed_end_s);
            tally.add(self.timeline.at(from), closed_end_s - from, rounds);
        }
        tally
    }

    /// The sums over its rounds that start in `[from_s, to_s)`, no earlier than first seen and than
    /// what the timeline still knows.
    #[must_use]
    pub fn tally_between(&self, from_s: u64, to_s: u64, epochs: &Epochs) -> Tally {
        let first = self.first_seen_s.unwrap_or(u64::MAX).max(self.carried_to_s());
        let from_s = from_s.max(first);
        if from_s < to_s { self.timeline.tally(from_s, to_s, epochs) } else { Tally::default() }
    }

    pub(super) fn carried(&self) -> Tally {
        self.carried.as_ref().map_or_else(Tally::default, |carried| carried.tally)
    }

    fn carried_to_s(&self) -> u64 {
        self.carried.as_ref().map_or(0, |carried| carried.to_s)
    }

    /// The timeline or the first offer has changed: sums anew.
    pub(super) fn resettle(&mut self, epochs: &Epochs) {
        let first = self.first_seen_s.unwrap_or(u64::MAX).max(self.carried_to_s());
        let last = self.timeline.last_start_s().unwrap_or(0);
        let mut settled = self.timeline.tally(first, last.max(first), epochs);
        settled.merge(&self.carried());
        self.settled = settled.into();
    }

    /// Forgets the rounds before this one, but for their sums.
    pub(super) fn carry(&mut self, to_s: u64, epochs: &Epochs) {
        let mut tally = self.carried();
        tally.merge(&self.tally_between(0, to_s, epochs));
        self.timeline.trim(to_s);
        self.carried = Some(Box::new(Carried { tally, to_s }));
        self.resettle(epochs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_ascend_and_stand_once() {
        let mut subnets = Subnets::default();
        for (subnet, wanted) in [(7, &[7][..]), (7, &[7]), (3, &[3, 7]), (5, &[3, 5, 7])] {
            subnets.insert(subnet);
            assert_eq!(subnets.numbers(), wanted);
            assert_eq!(subnets, Subnets::of(wanted));
        }
    }

    #[test]
    fn a_node_takes_little_memory() {
        assert!(size_of::<Node>() <= 96, "{}", size_of::<Node>());
    }
}
