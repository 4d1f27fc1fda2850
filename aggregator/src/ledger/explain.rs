//! Why a node had the verdict it had in a round: who saw what, and which rule decided.
//!
//! Pure. Owns the account of one node and one round, from the facts of that round and of those that
//! mass loss looks back on. Refuses to decide anything anew: the verdict is that of `verdict.rs`.

use std::collections::BTreeMap;
use std::fmt;

use uptime_proto::{Class, Epoch, Epochs, Kind, Outcome, Round};

use super::evidence::{Fact, FactKey, Ineligibility};
use super::state::{Window, judge};
use super::verdict::{LOOKED_MIN, Verdict};

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
    /// Of a node that was not fresh: how long before the relay had heard of it, milliseconds.
    pub seen_age_ms: Option<i32>,
    /// Of a node that answered: how long that took, milliseconds.
    pub answered_in_ms: Option<u32>,
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
            seen_age_ms: None,
            answered_in_ms: None,
        }
    }
}

impl Explanation {
    /// Adds what was told beside parts: of each probe the last age that is not of a later round, by
    /// now grown by the time that passed, and an answer of this very round. Tuples are as
    /// `NodeSamples` has them: probe, round, value.
    pub fn add_samples(&mut self, aged: &[(u32, u64, i32)], answered: &[(u32, u64, u32)]) {
        let round_s = self.round.start_s();
        let parts = self.probes.iter_mut().flat_map(|probe| &mut probe.parts);
        for part in parts.filter(|part| part.kind == Kind::Lookup) {
            if part.evidence.contains(&Class::Unreachable)
                && let Some((_, then_s, age_ms)) = aged
                    .iter()
                    .find(|(probe, then_s, _)| *probe == part.key.probe && *then_s <= round_s)
            {
                let grown_ms = i32::try_from((round_s - then_s) * 1000).unwrap_or(i32::MAX);
                part.seen_age_ms = Some(age_ms.saturating_add(grown_ms));
            }
            if part.evidence.contains(&Class::Answered) {
                let this = answered
                    .iter()
                    .find(|(probe, then_s, _)| *probe == part.key.probe && *then_s == round_s);
                part.answered_in_ms = this.map(|(.., in_ms)| *in_ms);
            }
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
    let counting = window.get(&round.start_s()).into_iter().flat_map(|facts| facts.facts());
    let counting = counting.map(|fact| (fact, PartAccount::of(fact, node)));
    let others = left_out.iter().map(|(fact, retracted)| {
        let account = PartAccount::of(fact, node);
        (fact, PartAccount { retracted: *retracted, outranked: !retracted, ..account })
    });
    for (fact, account) in counting.chain(others) {
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
        probes,
        epoch: epochs.at(round.start_s()).clone(),
    }
}

/// The rule that decided, in words.
impl fmt::Display for Explanation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { positive, eligible, looked, unreachable, .. } = *self;
        let k = self.epoch.positive_probes_min;
        let needed = eligible.min(LOOKED_MIN);
        match self.verdict {
            Verdict::Up => write!(
                out,
                "up: {} positive evidence, and {k} must",
                counted(positive, "probe holds", "probes hold")
            ),
            Verdict::Down => write!(
                out,
                "down: not up, and {unreachable} of the {} that looked found it unreachable, which \
                 is most of them; so many looked: {looked}, and {needed} must",
                counted(looked, "eligible probe", "eligible probes")
            ),
            Verdict::Unknown => {
                write!(out, "unknown: {positive} of {k} needed for up; ")?;
                if self.probes.is_empty() {
                    write!(out, "no probe reported on this round")
                } else if eligible == 0 {
                    write!(out, "no probe that reported was eligible to call a node down")
                } else if looked == 0 {
                    let probes = counted(eligible, "eligible probe", "eligible probes");
                    write!(out, "none of the {probes} looked for this node")
                } else if looked < needed {
                    write!(out, "only {looked} of {needed} eligible probes needed for down looked")
                } else {
                    write!(
                        out,
                        "{unreachable} of the {} that looked found it unreachable, which is not \
                         most",
                        counted(looked, "eligible probe", "eligible probes")
                    )
                }
            }
        }
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use roaring::RoaringBitmap;
    use uptime_proto::{Digest, Period};

    use super::*;
    use crate::ledger::evidence::RoundFacts;

    const NODE: u32 = 7;

    fn fact(round: Round, probe: u32, letter: char) -> Fact {
        let set = |wanted: char| -> RoaringBitmap {
            (letter == wanted).then_some(NODE).into_iter().collect()
        };
        Fact {
            key: FactKey { round, subnet: 0, probe, number: 0 },
            kind: Kind::Lookup,
            outcome: Outcome::Looked,
            digest: Some(Digest([1; 16])),
            observed_at_ms: round.start_ms() + 20_000,
            received_at_ms: round.start_ms() + 20_100,
            relay_session_age_s: Some(if letter == 'y' { 5 } else { 600 }),
            sets: Arc::new([set('o'), set('+'), set('a'), set('-'), set('f'), set('e')]),
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
        }
        let outranked = fact(round, 1, '-');
        let window = Window::from([(60, facts)]);
        explain(&epochs, &window, &[(outranked, false)], round, NODE)
    }

    #[test]
    fn the_rule_is_told_in_words_and_numbers() {
        for (letters, k, wanted) in [
            ("+--", 1, "up: 1 probe holds positive evidence, and 1 must"),
            ("+a-", 2, "up: 2 probes hold positive evidence, and 2 must"),
            (
                "---",
                1,
                "down: not up, and 3 of the 3 eligible probes that looked found it unreachable, \
                 which is most of them; so many looked: 3, and 3 must",
            ),
            ("", 1, "unknown: 0 of 1 needed for up; no probe reported on this round"),
            (
                "yy",
                1,
                "unknown: 0 of 1 needed for up; no probe that reported was eligible to call a node \
                 down",
            ),
            (
                "  ",
                1,
                "unknown: 0 of 1 needed for up; none of the 2 eligible probes looked for this node",
            ),
            (
                "- ",
                1,
                "unknown: 0 of 1 needed for up; only 1 of 2 eligible probes needed for down looked",
            ),
            (
                "+-",
                2,
                "unknown: 1 of 2 needed for up; 1 of the 2 eligible probes that looked found it \
                 unreachable, which is not most",
            ),
        ] {
            let mut account = account(letters, k);
            if letters.is_empty() {
                account.probes.clear();
            }
            assert_eq!(account.to_string(), wanted, "{letters:?} with k = {k}");
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
