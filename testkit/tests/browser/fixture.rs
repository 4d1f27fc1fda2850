//! An aggregator's web server over ninety days of 10,000 nodes, in the year 2029.
//!
//! The days lie ahead, so that no round closes while a browser looks. Rounds are of twelve hours:
//! what a browser shows does not depend on their length, and ninety days are soon told.

use std::sync::Arc;

use crate::aggregator::{engine, options, period};
use crate::stepping::{catch_up, submit};
use axum::Router;
use axum::extract::RawQuery;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusBuilder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uptime_aggregator::clock::Timekeeper;
use uptime_aggregator::engine::{PartOutcome, Submission};
use uptime_aggregator::ledger::Task;
use uptime_aggregator::query::Query;
use uptime_aggregator::store::Details;
use uptime_aggregator::web::{Web, router};
use uptime_proto::{Class, Kind, NodeId, Outcome, Part, PartKey, Reason, Round, Sets};

const NODES: u64 = 10_000;
const PERIOD_S: u64 = 43_200;
/// Ninety days and a bit.
const ROUNDS: u64 = 2 * 90 + 1;
/// 2029-10-01 UTC.
const FIRST_S: u64 = 1_885_507_200;
const END_S: u64 = FIRST_S + ROUNDS * PERIOD_S;

/// What the first node is called.
const HOSTILE: &str = "<script>document.title=\"taken\"</script>\u{202e}";

/// A page that does what none of ours may: it complains, and asks somebody else.
const FAULTY: &str = "<!doctype html><title>faulty</title><script>console.error('no');\
     fetch('http://elsewhere.example/').catch(() => {})</script>";

/// What stands in the driven page besides the overview: it does what a visitor would.
const DRIVE: &str = r#"
addEventListener("load", () => {
  const wanted = new URLSearchParams(location.search).get("drive");
  if (wanted === "type") {
    const find = document.querySelector("input[name=find]");
    find.value = "provider-77";
    find.dispatchEvent(new InputEvent("input", { bubbles: true }));
  } else {
    document.querySelector("a[rel=next]").click();
  }
  setTimeout(() => { document.body.dataset.driven = location.search; }, 4000);
});
"#;

pub(crate) fn node(number: u64) -> NodeId {
    let mut id = [0x3c; 20];
    // Spread over all ids, the first ones first.
    let spread =
        if number < 8 { number } else { number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 8 << 32 };
    id[..8].copy_from_slice(&spread.to_be_bytes());
    NodeId::new(id)
}

fn now_unix_ms() -> i64 {
    i64::try_from((END_S + 40) * 1000).unwrap()
}

/// Who is up in each round; drawn from a seed.
struct Lives {
    dice: StdRng,
    up: Vec<bool>,
}

impl Lives {
    fn step(&mut self, at: u64) {
        for (number, up) in (0u64..).zip(&mut self.up) {
            let (falls, rises) = match number {
                // Comes and goes.
                1 => (0.12, 0.5),
                // Never away.
                2 => (0.0, 1.0),
                // Gone for good after a month.
                number if number % 97 == 3 => (if at > 60 { 1.0 } else { 0.0 }, 0.0),
                _ => (0.01, 0.25),
            };
            *up = if *up { !self.dice.random_bool(falls) } else { self.dice.random_bool(rises) };
        }
        // Down as it is looked at, so that there is something to tell.
        if at + 3 > ROUNDS {
            self.up[1] = false;
        }
    }
}

fn parts(probe: u64, at: u64, lives: &Lives) -> Vec<Part> {
    let round = Round::new(FIRST_S + at * PERIOD_S, period(PERIOD_S)).unwrap();
    let part = |subnet: &str, kind, outcome, sets| Part {
        key: PartKey { subnet: subnet.to_owned(), round, number: 0 },
        kind,
        outcome,
        observed_at_ms: round.end_ms() - 4_000 - i64::try_from(probe).unwrap() * 700,
        relay_session_age_s: (kind == Kind::Lookup).then_some(90_000),
        sets,
    };
    // The third daemon was away for a week.
    if probe == 3 && (100..114).contains(&at) {
        let why = Outcome::CouldNotLook(Reason::YagnaUnreachable);
        return vec![part("", Kind::Lookup, why, Sets::default())];
    }
    // And once nobody could look for three days.
    if (150..156).contains(&at) {
        return Vec::new();
    }
    let (mut seen, mut away) = (Vec::new(), Vec::new());
    for (number, up) in (0u64..).zip(&lives.up) {
        if *up { seen.push(node(number)) } else { away.push(node(number)) }
    }
    let mut all = Vec::new();
    if at == 0 || at + 1 == ROUNDS {
        for (name, third) in [("public", 0), ("testnet", 1), ("hybrid", 2)] {
            let offers = (0..NODES).filter(|number| number % 3 == third && number % 97 != 3);
            let first = (0..NODES).filter(|number| number % 3 == third && at == 0);
            let offers: std::collections::BTreeSet<NodeId> =
                offers.chain(first).map(node).collect();
            let sets = Sets::default().with(Class::Offer, offers.into_iter().collect());
            all.push(part(name, Kind::Market, Outcome::Looked, sets));
        }
    }
    let sets = Sets::default().with(Class::Seen, seen).with(Class::Unreachable, away);
    all.push(part("", Kind::Lookup, Outcome::Looked, sets));
    all
}

