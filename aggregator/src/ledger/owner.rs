//! The task behind the [`Ledger`](super::Ledger) handle.
//!
//! Owns the store, the state and the loop: take requests, commit what they bring in one
//! transaction, apply, answer; close rounds when their grace is over; judge again what came late.

mod access;
mod agreement;
mod checkpoint;
mod closing;
mod epochs;
mod expiry;
mod lookups;
mod numbering;
mod rebuilding;
mod standing;
mod time;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use roaring::RoaringBitmap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uptime_proto::convert::PartLimits;
use uptime_proto::{Epoch, Epochs, Round};

use super::archive::{QUESTIONS_MAX, Question, account_of, answer_questions, do_chores};
use super::as_of::as_of;
use super::details::{DetailsTable, NodeMetadata};
use super::{Greeting, Ledger, PartOutcome, QUEUE_MAX, Request, Submission, Unavailable};
use crate::clock::Timekeeper;
use crate::ledger::Snapshot;
use crate::store::{Batch, Delivery, Identities, ProbeRecord, Put, Store, StoreError};
use closing::Done;
pub(super) use expiry::{base_for, has_expired, pack_before_s};
use numbering::{names_of, subnets_brought};
use rebuilding::{Beside, Pending, ended};
pub use rebuilding::{Rebuild, Refolded};
pub use time::{TimeAtStart, note_deliveries};
use uptime_accounting::agreement::Record;
use uptime_accounting::cow_vec::CowVec;
use uptime_accounting::dictionary::NodeDictionary;
use uptime_accounting::explain::Explanation;
use uptime_accounting::fact::Fact;
use uptime_accounting::probe_status::ProbeStatus;
use uptime_accounting::replay::LateRounds;
use uptime_accounting::snapshot::AsOf;
use uptime_accounting::snapshot::SnapshotInputs;
use uptime_accounting::state::State;

/// Late rounds are judged again when nothing came for so long: while a probe empties its spool the
/// same rounds would be judged over and over. At the close of a round they are judged in any case.
const IDLE: Duration = Duration::from_millis(200);
/// The clock is read at least so often.
const CLOCK_READ_EVERY: Duration = Duration::from_secs(2);

/// What the ledger may be told.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    /// The rules of a new store. A store that has rules keeps them: they change by `rules set`.
    pub rules: Epoch,
    /// Ids one probe may have brought that were never confirmed.
    pub unconfirmed_nodes_max: u64,
    /// Parts of one round that one probe may have stored, over all subnets and contents.
    pub parts_per_round_max: u32,
    /// Whether `seed-v1` is kept beside the method in force.
    pub with_seed: bool,
    /// Facts of days that ended so long ago are dropped, their sums carried; `None`: all are kept.
    /// Never less than [`RETENTION_S_MIN`].
    pub retention_s: Option<u64>,
    /// A directory for files that end with the process.
    pub scratch: PathBuf,
    /// What is known of the time at the start.
    pub time: TimeAtStart,
    /// This host's clock. It decides when rounds close and whether anything is deleted.
    pub clock: Arc<Timekeeper>,
}

impl LedgerOptions {
    /// These rules, a hundred thousand unconfirmed ids a probe, as many parts of a round as is
    /// announced unless told otherwise, no `seed-v1`, everything kept, files that end with the
    /// process where the system has such, a clock that is taken to be synchronised.
    #[must_use]
    pub fn new(rules: Epoch) -> Self {
        Self {
            rules,
            unconfirmed_nodes_max: 100_000,
            parts_per_round_max: PartLimits::default().parts_per_round_max,
            with_seed: false,
            retention_s: None,
            scratch: std::env::temp_dir(),
            time: TimeAtStart::AsGiven,
            clock: Arc::new(Timekeeper::trusted()),
        }
    }
}

/// The shortest retention: no fact may come late to a day that is gone, and the named windows of 30
/// days stay exact.
pub const RETENTION_S_MIN: u64 = 40 * 86_400;

