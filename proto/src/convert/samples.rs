//! Samples on the wire: the plain form for any client, the compact one for a stream.
//!
//! Owns both forms and their limits. Refuses to keep anything between reports: what samples mean
//! follows from their report and the numbers of its stream alone.

use std::collections::BTreeMap;

use super::columns::{decode, encode, of_step, step};
use super::runs::{self, Bits};
use super::{Decoder, Encoder, Refusal};
use crate::node_id::{NODE_ID_BYTES, NodeId};
use crate::sample::Sample;
use crate::v1::{self, RefusalReason};

/// Samples in one report, of both forms together.
pub const SAMPLES_PER_REPORT_MAX: usize = 2_000;

/// What kinds of things a sample says; those that say the same share columns.
type Shape = (bool, bool, bool);
/// Samples of one round and shape by the numbers of their nodes. Those without a number come after
/// all others, by id.
type Group<'a> = BTreeMap<(u32, NodeId), &'a Sample>;
/// Puts a value of a column into its sample.
type Put = fn(&mut Sample, i32);

fn shape(sample: &Sample) -> Shape {
    let pinged = sample.tcp_round_trip_us.is_some() || sample.udp_round_trip_us.is_some();
    (sample.seen_age_ms.is_some(), sample.answered_in_ms.is_some(), pinged)
}

/// Codes samples for the stream of an encoder, for the report of the part that was coded last. Of
/// two that say the same kinds of things of one node in one round the later counts; those that say
/// nothing are left out.
#[must_use]
pub fn samples_to_compact(samples: &[Sample], encoder: &Encoder) -> Vec<v1::CompactSamples> {
    let mut groups: BTreeMap<(u64, Shape), Group<'_>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| shape(sample) != Shape::default()) {
        let group = groups.entry((sample.round_start_s, shape(sample))).or_default();
        let number = encoder.number(sample.node).unwrap_or(u32::MAX);
        group.insert((number, sample.node), sample);
    }
    let mut before_s = 0;
    let mut compact = |round_s: u64, group: &Group<'_>| {
        let told_s = if round_s == before_s { 0 } else { round_s };
        before_s = round_s;
        one_group(told_s, group)
    };
    groups.iter().map(|((round_s, _), group)| compact(*round_s, group)).collect()
}

fn one_group(round_s: u64, group: &Group<'_>) -> v1::CompactSamples {
    let mut nodes = Bits::default();
    let mut others = Vec::new();
    for (number, node) in group.keys() {
        if *number == u32::MAX {
            others.push(*node);
        } else {
            nodes.insert(*number);
        }
    }
    let column = |value: fn(&Sample) -> Option<i32>| {
        encode(&group.values().map(|sample| value(sample)).collect::<Vec<_>>()).into()
    };
    v1::CompactSamples {
        round_unix_s: round_s,
        nodes: nodes.to_runs().into(),
        node_ids: NodeId::concatenate(&others).into(),
        seen_age_s: column(|sample| sample.seen_age_ms.map(rounded_s)),
        answered_in_ms: column(|sample| sample.answered_in_ms.map(step)),
        tcp_round_trip_us: column(|sample| sample.tcp_round_trip_us.map(step)),
        udp_round_trip_us: column(|sample| sample.udp_round_trip_us.map(step)),
    }
}

fn rounded_s(age_ms: i32) -> i32 {
    age_ms.saturating_add(500).div_euclid(1_000)
}

/// Reads the samples of a report, of whichever form. `decoder` is the stream's, after the parts of
/// this report went through it; without one (unary calls) only the plain form is taken. A sample
/// that says nothing is left out.
///
/// # Errors
/// A [`Refusal`] for the first thing that is wrong with them; then none of them is to be taken. The
/// parts of the report stand for themselves.
pub fn samples_from_wire(
    report: &v1::Report,
    decoder: Option<&Decoder>,
) -> Result<Vec<Sample>, Refusal> {
    let mut samples = Vec::new();
    check_count(report.samples.len())?;
    for wire in &report.samples {
        samples.push(plain(wire)?);
    }
    let mut round_s = 0;
    for wire in &report.compact_samples {
        let Some(decoder) = decoder else {
            let detail = "compact samples need a Connect stream; send the plain form";
            return Err(Refusal::new(RefusalReason::CompactNotAllowed, detail));
        };
        if wire.round_unix_s != 0 {
            round_s = wire.round_unix_s;
        }
        expand(wire, round_s, decoder, &mut samples)?;
    }
    samples.retain(|sample| shape(sample) != Shape::default());
    Ok(samples)
}

