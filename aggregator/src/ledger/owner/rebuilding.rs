//! Folding all facts again beside what comes in: after a retraction, or when a fact that counted in
//! a closed round was outranked, or rules were learnt after they had begun.
//!
//! Owns the hand-over: what came while the facts were read is led in afterwards, as after a start
//! from a kept state. Until then the state before goes on to count what will count no more. Refuses
//! to be kept busy by a probe that contradicts itself round after round.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uptime_proto::{Epochs, Round};

use super::Owner;
use crate::ledger::replay::{replayed, report, rolled_up};
use crate::store::{Store, StoreError};
use uptime_accounting::fact::FactKey;
use uptime_accounting::replay::{LateRounds, LeftOut, Plan, Stretch, last_over, slack_s};
use uptime_accounting::retraction::Retraction;
use uptime_accounting::state::State;

/// After facts were folded again it is so many times as long until conflicts alone have them folded
/// once more: a tenth of one processor at most. Retractions do not wait.
const REST: u32 = 9;
/// One is at work and none can be waiting.
const JOBS_MAX: usize = 1;

type Folded = Result<Refolded, StoreError>;

/// All there is to fold, on a connection of its own.
#[derive(Debug)]
pub struct Rebuild<S> {
    store: S,
    epochs: Arc<Epochs>,
    retractions: Arc<Vec<Retraction>>,
    with_seed: bool,
    target: Round,
}

/// What came of it.
#[derive(Debug)]
pub struct Refolded {
    state: State,
    left_out: LeftOut,
}

impl<S: Store> Rebuild<S> {
    /// Folds everything up to the round that was the last closed one when this was made.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn fold(mut self) -> Result<Refolded, StoreError> {
        let Self { store, epochs, retractions, with_seed, target } = &mut self;
        let mut left_out = LeftOut::default();
        let state = rolled_up(store, epochs, retractions, *with_seed, &mut left_out).await?;
        let until_s = target.end_s().saturating_add(slack_s(epochs));
        let plan = Plan { until_s, ..Plan::new(store.extent().await?, *target) };
        let mut state = replayed(store, state, plan, &mut left_out).await?;
        // Read again at the hand-over: one that was packed meanwhile has no digest any more, and
        // would not know that another outranks it.
        state.forget_open();
        Ok(Refolded { state, left_out })
    }
}

/// Where somebody folds beside the owner.
#[derive(Debug)]
pub(super) struct Beside<S> {
    jobs: mpsc::Sender<(Rebuild<S>, oneshot::Sender<Folded>)>,
}

/// Makes one, and what folds all that is handed to it, until nobody can hand it anything any more.
pub(super) fn beside<S: Store>() -> (Beside<S>, impl Future<Output = ()>) {
    let (jobs, mut waiting) = mpsc::channel::<(Rebuild<S>, oneshot::Sender<Folded>)>(JOBS_MAX);
    let work = async move {
        while let Some((rebuild, answer)) = waiting.recv().await {
            // Whoever waited may have stopped.
            answer.send(rebuild.fold().await).ok();
        }
    };
    (Beside { jobs }, work)
}

/// A rebuild that is under way.
#[derive(Debug)]
pub(super) struct Pending {
    /// Facts of closed rounds that came since it began.
    pub(super) late: BTreeSet<FactKey>,
    epochs: Arc<Epochs>,
    retractions: Arc<Vec<Retraction>>,
    since: Instant,
    /// `None`: whoever drives the owner step by step folds and hands over.
    folded: Option<oneshot::Receiver<Folded>>,
}

impl Pending {
    /// Whether somebody beside the owner is at it.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.folded.is_some()
    }
}

/// When a rebuild comes to an end that somebody beside the owner is at; never otherwise.
pub(super) async fn ended(pending: &mut Option<Pending>) -> Folded {
    let Some(folded) = pending.as_mut().and_then(|pending| pending.folded.as_mut()) else {
        return std::future::pending().await;
    };
    folded.await.unwrap_or_else(|_| Err(StoreError::Damaged("the fold ended early".to_owned())))
}

impl<S: Store> Owner<S> {
    /// Makes the state anew from the stored facts, beginning where they begin.
    pub(super) async fn rebuild(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let state = self.rolled_up().await?;
        self.replay(state, BTreeSet::new(), now_ms).await?;
        self.rebuild_wanted = false;
        self.state.forget_changes();
        Ok(())
    }

    /// Takes over a state, replayed to now. `late` are the keys of facts that came to its rounds
    /// after it was saved.
    pub(super) async fn replay(
        &mut self,
        state: State,
        late: BTreeSet<FactKey>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let target = if state.epochs() == self.state.epochs() {
            self.last_over(now_ms)
        } else {
            // What was closed early was so by other rules.
            last_over(state.epochs(), now_ms)
        };
        let plan = Plan { late, ..Plan::new(self.store.extent().await?, target) };
        let mut left_out = LeftOut::default();
        self.state = replayed(&mut self.store, state, plan, &mut left_out).await?;
        self.late_rounds = LateRounds::default();
        report(&left_out);
        Ok(())
    }

