//! The shipped programs as child processes: their addresses, and how a test finds, starts, kills
//! and pauses them and reads their memory and metrics.
//!
//! Refuses to know their settings: each suite has its own.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::PATIENCE;

/// The signal that asks a program to end.
const SIGTERM: i32 = 15;
/// An answer about metrics takes milliseconds.
const METRICS_WITHIN: Duration = Duration::from_secs(5);

/// Below the ephemeral ports of the system.
pub(crate) const PORT_GRPC: u16 = 7_640;
pub(crate) const PORT_HTTP: u16 = 7_641;

/// A loopback address that belongs to one run of a suite in this process, so that a program can be
/// started again at the same place and nothing else takes it meanwhile. Each program of a run has a
/// `block` of its own, below 256.
pub(crate) fn address(block: usize, run: u32, port: u16) -> String {
    let process = std::process::id() + run;
    format!("127.{block}.{}.{}:{port}", process >> 8 & 255, process & 255)
}

/// A program of this workspace, built together with this test.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.is_file(), "{} is not built; use: cargo build --workspace", path.display());
    path
}

/// A program that can be started and stopped several times.
pub(crate) struct Program {
    pub(crate) name: String,
    metrics: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    program: PathBuf,
    pub(crate) log: PathBuf,
    running: Option<Child>,
    /// It is paused.
    still: bool,
}

impl Program {
    /// `FILE COMMAND --SETTING VALUE …`, with only this environment. Its log is `NAME.log` in the
    /// directory; `metrics` is the address of its metrics.
    pub(crate) fn new(
        (file, name): (&str, &str),
        command: &str,
        directory: &Path,
        metrics: String,
        settings: &[(&str, &str)],
        mut environment: Vec<(&'static str, String)>,
    ) -> Self {
        let settings = settings.iter().flat_map(|(name, value)| [*name, *value]);
        environment.push(("UPTIME_LOG", "info".to_owned()));
        Self {
            name: name.to_owned(),
            metrics,
            arguments: std::iter::once(command).chain(settings).map(str::to_owned).collect(),
            environment,
            program: program(file),
            log: directory.join(format!("{name}.log")),
            running: None,
            still: false,
        }
    }

    /// Starts it. Its log is appended to the same file.
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

    /// Kills it.
    pub(crate) async fn kill(&mut self) {
        self.running.take().expect("it runs").kill().await.unwrap();
    }

    /// Pauses it, as on an overloaded machine.
    pub(crate) async fn stand_still(&mut self) {
        self.signal("-STOP").await;
        self.still = true;
    }

    /// Starts it, or continues it if it is paused.
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

    /// Asks it to end, as a service manager does, and waits. It must end with success. A program
    /// that has just started may not handle signals yet and may be killed by this one.
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

    /// Whether it runs and is not paused.
    pub(crate) fn is_awake(&self) -> bool {
        self.running.is_some() && !self.still
    }

    /// Its resident bytes. It must not have ended by itself.
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
    /// does not answer.
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
