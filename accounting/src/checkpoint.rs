//! A state as bytes, and back: so that a start need not fold all facts again.
//!
//! Pure. Owns the format, version 2: pieces, each a protobuf message and its CRC-32 (u32,
//! little-endian); the first is the head, the others hold `NODES_PER_PIECE` nodes each. Version 1,
//! which is read, too, wrote plain differences of instants, seconds for runs, and not when a node
//! began to offer in each of several subnets. Refuses a state that was made by other rules or
//! retractions: it says nothing of what they would make.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use roaring::RoaringBitmap;
use uptime_proto::{Epochs, Period, Reason, Round, v1};

use crate::cow_vec::CowVec;
use crate::evidence::{Ineligibility, ProbeRound, Tallied};
use crate::last_seen::LastSeenIndex;
use crate::node::{Node, RollUp, Subnets};
use crate::position::{Position, Positions, WriterId};
use crate::retraction::Retraction;
use crate::seed::Seed;
use crate::state::{RoundSummary, State};
use crate::timeline::Timeline;
use crate::uptime::Tally;
use crate::verdict::{Ballot, Decision};

const VERSION: u32 = 2;
/// The oldest version that is read.
const VERSION_MIN: u32 = 1;
/// A year of so many nodes is some megabytes.
const NODES_PER_PIECE: usize = 1_024;
/// No state has more nodes: a hundred times the network this is made for.
const NODES_MAX: usize = 1 << 27;

/// Why bytes are not taken for a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The checksum does not match.
    #[error("damaged on disk")]
    Checksum,
    /// Another version of the format.
    #[error("written in version {0} of the format, this program reads up to 2")]
    Version(u32),
    /// Made under other rules, or with other retractions.
    #[error("the rules or the retractions are others now")]
    Rules,
    /// Anything else.
    #[error("not laid out as a state: {0}")]
    Layout(&'static str),
}

#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "vec", tag = "2")]
    rules: Vec<u8>,
    #[prost(uint64, tag = "3")]
    closed_s: u64,
    #[prost(uint32, tag = "4")]
    period_s: u32,
    #[prost(uint64, tag = "5")]
    rolled_up_to_s: u64,
    #[prost(uint64, tag = "6")]
    nodes: u64,
    #[prost(bytes = "vec", tag = "7")]
    offered: Vec<u8>,
    #[prost(bytes = "vec", tag = "8")]
    offered_by_two: Vec<u8>,
    #[prost(bytes = "vec", tag = "9")]
    ever_positive: Vec<u8>,
    #[prost(message, repeated, tag = "10")]
    offered_to_probe: Vec<Numbered>,
    #[prost(message, repeated, tag = "11")]
    offered_in_subnet: Vec<Numbered>,
    #[prost(bytes = "vec", tag = "12")]
    last_up: Vec<u8>,
    #[prost(bytes = "vec", tag = "13")]
    last_down: Vec<u8>,
    /// Version 1: differences of instants plus one; 0 stands for never.
    #[prost(sint64, repeated, tag = "14")]
    seen_1: Vec<i64>,
    #[prost(sint64, repeated, tag = "15")]
    last_offer_1: Vec<i64>,
    #[prost(message, repeated, tag = "16")]
    summaries: Vec<Summary>,
    #[prost(message, optional, tag = "17")]
    seed: Option<KeptSeed>,
    #[prost(uint64, tag = "18")]
    changes_from_s: u64,
    #[prost(message, optional, tag = "19")]
    seen: Option<Instants>,
    #[prost(message, optional, tag = "20")]
    last_offer: Option<Instants>,
    /// States written before 0.2 have none.
    #[prost(message, repeated, tag = "21")]
    positions: Vec<Written>,
}

/// The last commit of a writer that is included.
#[derive(Clone, PartialEq, Message)]
struct Written {
    #[prost(bytes = "vec", tag = "1")]
    writer: Vec<u8>,
    #[prost(uint64, tag = "2")]
    commit: u64,
}

