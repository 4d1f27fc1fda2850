//! Why a node had the verdict it had in a round: who saw what, and which rule decided.
//!
//! Pure. Owns the account of one node and one round, from the facts of that round and of those that
//! mass loss looks back on. Refuses to decide anything anew: the verdict is that of `verdict.rs`.

use std::collections::BTreeMap;
use std::fmt;

use uptime_proto::words::counted;
use uptime_proto::{Class, Epoch, Epochs, Kind, Outcome, Round};

use crate::evidence::{Ineligibility, MASS_LOSS_ROUNDS, RoundFacts};
use crate::fact::{Fact, FactKey};
use crate::state::{Window, judge};
use crate::verdict::{LOOKED_MIN, Verdict};

/// Ages are kept of so many rounds, the last closed one among them.
const AGES_ROUNDS: u64 = 20;
/// The relay forgets a node that it has not heard of for so long.
const RELAY_REMEMBERS_MS: i32 = 600_000;

/// The account of one node and one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Which round.
    pub round: Round,
    /// What was decided.
    pub verdict: Verdict,
    /// Probes with positive evidence.
    pub positive: usize,
    /// Probes that were eligible in the round.
    pub eligible: usize,
    /// Eligible probes that looked for the node.
    pub looked: usize,
    /// Those of them that found it unreachable.
    pub unreachable: usize,
    /// Probes that asked about it and know no more than that their own daemon gave an error.
    pub failed: usize,
    /// What each probe that reported says, by number.
    pub probes: Vec<ProbeAccount>,
    /// The rules in force.
    pub epoch: Epoch,
}

/// What one probe says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProbeAccount {
    /// Its number.
    pub probe: u32,
    /// Whether its negative votes count.
    pub eligible: bool,
    /// Why not.
    pub ineligibilities: Vec<Ineligibility>,
    /// Its parts, those that do not count included.
    pub parts: Vec<PartAccount>,
}

/// What one part says of the node.
#[derive(Debug, Clone, PartialEq)]
pub struct PartAccount {
    /// What names it.
    pub key: FactKey,
    /// Where its observations come from.
    pub kind: Kind,
    /// Whether the probe could look.
    pub outcome: Outcome,
    /// Unix milliseconds.
    pub observed_at_ms: i64,
    /// Unix milliseconds.
    pub received_at_ms: i64,
    /// Seconds.
    pub relay_session_age_s: Option<u32>,
    /// What it says of the node; nothing: it does not mention it.
    pub evidence: Vec<Class>,
    /// Another part under its key has the smaller digest and counts instead.
    pub outranked: bool,
    /// It was retracted and does not count.
    pub retracted: bool,
    /// Of how many nodes, this one or others, the question failed.
    pub failed_nodes: u64,
    /// Of a node whose earlier questions stand: the start of their round, unix seconds.
    pub asked_round_s: Option<u64>,
    /// Of an unreachable node: how long before the relay had heard of it, milliseconds.
    pub seen_age_ms: Option<i32>,
    /// Of an unreachable node: without that age the relay did not know it.
    pub age_kept: bool,
    /// Of a node that answered: how long that took, milliseconds.
    pub answered_in_ms: Option<u32>,
    /// The start of the last round before in which its probe saw the node fresh, unix seconds.
    fresh_s: Option<u64>,
}

impl PartAccount {
    fn of(fact: &Fact, node: u32) -> Self {
        let says = Class::ALL.into_iter().filter(|class| fact.of(*class).contains(node));
        Self {
            key: fact.key,
            kind: fact.kind,
            outcome: fact.outcome,
            observed_at_ms: fact.observed_at_ms,
            received_at_ms: fact.received_at_ms,
            relay_session_age_s: fact.relay_session_age_s,
            evidence: says.collect(),
            outranked: false,
            retracted: false,
            failed_nodes: fact.of(Class::Failed).len(),
            asked_round_s: None,
            seen_age_ms: None,
            age_kept: false,
            answered_in_ms: None,
            fresh_s: None,
        }
    }

