//! The shipped program as a process, when its environment fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "shared/program.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod program;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use program::{ANY_PORTS, PROGRAM, Serving, command, run, serve_command, with_arguments};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use uptime_aggregator::store::SqliteStore;

const USAGE: Option<i32> = Some(64);

/// Rounds of a second.
const FLAGS: [&str; 4] = ["--round-period-s", "1", "--grace-s", "0"];

fn serve(data_dir: &Path) -> Command {
    serve_command(&FLAGS, data_dir)
}

async fn try_get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn get(address: &str, path: &str) -> String {
    try_get(address, path).await.unwrap()
}

/// How many times the CSV was written: once at the start and once for each closed round.
async fn written(address: &str) -> u64 {
    let metrics = get(address, "/metrics").await;
    let line = metrics.lines().find_map(|it| it.strip_prefix("uptime_publish_csv_seconds_count "));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

/// Waits for so many rounds to be closed from now on.
async fn rounds_close(address: &str, rounds: u64) {
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let begun = written(address).await;
    while written(address).await < begun + rounds {
        looks.tick().await;
    }
}

async fn ended(arguments: &[&str], data_dir: &Path) -> (Option<i32>, String) {
    let (code, _, said) = run(arguments, data_dir).await;
    (code, said)
}

/// A `serve` that ends by itself.
async fn serve_ended(flags: &[&str], data_dir: &Path) -> (Option<i32>, String) {
    ended(&[&["serve"][..], &ANY_PORTS, &FLAGS, flags].concat(), data_dir).await
}

async fn with_store() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    SqliteStore::open(directory.path()).await.unwrap().close().await.unwrap();
    directory
}

#[tokio::test]
async fn rounds_close_when_nobody_reads_the_log_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut serving =
        Serving::start(serve(directory.path()).env("UPTIME_LOG", "debug,sqlx=debug")).await;
    rounds_close(&serving.http, 1).await;
    drop(serving.child.stderr.take());
    rounds_close(&serving.http, 3).await;
    assert!(get(&serving.http, "/metrics").await.contains("uptime_log_lines_lost_total"));
    serving.kill().await;
    // A disk that is full from the beginning.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut serving = Serving::start(serve(directory.path()).stderr(full)).await;
    rounds_close(&serving.http, 2).await;
    serving.kill().await;
}

#[tokio::test]
async fn without_a_store_commands_say_where_they_looked_and_make_none() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("wrong");
    for arguments in [
        &["probe", "list"][..],
        &["probe", "add", "alpha"],
        &["access", "list"],
        &["rules", "show"],
        &["rules", "set", "--grace-s", "7"],
        &["verify"],
        &["migrate"],
        &["export", "--what", "nodes"],
        &["backup", "backup.sqlite3"],
    ] {
        let (code, said) = ended(arguments, &data_dir).await;
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        let looked = data_dir.join("uptime.sqlite3").display().to_string();
        assert!(said.contains(&looked) && said.contains("serve"), "{arguments:?}: {said}");
        assert!(!data_dir.exists(), "{arguments:?} made something");
    }
    // `check` tells that serve will make it, and makes nothing.
    let arguments = [&["check"][..], &ANY_PORTS].concat();
    assert_eq!(ended(&arguments, &data_dir).await.0, Some(0));
    assert!(!data_dir.exists());
}

#[tokio::test]
async fn a_full_table_is_not_emptied_by_a_new_store() {
    let directory = tempfile::tempdir().unwrap();
    let csv = directory.path().join("nodes_status.csv");
    let table = "issuer_id,is_online,last_seen,total_online_scans,uptime\n0xaa,True,,1,100.0\n";
    std::fs::write(&csv, table).unwrap();
    for _ in 0..2 {
        let (code, said) = serve_ended(&[], directory.path()).await;
        assert_eq!(code, USAGE, "{said}");
        assert!(said.contains("import-csv") && said.contains("--data-dir"), "{said}");
        assert_eq!(std::fs::read_to_string(&csv).unwrap(), table);
        assert!(!directory.path().join("uptime.sqlite3").exists());
    }
    std::fs::write(directory.path().join("uptime.sqlite3"), "").unwrap();
    let (code, said) = serve_ended(&[], directory.path()).await;
    assert!(code == Some(1) && said.contains("an empty file"), "{said}");
    assert_eq!(std::fs::read_to_string(&csv).unwrap(), table);
}

