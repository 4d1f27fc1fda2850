//! How the parts of a closed day look on disk, compacted.
//!
//! Owns the format, versions 1 and 2. A segment holds the parts of a span of time, each key once,
//! column by column, because neighbours in a column are alike. Refuses whatever does not read back
//! whole.
//!
//! Layout, integers little-endian, `varint` as in protobuf, `zigzag` for signed ones:
//! * version (u8); start of the span in seconds (u64); then the head and the columns, each as
//!   plain length (varint), compressed length (varint) and a zstd frame;
//! * CRC-32 (u32) of everything before it.
//!
//! The head: number of slots, then for each its subnet, period, probe, part number, number of
//! parts, the usual `observed` and `received` (zigzag), and its length in each column. A slot is
//! what has one subnet, period, probe and part number; slots ascend by these, parts in them by
//! round.
//!
//! The columns, by the numbers of [`Column`]; per part, if nothing else is said:
//! * `Rounds`: rounds left out before it, counted from the start of the span (varint);
//! * `Forms`: kind, plus 16 when the age of the relay session is known (byte);
//! * `Reasons`: 0 looked, else why it could not (varint);
//! * `Observed…`: milliseconds from the round's start less the usual; `Received…`: milliseconds
//!   from observed less the usual; as zigzag, lowest byte here, the rest (varint) there;
//! * `Ages`: where known, seconds less those expected from the part before (zigzag varint);
//! * `Offer`, `Seen`, `Answered`, `Unreachable`: how many ranges of node numbers differ from what
//!   was expected (varint);
//! * `Failed`, `AskedEarlier`: the same; only in version 2, which is written where one of them is
//!   not empty, and as the last columns there;
//! * `Gaps…`, per range: numbers between it and the range before in its set, lowest byte here, the
//!   rest (varint) there; `Lengths`, per range: its length less one (varint).
//!
//! Expected of a set is what it was, a node that differed twice in a row having changed: one miss
//! costs one range, not two. Digests are left out: they follow from the content, and the store
//! keeps the sum of those of a day beside its segments.

use std::collections::BTreeMap;

use prost::encoding::{decode_varint, encode_varint};
use roaring::RoaringBitmap;
use uptime_accounting::fact::{Fact, FactKey};
use uptime_proto::{CLASSES, FIRST_CLASSES, Kind, Outcome, Period, Reason, Round};

use super::blob::ranges;
use super::error::StoreError;

/// Without the columns of [`Column::Failed`] and [`Column::AskedEarlier`].
const FIRST_VERSION: u8 = 1;
const VERSION: u8 = 2;
const HEAD_BYTES: usize = 9;
/// Compaction happens once a day and is small: the strongest level that needs no large tables.
const LEVEL: i32 = 19;
/// No column of a segment is longer than this, whatever it says of itself.
const COLUMN_BYTES_MAX: usize = 256 * 1024 * 1024;
const AGE_KNOWN: u8 = 16;
/// Node numbers are below this: a hundred times the network this is made for, and few enough that
/// nonsense cannot fill the memory.
const NODE_NUMBERS_MAX: u64 = 1 << 27;

#[derive(Debug, Clone, Copy)]
#[repr(usize)]
enum Column {
    Rounds,
    Forms,
    Reasons,
    ObservedLow,
    ObservedHigh,
    ReceivedLow,
    ReceivedHigh,
    Ages,
    Offer,
    Seen,
    Answered,
    Unreachable,
    GapsLow,
    GapsHigh,
    Lengths,
    Failed,
    AskedEarlier,
}

const COLUMNS: usize = 17;
const FIRST_COLUMNS: usize = Column::Failed as usize;
const SETS: [Column; CLASSES] = [
    Column::Offer,
    Column::Seen,
    Column::Answered,
    Column::Unreachable,
    Column::Failed,
    Column::AskedEarlier,
];

type Sets = [RoaringBitmap; CLASSES];
type Slot = (u32, u32, u32, u16);

/// Why bytes are no segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SegmentError {
    #[error("the checksum does not match: the bytes were damaged on disk")]
    Checksum,
    #[error("written in version {0} of the format, this program reads versions 1 and 2")]
    Version(u8),
    #[error("the layout is not that of its version")]
    Layout,
}

