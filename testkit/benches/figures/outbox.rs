//! The probe's outbox after an aggregator was away for weeks: `spool_35_days`, `spool_drain`.
//!
//! One probe by itself writes what it finds in every round, then reads all of it back and encodes
//! it for a connection, as the uplink does. Refuses a figure where not every part came back.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use prost::Message;
use uptime_probe::spool::{Item, Spool, SpoolLimits};
use uptime_proto::convert::{Decoder, Encoder, PartLimits, part_from_wire};
use uptime_proto::v1::{self, probe_message::Message as ToAggregator};
use uptime_proto::{Part, Period, Round};

use super::Extent;
use super::history::{ROUND_S, first_round};
use super::network::Network;
use super::process::megabytes;
use super::report::{anywhere, figure, progress};

const NODES: usize = 10_000;
const ROUNDS_A_DAY: u64 = 86_400 / ROUND_S as u64;
const DAYS: u32 = 35;
/// So much that nothing goes: how much there is must be found out.
const BYTES_MAX: u64 = 1 << 40;
/// As many parts from the first on are decoded again and compared; that takes as long as the rest.
const COMPARED: u64 = 3 * ROUNDS_A_DAY;

/// What was put in.
#[derive(Default)]
struct Filled {
    parts: u64,
    observations: u64,
}

/// `spool_35_days` and `spool_drain`.
pub(crate) fn weeks(extent: Extent) -> anyhow::Result<()> {
    let (days, name) = match extent {
        Extent::Quick => (1, "spool_day"),
        Extent::Usual | Extent::Full => (DAYS, "spool_35_days"),
    };
    let directory = anywhere()?;
    let filled = fill(directory.path(), days)?;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory.path())? {
        bytes += entry?.metadata()?.len();
    }
    let (drained, largest) = drain(directory.path(), &filled)?;
    let seconds = drained.as_secs_f64();
    progress(&format!(
        "{} parts of {} observations; {bytes} bytes on disk, at most {largest} in a message; \
         drained in {seconds:.1} s",
        filled.parts, filled.observations
    ));
    figure(name, megabytes(bytes), "MB");
    figure("spool_drain", filled.parts as f64 / seconds, "parts/s");
    figure("spool_drain_35_days", seconds * f64::from(DAYS) / f64::from(days), "s");
    Ok(())
}

fn fill(directory: &Path, days: u32) -> anyhow::Result<Filled> {
    let (spool, _) = Spool::open(directory, SpoolLimits::of_bytes(BYTES_MAX))?;
    let mut network = Network::new(71, NODES, 1, ROUND_S);
    let mut round = first_round(Period::new(ROUND_S)?)?;
    let mut filled = Filled::default();
    let mut took = Duration::ZERO;
    for day in 1..=days {
        for _ in 0..ROUNDS_A_DAY {
            let parts = parts_of_round(&mut network, round)?;
            let started = Instant::now();
            for part in parts {
                filled.parts += 1;
                filled.observations += part.sets.count() as u64;
                spool.append(part, &PartLimits::default())?;
            }
            took += started.elapsed();
            round = round.next();
            network.advance();
        }
        if day % 7 == 0 {
            progress(&format!("day {day} of {days} is written"));
        }
    }
    ensure!(spool.waiting() == filled.parts, "not every part waits");
    progress(&format!("written in {:.1} s", took.as_secs_f64()));
    Ok(filled)
}

fn parts_of_round(network: &mut Network, round: Round) -> anyhow::Result<Vec<Part>> {
    let view = network.look().views.pop().context("no probe")?;
    let stages = network.stages(view, round);
    Ok(stages.all().map(|piece| piece.part(&network.ids, round)).collect())
}

/// Reads everything back; answers how long that took and the longest message.
fn drain(directory: &Path, filled: &Filled) -> anyhow::Result<(Duration, usize)> {
    let started = Instant::now();
    let (spool, found) = Spool::open(directory, SpoolLimits::of_bytes(BYTES_MAX))?;
    progress(&format!("opened in {:.1} s", started.elapsed().as_secs_f64()));
    ensure!(found.waiting == filled.parts && found.damaged == 0, "opened with {found:?}");
    let mut cursor = spool.cursor();
    let (mut encoder, mut decoder) = (Encoder::for_stream(), Decoder::default());
    let limits = PartLimits::default();
    let (mut took, mut parts, mut observations, mut largest) = (Duration::ZERO, 0, 0, 0);
    loop {
        let started = Instant::now();
        let Some((sequence, item)) = cursor.next_item() else {
            break;
        };
        let Item::Part(part) = item else {
            bail!("a gap that nobody reported");
        };
        let wire = encoder.encode(&part, &limits);
        let report = v1::Report { report_id: sequence, parts: vec![wire], ..v1::Report::default() };
        let message = v1::ProbeMessage { message: Some(ToAggregator::Report(report)) };
        let bytes = message.encode_to_vec();
        spool.acknowledge(sequence);
        took += started.elapsed();
        parts += 1;
        observations += part.sets.count() as u64;
        largest = largest.max(bytes.len());
        if parts <= COMPARED {
            compare(&bytes, &mut decoder, &part)?;
        }
    }
    ensure!(spool.waiting() == 0, "{} parts were not read back", spool.waiting());
    let all = (parts, observations) == (filled.parts, filled.observations);
    ensure!(all, "{parts} parts of {observations} observations came back");
    Ok((took, largest))
}

/// Holds what went out to what was read.
fn compare(bytes: &[u8], decoder: &mut Decoder, part: &Part) -> anyhow::Result<()> {
    let message = v1::ProbeMessage::decode(bytes)?.message;
    let Some(ToAggregator::Report(report)) = message else {
        bail!("a report came back as something else");
    };
    for wire in &report.parts {
        let back = part_from_wire(wire, Some(decoder), &PartLimits::default())?;
        ensure!(back == *part, "a part came back as another");
    }
    Ok(())
}
