//! Outages of one node, from its timeline.
//!
//! Pure. Owns the accounting page's sentence on outages: an outage runs from its first down round
//! to the first up round after it, or to the end of its last down round if none has come; unknown
//! stretches inside are shown; nothing is extended past its last evidence.

use crate::timeline::Timeline;
use crate::verdict::Verdict;

/// A stretch in which a node was down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// The start of its first down round, unix seconds.
    pub from_s: u64,
    /// The start of the first up round after it, or the end of its last down round; unix seconds.
    pub to_s: u64,
    /// No up round has come yet.
    pub open: bool,
    /// Stretches inside it of which nothing is known, `[from, to)`, unix seconds.
    pub unknown: Vec<(u64, u64)>,
}

/// The outages among the rounds that start in `[from_s, to_s)`, ascending.
#[must_use]
pub fn outages(timeline: &Timeline, from_s: u64, to_s: u64) -> Vec<Outage> {
    let mut all = Vec::new();
    let mut current: Option<Outage> = None;
    // Unknown so far: inside the outage only if something decided comes after it.
    let mut pending = Vec::new();
    for (start_s, end_s, verdict) in timeline.stretches(from_s, to_s) {
        match verdict {
            Verdict::Down => {
                let fresh =
                    || Outage { from_s: start_s, to_s: end_s, open: true, unknown: Vec::new() };
                let outage = current.get_or_insert_with(fresh);
                outage.unknown.append(&mut pending);
                outage.to_s = end_s;
            }
            Verdict::Unknown if current.is_some() => pending.push((start_s, end_s)),
            Verdict::Unknown => {}
            Verdict::Up => {
                if let Some(mut outage) = current.take() {
                    outage.unknown.append(&mut pending);
                    (outage.to_s, outage.open) = (start_s, false);
                    all.push(outage);
                }
            }
        }
    }
    all.extend(current);
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uptime_proto::{Epoch, Epochs, Period};

    use super::*;

    fn of(letters: &str) -> Vec<Outage> {
        let (timeline, end_s) = timeline(letters);
        outages(&timeline, 0, end_s)
    }

    /// One letter per round of 30 s: `+` up, `-` down, anything else unknown.
    fn timeline(letters: &str) -> (Timeline, u64) {
        let mut timeline = Timeline::default();
        let mut start_s = 0;
        for letter in letters.chars() {
            let verdict = match letter {
                '+' => Verdict::Up,
                '-' => Verdict::Down,
                _ => Verdict::Unknown,
            };
            timeline.set(start_s, start_s + 30, verdict, start_s + 30);
            start_s += 30;
        }
        (timeline, start_s)
    }

    fn outage(from: u64, to: u64, open: bool, unknown: &[(u64, u64)]) -> Outage {
        let unknown = unknown.iter().map(|(from, to)| (from * 30, to * 30)).collect();
        Outage { from_s: from * 30, to_s: to * 30, open, unknown }
    }

    proptest! {
        /// What is down in outages is what counts as down, and what is unknown in them is unknown
        /// there: nothing else is in them, and the last of them is the stretch of down that stands.
        #[test]
        fn outages_and_uptime_agree(letters in "[+ -]{0,40}") {
            let epochs = Epochs::new(vec![Epoch::with_defaults(Period::new(30)?)])?;
            let (timeline, end_s) = timeline(&letters);
            let all = outages(&timeline, 0, end_s);
            let mut down_s = 0;
            for outage in &all {
                let inside = timeline.tally(outage.from_s, outage.to_s, &epochs);
                let lengths = outage.unknown.iter().map(|(from_s, to_s)| to_s - from_s);
                let unknown_s: u64 = lengths.sum();
                prop_assert_eq!((inside.up_s, inside.unknown_s), (0, unknown_s), "{:?}", outage);
                down_s += outage.to_s - outage.from_s - unknown_s;
            }
            prop_assert_eq!(down_s, timeline.tally(0, end_s, &epochs).down_s);
            let open = all.last().filter(|outage| outage.open).map(|outage| outage.from_s);
            let is_down = timeline.last_decided(0) == Some(Verdict::Down);
            let since = timeline.standing(0).filter(|_| is_down).map(|standing| standing.since_s);
            prop_assert_eq!(open, since);
        }
    }

    #[test]
    fn the_cases_of_the_accounting_page() {
        assert_eq!(of(""), []);
        assert_eq!(of(" ++ +"), []);
        assert_eq!(of("+--+"), [outage(1, 3, false, &[])]);
        // Unknown before the first down round is not in it, unknown before the first up round is.
        assert_eq!(of("+ - +"), [outage(2, 4, false, &[(3, 4)])]);
        assert_eq!(
            of("- -  +-"),
            [outage(0, 5, false, &[(1, 2), (3, 5)]), outage(6, 7, true, &[]),]
        );
        // Not extended past its last evidence.
        assert_eq!(of("+- -  "), [outage(1, 4, true, &[(2, 3)])]);
    }
}
