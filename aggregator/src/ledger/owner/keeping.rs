//! What is kept of a state on disk, so that a start need not fold all facts again; and the chores
//! of a day that is over: packing it, and letting go of days beyond the retention.
//!
//! A kept state is a convenience, never a truth: one that is damaged or of other rules is passed
//! over, and the facts are folded instead.

use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::RoaringBitmap;
use tokio::time::Instant;
use uptime_proto::round::DAY_S;
use uptime_proto::{Epochs, Round};

use super::history::{fold, judge, slack_s};
use super::{Owner, TimeAtStart};
use crate::ledger::LATENESS_S_MAX;
use crate::ledger::archive::Chores;
use crate::ledger::rebuilt::LeftOut;
use crate::ledger::vouched::vouched_ms;
use crate::store::{Kept, PackedDay, Retraction, Store, StoreError};
use uptime_accounting::checkpoint;
use uptime_accounting::fact::{Fact, FactKey};
use uptime_accounting::state::State;

/// So many rounds may have to be folded again after a crash; an hour at the default period.
const KEEP_EVERY_ROUNDS: u64 = 120;
/// Portions of late rounds that are judged at a stop: some seconds at most. The rest is judged at
/// the next start.
const SETTLE_MAX: usize = 16;
/// A day is packed so long after its end: by then most of what is late is there.
const PACK_AFTER_S: u64 = 3_600;
/// A base is so much younger than the facts that go: what its rounds look back on stays readable.
const BASE_AHEAD_S: u64 = DAY_S as u64;

