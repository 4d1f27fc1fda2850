//! Which round is due, by the clock alone, and when in it look-ups begin.
//!
//! Owns the grid as one probe sees it: its fixed jitter, how late a round may be begun, and that no
//! round is begun twice. Pure: the time is passed in.

use uptime_proto::{Epochs, Round, v1};

/// A round is begun late by at most this share of its period, else it is missed.
const LATE_START_SHARE: i64 = 4;
/// The fixed jitter of a probe is below this share of the period, and below two seconds.
const JITTER_SHARE: i64 = 20;
const JITTER_MS_MAX: i64 = 2_000;
/// A round further ahead than so many is not looked for: something is wrong that time may mend.
const AHEAD_MAX: usize = 10_000;

/// So long before suspects are named the last first look-up is put, so that what came of it is
/// known to the aggregator by then.
const FIRST_STAGE_ENDS_MS: i64 = 700;
/// Look-ups take so much longer than counted, in percent.
const PACE_SPARE_PERCENT: i64 = 10;

/// When in a round so many look-ups begin, at `per_s` a second and after a listing of the relay
/// that takes `listing_ms`: late, as a node that has died must look it, and early enough that the
/// last is put before the suspects are named. Milliseconds from the round's start.
pub(super) fn look_ups_begin_ms(
    schedule: &v1::Schedule,
    count: usize,
    per_s: u32,
    listing_ms: i64,
) -> i64 {
    let count = i64::try_from(count).unwrap_or(i64::MAX / 1_000_000);
    let takes_ms = count * 1_000 / i64::from(per_s.max(1)) * (100 + PACE_SPARE_PERCENT) / 100;
    let suspects_ms = i64::from(schedule.suspects_offset_ms);
    let latest_ms = suspects_ms - FIRST_STAGE_ENDS_MS - takes_ms - listing_ms;
    latest_ms.min(i64::from(schedule.lookups_offset_ms)).max(0)
}

/// The grid of one probe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid<'a> {
    pub(super) epochs: &'a Epochs,
    /// 0 to 999: where in the jitter this probe begins its rounds.
    pub(super) jitter_permille: u16,
}

impl Grid<'_> {
    /// When this probe begins a round, unix milliseconds of aggregator time.
    pub(super) fn begins_ms(&self, round: Round) -> i64 {
        let most = (round.period().millis() / JITTER_SHARE).min(JITTER_MS_MAX);
        round.start_ms() + most * i64::from(self.jitter_permille) / 1000
    }

    /// The round to scan now or next, after `last` and among those that may be made. `None`: there
    /// is none near.
    pub(super) fn due(
        &self,
        now_ms: i64,
        last: Option<Round>,
        may_make: impl Fn(Round) -> bool,
    ) -> Option<Round> {
        let current = self.epochs.round_at_ms(now_ms);
        let late_ms = current.period().millis() / LATE_START_SHARE;
        let in_time = now_ms <= self.begins_ms(current) + late_ms;
        let first = if in_time { current } else { self.epochs.next(current) };
        let rounds = std::iter::successors(Some(first), |round| Some(self.epochs.next(*round)));
        rounds
            .take(AHEAD_MAX)
            .find(|round| last.is_none_or(|last| *round > last) && may_make(*round))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;
    use uptime_proto::{Epoch, Period};

    use super::*;

    /// One period, then another from a start that both grids have.
    fn epochs() -> impl Strategy<Value = Epochs> {
        let period = || prop::sample::select(vec![1, 2, 10, 30, 60, 300, 3_600]);
        (period(), period()).prop_map(|(first, second)| {
            let epoch = |seconds| Epoch::with_defaults(Period::new(seconds).unwrap());
            let second = Epoch { start_s: 86_400 * 20_001, ..epoch(second) };
            Epochs::new(vec![epoch(first), second]).unwrap()
        })
    }

    fn times() -> impl Strategy<Value = i64> {
        let around = 86_400_000 * 20_001;
        around - 10_000_000..around + 10_000_000i64
    }

    #[test]
    fn look_ups_begin_late_and_end_before_suspects_are_named() {
        let schedule = v1::Schedule {
            lookups_offset_ms: 22_500,
            suspects_offset_ms: 24_500,
            ..v1::Schedule::default()
        };
        let begins =
            |count, per_s, listing_ms| look_ups_begin_ms(&schedule, count, per_s, listing_ms);
        assert_eq!(begins(10, 400, 0), 22_500, "a few: as late as the schedule says");
        // A third of 10,000 nodes, as quick as allowed, then over a relay far away.
        assert_eq!(begins(3_334, 400, 0), 24_500 - 700 - 9_168);
        assert_eq!(begins(3_334, 200, 0), 24_500 - 700 - 18_337);
        assert_eq!(begins(3_334, 400, 5_000), 24_500 - 700 - 9_168 - 5_000);
        assert_eq!(begins(100_000, 400, 0), 0, "too many for a round: from its start");
    }

    proptest! {
        #[test]
        fn a_round_is_begun_in_time_and_only_once(
            epochs in epochs(),
            now_ms in times(),
            jitter_permille in 0u16..1000,
            behind in prop::option::of(0i64..100),
        ) {
            let grid = Grid { epochs: &epochs, jitter_permille };
            let last = behind.map(|behind| epochs.round_at_ms(now_ms - behind * 1_000));
            let due = grid.due(now_ms, last, |_| true).unwrap();
            prop_assert!(epochs.in_force(due));
            prop_assert!(last.is_none_or(|last| due > last));
            let period_ms = due.period().millis();
            prop_assert!(now_ms <= grid.begins_ms(due) + period_ms / LATE_START_SHARE);
            let begins_ms = grid.begins_ms(due);
            prop_assert!((due.start_ms()..due.start_ms() + period_ms).contains(&begins_ms));
            // It is the current round or the one after it, unless that was scanned already.
            let current = epochs.round_at_ms(now_ms);
            let near = [current, epochs.next(current)];
            prop_assert!(near.contains(&due) || last.is_some_and(|last| last >= near[1]));
        }

        /// A scanner that is woken when a round is due misses none, whatever its jitter and over a
        /// change of the period.
        #[test]
        fn none_is_missed(epochs in epochs(), now_ms in times(), jitter_permille in 0u16..1000) {
            let grid = Grid { epochs: &epochs, jitter_permille };
            let mut last = grid.due(now_ms, None, |_| true).unwrap();
            for _ in 0..50 {
                let next = grid.due(grid.begins_ms(last), Some(last), |_| true).unwrap();
                prop_assert_eq!(next, epochs.next(last));
                last = next;
            }
        }

        #[test]
        fn a_round_that_may_not_be_made_is_passed_over(
            epochs in epochs(),
            now_ms in times(),
            blocked_s in 0u64..5_000,
        ) {
            let grid = Grid { epochs: &epochs, jitter_permille: 0 };
            let from_s = epochs.round_at_ms(now_ms).start_s();
            let may_make = |round: Round| round.start_s() > from_s + blocked_s;
            let due = grid.due(now_ms, None, may_make).unwrap();
            prop_assert!(due.start_s() > from_s + blocked_s);
            let before = epochs.previous(due);
            prop_assert!(before.is_none_or(|before| before.start_s() <= from_s + blocked_s));
            prop_assert!(grid.due(now_ms, None, |_| false).is_none());
        }
    }
}
