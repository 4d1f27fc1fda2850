//! How fast reports are acknowledged durably: `ingest_rate`, `ingest_rate_plain`.
//!
//! The shipped aggregator in a process of its own, four probes on one stream each, with as many
//! reports in flight as it allows. It is killed at the end, and everything that it acknowledged is
//! looked for on disk.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::store::FactLog;
use uptime_proto::convert::{Encoder, PartLimits, part_to_plain};
use uptime_proto::v1::collector_client::CollectorClient;
use uptime_proto::v1::{
    self, ReportStatus, aggregator_message::Message, probe_message::Message as ToAggregator,
};
use uptime_proto::{Class, Kind, MESSAGE_BYTES_MAX, NodeId, PROTOCOL_VERSION, Part, Period, Round};

use super::Extent;
use super::history::ROUND_S;
use super::network::{Network, Piece};
use super::peers;
use super::process::Aggregator;
use super::report::{figure, on_disk, progress};

const NODES: usize = 10_000;
const PROBES: usize = 4;
/// Messages on their way to the transport, as a native probe has them.
const OUTBOUND_MAX: usize = 8;
/// Rounds of a second and a grace of an hour, so that all rounds of the past hour are open; and no
/// limit on how fast one probe may be.
const SETTINGS: [&str; 6] =
    ["--round-period-s", "1", "--grace-s", "3600", "--parts-per-s-max", "1000000"];
/// The first round lies so long ago, and so many are used before the next part number begins.
const ROUNDS_AGO_S: u64 = 3_300;
const ROUNDS: u64 = 3_000;
/// Reports of each stream before anything is measured.
const WARM_UP: usize = 100;
/// One stretch of sending takes about this long; what is sent is made before it begins.
const STRETCH_S: f64 = 1.25;
/// Sets of the plain form are made once and sent again and again, in turns.
const PLAIN_SETS: u64 = 16;

/// Makes the reports of one probe.
struct Source {
    network: Network,
    encoder: Option<Encoder>,
    plain: Vec<v1::Part>,
    first: Round,
    made: u64,
    observations: u64,
}

impl Source {
    fn new(seed: u64, probe: u64, native: bool, first: Round) -> Self {
        // One network for all probes: the same ids, seen at moments of their own.
        let mut network = Network::new(seed, NODES, PROBES, ROUND_S);
        (0..probe).for_each(|_| network.advance());
        let encoder = native.then(Encoder::for_stream);
        Self { network, encoder, plain: Vec::new(), first, made: 0, observations: 0 }
    }

    fn part(&mut self) -> anyhow::Result<Part> {
        let (at, number) = (self.made % ROUNDS, self.made / ROUNDS);
        let round = Round::new(self.first.start_s() + at, self.first.period())?;
        self.network.advance();
        let (seen, unreachable) = self.network.look_for_all();
        let piece = Piece {
            kind: Kind::Lookup,
            number: u16::try_from(number)?,
            observed_at_ms: round.start_ms() + 700,
            groups: vec![(Class::Seen, seen), (Class::Unreachable, unreachable)],
        };
        Ok(piece.part(&self.network.ids, round))
    }

    fn wire(&mut self) -> anyhow::Result<v1::Part> {
        if self.encoder.is_some() || (self.plain.len() as u64) < PLAIN_SETS {
            let part = self.part()?;
            self.observations += part.sets.count() as u64;
            if let Some(encoder) = &mut self.encoder {
                return Ok(encoder.encode(&part, &PartLimits::default()));
            }
            let wire = part_to_plain(&part);
            self.plain.push(wire.clone());
            return Ok(wire);
        }
        let of = usize::try_from(self.made % PLAIN_SETS)?;
        let mut wire = self.plain.get(of).cloned().context("no such plain set")?;
        wire.round_unix_s = self.first.start_s() + self.made % ROUNDS;
        wire.number = u32::try_from(self.made / ROUNDS)?;
        wire.observed_at_unix_ms = i64::try_from(wire.round_unix_s * 1_000 + 700)?;
        if let Some(v1::part::Evidence::Plain(plain)) = &wire.evidence {
            let bytes: usize = plain.groups.iter().map(|group| group.node_ids.len()).sum();
            self.observations += (bytes / uptime_proto::node_id::NODE_ID_BYTES) as u64;
        }
        Ok(wire)
    }

