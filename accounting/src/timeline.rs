//! The verdicts on one node over time, as runs.
//!
//! Pure. Owns a sorted list of (start, verdict): a run lasts until the next one starts, the last
//! one to the end of the last closed round, which the caller states. Before the first run the
//! verdict is unknown. Neighbouring runs differ, so a timeline has one form for one meaning.

use uptime_proto::Epochs;

use crate::uptime::Tally;
use crate::verdict::Verdict;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Unix seconds; 32 bits last until 2106 and halve the memory of a year.
    start_s: u32,
    verdict: Verdict,
}

/// A stretch of one verdict that unknown rounds do not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The start of its first round, unix seconds.
    pub since_s: u64,
    /// The unknown stretches before its last decided round, `[from, to)`, the latest first.
    pub unknown: Vec<(u64, u64)>,
}

/// The verdicts on one node. There may be a million with a run or two each, so there is no room for
/// more than there are; they change some times a day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeline(Box<[Run]>);

fn narrow(second: u64) -> u32 {
    u32::try_from(second).unwrap_or(u32::MAX)
}

impl Timeline {
    /// The verdict on the round that starts then (or on a later, not yet closed one: the last).
    #[inline]
    #[must_use]
    pub fn at(&self, second: u64) -> Verdict {
        let after = self.0.partition_point(|run| u64::from(run.start_s) <= second);
        after.checked_sub(1).and_then(|at| self.0.get(at)).map_or(Verdict::Unknown, |r| r.verdict)
    }

    /// Sets the verdict of the round `[from_s, to_s)`, which ends at or before `closed_end_s`,
    /// the end of the last closed round (of this one, when it is being closed).
    pub fn set(&mut self, from_s: u64, to_s: u64, verdict: Verdict, closed_end_s: u64) {
        if self.at(from_s) == verdict {
            return;
        }
        let after = self.at(to_s);
        let low = self.0.partition_point(|run| u64::from(run.start_s) < from_s);
        let high = self.0.partition_point(|run| u64::from(run.start_s) <= to_s);
        let mut fresh = vec![Run { start_s: narrow(from_s), verdict }];
        if to_s < closed_end_s {
            fresh.push(Run { start_s: narrow(to_s), verdict: after });
        }
        self.edit(|runs| {
            runs.reserve_exact(fresh.len());
            runs.splice(low..high, fresh);
            tidy(runs, low.saturating_sub(1));
        });
    }

    fn edit(&mut self, how: impl FnOnce(&mut Vec<Run>)) {
        let mut runs = std::mem::take(&mut self.0).into_vec();
        how(&mut runs);
        self.0 = runs.into_boxed_slice();
    }

    /// Sums over the rounds that start in `[from_s, to_s)`.
    #[must_use]
    pub fn tally(&self, from_s: u64, to_s: u64, epochs: &Epochs) -> Tally {
        let mut tally = Tally::default();
        for (start, end, verdict) in self.stretches(from_s, to_s) {
            tally.add(verdict, end - start, epochs.rounds_between(start, end));
        }
        tally
    }

