//! The shipped aggregator as a process, one probe that reports to it round by round, and somebody
//! who asks it all the time.
//!
//! Owns what the probe says: parts are handed in before their rounds begin, so that a busy machine
//! makes none of them late.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use uptime_aggregator::clock::now_unix_ms;
use uptime_proto::v1::collector_client::CollectorClient;
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;
use uptime_proto::v1::{self, EvidenceClass, PartKind};
use uptime_proto::{MESSAGE_BYTES_MAX, NodeId};

use super::aggregator::{enrol_at, with_token};

/// The time limit of a condition: many times what it ever takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
/// So long before its round begins a report is handed in; further ahead it would not be taken.
const AHEAD_MS: i64 = 1_500;
/// What one part may hold.
const PIECE: usize = 40_000;

/// Which nodes the probe sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Sight {
    All,
    /// The first half of them.
    Half,
    /// All in every other round and none in the others, so that every round changes every node.
    InTurns,
}

impl Sight {
    fn of(number: usize) -> Self {
        [Self::All, Self::Half, Self::InTurns][number]
    }
}

/// How long answers took, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) count: AtomicU64,
    longest_ms: AtomicU64,
}

impl Answers {
    fn note(&self, since: Instant) {
        let took = u64::try_from(since.elapsed().as_millis()).unwrap();
        self.longest_ms.fetch_max(took, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_ms.load(Ordering::Relaxed))
    }
}

pub(crate) struct Fixture {
    child: Child,
    // Kept open, or its next line would fail.
    _output: BufReader<ChildStdout>,
    directory: TempDir,
    address: String,
    pub(crate) query: UptimeQueryClient<Channel>,
    pub(crate) ids: Vec<NodeId>,
    sight: Arc<AtomicUsize>,
    pub(crate) acknowledged: Arc<Answers>,
    pub(crate) answered: Arc<Answers>,
    /// The probe and the asker: on a thread of their own, so that thousands of readers in this
    /// process are not in their way.
    aside: Option<std::thread::JoinHandle<()>>,
    stop: CancellationToken,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A program of this workspace, built together with this test.
fn program(name: &str) -> std::path::PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.is_file(), "{} is not built; use: cargo build --workspace", path.display());
    path
}

fn id(number: u64) -> NodeId {
    let mut id = [0; 20];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    NodeId::new(id)
}

impl Fixture {
    /// An aggregator whose probe sees so many nodes, all up by now.
    pub(crate) async fn open(nodes: u64, period_s: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let token = enrol_at(&data, "alpha", &[], 0).await;
        let log = std::fs::File::create(directory.path().join("aggregator.log")).unwrap();
        // The limits are those it has by itself: they must be enough for what is opened here.
        let mut child = Command::new(program("uptime-aggregator"))
            .arg("serve")
            .args(["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--grace-s", "1"])
            .args(["--round-period-s", &period_s.to_string(), "--data-dir"])
            .arg(data)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "it did not start");
            if let Some(grpc) = line.trim_end().strip_prefix("grpc ") {
                break format!("http://{grpc}");
            }
        };
        let query = UptimeQueryClient::new(connect(&address).await);
        let mut fixture = Self {
            child,
            _output: output,
            directory,
            address,
            query,
            ids: (0..nodes).map(id).collect(),
            sight: Arc::default(),
            acknowledged: Arc::default(),
            answered: Arc::default(),
            aside: None,
            stop: CancellationToken::new(),
        };
        let (address, stop) = (fixture.address.clone(), fixture.stop.clone());
        let (ids, sight) = (fixture.ids.clone(), Arc::clone(&fixture.sight));
        let (acknowledged, answered) =
            (Arc::clone(&fixture.acknowledged), Arc::clone(&fixture.answered));
        fixture.aside = Some(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let client = CollectorClient::new(connect(&address).await)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX);
                let id = ids[0];
                let probe = Probe { client, token, ids, period_s, sight, acknowledged };
                let query = UptimeQueryClient::new(connect(&address).await);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = probe.run() => {}
                    () = ask(query, id, answered) => {}
                }
            });
        }));
        fixture.until_all_are_up().await;
        fixture
    }

    /// A connection of its own, on which a stream that is not read does not stop the others.
    pub(crate) async fn connection(&self) -> UptimeQueryClient<Channel> {
        UptimeQueryClient::new(connect(&self.address).await)
    }

    pub(crate) fn look(&self, sight: Sight) {
        self.sight.store(sight as usize, Ordering::Relaxed);
    }

    /// Waits until all nodes were up in two rounds, one after the other: those of the probe's
    /// former sight are over then.
    pub(crate) async fn until_all_are_up(&self) {
        let began = Instant::now();
        loop {
            let request = v1::ListRoundsRequest { page_size: 2, ..Default::default() };
            let rounds = self.query.clone().list_rounds(request).await.unwrap().into_inner().rounds;
            let nodes = self.ids.len() as u64;
            if rounds.len() == 2 && rounds.iter().all(|round| round.up == nodes) {
                return;
            }
            self.check();
            assert!(began.elapsed() < PATIENCE, "{rounds:?}: {}", self.last_words());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Fails when the probe or the asker has failed.
    pub(crate) fn check(&self) {
        let lives = self.aside.as_ref().is_some_and(|aside| !aside.is_finished());
        assert!(lives, "the probe or the asker failed; see above: {}", self.last_words());
    }

    /// Bytes it has resident.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() * 1_024
    }

    /// Asks it to end, as a service manager would, and waits; it must end well.
    pub(crate) async fn terminate(&mut self) {
        self.check();
        self.stop.cancel();
        self.aside.take().unwrap().join().unwrap();
        let asked = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(asked.success());
        let began = Instant::now();
        let ended = loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                break ended;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {}", self.last_words());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(ended.success(), "{ended}: {}", self.last_words());
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("aggregator.log")).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(address.to_owned())
        .unwrap()
        // A stream that is not read is stopped by its own window, the minimum of HTTP/2, and not by
        // the window of the connection.
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(16 << 20)
        .connect()
        .await
        .unwrap()
}

