//! Whether anything can be stored now.
//!
//! Owns what is said while it cannot: once in the log, in a metric, and to whoever asks whether
//! this aggregator is ready. Nothing is acknowledged meanwhile.

use metrics::{counter, gauge};

use super::core::Engine;
use crate::store::{Store, StoreError};

impl<S: Store> Engine<S> {
    /// A commit failed.
    pub(super) fn cannot_store(&mut self, error: &StoreError) {
        counter!("uptime_store_commits_failed_total").increment(1);
        gauge!("uptime_store_writable").set(0.0);
        let text = error.to_string();
        if self.trouble.replace(text.clone()) != Some(text) {
            tracing::error!(%error, "nothing can be stored; probes keep what they send");
        } else {
            tracing::debug!(%error, "still nothing can be stored");
        }
    }

    /// A commit is on disk.
    pub(super) fn can_store(&mut self) {
        gauge!("uptime_store_writable").set(1.0);
        if self.trouble.take().is_some() {
            tracing::info!("the store takes commits again");
        }
    }

    /// Once a round, also while nothing comes in: whether the store still lies where it was opened.
    pub(super) fn look_after_store(&mut self) {
        if let Err(error) = self.store.still_there() {
            self.cannot_store(&error);
        }
    }
}
