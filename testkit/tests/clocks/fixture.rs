//! An aggregator and two probes, whose clocks can be set.
//!
//! Owns the course of a case. Refuses to judge the result.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;
use uptime_aggregator::clock::now_unix_ms;
use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, NetTiming, ProviderSpec, World};

use super::aggregator::enrol_at;
use super::program::{PORT_GRPC, PORT_HTTP, Program, address};
use super::{DAY_S, PATIENCE, PERIOD_S, RIGHT_WITHIN, WRONG_FOR};

/// The aggregator's block of addresses; the probes' follow.
const BLOCK: usize = 96;
const APP_KEY: &str = "clocks-key";
const PROBES: usize = 2;
const PROVIDERS: usize = 12;
/// The interval between polls.
const AGAIN: Duration = Duration::from_millis(500);

/// Whose clock is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Aggregator,
    /// The first of two.
    Probe,
    All,
}

/// When it becomes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    AtStart,
    Running,
}

/// What the kernel of a host with a wrong clock says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    Synchronised,
    Unsynchronised,
}

/// One case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) who: Who,
    /// How far the clock is ahead, in seconds.
    pub(crate) by_s: i64,
    pub(crate) when: When,
    pub(crate) kernel: Kernel,
}

impl Case {
    /// Whether a probe believes its wrong clock until an aggregator has contradicted it for a
    /// while: parts of rounds to come wait to be refused.
    pub(crate) fn believes_a_wrong_clock(self) -> bool {
        self.who == Who::Probe && self.kernel == Kernel::Synchronised
    }
}

/// Everything that runs.
pub(crate) struct Fixture {
    pub(crate) case: Case,
    pub(crate) directory: TempDir,
    aggregator: Program,
    pub(crate) probes: Vec<Program>,
    _daemons: Vec<Daemon>,
    /// The rounds that were over when the clock was right again, and when everything was stopped,
    /// unix seconds of right time.
    pub(crate) right_s: u64,
    pub(crate) stopped_s: u64,
    /// Parts that the aggregator refused or called a conflict.
    pub(crate) refused: f64,
}

/// The library that moves the wall clock.
fn libfaketime() -> PathBuf {
    let triplets = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let path = |triplet| PathBuf::from(format!("/usr/lib/{triplet}/faketime/libfaketimeMT.so.1"));
    let found = triplets.map(path).into_iter().find(|path| path.is_file());
    found.expect("libfaketime is missing: install the package faketime")
}

fn clock_file(directory: &Path) -> PathBuf {
    directory.join("clock")
}

fn set_clock(directory: &Path, ahead_s: i64) {
    let fresh = directory.join("clock.new");
    std::fs::write(&fresh, format!("{ahead_s:+}")).unwrap();
    std::fs::rename(fresh, clock_file(directory)).unwrap();
}

/// What moves the clock of a program.
fn moved(directory: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("LD_PRELOAD", libfaketime().display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock_file(directory).display().to_string()),
        // Read the file at every reading of the clock.
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ]
}

pub(crate) fn now_s() -> u64 {
    u64::try_from(now_unix_ms() / 1_000).unwrap()
}

impl Fixture {
    /// Starts everything, with the wrong clock if it is wrong at the start.
    pub(crate) async fn open(case: Case) -> Self {
        static CASES: AtomicU32 = AtomicU32::new(0);
        let number = CASES.fetch_add(1, Ordering::Relaxed);
        // The metrics client needs a provider, though metrics are plain text. An error means that
        // another case of this process has installed one.
        rustls::crypto::ring::default_provider().install_default().ok();
        let world = World::new(7);
        world.set_timing(NetTiming { ping_interval: Duration::from_secs(1), ..world.timing() });
        for _ in 0..PROVIDERS {
            world.add_provider(ProviderSpec::in_subnet("public"));
        }
        let directory = tempfile::tempdir().unwrap();
        set_clock(directory.path(), if case.when == When::AtStart { case.by_s } else { 0 });
        let data = directory.path().join("data");
        let (mut daemons, mut probes) = (Vec::new(), Vec::new());
        for place in 0..PROBES {
            let options = DaemonOptions {
                app_key: APP_KEY.into(),
                relay_session_age: Duration::from_secs(3_600),
                ..DaemonOptions::default()
            };
            let daemon = Daemon::start(world.clone(), options).await.unwrap();
            // Long enough ago that its clock has a vote.
            let enrolled_ms = now_unix_ms() - 2 * DAY_S * 1_000;
            let token = enrol_at(&data, &format!("probe-{place}"), &[], enrolled_ms).await;
            probes.push(probe((number, place), case, directory.path(), &daemon.base_url(), &token));
            daemons.push(daemon);
        }
        let mut aggregator = aggregator(number, case, directory.path());
        aggregator.start();
        probes.iter_mut().for_each(Program::start);
        let mut fixture = Self {
            case,
            directory,
            aggregator,
            probes,
            _daemons: daemons,
            right_s: 0,
            stopped_s: 0,
            refused: 0.0,
        };
        if case.when == When::Running {
            fixture.wait("all is well at first", PATIENCE, Fixture::is_well).await;
        }
        fixture
    }