    /// The stretches of equal verdict that make up `[from_s, to_s)`, ascending.
    pub fn stretches(
        &self,
        from_s: u64,
        to_s: u64,
    ) -> impl Iterator<Item = (u64, u64, Verdict)> + '_ {
        let first = self.0.partition_point(|run| u64::from(run.start_s) <= from_s);
        let lead = (from_s, self.at(from_s));
        let later = self.0.iter().skip(first).map(|run| (u64::from(run.start_s), run.verdict));
        let starts: Vec<(u64, Verdict)> =
            std::iter::once(lead).chain(later.take_while(move |(s, _)| *s < to_s)).collect();
        let ends: Vec<u64> = starts.iter().skip(1).map(|(s, _)| *s).chain([to_s]).collect();
        starts
            .into_iter()
            .zip(ends)
            .filter(|((start, _), end)| start < end)
            .map(|((start, verdict), end)| (start, end, verdict))
    }

    /// The last verdict that is not unknown, from `from_s` on.
    #[inline]
    #[must_use]
    pub fn last_decided(&self, from_s: u64) -> Option<Verdict> {
        for (index, run) in self.0.iter().enumerate().rev() {
            // A run reaches to the next one, so an early start does not mean it ended early.
            let ends_before =
                self.0.get(index + 1).is_some_and(|next| u64::from(next.start_s) <= from_s);
            if ends_before {
                return None;
            }
            if run.verdict != Verdict::Unknown {
                return Some(run.verdict);
            }
        }
        None
    }

    /// The stretch of the last decided verdict, no earlier than `from_s`, and as far back as is
    /// known: rounds of it, and unknown ones between them and after them.
    #[must_use]
    pub fn standing(&self, from_s: u64) -> Option<Standing> {
        let mut standing: Option<(Verdict, Standing)> = None;
        let mut pending = None;
        let mut end_s = u64::MAX;
        for run in self.0.iter().rev() {
            if end_s <= from_s {
                break;
            }
            let start_s = u64::from(run.start_s).max(from_s);
            match (&mut standing, run.verdict) {
                (None, Verdict::Unknown) => {}
                (Some(_), Verdict::Unknown) => pending = Some((start_s, end_s)),
                (None, verdict) => {
                    standing = Some((verdict, Standing { since_s: start_s, unknown: Vec::new() }));
                }
                (Some((verdict, stretch)), this) if *verdict == this => {
                    stretch.since_s = start_s;
                    stretch.unknown.extend(pending.take());
                }
                (Some(_), _) => break,
            }
            end_s = u64::from(run.start_s);
        }
        standing.map(|(_, stretch)| stretch)
    }

    /// The start of the first round up and the end of the last, of those that start in
    /// `[from_s, to_s)`; `None`: there is none.
    #[must_use]
    pub fn up_within(&self, from_s: u64, to_s: u64) -> Option<(u64, u64)> {
        let mut ups = self.stretches(from_s, to_s).filter(|(_, _, is)| *is == Verdict::Up);
        let (first_s, end_s, _) = ups.next()?;
        Some((first_s, ups.last().map_or(end_s, |(_, end_s, _)| end_s)))
    }

    /// Forgets the rounds that start at this moment or later.
    pub fn end_at(&mut self, end_s: u64) {
        let len = self.0.partition_point(|run| u64::from(run.start_s) < end_s);
        self.edit(|runs| runs.truncate(len));
    }

    /// Forgets what was before this moment, but for what still speaks of it: the verdict then, and
    /// the last decided one before if that is unknown.
    pub fn trim(&mut self, from_s: u64) {
        let after = self.0.partition_point(|run| u64::from(run.start_s) <= from_s);
        let Some(at) = after.checked_sub(1) else { return };
        let unknown = self.0.get(at).is_some_and(|run| run.verdict == Verdict::Unknown);
        let gone = at.saturating_sub(usize::from(unknown));
        if gone > 0 {
            self.edit(|runs| drop(runs.drain(..gone)));
        }
    }

    /// The greatest number of seconds that all starts, and `seconds`, are multiples of; 0: there is
    /// no start, and 0 was asked.
    #[must_use]
    pub fn common_s(&self, seconds: u64) -> u64 {
        let common = |a: u64, b: u64| {
            let (mut a, mut b) = (a, b);
            while b > 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        self.0.iter().fold(seconds, |unit, run| common(unit, u64::from(run.start_s)))
    }

    /// The runs as numbers: the time since the start of the run before, in a unit that all starts
    /// are multiples of (see [`Timeline::common_s`]), times four, plus the verdict.
    pub fn coded(&self, unit_s: u64) -> impl Iterator<Item = u64> + '_ {
        let unit_s = unit_s.max(1);
        let mut before = 0;
        self.0.iter().map(move |run| {
            let verdict = match run.verdict {
                Verdict::Unknown => 0,
                Verdict::Up => 1,
                Verdict::Down => 2,
            };
            let coded = (u64::from(run.start_s - before) / unit_s) << 2 | verdict;
            before = run.start_s;
            coded
        })
    }

    /// The timeline of these numbers; `None`: they are none.
    #[must_use]
    pub fn from_coded(coded: &[u64], unit_s: u64) -> Option<Self> {
        let mut runs: Vec<Run> = Vec::with_capacity(coded.len());
        let mut start_s = 0u32;
        for coded in coded {
            let verdict = match coded & 3 {
                0 => Verdict::Unknown,
                1 => Verdict::Up,
                2 => Verdict::Down,
                _ => return None,
            };
            let after_s = (coded >> 2).checked_mul(unit_s.max(1))?;
            start_s = start_s.checked_add(u32::try_from(after_s).ok()?)?;
            let grows = runs.last().is_none_or(|last| last.start_s < start_s);
            if !grows || runs.last().is_some_and(|last| last.verdict == verdict) {
                return None;
            }
            runs.push(Run { start_s, verdict });
        }
        Some(Self(runs.into_boxed_slice()))
    }

    /// Since when the last verdict has stood; `None` while nothing was ever decided.
    #[inline]
    #[must_use]
    pub fn last_start_s(&self) -> Option<u64> {
        self.0.last().map(|run| u64::from(run.start_s))
    }

    /// How often up became down, or down up, after this moment; stretches of which nothing is known
    /// do not count.
    #[must_use]
    pub fn changes_since(&self, from_s: u64) -> usize {
        let mut later: Option<Run> = None;
        let mut changes = 0;
        for run in self.0.iter().rev().filter(|run| run.verdict != Verdict::Unknown) {
            if let Some(later) = later {
                if u64::from(later.start_s) < from_s {
                    break;
                }
                changes += usize::from(later.verdict != run.verdict);
            }
            later = Some(*run);
        }
        changes
    }

    /// How many runs there are: what it costs to keep.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.0.len()
    }
}

