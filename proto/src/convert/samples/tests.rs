//! Samples over the wire and back, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;
use crate::convert::{PartLimits, part_from_wire};
use crate::{Class, Kind, Outcome, Part, PartKey, Period, Round, Sets};

const ROUND_S: u64 = 1_800_000_000;

fn id(number: u16) -> NodeId {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    NodeId::new(bytes)
}

fn part(round: u64, seen: &[u16], unreachable: &[u16]) -> Part {
    let round = Round::new(ROUND_S + round * 30, Period::new(30).unwrap()).unwrap();
    let ids = |numbers: &[u16]| numbers.iter().map(|number| id(*number)).collect();
    Part {
        key: PartKey { subnet: String::new(), round, number: 0 },
        kind: Kind::Lookup,
        outcome: Outcome::Looked,
        observed_at_ms: round.start_ms(),
        relay_session_age_s: None,
        sets: Sets::default()
            .with(Class::Seen, ids(seen))
            .with(Class::Unreachable, ids(unreachable)),
    }
}

fn pass(part: &Part, encoder: &mut Encoder, decoder: &mut Decoder) {
    let wire = encoder.encode(part, &PartLimits::default());
    part_from_wire(&wire, Some(decoder), &PartLimits::default()).unwrap();
}

/// Both ends of a stream on which these nodes have a number. In the last round one in three of them
/// was seen and one in seven, and none of those, was not.
fn stream(numbered: std::ops::Range<u16>) -> (Encoder, Decoder) {
    let (mut encoder, mut decoder) = (Encoder::for_stream(), Decoder::default());
    let all: Vec<u16> = numbered.collect();
    pass(&part(0, &all, &[]), &mut encoder, &mut decoder);
    let (seen, rest): (Vec<u16>, Vec<u16>) = all.iter().partition(|it| **it % 3 == 0);
    let unreachable: Vec<u16> = rest.into_iter().filter(|it| it % 7 == 0).collect();
    pass(&part(1, &seen, &unreachable), &mut encoder, &mut decoder);
    (encoder, decoder)
}

fn report(samples: &[Sample], encoder: &Encoder) -> v1::Report {
    let compact_samples = samples_to_compact(samples, encoder).into();
    v1::Report { compact_samples, ..v1::Report::default() }
}

/// As it is told: in seconds and steps.
fn told(sample: &Sample) -> Sample {
    let stepped = |value: Option<u32>| value.and_then(|value| of_step(step(value)));
    Sample {
        seen_age_ms: sample.seen_age_ms.map(|age_ms| rounded_s(age_ms).saturating_mul(1_000)),
        answered_in_ms: stepped(sample.answered_in_ms),
        tcp_round_trip_us: stepped(sample.tcp_round_trip_us),
        udp_round_trip_us: stepped(sample.udp_round_trip_us),
        ..*sample
    }
}

prop_compose! {
    fn samples()(
        node in 0u16..40,
        round in 1u64..4,
        seen_age_ms in prop::option::of(-2_000..700_000i32),
        answered_in_ms in prop::option::of(0..4_000u32),
        tcp_round_trip_us in prop::option::of(any::<u32>()),
        udp_round_trip_us in prop::option::of(0..400_000u32),
    ) -> Sample {
        Sample {
            seen_age_ms,
            answered_in_ms,
            tcp_round_trip_us,
            udp_round_trip_us,
            ..Sample::new(id(node), ROUND_S + round * 30)
        }
    }
}

