//! The fixture: a fake network, and the shipped programs that look at it as processes.
//!
//! Owns how they are started and asked. The verdicts of a round at its close come from the log of
//! the aggregator, the current ones from its answers. Refuses to judge.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::DateTime;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use uptime_proto::v1;
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;
use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, NetTiming, ProviderSpec, World};

use super::PATIENCE;
use super::aggregator::enrol_at;
use super::program::{PORT_GRPC, PORT_HTTP, Program, address};

/// A key that only the fake daemons take.
const APP_KEY: &str = "deaths-key";
/// Probes, each beside a daemon of its own.
pub(crate) const PROBES: usize = 3;
/// The interval between polls.
const AGAIN: Duration = Duration::from_millis(100);

/// The settings of the programs and the network.
pub(crate) struct Rules {
    pub(crate) period_s: u64,
    /// Further settings of the aggregator.
    pub(crate) aggregator: &'static [(&'static str, &'static str)],
    pub(crate) timing: NetTiming,
    /// Which of the daemons keep a channel to every node, as gossip opens them.
    pub(crate) channels: [bool; PROBES],
    /// How many providers there are.
    pub(crate) nodes: usize,
}

impl Rules {
    /// A minute in ten seconds: rounds of 5 s, and one daemon of three has channels. The age that a
    /// session must have is a minute, over six as all the network's times.
    pub(crate) fn over_six(nodes: usize) -> Self {
        Self {
            period_s: 5,
            aggregator: &[
                ("--grace-s", "3"),
                ("--freshness-s", "3"),
                ("--direct-timeout-ms", "1000"),
                ("--relay-session-age-min-s", "10"),
            ],
            timing: shortened(6),
            channels: [true, false, false],
            nodes,
        }
    }
}

/// The network's times, shortened so many times.
pub(crate) fn shortened(ratio: u32) -> NetTiming {
    let real = NetTiming::realistic();
    let both = |(least, most): (Duration, Duration)| (least / ratio, most / ratio);
    NetTiming {
        // A ping of a living node is never older than a round, and fresh is what is 3 s old.
        ping_interval: Duration::from_secs(1),
        purge_after: real.purge_after / ratio,
        drop_after: both(real.drop_after),
        late_drop_after: real.late_drop_after / ratio,
        returns_after_short: both(real.returns_after_short),
        returns_after_long: both(real.returns_after_long),
        register_again: both(real.register_again),
        closed_by_relay_restart: real.closed_by_relay_restart / ratio,
        session_lost_after: real.session_lost_after / ratio,
        seen_lag_share: 0.0,
        ..real
    }
}

/// A round as it was when it closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    /// When, unix milliseconds.
    pub(crate) at_ms: i64,
    pub(crate) up: u64,
    pub(crate) down: u64,
    pub(crate) unknown: u64,
    /// Probes whose "not found" counted.
    pub(crate) eligible: u64,
}

pub(crate) struct Fixture {
    pub(crate) world: World,
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) ids: Vec<String>,
    pub(crate) period_s: u64,
    directory: TempDir,
    aggregator: Program,
    probes: Vec<Program>,
    query: UptimeQueryClient<Channel>,
}

/// The block of addresses of a program of a fixture: `place` is 0 for the aggregator.
fn block(fixture: usize, place: usize) -> usize {
    80 + fixture * 4 + place
}

impl Fixture {
    /// Starts everything and waits for a round in which every node is up and every probe counts.
    pub(crate) async fn open(rules: &Rules) -> Self {
        static FIXTURES: AtomicUsize = AtomicUsize::new(0);
        // The metrics client needs a provider, though metrics are plain text. An error means that
        // another test of this process has installed one.
        rustls::crypto::ring::default_provider().install_default().ok();
        let fixture = FIXTURES.fetch_add(1, Ordering::Relaxed);
        let world = World::new(31);
        world.set_timing(rules.timing);
        let spec = || ProviderSpec::in_subnet("public");
        let ids: Vec<String> = (0..rules.nodes).map(|_| world.add_provider(spec())).collect();
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let (mut daemons, mut probes) = (Vec::new(), Vec::new());
        for (number, gossips) in rules.channels.into_iter().enumerate() {
            let options = DaemonOptions { app_key: APP_KEY.into(), gossips, ..Default::default() };
            let daemon = Daemon::start(world.clone(), options).await.unwrap();
            let token = enrol_at(&data, &format!("probe-{number}"), &[], 0).await;
            probes.push(probe(fixture, number, directory.path(), &daemon.base_url(), token));
            daemons.push(daemon);
        }
        let mut aggregator = aggregator(fixture, directory.path(), rules);
        aggregator.start();
        probes.iter_mut().for_each(Program::start);
        let query = connect(&format!("http://{}", address(block(fixture, 0), 0, PORT_GRPC))).await;
        let period_s = rules.period_s;
        let fixture = Self { world, daemons, ids, period_s, directory, aggregator, probes, query };
        let nodes = rules.nodes as u64;
        let all = |round: &Closed| round.up == nodes && round.eligible == PROBES as u64;
        fixture.closed_with(fixture.now_s(), "every node is up, every probe counts", all).await;
        fixture
    }

