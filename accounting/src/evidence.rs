//! The facts of one round, and what each probe's facts amount to.
//!
//! Pure. Owns which of two conflicting facts counts, and who is eligible (accounting page,
//! "Eligibility" and "Truth is a set"). Refuses to decide about nodes: `verdict.rs` does.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use roaring::RoaringBitmap;
use uptime_proto::{Class, Epoch, Kind, Outcome, Reason, v1};

use crate::fact::{Fact, FactKey};
use crate::verdict::Ballot;

/// What became of a fact that was put to a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is the first under its key.
    New,
    /// The same is there already.
    Same,
    /// Another with a smaller digest is there and goes on counting.
    Outranked,
    /// It has the smaller digest and counts from now on.
    Replaced,
}

/// All facts of one round in force; of conflicting ones, the one that counts.
#[derive(Debug, Clone, Default)]
pub struct RoundFacts {
    facts: BTreeMap<FactKey, Fact>,
    /// By probe. Made when it is first asked for after a change: a large round comes in many parts.
    tallied: OnceLock<BTreeMap<u32, Tallied>>,
}

impl PartialEq for RoundFacts {
    fn eq(&self, other: &Self) -> bool {
        self.facts == other.facts
    }
}

/// How many nodes a probe looked for in a round, and how many of them it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tallied {
    /// Distinct nodes in its look-up parts.
    pub looked: u64,
    /// Those of them with positive evidence.
    pub found: u64,
}

/// Why the negative votes of a probe do not count in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "documented in types.proto")]
pub enum Ineligibility {
    RelaySessionYoung,
    RelaySessionMissing,
    MassLoss,
    DidNotLook,
}

impl Ineligibility {
    /// Its value on the wire.
    #[must_use]
    pub const fn to_wire(self) -> v1::Ineligibility {
        match self {
            Self::RelaySessionYoung => v1::Ineligibility::RelaySessionYoung,
            Self::RelaySessionMissing => v1::Ineligibility::RelaySessionMissing,
            Self::MassLoss => v1::Ineligibility::MassLoss,
            Self::DidNotLook => v1::Ineligibility::DidNotLook,
        }
    }

    const ALL: [Self; 4] =
        [Self::RelaySessionYoung, Self::RelaySessionMissing, Self::MassLoss, Self::DidNotLook];

    /// Its number in a checkpoint.
    #[must_use]
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The one with this number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.code() == code)
    }
}

/// Fewer nodes than this say nothing about a probe's sight.
const MASS_LOSS_LOOKED_MIN: u64 = 10;
/// A probe is compared with its own best share of so many rounds before.
pub const MASS_LOSS_ROUNDS: usize = 20;

impl Tallied {
    /// Whether it found less than half of its own best share in earlier rounds.
    #[must_use]
    pub fn lost_sight(self, earlier: impl Iterator<Item = Self>) -> bool {
        self.looked >= MASS_LOSS_LOOKED_MIN
            && earlier.filter(|then| then.looked >= MASS_LOSS_LOOKED_MIN).any(|then| {
                // found / looked < (then.found / then.looked) / 2, without fractions.
                u128::from(self.found) * 2 * u128::from(then.looked)
                    < u128::from(then.found) * u128::from(self.looked)
            })
    }
}

/// What one probe's facts of a round amount to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProbeRound {
    /// Its votes.
    pub ballot: Ballot,
    /// Why it is not eligible; empty: it is.
    pub ineligibilities: Vec<Ineligibility>,
    /// Why it could not look. What only kept it from asking about single nodes is left out where
    /// it looked otherwise: that is no fault of the probe's sight.
    pub could_not_look: Vec<Reason>,
    /// Nodes of which it only knows that its daemon gave an error when it asked.
    pub failed_nodes: u64,
    /// Distinct nodes of its market listings.
    pub offers: u64,
    /// What it looked for and found.
    pub tallied: Tallied,
}

