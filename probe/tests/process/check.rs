//! `uptime-probe check`: whatever is wrong is named, with the mend, and nothing else is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use uptime_probe::check::{Finding, Said as Answer, Step, check_within};
use uptime_probe::config::{Config, SettingArgs, Surroundings};
use uptime_proto::v1::ClockState;
use uptime_testkit::fake_yagna::{
    Daemon, DaemonOptions, Fault, FaultKind, ProviderSpec, Relay, RelayOptions, View, World,
};

use super::fake_collector::{Manner, Running, collector_with, daemon_with, probe, wait_for};

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

/// What is said of a relay session that is too young; a second or two may have gone by.
const YOUNG: &str = "the daemon's relay session is 2";

/// Everything a probe needs, and all of it well.
struct Fixture {
    world: World,
    daemon: Daemon,
    relay: Relay,
    collector: Running,
    directory: tempfile::TempDir,
}

impl Fixture {
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

/// What was said: the word for how it is, of what, and the text.
struct Said(Vec<(String, String, String)>);

/// One line of the answer.
fn parsed(line: &str) -> (String, String, String) {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap();
    let (what, text) = rest.trim_start().split_once(char::is_whitespace).unwrap();
    (word.to_owned(), what.to_owned(), text.trim().to_owned())
}

async fn said(command: &mut Command) -> Said {
    let output = command.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\u{1b}'), "no escapes for a pipe: {text:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{text}");
    let said = Said(text.lines().map(parsed).collect());
    let status = i32::from(!said.of_word("WRONG").is_empty());
    assert_eq!(output.status.code(), Some(status), "{text}");
    said
}

impl Said {
    /// Of what this word was said, in turn.
    fn of_word(&self, word: &str) -> Vec<&str> {
        self.0.iter().filter(|(is, ..)| is == word).map(|(_, what, _)| what.as_str()).collect()
    }

    /// The first text about this.
    fn about(&self, what: &str) -> &str {
        &self.0.iter().find(|(_, of, _)| of == what).unwrap().2
    }

    /// These are wrong and no others, and the words about the first of them have these in them.
    fn is_wrong(&self, what: &[&str], words: &[&str]) {
        assert_eq!(self.of_word("WRONG"), what, "{:#?}", self.0);
        let said = what.first().map_or("", |what| self.about(what));
        words.iter().for_each(|words| assert!(said.contains(words), "no {words:?} in {said:?}"));
    }

    /// These could not be tried and no others, and each says why.
    fn is_not_tried(&self, what: &[&str], why: &str) {
        assert_eq!(self.of_word("-"), what, "{:#?}", self.0);
        for what in what {
            let said = self.about(what);
            assert!(said.starts_with("not tried: ") && said.contains(why), "{said:?}");
        }
    }

