//! Clocks compared (accounting page, "When a clock is wrong").
//!
//! Owns what a step is, what four timestamps tell of another clock, and when two clocks contradict
//! each other. Refuses to read a clock, and to decide what follows: each daemon has a rule.

use std::collections::VecDeque;
use std::time::Duration;

use crate::v1;

/// Wall clock and boot clock that drift apart by more than this between two readings show a step.
pub const STEP_MS: i64 = 2_000;
/// Beyond this, less the error of the measurement, two clocks do not agree.
pub const CONTRADICTS_MS: i64 = 2_000;
/// Below this, less the error of the measurement, two clocks that contradicted agree again.
pub const AGREES_MS: i64 = 1_000;
/// So many exchanges, over [`CONTRADICTS_FOR`], make a contradiction.
const CONTRADICTIONS_MIN: u32 = 3;
const CONTRADICTS_FOR: Duration = Duration::from_secs(20);
const AGREES_FOR: Duration = Duration::from_secs(60);
/// What `adjtimex(2)` answers while nothing synchronises the clock.
const TIME_ERROR: i32 = 5;
/// The same as a bit of its status.
const STA_UNSYNC: i32 = 0x40;
/// A clock that may be off by a second, in microseconds, is not synchronised (accounting page).
const ERROR_US_END: i64 = 1_000_000;
/// The end of the year 9999, unix milliseconds: whatever is beyond is no time.
const TIME_MS_END: i64 = 253_402_300_800_000;
/// Of so many exchanges the one with the shortest round trip counts.
const EXCHANGES_MAX: usize = 8;

/// Both clocks of a host, read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, unix milliseconds.
    pub wall_ms: i64,
    /// The boot clock: the time since the host started, sleep included. No step changes it.
    pub boot: Duration,
}

impl Moment {
    /// Whether the wall clock was set, either way, between the two readings.
    #[must_use]
    pub fn has_stepped_since(self, before: Self) -> bool {
        self.stepped_by_ms(before).abs() > STEP_MS
    }

    /// By how much the wall clock moved more than the boot clock, milliseconds.
    #[must_use]
    pub fn stepped_by_ms(self, before: Self) -> i64 {
        let boot_ms = millis(self.boot) - millis(before.boot);
        self.wall_ms.saturating_sub(before.wall_ms).saturating_sub(boot_ms)
    }

    /// What the wall clock would say now if nothing had set it since `before`, unix milliseconds.
    #[must_use]
    pub fn carried_from_ms(self, before: Self) -> i64 {
        before.wall_ms.saturating_add(millis(self.boot) - millis(before.boot))
    }
}

/// A duration in milliseconds.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// What the kernel of a host says of its wall clock (`adjtimex`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KernelClock {
    /// It cannot be read.
    #[default]
    Unknown,
    /// Neither `STA_UNSYNC` nor `TIME_ERROR` is set, and `maxerror` is below a second.
    Synchronised,
    /// It is not.
    Unsynchronised,
}

impl KernelClock {
    /// What `adjtimex` answered: its result, and of what it filled in the status and the greatest
    /// possible error, in microseconds.
    #[must_use]
    pub const fn of_adjtimex(answer: i32, status: i32, error_us_max: i64) -> Self {
        if answer == TIME_ERROR || status & STA_UNSYNC != 0 || error_us_max >= ERROR_US_END {
            Self::Unsynchronised
        } else {
            Self::Synchronised
        }
    }

