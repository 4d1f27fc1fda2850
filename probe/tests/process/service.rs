//! What a service manager and an operator expect of the daemon.

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::process::Command;
use uptime_proto::v1::CouldNotLookReason;

use super::fake_collector::{Received, collector, daemon, probe, signal, wait_for};

const PATIENCE: Duration = Duration::from_secs(40);

/// Reads what the manager is told until it is told this.
async fn told(socket: &UnixDatagram, wanted: &str) {
    let mut buffer = vec![0; 4096];
    let hear = async {
        loop {
            let length = socket.recv(&mut buffer).await.unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line.starts_with(wanted)) {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, hear).await.is_ok(), "never told {wanted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_is_told_how_things_stand() {
    let (daemon, collector) = (daemon().await, collector(true, None).await);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut child = probe("run", &daemon, &collector.address, &directory.path().join("spool"))
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "1000000")
        .spawn()
        .unwrap();
    told(&socket, "READY=1").await;
    told(&socket, "WATCHDOG=1").await;
    told(&socket, "STATUS=connected; 0 parts wait").await;
    signal(&child, "TERM").await;
    told(&socket, "STOPPING=1").await;
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0));
}

fn seen_subnet(subnet: &'static str) -> impl Fn(&Received) -> bool {
    move |received| received.parts.keys().any(|key| key.subnet == subnet)
}

fn configure(path: &Path, subnet: &str, aggregator: &str) {
    let text = format!("subnet_tag = [{subnet:?}]\naggregator = [{aggregator:?}]\n");
    std::fs::write(path, text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_read_anew_and_wrong_ones_change_nothing() {
    let (daemon, first, second) =
        (daemon().await, collector(true, None).await, collector(true, None).await);
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("probe.toml");
    configure(&config, "public", &first.address);
    let mut child = Command::new(env!("CARGO_BIN_EXE_uptime-probe"))
        .args(["run", "--yagna-url", &daemon.base_url(), "--config"])
        .arg(&config)
        .arg("--spool-dir")
        .arg(directory.path().join("spool"))
        .env("YAGNA_APPKEY", "the-key")
        .env("UPTIME_LOG", "off")
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_for(&first.received, seen_subnet("public")).await;
    // A broken file: the probe goes on as before.
    std::fs::write(&config, "subnet_tag = 7\nnonsense").unwrap();
    signal(&child, "HUP").await;
    let before = first.received.borrow().parts.len();
    wait_for(&first.received, |received| received.parts.len() > before + 2).await;
    assert!(!seen_subnet("other")(&first.received.borrow()));
    assert_eq!(first.received.borrow().streams, 1);
    // Another subnet, then another aggregator; each is greeted anew.
    configure(&config, "other", &first.address);
    signal(&child, "HUP").await;
    wait_for(&first.received, seen_subnet("other")).await;
    assert_eq!(first.received.borrow().streams, 2);
    configure(&config, "other", &second.address);
    signal(&child, "HUP").await;
    wait_for(&second.received, seen_subnet("other")).await;
    child.kill().await.unwrap();
    for received in [&first.received, &second.received] {
        for (key, copies) in &received.borrow().parts {
            assert!(copies.iter().all(|copy| copy.0 == copies[0].0), "{key:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_that_nobody_scanned_are_reported_as_missed() {
    let (daemon, collector) = (daemon().await, collector(true, None).await);
    let spool = tempfile::tempdir().unwrap();
    let start = || probe("run", &daemon, &collector.address, spool.path()).spawn().unwrap();
    let mut child = start();
    wait_for(&collector.received, |received| received.parts.len() >= 3).await;
    child.kill().await.unwrap();
    let last_s =
        |received: &Received| received.parts.keys().map(|key| key.round.start_s()).max().unwrap();
    let last = last_s(&collector.received.borrow());
    // Nobody looks for three rounds of two seconds.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let mut child = start();
    wait_for(&collector.received, |received| last_s(received) > last).await;
    wait_for(&collector.received, |received| !received.gaps.is_empty()).await;
    child.kill().await.unwrap();
    let received = collector.received.borrow();
    let gap = &received.gaps[0];
    assert_eq!(gap.reason, CouldNotLookReason::Missed as i32);
    assert!(gap.from_round_unix_s >= last + 2, "{gap:?} after {last}");
    assert!(gap.to_round_unix_s >= gap.from_round_unix_s + 4, "{gap:?}");
    let within = |start_s| (gap.from_round_unix_s..gap.to_round_unix_s).contains(&start_s);
    assert!(!received.parts.keys().any(|key| within(key.round.start_s())), "never made up");
}
