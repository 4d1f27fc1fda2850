//! The ledger task: one loop with its channels and timers around the engine.
//!
//! Owns when the engine's verbs are called: requests as they come, rounds when they are due, late
//! rounds and rebuilds when there is time. After each verb it shows what changed to whoever holds a
//! [`Ledger`]. Refuses to change state by itself: the engine does.

use std::sync::Arc;
use std::time::Duration;

use metrics::histogram;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uptime_proto::Epochs;

use super::handle::Ledger;
use super::history_reader::{QUESTIONS_MAX, Question, answer_questions};
use super::maintenance::maintain;
use super::request::{Greeting, QUEUE_MAX, Request, Unavailable};
use crate::clock::Timekeeper;
use crate::engine::{Engine, PartOutcome, RebuildJob, Rebuilt, Snapshot, Submission, Urgency};
use crate::store::{Identities, ProbeRecord, Store, StoreError};

/// Late rounds are judged again when nothing came for so long: while a probe empties its spool the
/// same rounds would be judged over and over. At the close of a round they are judged in any case.
const IDLE: Duration = Duration::from_millis(200);
/// The clock is read at least so often.
const CLOCK_READ_EVERY: Duration = Duration::from_secs(2);
/// Stretches of late rounds that are judged at a stop: some seconds at most. The rest is judged at
/// the next start.
const STRETCHES_AT_STOP_MAX: usize = 16;
/// After a rebuild it is so many times as long until conflicts alone begin another: a tenth of one
/// processor at most. Retractions do not wait.
const REST: u32 = 9;
/// A rebuild that could not begin is tried again after this.
const REBUILD_AGAIN: Duration = Duration::from_secs(1);
/// One rebuild is at work and none can be waiting.
const JOBS_MAX: usize = 1;

type Answer = oneshot::Sender<Result<Vec<PartOutcome>, Unavailable>>;
type Job<S> = (RebuildJob<S>, oneshot::Sender<Result<Rebuilt, StoreError>>);

/// The task, before and while it runs.
pub struct Task<S> {
    engine: Engine<S>,
    clock: Arc<Timekeeper>,
    requests: mpsc::Receiver<Request>,
    questions: mpsc::Receiver<Question>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    identities: watch::Sender<Arc<Identities>>,
    epochs: watch::Sender<Arc<Epochs>>,
    /// Why nothing can be stored now.
    trouble: watch::Sender<Option<String>>,
    /// Whoever runs rebuilds.
    rebuilder: Option<mpsc::Sender<Job<S>>>,
    running: Option<Running>,
    /// Conflicts alone begin no rebuild before this.
    rest_until: Instant,
    /// No rebuild begins before this: the last one could not.
    failed_until: Instant,
}

/// A rebuild that is under way.
struct Running {
    since: Instant,
    rebuilt: oneshot::Receiver<Result<Rebuilt, StoreError>>,
}

impl<S: Store + 'static> Task<S> {
    /// Works until told to stop or until every handle is gone. What was committed is answered.
    pub async fn run(mut self, ledger: Ledger, shutdown: CancellationToken) {
        // Aborted when dropped.
        let mut beside = JoinSet::new();
        if let Err(error) = self.start_beside(&ledger, &mut beside, &shutdown).await {
            tracing::error!(
                %error,
                "history queries, compaction and rebuilds are unavailable: cannot open a reader"
            );
        }
        drop(ledger);
        self.serve_all(&shutdown, &mut beside).await;
        // What waits in the queue is answered "stopping" by its dropped answer channel.
        self.settle().await;
        self.engine.save_checkpoint().await;
        tracing::info!("ledger stopped");
    }

    /// Starts the tasks that read stored facts beside this one, as [`Task::run`] does.
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
        let store = self.engine.reader().await?;
        beside.spawn(answer_questions(store, questions, shutdown.clone()));
        let (store, retention) = (self.engine.reader().await?, self.engine.retention());
        let (ledger, snapshots) = (ledger.clone(), ledger.snapshots());
        let (shutdown, stop) = (shutdown.clone(), shutdown.clone());
        // Compaction computes for seconds on end, a replay for minutes: on threads of their own.
        let runtime = tokio::runtime::Handle::current();
        beside.spawn_blocking(move || {
            runtime.block_on(maintain(store, ledger, snapshots, retention, shutdown));
        });
        let (jobs, mut waiting) = mpsc::channel::<Job<S>>(JOBS_MAX);
        self.rebuilder = Some(jobs);
        let runtime = tokio::runtime::Handle::current();
        beside.spawn_blocking(move || {
            runtime.block_on(async {
                let rebuilding = async {
                    while let Some((job, answer)) = waiting.recv().await {
                        // Whoever waited may have stopped.
                        answer.send(job.run().await).ok();
                    }
                };
                tokio::select! {
                    () = rebuilding => {}
                    () = stop.cancelled() => {}
                }
            });
        });
        Ok(())
    }
}

