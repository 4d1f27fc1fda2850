//! The shipped programs as children: found, started, killed, made to stand still, asked for their
//! memory and metrics.
//!
//! Owns their addresses and files. Each program listens on a loopback address of its own, made
//! from this process's number, at a fixed port: it can be started again at the same place, and
//! nothing else on the machine takes that place meanwhile.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::{PATIENCE, PERIOD_S};

/// Below the ports the system hands out.
const PORT_GRPC: u16 = 7_640;
const PORT_HTTP: u16 = 7_641;
/// What asks a program to end.
const SIGTERM: i32 = 15;
/// An answer about metrics takes milliseconds.
const METRICS_WITHIN: Duration = Duration::from_secs(5);
/// A key that only the stand-in daemons take.
pub(crate) const APP_KEY: &str = "soak-key";
/// The subnets of the network.
pub(crate) const SUBNETS: [&str; 2] = ["public", "testnet"];
/// Probes, each beside a daemon of its own.
pub(crate) const PROBES: usize = 3;

/// A program of this workspace, as it was built with this test.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.is_file(), "{} is not built; use: cargo build --workspace", path.display());
    path
}

/// A loopback address that belongs to this run: `place` is 0 for the aggregator.
fn address(place: usize, port: u16) -> String {
    let process = std::process::id();
    format!("127.{}.{}.{}:{port}", 64 + place, process >> 8 & 255, process & 255)
}

/// Where the aggregator is asked.
pub(crate) fn grpc_address() -> String {
    address(0, PORT_GRPC)
}

/// Where the aggregator's or a probe's metrics are.
fn metrics_address(place: usize) -> String {
    address(place, PORT_HTTP)
}

/// A program that is started, ended and started again.
pub(crate) struct Program {
    pub(crate) name: String,
    metrics: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    program: PathBuf,
    pub(crate) log: PathBuf,
    running: Option<Child>,
    /// It was told to stand still, and not to go on.
    still: bool,
}

impl Program {
    /// `uptime-aggregator serve` over this directory.
    pub(crate) fn aggregator(directory: &Path) -> Self {
        let period = PERIOD_S.to_string();
        let (grpc, http) = (grpc_address(), metrics_address(0));
        let data = directory.join("data").display().to_string();
        let settings = [
            ("--data-dir", data.as_str()),
            ("--grpc-addr", &grpc),
            ("--http-addr", &http),
            ("--round-period-s", &period),
            ("--grace-s", "4"),
            ("--freshness-s", "3"),
            ("--direct-timeout-ms", "1000"),
            ("--relay-session-age-min-s", "5"),
        ];
        Self::new("uptime-aggregator", "aggregator", "serve", directory, 0, &settings, Vec::new())
    }

    /// `uptime-probe run` beside this daemon. One reads the market as a stream, one asks the relay
    /// itself.
    pub(crate) fn probe(
        number: usize,
        directory: &Path,
        daemon: &str,
        relay: &str,
        token: &str,
    ) -> Self {
        let spool = spool(directory, number).display().to_string();
        let (aggregator, metrics) =
            (format!("http://{}", grpc_address()), metrics_address(number + 1));
        let mut settings = vec![
            ("--aggregator", aggregator.as_str()),
            ("--metrics-addr", &metrics),
            ("--spool-dir", &spool),
            ("--yagna-url", daemon),
            ("--answer-timeout-ms", "1000"),
            ("--market-timeout-ms", "1500"),
            ("--log-format", "json"),
        ];
        settings.extend(SUBNETS.map(|subnet| ("--subnet-tag", subnet)));
        match number {
            1 => settings.push(("--market-form", "stream")),
            2 => settings.extend([("--relay-url", relay), ("--relay-timeout-ms", "1000")]),
            _ => {}
        }
        let secrets = vec![("YAGNA_APPKEY", APP_KEY.to_owned()), ("UPTIME_TOKEN", token.into())];
        let name = format!("probe-{number}");
        Self::new("uptime-probe", &name, "run", directory, number + 1, &settings, secrets)
    }

