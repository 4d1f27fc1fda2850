//! An aggregator for a test: its store, its probes, and what runs on it.
//!
//! Owns the defaults: free ports on loopback, a kernel that says that the clock is synchronised,
//! rounds of 30 s. Runs an engine that the test leads step by step, or a server in this process.
//! The shipped program as a process is in `program`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusBuilder;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::Channel;
use uptime_aggregator::access::{Tls, hash_token, new_token};
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::config::{Config, SettingArgs};
use uptime_aggregator::engine::{Engine, EngineOptions};
use uptime_aggregator::ledger::Ledger;
use uptime_aggregator::server::Server;
use uptime_aggregator::store::{Registry, SqliteStore};
use uptime_proto::v1::collector_client::CollectorClient;
use uptime_proto::{Epoch, Kind, Outcome, Part, PartKey, Period, Round, Sets};

/// The start of a UTC day.
pub const DAY_S: u64 = 1_769_904_000;
/// Rounds are so long by default. None closes by accident while a test of messages runs.
pub const PERIOD_S: u64 = 30;
/// Larger than any report.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

pub fn period(period_s: u64) -> Period {
    Period::new(u32::try_from(period_s).unwrap()).unwrap()
}

/// Options with the default rules and rounds of so many seconds.
pub fn options(period_s: u64) -> EngineOptions {
    EngineOptions::new(Epoch::with_defaults(period(period_s)))
}

/// In memory where the system has such a place: syncing is what tests would spend their time on.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

/// Adds probes to a store and answers their numbers.
pub async fn add_probes(store: &mut impl Registry, names: &[&str]) -> Vec<u32> {
    let mut numbers = Vec::new();
    for (place, name) in (0..).zip(names) {
        let added = store.add_probe(name, &[place; 32], &[], 0).await.unwrap();
        numbers.push(added.unwrap().number);
    }
    numbers
}

/// An engine on a new store with these probes, and their numbers.
pub async fn engine(
    data_dir: &Path,
    probes: &[&str],
    options: EngineOptions,
    now_ms: i64,
) -> (Engine<SqliteStore>, Vec<u32>) {
    let mut store = SqliteStore::open(data_dir).await.unwrap();
    let probes = add_probes(&mut store, probes).await;
    (Engine::open(store, options, now_ms).await.unwrap(), probes)
}

/// A part that looked, 20 s after the start of its round.
pub fn part(round: Round, subnet: &str, kind: Kind, sets: Sets) -> Part {
    Part {
        key: PartKey { subnet: subnet.to_owned(), round, number: 0 },
        kind,
        outcome: Outcome::Looked,
        observed_at_ms: round.start_ms() + 20_000,
        relay_session_age_s: (kind == Kind::Lookup).then_some(600),
        sets,
    }
}

/// Enrols a probe and answers its token.
pub async fn enrol(data_dir: &Path, name: &str, subnets: &[&str]) -> String {
    enrol_at(data_dir, name, subnets, now_unix_ms()).await
}

/// Enrols a probe at a time, unix milliseconds, and answers its token.
pub async fn enrol_at(data_dir: &Path, name: &str, subnets: &[&str], now_ms: i64) -> String {
    let token = new_token();
    let mut store = SqliteStore::open(data_dir).await.unwrap();
    let subnets: Vec<String> = subnets.iter().map(|subnet| (*subnet).to_owned()).collect();
    let added = store.add_probe(name, &hash_token(&token), &subnets, now_ms).await.unwrap();
    assert!(added.is_some());
    token
}

pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// The settings of a server on this data directory.
pub fn settings(data_dir: &Path) -> SettingArgs {
    SettingArgs {
        data_dir: Some(data_dir.display().to_string()),
        grpc_addr: Some("127.0.0.1:0".into()),
        http_addr: Some("127.0.0.1:0".into()),
        kernel_clock: Some("synchronised".into()),
        ..SettingArgs::default()
    }
}

/// A server in this process. It ends with `stop`, or with the runtime of the test.
pub struct Aggregator {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub ledger: Ledger,
    pub tls: Option<Arc<Tls>>,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Aggregator {
    pub async fn start(args: SettingArgs) -> Self {
        Self::start_with(Config::read(&args).unwrap()).await
    }

    pub async fn start_with(config: Config) -> Self {
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let server = Server::build(config, metrics).await.unwrap();
        let (grpc, http) = (server.grpc_addr, server.http_addr);
        let (ledger, tls) = (server.ledger(), server.tls());
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "stopped and awaited by stop()")]
        let running = tokio::spawn(server.run(stop.clone()));
        Self { grpc, http, ledger, tls, stop, running }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }

    pub async fn channel(&self) -> Channel {
        let address = format!("http://{}", self.grpc);
        Channel::from_shared(address).unwrap().connect().await.unwrap()
    }

    pub async fn collector(&self) -> CollectorClient<Channel> {
        CollectorClient::new(self.channel().await)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}