impl<S: Store> Task<S> {
    /// The task of an engine, and a handle to it. Nothing is served before [`Task::run`].
    #[must_use]
    pub fn new(engine: Engine<S>, clock: Arc<Timekeeper>) -> (Self, Ledger) {
        let (snapshots, snapshots_seen) = watch::channel(Arc::clone(engine.snapshot()));
        let (identities, identities_seen) = watch::channel(Arc::clone(engine.identities()));
        let (epochs, epochs_seen) = watch::channel(Arc::clone(engine.epochs()));
        let (trouble, trouble_seen) = watch::channel(engine.trouble().map(str::to_owned));
        let (requests, requested) = mpsc::channel(QUEUE_MAX);
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let task = Self {
            engine,
            clock: Arc::clone(&clock),
            requests: requested,
            questions: asked,
            snapshots,
            identities,
            epochs,
            trouble,
            rebuilder: None,
            running: None,
            rest_until: Instant::now(),
            failed_until: Instant::now(),
        };
        let ledger = Ledger {
            requests,
            questions,
            snapshots: snapshots_seen,
            epochs: epochs_seen,
            identities: identities_seen,
            trouble: trouble_seen,
            clock,
        };
        (task, ledger)
    }

    /// The engine. Whoever changes it has [`Task::publish`] show what changed.
    pub fn engine(&mut self) -> &mut Engine<S> {
        &mut self.engine
    }

    /// Gives the engine back, as a stop at any moment would leave it.
    #[must_use]
    pub fn into_engine(self) -> Engine<S> {
        self.engine
    }

    /// Shows readers the state as it is.
    pub fn publish(&mut self) {
        self.snapshots.send_replace(self.engine.take_snapshot());
        self.show_settings();
    }

    /// Shows identities, epochs and trouble, where they changed.
    pub(super) fn show_settings(&self) {
        show(&self.identities, self.engine.identities());
        show(&self.epochs, self.engine.epochs());
        self.trouble.send_if_modified(|there| {
            let changed = there.as_deref() != self.engine.trouble();
            if changed {
                *there = self.engine.trouble().map(str::to_owned);
            }
            changed
        });
    }

