//! One node, as far as facts tell: where it offered, the verdicts on it, and their sums.
//!
//! Pure. Owns how little memory that takes: there may be a million. Refuses to judge: the fold in
//! `state.rs` does.

use std::sync::Arc;

use uptime_proto::Epochs;

use crate::timeline::Timeline;
use crate::uptime::Tally;

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
    roll_up: Option<Box<RollUp>>,
}

/// What is left of rounds that the timeline has forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RollUp {
    /// The sums of its rounds.
    pub(crate) tally: Tally,
    /// Where they end, unix seconds; 0: nothing is forgotten.
    pub(crate) to_s: u64,
    /// Decided seconds from the first silent round to the end.
    pub(crate) silent_s: u64,
    /// Decided seconds from the last offer to the end.
    pub(crate) since_offer_s: u64,
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

/// Where a node offered, and since when. Most nodes offer in one subnet, from their first offer on,
/// so that one takes no memory of its own.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Subnets {
    /// Nowhere so far.
    #[default]
    None,
    /// In this one.
    One(u32),
    /// In several: ascending by number, each with the round of the first offer in it, unix seconds.
    Several(Arc<Vec<(u32, u32)>>),
}

fn narrow(second: u64) -> u32 {
    u32::try_from(second).unwrap_or(u32::MAX)
}

impl Subnets {
    /// Of ascending numbers, each with the round of the first offer in it.
    #[must_use]
    pub fn of(offered: &[(u32, u64)]) -> Self {
        match offered {
            [] => Self::None,
            [(one, _)] => Self::One(*one),
            several => {
                let narrow = |(number, from_s): &(u32, u64)| (*number, narrow(*from_s));
                Self::Several(Arc::new(several.iter().map(narrow).collect()))
            }
        }
    }

    /// Their numbers, ascending, each with the round of the first offer in it. The node's own first
    /// offer is the one in its only subnet.
    pub fn iter(&self, first_seen_s: u64) -> impl Iterator<Item = (u32, u64)> + '_ {
        let (one, several) = match self {
            Self::None => (None, &[][..]),
            Self::One(one) => (Some((*one, first_seen_s)), &[][..]),
            Self::Several(several) => (None, several.as_slice()),
        };
        let several = several.iter().map(|(number, from_s)| (*number, u64::from(*from_s)));
        one.into_iter().chain(several)
    }

    /// Their numbers, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.iter(0).map(|(number, _)| number)
    }

    /// Notes an offer in a round, of a node that was first seen then, as far as is known.
    pub fn offer(&mut self, subnet: u32, round_s: u64, first_seen_s: Option<u64>) {
        let mut offered: Vec<_> = self.iter(first_seen_s.unwrap_or(round_s)).collect();
        match offered.binary_search_by_key(&subnet, |(number, _)| *number) {
            Ok(place) => match offered.get_mut(place) {
                Some((_, from_s)) if round_s < *from_s => *from_s = round_s,
                _ => return,
            },
            Err(place) => offered.insert(place, (subnet, round_s)),
        }
        *self = Self::of(&offered);
    }
}

impl Node {
    pub(crate) fn of(
        first_seen_s: Option<u64>,
        subnets: Subnets,
        timeline: Timeline,
        changed_s: u64,
        rolled: RollUp,
        epochs: &Epochs,
    ) -> Self {
        let roll_up = (rolled.to_s > 0).then(|| Box::new(rolled));
        let settled = Sums::default();
        let mut node = Self { first_seen_s, subnets, timeline, changed_s, settled, roll_up };
        node.resettle(epochs);
        node
    }

    /// The sums over all its rounds, from first seen to `closed_end_s`.
    #[inline]
    #[must_use]
    pub fn tally(&self, closed_end_s: u64, epochs: &Epochs) -> Tally {
        let Some(first) = self.first_seen_s else {
            return Tally::default();
        };
        let mut tally = Tally::from(self.settled);
        let first = first.max(self.rolled_up_to_s());
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
        let first = self.first_seen_s.unwrap_or(u64::MAX).max(self.rolled_up_to_s());
        let from_s = from_s.max(first);
        if from_s < to_s { self.timeline.tally(from_s, to_s, epochs) } else { Tally::default() }
    }

    pub(crate) fn rolled_up(&self) -> Tally {
        self.roll_up.as_ref().map_or_else(Tally::default, |roll_up| roll_up.tally)
    }

