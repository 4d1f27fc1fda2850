//! How fast questions are answered: `get_node_p50`, `get_node_p99`, `uptime_one_p50`,
//! `uptime_one_p99`, `uptime_one_alone`, `query_rate`, `query_rate_uptime`, `query_rate_empty`.
//!
//! Owns what is asked and how it is held to what the model knows: no answer counts that is wrong.
//! The shipped aggregator answers, over what [`super::loaded`] has made, while a probe reports to
//! it and its rounds close.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use uptime_proto::v1;
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;

use super::Extent;
use super::loaded::{Loaded, Size};
use super::peers::{self, OneNode};
use super::report::{figure, median_ms, percentile_s, progress, ratio};

/// Calls a second that are offered, come what may.
const OFFERED_A_SECOND: u32 = 5_000;
/// Connections that the offered calls are spread over.
const CONNECTIONS: usize = 8;
/// Clients that ask as fast as they are answered, each on a connection of its own.
const CLIENTS: usize = 64;
/// Each kind of call has so many turns of being asked as fast as possible, one kind after the
/// other, so that a slow stretch of the machine meets all of them.
const TURNS: usize = 3;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Node,
    Uptime,
    /// The standard health service's `Check`: the smallest question and the smallest answer that
    /// this server has. It passes the same listener and the same gate.
    Empty,
}

/// One connection and all that it takes to ask and to know whether the answer is right.
#[derive(Clone)]
struct Asker {
    query: UptimeQueryClient<Channel>,
    health: HealthClient<Channel>,
    loaded: Arc<Loaded>,
}

impl Asker {
    async fn connect(loaded: &Arc<Loaded>) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(loaded.aggregator.address.clone())?.tcp_nodelay(true);
        let channel = endpoint.connect().await?;
        let query = UptimeQueryClient::new(channel.clone());
        Ok(Self { query, health: HealthClient::new(channel), loaded: Arc::clone(loaded) })
    }

    /// Asks once about the node of this number, and fails unless the answer is right.
    async fn ask(&mut self, call: Call, number: u64) -> anyhow::Result<()> {
        let place = self.loaded.place(number);
        let id = self.loaded.id(place)?;
        match call {
            Call::Node => {
                let request = v1::GetNodeRequest { id: id.clone(), round_unix_s: 0 };
                let node = self.query.get_node(request).await?.into_inner().node;
                let node = node.context("no node")?;
                ensure!(node.id == *id, "{} was answered for {id}", node.id);
            }
            Call::Uptime => {
                let window = Some(self.loaded.window);
                let ids = vec![id.clone()];
                let request = v1::GetUptimeRequest { ids, window, ..Default::default() };
                let answer = self.query.get_uptime(request).await?.into_inner();
                let first = answer.nodes.first().context("no node")?;
                let figures = first.figures.context("no figures")?;
                let found = (figures.up_rounds, figures.down_rounds);
                let known = self.loaded.known(place)?;
                ensure!(found == known, "{id}: {found:?} rounds up and down, not {known:?}");
            }
            Call::Empty => {
                let answer = self.health.check(HealthCheckRequest::default()).await?;
                ensure!(answer.into_inner().status == 1, "it does not serve");
            }
        }
        Ok(())
    }
}

/// Offers calls at their times for so long, whether or not those before are answered; answers how
/// long each took from the moment it was due, so that whatever holds answers up is counted for all
/// that had to wait.
async fn offered(loaded: &Arc<Loaded>, call: Call, seconds: u32) -> anyhow::Result<Vec<Duration>> {
    let mut askers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut asker = Asker::connect(loaded).await?;
        asker.ask(call, 0).await?;
        askers.push(asker);
    }
    let calls = u64::from(OFFERED_A_SECOND * seconds);
    let runtime = tokio::runtime::Handle::current();
    // On a thread of its own: a timer of the runtime is late by up to a millisecond.
    let dispatched = tokio::task::spawn_blocking(move || {
        let mut answers = JoinSet::new();
        let began = Instant::now();
        for number in 0..calls {
            let due = began + Duration::from_secs(1) * u32::try_from(number)? / OFFERED_A_SECOND;
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            let place = usize::try_from(number)? % askers.len();
            let mut asker = askers[place].clone();
            let answer = async move {
                asker.ask(call, number).await?;
                anyhow::Ok(due.elapsed())
            };
            answers.spawn_on(answer, &runtime);
        }
        anyhow::Ok(answers)
    });
    let mut answers = dispatched.await??;
    let mut took = Vec::new();
    while let Some(answer) = answers.join_next().await {
        took.push(answer??);
    }
    ensure!(took.len() as u64 == calls, "{} of {calls} calls were answered", took.len());
    Ok(took)
}