    /// Adds what the rounds before, nearest first, say of an unreachable node.
    fn look_back(&mut self, before: &[(u64, &RoundFacts)], node: u32) {
        if !self.evidence.contains(&Class::Unreachable) {
            return;
        }
        let probe = self.key.probe;
        let last = |is: &dyn Fn(&Fact) -> bool| {
            let found = before
                .iter()
                .find(|(_, facts)| facts.facts().any(|fact| fact.key.probe == probe && is(fact)));
            found.map(|(start_s, _)| *start_s)
        };
        self.fresh_s = last(&|fact| fact.of(Class::Seen).contains(node));
        if self.evidence.contains(&Class::AskedEarlier) {
            self.asked_round_s = last(&|fact| {
                fact.of(Class::Unreachable).contains(node)
                    && !fact.of(Class::AskedEarlier).contains(node)
            });
        }
    }

    /// Adds the last age that its probe told of the node, grown by the time that passed. It tells
    /// one only when it is news, and one that was told after this round has taken the place of
    /// those before.
    fn add_age(&mut self, told: Option<(u64, i32)>, round_s: u64) {
        self.age_kept = told.is_none_or(|(then_s, _)| then_s <= round_s);
        let Some((then_s, age_ms)) = told.filter(|(then_s, _)| *then_s <= round_s) else { return };
        let grown_ms = i32::try_from((round_s - then_s) * 1000).unwrap_or(i32::MAX);
        let age_ms = age_ms.saturating_add(grown_ms);
        // Since then the relay heard of it again, and told no age when it was asked now; or it has
        // forgotten it.
        let outdated = self.fresh_s > Some(then_s) || age_ms > RELAY_REMEMBERS_MS;
        self.seen_age_ms = (!outdated).then_some(age_ms);
    }
}

impl ProbeAccount {
    /// Whether it asked, and knows no more than that its own daemon gave an error.
    fn only_failed(&self) -> bool {
        let holds = |class| {
            let mut counting = self.parts.iter().filter(|part| !part.retracted && !part.outranked);
            counting.any(|part| part.evidence.contains(&class))
        };
        holds(Class::Failed)
            && ![Class::Seen, Class::Answered, Class::Unreachable].into_iter().any(holds)
    }
}

impl Explanation {
    /// Adds what was told beside parts: the last age of each probe, and an answer of this very
    /// round. Tuples are as `NodeSamples` has them: probe, round, value.
    pub fn add_samples(&mut self, aged: &[(u32, u64, i32)], answered: &[(u32, u64, u32)]) {
        let round_s = self.round.start_s();
        let parts = self.probes.iter_mut().flat_map(|probe| &mut probe.parts);
        for part in parts.filter(|part| part.kind == Kind::Lookup) {
            if part.evidence.contains(&Class::Unreachable) {
                let told = aged.iter().find(|(probe, ..)| *probe == part.key.probe);
                part.add_age(told.map(|(_, then_s, age_ms)| (*then_s, *age_ms)), round_s);
            }
            if part.evidence.contains(&Class::Answered) {
                let this = answered
                    .iter()
                    .find(|(probe, then_s, _)| *probe == part.key.probe && *then_s == round_s);
                part.answered_in_ms = this.map(|(.., in_ms)| *in_ms);
            }
        }
    }

    /// Of a round that lies too far before the last closed one nobody can tell whether the relay
    /// did not know a node, or its age is gone.
    pub fn forget_ages(&mut self, epochs: &Epochs, closed: Round) {
        if epochs.rounds_between(self.round.start_s(), closed.start_s()) < AGES_ROUNDS {
            return;
        }
        for part in self.probes.iter_mut().flat_map(|probe| &mut probe.parts) {
            part.age_kept &= part.seen_age_ms.is_some();
        }
    }
}