    /// The one stable text for tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Synchronised => "synchronised",
            Self::Unsynchronised => "unsynchronised",
        }
    }

    /// Reads the setting `kernel-clock`: what is taken for the kernel's word; `None`: its own.
    ///
    /// # Errors
    /// With what may be said.
    pub fn read_setting(text: &str) -> Result<Option<Self>, String> {
        match text {
            "auto" => Ok(None),
            "synchronised" => Ok(Some(Self::Synchronised)),
            "unsynchronised" => Ok(Some(Self::Unsynchronised)),
            _ => Err("auto, synchronised or unsynchronised is wanted".to_owned()),
        }
    }

    /// What a peer said of its own.
    #[must_use]
    pub fn from_wire(value: i32) -> Self {
        match v1::KernelClock::try_from(value).unwrap_or_default() {
            v1::KernelClock::Unspecified => Self::Unknown,
            v1::KernelClock::Synchronised => Self::Synchronised,
            v1::KernelClock::Unsynchronised => Self::Unsynchronised,
        }
    }

    /// Its value on the wire.
    #[must_use]
    pub const fn to_wire(self) -> v1::KernelClock {
        match self {
            Self::Unknown => v1::KernelClock::Unspecified,
            Self::Synchronised => v1::KernelClock::Synchronised,
            Self::Unsynchronised => v1::KernelClock::Unsynchronised,
        }
    }
}

/// How far an aggregator trusts its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// Normal operation.
    Sure,
    /// Rounds close, at most an hour past the newest stored part. Nothing irreversible happens.
    Doubtful,
    /// As doubtful, but rounds close by the last sure time plus the time since.
    Wrong,
}

impl ClockState {
    /// The one stable text for logs, metric labels and pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sure => "sure",
            Self::Doubtful => "doubtful",
            Self::Wrong => "wrong",
        }
    }

    /// What a peer said of its own; `None`: it does not judge its clock.
    #[must_use]
    pub fn from_wire(value: i32) -> Option<Self> {
        match v1::ClockState::try_from(value).unwrap_or_default() {
            v1::ClockState::Unspecified => None,
            v1::ClockState::Sure => Some(Self::Sure),
            v1::ClockState::Doubtful => Some(Self::Doubtful),
            v1::ClockState::Wrong => Some(Self::Wrong),
        }
    }

    /// Its value on the wire.
    #[must_use]
    pub const fn to_wire(self) -> v1::ClockState {
        match self {
            Self::Sure => v1::ClockState::Sure,
            Self::Doubtful => v1::ClockState::Doubtful,
            Self::Wrong => v1::ClockState::Wrong,
        }
    }
}

/// The four timestamps of one exchange, unix milliseconds, each by the clock that read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// When this end asked, by its clock.
    pub asked_ms: i64,
    /// When the other end received that, by its clock.
    pub received_ms: i64,
    /// When the other end answered, by its clock.
    pub answered_ms: i64,
    /// When this end received the answer, by its clock.
    pub back_ms: i64,
}

/// What one exchange tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// The other clock less this one, milliseconds.
    pub offset_ms: i64,
    /// Half of the round trip: the offset is right within this.
    pub error_ms: i64,
}

impl Exchange {
    /// The offset; `None` when the stamps make no sense: one is before 1970 or after 9999, or a
    /// clock was set back meanwhile.
    #[must_use]
    pub fn measure(self) -> Option<Measure> {
        let Self { asked_ms, received_ms, answered_ms, back_ms } = self;
        let is_time = |ms: &i64| (0..TIME_MS_END).contains(ms);
        if ![asked_ms, received_ms, answered_ms, back_ms].iter().all(is_time) {
            return None;
        }
        let there_ms = self.answered_ms.checked_sub(self.received_ms)?;
        let here_ms = self.back_ms.checked_sub(self.asked_ms)?;
        let round_trip_ms = here_ms.checked_sub(there_ms)?;
        if there_ms < 0 || round_trip_ms < 0 {
            return None;
        }
        let out_ms = self.received_ms.checked_sub(self.asked_ms)?;
        let back_ms = self.answered_ms.checked_sub(self.back_ms)?;
        let offset_ms = out_ms.midpoint(back_ms);
        Some(Measure { offset_ms, error_ms: (round_trip_ms + 1) / 2 })
    }
}

impl Measure {
    /// How far apart the clocks are at least, milliseconds.
    #[must_use]
    pub const fn apart_ms(self) -> i64 {
        self.offset_ms.saturating_abs().saturating_sub(self.error_ms)
    }

