//! What the wire's readers must stand, whatever bytes come.
//!
//! Owns the fuzz targets of this crate. They are run by libFuzzer (see `deploy/fuzz.sh`) and, over
//! the committed corpus and changes of it, by `tests/fuzz_corpus.rs`. A new target is a line in
//! `TARGETS`, a `[[bin]]` in `Cargo.toml` beside this file, a copy of any file in `fuzz_targets`
//! under its name, and a corpus.

use prost::Message;
use uptime_proto::convert::{
    Decoder, Encoder, PartLimits, SAMPLES_PER_REPORT_MAX, part_from_wire, part_to_plain, runs,
    samples_from_wire, samples_to_compact,
};
use uptime_proto::{Epoch, NodeId, v1};

/// A target's name, and what it does with any bytes: it panics where it finds a fault.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target by its name.
pub(crate) const TARGETS: &[Target] = &[
    ("epoch", epoch),
    ("node_id", node_id),
    ("part_plain", part_plain),
    ("part_stream", part_stream),
    ("runs", set_of_numbers),
    ("samples", samples),
];

/// Runs the target of this name.
///
/// # Panics
/// When there is none, and when it finds a fault.
pub(crate) fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("a target of this name").1(bytes);
}

/// An epoch that was taken is one that can be announced, and means the same then.
fn epoch(bytes: &[u8]) {
    let Ok(wire) = v1::Epoch::decode(bytes) else { return };
    if let Ok(epoch) = Epoch::try_from(&wire) {
        assert_eq!(Epoch::try_from(&v1::Epoch::from(&epoch)), Ok(epoch.clone()));
        assert_eq!(v1::Epoch::from(&epoch), wire);
    }
}

/// A text that is an id prints as itself, in lower case.
fn node_id(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = text.parse::<NodeId>()
    {
        assert_eq!(id.to_string(), text.to_lowercase());
    }
    if let Ok(ids) = NodeId::split(bytes) {
        assert_eq!(NodeId::concatenate(&ids.collect::<Vec<_>>()), bytes);
    }
}

/// A part that was taken is within the limits and survives both forms.
fn taken(part: &uptime_proto::Part, limits: &PartLimits) {
    assert!(part.sets.count() <= limits.observations_per_part_max);
    assert!(part.key.subnet.len() <= limits.subnet_bytes_max);
    let plain = part_from_wire(&part_to_plain(part), None, limits);
    assert_eq!(plain.as_ref(), Ok(part));
    let compact = Encoder::for_stream().encode(part, limits);
    let compact = part_from_wire(&compact, Some(&mut Decoder::default()), limits);
    assert_eq!(compact.as_ref(), Ok(part));
}

fn part_plain(bytes: &[u8]) {
    let limits = PartLimits::default();
    let Ok(wire) = v1::Part::decode(bytes) else { return };
    if let Ok(part) = part_from_wire(&wire, None, &limits) {
        taken(&part, &limits);
    }
}

/// A stream is a list of parts, each after its length (u16, little-endian). What is refused for its
/// digest has gone through all of the decoder, too.
fn part_stream(bytes: &[u8]) {
    let limits =
        PartLimits { compact_bases_max: 4, compact_nodes_max: 500, ..PartLimits::default() };
    let (mut decoder, mut rest) = (Decoder::default(), bytes);
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (part, after) = after.split_at(length);
        rest = after;
        let Ok(wire) = v1::Part::decode(part) else { continue };
        if let Ok(part) = part_from_wire(&wire, Some(&mut decoder), &limits) {
            taken(&part, &limits);
        }
        assert!(decoder.numbered() <= 500);
    }
}

/// The limit (u32, little-endian), then a coded set. What is read is a set below it, and coding
/// it again takes no more bytes.
fn set_of_numbers(bytes: &[u8]) {
    let Some((limit, coded)) = bytes.split_first_chunk::<4>() else { return };
    let limit = u32::from_le_bytes(*limit);
    let mut end_before = None;
    for run in runs::decode(coded, limit) {
        let Ok(run) = run else { return };
        assert!(run.start < run.end && run.end <= limit);
        assert!(end_before.is_none_or(|end| end < run.start));
        end_before = Some(run.end);
    }
    let again = runs::encode(runs::decode(coded, limit).flatten());
    assert!(again.len() <= coded.len());
    assert!(runs::decode(&again, limit).eq(runs::decode(coded, limit)));
}

/// A report on a stream: its parts, then its samples. What was read of these keeps to the limit,
/// and is told again in the compact form as it came in it.
fn samples(bytes: &[u8]) {
    let Ok(report) = v1::Report::decode(bytes) else { return };
    let (limits, mut decoder) = (PartLimits::default(), Decoder::default());
    for part in &report.parts {
        // Refused or not, it says what it says of the stream.
        part_from_wire(part, Some(&mut decoder), &limits).ok();
    }
    let Ok(samples) = samples_from_wire(&report, Some(&decoder)) else { return };
    assert!(samples.len() <= SAMPLES_PER_REPORT_MAX);
    let told = |samples: &[uptime_proto::Sample]| {
        let compact_samples = samples_to_compact(samples, &Encoder::for_stream()).into();
        let report = v1::Report { compact_samples, ..v1::Report::default() };
        samples_from_wire(&report, Some(&Decoder::default())).expect("what was told is read")
    };
    let once = told(&samples);
    assert!(once.len() <= samples.len());
    assert_eq!(told(&once), once);
}
