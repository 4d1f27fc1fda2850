//! What a daemon was found not to have, so that it is not asked for again and again.
//!
//! Owns for how long that is believed: until a connection fails, since another daemon may be
//! there afterwards, and ten minutes at most.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::http::Http;

/// After this long what was absent is looked for again: a daemon may have been replaced without
/// one connection failing in between.
const RETRY: Duration = Duration::from_secs(600);

/// What is remembered about one part of the daemon that not every version has.
pub(super) struct Absence {
    what: &'static str,
    found: Mutex<Option<Found>>,
}

struct Found {
    since: Instant,
    /// How many connections had failed by then.
    failures: u64,
}

impl Absence {
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
