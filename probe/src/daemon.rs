//! The life of `run`: start, reload, systemd, stop.
//!
//! Owns the tasks and the order in which they stop: first the scanner, then the uplink, once
//! everything is sent or its time is over. Refuses to decide what is scanned or sent.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Timekeeper;
use crate::config::Config;
use crate::control_state::ControlState;
use crate::identity;
use crate::scan::{Scanner, Sources};
use crate::spool::{Spool, SpoolLimits};
use crate::systemd::Systemd;
use crate::telemetry;
use crate::time_format::utc;
use crate::uplink::{Uplink, UplinkOptions};
use crate::yagna::relay::{RelayConfigError, RelayWatch};
use crate::yagna::{Relay, RelayOptions, YagnaConfigError};

/// How long the uplink may take to empty the spool at the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// The same while there is no connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long the scanner may take to stop; only disk writes delay it.
const SCANNER_ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Longer than all waits of a stop together.
const STOPS_WITHIN: Duration = Duration::from_secs(15);
/// How often a stop checks whether the spool is empty.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often systemd gets the status if it sets no watchdog.
const STATUS_EVERY: Duration = Duration::from_secs(30);
/// A scanner that has neither begun a round nor waited for one for this many periods is stuck: the
/// watchdog gets no more notifications.
const STUCK_PERIODS: u64 = 3;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As requested.
    Done,
    /// `--once`: the round is not fully delivered.
    NotDelivered,
}

/// Everything that runs.
struct Daemon {
    config: Config,
    /// Tells this probe from others on the same daemon, across restarts.
    name: String,
    spool: Spool,
    control: ControlState,
    sources: watch::Sender<Arc<Sources>>,
    scanner: Scanner,
    uplink: UplinkTask,
    relay: Option<RelayTask>,
}

/// The task that follows a relay; dropping this stops it.
struct RelayTask {
    watch: RelayWatch,
    tasks: JoinSet<()>,
}

struct UplinkTask {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// The signals that are handled.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal: true to stop, false to reload.
    async fn stop_or_reload(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.reload.recv() => false,
        }
    }
}

/// Scans round after round until a signal, or one round. `read` reads the settings again after
/// SIGHUP.
///
/// # Errors
/// When it cannot start, or a task ended.
pub async fn run(
    config: Config,
    once: bool,
    read: impl Fn() -> Result<Config, Vec<String>>,
) -> anyhow::Result<Ended> {
    // Before anything else, so that a SIGHUP that comes early does not end the process.
    let mut signals = Signals::new()?;
    if let Some(addr) = config.metrics_addr {
        telemetry::serve_metrics(addr)?;
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        yagna = config.yagna.base_url,
        aggregators = config.aggregators.join(","),
        subnets = config.subnets.join(","),
        spool = %config.spool_dir.display(),
        metrics = config.metrics_addr.map(tracing::field::display),
        "probe started"
    );
    let mut daemon = Daemon::start(config).await?;
    if once {
        let round = tokio::select! {
            round = daemon.scanner.once() => round,
            // One round ends before new settings would matter.
            () = async { while !signals.stop_or_reload().await {} } => {
                return Ok(Ended::NotDelivered);
            }
        };
        tracing::info!(round = utc(round.start_s()), "round done");
        return Ok(match daemon.stop().await {
            0 => Ended::Done,
            _ => Ended::NotDelivered,
        });
    }
    let stop = CancellationToken::new();
    let mut scanning: JoinSet<()> = JoinSet::new();
    scanning.spawn(daemon.scanner.clone().run(stop.clone()));
    let systemd = Systemd::of_this_process();
    daemon.feed_watchdog(&systemd);
    let watchdog_every = sd_notify::watchdog_enabled().map_or(STATUS_EVERY, |within| within / 2);
    let mut watchdog = tokio::time::interval(watchdog_every);
    loop {
        tokio::select! {
            stops = signals.stop_or_reload() => match stops {
                true => break,
                false => daemon.reload_with(&read),
            },
            ended = scanning.join_next() => return Err(task_ended(ended, "scanner")),
            ended = daemon.uplink.tasks.join_next() => return Err(task_ended(ended, "uplink")),
            ended = relay_ended(&mut daemon.relay) => {
                return Err(task_ended(ended, "relay follower"));
            }
            _ = watchdog.tick() => daemon.feed_watchdog(&systemd),
        }
    }
    // Stop scanning, then let the uplink send what is there.
    systemd.tell(&[NotifyState::Stopping]);
    stop.cancel();
    let scanned = async { while scanning.join_next().await.is_some() {} };
    let stuck = timeout(SCANNER_ENDS_WITHIN, scanned).await.is_err();
    if stuck || timeout(STOPS_WITHIN, daemon.stop()).await.is_err() {
        anyhow::bail!("a task did not stop in time; check the disk of the spool");
    }
    Ok(Ended::Done)
}

/// Waits for the relay task to end; for ever if there is none.
async fn relay_ended(relay: &mut Option<RelayTask>) -> Option<Result<(), JoinError>> {
    match relay {
        Some(relay) => relay.tasks.join_next().await,
        None => std::future::pending().await,
    }
}

fn task_ended(ended: Option<Result<(), JoinError>>, what: &str) -> anyhow::Error {
    match ended {
        Some(Err(error)) => anyhow::Error::new(error).context(format!("the {what} failed")),
        _ => anyhow::anyhow!("the {what} stopped unexpectedly"),
    }
}

fn sources(
    config: &Config,
    name: &str,
    relay: Option<RelayWatch>,
) -> Result<Sources, YagnaConfigError> {
    let yagna = config.open_yagna(name)?;
    let (subnets, enabled) = (config.subnets.clone(), config.enabled);
    Ok(Sources { yagna, relay, subnets, enabled })
}

