//! Sets of small numbers as bits in memory and as runs on the wire and on disk.
//!
//! Owns the one run coding of the project: varint pairs (numbers skipped since the end of the run
//! before, length of the run less one). Refuses numbers beyond a limit the caller states.

use std::ops::Range;

/// A set of numbers as a bit string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

/// The bytes are no run coding, or name a number beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytes that are no runs of numbers below the limit")]
pub struct BadRuns;

/// Codes ascending runs that do not touch.
pub fn encode(runs: impl IntoIterator<Item = Range<u32>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut end_before = 0;
    for run in runs {
        put_varint(&mut bytes, run.start - end_before);
        put_varint(&mut bytes, run.end - run.start - 1);
        end_before = run.end;
    }
    bytes
}

/// The runs of a coding, ascending, none empty, all below `limit`. Ends after the first error.
pub fn decode(bytes: &[u8], limit: u32) -> impl Iterator<Item = Result<Range<u32>, BadRuns>> + '_ {
    let mut rest = bytes;
    let mut position = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let run = take_run(&mut rest, position, limit);
        match &run {
            Ok(run) => position = run.end,
            Err(BadRuns) => rest = &[],
        }
        Some(run)
    })
}

fn take_run(bytes: &mut &[u8], position: u32, limit: u32) -> Result<Range<u32>, BadRuns> {
    let start = position.checked_add(take_varint(bytes)?).ok_or(BadRuns)?;
    let length = take_varint(bytes)?.checked_add(1).ok_or(BadRuns)?;
    let end = start.checked_add(length).filter(|end| *end <= limit).ok_or(BadRuns)?;
    Ok(start..end)
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

    /// The set as runs.
    pub(super) fn to_runs(&self) -> Vec<u8> {
        let mut from = 0;
        encode(std::iter::from_fn(|| {
            let start = self.next_where(from, true)?;
            from = self.next_where(start, false).unwrap_or_else(|| self.bit_length());
            Some(start..from)
        }))
    }

    /// Flips the membership of every number in the runs.
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

fn put_varint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 0x80 here")]
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u32, BadRuns> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(BadRuns)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| BadRuns);
        }
    }
    Err(BadRuns)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_mean_what_a_plain_set_means(
            first in prop::collection::btree_set(0u32..500, 0..200),
            second in prop::collection::btree_set(0u32..500, 0..200),
        ) {
            let bits = |set: &BTreeSet<u32>| {
                let mut bits = Bits::default();
                set.iter().for_each(|number| bits.insert(*number));
                bits
            };
            let difference = bits(&first).symmetric_difference(&bits(&second));
            let mut back = bits(&first);
            back.toggle_runs(&difference.to_runs(), 500).unwrap();
            for number in 0..500 {
                prop_assert_eq!(back.contains(number), second.contains(&number));
            }
            prop_assert_eq!(back.count(), second.len());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut bits = Bits::default();
            if bits.toggle_runs(&bytes, 1_000).is_ok() {
                prop_assert!(bits.count() <= 1_000);
            }
        }
    }

    #[test]
    fn the_limit_holds() {
        let mut bits = Bits::default();
        assert_eq!(bits.toggle_runs(&[0, 9], 10), Ok(()));
        assert_eq!(bits.toggle_runs(&[0, 10], 10), Err(BadRuns));
        assert_eq!(bits.toggle_runs(&[0x80], 10), Err(BadRuns));
        assert_eq!(bits.toggle_runs(&[0xff, 0xff, 0xff, 0xff, 0xff, 1], 10), Err(BadRuns));
    }
}
