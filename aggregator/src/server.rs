//! The life of a serving aggregator: open, bind, run, stop in order.
//!
//! Owns which task runs and when each ends. Stop order: streams and calls first, then the ledger,
//! then the CSV; whatever is cut short was not acknowledged, so nothing is lost by it.

mod doors;
mod first_start;
mod listener;
mod readers;
mod room;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::access::Tls;
use crate::access::authority::{Authority, named_as_built_in};
use crate::clock::{Judged, Timekeeper, now_unix_ms};
use crate::config::{Config, CsvDialect};
use crate::engine::{Engine, EngineOptions, TimeAtStart, note_deliveries};
use crate::ingest::{Connections, announcements, dispatch};
use crate::ledger::{Ledger, Task};
use crate::lock::DirectoryLock;
use crate::publish::{PublishedCsv, SeedTerms};
use crate::query::Query;
use crate::rules::{differing, far_ahead};
use crate::store::{CredentialKind, Identities, IdentityStore, Registry, SqliteStore};
use crate::web::Web;
use crate::{publish, telemetry};
use doors::Doors;
pub use first_start::Misconfigured;
use listener::Wire;
use readers::Readers;

/// How long calls may take to end after a stop.
const GRACE: Duration = Duration::from_secs(5);
/// How often the metrics' histograms are folded.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// The store could only be read, and now it can be written: serve anew.
    RoomCame,
}

/// An aggregator with its ports bound.
pub struct Server {
    /// Where gRPC is served.
    pub grpc_addr: SocketAddr,
    /// Where HTTP is served.
    pub http_addr: SocketAddr,
    ledger: Ledger,
    task: Task<SqliteStore>,
    grpc: TcpListener,
    http: TcpListener,
    csv: PublishedCsv,
    config: Config,
    tls: Option<Arc<Tls>>,
    metrics: PrometheusHandle,
    /// The store was opened for reading alone.
    read_only: bool,
    // Held while this process owns the data directory.
    _lock: DirectoryLock,
}

impl Server {
    /// Opens the store, rebuilds the state and binds the ports.
    ///
    /// # Errors
    /// With what could not be opened or bound, and what to do.
    pub async fn build(config: Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        let tls = config.tls.clone().map(Tls::open).transpose()?.map(Arc::new);
        std::fs::create_dir_all(&config.data_dir).with_context(|| {
            let dir = config.data_dir.display();
            format!(
                "cannot create {dir}; choose a directory that this user may write with --data-dir"
            )
        })?;
        // Before anything is looked at, let alone made or brought up to date.
        let lock = DirectoryLock::take(&config.data_dir)?;
        if !SqliteStore::exists(&config.data_dir) {
            first_start::empties_no_csv(&config)?;
        }
        let mut store = SqliteStore::open_if_only_to_read(&config.data_dir).await?;
        let read_only = store.why_read_only().is_some();
        if store.is_unused().await? {
            first_start::empties_no_csv(&config)?;
        }
        note_authority(&config, &mut store).await?;
        let clock = Arc::new(Timekeeper::new(config.kernel_clock));
        let options = EngineOptions {
            unconfirmed_nodes_max: config.unconfirmed_nodes_max,
            parts_per_round_max: config.limits.parts_per_round_max,
            with_seed: config.csv_dialect == CsvDialect::Seed,
            retention_s: config.retention_s,
            // Which is full.
            scratch: if read_only { std::env::temp_dir() } else { config.data_dir.clone() },
            ..EngineOptions::new(config.rules.clone())
        };
        let csv = published_csv(&config, &mut store).await?;
        first_start::csv_can_be_written(&csv)?;
        note_deliveries(&mut store, &clock).await?;
        let judged = clock.now();
        let now_ms = judged.closing_ms.unwrap_or(judged.wall_ms);
        let time = judged.time_ms.map_or(TimeAtStart::Unknown, TimeAtStart::Later);
        let options = EngineOptions { time, ..options };
        let mut engine = Engine::open(store, options, now_ms).await?;
        engine.set_disagreement_policy(config.disagreement);
        let (task, ledger) = Task::new(engine, clock);
        for said in about_rules(&config, &ledger) {
            tracing::warn!("{said}");
        }
        let bind = |name, addr| {
            let listener = listener::bind(addr)
                .with_context(|| format!("cannot bind {addr}; choose another with --{name}"))?;
            let bound = listener.local_addr()?;
            anyhow::Ok((listener, bound))
        };
        let (grpc, grpc_addr) = bind("grpc-addr", config.grpc_addr)?;
        let (http, http_addr) = bind("http-addr", config.http_addr)?;
        Ok(Self {
            grpc_addr,
            http_addr,
            ledger,
            task,
            grpc,
            http,
            csv,
            config,
            tls,
            metrics,
            read_only,
            _lock: lock,
        })
    }

