//! When a node that shows no life is looked up no more.
//!
//! Pure. Owns the rule of the accounting page: a node is retired after so many seconds of decided
//! rounds without a sign of life, and an offer brings it back. Rounds that nobody could decide do
//! not count, so nobody is retired while no probe looks.

use uptime_proto::Epochs;

use crate::node::Node;
use crate::timeline::Timeline;

/// What retirement depends on, besides verdicts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule<'a> {
    /// The epochs.
    pub(crate) epochs: &'a Epochs,
    /// Seconds of decided rounds without a sign of life.
    pub(crate) after_s: u64,
    /// The end of the round at which the question is put, unix seconds.
    pub(crate) end_s: u64,
}

impl<'a> Rule<'a> {
    /// The rule in force at the end of a round.
    pub(crate) fn at(epochs: &'a Epochs, end_s: u64) -> Self {
        let after_s = u64::from(epochs.at(end_s.saturating_sub(1)).retire_after_s);
        Self { epochs, after_s, end_s }
    }

    /// The start of the first round that counts as silent: after the one with the last sign of
    /// life, or, where there was none, the first one of all.
    pub(crate) fn silent_from_s(&self, first_seen_s: u64, last_seen_ms: Option<i64>) -> u64 {
        let after = |seen_ms| self.epochs.round_at_ms(seen_ms).end_s();
        last_seen_ms.map_or(first_seen_s, |seen_ms| after(seen_ms).max(first_seen_s))
    }

    /// From when on a node is retired that has been silent since then, were it not for offers;
    /// `None`: not by the end of the round.
    pub(crate) fn retires_at_s(&self, node: &Node, silent_from_s: u64) -> Option<u64> {
        let (from_s, silent_s) = node.silent_before(silent_from_s);
        let left_s = self.after_s.saturating_sub(silent_s);
        // Cheap, and so for nearly all nodes: it has not been silent for long enough at all.
        if self.end_s.checked_sub(from_s)? < left_s {
            return None;
        }
        let reached_s = reached_s(&node.timeline, from_s, self.end_s, left_s)?;
        let last_ms = i64::try_from(reached_s.saturating_sub(1) * 1000).unwrap_or(i64::MAX);
        Some(self.epochs.round_at_ms(last_ms).end_s().max(from_s))
    }

    /// Whether a node is retired. `offered_s` is the round of its last offer; it is only asked for
    /// where it matters.
    pub(crate) fn is_retired(
        &self,
        node: &Node,
        silent_from_s: u64,
        offered_s: impl FnOnce() -> Option<u64>,
    ) -> bool {
        if self.retires_at_s(node, silent_from_s).is_none() {
            return false;
        }
        // An offer after it was retired brings it back, and it counts anew from there.
        let Some(offered_s) = offered_s().filter(|offered_s| *offered_s >= silent_from_s) else {
            return true;
        };
        let since_offer_s = node.decided_since(offered_s, self.end_s, false);
        let in_all_s = node.decided_since(silent_from_s, self.end_s, true);
        let brought_back = in_all_s.saturating_sub(since_offer_s) >= self.after_s;
        !brought_back || since_offer_s >= self.after_s
    }
}

/// When so many decided seconds are full; `None`: not before the end.
fn reached_s(timeline: &Timeline, from_s: u64, to_s: u64, mut seconds: u64) -> Option<u64> {
    if seconds == 0 {
        return Some(from_s);
    }
    for (start, end, verdict) in timeline.stretches(from_s, to_s) {
        if !verdict.is_decided() {
            continue;
        }
        if end - start >= seconds {
            return Some(start + seconds);
        }
        seconds -= end - start;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uptime_proto::{Epoch, Period};

    use super::*;
    use crate::node::{RollUp, Subnets};
    use crate::verdict::Verdict;

    fn epochs() -> Epochs {
        let epoch = Epoch { retire_after_s: 90, ..Epoch::with_defaults(Period::new(30).unwrap()) };
        Epochs::new(vec![epoch]).unwrap()
    }

    /// A verdict per round of 30 s: up, down, unknown.
    fn node(verdicts: &str, epochs: &Epochs) -> Node {
        let mut timeline = Timeline::default();
        for (number, letter) in (0u64..).zip(verdicts.chars()) {
            let verdict = match letter {
                'u' => Verdict::Up,
                'd' => Verdict::Down,
                _ => Verdict::Unknown,
            };
            timeline.set(number * 30, number * 30 + 30, verdict, number * 30 + 30);
        }
        Node::of(Some(0), Subnets::default(), timeline, 0, RollUp::default(), epochs)
    }

    #[test]
    fn decided_rounds_count_and_others_do_not() {
        let epochs = epochs();
        for (verdicts, offered, retired) in [
            ("uddd", None, true),
            ("udd", None, false),
            ("ud?????????d", None, false),
            ("ud?????????dd", None, true),
            ("u????????????????????", None, false),
            // Offers before it was retired change nothing; later ones bring it back for as long.
            ("uddd", Some(2), true),
            ("udddd", Some(4), false),
            ("uddd?d", Some(4), false),
            ("udddd?dd", Some(4), true),
        ] {
            let node = node(verdicts, &epochs);
            let rule = Rule::at(&epochs, verdicts.len() as u64 * 30);
            let from_s = rule.silent_from_s(0, Some(20_000));
            let is = rule.is_retired(&node, from_s, || offered.map(|round: u64| round * 30));
            assert_eq!(is, retired, "{verdicts} {offered:?}");
        }
    }

    /// RollUp-up rounds count as before, wherever they end.
    #[test]
    fn sums_know_how_long_a_node_was_silent() {
        let epochs = epochs();
        let verdicts = "udd??ddu?d?ddd??ddd?d";
        let rule = |end_s| Rule::at(&epochs, end_s);
        for seen_round in [0u64, 7] {
            let seen_ms = Some(i64::try_from(seen_round * 30_000).unwrap() + 20_000);
            for offered in [None, Some(6u64), Some(14), Some(16)] {
                let offered_s = || offered.map(|round| round * 30);
                for carried in (seen_round + 1)..20 {
                    let whole = node(verdicts, &epochs);
                    let mut rolled = whole.clone();
                    let to_s = carried * 30;
                    let from_s = rule(to_s).silent_from_s(0, seen_ms);
                    let known = offered_s().filter(|offered_s| *offered_s < to_s);
                    rolled.roll_up(to_s, from_s, known, &epochs);
                    for end in carried..=verdicts.len() as u64 {
                        let (rule, known) =
                            (rule(end * 30), || offered_s().filter(|it| *it < end * 30));
                        let whole = rule.is_retired(&whole.until(end * 30, &epochs), from_s, known);
                        let rolled = rolled.until(end * 30, &epochs);
                        let rolled = rule.is_retired(&rolled, from_s, known);
                        assert_eq!(rolled, whole, "{seen_round} {offered:?} {carried} {end}");
                    }
                }
            }
        }
    }
}