type Answer = oneshot::Sender<Result<Vec<PartOutcome>, Unavailable>>;

/// The owner of all state. Made by [`Owner::open`], driven by [`Owner::run`].
pub struct Owner<S> {
    store: S,
    state: State,
    nodes: NodeDictionary,
    subnets: Arc<Vec<String>>,
    details: DetailsTable,
    /// The last round trip of each node; 0: none.
    round_trips_us: CowVec<u32>,
    probes: BTreeMap<u32, ProbeStatus>,
    /// Ids by the probe that brought them.
    brought: HashMap<u32, RoaringBitmap>,
    /// How many subnets each probe brought.
    subnets_brought: HashMap<u32, usize>,
    late_rounds: LateRounds,
    /// Who made its last part of an open round.
    done: Done,
    rebuild_wanted: bool,
    /// Conflicts alone have nothing folded again before this.
    rebuild_not_before: Instant,
    pending: Option<Pending>,
    beside: Option<Beside<S>>,
    options: LedgerOptions,
    /// The last closed round of the state that is kept on disk.
    kept_s: u64,
    /// The day on which it was last looked which ids may be forgotten.
    forgot_day: u64,
    serial: u64,
    store_id: [u8; 16],
    generation: u64,
    requests: mpsc::Receiver<Request>,
    questions: mpsc::Receiver<Question>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    identities: watch::Sender<Arc<Identities>>,
    /// Why nothing can be stored now.
    trouble: watch::Sender<Option<String>>,
    agreement: Record,
    /// As they are stored.
    epochs: watch::Sender<Arc<Epochs>>,
}

impl<S: Store + 'static> Owner<S> {
    /// Works until told to stop or until every handle is gone. What was committed is answered.
    pub async fn run(mut self, ledger: Ledger, shutdown: CancellationToken) {
        // Aborted when dropped.
        let mut beside = JoinSet::new();
        if let Err(error) = self.start_beside(&ledger, &mut beside, &shutdown).await {
            tracing::error!(%error, "the past cannot be read beside what comes in");
        }
        drop(ledger);
        self.serve_all(&shutdown, &mut beside).await;
        // What waits in the queue is answered "stopping" by its dropped answer channel.
        self.settle().await;
        self.keep().await;
        tracing::info!("ledger stopped");
    }

    /// Starts the tasks that read the past beside the owner, as [`Owner::run`] does. For whoever
    /// drives the owner step by step.
    ///
    /// # Errors
    /// When no further connection to the store can be made.
    pub async fn start_beside(
        &mut self,
        ledger: &Ledger,
        beside: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        let (_, none) = mpsc::channel(1);
        let questions = std::mem::replace(&mut self.questions, none);
        let store = self.store.reader().await?;
        let (rebuilder, rebuilding) = rebuilding::beside();
        self.beside = Some(rebuilder);
        beside.spawn(answer_questions(store, questions, shutdown.clone()));
        let (store, chores) = (self.store.reader().await?, self.chores());
        let (ledger, snapshots) = (ledger.clone(), ledger.snapshots());
        let (shutdown, stop) = (shutdown.clone(), shutdown.clone());
        // Packing computes for seconds on end, folding for minutes: on threads of their own.
        let runtime = tokio::runtime::Handle::current();
        beside.spawn_blocking(move || {
            runtime.block_on(do_chores(store, ledger, snapshots, chores, shutdown));
        });
        let runtime = tokio::runtime::Handle::current();
        beside.spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = rebuilding => {}
                    () = stop.cancelled() => {}
                }
            });
        });
        Ok(())
    }
}

