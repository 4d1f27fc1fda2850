//! When a heartbeat is due, and what its answer tells of the aggregator's clock.
//!
//! Owns the doubt about answers that took long. Pure: times come in.

use std::time::Duration;

use tokio::time::Instant;

/// A heartbeat goes out when nothing else did for so long; the aggregator answers it. Reports of
/// rounds of half a minute say as much, so it is no shorter than need be.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// And whatever else goes out, when none did for so long: its answer tells the time.
const CLOCK_EVERY: Duration = Duration::from_secs(240);
/// An answer that took longer tells the time too roughly.
const ANSWER_QUICK_MS: i64 = 1_000;

/// When the next heartbeat is due.
#[derive(Debug)]
pub(super) struct Beats {
    /// When anything went out.
    sent: Instant,
    /// When a heartbeat did.
    beat: Instant,
    /// The clock is to be asked for now.
    at_once: bool,
}

impl Beats {
    pub(super) fn new(now: Instant) -> Self {
        Self { sent: now, beat: now, at_once: false }
    }

    pub(super) fn due_at_once(now: Instant) -> Self {
        Self { at_once: true, ..Self::new(now) }
    }

    pub(super) fn due(&self) -> Instant {
        if self.at_once {
            return self.beat;
        }
        (self.sent + HEARTBEAT).min(self.beat + CLOCK_EVERY)
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.sent = now;
    }

    pub(super) fn beat(&mut self, now: Instant) {
        *self = Self::new(now);
    }
}

/// Whether an answer tells the time it was given at.
pub(super) fn is_quick(asked_ms: i64, answered_ms: i64) -> bool {
    (0..=ANSWER_QUICK_MS).contains(&(answered_ms - asked_ms))
}

/// How far the aggregator's clock is ahead of this host's, by an answer with its time in it, where
/// it was known to be `before_ms` until now.
///
/// It read its clock about half way between the question and the answer. If that took long, as
/// where an aggregator stood still for seconds, half way says little: then what was known holds,
/// unless it cannot be.
pub(super) fn clock_offset(before_ms: i64, asked_ms: i64, server_ms: i64, answered_ms: i64) -> i64 {
    let can_be = server_ms - answered_ms..=server_ms - asked_ms;
    if !is_quick(asked_ms, answered_ms) && can_be.contains(&before_ms) {
        return before_ms;
    }
    server_ms - asked_ms.midpoint(answered_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_took_long_changes_a_clock_only_where_it_must() {
        // Asked at 1,000, by this host's clock; before it was 30 ms behind the aggregator's.
        for (server_ms, answered_ms, wanted_ms) in [
            (1_045, 1_020, 35),
            (4_010, 2_000, 2_510),
            // It stood still before it read its clock, or after: no reason to doubt what was known.
            (9_030, 9_000, 30),
            (1_030, 9_000, 30),
            (5_000, 9_000, 30),
            // The clock of one of the two was set meanwhile.
            (99_000, 9_000, 94_000),
            (0, 9_000, -5_000),
        ] {
            let found_ms = clock_offset(30, 1_000, server_ms, answered_ms);
            assert_eq!(found_ms, wanted_ms, "{server_ms} {answered_ms}");
        }
    }

    #[test]
    fn a_heartbeat_is_due_at_once_where_the_clock_is_not_sure() {
        let begun = Instant::now();
        let mut beats = Beats::due_at_once(begun);
        assert_eq!(beats.due(), begun);
        beats.sent(begun + HEARTBEAT);
        assert_eq!(beats.due(), begun, "a report is not a heartbeat");
        beats.beat(begun);
        assert_eq!(beats.due(), begun + HEARTBEAT);
    }

    #[test]
    fn a_heartbeat_is_due_after_silence_and_now_and_then_for_the_clock() {
        let begun = Instant::now();
        let mut beats = Beats::new(begun);
        assert_eq!(beats.due(), begun + HEARTBEAT);
        let mut now = begun;
        let mut beaten = 0;
        // Reports every ten seconds, for an hour.
        while now < begun + Duration::from_secs(3_600) {
            now += Duration::from_secs(10);
            if beats.due() <= now {
                beats.beat(now);
                beaten += 1;
            }
            beats.sent(now);
        }
        assert_eq!(beaten, 3_600 / CLOCK_EVERY.as_secs());
    }
}
