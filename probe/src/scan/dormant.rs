//! Which nodes have been dead for long, and whose earlier questions may stand in for this round's.
//!
//! Owns the rule "Nodes that have been dead for long are asked less often" of the accounting page.
//! Each direct question to a dead node costs log lines and relay traffic on other people's
//! machines. Nothing is kept over a restart. Pure: times are passed in.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use uptime_proto::clock::Moment;
use uptime_proto::{NodeId, Round};

/// Complete pairs in a row that must have gone unanswered (accounting page, 4).
const PAIRS_MIN: u32 = 3;
/// From that pair on, the node is asked again after this many rounds (4).
const ASKED_AGAIN_AFTER: [u64; 6] = [1, 2, 4, 8, 16, 20];
/// An earlier pair stands in for at most this many rounds and this long (1).
const ROUNDS_MAX: u64 = 20;
const AGE_MAX: Duration = Duration::from_secs(600);

/// What a round found out about a suspect, as far as this rule needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// `FindNode` answered "not known", and the earlier questions stood in for new ones.
    StoodIn,
    /// A complete pair went unanswered; every `FindNode` in the round answered "not known".
    NotKnown,
    /// A complete pair went unanswered; `FindNode` found an old session.
    Stale,
    /// Anything else: a sign of life, or an error.
    Broken,
}

/// What is remembered of one node.
#[derive(Debug, Clone, Copy)]
struct Record {
    /// Complete pairs in a row that went unanswered.
    pairs: u32,
    /// When the last of them began, if all `FindNode` since then answered "not known".
    asked: Option<(Round, Duration)>,
}

/// Nodes that did not answer this process. Holds only nodes of the last round.
#[derive(Debug, Default)]
pub struct Dormant {
    records: HashMap<NodeId, Record>,
    /// The round the records are of.
    round: Option<Round>,
    last_read: Option<Moment>,
    /// The daemon that was asked.
    daemon: String,
    /// Differs between probes.
    salt: String,
}

impl Dormant {
    /// Nothing is known yet. `salt` differs between probes, so that they do not all ask at once.
    #[must_use]
    pub fn new(salt: &str) -> Self {
        Self { salt: salt.to_owned(), ..Self::default() }
    }

    /// The nodes whose earlier questions may stand in for those of this round, should `FindNode`
    /// answer "not known" again. `session_age` is the age of the relay session of `daemon`.
    pub fn may_stand_in(
        &mut self,
        round: Round,
        now: Moment,
        session_age: Duration,
        daemon: &str,
    ) -> HashSet<NodeId> {
        let stepped = self.last_read.is_some_and(|before| now.has_stepped_since(before));
        self.last_read = Some(now);
        // A round without the question ends it (2), and so does a step of the clock (1).
        let follows = self.round.is_some_and(|before| before.next() == round);
        if stepped || !follows || self.daemon != daemon {
            self.records.clear();
            daemon.clone_into(&mut self.daemon);
        }
        let stands_in = |(id, record): (&NodeId, &Record)| {
            let (asked_in, asked_at) = record.asked?;
            let elapsed = now.boot.saturating_sub(asked_at);
            let rounds = rounds_between(asked_in, round);
            let due = rounds >= asked_again_after(record.pairs, id, &self.salt)?;
            let holds = rounds <= ROUNDS_MAX && elapsed <= AGE_MAX && session_age > elapsed;
            (!due && holds).then_some(*id)
        };
        self.records.iter().filter_map(stands_in).collect()
    }

    /// Takes note of what a round found out about its suspects. `began` is when the first of them
    /// was asked, by the boot clock.
    pub fn note(
        &mut self,
        round: Round,
        began: Duration,
        found: impl Iterator<Item = (NodeId, Silence)>,
    ) {
        let before = std::mem::take(&mut self.records);
        self.round = Some(round);
        for (id, silence) in found {
            let known = before.get(&id).copied();
            let pairs = known.map_or(0, |record| record.pairs).saturating_add(1);
            let record = match silence {
                Silence::StoodIn => known,
                Silence::NotKnown => Some(Record { pairs, asked: Some((round, began)) }),
                Silence::Stale => Some(Record { pairs, asked: None }),
                Silence::Broken => None,
            };
            self.records.extend(record.map(|record| (id, record)));
        }
    }
}

