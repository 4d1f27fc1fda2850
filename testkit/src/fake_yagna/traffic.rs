//! How many requests a fake daemon gets, by route.
//!
//! Owns the counting, in real time. Refuses to know what the requests are.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// The most that was ever asked of one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busiest {
    /// Requests being answered at the same time.
    pub at_once: usize,
    /// Requests that came within one second, whenever that began.
    pub per_s: usize,
}

/// What a daemon has written into its operator's log, ERROR lines only.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Log {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
}

impl Log {
    pub(crate) fn write(&mut self, lines: u64, bytes: u64) {
        self.lines += lines;
        self.bytes += bytes;
    }
}

/// Every route by its label.
#[derive(Debug, Default)]
pub(crate) struct Traffic(BTreeMap<String, Route>);

#[derive(Debug, Default)]
struct Route {
    count: u64,
    at_once: usize,
    /// When the requests of the last second came.
    lately: VecDeque<Instant>,
    busiest: Busiest,
}

impl Traffic {
    /// A request came; it is being answered until [`Traffic::end`].
    pub(crate) fn begin(&mut self, label: &str, now: Instant) {
        if !self.0.contains_key(label) {
            self.0.insert(label.to_owned(), Route::default());
        }
        let Some(route) = self.0.get_mut(label) else { return };
        route.count += 1;
        route.at_once += 1;
        route.lately.push_back(now);
        while route.lately.front().is_some_and(|at| now - *at >= Duration::from_secs(1)) {
            route.lately.pop_front();
        }
        route.busiest.at_once = route.busiest.at_once.max(route.at_once);
        route.busiest.per_s = route.busiest.per_s.max(route.lately.len());
    }

    /// A request was answered, or its client went away.
    pub(crate) fn end(&mut self, label: &str) {
        if let Some(route) = self.0.get_mut(label) {
            route.at_once = route.at_once.saturating_sub(1);
        }
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.0.iter().map(|(label, route)| (label.clone(), route.count)).collect()
    }

    pub(crate) fn count(&self, label: &str) -> u64 {
        self.0.get(label).map_or(0, |route| route.count)
    }

    pub(crate) fn busiest(&self, label: &str) -> Busiest {
        self.0.get(label).map(|route| route.busiest).unwrap_or_default()
    }

    /// Resets the maxima.
    pub(crate) fn forget_busiest(&mut self) {
        self.0.values_mut().for_each(|route| route.busiest = Busiest::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_begins_at_any_time() {
        let mut traffic = Traffic::default();
        let begun = Instant::now();
        for at_ms in [0, 400, 900, 1_300, 1_350, 3_000] {
            traffic.begin("GET /me", begun + Duration::from_millis(at_ms));
            traffic.end("GET /me");
        }
        assert_eq!(traffic.busiest("GET /me"), Busiest { at_once: 1, per_s: 4 });
        assert_eq!(traffic.count("GET /me"), 6);
        traffic.forget_busiest();
        traffic.begin("GET /me", begun + Duration::from_secs(5));
        traffic.begin("GET /me", begun + Duration::from_secs(7));
        assert_eq!(traffic.busiest("GET /me"), Busiest { at_once: 2, per_s: 1 });
    }
}