/// An instant per node, most of them among the newest.
#[derive(Clone, PartialEq, Message)]
struct Instants {
    #[prost(sint64, tag = "1")]
    newest_ms: i64,
    /// How long before the newest, plus one; 0: never.
    #[prost(uint64, repeated, tag = "2")]
    before_ms: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Numbered {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(bytes = "vec", tag = "2")]
    set: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct KeptSeed {
    #[prost(bytes = "vec", tag = "1")]
    last_up: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    covered: Vec<Covered>,
}

#[derive(Clone, PartialEq, Message)]
struct Covered {
    #[prost(uint32, tag = "1")]
    subnet: u32,
    #[prost(uint64, repeated, tag = "2")]
    runs: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(uint64, tag = "1")]
    start_s: u64,
    #[prost(uint32, tag = "2")]
    period_s: u32,
    #[prost(uint64, tag = "3")]
    up: u64,
    #[prost(uint64, tag = "4")]
    down: u64,
    #[prost(uint64, tag = "5")]
    unknown: u64,
    #[prost(message, repeated, tag = "6")]
    probes: Vec<Probe>,
}

#[derive(Clone, PartialEq, Message)]
struct Probe {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(bool, tag = "2")]
    eligible: bool,
    #[prost(uint32, repeated, tag = "3")]
    ineligibilities: Vec<u32>,
    #[prost(int32, repeated, tag = "4")]
    could_not_look: Vec<i32>,
    #[prost(uint64, tag = "5")]
    offers: u64,
    #[prost(uint64, tag = "6")]
    looked: u64,
    #[prost(uint64, tag = "7")]
    found: u64,
    #[prost(uint64, tag = "8")]
    failed_nodes: u64,
}

/// Columns over the nodes of a piece.
#[derive(Clone, PartialEq, Message)]
struct Nodes {
    /// Plus one; 0: it never made an offer.
    #[prost(uint64, repeated, tag = "1")]
    first_seen_s: Vec<u64>,
    #[prost(uint32, repeated, tag = "2")]
    subnet_counts: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    subnets: Vec<u32>,
    #[prost(uint32, repeated, tag = "4")]
    run_counts: Vec<u32>,
    #[prost(uint64, repeated, tag = "5")]
    runs: Vec<u64>,
    /// Six per node, where anything is carried.
    #[prost(uint64, repeated, tag = "6")]
    carried: Vec<u64>,
    #[prost(uint32, repeated, tag = "7")]
    seed_run_counts: Vec<u32>,
    #[prost(uint64, repeated, tag = "8")]
    seed_runs: Vec<u64>,
    #[prost(uint64, repeated, tag = "9")]
    changed_s: Vec<u64>,
    /// What the seconds of all runs are multiples of; 0: 1.
    #[prost(uint64, tag = "10")]
    runs_unit_s: u64,
    /// Of nodes with several subnets, beside each: its first offer there, seconds after first seen.
    #[prost(uint64, repeated, tag = "11")]
    offered_after_s: Vec<u64>,
    /// Two per node, where any is not 0: of the carried rounds, decided seconds of silence and
    /// since the last offer. States written before 0.2 have none.
    #[prost(uint64, repeated, tag = "12")]
    silent_s: Vec<u64>,
}

/// Names the rules and retractions a state depends on.
fn rules(epochs: &Epochs, retractions: &[Retraction], closed: Round) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    // An epoch that begins later changes nothing yet.
    for epoch in epochs.all().iter().filter(|epoch| epoch.start_s < closed.end_s()) {
        hasher.update(&v1::Epoch::from(epoch).encode_length_delimited_to_vec());
    }
    let holds = |it: &&Retraction| it.undone_at_ms.is_none() && it.from_s < closed.end_s();
    for retraction in retractions.iter().filter(holds) {
        for number in [u64::from(retraction.probe), retraction.from_s, retraction.to_s] {
            hasher.update(&number.to_le_bytes());
        }
    }
    hasher.finalize().as_bytes()[..16].to_vec()
}

