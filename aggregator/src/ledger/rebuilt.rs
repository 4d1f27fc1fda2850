//! The state made anew from what a store holds, by somebody else than its owner.
//!
//! Owns a fold over all stored facts, a bounded stretch of rounds at a time. Refuses to write, and
//! to make up what cannot be read: it says what it left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use metrics::counter;
use uptime_proto::Epochs;

use super::details::NodeMetadata;
use super::owner::{base, fold, judge};
pub use super::owner::{last_over, winning_facts};
use crate::ledger::Snapshot;
use crate::store::{Catalogue, Store, StoreError};
use uptime_accounting::cow_vec::CowVec;
use uptime_accounting::dictionary::NodeDictionary;
use uptime_accounting::snapshot::SnapshotInputs;
use uptime_accounting::state::State;

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

    /// Says what was left out, in the log and the metrics.
    pub(super) fn report(&self) {
        for what in &self.listed {
            tracing::error!(what, "something stored cannot be read and is left out");
        }
        if self.count > 0 {
            tracing::error!(count = self.count, "in all; uptime-aggregator verify tells more");
            counter!("uptime_store_parts_damaged_total").increment(self.count);
        }
    }
}

/// A state and how it is shown.
#[derive(Debug, Clone)]
pub struct Rebuilt {
    /// All verdicts.
    pub state: State,
    /// All nodes as readers see them; probes, and what nodes say of themselves, are left out.
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

/// Makes the state of all that a store holds, up to the last round that is over; `None`: nobody
/// ever served from it, so it has no rules.
///
/// # Errors
/// When the store cannot be read.
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
    let mut left_out = LeftOut::default();
    let mut state = base(store, &epochs, &retractions, with_seed, &mut left_out).await?;
    let target = last_over(&epochs, now_ms);
    let none = BTreeSet::new();
    let mut dirty = fold(store, &mut state, &none, target, u64::MAX, &mut left_out).await?;
    while !dirty.is_empty() {
        judge(store, &mut state, &mut dirty).await?;
    }
    let snapshot = snapshot_of(&state, catalogue);
    Ok(Some(Rebuilt { state, snapshot, left_out }))
}

fn snapshot_of(state: &State, catalogue: Catalogue) -> Snapshot {
    let mut nodes = NodeDictionary::default();
    for (number, (id, _)) in (0..).zip(&catalogue.nodes) {
        if catalogue.forgotten.contains(&number) {
            nodes.push_forgotten(*id);
        } else {
            nodes.intern(*id);
        }
    }
    let around = SnapshotInputs {
        serial: 0,
        store_id: catalogue.store_id,
        generation: catalogue.generation,
        ids: nodes.ids(),
        subnets: Arc::new(catalogue.subnets),
        details: NodeMetadata::default(),
        round_trips_us: CowVec::default(),
        probes: Vec::new(),
    };
    Snapshot::new(state, around)
}
