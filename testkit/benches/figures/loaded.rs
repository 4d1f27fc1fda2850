//! The shipped aggregator with a day of a network in it, and a probe that goes on reporting.
//!
//! The day is handed to a ledger on the same store part by part, as it would have come, with
//! simulated time that ends now; a day of real time nobody waits for. Then the shipped aggregator
//! is started over that store, and a probe hands in every further round over gRPC. Owns what is
//! known of each node.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;
use uptime_aggregator::access::{hash_token, new_token};
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::engine::{Engine, PartOutcome, Submission};
use uptime_aggregator::store::{Registry, SqliteStore};
use uptime_proto::convert::{Encoder, PartLimits};
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;
use uptime_proto::{Class, Epoch, Kind, Part, Period, Round, v1};

use super::Extent;
use super::history::{ROUND_S, options};
use super::ingest::{Stream, message};
use super::network::{Network, Piece, Seen};
use super::process::Aggregator;
use super::report::{on_disk, progress};
use super::stepping::{catch_up, compact, submit};

const SEED: u64 = 83;
/// A line of progress so often.
const TELL_EVERY: Duration = Duration::from_secs(15);
/// Steps through the nodes by a number that has no divisor in common with theirs.
const STRIDE: u64 = 61_803_398_875;

/// How much there is, and how long it is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) rounds: u64,
    pub(crate) seconds: u32,
    /// Of the figures' names: those of a smoke run are not to follow.
    pub(crate) suffix: &'static str,
}

impl Size {
    pub(crate) fn of(extent: Extent) -> Self {
        match extent {
            Extent::Quick => Self { nodes: 10_000, rounds: 120, seconds: 6, suffix: "_10k_1h" },
            _ => Self { nodes: 100_000, rounds: 2_880, seconds: 30, suffix: "" },
        }
    }

    /// The network as it was before its first round.
    pub(crate) fn network(&self) -> Network {
        Network::new(SEED, self.nodes, 1, ROUND_S).looked_for_everywhere()
    }
}

/// What is known of the loaded day.
pub(crate) struct Loaded {
    pub(crate) aggregator: Aggregator,
    ids: Vec<String>,
    /// Rounds in which each node was up, and down, in the order of ids.
    rounds: Vec<(u64, u64)>,
    /// The day, from its first round to the end of its last.
    pub(crate) window: v1::Window,
    /// Aborted when dropped.
    _probe: JoinSet<()>,
}

