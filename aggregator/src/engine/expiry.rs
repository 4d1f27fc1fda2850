//! What expires: facts beyond the retention, and ids that nobody ever confirmed. What is compacted.
//!
//! Owns what goes and what stays of it. Refuses to delete anything on the word of this host's clock
//! alone: the stored parts must confirm it, see `vouched`.

use std::sync::Arc;

use roaring::RoaringBitmap;
use uptime_accounting::checkpoint;
use uptime_accounting::position::Positions;
use uptime_accounting::replay::{LeftOut, Plan, slack_s};
use uptime_accounting::state::State;
use uptime_proto::Epochs;
use uptime_proto::round::DAY_S;

use super::core::{Engine, LATENESS_S_MAX, RETENTION_S_MIN};
use super::replay::{replayed, report, rolled_up};
use super::vouched::vouched_ms;
use crate::store::{CompactedDay, CompactionPlan, Store, StoreError, Token};

/// A day is compacted so long after its end: by then most of what is late is there.
const COMPACT_AFTER_S: u64 = 3_600;
/// A roll-up is so much younger than the facts that go: what its rounds look back on stays.
const ROLL_UP_AHEAD_S: u64 = DAY_S as u64;

impl<S: Store> Engine<S> {
    /// Once a day: forgets ids that were never confirmed and of which nothing can come any more.
    /// They were looked up until they retired, and what was found then may have come late.
    pub(super) async fn forget_unconfirmed(&mut self, now_ms: i64, may_delete: bool) {
        let end_s = self.state.closed_end_s();
        let day = end_s / u64::from(DAY_S);
        if std::mem::replace(&mut self.forgot_day, day) == day {
            return;
        }
        if !may_delete {
            // Tried again at the next close.
            self.forgot_day = 0;
            return;
        }
        let vouched_ms = match vouched_ms(&mut self.store, now_ms).await {
            Ok(Some(vouched_ms)) => vouched_ms,
            // Nothing is forgotten on the word of this clock alone.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "nothing is forgotten today: no stored part was read");
                return;
            }
        };
        if let Err(error) = self.store.drop_old_samples(vouched_ms).await {
            tracing::warn!(%error, "samples stay for another day");
        }
        let end_s = end_s.min(u64::try_from(vouched_ms / 1000).unwrap_or(0));
        let retire_after_s = self.state.epochs().at(end_s).retire_after_s;
        let silent_s = u64::from(retire_after_s) + LATENESS_S_MAX + u64::from(DAY_S);
        let before_ms = i64::try_from(end_s.saturating_sub(silent_s) * 1000).unwrap_or(0);
        let last_sign_ms =
            |number: u32| self.state.last_offer().of(number).max(self.state.seen().of(number));
        let all: RoaringBitmap = self.brought.values().fold(RoaringBitmap::new(), |a, b| a | b);
        let gone: Vec<u32> = (all - self.state.confirmed())
            .iter()
            .filter(|number| last_sign_ms(*number).is_some_and(|sign_ms| sign_ms < before_ms))
            .collect();
        if gone.is_empty() {
            return;
        }
        if let Err(error) = self.forget_stored(&gone, now_ms).await {
            tracing::warn!(%error, "unconfirmed ids stay for another day");
            return;
        }
        for number in &gone {
            self.nodes.forget(*number);
            self.brought.values_mut().for_each(|brought| {
                brought.remove(*number);
            });
        }
        tracing::info!(ids = gone.len(), "ids that nobody ever confirmed were forgotten");
    }

    /// Puts a compacted day in the place of its rows; `None`: something came to the day since it
    /// was planned.
    ///
    /// # Errors
    /// When the store cannot be written; nothing has changed then.
    pub async fn commit_compaction(
        &mut self,
        planned: &CompactionPlan,
        now_ms: i64,
    ) -> Result<Option<CompactedDay>, StoreError> {
        let token = self.token(now_ms).await?;
        let day = self.store.commit_compaction(planned, token).await?;
        if day.is_some() {
            // Whoever is behind a compacted day folds it again: no checkpoint should be.
            self.save_checkpoint().await;
        }
        Ok(day)
    }

    async fn forget_stored(&mut self, numbers: &[u32], now_ms: i64) -> Result<(), StoreError> {
        let token = self.token(now_ms).await?;
        self.store.forget_nodes(numbers, now_ms, token).await
    }

    /// The token of the lease, which is taken where nobody holds it.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] where another process holds it; or the store cannot be written.
    pub(super) async fn token(&mut self, now_ms: i64) -> Result<Token, StoreError> {
        if let Some(token) = self.lease
            && self.store.renew_lease(token, now_ms).await?
        {
            return Ok(token);
        }
        self.lease = self.store.acquire_lease(now_ms).await?;
        self.lease.ok_or(StoreError::LeaseLost)
    }

    /// What this engine's retention is.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention { retention_s: self.options.retention_s, with_seed: self.options.with_seed }
    }

    /// Puts a roll-up in the place of the facts that it includes; answers how many rows and
    /// segments went.
    ///
    /// # Errors
    /// When the store cannot be written; nothing is lost then.
    pub async fn expire(&mut self, expiry: &Expiry, now_ms: i64) -> Result<u64, StoreError> {
        let Expiry { roll_up, before_s } = expiry;
        if self.state.rolled_up_to_s() >= roll_up.rolled_up_to_s() || self.is_outdated() {
            return Ok(0);
        }
        let token = self.token(now_ms).await?;
        let pieces = checkpoint::write(roll_up, &[], &Positions::default());
        let gone = self.store.expire(*before_s, &pieces, token).await?;
        self.state.roll_up(roll_up.rolled_up_to_s());
        self.save_checkpoint().await;
        Ok(gone)
    }
}

