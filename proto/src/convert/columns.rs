//! Columns of small numbers as few bytes: what samples say of many nodes.
//!
//! Owns the coding of a list of values of which some may be missing, and the steps that times are
//! told in. Refuses bytes that no writer would have made.
//!
//! Format. A column in which every value is missing has no bytes. Any other begins with a byte: its
//! lower five bits are the parameter `p`, the bit 32 says that some values are missing. The rest is
//! a string of bits, the highest of a byte first, filled up with fewer than eight zeros. It begins
//! with the least value `v`: six bits say how many follow, and these are `2v`, or `-2v-1` where `v`
//! is negative. Then, for each place: where some are missing, a bit, one if this value is there;
//! and, if it is, how much more it is than the least, in the Rice code of `runs.rs` under `p`.

use super::runs::{BadRuns, BitReader, BitWriter, PARAMETER_END, parameter};

/// The first byte says so where values are missing.
const MISSING: u8 = 32;
/// Steps to a doubling: no step is more than a sixteenth of what it stands for.
const STEPS_PER_DOUBLING_BITS: u32 = 3;

/// Codes a column.
pub(super) fn encode(values: &[Option<i32>]) -> Vec<u8> {
    let Some(least) = values.iter().flatten().min().copied() else {
        return Vec::new();
    };
    let there = || values.iter().flatten().map(|value| value.abs_diff(least));
    let (parameter, _) = parameter(there().count() as u64, there);
    let some_missing = values.iter().any(Option::is_none);
    let mut out = BitWriter::default();
    out.bytes.push(parameter | if some_missing { MISSING } else { 0 });
    let folded = (least << 1 ^ least >> 31).cast_unsigned();
    let width = u32::BITS - folded.leading_zeros();
    out.put(u64::from(width), 6);
    out.put(u64::from(folded), width);
    for value in values {
        if some_missing {
            out.put(u64::from(value.is_some()), 1);
        }
        if let Some(value) = value {
            out.value(value.abs_diff(least), parameter);
        }
    }
    out.finish()
}

/// The values of a coded column, exactly `count` of them.
pub(super) fn decode(bytes: &[u8], count: usize) -> Result<Vec<Option<i32>>, BadRuns> {
    if bytes.is_empty() {
        return Ok(vec![None; count]);
    }
    let mut bits = BitReader::new(bytes);
    let first = bits.byte()?;
    let (parameter, some_missing) = (first & !MISSING, first & MISSING != 0);
    if parameter >= PARAMETER_END {
        return Err(BadRuns);
    }
    let width = bits.bits(6)?;
    if width > u32::BITS {
        return Err(BadRuns);
    }
    let folded = bits.bits(width)?;
    let least = (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed();
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let is_there = !some_missing || bits.bits(1)? == 1;
        let value = is_there.then(|| bits.value(parameter)).transpose()?;
        let value = value.map(|more| least.checked_add_unsigned(more).ok_or(BadRuns));
        values.push(value.transpose()?);
    }
    if bits.only_filling() { Ok(values) } else { Err(BadRuns) }
}

/// The step that stands for a number: numbers below sixteen are their own, and from there on each
/// doubling has eight.
pub(super) fn step(value: u32) -> i32 {
    let below = 1 << (STEPS_PER_DOUBLING_BITS + 1);
    if value < below {
        return value.cast_signed();
    }
    let shift = value.ilog2() - STEPS_PER_DOUBLING_BITS;
    // Rounded; what rounds up to the next doubling is its first step.
    let mantissa = (u64::from(value) + (1 << (shift - 1))) >> shift;
    let step = (u64::from(shift) << STEPS_PER_DOUBLING_BITS) + mantissa;
    i32::try_from(step).unwrap_or(i32::MAX)
}

/// The number that a step stands for; `None` for one beyond all numbers.
pub(super) fn of_step(step: i32) -> Option<u32> {
    let step = u32::try_from(step).ok()?;
    if step < 1 << (STEPS_PER_DOUBLING_BITS + 1) {
        return Some(step);
    }
    let shift = (step >> STEPS_PER_DOUBLING_BITS) - 1;
    let mantissa = step - (shift << STEPS_PER_DOUBLING_BITS);
    let value = u64::from(mantissa).checked_shl(shift).filter(|_| shift < 32)?;
    Some(u32::try_from(value).unwrap_or(u32::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_column_comes_back(
            values in prop::collection::vec(prop::option::of(prop_oneof![any::<i32>(), -5..600i32]), 0..80),
        ) {
            let coded = encode(&values);
            prop_assert_eq!(decode(&coded, values.len()).unwrap(), values.clone());
            // One more is never read out of it.
            if !coded.is_empty() {
                prop_assert!(decode(&coded, values.len() + 8).is_err());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 0usize..90) {
            if let Ok(values) = decode(&bytes, count) {
                prop_assert_eq!(values.len(), count);
            }
        }

        #[test]
        fn a_step_is_no_more_than_a_sixteenth_off(value in any::<u32>(), small in 0u32..5_000) {
            for value in [value, small] {
                let back = of_step(step(value)).unwrap();
                prop_assert!(back.abs_diff(value) <= value / 16, "{value} {back}");
                prop_assert_eq!(step(back), step(value), "what was rounded stays as it is");
            }
        }
    }

    #[test]
    fn the_format_is_fixed() {
        assert_eq!(encode(&[None, None]), Vec::<u8>::new());
        assert_eq!(encode(&[Some(25)]), [0, 27, 40]);
        let ages = [Some(25), Some(40), None, Some(31)];
        assert_eq!(encode(&ages), [34, 27, 44, 142, 176]);
        assert_eq!(encode(&[Some(-1), Some(0)]), [0, 7, 64]);
    }

    #[test]
    fn steps() {
        let told = |value| of_step(step(value)).unwrap();
        for (value, back) in [(0, 0), (15, 15), (16, 16), (17, 18), (100, 104), (7_000, 7_168)] {
            assert_eq!(told(value), back, "{value}");
        }
        assert_eq!(told(u32::MAX), u32::MAX);
        assert_eq!(of_step(-1), None);
        assert_eq!(of_step(10_000), None);
    }
}
