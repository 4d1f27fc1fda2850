//! From ids and names to the numbers of the store, for a batch about to be committed.
//!
//! What is numbered here is known to no stored fact until the batch is committed; if it is not, the
//! engine takes the numbers back.

use std::sync::Arc;

use roaring::RoaringBitmap;
use uptime_accounting::fact::{Fact, FactKey};
use uptime_proto::v1::RefusalReason;
use uptime_proto::{Class, NodeId, Part};

use super::commit::{PartOutcome, Submission};
use super::core::Engine;
use crate::store::{Batch, Details, NodeSample, Store};

/// Distinct subnets a store takes; the network has a handful.
const SUBNETS_MAX: usize = 1_000;
/// Of them, those that one probe brought: as many as can be named when it is enrolled.
const SUBNETS_BROUGHT_MAX: usize = 64;

impl<S: Store> Engine<S> {
    /// Adds a submission's facts to the batch; `None` for each that is in, in order.
    pub(super) fn number(
        &mut self,
        submission: &Submission,
        batch: &mut Batch,
        now_ms: i64,
    ) -> Vec<Option<PartOutcome>> {
        let probe = submission.probe;
        let outcomes = submission
            .parts
            .iter()
            .map(|part| match self.number_part(probe, part, batch, now_ms) {
                Ok(fact) => {
                    batch.facts.push(fact);
                    None
                }
                Err((reason, detail)) => Some(PartOutcome::Refused(reason, detail)),
            })
            .collect();
        batch.gaps.extend(&submission.gaps);
        batch.now_ms = now_ms;
        for sample in &submission.samples {
            // Of a node that nobody ever reported there is nothing to tell.
            if let Some(node) = self.nodes.number(&sample.node) {
                let round_trip_us = sample.tcp_round_trip_us.or(sample.udp_round_trip_us);
                batch.samples.push(NodeSample {
                    probe,
                    node,
                    round_s: sample.round_start_s,
                    seen_age_ms: sample.seen_age_ms,
                    answered_in_ms: sample.answered_in_ms,
                    round_trip_us,
                });
            }
        }
        for (id, details) in &submission.details {
            // Of a node that nobody ever reported there is nothing to describe.
            if let Some(number) = self.nodes.number(id)
                && !self.details.is_known(number, details)
            {
                let changed_s = u64::try_from(now_ms / 1000).unwrap_or(0);
                batch.details.insert(number, Details { changed_s, ..details.clone() });
            }
        }
        outcomes
    }

    pub(super) fn number_part(
        &mut self,
        probe: u32,
        part: &Part,
        batch: &mut Batch,
        now_ms: i64,
    ) -> Result<Fact, (RefusalReason, String)> {
        self.check_unconfirmed(probe, part, batch)?;
        let subnet = self.subnet_number(&part.key.subnet, probe, batch)?;
        let sets = Class::ALL.map(|class| {
            let numbers = part.sets.of(class).iter().map(|id| self.intern(*id, probe, batch));
            let mut numbers: Vec<u32> = numbers.collect();
            numbers.sort_unstable();
            // Distinct ids have distinct numbers, so this never fails.
            RoaringBitmap::from_sorted_iter(numbers).unwrap_or_default()
        });
        let key = FactKey { round: part.key.round, subnet, probe, number: part.key.number };
        Ok(Fact {
            key,
            kind: part.kind,
            outcome: part.outcome,
            digest: Some(part.digest()),
            observed_at_ms: part.observed_at_ms,
            received_at_ms: now_ms,
            relay_session_age_s: part.relay_session_age_s,
            sets: Arc::new(sets),
        })
    }

    pub(super) fn intern(&mut self, id: NodeId, probe: u32, batch: &mut Batch) -> u32 {
        let before = self.nodes.len();
        let number = self.nodes.intern(id);
        if self.nodes.len() > before {
            batch.new_nodes.push((id, probe));
        }
        number
    }

    pub(super) fn check_unconfirmed(
        &self,
        probe: u32,
        part: &Part,
        batch: &Batch,
    ) -> Result<(), (RefusalReason, String)> {
        let ids = Class::ALL.into_iter().flat_map(|class| part.sets.of(class));
        let unknown = ids.filter(|id| self.nodes.number(id).is_none()).count() as u64;
        if unknown == 0 {
            return Ok(());
        }
        let brought = self.brought.get(&probe).cloned().unwrap_or_default();
        let on_the_way = batch.new_nodes.iter().filter(|(_, by)| *by == probe).count() as u64;
        let unconfirmed = (brought - self.state.confirmed()).len() + on_the_way;
        let most = self.options.unconfirmed_nodes_max;
        if unconfirmed + unknown <= most {
            return Ok(());
        }
        let detail = format!(
            "{unknown} ids nobody reported before; this probe brought {unconfirmed} that were \
             never confirmed and may bring {most}"
        );
        Err((RefusalReason::TooManyUnconfirmedNodes, detail))
    }

    /// What is said of a part for which its round has no place. The probe does not send it again.
    pub(super) fn round_full(&self, fact: &Fact) -> PartOutcome {
        let detail = format!(
            "round {} has {} parts of this probe, over all subnets and contents, and may have no \
             more; --parts-per-round-max moves that",
            fact.key.round.start_s(),
            self.options.parts_per_round_max
        );
        PartOutcome::Refused(RefusalReason::TooManyPartsOfRound, detail)
    }

    pub(super) fn subnet_number(
        &mut self,
        name: &str,
        probe: u32,
        batch: &mut Batch,
    ) -> Result<u32, (RefusalReason, String)> {
        let brought = || {
            let on_the_way = batch.new_subnets.iter().filter(|(_, by)| *by == probe).count();
            self.subnets_brought.get(&probe).copied().unwrap_or(0) + on_the_way
        };
        let known = self.subnets.iter().position(|there| there == name);
        let number = match known {
            Some(number) => number,
            None if self.subnets.len() >= SUBNETS_MAX => {
                let detail = format!("this store has {SUBNETS_MAX} subnets already");
                return Err((RefusalReason::SubnetInvalid, detail));
            }
            None if brought() >= SUBNETS_BROUGHT_MAX => {
                let detail = format!(
                    "nobody reported this subnet before, and this probe brought \
                     {SUBNETS_BROUGHT_MAX} such and may bring no more"
                );
                return Err((RefusalReason::SubnetInvalid, detail));
            }
            None => {
                Arc::make_mut(&mut self.subnets).push(name.to_owned());
                batch.new_subnets.push((name.to_owned(), probe));
                self.subnets.len() - 1
            }
        };
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }
}
