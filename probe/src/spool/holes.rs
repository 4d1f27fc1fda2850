//! What damage took: sequence numbers that no segment tells of, and of which rounds they may have
//! been.
//!
//! Owns the search for them while a spool is opened. A number that is missing was an entry or a gap
//! that waited, unless it was acknowledged; its round lies about those of its neighbours. Says too
//! much rather than too little. Pure.

use super::lock::Mark;
use super::reading::Met;
use super::records::Rounds;
use super::segment::{ENTRY, GAP};
use super::sequences::Sequences;

/// So many holes are kept apart; beyond them the last one grows.
const HOLES_MAX: usize = 64;
/// So many numbers are settled when their rounds have been reported; others are reported again by
/// the next run.
const SETTLED_MAX: usize = 1_000;

/// Numbers that are missing, as they are met in the order of the segments.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// The last number met.
    last: u64,
    /// Rounds of the last entry met, or those before the segment.
    before: Option<Rounds>,
    /// Nothing that waited was of a round before this one; 0: not known.
    since_s: u64,
    /// Something is damaged since the last number.
    damaged: bool,
    /// A hole whose next entry was not met yet.
    open: Option<Hole>,
    list: Vec<Hole>,
}

#[derive(Debug, Clone, Copy)]
struct Hole {
    /// The first and the last number missing. Where the first is greater, none is known.
    first: u64,
    last: u64,
    rounds: Option<Rounds>,
    /// No entry was met before it.
    leads: bool,
}

/// What was lost.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// About which rounds.
    pub(super) rounds: Vec<Rounds>,
    /// Numbers that are settled once these rounds are reported.
    pub(super) numbers: Vec<u64>,
}

impl Holes {
    /// What the mark says of the oldest that waited; before anything is met.
    pub(super) fn waiting_since(&mut self, since_s: u64) {
        self.since_s = since_s;
    }

    /// What is in the segments, in order.
    pub(super) fn meet(&mut self, met: &Met<'_>) {
        match met {
            Met::Header(earlier_high_water_s) => self.segment(*earlier_high_water_s),
            Met::Damage => self.damage(),
            Met::Frame { kind: ENTRY, number, rounds, .. } => self.number(*number, *rounds),
            // Its rounds say nothing of when it was written.
            Met::Frame { kind: GAP, number, .. } => self.number(*number, None),
            Met::Frame { .. } => {}
        }
    }

    /// A segment follows, with parts of rounds from this one on.
    fn segment(&mut self, earlier_high_water_s: Option<u64>) {
        if let (None, Some(high_s @ 1..)) = (self.before, earlier_high_water_s) {
            self.before = Some(one_round(high_s, None));
        }
    }

    /// A stretch that is no frame.
    pub(super) fn damage(&mut self) {
        self.damaged = true;
    }

    /// An entry or a gap, and of which rounds it is.
    fn number(&mut self, number: u64, rounds: Option<Rounds>) {
        let next = self.last.saturating_add(1);
        if number > next && self.last > 0 {
            self.miss(next, number - 1);
        } else if number > next && self.damaged {
            // What came before the first number of all may long be gone, but for what is damaged.
            self.miss(number - 1, number - 1);
        }
        self.last = self.last.max(number);
        self.damaged = false;
        if let Some(rounds) = rounds {
            self.close(rounds);
            self.before = Some(rounds);
        }
    }

    fn miss(&mut self, first: u64, last: u64) {
        let (rounds, leads) = (self.before, self.last == 0);
        let open = self.open.get_or_insert(Hole { first, last, rounds, leads });
        open.last = open.last.max(last);
    }

    fn close(&mut self, after: Rounds) {
        let Some(mut hole) = self.open.take() else {
            return;
        };
        Rounds::join(&mut hole.rounds, after);
        // Nothing is left of what was written before: it may be anything that waited.
        if hole.leads && (1..after.first_s).contains(&self.since_s) {
            Rounds::join(&mut hole.rounds, one_round(self.since_s, None));
        }
        let is_full = self.list.len() >= HOLES_MAX;
        match self.list.last_mut() {
            Some(there) if is_full => {
                there.last = there.last.max(hole.last);
                if let Some(rounds) = hole.rounds {
                    Rounds::join(&mut there.rounds, rounds);
                }
            }
            _ => self.list.push(hole),
        }
    }

    /// All segments were read, and the mark says how far the spool was written; `None`: it cannot
    /// be read.
    pub(super) fn end(&mut self, mark: Option<Mark>) {
        let next = self.last.saturating_add(1);
        match mark {
            // Where no segment is left, those before the last may long be gone.
            Some(mark) if self.last == 0 && mark.sequence > 0 => {
                self.miss(mark.sequence, mark.sequence);
            }
            Some(mark) if mark.sequence > self.last => self.miss(next, mark.sequence),
            // How many there were is not known, and no number that may be given out is settled.
            None if self.damaged => self.miss(next, self.last),
            _ => {}
        }
        let high_s = mark.map_or(0, |mark| mark.high_water_s);
        let high_s = high_s.max(self.before.map_or(0, |before| before.last_s));
        if high_s > 0 {
            self.close(one_round(high_s, self.before));
        }
    }

    /// What of it was never acknowledged, by all segments.
    pub(super) fn lost(self, seen: &Sequences, acknowledged: &Sequences) -> Lost {
        let mut lost = Lost::default();
        for Hole { first, last, rounds, .. } in self.list {
            let settled = seen.count_between(first, last) + acknowledged.count_between(first, last);
            let Some(rounds) = rounds else { continue };
            if first <= last && settled > last - first {
                continue;
            }
            lost.rounds.push(widened(rounds));
            let missing =
                (first..=last).filter(|it| !seen.contains(*it) && !acknowledged.contains(*it));
            let room = SETTLED_MAX.saturating_sub(lost.numbers.len());
            lost.numbers.extend(missing.take(room));
        }
        lost
    }
}