    /// A handle to the ledger, for whoever runs the server inside another program.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// The certificates in force, to have them read anew; `None`: plaintext is served.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// As [`Server::run_until_room`], for whoever does not serve anew.
    ///
    /// # Errors
    /// When a part of it ended by itself.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        self.run_until_room(shutdown).await.map(|_| ())
    }

    /// Serves until told to stop, or until there is room for a store that could only be read.
    ///
    /// # Errors
    /// When a part of it ended by itself.
    pub async fn run_until_room(self, shutdown: CancellationToken) -> anyhow::Result<Ended> {
        let data_dir = self.read_only.then(|| self.config.data_dir.clone());
        let ledger_stop = CancellationToken::new();
        let mut outer: JoinSet<anyhow::Result<()>> = JoinSet::new();
        let mut inner: JoinSet<()> = JoinSet::new();
        // Aborted when dropped.
        let mut helpers: JoinSet<()> = JoinSet::new();
        let connections = Connections::new(shutdown.clone());
        let ledger = self.ledger;

        inner.spawn(self.task.run(ledger.clone(), ledger_stop.clone()));
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
        let readers = Readers::start().context("cannot start the threads of readers")?;
        let (query, keep_log) = Query::new(ledger.clone(), shutdown.clone());
        helpers.spawn_on(keep_log, readers.handle());
        let (announced, announcing) = announcements(&ledger, shutdown.clone());
        helpers.spawn(announcing);
        let web = Web {
            ledger: ledger.clone(),
            query: query.clone(),
            csv: self.csv.path,
            published: published_seen,
            metrics: self.metrics,
            blind_rounds_max: self.config.blind_rounds_max,
            now_unix_ms,
        };
        let doors = Doors::new(ledger.clone(), &self.config, self.tls, readers.handle().clone());
        // It writes its last lines while the ledger still takes them.
        let audit_log = doors.auditor.clone().run(ledger.clone(), shutdown.clone());
        outer.spawn(audit_log.map(Ok));
        doors.spawn_keepers(&mut helpers, &shutdown);
        let grpc = doors.grpc_router(connections, announced, query, &self.config).await?;
        for (wire, tcp, router) in
            [(Wire::Grpc, self.grpc, grpc), (Wire::Http, self.http, doors.http_router(web))]
        {
            let (listener, stop) = (doors.listener(wire, tcp), shutdown.clone());
            outer.spawn(async move { Ok(listener.run(router, stop).await?) });
        }

        let result = tokio::select! {
            ended = until_end(&shutdown, &mut outer, &mut inner, &mut helpers) => {
                ended.map(|()| Ended::Stopped)
            }
            () = room::comes(data_dir.as_deref()) => Ok(Ended::RoomCame),
        };
        shutdown.cancel();
        let drained = async { while outer.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, drained).await.is_err() {
            tracing::warn!("open calls cancelled after {GRACE:?}");
            outer.abort_all();
        }
        ledger_stop.cancel();
        let drained = async { while inner.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, drained).await.is_err() {
            tracing::warn!("ledger stopped after {GRACE:?} while still busy");
        }
        result
    }
}