    /// Judges late rounds again, oldest first: those of one stretch.
    pub(super) async fn judge_late_rounds(&mut self) -> Result<(), StoreError> {
        let before = self.late_rounds.len();
        if let Some(Stretch { from_s, to_s }) = self.late_rounds.judge(&mut self.state) {
            let facts = self.store.read(from_s, to_s).await?;
            report(&self.late_rounds.take(&mut self.state, facts));
        }
        let judged = before - self.late_rounds.len();
        counter!("uptime_ledger_rounds_judged_again_total").increment(judged as u64);
        Ok(())
    }

    /// Whether facts are to be folded again, and may be now.
    pub(super) fn rebuild_is_due(&self) -> bool {
        self.rebuild_wanted && self.pending.is_none() && self.rebuild_not_before <= Instant::now()
    }

    /// Whether the state counts what it should not any more.
    pub(super) fn is_outdated(&self) -> bool {
        self.rebuild_wanted || self.pending.is_some()
    }

    /// Has all facts folded again beside what comes in, where there is somebody to do so, or does
    /// so now; answers whether the state has changed.
    pub(super) async fn rebuild_somehow(&mut self, now_ms: i64) -> bool {
        tracing::info!("closed rounds changed: folding all facts again");
        let began = match &self.beside {
            Some(beside) if self.state.closed().is_some() => Some(beside.jobs.clone()),
            _ => None,
        };
        let done = match began {
            Some(jobs) => self.hand_to(&jobs, now_ms).await.map(|()| false),
            None => self.rebuild(now_ms).await.map(|()| true),
        };
        done.unwrap_or_else(|error| {
            tracing::error!(%error, "rebuilding failed; will be tried again at the next round");
            self.rebuild_wanted = true;
            self.rebuild_not_before = Instant::now() + Duration::from_secs(1);
            false
        })
    }

    async fn hand_to(
        &mut self,
        jobs: &mpsc::Sender<(Rebuild<S>, oneshot::Sender<Folded>)>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let Some(rebuild) = self.begin_rebuild(now_ms).await? else { return Ok(()) };
        let (answer, folded) = oneshot::channel();
        if let Some(pending) = &mut self.pending {
            pending.folded = Some(folded);
        }
        // There is room: one is under way at a time. If it is gone, `ended` says so.
        jobs.try_send((rebuild, answer)).ok();
        Ok(())
    }

    /// Begins a rebuild that whoever drives the owner step by step folds, at any later moment, and
    /// hands to [`Owner::finish_rebuild`]; `None` before any round was closed. Where rounds were
    /// closed that are not over, it ends before them.
    ///
    /// # Errors
    /// When no further connection to the store can be made.
    pub async fn begin_rebuild(&mut self, now_ms: i64) -> Result<Option<Rebuild<S>>, StoreError> {
        let Some(closed) = self.state.closed() else { return Ok(None) };
        let retractions = Arc::clone(self.state.retractions());
        let epochs = self.epochs_wanted();
        let same = epochs == *self.state.epochs();
        let target = match (same, self.is_ahead(now_ms)) {
            (true, false) => closed,
            (true, true) => self.last_over(now_ms),
            // By other rules no later round: what comes from now on is of rounds after it.
            (false, false) => last_over(&epochs, closed.end_ms()),
            (false, true) => last_over(&epochs, now_ms),
        };
        let rebuild = Rebuild {
            store: self.store.reader().await?,
            epochs: Arc::clone(&epochs),
            retractions: Arc::clone(&retractions),
            with_seed: self.options.with_seed,
            target,
        };
        self.rebuild_wanted = false;
        let (late, since) = (BTreeSet::new(), Instant::now());
        self.pending = Some(Pending { late, epochs, retractions, since, folded: None });
        Ok(Some(rebuild))
    }

    /// Takes the state that was folded in place of its own, led on to now.
    pub async fn finish_rebuild(&mut self, folded: Folded, now_ms: i64) {
        let Some(pending) = self.pending.take() else { return };
        let took = pending.since.elapsed();
        histogram!("uptime_ledger_rebuild_seconds").record(took);
        if pending.retractions != *self.state.retractions()
            || pending.epochs != self.epochs_wanted()
        {
            // Others hold by now: from the beginning.
            self.rebuild_wanted = true;
            return;
        }
        self.rebuild_not_before = Instant::now() + took * REST;
        let replayed = match folded {
            Ok(Refolded { state, left_out }) => {
                report(&left_out);
                self.replay(state, pending.late, now_ms).await
            }
            Err(error) => Err(error),
        };
        match replayed {
            Ok(()) => {
                tracing::info!(took_s = took.as_secs(), "all facts are folded again");
                self.state.forget_changes();
            }
            Err(error) => {
                tracing::error!(%error, "rebuilding failed; will be tried again");
                self.rebuild_wanted = true;
            }
        }
        self.publish();
    }
}