fn set_bytes(set: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(set.serialized_size());
    // Writing to memory does not fail.
    set.serialize_into(&mut bytes).ok();
    bytes
}

fn set(bytes: &[u8]) -> Result<RoaringBitmap, CheckpointError> {
    RoaringBitmap::deserialize_from(bytes).map_err(|_| CheckpointError::Layout("a set"))
}

fn numbered(sets: &BTreeMap<u32, RoaringBitmap>) -> Vec<Numbered> {
    sets.iter().map(|(number, set)| Numbered { number: *number, set: set_bytes(set) }).collect()
}

fn by_number(sets: &[Numbered]) -> Result<BTreeMap<u32, RoaringBitmap>, CheckpointError> {
    sets.iter().map(|numbered| Ok((numbered.number, set(&numbered.set)?))).collect()
}

fn instants(latest: &LastSeenIndex, nodes: usize) -> Option<Instants> {
    let all = latest.all(nodes);
    let newest_ms = all.iter().copied().max().filter(|newest| *newest > i64::MIN)?;
    let before = |instant: i64| match instant {
        i64::MIN => 0,
        instant => newest_ms.abs_diff(instant).saturating_add(1),
    };
    Some(Instants { newest_ms, before_ms: all.into_iter().map(before).collect() })
}

fn latest(kept: Option<Instants>, differences: Vec<i64>) -> LastSeenIndex {
    if let Some(Instants { newest_ms, before_ms }) = kept {
        let instant = |before: u64| match before.checked_sub(1) {
            None => i64::MIN,
            Some(before) => newest_ms.saturating_sub_unsigned(before),
        };
        return LastSeenIndex::of_all(before_ms.into_iter().map(instant).collect());
    }
    let mut value = 0i64;
    let instants = differences.into_iter().map(|difference| {
        value = value.wrapping_add(difference);
        if value == 0 { i64::MIN } else { value.saturating_sub(1) }
    });
    LastSeenIndex::of_all(instants.collect())
}

fn summary(summary: &RoundSummary) -> Summary {
    let probe = |(number, probe): (&u32, &ProbeRound)| Probe {
        number: *number,
        eligible: probe.ballot.eligible,
        ineligibilities: probe.ineligibilities.iter().map(|it| it.code()).collect(),
        could_not_look: probe.could_not_look.iter().map(|it| it.to_wire() as i32).collect(),
        offers: probe.offers,
        looked: probe.tallied.looked,
        found: probe.tallied.found,
        failed_nodes: probe.failed_nodes,
    };
    Summary {
        start_s: summary.round.start_s(),
        period_s: summary.round.period().seconds(),
        up: summary.up,
        down: summary.down,
        unknown: summary.unknown,
        probes: summary.probes.iter().map(probe).collect(),
    }
}

fn round(start_s: u64, period_s: u32) -> Result<Round, CheckpointError> {
    let period = Period::new(period_s).map_err(|_| CheckpointError::Layout("a period"))?;
    Round::new(start_s, period).map_err(|_| CheckpointError::Layout("a round"))
}

fn read_summary(kept: Summary) -> Result<RoundSummary, CheckpointError> {
    let probe = |probe: Probe| {
        let mut ineligibilities = Vec::new();
        for code in probe.ineligibilities {
            let known = Ineligibility::from_code(code);
            ineligibilities.push(known.ok_or(CheckpointError::Layout("an ineligibility"))?);
        }
        let mut could_not_look = Vec::new();
        for reason in probe.could_not_look {
            let known = Reason::from_wire(reason);
            could_not_look.push(known.ok_or(CheckpointError::Layout("a reason"))?);
        }
        let ballot = Ballot { eligible: probe.eligible, ..Ballot::default() };
        let tallied = Tallied { looked: probe.looked, found: probe.found };
        let Probe { offers, failed_nodes, .. } = probe;
        let round =
            ProbeRound { ballot, ineligibilities, could_not_look, failed_nodes, offers, tallied };
        Ok((probe.number, round))
    };
    Ok(RoundSummary {
        round: round(kept.start_s, kept.period_s)?,
        up: kept.up,
        down: kept.down,
        unknown: kept.unknown,
        probes: kept.probes.into_iter().map(probe).collect::<Result<_, CheckpointError>>()?,
    })
}