fn zigzag(value: i64) -> u64 {
    (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// What is expected of the next part of a slot, the same on both sides.
#[derive(Debug, Default)]
struct Expected {
    /// Ordinal of its round: start by period.
    next_ordinal: u64,
    sets: Sets,
    /// Where the last part differed.
    differed: Sets,
    /// Round start and age of the last part whose age was known.
    age: Option<(u64, u32)>,
}

impl Expected {
    fn new(from_s: u64, period_s: u32) -> Self {
        Self { next_ordinal: from_s / u64::from(period_s.max(1)), ..Self::default() }
    }

    /// Takes note of a set that differed here; answers the set as it is.
    fn learn(&mut self, class: usize, differs: RoaringBitmap) {
        let changed = &differs & &self.differed[class];
        self.sets[class] ^= &changed;
        self.differed[class] = differs;
    }

    fn age_s(&self, start_s: u64) -> i64 {
        self.age.map_or(0, |(then_s, age_s)| {
            let elapsed = i64::try_from(start_s.saturating_sub(then_s)).unwrap_or(0);
            i64::from(age_s).saturating_add(elapsed)
        })
    }
}

/// What is written of one slot.
#[derive(Debug, Default)]
struct Written {
    expected: Expected,
    parts: u64,
    observed_ms: Vec<i64>,
    received_ms: Vec<i64>,
    columns: [Vec<u8>; COLUMNS],
}

impl Written {
    fn byte(&mut self, column: Column, byte: u8) {
        self.columns[column as usize].push(byte);
    }

    fn number(&mut self, column: Column, number: u64) {
        encode_varint(number, &mut self.columns[column as usize]);
    }

    fn split(&mut self, low: Column, high: Column, number: u64) {
        self.byte(low, number.to_le_bytes()[0]);
        self.number(high, number >> 8);
    }

    fn push(&mut self, fact: &Fact) {
        let round = fact.key.round;
        let ordinal = round.start_s() / u64::from(round.period().seconds());
        self.number(Column::Rounds, ordinal.saturating_sub(self.expected.next_ordinal));
        self.expected.next_ordinal = ordinal + 1;
        let known = if fact.relay_session_age_s.is_some() { AGE_KNOWN } else { 0 };
        self.byte(Column::Forms, (fact.kind.to_wire() as i32).to_le_bytes()[0] | known);
        let reason = match fact.outcome {
            Outcome::Looked => 0,
            Outcome::CouldNotLook(reason) => reason.to_wire() as i32,
        };
        self.number(Column::Reasons, u64::from(reason.unsigned_abs()));
        self.observed_ms.push(fact.observed_at_ms.saturating_sub(round.start_ms()));
        self.received_ms.push(fact.received_at_ms.saturating_sub(fact.observed_at_ms));
        if let Some(age_s) = fact.relay_session_age_s {
            let residual = i64::from(age_s).saturating_sub(self.expected.age_s(round.start_s()));
            self.number(Column::Ages, zigzag(residual));
            self.expected.age = Some((round.start_s(), age_s));
        }
        for (class, set) in fact.sets.iter().enumerate() {
            let differs = set ^ &self.expected.sets[class];
            let (mut count, mut end) = (0, 0);
            for range in ranges(&differs) {
                self.split(Column::GapsLow, Column::GapsHigh, u64::from(range.start - end));
                self.number(Column::Lengths, u64::from(range.end - range.start - 1));
                end = range.end;
                count += 1;
            }
            self.number(SETS[class], count);
            self.expected.learn(class, differs);
        }
        self.parts += 1;
    }

    fn bytes(&self) -> usize {
        self.columns.iter().map(Vec::len).sum()
    }

    /// Writes what could be written only when all was known.
    fn finish(&mut self) -> (i64, i64) {
        let (observed, received) = (usual(&self.observed_ms), usual(&self.received_ms));
        for value in std::mem::take(&mut self.observed_ms) {
            let residual = zigzag(value.wrapping_sub(observed));
            self.split(Column::ObservedLow, Column::ObservedHigh, residual);
        }
        for value in std::mem::take(&mut self.received_ms) {
            let residual = zigzag(value.wrapping_sub(received));
            self.split(Column::ReceivedLow, Column::ReceivedHigh, residual);
        }
        (observed, received)
    }
}

/// The value in the middle.
fn usual(values: &[i64]) -> i64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

fn slot_of(key: &FactKey) -> Slot {
    (key.subnet, key.round.period().seconds(), key.probe, key.number)
}

/// Compacts parts of a span.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    from_s: u64,
    slots: BTreeMap<Slot, Written>,
    /// Whether a part has a class that the first version has no column for.
    has_later_classes: bool,
}

impl SegmentWriter {
    /// For parts of rounds that start at or after this.
    pub(super) fn new(from_s: u64) -> Self {
        Self { from_s, slots: BTreeMap::new(), has_later_classes: false }
    }

    /// Adds a part; within a slot rounds ascend. Answers the bytes it takes, not yet compressed.
    pub(super) fn push(&mut self, fact: &Fact) -> usize {
        self.has_later_classes |= fact.sets.iter().skip(FIRST_CLASSES).any(|set| !set.is_empty());
        let slot = slot_of(&fact.key);
        let expected = Expected::new(self.from_s, slot.1);
        let fresh = || Written { expected, ..Written::default() };
        let written = self.slots.entry(slot).or_insert_with(fresh);
        let before = written.bytes();
        written.push(fact);
        written.bytes() - before
    }

    pub(super) fn finish(self) -> std::io::Result<Vec<u8>> {
        let (version, count) = match self.has_later_classes {
            true => (VERSION, COLUMNS),
            false => (FIRST_VERSION, FIRST_COLUMNS),
        };
        let mut head = Vec::new();
        encode_varint(self.slots.len() as u64, &mut head);
        let mut columns: [Vec<u8>; COLUMNS] = Default::default();
        for ((subnet, period_s, probe, number), mut written) in self.slots {
            let (observed, received) = written.finish();
            for value in [subnet, period_s, probe, u32::from(number)] {
                encode_varint(u64::from(value), &mut head);
            }
            for value in [written.parts, zigzag(observed), zigzag(received)] {
                encode_varint(value, &mut head);
            }
            for (all, column) in columns.iter_mut().zip(&written.columns).take(count) {
                encode_varint(column.len() as u64, &mut head);
                all.extend(column);
            }
        }
        let mut bytes = vec![version];
        bytes.extend(self.from_s.to_le_bytes());
        for column in std::iter::once(&head).chain(columns.iter().take(count)) {
            let compressed = zstd::bulk::compress(column, LEVEL)?;
            encode_varint(column.len() as u64, &mut bytes);
            encode_varint(compressed.len() as u64, &mut bytes);
            bytes.extend(compressed);
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend(checksum.to_le_bytes());
        Ok(bytes)
    }
}

/// What is read of one slot: places in the columns.
#[derive(Debug)]
struct Reading {
    slot: Slot,
    period: Period,
    left: u64,
    observed_ms: i64,
    received_ms: i64,
    expected: Expected,
    /// Where in each column its next value is.
    at: [usize; COLUMNS],
    /// The round of its next part.
    next: Option<Round>,
}

/// A segment being read, its parts in the order of their keys.
#[derive(Debug)]
pub(super) struct SegmentReader {
    /// Those that the segment's version has; the others are empty.
    columns: [Vec<u8>; COLUMNS],
    column_count: usize,
    slots: Vec<Reading>,
}

fn varint(bytes: &mut &[u8]) -> Result<u64, SegmentError> {
    decode_varint(bytes).map_err(|_| SegmentError::Layout)
}

fn narrow<T: TryFrom<u64>>(value: u64) -> Result<T, SegmentError> {
    T::try_from(value).map_err(|_| SegmentError::Layout)
}

fn column(rest: &mut &[u8]) -> Result<Vec<u8>, SegmentError> {
    let plain: usize = narrow(varint(rest)?)?;
    let compressed: usize = narrow(varint(rest)?)?;
    if plain > COLUMN_BYTES_MAX {
        return Err(SegmentError::Layout);
    }
    let (frame, after) = rest.split_at_checked(compressed).ok_or(SegmentError::Layout)?;
    *rest = after;
    let bytes = zstd::bulk::decompress(frame, plain).map_err(|_| SegmentError::Layout)?;
    if bytes.len() == plain { Ok(bytes) } else { Err(SegmentError::Layout) }
}

impl SegmentReader {
    /// Opens a segment.
    pub(super) fn open(bytes: &[u8]) -> Result<Self, SegmentError> {
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(SegmentError::Layout)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(SegmentError::Checksum);
        }
        let (start, mut rest) =
            body.split_first_chunk::<HEAD_BYTES>().ok_or(SegmentError::Layout)?;
        let [version, from_s @ ..] = *start;
        let column_count = match version {
            FIRST_VERSION => FIRST_COLUMNS,
            VERSION => COLUMNS,
            other => return Err(SegmentError::Version(other)),
        };
        let from_s = u64::from_le_bytes(from_s);
        let head = column(&mut rest)?;
        let mut columns: [Vec<u8>; COLUMNS] = Default::default();
        for slot in columns.iter_mut().take(column_count) {
            *slot = column(&mut rest)?;
        }
        if !rest.is_empty() {
            return Err(SegmentError::Layout);
        }
        let mut segment_reader = Self { columns, column_count, slots: Vec::new() };
        segment_reader.read_head(&mut head.as_slice(), from_s)?;
        Ok(segment_reader)
    }

    fn read_head(&mut self, head: &mut &[u8], from_s: u64) -> Result<(), SegmentError> {
        let count = varint(head)?;
        let mut at = [0usize; COLUMNS];
        for _ in 0..count {
            let subnet = narrow(varint(head)?)?;
            let period_s = narrow(varint(head)?)?;
            let slot: Slot = (subnet, period_s, narrow(varint(head)?)?, narrow(varint(head)?)?);
            let period = Period::new(period_s).map_err(|_| SegmentError::Layout)?;
            let left = varint(head)?;
            let (observed_ms, received_ms) = (unzigzag(varint(head)?), unzigzag(varint(head)?));
            let expected = Expected::new(from_s, period_s);
            let reading =
                Reading { slot, period, left, observed_ms, received_ms, expected, at, next: None };
            self.slots.push(reading);
            for (column, place) in self.columns.iter().zip(&mut at).take(self.column_count) {
                let length: usize = narrow(varint(head)?)?;
                *place = place.checked_add(length).ok_or(SegmentError::Layout)?;
                if *place > column.len() {
                    return Err(SegmentError::Layout);
                }
            }
        }
        for index in 0..self.slots.len() {
            self.read_round(index)?;
        }
        if head.is_empty() { Ok(()) } else { Err(SegmentError::Layout) }
    }

    fn byte(&mut self, slot: usize, column: Column) -> Result<u8, SegmentError> {
        let place = &mut self.slots[slot].at[column as usize];
        let byte = self.columns[column as usize].get(*place).ok_or(SegmentError::Layout)?;
        *place += 1;
        Ok(*byte)
    }

    fn number(&mut self, slot: usize, column: Column) -> Result<u64, SegmentError> {
        let place = &mut self.slots[slot].at[column as usize];
        let all = self.columns[column as usize].get(*place..).ok_or(SegmentError::Layout)?;
        let mut rest = all;
        let number = varint(&mut rest)?;
        *place += all.len() - rest.len();
        Ok(number)
    }

    fn split(&mut self, slot: usize, low: Column, high: Column) -> Result<u64, SegmentError> {
        let low = u64::from(self.byte(slot, low)?);
        let high = self.number(slot, high)?;
        if high >> 56 != 0 {
            return Err(SegmentError::Layout);
        }
        Ok(high << 8 | low)
    }

    fn read_round(&mut self, slot: usize) -> Result<(), SegmentError> {
        self.slots[slot].next = None;
        if self.slots[slot].left == 0 {
            return Ok(());
        }
        let left_out = self.number(slot, Column::Rounds)?;
        let reading = &mut self.slots[slot];
        let ordinal = reading.expected.next_ordinal.checked_add(left_out);
        let start_s = ordinal.and_then(|it| it.checked_mul(u64::from(reading.period.seconds())));
        let start_s = start_s.ok_or(SegmentError::Layout)?;
        let round = Round::new(start_s, reading.period).map_err(|_| SegmentError::Layout)?;
        reading.next = Some(round);
        reading.left -= 1;
        Ok(())
    }

    /// The next part, if its round is wanted; `Some(None)` is one that was passed over. `None`:
    /// there are no more.
    pub(super) fn next(
        &mut self,
        wanted: impl Fn(&FactKey) -> bool,
    ) -> Option<Result<(FactKey, Option<Fact>), SegmentError>> {
        let keyed = self.slots.iter().enumerate().filter_map(|(index, reading)| {
            let (subnet, _, probe, number) = reading.slot;
            Some((FactKey { round: reading.next?, subnet, probe, number }, index))
        });
        let (key, index) = keyed.min()?;
        Some(self.read(key, index, wanted(&key)).map(|fact| (key, fact)))
    }

    fn read(
        &mut self,
        key: FactKey,
        slot: usize,
        wanted: bool,
    ) -> Result<Option<Fact>, SegmentError> {
        let form = self.byte(slot, Column::Forms)?;
        let kind =
            Kind::from_wire(i32::from(form & (AGE_KNOWN - 1))).ok_or(SegmentError::Layout)?;
        let outcome = match i32::try_from(self.number(slot, Column::Reasons)?) {
            Ok(0) => Outcome::Looked,
            Ok(reason) => {
                Outcome::CouldNotLook(Reason::from_wire(reason).ok_or(SegmentError::Layout)?)
            }
            Err(_) => return Err(SegmentError::Layout),
        };
        let observed = unzigzag(self.split(slot, Column::ObservedLow, Column::ObservedHigh)?);
        let received = unzigzag(self.split(slot, Column::ReceivedLow, Column::ReceivedHigh)?);
        let mut relay_session_age_s = None;
        if form & AGE_KNOWN != 0 {
            let residual = unzigzag(self.number(slot, Column::Ages)?);
            let expected = &mut self.slots[slot].expected;
            let age_s = expected.age_s(key.round.start_s()).checked_add(residual);
            let age_s = age_s.and_then(|age_s| u32::try_from(age_s).ok());
            let age_s = age_s.ok_or(SegmentError::Layout)?;
            expected.age = Some((key.round.start_s(), age_s));
            relay_session_age_s = Some(age_s);
        }
        let mut sets = Sets::default();
        let classes = if self.column_count == COLUMNS { CLASSES } else { FIRST_CLASSES };
        for (class, set) in sets.iter_mut().enumerate().take(classes) {
            let differs = self.read_ranges(slot, SETS[class])?;
            let expected = &mut self.slots[slot].expected;
            if wanted {
                *set = &expected.sets[class] ^ &differs;
            }
            expected.learn(class, differs);
        }
        let reading = &mut self.slots[slot];
        reading.expected.next_ordinal =
            key.round.start_s() / u64::from(reading.period.seconds()) + 1;
        let observed_at_ms =
            key.round.start_ms().wrapping_add(observed).wrapping_add(reading.observed_ms);
        let received_at_ms =
            observed_at_ms.wrapping_add(received).wrapping_add(reading.received_ms);
        self.read_round(slot)?;
        Ok(wanted.then(|| Fact {
            key,
            kind,
            outcome,
            digest: None,
            observed_at_ms,
            received_at_ms,
            relay_session_age_s,
            sets: std::sync::Arc::new(sets),
        }))
    }

    fn read_ranges(&mut self, slot: usize, count: Column) -> Result<RoaringBitmap, SegmentError> {
        let mut set = RoaringBitmap::new();
        let mut end = 0u64;
        for _ in 0..self.number(slot, count)? {
            let start = end.checked_add(self.split(slot, Column::GapsLow, Column::GapsHigh)?);
            let length = self.number(slot, Column::Lengths)?.checked_add(1);
            let start = start.ok_or(SegmentError::Layout)?;
            end =
                length.and_then(|length| start.checked_add(length)).ok_or(SegmentError::Layout)?;
            if end > NODE_NUMBERS_MAX {
                return Err(SegmentError::Layout);
            }
            set.insert_range(narrow::<u32>(start)?..narrow::<u32>(end)?);
        }
        Ok(set)
    }
}

impl From<SegmentError> for StoreError {
    fn from(error: SegmentError) -> Self {
        Self::Damaged(format!("a compacted day: {error}"))
    }
}

#[cfg(test)]
#[path = "segment/tests.rs"]
mod tests;
