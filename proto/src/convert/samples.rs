//! Samples on the wire: the plain form for any client, the compact one for a stream.
//!
//! Owns both forms and their limits. Refuses to keep anything between reports: what samples mean
//! follows from their report and from what its stream's parts have said so far.
//!
//! Compact form: a string of bits, the highest of a byte first, filled up with fewer than eight
//! zeros; no bytes where there are no samples. Numbers, lists and columns are coded as `columns.rs`
//! says. It is a list of groups, each of samples of one round that say the same kinds of things:
//! * a one, as groups follow each other until nothing but filling is left;
//! * the round: a zero where it is that of the group before, or, in the first group, of the last
//!   part that the stream carried in the compact form; else a one and 40 bits, its start;
//! * three bits, one each where there are ages, answers and round trips;
//! * among what the nodes stand, two bits: 0 all numbers of the stream; 1 and 2 those that the last
//!   part of any of its sequences says are SEEN, or UNREACHABLE; 3 nowhere: they have no number.
//!   The parts of this report come before its samples;
//! * the count of nodes;
//! * the nodes, ascending: their ids, 20 bytes each; or by their places in what they stand among,
//!   the count that is the first place and one more; then, unless there is one node, a zero where
//!   the others follow without a gap, else a one and the list of how many lie between each two;
//! * for each kind, in the order above, a column: ages in seconds; answers as steps; round trips
//!   over the reliable channel as steps, and in a fourth column over the other, as steps less those
//!   of the third where both are there.

use std::collections::BTreeMap;

use super::columns::{self, of_step, put_column, put_count, put_list, step};
use super::compact::{Decoder, Encoder};
use super::plain::Refusal;
use super::runs::{BadRuns, BitReader, BitWriter};
use crate::evidence::Class;
use crate::node_id::{NODE_ID_BYTES, NodeId};
use crate::sample::Sample;
use crate::v1::{self, RefusalReason};

/// Samples in one report, of both forms together.
pub const SAMPLES_PER_REPORT_MAX: usize = 2_000;

/// Bits of a round's start: enough for a long time.
const ROUND_BITS: u32 = 40;

/// What kinds of things a sample says: ages, answers, round trips.
type Kinds = [bool; 3];
/// Samples of one group by the numbers of their nodes, and by ids where they have none.
type Group<'a> = BTreeMap<(u32, NodeId), &'a Sample>;

fn kinds(sample: &Sample) -> Kinds {
    let pinged = sample.tcp_round_trip_us.is_some() || sample.udp_round_trip_us.is_some();
    [sample.seen_age_ms.is_some(), sample.answered_in_ms.is_some(), pinged]
}

/// Among what the nodes of a group stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Among {
    Numbers,
    Seen,
    Unreachable,
    Nowhere,
}

impl Among {
    const ALL: [Self; 4] = [Self::Numbers, Self::Seen, Self::Unreachable, Self::Nowhere];
    const BITS: u32 = 2;
}

// === writing ===

/// Codes samples for the stream of an encoder, for the report of the part that was coded last. Of
/// two that say the same kinds of things of one node in one round the later counts; those that say
/// nothing are left out.
#[must_use]
pub fn samples_to_compact(samples: &[Sample], encoder: &Encoder) -> Vec<u8> {
    let samples = samples.iter().filter(|sample| kinds(sample) != Kinds::default());
    let mut groups: BTreeMap<(u64, Kinds, bool), Group<'_>> = BTreeMap::new();
    for sample in samples {
        let number = encoder.number(sample.node);
        let group = (sample.round_start_s, kinds(sample), number.is_none());
        let place = (number.unwrap_or(0), sample.node);
        groups.entry(group).or_default().insert(place, sample);
    }
    if groups.is_empty() {
        return Vec::new();
    }
    let last = |class| encoder.last_of(class).members().collect::<Vec<u32>>();
    let (seen, unreachable) = (last(Class::Seen), last(Class::Unreachable));
    let mut out = BitWriter::default();
    let mut round_before_s = encoder.last_round_s();
    for ((round_s, kinds, unnumbered), group) in groups {
        out.put(1, 1);
        let follows = round_before_s == Some(round_s);
        out.put(u64::from(!follows), 1);
        if !follows {
            out.put(round_s >> 32, ROUND_BITS - 32);
            out.put(round_s & u64::from(u32::MAX), 32);
            round_before_s = Some(round_s);
        }
        kinds.iter().for_each(|kind| out.put(u64::from(*kind), 1));
        put_nodes(&mut out, &group, unnumbered, &seen, &unreachable);
        put_columns(&mut out, kinds, &group);
    }
    out.finish()
}