/// Explains a round. `window` has the facts that count, of it and of those before it; `left_out`
/// are facts of it that do not, with whether each was retracted.
#[must_use]
pub fn explain(
    epochs: &Epochs,
    window: &Window,
    left_out: &[(Fact, bool)],
    round: Round,
    node: u32,
) -> Explanation {
    let (decision, probes) = judge(epochs, window, round);
    let mut accounts: BTreeMap<u32, ProbeAccount> = BTreeMap::new();
    let (mut positive, mut eligible, mut looked, mut unreachable) = (0, 0, 0, 0);
    for (number, probe) in &probes {
        let ballot = &probe.ballot;
        let found = ballot.positive.contains(node);
        let against = ballot.negative.contains(node);
        positive += usize::from(found);
        eligible += usize::from(ballot.eligible);
        looked += usize::from(ballot.eligible && (found || against));
        unreachable += usize::from(ballot.eligible && against);
        accounts.insert(
            *number,
            ProbeAccount {
                probe: *number,
                eligible: ballot.eligible,
                ineligibilities: probe.ineligibilities.clone(),
                parts: Vec::new(),
            },
        );
    }
    // As many as earlier questions may stand for.
    let before: Vec<(u64, &RoundFacts)> =
        std::iter::successors(epochs.previous(round), |there| epochs.previous(*there))
            .take(MASS_LOSS_ROUNDS)
            .filter_map(|there| Some((there.start_s(), window.get(&there.start_s())?)))
            .collect();
    let counting = window.get(&round.start_s()).into_iter().flat_map(|facts| facts.facts());
    let counting = counting.map(|fact| (fact, PartAccount::of(fact, node)));
    let others = left_out.iter().map(|(fact, retracted)| {
        let account = PartAccount::of(fact, node);
        (fact, PartAccount { retracted: *retracted, outranked: !retracted, ..account })
    });
    for (fact, mut account) in counting.chain(others) {
        account.look_back(&before, node);
        let probe = fact.key.probe;
        let fresh = || ProbeAccount { probe, ..ProbeAccount::default() };
        accounts.entry(probe).or_insert_with(fresh).parts.push(account);
    }
    let mut probes: Vec<ProbeAccount> = accounts.into_values().collect();
    for probe in &mut probes {
        probe.parts.sort_by_key(|part| (part.key, part.outranked, part.retracted));
    }
    Explanation {
        round,
        verdict: decision.of(node),
        positive,
        eligible,
        looked,
        unreachable,
        failed: probes.iter().filter(|probe| probe.only_failed()).count(),
        probes,
        epoch: epochs.at(round.start_s()).clone(),
    }
}

/// The rule that decided, in words: sentences without the last full stop.
impl fmt::Display for Explanation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { positive, looked, unreachable, .. } = *self;
        let k = self.epoch.positive_probes_min;
        match self.verdict {
            Verdict::Up => {
                let enough = if k == 1 { "is" } else { "are" };
                write!(out, "up: {} saw it alive; {k} {enough} enough", probes(positive))
            }
            Verdict::Down => {
                match (unreachable, looked) {
                    (1, 1) => write!(out, "down: the one probe that looked could not reach it")?,
                    _ if unreachable == looked => {
                        write!(
                            out,
                            "down: none of the {looked} probes that looked could reach it"
                        )?;
                    }
                    _ => write!(out, "down: {}, and that is most of them", self.accusers())?,
                }
                if positive > 0 {
                    write!(out, ". {} saw it alive; {k} must", probes(positive))?;
                }
                Ok(())
            }
            Verdict::Unknown => write!(out, "unknown: {}", self.doubts().join(". ")),
        }
    }
}

impl Explanation {
    fn accusers(&self) -> String {
        let Self { looked, unreachable, .. } = self;
        format!("{unreachable} of the {} that looked could not reach it", probes(*looked))
    }

    /// Why it could not be decided: what all of these say together.
    fn doubts(&self) -> Vec<String> {
        let Self { positive, eligible, looked, unreachable, failed, .. } = *self;
        let needed = eligible.min(LOOKED_MIN);
        let mut doubts = Vec::new();
        if positive > 0 {
            let k = self.epoch.positive_probes_min;
            doubts.push(format!("{} saw it alive; {k} must", probes(positive)));
        }
        if self.probes.is_empty() {
            doubts.push("no probe reported in this round".to_owned());
        } else if eligible == 0 {
            doubts.push("no probe could see well in this round".to_owned());
        } else if looked == 0 {
            doubts.push("no probe that could see well looked for it".to_owned());
        } else if looked < needed {
            let able = probes(eligible);
            doubts
                .push(format!("{looked} of the {able} that could see well looked; {needed} must"));
        } else if unreachable > 0 {
            doubts.push(format!("{}, and that is not most of them", self.accusers()));
        }
        match failed {
            0 => {}
            1 => doubts.push("1 probe asked, but its own daemon gave an error".to_owned()),
            more => {
                doubts.push(format!("{more} probes asked, but their own daemons gave an error"))
            }
        }
        if positive == 0 && unreachable == 0 {
            doubts.push("That says nothing about the node".to_owned());
        }
        doubts
    }
}

