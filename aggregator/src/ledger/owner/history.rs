//! What the past asks for: rebuilding the state from facts, and judging late rounds again.

use std::collections::BTreeSet;
use std::sync::Arc;

use metrics::counter;
use uptime_proto::{Epoch, Round};

use super::Owner;
use crate::ledger::evidence::{Fact, Inserted, MASS_LOSS_ROUNDS};
use crate::ledger::state::{State, Window};
use crate::store::{Read, Store, StoreError};

/// How much of the past is read at once when the state is rebuilt.
const REBUILD_CHUNK_S: u64 = 7_200;
/// Late rounds judged again before requests are looked at again.
const JUDGE_AGAIN_MAX: usize = 256;

impl<S: Store> Owner<S> {
    /// Makes the state anew from the stored facts alone.
    pub(super) async fn rebuild(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let target = self.last_over(now_ms);
        let mut state = State::new(Arc::clone(self.state.epochs()));
        if self.state.seed().is_some() {
            state = state.with_seed();
        }
        self.dirty.clear();
        let mut damaged = 0u64;
        if let Some((first, last)) = self.store.extent().await? {
            let mut from = first;
            while from <= last {
                let to = from + REBUILD_CHUNK_S;
                for fact in that_count(self.store.read(from, to).await?) {
                    match fact {
                        Ok(fact) => {
                            if let Err(late) = state.accept(fact) {
                                state.late(&late);
                                mark_dirty(&mut self.dirty, &state, &late);
                            }
                        }
                        Err(what) => {
                            damaged += 1;
                            tracing::error!(what, "a stored part cannot be read and is left out");
                        }
                    }
                }
                if to < target.start_s() {
                    let reached = i64::try_from((to - 1) * 1000).unwrap_or(i64::MAX);
                    let reached = state.epochs().round_at_ms(reached);
                    // The last round of the chunk may have facts in the next one.
                    if let Some(before) = state.epochs().previous(reached) {
                        state.close_through(before);
                    }
                }
                from = to;
            }
        }
        state.close_through(target);
        counter!("uptime_store_parts_damaged_total").increment(damaged);
        self.state = state;
        while !self.dirty.is_empty() {
            self.judge_dirty().await?;
        }
        Ok(())
    }

    /// Judges late rounds again, oldest first, a bounded number at a time.
    pub(super) async fn judge_dirty(&mut self) -> Result<(), StoreError> {
        let starts: Vec<u64> = self.dirty.iter().copied().take(JUDGE_AGAIN_MAX).collect();
        let epochs = Arc::clone(self.state.epochs());
        let rounds: Vec<Round> = starts
            .iter()
            .map(|start| epochs.round_at_ms(i64::try_from(start * 1000).unwrap_or(i64::MAX)))
            .collect();
        // Neighbours share one reading of the store.
        for cluster in rounds.chunk_by(|a, b| b.start_s() - a.end_s() < REBUILD_CHUNK_S) {
            let (Some(first), Some(last)) = (cluster.first(), cluster.last()) else {
                continue;
            };
            let window = if self.state.in_memory(*first) {
                None
            } else {
                Some(self.read_window(*first, *last).await?)
            };
            for round in cluster {
                self.state.judge_again(*round, window.as_ref());
            }
        }
        counter!("uptime_ledger_rounds_judged_again_total").increment(starts.len() as u64);
        for start in starts {
            self.dirty.remove(&start);
        }
        Ok(())
    }

    /// The facts of these rounds and of those that mass loss looks back on.
    pub(super) async fn read_window(
        &mut self,
        first: Round,
        last: Round,
    ) -> Result<Window, StoreError> {
        let epochs = Arc::clone(self.state.epochs());
        let mut earliest = first;
        for _ in 0..MASS_LOSS_ROUNDS {
            earliest = epochs.previous(earliest).unwrap_or(earliest);
        }
        // Parts on an outdated grid lie under a key up to one of their periods, and its grace,
        // earlier.
        let reach = |epoch: &Epoch| u64::from(epoch.period.seconds()) + u64::from(epoch.grace_s);
        let longest = epochs.all().iter().map(reach).max().unwrap_or(0);
        let slack = if epochs.all().len() > 1 { longest } else { 0 };
        let from = earliest.start_s().saturating_sub(slack);
        let mut window = Window::new();
        for fact in that_count(self.store.read(from, last.end_s() + slack).await?) {
            match fact {
                Ok(fact) => {
                    let start = self.state.round_of(&fact).start_s();
                    let _: Inserted = window.entry(start).or_default().insert(fact);
                }
                Err(what) => tracing::error!(what, "a stored part cannot be read"),
            }
        }
        Ok(window)
    }
}

/// Of the facts of one key only the one with the smallest digest, which a store answers first.
fn that_count(facts: Vec<Read>) -> impl Iterator<Item = Read> {
    let mut last = None;
    facts.into_iter().filter(move |fact| match fact {
        Ok(fact) => last.replace(fact.key) != Some(fact.key),
        Err(_) => true,
    })
}

/// A late fact's round, and the rounds whose mass-loss test looks back on it.
pub(super) fn mark_dirty(dirty: &mut BTreeSet<u64>, state: &State, fact: &Fact) {
    let Some(closed) = state.closed() else { return };
    let mut round = state.round_of(fact);
    for _ in 0..=MASS_LOSS_ROUNDS {
        if round > closed {
            break;
        }
        dirty.insert(round.start_s());
        round = state.epochs().next(round);
    }
}