    /// Where the timeline begins to tell of a silence since then, and the decided seconds before.
    pub(crate) fn silent_before(&self, silent_from_s: u64) -> (u64, u64) {
        match &self.roll_up {
            Some(roll_up) if silent_from_s < roll_up.to_s => (roll_up.to_s, roll_up.silent_s),
            _ => (silent_from_s, 0),
        }
    }

    /// Decided seconds from a moment to another: from the first silent round, or from the last
    /// offer.
    pub(crate) fn decided_since(&self, from_s: u64, to_s: u64, is_silence: bool) -> u64 {
        let rolled = self.roll_up_or_default();
        let known_s = if is_silence { rolled.silent_s } else { rolled.since_offer_s };
        let before_s = if from_s < rolled.to_s { known_s } else { 0 };
        let stretches = self.timeline.stretches(from_s.max(rolled.to_s), to_s);
        let decided = stretches.filter(|(.., verdict)| verdict.is_decided());
        before_s + decided.map(|(start, end, _)| end - start).sum::<u64>()
    }

    /// What is left of the rounds that are forgotten.
    pub(crate) fn roll_up_or_default(&self) -> RollUp {
        self.roll_up.as_deref().copied().unwrap_or_default()
    }

    fn rolled_up_to_s(&self) -> u64 {
        self.roll_up.as_ref().map_or(0, |roll_up| roll_up.to_s)
    }

    /// The timeline or the first offer has changed: sums anew.
    pub(crate) fn resettle(&mut self, epochs: &Epochs) {
        let first = self.first_seen_s.unwrap_or(u64::MAX).max(self.rolled_up_to_s());
        let last = self.timeline.last_start_s().unwrap_or(0);
        let mut settled = self.timeline.tally(first, last.max(first), epochs);
        settled.merge(&self.rolled_up());
        self.settled = settled.into();
    }

    /// As it was when the round that ends then was closed: its verdicts and their sums.
    #[must_use]
    pub fn until(&self, end_s: u64, epochs: &Epochs) -> Self {
        let mut node = self.clone();
        node.timeline.end_at(end_s);
        node.resettle(epochs);
        node
    }

    /// Forgets the rounds before this one, but for their sums, and how much of them was decided
    /// since the node fell silent and since it offered last.
    pub(crate) fn roll_up(
        &mut self,
        to_s: u64,
        silent_from_s: u64,
        offered_s: Option<u64>,
        epochs: &Epochs,
    ) {
        let mut tally = self.rolled_up();
        tally.merge(&self.tally_between(0, to_s, epochs));
        let silent_s = self.decided_since(silent_from_s, to_s, true);
        let since_offer_s = offered_s.map_or(0, |from_s| self.decided_since(from_s, to_s, false));
        self.timeline.trim(to_s);
        self.roll_up = Some(Box::new(RollUp { tally, to_s, silent_s, since_offer_s }));
        self.resettle(epochs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_ascend_and_know_their_first_offer_whatever_the_order() {
        let offers = [(7, 90), (7, 60), (3, 60), (7, 30), (3, 120), (5, 90)];
        let mut orders = vec![offers.to_vec()];
        for turn in 1..offers.len() {
            let (before, after) = offers.split_at(turn);
            orders.push([after, before].concat());
            orders.push([after, before].concat().into_iter().rev().collect());
        }
        for order in orders {
            let (mut subnets, mut first_seen_s) = (Subnets::default(), None);
            for (subnet, round_s) in &order {
                subnets.offer(*subnet, *round_s, first_seen_s);
                first_seen_s =
                    Some(first_seen_s.map_or(*round_s, |first: u64| first.min(*round_s)));
            }
            let wanted = [(3, 60), (5, 90), (7, 30)];
            assert_eq!(subnets.iter(30).collect::<Vec<_>>(), wanted, "{order:?}");
            assert_eq!(subnets, Subnets::of(&wanted));
        }
        let mut one = Subnets::default();
        one.offer(4, 60, None);
        one.offer(4, 30, Some(60));
        assert_eq!((one.clone(), one.iter(30).collect()), (Subnets::One(4), vec![(4, 30)]));
    }

    #[test]
    fn a_node_takes_little_memory() {
        assert!(size_of::<Node>() <= 88, "{}", size_of::<Node>());
    }
}
