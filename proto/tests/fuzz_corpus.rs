//! The fuzz targets over their corpus; see `fuzz/targets.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::{Path, PathBuf};

use prost::Message;
use uptime_proto::convert::{Encoder, PartLimits, part_to_plain, runs, samples_to_compact};
use uptime_proto::{
    Class, Epoch, Kind, NodeId, Outcome, Part, PartKey, Period, Reason, Round, Sample, Sets, v1,
};
use uptime_testkit::corpus;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn part(round: u64, kind: Kind, groups: &[(Class, std::ops::Range<u8>)]) -> Part {
    let round = Round::new(round * 30, Period::new(30).unwrap()).unwrap();
    let sets = groups.iter().fold(Sets::default(), |sets, (class, ids)| {
        sets.with(*class, ids.clone().map(|byte| NodeId::new([byte; 20])).collect())
    });
    let subnet = if kind == Kind::Market { "public".to_owned() } else { String::new() };
    Part {
        key: PartKey { subnet, round, number: 0 },
        kind,
        outcome: Outcome::Looked,
        observed_at_ms: round.start_ms() + 21_000,
        relay_session_age_s: Some(600),
        sets,
    }
}

/// Two rounds of a probe, and a third in which it could not look.
fn parts() -> Vec<Part> {
    let lookup = |round, seen, gone| {
        part(round, Kind::Lookup, &[(Class::Seen, seen), (Class::Unreachable, gone)])
    };
    let mut failed = lookup(3, 0..0, 0..0);
    failed.outcome = Outcome::CouldNotLook(Reason::NetError);
    failed.relay_session_age_s = None;
    vec![
        part(1, Kind::Market, &[(Class::Offer, 0..12)]),
        lookup(1, 0..8, 8..12),
        part(2, Kind::Market, &[(Class::Offer, 0..13)]),
        lookup(2, 2..9, 9..13),
        failed,
    ]
}

fn stream(mut encoder: Encoder) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts() {
        let wire = encoder.encode(&part, &PartLimits::default()).encode_to_vec();
        bytes.extend(u16::try_from(wire.len()).unwrap().to_le_bytes());
        bytes.extend(wire);
    }
    bytes
}

/// A part and samples of its nodes and of others, in the compact form and in the plain one.
fn report() -> v1::Report {
    let (mut encoder, limits) = (Encoder::for_stream(), PartLimits::default());
    let part = encoder.encode(&parts()[1], &limits);
    let of = |byte| Sample::new(NodeId::new([byte; 20]), 30);
    let age = |byte, age_s: i32| Sample { seen_age_ms: Some(age_s * 1_000), ..of(byte) };
    let samples = [
        Sample { tcp_round_trip_us: Some(7_000), udp_round_trip_us: Some(6_500), ..of(2) },
        Sample { tcp_round_trip_us: Some(80_000), ..of(5) },
        age(8, 25),
        age(9, 61),
        age(200, 40),
        Sample { answered_in_ms: Some(130), ..age(11, 33) },
    ];
    let plain = v1::Sample {
        node_id: vec![3; 20].into(),
        round_unix_s: 30,
        answered_in_ms: Some(15),
        ..v1::Sample::default()
    };
    v1::Report {
        report_id: 7,
        parts: vec![part],
        samples: vec![plain],
        compact_samples: samples_to_compact(&samples, &encoder).into(),
        ..v1::Report::default()
    }
}

fn set(limit: u32, runs: &[std::ops::Range<u32>]) -> Vec<u8> {
    [limit.to_le_bytes().to_vec(), runs::encode(runs.iter().cloned())].concat()
}

#[test]
fn the_corpus_is_fresh() {
    let epoch = Epoch::with_defaults(Period::new(30).unwrap());
    let mut files = vec![
        ("epoch", "defaults", v1::Epoch::from(&epoch).encode_to_vec()),
        ("node_id", "lower", b"0x85f06344fde97d390e87b0840b0325212f26eba7".to_vec()),
        ("node_id", "upper", b"0X85F06344FDE97D390E87B0840B0325212F26EBA7".to_vec()),
        ("node_id", "bytes", vec![7; 40]),
        ("part_stream", "connection", stream(Encoder::for_stream())),
        ("part_stream", "file", stream(Encoder::default())),
        ("samples", "report", report().encode_to_vec()),
        ("runs", "scattered", set(10_000, &[7..8, 700..701, 1_234..1_236, 9_999..10_000])),
        ("runs", "one_run", set(10_000, std::slice::from_ref(&(0..10_000)))),
        ("runs", "runs", set(u32::MAX, &[5..900, 1_000..70_000, 80_000..80_100])),
        ("runs", "bitmap", set(24, &[0..1, 2..3, 4..6, 7..8, 9..10, 11..13, 15..16, 18..20])),
    ];
    for (name, part) in
        ["market_1", "lookup_1", "market_2", "lookup_2", "failed"].iter().zip(parts())
    {
        files.push(("part_plain", name, part_to_plain(&part).encode_to_vec()));
    }
    corpus::hold_to(&directory(), &files);
}

#[test]
fn the_manifest_has_every_target() {
    corpus::hold_manifest_to(&directory(), targets::TARGETS);
}

#[test]
fn targets_stand_their_corpus_and_changes_of_it() {
    for name in targets::TARGETS.iter().map(|(name, _)| name) {
        // By name, as the fuzzer calls them.
        targets::run(name, b"");
    }
    corpus::run(&directory(), targets::TARGETS);
}
