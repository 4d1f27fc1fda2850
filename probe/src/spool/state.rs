//! The state behind the handle: the open segment, what waits in closed ones, what is dropped when.
//!
//! Owns every write. After a failed write the round counts as lost, and the next write tries again.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{counter, gauge};
use prost::Message;
use tokio::time::Instant;
use uptime_proto::convert::{Encoder, PartLimits};
use uptime_proto::{Part, Reason, v1};

use super::gaps::{self, Gaps};
use super::lock::{HighWaterMark, Lock};
use super::missing_sequences::Lost;
use super::numbers::Numbers;
use super::quarantine;
use super::reading::{self, Damage, Met, Stretch};
use super::records::{Rounds, SpoolError, SpoolLimits};
use super::segment::{self, ACK, ENTRY, GAP, Writer};
use super::sequences::Sequences;
use crate::time_format::utc;

/// A segment is closed at this size: some days of 10,000 nodes.
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// A segment is at most one part in this many of the size limit, so that little is dropped at once.
const SEGMENT_SHARE: u64 = 8;
/// A segment without waiting entries is closed at this size, so that it can be deleted.
const SEGMENT_BYTES_IDLE: u64 = 1024 * 1024;
/// An entry is written twice only if it is at most one part in this many of the size limit.
const TWICE_SHARE: u64 = 16;
/// A failed disk is tried again after this long.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A segment and what waits in it.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) bytes: u64,
    /// It holds an entry or a gap, not acknowledgements alone.
    pub(super) has_entries: bool,
    pub(super) waiting: Sequences,
    pub(super) rounds: Option<Rounds>,
    pub(super) damage: Damage,
}

/// Only tests change these.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switches {
    /// Files are synced.
    pub(super) synced: bool,
    /// New segments can be made.
    pub(super) disk_takes: bool,
    /// How long to wait before trying again.
    pub(super) try_again: Duration,
}

impl Default for Switches {
    fn default() -> Self {
        Self { synced: true, disk_takes: true, try_again: TRY_AGAIN }
    }
}

/// What does not work, and when it is tried again.
#[derive(Debug)]
struct Trouble {
    kind: io::ErrorKind,
    text: String,
    again_at: Instant,
}

/// The spool itself.
#[derive(Debug)]
pub(super) struct Inner {
    /// `None`: a spool that stores nothing.
    pub(super) directory: Option<PathBuf>,
    pub(super) limits: SpoolLimits,
    pub(super) switches: Switches,
    /// `None`: the directory has not been read yet, so the used keys are unknown.
    pub(super) locked: Option<Lock>,
    /// Closed segments with waiting entries, and the open one, by number.
    pub(super) segments: BTreeMap<u64, Held>,
    /// Created when first needed.
    pub(super) writer: Option<Writer>,
    pub(super) encoder: Encoder,
    pub(super) next_segment: u64,
    pub(super) next_sequence: u64,
    /// The highest round with a part, of any run.
    pub(super) high_water_s: u64,
    /// The current round, by a confirmed clock.
    pub(super) now_s: Option<u64>,
    /// The oldest round that may wait; 0: not known.
    pub(super) waiting_since_s: u64,
    pub(super) numbers: Numbers,
    /// Gaps that are not on disk yet.
    unwritten: Gaps,
    /// Lost numbers, to acknowledge when the gaps above are written.
    settled: Vec<u64>,
    trouble: Option<Trouble>,
    /// How much waits, for readers that must not wait for the disk.
    told_waiting: Arc<AtomicU64>,
}

impl Inner {
    pub(super) fn new(directory: Option<PathBuf>, limits: SpoolLimits, switches: Switches) -> Self {
        Self {
            directory,
            limits,
            switches,
            locked: None,
            segments: BTreeMap::new(),
            writer: None,
            encoder: Encoder::default(),
            next_segment: 1,
            next_sequence: 1,
            high_water_s: 0,
            now_s: None,
            waiting_since_s: 0,
            numbers: Numbers::default(),
            unwritten: Gaps::default(),
            settled: Vec::new(),
            trouble: None,
            told_waiting: Arc::default(),
        }
    }

