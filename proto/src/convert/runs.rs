//! Sets of small numbers as bits in memory and as few bytes on the wire and on disk.
//!
//! Owns the one coding of sets of the project. Refuses numbers from a limit on that the caller
//! states, and bytes that no writer would have made.
//!
//! Format. The empty set has no bytes. Any other set begins with a byte whose lower five bits are
//! the parameter `p`; the bit 32 says that runs are coded and a second byte follows, the parameter
//! `q`, below 32. The rest is a string of bits, the highest of a byte first, filled up with fewer
//! than eight zeros. In it, a value `v` under a parameter `p` is written as `v >> p` zeros, a one,
//! and the lower `p` bits of `v`, the highest first (a Rice code). Without runs there is one value
//! for each member: under `p`, how many numbers lie between it and the member before it. With
//! runs there are two for each run of members: under `p`, how many numbers lie between it and the
//! run before it, less the one that always does; under `q`, its length less one. The first of
//! either kind counts from zero, with nothing taken off.
//!
//! A set may be written in several ways and is read from any; the writer takes the shortest.
//! Without runs and with `p` = 0 the bits are the set's bitmap, so no set takes more than its
//! bitmap and a byte. Forty random numbers below 10,000 take some fifty bytes, all of these numbers
//! four.

use std::ops::Range;

/// The first byte says so where runs are coded.
const RUNS: u8 = 32;
/// Parameters are below this: a value has 32 bits.
pub(super) const PARAMETER_END: u8 = 32;

/// A set of numbers as a bit string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

/// The bytes are no coding of a set, or name a number beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytes that code no set of numbers below the limit")]
pub struct BadRuns;

/// Codes the set of the numbers in ascending runs that do not touch.
pub fn encode(runs: impl IntoIterator<Item = Range<u32>>) -> Vec<u8> {
    let mut end_before = None;
    // Each run as how many numbers lie before it and how many follow its first.
    let runs: Vec<(u32, u32)> = runs
        .into_iter()
        .map(|run| {
            let between = run.start - end_before.unwrap_or(0);
            debug_assert!(run.start < run.end && (between > 0 || end_before.is_none()));
            end_before = Some(run.end);
            (between, run.end - run.start - 1)
        })
        .collect();
    if runs.is_empty() {
        return Vec::new();
    }
    let members = runs.iter().map(|(_, more)| u64::from(*more) + 1).sum();
    let count = runs.len() as u64;
    let (each, each_bits) = parameter(members, || runs.iter().map(|(between, _)| *between));
    let (gap, gap_bits) = parameter(count, || gaps(&runs));
    let (length, length_bits) = parameter(count, || runs.iter().map(|(_, more)| *more));
    let mut out = BitWriter::default();
    if each_bits <= gap_bits + length_bits + 8 {
        out.bytes.push(each);
        for (between, more) in &runs {
            out.value(*between, each);
            (0..*more).for_each(|_| out.value(0, each));
        }
    } else {
        out.bytes.extend([RUNS | gap, length]);
        for (between, (_, more)) in gaps(&runs).zip(&runs) {
            out.value(between, gap);
            out.value(*more, length);
        }
    }
    out.finish()
}

/// How many numbers lie before each run, less the one that lies between any two.
fn gaps(runs: &[(u32, u32)]) -> impl Iterator<Item = u32> + '_ {
    let one = std::iter::once(0).chain(std::iter::repeat(1));
    runs.iter().zip(one).map(|((between, _), one)| between - one)
}

/// The parameter under which the values take the fewest bits, and these bits. There may be fewer
/// values than `count`: the others are zero.
pub(super) fn parameter<I: Iterator<Item = u32>>(count: u64, values: impl Fn() -> I) -> (u8, u64) {
    let cost = |parameter: u8| {
        let zeros: u64 = values().map(|value| u64::from(value >> parameter)).sum();
        zeros + count * (u64::from(parameter) + 1)
    };
    let sum: u64 = values().map(u64::from).sum();
    let guess = (sum / count.max(1)).checked_ilog2().unwrap_or(0);
    let mut best = u8::try_from(guess).unwrap_or(0).min(PARAMETER_END - 1);
    let mut bits = cost(best);
    // The cost has one valley: what raising the parameter saves never grows with it.
    while best + 1 < PARAMETER_END && cost(best + 1) < bits {
        best += 1;
        bits = cost(best);
    }
    while best > 0 && cost(best - 1) <= bits {
        best -= 1;
        bits = cost(best);
    }
    (best, bits)
}

