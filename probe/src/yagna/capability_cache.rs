//! Remembers what a daemon does not support, so that the probe does not ask for it every time.
//!
//! Owns how long that is believed: until a connection fails, because another daemon may answer
//! afterwards, and ten minutes at most.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::http::Http;

/// After this long the probe tries again: the daemon may have been replaced without a failed
/// connection.
const RETRY: Duration = Duration::from_secs(600);

/// Whether the daemon lacks one capability that not every version has.
pub(super) struct CapabilityCache {
    what: &'static str,
    found: Mutex<Option<Found>>,
}

struct Found {
    since: Instant,
    /// Connections that had failed by then.
    failures: u64,
}

impl CapabilityCache {
    /// Nothing is known yet. `what` ends the sentence "this yagna has".
    pub(super) fn of(what: &'static str) -> Self {
        Self { what, found: Mutex::default() }
    }

    pub(super) fn is_absent(&self, http: &Http) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found
            .as_ref()
            .is_some_and(|found| found.failures == http.failures() && found.since.elapsed() < RETRY)
    }

    pub(super) fn found_absent(&self, http: &Http) {
        let now = Found { since: Instant::now(), failures: http.failures() };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.replace(now).is_none() {
            tracing::info!("this yagna has {}", self.what);
        }
    }
}
