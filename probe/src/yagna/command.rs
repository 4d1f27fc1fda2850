//! Look-ups by yagna's command line, for daemons whose REST API has no bridge to the bus.
//!
//! Owns running `yagna net find` and `yagna net sessions`, with limits on number, time and output,
//! and reading their output. This is a fallback: it takes a process per question and answers in
//! prose. Only the final error message counts, and only if it was recorded from a real daemon.
//!
//! The program finds its daemon through `GSB_URL` or `YAGNA_DATADIR`. It gets only the variables in
//! [`ENVIRONMENT`], and no key: it needs none.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use uptime_proto::Reason;

use super::adjustable_semaphore::{acquire, is_permit_count};
use super::answers::{self, Route, Taken};
use super::fault::{CouldNotLook, clean, malformed};
use super::outcome::Found;
use super::time_text::{parse_span, parse_utc};

/// The environment variables that the program gets.
const ENVIRONMENT: [&str; 7] =
    ["PATH", "HOME", "XDG_DATA_HOME", "LD_LIBRARY_PATH", "TMPDIR", "GSB_URL", "YAGNA_DATADIR"];

/// How long to wait for a killed program. The runtime collects one that is stuck in the kernel.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// Bytes of the list of sessions: one has 250, and a daemon that asks around may have one with
/// every node of a network of 10,000.
pub(super) const SESSIONS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The `yagna` program, and the limits on its use.
#[derive(Debug, Clone)]
pub struct CommandOptions {
    /// The program, a path or a name to be found in `PATH`.
    pub program: PathBuf,
    /// Programs running at once: 4. Each lives for 20 ms, so that makes 200 look-ups a second.
    pub in_flight_max: usize,
    /// For one run, start to end: 5 s. It gives up on the relay after 3 s and says so.
    pub timeout: Duration,
    /// Bytes of each of its two outputs: 64 KiB. An answer has 300 bytes. (The list of sessions
    /// grows with the daemon's peers and has a limit of its own, 4 MiB.)
    pub output_bytes_max: usize,
}

impl CommandOptions {
    /// This program, with the usual limits.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            in_flight_max: 4,
            timeout: Duration::from_secs(5),
            output_bytes_max: 64 * 1024,
        }
    }

    fn fault(&self) -> Option<&'static str> {
        let faults = [
            (self.program.as_os_str().is_empty(), "the program has no name"),
            (!is_permit_count(self.in_flight_max), "in_flight_max is zero or too large"),
            (self.timeout.is_zero(), "timeout is zero"),
            (self.output_bytes_max == 0, "output_bytes_max is zero"),
        ];
        faults.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }
}

/// The command line, ready to be asked.
pub(super) struct CommandLine {
    options: CommandOptions,
    environment: Vec<(&'static str, OsString)>,
    running: Semaphore,
}

/// The result of a finished program.
#[derive(Debug)]
pub(super) struct Ended {
    /// `None`: a signal ended it.
    pub(super) exit_code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl CommandLine {
    /// Reads the environment; runs nothing.
    pub(super) fn new(options: CommandOptions) -> Result<Self, &'static str> {
        if let Some(fault) = options.fault() {
            return Err(fault);
        }
        let environment =
            ENVIRONMENT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
        let running = Semaphore::new(options.in_flight_max);
        Ok(Self { options, environment, running })
    }

    /// Runs the program to its end. On every path the program has ended or is killed.
    pub(super) async fn run(
        &self,
        arguments: &[&str],
        bytes_max: usize,
    ) -> Result<Ended, CouldNotLook> {
        let _permit = acquire(&self.running).await?;
        let mut command = Command::new(&self.options.program);
        command
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| self.not_run(&error))?;
        let limit = self.options.timeout;
        let collected = tokio::time::timeout(limit, self.collect(&mut child, bytes_max)).await;
        let collected = collected.unwrap_or_else(|_| {
            let detail = format!("it did not end within {limit:?} and was killed");
            Err(CouldNotLook::new(Reason::TimedOut, detail))
        });
        if collected.is_err() {
            kill(&mut child).await;
        }
        collected
    }

