//! The coding of sets: what it means, what it costs, what it refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::single_range_in_vec_init, reason = "a set of one run is meant")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// The members of a set as runs.
fn runs(set: &BTreeSet<u32>) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for number in set {
        match runs.last_mut() {
            Some(run) if run.end == *number => run.end += 1,
            _ => runs.push(*number..*number + 1),
        }
    }
    runs
}

fn bits(set: &BTreeSet<u32>) -> Bits {
    let mut bits = Bits::default();
    set.iter().for_each(|number| bits.insert(*number));
    bits
}

fn read(bytes: &[u8], limit: u32) -> Result<Vec<Range<u32>>, BadRuns> {
    decode(bytes, limit).collect()
}

/// Sets of every density, scattered or in stretches.
fn sets(end: u32) -> impl Strategy<Value = BTreeSet<u32>> {
    let scattered = prop::collection::btree_set(0..end, 0..300);
    let stretches = prop::collection::vec((0..end, 1u32..200), 0..20).prop_map(move |stretches| {
        let all = stretches.into_iter().flat_map(|(start, count)| start..(start + count));
        all.filter(|number| *number < end).collect()
    });
    prop_oneof![scattered, stretches]
}

proptest! {
    #[test]
    fn a_set_comes_back(
        set in prop_oneof![sets(40), sets(500), sets(100_000), sets(u32::MAX - 1)],
    ) {
        let coded = encode(runs(&set));
        let limit = set.last().map_or(0, |last| last + 1);
        prop_assert_eq!(read(&coded, limit), Ok(runs(&set)));
        // Nothing may be cut off, and nothing but the last number's limit is too small.
        if limit > 0 {
            prop_assert!(read(&coded, limit - 1).is_err());
            prop_assert_ne!(read(&coded[..coded.len() - 1], limit), Ok(runs(&set)));
        }
    }

    #[test]
    fn a_set_takes_no_more_than_its_bitmap_and_a_byte(set in sets(3_000)) {
        let bitmap = set.last().map_or(0, |last| *last as usize / 8 + 1);
        let coded = encode(runs(&set));
        prop_assert!(coded.len() <= bitmap + 1, "{} bytes, bitmap {bitmap}", coded.len());
    }

    #[test]
    fn the_parameter_is_the_best_there_is(
        values in prop::collection::vec(prop_oneof![0u32..4, 0u32..1_000, any::<u32>()], 1..50),
    ) {
        let cost = |parameter: u8| -> u64 {
            let zeros: u64 = values.iter().map(|value| u64::from(value >> parameter)).sum();
            zeros + values.len() as u64 * (u64::from(parameter) + 1)
        };
        let (_, bits) = parameter(values.len() as u64, || values.iter().copied());
        prop_assert_eq!(Some(bits), (0..PARAMETER_END).map(cost).min());
    }

    #[test]
    fn sets_of_bits_mean_what_plain_sets_mean(first in sets(500), second in sets(500)) {
        let difference = bits(&first).symmetric_difference(&bits(&second));
        let mut back = bits(&first);
        back.toggle_runs(&difference.to_runs(), 500).unwrap();
        for number in 0..500 {
            prop_assert_eq!(back.contains(number), second.contains(&number));
        }
        prop_assert_eq!(back.count(), second.len());
    }

    /// What is read from any bytes is a set below the limit, of runs that do not touch, and can be
    /// coded again.
    #[test]
    fn any_bytes_are_a_set_or_none(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0u8), 0u8..64], 0..60),
        limit in prop_oneof![Just(0u32), 1u32..100, 0u32..10_000, Just(u32::MAX)],
    ) {
        let mut most = bytes.len() * 8 + 1;
        for run in decode(&bytes, limit) {
            most -= 1;
            prop_assert!(most > 0, "more runs than bits");
            let Ok(run) = run else { break };
            prop_assert!(run.start < run.end && run.end <= limit);
        }
        if let Ok(read_once) = read(&bytes, limit) {
            prop_assert!(read_once.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(read_once.is_empty(), bytes.is_empty());
            prop_assert_eq!(read(&encode(read_once.iter().cloned()), limit), Ok(read_once));
        }
        let mut bits = Bits::default();
        // So many bits take at most this, whatever the bytes say.
        if limit <= 10_000 && bits.toggle_runs(&bytes, limit).is_ok() {
            prop_assert!(bits.0.capacity() <= 2 * 10_000 / 64 + 8);
            prop_assert!(bits.count() <= limit as usize);
        }
    }
}

