//! Which probes made their last part of a round.
//!
//! Owns how many rounds are remembered. Refuses to say who is waited for: `closing.rs` does.

use std::collections::{BTreeMap, BTreeSet};

use uptime_proto::Round;

/// The probes that made their last part of a round, by the round's start. Rounds that are closed
/// are left out.
#[derive(Debug, Default)]
pub(super) struct Done(BTreeMap<u64, BTreeSet<u32>>);

/// A probe may name any round it likes: so many are kept, the latest ones.
const ROUNDS_MAX: usize = 8;

impl Done {
    pub(super) fn note(&mut self, probe: u32, round_s: u64, closed_end_s: u64) {
        if round_s < closed_end_s {
            return;
        }
        self.0.entry(round_s).or_default().insert(probe);
        if self.0.len() > ROUNDS_MAX {
            // The furthest in the future goes: no honest probe is that far ahead.
            self.0.pop_last();
        }
    }

    pub(super) fn forget_before(&mut self, second: u64) {
        self.0 = self.0.split_off(&second);
    }

    pub(super) fn has_any(&self, round: Round) -> bool {
        self.0.contains_key(&round.start_s())
    }

    pub(super) fn has_all(&self, round: Round, probes: &BTreeSet<u32>) -> bool {
        !probes.is_empty()
            && self.0.get(&round.start_s()).is_some_and(|done| probes.is_subset(done))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uptime_proto::Period;

    use super::*;

    #[test]
    fn a_round_waits_for_all_and_for_nobody_it_does_not_know() {
        let round = Round::new(60, Period::new(30).unwrap()).unwrap();
        let mut done = Done::default();
        let all = |probes: &[u32]| probes.iter().copied().collect::<BTreeSet<u32>>();
        assert!(!done.has_all(round, &all(&[])), "nobody looks: the grace counts");
        done.note(1, 60, 60);
        assert!(done.has_all(round, &all(&[1])));
        assert!(!done.has_all(round, &all(&[1, 2])));
        done.note(2, 30, 60);
        done.note(2, 90, 60);
        assert!(!done.has_all(round, &all(&[1, 2])), "of other rounds");
        done.note(2, 60, 60);
        assert!(done.has_all(round, &all(&[1, 2])));
        done.forget_before(90);
        assert!(!done.has_all(round, &all(&[1, 2])));
    }

    #[test]
    fn rounds_of_the_future_are_bounded() {
        let mut done = Done::default();
        done.note(1, 60, 60);
        (0..1_000).for_each(|number| done.note(1, 10_000 + number * 30, 60));
        assert_eq!(done.0.len(), ROUNDS_MAX);
        assert!(done.0.contains_key(&60));
    }
}
