//! The state made anew from what a store holds, by somebody else than its owner.
//!
//! Owns a fold over all stored facts, a bounded stretch of rounds at a time. Refuses to write, and
//! to make up what cannot be read: it says what it left out.

use std::sync::Arc;

use uptime_proto::{Epochs, Round};

use super::evidence::{Fact, FactKey};
use super::kept::{self, KeptError};
use super::nodes::NodeTable;
use super::snapshot::{Snapshot, Surroundings};
use super::state::State;
use crate::store::{Catalogue, Kept, Read, Retraction, Store, StoreError};

/// How much of the past is read at once.
pub const CHUNK_S: u64 = 7_200;
/// What was left out is told one by one up to so many.
const LEFT_OUT_LISTED_MAX: usize = 100;

/// What of the store does not enter what is made from it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeftOut {
    /// The first, each by its name.
    pub listed: Vec<String>,
    /// All.
    pub count: u64,
}

impl LeftOut {
    /// Notes one.
    pub fn add(&mut self, what: String) {
        if self.listed.len() < LEFT_OUT_LISTED_MAX {
            self.listed.push(what);
        }
        self.count += 1;
    }
}

/// A state and how it is shown.
#[derive(Debug, Clone)]
pub struct Rebuilt {
    /// All verdicts.
    pub state: State,
    /// All nodes as readers see them; probes are left out.
    pub snapshot: Snapshot,
    /// Facts that cannot be read.
    pub left_out: LeftOut,
}

/// The rules that a store holds.
///
/// # Errors
/// When they contradict each other.
pub fn epochs(catalogue: &Catalogue) -> Result<Arc<Epochs>, StoreError> {
    let epochs = Epochs::new(catalogue.epochs.clone());
    let epochs = epochs.map_err(|error| StoreError::Damaged(format!("the epochs: {error}")))?;
    Ok(Arc::new(epochs))
}

/// The last round that is over at that moment, its grace included; `None` before the first.
#[must_use]
pub fn last_over(epochs: &Epochs, now_ms: i64) -> Option<Round> {
    let mut round = epochs.round_at_ms(now_ms);
    while epochs.at(round.start_s()).closes_at_ms(round) > now_ms {
        round = epochs.previous(round)?;
    }
    Some(round)
}

/// Of the facts of one key the one that counts, which a store answers first; what cannot be read
/// stays.
pub fn that_count(facts: Vec<Read>) -> impl Iterator<Item = Read> {
    let mut last = None;
    facts.into_iter().filter(move |fact| match fact {
        Ok(fact) => last.replace(fact.key) != Some(fact.key),
        Err(_) => true,
    })
}

/// Makes the state of all that a store holds, up to the last round that is over; `None`: nobody
/// ever served from it, so it has no rules.
///
/// # Errors
/// When the store cannot be read, or a kept state that stands for facts that are gone.
pub async fn rebuild<S: Store>(
    store: &mut S,
    now_ms: i64,
    with_seed: bool,
) -> Result<Option<Rebuilt>, StoreError> {
    let catalogue = store.catalogue().await?;
    if catalogue.epochs.is_empty() {
        return Ok(None);
    }
    let epochs = epochs(&catalogue)?;
    let retractions = Arc::new(store.retractions().await?);
    let base = store.kept(Kept::Base).await?;
    let mut state = begin(&base, &epochs, &retractions, with_seed)?;
    let base = state.closed();
    let mut left_out = LeftOut::default();
    let target = last_over(&epochs, now_ms);
    if let Some((first, last)) = store.extent().await? {
        let mut from_s = first;
        while from_s <= last {
            let to_s = from_s.saturating_add(CHUNK_S);
            for fact in that_count(store.read(from_s, to_s).await?) {
                match fact {
                    Ok(fact) => take(&mut state, fact, base, &mut left_out),
                    Err(what) => left_out.add(what),
                }
            }
            close_before(&mut state, to_s, target);
            from_s = to_s;
        }
    }
    if let Some(target) = target.filter(|target| Some(*target) > state.closed()) {
        state.close_through(target);
    }
    let snapshot = snapshot_of(&state, catalogue);
    Ok(Some(Rebuilt { state, snapshot, left_out }))
}

/// The state that any rebuild begins with: the kept one that stands for facts that are gone, or
/// none.
fn begin(
    base: &[Vec<u8>],
    epochs: &Arc<Epochs>,
    retractions: &Arc<Vec<Retraction>>,
    with_seed: bool,
) -> Result<State, StoreError> {
    let empty = State::new(Arc::clone(epochs)).with_retractions(Arc::clone(retractions));
    let read = match kept::read(base, epochs, retractions, with_seed) {
        // It was kept with the second method beside, which nobody asks for here.
        Err(KeptError::Rules) if !with_seed => kept::read(base, epochs, retractions, true),
        read => read,
    };
    match read {
        Ok(Some(state)) => Ok(state),
        Ok(None) => Ok(if with_seed { empty.with_seed() } else { empty }),
        Err(error) => {
            Err(StoreError::Damaged(format!("the state that stands for dropped rounds: {error}")))
        }
    }
}

/// Facts come by the rounds of their keys. One on an outdated grid falls into the round in force
/// when it was observed, which is never before its key's round starts: so of what is closed none is
/// missing, and what comes for a closed round is one that the base knows already.
fn take(state: &mut State, fact: Fact, base: Option<Round>, left_out: &mut LeftOut) {
    let Err(late) = state.accept(fact) else { return };
    if base.is_some_and(|base| state.round_of(&late) <= base) {
        state.recall(late);
    } else {
        let FactKey { round, probe, number, .. } = late.key;
        left_out.add(format!(
            "part {number} of probe {probe} in round {} was observed before it",
            round.start_s()
        ));
    }
}

/// Closes the rounds that end by this moment, but none after the last.
fn close_before(state: &mut State, end_s: u64, last: Option<Round>) {
    let end_ms = i64::try_from(end_s.saturating_mul(1000)).unwrap_or(i64::MAX);
    let reached = state.epochs().previous(state.epochs().round_at_ms(end_ms));
    if let Some(reached) = reached.min(last).filter(|reached| Some(*reached) > state.closed()) {
        state.close_through(reached);
    }
}

fn snapshot_of(state: &State, catalogue: Catalogue) -> Snapshot {
    let mut nodes = NodeTable::default();
    for (id, _) in &catalogue.nodes {
        nodes.intern(*id);
    }
    let around = Surroundings {
        serial: 0,
        store_id: catalogue.store_id,
        generation: catalogue.generation,
        names: nodes.names(),
        subnets: Arc::new(catalogue.subnets),
        details: Arc::new(catalogue.details),
        probes: Vec::new(),
    };
    Snapshot::new(state, around)
}
