//! A probe that says the opposite of all others: it is noticed, and where the operator said so its
//! word counts no more, until a person decides, once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod fixture;
#[path = "shared/stepping.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod stepping;

use fixture::{DAY_S, PERIOD_S, engine, options, part, period};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use stepping::{catch_up, submit};
use uptime_accounting::agreement::Policy;
use uptime_accounting::verdict::Verdict;
use uptime_aggregator::engine::{Engine, Submission};
use uptime_aggregator::store::{By, IdentityStore, Registry, Retraction, SqliteStore};
use uptime_proto::{Class, Kind, NodeId, Round, Sets};

/// Nodes that live, and as many that are dead.
const HALF: u8 = 5;
/// An hour, after which a probe that was wrong all the time is set aside.
const HOUR: u64 = 120;

fn nodes(from: u8) -> Vec<NodeId> {
    (from..from + HALF).map(|number| NodeId::new([number; 20])).collect()
}

fn end_ms(rounds: u64) -> i64 {
    i64::try_from((DAY_S + rounds * PERIOD_S) * 1000).unwrap() + 6_000
}

struct Run {
    engine: Engine<SqliteStore>,
    probes: Vec<u32>,
    rounds: u64,
    directory: tempfile::TempDir,
    metrics: PrometheusHandle,
}

impl Run {
    async fn new(policy: Policy) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        // Lives as long as the test's thread, which has nothing else to count.
        let recorder = Box::leak(Box::new(recorder));
        std::mem::forget(metrics::set_default_local_recorder(recorder));
        let directory = tempfile::tempdir().unwrap();
        let names = ["liar", "alpha", "beta", "gamma"];
        let (mut engine, probes) =
            engine(directory.path(), &names, options(PERIOD_S), end_ms(0)).await;
        engine.set_disagreement_policy(policy);
        Self { engine, probes, rounds: 0, directory, metrics }
    }

    async fn round(&mut self) {
        let round = Round::new(DAY_S + self.rounds * PERIOD_S, period(PERIOD_S)).unwrap();
        let all = [nodes(0), nodes(HALF)].concat();
        for probe in self.probes.clone() {
            let (mut seen, mut dead) = (nodes(0), nodes(HALF));
            if probe == self.probes[0] {
                std::mem::swap(&mut seen, &mut dead);
            }
            let look_up = Sets::default().with(Class::Seen, seen).with(Class::Unreachable, dead);
            let parts = vec![
                part(
                    round,
                    "public",
                    Kind::Market,
                    Sets::default().with(Class::Offer, all.clone()),
                ),
                part(round, "", Kind::Lookup, look_up),
            ];
            let submission = Submission { probe, parts, ..Submission::default() };
            let now_ms = round.start_ms() + 21_000;
            submit(&mut self.engine, submission, now_ms).await;
        }
        self.rounds += 1;
        catch_up(&mut self.engine, end_ms(self.rounds)).await;
    }

    /// The verdicts on a node that lives and on one that is dead.
    fn verdicts(&self) -> (Verdict, Verdict) {
        let snapshot = self.engine.snapshot();
        let of = |id: u8| {
            let id = NodeId::new([id; 20]);
            snapshot.nodes().find(|node| node.id == id).unwrap().verdict
        };
        (of(0), of(HALF))
    }

    async fn retractions(&self) -> Vec<Retraction> {
        let mut store = SqliteStore::open(self.directory.path()).await.unwrap();
        store.retractions().await.unwrap()
    }

    fn shows(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|there| there == line)
    }
}

#[tokio::test]
async fn a_liar_is_noticed_and_without_a_policy_nothing_else_is_done() {
    let mut run = Run::new(Policy::Tell).await;
    run.round().await;
    assert!(!run.shows("uptime_ledger_probe_disagrees{probe=\"liar\"} 1"), "not after one round");
    while run.rounds < HOUR + 5 {
        run.round().await;
    }
    assert!(
        run.shows("uptime_ledger_probe_agreement{probe=\"liar\"} 0"),
        "{}",
        run.metrics.render()
    );
    assert!(run.shows("uptime_ledger_probe_disagrees{probe=\"liar\"} 1"));
    assert!(run.shows("uptime_ledger_probe_agreement{probe=\"alpha\"} 1"));
    assert!(run.shows("uptime_ledger_probe_disagrees{probe=\"alpha\"} 0"));
    assert!(run.retractions().await.is_empty());
    // Under the default rule one probe's sighting is enough for up, and nobody is down by one.
    assert_eq!(run.verdicts(), (Verdict::Up, Verdict::Up));
}

#[tokio::test]
async fn a_liar_is_set_aside_until_a_person_decides_and_then_not_again() {
    let mut run = Run::new(Policy::SetAside).await;
    while run.rounds < HOUR - 1 {
        run.round().await;
    }
    assert!(run.retractions().await.is_empty(), "not before the hour is over");
    run.round().await;
    let there = run.retractions().await;
    assert_eq!(there.len(), 1);
    assert!(there[0].probe == run.probes[0] && there[0].reason.contains("0 of 1200 votes"));
    run.round().await;
    assert_eq!(run.verdicts(), (Verdict::Up, Verdict::Down), "its word counts no more");

    let mut store = SqliteStore::open(run.directory.path()).await.unwrap();
    let audit_log = store.audit_log(None, 1).await.unwrap();
    assert_eq!(
        (audit_log[0].actor.as_str(), audit_log[0].subject.as_str()),
        ("agreement policy", "liar")
    );
    let by = By { actor: "a person".to_owned(), now_ms: end_ms(run.rounds) };
    assert!(store.undo_retraction(there[0].number, &by).await.unwrap());
    run.round().await;
    run.round().await;
    assert_eq!(run.verdicts(), (Verdict::Up, Verdict::Up), "a person let it count again");
    while run.rounds < 3 * HOUR {
        run.round().await;
    }
    let there = run.retractions().await;
    assert!(there.len() == 1 && there[0].undone_at_ms.is_some(), "{there:?}");
    assert!(run.shows("uptime_ledger_probe_disagrees{probe=\"liar\"} 1"));
}
