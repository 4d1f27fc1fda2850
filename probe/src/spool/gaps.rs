//! Gaps that are not on disk yet, few and merged.

use uptime_proto::{Reason, Round, v1};

use super::records::Rounds;

/// Gaps kept apart; beyond them those with one reason are merged, which reports too many rounds
/// rather than too few.
const APART_MAX: usize = 16;

/// Gaps; those that touch and have the same reason are merged.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    list: Vec<v1::Gap>,
}

/// The gap of some rounds.
pub(super) fn of_rounds(rounds: Rounds, reason: Reason) -> v1::Gap {
    v1::Gap {
        from_round_unix_s: rounds.first_s,
        to_round_unix_s: rounds.end_s,
        reason: reason.to_wire() as i32,
    }
}

/// The gap of one round.
pub(super) fn of_round(round: Round, reason: Reason) -> v1::Gap {
    v1::Gap {
        from_round_unix_s: round.start_s(),
        to_round_unix_s: round.end_s(),
        reason: reason.to_wire() as i32,
    }
}

fn join(into: &mut v1::Gap, gap: &v1::Gap) {
    into.from_round_unix_s = into.from_round_unix_s.min(gap.from_round_unix_s);
    into.to_round_unix_s = into.to_round_unix_s.max(gap.to_round_unix_s);
}

impl Gaps {
    /// Adds a gap. Ignores one without rounds.
    pub(super) fn add(&mut self, gap: v1::Gap) {
        if gap.from_round_unix_s >= gap.to_round_unix_s {
            return;
        }
        let touches = |there: &&mut v1::Gap| {
            there.reason == gap.reason
                && there.from_round_unix_s <= gap.to_round_unix_s
                && gap.from_round_unix_s <= there.to_round_unix_s
        };
        match self.list.iter_mut().find(touches) {
            Some(there) => join(there, &gap),
            None => self.list.push(gap),
        }
        if self.list.len() > APART_MAX {
            let mut merged: Vec<v1::Gap> = Vec::new();
            for gap in self.list.drain(..) {
                match merged.iter_mut().find(|there| there.reason == gap.reason) {
                    Some(there) => join(there, &gap),
                    None => merged.push(gap),
                }
            }
            self.list = merged;
        }
    }

    /// The oldest one, without taking it.
    pub(super) fn first(&self) -> Option<v1::Gap> {
        self.list.first().copied()
    }

    /// Forgets the oldest one.
    pub(super) fn forget_first(&mut self) {
        if !self.list.is_empty() {
            self.list.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from: u64, to: u64, reason: Reason) -> v1::Gap {
        let reason = reason.to_wire() as i32;
        v1::Gap { from_round_unix_s: from, to_round_unix_s: to, reason }
    }

    #[test]
    fn what_touches_is_one_and_there_are_never_many() {
        let mut gaps = Gaps::default();
        gaps.add(gap(0, 30, Reason::Missed));
        gaps.add(gap(30, 60, Reason::Missed));
        gaps.add(gap(30, 60, Reason::SpoolFull));
        gaps.add(gap(90, 90, Reason::Missed));
        assert_eq!(gaps.list, [gap(0, 60, Reason::Missed), gap(30, 60, Reason::SpoolFull)]);
        for number in 0..1_000 {
            gaps.add(gap(number * 60, number * 60 + 30, Reason::Missed));
            assert!(gaps.list.len() <= APART_MAX);
        }
        assert_eq!(gaps.list[0].from_round_unix_s, 0);
    }
}
