//! When a node pings the relay: the relay last saw it then.
//!
//! A node pings on a grid, until it asks the relay for its neighbours: the answer puts its next
//! ping off, and the relay takes no such question for a sign of life (b4). Owns that arithmetic;
//! all of it is a function of the time passed in.

use std::time::Duration;

use super::chance::draw;
use super::clock::UnixTime;
use super::timing::NetTiming;

/// A ping may be put off once in so many intervals …
const BLOCK: u64 = 8;
/// … by that much of an interval: `seen` then grows to 20 to 43 s.
const PUT_OFF: (f64, f64) = (5.0 / 15.0, 28.0 / 15.0);
/// How much of a block a ping that is put off makes `seen` older than 20 s, on average.
const STALE_SHARE: f64 = 11.5 / 120.0;

/// When a node pings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pings {
    /// Where on the grid it stands, 0..1 of an interval.
    pub(crate) phase: f64,
    /// Decides which pings are put off.
    pub(crate) salt: u64,
    /// A ping that was put off by hand.
    held: Option<Held>,
}

/// No pings between two moments.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// The last ping before.
    last: UnixTime,
    /// The next one, if it has been decided.
    next: Option<UnixTime>,
}

impl Pings {
    pub(crate) fn new(phase: f64, salt: u64) -> Pings {
        Pings { phase, salt, held: None }
    }

    /// Puts the grid so that a ping falls on `at`.
    pub(crate) fn set(&mut self, at: UnixTime, timing: &NetTiming) {
        self.held = None;
        self.phase = (at.as_secs_f64() / timing.ping_interval.as_secs_f64()).fract();
    }

    /// No ping after `last`, until the node pings again.
    pub(crate) fn hold(&mut self, last: UnixTime) {
        self.held = Some(Held { last, next: None });
    }

    /// A ping that was held comes at `next`, and the others after it.
    pub(crate) fn let_go(&mut self, next: UnixTime, timing: &NetTiming) {
        if let Some(Held { last, next: None }) = self.held {
            self.set(next, timing);
            self.held = Some(Held { last, next: Some(next) });
        }
    }

    /// The newest ping up to `until`.
    pub(crate) fn last(&self, until: UnixTime, timing: &NetTiming) -> UnixTime {
        let on_grid = self.last_on_grid(until, timing);
        match self.held {
            Some(Held { last, next }) if last <= until => match next {
                Some(next) if next <= until => on_grid.max(next),
                _ => last,
            },
            _ => on_grid,
        }
    }

    fn last_on_grid(&self, until: UnixTime, timing: &NetTiming) -> UnixTime {
        let interval = timing.ping_interval.max(Duration::from_millis(1));
        let offset = timing.ping_interval.mul_f64(self.phase);
        let steps = until.saturating_sub(offset).as_nanos() / interval.as_nanos();
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        let at = |step: u64| from_nanos(u128::from(step) * interval.as_nanos()) + offset;
        if timing.seen_lag_share > 0.0 {
            let block = steps / BLOCK;
            let chance = |what: &str| draw(self.salt, (what, block));
            // Never at an edge of the block, so that one block does not reach into the next.
            let first = block * BLOCK + 2 + u64::from(chance("early") < 0.5);
            let is_put_off = chance("put off") < timing.seen_lag_share / STALE_SHARE;
            if is_put_off && steps >= first {
                let (least, most) = PUT_OFF;
                let late = interval.mul_f64(least + (most - least) * chance("how long"));
                let ping = at(first) + late;
                return if until < ping { at(first - 1) } else { ping.max(at(steps)) };
            }
        }
        at(steps)
    }
}

fn from_nanos(nanos: u128) -> UnixTime {
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanos / SECOND).unwrap_or(u64::MAX);
    Duration::new(seconds, u32::try_from(nanos % SECOND).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_held_ping_comes_when_it_is_let_go() {
        let timing = NetTiming::default();
        let mut pings = Pings::new(0.0, 1);
        pings.hold(s(1000));
        assert_eq!(pings.last(s(995), &timing), s(990));
        assert_eq!(pings.last(s(1500), &timing), s(1000));
        pings.let_go(s(1100), &timing);
        pings.let_go(s(1109), &timing);
        assert_eq!(pings.last(s(1099), &timing), s(1000));
        assert_eq!(pings.last(s(1114), &timing), s(1100));
        assert_eq!(pings.last(s(1115), &timing), s(1115));
    }

    #[test]
    fn seen_lags_in_the_measured_share_of_the_time() {
        let timing = NetTiming { seen_lag_share: 0.03, ..NetTiming::default() };
        let (mut stale, mut oldest, mut total) = (0_u32, Duration::ZERO, 0_u32);
        for node in 0..100 {
            let pings = Pings::new(draw(node, "phase"), node);
            let mut newest = Duration::ZERO;
            for second in 1_000_000..1_002_000 {
                let last = pings.last(s(second), &timing);
                assert!(last >= newest, "seen never goes back");
                newest = last;
                let age = s(second) - last;
                oldest = oldest.max(age);
                stale += u32::from(age > s(20));
                total += 1;
            }
        }
        let share = f64::from(stale) / f64::from(total);
        assert!((0.02..0.04).contains(&share), "{share}");
        assert!((s(40)..s(44)).contains(&oldest), "{oldest:?}");
        let steady = Pings::new(0.0, 1);
        let default = NetTiming::default();
        assert!((1000..3000).all(|now| s(now) - steady.last(s(now), &default) < s(15)));
    }
}
