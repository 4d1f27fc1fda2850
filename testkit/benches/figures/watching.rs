//! From the close of a round until watchers hear of it: `watch_delay_p99`.
//!
//! A round closes when its grace is over, which the rules say to the millisecond; the aggregator
//! and the watchers read the same clock, so the delay is what passed from that moment until the
//! message was in the watcher's hands: the timer that is late, the verdicts, the snapshot and the
//! way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;
use uptime_aggregator::clock::now_unix_ms;
use uptime_proto::convert::{Encoder, PartLimits};
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;
use uptime_proto::v1::{self, watch_nodes_response::Event};
use uptime_proto::{Class, Kind, Period, Round};

use super::Extent;
use super::history::ROUND_S;
use super::ingest::{Stream, message};
use super::network::{Network, Piece};
use super::process::Aggregator;
use super::report::{figure, on_disk, percentile_s, progress};

/// Rounds of two seconds with a grace of one, so that many close within a minute.
const PERIOD_S: u32 = 2;
const GRACE_S: u32 = 1;
const SETTINGS: [&str; 6] =
    ["--round-period-s", "2", "--grace-s", "1", "--parts-per-s-max", "1000000"];
/// Each looks for every node.
const PROBES: usize = 3;
/// Watchers of all nodes, on connections that they share.
const CONNECTIONS: usize = 4;
const STREAMS: usize = 8;
/// What one part may hold.
const PIECE: usize = 40_000;
/// How long everything may take to come to all watchers.
const SYNCED_WITHIN: Duration = Duration::from_secs(120);

/// `watch_delay_p99`.
pub(crate) fn delay(extent: Extent) -> anyhow::Result<()> {
    let (nodes, rounds, suffix) = match extent {
        Extent::Quick => (10_000, 4, "_10k"),
        _ => (100_000, 30, ""),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let delays = runtime.block_on(Box::pin(measure(nodes, rounds)))?;
    let (half, longest) = (percentile_s(&delays, 50) * 1e3, percentile_s(&delays, 100) * 1e3);
    let heard = delays.len();
    progress(&format!("{heard} heard of changes, median {half:.1} ms, longest {longest:.1} ms"));
    figure(&format!("watch_delay_p99{suffix}"), percentile_s(&delays, 99) * 1e3, "ms");
    Ok(())
}

async fn measure(nodes: usize, rounds: usize) -> anyhow::Result<Vec<Duration>> {
    let aggregator = Aggregator::serve(on_disk()?, PROBES, &SETTINGS).await?;
    let mut probes = JoinSet::new();
    for token in &aggregator.tokens {
        let stream = Stream::open(aggregator.address.clone(), token).await?;
        // Nodes come and go as often in a round as they do in one of the usual length. From one
        // seed, so that all probes find the same.
        let network = Network::new(89, nodes, PROBES, ROUND_S);
        probes.spawn(Box::pin(report(network, stream)));
    }
    let synced = Arc::new(AtomicUsize::new(0));
    let mut watchers = JoinSet::new();
    await_nodes(&aggregator.address, nodes).await?;
    for _ in 0..CONNECTIONS {
        let channel = Endpoint::from_shared(aggregator.address.clone())?.connect().await?;
        for _ in 0..STREAMS {
            let query = UptimeQueryClient::new(channel.clone());
            watchers.spawn(watch(query, nodes, rounds, Arc::clone(&synced)));
        }
    }
    let mut delays = Vec::new();
    loop {
        tokio::select! {
            ended = probes.join_next() => bail!("a probe ended: {ended:?}"),
            watched = watchers.join_next() => match watched {
                Some(watched) => delays.extend(watched??),
                None => break,
            }
        }
    }
    let wanted = CONNECTIONS * STREAMS * rounds;
    ensure!(delays.len() >= wanted, "{} of {wanted} changes were heard", delays.len());
    Ok(delays)
}

/// Waits until nearly all nodes are known and up or down: a few have not been looked for yet.
async fn await_nodes(address: &str, nodes: usize) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(address.to_owned())?.connect().await?;
    let mut query = UptimeQueryClient::new(channel);
    let began = Instant::now();
    loop {
        let summary = query.get_summary(v1::GetSummaryRequest {}).await?.into_inner();
        if summary.online >= nodes as u64 / 2 {
            return Ok(());
        }
        ensure!(began.elapsed() < SYNCED_WITHIN, "the nodes do not come: {summary:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Hears everything, waits until all watchers have, then notes the delays of so many rounds.
async fn watch(
    mut query: UptimeQueryClient<tonic::transport::Channel>,
    nodes: usize,
    rounds: usize,
    synced: Arc<AtomicUsize>,
) -> anyhow::Result<Vec<Duration>> {
    let request = v1::WatchNodesRequest::default();
    let mut stream = query.watch_nodes(request).await?.into_inner();
    let (mut told, mut delays, mut last_s) = (0, Vec::new(), 0);
    while delays.len() < rounds {
        let message = stream.message().await?.context("the stream ended")?;
        let now_ms = now_unix_ms();
        match message.event.context("an empty message")? {
            Event::Synced(_) => {
                ensure!(told >= nodes / 2, "everything are {told} nodes");
                synced.fetch_add(1, Ordering::Relaxed);
            }
            Event::Changed(changed) => {
                told += changed.nodes.len();
                let fresh = message.freshness.context("no freshness")?;
                let closed_s = fresh.last_closed_round_unix_s;
                let all = synced.load(Ordering::Relaxed) == CONNECTIONS * STREAMS;
                if all && last_s != 0 && closed_s != last_s {
                    let closes_s = closed_s + u64::from(PERIOD_S + GRACE_S);
                    let late_ms = now_ms - i64::try_from(closes_s * 1_000)?;
                    delays.push(Duration::from_millis(u64::try_from(late_ms)?));
                }
                if all {
                    last_s = closed_s;
                }
            }
            Event::Resume(resume) => bail!("{resume:?}"),
        }
    }
    Ok(delays)
}

/// Hands in each round early in it: all that is left for its close is closing.
async fn report(mut network: Network, mut stream: Stream) -> anyhow::Result<()> {
    let mut encoder = Encoder::for_stream();
    let (period, mut last_s, mut number) = (Period::new(PERIOD_S)?, 0, 0);
    loop {
        let now_ms = now_unix_ms();
        let start_s = u64::try_from(now_ms / period.millis() * period.millis() / 1_000)?;
        if start_s > last_s {
            let round = Round::new(start_s, period)?;
            let (seen, unreachable) = network.look_for_all();
            let offers = if last_s == 0 {
                (0..u32::try_from(network.ids.len())?).collect()
            } else {
                Vec::new()
            };
            let mut reports = Vec::new();
            for (kind, class, nodes) in [
                (Kind::Market, Class::Offer, offers),
                (Kind::Lookup, Class::Seen, seen),
                (Kind::Lookup, Class::Unreachable, unreachable),
            ] {
                for some in nodes.chunks(PIECE) {
                    let piece = Piece {
                        kind,
                        number: u16::try_from(reports.len())?,
                        observed_at_ms: now_ms,
                        groups: vec![(class, some.to_vec())],
                    };
                    let part = piece.part(&network.ids, round);
                    let wire = encoder.encode(&part, &PartLimits::default());
                    reports.push(message(number, wire));
                    number += 1;
                }
            }
            stream = stream.deliver(reports).await?;
            network.advance();
            last_s = start_s;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