fn sealed(message: &impl Message) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

fn unsealed<M: Message + Default>(bytes: &[u8]) -> Result<M, CheckpointError> {
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(CheckpointError::Checksum)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Err(CheckpointError::Checksum);
    }
    M::decode(body).map_err(|_| CheckpointError::Layout("a message"))
}

/// The pieces of a state that includes these commits; none before a round was closed.
#[must_use]
pub fn write(state: &State, retractions: &[Retraction], positions: &Positions) -> Vec<Vec<u8>> {
    let Some(closed) = state.closed() else {
        return Vec::new();
    };
    let nodes: Vec<&Arc<Node>> = state.nodes().iter().collect();
    let derived = state.derived();
    let head = Head {
        version: VERSION,
        rules: rules(state.epochs(), retractions, closed),
        closed_s: closed.start_s(),
        period_s: closed.period().seconds(),
        rolled_up_to_s: state.rolled_up_to_s(),
        changes_from_s: state.changes_from_s(),
        nodes: nodes.len() as u64,
        offered: set_bytes(derived.offered),
        offered_by_two: set_bytes(derived.offered_by_two),
        ever_positive: set_bytes(derived.ever_positive),
        offered_to_probe: numbered(derived.offered_to_probe),
        offered_in_subnet: numbered(derived.offered_in_subnet),
        last_up: set_bytes(&state.last().up),
        last_down: set_bytes(&state.last().down),
        seen_1: Vec::new(),
        last_offer_1: Vec::new(),
        seen: instants(state.seen(), nodes.len()),
        last_offer: instants(state.last_offer(), nodes.len()),
        summaries: state.summaries().iter().map(|it| summary(it)).collect(),
        seed: state.seed().map(|seed| KeptSeed {
            last_up: set_bytes(seed.last_up()),
            covered: seed
                .covered()
                .iter()
                .map(|(subnet, line)| Covered { subnet: *subnet, runs: line.coded(1).collect() })
                .collect(),
        }),
        positions: positions
            .iter()
            .map(|it| Written { writer: it.writer.0.to_vec(), commit: it.commit })
            .collect(),
    };
    let mut pieces = vec![sealed(&head)];
    for (index, nodes) in nodes.chunks(NODES_PER_PIECE).enumerate() {
        pieces.push(sealed(&node_columns(state, index * NODES_PER_PIECE, nodes)));
    }
    pieces
}