fn probes(count: usize) -> String {
    counted(count as u64, "probe")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use roaring::RoaringBitmap;
    use uptime_proto::{Digest, Period, Reason};

    use super::*;
    use crate::evidence::RoundFacts;

    const NODE: u32 = 7;

    fn fact(round: Round, probe: u32, letter: char) -> Fact {
        let set = |wanted: char| -> RoaringBitmap {
            (letter == wanted).then_some(NODE).into_iter().collect()
        };
        let failed = Outcome::CouldNotLook(Reason::NetError);
        Fact {
            key: FactKey { round, subnet: 0, probe, number: u16::from(letter == 'f') },
            kind: Kind::Lookup,
            outcome: if letter == 'f' { failed } else { Outcome::Looked },
            digest: Some(Digest([1; 16])),
            observed_at_ms: round.start_ms() + 20_000,
            received_at_ms: round.start_ms() + 20_100,
            relay_session_age_s: Some(if letter == 'y' { 5 } else { 600 }),
            sets: Arc::new([
                set('o'),
                set('+'),
                set('a'),
                &set('-') | &set('e'),
                set('f'),
                set('e'),
            ]),
        }
    }

    /// One letter per probe.
    fn account(letters: &str, k: u32) -> Explanation {
        let rules =
            Epoch { positive_probes_min: k, ..Epoch::with_defaults(Period::new(30).unwrap()) };
        let epochs = Epochs::new(vec![rules]).unwrap();
        let round = Round::new(60, Period::new(30).unwrap()).unwrap();
        let mut facts = RoundFacts::default();
        for (probe, letter) in (1..).zip(letters.chars()) {
            facts.insert(fact(round, probe, letter));
            if letter == 'f' {
                // The part that lists the others.
                facts.insert(fact(round, probe, ' '));
            }
        }
        let outranked = fact(round, 1, '-');
        let window = Window::from([(60, facts)]);
        explain(&epochs, &window, &[(outranked, false)], round, NODE)
    }

    #[test]
    fn the_rule_is_told_in_words_and_numbers() {
        for (letters, k, wanted) in [
            ("+--", 1, "up: 1 probe saw it alive; 1 is enough"),
            ("+a-", 2, "up: 2 probes saw it alive; 2 are enough"),
            ("---", 1, "down: none of the 3 probes that looked could reach it"),
            ("-y", 1, "down: the one probe that looked could not reach it"),
            (
                "--+",
                2,
                "down: 2 of the 3 probes that looked could not reach it, and that is most of them. \
                 1 probe saw it alive; 2 must",
            ),
            ("", 1, "unknown: no probe reported in this round. That says nothing about the node"),
            (
                "yy",
                1,
                "unknown: no probe could see well in this round. That says nothing about the node",
            ),
            (
                "  ",
                1,
                "unknown: no probe that could see well looked for it. That says nothing about the \
                 node",
            ),
            (
                " ff",
                1,
                "unknown: no probe that could see well looked for it. 2 probes asked, but their \
                 own daemons gave an error. That says nothing about the node",
            ),
            ("- ", 1, "unknown: 1 of the 2 probes that could see well looked; 2 must"),
            (
                "-f ",
                1,
                "unknown: 1 of the 3 probes that could see well looked; 3 must. 1 probe asked, but \
                 its own daemon gave an error",
            ),
            (
                "+-",
                2,
                "unknown: 1 probe saw it alive; 2 must. 1 of the 2 probes that looked could not \
                 reach it, and that is not most of them",
            ),
            ("+", 2, "unknown: 1 probe saw it alive; 2 must"),
        ] {
            let mut account = account(letters, k);
            if letters.is_empty() {
                account.probes.clear();
            }
            assert_eq!(account.to_string(), wanted, "{letters:?} with k = {k}");
        }
    }

    /// One letter per round before the last, which one probe reports: the account of the last.
    fn after(rounds: &str, last: char) -> Explanation {
        let period = Period::new(30).unwrap();
        let epochs = Epochs::new(vec![Epoch::with_defaults(period)]).unwrap();
        let mut window = Window::new();
        let mut round = Round::new(3_000, period).unwrap();
        for letter in rounds.chars().chain([last]) {
            let mut facts = RoundFacts::default();
            // A blank is a round without a report.
            if letter != ' ' {
                facts.insert(fact(round, 1, letter));
            }
            window.insert(round.start_s(), facts);
            round = round.next();
        }
        let round = epochs.previous(round).unwrap();
        explain(&epochs, &window, &[], round, NODE)
    }

    fn only(account: &Explanation) -> &PartAccount {
        let [probe] = account.probes.as_slice() else { panic!("{account:?}") };
        let [part] = probe.parts.as_slice() else { panic!("{account:?}") };
        part
    }

    #[test]
    fn earlier_questions_are_those_of_the_last_round_that_asked() {
        let far = format!("-{}", "e".repeat(19));
        let farther = format!("-{}", "e".repeat(20));
        for (before, last, wanted) in [
            ("--e", 'e', Some(1)),
            ("-e-e e", 'e', Some(2)),
            ("-+", 'e', Some(0)),
            // It asks now.
            ("--", '-', None),
            ("", 'e', None),
            ("++", 'e', None),
            (&far, 'e', Some(0)),
            (&farther, 'e', None),
        ] {
            let asked_s = only(&after(before, last)).asked_round_s;
            assert_eq!(asked_s, wanted.map(|at: u64| 3_000 + at * 30), "{before:?}{last}");
        }
    }

    #[test]
    fn an_age_that_is_gone_is_told_from_a_node_that_the_relay_did_not_know() {
        // Of the fourth round, which starts at 3,090.
        let of = |before: &str, aged: &[(u32, u64, i32)], closed_s: u64| {
            let mut account = after(before, '-');
            account.add_samples(aged, &[]);
            let closed = Round::new(closed_s, Period::new(30).unwrap()).unwrap();
            let epochs = Epochs::new(vec![account.epoch.clone()]).unwrap();
            account.forget_ages(&epochs, closed);
            let part = only(&account);
            (part.seen_age_ms, part.age_kept)
        };
        for (before, aged, closed_s, wanted) in [
            ("---", &[][..], 3_090, (None, true)),
            ("---", &[(2, 3_090, 21_000)], 3_090, (None, true)),
            ("---", &[(1, 3_090, 21_000)], 3_090, (Some(21_000), true)),
            ("---", &[(1, 3_000, 21_000)], 3_090, (Some(111_000), true)),
            // The relay has forgotten it, or heard of it since.
            ("---", &[(1, 2_400, 21_000)], 3_090, (None, true)),
            ("-+-", &[(1, 3_000, 21_000)], 3_090, (None, true)),
            ("-a-", &[(1, 3_000, 21_000)], 3_090, (Some(111_000), true)),
            // A later one took its place.
            ("---", &[(1, 3_120, 21_000)], 3_120, (None, false)),
            // Of rounds long ago only what is there is known.
            ("---", &[], 3_090 + 19 * 30, (None, true)),
            ("---", &[], 3_090 + 20 * 30, (None, false)),
            ("---", &[(1, 3_090, 21_000)], 3_090 + 20 * 30, (Some(21_000), true)),
        ] {
            assert_eq!(of(before, aged, closed_s), wanted, "{before:?} {aged:?} {closed_s}");
        }
    }

    #[test]
    fn every_part_is_shown_and_what_does_not_count_is_marked() {
        let account = account("+y", 1);
        assert_eq!((account.positive, account.eligible, account.looked), (1, 1, 1));
        let [first, second] = account.probes.as_slice() else { panic!("{account:?}") };
        assert_eq!(second.ineligibilities, [Ineligibility::RelaySessionYoung]);
        let marks: Vec<_> =
            first.parts.iter().map(|part| (part.evidence.as_slice(), part.outranked)).collect();
        assert_eq!(marks, [(&[Class::Seen][..], false), (&[Class::Unreachable][..], true)]);
    }
}
