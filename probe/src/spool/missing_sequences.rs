//! Sequence numbers that are in no segment, and the rounds that they may belong to.
//!
//! Owns the search for them while a spool opens. A missing number was an entry or gap that waited,
//! unless it was acknowledged; its round is close to those of its neighbours. Reports too many
//! rounds rather than too few. Pure.

use super::lock::HighWaterMark;
use super::reading::Met;
use super::records::Rounds;
use super::segment::{ENTRY, GAP};
use super::sequences::Sequences;

/// Runs that are kept apart; beyond them the last one grows.
const RUNS_MAX: usize = 64;
/// Numbers that are acknowledged once their rounds are reported. The next run reports the others
/// again.
const SETTLED_MAX: usize = 1_000;

/// Collects missing numbers while the segments are read in order.
#[derive(Debug, Default)]
pub(super) struct MissingSequences {
    /// The last number read.
    last: u64,
    /// Rounds of the last entry read, or those before the segment.
    before: Option<Rounds>,
    /// The oldest round that may wait; 0: not known.
    since_s: u64,
    /// Something is damaged since the last number.
    damaged: bool,
    /// A run whose next entry has not been read yet.
    open: Option<MissingRun>,
    list: Vec<MissingRun>,
}

#[derive(Debug, Clone, Copy)]
struct MissingRun {
    /// The first and the last missing number. If the first is greater, the numbers are unknown.
    first: u64,
    last: u64,
    rounds: Option<Rounds>,
    /// No entry precedes it.
    leads: bool,
}

/// What was lost.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// The rounds that lost something.
    pub(super) rounds: Vec<Rounds>,
    /// Numbers to acknowledge once these rounds are reported.
    pub(super) numbers: Vec<u64>,
}

impl MissingSequences {
    /// Sets the oldest round that may wait, from the high-water mark. Call it first.
    pub(super) fn waiting_since(&mut self, since_s: u64) {
        self.since_s = since_s;
    }

    /// Takes what is in the segments, in order.
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

    /// A segment begins; earlier segments reach up to this round.
    fn segment(&mut self, earlier_high_water_s: Option<u64>) {
        if let (None, Some(high_s @ 1..)) = (self.before, earlier_high_water_s) {
            self.before = Some(one_round(high_s, None));
        }
    }

    /// A damaged stretch.
    pub(super) fn damage(&mut self) {
        self.damaged = true;
    }