impl Loaded {
    /// Loads, starts, and has a probe report; answers the first round, too.
    pub(crate) async fn open(size: &Size) -> anyhow::Result<(Self, Round)> {
        let directory = on_disk()?;
        let period = Period::new(ROUND_S)?;
        let now_s = u64::try_from(now_unix_ms() / 1_000)?;
        let period_s = u64::from(ROUND_S);
        let first = Round::new((now_s / period_s - size.rounds) * period_s, period)?;
        let data_dir = directory.path().join("data");
        let mut store = SqliteStore::open(&data_dir).await?;
        let token = new_token();
        let added = store.add_probe("probe-0", &hash_token(&token), &[], 0).await?;
        let probe = added.context("an empty store has this probe already")?.number;
        // A second one only lists the market, once, as one's offer alone makes no node.
        let added = store.add_probe("probe-1", &hash_token(&new_token()), &[], 0).await?;
        let lister = added.context("an empty store has this probe already")?.number;
        let mut engine = Engine::open(store, options(period), first.start_ms()).await?;
        let mut network = size.network();
        let (mut round, mut rounds) = (first, vec![(0, 0); size.nodes]);
        let mut told = Instant::now();
        for at in 0..size.rounds {
            let seen = network.look();
            note(&seen, &mut rounds);
            for view in seen.views {
                let stages = network.stages(view, round);
                let parts = |pieces: &mut dyn Iterator<Item = &Piece>| -> Vec<Part> {
                    pieces.map(|piece| piece.part(&network.ids, round)).collect()
                };
                let all =
                    [(probe, parts(&mut stages.all())), (lister, parts(&mut stages.market.iter()))];
                for (probe, parts) in all {
                    let submission = Submission { probe, parts, ..Submission::default() };
                    let outcomes = submit(&mut engine, submission, round.end_ms() - 100).await;
                    let good = outcomes.iter().all(|it| *it == PartOutcome::Accepted);
                    ensure!(good, "not all were accepted: {outcomes:?}");
                }
            }
            catch_up(&mut engine, Epoch::with_defaults(period).closes_at_ms(round)).await;
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                progress(&format!("round {at} of {} is loaded", size.rounds));
            }
            network.advance();
            round = round.next();
        }
        compact(&mut engine, now_unix_ms()).await;
        engine.save_checkpoint().await;
        drop(engine.into_store());
        let aggregator = Aggregator::over(directory, vec![token], &[]).await?;
        let window = v1::Window { from_unix_s: first.start_s(), to_unix_s: round.start_s() };
        let ids = network.ids.iter().map(ToString::to_string).collect();
        let token = aggregator.tokens.first().context("no token")?;
        let stream = Stream::open(aggregator.address.clone(), token).await?;
        let mut probe = JoinSet::new();
        probe.spawn(report(network, stream));
        Ok((Self { aggregator, ids, rounds, window, _probe: probe }, first))
    }

    /// The place of the node that comes up as this number of all calls.
    pub(crate) fn place(&self, number: u64) -> usize {
        let place = number.wrapping_mul(STRIDE) % self.ids.len() as u64;
        usize::try_from(place).unwrap_or(0)
    }

    pub(crate) fn id(&self, place: usize) -> anyhow::Result<&String> {
        self.ids.get(place).context("no such node")
    }

    pub(crate) fn known(&self, place: usize) -> anyhow::Result<(u64, u64)> {
        self.rounds.get(place).copied().context("no such node")
    }

    /// How many rounds lie behind the last that closed, since 1970.
    pub(crate) async fn rounds_closed(&self) -> anyhow::Result<u64> {
        let endpoint = Endpoint::from_shared(self.aggregator.address.clone())?;
        let mut query = UptimeQueryClient::new(endpoint.connect().await?);
        let summary = query.get_summary(v1::GetSummaryRequest {}).await?.into_inner();
        let fresh = summary.freshness.context("no freshness")?;
        Ok(fresh.last_closed_round_unix_s / u64::from(ROUND_S))
    }
}

/// One probe looks for every node: found is up, not found is down.
fn note(seen: &Seen, rounds: &mut [(u64, u64)]) {
    for view in &seen.views {
        for node in &view.first {
            rounds[*node as usize].0 += 1;
        }
        for node in &view.unreachable {
            rounds[*node as usize].1 += 1;
        }
    }
}

/// Hands in each further round in its course, as a native probe does.
async fn report(mut network: Network, stream: Stream) {
    let mut encoder = Encoder::for_stream();
    let (mut last_s, mut number, mut stream) = (0, 0, Some(stream));
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let period_ms = i64::from(ROUND_S) * 1_000;
        let now_ms = now_unix_ms();
        // Late in the round, when the look-ups of a probe end.
        let due = now_ms % period_ms > period_ms * 7 / 10;
        let start_s = u64::try_from(now_ms / period_ms * period_ms / 1_000).unwrap_or(0);
        let round = Period::new(ROUND_S).map(|period| Round::new(start_s, period));
        let (true, true, Ok(Ok(round))) = (due, start_s > last_s, round) else { continue };
        let mut reports = Vec::new();
        for (number_in_round, (class, nodes)) in (0u16..).zip(pieces(&mut network)) {
            let piece = Piece {
                kind: Kind::Lookup,
                number: number_in_round,
                observed_at_ms: now_ms,
                groups: vec![(class, nodes)],
            };
            let part = piece.part(&network.ids, round);
            reports.push(message(number, encoder.encode(&part, &PartLimits::default())));
            number += 1;
        }
        network.advance();
        last_s = start_s;
        let Some(there) = stream.take() else { return };
        match there.deliver(reports).await {
            Ok(there) => stream = Some(there),
            Err(error) => {
                progress(&format!("the probe that goes on reporting failed: {error:#}"));
                return;
            }
        }
    }
}

/// What the probe finds in a round, as its parts: each within the limit of one.
fn pieces(network: &mut Network) -> Vec<(Class, Vec<u32>)> {
    let (seen, unreachable) = network.look_for_all();
    let cut = |class, nodes: Vec<u32>| {
        let chunks: Vec<_> = nodes.chunks(40_000).map(|some| (class, some.to_vec())).collect();
        chunks
    };
    [cut(Class::Seen, seen), cut(Class::Unreachable, unreachable)].concat()
}
