//! The one place that reads the clocks.
//!
//! Everything else is told what time it is. Aggregator time is the wall clock plus the offset that
//! was measured on connect; see `orders.rs`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall clock and boot clock that drift apart by more than this between two readings show a step
/// (accounting page, "When a clock is wrong").
const STEP_MS: i64 = 2_000;

/// Now by this host's clock, unix milliseconds, UTC.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Both clocks, read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, unix milliseconds.
    pub wall_ms: i64,
    /// The boot clock: since the host was started, time in sleep included. No step changes it.
    pub boot: Duration,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(boot.tv_nsec).unwrap_or(0);
        Self { wall_ms: now_unix_ms(), boot: Duration::new(seconds, nanos) }
    }

    /// Whether the wall clock was set, either way, between the two.
    #[must_use]
    pub fn has_stepped_since(self, before: Self) -> bool {
        let boot_ms = |moment: Self| i64::try_from(moment.boot.as_millis()).unwrap_or(i64::MAX);
        let wall_ms = self.wall_ms.saturating_sub(before.wall_ms);
        let apart_ms = wall_ms.saturating_sub(boot_ms(self).saturating_sub(boot_ms(before)));
        apart_ms.abs() > STEP_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_from_time_that_passes() {
        let at = |wall_ms, boot_s| Moment { wall_ms, boot: Duration::from_secs(boot_s) };
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
            assert_eq!(at(wall_ms, boot_s).has_stepped_since(before), stepped, "{wall_ms}");
        }
        let now = Moment::now();
        assert!(!Moment::now().has_stepped_since(now));
    }
}
