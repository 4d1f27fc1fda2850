//! The only place that reads the clocks and the kernel's state of them.
//!
//! Does not judge what it reads: `rule.rs` does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rtime_clock::adjtime::{Timex, adjtimex};
use uptime_proto::clock::{KernelClock, Moment};

/// Now by this host's clock, unix milliseconds, UTC.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Both clocks, read at once.
#[must_use]
pub fn moment() -> Moment {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(boot.tv_nsec).unwrap_or(0);
    Moment { wall_ms: now_unix_ms(), boot: Duration::new(seconds, nanos) }
}

/// The id of this boot: the boot clock restarts with each one.
#[must_use]
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// What the kernel says of the wall clock.
#[must_use]
pub fn kernel_clock() -> KernelClock {
    // An empty request only reads.
    let mut read = Timex::new();
    adjtimex(&mut read).map_or(KernelClock::Unknown, |answer| {
        KernelClock::of_adjtimex(answer, read.0.status, read.0.maxerror)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_on_and_the_kernel_says_the_same_twice() {
        let before = moment();
        let after = moment();
        assert!(after.boot >= before.boot && !after.has_stepped_since(before));
        assert_eq!(kernel_clock(), kernel_clock());
    }
}