/// A round of this start that is as long as others are.
fn one_round(first_s: u64, like: Option<Rounds>) -> Rounds {
    let period_s = like.map_or(1, |like| like.end_s.saturating_sub(like.last_s));
    Rounds { first_s, last_s: first_s, end_s: first_s.saturating_add(period_s) }
}

/// Parts of two rounds that follow each other are not always written in their order.
fn widened(rounds: Rounds) -> Rounds {
    let period_s = rounds.end_s.saturating_sub(rounds.last_s);
    Rounds {
        first_s: rounds.first_s.saturating_sub(period_s),
        last_s: rounds.last_s.saturating_add(period_s),
        end_s: rounds.end_s.saturating_add(period_s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(number: u64) -> Rounds {
        Rounds { first_s: number * 30, last_s: number * 30, end_s: number * 30 + 30 }
    }

    fn set(numbers: &[u64]) -> Sequences {
        let mut set = Sequences::default();
        numbers.iter().for_each(|number| {
            set.insert(*number);
        });
        set
    }

    /// Numbers met, each an entry of the round of its number; then the mark's number, by which
    /// nothing waits from before the second round.
    fn lost(met: &[u64], mark: Option<u64>, acknowledged: &[u64]) -> (Vec<(u64, u64)>, Vec<u64>) {
        let mut holes = Holes::default();
        holes.waiting_since(mark.map_or(0, |_| 60));
        met.iter().for_each(|number| holes.number(*number, Some(round(*number))));
        let (high_water_s, waiting_since_s) = (mark.unwrap_or(0) * 30, 60);
        let mark = mark.map(|sequence| Mark { sequence, high_water_s, waiting_since_s });
        holes.end(mark);
        let lost = holes.lost(&set(met), &set(acknowledged));
        let rounds = lost.rounds.iter().map(|it| (it.first_s / 30, it.end_s / 30)).collect();
        (rounds, lost.numbers)
    }

    #[test]
    fn what_is_missing_and_was_not_acknowledged_is_lost() {
        assert_eq!(lost(&[5, 6, 7], Some(7), &[]), (vec![], vec![]), "what came before is gone");
        assert_eq!(lost(&[5, 8], Some(8), &[]), (vec![(4, 10)], vec![6, 7]));
        assert_eq!(lost(&[5, 8], Some(8), &[6]), (vec![(4, 10)], vec![7]));
        assert_eq!(lost(&[5, 8], Some(8), &[6, 7]), (vec![], vec![]));
        assert_eq!(lost(&[5], Some(9), &[]), (vec![(4, 11)], vec![6, 7, 8, 9]), "the end was cut");
        assert_eq!(lost(&[5], None, &[]), (vec![], vec![]));
        // Nothing is left: it may be all that waited.
        assert_eq!(lost(&[], Some(9), &[]), (vec![(1, 9)], vec![9]));
        assert_eq!(lost(&[], Some(9), &[9]), (vec![], vec![]));
    }

    #[test]
    fn damage_where_no_number_tells_is_lost_too() {
        let mut holes = Holes::default();
        holes.segment(Some(30));
        holes.damage();
        holes.number(7, Some(round(4)));
        holes.damage();
        holes.end(None);
        let lost = holes.lost(&set(&[7]), &set(&[]));
        assert_eq!(lost.numbers, [6], "and none that may be given out yet");
        assert_eq!(lost.rounds.len(), 2);
        assert!(lost.rounds[0].first_s <= 30 && lost.rounds[0].end_s >= round(4).end_s);
        assert!(lost.rounds[1].end_s >= round(5).end_s);
    }

    #[test]
    fn what_is_lost_before_the_first_number_goes_back_to_the_oldest_that_waited() {
        let first_lost_s = |since_s| {
            let mut holes = Holes::default();
            holes.waiting_since(since_s);
            holes.segment(Some(600));
            holes.damage();
            holes.number(7, Some(round(22)));
            holes.end(Some(Mark { sequence: 7, high_water_s: 660, waiting_since_s: since_s }));
            holes.lost(&set(&[7]), &set(&[])).rounds[0].first_s
        };
        assert!((269..=300).contains(&first_lost_s(300)));
        // Not known, or newer than what comes next: what is there tells.
        for since_s in [0, 900] {
            assert!((569..=600).contains(&first_lost_s(since_s)), "{since_s}");
        }
    }

    #[test]
    fn a_gap_says_nothing_of_when_it_was_written() {
        let mut holes = Holes::default();
        holes.number(1, Some(round(100)));
        holes.number(4, None);
        holes.number(5, Some(round(102)));
        let lost = holes.lost(&set(&[1, 4, 5]), &set(&[]));
        assert_eq!(lost.numbers, [2, 3]);
        assert_eq!(lost.rounds[0].first_s, round(99).first_s);
        assert_eq!(lost.rounds[0].end_s, round(103).end_s);
    }

    #[test]
    fn many_holes_become_one_and_few_numbers_are_kept() {
        let mut holes = Holes::default();
        (1..=10_000).for_each(|number| holes.number(number * 3, Some(round(number))));
        assert!(holes.list.len() <= HOLES_MAX);
        let lost = holes.lost(&Sequences::default(), &Sequences::default());
        assert!(lost.numbers.len() <= SETTLED_MAX);
        assert_eq!(lost.rounds.last().map(|it| it.end_s), Some(round(10_001).end_s));
    }
}
