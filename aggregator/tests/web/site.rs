//! A ledger with a small network in it, and its web server on loopback.
//!
//! The network lives in the year 2030, so that nothing closes while a test runs: what is shown is
//! exactly what was put there. Names are as hostile as they can be.

use std::path::PathBuf;
use std::sync::Arc;

use uptime_accounting::fact::Gap;

pub(crate) use crate::fixture::PERIOD_S;
use crate::fixture::{engine, options, part, period};
use crate::stepping::{catch_up, submit};
use metrics_exporter_prometheus::PrometheusBuilder;
use reqwest::{Client, Response};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uptime_aggregator::clock::Timekeeper;
use uptime_aggregator::engine::{PartOutcome, Submission};
use uptime_aggregator::ledger::{Ledger, Task};
use uptime_aggregator::publish::{replace_file, write_csv};
use uptime_aggregator::query::Query;
use uptime_aggregator::store::Details;
use uptime_aggregator::web::{Web, router};
use uptime_proto::{Class, Kind, NodeId, Outcome, Part, Reason, Round, Sets};

/// A UTC midnight in 2030; half of the rounds are before it.
pub(crate) const MIDNIGHT_S: u64 = 1_893_456_000;
pub(crate) const ROUNDS: u64 = 20;
/// The end of the last closed round.
pub(crate) const END_S: u64 = MIDNIGHT_S + ROUNDS / 2 * PERIOD_S;
/// So many rounds in which nobody could look make it not ready.
pub(crate) const BLIND_ROUNDS_MAX: u64 = 3;
/// How long before the clock the last round ended.
pub(crate) const AGE_S: u64 = 12;

pub(crate) const HOSTILE: &str = "<script>alert(\"1\")</script>'&`\u{202e}\u{0}\u{200b}\u{1b}[2J";
pub(crate) const HOSTILE_SUBNET: &str = "pub\"><img src=x onerror=alert(2)>\u{2066}";
pub(crate) const HOSTILE_PROBE: &str = "beta</table><script>alert(3)</script>\u{202e}";

/// Node 0 is always up, 1 goes down at midnight, 2 is never found nor missed, 3 was down for a
/// while; 4 has a hostile name and subnet; the others are up.
pub(crate) const NODES: u64 = 12;

pub(crate) fn node(number: u64) -> NodeId {
    let mut id = [0x11; 20];
    id[..8].copy_from_slice(&(number * 0x1111_1111_1111).to_be_bytes());
    NodeId::new(id)
}

fn now_unix_ms() -> i64 {
    i64::try_from((END_S + AGE_S) * 1000).unwrap()
}

/// An hour and a day later: what is shown is old then.
fn much_later_unix_ms() -> i64 {
    now_unix_ms() + 90_000_000
}

fn after_blind_rounds_unix_ms() -> i64 {
    now_unix_ms() + i64::try_from(BLIND_ROUNDS_MAX * PERIOD_S * 1000).unwrap()
}

fn name(number: u64) -> String {
    match number {
        4 => HOSTILE.to_owned(),
        5 => String::new(),
        number => format!("provider-{number}"),
    }
}

fn is_found(number: u64, at: u64) -> bool {
    match number {
        1 => at < ROUNDS / 2,
        3 => !(4..8).contains(&at),
        _ => true,
    }
}

/// Parts of one probe and round. The third probe could not look at the market; in the last round
/// the first one's daemon gave an error when it asked about node 2.
fn parts(probe: u64, at: u64) -> Vec<Part> {
    let start_s = MIDNIGHT_S - ROUNDS / 2 * PERIOD_S + at * PERIOD_S;
    let round = Round::new(start_s, period(PERIOD_S)).unwrap();
    let part =
        |subnet: &str, kind, outcome, sets| Part { outcome, ..part(round, subnet, kind, sets) };
    let ids = |wanted: &dyn Fn(u64) -> bool| {
        (0..NODES).filter(|number| wanted(*number)).map(node).collect::<Vec<_>>()
    };
    let looked = |found: bool| ids(&|number| number != 2 && is_found(number, at) == found);
    let market = if probe == 3 {
        vec![part(
            "public",
            Kind::Market,
            Outcome::CouldNotLook(Reason::YagnaUnreachable),
            Sets::default(),
        )]
    } else {
        let offers = |wanted: &dyn Fn(u64) -> bool| Sets::default().with(Class::Offer, ids(wanted));
        vec![
            part("public", Kind::Market, Outcome::Looked, offers(&|number| number != 4)),
            part(HOSTILE_SUBNET, Kind::Market, Outcome::Looked, offers(&|number| number == 4)),
        ]
    };
    let sets =
        Sets::default().with(Class::Seen, looked(true)).with(Class::Unreachable, looked(false));
    let mut parts = market;
    parts.push(part("", Kind::Lookup, Outcome::Looked, sets));
    if probe == 1 && at + 1 == ROUNDS {
        let failed = Outcome::CouldNotLook(Reason::NetError);
        let sets = Sets::default().with(Class::Failed, vec![node(2)]);
        let mut failed = part("", Kind::Lookup, failed, sets);
        failed.key.number = 1;
        parts.push(failed);
    }
    parts
}