    /// Unix seconds; the world's time is the machine's.
    fn now_s(&self) -> u64 {
        self.world.now().as_secs()
    }

    /// The start of the round that is going on.
    fn round_s(&self) -> u64 {
        self.now_s() / self.period_s * self.period_s
    }

    /// Waits until the clock is so far in the next round, and answers that round.
    pub(crate) async fn at_next_round(&self, offset_ms: u64) -> u64 {
        let round_s = self.round_s() + self.period_s;
        self.at_round(round_s, offset_ms).await;
        round_s
    }

    /// Waits until the clock is so far in this round: what happens then happens in the midst of
    /// what the probes do in it. It is time that is waited for, and nothing else.
    pub(crate) async fn at_round(&self, round_s: u64, offset_ms: u64) {
        let at = Duration::from_millis(round_s * 1_000 + offset_ms);
        tokio::time::sleep(at.saturating_sub(self.world.now())).await;
    }

    /// The rounds that have closed, as they were then.
    pub(crate) fn rounds(&self) -> BTreeMap<u64, Closed> {
        let log = BufReader::new(std::fs::File::open(&self.aggregator.log).unwrap());
        let lines = log.lines().map_while(Result::ok);
        let lines = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
        let closed = lines.filter(|line| line["fields"]["message"] == "round closed");
        let mut rounds = BTreeMap::new();
        for line in closed {
            let number = |name: &str| line["fields"][name].as_u64().unwrap();
            let at = DateTime::parse_from_rfc3339(line["timestamp"].as_str().unwrap()).unwrap();
            let round = Closed {
                at_ms: at.timestamp_millis(),
                up: number("up"),
                down: number("down"),
                unknown: number("unknown"),
                eligible: number("eligible"),
            };
            let before = rounds.insert(number("round"), round);
            assert_eq!(before, None, "{} was closed twice", number("round"));
        }
        rounds
    }

    /// Waits until this round has closed; answers all that have.
    pub(crate) async fn closed(&self, round_s: u64) -> BTreeMap<u64, Closed> {
        self.closed_with(round_s, "it is closed", |_| true).await;
        self.rounds()
    }

