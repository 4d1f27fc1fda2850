//! By which time this probe names its rounds (accounting page, "When a clock is wrong").
//!
//! Owns that decision and its inputs: the kernel's state of this host's clock, and the comparison
//! with the aggregator's clock. Pure: readings are passed in. Gives no time that nothing confirms,
//! because a part of a wrong round uses up a key.

use std::time::Duration;

use uptime_proto::clock::{Comparison, Exchange, KernelClock, Measure, Moment};
use uptime_proto::v1::ClockState;
use uptime_proto::words::ahead_or_behind;

/// A comparison with a larger error does not count.
const ERROR_MS_MAX: i64 = 1_000;
/// How long the boot clock carries the aggregator's time on. A quartz with an error of 100 ppm is
/// two seconds off by then.
const CARRIED_MAX: Duration = Duration::from_secs(6 * 3_600);
/// The clocks are compared this often, while they agree.
const COMPARE_EVERY: Duration = Duration::from_secs(25);
/// How often they are compared while they disagree, or have agreed only for a short time.
const COMPARE_SOON: Duration = Duration::from_secs(10);
/// How long that short time lasts after a stream began or a clock was set.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// Why there is no trustworthy time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoTime {
    /// The aggregator is sure of its clock, which is this many milliseconds ahead of this host's.
    Contradicts(i64),
    /// This host's clock was set and has not been compared with the aggregator's since.
    WasSet,
    /// The kernel says that this clock is not synchronised, and no aggregator tells the time.
    Neither,
}

impl std::fmt::Display for NoTime {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Contradicts(offset_ms) => {
                let where_to = ahead_or_behind(offset_ms.saturating_neg());
                write!(
                    out,
                    "this host's clock is {} ms {where_to} that of the aggregator, which is sure \
                     of its own: check the NTP client of this host",
                    offset_ms.unsigned_abs()
                )
            }
            Self::WasSet => out.write_str(
                "this host's clock was set and has not been compared with the aggregator's since",
            ),
            Self::Neither => out.write_str(
                "the kernel says that this host's clock is not synchronised, and no aggregator \
                 with a trusted clock has told the time: run an NTP client on this host",
            ),
        }
    }
}

/// An aggregator's clock, while there is a stream to it.
#[derive(Debug)]
struct Aggregator {
    state: ClockState,
    comparison: Comparison,
    /// When the comparison began.
    since: Duration,
}

/// The rule, with what it has seen.
#[derive(Debug, Default)]
pub(super) struct Rule {
    last: Option<Moment>,
    aggregator: Option<Aggregator>,
    /// The aggregator's time when it was last known, in place of the wall clock.
    carried: Option<Moment>,
    /// How often this clock was set.
    steps: u64,
    /// The clock was set, and no aggregator with a trusted clock has confirmed the new time.
    unsettled: bool,
}

impl Rule {
    /// Reads this host's clock: what has to be added to it to get the time, milliseconds.
    pub(super) fn read(&mut self, now: Moment, kernel: KernelClock) -> Result<i64, NoTime> {
        let before = self.last.replace(now);
        if before.is_some_and(|before| now.has_stepped_since(before)) {
            self.steps += 1;
            self.unsettled = true;
            if let Some(aggregator) = &mut self.aggregator {
                // What was compared is of the clock before.
                (aggregator.comparison, aggregator.since) = (Comparison::default(), now.boot);
            }
        }
        if kernel != KernelClock::Unsynchronised {
            let Some(aggregator) = self.aggregator.as_ref().filter(|it| it.is_sure()) else {
                return Ok(0);
            };
            let comparison = &aggregator.comparison;
            // Each time it is set this clock has to be confirmed before a round goes by it.
            self.unsettled &= comparison.best().is_none() || comparison.is_apart();
            return match comparison.best() {
                Some(best) if comparison.contradicts() || self.unsettled => {
                    Err(NoTime::Contradicts(best.offset_ms))
                }
                None if self.unsettled => Err(NoTime::WasSet),
                _ => Ok(0),
            };
        }
        if let Some(offset_ms) = self.aggregator.as_ref().and_then(Aggregator::tells_ms) {
            self.carried = Some(Moment { wall_ms: now.wall_ms + offset_ms, ..now });
            return Ok(offset_ms);
        }
        let carried = self.carried.filter(|carried| {
            now.boot.checked_sub(carried.boot).is_some_and(|since| since <= CARRIED_MAX)
        });
        carried.map(|carried| now.carried_from_ms(carried) - now.wall_ms).ok_or(NoTime::Neither)
    }

    /// A stream began; its greetings were an exchange.
    pub(super) fn connected(&mut self, state: ClockState, greeting: Exchange, now: Moment) {
        let comparison = Comparison::default();
        self.aggregator = Some(Aggregator { state, comparison, since: now.boot });
        self.heard(state, Some(greeting), now);
    }

    /// A heartbeat of the aggregator came.
    pub(super) fn heard(&mut self, state: ClockState, exchange: Option<Exchange>, now: Moment) {
        let Some(aggregator) = &mut self.aggregator else { return };
        aggregator.state = state;
        if let Some(measure) = exchange.and_then(Exchange::measure) {
            aggregator.comparison.note(measure, now.boot);
        }
    }

    /// The stream ended.
    pub(super) fn disconnected(&mut self) {
        self.aggregator = None;
    }

    /// The last comparison with the aggregator.
    pub(super) fn measure(&self) -> Option<Measure> {
        self.aggregator.as_ref()?.comparison.best()
    }

    /// Whether the time is that of an aggregator which is sure of its clock.
    pub(super) fn is_confirmed(&self, kernel: KernelClock) -> bool {
        let by_its_clock = kernel == KernelClock::Unsynchronised;
        self.aggregator.as_ref().is_some_and(|it| {
            it.is_sure() && it.tells_ms().is_some() && (by_its_clock || !it.comparison.is_apart())
        })
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn carried(&self) -> Option<Moment> {
        self.carried
    }

    /// Takes over the time that an earlier run of this boot knew.
    pub(super) fn carry(&mut self, carried: Moment) {
        self.carried = Some(carried);
    }

    /// When the clocks are to be compared again after now.
    pub(super) fn compare_after(&self, boot: Duration) -> Duration {
        match &self.aggregator {
            Some(it)
                if !it.comparison.is_apart() && boot.saturating_sub(it.since) > SETTLED_AFTER =>
            {
                COMPARE_EVERY
            }
            _ => COMPARE_SOON,
        }
    }
}

impl Aggregator {
    /// One that does not judge its clock is taken to be sure, as 0.1 was.
    fn is_sure(&self) -> bool {
        matches!(self.state, ClockState::Sure | ClockState::Unspecified)
    }

    /// Its clock less this one, if its time is to be taken, milliseconds: it is sure, or in doubt,
    /// and then both agree. On hosts without an NTP client there is no better time.
    fn tells_ms(&self) -> Option<i64> {
        let best = self.comparison.best().filter(|best| best.error_ms <= ERROR_MS_MAX)?;
        let taken = match self.state {
            ClockState::Sure | ClockState::Unspecified => true,
            ClockState::Doubtful => !self.comparison.is_apart(),
            ClockState::Wrong => false,
        };
        taken.then_some(best.offset_ms)
    }
}

#[cfg(test)]
#[path = "rule/tests.rs"]
mod tests;
