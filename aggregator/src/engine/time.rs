//! By which time the ledger works: that of a clock which is trusted only so far.
//!
//! Owns what the clock is told of the store, and that rounds which were closed ahead of their time
//! are taken back. Refuses to judge the clock: see `clock/rule.rs`.

use uptime_proto::Round;
use uptime_proto::clock::STEP_MS;

use super::core::Engine;
use super::urgency::Urgency;
use crate::clock::{Judged, Timekeeper};
use crate::store::{Store, StoreError};

/// Tells the clock what is in the store.
///
/// # Errors
/// When the store cannot be read.
pub async fn note_deliveries<S: Store>(
    store: &mut S,
    clock: &Timekeeper,
) -> Result<(), StoreError> {
    let deliveries = store.deliveries().await?;
    if let (true, Some((_, newest_s))) = (deliveries.is_empty(), store.extent().await?) {
        // All days are compacted, which they are an hour after their end.
        clock.stored_until(i64::try_from(newest_s * 1000).unwrap_or(i64::MAX));
    }
    deliveries.into_iter().for_each(|delivery| clock.stored(delivery));
    Ok(())
}

impl<S: Store> Engine<S> {
    /// The time by which rounds close, unix milliseconds. While none may close, it is that of the
    /// last one that did; and a round that is over stays closed.
    #[must_use]
    pub fn closing_ms(&self, clock: &Judged) -> i64 {
        let closed_ms = self.state.closed().map_or(i64::MIN, Round::end_ms);
        match (clock.closing_ms, clock.time_ms) {
            (Some(closing_ms), Some(time_ms)) => closing_ms.max(closed_ms.min(time_ms)),
            _ => closed_ms,
        }
    }

    /// Whether rounds were closed that are not over: the clock was ahead.
    pub(super) fn is_ahead(&self, now_ms: i64) -> bool {
        // A clock that was set back by less is waited for.
        self.state.closed().is_some_and(|closed| closed.end_ms() > now_ms.saturating_add(STEP_MS))
    }

    /// Has the rounds taken back that were closed and are not over.
    pub(super) async fn take_back_what_is_ahead(&mut self, now_ms: i64) {
        if self.is_ahead(now_ms) && !self.is_outdated() {
            self.drop_checkpoint().await;
            let closed_s = self.state.closed_end_s();
            tracing::warn!(
                closed_s,
                now_ms,
                "rounds were closed that are not over: the clock was ahead. They are taken back"
            );
            self.rebuild.want(Urgency::Now);
        }
    }
}