impl<S: Store> Owner<S> {
    /// Reads the store, gives a new one its first rules, rebuilds the state up to the last round
    /// that is over, and answers the owner and its handle.
    ///
    /// # Errors
    /// When the store cannot be read, or holds epochs that cannot be.
    pub async fn open(
        mut store: S,
        options: LedgerOptions,
        now_ms: i64,
    ) -> Result<(Self, Ledger), StoreError> {
        let mut catalogue = store.catalogue().await?;
        let there = std::mem::take(&mut catalogue.epochs);
        let epochs = epochs::stored_or_first(&mut store, there, &options.rules).await?;
        let (mut nodes, brought) = names_of(&catalogue);
        let details = DetailsTable::load(&mut store, &options.scratch).await?;
        let probes = probes_of(&catalogue.probes, &mut store, now_ms).await?;
        let mut round_trips_us = CowVec::default();
        for (node, round_trip_us) in store.round_trips().await? {
            note_round_trip(&mut round_trips_us, node, round_trip_us);
        }
        let subnets_brought = subnets_brought(&catalogue.subnets_brought_by);
        let retractions = Arc::new(store.retractions().await?);
        let state = State::new(Arc::clone(&epochs)).with_retractions(retractions);
        let around = SnapshotInputs {
            serial: 0,
            store_id: catalogue.store_id,
            generation: catalogue.generation,
            ids: nodes.ids(),
            subnets: Arc::new(catalogue.subnets.clone()),
            details: NodeMetadata::default(),
            round_trips_us: CowVec::default(),
            probes: Vec::new(),
        };
        let (snapshots, latest) = watch::channel(Arc::new(Snapshot::new(&state, around)));
        let (identities, identities_seen) = watch::channel(Arc::new(store.identities().await?));
        let (trouble, trouble_seen) = watch::channel(None);
        let (epochs, epochs_seen) = watch::channel(epochs);
        let (sender, requests) = mpsc::channel(QUEUE_MAX);
        let (asker, questions) = mpsc::channel(QUESTIONS_MAX);
        let mut owner = Self {
            store,
            state,
            nodes,
            subnets: Arc::new(catalogue.subnets),
            details,
            round_trips_us,
            probes,
            brought,
            subnets_brought,
            late_rounds: LateRounds::default(),
            done: Done::default(),
            rebuild_wanted: false,
            rebuild_not_before: Instant::now(),
            pending: None,
            beside: None,
            options,
            kept_s: 0,
            forgot_day: 0,
            serial: 0,
            store_id: catalogue.store_id,
            generation: catalogue.generation,
            requests,
            questions,
            snapshots,
            identities,
            trouble,
            agreement: Record::default(),
            epochs,
        };
        owner.resume(now_ms).await?;
        owner.look_after_store();
        owner.publish();
        let (requests, questions, snapshots) = (sender, asker, latest);
        let (identities, trouble, epochs) = (identities_seen, trouble_seen, epochs_seen);
        let clock = Arc::clone(&owner.options.clock);
        Ok((owner, Ledger { requests, questions, snapshots, epochs, identities, trouble, clock }))
    }

