//! How far each probe agrees with all others: one that lies, or sits where it sees nothing, is
//! noticed.
//!
//! Pure. Owns what is compared, when a probe is said to disagree, and when the policy is to stop
//! counting it until a person decides. Refuses to change a verdict: whoever is set aside is so by a
//! stored retraction, which the fold applies like any other and a person can undo.

use std::collections::{BTreeMap, VecDeque};

use roaring::RoaringBitmap;

use crate::verdict::{Ballot, Counters};

/// A vote is compared when so many others voted on the same node: with one other alone nobody could
/// say which of the two is wrong.
const OTHERS_MIN: usize = 2;
/// What is remembered: an hour of rounds of 30 s. Whoever was wrong for longer is wrong.
const ROUNDS: usize = 120;
/// Fewer comparisons than this say nothing yet.
const COMPARED_MIN: u64 = 500;
/// Below this share of agreement there is an alarm. Honest probes see the same relay: what they
/// differ in is the moment at which a node died or came back, some nodes in a thousand.
const ALARM_BELOW_PERCENT: u64 = 90;
/// Below this share a probe is more often wrong than right, and is set aside where the policy says
/// so.
const SET_ASIDE_BELOW_PERCENT: u64 = 50;
/// So many probes that agree must be left: with fewer there is no majority to be wrong against.
const LEFT_MIN: usize = 2;

/// Votes of one probe beside those of the others on the same nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Votes for which the others had a majority either way.
    pub compared: u64,
    /// Those that said the same.
    pub agreed: u64,
}

impl Compared {
    fn below(self, percent: u64) -> bool {
        self.agreed * 100 < self.compared * percent
    }

    /// From 0 to 1; 1 where nothing was compared.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "numbers of votes")]
    pub fn share(self) -> f64 {
        if self.compared == 0 { 1.0 } else { self.agreed as f64 / self.compared as f64 }
    }
}

/// Compares the votes of one round: each probe with the majority of the others, node by node.
#[must_use]
pub fn compare(ballots: &BTreeMap<u32, Ballot>) -> BTreeMap<u32, Compared> {
    let empty = RoaringBitmap::new();
    let votes = |ballot: &'_ Ballot| {
        // A probe that could not see well votes for nobody's absence.
        let negative = if ballot.eligible { ballot.negative.clone() } else { empty.clone() };
        (ballot.positive.clone(), negative)
    };
    let (mut for_it, mut against, mut all) =
        (Counters::default(), Counters::default(), Counters::default());
    for ballot in ballots.values() {
        let (positive, negative) = votes(ballot);
        all.add(&positive | &negative);
        for_it.add(positive);
        against.add(negative);
    }
    let of = |ballot: &Ballot| {
        let (positive, negative) = votes(ballot);
        let mut compared = Compared::default();
        for (mine, same, other) in [(positive, &for_it, &against), (negative, &against, &for_it)] {
            // It is one of those who said the same, so those who did not get one more, too.
            let mine = &mine & all.at_least(OTHERS_MIN + 1, &mine);
            let mut other = other.clone();
            other.add(mine.clone());
            let agreed = same.greater_than(&other, &mine).len();
            compared.agreed += agreed;
            compared.compared += agreed + other.greater_than(same, &mine).len();
        }
        compared
    };
    ballots.iter().map(|(probe, ballot)| (*probe, of(ballot))).collect()
}

/// How a probe stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Too little was compared.
    Unknown,
    /// It says what the others say.
    Agrees,
    /// It does not: a person should look.
    Disagrees,
}

/// What is to be done about probes that disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// An alarm, and nothing else.
    #[default]
    Tell,
    /// Those that are more often wrong than right count no more, until a person decides.
    SetAside,
}

/// What each probe's recent votes amount to.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// What is to be done about those that disagree.
    pub policy: Policy,
    rounds: BTreeMap<u32, VecDeque<Compared>>,
}

impl Record {
    /// Takes a closed round in. A probe that has no vote in it stands as before.
    pub fn note(&mut self, round: &BTreeMap<u32, Compared>) {
        for (probe, compared) in round {
            let rounds = self.rounds.entry(*probe).or_default();
            rounds.push_back(*compared);
            if rounds.len() > ROUNDS {
                rounds.pop_front();
            }
        }
    }

    /// Forgets a probe: one that was set aside begins anew when a person lets it count again.
    pub fn forget(&mut self, probe: u32) {
        self.rounds.remove(&probe);
    }

    /// All that is remembered of a probe.
    #[must_use]
    pub fn of(&self, probe: u32) -> Compared {
        let rounds = self.rounds.get(&probe).into_iter().flatten();
        rounds.fold(Compared::default(), |sum, round| Compared {
            compared: sum.compared + round.compared,
            agreed: sum.agreed + round.agreed,
        })
    }

    /// How a probe stands.
    #[must_use]
    pub fn standing(&self, probe: u32) -> Standing {
        let all = self.of(probe);
        if all.compared < COMPARED_MIN {
            Standing::Unknown
        } else if all.below(ALARM_BELOW_PERCENT) {
            Standing::Disagrees
        } else {
            Standing::Agrees
        }
    }

    /// The probes that are to count no more, the worst first. None unless the policy says so, and
    /// never so many that those who are left could not outvote one of their own.
    #[must_use]
    pub fn to_set_aside(&self) -> Vec<u32> {
        if self.policy == Policy::Tell {
            return Vec::new();
        }
        let agreeing =
            self.rounds.keys().filter(|probe| self.standing(**probe) == Standing::Agrees).count();
        if agreeing < LEFT_MIN {
            return Vec::new();
        }
        let mut wrong: Vec<(u32, Compared)> = self
            .rounds
            .iter()
            .filter(|(_, rounds)| rounds.len() == ROUNDS)
            .map(|(probe, _)| (*probe, self.of(*probe)))
            .filter(|(_, all)| all.compared >= COMPARED_MIN && all.below(SET_ASIDE_BELOW_PERCENT))
            .collect();
        wrong.sort_by(|(_, a), (_, b)| (a.agreed * b.compared).cmp(&(b.agreed * a.compared)));
        wrong.into_iter().map(|(probe, _)| probe).collect()
    }
}

#[cfg(test)]
#[path = "agreement/tests.rs"]
mod tests;
