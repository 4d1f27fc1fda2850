//! When in a round look-ups begin and suspects are named.
//!
//! Owns the offsets inside a round. Pure: it reads no clock and knows no probe.

use uptime_proto::{Epoch, v1};

/// The last part of a round leaves this long before the round closes.
const REPORT_MS: u32 = 1_000;
/// Suspects get a `FindNode` first. This is enough for 250 of them; the most recently alive come
/// first.
const SUSPECT_FINDS_MS: u32 = 250;
/// A probe waits this long between two direct questions (accounting page, "Evidence").
const BETWEEN_QUESTIONS_MS: u32 = 1_000;
/// For the last `FindNode`, after the last silence. It takes milliseconds, and the votes count
/// without it.
const LAST_FIND_MS: u32 = 500;
/// First look-ups begin this long before suspects are named; see `Schedule`.
const FIRST_STAGE_MS: u32 = 1_250;
/// Standing lists go out this long before first look-ups begin, at the latest at two fifths of the
/// round. By then the markets are listed.
const STANDING_MS: u32 = 600;

/// When in a round look-ups begin and suspects are named, for these rules.
///
/// As late as possible: a dead node is noticed only if its `seen` is stale at the look-up, so each
/// second earlier delays detection by a second. Suspects are
/// named so that the last answer about them comes within the grace; in short rounds at two fifths,
/// and never in the last tenth.
#[must_use]
pub fn schedule_for(epoch: &Epoch) -> v1::Schedule {
    let period_ms = epoch.period.seconds().saturating_mul(1000);
    let closes_ms = period_ms.saturating_add(epoch.grace_s.saturating_mul(1000));
    let pauses_ms = epoch.direct_attempts.saturating_sub(1).saturating_mul(BETWEEN_QUESTIONS_MS);
    // A daemon counts the limit of a question in whole seconds.
    let question_ms = epoch.direct_timeout_ms.div_ceil(1_000).saturating_mul(1_000);
    let questions_ms = question_ms.saturating_mul(epoch.direct_attempts);
    let takes_ms = SUSPECT_FINDS_MS + questions_ms + pauses_ms + LAST_FIND_MS + REPORT_MS;
    let latest_ms = closes_ms.saturating_sub(takes_ms);
    let suspects_ms = latest_ms.clamp(period_ms / 5 * 2, period_ms - period_ms / 10);
    v1::Schedule {
        lookups_offset_ms: suspects_ms.saturating_sub(FIRST_STAGE_MS).max(suspects_ms / 3 * 2),
        suspects_offset_ms: suspects_ms,
        lookups_per_s_max: 1_000,
        lookups_in_flight_max: 50,
    }
}

/// Milliseconds from the start of a round until the standing lists of look-ups go out.
pub(super) fn standing_ms(epoch: &Epoch) -> u32 {
    let lookups_ms = schedule_for(epoch).lookups_offset_ms;
    let latest_ms = epoch.period.seconds().saturating_mul(1000) / 5 * 2;
    lookups_ms.saturating_sub(STANDING_MS).min(latest_ms)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uptime_proto::Period;

    use super::*;

    #[test]
    fn everything_in_a_round_fits_before_it_closes() {
        let wanted = [(1, 266, 400), (10, 3_000, 4_250), (15, 8_000, 9_250), (30, 23_000, 24_250)];
        for (period_s, lookups_ms, suspects_ms) in wanted {
            let epoch = Epoch::with_defaults(Period::new(period_s).unwrap());
            let schedule = schedule_for(&epoch);
            let found = (schedule.lookups_offset_ms, schedule.suspects_offset_ms);
            assert_eq!(found, (lookups_ms, suspects_ms), "rounds of {period_s} s");
            // In rounds of 10 s and more the silent are asked to the end before the probe's
            // deadline, half a second before the close.
            if period_s >= 10 {
                assert!(
                    suspects_ms + 250 + 9_000 + 500 <= period_s * 1_000 + 4_500,
                    "{period_s} s"
                );
            }
            assert!(standing_ms(&epoch) < lookups_ms);
        }
        let quick = Epoch {
            grace_s: 3_600,
            direct_timeout_ms: 1,
            ..Epoch::with_defaults(Period::new(30).unwrap())
        };
        assert_eq!(schedule_for(&quick).suspects_offset_ms, 27_000, "not after the round");
        let of = |direct_timeout_ms| {
            let rules = Epoch::with_defaults(Period::new(10).unwrap());
            schedule_for(&Epoch { grace_s: 2, direct_timeout_ms, ..rules })
        };
        assert_eq!(of(300), of(1_000), "a daemon waits for a whole second");
    }
}