/// Asks one question after the other, with nothing else to do, as the peer is asked; answers how
/// long each took.
async fn alone(loaded: &Arc<Loaded>, call: Call) -> anyhow::Result<Vec<Duration>> {
    let mut asker = Asker::connect(loaded).await?;
    let mut took = Vec::new();
    for number in 0..=peers::ONE_NODE_TIMES as u64 {
        let began = Instant::now();
        asker.ask(call, number).await?;
        // The first is to warm up.
        if number > 0 {
            took.push(began.elapsed());
        }
    }
    Ok(took)
}

/// Asks from all clients as fast as they are answered, for so long; answers calls a second.
async fn as_fast_as_answered(
    askers: &[Asker],
    call: Call,
    lasting: Duration,
) -> anyhow::Result<f64> {
    let asked = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for asker in askers {
        let (mut asker, asked) = (asker.clone(), Arc::clone(&asked));
        clients.spawn(async move {
            while began.elapsed() < lasting {
                let number = asked.fetch_add(1, Ordering::Relaxed);
                asker.ask(call, number).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(asked.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

async fn rates(loaded: &Arc<Loaded>, lasting: Duration) -> anyhow::Result<[f64; 3]> {
    let mut askers = Vec::new();
    for _ in 0..CLIENTS {
        askers.push(Asker::connect(loaded).await?);
    }
    let mut sums = [0.0; 3];
    for turn in 0..=TURNS {
        for (sum, call) in sums.iter_mut().zip([Call::Node, Call::Uptime, Call::Empty]) {
            let rate = as_fast_as_answered(&askers, call, lasting).await?;
            // The first turn is to warm up.
            if turn > 0 {
                *sum += rate / TURNS as f64;
            }
        }
    }
    Ok(sums)
}

/// Prints both percentiles; answers them in milliseconds.
fn percentiles(name: &str, size: &Size, took: &[Duration]) -> (f64, f64) {
    let (half, most) = (percentile_s(took, 50) * 1e3, percentile_s(took, 99) * 1e3);
    let longest = percentile_s(took, 100) * 1e3;
    progress(&format!("{name}: {} calls, the longest took {longest:.2} ms", took.len()));
    figure(&format!("{name}_p50{}", size.suffix), half, "ms");
    figure(&format!("{name}_p99{}", size.suffix), most, "ms");
    (half, most)
}

/// All of them: loading takes longer than asking.
pub(crate) fn questions(extent: Extent) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let size = Size::of(extent);
    let (ours, first) = runtime.block_on(Box::pin(async {
        let (loaded, first) = Loaded::open(&size).await?;
        let loaded = Arc::new(loaded);
        let closed = loaded.rounds_closed().await?;
        let node = offered(&loaded, Call::Node, size.seconds).await?;
        percentiles("get_node", &size, &node);
        let uptime = offered(&loaded, Call::Uptime, size.seconds).await?;
        let uptime = percentiles("uptime_one", &size, &uptime);
        let empty = offered(&loaded, Call::Empty, size.seconds / 2).await?;
        let (half, most) = (percentile_s(&empty, 50) * 1e3, percentile_s(&empty, 99) * 1e3);
        progress(&format!("an empty call: p50 {half:.3} ms, p99 {most:.3} ms"));
        let lasting = Duration::from_secs(u64::from(size.seconds)) / 6;
        let [node, uptime_rate, empty] = rates(&loaded, lasting).await?;
        figure(&format!("query_rate{}", size.suffix), node, "calls/s");
        figure(&format!("query_rate_uptime{}", size.suffix), uptime_rate, "calls/s");
        figure(&format!("query_rate_empty{}", size.suffix), empty, "calls/s");
        ratio(&format!("query_rate{}", size.suffix), node / empty, "empty_call");
        ratio(&format!("query_rate_uptime{}", size.suffix), uptime_rate / empty, "empty_call");
        let closed = loaded.rounds_closed().await? - closed;
        progress(&format!("{closed} rounds closed while it was asked"));
        let alone_ms = median_ms(alone(&loaded, Call::Uptime).await?);
        figure(&format!("uptime_one_alone{}", size.suffix), alone_ms, "ms");
        anyhow::Ok((OneNode { p50_ms: uptime.0, p99_ms: uptime.1, alone_ms }, first))
    }))?;
    drop(runtime);
    peers::compare_one_node(first, &size, &ours, extent)
}