/// A change here means that spools, stores and probes of before are no longer understood.
#[test]
fn the_format_is_fixed() {
    let golden: [(&[Range<u32>], &str); 10] = [
        (&[], ""),
        (&[0..1], "0080"),
        (&[9..10], "0228"),
        (&[0..10_000], "200c970f"),
        (&[5..6, 9..11, 30..31], "025f0380"),
        (&[0..3, 9..10], "00e040"),
        (&[100..2_000, 2_001..9_000], "250b127b5c02d580"),
        (&[70..71, 333..334, 4_096..4_097], "0a88d4186b20"),
        (&[0..1, 2..3, 4..5, 6..7, 8..9], "00aa80"),
        (&[4_294_967_294..4_294_967_295], "1f7fffffff00"),
    ];
    let mut told = Vec::new();
    for (runs, hex) in golden {
        let coded = encode(runs.iter().cloned());
        let got: String = coded.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(read(&coded, u32::MAX).as_deref(), Ok(runs));
        if got != hex {
            told.push(format!("{runs:?}: {got}, not {hex}"));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn what_sets_cost() {
    // As the head of the file says.
    assert!(encode(std::iter::once(0..10_000)).len() <= 4);
    let scattered: Vec<Range<u32>> =
        (0..40u32).map(|at| at * 250 + at * 97 % 200).map(|number| number..number + 1).collect();
    assert!(encode(scattered).len() <= 52);
    let half = (0..10_000u32).filter(|number| number.wrapping_mul(2_654_435_761) >> 31 == 0);
    assert!(encode(runs(&half.collect())).len() <= 1_251);
}

#[test]
fn what_no_writer_makes_is_refused() {
    assert_eq!(read(&[], 0), Ok(vec![]));
    // A bitmap of the numbers 0 and 7.
    assert_eq!(read(&[0, 0b1000_0001], 8), Ok(vec![0..1, 7..8]));
    let bad: [(&str, &[u8]); 11] = [
        ("a head and no members", &[0]),
        ("a head and filling", &[0, 0]),
        ("a whole byte of filling", &[0, 0b1000_0001, 0]),
        ("nine bits of filling", &[0, 0b1000_0000, 0b0000_0000]),
        ("a number beyond the limit", &[0, 0, 0b1000_0000]),
        ("a bit that means nothing", &[64, 0b1000_0001]),
        ("another one", &[128, 0b1000_0001]),
        ("runs without their parameter", &[RUNS]),
        ("a parameter too large", &[RUNS, 32, 0b1100_0000]),
        ("a run without its length", &[RUNS, 0, 0b1000_0000]),
        ("lower bits cut off", &[5, 0b0000_0001]),
    ];
    for (what, bytes) in bad {
        assert!(read(bytes, 8).is_err(), "{what}");
    }
    // A run up to the limit, one beyond it, and one beyond all numbers.
    assert_eq!(read(&[RUNS, 3, 0b1110_0000], 5), Ok(vec![0..5]));
    assert_eq!(read(&[RUNS, 3, 0b1110_0000], 4), Err(BadRuns));
    assert_eq!(read(&[RUNS, 31, 0b1011_1111, 0xff, 0xff, 0xff, 0xc0], u32::MAX), Err(BadRuns));
    // A long string of zeros is a number too large, not a long wait.
    assert_eq!(read(&[31; 1 << 16], u32::MAX), Err(BadRuns));
    assert_eq!(read(&[&[3], [0; 1 << 16].as_slice()].concat(), u32::MAX), Err(BadRuns));
}