    /// An entry or a gap, and its rounds.
    fn number(&mut self, number: u64, rounds: Option<Rounds>) {
        let next = self.last.saturating_add(1);
        if number > next && self.last > 0 {
            self.miss(next, number - 1);
        } else if number > next && self.damaged {
            // Numbers before the first one may have been delivered; damage may have lost one.
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
        let open = self.open.get_or_insert(MissingRun { first, last, rounds, leads });
        open.last = open.last.max(last);
    }

    fn close(&mut self, after: Rounds) {
        let Some(mut run) = self.open.take() else {
            return;
        };
        Rounds::join(&mut run.rounds, after);
        // Nothing earlier is left, so anything that waited may be lost.
        if run.leads && (1..after.first_s).contains(&self.since_s) {
            Rounds::join(&mut run.rounds, one_round(self.since_s, None));
        }
        let is_full = self.list.len() >= RUNS_MAX;
        match self.list.last_mut() {
            Some(there) if is_full => {
                there.last = there.last.max(run.last);
                if let Some(rounds) = run.rounds {
                    Rounds::join(&mut there.rounds, rounds);
                }
            }
            _ => self.list.push(run),
        }
    }

    /// All segments are read. The mark says how far the spool was written; `None`: unreadable.
    pub(super) fn end(&mut self, mark: Option<HighWaterMark>) {
        let next = self.last.saturating_add(1);
        match mark {
            // No segment is left, and the numbers before the last may have been delivered.
            Some(mark) if self.last == 0 && mark.sequence > 0 => {
                self.miss(mark.sequence, mark.sequence);
            }
            Some(mark) if mark.sequence > self.last => self.miss(next, mark.sequence),
            // The count is unknown; do not acknowledge a number that may still be used.
            None if self.damaged => self.miss(next, self.last),
            _ => {}
        }
        let high_s = mark.map_or(0, |mark| mark.high_water_s);
        let high_s = high_s.max(self.before.map_or(0, |before| before.last_s));
        if high_s > 0 {
            self.close(one_round(high_s, self.before));
        }
    }

    /// What was never acknowledged in any segment.
    pub(super) fn lost(self, seen: &Sequences, acknowledged: &Sequences) -> Lost {
        let mut lost = Lost::default();
        for MissingRun { first, last, rounds, .. } in self.list {
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

/// The round with this start, as long as the others.
fn one_round(first_s: u64, like: Option<Rounds>) -> Rounds {
    let period_s = like.map_or(1, |like| like.end_s.saturating_sub(like.last_s));
    Rounds { first_s, last_s: first_s, end_s: first_s.saturating_add(period_s) }
}

/// A round more on each side: parts of neighbouring rounds may be written out of order.
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

    /// Reads these numbers, each an entry of the round of its number, then a mark with this number
    /// and nothing waiting before the second round.
    fn lost(met: &[u64], mark: Option<u64>, acknowledged: &[u64]) -> (Vec<(u64, u64)>, Vec<u64>) {
        let mut missing = MissingSequences::default();
        missing.waiting_since(mark.map_or(0, |_| 60));
        met.iter().for_each(|number| missing.number(*number, Some(round(*number))));
        let (high_water_s, waiting_since_s) = (mark.unwrap_or(0) * 30, 60);
        let mark = mark.map(|sequence| HighWaterMark { sequence, high_water_s, waiting_since_s });
        missing.end(mark);
        let lost = missing.lost(&set(met), &set(acknowledged));
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
        let mut missing = MissingSequences::default();
        missing.segment(Some(30));
        missing.damage();
        missing.number(7, Some(round(4)));
        missing.damage();
        missing.end(None);
        let lost = missing.lost(&set(&[7]), &set(&[]));
        assert_eq!(lost.numbers, [6], "and none that may be given out yet");
        assert_eq!(lost.rounds.len(), 2);
        assert!(lost.rounds[0].first_s <= 30 && lost.rounds[0].end_s >= round(4).end_s);
        assert!(lost.rounds[1].end_s >= round(5).end_s);
    }

    #[test]
    fn what_is_lost_before_the_first_number_goes_back_to_the_oldest_that_waited() {
        let first_lost_s = |since_s| {
            let mut missing = MissingSequences::default();
            missing.waiting_since(since_s);
            missing.segment(Some(600));
            missing.damage();
            missing.number(7, Some(round(22)));
            missing.end(Some(HighWaterMark {
                sequence: 7,
                high_water_s: 660,
                waiting_since_s: since_s,
            }));
            missing.lost(&set(&[7]), &set(&[])).rounds[0].first_s
        };
        assert!((269..=300).contains(&first_lost_s(300)));
        // Not known, or newer than what comes next: what is there tells.
        for since_s in [0, 900] {
            assert!((569..=600).contains(&first_lost_s(since_s)), "{since_s}");
        }
    }

    #[test]
    fn a_gap_says_nothing_of_when_it_was_written() {
        let mut missing = MissingSequences::default();
        missing.number(1, Some(round(100)));
        missing.number(4, None);
        missing.number(5, Some(round(102)));
        let lost = missing.lost(&set(&[1, 4, 5]), &set(&[]));
        assert_eq!(lost.numbers, [2, 3]);
        assert_eq!(lost.rounds[0].first_s, round(99).first_s);
        assert_eq!(lost.rounds[0].end_s, round(103).end_s);
    }

    #[test]
    fn many_runs_become_one_and_few_numbers_are_kept() {
        let mut missing = MissingSequences::default();
        (1..=10_000).for_each(|number| missing.number(number * 3, Some(round(number))));
        assert!(missing.list.len() <= RUNS_MAX);
        let lost = missing.lost(&Sequences::default(), &Sequences::default());
        assert!(lost.numbers.len() <= SETTLED_MAX);
        assert_eq!(lost.rounds.last().map(|it| it.end_s), Some(round(10_001).end_s));
    }
}