    fn new(
        file: &str,
        name: &str,
        command: &str,
        directory: &Path,
        place: usize,
        settings: &[(&str, &str)],
        mut environment: Vec<(&'static str, String)>,
    ) -> Self {
        let settings = settings.iter().flat_map(|(name, value)| [*name, *value]);
        environment.push(("UPTIME_LOG", "info".to_owned()));
        Self {
            name: name.to_owned(),
            metrics: metrics_address(place),
            arguments: std::iter::once(command).chain(settings).map(str::to_owned).collect(),
            environment,
            program: program(file),
            log: directory.join(format!("{name}.log")),
            running: None,
            still: false,
        }
    }

    /// Starts it; its log goes on in the same file.
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs", self.name);
        let log: File = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        self.running = Some(child.unwrap());
    }

    /// Ends it without notice.
    pub(crate) async fn kill(&mut self) {
        self.running.take().expect("it runs").kill().await.unwrap();
    }

    /// Makes it stand still in whatever it is doing, as on a machine that has no time for it.
    pub(crate) async fn stand_still(&mut self) {
        self.signal("-STOP").await;
        self.still = true;
    }

    /// Starts it, or lets it go on where it stood still.
    pub(crate) async fn go_on(&mut self) {
        if self.still {
            self.signal("-CONT").await;
            self.still = false;
        } else {
            self.start();
        }
    }

    async fn signal(&self, signal: &str) {
        let child = self.running.as_ref().expect("it runs");
        let id = child.id().expect("it has not ended").to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
    }

    /// Asks it to end as a service manager would, and waits. It must end well; one that was only
    /// just started may not listen to signals yet, and is ended by this one.
    pub(crate) async fn terminate(&mut self, just_started: bool) {
        self.signal("-TERM").await;
        let mut child = self.running.take().expect("it runs");
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} does not end", self.name)).unwrap();
        let by_signal = just_started && ended.signal() == Some(SIGTERM);
        assert!(
            ended.success() || by_signal,
            "{} ended with {ended}: {}",
            self.name,
            self.last_words()
        );
    }

    /// Whether it runs and does not stand still.
    pub(crate) fn is_awake(&self) -> bool {
        self.running.is_some() && !self.still
    }

    /// Bytes it has resident; it must not have ended by itself.
    pub(crate) fn resident_bytes(&mut self) -> Option<u64> {
        let child = self.running.as_mut()?;
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "{} ended: {ended:?}: {}", self.name, self.last_words());
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()?)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.split_ascii_whitespace().next()?.parse().unwrap();
        Some(kib * 1_024)
    }

    /// The sum of all its metrics whose line begins with this name and has this label. `None`: it
    /// cannot be asked.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Option<f64> {
        let text = async {
            reqwest::get(format!("http://{}/metrics", self.metrics)).await.ok()?.text().await.ok()
        };
        let text = tokio::time::timeout(METRICS_WITHIN, text).await.ok()??;
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Some(values.sum())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Where a probe's spool is.
pub(crate) fn spool(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("spool-{number}"))
}

/// Parts and gaps that wait in a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) parts: u64,
    pub(crate) gaps: u64,
}

/// What waits in a probe's spool, as its own command tells it.
pub(crate) async fn waiting(directory: &Path, number: usize) -> Waiting {
    let output = Command::new(program("uptime-probe"))
        .args(["spool", "list", "--output", "json", "--spool-dir"])
        .arg(spool(directory, number))
        .env_clear()
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listing: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let segments = listing["segments"].as_array().unwrap();
    let sum = |name| segments.iter().map(|segment| segment[name].as_u64().unwrap()).sum();
    Waiting { parts: sum("parts_waiting"), gaps: sum("gaps_waiting") }
}
