//! Which round is due, by the clock alone, and when in it look-ups begin.
//!
//! Owns one probe's fixed jitter, the last moment to begin a round, and that no round begins twice.
//! Pure: the time and the duration of the look-ups are passed in.

use std::time::Duration;

use uptime_proto::{Epochs, Reason, Round, v1};

/// The fixed jitter of a probe is below this share of the period, and below two seconds.
const JITTER_SHARE: i64 = 20;
const JITTER_MS_MAX: i64 = 2_000;
/// How many rounds ahead to search; beyond them something is wrong that may pass.
const AHEAD_MAX: usize = 10_000;
/// Rows of rounds that are remembered: more than a clock is set before it is right.
const ROWS_MAX: usize = 8;

/// The last first look-up begins this long before suspects are named, so that the aggregator has
/// its result by then.
const FIRST_STAGE_ENDS_MS: i64 = 700;
/// Reserve for look-ups that take longer than expected, in percent.
const RATE_RESERVE_PERCENT: i64 = 10;
/// Expected time of a market listing. In a round joined late, look-ups wait for it.
const MARKET_MS: i64 = 2_000;

/// The schedule of a round. The aggregator's may be for longer rounds, if the probe was away while
/// the period changed.
pub(super) fn fitted(told: &v1::Schedule, round: Round) -> v1::Schedule {
    let period_ms = u32::try_from(round.period().millis()).unwrap_or(u32::MAX);
    if told.suspects_offset_ms <= period_ms / 10 * 9 {
        return *told;
    }
    // What an aggregator uses for rounds that are too short.
    let suspects_offset_ms = period_ms / 5 * 2;
    let lookups_offset_ms = suspects_offset_ms / 3 * 2;
    v1::Schedule { suspects_offset_ms, lookups_offset_ms, ..*told }
}

/// How long `count` look-ups take at `per_s` a second, after a listing of the relay that takes
/// `listing_ms`. Milliseconds.
pub(super) fn look_ups_take_ms(count: usize, per_s: u32, listing_ms: i64) -> i64 {
    let count = i64::try_from(count).unwrap_or(i64::MAX).min(i64::MAX / 1_000_000);
    let takes_ms = count * 1_000 / i64::from(per_s.max(1)) * (100 + RATE_RESERVE_PERCENT) / 100;
    takes_ms.saturating_add(listing_ms)
}

/// When in a round `count` look-ups begin, at `per_s` a second and after a listing of the relay
/// that takes `listing_ms`: late, as a node that has died must look it, and early enough that the
/// last is put before the suspects are named. Milliseconds from the round's start.
pub(super) fn look_ups_begin_ms(
    schedule: &v1::Schedule,
    count: usize,
    per_s: u32,
    listing_ms: i64,
) -> i64 {
    let suspects_ms = i64::from(schedule.suspects_offset_ms);
    let latest_ms = last_begin_ms(suspects_ms, look_ups_take_ms(count, per_s, listing_ms));
    latest_ms.min(i64::from(schedule.lookups_offset_ms)).max(0)
}

/// The last moment at which look-ups that take so long may begin, if the last of them is to be put
/// before the suspects are named. Milliseconds from the round's start; negative where they take too
/// long for a round.
fn last_begin_ms(suspects_ms: i64, takes_ms: i64) -> i64 {
    (suspects_ms - FIRST_STAGE_ENDS_MS).saturating_sub(takes_ms)
}

/// The round schedule of one probe.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoundSchedule<'a> {
    pub(super) epochs: &'a Epochs,
    /// 0 to 999: where in the jitter this probe begins its rounds.
    pub(super) jitter_permille: u16,
    /// When suspects are named, milliseconds from a round's start.
    pub(super) suspects_ms: i64,
    /// How long the first look-ups of a round are expected to take, milliseconds.
    pub(super) look_ups_take_ms: i64,
}