impl RoundFacts {
    /// Puts a fact; of two with one key the smaller digest counts.
    pub fn insert(&mut self, fact: Fact) -> Inserted {
        let inserted = match self.facts.get(&fact.key).map(|there| (there.digest, fact.digest)) {
            None => Inserted::New,
            // One without a digest stood alone; a store answers both of a conflict with theirs.
            Some((None, _) | (_, None)) => return Inserted::Same,
            Some((Some(there), Some(here))) => match there.cmp(&here) {
                std::cmp::Ordering::Equal => return Inserted::Same,
                std::cmp::Ordering::Less => return Inserted::Outranked,
                std::cmp::Ordering::Greater => Inserted::Replaced,
            },
        };
        self.facts.insert(fact.key, fact);
        self.tallied.take();
        inserted
    }

    /// Takes as little memory from now on as it can: sets in runs where they mostly are.
    pub fn compact(&mut self) {
        for fact in self.facts.values_mut() {
            // Who else holds them has them for as long as it does.
            for set in Arc::get_mut(&mut fact.sets).into_iter().flatten() {
                set.optimize();
            }
        }
    }

    /// The facts that count, by key.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.facts.values()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    /// What a probe looked for and found; nothing if it did not report.
    #[must_use]
    pub fn tallied(&self, probe: u32) -> Tallied {
        self.tallies().get(&probe).copied().unwrap_or_default()
    }

    /// The same of every probe that reported.
    fn tallies(&self) -> &BTreeMap<u32, Tallied> {
        self.tallied.get_or_init(|| {
            let mut sets: BTreeMap<u32, (RoaringBitmap, RoaringBitmap)> = BTreeMap::new();
            for fact in self.facts.values() {
                let (found, looked) = sets.entry(fact.key.probe).or_default();
                if fact.kind == Kind::Lookup {
                    *found |= fact.of(Class::Seen);
                    *found |= fact.of(Class::Answered);
                    *looked |= fact.of(Class::Unreachable);
                }
            }
            let tally = |(probe, (found, looked)): (u32, (RoaringBitmap, RoaringBitmap))| {
                (probe, Tallied { looked: looked.union_len(&found), found: found.len() })
            };
            sets.into_iter().map(tally).collect()
        })
    }

    fn of_probe(&self, probe: u32) -> impl Iterator<Item = &Fact> {
        self.facts.values().filter(move |fact| fact.key.probe == probe)
    }

    /// What each probe's facts amount to. `earlier` answers the facts of the rounds before this
    /// one, nearest first, as far as mass loss looks back.
    pub fn probe_rounds(
        &self,
        epoch: &Epoch,
        earlier: &[Option<&Self>],
    ) -> BTreeMap<u32, ProbeRound> {
        self.tallies()
            .iter()
            .map(|(probe, tallied)| {
                let before = earlier.iter().flatten().map(|round| round.tallied(*probe));
                let lost_sight = tallied.lost_sight(before);
                (*probe, self.probe_round(*probe, *tallied, lost_sight, epoch))
            })
            .collect()
    }

