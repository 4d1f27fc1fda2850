//! Following the log: what other processes committed to the store, and what this one committed
//! without learning so.
//!
//! Owns how stored facts and names enter the state by another way than a commit of this engine. A
//! fact that enters twice changes nothing.

use std::sync::Arc;

use uptime_accounting::replay::{LeftOut, winning_facts};
use uptime_proto::NodeId;

use super::core::Engine;
use super::replay::report;
use crate::store::{NamesKnown, Put, Store, StoreError};

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