/// Tells the store whose certificates pass only if they are on record. The authority in the data
/// directory is the built-in one. A backup of an older version does not say whose the certificates
/// on its record are: where nothing else does, their authority's name has to.
async fn note_authority(config: &Config, store: &mut SqliteStore) -> anyhow::Result<()> {
    let Identities { credentials, authorities, .. } = store.identities().await?;
    let issued = credentials.values().any(|one| one.kind == CredentialKind::Certificate);
    let client_ca = config.tls.as_ref().and_then(|files| files.client_ca.as_ref());
    let found = match (Authority::of_directory(&config.data_dir)?, client_ca) {
        (Some(authority), _) => vec![authority],
        (None, Some(path)) if issued && authorities.is_empty() => named_as_built_in(path)?,
        (None, _) => Vec::new(),
    };
    for authority in found.iter().filter(|authority| !authorities.contains(*authority)) {
        store.add_authority(authority).await?;
    }
    Ok(())
}

/// What is said of the rules before they are served: settings that differ from them, and a date
/// that no clock should have given them.
fn about_rules(config: &Config, ledger: &Ledger) -> Vec<String> {
    let epochs = ledger.epochs();
    let data_dir = &config.data_dir;
    let differing =
        epochs.all().last().and_then(|last| differing(&config.given_rules, last, data_dir));
    differing.into_iter().chain(far_ahead(epochs.all(), now_unix_ms(), data_dir)).collect()
}

/// Waits until it is told to stop, or a task ends that was not told to: what is left of a process
/// without one of them only looks alive.
async fn until_end(
    shutdown: &CancellationToken,
    outer: &mut JoinSet<anyhow::Result<()>>,
    inner: &mut JoinSet<()>,
    helpers: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    tokio::select! {
        // First: told to stop, tasks end in any order.
        biased;
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = outer.join_next() => ended
            .context("a server task panicked")
            .and_then(|ended| ended)
            .context("a server stopped unexpectedly"),
        Some(ended) = inner.join_next() => by_itself(ended, "the ledger or the CSV writer"),
        Some(ended) = helpers.join_next() => by_itself(ended, "a background task"),
    }
}

/// What a task says that ended before it was told to.
fn by_itself(ended: Result<(), JoinError>, what: &str) -> anyhow::Result<()> {
    ended.with_context(|| format!("{what} failed"))?;
    anyhow::bail!("{what} stopped unexpectedly; see the log")
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

/// What `check` does: everything serve does before it serves. Answers what it found, a line each.
///
/// # Errors
/// With what is wrong and what to do.
pub async fn check(config: Config) -> anyhow::Result<String> {
    let data_dir = config.data_dir.clone();
    if !SqliteStore::exists(&data_dir) {
        // It makes none.
        return first_start::check(&config);
    }
    let found = SqliteStore::found_version(&data_dir).await?;
    if found < SqliteStore::VERSION {
        return Ok(format!(
            "the store {} has schema version {found}; serve will bring it up to {} when it starts",
            data_dir.display(),
            SqliteStore::VERSION
        ));
    }
    let server = Server::build(config, telemetry::start_metrics()?).await?;
    let snapshot = server.ledger.snapshot();
    let found = format!(
        "store {} holds {} nodes; gRPC {} and HTTP {} are free; {} can be written",
        data_dir.display(),
        snapshot.confirmed.len(),
        server.grpc_addr,
        server.http_addr,
        server.csv.path.display()
    );
    let rules = about_rules(&server.config, &server.ledger);
    let lines: Vec<String> =
        [found, about_clock(&server.ledger.clock().now())].into_iter().chain(rules).collect();
    Ok(lines.join("\n"))
}

/// How far the clock is trusted, for people.
fn about_clock(clock: &Judged) -> String {
    let state = clock.state.as_str();
    if clock.is_sure() {
        return format!("the clock of this host is {state}");
    }
    format!("the clock of this host is {state} (probes were not asked): {}", clock.why)
}
