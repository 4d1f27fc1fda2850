//! A ledger driven round by round, and the query service over it on a real socket.

use std::sync::Arc;

use uptime_accounting::fact::Gap;

pub(crate) use crate::fixture::{DAY_S, PERIOD_S};
use crate::fixture::{add_probes, options, part, period};
use crate::stepping::{catch_up, submit};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use uptime_aggregator::clock::Timekeeper;
use uptime_aggregator::engine::Snapshot;
use uptime_aggregator::engine::{Engine, EngineOptions, PartOutcome, Submission};
use uptime_aggregator::ledger::{Ledger, Task};
use uptime_aggregator::query::Query;
use uptime_aggregator::store::{Details, Registry, SqliteStore};
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;
use uptime_proto::v1::uptime_query_server::UptimeQueryServer;
use uptime_proto::{Class, Kind, NodeId, Outcome, Part, PartKey, Reason, Round, Sample, Sets};

/// What a reader takes in of a stream that it does not read: the least that HTTP/2 begins with.
const STREAM_WINDOW_BYTES: u32 = 65_535;
/// For some hundred such streams.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// What one part may hold.
const PIECE: usize = 40_000;

pub(crate) fn round_s(at: u64) -> u64 {
    DAY_S + at * PERIOD_S
}

pub(crate) fn id(number: u64) -> NodeId {
    let mut id = [0; 20];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    NodeId::new(id)
}

pub(crate) fn ids(numbers: impl Iterator<Item = u64>) -> Vec<NodeId> {
    numbers.map(id).collect()
}

/// A moment in the grace of a round, after it is closed.
fn closed_ms(at: u64) -> i64 {
    i64::try_from(round_s(at + 1) * 1000).unwrap() + 5_000
}