    /// Waits until a round that starts then or later has closed like this; answers which.
    pub(crate) async fn closed_with(
        &self,
        from_s: u64,
        what: &str,
        so: impl Fn(&Closed) -> bool,
    ) -> u64 {
        let wait = async {
            loop {
                let rounds = self.rounds();
                let found = rounds.range(from_s..).find(|(_, round)| so(round));
                if let Some((round_s, _)) = found {
                    return *round_s;
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        // Rounds to come are waited for, and their close.
        let ahead = Duration::from_secs(from_s).saturating_sub(self.world.now());
        let waited = tokio::time::timeout(ahead + PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("never, from {from_s} on: {what}: {:#?}", self.rounds()))
    }

    /// The daemons' ERROR lines, all together.
    pub(crate) fn error_lines(&self) -> u64 {
        self.daemons.iter().map(Daemon::error_lines).sum()
    }

    /// Every node the aggregator lists, by id.
    pub(crate) async fn nodes(&self) -> BTreeMap<String, v1::Node> {
        let request = v1::ListNodesRequest { page_size: 1_000, ..Default::default() };
        let answer = self.query.clone().list_nodes(request).await.unwrap().into_inner();
        answer.nodes.into_iter().map(|node| (node.id.clone(), node)).collect()
    }

    pub(crate) async fn explain(&self, id: &str, round_s: u64) -> v1::ExplainResponse {
        let request = v1::ExplainRequest { id: id.to_owned(), round_unix_s: round_s };
        self.query.clone().explain(request).await.unwrap().into_inner()
    }

    pub(crate) async fn verdict(&self, id: &str, round_s: u64) -> v1::Verdict {
        self.explain(id, round_s).await.verdict()
    }

    /// Of these nodes none was down in any round, and each was up in most.
    pub(crate) async fn always_lived(&self, ids: &[String]) {
        let nodes = self.nodes().await;
        for id in ids {
            let figures = nodes[id].all.as_ref().unwrap();
            assert_eq!(figures.down_rounds, 0, "it lived: {:?}", nodes[id]);
            assert!(figures.up_rounds > figures.unknown_rounds, "{:?}", nodes[id]);
        }
    }

    pub(crate) async fn outages(&self, id: &str) -> Vec<v1::Outage> {
        let request = v1::ListOutagesRequest { id: id.to_owned(), ..Default::default() };
        self.query.clone().list_outages(request).await.unwrap().into_inner().outages
    }

    /// What the CSV says of nodes, by id: `True` or `False`.
    pub(crate) fn csv(&self) -> BTreeMap<String, String> {
        let path = self.directory.path().join("data/nodes_status.csv");
        let mut rows = csv::Reader::from_path(path).unwrap();
        let rows = rows.records().map(Result::unwrap);
        rows.map(|row| (row[0].to_owned(), row[1].to_owned())).collect()
    }

    /// When the CSV was written last, unix milliseconds.
    pub(crate) fn csv_written_ms(&self) -> i64 {
        let metadata = std::fs::metadata(self.directory.path().join("data/nodes_status.csv"));
        let since = metadata.unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH);
        i64::try_from(since.unwrap().as_millis()).unwrap()
    }

    /// Every answer of a daemon is in the table of the probes.
    pub(crate) async fn nothing_was_strange(&self) {
        for probe in &self.probes {
            let count = probe.metric("uptime_yagna_answers_not_understood_total", "").await;
            assert_eq!(count, Some(0.0), "answers {} did not understand", probe.name);
        }
    }

    /// Ends the programs, well.
    pub(crate) async fn end(mut self) {
        for probe in &mut self.probes {
            probe.terminate(false).await;
        }
        self.aggregator.terminate(false).await;
    }
}

/// After a failure, logs, spools and the store are kept for inspection.
impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            eprintln!("everything of this run is kept in {}", self.directory.path().display());
        }
    }
}

fn aggregator(fixture: usize, directory: &Path, rules: &Rules) -> Program {
    let (grpc, http) =
        (address(block(fixture, 0), 0, PORT_GRPC), address(block(fixture, 0), 0, PORT_HTTP));
    let data = directory.join("data").display().to_string();
    let period = rules.period_s.to_string();
    let mut settings = vec![
        ("--data-dir", data.as_str()),
        ("--grpc-addr", &grpc),
        ("--http-addr", &http),
        ("--round-period-s", &period),
        ("--log-format", "json"),
    ];
    settings.extend(rules.aggregator);
    let name = ("uptime-aggregator", "aggregator");
    Program::new(name, "serve", directory, http.clone(), &settings, Vec::new())
}

/// Without pings: they would open channels.
fn probe(fixture: usize, number: usize, directory: &Path, daemon: &str, token: String) -> Program {
    let spool = directory.join(format!("spool-{number}")).display().to_string();
    let aggregator = format!("http://{}", address(block(fixture, 0), 0, PORT_GRPC));
    let metrics = address(block(fixture, number + 1), 0, PORT_HTTP);
    let settings = [
        ("--aggregator", aggregator.as_str()),
        ("--metrics-addr", &metrics),
        ("--spool-dir", &spool),
        ("--yagna-url", daemon),
        ("--subnet-tag", "public"),
        ("--sources", "market,find-node,direct"),
    ];
    let secrets = vec![("YAGNA_APPKEY", APP_KEY.to_owned()), ("UPTIME_TOKEN", token)];
    let name = format!("probe-{number}");
    Program::new(("uptime-probe", &name), "run", directory, metrics.clone(), &settings, secrets)
}

async fn connect(address: &str) -> UptimeQueryClient<Channel> {
    let wait = async {
        loop {
            let endpoint = Endpoint::from_shared(address.to_owned()).unwrap();
            match endpoint.connect().await {
                Ok(channel) => return UptimeQueryClient::new(channel),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the aggregator listens")
}