fn check_count(count: usize) -> Result<(), Refusal> {
    if count <= SAMPLES_PER_REPORT_MAX {
        return Ok(());
    }
    let detail = format!("more than {SAMPLES_PER_REPORT_MAX} samples in one report");
    Err(Refusal::new(RefusalReason::TooManyObservations, detail))
}

fn check_round(round_s: u64) -> Result<u64, Refusal> {
    if round_s > 0 {
        return Ok(round_s);
    }
    Err(Refusal::new(RefusalReason::FieldMissing, "the round of a sample not set"))
}

fn plain(wire: &v1::Sample) -> Result<Sample, Refusal> {
    let node = NodeId::from_slice(&wire.node_id).map_err(|error| {
        Refusal::new(RefusalReason::MalformedNodeId, format!("of a sample: {error}"))
    })?;
    Ok(Sample {
        node,
        round_start_s: check_round(wire.round_unix_s)?,
        seen_age_ms: wire.seen_age_ms,
        answered_in_ms: wire.answered_in_ms,
        tcp_round_trip_us: wire.tcp_round_trip_us,
        udp_round_trip_us: wire.udp_round_trip_us,
    })
}

fn expand(
    wire: &v1::CompactSamples,
    round_s: u64,
    decoder: &Decoder,
    into: &mut Vec<Sample>,
) -> Result<(), Refusal> {
    let round_s = check_round(round_s)?;
    let first = into.len();
    for node in nodes(wire, decoder, first)? {
        into.push(Sample::new(node, round_s));
    }
    let samples = &mut into[first..];
    let columns: [(&[u8], Put); 4] = [
        (&wire.seen_age_s, |it, age_s| it.seen_age_ms = Some(age_s.saturating_mul(1_000))),
        (&wire.answered_in_ms, |it, told| it.answered_in_ms = of_step(told)),
        (&wire.tcp_round_trip_us, |it, told| it.tcp_round_trip_us = of_step(told)),
        (&wire.udp_round_trip_us, |it, told| it.udp_round_trip_us = of_step(told)),
    ];
    for (bytes, put) in columns {
        let values = decode(bytes, samples.len()).map_err(|_| {
            let detail = format!("a column that is none of {} values", samples.len());
            Refusal::new(RefusalReason::Resync, detail)
        })?;
        for (sample, value) in samples.iter_mut().zip(values) {
            if let Some(value) = value {
                put(sample, value);
            }
        }
    }
    Ok(())
}

/// The nodes of a group in the order of its columns; so many samples were there before it.
fn nodes(
    wire: &v1::CompactSamples,
    decoder: &Decoder,
    before: usize,
) -> Result<Vec<NodeId>, Refusal> {
    let known = u32::try_from(decoder.numbered()).unwrap_or(u32::MAX);
    let mut nodes = Vec::new();
    for run in runs::decode(&wire.nodes, known) {
        let run = run.map_err(|_| {
            let detail = format!("no set of numbers below the {known} ids of this stream");
            Refusal::new(RefusalReason::Resync, detail)
        })?;
        check_count(before + nodes.len() + run.len())?;
        nodes.extend(run.filter_map(|number| decoder.id(number)));
    }
    let others = NodeId::split(&wire.node_ids).map_err(|_| {
        let detail = format!("node_ids of samples has {} bytes", wire.node_ids.len());
        Refusal::new(RefusalReason::MalformedNodeId, detail)
    })?;
    check_count(before + nodes.len() + wire.node_ids.len() / NODE_ID_BYTES)?;
    nodes.extend(others);
    Ok(nodes)
}

#[cfg(test)]
mod tests;
