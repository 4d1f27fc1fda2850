//! What the past asks for: rebuilding the state from facts, and judging late rounds again.

use std::collections::BTreeSet;
use std::sync::Arc;

use metrics::counter;
use uptime_proto::{Epoch, Epochs, Round};

use super::Owner;
use super::keeping::last_over;
use crate::ledger::rebuilt::{CHUNK_S, LeftOut};
use crate::store::{Read, Store, StoreError};
use uptime_accounting::evidence::MASS_LOSS_ROUNDS;
use uptime_accounting::fact::{Fact, FactKey};
use uptime_accounting::state::State;

/// Late rounds judged again before requests are looked at again.
const JUDGE_AGAIN_MAX: usize = 256;

impl<S: Store> Owner<S> {
    /// Makes the state anew from the stored facts, beginning where they begin.
    pub(super) async fn rebuild(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let base = self.base().await?;
        self.replay(base, &BTreeSet::new(), now_ms).await?;
        self.rebuild_wanted = false;
        self.state.forget_changes();
        Ok(())
    }

    /// Makes the state of one that was kept, the facts it does not know, and the rounds since then.
    /// `late` are the keys of facts that came to its rounds after it was kept.
    pub(super) async fn replay(
        &mut self,
        mut state: State,
        late: &BTreeSet<FactKey>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let target = if state.epochs() == self.state.epochs() {
            self.last_over(now_ms)
        } else {
            // What was closed early was so by other rules.
            last_over(state.epochs(), now_ms)
        };
        let mut left_out = LeftOut::default();
        let dirty =
            fold(&mut self.store, &mut state, late, target, u64::MAX, &mut left_out).await?;
        left_out.report();
        (self.state, self.dirty) = (state, dirty);
        while !self.dirty.is_empty() {
            self.judge_dirty().await?;
        }
        Ok(())
    }

    /// Judges late rounds again, oldest first, a bounded number at a time.
    pub(super) async fn judge_dirty(&mut self) -> Result<(), StoreError> {
        judge(&mut self.store, &mut self.state, &mut self.dirty).await
    }
}

/// Folds into a state the facts it does not know, and closes its rounds up to the target; answers
/// the starts of the rounds that must be judged again. It knows the facts of its closed rounds, but
/// for the late ones. Facts of rounds that start at or after `until_s` are not looked at.
pub(in crate::ledger) async fn fold(
    store: &mut impl Store,
    state: &mut State,
    late: &BTreeSet<FactKey>,
    target: Round,
    until_s: u64,
    left_out: &mut LeftOut,
) -> Result<BTreeSet<u64>, StoreError> {
    let known = state.closed();
    let mut dirty = BTreeSet::new();
    if let Some((first, last)) = store.extent().await? {
        let mut from = match known {
            Some(_) => state.in_memory_from_s().saturating_sub(slack_s(state.epochs())),
            None => first,
        };
        fold_long_late(store, state, late, &mut dirty, from).await?;
        from = from.max(first);
        while from <= last && from < until_s {
            let to = (from + CHUNK_S).min(until_s);
            for fact in winning_facts(store.read(from, to).await?) {
                match fact {
                    Ok(fact) => fold_one(state, fact, known, late, &mut dirty),
                    Err(what) => left_out.add(what),
                }
            }
            if to < target.start_s() {
                let reached = i64::try_from((to - 1) * 1000).unwrap_or(i64::MAX);
                let reached = state.epochs().round_at_ms(reached);
                // The last round of the chunk may have facts in the next one.
                if let Some(before) = state.epochs().previous(reached) {
                    close_up_to(state, before);
                }
            }
            from = to;
        }
    }
    close_up_to(state, target);
    Ok(dirty)
}

fn close_up_to(state: &mut State, target: Round) {
    if state.closed().is_none_or(|closed| closed < target) {
        state.close_through(target);
    }
}

