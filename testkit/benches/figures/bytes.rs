//! Bytes an observation costs, on the wire and on disk: `wire_bytes`, `stored_bytes` and kin.

use std::path::Path;

use anyhow::ensure;
use prost::Message;
use uptime_aggregator::engine::Snapshot;
use uptime_aggregator::publish::{replace_file, write_csv};
use uptime_proto::convert::{
    Decoder, Encoder, PartLimits, part_from_wire, samples_from_wire, samples_to_compact,
};
use uptime_proto::v1::{self, probe_message::Message as ToAggregator};
use uptime_proto::{Part, Period, Sample};

use super::Extent;
use super::history::{History, ROUND_S, first_round};
use super::network::Network;
use super::peers;
use super::report::{anywhere, figure, progress};
use super::samples::Samples;

/// Every message is preceded by this by gRPC: compressed or not, and its length.
const GRPC_HEAD: usize = 5;
/// Every frame is preceded by this by HTTP/2.
const FRAME_HEAD: usize = 9;
/// Longer messages travel in several frames.
const FRAME_MAX: usize = 16_384;
/// A native probe sends a heartbeat when it sent nothing else for so long …
const HEARTBEAT_MS: i64 = 25_000;
/// … and when it sent none for so long.
const CLOCK_EVERY_MS: i64 = 240_000;
pub(crate) const HOUR_S: u32 = 3_600;

fn framed(message: &v1::ProbeMessage) -> u64 {
    let bytes = GRPC_HEAD + message.encoded_len();
    (bytes + bytes.div_ceil(FRAME_MAX) * FRAME_HEAD) as u64
}

/// What a native probe puts on the wire, and the far end that must understand it.
struct Wire {
    encoder: Encoder,
    decoder: Decoder,
    bytes: u64,
    heartbeats: u64,
    last_sent_ms: Option<i64>,
    last_beat_ms: i64,
    observations: u64,
    samples: u64,
    sample_bytes: u64,
}

impl Wire {
    fn new() -> Self {
        Self {
            encoder: Encoder::for_stream(),
            decoder: Decoder::default(),
            bytes: 0,
            heartbeats: 0,
            last_sent_ms: None,
            last_beat_ms: 0,
            observations: 0,
            samples: 0,
            sample_bytes: 0,
        }
    }

    /// The heartbeats until then: a part is sent as soon as it was observed.
    fn keep_alive(&mut self, until_ms: i64) {
        let beat = ToAggregator::Heartbeat(v1::Heartbeat::default());
        let beat = framed(&v1::ProbeMessage { message: Some(beat) });
        let mut last_ms = self.last_sent_ms.unwrap_or(until_ms);
        loop {
            let due_ms = (last_ms + HEARTBEAT_MS).min(self.last_beat_ms + CLOCK_EVERY_MS);
            if due_ms > until_ms {
                break;
            }
            self.heartbeats += beat;
            last_ms = due_ms.max(last_ms);
            self.last_beat_ms = last_ms;
        }
        self.last_sent_ms = Some(until_ms);
    }

    /// A part, and samples beside it.
    fn send(&mut self, part: &Part, samples: &[Sample]) -> anyhow::Result<()> {
        let limits = PartLimits::default();
        self.keep_alive(part.observed_at_ms);
        let report = v1::Report {
            // Answered before the next is sent, nearly always.
            report_id: 1,
            parts: vec![self.encoder.encode(part, &limits)],
            compact_samples: samples_to_compact(samples, &self.encoder).into(),
            ..v1::Report::default()
        };
        let bare = v1::Report { compact_samples: Vec::new().into(), ..report.clone() };
        let framed =
            |report| framed(&v1::ProbeMessage { message: Some(ToAggregator::Report(report)) });
        let bytes = framed(report.clone());
        self.bytes += bytes;
        self.sample_bytes += bytes - framed(bare);
        self.samples += samples.len() as u64;
        let message = v1::ProbeMessage { message: Some(ToAggregator::Report(report)) };
        self.observations += part.sets.count() as u64;
        let received = v1::ProbeMessage::decode(message.encode_to_vec().as_slice())?;
        let Some(ToAggregator::Report(report)) = received.message else {
            anyhow::bail!("a report came back as something else");
        };
        for wire in &report.parts {
            let back = part_from_wire(wire, Some(&mut self.decoder), &limits)?;
            ensure!(back == *part, "a part came back as another");
        }
        let back = samples_from_wire(&report, Some(&self.decoder))?;
        ensure!(super::samples::are_told(samples, &back), "samples came back as others");
        Ok(())
    }
}

