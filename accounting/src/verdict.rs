//! From the votes of probes to the verdict on every node of one round.
//!
//! Pure. Owns the rule of the accounting page ("From evidence to a verdict") and nothing else:
//! who is eligible is decided in `evidence.rs`. Works on whole sets at a time, so that its cost
//! grows with the number of probes and hardly with the number of nodes.

use roaring::RoaringBitmap;

/// The decision about one node in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// At least `k` probes hold positive evidence.
    Up,
    /// Not up, and most of the eligible probes that looked found it unreachable.
    Down,
    /// Neither could be decided.
    Unknown,
}

impl Verdict {
    /// Whether it is up or down.
    #[must_use]
    pub fn is_decided(self) -> bool {
        self != Self::Unknown
    }
}

/// What one probe says of a round. Sets of node numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ballot {
    /// Whether its negative votes, and its having looked, count.
    pub eligible: bool,
    /// Nodes with positive evidence, from any of its parts.
    pub positive: RoaringBitmap,
    /// Nodes it found unreachable in eligible parts, those with positive evidence left out.
    pub negative: RoaringBitmap,
}

/// The nodes that are up and down in a round; all others are unknown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// Up.
    pub up: RoaringBitmap,
    /// Down; shares no node with `up`.
    pub down: RoaringBitmap,
}

impl Decision {
    /// The verdict on one node.
    #[must_use]
    pub fn of(&self, node: u32) -> Verdict {
        if self.up.contains(node) {
            Verdict::Up
        } else if self.down.contains(node) {
            Verdict::Down
        } else {
            Verdict::Unknown
        }
    }
}

/// So many eligible probes must have looked before a node is down, or all when there are fewer.
pub const LOOKED_MIN: usize = 3;

/// Decides a round from all its ballots; `positive_probes_min` is k.
#[must_use]
pub fn decide(ballots: &[Ballot], positive_probes_min: u32) -> Decision {
    let up = at_least(ballots.iter().map(|ballot| &ballot.positive), positive_probes_min.max(1));
    let eligible: Vec<&Ballot> = ballots.iter().filter(|ballot| ballot.eligible).collect();
    let mut accused = RoaringBitmap::new();
    for ballot in &eligible {
        accused |= &ballot.negative;
    }
    accused -= &up;
    if accused.is_empty() {
        return Decision { up, down: accused };
    }
    let mut negative = Counters::default();
    let mut looked = Counters::default();
    for ballot in &eligible {
        let against = &ballot.negative & &accused;
        looked.add((&ballot.positive & &accused) | &against);
        negative.add(against);
    }
    let majority = negative.doubled().greater_than(&looked, &accused);
    let down = majority & looked.at_least(eligible.len().min(LOOKED_MIN), &accused);
    Decision { up, down }
}

/// The nodes that are in at least `k` of the sets.
#[must_use]
pub fn at_least<'a>(sets: impl Iterator<Item = &'a RoaringBitmap>, k: u32) -> RoaringBitmap {
    // in_so_many[j]: nodes met at least j + 1 times so far.
    let mut in_so_many = vec![RoaringBitmap::new(); k as usize];
    for set in sets {
        for above in (1..in_so_many.len()).rev() {
            let again = &in_so_many[above - 1] & set;
            in_so_many[above] |= again;
        }
        in_so_many[0] |= set;
    }
    in_so_many.pop().unwrap_or_default()
}

/// A small number per node, bit by bit: plane `i` holds the nodes whose number has bit `i` set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters(Vec<RoaringBitmap>);

impl Counters {
    /// Adds one for every node of the set.
    pub(crate) fn add(&mut self, mut carry: RoaringBitmap) {
        for plane in &mut self.0 {
            if carry.is_empty() {
                return;
            }
            let overflow = &*plane & &carry;
            *plane ^= &carry;
            carry = overflow;
        }
        if !carry.is_empty() {
            self.0.push(carry);
        }
    }

    fn doubled(&self) -> Self {
        let mut planes = vec![RoaringBitmap::new()];
        planes.extend(self.0.iter().cloned());
        Self(planes)
    }

