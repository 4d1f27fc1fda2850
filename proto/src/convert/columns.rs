//! Columns of values as few bits: what samples say of many nodes.
//!
//! Owns the coding of single numbers and of lists of values of which some may be missing, and the
//! steps that times are told in. Refuses bits that no writer would have made.
//!
//! Format, on top of the Rice code of `runs.rs`. A **count** `n`, at least one, is as many zeros as
//! it has bits after the highest, then its bits. A **whole number** `v` is six bits, how many
//! follow, and these: `2v`, or `-2v-1` where `v` is negative. A **column** of so many places is a
//! bit, one where some values are missing; in that case a bit for each place, one if its value is
//! there; and, if any is, the least value as a whole number, five bits for the parameter `p`, and
//! of each value in turn how much more than the least it is, in the Rice code under `p`.

use super::runs::{BadRuns, BitReader, BitWriter, PARAMETER_END, parameter};

/// A doubling has so many steps, as a power of two: none is off by more than an eighth, which is
/// less than what round trips differ by from one ping to the next.
const STEPS_PER_DOUBLING_BITS: u32 = 2;
/// Bits that say how many follow: 0 to 32.
const WIDTH_BITS: u32 = 6;
/// Bits of a parameter.
const PARAMETER_BITS: u32 = 5;

pub(super) fn put_count(out: &mut BitWriter, count: u32) {
    let more = count.max(1).ilog2();
    out.put(0, more);
    out.put(u64::from(count.max(1)), more + 1);
}

pub(super) fn count(bits: &mut BitReader<'_>) -> Result<u32, BadRuns> {
    let mut more = 0;
    while bits.bits(1)? == 0 {
        more += 1;
        if more >= u32::BITS {
            return Err(BadRuns);
        }
    }
    Ok(1 << more | bits.bits(more)?)
}

fn put_whole(out: &mut BitWriter, value: i32) {
    let folded = (value << 1 ^ value >> 31).cast_unsigned();
    let width = u32::BITS - folded.leading_zeros();
    out.put(u64::from(width), WIDTH_BITS);
    out.put(u64::from(folded), width);
}

fn whole(bits: &mut BitReader<'_>) -> Result<i32, BadRuns> {
    let width = bits.bits(WIDTH_BITS)?;
    if width > u32::BITS {
        return Err(BadRuns);
    }
    let folded = bits.bits(width)?;
    Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
}

/// Puts a list of numbers under their best parameter.
pub(super) fn put_list(out: &mut BitWriter, values: &[u32]) {
    let (parameter, _) = parameter(values.len() as u64, || values.iter().copied());
    out.put(u64::from(parameter), PARAMETER_BITS);
    values.iter().for_each(|value| out.value(*value, parameter));
}

/// So many numbers.
pub(super) fn list(bits: &mut BitReader<'_>, count: usize) -> Result<Vec<u32>, BadRuns> {
    let parameter = u8::try_from(bits.bits(PARAMETER_BITS)?).map_err(|_| BadRuns)?;
    debug_assert!(parameter < PARAMETER_END);
    (0..count).map(|_| bits.value(parameter)).collect()
}

/// Puts a column.
pub(super) fn put_column(out: &mut BitWriter, values: &[Option<i32>]) {
    let some_missing = values.iter().any(Option::is_none);
    out.put(u64::from(some_missing), 1);
    if some_missing {
        values.iter().for_each(|value| out.put(u64::from(value.is_some()), 1));
    }
    let there: Vec<i32> = values.iter().flatten().copied().collect();
    if let Some(least) = there.iter().min().copied() {
        put_whole(out, least);
        put_list(out, &there.iter().map(|value| value.abs_diff(least)).collect::<Vec<_>>());
    }
}