/// How long facts stay.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    retention_s: Option<u64>,
    with_seed: bool,
}

/// What may take the place of expired facts.
#[derive(Debug)]
pub struct Expiry {
    roll_up: State,
    /// Facts of rounds that start before this have expired, unix seconds.
    pub before_s: u64,
}

/// Whether a store has facts beyond the retention by this time.
///
/// # Errors
/// When the store cannot be read.
pub async fn has_expired(
    store: &mut impl Store,
    retention: &Retention,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let before_s = retention.retention_s.and_then(|it| expires_before_s(now_ms, it));
    let first_s = store.extent().await?.map(|(first_s, _)| first_s);
    Ok(first_s.zip(before_s).is_some_and(|(first_s, before_s)| first_s < before_s))
}

/// What may take the place of all facts beyond the retention by this time; `None`: none are beyond
/// it, or some of them cannot be read.
///
/// # Errors
/// When the store cannot be read.
pub async fn expiry_plan(
    store: &mut impl Store,
    epochs: &Arc<Epochs>,
    retention: &Retention,
    now_ms: i64,
) -> Result<Option<Expiry>, StoreError> {
    let before_s = retention.retention_s.and_then(|it| expires_before_s(now_ms, it));
    let (Some(before_s), Some((first_s, _))) = (before_s, store.extent().await?) else {
        return Ok(None);
    };
    if first_s >= before_s {
        return Ok(None);
    }
    let retractions = Arc::new(store.retractions().await?);
    let mut left_out = LeftOut::default();
    let (with_seed, to_s) = (retention.with_seed, before_s + ROLL_UP_AHEAD_S);
    let earlier = rolled_up(store, epochs, &retractions, with_seed, &mut left_out).await?;
    let roll_up = advanced(store, earlier, to_s, &mut left_out).await?;
    if left_out.count > 0 {
        report(&left_out);
        tracing::error!("facts beyond the retention stay: some of them cannot be read");
        return Ok(None);
    }
    Ok(Some(Expiry { roll_up, before_s }))
}

/// Replays the facts of every round that starts before this moment, the start of a day, and rolls
/// them up.
async fn advanced(
    store: &mut impl Store,
    base: State,
    to_s: u64,
    left_out: &mut LeftOut,
) -> Result<State, StoreError> {
    let last_ms = i64::try_from((to_s - 1) * 1000).unwrap_or(i64::MAX);
    let target = base.epochs().round_at_ms(last_ms);
    let until_s = to_s.saturating_add(slack_s(base.epochs()));
    let plan = Plan { until_s, ..Plan::new(store.extent().await?, target) };
    let mut base = replayed(store, base, plan, left_out).await?;
    base.roll_up(to_s);
    Ok(base)
}

/// Days that end before this are compacted, unix seconds.
#[must_use]
pub fn compaction_before_s(now_ms: i64) -> u64 {
    u64::try_from(now_ms / 1000).unwrap_or(0).saturating_sub(COMPACT_AFTER_S)
}

/// Facts of rounds before this, the start of a day, are beyond the retention.
fn expires_before_s(now_ms: i64, retention_s: u64) -> Option<u64> {
    let now_s = u64::try_from(now_ms / 1000).ok()?;
    let before_s = now_s.checked_sub(retention_s.max(RETENTION_S_MIN))?;
    Some(before_s - before_s % u64::from(DAY_S)).filter(|before_s| *before_s > 0)
}
