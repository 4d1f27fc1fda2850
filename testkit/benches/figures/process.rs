//! The shipped programs as children: found, started, asked for what they use, and ended.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;
use uptime_aggregator::access::{hash_token, new_token};
use uptime_aggregator::store::{Registry, SqliteStore};

/// How long a program may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to end when asked to.
const END_WITHIN: Duration = Duration::from_secs(15);
/// Ticks a second in which Linux tells what processor time a process took, on every architecture
/// that this runs on.
const TICKS_A_SECOND: u64 = 100;
/// A key that only the fake network takes.
pub(crate) const APP_KEY: &str = "figures";
/// What the units in deploy/systemd set for a probe besides its settings.
const PROBE_ENVIRONMENT: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "65536"),
];

/// What the aggregator's unit sets besides.
pub(crate) const AGGREGATOR_ENVIRONMENT: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "1048576"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// A binary as it is shipped: the probe of the profile `small`, the others beside this bench.
pub(crate) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let release = own.parent().and_then(Path::parent).context("this bench lies nowhere")?;
    let path = match name {
        "uptime-probe" => release.with_file_name("small").join(name),
        _ => release.join(name),
    };
    ensure!(path.is_file(), "{} is not built; use: sh deploy/bench.sh", path.display());
    Ok(path)
}

/// A child that ends with whoever started it.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Running {
    /// Starts a program with nothing in its environment but these. Its log goes to a file.
    pub(crate) fn start(
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let path = binary(program)?;
        let log = std::fs::File::create(log).with_context(|| log.display().to_string())?;
        let child = Command::new(&path)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", path.display()))?;
        Ok(Self(child))
    }

    /// Starts what was not built here, with nothing in its environment. What it says goes to a
    /// file.
    pub(crate) fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(log).with_context(|| log.display().to_string())?;
        let child = command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self(child))
    }

    /// Asks it to end as a service manager would, and waits.
    pub(crate) fn terminate(mut self) -> anyhow::Result<()> {
        let asked = Command::new("kill").arg(self.0.id().to_string()).status()?;
        ensure!(asked.success(), "the process could not be asked to end");
        let deadline = Instant::now() + END_WITHIN;
        while self.0.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the process did not end in {END_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Bytes a process has resident now (`VmRSS`), and had at most (`VmHWM`).
pub(crate) fn resident_bytes(process: u32) -> anyhow::Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_ascii_whitespace().nth(1));
        let kib: Option<u64> = value.and_then(|value| value.parse().ok());
        kib.map(|kib| kib * 1_024).with_context(|| format!("process {process} has no {name}"))
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Processor time a process has taken so far, its own and the system's for it.
pub(crate) fn processor_time(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the name in brackets, which may hold anything.
    let (_, after) = stat.rsplit_once(')').context("a process without a name")?;
    // The fields 14 and 15 of all.
    let fields = after.split_ascii_whitespace().skip(11).take(2);
    let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    ensure!(ticks.len() == 2, "process {process} does not tell its times");
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 1_000 / TICKS_A_SECOND))
}

/// Bytes as the megabytes of figures.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// A serving aggregator with probes enrolled.
pub(crate) struct Aggregator {
    running: Running,
    _output: BufReader<ChildStdout>,
    directory: TempDir,
    /// `http://HOST:PORT` of its gRPC.
    pub(crate) address: String,
    pub(crate) tokens: Vec<String>,
}

impl Aggregator {
    /// Starts `uptime-aggregator serve` in a directory.
    pub(crate) async fn serve(
        directory: TempDir,
        probes: usize,
        settings: &[&str],
    ) -> anyhow::Result<Self> {
        let data_dir = directory.path().join("data");
        let mut store = SqliteStore::open(&data_dir).await?;
        let mut tokens = Vec::new();
        for probe in 0..probes {
            let token = new_token();
            let name = format!("probe-{probe}");
            let added = store.add_probe(&name, &hash_token(&token), &[], 0).await?;
            ensure!(added.is_some(), "{name} was enrolled already");
            tokens.push(token);
        }
        drop(store);
        Self::over(directory, tokens, settings).await
    }

    /// The same over a store that is there, whose probes have these tokens.
    pub(crate) async fn over(
        directory: TempDir,
        tokens: Vec<String>,
        settings: &[&str],
    ) -> anyhow::Result<Self> {
        let data_dir = directory.path().join("data").display().to_string();
        let addresses = ["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
        let arguments = [&["serve", "--data-dir", data_dir.as_str()], &addresses[..], settings];
        let log = directory.path().join("aggregator.log");
        let mut running = Running::start(
            "uptime-aggregator",
            &arguments.concat(),
            &AGGREGATOR_ENVIRONMENT,
            &log,
        )?;
        let stdout = running.0.stdout.take().context("its output was not taken")?;
        // Kept open, or the aggregator's next line would fail.
        let mut output = BufReader::new(stdout);
        let mut line = String::new();
        let grpc = loop {
            line.clear();
            if output.read_line(&mut line)? == 0 {
                bail!("the aggregator did not start: {}", std::fs::read_to_string(&log)?);
            }
            if let Some(grpc) = line.trim_end().strip_prefix("grpc ") {
                break grpc.to_owned();
            }
        };
        let address = format!("http://{grpc}");
        Ok(Self { running, _output: output, directory, address, tokens })
    }

    /// Where it writes the CSV.
    pub(crate) fn csv(&self) -> PathBuf {
        self.directory.path().join("data").join("nodes_status.csv")
    }

    /// Ends it without notice and opens what it has on disk.
    pub(crate) async fn kill_and_open(self) -> anyhow::Result<(SqliteStore, TempDir)> {
        drop(self.running);
        let store = SqliteStore::open(&self.directory.path().join("data")).await?;
        Ok((store, self.directory))
    }

    /// Asks it to end.
    pub(crate) fn terminate(self) -> anyhow::Result<()> {
        self.running.terminate()
    }
}

/// Starts the probe of this number beside a yagna, as its unit does. Its spool and its log are in
/// `directory`.
pub(crate) fn start_probe(
    aggregator: &Aggregator,
    number: usize,
    yagna: &str,
    directory: &Path,
) -> anyhow::Result<Running> {
    let spool = directory.join(format!("spool-{number}")).display().to_string();
    let arguments =
        ["run", "--aggregator", &aggregator.address, "--yagna-url", yagna, "--spool-dir", &spool];
    let token = aggregator.tokens.get(number).context("no token")?;
    let secrets = [("YAGNA_APPKEY", APP_KEY), ("UPTIME_TOKEN", token.as_str())];
    let environment = [&secrets[..], &PROBE_ENVIRONMENT].concat();
    Running::start("uptime-probe", &arguments, &environment, &probe_log(directory, number))
}

/// Where the probe of this number writes its log.
pub(crate) fn probe_log(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("probe-{number}.log"))
}

/// Waits until a file is there and answers its text.
pub(crate) fn await_file(path: &Path, running: &mut Running) -> anyhow::Result<String> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) => return Ok(text),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context(path.display().to_string());
            }
            Err(_) => {}
        }
        if let Some(status) = running.0.try_wait()? {
            bail!("the process that should write {} ended: {status}", path.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