fn rounds_between(from: Round, to: Round) -> u64 {
    to.start_s().saturating_sub(from.start_s()) / u64::from(to.period().seconds())
}

/// After how many rounds a node is asked again; `None`: in every round. Nodes that died together
/// are spread over the rounds by shortening two of the steps.
fn asked_again_after(pairs: u32, id: &NodeId, salt: &str) -> Option<u64> {
    let step = usize::try_from(pairs.checked_sub(PAIRS_MIN)?).ok()?;
    let last = ASKED_AGAIN_AFTER.len() - 1;
    let rounds = ASKED_AGAIN_AFTER[step.min(last)];
    let mut hasher = DefaultHasher::new();
    (salt, id).hash(&mut hasher);
    let is_shifted = (3..last).contains(&step);
    Some(rounds - if is_shifted { hasher.finish() % rounds } else { 0 })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;
    use uptime_proto::Period;

    use super::*;

    const OLD_SESSION: Duration = Duration::from_secs(86_400);

    fn id(byte: u8) -> NodeId {
        NodeId::new([byte; 20])
    }

    fn round(number: u64, period_s: u32) -> Round {
        let period = Period::new(period_s).unwrap();
        Round::new(1_800_000_000 + number * u64::from(period_s), period).unwrap()
    }

    /// The begin of the questions in a round.
    fn at(round: Round) -> Moment {
        let wall_ms = round.start_ms() + 20_000;
        let boot = Duration::from_millis(u64::try_from(wall_ms).unwrap() - 1_700_000_000_000);
        Moment { wall_ms, boot }
    }

    /// One round: answers who stood in. The others were asked in vain, and the relay did not know
    /// them.
    fn one(dormant: &mut Dormant, round: Round, ids: &[NodeId]) -> HashSet<NodeId> {
        let standing = dormant.may_stand_in(round, at(round), OLD_SESSION, "d");
        let found = ids.iter().map(|id| {
            let stood_in = standing.contains(id);
            (*id, if stood_in { Silence::StoodIn } else { Silence::NotKnown })
        });
        dormant.note(round, at(round).boot, found);
        standing
    }

    /// In which rounds a node is asked.
    fn asked(period_s: u32, rounds: u64) -> Vec<u64> {
        let mut dormant = Dormant::default();
        (0..rounds)
            .filter(|number| one(&mut dormant, round(*number, period_s), &[id(7)]).is_empty())
            .collect()
    }

    #[test]
    fn the_long_dead_are_asked_ever_less_often() {
        let asked = asked(30, 400);
        assert_eq!(asked[..7], [0, 1, 2, 3, 5, 9, asked[6]]);
        assert!((10..=17).contains(&asked[6]), "{asked:?}");
        let steps: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps[7..].iter().all(|step| *step == 20), "{steps:?}");
    }

    #[test]
    fn in_long_rounds_ten_minutes_are_the_limit() {
        let steps: Vec<u64> = asked(120, 200).windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| *step <= 6), "{steps:?}");
    }

    #[test]
    fn nodes_that_died_together_are_spread_over_the_rounds() {
        let ids: Vec<NodeId> = (0..200).map(id).collect();
        let mut dormant = Dormant::default();
        let mut most = 0;
        for number in 0..160 {
            let standing = one(&mut dormant, round(number, 30), &ids);
            if number > 60 {
                most = most.max(ids.len() - standing.len());
            }
        }
        assert!(most <= 40, "{most} of 200 asked in one round");
    }

    /// A node that is asked every twentieth round, and the number of the next round.
    fn settled() -> (Dormant, u64) {
        let mut dormant = Dormant::default();
        (0..100).for_each(|number| drop(one(&mut dormant, round(number, 30), &[id(7)])));
        let next =
            (100..200).find(|number| !one(&mut dormant, round(*number, 30), &[id(7)]).is_empty());
        (dormant, next.unwrap() + 1)
    }

    #[test]
    fn anything_but_not_known_ends_it() {
        for silence in [Silence::Stale, Silence::Broken] {
            let (mut dormant, number) = settled();
            let this = round(number, 30);
            dormant.note(this, at(this).boot, [(id(7), silence)].into_iter());
            let next = round(number + 1, 30);
            assert!(dormant.may_stand_in(next, at(next), OLD_SESSION, "d").is_empty());
        }
        // A round in which nobody asked.
        let (mut dormant, number) = settled();
        let later = round(number + 1, 30);
        assert!(dormant.may_stand_in(later, at(later), OLD_SESSION, "d").is_empty());
        // A round in which it was not among the suspects.
        let (mut dormant, number) = settled();
        let this = round(number, 30);
        dormant.note(this, at(this).boot, std::iter::empty());
        let next = round(number + 1, 30);
        assert!(dormant.may_stand_in(next, at(next), OLD_SESSION, "d").is_empty());
    }

    #[test]
    fn a_young_session_or_a_step_of_the_clock_ends_it() {
        let (mut dormant, number) = settled();
        let this = round(number, 30);
        let young = Duration::from_secs(10);
        assert!(dormant.may_stand_in(this, at(this), young, "d").is_empty());
        assert_eq!(dormant.may_stand_in(this, at(this), OLD_SESSION, "d").len(), 1);
        let stepped = Moment { wall_ms: at(this).wall_ms - 30_000, ..at(this) };
        assert!(dormant.may_stand_in(this, stepped, OLD_SESSION, "d").is_empty());
        assert!(dormant.may_stand_in(this, at(this), OLD_SESSION, "d").is_empty(), "for good");
    }

    proptest! {
        /// Whatever happens, an earlier pair stands in only where the four conditions of the
        /// accounting page hold, told anew from the whole history.
        #[test]
        fn the_conditions_hold(
            period_s in prop::sample::select(vec![10u32, 30, 60, 120]),
            history in prop::collection::vec((0u8..12, 0u64..2_000), 1..120),
        ) {
            let mut dormant = Dormant::default();
            // Per round: whether FindNode was asked and said "not known" throughout, and the begin
            // of a complete pair that went unanswered.
            let mut told: Vec<(bool, Option<Duration>)> = Vec::new();
            for (number, (event, session_s)) in (0u64..).zip(history) {
                let (round, session) = (round(number, period_s), Duration::from_secs(session_s));
                if event == 0 {
                    told.push((false, None));
                    continue;
                }
                let now = at(round);
                let stands_in = dormant.may_stand_in(round, now, session, "d").contains(&id(7));
                if stands_in {
                    let pair = told.iter().rposition(|(_, pair)| pair.is_some());
                    let pair = pair.expect("there was a pair");
                    let elapsed = now.boot - told[pair].1.expect("of that round");
                    prop_assert!(told.len() - pair <= 20 && elapsed <= Duration::from_secs(600));
                    prop_assert!(told[pair..].iter().all(|(not_known, _)| *not_known));
                    prop_assert!(session > elapsed);
                    // Rounds in which it was not asked lie between pairs, never a failed one.
                    let before = told[..=pair].iter().rev();
                    let in_a_row = before.take_while(|(asked, pair)| *asked || pair.is_some());
                    prop_assert!(in_a_row.filter(|(_, pair)| pair.is_some()).count() >= 3);
                }
                let (silence, line) = match event {
                    1 => (Silence::Broken, (false, None)),
                    2 => (Silence::Stale, (false, Some(now.boot))),
                    _ if stands_in => (Silence::StoodIn, (true, None)),
                    _ => (Silence::NotKnown, (true, Some(now.boot))),
                };
                dormant.note(round, now.boot, [(id(7), silence)].into_iter());
                told.push(line);
            }
        }
    }
}