    /// The clock is wrong for a while.
    pub(crate) async fn go_wrong(&mut self) {
        set_clock(self.directory.path(), self.case.by_s);
        // It is not visible from outside when a program has decided.
        tokio::time::sleep(WRONG_FOR).await;
    }

    /// The clock is right again, and all is well soon.
    pub(crate) async fn be_right(&mut self) {
        set_clock(self.directory.path(), 0);
        self.right_s = now_s();
        self.wait("all is well again", RIGHT_WITHIN, Fixture::is_well).await;
    }

    /// Stops everything, the probes first: what they made is handed in.
    pub(crate) async fn stop(&mut self) {
        for probe in &self.probes {
            for name in ["uptime_uplink_refused_total", "uptime_uplink_conflicts_total"] {
                self.refused += probe.metric(name, "").await.unwrap_or(f64::NAN);
            }
        }
        self.stopped_s = now_s();
        for probe in &mut self.probes {
            probe.terminate(false).await;
        }
        self.aggregator.terminate(false).await;
    }

    /// The last round is closed, none ahead of its time, nothing waits to be sent, and every probe
    /// has handed in parts of the last rounds.
    async fn is_well(&self) -> bool {
        let closed = self.aggregator.metric("uptime_ledger_last_closed_round_seconds", "").await;
        let Some(closed_s) = closed else { return false };
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let behind_s = now_s() as f64 - closed_s;
        let mut well = (0.0..20.0).contains(&behind_s);
        for (place, probe) in self.probes.iter().enumerate() {
            let waiting = probe.metric("uptime_spool_parts_waiting", "").await;
            // Those of the round that is going on.
            let few = waiting.is_some_and(|waiting| waiting < 4.0);
            well &= few || place == 0 && self.case.believes_a_wrong_clock();
            let usable = probe.metric("uptime_clock_usable", "").await;
            well &= usable.is_some_and(|usable| usable > 0.5);
        }
        #[expect(clippy::cast_precision_loss, reason = "a dozen")]
        let all = Some(PROVIDERS as f64);
        well &= self.aggregator.metric("uptime_ledger_nodes", "\"up\"").await == all;
        well && self.aggregator.metric("uptime_clock_state", "\"wrong\"").await == Some(0.0)
    }

    async fn wait(&mut self, what: &str, within: Duration, so: impl AsyncFn(&Self) -> bool) {
        let until = Instant::now() + within;
        // Once is not enough: it must stay so for some rounds.
        let mut times = 0;
        while times < 4 {
            let well = so(self).await;
            times = if well { times + 1 } else { 0 };
            assert!(Instant::now() < until, "not within {within:?}: {what}\n{}", self.logs());
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn logs(&self) -> String {
        let all = self.probes.iter().chain([&self.aggregator]);
        let log = |program: &Program| {
            let text = std::fs::read_to_string(&program.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            format!("--- {}\n{last}\n", program.name)
        };
        all.map(log).collect()
    }
}

/// What the kernel of a host says, and what moves its clock.
fn kernel(
    is_wrong: bool,
    case: Case,
    directory: &Path,
) -> (&'static str, Vec<(&'static str, String)>) {
    match (is_wrong, case.kernel) {
        (false, _) => ("synchronised", Vec::new()),
        (true, Kernel::Synchronised) => ("synchronised", moved(directory)),
        (true, Kernel::Unsynchronised) => ("unsynchronised", moved(directory)),
    }
}

fn aggregator(number: u32, case: Case, directory: &Path) -> Program {
    let (word, environment) = kernel(case.who != Who::Probe, case, directory);
    let (grpc, http) = (address(BLOCK, number, PORT_GRPC), address(BLOCK, number, PORT_HTTP));
    let (period, data) = (PERIOD_S.to_string(), directory.join("data").display().to_string());
    let settings = [
        ("--data-dir", data.as_str()),
        ("--grpc-addr", &grpc),
        ("--http-addr", &http),
        ("--round-period-s", &period),
        ("--grace-s", "4"),
        ("--direct-timeout-ms", "1000"),
        ("--kernel-clock", word),
    ];
    let file = ("uptime-aggregator", "aggregator");
    Program::new(file, "serve", directory, http.clone(), &settings, environment)
}

fn probe(
    (number, place): (u32, usize),
    case: Case,
    directory: &Path,
    daemon: &str,
    token: &str,
) -> Program {
    let is_wrong = case.who == Who::All || case.who == Who::Probe && place == 0;
    let (word, mut environment) = kernel(is_wrong, case, directory);
    environment.extend([("YAGNA_APPKEY", APP_KEY.to_owned()), ("UPTIME_TOKEN", token.to_owned())]);
    let spool = directory.join(format!("spool-{place}")).display().to_string();
    let aggregator = format!("http://{}", address(BLOCK, number, PORT_GRPC));
    let metrics = address(BLOCK + 1 + place, number, PORT_HTTP);
    let settings = [
        ("--aggregator", aggregator.as_str()),
        ("--metrics-addr", &metrics),
        ("--spool-dir", &spool),
        ("--yagna-url", daemon),
        ("--kernel-clock", word),
    ];
    let name = format!("probe-{place}");
    Program::new(("uptime-probe", &name), "run", directory, metrics.clone(), &settings, environment)
}
