//! The durable outbox: parts on disk until the aggregator has them.
//!
//! Owns a directory of segments, append-only files of checksummed frames. A part is on disk,
//! synced, before it is sent, and leaves when it is acknowledged. Refuses to make a key twice,
//! also across restarts. Damage never stops it: what cannot be read is counted and passed over,
//! the rest is delivered.
//!
//! Format, version 1, integers little-endian. A segment is named by its number, `00000001.spool`:
//! the 8 bytes `GUSPOOL1`; the highest round (start, u64) that earlier segments held; CRC-32 (u32)
//! of these 16 bytes; then frames: the bytes `A5 5A`, kind (u8), length of the body (u32), body,
//! CRC-32 (u32) of kind, length and body. Kind 1 is an entry: sequence number (u64), then a `Part`
//! (types of `collector.proto`) in the compact form, for which each segment is a stream of its own,
//! so that it reads alone. Kind 2 is an acknowledgement: the sequence number (u64) of an entry in
//! this or an earlier segment. A segment is only ever appended to by the process that made it.

mod cursor;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    //! Whole frames for a fuzz target to put into a segment.

    pub(crate) use super::segment::{frame, header};
}
mod segment;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge};
use prost::Message;
use tokio::sync::Notify;
use uptime_proto::convert::{Encoder, PartLimits};
use uptime_proto::{Part, Round, v1};

pub use cursor::Cursor;
use segment::{ACK, ENTRY, SEQUENCE_MAX, Writer};

/// A segment beyond this is closed and the next one begun: after a day or so of 10,000 nodes.
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// A segment of which nothing is waiting is closed beyond this, so that it can be deleted.
const SEGMENT_BYTES_IDLE: u64 = 1024 * 1024;
/// Keys of rounds this long ago are not made any more.
const NUMBERS_KEPT_S: u64 = 2 * 86_400;
/// Details of nodes that wait to be sent beside parts. Not durable: they are told again anyway.
const DETAILS_MAX: usize = 50_000;
/// Samples that wait to be sent beside parts: those of some rounds.
const SAMPLES_MAX: usize = 5_000;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct SpoolLimits {
    /// Bytes on disk; beyond them the oldest segments go.
    pub bytes_max: u64,
}

/// A cheap handle to the outbox.
#[derive(Debug, Clone)]
pub struct Spool {
    inner: Arc<Mutex<Inner>>,
    appended: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    limits: SpoolLimits,
    /// Closed segments that still hold what waits, and the open one, by number.
    segments: BTreeMap<u64, Held>,
    writer: Writer,
    encoder: Encoder,
    next_sequence: u64,
    /// The highest round of which a part was made, by any run of this spool.
    high_water_s: u64,
    /// Part numbers given out, by round and subnet: the next free one.
    numbers: Numbers,
    /// Of rounds up to this one it is not known which numbers were given out.
    unknown_through_s: u64,
    details: Vec<v1::NodeDetails>,
    samples: VecDeque<v1::Sample>,
    gaps: Vec<v1::Gap>,
}

/// The next free part number, by round start and subnet.
type Numbers = BTreeMap<(u64, String), u16>;

/// A segment and what waits in it.
#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    waiting: BTreeSet<u64>,
    rounds: Option<(u64, u64)>,
}

/// What was found when a spool was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Parts that wait to be sent.
    pub waiting: u64,
    /// Stretches of bytes that are no frames.
    pub damaged: u64,
}

/// Why a part was not kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk would not take it.
    #[error("the spool in {directory} cannot be written: {source}")]
    Write {
        /// Where.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A part of this round was made before by an earlier run, or too many were made.
    #[error("no key is left for another part of round {round_s}")]
    NoKey {
        /// The round's start.
        round_s: u64,
    },
}

