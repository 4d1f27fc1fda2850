//! The handle to a spool: what the scan and the uplink call.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use uptime_proto::convert::PartLimits;
use uptime_proto::{Part, Round, Sample, v1};

use super::attachments::{Attachments, DETAILS_MAX, Done, SAMPLES_MAX};
use super::opening::NotOpen;
use super::reading::Stretch;
use super::records::{Found, Rounds, SpoolError, SpoolLimits};
use super::segment;
use super::state::{Inner, Switches};
use crate::time_format::utc;

/// A cheap handle to the outbox.
#[derive(Debug, Clone)]
pub struct Spool {
    pub(super) inner: Arc<Mutex<Inner>>,
    attachments: Arc<Mutex<Attachments>>,
    appended: Arc<Notify>,
    /// See [`Spool::waiting`].
    waiting: Arc<AtomicU64>,
}

/// Runs work that may wait for the disk, even for ever, without blocking other tasks: timers,
/// signals and the watchdog continue.
pub(crate) fn waiting_for_the_disk<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Spool {
    /// Opens the spool of a directory; creates both if missing. If the directory is unusable now,
    /// as on a full disk, the spool still opens and tries again by itself; until then it accepts no
    /// parts.
    ///
    /// # Errors
    /// When the path can never be used, or another process uses it. Damaged files are no error.
    pub fn open(directory: &Path, limits: SpoolLimits) -> io::Result<(Self, Found)> {
        Self::open_with(directory, limits, Switches::default())
    }

    pub(super) fn open_with(
        directory: &Path,
        limits: SpoolLimits,
        switches: Switches,
    ) -> io::Result<(Self, Found)> {
        let mut inner = Inner::new(Some(directory.to_owned()), limits, switches);
        let found = match inner.read() {
            Ok(found) => found,
            Err(NotOpen::Never(error)) => return Err(error),
            Err(NotOpen::NotNow(error)) => {
                inner.failed(error);
                Found::default()
            }
        };
        Ok((Self::of(inner), found))
    }

    /// A spool without a directory, always empty. For an uplink that only exchanges greetings.
    #[must_use]
    pub fn none() -> Self {
        let limits = SpoolLimits::of_bytes(0);
        let inner = Inner::new(None, limits, Switches::default());
        Self::of(inner)
    }

    fn of(inner: Inner) -> Self {
        let waiting = inner.told_waiting();
        let inner = Arc::new(Mutex::new(inner));
        Self { inner, attachments: Arc::default(), appended: Arc::default(), waiting }
    }

    /// The state, as it is in memory.
    pub(super) fn in_memory(&self) -> MutexGuard<'_, Inner> {
        // A panic leaves nothing worse than an unfinished write, which reading detects.
        match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The holder may be waiting for the disk.
            Err(TryLockError::WouldBlock) => {
                waiting_for_the_disk(|| self.inner.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }

    /// The state; reads it from disk first if that has not succeeded yet.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.in_memory();
        if inner.locked.is_none() && inner.directory.is_some() && inner.may_try().is_ok() {
            match inner.read() {
                Ok(found) => {
                    tracing::info!(waiting = found.waiting, "the spool is readable again");
                    self.appended.notify_one();
                }
                Err(NotOpen::Never(error) | NotOpen::NotNow(error)) => {
                    inner.failed(error);
                }
            }
        }
        inner
    }

    /// Whether the used keys are known. Until then no part can be made.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.lock().locked.is_some()
    }

    /// Whether parts of a round can be made: its used keys are known.
    #[must_use]
    pub fn may_make(&self, round: Round) -> bool {
        let inner = self.lock();
        inner.locked.is_some() && inner.numbers.known(round.start_s())
    }

    /// Gives the part the next free number of its subnet and round and writes it, synced.
    ///
    /// # Errors
    /// When no key is left or the disk does not accept it. The part is lost then; after a disk
    /// failure its round is reported as a gap.
    pub fn append(&self, part: Part, limits: &PartLimits) -> Result<u64, SpoolError> {
        let sequence = waiting_for_the_disk(|| self.lock().append(part, limits))?;
        self.attachments().last_sequence = sequence;
        self.appended.notify_one();
        Ok(sequence)
    }

    /// This round gets no further part. The aggregator is told once, after the parts appended
    /// before; a restart forgets it.
    pub fn round_done(&self, round_s: u64) {
        let mut attachments = self.attachments();
        attachments.done = Some(Done { after: attachments.last_sequence, round_s });
        self.appended.notify_one();
    }

    /// Takes what [`Spool::round_done`] left, if the part with this number is the last one before
    /// it; with `None`: nothing more waits.
    #[must_use]
    pub fn take_done(&self, sequence: Option<u64>) -> Option<Done> {
        let is_due = |done: &mut Done| sequence.is_none_or(|sequence| done.after == sequence);
        self.attachments().done.take_if(is_due)
    }

    /// Queues a gap: lost rounds. Written, synced and delivered like a part; kept in memory while
    /// the disk does not accept it.
    pub fn report_gap(&self, gap: v1::Gap) {
        waiting_for_the_disk(|| self.lock().report_gap(gap));
        self.appended.notify_one();
    }

    /// The aggregator has this part and its attachments, or will never take them.
    pub fn acknowledge(&self, sequence: u64) {
        self.attachments().acknowledged(sequence);
        self.lock().acknowledge(sequence);
    }

    /// How many parts and gaps wait. Never blocks, so it ignores a write in progress.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits until something was appended since the last wait.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    pub(super) fn attachments(&self) -> MutexGuard<'_, Attachments> {
        // A leaf: nothing is called while it is held, and each change to it is whole.
        self.attachments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues details to send with the next parts. Returns those that do not fit.
    #[must_use]
    pub fn leave_details(&self, details: Vec<v1::NodeDetails>) -> Vec<v1::NodeDetails> {
        self.attachments().details.leave(details, DETAILS_MAX)
    }

    /// Takes at most `most` details to send with the part of this number.
    #[must_use]
    pub fn take_details(&self, sequence: u64, most: usize) -> Vec<v1::NodeDetails> {
        self.attachments().details.take(sequence, most)
    }

    /// Queues samples to send with the next parts. They decide no verdict, and new ones are worth
    /// more than old ones: returns the oldest ones that no longer fit.
    pub fn leave_samples(&self, samples: Vec<Sample>) -> Vec<Sample> {
        self.attachments().samples.push(samples, SAMPLES_MAX)
    }

    /// Takes at most `most` samples to send with the part of this number.
    #[must_use]
    pub fn take_samples(&self, sequence: u64, most: usize) -> Vec<Sample> {
        self.attachments().samples.take(sequence, most)
    }

    /// The highest round of which any run made a part: its start, unix seconds; 0: none yet.
    #[must_use]
    pub fn high_water_s(&self) -> u64 {
        self.lock().high_water_s
    }

    /// Tells the spool the current and the next round, by a confirmed clock; the spool drops what
    /// is too old by it. Later rounds in the spool come from a clock that was ahead. Without this
    /// call no round before them could be scanned if their used keys are unknown.
    pub fn settle_clock(&self, round_s: u64, next_s: u64) {
        let mut inner = self.lock();
        inner.now_s = Some(round_s);
        if inner.high_water_s > next_s && !inner.numbers.knows_ahead(inner.high_water_s) {
            let seen_s = inner.high_water_s;
            tracing::error!(
                highest_round = utc(seen_s),
                round = utc(round_s),
                "this host's clock was ahead before; scanning continues from now"
            );
            inner.numbers.forget_future(round_s, seen_s);
        }
    }

    /// The first segment from `number` on that has something waiting.
    pub(super) fn next_waiting(&self, number: u64) -> Option<Waiting> {
        let inner = self.lock();
        let directory = inner.directory.as_ref()?;
        let (number, held) =
            inner.segments.range(number..).find(|(_, held)| !held.waiting.is_empty())?;
        let path = segment::path(directory, *number);
        Some(Waiting { number: *number, path, last_sequence: held.waiting.last()? })
    }

    pub(super) fn is_waiting(&self, number: u64, sequence: u64) -> bool {
        self.lock().segments.get(&number).is_some_and(|held| held.waiting.contains(sequence))
    }

    pub(super) fn damaged(&self, number: u64, stretch: Stretch) {
        self.lock().damaged(number, stretch);
    }

    /// A segment's file was removed: nothing more is written to it.
    pub(super) fn gone(&self, number: u64) {
        let mut inner = self.lock();
        inner.look_after_files();
        inner.leave(number);
        self.appended.notify_one();
    }

    /// What waits in a segment under these numbers, both included, was not found.
    pub(super) fn give_up_between(&self, number: u64, first: u64, last: u64) {
        if first > last {
            return;
        }
        let lost: Vec<(u64, Option<Rounds>)> = {
            let inner = self.lock();
            let held = inner.segments.get(&number);
            let lost = held.map(|held| held.waiting.between(first, last)).unwrap_or_default();
            lost.into_iter().map(|sequence| (sequence, None)).collect()
        };
        self.give_up(number, lost);
    }

    /// What waits in a segment under these numbers cannot be read and is never sent. Its rounds are
    /// reported as a gap; if they are unknown, those of the whole segment.
    pub(super) fn give_up(&self, number: u64, lost: Vec<(u64, Option<Rounds>)>) {
        if !lost.is_empty() && self.lock().give_up_damaged(number, lost) {
            self.appended.notify_one();
        }
    }
}

/// A segment in which something waits.
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    /// The last that waits in it now; more may be appended at any time.
    pub(super) last_sequence: u64,
}