/// The late facts of rounds that lie before what is read anyway.
async fn fold_long_late(
    store: &mut impl Store,
    state: &mut State,
    late: &BTreeSet<FactKey>,
    dirty: &mut BTreeSet<u64>,
    before_s: u64,
) -> Result<(), StoreError> {
    let starts: BTreeSet<u64> =
        late.iter().map(|key| key.round.start_s()).filter(|start| *start < before_s).collect();
    for start in starts {
        for fact in winning_facts(store.read(start, start + 1).await?).flatten() {
            if late.contains(&fact.key) {
                state.discover_late(&fact);
                mark_dirty(dirty, state, &fact);
            }
        }
    }
    Ok(())
}

/// Judges rounds again, oldest first, a bounded number, and takes them off the list.
pub(in crate::ledger) async fn judge(
    store: &mut impl Store,
    state: &mut State,
    dirty: &mut BTreeSet<u64>,
) -> Result<(), StoreError> {
    let starts: Vec<u64> = dirty.iter().copied().take(JUDGE_AGAIN_MAX).collect();
    let epochs = Arc::clone(state.epochs());
    let rounds: Vec<Round> = starts
        .iter()
        .map(|start| epochs.round_at_ms(i64::try_from(start * 1000).unwrap_or(i64::MAX)))
        .collect();
    // Neighbours share one reading of the store.
    for cluster in rounds.chunk_by(|a, b| b.start_s() - a.end_s() < CHUNK_S) {
        let (Some(first), Some(last)) = (cluster.first(), cluster.last()) else {
            continue;
        };
        let window = if state.in_memory(*first) {
            None
        } else {
            let facts = read_around(store, &epochs, *first, *last).await?;
            Some(state.window_of(winning_facts(facts).filter_map(readable)))
        };
        for round in cluster {
            state.judge_again(*round, window.as_ref());
        }
    }
    counter!("uptime_ledger_rounds_judged_again_total").increment(starts.len() as u64);
    for start in starts {
        dirty.remove(&start);
    }
    Ok(())
}

/// Puts a stored fact where it belongs in a state that is being made.
fn fold_one(
    state: &mut State,
    fact: Fact,
    known: Option<Round>,
    late: &BTreeSet<FactKey>,
    dirty: &mut BTreeSet<u64>,
) {
    if known.is_some_and(|known| state.round_of(&fact) <= known) {
        if late.contains(&fact.key) {
            state.discover_late(&fact);
            mark_dirty(dirty, state, &fact);
        }
        state.recall(fact);
    } else if let Err(fact) = state.accept(fact) {
        state.late(&fact);
        mark_dirty(dirty, state, &fact);
    }
}

fn readable(fact: Read) -> Option<Fact> {
    fact.inspect_err(|what| tracing::error!(what, "a stored part cannot be read")).ok()
}

/// Parts on an outdated grid lie under a key up to one of their periods, and its grace, earlier or
/// later.
pub(in crate::ledger) fn slack_s(epochs: &Epochs) -> u64 {
    let reach = |epoch: &Epoch| u64::from(epoch.period.seconds()) + u64::from(epoch.grace_s);
    let longest = epochs.all().iter().map(reach).max().unwrap_or(0);
    if epochs.all().len() > 1 { longest } else { 0 }
}

/// The facts of these rounds and of those that mass loss looks back on.
pub(in crate::ledger) async fn read_around(
    store: &mut impl Store,
    epochs: &Epochs,
    first: Round,
    last: Round,
) -> Result<Vec<Read>, StoreError> {
    let mut earliest = first;
    for _ in 0..MASS_LOSS_ROUNDS {
        earliest = epochs.previous(earliest).unwrap_or(earliest);
    }
    let slack_s = slack_s(epochs);
    store.read(earliest.start_s().saturating_sub(slack_s), last.end_s() + slack_s).await
}

/// Of the facts of one key only the one with the smallest digest, which a store answers first.
pub fn winning_facts(facts: Vec<Read>) -> impl Iterator<Item = Read> {
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