pub(crate) struct Service {
    pub(crate) task: Task<SqliteStore>,
    pub(crate) query: UptimeQueryClient<Channel>,
    pub(crate) probes: Vec<u32>,
    /// Held: without a handle the ledger would be at its end.
    _ledger: Ledger,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Service {
    /// A new ledger with so many probes.
    pub(crate) async fn new(directory: &TempDir, probes: u8) -> Self {
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        let names: Vec<String> = (0..probes).map(|probe| format!("probe-{probe}")).collect();
        add_probes(&mut store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        Self::over(store, round_s(0)).await
    }

    /// A ledger over a store that is there.
    pub(crate) async fn over(mut store: SqliteStore, now_s: u64) -> Self {
        let probes = store.probes().await.unwrap().iter().map(|probe| probe.number).collect();
        let options = EngineOptions { unconfirmed_nodes_max: 2_000_000, ..options(PERIOD_S) };
        let now_ms = i64::try_from(now_s * 1000).unwrap();
        let engine = Engine::open(store, options, now_ms).await.unwrap();
        let (mut task, ledger) = Task::new(engine, Arc::new(Timekeeper::trusted()));
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        task.start_beside(&ledger, &mut tasks, &stop).await.unwrap();
        let (query, keep_log) = Query::new(ledger.clone(), stop.clone());
        tasks.spawn(keep_log);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(UptimeQueryServer::new(query))
            .serve_with_incoming_shutdown(
                TcpListenerStream::new(listener),
                stop.clone().cancelled_owned(),
            );
        tasks.spawn(async move { server.await.unwrap() });
        // A stream that is not read is stopped by its own window, and not by that of all together.
        let channel = Channel::from_shared(address).unwrap();
        let channel = channel
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let channel = channel.connect().await.unwrap();
        let query = UptimeQueryClient::new(channel);
        Self { task, query, probes, _ledger: ledger, stop, tasks }
    }

    /// Every probe lists these nodes on the market, sees some of them and finds others unreachable.
    pub(crate) async fn round(&mut self, at: u64, offers: u64, seen: &[u64], dead: &[u64]) {
        let round = Round::new(round_s(at), period(PERIOD_S)).unwrap();
        let market = Sets::default().with(Class::Offer, ids(0..offers));
        let looked = Sets::default()
            .with(Class::Seen, ids(seen.iter().copied()))
            .with(Class::Unreachable, ids(dead.iter().copied()));
        for probe in self.probes.clone() {
            let parts = vec![
                part(round, "public", Kind::Market, market.clone()),
                part(round, "", Kind::Lookup, looked.clone()),
            ];
            let submission = Submission { probe, parts, ..Submission::default() };
            let outcomes = submit(self.task.engine(), submission, round.start_ms() + 21_000).await;
            assert!(outcomes.iter().all(|outcome| *outcome == PartOutcome::Accepted));
        }
        self.close(at).await;
    }

    /// Every probe sees some nodes; of one earlier questions stand, and when it asked about another
    /// its daemon gave an error.
    pub(crate) async fn standing_round(
        &mut self,
        at: u64,
        offers: u64,
        seen: &[u64],
        standing: u64,
        failed: u64,
    ) {
        let round = Round::new(round_s(at), period(PERIOD_S)).unwrap();
        let lookup = |number, outcome, sets| Part {
            key: PartKey { subnet: String::new(), round, number },
            outcome,
            ..part(round, "", Kind::Lookup, sets)
        };
        let offers = Sets::default().with(Class::Offer, ids(0..offers));
        let seen = Sets::default().with(Class::Seen, ids(seen.iter().copied()));
        let stands = Sets::default()
            .with(Class::Unreachable, vec![id(standing)])
            .with(Class::AskedEarlier, vec![id(standing)]);
        let fails = Sets::default().with(Class::Failed, vec![id(failed)]);
        let parts = [
            part(round, "public", Kind::Market, offers),
            lookup(0, Outcome::Looked, seen),
            lookup(1, Outcome::Looked, stands),
            lookup(2, Outcome::CouldNotLook(Reason::NetError), fails),
        ];
        for probe in self.probes.clone() {
            let parts = parts.to_vec();
            let submission = Submission { probe, parts, ..Submission::default() };
            let outcomes = submit(self.task.engine(), submission, round.start_ms() + 21_000).await;
            assert!(outcomes.iter().all(|outcome| *outcome == PartOutcome::Accepted));
        }
        self.close(at).await;
    }

    /// The first probe sees these and nothing else; those that are new make their first offer.
    pub(crate) async fn arrive(&mut self, at: u64, nodes: impl Iterator<Item = u64>) {
        let round = Round::new(round_s(at), period(PERIOD_S)).unwrap();
        let nodes: Vec<NodeId> = ids(nodes);
        for (number, piece) in (0..).zip(nodes.chunks(PIECE)) {
            let parts = [("public", Kind::Market, Class::Offer), ("", Kind::Lookup, Class::Seen)]
                .map(|(subnet, kind, class)| Part {
                    key: PartKey { subnet: subnet.to_owned(), round, number },
                    ..part(round, subnet, kind, Sets::default().with(class, piece.to_vec()))
                })
                .to_vec();
            let submission = Submission { probe: self.probes[0], parts, ..Submission::default() };
            let outcomes = submit(self.task.engine(), submission, round.start_ms() + 21_000).await;
            assert_eq!(outcomes, [PartOutcome::Accepted, PartOutcome::Accepted]);
        }
        self.close(at).await;
    }

    /// How many rounds have closed since the first.
    pub(crate) fn rounds_closed(&self) -> u64 {
        (self.snapshot().closed_end_s() - DAY_S) / PERIOD_S
    }

    pub(crate) async fn close(&mut self, at: u64) {
        catch_up(self.task.engine(), closed_ms(at)).await;
        self.task.publish();
    }

    /// A node says something new of itself.
    pub(crate) async fn rename(&mut self, at: u64, node: u64, name: &str) {
        let details = Details { name: name.to_owned(), ..Details::default() };
        let submission = Submission {
            probe: self.probes[0],
            details: vec![(id(node), details)],
            ..Submission::default()
        };
        submit(self.task.engine(), submission, closed_ms(at)).await;
    }

    /// A probe, by its place, says that it has nothing of these rounds.
    pub(crate) async fn gap(&mut self, probe: usize, (from_s, to_s): (u64, u64)) {
        let probe = self.probes[probe];
        let gap = Gap { probe, from_s, to_s, reason: Reason::SpoolFull };
        let submission = Submission { probe, gaps: vec![gap], ..Submission::default() };
        submit(self.task.engine(), submission, closed_ms(0)).await;
    }

    /// The first probe tells an age and a round trip of a node.
    pub(crate) async fn sample(&mut self, node: u64, at: u64, age_ms: i32, round_trip_us: u32) {
        let sample = Sample {
            seen_age_ms: Some(age_ms),
            udp_round_trip_us: Some(round_trip_us),
            ..Sample::new(id(node), round_s(at))
        };
        let probe = self.probes[0];
        let submission = Submission { probe, samples: vec![sample], ..Submission::default() };
        submit(self.task.engine(), submission, closed_ms(at)).await;
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self._ledger.snapshot()
    }

    /// Ends the service and gives the store back, as a stop leaves it.
    pub(crate) async fn end(mut self) -> SqliteStore {
        self.task.engine().save_checkpoint().await;
        self.stop.cancel();
        drop(self.query);
        self.tasks.shutdown().await;
        self.task.into_engine().into_store()
    }
}
