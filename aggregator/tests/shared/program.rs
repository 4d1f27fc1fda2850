//! The shipped program as a process over a data directory. For the suites that run it.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_uptime-aggregator");
/// Any free ports of loopback.
pub const ANY_PORTS: [&str; 4] = ["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];

pub fn command(arguments: &[&str], data_dir: &Path) -> Command {
    with_arguments(Command::new(PROGRAM), arguments, data_dir)
}

/// The same for a command that runs the program in its own way.
pub fn with_arguments(mut command: Command, arguments: &[&str], data_dir: &Path) -> Command {
    command
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// `serve` on free ports.
pub fn serve_command(flags: &[&str], data_dir: &Path) -> Command {
    command(&[&["serve"][..], &ANY_PORTS, flags].concat(), data_dir)
}

/// Runs it to its end: exit status, standard output, standard error.
pub async fn run(arguments: &[&str], data_dir: &Path) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(arguments, data_dir).output().await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A running `serve`; killed when dropped.
pub struct Serving {
    pub child: Child,
    pub grpc: String,
    pub http: String,
}

impl Serving {
    /// Starts it and reads the addresses that it prints.
    pub async fn start(command: &mut Command) -> Self {
        match Self::try_start(command).await {
            Ok(serving) => serving,
            Err(said) => panic!("it ended: {said}"),
        }
    }

    /// The same; answers what it wrote to standard error if it ends first.
    pub async fn try_start(command: &mut Command) -> Result<Self, String> {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut addresses = Vec::new();
        for name in ["grpc ", "http "] {
            let line = lines.next_line().await.unwrap().unwrap_or_default();
            let Some(address) = line.strip_prefix(name) else {
                return Err(log_of(&mut child).await);
            };
            addresses.push(address.to_owned());
        }
        let [grpc, http] = addresses.try_into().unwrap();
        Ok(Self { child, grpc, http })
    }

    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Kills it and answers its log.
    pub async fn log(mut self) -> String {
        log_of(&mut self.child).await
    }
}

async fn log_of(child: &mut Child) -> String {
    child.kill().await.ok();
    let mut log = String::new();
    if let Some(stderr) = &mut child.stderr {
        stderr.read_to_string(&mut log).await.unwrap();
    }
    log
}
