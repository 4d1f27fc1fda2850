//! Commit: parts of probes become stored facts, and enter the state.
//!
//! Owns what becomes of each part. Commits first and applies then; so an acknowledgement means "on
//! disk, synced". Refuses to check parts: `ingest` has.

use std::sync::Arc;

use metrics::counter;
use uptime_accounting::fact::{Fact, Gap};
use uptime_proto::v1::RefusalReason;
use uptime_proto::{NodeId, Part, Sample};

use super::core::Engine;
use super::names::note_round_trip;
use super::urgency::Urgency;
use crate::store::{Batch, Delivery, Details, Put, Store, StoreError, Stored};

/// So often ids are numbered again because another process numbered some meanwhile.
const TRIES_MAX: usize = 5;

/// Parts of one probe, to be committed together.
#[derive(Debug, Default)]
pub struct Submission {
    /// The probe's number.
    pub probe: u32,
    /// Checked parts.
    pub parts: Vec<Part>,
    /// New or changed details.
    pub details: Vec<(NodeId, Details)>,
    /// Rounds of which the probe has nothing.
    pub gaps: Vec<Gap>,
    /// Ages and round trips of single nodes.
    pub samples: Vec<Sample>,
    /// The start of a round of which the probe makes no further part.
    pub done_round_s: Option<u64>,
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartOutcome {
    /// On disk, synced.
    Accepted,
    /// Was there already.
    Duplicate,
    /// Another one with this key is there; both are kept.
    Conflict,
    /// Not taken.
    Refused(RefusalReason, String),
    /// Not taken now: it would be refused for its time, and the clock is not sure.
    Later(RefusalReason, String),
}

/// What a commit came to.
#[derive(Debug, Default)]
pub struct Committed {
    /// For each submission, one outcome for each of its parts, in order.
    pub outcomes: Vec<Vec<PartOutcome>>,
    /// What the new parts say of clocks.
    pub deliveries: Vec<Delivery>,
}

/// Of each submission its probe, and of its parts what is known before they are stored.
type Waiting = Vec<(u32, Vec<Option<PartOutcome>>)>;

impl<S: Store> Engine<S> {
    /// Numbers what submissions name, commits it in one transaction and applies it; one list of
    /// outcomes for each submission, in order.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn commit(
        &mut self,
        submissions: Vec<Submission>,
        now_ms: i64,
    ) -> Result<Committed, StoreError> {
        let (batch, waiting, puts) = self.store_all(&submissions, now_ms).await?;
        for sample in &batch.samples {
            if let Some(round_trip_us) = sample.round_trip_us {
                note_round_trip(&mut self.round_trips_us, sample.node, round_trip_us);
            }
        }
        for gap in &batch.gaps {
            if let Some(status) = self.probes.get_mut(&gap.probe) {
                status.note_gap(*gap);
            }
        }
        if let Err(error) = self.details.set(batch.details) {
            // They are in the store, and what a probe tells again is taken again.
            tracing::error!(%error, "details of nodes cannot be shown");
        }
        let mut committed = Committed::default();
        let mut facts = batch.facts.into_iter().zip(puts);
        for (probe, outcomes) in waiting {
            let outcomes = outcomes.into_iter().map(|refused| match refused {
                Some(refused) => refused,
                None => facts.next().map_or(PartOutcome::Accepted, |(fact, put)| {
                    self.apply(fact, put, &mut committed.deliveries)
                }),
            });
            let outcomes: Vec<PartOutcome> = outcomes.collect();
            self.count(probe, &outcomes, now_ms);
            committed.outcomes.push(outcomes);
        }
        // After its parts have been taken in.
        for Submission { probe, done_round_s, .. } in submissions {
            if let Some(round_s) = done_round_s {
                self.done.note(probe, round_s, self.state.closed_end_s());
            }
        }
        Ok(committed)
    }

    /// Numbers what submissions name and stores it, as soon as it is known what is stored.
    async fn store_all(
        &mut self,
        submissions: &[Submission],
        now_ms: i64,
    ) -> Result<(Batch, Waiting, Vec<Put>), StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            if let Err(error) = self.settle().await {
                self.cannot_store(&error);
                return Err(error);
            }
            let known = self.names_known();
            let mut batch = Batch {
                names_known: Some(known),
                parts_per_round_max: Some(self.options.parts_per_round_max),
                ..Batch::default()
            };
            let mut waiting = Vec::with_capacity(submissions.len());
            for submission in submissions {
                let outcomes = self.number(submission, &mut batch, now_ms);
                waiting.push((submission.probe, outcomes));
            }
            let stored =
                if batch.is_empty() { Ok(Stored::default()) } else { self.store.put(&batch).await };
            match stored {
                Ok(Stored { puts, position }) => {
                    if !batch.is_empty() {
                        self.can_store();
                    }
                    position.into_iter().for_each(|it| self.positions.add(it));
                    self.note_brought(known, &batch.new_nodes, &batch.new_subnets);
                    return Ok((batch, waiting, puts));
                }
                Err(error) => {
                    self.nodes.truncate(known.nodes as usize);
                    Arc::make_mut(&mut self.subnets).truncate(known.subnets as usize);
                    // After any other error it is known that nothing was stored.
                    self.unsettled |= matches!(
                        error,
                        StoreError::Indeterminate(_)
                            | StoreError::NamesChanged
                            | StoreError::Gone(_)
                    );
                    let again = matches!(error, StoreError::NamesChanged) && tries < TRIES_MAX;
                    if !again {
                        self.cannot_store(&error);
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Takes a committed fact into the state.
    pub(super) fn apply(
        &mut self,
        fact: Fact,
        put: Put,
        deliveries: &mut Vec<Delivery>,
    ) -> PartOutcome {
        match put {
            Put::Duplicate => return PartOutcome::Duplicate,
            Put::RoundFull => return self.round_full(&fact),
            // It never counts, whatever round either of the two falls into.
            Put::ConflictLarger => return PartOutcome::Conflict,
            // On an outdated grid the two may fall into different rounds.
            Put::ConflictSmallest if !self.state.epochs().in_force(fact.key.round) => {
                self.rebuild.want(Urgency::Later);
                return PartOutcome::Conflict;
            }
            Put::New | Put::ConflictSmallest => {}
        }
        deliveries.push(Delivery::of(&fact));
        if let Err(late) = self.state.accept(fact) {
            if put == Put::New {
                self.state.late(&late);
                self.late_rounds.note(&self.state, &late);
            } else {
                // What counted until now must be taken out again: only the facts know how.
                self.rebuild.want(Urgency::Later);
            }
        }
        if put == Put::New { PartOutcome::Accepted } else { PartOutcome::Conflict }
    }

    fn count(&mut self, probe: u32, outcomes: &[PartOutcome], now_ms: i64) {
        let Some(status) = self.probes.get_mut(&probe) else {
            return;
        };
        status.last_report_ms = Some(now_ms);
        for outcome in outcomes {
            let (slot, label) = match outcome {
                PartOutcome::Accepted => (&mut status.parts_accepted, "accepted"),
                PartOutcome::Duplicate => (&mut 0, "duplicate"),
                PartOutcome::Conflict => (&mut status.conflicts, "conflict"),
                PartOutcome::Refused(..) => (&mut status.parts_refused, "refused"),
                PartOutcome::Later(..) => (&mut 0, "later"),
            };
            *slot += 1;
            counter!("uptime_ingest_parts_total", "outcome" => label).increment(1);
            if *outcome == PartOutcome::Conflict {
                tracing::warn!(probe = status.name, "a part came with another content before");
            }
        }
    }
}