    /// The nodes of `among` whose number here is greater than their number there.
    pub(crate) fn greater_than(&self, other: &Self, among: &RoaringBitmap) -> RoaringBitmap {
        let empty = RoaringBitmap::new();
        let mut equal = among.clone();
        let mut greater = RoaringBitmap::new();
        for index in (0..self.0.len().max(other.0.len())).rev() {
            let (mine, theirs) =
                (self.0.get(index).unwrap_or(&empty), other.0.get(index).unwrap_or(&empty));
            greater |= (&equal & mine) - theirs;
            equal -= mine ^ theirs;
        }
        greater
    }

    /// The nodes of `among` whose number is at least this.
    pub(crate) fn at_least(&self, least: usize, among: &RoaringBitmap) -> RoaringBitmap {
        let Some(below) = least.checked_sub(1) else {
            return among.clone();
        };
        let constant = (0..usize::BITS - below.leading_zeros())
            .map(|bit| if below >> bit & 1 == 1 { among.clone() } else { RoaringBitmap::new() });
        self.greater_than(&Self(constant.collect()), among)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule, node by node, word for word.
    fn obvious(ballots: &[Ballot], k: usize, node: u32) -> Verdict {
        if ballots.iter().filter(|ballot| ballot.positive.contains(node)).count() >= k {
            return Verdict::Up;
        }
        let eligible: Vec<_> = ballots.iter().filter(|ballot| ballot.eligible).collect();
        let against = eligible.iter().filter(|ballot| ballot.negative.contains(node)).count();
        let found = eligible.iter().filter(|ballot| ballot.positive.contains(node)).count();
        let looked = against + found;
        if looked >= eligible.len().min(3) && 2 * against > looked {
            Verdict::Down
        } else {
            Verdict::Unknown
        }
    }

    fn ballot() -> impl Strategy<Value = Ballot> {
        let set = || prop::collection::btree_set(0u32..24, 0..24);
        (any::<bool>(), set(), set()).prop_map(|(eligible, positive, negative)| {
            let positive: RoaringBitmap = positive.into_iter().collect();
            let negative: RoaringBitmap = negative.into_iter().collect();
            Ballot { eligible, negative: &negative - &positive, positive }
        })
    }

    proptest! {
        #[test]
        fn whole_sets_decide_as_single_nodes_do(
            ballots in prop::collection::vec(ballot(), 0..12),
            k in 1u32..4,
        ) {
            let decision = decide(&ballots, k);
            for node in 0..24 {
                prop_assert_eq!(decision.of(node), obvious(&ballots, k as usize, node), "{}", node);
            }
        }
    }

    fn verdict(votes: &[(bool, char)], k: u32) -> Verdict {
        let set = |member: bool| member.then_some(7).into_iter().collect::<RoaringBitmap>();
        let ballots: Vec<Ballot> = votes
            .iter()
            .map(|(eligible, vote)| Ballot {
                eligible: *eligible,
                positive: set(*vote == '+'),
                negative: set(*vote == '-'),
            })
            .collect();
        decide(&ballots, k).of(7)
    }

    #[test]
    fn the_cases_of_the_accounting_page() {
        const E: bool = true;
        const N: bool = false;
        for (votes, k, wanted) in [
            (vec![], 1, Verdict::Unknown),
            (vec![(N, '+')], 1, Verdict::Up),
            (vec![(E, '+'), (E, '-'), (E, '-'), (E, '-')], 1, Verdict::Up),
            // One eligible probe suffices where it is the only one.
            (vec![(E, '-')], 1, Verdict::Down),
            (vec![(N, '-')], 1, Verdict::Unknown),
            // Two eligible, one of which did not look: too few looked.
            (vec![(E, '-'), (E, ' ')], 1, Verdict::Unknown),
            (vec![(E, '-'), (E, '-')], 1, Verdict::Down),
            (vec![(E, '-'), (N, '-')], 1, Verdict::Down),
            // Five eligible, three looked: enough.
            (vec![(E, '-'), (E, '-'), (E, '-'), (E, ' '), (E, ' ')], 1, Verdict::Down),
            (vec![(E, '-'), (E, '-'), (E, ' '), (E, ' '), (E, ' ')], 1, Verdict::Unknown),
            // k = 2: one probe found it, the others did not.
            (vec![(E, '+'), (E, '-'), (E, '-')], 2, Verdict::Down),
            (vec![(E, '+'), (E, '-')], 2, Verdict::Unknown),
            (vec![(E, '+'), (N, '+'), (E, '-')], 2, Verdict::Up),
        ] {
            assert_eq!(verdict(&votes, k), wanted, "{votes:?} with k = {k}");
        }
    }
}