    /// Whether both may be right.
    fn fits(self, other: Self) -> bool {
        let apart_ms = self.offset_ms.saturating_sub(other.offset_ms).saturating_abs();
        apart_ms <= self.error_ms.saturating_add(other.error_ms).saturating_add(AGREES_MS / 2)
    }
}

/// Another clock as seen from this host.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    last: VecDeque<Measure>,
    /// Exchanges in a row that contradicted, and when the first of them was.
    contradictions: (u32, Duration),
    contradicts: bool,
    /// Since when exchanges agree, while the clocks are held to contradict.
    agrees_since: Option<Duration>,
}

impl Comparison {
    /// Takes one exchange in, at this moment of the boot clock.
    pub fn note(&mut self, measure: Measure, boot: Duration) {
        // The other clock was set: what was measured before says nothing any more.
        if self.best().is_some_and(|best| !best.fits(measure)) {
            self.last.clear();
        }
        self.last.push_back(measure);
        if self.last.len() > EXCHANGES_MAX {
            self.last.pop_front();
        }
        let apart_ms = measure.apart_ms();
        if apart_ms > CONTRADICTS_MS {
            let (count, first) = &mut self.contradictions;
            if *count == 0 {
                *first = boot;
            }
            *count += 1;
            if *count >= CONTRADICTIONS_MIN && boot.saturating_sub(*first) >= CONTRADICTS_FOR {
                self.contradicts = true;
            }
        } else {
            self.contradictions = (0, Duration::ZERO);
        }
        if apart_ms >= AGREES_MS {
            self.agrees_since = None;
        } else if self.contradicts {
            let since = *self.agrees_since.get_or_insert(boot);
            if boot.saturating_sub(since) >= AGREES_FOR {
                self.contradicts = false;
                self.agrees_since = None;
            }
        }
    }

    /// Of the last eight exchanges the one with the shortest round trip.
    #[must_use]
    pub fn best(&self) -> Option<Measure> {
        self.last.iter().copied().min_by_key(|measure| measure.error_ms)
    }

    /// Whether the clocks contradict each other: three exchanges over 20 s said so, and none has
    /// agreed for 60 s since.
    #[must_use]
    pub const fn contradicts(&self) -> bool {
        self.contradicts
    }