impl Spool {
    /// Opens the spool of a directory, making both where missing.
    ///
    /// # Errors
    /// When the directory cannot be used at all. Damaged files are no error.
    pub fn open(directory: &Path, limits: SpoolLimits) -> io::Result<(Self, Found)> {
        std::fs::create_dir_all(directory)?;
        let mut found = Found::default();
        let mut segments: BTreeMap<u64, Held> = BTreeMap::new();
        let (mut next_sequence, mut high_water_s) = (1, 0);
        let (mut numbers, mut unknown_through_s) = (Numbers::new(), None);
        for (number, path) in segment::list(directory)? {
            let (held, scanned) = segment::scan(&path)?;
            found.damaged += scanned.damaged;
            unknown_through_s = unknown_through_s.or(scanned.earlier_high_water_s);
            high_water_s = high_water_s
                .max(scanned.earlier_high_water_s.unwrap_or(0))
                .max(held.rounds.map_or(0, |(_, last)| last));
            next_sequence = next_sequence.max(scanned.last_sequence + 1);
            for (key, next) in scanned.numbers {
                let slot = numbers.entry(key).or_default();
                *slot = next.max(*slot);
            }
            segments.insert(number, held);
            for sequence in scanned.acknowledged {
                next_sequence = next_sequence.max(sequence + 1);
                for held in segments.values_mut() {
                    held.waiting.remove(&sequence);
                }
            }
        }
        // Where something was damaged, numbers may have been lost with it.
        let unknown_through_s =
            if found.damaged > 0 { high_water_s } else { unknown_through_s.unwrap_or(0) };
        found.waiting = segments.values().map(|held| held.waiting.len() as u64).sum();
        let number = segments.keys().next_back().map_or(1, |last| last + 1);
        let writer = Writer::create(directory, number, high_water_s)?;
        segments.insert(number, Held { bytes: writer.bytes(), ..Held::default() });
        let mut inner = Inner {
            directory: directory.to_owned(),
            limits,
            segments,
            writer,
            encoder: Encoder::default(),
            next_sequence,
            high_water_s,
            numbers,
            unknown_through_s,
            details: Vec::new(),
            samples: VecDeque::new(),
            gaps: Vec::new(),
        };
        inner.forget_old_numbers();
        inner.drop_finished();
        inner.report();
        let spool = Self { inner: Arc::new(Mutex::new(inner)), appended: Arc::default() };
        Ok((spool, found))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete or will be found torn on disk; a panic leaves nothing worse.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether parts of a round may be made: it is known which of its keys were made before.
    #[must_use]
    pub fn may_make(&self, round: Round) -> bool {
        round.start_s() > self.lock().unknown_through_s
    }

    /// Gives the part the next free number of its subnet and round and writes it, synced.
    ///
    /// # Errors
    /// When no key is left or the disk will not take it; the part is then not kept.
    pub fn append(&self, mut part: Part, limits: &PartLimits) -> Result<u64, SpoolError> {
        let mut inner = self.lock();
        part.key.number = inner.take_number(&part, limits)?;
        let sequence = inner.write(&part, limits)?;
        inner.keep_within_limits();
        inner.report();
        drop(inner);
        self.appended.notify_one();
        Ok(sequence)
    }

    /// The aggregator has it, or will never take it.
    pub fn acknowledge(&self, sequence: u64) {
        let mut inner = self.lock();
        let known = inner.segments.values_mut().any(|held| held.waiting.remove(&sequence));
        if !known {
            return;
        }
        // Not synced: an acknowledgement lost to a power cut costs one duplicate.
        if let Err(error) = inner.writer.frame(ACK, &sequence.to_le_bytes()) {
            tracing::warn!(%error, "an acknowledgement was not written; it may be sent again");
        }
        inner.drop_finished();
        inner.report();
    }

    /// How many parts wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.lock().segments.values().map(|held| held.waiting.len() as u64).sum()
    }

    /// Reads what waits from the oldest on.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.clone())
    }

    /// Waits until something was appended since the last wait.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    /// Leaves details to be sent beside the next part.
    pub fn leave_details(&self, details: Vec<v1::NodeDetails>) {
        let mut inner = self.lock();
        let room = DETAILS_MAX.saturating_sub(inner.details.len());
        inner.details.extend(details.into_iter().take(room));
    }

    /// Takes at most so many details to send.
    #[must_use]
    pub fn take_details(&self, most: usize) -> Vec<v1::NodeDetails> {
        let mut inner = self.lock();
        let count = most.min(inner.details.len());
        inner.details.drain(..count).collect()
    }

    /// The highest round of which any run made a part: its start, unix seconds; 0: none yet.
    #[must_use]
    pub fn high_water_s(&self) -> u64 {
        self.lock().high_water_s
    }

    /// Leaves samples to be sent beside the next part. Not durable, and the oldest go when there
    /// are too many: they explain, and decide nothing.
    pub fn leave_samples(&self, samples: Vec<v1::Sample>) {
        let mut inner = self.lock();
        inner.samples.extend(samples);
        let over = inner.samples.len().saturating_sub(SAMPLES_MAX);
        inner.samples.drain(..over);
    }

    /// Takes at most so many samples to send.
    #[must_use]
    pub fn take_samples(&self, most: usize) -> Vec<v1::Sample> {
        let mut inner = self.lock();
        let count = most.min(inner.samples.len());
        inner.samples.drain(..count).collect()
    }

    /// Reports rounds of which there are no parts, beside the next part.
    pub fn report_gap(&self, gap: v1::Gap) {
        self.lock().gaps.push(gap);
    }

    /// Takes the gaps to report.
    #[must_use]
    pub fn take_gaps(&self) -> Vec<v1::Gap> {
        std::mem::take(&mut self.lock().gaps)
    }

    /// The number and path of the first segment from `number` on that has something waiting, and
    /// what waits in it.
    fn next_waiting(&self, number: u64) -> Option<(u64, PathBuf, BTreeSet<u64>)> {
        let inner = self.lock();
        let (number, held) =
            inner.segments.range(number..).find(|(_, held)| !held.waiting.is_empty())?;
        Some((*number, segment::path(&inner.directory, *number), held.waiting.clone()))
    }

    fn is_waiting(&self, number: u64, sequence: u64) -> bool {
        self.lock().segments.get(&number).is_some_and(|held| held.waiting.contains(&sequence))
    }

    /// What waits in a segment cannot be read: it will never be sent.
    fn give_up(&self, number: u64, sequence: u64) {
        counter!("uptime_spool_parts_damaged_total").increment(1);
        tracing::error!(segment = number, sequence, "a spooled part is damaged and is left out");
        self.acknowledge(sequence);
    }
}

