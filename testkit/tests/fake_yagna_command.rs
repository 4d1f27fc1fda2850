//! The demonstration command: what it prints, what it refuses, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use uptime_testkit::fake_yagna::recording::Recording;

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-yagna"));
    command.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The lines up to `ready`.
fn lines(child: &mut Child) -> Vec<String> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let lines = stdout.lines().map(Result::unwrap);
    lines.take_while(|line| line != "ready").collect()
}

/// Whether the daemon on this line answers in time.
async fn answers(line: &str, patience: Duration) -> bool {
    let address = line.rsplit("http://").next().unwrap().parse().unwrap();
    let mut me = Recording::load("03").unwrap().exchanges[0].clone();
    let key = me.headers.iter_mut().find(|(name, _)| name == "Authorization");
    key.unwrap().1 = "Bearer demonstration".to_owned();
    let (answer, _) = me.replay(address, patience).await.unwrap();
    answer.is_some_and(|answer| answer.status == 200)
}

#[tokio::test]
async fn announces_serves_and_freezes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("announced");
    let mut child = command()
        .env("FAKE_YAGNA_APPKEY", "demonstration")
        .args(["--daemons", "2", "--providers", "10", "--subnet", "public", "--subnet", "testnet"])
        .args(["--list", "--relay", "--freeze-daemon", "1", "--freeze-after-s", "0", "--announce"])
        .arg(&file)
        .spawn()
        .unwrap();
    let lines = lines(&mut child);
    let starting = |word: &str| lines.iter().filter(|line| line.starts_with(word)).count();
    assert_eq!((starting("daemon 0 http://127.0.0.1:"), starting("daemon ")), (1, 2));
    assert_eq!((starting("relay http://127.0.0.1:"), starting("provider 0x")), (1, 10));
    let dead: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("dead ")).collect();
    let ways: Vec<&str> = dead.iter().map(|it| it.split_once(' ').unwrap().1).collect();
    assert_eq!(ways, ["process-died", "host-gone", "frozen"]);
    for id in dead.iter().map(|it| it.split_once(' ').unwrap().0) {
        assert!(lines.iter().any(|line| line.contains(id) && line.ends_with(" dead")));
    }
    assert_eq!(lines.iter().filter(|line| line.ends_with(" alive")).count(), 7);
    let on_testnet = lines.iter().filter(|line| line.contains(" testnet ")).count();
    assert_eq!(on_testnet, 3);
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(written, format!("{}\nready\n", lines.join("\n")));
    while answers(&lines[1], Duration::from_millis(300)).await {}
    assert!(answers(&lines[0], Duration::from_secs(10)).await);
    let terminated = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(terminated.success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn refuses_to_run_without_a_key() {
    let output = command().arg("--list").output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("FAKE_YAGNA_APPKEY"));
}

#[test]
fn refuses_to_freeze_a_daemon_that_is_not_there() {
    let output = command()
        .env("FAKE_YAGNA_APPKEY", "demonstration")
        .args(["--daemons", "2", "--freeze-daemon", "2", "--freeze-after-s", "1"])
        .output()
        .unwrap();
    assert!(!output.status.success());
}
