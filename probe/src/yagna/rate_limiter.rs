//! The rate limiter: spreads questions evenly over time.
//!
//! Owns the time of the next free slot. Never lets a burst through: slots are an interval apart,
//! and unused slots are lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Hands out slots at a fixed rate.
pub(super) struct RateLimiter {
    /// Between two slots, nanoseconds.
    interval_ns: AtomicU64,
    next: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// `per_s` slots a second; at least one.
    pub(super) fn new(per_s: u32) -> Self {
        Self { interval_ns: AtomicU64::new(interval_ns(per_s)), next: Mutex::new(None) }
    }

    /// Changes the rate, from the next slot on.
    pub(super) fn set(&self, per_s: u32) {
        self.interval_ns.store(interval_ns(per_s), Ordering::Relaxed);
    }

    /// Takes the next slot and waits for it. A caller that is cancelled meanwhile wastes its slot.
    pub(super) async fn wait(&self) {
        let slot = self.take(Instant::now());
        tokio::time::sleep_until(slot).await;
    }

    fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = next.map_or(now, |next| next.max(now));
        *next = Some(slot + Duration::from_nanos(self.interval_ns.load(Ordering::Relaxed)));
        slot
    }
}

fn interval_ns(per_s: u32) -> u64 {
    1_000_000_000 / u64::from(per_s.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_an_interval_apart_and_do_not_pile_up() {
        let limiter = RateLimiter::new(400);
        let start = Instant::now();
        let millis = |slot: Instant| (slot - start).as_micros();
        assert_eq!(millis(limiter.take(start)), 0);
        assert_eq!(millis(limiter.take(start)), 2_500);
        assert_eq!(millis(limiter.take(start)), 5_000);
        let later = start + Duration::from_secs(1);
        assert_eq!(millis(limiter.take(later)), 1_000_000);
        assert_eq!(millis(limiter.take(later)), 1_002_500);
        limiter.set(1_000);
        assert_eq!(millis(limiter.take(later)), 1_005_000);
        assert_eq!(millis(limiter.take(later)), 1_006_000);
    }
}