#[tokio::test]
async fn a_removed_store_makes_it_not_ready() {
    let directory = with_store().await;
    let mut serving = Serving::start(&mut serve(directory.path())).await;
    rounds_close(&serving.http, 1).await;
    std::fs::remove_file(directory.path().join("uptime.sqlite3")).unwrap();
    rounds_close(&serving.http, 2).await;
    let answer = get(&serving.http, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("removed or replaced"), "{answer}");
    serving.kill().await;
}

#[tokio::test]
async fn a_csv_that_can_never_be_written_is_told_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    for csv in ["none/nodes_status.csv", "."] {
        let csv = directory.path().join(csv).display().to_string();
        let flags = ["--csv", &csv];
        let (code, said) = serve_ended(&flags, &directory.path().join("data")).await;
        assert_eq!(code, USAGE, "{said}");
        assert!(said.contains("--csv") && said.contains(&csv), "{said}");
    }
}

/// Linux alone, and as root alone, can a single file be mounted.
#[tokio::test]
async fn a_csv_that_is_mounted_by_itself_is_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let (data, real) = (directory.path().join("data"), directory.path().join("real.csv"));
    let csv = directory.path().join("nodes_status.csv");
    std::fs::write(&real, "").unwrap();
    std::fs::write(&csv, "").unwrap();
    let script = "mount --bind \"$1\" \"$2\" || exit 99; shift 2; exec \"$@\"";
    let mut mounted = Command::new("unshare");
    mounted.args(["-m", "sh", "-c", script, "sh"]).args([&real, &csv]).arg(PROGRAM);
    let csv = csv.display().to_string();
    let arguments = [&["serve"][..], &ANY_PORTS, &FLAGS, &["--csv", &csv]].concat();
    let mut mounted = with_arguments(mounted, &arguments, &data);
    let serving = match Serving::try_start(&mut mounted).await {
        Ok(serving) => serving,
        Err(said) => {
            assert!(!said.contains("uptime-aggregator"), "{said}");
            return;
        }
    };
    rounds_close(&serving.http, 2).await;
    let said = serving.log().await;
    assert!(std::fs::read_to_string(&real).unwrap().starts_with("issuer_id,"), "{said}");
    assert_eq!(said.matches("is written over").count(), 1, "{said}");
}

#[tokio::test]
async fn a_token_that_cannot_be_written_spends_no_name() {
    let directory = with_store().await;
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for _ in 0..2 {
        let mut add = command(&["probe", "add", "alpha"], directory.path());
        let add = add.stdout(full()).spawn().unwrap();
        let Output { status, stderr, .. } = add.wait_with_output().await.unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("nothing was changed"), "{said}");
    }
    let (code, said) = ended(&["probe", "add", "alpha"], directory.path()).await;
    assert_eq!(code, Some(0), "{said}");
}

/// Every file is as large as it may ever be, as on a full disk.
fn on_a_full_disk(data_dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -S -f 0; exec \"$@\"", "sh", PROGRAM]);
    with_arguments(command, &[&["serve"][..], &ANY_PORTS, &FLAGS].concat(), data_dir)
}

#[tokio::test]
async fn after_a_kill_it_starts_on_a_full_disk_and_acknowledges_nothing() {
    let directory = with_store().await;
    let mut serving = Serving::start(&mut serve(directory.path())).await;
    rounds_close(&serving.http, 1).await;
    serving.kill().await;
    let (code, said) = ended(&["probe", "add", "alpha"], directory.path()).await;
    assert_eq!(code, Some(0), "{said}");
    Serving::start(&mut serve(directory.path())).await.kill().await;
    let mut full = Serving::start(&mut on_a_full_disk(directory.path())).await;
    let address = full.http.clone();
    assert!(get(&address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let answer = get(&address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("for reading alone"), "{answer}");
    assert!(get(&address, "/api/v1/probes").await.contains("alpha"), "what is stored is shown");
    // Room comes: it serves anew by itself, at the same place.
    let pid = full.child.id().unwrap().to_string();
    let room = ["--pid", &pid, "--fsize=unlimited"];
    assert!(Command::new("prlimit").args(room).status().await.unwrap().success());
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    while !ready_to_store(&address).await {
        looks.tick().await;
    }
    rounds_close(&address, 1).await;
    full.kill().await;
}

/// Whether it answers, and not that nothing can be stored. Between the two nobody listens.
async fn ready_to_store(address: &str) -> bool {
    let answer = try_get(address, "/readyz").await;
    answer.is_ok_and(|it| it.starts_with("HTTP/1.1") && !it.contains("nothing can be stored"))
}
