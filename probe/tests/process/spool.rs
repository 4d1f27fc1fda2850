//! A spool that this user may not read: scanning goes on, and what is lost is told when it can be.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::process::Command;
use uptime_proto::v1::CouldNotLookReason;

use super::fake_collector::{collector, daemon, probe, wait_for};

const PATIENCE: Duration = Duration::from_secs(40);
/// Of the two of most systems.
const NOBODY: &str = "65534";
const FIND_NODE: &str = "POST /_gsb/local/net/FindNode";

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The program where every user may start it.
fn program_for_all(directory: &Path) -> std::path::PathBuf {
    let copy = directory.join("uptime-probe");
    std::fs::copy(env!("CARGO_BIN_EXE_uptime-probe"), &copy).unwrap();
    allow(&copy, 0o755);
    copy
}

/// The same command, by a user whom permissions bind.
fn as_nobody(command: Command, program: &Path, directory: &Path) -> Command {
    let command = command.into_std();
    // Whoever runs this test owns the file it has just made.
    let mut other = match std::fs::metadata(program).unwrap().uid() {
        0 => {
            let mut other = Command::new("setpriv");
            other.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program);
            other
        }
        _ => Command::new(program),
    };
    other.args(command.get_args()).current_dir(directory).kill_on_drop(true);
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    other.envs(set.collect::<Vec<_>>());
    other
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_may_not_be_read_stops_neither_the_scan_nor_the_watchdog() {
    let (daemon, collector) = (daemon().await, collector(true, None).await);
    let directory = tempfile::tempdir().unwrap();
    let (spool, path) = (directory.path().join("spool"), directory.path().join("notify"));
    std::fs::create_dir(&spool).unwrap();
    let socket = UnixDatagram::bind(&path).unwrap();
    allow(directory.path(), 0o755);
    allow(&path, 0o777);
    allow(&spool, 0);
    let mut command = probe("run", &daemon, &collector.address, &spool);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let program = program_for_all(directory.path());
    let mut child = as_nobody(command, &program, directory.path()).spawn().unwrap();
    // Rounds of two seconds: four of them are more than the watchdog is told of in vain.
    let mut buffer = vec![0; 4096];
    let mut fed_s = std::collections::BTreeSet::new();
    let begun = tokio::time::Instant::now();
    let watch = async {
        while fed_s.last().is_none_or(|last| *last < 12) {
            let length = socket.recv(&mut buffer).await.unwrap();
            if String::from_utf8_lossy(&buffer[..length]).contains("WATCHDOG=1") {
                fed_s.insert(begun.elapsed().as_secs());
            }
        }
    };
    tokio::time::timeout(PATIENCE, watch).await.expect("the watchdog is fed all the time");
    assert!(fed_s.len() >= 11, "{fed_s:?}");
    assert!(daemon.count(FIND_NODE) >= 8 * 3, "rounds are scanned");
    assert!(collector.received.borrow().parts.is_empty(), "no key may be made");
    // It can be read again: what was lost is told, and rounds are kept.
    allow(&spool, 0o777);
    wait_for(&collector.received, |received| !received.gaps.is_empty()).await;
    wait_for(&collector.received, |received| received.parts.len() >= 2).await;
    child.kill().await.unwrap();
    let received = collector.received.borrow();
    let gap = &received.gaps[0];
    assert_eq!(gap.reason, CouldNotLookReason::SpoolFull as i32);
    assert!(gap.to_round_unix_s >= gap.from_round_unix_s + 8, "{gap:?}");
    let first = received.parts.keys().map(|key| key.round.start_s()).min().unwrap();
    assert!(first + 2 >= gap.to_round_unix_s, "{first} {gap:?}");
}