fn node_columns(state: &State, first: usize, nodes: &[&Arc<Node>]) -> Nodes {
    let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let seed_lines = (first..first + nodes.len())
        .filter_map(|number| state.seed().and_then(|seed| seed.line(narrow(number))));
    let lines = nodes.iter().map(|node| &node.timeline).chain(seed_lines);
    let runs_unit_s = lines.fold(0, |unit, line| line.common_s(unit));
    let mut columns = Nodes { runs_unit_s, ..Nodes::default() };
    for (number, node) in (first..).zip(nodes) {
        columns.first_seen_s.push(node.first_seen_s.map_or(0, |second| second + 1));
        let first_s = node.first_seen_s.unwrap_or(0);
        let offered: Vec<_> = node.subnets.iter(first_s).collect();
        columns.subnet_counts.push(narrow(offered.len()));
        columns.subnets.extend(offered.iter().map(|(subnet, _)| subnet));
        if offered.len() > 1 {
            let after = |(_, from_s): &(u32, u64)| from_s.saturating_sub(first_s);
            columns.offered_after_s.extend(offered.iter().map(after));
        }
        columns.run_counts.push(narrow(node.timeline.runs()));
        columns.runs.extend(node.timeline.coded(columns.runs_unit_s));
        columns.changed_s.push(node.changed_s);
        if state.rolled_up_to_s() > 0 {
            let Tally { up_s, down_s, unknown_s, up_rounds, down_rounds, unknown_rounds } =
                node.rolled_up();
            columns.carried.extend([
                up_s,
                down_s,
                unknown_s,
                up_rounds,
                down_rounds,
                unknown_rounds,
            ]);
        }
        if state.rolled_up_to_s() > 0 {
            let rolled = node.roll_up_or_default();
            columns.silent_s.extend([rolled.silent_s, rolled.since_offer_s]);
        }
        if let Some(seed) = state.seed() {
            let line = seed.line(narrow(number));
            columns.seed_run_counts.push(line.map_or(0, |line| narrow(line.runs())));
            let coded = line.into_iter().flat_map(|line| line.coded(columns.runs_unit_s));
            columns.seed_runs.extend(coded);
        }
    }
    if columns.silent_s.iter().all(|silent_s| *silent_s == 0) {
        columns.silent_s.clear();
    }
    columns
}

/// Takes the next so many of a column.
fn take<'a, T>(column: &mut &'a [T], count: usize) -> Result<&'a [T], CheckpointError> {
    let (some, rest) = column.split_at_checked(count).ok_or(CheckpointError::Layout("a column"))?;
    *column = rest;
    Ok(some)
}

fn read_positions(written: &[Written]) -> Result<Positions, CheckpointError> {
    let position = |it: &Written| {
        let writer = it.writer.as_slice().try_into();
        let writer = writer.map_err(|_| CheckpointError::Layout("a writer"))?;
        Ok(Position { writer: WriterId(writer), commit: it.commit })
    };
    written.iter().map(position).collect()
}

/// The state of these pieces, without any facts in memory, and the commits that it includes; `None`
/// when there are no pieces.
///
/// # Errors
/// When they are damaged, or not of these rules and retractions.
pub fn read(
    pieces: &[Vec<u8>],
    epochs: &Arc<Epochs>,
    retractions: &Arc<Vec<Retraction>>,
) -> Result<Option<(State, Positions)>, CheckpointError> {
    let Some((head, pieces)) = pieces.split_first() else {
        return Ok(None);
    };
    let head: Head = unsealed(head)?;
    if !(VERSION_MIN..=VERSION).contains(&head.version) {
        return Err(CheckpointError::Version(head.version));
    }
    let closed = round(head.closed_s, head.period_s)?;
    if head.rules != rules(epochs, retractions, closed) || !epochs.in_force(closed) {
        return Err(CheckpointError::Rules);
    }
    let count = usize::try_from(head.nodes).unwrap_or(usize::MAX);
    if count > NODES_MAX || count.div_ceil(NODES_PER_PIECE) != pieces.len() {
        return Err(CheckpointError::Layout("the number of nodes"));
    }
    let mut nodes: CowVec<Arc<Node>> = CowVec::default();
    let mut lines: CowVec<Arc<Timeline>> = CowVec::default();
    for piece in pieces {
        read_nodes(
            head.version,
            &unsealed(piece)?,
            head.rolled_up_to_s,
            epochs,
            &mut nodes,
            &mut lines,
        )?;
    }
    if nodes.len() != count {
        return Err(CheckpointError::Layout("the number of nodes"));
    }
    let seed = match head.seed {
        None => None,
        Some(seed) => {
            let covered = seed.covered.into_iter().map(|it| {
                let line =
                    Timeline::from_coded(&it.runs, 1).ok_or(CheckpointError::Layout("runs"))?;
                Ok((it.subnet, line))
            });
            let covered = covered.collect::<Result<_, CheckpointError>>()?;
            Some(Seed::of(lines, covered, set(&seed.last_up)?))
        }
    };
    let positions = read_positions(&head.positions)?;
    let mut state = State::new(Arc::clone(epochs)).with_retractions(Arc::clone(retractions));
    state.restore(crate::state::Restored {
        closed,
        rolled_up_to_s: head.rolled_up_to_s,
        changes_from_s: head.changes_from_s,
        nodes,
        offered: set(&head.offered)?,
        offered_by_two: set(&head.offered_by_two)?,
        ever_positive: set(&head.ever_positive)?,
        offered_to_probe: by_number(&head.offered_to_probe)?,
        offered_in_subnet: by_number(&head.offered_in_subnet)?,
        last: Decision { up: set(&head.last_up)?, down: set(&head.last_down)? },
        seen: latest(head.seen, head.seen_1),
        last_offer: latest(head.last_offer, head.last_offer_1),
        summaries: head
            .summaries
            .into_iter()
            .map(|kept| read_summary(kept).map(Arc::new))
            .collect::<Result<_, _>>()?,
        seed,
    });
    Ok(Some((state, positions)))
}

