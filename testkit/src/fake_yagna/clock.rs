//! The fake network's clock, the only place here that reads a clock.
//!
//! World time runs as fast as real time and can be pushed forward, so that a test sees a session
//! purged after ten minutes without waiting for it. It never runs backwards. What a client waits
//! for (long polls, ping limits) passes in real time and is not moved by a push.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};

/// A moment, as the time since the unix epoch (UTC).
pub type UnixTime = Duration;

#[derive(Debug)]
pub(crate) struct Clock {
    base: UnixTime,
    started: Instant,
    pushed: Mutex<Duration>,
}

impl Clock {
    /// A clock that shows the machine's time.
    #[expect(clippy::disallowed_methods, reason = "the clock's home")]
    pub(crate) fn real() -> Clock {
        let base = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock::at(base)
    }

    /// A clock that shows `base` now.
    pub(crate) fn at(base: UnixTime) -> Clock {
        Clock { base, started: Instant::now(), pushed: Mutex::new(Duration::ZERO) }
    }

    pub(crate) fn now(&self) -> UnixTime {
        let pushed = *self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        self.base + self.started.elapsed() + pushed
    }

    pub(crate) fn push(&self, by: Duration) {
        *self.pushed.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

/// The real instant after which a client has waited `limit` from now.
pub(crate) fn deadline(limit: Duration) -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    // A century stands for limits that an instant cannot hold.
    now.checked_add(limit).unwrap_or(now + Duration::from_secs(3_153_600_000))
}

fn civil(at: UnixTime) -> DateTime<Utc> {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    DateTime::from_timestamp(seconds, at.subsec_nanos()).unwrap_or_default()
}

/// `2026-11-23T21:16:13.332615912Z`, as offers and proposals carry it.
pub(crate) fn nanos(at: UnixTime) -> String {
    civil(at).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// `2026-11-23T21:18:02.782Z`, as events carry it.
pub(crate) fn millis(at: UnixTime) -> String {
    civil(at).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `2026-11-23T21:16:07`, as the version answer carries it.
pub(crate) fn zoneless(at: UnixTime) -> String {
    civil(at).format("%Y-%m-%dT%H:%M:%S").to_string()
}

/// `Mon, 23 Nov 2026 21:18:02 GMT`, as the HTTP date header carries it.
pub(crate) fn http_date(at: UnixTime) -> String {
    civil(at).format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Parses `2026-11-23T21:16:13.332615912Z`.
pub(crate) fn parse(text: &str) -> Option<UnixTime> {
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    let seconds = u64::try_from(at.timestamp()).ok()?;
    Some(Duration::new(seconds, at.timestamp_subsec_nanos()))
}