/// The places of ascending numbers among others; `None` where one is not among them.
fn places(group: &Group<'_>, among: &[u32]) -> Option<Vec<u32>> {
    let place = |(number, _): &(u32, NodeId)| u32::try_from(among.binary_search(number).ok()?).ok();
    group.keys().map(place).collect()
}

fn put_nodes(
    out: &mut BitWriter,
    group: &Group<'_>,
    unnumbered: bool,
    seen: &[u32],
    unreachable: &[u32],
) {
    let numbers = || group.keys().map(|(number, _)| *number).collect();
    let (among, places) = if unnumbered {
        (Among::Nowhere, Vec::new())
    } else if let Some(places) = places(group, seen) {
        (Among::Seen, places)
    } else if let Some(places) = places(group, unreachable) {
        (Among::Unreachable, places)
    } else {
        (Among::Numbers, numbers())
    };
    out.put(among as u64, Among::BITS);
    put_count(out, u32::try_from(group.len()).unwrap_or(u32::MAX));
    if unnumbered {
        let ids = group.keys().flat_map(|(_, id)| *id.as_bytes());
        ids.for_each(|byte| out.put(u64::from(byte), 8));
    }
    let Some(first) = places.first() else { return };
    put_count(out, first.saturating_add(1));
    let gaps: Vec<u32> = places.windows(2).map(|pair| pair[1] - pair[0] - 1).collect();
    if gaps.is_empty() {
        return;
    }
    let has_gaps = gaps.iter().any(|gap| *gap > 0);
    out.put(u64::from(has_gaps), 1);
    if has_gaps {
        put_list(out, &gaps);
    }
}

fn put_columns(out: &mut BitWriter, [ages, answers, trips]: Kinds, group: &Group<'_>) {
    let mut column = |value: fn(&Sample) -> Option<i32>| {
        put_column(out, &group.values().map(|sample| value(sample)).collect::<Vec<_>>());
    };
    if ages {
        column(|sample| sample.seen_age_ms.map(rounded_s));
    }
    if answers {
        column(|sample| sample.answered_in_ms.map(step));
    }
    if trips {
        column(|sample| sample.tcp_round_trip_us.map(step));
        column(|sample| {
            let udp = step(sample.udp_round_trip_us?);
            Some(udp - sample.tcp_round_trip_us.map_or(0, step))
        });
    }
}

fn rounded_s(age_ms: i32) -> i32 {
    age_ms.saturating_add(500).div_euclid(1_000)
}

// === reading ===

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
    check_count(report.samples.len())?;
    let mut samples = report.samples.iter().map(plain).collect::<Result<Vec<_>, _>>()?;
    if !report.compact_samples.is_empty() {
        let Some(decoder) = decoder else {
            let detail = "compact samples need a Connect stream; send the plain form";
            return Err(Refusal::new(RefusalReason::CompactNotAllowed, detail));
        };
        Reading::new(decoder).groups(&report.compact_samples, &mut samples)?;
    }
    samples.retain(|sample| kinds(sample) != Kinds::default());
    Ok(samples)
}

fn check_count(count: usize) -> Result<(), Refusal> {
    if count <= SAMPLES_PER_REPORT_MAX {
        return Ok(());
    }
    let detail = format!("more than {SAMPLES_PER_REPORT_MAX} samples in one report");
    Err(Refusal::new(RefusalReason::TooManyObservations, detail))
}

fn plain(wire: &v1::Sample) -> Result<Sample, Refusal> {
    let node = NodeId::from_slice(&wire.node_id).map_err(|error| {
        Refusal::new(RefusalReason::MalformedNodeId, format!("of a sample: {error}"))
    })?;
    if wire.round_unix_s == 0 {
        return Err(Refusal::new(RefusalReason::FieldMissing, "the round of a sample not set"));
    }
    Ok(Sample {
        node,
        round_start_s: wire.round_unix_s,
        seen_age_ms: wire.seen_age_ms,
        answered_in_ms: wire.answered_in_ms,
        tcp_round_trip_us: wire.tcp_round_trip_us,
        udp_round_trip_us: wire.udp_round_trip_us,
    })
}

impl From<BadRuns> for Refusal {
    fn from(_: BadRuns) -> Self {
        Self::new(RefusalReason::Resync, "bits that code no samples of this stream")
    }
}

/// Reads compact samples of one stream.
struct Reading<'a> {
    decoder: &'a Decoder,
    /// The numbers of those seen and of those unreachable, made when they are first needed.
    last: [Option<Vec<u32>>; 2],
}