/// Drops runs that repeat the verdict before them, of the few from this one on.
fn tidy(runs: &mut Vec<Run>, from: usize) {
    let mut before = from.checked_sub(1).and_then(|at| runs.get(at)).copied();
    let mut at = from;
    while let Some(run) = runs.get(at).copied() {
        let repeats = before.map_or(Verdict::Unknown, |run| run.verdict) == run.verdict;
        if repeats {
            runs.remove(at);
        } else {
            before = Some(run);
            at += 1;
        }
        if at > from + 3 {
            break;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;
    use uptime_proto::{Epoch, Period};

    use super::*;

    fn index(number: u64) -> usize {
        usize::try_from(number).unwrap()
    }

    fn verdicts() -> impl Strategy<Value = Verdict> {
        prop_oneof![Just(Verdict::Up), Just(Verdict::Down), Just(Verdict::Unknown)]
    }

    proptest! {
        /// Against a plain list of one verdict per round, closed one by one with late changes
        /// thrown in at any time.
        #[test]
        fn a_timeline_is_a_list_of_verdicts(
            steps in prop::collection::vec(
                (verdicts(), prop::option::of((0usize..40, verdicts()))), 1..40),
            window in (0u64..45, 0u64..45),
        ) {
            let epochs = Epochs::new(vec![Epoch::with_defaults(Period::new(30).unwrap())]).unwrap();
            let (mut timeline, mut list) = (Timeline::default(), Vec::new());
            for (verdict, late) in steps {
                let start = list.len() as u64 * 30;
                list.push(verdict);
                let closed_end = list.len() as u64 * 30;
                if timeline.at(start) != verdict {
                    timeline.set(start, start + 30, verdict, closed_end);
                }
                if let Some((index, verdict)) = late && index < list.len() {
                    list[index] = verdict;
                    let start = index as u64 * 30;
                    timeline.set(start, start + 30, verdict, closed_end);
                }
            }
            for (round, verdict) in (0u64..).zip(&list) {
                let there = timeline.at(round * 30);
                prop_assert_eq!(there, *verdict, "{} {:?}", round, timeline);
            }
            let changes = list.windows(2).filter(|pair| pair[0] != pair[1]).count();
            let first = usize::from(list[0] != Verdict::Unknown);
            prop_assert_eq!(timeline.runs(), changes + first, "one form for one meaning");
            let closed = list.len() as u64;
            let (from, to) = (window.0.min(closed - 1), window.1.min(closed));
            let mut tally = Tally::default();
            for verdict in list.iter().take(index(to)).skip(index(from)) {
                tally.add(*verdict, 30, 1);
            }
            prop_assert_eq!(timeline.tally(from * 30, to * 30, &epochs), tally);
            let is_up = |round: &u64| list[index(*round)] == Verdict::Up;
            let first_up = (from..to).find(is_up).map(|round| round * 30);
            let up_until = (from..to).rev().find(is_up).map(|round| (round + 1) * 30);
            let up = timeline.up_within(from * 30, to * 30);
            prop_assert_eq!(up, first_up.zip(up_until));
            let decided = list.iter().skip(index(from)).rev().find(|v| **v != Verdict::Unknown);
            prop_assert_eq!(timeline.last_decided(from * 30), decided.copied());
            let last_decided = list.iter().rposition(|v| *v != Verdict::Unknown);
            let standing = last_decided.filter(|last| *last >= index(from)).map(|last| {
                let is_other = |v: &Verdict| *v != Verdict::Unknown && *v != list[last];
                let lower = list[..last].iter().rposition(is_other).map_or(0, |other| other + 1);
                let within = lower.max(index(from))..=last;
                let first = within.clone().find(|at| list[*at] == list[last]).unwrap();
                let unknown = within.filter(|at| *at > first && list[*at] == Verdict::Unknown);
                (first as u64 * 30, unknown.count() as u64)
            });
            let found = timeline.standing(from * 30).map(|standing| {
                let rounds = standing.unknown.iter().map(|(from_s, to_s)| (to_s - from_s) / 30);
                (standing.since_s, rounds.sum::<u64>())
            });
            prop_assert_eq!(found, standing);
            let (mut shorter, mut closed_to) = (Timeline::default(), 0);
            for (verdict, round) in list.iter().zip(0u64..to) {
                closed_to = (round + 1) * 30;
                shorter.set(round * 30, closed_to, *verdict, closed_to);
            }
            let mut ended = timeline.clone();
            ended.end_at(closed_to);
            prop_assert_eq!(ended, shorter);
            let unit_s = timeline.common_s(0);
            prop_assert!(unit_s.is_multiple_of(30));
            for unit_s in [0, 1, 30, unit_s] {
                let coded: Vec<u64> = timeline.coded(unit_s).collect();
                let back = Timeline::from_coded(&coded, unit_s);
                prop_assert_eq!(back.as_ref(), Some(&timeline));
            }
        }
    }
}