fn read_nodes(
    version: u32,
    columns: &Nodes,
    rolled_up_to_s: u64,
    epochs: &Epochs,
    nodes: &mut CowVec<Arc<Node>>,
    lines: &mut CowVec<Arc<Timeline>>,
) -> Result<(), CheckpointError> {
    let (mut subnets, mut runs) = (columns.subnets.as_slice(), columns.runs.as_slice());
    let (mut carried, mut seed_runs) = (columns.carried.as_slice(), columns.seed_runs.as_slice());
    let mut subnet_counts = columns.subnet_counts.iter();
    let mut run_counts = columns.run_counts.iter();
    let mut seed_counts = columns.seed_run_counts.iter();
    let mut changed = columns.changed_s.iter();
    let mut offered_after = columns.offered_after_s.as_slice();
    let runs_of = |count: &u32, column: &mut &[u64]| {
        let coded = take(column, *count as usize)?;
        Timeline::from_coded(coded, columns.runs_unit_s).ok_or(CheckpointError::Layout("runs"))
    };
    let mut silent = columns.silent_s.iter().copied();
    for first in &columns.first_seen_s {
        let counts = (subnet_counts.next(), run_counts.next(), changed.next());
        let (Some(subnet_count), Some(run_count), Some(changed_s)) = counts else {
            return Err(CheckpointError::Layout("the number of nodes in a piece"));
        };
        let mut tally = Tally::default();
        if rolled_up_to_s > 0 {
            let &[up_s, down_s, unknown_s, up_rounds, down_rounds, unknown_rounds] =
                take(&mut carried, 6)?
            else {
                return Err(CheckpointError::Layout("carried sums"));
            };
            tally = Tally { up_s, down_s, unknown_s, up_rounds, down_rounds, unknown_rounds };
        }
        let first_seen_s = first.checked_sub(1);
        let mut subnets: Vec<_> = take(&mut subnets, *subnet_count as usize)?
            .iter()
            .map(|subnet| (*subnet, first_seen_s.unwrap_or(0)))
            .collect();
        if version > 1 && subnets.len() > 1 {
            let after = take(&mut offered_after, subnets.len())?;
            for ((_, from_s), after_s) in subnets.iter_mut().zip(after) {
                *from_s = from_s.saturating_add(*after_s);
            }
        }
        let subnets = Subnets::of(&subnets);
        let timeline = runs_of(run_count, &mut runs)?;
        let mut silent = || silent.next().unwrap_or(0);
        let (silent_s, since_offer_s) = (silent(), silent());
        let carried = RollUp { tally, to_s: rolled_up_to_s, silent_s, since_offer_s };
        let node = Node::of(first_seen_s, subnets, timeline, *changed_s, carried, epochs);
        nodes.push(Arc::new(node));
        if let Some(count) = seed_counts.next() {
            lines.push(Arc::new(runs_of(count, &mut seed_runs)?));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "checkpoint/tests.rs"]
mod tests;
