//! Following the log: what other processes committed to the store, and what this one committed
//! without learning so.
//!
//! Owns how stored facts and names enter the state by another way than a commit of this engine. A
//! fact that enters twice changes nothing.

use std::sync::Arc;

use uptime_accounting::position::Positions;
use uptime_accounting::replay::{LeftOut, winning_facts};
use uptime_accounting::retraction::Retraction;
use uptime_proto::{Epochs, NodeId};

use super::core::Engine;
use super::replay::report;
use crate::store::{NamesKnown, Put, Store, StoreError};

/// What a state is made of: engines on one store whose stamps are equal have equal CSVs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The commits that it includes.
    pub positions: Positions,
    /// The end of its last closed round, unix seconds.
    pub closed_end_s: u64,
    /// Totals stand in the place of facts of rounds before this, unix seconds.
    pub rolled_up_to_s: u64,
    /// By which rules.
    pub epochs: Arc<Epochs>,
    /// With which retractions.
    pub retractions: Arc<Vec<Retraction>>,
}

impl<S: Store> Engine<S> {
    /// Learns what became of a commit that may be stored, before anything else is.
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        if self.unsettled { self.apply_since().await } else { Ok(()) }
    }

    /// Takes in what was committed to the store and is not in the state.
    ///
    /// # Errors
    /// When the store cannot be read. What was taken in by then is taken in again later.
    pub async fn apply_since(&mut self) -> Result<(), StoreError> {
        self.learn_names().await?;
        if self.store.positions().await? == self.positions {
            self.unsettled = false;
            return Ok(());
        }
        let since = self.store.since(&self.positions, u64::MAX).await?;
        let (mut left_out, mut deliveries) = (LeftOut::default(), Vec::new());
        for stretch in since.late.stretches() {
            let facts = self.store.read(stretch.from_s, stretch.to_s).await?;
            for fact in winning_facts(facts) {
                match fact {
                    Ok(fact) if since.late.contains(&fact.key) => {
                        let outranks = since.outranked.contains(&fact.key);
                        let put = if outranks { Put::ConflictSmallest } else { Put::New };
                        self.apply(fact, put, &mut deliveries);
                    }
                    Ok(_) => {}
                    Err(what) => left_out.add(what),
                }
            }
        }
        report(&left_out);
        self.positions.merge(&since.to);
        self.unsettled = false;
        Ok(())
    }

    async fn learn_names(&mut self) -> Result<(), StoreError> {
        let known = self.names_known();
        let new = self.store.names_since(known).await?;
        for (id, _) in &new.nodes {
            self.nodes.push(*id);
        }
        if !new.subnets.is_empty() {
            let names = new.subnets.iter().map(|(name, _)| name.clone());
            Arc::make_mut(&mut self.subnets).extend(names);
        }
        self.note_brought(known, &new.nodes, &new.subnets);
        Ok(())
    }
}

impl<S> Engine<S> {
    /// What the state is made of. `None`: something waits to be judged again.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        let settled = self.late_rounds.is_empty() && !self.is_outdated() && !self.unsettled;
        settled.then(|| Stamp {
            positions: self.positions.clone(),
            closed_end_s: self.state.closed_end_s(),
            rolled_up_to_s: self.state.rolled_up_to_s(),
            epochs: Arc::clone(&self.epochs),
            retractions: Arc::clone(self.state.retractions()),
        })
    }

    pub(super) fn names_known(&self) -> NamesKnown {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        NamesKnown { nodes: count(self.nodes.len()), subnets: count(self.subnets.len()) }
    }

    /// Notes who brought ids and subnets whose numbers come after those that were known.
    pub(super) fn note_brought(
        &mut self,
        known: NamesKnown,
        nodes: &[(NodeId, u32)],
        subnets: &[(String, u32)],
    ) {
        for (number, (_, probe)) in (known.nodes..).zip(nodes) {
            self.brought.entry(*probe).or_default().insert(number);
        }
        for (_, probe) in subnets {
            *self.subnets_brought.entry(*probe).or_default() += 1;
        }
    }
}
