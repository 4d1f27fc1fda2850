//! Samples over the wire and back, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::convert::{PartLimits, part_from_wire};
use crate::{Class, Kind, Outcome, Part, PartKey, Period, Round, Sets};

const ROUND_S: u64 = 1_800_000_000;

fn id(number: u16) -> NodeId {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    NodeId::new(bytes)
}

/// Both ends of a stream on which these nodes have a number.
fn stream(numbered: impl IntoIterator<Item = u16>) -> (Encoder, Decoder) {
    let round = Round::new(ROUND_S, Period::new(30).unwrap()).unwrap();
    let part = Part {
        key: PartKey { subnet: String::new(), round, number: 0 },
        kind: Kind::Lookup,
        outcome: Outcome::Looked,
        observed_at_ms: round.start_ms(),
        relay_session_age_s: None,
        sets: Sets::default().with(Class::Seen, numbered.into_iter().map(id).collect()),
    };
    let (mut encoder, mut decoder) = (Encoder::for_stream(), Decoder::default());
    let wire = encoder.encode(&part, &PartLimits::default());
    part_from_wire(&wire, Some(&mut decoder), &PartLimits::default()).unwrap();
    (encoder, decoder)
}

fn report(samples: &[Sample], encoder: &Encoder) -> v1::Report {
    let compact_samples = samples_to_compact(samples, encoder);
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
            ..Sample::new(id(node), round * 30)
        }
    }
}

proptest! {
    /// Whether their nodes have numbers or not.
    #[test]
    fn what_is_told_comes_back(given in prop::collection::vec(samples(), 0..60)) {
        let (encoder, decoder) = stream(10..30);
        let report = report(&given, &encoder);
        let mut back = samples_from_wire(&report, Some(&decoder)).unwrap();
        let key = |sample: &Sample| (sample.round_start_s, shape(sample), sample.node);
        // The later one of two counts.
        let wanted: BTreeMap<_, Sample> = given
            .iter()
            .filter(|sample| shape(sample) != Shape::default())
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
            given.into_iter().filter(|sample| shape(sample) != Shape::default()).collect();
        prop_assert_eq!(samples_from_wire(&report, None).unwrap(), wanted);
    }
}

#[test]
fn a_round_of_a_large_network_takes_few_bytes() {
    let (encoder, _) = stream(0..10_000);
    let ping = |at: u16| Sample {
        tcp_round_trip_us: Some(5_000 + u32::from(at) * 7_919 % 120_000),
        udp_round_trip_us: Some(4_000 + u32::from(at) * 7_919 % 120_000),
        ..Sample::new(id(at * 411), ROUND_S)
    };
    let suspect = |at: u16| Sample {
        seen_age_ms: Some(20_000 + i32::from(at) * 4_000),
        ..Sample::new(id(1 + at * 1_500), ROUND_S)
    };
    let of = |samples: &[Sample]| report(samples, &encoder).encoded_len();
    let pings: Vec<Sample> = (0..24).map(ping).collect();
    let suspects: Vec<Sample> = (0..6).map(suspect).collect();
    // Two bytes and a bit for a node and a time, or two.
    assert!(of(&pings) <= 85, "{}", of(&pings));
    assert!(of(&suspects) <= 31, "{}", of(&suspects));
    let all = [pings, suspects].concat();
    let plain = all.len() * 37;
    assert!(of(&all) <= 110 && plain > 1_000, "{}", of(&all));
}

fn refused(report: &v1::Report, decoder: Option<&Decoder>) -> RefusalReason {
    samples_from_wire(report, decoder).unwrap_err().reason
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (encoder, decoder) = stream(0..3_000);
    let age = |node| Sample { seen_age_ms: Some(30_000), ..Sample::new(id(node), ROUND_S) };
    let good = report(&[age(1), age(2), age(5_000)], &encoder);
    assert_eq!(samples_from_wire(&good, Some(&decoder)).unwrap().len(), 3);
    assert_eq!(refused(&good, None), RefusalReason::CompactNotAllowed);
    let with = |change: fn(&mut v1::CompactSamples)| {
        let mut report = good.clone();
        change(&mut report.compact_samples[0]);
        refused(&report, Some(&decoder))
    };
    assert_eq!(with(|it| it.round_unix_s = 0), RefusalReason::FieldMissing);
    assert_eq!(with(|it| it.node_ids = vec![1; 19].into()), RefusalReason::MalformedNodeId);
    assert_eq!(with(|it| it.nodes = vec![1; 20].into()), RefusalReason::Resync);
    assert_eq!(with(|it| it.seen_age_s = vec![0; 6].into()), RefusalReason::Resync);
    assert_eq!(with(|it| it.answered_in_ms = vec![255; 3].into()), RefusalReason::Resync);
    // Numbers that this stream does not have.
    let (_, other) = stream(0..2);
    assert_eq!(refused(&good, Some(&other)), RefusalReason::Resync);
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
    let mut two = full.clone();
    two.compact_samples.extend(of(0..1).compact_samples);
    assert_eq!(refused(&two, Some(&decoder)), too_many);
    let plain = v1::Report { samples: vec![v1::Sample::default(); 2_001], ..two };
    assert_eq!(refused(&plain, None), too_many);
}
