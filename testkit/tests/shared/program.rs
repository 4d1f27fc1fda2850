//! The shipped programs as children: where they listen, and how a test finds, starts, kills and
//! pauses them and reads their memory and metrics. For the suites that run them.
//!
//! Refuses to know what they are told: each suite has its own settings.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::PATIENCE;

/// What asks a program to end.
const SIGTERM: i32 = 15;
/// An answer about metrics takes milliseconds.
const METRICS_WITHIN: Duration = Duration::from_secs(5);

/// Below the ports the system hands out.
pub(crate) const PORT_GRPC: u16 = 7_640;
pub(crate) const PORT_HTTP: u16 = 7_641;

/// A loopback address that belongs to one run of a suite in this process, so that a program can be
/// started again at the same place and nothing else takes it meanwhile. Each program of a run has a
/// `block` of its own, below 256.
pub(crate) fn address(block: usize, run: u32, port: u16) -> String {
    let process = std::process::id() + run;
    format!("127.{block}.{}.{}:{port}", process >> 8 & 255, process & 255)
}

/// A program of this workspace, as it was built with this test.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.is_file(), "{} is not built; use: cargo build --workspace", path.display());
    path
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
    /// `FILE COMMAND --SETTING VALUE …`, with nothing else in its environment. Its log is in this
    /// directory, under its name; `metrics` is where it serves them.
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