/// Asks for one node, over and over, once it is known.
async fn ask(mut query: UptimeQueryClient<Channel>, id: NodeId, answered: Arc<Answers>) {
    loop {
        let began = Instant::now();
        let request = v1::GetNodeRequest { id: id.to_string(), round_unix_s: 0 };
        match query.get_node(request).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().node.unwrap().id, id.to_string());
                answered.note(began);
            }
            Err(status) => {
                let is_new = answered.count.load(Ordering::Relaxed) == 0;
                assert!(is_new && status.code() == Code::NotFound, "{status:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Probe {
    client: CollectorClient<Channel>,
    token: String,
    ids: Vec<NodeId>,
    period_s: u64,
    sight: Arc<AtomicUsize>,
    acknowledged: Arc<Answers>,
}

impl Probe {
    async fn run(mut self) {
        let mut last = 0;
        loop {
            let round = u64::try_from(now_unix_ms() + AHEAD_MS).unwrap() / 1_000 / self.period_s;
            if round > last {
                self.report(round).await;
                last = round;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn report(&mut self, round: u64) {
        let seen = match Sight::of(self.sight.load(Ordering::Relaxed)) {
            Sight::All => &self.ids[..],
            Sight::Half => &self.ids[..self.ids.len() / 2],
            Sight::InTurns if round.is_multiple_of(2) => &self.ids[..],
            Sight::InTurns => &[],
        };
        // Offers are for those that make them nodes at the beginning.
        let first = self.acknowledged.count.load(Ordering::Relaxed) == 0;
        let mut parts = Vec::new();
        let offers = if first { &self.ids[..] } else { &[] };
        for (number, piece) in (0..).zip(offers.chunks(PIECE)) {
            parts.push(self.part(round, "public", number, PartKind::Market, piece));
        }
        for (number, piece) in (0..).zip(seen.chunks(PIECE)) {
            parts.push(self.part(round, "", number, PartKind::Lookup, piece));
        }
        let report = v1::Report { report_id: round, parts, ..v1::Report::default() };
        let request = with_token(v1::SubmitRequest { reports: vec![report] }, &self.token);
        let began = Instant::now();
        let answer = self.client.submit(request).await.unwrap().into_inner();
        let status = answer.results[0].status();
        assert_eq!(status, v1::ReportStatus::Accepted, "{answer:?}");
        self.acknowledged.note(began);
    }

    fn part(
        &self,
        round: u64,
        subnet: &str,
        number: u32,
        kind: PartKind,
        ids: &[NodeId],
    ) -> v1::Part {
        let class = match kind {
            PartKind::Market => EvidenceClass::Offer,
            _ => EvidenceClass::Seen,
        };
        let groups = vec![v1::PlainGroup {
            evidence_class: class as i32,
            node_ids: NodeId::concatenate(ids).into(),
        }];
        let round_unix_s = round * self.period_s;
        v1::Part {
            subnet: subnet.to_owned(),
            round_unix_s,
            round_period_s: u32::try_from(self.period_s).unwrap(),
            number,
            kind: kind as i32,
            outcome: v1::Outcome::Looked as i32,
            reason: 0,
            observed_at_unix_ms: i64::try_from(round_unix_s * 1_000).unwrap(),
            relay_session_age_s: Some(600),
            evidence: Some(v1::part::Evidence::Plain(v1::PlainEvidence { groups })),
        }
    }
}
