//! Background replay: making the state anew beside what comes in.
//!
//! A retraction asks for it, a fact that outranks one which counted in a closed round, and rules
//! that were learnt after they had begun. Owns the hand-over: what came after the job's positions
//! is led in afterwards, as after a start from a checkpoint. Until then the state before goes on to
//! count what will count no more. Refuses to decide when a rebuild begins and on which thread:
//! whoever calls the engine does.

use std::sync::Arc;

use metrics::counter;
use uptime_accounting::position::Positions;
use uptime_accounting::replay::{LateRounds, LeftOut, Plan, Stretch, last_over, slack_s};
use uptime_accounting::retraction::Retraction;
use uptime_accounting::state::State;
use uptime_proto::{Epochs, Round};

use super::core::Engine;
use super::replay::{counts_outranked, reach_s, replayed, report, rolled_up};
use super::urgency::{Rebuild, Urgency};
use crate::store::{Since, Store, StoreError};

/// All there is to replay, on a connection of its own.
#[derive(Debug)]
pub struct RebuildJob<S> {
    store: S,
    epochs: Arc<Epochs>,
    retractions: Arc<Vec<Retraction>>,
    with_seed: bool,
    target: Round,
}

/// What came of it.
#[derive(Debug)]
pub struct Rebuilt {
    state: State,
    positions: Positions,
    left_out: LeftOut,
}

impl<S: Store> RebuildJob<S> {
    /// Replays everything up to the round that was the last closed one when this was made.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn run(mut self) -> Result<Rebuilt, StoreError> {
        let Self { store, epochs, retractions, with_seed, target } = &mut self;
        let mut left_out = LeftOut::default();
        let positions = store.positions().await?;
        let state = rolled_up(store, epochs, retractions, *with_seed, &mut left_out).await?;
        let until_s = target.end_s().saturating_add(slack_s(epochs));
        let plan = Plan { until_s, ..Plan::new(store.extent().await?, *target) };
        let mut state = replayed(store, state, plan, &mut left_out).await?;
        // Read again at the hand-over: one that was compacted meanwhile has no digest any more, and
        // would not know that another outranks it.
        state.forget_open();
        Ok(Rebuilt { state, positions, left_out })
    }
}

impl<S: Store> Engine<S> {
    /// How soon a rebuild is wanted; `None`: none is, or one is under way.
    #[must_use]
    pub fn rebuild_wanted(&self) -> Option<Urgency> {
        match self.rebuild {
            Rebuild::Wanted(urgency) => Some(urgency),
            Rebuild::NotWanted | Rebuild::Running { .. } => None,
        }
    }

    /// Begins the rebuild that is wanted: answers a job to be run at any later moment, beside what
    /// comes in, and handed to [`Engine::finish_rebuild`]. Before any round was closed there is
    /// nothing to hand over: the state is made anew at once, and `None` answered. Where rounds were
    /// closed that are not over, the rebuild ends before them.
    ///
    /// # Errors
    /// When the store cannot be read; the rebuild stays wanted.
    pub async fn begin_rebuild(
        &mut self,
        now_ms: i64,
    ) -> Result<Option<RebuildJob<S>>, StoreError> {
        let Some(closed) = self.state.closed() else {
            self.make_anew(now_ms).await?;
            return Ok(None);
        };
        let (epochs, retractions) = (Arc::clone(&self.epochs), self.state.retractions().clone());
        let same = epochs == *self.state.epochs();
        let target = match (same, self.is_ahead(now_ms)) {
            (true, false) => closed,
            (true, true) => self.last_over(now_ms),
            // By other rules no later round: what comes from now on is of rounds after it.
            (false, false) => last_over(&epochs, closed.end_ms()),
            (false, true) => last_over(&epochs, now_ms),
        };
        let job = RebuildJob {
            store: self.store.reader().await?,
            epochs: Arc::clone(&epochs),
            retractions: Arc::clone(&retractions),
            with_seed: self.options.with_seed,
            target,
        };
        self.rebuild = Rebuild::Running { epochs, retractions, again: None };
        Ok(Some(job))
    }

