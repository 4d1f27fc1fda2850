//! The handle to the ledger task: cheap to copy, and all that others see of it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use uptime_accounting::explain::Explanation;
use uptime_accounting::snapshot::AsOf;
use uptime_proto::{Epochs, Round};

use super::history_reader::Question;
use super::request::{Greeting, Request, Unavailable, stopping};
use crate::clock::Timekeeper;
use crate::engine::{Expiry, LookupState, PartOutcome, Snapshot, Submission};
use crate::store::{CompactedDay, CompactionPlan, Identities, Latency, ProbeRecord, StoreError};

/// A cheap handle to the ledger task.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) questions: mpsc::Sender<Question>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) epochs: watch::Receiver<Arc<Epochs>>,
    pub(super) identities: watch::Receiver<Arc<Identities>>,
    pub(super) trouble: watch::Receiver<Option<String>>,
    pub(super) clock: Arc<Timekeeper>,
}

impl Ledger {
    /// Commits parts. Waits for its place in the queue at once; the answer comes when the
    /// returned future is awaited, so that many may be on their way.
    ///
    /// # Errors
    /// [`Unavailable`] when nothing was stored.
    pub async fn submit(
        &self,
        submission: Submission,
    ) -> Result<impl Future<Output = Result<Vec<PartOutcome>, Unavailable>> + use<>, Unavailable>
    {
        let (answer, outcome) = oneshot::channel();
        let sent = self.requests.send(Request::Submit(submission, answer)).await;
        sent.map_err(|_| stopping())?;
        Ok(async move { outcome.await.map_err(|_| stopping())? })
    }

    /// Counts parts that were refused before they came here.
    pub async fn refused(&self, probe: u32, parts: u64) {
        self.tell(Request::Refused { probe, parts }).await;
    }

    /// Where the look-ups of an open round stand; `None` when the ledger is stopping.
    pub async fn lookups(&self, round_s: u64) -> Option<LookupState> {
        let (answer, state) = oneshot::channel();
        self.tell(Request::Lookups { round_s, answer }).await;
        state.await.ok()
    }

    /// Notes that a probe's stream begins (with what it said) or ends (`None`).
    pub async fn connected(&self, probe: ProbeRecord, greeting: Option<Greeting>) {
        self.tell(Request::Connected { probe, greeting }).await;
    }

    /// Notes how many nodes stand on a probe's list.
    pub async fn assigned(&self, probe: u32, nodes: u64) {
        self.tell(Request::Assigned { probe, nodes }).await;
    }

    /// Why a node, by its number, had its verdict in a closed round.
    ///
    /// # Errors
    /// [`Unavailable`] when the store cannot be read.
    pub async fn explain(&self, node: u32, round: Round) -> Result<Explanation, Unavailable> {
        let (answer, account) = oneshot::channel();
        let epochs = Arc::clone(&self.snapshot().epochs);
        // Fails only when the task has stopped; then no answer comes either.
        self.questions.send(Question::Explain { epochs, node, round, answer }).await.ok();
        let account = account.await.map_err(|_| stopping())?;
        account.map_err(|error| Unavailable(error.to_string()))
    }

    /// What of a node, by its number, must be looked for in the store to show it as it was when a
    /// round of this snapshot was closed.
    ///
    /// # Errors
    /// [`Unavailable`] when the store cannot be read.
    pub async fn as_of(
        &self,
        snapshot: Arc<Snapshot>,
        node: u32,
        round: Round,
    ) -> Result<AsOf, Unavailable> {
        let (answer, as_of) = oneshot::channel();
        self.questions.send(Question::AsOf { snapshot, node, round, answer }).await.ok();
        let as_of = as_of.await.map_err(|_| stopping())?;
        as_of.map_err(|error| Unavailable(error.to_string()))
    }

    /// Round trips of nodes, by their numbers, on the UTC days that a window touches.
    ///
    /// # Errors
    /// [`Unavailable`] when the store cannot be read.
    pub async fn latency(
        &self,
        nodes: Vec<u32>,
        window: (u64, u64),
    ) -> Result<Vec<Option<Latency>>, Unavailable> {
        let (answer, latency) = oneshot::channel();
        self.questions.send(Question::Latency { nodes, window, answer }).await.ok();
        let latency = latency.await.map_err(|_| stopping())?;
        latency.map_err(|error| Unavailable(error.to_string()))
    }

    /// Puts a compacted day in the place of its rows; `None` when the ledger is stopping.
    pub(super) async fn commit_compaction(
        &self,
        planned: CompactionPlan,
    ) -> Option<Result<Option<CompactedDay>, StoreError>> {
        let (answer, compacted) = oneshot::channel();
        self.tell(Request::CommitCompaction(planned, answer)).await;
        compacted.await.ok()
    }

    /// Puts a roll-up in the place of expired facts; `None` when the ledger is stopping.
    pub(super) async fn expire(&self, expiry: Expiry) -> Option<Result<u64, StoreError>> {
        let (answer, gone) = oneshot::channel();
        self.tell(Request::Expire(Box::new(expiry), answer)).await;
        gone.await.ok()
    }

    pub(super) async fn tell(&self, request: Request) {
        // Fails only when the task has stopped; whoever waits for an answer then gets none.
        self.requests.send(request).await.ok();
    }

    /// Why nothing can be stored now; `None`: as far as is known, all can.
    #[must_use]
    pub fn cannot_store(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// This host's clock, and how far it is trusted.
    #[must_use]
    pub fn clock(&self) -> &Arc<Timekeeper> {
        &self.clock
    }

    /// The latest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Snapshots as they are made; a slow reader skips some and holds up nobody.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// The rules as they were read last, announced ones included.
    #[must_use]
    pub fn epochs(&self) -> Arc<Epochs> {
        Arc::clone(&self.epochs.borrow())
    }

    /// Tells when they change.
    #[must_use]
    pub fn epochs_seen(&self) -> watch::Receiver<Arc<Epochs>> {
        self.epochs.clone()
    }
}