/// Follows nothing and looks for no certificates: nothing here speaks TLS.
pub(crate) fn client() -> Client {
    // The second to install it finds the first's.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = Client::builder().tls_certs_only([]);
    client.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// A serving site; stopped when dropped.
pub(crate) struct Site {
    pub(crate) address: String,
    pub(crate) csv: PathBuf,
    pub(crate) client: Client,
    directory: TempDir,
    ledger: Ledger,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Site {
    /// The network as it is after its last round.
    pub(crate) async fn open() -> Self {
        Self::open_with(ROUNDS, now_unix_ms).await
    }

    /// Nobody has reported anything.
    pub(crate) async fn open_empty() -> Self {
        Self::open_with(0, now_unix_ms).await
    }

    /// Nobody has reported for a day.
    pub(crate) async fn open_old() -> Self {
        Self::open_with(ROUNDS, much_later_unix_ms).await
    }

    /// In the last rounds nobody reported.
    pub(crate) async fn open_blind() -> Self {
        Self::open_with(ROUNDS + BLIND_ROUNDS_MAX, after_blind_rounds_unix_ms).await
    }

    async fn open_with(rounds: u64, now_unix_ms: fn() -> i64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let first_ms = i64::try_from((MIDNIGHT_S - ROUNDS / 2 * PERIOD_S) * 1000).unwrap();
        // The last round has just closed.
        let clock = Timekeeper::standing_still(i64::try_from(END_S * 1000).unwrap());
        let names = ["alpha", HOSTILE_PROBE, "gamma"];
        let (mut engine, probes) =
            engine(directory.path(), &names, options(PERIOD_S), first_ms).await;
        let mut details: Vec<(NodeId, Details)> = (0..NODES)
            .map(|number| {
                let details = Details {
                    name: name(number),
                    runtime: "vm".to_owned(),
                    runtime_version: "0.5.1".to_owned(),
                    networks: vec!["polygon".to_owned(), HOSTILE.to_owned()],
                    ..Details::default()
                };
                (node(number), details)
            })
            .collect();
        // Beta's spool was full for a while.
        let gap = Gap {
            probe: probes[1],
            from_s: MIDNIGHT_S - 3_600,
            to_s: MIDNIGHT_S - 3_000,
            reason: Reason::SpoolFull,
        };
        let told = Submission { probe: probes[1], gaps: vec![gap], ..Submission::default() };
        submit(&mut engine, told, first_ms).await;
        for at in 0..rounds {
            let end_ms = first_ms + i64::try_from((at + 1) * PERIOD_S * 1000).unwrap();
            // Beyond the rounds of the network nobody reports.
            let reporting = if at < ROUNDS { &probes[..] } else { &[] };
            for (place, probe) in (1..).zip(reporting) {
                let details = std::mem::take(&mut details);
                let parts = parts(place, at);
                let submission =
                    Submission { probe: *probe, parts, details, ..Submission::default() };
                let outcomes = submit(&mut engine, submission, end_ms - 1_000).await;
                assert!(outcomes.iter().all(|outcome| *outcome == PartOutcome::Accepted));
            }
            catch_up(&mut engine, end_ms + 5_000).await;
        }
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (task, ledger) = Task::new(engine, Arc::new(clock));
        tasks.spawn(task.run(ledger.clone(), stop.clone()));
        let (query, keep_log) = Query::new(ledger.clone(), stop.clone());
        tasks.spawn(keep_log);
        let csv = directory.path().join("nodes_status.csv");
        let (_, published) = watch::channel(ledger.snapshot().closed.map(Round::start_s));
        let web = Web {
            ledger: ledger.clone(),
            query,
            csv: csv.clone(),
            published,
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            blind_rounds_max: BLIND_ROUNDS_MAX,
            now_unix_ms,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tasks.spawn(async move { axum::serve(listener, router(web)).await.unwrap() });
        let client = client();
        let site = Self { address, csv, client, directory, ledger, stop, tasks };
        site.write_csv();
        site
    }

    pub(crate) fn write_csv(&self) {
        assert!(self.directory.path().exists() && !self.tasks.is_empty());
        let snapshot = self.ledger.snapshot();
        replace_file(&self.csv, |out| write_csv(&snapshot, out)).unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.address)).send().await.unwrap()
    }

    /// A page that is there, as text.
    pub(crate) async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }

    /// The status and the JSON of an address.
    pub(crate) async fn json(&self, path: &str) -> (u16, serde_json::Value) {
        let answer = self.get(path).await;
        let status = answer.status().as_u16();
        assert_eq!(answer.headers()["content-type"], "application/json", "{path}");
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}")))
    }
}