    async fn serve_all(&mut self, shutdown: &CancellationToken, beside: &mut JoinSet<()>) {
        loop {
            let closing_ms = self.closing_ms();
            let until_close = self.engine.next_close_ms().saturating_sub(closing_ms);
            let until_close = Duration::from_millis(u64::try_from(until_close).unwrap_or(0));
            // A step of the clock is to be seen soon.
            let until_close = until_close.min(CLOCK_READ_EVERY);
            let late = self.engine.has_late_rounds() || self.rebuild_is_due();
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
                rebuilt = ended(&mut self.running) => {
                    self.finish_rebuild(rebuilt).await;
                    false
                }
                () = tokio::time::sleep(wait) => true,
            };
            self.catch_up(idle).await;
        }
    }

    fn closing_ms(&self) -> i64 {
        self.engine.closing_ms(&self.clock.now())
    }

    /// Closes what is due and, then or when there is time, judges late rounds again.
    async fn catch_up(&mut self, idle: bool) {
        let clock = self.clock.now();
        let now_ms = self.engine.closing_ms(&clock);
        let is_closing = self.engine.next_close_ms() <= now_ms;
        let mut changed = false;
        if (is_closing || idle) && self.rebuild_is_due() {
            changed = self.begin_rebuild(now_ms).await;
        }
        let started = Instant::now();
        let closed = self.engine.close_due(now_ms, clock.may_delete).await;
        if closed {
            histogram!("uptime_ledger_round_close_seconds").record(started.elapsed());
        }
        if !closed && !idle {
            return;
        }
        changed |= closed;
        if self.engine.has_late_rounds() {
            match self.engine.judge_late_rounds().await {
                Ok(()) => changed = true,
                Err(error) => tracing::error!(%error, "late rounds wait: the store was not read"),
            }
        }
        if changed {
            self.publish();
        }
        self.engine.save_checkpoint_if_due().await;
    }

    /// Whether facts are to be replayed, and may be now.
    fn rebuild_is_due(&self) -> bool {
        let begin_at = match self.engine.rebuild_wanted() {
            Some(Urgency::Now) => self.failed_until,
            Some(Urgency::Later) => self.failed_until.max(self.rest_until),
            None => return false,
        };
        begin_at <= Instant::now()
    }

    /// Begins a rebuild beside what comes in; answers whether the state has changed already.
    async fn begin_rebuild(&mut self, now_ms: i64) -> bool {
        tracing::info!("closed rounds changed: replaying all facts in the background");
        let since = Instant::now();
        let job = match self.engine.begin_rebuild(now_ms).await {
            Ok(Some(job)) => job,
            Ok(None) => return true,
            Err(error) => {
                tracing::error!(%error, "the replay could not begin; it is tried again");
                self.failed_until = since + REBUILD_AGAIN;
                return false;
            }
        };
        let (answer, rebuilt) = oneshot::channel();
        let Some(rebuilder) = &self.rebuilder else {
            // Nobody runs it beside this task.
            let rebuilt = job.run().await;
            self.engine.finish_rebuild(rebuilt, now_ms).await;
            return true;
        };
        // There is room: one is under way at a time. If it is gone, `ended` says so.
        rebuilder.try_send((job, answer)).ok();
        self.running = Some(Running { since, rebuilt });
        false
    }

    async fn finish_rebuild(&mut self, rebuilt: Result<Rebuilt, StoreError>) {
        let Some(Running { since, .. }) = self.running.take() else { return };
        let took = since.elapsed();
        histogram!("uptime_ledger_rebuild_seconds").record(took);
        self.rest_until = Instant::now() + took * REST;
        self.engine.finish_rebuild(rebuilt, self.closing_ms()).await;
        tracing::info!(took_s = took.as_secs(), "the replay of all facts has ended");
        self.publish();
    }

    async fn serve(&mut self, first: Request) {
        let (mut submissions, mut answers) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(request) = next {
            self.sort(request, &mut submissions, &mut answers).await;
            taken += 1;
            next = if taken < QUEUE_MAX { self.requests.try_recv().ok() } else { None };
        }
        if !submissions.is_empty() {
            self.commit(submissions, answers).await;
        }
    }

    async fn commit(&mut self, submissions: Vec<Submission>, answers: Vec<Answer>) {
        match self.engine.commit(submissions, self.clock.now().wall_ms).await {
            Ok(committed) => {
                committed.deliveries.into_iter().for_each(|it| self.clock.stored(it));
                for (answer, outcomes) in answers.into_iter().zip(committed.outcomes) {
                    // Whoever asked may have gone.
                    answer.send(Ok(outcomes)).ok();
                }
            }
            Err(error) => {
                for answer in answers {
                    answer.send(Err(Unavailable(error.to_string()))).ok();
                }
            }
        }
        self.show_settings();
    }

    async fn sort(
        &mut self,
        request: Request,
        submissions: &mut Vec<Submission>,
        answers: &mut Vec<Answer>,
    ) {
        match request {
            Request::Submit(submission, answer) => {
                submissions.push(submission);
                answers.push(answer);
            }
            Request::Refused { probe, parts } => {
                if let Some(status) = self.engine.known_probe_mut(probe) {
                    status.parts_refused += parts;
                }
            }
            Request::Lookups { round_s, answer } => {
                // Whoever asked may have gone.
                answer.send(self.engine.lookups(round_s)).ok();
            }
            Request::CommitCompaction(planned, answer) => {
                let now_ms = self.closing_ms();
                answer.send(self.engine.commit_compaction(&planned, now_ms).await).ok();
            }
            Request::Expire(expiry, answer) => {
                let gone = self.engine.expire(&expiry, self.closing_ms()).await;
                self.publish();
                answer.send(gone).ok();
            }
            Request::Access(request) => self.access(request).await,
            Request::Connected { probe, greeting } => self.connected(&probe, greeting),
            Request::Assigned { probe, nodes } => {
                if let Some(status) = self.engine.known_probe_mut(probe) {
                    status.assigned_nodes = nodes;
                }
            }
        }
    }

    fn connected(&mut self, probe: &ProbeRecord, greeting: Option<Greeting>) {
        let status = self.engine.probe_mut(probe);
        status.connected = greeting.is_some();
        if let Some(greeting) = greeting {
            status.software_version = greeting.software_version;
            status.subnets = greeting.subnets;
        }
        self.publish();
    }

    /// What was acknowledged enters the last snapshot, and so the CSV, unless it is very much.
    async fn settle(&mut self) {
        for _ in 0..STRETCHES_AT_STOP_MAX {
            if !self.engine.has_late_rounds() {
                break;
            }
            if let Err(error) = self.engine.judge_late_rounds().await {
                tracing::error!(%error, "late rounds are judged at the next start");
                break;
            }
        }
        self.publish();
    }
}

fn show<T>(seen: &watch::Sender<Arc<T>>, now: &Arc<T>) {
    seen.send_if_modified(|there| {
        let changed = !Arc::ptr_eq(there, now);
        if changed {
            *there = Arc::clone(now);
        }
        changed
    });
}

/// When a rebuild comes to an end; never while none is under way.
async fn ended(running: &mut Option<Running>) -> Result<Rebuilt, StoreError> {
    let Some(running) = running else { return std::future::pending().await };
    let rebuilt = (&mut running.rebuilt).await;
    rebuilt.unwrap_or_else(|_| Err(StoreError::Damaged("the replay ended early".to_owned())))
}
