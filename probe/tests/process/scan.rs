//! `uptime-probe scan`: what it says of whom, in which form, and what it does not say.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use uptime_testkit::fake_yagna::{Daemon, Fault, FaultKind, Relay, RelayOptions, World};

use super::fake_collector::{daemon_of, probe};

const FIND_NODE: &str = "POST /_gsb/local/net/FindNode";
const DIRECT: &str = "GET /market-api/v1/scan/{id}/events?peerId";
const HEADER: &str = "node_id,name,subnet,runtime,state";

/// Eight providers, of which one died a minute ago.
async fn network() -> (World, Daemon, String) {
    let world = World::new(5);
    let daemon = daemon_of(&world).await;
    let dead = world.subnet_ids("public").remove(0);
    world.kill_ago(&dead, Duration::from_secs(60));
    (world, daemon, dead)
}

fn scan(daemon: &Daemon) -> Command {
    let mut scan = probe("scan", daemon, "http://127.0.0.1:1", Path::new("/nonexistent"));
    scan.env_remove("UPTIME_LOG");
    scan
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// The states by node, as JSON tells them; the exit status; what is on standard error.
async fn states(scan: &mut Command) -> (BTreeMap<String, String>, i32, String) {
    let output = scan.args(["--output", "json"]).output().await.unwrap();
    let (stdout, stderr) = texts(&output);
    let rows: Vec<Value> = serde_json::from_str(&stdout).unwrap();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let states = rows.iter().map(|row| (text(row, "node_id"), text(row, "state"))).collect();
    (states, output.status.code().unwrap(), stderr)
}

fn count(states: &BTreeMap<String, String>, state: &str) -> usize {
    states.values().filter(|there| *there == state).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_says_the_same_and_a_pipe_gets_nothing_else() {
    let (world, daemon, dead) = network().await;
    let (json, status, stderr) = states(&mut scan(&daemon)).await;
    assert_eq!((json.len(), status, stderr.as_str()), (8, 0, ""), "{json:?}");
    assert_eq!(json[&dead], "unreachable");
    assert_eq!(count(&json, "seen"), 7);

    let output = scan(&daemon).args(["--output", "csv"]).output().await.unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));
    let mut rows = csv::Reader::from_reader(stdout.as_bytes());
    assert_eq!(stdout.lines().next(), Some(HEADER));
    let csv: BTreeMap<String, String> = rows
        .records()
        .map(|row| row.unwrap())
        .map(|row| (row[0].to_owned(), row[4].to_owned()))
        .collect();
    assert_eq!(csv, json);

    let output = scan(&daemon).output().await.unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));
    assert!(!stdout.contains('\u{1b}'), "no escapes for a pipe: {stdout:?}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].starts_with("NODE "), "{stdout}");
    for (id, state) in &json {
        let line = lines.iter().find(|line| line.starts_with(id)).unwrap();
        assert!(line.contains(state) && line.contains("public"), "{line}");
    }
    let counts = "8 rows: 7 seen, 0 answered, 1 unreachable, 0 could not look, 0 not asked";
    assert_eq!(lines.last(), Some(&counts));
    drop(world);
}