/// The runs of a coded set: ascending, none empty, none touching, all below `limit`. Ends after
/// the first error. Takes no memory, and time for at most as many values as there are bits.
pub fn decode(bytes: &[u8], limit: u32) -> impl Iterator<Item = Result<Range<u32>, BadRuns>> + '_ {
    let mut values = Values::new(bytes, limit);
    let mut ahead = values.next();
    std::iter::from_fn(move || {
        let mut run = match ahead.take()? {
            Ok(run) => run,
            Err(bad) => return Some(Err(bad)),
        };
        loop {
            ahead = values.next();
            match &ahead {
                Some(Ok(next)) if next.start == run.end => run.end = next.end,
                _ => return Some(Ok(run)),
            }
        }
    })
}

/// The members, or runs, of a coded set as they stand there.
struct Values<'a> {
    bits: BitReader<'a>,
    parameter: u8,
    /// Where runs are coded: the parameter of their lengths.
    length: Option<u8>,
    limit: u32,
    /// Numbers below this are behind us; `None` before the first value.
    behind: Option<u32>,
    ended: bool,
}

impl<'a> Values<'a> {
    fn new(bytes: &'a [u8], limit: u32) -> Self {
        let bits = BitReader::new(bytes);
        let ended = bytes.is_empty();
        Self { bits, parameter: 0, length: None, limit, behind: None, ended }
    }

    fn read_head(&mut self) -> Result<(), BadRuns> {
        let first = self.bits.byte()?;
        self.parameter = first & !RUNS;
        if first & RUNS != 0 {
            self.length = Some(self.bits.byte()?);
        }
        let fits = self.parameter < PARAMETER_END && self.length.unwrap_or(0) < PARAMETER_END;
        if fits { Ok(()) } else { Err(BadRuns) }
    }

    fn read(&mut self) -> Result<Option<Range<u32>>, BadRuns> {
        let Some(behind) = self.behind else {
            self.read_head()?;
            return self.read_from(0).map(Some);
        };
        if self.bits.only_filling() {
            return Ok(None);
        }
        let between = u32::from(self.length.is_some());
        self.read_from(behind.checked_add(between).ok_or(BadRuns)?).map(Some)
    }

    fn read_from(&mut self, behind: u32) -> Result<Range<u32>, BadRuns> {
        let start = behind.checked_add(self.bits.value(self.parameter)?).ok_or(BadRuns)?;
        let more = self.length.map_or(Ok(0), |length| self.bits.value(length))?;
        let end = start.checked_add(more).and_then(|last| last.checked_add(1));
        let end = end.filter(|end| *end <= self.limit).ok_or(BadRuns)?;
        self.behind = Some(end);
        Ok(start..end)
    }
}

impl Iterator for Values<'_> {
    type Item = Result<Range<u32>, BadRuns>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let read = self.read();
        self.ended = !matches!(read, Ok(Some(_)));
        read.transpose()
    }
}

#[derive(Default)]
pub(super) struct BitWriter {
    pub(super) bytes: Vec<u8>,
    /// The bits that do not make a byte yet, in the lower places.
    word: u64,
    filled: u32,
}

impl BitWriter {
    pub(super) fn value(&mut self, value: u32, parameter: u8) {
        let mut zeros = value >> parameter;
        while zeros >= 32 {
            self.put(0, 32);
            zeros -= 32;
        }
        self.put(1, zeros + 1);
        self.put(u64::from(value) & ((1 << parameter) - 1), u32::from(parameter));
    }

    /// Appends a number of at most 32 bits, above which it is zero.
    pub(super) fn put(&mut self, value: u64, width: u32) {
        self.word = self.word << width | value;
        self.filled += width;
        while self.filled >= 8 {
            self.filled -= 8;
            self.bytes.push((self.word >> self.filled).to_le_bytes()[0]);
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.put(0, 8 - self.filled);
        }
        self.bytes
    }
}

pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits that were read.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// At least so many of a window's bits are read from the bytes or lie beyond their end.
    const WINDOW: u32 = 57;

    /// The bits from here on, the highest first; zeros beyond the end.
    fn window(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = rest.first_chunk::<8>().copied().unwrap_or_else(|| {
            let mut word = [0; 8];
            word.iter_mut().zip(rest).for_each(|(into, byte)| *into = *byte);
            word
        });
        u64::from_be_bytes(word) << (self.at % 8)
    }

    fn left(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.at)
    }

    pub(super) fn byte(&mut self) -> Result<u8, BadRuns> {
        let byte = self.window().to_be_bytes()[0];
        self.pass(8)?;
        Ok(byte)
    }

    /// The number in the next bits, at most 32 of them.
    pub(super) fn bits(&mut self, width: u32) -> Result<u32, BadRuns> {
        // Shifted twice, since a shift by all 64 bits is none.
        let bits = self.window() >> 32 >> (32 - width.min(32));
        self.pass(width)?;
        u32::try_from(bits).map_err(|_| BadRuns)
    }

    fn pass(&mut self, bits: u32) -> Result<(), BadRuns> {
        let bits = bits as usize;
        if bits > self.left() {
            return Err(BadRuns);
        }
        self.at += bits;
        Ok(())
    }

    /// Whether nothing follows but the zeros that fill the last byte.
    pub(super) fn only_filling(&self) -> bool {
        self.left() < 8 && self.window() == 0
    }

    pub(super) fn value(&mut self, parameter: u8) -> Result<u32, BadRuns> {
        let mut high = 0;
        loop {
            let zeros = self.window().leading_zeros();
            if zeros < Self::WINDOW {
                high += u64::from(zeros);
                self.pass(zeros + 1)?;
                break;
            }
            high += u64::from(Self::WINDOW);
            self.pass(Self::WINDOW)?;
        }
        if high > u64::from(u32::MAX >> parameter) {
            return Err(BadRuns);
        }
        // Shifted twice, since a shift by all 64 bits is none.
        let low = self.window() >> 1 >> (63 - u32::from(parameter));
        self.pass(u32::from(parameter))?;
        u32::try_from(high << parameter | low).map_err(|_| BadRuns)
    }
}

impl Bits {
    pub(super) fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    pub(super) fn insert(&mut self, number: u32) {
        *self.word(number) |= 1 << (number % 64);
    }

    fn word(&mut self, number: u32) -> &mut u64 {
        let index = number as usize / 64;
        if index >= self.0.len() {
            self.0.resize(index + 1, 0);
        }
        &mut self.0[index]
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The numbers in one of the two but not in both.
    pub(super) fn symmetric_difference(&self, other: &Self) -> Self {
        let longest = self.0.len().max(other.0.len());
        let word = |bits: &Self, index: usize| bits.0.get(index).copied().unwrap_or(0);
        Self((0..longest).map(|index| word(self, index) ^ word(other, index)).collect())
    }

    /// Adds the numbers of another set.
    pub(super) fn join(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
    }

    /// The numbers, ascending.
    pub(super) fn members(&self) -> impl Iterator<Item = u32> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let member = self.next_where(from, true)?;
            from = member + 1;
            Some(member)
        })
    }

    /// The set, coded.
    pub(super) fn to_runs(&self) -> Vec<u8> {
        let mut from = 0;
        encode(std::iter::from_fn(|| {
            let start = self.next_where(from, true)?;
            from = self.next_where(start, false).unwrap_or_else(|| self.bit_length());
            Some(start..from)
        }))
    }

    /// Flips the membership of every number of a coded set.
    pub(super) fn toggle_runs(&mut self, bytes: &[u8], limit: u32) -> Result<(), BadRuns> {
        for run in decode(bytes, limit) {
            let run = run?;
            self.toggle(run.start, run.end);
        }
        Ok(())
    }

    fn toggle(&mut self, start: u32, end: u32) {
        let mut at = start;
        while at < end {
            let in_word = 64 - at % 64;
            let width = in_word.min(end - at);
            let mask = if width == 64 { u64::MAX } else { ((1 << width) - 1) << (at % 64) };
            *self.word(at) ^= mask;
            at += width;
        }
    }

    fn bit_length(&self) -> u32 {
        u32::try_from(self.0.len() * 64).unwrap_or(u32::MAX)
    }

    /// The first number from `from` on that is (not) a member.
    fn next_where(&self, from: u32, member: bool) -> Option<u32> {
        let mut index = from as usize / 64;
        let mut mask = u64::MAX << (from % 64);
        while let Some(word) = self.0.get(index) {
            let candidates = if member { *word } else { !*word } & mask;
            if candidates != 0 {
                let base = u32::try_from(index * 64).ok()?;
                return Some(base + candidates.trailing_zeros());
            }
            mask = u64::MAX;
            index += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests;
