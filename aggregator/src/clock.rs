//! The one place that reads the clock.
//!
//! Everything else is told what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, unix milliseconds, UTC.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
