//! Checkpoints: saving the state, so that a start need not replay all facts, and starting from one.
//!
//! Owns when one is saved and whether one is used. A checkpoint is a convenience, never a truth:
//! where it is damaged or of other rules, all facts are replayed instead.

use std::sync::Arc;

use uptime_accounting::checkpoint;
use uptime_accounting::position::Positions;
use uptime_accounting::replay::LeftOut;
use uptime_accounting::state::State;
use uptime_proto::Round;

use super::core::{Engine, TimeAtStart};
use super::replay::{counts_outranked, reach_s, report, rolled_up};
use super::urgency::Urgency;
use crate::store::{By, Retraction, Since, Store, StoreError};

/// So many rounds may have to be replayed after a crash; an hour at the default period.
const KEEP_EVERY_ROUNDS: u64 = 120;

impl<S: Store> Engine<S> {
    /// Makes the state of what was kept and the facts since; of all facts where nothing was kept.
    pub(super) async fn resume(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let pieces = self.store.load_checkpoint().await?;
        let (epochs, retractions) = (self.state.epochs(), self.state.retractions());
        match checkpoint::read(&pieces, epochs, retractions) {
            Ok(Some((state, positions))) => {
                if let Some((since, now_ms)) = self.usable(&state, &positions, now_ms).await {
                    self.checkpoint_s = state.closed_end_s();
                    return self.take_over(state, since, now_ms).await;
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the checkpoint is not used: replaying all facts"),
        }
        let now_ms = match (self.options.time, self.store.extent().await?) {
            (TimeAtStart::Unknown, Some((_, newest_s))) => {
                let newest_ms = i64::try_from(newest_s * 1000).unwrap_or(i64::MAX / 2);
                self.state.epochs().round_at_ms(newest_ms).end_ms()
            }
            _ => now_ms,
        };
        self.make_anew(now_ms).await
    }

    /// What was committed after a checkpoint, and the moment up to which rounds are closed after
    /// it; `None` where it cannot be used.
    async fn usable(
        &mut self,
        state: &State,
        positions: &Positions,
        now_ms: i64,
    ) -> Option<(Since, i64)> {
        let closed_ms = state.closed().map_or(i64::MIN, Round::end_ms);
        let now_ms = match self.options.time {
            TimeAtStart::AsGiven => now_ms,
            TimeAtStart::Later(time_ms) => now_ms.max(closed_ms.min(time_ms)),
            TimeAtStart::Unknown => closed_ms,
        };
        if closed_ms > now_ms {
            tracing::warn!(
                "the checkpoint is of a round that is not over, so it is not used: folding all \
                 facts"
            );
            self.drop_checkpoint().await;
            return None;
        }
        if state.seed().is_some() != self.options.with_seed {
            tracing::info!(
                "the checkpoint has seed-v1 and none is wanted, or the other way: replaying all \
                 facts"
            );
            return None;
        }
        match self.store.since(positions, reach_s(state)).await {
            Ok(since) if counts_outranked(state, &since) => {
                tracing::info!("the checkpoint counts an outranked part: replaying all facts");
                None
            }
            Ok(since) => Some((since, now_ms)),
            Err(error) => {
                tracing::warn!(%error, "cannot read the newest commits: replaying all facts");
                None
            }
        }
    }

    /// What is kept is of rounds that are not over: facts that come to them would not be known to
    /// be late, and a start after their time would count without them.
    pub(super) async fn drop_checkpoint(&mut self) {
        self.checkpoint_s = 0;
        if let Err(error) = self.store.save_checkpoint(&[]).await {
            tracing::warn!(%error, "a checkpoint of rounds that are not over stays");
        }
    }

    /// The state that any rebuild begins with.
    pub(super) async fn rolled_up(&mut self) -> Result<State, StoreError> {
        let (epochs, retractions) = (Arc::clone(&self.epochs), self.state.retractions());
        let mut left_out = LeftOut::default();
        let with_seed = self.options.with_seed;
        let state =
            rolled_up(&mut self.store, &epochs, retractions, with_seed, &mut left_out).await;
        report(&left_out);
        state
    }

    /// Saves a checkpoint where the last one is old.
    pub async fn save_checkpoint_if_due(&mut self) {
        let epochs = self.state.epochs();
        let since = epochs.rounds_between(self.checkpoint_s, self.state.closed_end_s());
        if self.checkpoint_s == 0 {
            // Nothing was ever kept: counted from here on.
            self.checkpoint_s = self.state.closed_end_s();
        } else if since >= KEEP_EVERY_ROUNDS {
            self.save_checkpoint().await;
        }
    }

    /// Saves a checkpoint of the state, if everything that came is in it. A failure is reported;
    /// the next start takes longer then.
    pub async fn save_checkpoint(&mut self) {
        if !self.late_rounds.is_empty() || self.is_outdated() || self.unsettled {
            return;
        }
        let pieces = checkpoint::write(&self.state, self.state.retractions(), &self.positions);
        match self.store.save_checkpoint(&pieces).await {
            Ok(()) => self.checkpoint_s = self.state.closed_end_s(),
            Err(error) => tracing::warn!(%error, "the state was not kept; a start takes longer"),
        }
    }

    /// Takes a probe's evidence of an interval out of the count; answers the retraction's number. A
    /// rebuild is wanted then.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn retract(&mut self, retraction: &Retraction, by: &By) -> Result<u64, StoreError> {
        let number = self.store.retract(retraction, by).await?;
        self.learn_retractions().await?;
        Ok(number)
    }

    /// Puts it back; answers whether there was such a retraction that held.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn undo_retraction(&mut self, number: u64, by: &By) -> Result<bool, StoreError> {
        let undone = self.store.undo_retraction(number, by).await?;
        self.learn_retractions().await?;
        Ok(undone)
    }

    /// Reads the retractions anew: another process may have made some.
    pub(super) async fn learn_retractions(&mut self) -> Result<(), StoreError> {
        let retractions = self.store.retractions().await?;
        if retractions != **self.state.retractions() {
            tracing::info!(retractions = retractions.len(), "retractions changed");
            self.state.set_retractions(Arc::new(retractions));
            self.rebuild.want(Urgency::Now);
        }
        Ok(())
    }
}
