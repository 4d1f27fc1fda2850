//! What a ledger keeps in memory: `aggregator_memory`.
//!
//! The ledger and the receiving ends of ten streams live in a process of their own, which is this
//! bench started again; what it is fed comes through a pipe, so that nothing of what makes the
//! network is counted.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context, ensure};
use prost::Message;
use uptime_aggregator::engine::{Engine, PartOutcome, Submission};
use uptime_aggregator::store::{Details, SqliteStore};
use uptime_proto::convert::{Decoder, Encoder, IdPool, PartLimits, part_from_wire};
use uptime_proto::{Epoch, NodeId, Period, v1};

use super::Extent;
use super::history::{ROUND_S, enrol, first_round, options};
use super::network::Network;
use super::process::{AGGREGATOR_ENVIRONMENT, Running, megabytes, resident_bytes};
use super::report::{anywhere, figure, progress};
use super::stepping::{catch_up, submit};

/// The hidden word that makes this bench the process to measure.
pub(crate) const KEEP_LEDGER: &str = "keep-ledger";

const NODES: usize = 100_000;
const PROBES: usize = 10;
const ROUNDS: u64 = 100;

/// Nodes a report describes: what one may at most.
const DETAILS: usize = 4_000;

/// A report for a probe, or, of no probe, the word to close what is over.
struct Frame {
    probe: u32,
    now_ms: i64,
    report: Vec<u8>,
}

impl Frame {
    fn write(&self, out: &mut impl Write) -> anyhow::Result<()> {
        out.write_all(&self.probe.to_le_bytes())?;
        out.write_all(&self.now_ms.to_le_bytes())?;
        out.write_all(&u32::try_from(self.report.len())?.to_le_bytes())?;
        out.write_all(&self.report)?;
        Ok(())
    }

    /// The next one; `None` at the end.
    fn read(from: &mut impl Read) -> anyhow::Result<Option<Self>> {
        let mut head = [0; 16];
        match from.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let (probe, rest) = head.split_first_chunk::<4>().context("head")?;
        let (now_ms, length) = rest.split_first_chunk::<8>().context("head")?;
        let mut report = vec![0; u32::from_le_bytes(length.try_into()?) as usize];
        from.read_exact(&mut report)?;
        let probe = u32::from_le_bytes(*probe);
        Ok(Some(Self { probe, now_ms: i64::from_le_bytes(*now_ms), report }))
    }
}

/// What the process to measure does: takes frames, says what each closed round came to.
pub(crate) fn keep_ledger(directory: &OsStr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(keep(Path::new(directory))))
}

#[expect(clippy::print_stdout, reason = "whoever started this process reads it")]
async fn keep(directory: &Path) -> anyhow::Result<()> {
    let period = Period::new(ROUND_S)?;
    let mut store = SqliteStore::open(directory).await?;
    let probes = enrol(&mut store, PROBES).await?;
    let start_ms = first_round(period)?.start_ms();
    let mut engine = Engine::open(store, options(period), start_ms).await?;
    let ids = IdPool::default();
    let mut decoders: Vec<Decoder> = probes.iter().map(|_| Decoder::sharing(&ids)).collect();
    let mut input = BufReader::new(std::io::stdin().lock());
    while let Some(frame) = Frame::read(&mut input)? {
        let Some(at) = frame.probe.checked_sub(1) else {
            catch_up(&mut engine, frame.now_ms).await;
            let snapshot = engine.snapshot();
            let last = snapshot.rounds.last().context("no round")?;
            println!("{} {} {}", last.round.start_s(), last.up, last.down);
            continue;
        };
        let at = at as usize;
        let wire = v1::Report::decode(frame.report.as_slice())?;
        let decoder = decoders.get_mut(at).context("no such probe")?;
        let mut submission = Submission { probe: probes[at], ..Submission::default() };
        for part in &wire.parts {
            submission.parts.push(part_from_wire(part, Some(decoder), &PartLimits::default())?);
        }
        submission.details = wire.details.into_iter().map(told).collect::<Result<_, _>>()?;
        let outcomes = submit(&mut engine, submission, frame.now_ms).await;
        let accepted = outcomes.iter().all(|outcome| *outcome == PartOutcome::Accepted);
        ensure!(accepted, "not accepted: {outcomes:?}");
    }
    let snapshot = engine.snapshot();
    let described = snapshot.details.named(|name| name.starts_with("provider ")).len();
    ensure!(described == NODES as u64, "{described} nodes have details");
    Ok(())
}