fn details() -> Vec<(NodeId, Details)> {
    let one = |number: u64| {
        let name = match number {
            0 => HOSTILE.to_owned(),
            4 => "مزود-الخدمة".to_owned(),
            5 => "a-name-that-goes-on-and-on-without-a-single-blank-".repeat(2),
            number => format!("provider-{number}"),
        };
        let details = Details {
            name,
            runtime: "vm".to_owned(),
            runtime_version: "0.5.1".to_owned(),
            networks: vec!["polygon".to_owned()],
            ..Details::default()
        };
        (node(number), details)
    };
    (0..NODES).map(one).collect()
}

/// A serving site; stopped when dropped.
pub(crate) struct Fixture {
    pub(crate) address: String,
    /// How many nodes are not retired, as the table says it.
    pub(crate) listed: String,
    _directory: TempDir,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Fixture {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub(crate) async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(Timekeeper::standing_still(now_unix_ms()));
        let first_ms = i64::try_from(FIRST_S * 1000).unwrap();
        let names = ["frankfurt", "oregon", "singapore"];
        let (mut engine, probes) =
            engine(directory.path(), &names, options(PERIOD_S), first_ms).await;
        let mut told = details();
        let mut lives = Lives {
            dice: StdRng::seed_from_u64(7),
            up: vec![true; usize::try_from(NODES).unwrap()],
        };
        for at in 0..ROUNDS {
            lives.step(at);
            let end_ms = first_ms + i64::try_from((at + 1) * PERIOD_S * 1000).unwrap();
            for (place, probe) in (1..).zip(&probes) {
                let details = std::mem::take(&mut told);
                let parts = parts(place, at, &lives);
                if parts.is_empty() {
                    continue;
                }
                let submission =
                    Submission { probe: *probe, parts, details, ..Submission::default() };
                let outcomes = submit(&mut engine, submission, end_ms - 1_000).await;
                assert!(outcomes.iter().all(|outcome| *outcome == PartOutcome::Accepted));
            }
            catch_up(&mut engine, end_ms + 5_000).await;
        }
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (task, ledger) = Task::new(engine, clock);
        tasks.spawn(task.run(ledger.clone(), stop.clone()));
        let (query, keep_log) = Query::new(ledger.clone(), stop.clone());
        tasks.spawn(keep_log);
        let snapshot = ledger.snapshot();
        let listed = snapshot.nodes().filter(|view| !view.retired).count();
        let listed = format!("{},{:03}", listed / 1_000, listed % 1_000);
        let (_, published) = watch::channel(None);
        let site = router(Web {
            ledger,
            query,
            csv: directory.path().join("nodes_status.csv"),
            published,
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            now_unix_ms,
            blind_rounds_max: 20,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let site = driven(site);
        tasks.spawn(async move { axum::serve(listener, site).await.unwrap() });
        Self { address, listed, _directory: directory, stop, _tasks: tasks }
    }
}

/// The site, and at `/driven` its overview with a script in it that does what a visitor would. That
/// script is of this origin, as the overview's own policy wants it.
fn driven(site: Router) -> Router {
    let overview = site.clone();
    let page = move |RawQuery(query): RawQuery| {
        let overview = overview.clone();
        async move {
            let query = query.unwrap_or_default();
            let rest: Vec<&str> =
                query.split('&').filter(|one| !one.starts_with("drive=")).collect();
            let request = axum::http::Request::get(format!("/?{}", rest.join("&")));
            let answer = overview.oneshot(request.body(axum::body::Body::empty()).unwrap()).await;
            let (mut head, body) = answer.unwrap().into_parts();
            head.headers.remove(header::CONTENT_LENGTH);
            let html = axum::body::to_bytes(body, 1 << 22).await.unwrap();
            let html = String::from_utf8(html.to_vec()).unwrap();
            let script = "<script src=\"/drive.js\" defer></script></head>";
            (head, html.replace("</head>", script)).into_response()
        }
    };
    let script = || async { ([(header::CONTENT_TYPE, "text/javascript")], DRIVE) };
    let faulty = || async { axum::response::Html(FAULTY) };
    Router::new()
        .route("/driven", get(page))
        .route("/drive.js", get(script))
        .route("/faulty", get(faulty))
        .merge(site)
}