    fn probe_round(
        &self,
        probe: u32,
        tallied: Tallied,
        lost_sight: bool,
        epoch: &Epoch,
    ) -> ProbeRound {
        let mut round = ProbeRound { tallied, ..ProbeRound::default() };
        let (mut offers, mut failed) = (RoaringBitmap::new(), RoaringBitmap::new());
        let mut asked_in_vain = Vec::new();
        let (mut young, mut missing, mut sound) = (false, false, false);
        for fact in self.of_probe(probe) {
            offers |= fact.of(Class::Offer);
            round.ballot.positive |= fact.of(Class::Seen);
            round.ballot.positive |= fact.of(Class::Answered);
            failed |= fact.of(Class::Failed);
            if let Outcome::CouldNotLook(reason) = fact.outcome {
                let of_single_nodes = !fact.of(Class::Failed).is_empty();
                let why =
                    if of_single_nodes { &mut asked_in_vain } else { &mut round.could_not_look };
                why.push(reason);
            } else if fact.kind == Kind::Lookup {
                match fact.relay_session_age_s {
                    None => missing = true,
                    Some(age) if age < epoch.relay_session_age_min_s => young = true,
                    Some(_) => {
                        sound = true;
                        round.ballot.negative |= fact.of(Class::Unreachable);
                    }
                }
            }
        }
        round.offers = offers.len();
        round.failed_nodes = self.still_unknown(probe, failed).len();
        round.ballot.negative -= &round.ballot.positive;
        if !young && !missing && !sound {
            round.could_not_look.append(&mut asked_in_vain);
        }
        if !sound {
            let reasons = [
                (young, Ineligibility::RelaySessionYoung),
                (missing, Ineligibility::RelaySessionMissing),
                (!young && !missing, Ineligibility::DidNotLook),
            ];
            let holding = reasons.into_iter().filter(|(holds, _)| *holds);
            round.ineligibilities.extend(holding.map(|(_, reason)| reason));
        }
        if lost_sight {
            round.ineligibilities.push(Ineligibility::MassLoss);
        }
        round.ballot.eligible = round.ineligibilities.is_empty();
        round.could_not_look.sort_unstable();
        round.could_not_look.dedup();
        round
    }