impl RoundSchedule<'_> {
    /// When this probe begins a round, unix milliseconds.
    pub(super) fn begins_ms(&self, round: Round) -> i64 {
        round.start_ms() + jitter_ms_max(round) * i64::from(self.jitter_permille) / 1000
    }

    /// The last moment at which this probe may begin a round, unix milliseconds.
    /// It may join a round as long as it can list the market and then put all first look-ups before
    /// the suspects are named. A round that it begins when it should is never too late, however
    /// long its look-ups take.
    pub(super) fn begun_until_ms(&self, round: Round) -> i64 {
        // The schedule may be that of other, longer rounds.
        let suspects_ms = self.suspects_ms.min(round.period().millis());
        let look_ups_ms = last_begin_ms(suspects_ms, self.look_ups_take_ms);
        let look_ups_fit_ms = look_ups_ms.saturating_sub(MARKET_MS);
        self.on_time_until_ms(round).max(round.start_ms().saturating_add(look_ups_fit_ms))
    }

    /// Until then a round begins on time; later it is joined.
    pub(super) fn on_time_until_ms(&self, round: Round) -> i64 {
        self.begins_ms(round) + jitter_ms_max(round)
    }

    /// The round to scan now or next, after `last` and among those that may be made: the current
    /// one if it may still be begun, else one that follows. `None`: none is near.
    pub(super) fn due(
        &self,
        now_ms: i64,
        last: Option<Round>,
        may_make: impl Fn(Round) -> bool,
    ) -> Option<Round> {
        let current = self.epochs.round_at_ms(now_ms);
        let in_time = now_ms <= self.begun_until_ms(current);
        let first = if in_time { current } else { self.epochs.next(current) };
        let rounds = std::iter::successors(Some(first), |round| Some(self.epochs.next(*round)));
        rounds
            .take(AHEAD_MAX)
            .find(|round| last.is_none_or(|last| *round > last) && may_make(*round))
    }
}

/// The rounds that were begun: the last of each unbroken row of them. Rows after the present are
/// dropped, because a clock that was ahead began them.
#[derive(Debug, Default)]
pub(super) struct Begun {
    rows: Vec<Round>,
    /// When this run began its first round, by the boot clock.
    since: Option<Duration>,
    /// How often the clock had been set when the last one was begun.
    steps: u64,
    /// For how long no time has been known since the last round was begun.
    without_time: Duration,
}

impl Begun {
    /// Notes that `round` was begun at `boot`, after the wall clock had been set `steps` times.
    pub(super) fn add(&mut self, round: Round, boot: Duration, steps: u64) {
        self.since.get_or_insert(boot);
        (self.steps, self.without_time) = (steps, Duration::ZERO);
        self.rows.pop_if(|last| last.end_s() == round.start_s());
        self.rows.push(round);
        if self.rows.len() > ROWS_MAX {
            self.rows.remove(0);
        }
    }

    /// Notes that no time was known for `waited`.
    pub(super) fn waited_for_time(&mut self, waited: Duration) {
        self.without_time += waited;
    }

    /// Why the rounds between the last one begun and `next` were missed. `steps` is how often the
    /// clock has been set so far. A start that waited for the time for less than a round missed
    /// no round because of it.
    pub(super) fn why_missed(&self, next: Round, steps: u64) -> Reason {
        let round = Duration::from_secs(u64::from(next.period().seconds()));
        let patience = if self.rows.is_empty() { round } else { Duration::ZERO };
        let clock = steps > self.steps || self.without_time > patience;
        if clock { Reason::Clock } else { Reason::Missed }
    }

    /// The one that was begun last.
    pub(super) fn last(&self) -> Option<Round> {
        self.rows.last().copied()
    }

    /// How long ago this run began its first round, if none of the rounds it began counts. `None`:
    /// some round counts, or none was begun.
    pub(super) fn in_vain_for(&self, boot: Duration) -> Option<Duration> {
        self.since.filter(|_| self.rows.is_empty()).map(|since| boot.saturating_sub(since))
    }

    /// Drops the rounds after `round`: they cannot have begun yet, so the clock was ahead.
    pub(super) fn forget_after(&mut self, round: Round) {
        while self.rows.pop_if(|last| *last > round).is_some() {}
    }
}