    /// Commits and applies one submission as if it came at that moment: what [`Owner::run`] does
    /// for the requests in its queue. For whoever drives the owner step by step.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn submit_at(
        &mut self,
        submission: Submission,
        now_ms: i64,
    ) -> Result<Vec<PartOutcome>, Unavailable> {
        let (answer, mut outcome) = oneshot::channel();
        self.commit(vec![(submission, answer)], now_ms).await;
        outcome.try_recv().unwrap_or_else(|_| Err(super::stopping()))
    }

    /// Closes every round that is over at that moment and judges again all that came late.
    pub async fn catch_up_at(&mut self, now_ms: i64) {
        self.catch_up(now_ms, true).await;
        loop {
            if self.pending.as_ref().is_some_and(Pending::is_elsewhere) {
                let folded = ended(&mut self.pending).await;
                self.finish_rebuild(folded, now_ms).await;
            } else if self.late_rounds.is_empty()
                && (!self.rebuild_wanted || self.pending.is_some())
            {
                break;
            }
            self.rebuild_not_before = Instant::now();
            self.catch_up(now_ms, true).await;
        }
    }

    /// The account of one node and one round, by its start. For whoever drives the owner step by
    /// step.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn explain(&mut self, node: u32, round: Round) -> Result<Explanation, StoreError> {
        let epochs = Arc::clone(self.state.epochs());
        account_of(&mut self.store, &epochs, node, round).await
    }

    /// As [`Ledger::past`], of what readers see now. For whoever drives the owner step by step.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn past(&mut self, node: u32, round: Round) -> Result<AsOf, StoreError> {
        let snapshot = self.snapshot();
        as_of(&mut self.store, &snapshot, node, round).await
    }

    /// What readers see now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Gives the store back, as a stop at any moment would leave it.
    #[must_use]
    pub fn into_store(self) -> S {
        self.store
    }

    async fn serve_all(&mut self, shutdown: &CancellationToken, beside: &mut JoinSet<()>) {
        loop {
            let until_close = self.next_close_ms().saturating_sub(self.closing_ms());
            let until_close = Duration::from_millis(u64::try_from(until_close).unwrap_or(0));
            // A step of the clock is to be seen soon.
            let until_close = until_close.min(CLOCK_READ_EVERY);
            let late = !self.late_rounds.is_empty() || self.rebuild_is_due();
            let wait = if late { until_close.min(IDLE) } else { until_close };
            let idle = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                // None of them ends before it is told to: what is left would only look alive.
                Some(ended) = beside.join_next() => {
                    tracing::error!(?ended, "a task beside the ledger ended by itself");
                    break;
                }
                request = self.requests.recv() => match request {
                    Some(request) => {
                        self.serve(request).await;
                        false
                    }
                    None => break,
                },
                folded = ended(&mut self.pending) => {
                    self.finish_rebuild(folded, self.closing_ms()).await;
                    false
                }
                () = tokio::time::sleep(wait) => true,
            };
            self.catch_up(self.closing_ms(), idle).await;
        }
    }

    /// Closes what is due and, then or when there is time, judges late rounds again: a bounded
    /// number, so that requests do not wait for long.
    async fn catch_up(&mut self, now_ms: i64, idle: bool) {
        let mut changed = false;
        let closing = self.next_close_ms() <= now_ms;
        self.take_back_what_is_ahead(now_ms).await;
        if !closing && !idle {
            return;
        }
        if self.rebuild_is_due() {
            changed = self.rebuild_somehow(now_ms).await;
        }
        if closing {
            let started = tokio::time::Instant::now();
            self.state.close_through(self.last_over(now_ms));
            self.done.forget_before(self.state.closed_end_s());
            histogram!("uptime_ledger_round_close_seconds").record(started.elapsed());
            changed = true;
            self.report_round();
            self.look_after_store();
            self.note_agreement(now_ms).await;
            self.learn_from_others().await;
            self.forget_unconfirmed(now_ms).await;
        }
        if !self.late_rounds.is_empty() {
            match self.judge_late_rounds().await {
                Ok(()) => changed = true,
                Err(error) => tracing::error!(%error, "late rounds wait: the store was not read"),
            }
        }
        if changed {
            self.publish();
        }
        self.keep_now_and_then().await;
    }

    /// Rules and identities may be changed, and evidence retracted, by another process.
    async fn learn_from_others(&mut self) {
        if let Err(error) = self.learn_epochs().await {
            tracing::error!(%error, "the rules are those that were read before");
        }
        if let Err(error) = self.learn_retractions().await {
            tracing::warn!(%error, "retractions are those of the round before");
        }
        self.refresh_identities().await;
    }

    fn report_round(&self) {
        let Some(summary) = self.state.summaries().back() else {
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "numbers of nodes")]
        let number = |count: u64| count as f64;
        gauge!("uptime_ledger_nodes", "verdict" => "up").set(number(summary.up));
        gauge!("uptime_ledger_nodes", "verdict" => "down").set(number(summary.down));
        gauge!("uptime_ledger_nodes", "verdict" => "unknown").set(number(summary.unknown));
        gauge!("uptime_ledger_last_closed_round_seconds").set(number(summary.round.start_s()));
        let eligible = summary.probes.values().filter(|probe| probe.ballot.eligible).count();
        tracing::info!(
            round = summary.round.start_s(),
            up = summary.up,
            down = summary.down,
            unknown = summary.unknown,
            probes = summary.probes.len(),
            eligible,
            "round closed"
        );
    }

    async fn serve(&mut self, first: Request) {
        let mut submissions = Vec::new();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(request) = next {
            self.sort(request, &mut submissions).await;
            taken += 1;
            next = if taken < QUEUE_MAX { self.requests.try_recv().ok() } else { None };
        }
        if !submissions.is_empty() {
            let now_ms = self.options.clock.now().wall_ms;
            self.commit(submissions, now_ms).await;
        }
    }

    async fn sort(&mut self, request: Request, submissions: &mut Vec<(Submission, Answer)>) {
        match request {
            Request::Submit(submission, answer) => submissions.push((submission, answer)),
            Request::Refused { probe, parts } => {
                if let Some(status) = self.probes.get_mut(&probe) {
                    status.parts_refused += parts;
                }
            }
            Request::Lookups { round_s, answer } => {
                // Whoever asked may have gone.
                answer.send(self.lookups(round_s)).ok();
            }
            Request::CommitPack(prepared, answer) => {
                answer.send(self.store.commit_pack(&prepared).await).ok();
            }
            Request::LetGo { base, before_s, answer } => {
                answer.send(self.let_go(&base, before_s).await).ok();
            }
            Request::Access(request) => self.access(request).await,
            Request::Connected { probe, greeting } => self.connected(&probe, greeting),
            Request::Assigned { probe, nodes } => {
                if let Some(status) = self.probes.get_mut(&probe) {
                    status.assigned_nodes = nodes;
                }
            }
        }
    }

    fn connected(&mut self, probe: &ProbeRecord, greeting: Option<Greeting>) {
        let status = self.probes.entry(probe.number).or_insert_with(|| status_of(probe));
        status.connected = greeting.is_some();
        if let Some(greeting) = greeting {
            status.software_version = greeting.software_version;
            status.subnets = greeting.subnets;
        }
        self.publish();
    }

    /// Numbers what submissions name, commits it in one transaction, applies it, answers.
    async fn commit(&mut self, submissions: Vec<(Submission, Answer)>, now_ms: i64) {
        let (nodes_before, subnets_before) = (self.nodes.len(), self.subnets.len());
        let parts_per_round_max = Some(self.options.parts_per_round_max);
        let mut batch = Batch { parts_per_round_max, ..Batch::default() };
        let mut waiting = Vec::with_capacity(submissions.len());
        let mut done = Vec::new();
        for (submission, answer) in submissions {
            done.extend(submission.done_round_s.map(|round_s| (submission.probe, round_s)));
            let outcomes = self.number(&submission, &mut batch, now_ms);
            waiting.push((submission.probe, outcomes, answer));
        }
        batch.late = self.late_among(&batch.facts);
        if let Some(pending) = &mut self.pending {
            pending.late.extend(&batch.late);
        }
        let stored = if batch.is_empty() { Ok(Vec::new()) } else { self.store.put(&batch).await };
        let puts = match stored {
            Ok(puts) => {
                self.can_store();
                puts
            }
            Err(error) => {
                self.cannot_store(&error);
                self.nodes.truncate(nodes_before);
                Arc::make_mut(&mut self.subnets).truncate(subnets_before);
                for (.., answer) in waiting {
                    answer.send(Err(Unavailable(error.to_string()))).ok();
                }
                return;
            }
        };
        for (number, (_, probe)) in (nodes_before..).zip(&batch.new_nodes) {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            self.brought.entry(*probe).or_default().insert(number);
        }
        for (_, probe) in &batch.new_subnets {
            *self.subnets_brought.entry(*probe).or_default() += 1;
        }
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
        let mut facts = batch.facts.into_iter().zip(puts);
        for (probe, outcomes, answer) in waiting {
            let outcomes = outcomes.into_iter().map(|refused| match refused {
                Some(refused) => refused,
                None => {
                    facts.next().map_or(PartOutcome::Accepted, |(fact, put)| self.apply(fact, put))
                }
            });
            let outcomes: Vec<PartOutcome> = outcomes.collect();
            self.count(probe, &outcomes, now_ms);
            answer.send(Ok(outcomes)).ok();
        }
        // After its parts have been taken in.
        for (probe, round_s) in done {
            self.done.note(probe, round_s, self.state.closed_end_s());
        }
    }

    /// Takes a committed fact into the state.
    fn apply(&mut self, fact: Fact, put: Put) -> PartOutcome {
        match put {
            Put::Duplicate => return PartOutcome::Duplicate,
            Put::RoundFull => return self.round_full(&fact),
            // It never counts, whatever round either of the two falls into.
            Put::ConflictLarger => return PartOutcome::Conflict,
            // On an outdated grid the two may fall into different rounds.
            Put::ConflictSmallest if !self.state.epochs().in_force(fact.key.round) => {
                self.rebuild_wanted = true;
                return PartOutcome::Conflict;
            }
            Put::New | Put::ConflictSmallest => {}
        }
        self.options.clock.stored(Delivery::of(&fact));
        if let Err(late) = self.state.accept(fact) {
            if put == Put::New {
                self.state.late(&late);
                self.late_rounds.note(&self.state, &late);
            } else {
                // What counted until now must be taken out again: only the facts know how.
                self.rebuild_wanted = true;
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

    fn publish(&mut self) {
        self.serial += 1;
        let around = SnapshotInputs {
            serial: self.serial,
            store_id: self.store_id,
            generation: self.generation,
            ids: self.nodes.ids(),
            subnets: Arc::clone(&self.subnets),
            details: self.details.told(),
            round_trips_us: self.round_trips_us.clone(),
            probes: self.probes_now(),
        };
        self.snapshots.send_replace(Arc::new(Snapshot::new(&self.state, around)));
    }
}

impl<S> Owner<S> {
    fn probes_now(&self) -> Vec<ProbeStatus> {
        let confirmed = self.state.confirmed();
        let probes = self.probes.values().map(|status| {
            let brought = self.brought.get(&status.number);
            let unconfirmed_nodes = brought.map_or(0, |ids| ids.difference_len(&confirmed));
            ProbeStatus { unconfirmed_nodes, ..status.clone() }
        });
        probes.collect()
    }
}

fn note_round_trip(round_trips_us: &mut CowVec<u32>, node: u32, round_trip_us: u32) {
    while round_trips_us.len() <= node as usize {
        round_trips_us.push(0);
    }
    if let Some(there) = round_trips_us.get_mut(node as usize) {
        *there = round_trip_us;
    }
}

/// The probes as they are at a start, by number.
async fn probes_of<S: Store>(
    enrolled: &[ProbeRecord],
    store: &mut S,
    now_ms: i64,
) -> Result<BTreeMap<u32, ProbeStatus>, StoreError> {
    let probes = enrolled.iter().map(|probe| (probe.number, status_of(probe)));
    let mut probes: BTreeMap<u32, ProbeStatus> = probes.collect();
    let now_s = u64::try_from(now_ms / 1_000).unwrap_or(0);
    for gap in store.gaps(now_s.saturating_sub(ProbeStatus::GAPS_WITHIN_S), u64::MAX).await? {
        if let Some(status) = probes.get_mut(&gap.probe) {
            status.note_gap(gap);
        }
    }
    Ok(probes)
}

fn status_of(probe: &ProbeRecord) -> ProbeStatus {
    ProbeStatus {
        number: probe.number,
        name: probe.name.clone(),
        revoked: probe.revoked,
        ..ProbeStatus::default()
    }
}
