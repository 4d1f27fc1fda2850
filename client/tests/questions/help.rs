//! The help texts, word for word, and the running of the command.

use std::process::Stdio;

use expect_test::expect_file;
use tokio::process::Command;

use crate::DEADLINE;

const ID: &str = "0x0000000000000000000000000000000000000001";

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the command in a clean environment.
pub(crate) async fn run(arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uptimectl"));
    command.args(arguments).env_clear().env("COLUMNS", "100").stdin(Stdio::null());
    let output = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, output).await.expect("it ends in time").unwrap();
    Ran {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

const COMMANDS: [&str; 13] = [
    "",
    "summary",
    "nodes",
    "node",
    "explain",
    "uptime",
    "outages",
    "watch",
    "probes",
    "rounds",
    "audit",
    "csv",
    "completions",
];

#[tokio::test]
async fn help_is_what_was_agreed() {
    let mut found = String::new();
    for command in COMMANDS {
        let arguments: Vec<&str> =
            [command, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let ran = run(&arguments).await;
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{command}");
        // Without the blanks at line ends, which editors take away.
        let lines: Vec<&str> = ran.out.lines().map(str::trim_end).collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 100), "{command}: {}", ran.out);
        found += &format!("$ uptimectl {}\n{}\n\n", arguments.join(" "), lines.join("\n"));
    }
    expect_file!["../snapshots/help.txt"].assert_eq(&found);
}

#[tokio::test]
async fn shells_learn_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&["completions", shell]).await;
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{shell}");
        for command in COMMANDS.iter().filter(|command| !command.is_empty()) {
            assert!(ran.out.contains(command), "{shell}: {command}");
        }
        assert!(ran.out.contains("exit-status"), "{shell}");
    }
}

#[tokio::test]
async fn wrong_usage_is_64() {
    for arguments in [
        &["nonsense"][..],
        &[],
        &["node", "0x12"],
        &["nodes", "--online", "--offline"],
        &["nodes", "--id-prefix", "xyz"],
        &["nodes", "--limit", "0"],
        &["nodes", "--output", "xml"],
        &["probes", "--address", "127.0.0.1:7640"],
        &["probes", "--address", ""],
        &["probes", "--timeout", "0s"],
        &["probes", "--token-file", "/nonexistent/token"],
        &["explain"],
        &["explain", ID, "first"],
        &["explain", ID, "9999-12-31"],
        &["uptime", "0x12"],
        &["uptime", "--window", "forever"],
        &["uptime", "--window", "7d", "--from", "2026-01-01"],
        &["outages", ID, "--from", "0001-01-01"],
        &["outages", ID, "--to", "9999-12-31"],
        &["outages", "--window", "7d"],
        &["watch", "--count", "0"],
        &["completions"],
        &["completions", "tcsh"],
    ] {
        let ran = run(arguments).await;
        assert_eq!((ran.status, ran.out.as_str()), (64, ""), "{arguments:?}: {}", ran.err);
        assert!(!ran.err.is_empty(), "{arguments:?}");
    }
    assert_eq!(run(&["--version"]).await.status, 0);
}