    /// Reads both outputs at once, so that neither blocks the program, then waits for its end.
    async fn collect(&self, child: &mut Child, bytes_max: usize) -> Result<Ended, CouldNotLook> {
        let bytes_max = bytes_max.max(self.options.output_bytes_max);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) =
            tokio::try_join!(self.read(stdout, bytes_max), self.read(stderr, bytes_max))?;
        let status: ExitStatus = child.wait().await.map_err(|error| self.not_run(&error))?;
        Ok(Ended { exit_code: status.code(), stdout, stderr })
    }

    async fn read(
        &self,
        output: Option<impl AsyncRead + Unpin>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, CouldNotLook> {
        let mut bytes = Vec::new();
        if let Some(output) = output {
            // One byte more shows that there is too much.
            let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
            let read = output.take(limit).read_to_end(&mut bytes).await;
            read.map_err(|error| self.not_run(&error))?;
        }
        if bytes.len() > bytes_max {
            let detail = format!("it wrote more than {bytes_max} bytes and was killed");
            return Err(CouldNotLook::new(Reason::AnswerTooLarge, detail));
        }
        Ok(bytes)
    }

    fn not_run(&self, error: &io::Error) -> CouldNotLook {
        let detail = format!("cannot run {}: {error}", self.options.program.display());
        CouldNotLook::new(Reason::NetError, clean(&detail, 240))
    }
}

/// Kills the program and collects it, so that no zombie process stays.
async fn kill(child: &mut Child) {
    match tokio::time::timeout(KILLED_WITHIN, child.kill()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot kill the yagna command"),
        Err(_) => tracing::warn!("the yagna command is stuck; not waiting for it"),
    }
}

/// What `yagna net find ID --json` found.
pub(super) fn parse_find(ended: &Ended) -> Result<Found, CouldNotLook> {
    #[derive(Deserialize)]
    struct Node {
        seen: String,
        #[serde(default)]
        identities: Vec<String>,
    }
    if ended.read(Route::CommandFind)? == Taken::NotKnown {
        return Ok(Found::NotKnown);
    }
    let node: Node = serde_json::from_slice(&ended.stdout).map_err(malformed)?;
    let seen = parse_utc(&node.seen);
    let seen_unix_s = seen.ok_or_else(|| malformed(format!("seen {:?}", node.seen)))?;
    let identities = node.identities.iter().filter_map(|id| id.parse().ok()).collect();
    Ok(Found::Known { seen_unix_s, identities })
}

/// The age of the relay's session in what `yagna net sessions --json` lists.
pub(super) fn parse_sessions(ended: &Ended) -> Result<Option<Duration>, CouldNotLook> {
    #[derive(Deserialize)]
    struct Session {
        #[serde(rename = "type")]
        kind: String,
        #[serde(rename = "time")]
        age: Option<String>,
    }
    ended.read(Route::CommandSessions)?;
    let sessions: Vec<Session> = serde_json::from_slice(&ended.stdout).map_err(malformed)?;
    let relays = sessions.into_iter().filter(|session| session.kind == "relay");
    let ages: Option<Vec<Duration>> =
        relays.map(|session| session.age.as_deref().and_then(parse_span)).collect();
    // There may be two for a moment; the younger one counts.
    let youngest = ages.map(|ages| ages.into_iter().min());
    youngest.ok_or_else(|| malformed("a relay session without its duration"))
}

impl Ended {
    /// The exit code for the table of answers. A program ended by a signal has an impossible one.
    pub(super) fn status(&self) -> u16 {
        self.exit_code.and_then(|code| u16::try_from(code).ok()).unwrap_or(u16::MAX)
    }

    /// The error that ended the program: from the last line that begins with `Error:` to the end.
    pub(super) fn words(&self) -> Vec<u8> {
        let text = String::from_utf8_lossy(&self.stderr);
        let begin = text.rfind("\nError:").map(|at| at + 1);
        let begin = begin.or_else(|| text.starts_with("Error:").then_some(0));
        let error = begin.and_then(|begin| text.get(begin..)).unwrap_or_default();
        error.trim_end().as_bytes().to_vec()
    }

    /// The meaning of the result.
    fn read(&self, route: Route) -> Result<Taken, CouldNotLook> {
        answers::read(route, self.status(), &self.words()).map_err(|fault| {
            let how =
                self.exit_code.map_or("ended by a signal".to_owned(), |it| format!("exit {it}"));
            let words = self.words();
            let text = if words.is_empty() { &self.stderr } else { &words };
            let text = clean(String::from_utf8_lossy(text).trim(), 240);
            CouldNotLook::new(fault.reason, format!("{how}: {text}"))
        })
    }
}