fn told(wire: v1::NodeDetails) -> anyhow::Result<(NodeId, Details)> {
    let v1::NodeDetails { node_id, name, runtime, runtime_version, networks, .. } = wire;
    let details = Details { name, runtime, runtime_version, networks, changed_s: 0 };
    Ok((NodeId::from_slice(&node_id)?, details))
}

/// What every node says of itself: the name is its own, the rest is what some others say, too.
fn reports_of_details(ids: &[NodeId]) -> impl Iterator<Item = v1::Report> + '_ {
    let details = |(number, id): (usize, &NodeId)| v1::NodeDetails {
        node_id: id.as_bytes().to_vec().into(),
        name: format!("provider {number} of somebody"),
        runtime: if number % 9 == 0 { "wasmtime" } else { "vm" }.to_owned(),
        runtime_version: format!("0.{}.{}", 3 + number % 3, number % 5),
        networks: vec!["holesky".to_owned(), "polygon".to_owned()],
        subnet: "public".to_owned(),
    };
    let all: Vec<_> = ids.iter().enumerate().map(details).collect();
    let chunks: Vec<Vec<_>> = all.chunks(DETAILS).map(<[_]>::to_vec).collect();
    chunks.into_iter().map(|details| v1::Report { details, ..v1::Report::default() })
}

/// `aggregator_memory`.
pub(crate) fn aggregator(_: Extent) -> anyhow::Result<()> {
    let directory = anywhere()?;
    let mut running = Running(
        Command::new(std::env::current_exe()?)
            .arg(KEEP_LEDGER)
            .arg(directory.path())
            .envs(AGGREGATOR_ENVIRONMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut input = BufWriter::new(running.0.stdin.take().context("no pipe")?);
    let output = BufReader::new(running.0.stdout.take().context("no pipe")?);
    let rounds = feed(&mut input, output.lines())?;
    let (now, most) = resident_bytes(running.0.id())?;
    drop(input);
    ensure!(running.0.wait()?.success(), "the process to measure failed at its end");
    progress(&format!("{:.1} MB at most, over {rounds} rounds", megabytes(most)));
    figure("aggregator_memory", megabytes(now), "MB");
    Ok(())
}

/// Feeds it all rounds and checks each; answers how many.
fn feed(
    input: &mut BufWriter<ChildStdin>,
    mut said: impl Iterator<Item = std::io::Result<String>>,
) -> anyhow::Result<u64> {
    let mut round = first_round(Period::new(ROUND_S)?)?;
    let mut network = Network::new(51, NODES, PROBES, ROUND_S);
    let mut encoders: Vec<Encoder> = (0..PROBES).map(|_| Encoder::for_stream()).collect();
    for at in 0..ROUNDS {
        let seen = network.look();
        for ((probe, view), encoder) in (1..).zip(seen.views).zip(&mut encoders) {
            let stages = network.stages(view, round);
            for piece in stages.all() {
                let part = piece.part(&network.ids, round);
                let parts = vec![encoder.encode(&part, &PartLimits::default())];
                let report = v1::Report { parts, ..v1::Report::default() }.encode_to_vec();
                Frame { probe, now_ms: piece.observed_at_ms + 40, report }.write(input)?;
            }
            if at == 1 {
                for report in reports_of_details(&network.ids) {
                    let report = report.encode_to_vec();
                    Frame { probe, now_ms: round.start_ms() + 40, report }.write(input)?;
                }
            }
        }
        let now_ms = Epoch::with_defaults(round.period()).closes_at_ms(round);
        Frame { probe: 0, now_ms, report: Vec::new() }.write(input)?;
        input.flush()?;
        let found = said.next().context("the process to measure ended")??;
        let wanted = format!("{} {} {}", round.start_s(), seen.up, seen.down);
        ensure!(found == wanted, "round, up and down are {found}, not {wanted}");
        if at % 25 == 24 {
            progress(&format!("round {} of {ROUNDS}", at + 1));
        }
        round = round.next();
        network.advance();
    }
    Ok(ROUNDS)
}