fn uplink_options(config: &Config) -> UplinkOptions {
    UplinkOptions {
        aggregators: config.aggregators.clone(),
        tls: config.tls.clone(),
        token: config.token.clone(),
        subnets: config.subnets.clone(),
    }
}

impl RelayTask {
    fn start(options: &RelayOptions) -> Result<Self, RelayConfigError> {
        let (watch, work) = Relay::new(options.clone())?.watch(CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(work);
        Ok(Self { watch, tasks })
    }
}

impl UplinkTask {
    fn start(config: &Config, spool: &Spool, control: &ControlState) -> Self {
        let uplink = Uplink::new(uplink_options(config), spool.clone(), control.clone());
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        tasks.spawn(uplink.run(stop.clone()));
        Self { tasks, stop }
    }
}

impl Daemon {
    async fn start(config: Config) -> anyhow::Result<Self> {
        let relay = config.relay.as_ref().map(RelayTask::start).transpose()?;
        let limits = SpoolLimits::of_bytes(config.spool_bytes_max);
        let (spool, found) = Spool::open(&config.spool_dir, limits)
            .with_context(|| format!("cannot use the spool in {}", config.spool_dir.display()))?;
        if found.damaged > 0 {
            tracing::error!(
                damaged = found.damaged,
                "the spool is damaged; only the damaged records are lost"
            );
        }
        let name = identity::kept(&config.spool_dir);
        let sources = sources(&config, &name, relay.as_ref().map(|relay| relay.watch.clone()))?;
        if let Err(failure) = sources.yagna.delete_leftovers().await {
            tracing::warn!(%failure, "cannot delete old demands; they expire by themselves");
        }
        let clock = Timekeeper::new(config.kernel_clock);
        let control = ControlState::open(&config.spool_dir, clock);
        let (sources, receiver) = watch::channel(Arc::new(sources));
        let scanner = Scanner::new(receiver, spool.clone(), control.clone(), &name);
        let uplink = UplinkTask::start(&config, &spool, &control);
        Ok(Self { config, name, spool, control, sources, scanner, uplink, relay })
    }

    fn reload_with(&mut self, read: &impl Fn() -> Result<Config, Vec<String>>) {
        match read() {
            Ok(config) => self.reload(config),
            Err(faults) => {
                for fault in faults {
                    tracing::error!(fault, "reload failed; the old settings stay");
                }
            }
        }
    }

    /// Applies new settings; rounds in progress keep the old ones.
    fn reload(&mut self, config: Config) {
        let fixed = [
            ("--spool-dir", config.spool_dir != self.config.spool_dir),
            ("--spool-bytes-max", config.spool_bytes_max != self.config.spool_bytes_max),
            ("--metrics-addr", config.metrics_addr != self.config.metrics_addr),
            ("--log-format", config.log_json != self.config.log_json),
        ];
        for (setting, changed) in fixed {
            if changed {
                tracing::warn!(setting, "this setting takes effect after a restart");
            }
        }
        if let Err(error) = self.reload_sources(&config) {
            tracing::error!(error = format!("{error:#}"), "reload failed; the old settings stay");
            return;
        }
        let elsewhere = uplink_options(&config) != uplink_options(&self.config);
        self.config = config;
        if elsewhere {
            self.restart_uplink();
        }
        tracing::info!("settings reloaded");
    }

    /// Ends the stream, or the wait before the next attempt, and connects again.
    fn restart_uplink(&mut self) {
        self.uplink.stop.cancel();
        self.uplink = UplinkTask::start(&self.config, &self.spool, &self.control);
    }

    fn reload_sources(&mut self, config: &Config) -> anyhow::Result<()> {
        if config.relay != self.config.relay {
            self.relay = config.relay.as_ref().map(RelayTask::start).transpose()?;
        }
        let watch = self.relay.as_ref().map(|relay| relay.watch.clone());
        self.sources.send_replace(Arc::new(sources(config, &self.name, watch)?));
        Ok(())
    }

    /// Sends the status to systemd; feeds the watchdog only if the scanner makes progress.
    fn feed_watchdog(&self, systemd: &Systemd) {
        let state = self.control.now();
        let waiting = self.spool.waiting();
        let status = match (&state.plan, state.connected) {
            (_, true) => format!("connected; {waiting} parts wait"),
            (Some(_), false) => format!("not connected; {waiting} parts wait on disk"),
            (None, false) => "waiting for the first connection to an aggregator".to_owned(),
        };
        let mut states = vec![NotifyState::Ready, NotifyState::Status(&status)];
        if self.scanner.behind_periods() > STUCK_PERIODS {
            tracing::error!("the scanner is stuck: no round for {STUCK_PERIODS} periods");
        } else {
            states.push(NotifyState::Watchdog);
        }
        systemd.tell(&states);
    }

    /// Sends what waits, for a limited time; returns how much still waits.
    async fn stop(mut self) -> u64 {
        if self.spool.waiting() > 0 && !self.control.now().connected {
            // The uplink may be waiting before its next attempt; make that attempt now.
            self.restart_uplink();
        }
        let begun = Instant::now();
        while self.spool.waiting() > 0 {
            // Without a connection, waiting longer does not help.
            let within = if self.control.now().connected { DRAIN_WITHIN } else { CONNECT_WITHIN };
            if begun.elapsed() > within {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let waiting = self.spool.waiting();
        self.uplink.stop.cancel();
        while self.uplink.tasks.join_next().await.is_some() {}
        if waiting > 0 {
            tracing::warn!(waiting, "stopped with parts in the spool; the next run sends them");
        }
        waiting
    }
}