    fn reports(&mut self, count: usize) -> anyhow::Result<Vec<v1::ProbeMessage>> {
        let mut reports = Vec::with_capacity(count);
        for _ in 0..count {
            let wire = self.wire()?;
            reports.push(message(self.made, wire));
            self.made += 1;
        }
        Ok(reports)
    }
}

pub(crate) fn message(report_id: u64, part: v1::Part) -> v1::ProbeMessage {
    let report = v1::Report { report_id, parts: vec![part], ..v1::Report::default() };
    v1::ProbeMessage { message: Some(ToAggregator::Report(report)) }
}

/// The nodes make offers first, so that they are nodes.
fn market(ids: &[NodeId], round: Round) -> anyhow::Result<v1::ProbeMessage> {
    let piece = Piece {
        kind: Kind::Market,
        number: 0,
        observed_at_ms: round.start_ms() + 100,
        groups: vec![(Class::Offer, (0..u32::try_from(ids.len())?).collect())],
    };
    Ok(message(u64::MAX, part_to_plain(&piece.part(ids, round))))
}

/// A probe's stream.
pub(crate) struct Stream {
    outbound: mpsc::Sender<v1::ProbeMessage>,
    inbound: Streaming<v1::AggregatorMessage>,
    in_flight_max: usize,
    accepted: u64,
}

impl Stream {
    pub(crate) async fn open(address: String, token: &str) -> anyhow::Result<Self> {
        let endpoint = tonic::transport::Endpoint::from_shared(address)?.tcp_nodelay(true);
        let mut client = CollectorClient::new(endpoint.connect().await?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (outbound, messages) = mpsc::channel(OUTBOUND_MAX);
        let mut request = Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        let hello = v1::Hello {
            protocol_version: PROTOCOL_VERSION,
            software_version: "figures".to_owned(),
            instance_id: vec![7; 16].into(),
            subnets: vec!["public".to_owned()],
            ..v1::Hello::default()
        };
        let hello = v1::ProbeMessage { message: Some(ToAggregator::Hello(hello)) };
        outbound.send(hello).await?;
        let mut inbound = client.connect(request).await?.into_inner();
        let first = inbound.message().await?.and_then(|message| message.message);
        let Some(Message::Welcome(welcome)) = first else { bail!("no welcome: {first:?}") };
        let limits = welcome.limits.context("a welcome without limits")?;
        let in_flight_max = limits.reports_in_flight_max as usize;
        Ok(Self { outbound, inbound, in_flight_max, accepted: 0 })
    }

    /// Sends these and waits until all are acknowledged.
    pub(crate) async fn deliver(mut self, reports: Vec<v1::ProbeMessage>) -> anyhow::Result<Self> {
        let until = self.accepted + reports.len() as u64;
        let mut waiting = reports.into_iter().peekable();
        let mut in_flight = 0;
        while self.accepted < until {
            let room = in_flight < self.in_flight_max && waiting.peek().is_some();
            tokio::select! {
                place = self.outbound.reserve(), if room => {
                    let place = place.context("the stream was closed")?;
                    if let Some(report) = waiting.next() {
                        place.send(report);
                        in_flight += 1;
                    }
                }
                received = self.inbound.message() => {
                    let received = received?.context("the aggregator ended the stream")?;
                    match received.message {
                        Some(Message::Result(result)) => {
                            let status = result.status();
                            ensure!(status == ReportStatus::Accepted, "not accepted: {result:?}");
                            in_flight -= 1;
                            self.accepted += 1;
                        }
                        Some(Message::Goodbye(goodbye)) => bail!("goodbye: {goodbye:?}"),
                        _ => {}
                    }
                }
            }
        }
        Ok(self)
    }
}

/// Prepares so many reports of each source, then delivers them side by side; answers how long
/// the delivery took.
async fn stretch(
    pairs: Vec<(Stream, Source)>,
    count: usize,
) -> anyhow::Result<(Vec<(Stream, Source)>, Duration)> {
    let mut preparing = JoinSet::new();
    for (stream, mut source) in pairs {
        preparing
            .spawn_blocking(move || source.reports(count).map(|reports| (stream, source, reports)));
    }
    let mut ready = Vec::new();
    while let Some(prepared) = preparing.join_next().await {
        ready.push(prepared??);
    }
    let started = Instant::now();
    let mut delivering = JoinSet::new();
    for (stream, source, reports) in ready {
        delivering.spawn(async move { anyhow::Ok((stream.deliver(reports).await?, source)) });
    }
    let mut pairs = Vec::new();
    while let Some(delivered) = delivering.join_next().await {
        pairs.push(delivered??);
    }
    Ok((pairs, started.elapsed()))
}

struct Measured {
    observations: u64,
    reports: u64,
    took: Duration,
}

async fn measure(native: bool, seed: u64, least: Duration) -> anyhow::Result<Measured> {
    let period = Period::new(1)?;
    let now_s = u64::try_from(now_unix_ms() / 1_000)?;
    let first = Round::new(now_s - ROUNDS_AGO_S, period)?;
    let aggregator = Aggregator::serve(on_disk()?, PROBES, &SETTINGS).await?;
    let mut pairs = Vec::new();
    for (probe, token) in (0..).zip(&aggregator.tokens) {
        let stream = Stream::open(aggregator.address.clone(), token).await?;
        let source = Source::new(seed, probe, native, first);
        let offers = market(&source.network.ids, first)?;
        pairs.push((stream.deliver(vec![offers]).await?, source));
    }
    let (mut pairs, mut last) = stretch(pairs, WARM_UP).await?;
    let mut count = WARM_UP;
    let (mut took, mut rates) = (Duration::ZERO, Vec::new());
    let sums = |pairs: &[(Stream, Source)]| {
        let observations = pairs.iter().map(|(_, source)| source.observations).sum::<u64>();
        (observations, pairs.iter().map(|(_, source)| source.made).sum::<u64>())
    };
    let begin = sums(&pairs);
    while took < least {
        let rate = count as f64 / last.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few thousand"
        )]
        let next = (rate * STRETCH_S).ceil().clamp(50.0, 20_000.0) as usize;
        count = next;
        (pairs, last) = stretch(pairs, count).await?;
        took += last;
        rates.push(format!("{:.0}", (count * PROBES) as f64 / last.as_secs_f64()));
    }
    let end = sums(&pairs);
    progress(&format!("{} reports a second, stretch by stretch", rates.join(" ")));
    let whole = (end.0 + (NODES * PROBES) as u64, end.1 + PROBES as u64);
    drop(pairs);
    check(aggregator, first, whole).await?;
    Ok(Measured { observations: end.0 - begin.0, reports: end.1 - begin.1, took })
}