impl<'a> Reading<'a> {
    fn new(decoder: &'a Decoder) -> Self {
        Self { decoder, last: [None, None] }
    }

    fn groups(&mut self, bytes: &[u8], into: &mut Vec<Sample>) -> Result<(), Refusal> {
        let mut bits = BitReader::new(bytes);
        let mut round_s = self.decoder.last_round_s();
        while !bits.only_filling() {
            if bits.bits(1)? == 0 {
                return Err(BadRuns.into());
            }
            if bits.bits(1)? == 1 {
                let high = u64::from(bits.bits(ROUND_BITS - 32)?);
                round_s = Some(high << 32 | u64::from(bits.bits(32)?));
            }
            let round_s = round_s.filter(|round_s| *round_s > 0).ok_or(BadRuns)?;
            let kinds = [bits.bits(1)? == 1, bits.bits(1)? == 1, bits.bits(1)? == 1];
            let nodes = self.nodes(&mut bits, into.len())?;
            let mut group: Vec<Sample> =
                nodes.into_iter().map(|node| Sample::new(node, round_s)).collect();
            read_columns(&mut bits, kinds, &mut group)?;
            into.extend(group);
        }
        Ok(())
    }

    /// The nodes of a group; so many samples were there before it.
    fn nodes(&mut self, bits: &mut BitReader<'_>, before: usize) -> Result<Vec<NodeId>, Refusal> {
        let among = Among::ALL[bits.bits(Among::BITS)? as usize];
        let count = columns::count(bits)? as usize;
        check_count(before.saturating_add(count))?;
        if among == Among::Nowhere {
            return (0..count).map(|_| Ok(read_id(bits)?)).collect();
        }
        let mut places = vec![columns::count(bits)? - 1];
        let has_gaps = count > 1 && bits.bits(1)? == 1;
        let gaps = if has_gaps { columns::list(bits, count - 1)? } else { vec![0; count - 1] };
        for gap in gaps {
            let last = places.last().copied().unwrap_or(0);
            places.push(last.checked_add(gap).and_then(|it| it.checked_add(1)).ok_or(BadRuns)?);
        }
        let numbers = match among {
            Among::Seen => Some(self.last_of(0, Class::Seen)?),
            Among::Unreachable => Some(self.last_of(1, Class::Unreachable)?),
            Among::Numbers | Among::Nowhere => None,
        };
        let number = |place: u32| match numbers {
            Some(numbers) => numbers.get(place as usize).copied(),
            None => Some(place),
        };
        let ids: Option<Vec<NodeId>> = {
            let numbers: Option<Vec<u32>> = places.into_iter().map(number).collect();
            numbers.and_then(|all| all.into_iter().map(|it| self.decoder.id(it)).collect())
        };
        Ok(ids.ok_or(BadRuns)?)
    }

    fn last_of(&mut self, place: usize, class: Class) -> Result<&[u32], BadRuns> {
        if self.last[place].is_none() {
            let last = self.decoder.last_of(class).ok_or(BadRuns)?;
            self.last[place] = Some(last.members().collect());
        }
        self.last[place].as_deref().ok_or(BadRuns)
    }
}

fn read_id(bits: &mut BitReader<'_>) -> Result<NodeId, BadRuns> {
    let mut id = [0; NODE_ID_BYTES];
    for byte in &mut id {
        *byte = bits.byte()?;
    }
    Ok(NodeId::new(id))
}

fn read_columns(
    bits: &mut BitReader<'_>,
    [ages, answers, trips]: Kinds,
    group: &mut [Sample],
) -> Result<(), BadRuns> {
    let count = group.len();
    if ages {
        for (sample, age_s) in group.iter_mut().zip(columns::column(bits, count)?) {
            sample.seen_age_ms = age_s.map(|age_s| age_s.saturating_mul(1_000));
        }
    }
    if answers {
        for (sample, told) in group.iter_mut().zip(columns::column(bits, count)?) {
            sample.answered_in_ms = told.and_then(of_step);
        }
    }
    if trips {
        let tcp = columns::column(bits, count)?;
        let udp = columns::column(bits, count)?;
        for (sample, (tcp, udp)) in group.iter_mut().zip(tcp.into_iter().zip(udp)) {
            sample.tcp_round_trip_us = tcp.and_then(of_step);
            let udp = udp.and_then(|less| less.checked_add(tcp.unwrap_or(0)));
            sample.udp_round_trip_us = udp.and_then(of_step);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