    /// Of these nodes those of which no part of the probe says what became of them.
    fn still_unknown(&self, probe: u32, mut nodes: RoaringBitmap) -> RoaringBitmap {
        if !nodes.is_empty() {
            for fact in self.of_probe(probe) {
                nodes -= fact.positive();
                nodes -= fact.of(Class::Unreachable);
            }
        }
        nodes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uptime_proto::{CLASSES, Digest, Period, Round};

    use super::*;

    fn fact(probe: u32, number: u16, age: Option<u32>, seen: &[u32], dead: &[u32]) -> Fact {
        let set = |nodes: &[u32]| nodes.iter().copied().collect::<RoaringBitmap>();
        let round = Round::new(60, Period::new(30).unwrap()).unwrap();
        let empty = RoaringBitmap::new;
        Fact {
            key: FactKey { round, subnet: 0, probe, number },
            kind: Kind::Lookup,
            outcome: Outcome::Looked,
            digest: Some(Digest([u8::try_from(number).unwrap(); 16])),
            observed_at_ms: 75_000,
            received_at_ms: 75_001,
            relay_session_age_s: age,
            sets: Arc::new([empty(), set(seen), empty(), set(dead), empty(), empty()]),
        }
    }

    fn epoch() -> Epoch {
        Epoch::with_defaults(Period::new(30).unwrap())
    }

    fn reasons(facts: Vec<Fact>, earlier: &[Option<&RoundFacts>]) -> Vec<Ineligibility> {
        let mut round = RoundFacts::default();
        for fact in facts {
            round.insert(fact);
        }
        round.probe_rounds(&epoch(), earlier).remove(&1).unwrap().ineligibilities
    }

    #[test]
    fn a_young_or_missing_relay_session_takes_the_negative_vote_away() {
        assert_eq!(reasons(vec![fact(1, 0, Some(60), &[1], &[])], &[]), []);
        let young = vec![fact(1, 0, Some(59), &[1], &[2])];
        assert_eq!(reasons(young, &[]), [Ineligibility::RelaySessionYoung]);
        let missing = vec![fact(1, 0, None, &[1], &[2])];
        assert_eq!(reasons(missing, &[]), [Ineligibility::RelaySessionMissing]);
        let blind = Fact {
            outcome: Outcome::CouldNotLook(Reason::TimedOut),
            ..fact(1, 0, Some(600), &[], &[])
        };
        assert_eq!(reasons(vec![blind], &[]), [Ineligibility::DidNotLook]);
    }

    #[test]
    fn a_probe_does_not_ail_because_its_daemon_gave_an_error_for_some_nodes() {
        let set = |nodes: &[u32]| nodes.iter().copied().collect::<RoaringBitmap>();
        let failing = |number, nodes: &[u32]| {
            let mut sets: [RoaringBitmap; CLASSES] = Default::default();
            sets[Class::Failed.index()] = set(nodes);
            Fact {
                outcome: Outcome::CouldNotLook(Reason::NetError),
                sets: Arc::new(sets),
                ..fact(1, number, Some(600), &[], &[])
            }
        };
        let blind = |number| Fact {
            outcome: Outcome::CouldNotLook(Reason::TimedOut),
            ..fact(1, number, Some(600), &[], &[])
        };
        let of = |facts: Vec<Fact>| {
            let mut round = RoundFacts::default();
            for fact in facts {
                round.insert(fact);
            }
            let probe = round.probe_rounds(&epoch(), &[]).remove(&1).unwrap();
            (probe.ballot.eligible, probe.could_not_look, probe.failed_nodes)
        };
        let looked = || fact(1, 0, Some(600), &[1, 2], &[3]);
        // What another part knows is not in doubt.
        assert_eq!(of(vec![looked(), failing(1, &[1, 3, 4, 5])]), (true, vec![], 2));
        assert_eq!(
            of(vec![looked(), failing(1, &[4]), failing(2, &[4, 5]), blind(3)]),
            (true, vec![Reason::TimedOut], 2)
        );
        // It looked nowhere else: then it is the probe that cannot see.
        assert_eq!(of(vec![failing(1, &[4])]), (false, vec![Reason::NetError], 1));
        assert_eq!(of(vec![blind(0)]), (false, vec![Reason::TimedOut], 0));
    }

    #[test]
    fn only_sound_parts_accuse_and_positive_evidence_outweighs() {
        let mut round = RoundFacts::default();
        round.insert(fact(1, 0, Some(600), &[1], &[2, 3]));
        round.insert(fact(1, 1, Some(6), &[3], &[4]));
        let ballot = round.probe_rounds(&epoch(), &[]).remove(&1).unwrap().ballot;
        assert!(ballot.eligible);
        assert_eq!(ballot.negative.iter().collect::<Vec<_>>(), [2]);
        assert_eq!(ballot.positive.iter().collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn losing_half_of_the_best_share_is_mass_loss() {
        let nodes: Vec<u32> = (0..20).collect();
        let mut best = RoundFacts::default();
        best.insert(fact(1, 0, Some(600), &nodes, &[]));
        let earlier = [None, Some(&best)];
        let at = |found: usize| vec![fact(1, 0, Some(600), &nodes[..found], &nodes[found..])];
        assert_eq!(reasons(at(10), &earlier), []);
        assert_eq!(reasons(at(9), &earlier), [Ineligibility::MassLoss]);
        // Nine nodes are too few to tell, in either round.
        assert_eq!(reasons(vec![fact(1, 0, Some(600), &[], &nodes[..9])], &earlier), []);
        let mut few = RoundFacts::default();
        few.insert(fact(1, 0, Some(600), &nodes[..9], &[]));
        assert_eq!(reasons(at(0), &[Some(&few)]), []);
    }

    #[test]
    fn of_two_facts_with_one_key_the_smaller_digest_counts() {
        let (small, large) = (Digest([1; 16]), Digest([2; 16]));
        let with = |digest| Fact { digest: Some(digest), ..fact(1, 0, Some(600), &[1], &[]) };
        let mut round = RoundFacts::default();
        assert_eq!(round.insert(with(large)), Inserted::New);
        assert_eq!(round.insert(with(large)), Inserted::Same);
        assert_eq!(round.insert(with(small)), Inserted::Replaced);
        assert_eq!(round.insert(with(large)), Inserted::Outranked);
        assert_eq!(round.facts().next().unwrap().digest, Some(small));
    }
}