/// The fixed jitter of any probe in this round is below this.
fn jitter_ms_max(round: Round) -> i64 {
    (round.period().millis() / JITTER_SHARE).min(JITTER_MS_MAX)
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

    #[test]
    fn a_schedule_of_longer_rounds_is_fitted_to_shorter_ones() {
        let told = v1::Schedule {
            lookups_offset_ms: 22_500,
            suspects_offset_ms: 24_000,
            lookups_per_s_max: 400,
            ..v1::Schedule::default()
        };
        let of = |period_s| {
            let round = Round::new(1_800_000_000, Period::new(period_s).unwrap()).unwrap();
            let fitted = fitted(&told, round);
            assert_eq!(fitted.lookups_per_s_max, 400);
            (fitted.lookups_offset_ms, fitted.suspects_offset_ms)
        };
        assert_eq!((of(60), of(30)), ((22_500, 24_000), (22_500, 24_000)));
        assert_eq!((of(20), of(10)), ((5_332, 8_000), (2_666, 4_000)));
    }

    #[test]
    fn what_a_clock_began_ahead_of_its_time_is_forgotten() {
        let period = Period::new(30).unwrap();
        let round = |slot: u64| Round::new(1_800_000_000 + slot * 30, period).unwrap();
        let mut begun = Begun::default();
        assert_eq!(begun.last(), None);
        let at = Duration::from_secs;
        (0..10).for_each(|slot| begun.add(round(slot), at(100 + slot), 0));
        (130..140).for_each(|slot| begun.add(round(slot), at(slot), 0));
        assert_eq!((begun.last(), begun.rows.len()), (Some(round(139)), 2));
        begun.forget_after(round(14));
        assert_eq!(begun.last(), Some(round(9)));
        begun.forget_after(round(9));
        assert_eq!((begun.last(), begun.in_vain_for(at(500))), (Some(round(9)), None));
        begun.forget_after(Round::new(0, period).unwrap());
        assert_eq!((begun.last(), begun.in_vain_for(at(500))), (None, Some(at(400))));
        (0..100).for_each(|slot| begun.add(round(slot * 2), at(600), 0));
        assert_eq!(begun.rows.len(), ROWS_MAX);
    }

    #[test]
    fn rounds_are_missed_for_the_clock_where_it_was_set_or_told_no_time() {
        let period = Period::new(30).unwrap();
        let round = |slot: u64| Round::new(1_800_000_000 + slot * 30, period).unwrap();
        let mut begun = Begun::default();
        begun.waited_for_time(Duration::from_secs(30));
        assert_eq!(begun.why_missed(round(0), 0), Reason::Missed, "a start takes a moment");
        begun.waited_for_time(Duration::from_secs(1));
        assert_eq!(begun.why_missed(round(0), 0), Reason::Clock);
        begun.add(round(0), Duration::ZERO, 1);
        assert_eq!(begun.why_missed(round(9), 1), Reason::Missed);
        assert_eq!(begun.why_missed(round(9), 2), Reason::Clock);
        begun.waited_for_time(Duration::from_secs(1));
        assert_eq!(begun.why_missed(round(9), 1), Reason::Clock);
        begun.add(round(9), Duration::ZERO, 1);
        assert_eq!(begun.why_missed(round(20), 1), Reason::Missed);
    }

    #[test]
    fn a_round_is_joined_while_its_look_ups_fit() {
        let epochs = |period_s| {
            Epochs::new(vec![Epoch::with_defaults(Period::new(period_s).unwrap())]).unwrap()
        };
        // Period, when suspects are named, look-ups, a listing of the relay; then the last moment.
        for (period_s, suspects_ms, (count, per_s), listing_ms, last_ms) in [
            // Nothing is known of the look-ups, or there are a few.
            (30, 24_500, (0, 400), 0, 24_500 - 700 - 2_000),
            (30, 24_500, (10, 400), 0, 24_500 - 700 - 2_000 - 27),
            // A third of 10,000 nodes, as quick as allowed, then over a relay far away.
            (30, 24_500, (3_334, 400), 0, 24_500 - 700 - 2_000 - 9_168),
            (30, 24_500, (3_334, 200), 0, 24_500 - 700 - 2_000 - 18_337),
            (30, 24_500, (3_334, 400), 5_000, 24_500 - 700 - 2_000 - 9_168 - 5_000),
            (60, 54_000, (10, 400), 0, 54_000 - 700 - 2_000 - 27),
            // More than a round has room for, and rounds too short to be joined: on time only.
            (30, 24_500, (100_000, 400), 0, 1_500),
            (30, 24_500, (usize::MAX, 1), i64::MAX, 1_500),
            (2, 1_200, (10, 400), 0, 100),
            // The schedule is that of longer rounds, or there is none.
            (10, 24_500, (0, 400), 0, 10_000 - 700 - 2_000),
            (30, 0, (0, 400), 0, 1_500),
        ] {
            let epochs = epochs(period_s);
            let look_ups_take_ms = look_ups_take_ms(count, per_s, listing_ms);
            let schedule = RoundSchedule {
                epochs: &epochs,
                jitter_permille: 0,
                suspects_ms,
                look_ups_take_ms,
            };
            let current = epochs.round_at_ms(86_400_000 * 20_001);
            let due = |after_ms| schedule.due(current.start_ms() + after_ms, None, |_| true);
            let what = format!("{count} look-ups in a round of {period_s} s");
            assert_eq!(due(0), Some(current), "{what}");
            assert_eq!(due(last_ms), Some(current), "{what}, {last_ms} ms after its start");
            assert_eq!(due(last_ms + 1), Some(epochs.next(current)), "{what}, a moment later");
        }
    }

    /// Everything but the epochs.
    #[derive(Debug, Clone, Copy)]
    struct Given {
        jitter_permille: u16,
        suspects_ms: i64,
        look_ups_take_ms: i64,
    }

    impl Given {
        fn on(self, epochs: &Epochs) -> RoundSchedule<'_> {
            let Self { jitter_permille, suspects_ms, look_ups_take_ms } = self;
            RoundSchedule { epochs, jitter_permille, suspects_ms, look_ups_take_ms }
        }
    }

    fn given() -> impl Strategy<Value = Given> {
        (0u16..1000, 0i64..4_000_000, 0i64..60_000).prop_map(
            |(jitter_permille, suspects_ms, look_ups_take_ms)| Given {
                jitter_permille,
                suspects_ms,
                look_ups_take_ms,
            },
        )
    }

    proptest! {
        #[test]
        fn a_round_is_begun_in_time_and_only_once(
            epochs in epochs(),
            now_ms in times(),
            given in given(),
            behind in prop::option::of(0i64..100),
        ) {
            let schedule = given.on(&epochs);
            let last = behind.map(|behind| epochs.round_at_ms(now_ms - behind * 1_000));
            let due = schedule.due(now_ms, last, |_| true).unwrap();
            prop_assert!(epochs.in_force(due));
            prop_assert!(last.is_none_or(|last| due > last));
            let period_ms = due.period().millis();
            let (begins_ms, until_ms) = (schedule.begins_ms(due), schedule.begun_until_ms(due));
            prop_assert!(now_ms <= until_ms);
            prop_assert!(due.start_ms() <= begins_ms && begins_ms <= until_ms);
            prop_assert!(until_ms < due.start_ms() + period_ms, "never when it is over");
            // It is the current round or the one after it, unless that was scanned already.
            let current = epochs.round_at_ms(now_ms);
            let near = [current, epochs.next(current)];
            prop_assert!(near.contains(&due) || last.is_some_and(|last| last >= near[1]));
        }

        /// A round is joined exactly while the market can be listed and every look-up be put before
        /// the suspects are named, or it is not late at all.
        #[test]
        fn the_current_round_is_joined_if_its_look_ups_fit_and_only_then(
            epochs in epochs(),
            now_ms in times(),
            given in given(),
        ) {
            let schedule = given.on(&epochs);
            let current = epochs.round_at_ms(now_ms);
            let suspects_ms = given.suspects_ms.min(current.period().millis());
            let listed_ms = now_ms + MARKET_MS;
            let put_ms = listed_ms + given.look_ups_take_ms + FIRST_STAGE_ENDS_MS;
            let fit = put_ms <= current.start_ms() + suspects_ms;
            let on_time = now_ms <= schedule.on_time_until_ms(current);
            let due = schedule.due(now_ms, None, |_| true).unwrap();
            prop_assert_eq!(due == current, fit || on_time);
            // One that was begun already is not begun again, however well its look-ups would fit.
            let due = schedule.due(now_ms, Some(current), |_| true).unwrap();
            prop_assert_eq!(due, epochs.next(current));
        }

        /// A scanner that is woken when a round is due misses none, whatever its jitter, however
        /// many look-ups there are, and over a change of the period.
        #[test]
        fn none_is_missed(epochs in epochs(), now_ms in times(), given in given()) {
            let schedule = given.on(&epochs);
            let mut last = schedule.due(now_ms, None, |_| true).unwrap();
            for _ in 0..50 {
                let next = schedule.due(schedule.begins_ms(last), Some(last), |_| true).unwrap();
                prop_assert_eq!(next, epochs.next(last));
                // Nor is it passed over by one that looks again when it is to begin.
                let again = schedule.due(schedule.begins_ms(next), Some(last), |_| true);
                prop_assert_eq!(again, Some(next));
                last = next;
            }
        }

        #[test]
        fn a_round_that_may_not_be_made_is_passed_over(
            epochs in epochs(),
            now_ms in times(),
            given in given(),
            blocked_s in 0u64..5_000,
        ) {
            let schedule = given.on(&epochs);
            let from_s = epochs.round_at_ms(now_ms).start_s();
            let may_make = |round: Round| round.start_s() > from_s + blocked_s;
            let due = schedule.due(now_ms, None, may_make).unwrap();
            prop_assert!(due.start_s() > from_s + blocked_s);
            let before = epochs.previous(due);
            prop_assert!(before.is_none_or(|before| before.start_s() <= from_s + blocked_s));
            prop_assert!(schedule.due(now_ms, None, |_| false).is_none());
        }
    }
}
