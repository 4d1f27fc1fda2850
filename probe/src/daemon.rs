//! The life of a probe that runs: start, settings read anew, the service manager, the end.
//!
//! Owns which tasks there are and in what order they stop: first the scanner, then the uplink, when
//! what waited is sent or the time for that is over. Refuses to decide what is scanned or sent.

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
use crate::uplink::{Uplink, UplinkOptions};
use crate::yagna::relay::{RelayConfigError, RelayWatch};
use crate::yagna::{Relay, RelayOptions, YagnaConfigError};

/// How long the uplink may take to empty the spool when the probe stops, or did one round.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// The same while there is no connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// A scanner that is told to stop ends at once, but for what it writes.
const SCANNER_ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Longer than everything that is waited for at the end together.
const STOPS_WITHIN: Duration = Duration::from_secs(15);
/// How often it is looked whether the spool is empty.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Without a watchdog of the service manager, how often it is told how things stand.
const STATUS_EVERY: Duration = Duration::from_secs(30);
/// A scanner that has neither begun a round nor waited for one for so many periods has got stuck,
/// and the watchdog is not comforted any more.
const STUCK_PERIODS: u64 = 3;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it was told to.
    Done,
    /// The one round asked for is on disk, or was cut short, and not all of it was delivered.
    NotDelivered,
}

/// Everything that runs.
struct Daemon {
    config: Config,
    /// Tells it from others beside the same yagna, over restarts.
    name: String,
    spool: Spool,
    control: ControlState,
    sources: watch::Sender<Arc<Sources>>,
    scanner: Scanner,
    uplink: UplinkTask,
    relay: Option<RelayTask>,
}

/// The work of keeping up with a relay; it ends when this is dropped.
struct RelayTask {
    watch: RelayWatch,
    tasks: JoinSet<()>,
}

struct UplinkTask {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// The signals that are listened to.
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

    /// The next one: true to stop, false to read the settings anew.
    async fn stop_or_reload(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.reload.recv() => false,
        }
    }
}

/// Scans round after round until told to stop, or one round. `read_anew` reads the settings again
/// when SIGHUP asks for it.
///
/// # Errors
/// When it cannot start, or a part of it ended by itself.
pub async fn run(
    config: Config,
    once: bool,
    read_anew: impl Fn() -> Result<Config, Vec<String>>,
) -> anyhow::Result<Ended> {
    // Before anything else, so that a SIGHUP that comes early does not end the process.
    let mut signals = Signals::new()?;
    if let Some(addr) = config.metrics_addr {
        telemetry::serve_metrics(addr)?;
    }
    let mut daemon = Daemon::start(config).await?;
    if once {
        let round = tokio::select! {
            round = daemon.scanner.once() => round,
            // One round is over before new settings could matter.
            () = async { while !signals.stop_or_reload().await {} } => {
                return Ok(Ended::NotDelivered);
            }
        };
        tracing::info!(round = round.start_s(), "one round done");
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
                false => daemon.read_anew(&read_anew),
            },
            ended = scanning.join_next() => return Err(by_itself(ended, "scanner")),
            ended = daemon.uplink.tasks.join_next() => return Err(by_itself(ended, "uplink")),
            ended = relay_ended(&mut daemon.relay) => {
                return Err(by_itself(ended, "watch over the relay"));
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
        anyhow::bail!("a task did not end when it was told to; does the spool's disk answer?");
    }
    Ok(Ended::Done)
}

/// Waits for the work of keeping up with a relay to end; for ever where there is none.
async fn relay_ended(relay: &mut Option<RelayTask>) -> Option<Result<(), JoinError>> {
    match relay {
        Some(relay) => relay.tasks.join_next().await,
        None => std::future::pending().await,
    }
}

fn by_itself(ended: Option<Result<(), JoinError>>, what: &str) -> anyhow::Error {
    match ended {
        Some(Err(error)) => anyhow::Error::new(error).context(format!("the {what} broke down")),
        _ => anyhow::anyhow!("the {what} ended by itself"),
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
                "the spool was damaged; the rest is delivered"
            );
        }
        let name = identity::kept(&config.spool_dir);
        let sources = sources(&config, &name, relay.as_ref().map(|relay| relay.watch.clone()))?;
        if let Err(failure) = sources.yagna.delete_leftovers().await {
            tracing::warn!(%failure, "demands of an earlier run, if any, stay until they end");
        }
        let clock = Timekeeper::new(config.kernel_clock);
        let control = ControlState::open(&config.spool_dir, clock);
        let (sources, receiver) = watch::channel(Arc::new(sources));
        let scanner = Scanner::new(receiver, spool.clone(), control.clone(), &name);
        let uplink = UplinkTask::start(&config, &spool, &control);
        Ok(Self { config, name, spool, control, sources, scanner, uplink, relay })
    }

    fn read_anew(&mut self, read: &impl Fn() -> Result<Config, Vec<String>>) {
        match read() {
            Ok(config) => self.reload(config),
            Err(faults) => {
                for fault in faults {
                    tracing::error!(fault, "the settings are not read anew");
                }
            }
        }
    }

    /// Takes over new settings; rounds that have begun end with the old ones.
    fn reload(&mut self, config: Config) {
        let fixed = [
            ("--spool-dir", config.spool_dir != self.config.spool_dir),
            ("--spool-bytes-max", config.spool_bytes_max != self.config.spool_bytes_max),
            ("--metrics-addr", config.metrics_addr != self.config.metrics_addr),
            ("--log-format", config.log_json != self.config.log_json),
        ];
        for (setting, changed) in fixed {
            if changed {
                tracing::warn!(setting, "takes effect when the probe is started again");
            }
        }
        if let Err(error) = self.reload_sources(&config) {
            tracing::error!(error = format!("{error:#}"), "the settings are not read anew");
            return;
        }
        let elsewhere = uplink_options(&config) != uplink_options(&self.config);
        self.config = config;
        if elsewhere {
            self.restart_uplink();
        }
        tracing::info!("the settings were read anew");
    }

    /// Ends the stream, or the wait for the next attempt, and begins anew.
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

    /// Tells the service manager that this runs and how things stand, and that they stand well only
    /// if they do.
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
            tracing::error!("no round has begun for {STUCK_PERIODS} periods");
        } else {
            states.push(NotifyState::Watchdog);
        }
        systemd.tell(&states);
    }

    /// Sends what waits, for a bounded time; answers what still waits.
    async fn stop(mut self) -> u64 {
        if self.spool.waiting() > 0 && !self.control.now().connected {
            // It may be waiting for its next attempt: the last one is now.
            self.restart_uplink();
        }
        let begun = Instant::now();
        while self.spool.waiting() > 0 {
            // Where there is no aggregator to be had, nothing is gained by waiting for one.
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
            tracing::warn!(waiting, "parts wait in the spool for the next run");
        }
        waiting
    }
}