/// By `script`, which is part of every Debian, as a terminal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_gets_a_progress_bar() {
    let (_world, daemon, _) = network().await;
    let command =
        format!("{} scan --yagna-url {}", env!("CARGO_BIN_EXE_uptime-probe"), daemon.base_url());
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .current_dir(&directory)
        .env("YAGNA_APPKEY", "the-key")
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{stdout} {stderr}");
    assert!(stdout.contains("nodes looked up"), "{stdout:?}");
    assert!(stdout.contains("\u{1b}[1mNODE"), "{stdout:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_unreachable_to_who_cannot_see_well() {
    let (world, daemon, dead) = network().await;
    daemon.set_relay_session_age(Duration::from_secs(20));
    let (young, status, stderr) = states(&mut scan(&daemon)).await;
    assert_eq!((young[&dead].as_str(), status), ("could not look", 0), "{stderr}");
    assert_eq!(count(&young, "seen"), 7, "a sign of life is one at any age");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("note: the daemon's relay session is 2"), "{stderr}");
    assert!(stderr.contains("'not found' counts from 60 s on; wait "), "{stderr}");
    daemon.refuse_by_relay(true);
    let (blind, status, stderr) = states(&mut scan(&daemon)).await;
    assert_eq!((count(&blind, "could not look"), status), (8, 1), "{blind:?}");
    assert!(stderr.contains("no session with the relay"), "{stderr}");
    assert!(stderr.contains("run `uptime-probe check`"), "{stderr}");
    daemon.refuse_by_relay(false);
    daemon.set_relay_session_age(Duration::from_secs(3_600));
    // Twelve nodes, and a clock by which all of them were seen in the future, or long ago.
    for _ in 0..4 {
        world.add_provider(uptime_testkit::fake_yagna::ProviderSpec::in_subnet("public"));
    }
    for (ahead_s, found, wanted) in [(40, "could not look", 1), (-40, "answered", 0)] {
        world.set_relay_clock_ahead(ahead_s);
        let (states, status, stderr) = states(&mut scan(&daemon)).await;
        assert_eq!((states[&dead].as_str(), status), ("could not look", wanted), "{stderr}");
        assert_eq!(
            count(&states, found),
            11 + usize::from(found == "could not look"),
            "{states:?}"
        );
        assert!(stderr.contains("clocks of this host and of the relay disagree"), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_switched_off_is_not_asked_and_said_so() {
    let (world, daemon, dead) = network().await;
    let sources = |list: &str| {
        let mut scan = scan(&daemon);
        scan.args(["--sources", list]);
        scan
    };
    let (market, status, _) = states(&mut sources("market")).await;
    assert_eq!((count(&market, "not asked"), status), (8, 0));
    assert_eq!(daemon.count(FIND_NODE) + daemon.count(DIRECT), 0);
    let (no_direct, status, _) = states(&mut sources("market,find-node")).await;
    assert_eq!((no_direct[&dead].as_str(), status), ("not asked", 0));
    assert_eq!((count(&no_direct, "seen"), daemon.count(DIRECT)), (7, 0));
    let finds = daemon.count(FIND_NODE);
    let (no_find, status, _) = states(&mut sources("market,direct")).await;
    assert_eq!((no_find[&dead].as_str(), status), ("not asked", 0));
    assert_eq!((count(&no_find, "answered"), daemon.count(FIND_NODE)), (7, finds));
    let output = sources("find-node").output().await.unwrap();
    assert_eq!(output.status.code(), Some(64), "whom to ask for is on the market");
    // With a listing of the relay only those are asked for who are not fresh by it.
    let relay = Relay::start(world.clone(), RelayOptions::default()).await.unwrap();
    let (listed, status, _) =
        states(sources("market,find-node,direct").args(["--relay-url", &relay.base_url()])).await;
    assert_eq!((listed[&dead].as_str(), count(&listed, "seen"), status), ("unreachable", 7, 0));
    let told = "the dead one, in both stages and after its silence";
    assert_eq!(daemon.count(FIND_NODE), finds + 3, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_fails_only_where_it_could_not_look() {
    let (_world, daemon, _) = network().await;
    let broken = || FaultKind::Status(500, "{\"message\":\"no\"}".to_owned());
    // The first scan of this daemon lists the market, the second one asks directly.
    daemon.set_fault(Some(Fault::new("GET /market-api/v1/scan/1/", broken())));
    let (some, status, stderr) = states(&mut scan(&daemon)).await;
    let counts = ["seen", "could not look"].map(|state| count(&some, state));
    assert_eq!((counts, status), ([7, 1], 0), "one question failed: {stderr}");
    assert!(stderr.starts_with("could not look: the questions about 1 of 8"), "{stderr}");
    daemon.set_fault(None);
    let mut two = scan(&daemon);
    let (json, status, stderr) = states(two.args(["--subnet-tag", "public,nowhere"])).await;
    assert_eq!((json.len(), status), (8, 0), "{stderr}");
    assert_eq!(stderr, "note: the daemon knows no offer in subnet nowhere\n");
    // No look-up at all.
    daemon.set_fault(Some(Fault::new("POST /_gsb/local/net/FindNode", broken())));
    let (none, status, stderr) = states(&mut scan(&daemon)).await;
    assert_eq!((count(&none, "could not look"), status), (8, 1), "{stderr}");
    // No market, and so nobody to ask for.
    daemon.set_fault(Some(Fault::new("POST /market-api/v1/scan", broken())));
    let output = scan(&daemon).output().await.unwrap();
    let (stdout, stderr) = texts(&output);
    assert_eq!((output.status.code(), stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("no market could be listed"), "{stderr}");
    assert!(stderr.contains("run `uptime-probe check`"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_says_what_each_exit_status_means() {
    for command in ["run", "scan", "check"] {
        let mut help = Command::new(env!("CARGO_BIN_EXE_uptime-probe"));
        let output = help.args([command, "--help"]).output().await.unwrap();
        let (stdout, _) = texts(&output);
        assert_eq!(output.status.code(), Some(0));
        let told = stdout.split("Exit status:").nth(1).unwrap_or_else(|| panic!("{stdout}"));
        assert!(told.contains(" 0 ") && told.contains(" 1 ") && told.contains(" 64 "), "{told}");
    }
}
