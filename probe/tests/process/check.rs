//! `uptime-probe check`: whatever is wrong is named, with the mend, and nothing else is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use uptime_testkit::standin::{
    Daemon, DaemonOptions, Fault, FaultKind, ProviderSpec, Relay, RelayOptions, View, World,
};

use super::notebook::{Manner, Running, collector_with, daemon_with, probe};

/// What is tried where a relay's listing is configured, in turn.
const ALL: [&str; 10] = [
    "yagna",
    "key",
    "relay",
    "market",
    "look-up",
    "direct",
    "listing",
    "spool",
    "aggregator",
    "clock",
];

/// Everything a probe needs, and all of it well.
struct Stage {
    world: World,
    daemon: Daemon,
    relay: Relay,
    collector: Running,
    directory: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let world = World::new(5);
        for _ in 0..10 {
            world.add_provider(ProviderSpec::in_subnet("public"));
        }
        let daemon = daemon_with(&world, DaemonOptions::default()).await;
        let relay = Relay::start(world.clone(), RelayOptions::default()).await.unwrap();
        let collector = collector_with(true, None, Manner::default()).await;
        Self { world, daemon, relay, collector, directory: tempfile::tempdir().unwrap() }
    }

    fn spool(&self) -> PathBuf {
        self.directory.path().join("spool")
    }

    fn command(&self, aggregator: &str, spool: &Path) -> Command {
        let mut command = probe("check", &self.daemon, aggregator, spool);
        command.args(["--relay-url", &self.relay.base_url(), "--answer-timeout-ms", "1000"]);
        command
    }

    async fn check(&self) -> Said {
        said(&mut self.command(&self.collector.address, &self.spool())).await
    }
}

/// What was said: of what, whether it is well, and the words.
struct Said(Vec<(String, bool, String)>);

async fn said(command: &mut Command) -> Said {
    let output = command.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap();
        let (what, words) = rest.trim_start().split_once(char::is_whitespace).unwrap();
        (what.to_owned(), word == "ok", words.trim().to_owned())
    };
    let said: Vec<_> = text.lines().map(line).collect();
    let well = said.iter().all(|(_, well, _)| *well);
    assert_eq!(output.status.code(), Some(i32::from(!well)), "{text}");
    Said(said)
}

impl Said {
    /// These are wrong and no others, and the words about the first of them have these in them.
    fn is_wrong(&self, what: &[&str], words: &[&str]) {
        let wrong: Vec<&str> =
            self.0.iter().filter(|(_, well, _)| !well).map(|(of, ..)| of.as_str()).collect();
        assert_eq!(wrong, what, "{:#?}", self.0);
        let first = self.0.iter().find(|(_, well, _)| !well);
        let said = first.map_or("", |(.., words)| words.as_str());
        words.iter().for_each(|words| assert!(said.contains(words), "no {words:?} in {said:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_is_well_each_try_says_what_is_so() {
    let stage = Stage::new().await;
    let said = stage.check().await;
    said.is_wrong(&[], &[]);
    let tried: Vec<&str> = said.0.iter().map(|(what, ..)| what.as_str()).collect();
    assert_eq!(tried, ALL);
    let look_up = &said.0.iter().find(|(what, ..)| what == "look-up").unwrap().2;
    assert!(look_up.contains("sees 18 of 18"), "{look_up}");
    assert_eq!((stage.daemon.open_scans(), stage.daemon.open_demands()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_away_or_refuses_the_key() {
    let stage = Stage::new().await;
    stage.daemon.refuse_key(true);
    stage.check().await.is_wrong(&["key"], &["unauthorised", "YAGNA_APPKEY", "app-key list"]);
    stage.daemon.refuse_key(false);
    stage.daemon.freeze();
    stage.check().await.is_wrong(&["yagna"], &["timed_out", "frozen", "restart it"]);
    stage.daemon.thaw();
    stage.daemon.stop_listening().await;
    let mend = ["yagna_unreachable", "is yagna running", "YAGNA_API_URL"];
    stage.check().await.is_wrong(&["yagna"], &mend);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_without_the_relay_or_the_market() {
    let stage = Stage::new().await;
    stage.daemon.refuse_by_relay(true);
    let said = stage.check().await;
    said.is_wrong(&["relay", "look-up"], &["no session with the relay", "yagna net status", "UDP"]);
    stage.daemon.refuse_by_relay(false);
    stage.daemon.set_relay_session_age(Duration::from_secs(600));
    stage.daemon.set_view(View::Only(std::collections::BTreeSet::new()));
    stage.check().await.is_wrong(&["market"], &["no offer in subnet public", "some minutes"]);
    stage.daemon.set_view(View::Everything);
    let broken = FaultKind::Status(500, "{\"message\":\"no\"}".to_owned());
    stage.daemon.set_fault(Some(Fault::new("POST /market-api/v1/scan", broken)));
    stage.check().await.is_wrong(&["market"], &["market_error", "see its log"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_sees_nobody_is_not_theirs() {
    let stage = Stage::new().await;
    for id in stage.world.alive_ids() {
        stage.world.purge(&id);
    }
    let said = stage.check().await;
    said.is_wrong(&["look-up"], &["none of 18 nodes", "another relay", "wait"]);
    // A few may well have gone all at once.
    let few: Vec<String> = stage.world.subnet_ids("public").into_iter().take(5).collect();
    stage.daemon.set_view(View::Only(few.into_iter().collect()));
    stage.check().await.is_wrong(&[], &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_off_the_aggregators_or_the_relays() {
    let stage = Stage::new().await;
    let off = collector_with(true, None, Manner { ahead_ms: -7_000, ..Manner::default() }).await;
    let said = said(&mut stage.command(&off.address, &stage.spool())).await;
    said.is_wrong(&["clock"], &["ms off the aggregator's", "NTP"]);
    for ahead_s in [60, -60] {
        stage.world.set_relay_clock_ahead(ahead_s);
        stage.check().await.is_wrong(&["look-up"], &["by this host's clock", "NTP"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_that_is_no_relays() {
    let stage = Stage::new().await;
    let mut command = probe("check", &stage.daemon, &stage.collector.address, &stage.spool());
    command.args(["--relay-url", &stage.daemon.base_url()]);
    let mend = ["address of a relay's HTTP listing", "--relay-url", "Without it"];
    said(&mut command).await.is_wrong(&["listing"], &mend);
    stage.relay.stop().await;
    // A relay that is down is missed by the daemon, too.
    stage.check().await.is_wrong(&["look-up", "listing"], &["timed_out"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_cannot_be_used_or_is_damaged() {
    let stage = Stage::new().await;
    let file = stage.directory.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let mut command = stage.command(&stage.collector.address, &file);
    said(&mut command).await.is_wrong(&["spool"], &["--spool-dir"]);
    std::fs::create_dir_all(stage.spool()).unwrap();
    std::fs::write(stage.spool().join("00000001.spool"), "GUSPOOL1 and then nonsense").unwrap();
    let said = stage.check().await;
    said.is_wrong(&["spool"], &["damaged", "uptime-probe spool verify"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregator_that_is_away_or_refuses() {
    let stage = Stage::new().await;
    let mut command = stage.command("http://127.0.0.1:1", &stage.spool());
    said(&mut command).await.is_wrong(&["aggregator"], &["is it running", "--aggregator"]);
    // Each address is tried: one of two being away is told of that one.
    command.args(["--aggregator", &stage.collector.address]);
    let said = said(&mut command).await;
    said.is_wrong(&["aggregator"], &["127.0.0.1:1"]);
    assert_eq!(said.0.iter().filter(|(what, ..)| what == "aggregator").count(), 2);
}
