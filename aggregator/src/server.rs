//! The life of a serving aggregator: open, bind, run, stop in order.
//!
//! Owns which task runs and when each ends. Stop order: streams and calls first, then the ledger,
//! then the CSV; whatever is cut short was not acknowledged, so nothing is lost by it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server as GrpcServer;
use uptime_proto::MESSAGE_BYTES_MAX;
use uptime_proto::convert::PartLimits;
use uptime_proto::v1::admin_server::AdminServer;
use uptime_proto::v1::collector_server::CollectorServer;
use uptime_proto::v1::uptime_query_server::UptimeQueryServer;

use crate::admin::Admin;
use crate::clock::now_unix_ms;
use crate::config::{Config, CsvDialect};
use crate::ingest::{Connections, Ingest, IngestOptions, dispatch, schedule_for};
use crate::ledger::{Ledger, LedgerOptions, Owner};
use crate::lock::DirectoryLock;
use crate::publish::{PublishedCsv, SeedTerms};
use crate::query::Query;
use crate::store::{SqliteStore, Store};
use crate::web::{Web, router};
use crate::{publish, telemetry};

/// Half-open connections are noticed within twice this.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long calls may take to end after a stop.
const GRACE: Duration = Duration::from_secs(5);
/// Streams one connection may have open; a native probe needs one.
const STREAMS_PER_CONNECTION_MAX: u32 = 200;
/// How often the metrics' histograms are folded.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// An aggregator with its ports bound.
pub struct Server {
    /// Where gRPC is served.
    pub grpc_addr: SocketAddr,
    /// Where HTTP is served.
    pub http_addr: SocketAddr,
    ledger: Ledger,
    owner: Owner<SqliteStore>,
    grpc: TcpListener,
    http: TcpListener,
    csv: PublishedCsv,
    config: Config,
    metrics: PrometheusHandle,
    // Held while this process owns the data directory.
    _lock: DirectoryLock,
}

impl Server {
    /// Opens the store, rebuilds the state and binds the ports.
    ///
    /// # Errors
    /// With what could not be opened or bound, and what to do.
    pub async fn build(config: Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        let mut store = SqliteStore::open(&config.data_dir).await?;
        let lock = DirectoryLock::take(&config.data_dir)?;
        let options = LedgerOptions {
            unconfirmed_nodes_max: config.unconfirmed_nodes_max,
            with_seed: config.csv_dialect == CsvDialect::Seed,
            retention_s: config.retention_s,
            ..LedgerOptions::new(config.rules.clone())
        };
        let csv = published_csv(&config, &mut store).await?;
        let (owner, ledger) = Owner::open(store, options, now_unix_ms()).await?;
        let bind = async |name, addr| {
            let listener = TcpListener::bind(addr)
                .await
                .with_context(|| format!("cannot bind {addr}; choose another with --{name}"))?;
            let bound = listener.local_addr()?;
            anyhow::Ok((listener, bound))
        };
        let (grpc, grpc_addr) = bind("grpc-addr", config.grpc_addr).await?;
        let (http, http_addr) = bind("http-addr", config.http_addr).await?;
        Ok(Self {
            grpc_addr,
            http_addr,
            ledger,
            owner,
            grpc,
            http,
            csv,
            config,
            metrics,
            _lock: lock,
        })
    }

    /// A handle to the ledger, for whoever runs the server inside another program.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// When a part of it ended by itself.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let ledger_stop = CancellationToken::new();
        let mut outer: JoinSet<anyhow::Result<()>> = JoinSet::new();
        let mut inner: JoinSet<()> = JoinSet::new();
        // Aborted when dropped.
        let mut helpers: JoinSet<()> = JoinSet::new();
        let connections = Connections::new(shutdown.clone());
        let ledger = self.ledger;

        inner.spawn(self.owner.run(ledger.clone(), ledger_stop.clone()));
        let (published, published_seen) = watch::channel(None);
        inner.spawn(publish::run(
            self.csv.clone(),
            ledger.snapshots(),
            published,
            ledger_stop.clone(),
        ));
        helpers.spawn(dispatch(ledger.clone(), connections.clone(), shutdown.clone()));
        let metrics = self.metrics.clone();
        helpers.spawn(async move {
            loop {
                tokio::time::sleep(METRICS_UPKEEP).await;
                metrics.run_upkeep();
            }
        });
        let web = Web {
            ledger: ledger.clone(),
            csv: self.csv.path,
            published: published_seen,
            metrics: self.metrics,
        };
        let stop = shutdown.clone();
        outer.spawn(async move {
            axum::serve(self.http, router(web))
                .with_graceful_shutdown(stop.cancelled_owned())
                .await?;
            Ok(())
        });
        outer.spawn(serve_grpc(self.grpc, ledger, connections, self.config, shutdown.clone()));

        let mut result = Ok(());
        tokio::select! {
            () = shutdown.cancelled() => {}
            Some(ended) = outer.join_next() => {
                result = ended.context("a server task panicked").and_then(|ended| ended)
                    .context("a server ended by itself");
                shutdown.cancel();
            }
        }
        let drained = async { while outer.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, drained).await.is_err() {
            tracing::warn!("calls were still open after {GRACE:?} and are cut");
            outer.abort_all();
        }
        ledger_stop.cancel();
        let drained = async { while inner.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, drained).await.is_err() {
            tracing::warn!("the ledger was still busy after {GRACE:?} and is cut");
        }
        result
    }
}

async fn serve_grpc(
    listener: TcpListener,
    ledger: Ledger,
    connections: Connections,
    config: Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<CollectorServer<Ingest>>().await;
    health.set_serving::<UptimeQueryServer<Query>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(uptime_proto::DESCRIPTOR)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Newer clients ask for v1; Python's know only v1alpha.
    let (reflection, reflection_alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    let options =
        IngestOptions { part_limits: PartLimits::default(), schedule: schedule_for(&config.rules) };
    let ingest = Ingest::new(ledger.clone(), connections, options);
    let (query, keep_log) = Query::new(ledger, shutdown.clone());
    // Aborted when dropped.
    let mut beside = JoinSet::new();
    beside.spawn(keep_log);
    GrpcServer::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .tcp_nodelay(true)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .add_service(
            CollectorServer::new(ingest)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            UptimeQueryServer::new(query)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(AdminServer::new(Admin).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned())
        .await?;
    Ok(())
}

/// What is imported is read once: nothing is imported while this process has the data directory.
async fn published_csv(config: &Config, store: &mut SqliteStore) -> anyhow::Result<PublishedCsv> {
    let seed = match config.csv_dialect {
        CsvDialect::Utc => None,
        CsvDialect::Seed => {
            Some(SeedTerms { opening: store.opening().await?, subnet: config.csv_subnet.clone() })
        }
    };
    Ok(PublishedCsv { path: config.csv.clone(), seed: seed.map(Arc::new) })
}

/// What `check` does: everything serve does before it serves.
///
/// # Errors
/// With what is wrong and what to do.
pub async fn check(config: Config) -> anyhow::Result<String> {
    let data_dir = config.data_dir.clone();
    let server = Server::build(config, telemetry::start_metrics()?).await?;
    let snapshot = server.ledger.snapshot();
    server.csv.replace(&snapshot)?;
    Ok(format!(
        "store {} holds {} nodes; gRPC {} and HTTP {} are free; {} can be written",
        data_dir.display(),
        snapshot.confirmed.len(),
        server.grpc_addr,
        server.http_addr,
        server.csv.path.display()
    ))
}