    /// Takes the state that was made anew in place of its own, led on to now. Where other rules or
    /// retractions hold by then, or where it failed, a rebuild is wanted again.
    pub async fn finish_rebuild(&mut self, rebuilt: Result<Rebuilt, StoreError>, now_ms: i64) {
        let Rebuild::Running { epochs, retractions, again } =
            std::mem::replace(&mut self.rebuild, Rebuild::NotWanted)
        else {
            return;
        };
        if let Some(urgency) = again {
            self.rebuild.want(urgency);
        }
        if retractions != *self.state.retractions() || epochs != self.epochs {
            self.rebuild.want(Urgency::Now);
            return;
        }
        let replayed = match rebuilt {
            Ok(Rebuilt { state, positions, left_out }) => {
                report(&left_out);
                match self.since_or_all(&positions, reach_s(&state)).await {
                    Ok(since) => {
                        if counts_outranked(&state, &since) {
                            self.rebuild.want(Urgency::Later);
                        }
                        self.take_over(state, since, now_ms).await
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match replayed {
            Ok(()) => self.state.forget_changes(),
            Err(error) => {
                tracing::error!(%error, "the replay of all facts failed; it is tried again");
                self.rebuild.want(Urgency::Later);
            }
        }
    }

    /// Makes the state anew from the stored facts, beginning where they begin.
    pub(super) async fn make_anew(&mut self, now_ms: i64) -> Result<(), StoreError> {
        // Where it is damaged, all facts are folded all the same; no checkpoint is saved then.
        let to = self.store.positions().await.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read who committed what");
            Positions::default()
        });
        let state = self.rolled_up().await?;
        self.take_over(state, Since { to, ..Since::default() }, now_ms).await?;
        self.rebuild = Rebuild::NotWanted;
        self.state.forget_changes();
        Ok(())
    }

    /// Takes over a state, replayed to now, with what was committed since it was made.
    pub(super) async fn take_over(
        &mut self,
        state: State,
        since: Since,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let target = if state.epochs() == self.state.epochs() {
            self.last_over(now_ms)
        } else {
            // What was closed early was so by other rules.
            last_over(state.epochs(), now_ms)
        };
        let Since { late, to, .. } = since;
        let plan = Plan { late, ..Plan::new(self.store.extent().await?, target) };
        let mut left_out = LeftOut::default();
        self.state = replayed(&mut self.store, state, plan, &mut left_out).await?;
        self.late_rounds = LateRounds::default();
        self.positions = to;
        report(&left_out);
        // Facts were read that other processes committed after these positions.
        self.unsettled = true;
        if let Err(error) = self.settle().await {
            tracing::error!(%error, "nothing can be stored before it is known what is stored");
        }
        Ok(())
    }

    /// Whether closed rounds wait to be judged again.
    #[must_use]
    pub fn has_late_rounds(&self) -> bool {
        !self.late_rounds.is_empty()
    }

    /// Judges late rounds again, oldest first: those of one stretch, so that requests do not wait
    /// for long.
    ///
    /// # Errors
    /// When the store cannot be read; the rounds wait.
    pub async fn judge_late_rounds(&mut self) -> Result<(), StoreError> {
        let before = self.late_rounds.len();
        let stretch = self.late_rounds.judge(&mut self.state);
        if let Some(Stretch { from_s, to_s }) = stretch {
            let facts = self.store.read(from_s, to_s).await?;
            report(&self.late_rounds.take(&mut self.state, facts));
        }
        let judged = before - self.late_rounds.len();
        counter!("uptime_ledger_rounds_judged_again_total").increment(judged as u64);
        if stretch.is_some() {
            // Other processes may have committed some of what was read after this one's positions.
            self.unsettled = true;
            self.settle().await?;
        }
        Ok(())
    }
}

impl<S> Engine<S> {
    /// Whether the state counts what it should not any more.
    pub(super) fn is_outdated(&self) -> bool {
        !matches!(self.rebuild, Rebuild::NotWanted)
    }
}