    pub(super) fn told_waiting(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.told_waiting)
    }

    pub(super) fn waiting(&self) -> u64 {
        self.segments.values().map(|held| held.waiting.len()).sum()
    }

    // === when the disk fails ===

    /// Fails while it is too early to try again.
    pub(super) fn may_try(&self) -> io::Result<()> {
        match &self.trouble {
            Some(trouble) if Instant::now() < trouble.again_at => {
                Err(io::Error::new(trouble.kind, trouble.text.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Notes a failure. The first of several is tried again at once: another file may do.
    pub(super) fn failed(&mut self, error: io::Error) -> io::Error {
        counter!("uptime_spool_writes_failed_total").increment(1);
        let directory = self.directory.clone().unwrap_or_default();
        let directory = directory.display();
        let mut again_at = Instant::now();
        if self.trouble.is_some() {
            tracing::debug!(%error, %directory, "the spool is still unusable");
            again_at += self.switches.try_again;
        } else {
            tracing::error!(
                %error,
                %directory,
                "cannot use the spool: free disk space, give this user read and write access, or \
                 set another --spool-dir. Scanning continues and the spool is tried again; rounds \
                 that cannot be stored are reported as a gap"
            );
        }
        self.trouble = Some(Trouble { kind: error.kind(), text: error.to_string(), again_at });
        error
    }

    fn worked(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!("the spool is writable again");
        }
    }

    // === writing ===

    /// Gives the part the next free number of its subnet and round and writes it, synced.
    pub(super) fn append(
        &mut self,
        mut part: Part,
        limits: &PartLimits,
    ) -> Result<u64, SpoolError> {
        let round = part.key.round;
        let round_s = round.start_s();
        let lost = gaps::of_round(round, Reason::SpoolFull);
        self.look_after_files();
        if self.locked.is_none() {
            self.unwritten.add(lost);
            return Err(SpoolError::NoKey { round_s });
        }
        let number = self.numbers.take(round_s, &part.key.subnet, limits);
        part.key.number = number.ok_or(SpoolError::NoKey { round_s })?;
        let written = self.write_part(&part, limits);
        let sequence = written.map_err(|source| {
            self.unwritten.add(lost);
            SpoolError::Write { directory: self.directory.clone().unwrap_or_default(), source }
        })?;
        self.worked();
        self.write_unwritten();
        self.report();
        Ok(sequence)
    }

    fn write_part(&mut self, part: &Part, limits: &PartLimits) -> io::Result<u64> {
        self.close_if_large();
        self.ensure_writer()?;
        // Not before: the header of a new segment names earlier parts only.
        self.high_water_s = self.high_water_s.max(part.key.round.start_s());
        let wire = self.encoder.encode(part, limits);
        let message = wire.encode_to_vec();
        let bytes = segment::frame_bytes(message.len() + size_of::<u64>()) as u64;
        let twice = segment::brings_ids(&wire) && bytes <= self.limits.bytes_max / TWICE_SHARE;
        self.make_room(if twice { 2 * bytes } else { bytes });
        self.put(ENTRY, &message, twice, Some(reading::rounds_of(&wire)))
    }

    /// Reports lost rounds: on disk and synced, or in memory while the disk fails.
    pub(super) fn report_gap(&mut self, gap: v1::Gap) {
        self.look_after_files();
        self.unwritten.add(gap);
        if self.locked.is_none() {
            return;
        }
        self.close_if_large();
        self.write_lost();
    }

    /// Writes the gaps of lost rounds, if the disk accepts them.
    pub(super) fn write_lost(&mut self) {
        if self.ensure_writer().is_ok() {
            self.write_unwritten();
        }
        self.report();
    }

    fn write_unwritten(&mut self) {
        while let Some(gap) = self.unwritten.first() {
            if self.put_gap(&gap).is_err() {
                return;
            }
            self.unwritten.forget_first();
        }
        for number in std::mem::take(&mut self.settled) {
            // If this is lost, the gap is reported once more.
            self.put_frame(ACK, &number.to_le_bytes(), false, false).ok();
        }
        self.worked();
    }

    /// Reports damage as gaps, with the next write.
    pub(super) fn lose(&mut self, lost: Lost) {
        for rounds in &lost.rounds {
            tracing::error!(
                from = utc(rounds.first_s),
                to = utc(rounds.end_s),
                "spool damage lost parts of about these rounds; reported as a gap"
            );
            self.unwritten.add(gaps::of_rounds(*rounds, Reason::SpoolFull));
        }
        counter!("uptime_spool_parts_damaged_total").increment(lost.numbers.len() as u64);
        self.settled.extend(lost.numbers);
    }

    /// These numbers of a segment cannot be read. Returns whether any of them waited.
    pub(super) fn give_up_damaged(
        &mut self,
        number: u64,
        lost: Vec<(u64, Option<Rounds>)>,
    ) -> bool {
        let Some(held) = self.segments.get(&number) else {
            return false;
        };
        let of_segment = held.rounds;
        let waits = |(sequence, _): &(u64, Option<Rounds>)| held.waiting.contains(*sequence);
        let lost: Vec<_> = lost.into_iter().filter(waits).collect();
        if lost.is_empty() {
            return false;
        }
        for rounds in lost.iter().filter_map(|(_, rounds)| rounds.or(of_segment)) {
            self.unwritten.add(gaps::of_rounds(rounds, Reason::SpoolFull));
        }
        counter!("uptime_spool_parts_damaged_total").increment(lost.len() as u64);
        let (file, count) = (segment::name(number), lost.len());
        tracing::error!(file, count, "damaged parts cannot be sent; reported as a gap");
        if self.ensure_writer().is_ok() {
            self.write_unwritten();
        }
        // After the gap, which must not be missing.
        lost.iter().for_each(|(sequence, _)| self.acknowledge(*sequence));
        true
    }

    fn put_gap(&mut self, gap: &v1::Gap) -> io::Result<u64> {
        self.put(GAP, &gap.encode_to_vec(), false, reading::gap_rounds(gap))
    }

    /// Writes an entry or a gap, synced, to the open segment.
    fn put(
        &mut self,
        kind: u8,
        message: &[u8],
        twice: bool,
        rounds: Option<Rounds>,
    ) -> io::Result<u64> {
        let sequence = self.next_sequence;
        if sequence > segment::SEQUENCE_MAX {
            return Err(io::Error::other("no sequence number is left"));
        }
        // Never used again, even if the write fails: part of it may be on disk.
        self.next_sequence = self.next_sequence.saturating_add(1);
        let mut body = sequence.to_le_bytes().to_vec();
        body.extend(message);
        self.put_frame(kind, &body, twice, true)?;
        if let Some(rounds) = rounds {
            self.waiting_since_s = match self.waiting() {
                0 => rounds.first_s,
                _ => self.waiting_since_s.min(rounds.first_s),
            };
        }
        if let Some(number) = self.writer.as_ref().map(Writer::number)
            && let Some(held) = self.segments.get_mut(&number)
        {
            held.has_entries = true;
            held.waiting.insert(sequence);
            if let Some(rounds) = rounds {
                Rounds::join(&mut held.rounds, rounds);
            }
        }
        if let Some(lock) = &self.locked {
            let (high_water_s, waiting_since_s) = (self.high_water_s, self.waiting_since_s);
            lock.write_mark(HighWaterMark { sequence, high_water_s, waiting_since_s });
        }
        self.drop_finished();
        Ok(sequence)
    }

    fn put_frame(&mut self, kind: u8, body: &[u8], twice: bool, sync: bool) -> io::Result<()> {
        let frame = segment::frame(kind, body).inspect_err(|_| {
            // The encoder assumes a frame that is not on disk: begin a new segment.
            self.close_writer();
        })?;
        let Some(writer) = &mut self.writer else {
            return Err(io::Error::other("no segment is open"));
        };
        let mut written = writer.put(&frame);
        if twice {
            written = written.and_then(|()| writer.put(&frame));
        }
        if sync {
            written = written.and_then(|()| writer.sync());
        }
        let (number, bytes) = (writer.number(), writer.bytes());
        if let Some(held) = self.segments.get_mut(&number) {
            held.bytes = bytes;
        }
        written.map_err(|error| {
            // The encoder assumes a frame that is not on disk: begin a new segment.
            self.close_writer();
            self.failed(error)
        })
    }

    fn ensure_writer(&mut self) -> io::Result<()> {
        if self.writer.is_some() {
            return Ok(());
        }
        self.may_try()?;
        let made = match (&self.directory, &self.locked) {
            (Some(directory), Some(_)) if self.switches.disk_takes => {
                let (number, synced) = (self.next_segment, self.switches.synced);
                Writer::create(directory, number, self.high_water_s, synced)
            }
            _ => Err(io::ErrorKind::StorageFull.into()),
        };
        match made {
            Ok(writer) => {
                let held = Held { bytes: writer.bytes(), ..Held::default() };
                self.segments.insert(writer.number(), held);
                self.next_segment = writer.number() + 1;
                self.writer = Some(writer);
                self.encoder = Encoder::default();
                Ok(())
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::AlreadyExists {
                    self.next_segment += 1;
                }
                Err(self.failed(error))
            }
        }
    }

    fn close_if_large(&mut self) {
        let idle = self.segments.values().all(|held| held.waiting.is_empty());
        let most = if idle { SEGMENT_BYTES_IDLE } else { SEGMENT_BYTES_MAX };
        let most = most.min(self.limits.bytes_max / SEGMENT_SHARE);
        if self.writer.as_ref().is_some_and(|writer| writer.bytes() >= most) {
            self.close_writer();
        }
    }

    /// Writes no more to this segment.
    pub(super) fn leave(&mut self, number: u64) {
        if self.writer.as_ref().is_some_and(|writer| writer.number() == number) {
            self.close_writer();
        }
    }

    fn close_writer(&mut self) {
        self.encoder = Encoder::default();
        let Some(writer) = self.writer.take() else {
            return;
        };
        // A full disk must not fill up with headers.
        if writer.is_empty()
            && let Some(directory) = &self.directory
            && std::fs::remove_file(segment::path(directory, writer.number())).is_ok()
        {
            self.segments.remove(&writer.number());
            self.next_segment = writer.number();
        }
    }

    // === going ===

    /// The aggregator has stored this entry, or has refused it for good.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        self.look_after_files();
        if !self.segments.values_mut().any(|held| held.waiting.remove(sequence)) {
            return;
        }
        // Not synced: an acknowledgement lost to a power cut costs one duplicate.
        let written = self
            .ensure_writer()
            .and_then(|()| self.put_frame(ACK, &sequence.to_le_bytes(), false, false));
        if let Err(error) = written {
            tracing::debug!(%error, "cannot write an acknowledgement; the part may be sent again");
        }
        self.drop_finished();
        self.report();
    }

    /// Deletes closed segments without waiting entries, oldest first: a later segment may hold the
    /// acknowledgements of an earlier one. The last one with entries stays until a newer one has
    /// some, for its keys and acknowledgements.
    pub(super) fn drop_finished(&mut self) {
        let open = self.writer.as_ref().map(Writer::number);
        while self.segments.values().skip(1).any(|held| held.has_entries)
            && let Some((&oldest, held)) = self.segments.first_key_value()
            && Some(oldest) != open
            && held.waiting.is_empty()
        {
            self.delete(oldest);
        }
    }

    fn delete(&mut self, number: u64) {
        let (Some(held), Some(directory)) = (self.segments.remove(&number), &self.directory) else {
            return;
        };
        let path = segment::path(directory, number);
        let gone = if held.damage.count > 0 {
            quarantine::add(&path, self.limits.bytes_max).map(|_| ())
        } else {
            std::fs::remove_file(&path)
        };
        if let Err(error) = gone {
            tracing::warn!(%error, path = %path.display(), "cannot remove a finished segment");
        }
    }

    /// Drops the oldest segments while there is no room for `bytes` more, or they are too old.
    fn make_room(&mut self, bytes: u64) {
        let Some(directory) = self.directory.clone() else {
            return;
        };
        // Only a confirmed clock decides what is too old.
        let old_s = self.now_s.map_or(0, |now_s| now_s.saturating_sub(self.limits.age_max_s));
        while let Some((number, held)) = self.segments.first_key_value()
            && self.writer.as_ref().is_some_and(|writer| writer.number() != *number)
        {
            let (number, too_old) =
                (*number, held.rounds.is_some_and(|rounds| rounds.last_s < old_s));
            let held: u64 = self.segments.values().map(|held| held.bytes).sum();
            let total = held + quarantine::bytes(&directory) + bytes;
            let too_many = total > self.limits.bytes_max;
            if too_many && quarantine::remove_oldest(&directory) {
                continue;
            }
            if !(too_old || too_many) || !self.give_up(number) {
                return;
            }
        }
    }

    /// Drops a segment after writing gaps for what it held. Returns whether it did: without gaps it
    /// stays.
    fn give_up(&mut self, number: u64) -> bool {
        let (Some(directory), Some(held)) = (&self.directory, self.segments.get(&number)) else {
            return false;
        };
        if held.waiting.is_empty() {
            self.delete(number);
            return true;
        }
        let lost = held.waiting.len();
        let mut given_up = given_up(&segment::path(directory, number), held);
        tracing::error!(
            lost,
            segment = number,
            first = held.rounds.map(|rounds| utc(rounds.first_s)),
            last = held.rounds.map(|rounds| utc(rounds.last_s)),
            "the spool is full or its parts are too old; the oldest are dropped"
        );
        while let Some(gap) = given_up.first() {
            if self.put_gap(&gap).is_err() {
                return false;
            }
            given_up.forget_first();
        }
        counter!("uptime_spool_parts_dropped_total").increment(lost);
        self.delete(number);
        true
    }

    /// Reading found a damaged stretch.
    pub(super) fn damaged(&mut self, number: u64, stretch: Stretch) {
        let Some(held) = self.segments.get_mut(&number) else {
            return;
        };
        if held.damage.note(stretch) {
            counter!("uptime_spool_damaged_stretches_total").increment(1);
            if held.damage.stretches.contains(&stretch) {
                log_stretch(&segment::name(number), stretch);
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    pub(super) fn report(&self) {
        let bytes: u64 = self.segments.values().map(|held| held.bytes).sum();
        let waiting = self.waiting();
        self.told_waiting.store(waiting, Ordering::Relaxed);
        gauge!("uptime_spool_bytes").set(bytes as f64);
        gauge!("uptime_spool_parts_waiting").set(waiting as f64);
    }
}

/// Logs a damaged stretch.
pub(super) fn log_stretch(file: &str, stretch: Stretch) {
    let Stretch { offset, length } = stretch;
    tracing::error!(file, offset, length, "spool damage; only the damaged records are lost");
}

/// What still waits in a segment, as gaps. If that is unreadable: all its rounds.
fn given_up(path: &std::path::Path, held: &Held) -> Gaps {
    let mut gaps = Gaps::default();
    let mut found = 0;
    let read = reading::contents(path, |met| match met {
        Met::Frame { number, .. } if !held.waiting.contains(number) => {}
        Met::Frame { kind: ENTRY, rounds: Some(rounds), .. } => {
            found += 1;
            gaps.add(gaps::of_rounds(rounds, Reason::SpoolFull));
        }
        Met::Frame { kind: GAP, rest, .. } => {
            if let Ok(waiting) = v1::Gap::decode(rest) {
                found += 1;
                gaps.add(waiting);
            }
        }
        _ => {}
    });
    if (read.is_err() || found < held.waiting.len())
        && let Some(rounds) = held.rounds
    {
        gaps.add(gaps::of_rounds(rounds, Reason::SpoolFull));
    }
    gaps
}