impl<S: Store> Owner<S> {
    /// Makes the state of what was kept and the facts since; of all facts where nothing was kept.
    pub(super) async fn resume(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let pieces = self.store.kept(Kept::Latest).await?;
        let (epochs, retractions) = (self.state.epochs(), self.state.retractions());
        match checkpoint::read(&pieces, epochs, retractions) {
            Ok(Some(state)) => {
                if let Some((late, now_ms)) = self.usable(&state, now_ms).await {
                    self.kept_s = state.closed_end_s();
                    return self.replay(state, &late, now_ms).await;
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the kept state is not used: folding all facts"),
        }
        let now_ms = match (self.options.time, self.store.extent().await?) {
            (TimeAtStart::Unknown, Some((_, newest_s))) => {
                let newest_ms = i64::try_from(newest_s * 1000).unwrap_or(i64::MAX / 2);
                self.state.epochs().round_at_ms(newest_ms).end_ms()
            }
            _ => now_ms,
        };
        self.rebuild(now_ms).await
    }

    /// What came late to a checkpoint, and the moment up to which rounds are closed after it;
    /// `None` where it cannot be used.
    async fn usable(&mut self, state: &State, now_ms: i64) -> Option<(BTreeSet<FactKey>, i64)> {
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
            tracing::info!("seed-v1 is wanted and was not, or the other way: folding all facts");
            return None;
        }
        match self.store.late_keys().await {
            Ok(late) => Some((late.into_iter().collect(), now_ms)),
            Err(error) => {
                tracing::warn!(%error, "what came late is not known: folding all facts");
                None
            }
        }
    }

    /// What is kept is of rounds that are not over: facts that come to them would not be known to
    /// be late, and a start after their time would count without them.
    pub(super) async fn drop_checkpoint(&mut self) {
        self.kept_s = 0;
        if let Err(error) = self.store.keep(Kept::Latest, &[]).await {
            tracing::warn!(%error, "a checkpoint of rounds that are not over stays");
        }
    }

    /// The state that any rebuild begins with.
    pub(super) async fn base(&mut self) -> Result<State, StoreError> {
        let (epochs, retractions) = (self.epochs_wanted(), self.state.retractions());
        let mut left_out = LeftOut::default();
        let with_seed = self.options.with_seed;
        let base = base(&mut self.store, &epochs, retractions, with_seed, &mut left_out).await;
        left_out.report();
        base
    }

    /// Which of these facts a state that is kept already does not know and will not read.
    pub(super) fn late_among(&self, facts: &[Fact]) -> BTreeSet<FactKey> {
        let closed = self.state.closed();
        let late = |fact: &&Fact| {
            // On an outdated grid a conflict may move a fact from a closed round to an open one.
            let outdated = !self.state.epochs().in_force(fact.key.round);
            outdated || closed.is_some_and(|closed| self.state.round_of(fact) <= closed)
        };
        facts.iter().filter(late).map(|fact| fact.key).collect()
    }

    /// Once a day: forgets ids that were never confirmed and of which nothing can come any more.
    /// They were looked up until they retired, and what was found then may have come late.
    pub(super) async fn forget_unconfirmed(&mut self, now_ms: i64) {
        let end_s = self.state.closed_end_s();
        let day = end_s / u64::from(DAY_S);
        if std::mem::replace(&mut self.forgot_day, day) == day {
            return;
        }
        if !self.options.clock.now().may_delete {
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
        if let Err(error) = self.store.forget_nodes(&gone, now_ms).await {
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

    pub(super) async fn keep_now_and_then(&mut self) {
        let epochs = self.state.epochs();
        let since = epochs.rounds_between(self.kept_s, self.state.closed_end_s());
        if self.kept_s == 0 {
            // Nothing was ever kept: counted from here on.
            self.kept_s = self.state.closed_end_s();
        } else if since >= KEEP_EVERY_ROUNDS {
            self.keep().await;
        }
    }

    /// What was acknowledged enters the last snapshot, and so the CSV, unless it is very much.
    pub(super) async fn settle(&mut self) {
        for _ in 0..SETTLE_MAX {
            if self.dirty.is_empty() {
                break;
            }
            if let Err(error) = self.judge_dirty().await {
                tracing::error!(%error, "late rounds are judged at the next start");
                break;
            }
        }
        self.publish();
    }

    /// Keeps the state as it is, if everything that came is in it. What fails is reported and costs
    /// nothing but time at the next start.
    pub async fn keep(&mut self) {
        if !self.dirty.is_empty() || self.is_outdated() {
            return;
        }
        let pieces = checkpoint::write(&self.state, self.state.retractions());
        match self.store.keep(Kept::Latest, &pieces).await {
            Ok(()) => self.kept_s = self.state.closed_end_s(),
            Err(error) => tracing::warn!(%error, "the state was not kept; a start takes longer"),
        }
    }

    /// Takes a probe's evidence of an interval out of the count, and folds all facts again; answers
    /// the retraction's number.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn retract(&mut self, retraction: &Retraction) -> Result<u64, StoreError> {
        let number = self.store.retract(retraction).await?;
        self.learn_retractions().await?;
        Ok(number)
    }

    /// Puts it back; answers whether there was such a retraction that held.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn undo_retraction(&mut self, number: u64, now_ms: i64) -> Result<bool, StoreError> {
        let undone = self.store.undo_retraction(number, now_ms).await?;
        self.learn_retractions().await?;
        Ok(undone)
    }

    /// Reads the retractions anew: another process may have made some.
    pub(super) async fn learn_retractions(&mut self) -> Result<(), StoreError> {
        let retractions = self.store.retractions().await?;
        if retractions != **self.state.retractions() {
            tracing::info!(retractions = retractions.len(), "retractions changed");
            self.state.set_retractions(Arc::new(retractions));
            self.rebuild_wanted = true;
            self.rebuild_not_before = Instant::now();
        }
        Ok(())
    }

    /// Packs every day that was over some time before this moment, one after the other, on the
    /// connection that also writes: for whoever drives the owner step by step.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn pack_at(&mut self, now_ms: i64) -> Result<Vec<PackedDay>, StoreError> {
        let mut days = Vec::new();
        while let Some(prepared) = self.store.prepare_pack(pack_before_s(now_ms)).await? {
            days.extend(self.store.commit_pack(&prepared).await?);
        }
        Ok(days)
    }

    /// Lets go of the facts of days beyond the retention, their sums carried; answers how many rows
    /// and segments went. For whoever drives the owner step by step.
    ///
    /// # Errors
    /// When the store cannot be read or written; nothing is lost then.
    pub async fn let_go_at(&mut self, now_ms: i64) -> Result<u64, StoreError> {
        let chores = self.chores();
        let epochs = Arc::clone(self.state.epochs());
        match base_for(&mut self.store, &epochs, &chores, now_ms).await? {
            Some((base, before_s)) => self.let_go(&base, before_s).await,
            None => Ok(0),
        }
    }

    pub(super) fn chores(&self) -> Chores {
        Chores { retention_s: self.options.retention_s, with_seed: self.options.with_seed }
    }

    /// Takes a base in place of the facts of rounds before this; answers how many rows and segments
    /// went.
    pub(super) async fn let_go(&mut self, base: &State, before_s: u64) -> Result<u64, StoreError> {
        if self.state.rolled_up_to_s() >= base.rolled_up_to_s() || self.is_outdated() {
            return Ok(0);
        }
        self.store.keep(Kept::Base, &checkpoint::write(base, &[])).await?;
        self.state.roll_up(base.rolled_up_to_s());
        self.publish();
        self.keep().await;
        self.store.prune(before_s).await
    }
}

/// Whether a store has facts beyond the retention, by this clock.
pub(in crate::ledger) async fn has_expired(
    store: &mut impl Store,
    chores: &Chores,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let before_s = chores.retention_s.and_then(|it| let_go_before_s(now_ms, it));
    let first_s = store.extent().await?.map(|(first_s, _)| first_s);
    Ok(first_s.zip(before_s).is_some_and(|(first_s, before_s)| first_s < before_s))
}

/// The base that may take the place of all facts beyond the retention, and the moment before which
/// they go; `None`: none are beyond it.
pub(in crate::ledger) async fn base_for(
    store: &mut impl Store,
    epochs: &Arc<Epochs>,
    chores: &Chores,
    now_ms: i64,
) -> Result<Option<(State, u64)>, StoreError> {
    let before_s = chores.retention_s.and_then(|it| let_go_before_s(now_ms, it));
    let (Some(before_s), Some((first_s, _))) = (before_s, store.extent().await?) else {
        return Ok(None);
    };
    if first_s >= before_s {
        return Ok(None);
    }
    let retractions = Arc::new(store.retractions().await?);
    let mut left_out = LeftOut::default();
    let mut base = base(store, epochs, &retractions, chores.with_seed, &mut left_out).await?;
    advance(store, &mut base, before_s + BASE_AHEAD_S, &mut left_out).await?;
    if left_out.count > 0 {
        left_out.report();
        tracing::error!("facts beyond the retention stay: some of them cannot be read");
        return Ok(None);
    }
    Ok(Some((base, before_s)))
}

/// Whether the state that is kept, led on to now, is the one that the facts make; `None`: none is
/// kept, or it is of other rules and would not be used.
///
/// # Errors
/// When the store cannot be read.
pub async fn kept_state_agrees(
    store: &mut impl Store,
    now_ms: i64,
) -> Result<Option<Result<Round, String>>, StoreError> {
    let epochs = Epochs::new(store.catalogue().await?.epochs)
        .map_err(|error| StoreError::Damaged(format!("the epochs: {error}")))?;
    let epochs = Arc::new(epochs);
    let retractions = Arc::new(store.retractions().await?);
    let pieces = store.kept(Kept::Latest).await?;
    let Ok(Some(mut kept)) = checkpoint::read(&pieces, &epochs, &retractions) else {
        return Ok(None);
    };
    let Ok(late) = store.late_keys().await else { return Ok(None) };
    let late: BTreeSet<FactKey> = late.into_iter().collect();
    // A round may have been closed before its grace was over.
    let early = kept.closed().filter(|closed| closed.end_ms() <= now_ms);
    let over = last_over(&epochs, now_ms);
    let target = early.map_or(over, |early| early.max(over));
    let mut left_out = LeftOut::default();
    let with_seed = kept.seed().is_some();
    let mut anew = base(store, &epochs, &retractions, with_seed, &mut left_out).await?;
    let none = BTreeSet::new();
    for (state, late) in [(&mut kept, &late), (&mut anew, &none)] {
        let mut dirty = fold(store, state, late, target, u64::MAX, &mut left_out).await?;
        while !dirty.is_empty() {
            judge(store, state, &mut dirty).await?;
        }
    }
    Ok(Some(kept.differs_from(&anew).map_or(Ok(target), Err)))
}

/// The last round that is over, its grace included.
#[must_use]
pub fn last_over(epochs: &Epochs, now_ms: i64) -> Round {
    let mut round = epochs.round_at_ms(now_ms);
    while epochs.at(round.start_s()).closes_at_ms(round) > now_ms {
        match epochs.previous(round) {
            Some(before) => round = before,
            None => break,
        }
    }
    round
}

/// The state of the last round whose facts are gone, or of nothing.
pub(in crate::ledger) async fn base(
    store: &mut impl Store,
    epochs: &Arc<Epochs>,
    retractions: &Arc<Vec<Retraction>>,
    with_seed: bool,
    left_out: &mut LeftOut,
) -> Result<State, StoreError> {
    let pieces = store.kept(Kept::Base).await?;
    let newest_s = store.extent().await?.map_or(u64::MAX, |(_, newest_s)| newest_s);
    // What was carried is not touched by retractions any more, made or undone.
    let state = match checkpoint::read(&pieces, epochs, &Arc::default()) {
        // Facts expire forty days after their time at the earliest, and newer ones confirm that.
        Ok(Some(state)) if state.rolled_up_to_s() > newest_s.saturating_add(u64::from(DAY_S)) => {
            left_out.add(format!(
                "the sums of days whose facts are gone: they reach to {}, which is after the \
                 newest stored part, so they are of a clock that was ahead",
                state.rolled_up_to_s()
            ));
            State::new(Arc::clone(epochs))
        }
        Ok(Some(state)) => state,
        Ok(None) => State::new(Arc::clone(epochs)),
        Err(error) => {
            left_out.add(format!(
                "the sums of days whose facts are gone ({error}); a backup may have them"
            ));
            State::new(Arc::clone(epochs))
        }
    };
    let state = state.with_retractions(Arc::clone(retractions));
    Ok(if with_seed && state.seed().is_none() { state.with_seed() } else { state })
}

/// Folds the facts of every round that starts before this moment, the start of a day, and lets only
/// their sums remain.
async fn advance(
    store: &mut impl Store,
    base: &mut State,
    to_s: u64,
    left_out: &mut LeftOut,
) -> Result<(), StoreError> {
    let last_ms = i64::try_from((to_s - 1) * 1000).unwrap_or(i64::MAX);
    let target = base.epochs().round_at_ms(last_ms);
    let until_s = to_s.saturating_add(slack_s(base.epochs()));
    let mut dirty = fold(store, base, &BTreeSet::new(), target, until_s, left_out).await?;
    while !dirty.is_empty() {
        judge(store, base, &mut dirty).await?;
    }
    base.roll_up(to_s);
    Ok(())
}

/// Days that end before this are packed.
pub(in crate::ledger) fn pack_before_s(now_ms: i64) -> u64 {
    u64::try_from(now_ms / 1000).unwrap_or(0).saturating_sub(PACK_AFTER_S)
}

/// Facts of rounds before this, the start of a day, are beyond the retention.
fn let_go_before_s(now_ms: i64, retention_s: u64) -> Option<u64> {
    let now_s = u64::try_from(now_ms / 1000).ok()?;
    let before_s = now_s.checked_sub(retention_s.max(super::RETENTION_S_MIN))?;
    Some(before_s - before_s % u64::from(DAY_S)).filter(|before_s| *before_s > 0)
}