/// A column of so many places.
pub(super) fn column(bits: &mut BitReader<'_>, places: usize) -> Result<Vec<Option<i32>>, BadRuns> {
    let some_missing = bits.bits(1)? == 1;
    let is_there: Vec<bool> = match some_missing {
        true => (0..places).map(|_| Ok(bits.bits(1)? == 1)).collect::<Result<_, _>>()?,
        false => vec![true; places],
    };
    let count = is_there.iter().filter(|is_there| **is_there).count();
    if count == 0 {
        return Ok(vec![None; places]);
    }
    let least = whole(bits)?;
    let mut more = list(bits, count)?.into_iter();
    let mut value = |is_there: bool| {
        let Some(more) = is_there.then(|| more.next()).flatten() else {
            return Ok(None);
        };
        least.checked_add_unsigned(more).map(Some).ok_or(BadRuns)
    };
    is_there.into_iter().map(&mut value).collect()
}

/// The step that stands for a number: numbers below eight are their own, and from there on each
/// doubling has four.
pub(super) fn step(value: u32) -> i32 {
    if value < 1 << (STEPS_PER_DOUBLING_BITS + 1) {
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
    let value = u64::from(mantissa).checked_shl(shift).filter(|_| shift < u32::BITS)?;
    Some(u32::try_from(value).unwrap_or(u32::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coded(put: impl FnOnce(&mut BitWriter)) -> Vec<u8> {
        let mut out = BitWriter::default();
        put(&mut out);
        out.finish()
    }

    proptest! {
        #[test]
        fn columns_and_counts_come_back(
            first in prop::collection::vec(prop::option::of(any::<i32>()), 0..40),
            second in prop::collection::vec(prop::option::of(-5..600i32), 1..80),
            number in 1..=u32::MAX,
        ) {
            let bytes = coded(|out| {
                put_column(out, &first);
                put_count(out, number);
                put_column(out, &second);
            });
            let mut bits = BitReader::new(&bytes);
            prop_assert_eq!(column(&mut bits, first.len()).unwrap(), first);
            prop_assert_eq!(count(&mut bits).unwrap(), number);
            prop_assert_eq!(column(&mut bits, second.len()).unwrap(), second);
            prop_assert!(bits.only_filling());
        }

        #[test]
        fn no_bytes_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            places in 0usize..90,
        ) {
            let mut bits = BitReader::new(&bytes);
            if let Ok(values) = column(&mut bits, places) {
                prop_assert_eq!(values.len(), places);
            }
            count(&mut bits).ok();
        }

        #[test]
        fn a_step_is_no_more_than_an_eighth_off(value in any::<u32>(), small in 0u32..5_000) {
            for value in [value, small] {
                let back = of_step(step(value)).unwrap();
                prop_assert!(back.abs_diff(value) <= value / 8, "{value} {back}");
                prop_assert_eq!(step(back), step(value), "what was rounded stays as it is");
            }
        }
    }

    #[test]
    fn the_format_is_fixed() {
        // No value is missing; 25 is six bits, 110010; the parameter 0; one value of nothing more.
        assert_eq!(
            coded(|out| put_column(out, &[Some(25)])),
            [0b0000_1101, 0b1001_0000, 0b0010_0000]
        );
        // One of two is missing; -1 is one bit.
        assert_eq!(coded(|out| put_column(out, &[None, Some(-1)])), [0b1010_0000, 0b1100_0001]);
        assert_eq!(coded(|out| put_column(out, &[None])), [0b1000_0000]);
        assert_eq!(coded(|out| put_count(out, 5)), [0b0010_1000]);
    }

    #[test]
    fn steps() {
        let told = |value| of_step(step(value)).unwrap();
        for (value, back) in [(0, 0), (7, 7), (8, 8), (9, 10), (100, 96), (7_000, 7_168)] {
            assert_eq!(told(value), back, "{value}");
        }
        assert_eq!(told(u32::MAX), u32::MAX);
        assert_eq!(of_step(-1), None);
        assert_eq!(of_step(10_000), None);
    }
}