/// Fails unless everything acknowledged is on disk.
async fn check(aggregator: Aggregator, first: Round, sent: (u64, u64)) -> anyhow::Result<()> {
    let (mut store, _directory) = aggregator.kill_and_open().await?;
    let (mut observations, mut parts) = (0, 0);
    let end_s = first.start_s() + ROUNDS;
    for from_s in (first.start_s()..end_s).step_by(500) {
        for fact in store.read(from_s, end_s.min(from_s + 500)).await? {
            let fact = fact.map_err(anyhow::Error::msg)?;
            observations += fact.sets.iter().map(roaring::RoaringBitmap::len).sum::<u64>();
            parts += 1;
        }
    }
    let stored = (observations, parts);
    ensure!(stored == sent, "observations and parts on disk: {stored:?}, acknowledged: {sent:?}");
    Ok(())
}

fn run(native: bool, extent: Extent) -> anyhow::Result<(f64, f64)> {
    let least = Duration::from_secs(if extent == Extent::Quick { 1 } else { 6 });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(Box::pin(measure(native, 41, least)))?;
    let seconds = measured.took.as_secs_f64();
    Ok((measured.observations as f64 / seconds, measured.reports as f64 / seconds))
}

/// `ingest_rate`, and `ingest_reports` with it.
pub(crate) fn native(extent: Extent) -> anyhow::Result<()> {
    let (observations, reports) = run(true, extent)?;
    figure("ingest_rate", observations, "observations/s");
    figure("ingest_reports", reports, "reports/s");
    peers::compare_ingest(NODES, observations, extent)
}

/// `ingest_rate_plain`.
pub(crate) fn plain(extent: Extent) -> anyhow::Result<()> {
    let (observations, reports) = run(false, extent)?;
    progress(&format!("{reports:.0} reports/s in the plain form"));
    figure("ingest_rate_plain", observations, "observations/s");
    Ok(())
}