    /// Of these neither can be said, and of no others.
    fn is_unsure(&self, what: &[&str]) {
        assert_eq!(self.of_word("note"), what, "{:#?}", self.0);
    }
}

/// The settings of a probe with limits so long that only the check's own counts.
struct Patient;

impl Surroundings for Patient {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "YAGNA_APPKEY").then(|| "the-key".to_owned())
    }

    fn read(&self, _: &Path) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_in_time_whoever_is_silent_and_still_asks_the_others() {
    let fixture = Fixture::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let args = SettingArgs {
        yagna_url: Some(fixture.daemon.base_url()),
        relay_url: Some(silent.clone()),
        aggregator: vec![fixture.collector.address.clone(), silent.clone(), silent],
        spool_dir: Some(fixture.spool().display().to_string()),
        kernel_clock: Some("synchronised".to_owned()),
        answer_timeout_ms: Some("60000".to_owned()),
        market_timeout_ms: Some("600000".to_owned()),
        relay_timeout_ms: Some("600000".to_owned()),
        ..SettingArgs::default()
    };
    let config = Config::read(&args, &Patient).unwrap();
    let stands_still = FaultKind::Latency(Duration::from_secs(3_600));
    fixture.daemon.set_fault(Some(Fault::new("POST /market-api/v1/scan", stands_still)));
    let (within, began) = (Duration::from_secs(9), Instant::now());
    let mut found = Vec::new();
    let well = check_within(&config, within, |step| {
        if let Step::Found(Finding { what, said }) = step {
            found.push(match said {
                Answer::Well(_) => ("ok", what),
                Answer::Wrong(_) => ("WRONG", what),
                Answer::Unsure(_) => ("note", what),
                Answer::NotTried(_) => ("-", what),
            });
        }
    })
    .await;
    assert!(!well);
    // Closing at the daemon has two seconds of its own.
    assert!(began.elapsed() < within * 2, "{:?}", began.elapsed());
    let wanted = [
        ("ok", "yagna"),
        ("ok", "key"),
        ("ok", "relay"),
        ("WRONG", "market"),
        ("-", "look-up"),
        ("-", "direct"),
        ("WRONG", "listing"),
        ("ok", "spool"),
        ("ok", "aggregator"),
        ("ok", "clock"),
        ("WRONG", "aggregator"),
        ("-", "clock"),
        ("-", "aggregator"),
        ("-", "clock"),
    ];
    assert_eq!(found, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_is_well_each_try_says_what_is_so() {
    let fixture = Fixture::new().await;
    let said = fixture.check().await;
    assert_eq!(said.of_word("ok"), ALL, "{:#?}", said.0);
    assert!(said.about("look-up").contains("sees 18 of 18"), "{}", said.about("look-up"));
    assert!(said.about("direct").contains("3 of 3 nodes answered"), "{}", said.about("direct"));
    assert_eq!((fixture.daemon.open_scans(), fixture.daemon.open_demands()), (0, 0));
    // The aggregator was asked for a greeting, and for no stream.
    let received = fixture.collector.received.borrow();
    assert_eq!((received.checks, received.streams), (1, 0));
}

/// The daemon says who it is, and then nothing for a minute: what is known by then can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_finding_is_told_when_it_is_there() {
    let fixture = Fixture::new().await;
    let stands_still = FaultKind::Latency(Duration::from_secs(3_600));
    fixture.daemon.set_fault(Some(Fault::new("GET /me", stands_still)));
    let mut command = probe("check", &fixture.daemon, &fixture.collector.address, &fixture.spool());
    command.args(["--answer-timeout-ms", "60000"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await;
    let first = parsed(&first.unwrap().unwrap().unwrap());
    assert_eq!((first.0.as_str(), first.1.as_str()), ("ok", "yagna"), "{first:?}");
    fixture.daemon.stop_listening().await;
    let mut said = Said(vec![first]);
    while let Some(line) = lines.next_line().await.unwrap() {
        said.0.push(parsed(&line));
    }
    said.is_wrong(&["key"], &["yagna_unreachable"]);
    said.is_not_tried(&["relay", "market", "look-up", "direct"], "application key");
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
}

/// By `script`, which is part of every Debian, as a terminal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_told_what_is_tried() {
    let fixture = Fixture::new().await;
    let command = format!(
        "{} check --yagna-url {} --aggregator {} --spool-dir {}",
        env!("CARGO_BIN_EXE_uptime-probe"),
        fixture.daemon.base_url(),
        fixture.collector.address,
        fixture.spool().display()
    );
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("YAGNA_APPKEY", "the-key")
        .env("UPTIME_KERNEL_CLOCK", "synchronised")
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("trying yagna …") && said.contains("trying aggregator …"), "{said:?}");
}

/// Another daemon of the fixture's network, that knows these nodes only.
async fn knows_only(world: &World, ids: &[String]) -> Daemon {
    let view = View::Only(ids.iter().cloned().collect());
    let app_key = "the-key".to_owned();
    let options = DaemonOptions { app_key, view, ..DaemonOptions::default() };
    Daemon::start(world.clone(), options).await.unwrap()
}

/// Nodes that the relay has just heard of stand still: three of them tell, fewer do not, and one
/// answer is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_are_asked_before_direct_questions_are_called_wrong() {
    let fixture = Fixture::new().await;
    let nodes = fixture.world.subnet_ids("public");
    let (silent, alive) = (&nodes[..3], &nodes[3]);
    for id in silent {
        fixture.world.set_seen_age(id, Duration::from_secs(1));
        fixture.world.freeze(id);
    }
    let three = knows_only(&fixture.world, silent).await;
    let two = knows_only(&fixture.world, &silent[..2]).await;
    let one_lives =
        knows_only(&fixture.world, &[silent[0].clone(), silent[1].clone(), alive.clone()]).await;
    // A direct question lasts four seconds, and for twenty the relay sees these nodes.
    let check = async |daemon: &Daemon, spool: &str| {
        let spool = fixture.directory.path().join(spool);
        said(&mut probe("check", daemon, &fixture.collector.address, &spool)).await
    };
    let (three, two, one_lives) =
        tokio::join!(check(&three, "three"), check(&two, "two"), check(&one_lives, "one"));
    let words = ["do not get through", "0 of 3 nodes", "UDP", "restart it"];
    three.is_wrong(&["direct"], &words);
    two.is_wrong(&[], &[]);
    two.is_unsure(&["direct"]);
    assert!(two.about("direct").contains("0 of 2 nodes"), "{}", two.about("direct"));
    assert_eq!(one_lives.of_word("ok").len(), ALL.len() - 1, "{:#?}", one_lives.0);
    let text = one_lives.about("direct");
    assert!(text.contains("1 of 3 nodes answered"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_away_or_refuses_the_key() {
    let fixture = Fixture::new().await;
    fixture.daemon.refuse_key(true);
    let said = fixture.check().await;
    said.is_wrong(&["key"], &["unauthorised", "YAGNA_APPKEY", "app-key list"]);
    said.is_not_tried(&["relay", "market", "look-up", "direct"], "application key");
    fixture.daemon.refuse_key(false);
    fixture.daemon.freeze();
    let said = fixture.check().await;
    said.is_wrong(&["yagna"], &["timed_out", "frozen", "restart it"]);
    let at_yagna = ["key", "relay", "market", "look-up", "direct"];
    said.is_not_tried(&at_yagna, "yagna does not answer");
    fixture.daemon.thaw();
    fixture.daemon.stop_listening().await;
    let said = fixture.check().await;
    said.is_wrong(&["yagna"], &["yagna_unreachable", "Start yagna", "YAGNA_API_URL"]);
    said.is_not_tried(&at_yagna, "yagna does not answer");
    // What needs no daemon was tried all the same.
    assert_eq!(said.of_word("ok"), ["listing", "spool", "aggregator", "clock"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_without_the_relay_or_the_market() {
    let fixture = Fixture::new().await;
    fixture.daemon.refuse_by_relay(true);
    let said = fixture.check().await;
    said.is_wrong(&["relay"], &["no session with the relay", "yagna net status", "UDP"]);
    said.is_not_tried(&["look-up", "direct"], "no session with the relay");
    fixture.daemon.refuse_by_relay(false);
    fixture.daemon.set_relay_session_age(Duration::from_secs(600));
    fixture.daemon.set_view(View::Only(BTreeSet::new()));
    let said = fixture.check().await;
    said.is_wrong(&["market"], &["no offer in subnet public", "some minutes"]);
    said.is_not_tried(&["look-up", "direct"], "has no node");
    fixture.daemon.set_view(View::Everything);
    let broken = FaultKind::Status(500, "{\"message\":\"no\"}".to_owned());
    fixture.daemon.set_fault(Some(Fault::new("POST /market-api/v1/scan", broken)));
    fixture.check().await.is_wrong(&["market"], &["subnet public", "market_error", "yagna's log"]);
}

/// `scan` says the same of it, see there; what is found of nodes is worth as much as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_session_that_is_too_young_is_no_fault() {
    let fixture = Fixture::new().await;
    fixture.daemon.set_relay_session_age(Duration::from_secs(20));
    let said = fixture.check().await;
    said.is_unsure(&["relay"]);
    assert!(said.about("relay").starts_with(YOUNG), "{}", said.about("relay"));
    assert_eq!(said.of_word("ok").len(), ALL.len() - 1, "{:#?}", said.0);
    // Soon after the relay was started anew, it sees nobody.
    for id in fixture.world.alive_ids() {
        fixture.world.purge(&id);
    }
    let said = fixture.check().await;
    said.is_unsure(&["relay", "look-up"]);
    said.is_not_tried(&["direct"], "sees no node");
    said.is_wrong(&[], &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_sees_nobody_is_not_theirs() {
    let fixture = Fixture::new().await;
    for id in fixture.world.alive_ids() {
        fixture.world.purge(&id);
    }
    let said = fixture.check().await;
    said.is_wrong(&["look-up"], &["none of 18 nodes", "another relay", "wait"]);
    said.is_not_tried(&["direct"], "sees no node");
    // A few may well have gone all at once.
    let few: Vec<String> = fixture.world.subnet_ids("public").into_iter().take(5).collect();
    fixture.daemon.set_view(View::Only(few.into_iter().collect()));
    let said = fixture.check().await;
    said.is_wrong(&[], &[]);
    said.is_unsure(&["look-up"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_off_the_aggregators_or_the_relays() {
    let fixture = Fixture::new().await;
    let off = collector_with(true, None, Manner { ahead_ms: -7_000, ..Manner::default() }).await;
    let said = said(&mut fixture.command(&off.address, &fixture.spool())).await;
    said.is_wrong(&["clock"], &["ms ahead of the aggregator's", "NTP"]);
    // By each word of the kernel and each state of the aggregator.
    for (kernel, clock_state, ahead_ms, word, words) in [
        ("synchronised", ClockState::Sure, 0, "ok", "the aggregator's"),
        ("synchronised", ClockState::Doubtful, -7_000, "note", "goes by its own"),
        ("unsynchronised", ClockState::Sure, -7_000, "note", "goes by the aggregator's"),
        ("unsynchronised", ClockState::Doubtful, 0, "note", "They agree"),
        ("unsynchronised", ClockState::Doubtful, -7_000, "WRONG", "scans no round"),
    ] {
        let manner = Manner { ahead_ms, clock_state, ..Manner::default() };
        let collector = collector_with(true, None, manner).await;
        let mut command = fixture.command(&collector.address, &fixture.spool());
        let said = self::said(command.args(["--kernel-clock", kernel])).await;
        let (is, _, text) = said.0.iter().find(|(_, what, _)| what == "clock").unwrap();
        assert_eq!(is, word, "{kernel} {clock_state:?} {text}");
        assert!(text.contains(words), "no {words:?} in {text:?}");
    }
    for ahead_s in [60, -60] {
        fixture.world.set_relay_clock_ahead(ahead_s);
        fixture.check().await.is_wrong(&["look-up"], &["by this host's clock", "NTP"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_that_is_no_relays() {
    let fixture = Fixture::new().await;
    let mut command = probe("check", &fixture.daemon, &fixture.collector.address, &fixture.spool());
    command.args(["--relay-url", &fixture.daemon.base_url()]);
    let mend = ["address of a relay's HTTP listing", "--relay-url", "leave it out"];
    said(&mut command).await.is_wrong(&["listing"], &mend);
    fixture.relay.stop().await;
    // A relay that is down is missed by the daemon, too.
    fixture.check().await.is_wrong(&["look-up", "listing"], &["timed_out"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_cannot_be_used_or_is_damaged() {
    let fixture = Fixture::new().await;
    let file = fixture.directory.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let mut command = fixture.command(&fixture.collector.address, &file);
    said(&mut command).await.is_wrong(&["spool"], &["--spool-dir"]);
    std::fs::create_dir_all(fixture.spool()).unwrap();
    std::fs::write(fixture.spool().join("00000001.spool"), "GUSPOOL1 and then nonsense").unwrap();
    let said = fixture.check().await;
    said.is_wrong(&["spool"], &["damaged", "uptime-probe spool verify"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregator_that_is_away_or_refuses() {
    let fixture = Fixture::new().await;
    let mut command = fixture.command("http://127.0.0.1:1", &fixture.spool());
    let away = said(&mut command).await;
    away.is_wrong(&["aggregator"], &["Start the aggregator", "--aggregator"]);
    away.is_not_tried(&["clock"], "did not greet this probe");
    // Each address is tried: one of two being away is told of that one.
    command.args(["--aggregator", &fixture.collector.address]);
    let said = said(&mut command).await;
    said.is_wrong(&["aggregator"], &["127.0.0.1:1"]);
    assert_eq!(said.0.iter().filter(|(_, what, _)| what == "aggregator").count(), 2);
}

/// See the suites of both ends for an aggregator that means it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_runs_goes_on_while_it_is_checked() {
    let fixture = Fixture::new().await;
    let received = &fixture.collector.received;
    let address = &fixture.collector.address;
    let mut running = probe("run", &fixture.daemon, address, &fixture.spool()).spawn().unwrap();
    wait_for(received, |received| received.parts.len() >= 2).await;
    let said = fixture.check().await;
    said.is_wrong(&[], &[]);
    assert!(said.about("spool").contains("a running probe uses"), "{}", said.about("spool"));
    let parts = received.borrow().parts.len();
    wait_for(received, |received| received.parts.len() >= parts + 3).await;
    running.kill().await.unwrap();
    let received = received.borrow();
    assert_eq!((received.checks, received.streams), (1, 1), "one stream, from first to last");
    assert!(received.gaps.is_empty());
}