proptest! {
    /// Whether their nodes have numbers or not.
    #[test]
    fn what_is_told_comes_back(given in prop::collection::vec(samples(), 0..60)) {
        let (encoder, decoder) = stream(5..30);
        let report = report(&given, &encoder);
        let mut back = samples_from_wire(&report, Some(&decoder)).unwrap();
        let key = |sample: &Sample| (sample.round_start_s, kinds(sample), sample.node);
        // The later one of two counts.
        let wanted: BTreeMap<_, Sample> = given
            .iter()
            .filter(|sample| kinds(sample) != Kinds::default())
            .map(|sample| (key(sample), told(sample)))
            .collect();
        back.sort_by_key(key);
        prop_assert_eq!(back, wanted.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn the_plain_form_says_the_same(given in prop::collection::vec(samples(), 0..20)) {
        let plain = |sample: &Sample| v1::Sample {
            node_id: sample.node.as_bytes().to_vec().into(),
            round_unix_s: sample.round_start_s,
            seen_age_ms: sample.seen_age_ms,
            answered_in_ms: sample.answered_in_ms,
            tcp_round_trip_us: sample.tcp_round_trip_us,
            udp_round_trip_us: sample.udp_round_trip_us,
        };
        let samples = given.iter().map(plain).collect();
        let report = v1::Report { samples, ..v1::Report::default() };
        let wanted: Vec<Sample> =
            given.into_iter().filter(|sample| kinds(sample) != Kinds::default()).collect();
        prop_assert_eq!(samples_from_wire(&report, None).unwrap(), wanted);
    }
}

#[test]
fn a_round_of_a_large_network_takes_few_bytes() {
    let (encoder, decoder) = stream(0..10_000);
    let round_s = ROUND_S + 30;
    // Twenty-four of those seen that follow each other, six of the unreachable from all over.
    let ping = |at: u16| Sample {
        tcp_round_trip_us: Some(5_000 + u32::from(at) * 7_919 % 120_000),
        udp_round_trip_us: Some(4_700 + u32::from(at) * 7_919 % 120_000),
        ..Sample::new(id(3_000 + at * 3), round_s)
    };
    let suspect = |at: u16| Sample {
        seen_age_ms: Some(20_000 + i32::from(at) * 4_000),
        ..Sample::new(id(7 + at * 1_470), round_s)
    };
    let of = |samples: &[Sample]| {
        let report = report(samples, &encoder);
        assert_eq!(samples_from_wire(&report, Some(&decoder)).unwrap().len(), samples.len());
        report.compact_samples.len()
    };
    let pings: Vec<Sample> = (0..24).map(ping).collect();
    let suspects: Vec<Sample> = (0..6).map(suspect).collect();
    assert!(of(&pings) <= 34, "{}", of(&pings));
    assert!(of(&suspects) <= 17, "{}", of(&suspects));
    // Of another round, and with one whose node has no number and one that was not seen.
    let mut odd = pings.clone();
    odd.push(Sample { node: id(1), ..odd[0] });
    odd.push(Sample { node: id(20_000), ..odd[0] });
    odd.iter_mut().for_each(|sample| sample.round_start_s -= 30);
    assert!(of(&odd) <= 34 + 60, "{}", of(&odd));
}

fn refused(report: &v1::Report, decoder: Option<&Decoder>) -> RefusalReason {
    samples_from_wire(report, decoder).unwrap_err().reason
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (mut encoder, mut decoder) = stream(0..3_000);
    let age =
        |node, round_s| Sample { seen_age_ms: Some(30_000), ..Sample::new(id(node), round_s) };
    let good = report(&[age(1, ROUND_S), age(7, ROUND_S + 30), age(5_000, ROUND_S)], &encoder);
    assert_eq!(samples_from_wire(&good, Some(&decoder)).unwrap().len(), 3);
    assert_eq!(refused(&good, None), RefusalReason::CompactNotAllowed);
    let bytes = good.compact_samples.to_vec();
    let with = |bytes: &[u8]| v1::Report {
        compact_samples: bytes.to_vec().into(),
        ..v1::Report::default()
    };
    let resync = RefusalReason::Resync;
    for cut in 1..bytes.len() {
        assert_eq!(refused(&with(&bytes[..cut]), Some(&decoder)), resync, "{cut}");
    }
    assert_eq!(refused(&with(&[&bytes[..], &[0]].concat()), Some(&decoder)), resync);
    // Numbers that this stream does not have; a round that it has not told of.
    let (_, few) = stream(0..2);
    assert_eq!(refused(&good, Some(&few)), resync);
    let of_last_part = report(&[age(7, ROUND_S + 30)], &encoder);
    assert_eq!(refused(&of_last_part, Some(&Decoder::default())), resync);
    // A part that expanded to another one: among whom the nodes stand is not known any more.
    let mut wire = encoder.encode(&part(2, &[3], &[7]), &PartLimits::default());
    if let Some(v1::part::Evidence::Compact(compact)) = &mut wire.evidence {
        compact.digest_prefix = vec![0; 4].into();
    }
    part_from_wire(&wire, Some(&mut decoder), &PartLimits::default()).unwrap_err();
    pass(&part(3, &[3], &[7]), &mut encoder, &mut decoder);
    assert_eq!(refused(&report(&[age(7, ROUND_S + 90)], &encoder), Some(&decoder)), resync);

    let plain = |id: &[u8], round_unix_s| v1::Report {
        samples: vec![v1::Sample {
            node_id: id.to_vec().into(),
            round_unix_s,
            seen_age_ms: Some(1),
            ..v1::Sample::default()
        }],
        ..v1::Report::default()
    };
    assert_eq!(refused(&plain(&[1; 19], ROUND_S), None), RefusalReason::MalformedNodeId);
    assert_eq!(refused(&plain(&[1; 20], 0), None), RefusalReason::FieldMissing);
}

#[test]
fn a_report_has_so_many_samples_at_most() {
    let (encoder, decoder) = stream(0..3_000);
    let age = |node| Sample { seen_age_ms: Some(30_000), ..Sample::new(id(node), ROUND_S) };
    let most = u16::try_from(SAMPLES_PER_REPORT_MAX).unwrap();
    let of = |nodes: std::ops::Range<u16>| report(&nodes.map(age).collect::<Vec<_>>(), &encoder);
    let full = of(0..most);
    assert_eq!(samples_from_wire(&full, Some(&decoder)).unwrap().len(), usize::from(most));
    let too_many = RefusalReason::TooManyObservations;
    assert_eq!(refused(&of(0..most + 1), Some(&decoder)), too_many);
    // With ids of their own, over two groups, and in the plain form.
    assert_eq!(refused(&of(4_000..4_001 + most), Some(&decoder)), too_many);
    assert_eq!(refused(&of(3_000 - most..3_001), Some(&decoder)), too_many);
    let plain = v1::Report { samples: vec![v1::Sample::default(); 2_001], ..full };
    assert_eq!(refused(&plain, None), too_many);
}

#[test]
fn the_format_is_fixed() {
    let (encoder, decoder) = stream(0..40);
    let of = |node, round_s| Sample::new(id(node), round_s);
    let samples = [
        Sample {
            tcp_round_trip_us: Some(7_000),
            udp_round_trip_us: Some(6_500),
            ..of(3, ROUND_S + 30)
        },
        Sample { tcp_round_trip_us: Some(80_000), ..of(6, ROUND_S + 30) },
        Sample { seen_age_ms: Some(25_000), ..of(7, ROUND_S + 30) },
        Sample { seen_age_ms: Some(61_000), ..of(28, ROUND_S + 30) },
        Sample { answered_in_ms: Some(130), ..of(5, ROUND_S) },
    ];
    let bytes = samples_to_compact(&samples, &encoder);
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, "c01ad2748011306c01c01ad274878a903de141b030692c086c870180");
    let report = v1::Report { compact_samples: bytes.into(), ..v1::Report::default() };
    assert_eq!(samples_from_wire(&report, Some(&decoder)).unwrap().len(), samples.len());
}