    /// Whether the clocks contradict each other, or may do so soon.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        self.contradicts || self.best().is_some_and(|best| best.apart_ms() > CONTRADICTS_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: i64, boot_s: u64) -> Moment {
        Moment { wall_ms, boot: Duration::from_secs(boot_s) }
    }

    #[test]
    fn a_step_is_told_from_time_that_passes() {
        let before = at(1_800_000_000_000, 100);
        for (wall_ms, boot_s, stepped) in [
            (1_800_000_030_000, 130, false),
            (1_800_000_032_000, 130, false),
            (1_800_000_032_001, 130, true),
            (1_800_000_027_999, 130, true),
            (1_799_999_000_000, 130, true),
            // A host that slept: both clocks went on.
            (1_800_003_600_000, 3_700, false),
        ] {
            let now = at(wall_ms, boot_s);
            assert_eq!(now.has_stepped_since(before), stepped, "{wall_ms}");
            let passed_ms = i64::try_from((boot_s - 100) * 1_000).unwrap_or(0);
            assert_eq!(now.carried_from_ms(before), 1_800_000_000_000 + passed_ms);
        }
    }

    #[test]
    fn what_the_kernel_answers() {
        use KernelClock::{Synchronised, Unsynchronised};
        // 0 is TIME_OK; 1, a leap second to come; 0x2001, a phase-locked loop in nanoseconds.
        for (answer, status, error_us_max, wanted) in [
            (0, 0, 0, Synchronised),
            (0, 0x2001, 999_999, Synchronised),
            (1, 0x2011, 400, Synchronised),
            (0, 0x2001, 1_000_000, Unsynchronised),
            (0, 0x2041, 400, Unsynchronised),
            (5, 0x2001, 400, Unsynchronised),
            (5, 0x40, 16_000_000, Unsynchronised),
        ] {
            let found = KernelClock::of_adjtimex(answer, status, error_us_max);
            assert_eq!(found, wanted, "{answer} {status:#x} {error_us_max}");
        }
    }

    #[test]
    fn four_timestamps_tell_the_offset_and_its_error() {
        let exchange = |asked_ms, received_ms, answered_ms, back_ms| {
            let measure = Exchange { asked_ms, received_ms, answered_ms, back_ms }.measure();
            measure.map(|it| (it.offset_ms, it.error_ms, it.apart_ms()))
        };
        // 20 ms each way, answered at once or 10 s later.
        assert_eq!(exchange(1_000, 6_020, 6_020, 1_040), Some((5_000, 20, 4_980)));
        assert_eq!(exchange(1_000, 6_020, 16_020, 11_040), Some((5_000, 20, 4_980)));
        // The way there took 8 s: half of it is the error, and 3 s are not told from 5.
        assert_eq!(exchange(1_000, 14_000, 14_000, 9_000), Some((9_000, 4_000, 5_000)));
        assert_eq!(exchange(1_000, 1_020, 1_020, 1_040), Some((0, 20, -20)));
        // A clock was set back between the stamps.
        assert_eq!(exchange(1_000, 1_020, 1_010, 1_040), None);
        assert_eq!(exchange(1_000, 1_020, 11_020, 5_000), None);
        assert_eq!(exchange(i64::MIN, i64::MAX, i64::MAX, 0), None);
        assert_eq!(exchange(0, i64::MAX, i64::MAX, 40), None);
        assert_eq!(exchange(0, -1, -1, 40), None);
        // Set ahead by 10 s: the error covers it.
        assert_eq!(exchange(1_000, 1_020, 1_020, 11_040), Some((-5_000, 5_020, -20)));
    }

    /// Exchanges every ten seconds with these offsets; whether the clocks contradict after each.
    fn course(offsets_ms: &[i64]) -> Vec<bool> {
        let mut comparison = Comparison::default();
        let course = (0..).zip(offsets_ms).map(|(number, offset_ms)| {
            let measure = Measure { offset_ms: *offset_ms, error_ms: 10 };
            comparison.note(measure, Duration::from_secs(number * 10));
            comparison.contradicts()
        });
        course.collect()
    }

    #[test]
    fn three_exchanges_over_twenty_seconds_contradict_and_a_minute_of_agreement_ends_it() {
        assert_eq!(course(&[3_000; 4]), [false, false, true, true]);
        assert_eq!(course(&[2_010; 3]), [false; 3], "within the error");
        assert_eq!(course(&[3_000, 3_000, 0, 3_000, 3_000]), [false; 5]);
        let mut offsets_ms = vec![-9_000; 3];
        offsets_ms.extend([0; 7]);
        let mut wanted = vec![false, false];
        wanted.extend([true; 7]);
        wanted.push(false);
        assert_eq!(course(&offsets_ms), wanted);
        offsets_ms[5] = 1_500;
        assert!(course(&offsets_ms)[9], "it did not stay below a second");
    }

    #[test]
    fn the_shortest_round_trip_counts_until_the_other_clock_is_set() {
        let mut comparison = Comparison::default();
        let mut note = |offset_ms, error_ms| {
            comparison.note(Measure { offset_ms, error_ms }, Duration::ZERO);
            comparison.best().map(|best| best.offset_ms)
        };
        assert_eq!(note(100, 50), Some(100));
        assert_eq!(note(900, 900), Some(100));
        assert_eq!(note(120, 10), Some(120));
        assert_eq!(note(-30_000, 400), Some(-30_000), "set by half a minute");
        for _ in 0..EXCHANGES_MAX {
            note(-30_010, 500);
        }
        assert_eq!(note(-30_010, 500), Some(-30_010), "the ninth pushes the first out");
    }
}