impl Inner {
    fn take_number(&mut self, part: &Part, limits: &PartLimits) -> Result<u16, SpoolError> {
        let round_s = part.key.round.start_s();
        let next = self.numbers.entry((round_s, part.key.subnet.clone())).or_default();
        let none_left = *next >= limits.part_numbers_max || self.next_sequence > SEQUENCE_MAX;
        if round_s <= self.unknown_through_s || none_left {
            return Err(SpoolError::NoKey { round_s });
        }
        *next += 1;
        Ok(*next - 1)
    }

    /// Rounds overlap by their grace, and no more than so much is ever still going on.
    fn forget_old_numbers(&mut self) {
        let old = self.high_water_s.saturating_sub(NUMBERS_KEPT_S);
        self.numbers = self.numbers.split_off(&(old, String::new()));
        self.unknown_through_s = self.unknown_through_s.max(old.saturating_sub(1));
    }

    fn write(&mut self, part: &Part, limits: &PartLimits) -> Result<u64, SpoolError> {
        let round_s = part.key.round.start_s();
        self.high_water_s = self.high_water_s.max(round_s);
        self.forget_old_numbers();
        self.rotate_if_large()?;
        let sequence = self.next_sequence;
        let mut body = sequence.to_le_bytes().to_vec();
        self.encoder.encode(part, limits).encode_raw(&mut body);
        let written = self.writer.frame(ENTRY, &body).and_then(|()| self.writer.sync());
        if let Err(source) = written {
            // What was half written is passed over when the segment is read; as the encoder has
            // counted on it, a new segment begins.
            counter!("uptime_spool_writes_failed_total").increment(1);
            self.rotate().ok();
            return Err(SpoolError::Write { directory: self.directory.clone(), source });
        }
        self.next_sequence += 1;
        let bytes = self.writer.bytes();
        if let Some(held) = self.segments.get_mut(&self.writer.number()) {
            held.bytes = bytes;
            held.waiting.insert(sequence);
            let (first, last) = held.rounds.unwrap_or((round_s, round_s));
            held.rounds = Some((first.min(round_s), last.max(round_s)));
        }
        Ok(sequence)
    }

    fn rotate_if_large(&mut self) -> Result<(), SpoolError> {
        let idle = self.segments.values().all(|held| held.waiting.is_empty());
        let most = if idle { SEGMENT_BYTES_IDLE } else { SEGMENT_BYTES_MAX };
        if self.writer.bytes() < most {
            return Ok(());
        }
        let directory = self.directory.clone();
        self.rotate().map_err(|source| SpoolError::Write { directory, source })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let number = self.writer.number() + 1;
        self.writer = Writer::create(&self.directory, number, self.high_water_s)?;
        self.encoder = Encoder::default();
        self.segments.insert(number, Held { bytes: self.writer.bytes(), ..Held::default() });
        self.drop_finished();
        Ok(())
    }

    /// Deletes closed segments of which nothing waits, the oldest first: a later one may hold the
    /// acknowledgements of an earlier one.
    fn drop_finished(&mut self) {
        while let Some(oldest) = self.segments.first_entry()
            && *oldest.key() != self.writer.number()
            && oldest.get().waiting.is_empty()
        {
            let path = segment::path(&self.directory, *oldest.key());
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "a finished segment stays");
            }
            oldest.remove();
        }
    }

    /// Lets the oldest segments go while there are too many bytes, and notes what went as a gap.
    fn keep_within_limits(&mut self) {
        while self.segments.values().map(|held| held.bytes).sum::<u64>() > self.limits.bytes_max
            && let Some(oldest) = self.segments.first_entry()
            && *oldest.key() != self.writer.number()
        {
            let held = oldest.get();
            let lost = held.waiting.len();
            let (first, last) = held.rounds.unwrap_or_default();
            tracing::error!(lost, first, last, "the spool is full: the oldest parts are given up");
            counter!("uptime_spool_parts_given_up_total").increment(lost as u64);
            self.gaps.push(v1::Gap {
                from_round_unix_s: first,
                to_round_unix_s: last.saturating_add(1),
                reason: v1::CouldNotLookReason::SpoolFull as i32,
            });
            oldest.into_mut().waiting.clear();
            self.drop_finished();
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    fn report(&self) {
        let (mut bytes, mut waiting) = (0, 0);
        for held in self.segments.values() {
            bytes += held.bytes;
            waiting += held.waiting.len();
        }
        gauge!("uptime_spool_bytes").set(bytes as f64);
        gauge!("uptime_spool_parts_waiting").set(waiting as f64);
    }
}

#[cfg(test)]
mod tests;
