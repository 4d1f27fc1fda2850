//! The shipped program with arguments, over a data directory. For the suites that run it.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_uptime-aggregator");

pub(crate) fn command(arguments: &[&str], data_dir: &Path) -> Command {
    with_arguments(Command::new(PROGRAM), arguments, data_dir)
}

/// The same for a command that runs the program in its own way.
pub(crate) fn with_arguments(mut command: Command, arguments: &[&str], data_dir: &Path) -> Command {
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