/// `wire_bytes`.
pub(crate) fn wire(_: Extent) -> anyhow::Result<()> {
    let mut network = Network::new(11, 10_000, 3, ROUND_S);
    let mut wires: Vec<Wire> = (0..3).map(|_| Wire::new()).collect();
    let mut samples: Vec<Samples> = (0..3).map(|seed| Samples::new(seed, 10_000)).collect();
    let mut round = first_round(Period::new(ROUND_S)?)?;
    let mut begin = [0; 5];
    let totals = |wires: &[Wire]| {
        wires.iter().fold([0; 5], |sums, wire| {
            let Wire { bytes, heartbeats, observations, samples, sample_bytes, .. } = wire;
            let more = [bytes, heartbeats, observations, samples, sample_bytes];
            std::array::from_fn(|at| sums[at] + *more[at])
        })
    };
    let rounds = HOUR_S / ROUND_S;
    // The round before the hour brings the ids.
    for at in 0..=rounds {
        for ((wire, samples), view) in wires.iter_mut().zip(&mut samples).zip(network.look().views)
        {
            let beside = samples.of_round(&view, &network.ids, round);
            let stages = network.stages(view, round);
            let last = stages.all().count() - 1;
            for (place, piece) in stages.all().enumerate() {
                // They are there when the round's last part is.
                let beside = if place == last { beside.as_slice() } else { &[] };
                wire.send(&piece.part(&network.ids, round), beside)?;
            }
        }
        if at == 0 {
            begin = totals(&wires);
        }
        round = round.next();
        network.advance();
    }
    let end = totals(&wires);
    let [bytes, heartbeats, observations, samples, sample_bytes] =
        std::array::from_fn(|at| end[at] - begin[at]);
    let bytes = bytes + heartbeats;
    progress(&format!(
        "{bytes} bytes, {heartbeats} of them heartbeats and {sample_bytes} {samples} samples, for \
         {observations} observations of 3 probes in an hour; the first round with all ids took {} \
         bytes",
        begin[0]
    ));
    figure("wire_bytes", bytes as f64 / observations as f64, "bytes/observation");
    Ok(())
}

/// What the rounds to store look like.
pub(crate) struct Stored {
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) probes: usize,
    pub(crate) rounds: u64,
    /// Commit the parts of a probe's round together.
    pub(crate) together: bool,
    /// Every probe looks for every node.
    pub(crate) everywhere: bool,
    /// Peers compact what they were given.
    pub(crate) compact: bool,
}

impl Stored {
    /// The network to look at, as it was in the beginning.
    pub(crate) fn network(&self) -> Network {
        let network = Network::new(self.seed, self.nodes, self.probes, ROUND_S);
        if self.everywhere { network.looked_for_everywhere() } else { network }
    }
}

/// What came of storing them.
pub(crate) struct KeptData<T> {
    pub(crate) observations: u64,
    pub(crate) bytes_each: f64,
    pub(crate) answer: T,
}

/// Stores the rounds, prints the figure; answers what this asked of the last snapshot.
pub(crate) fn stored<T>(
    what: &Stored,
    ask: impl FnOnce(&Snapshot) -> anyhow::Result<T>,
) -> anyhow::Result<KeptData<T>> {
    let directory = anywhere()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (parts, observations, answer) =
        runtime.block_on(Box::pin(store(what, directory.path(), ask)))?;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory.path())? {
        let entry = entry?;
        let (name, length) = (entry.file_name(), entry.metadata()?.len());
        progress(&format!("{}: {length} bytes", name.to_string_lossy()));
        // The CSV is an answer, not what it was made of; peers write none.
        bytes += if name == "nodes_status.csv" { 0 } else { length };
    }
    progress(&format!("{bytes} bytes for {observations} observations in {parts} parts"));
    let bytes_each = bytes as f64 / observations as f64;
    figure(what.name, bytes_each, "bytes/observation");
    Ok(KeptData { observations, bytes_each, answer })
}

async fn store<T>(
    what: &Stored,
    directory: &Path,
    ask: impl FnOnce(&Snapshot) -> anyhow::Result<T>,
) -> anyhow::Result<(u64, u64, T)> {
    let mut history =
        History::open(directory, what.network(), what.probes, Period::new(ROUND_S)?).await?;
    history.together = what.together;
    history.run(what.rounds).await?;
    let took = history.compact().await?;
    progress(&format!("compaction took {:.1} s", took.as_secs_f64()));
    let snapshot = history.snapshot();
    replace_file(&directory.join("nodes_status.csv"), |out| write_csv(&snapshot, out))?;
    let answer = ask(&snapshot)?;
    drop(snapshot);
    let (parts, observations) = (history.parts, history.observations);
    history.close_store(directory).await?;
    Ok((parts, observations, answer))
}

/// 10,000 nodes and three probes, handed in as they would arrive.
fn ten_thousand_by_three(name: &'static str, rounds: u64) -> Stored {
    let (nodes, probes) = (10_000, 3);
    let (together, everywhere, compact) = (false, false, true);
    Stored { name, seed: 12, nodes, probes, rounds, together, everywhere, compact }
}

/// `stored_bytes`.
pub(crate) fn stored_day(extent: Extent) -> anyhow::Result<()> {
    let what = ten_thousand_by_three("stored_bytes", u64::from(24 * HOUR_S / ROUND_S));
    let kept = stored(&what, |_| Ok(()))?;
    if extent == Extent::Full {
        peers::compare_stored(&what, &kept)?;
    }
    Ok(())
}

/// `stored_bytes_hour`, which is no figure of the contract: the same work for an hour.
pub(crate) fn stored_hour(_: Extent) -> anyhow::Result<()> {
    let what = ten_thousand_by_three("stored_bytes_hour", u64::from(HOUR_S / ROUND_S));
    stored(&what, |_| Ok(())).map(drop)
}
