//! Ten thousand who watch, on a hundred connections, at the shipped aggregator: everyone hears
//! everything and then what changes, at a bounded cost each, and nobody else waits for it. And a
//! hundred who stop reading.
//!
//! The programs must be built: `cargo nextest run --workspace` builds them, a test run of this
//! crate alone does not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::panic, reason = "a test fails by panicking")]

#[path = "../../../aggregator/tests/shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod aggregator;
mod fixture;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fixture::{Fixture, PATIENCE, Sight};
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::transport::Channel;
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;
use uptime_proto::v1::{self, Verdict, watch_nodes_response::Event};

/// What a watcher who reads may cost the server. docs/threat-model.md names it. Built without
/// optimisation its stack frames, and with them what a waiting task holds, are larger than they are
/// as shipped.
const IDLE_BYTES_MAX: u64 = 32 * 1024;
/// What one who has stopped reading may cost: the message that was made for it, what is on its
/// way, and two bits for each node. docs/threat-model.md names it.
const STOPPED_BYTES_MAX: u64 = 256 * 1024;
/// What allocators and the server's other work may do meanwhile.
const SLACK_BYTES: u64 = 24 << 20;
/// A report's acknowledgement and an answer, while thousands connect to an unoptimised program on
/// a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How far the watchers are, all together.
#[derive(Default)]
struct Heard {
    synced: AtomicUsize,
    told: AtomicUsize,
    ended: AtomicUsize,
}

async fn until(what: &str, fixture: &Fixture, count: &AtomicUsize, wanted: usize) {
    let began = Instant::now();
    while count.load(Ordering::Relaxed) < wanted {
        fixture.check();
        let so_far = count.load(Ordering::Relaxed);
        assert!(began.elapsed() < PATIENCE, "{so_far} of {wanted} are {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn watch(
    mut query: UptimeQueryClient<Channel>,
    id_prefix: &str,
) -> Streaming<v1::WatchNodesResponse> {
    let filter = v1::NodeFilter { id_prefix: id_prefix.to_owned(), ..Default::default() };
    let request = v1::WatchNodesRequest { filter: Some(filter), ..Default::default() };
    query.watch_nodes(request).await.unwrap().into_inner()
}

/// Hears everything; then what changes, until half of the nodes are up no more; then the end.
async fn hear(query: UptimeQueryClient<Channel>, ids: Arc<Vec<String>>, heard: Arc<Heard>) {
    let mut stream = watch(query, "").await;
    let mut last: HashMap<String, Verdict> = HashMap::new();
    let (mut synced, mut told) = (false, false);
    while let Some(message) = stream.message().await.unwrap() {
        match message.event.unwrap() {
            Event::Changed(changed) => {
                let nodes = changed.nodes.into_iter();
                last.extend(nodes.map(|node| (node.id.clone(), node.verdict())));
            }
            Event::Synced(_) => {
                assert_eq!(last.len(), ids.len(), "everything first");
                synced = true;
                heard.synced.fetch_add(1, Ordering::Relaxed);
            }
            Event::Resume(resume) => panic!("{resume:?}"),
        }
        let is = |id: &String, verdict| last.get(id) == Some(&verdict);
        let (seen, unseen) = ids.split_at(ids.len() / 2);
        if synced
            && !told
            && seen.iter().all(|id| is(id, Verdict::Up))
            && unseen.iter().all(|id| is(id, Verdict::Unknown))
        {
            told = true;
            heard.told.fetch_add(1, Ordering::Relaxed);
        }
    }
    heard.ended.fetch_add(1, Ordering::Relaxed);
}

async fn idle_watchers(connections: usize, streams: usize, nodes: u64, period_s: u64) {
    let mut fixture = Fixture::open(nodes, period_s).await;
    let before = fixture.resident_bytes();
    let (heard, mut watchers) = (Arc::new(Heard::default()), JoinSet::new());
    let all = connections * streams;
    let ids = Arc::new(fixture.ids.iter().map(ToString::to_string).collect::<Vec<_>>());
    for _ in 0..connections {
        let query = fixture.connection().await;
        for _ in 0..streams {
            watchers.spawn(hear(query.clone(), Arc::clone(&ids), Arc::clone(&heard)));
        }
    }
    until("in sync", &fixture, &heard.synced, all).await;
    let (asked, reported) = (fixture.answered.count.load(Ordering::Relaxed), reports(&fixture));
    let with_all = fixture.resident_bytes();
    fixture.look(Sight::Half);
    until("told of a round", &fixture, &heard.told, all).await;
    let after_a_round = fixture.resident_bytes();
    for (when, bytes) in [("connected", with_all), ("after a round", after_a_round)] {
        let each = bytes.saturating_sub(before) / all as u64;
        eprintln!("{all} watchers, {when}: {each} bytes resident for each");
        let bound = IDLE_BYTES_MAX + SLACK_BYTES / all as u64;
        assert!(each <= bound, "{when}: {each} bytes for each watcher, {bound} may be");
    }
    // Meanwhile, too, it acknowledged and answered.
    assert!(fixture.answered.count.load(Ordering::Relaxed) > asked, "answers to GetNode");
    assert!(reports(&fixture) > reported, "acknowledgements");
    let longest = (fixture.acknowledged.longest(), fixture.answered.longest());
    eprintln!("longest acknowledgement {:?}, longest answer {:?}", longest.0, longest.1);
    assert!(longest.0.max(longest.1) < ANSWER_WITHIN, "{longest:?}");
    // A stop ends them all, without an error.
    fixture.terminate().await;
    while let Some(ended) = watchers.join_next().await {
        ended.unwrap();
    }
    assert_eq!(heard.ended.load(Ordering::Relaxed), all);
}

fn reports(fixture: &Fixture) -> u64 {
    fixture.acknowledged.count.load(Ordering::Relaxed)
}

/// Waits until so many more rounds were reported.
async fn rounds_go_by(fixture: &Fixture, rounds: u64) {
    let (until, began) = (reports(fixture) + rounds, Instant::now());
    while reports(fixture) < until {
        assert!(began.elapsed() < PATIENCE, "no report is acknowledged");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every round changes every node; some watchers stop reading in the midst of everything, a few in
/// each round, until after so many all have; as many go by before that and afterwards. A reader
/// beside each hears the changes of a small part of the nodes.
async fn stopped_watchers(stopping: usize, nodes: u64, period_s: u64, rounds: u64) {
    let mut fixture = Fixture::open(nodes, period_s).await;
    fixture.look(Sight::InTurns);
    let (heard, mut readers) = (Arc::new(Heard::default()), JoinSet::new());
    let (mut connections, mut stopped) = (Vec::new(), Vec::new());
    for _ in 0..stopping {
        let query = fixture.connection().await;
        readers.spawn(changes_of_some(query.clone(), Arc::clone(&heard)));
        connections.push(query);
    }
    // Until there is nothing that the first such rounds bring.
    rounds_go_by(&fixture, rounds).await;
    let before = fixture.resident_bytes();
    for some in connections.chunks(stopping.div_ceil(usize::try_from(rounds).unwrap())) {
        for query in some {
            let mut stream = watch(query.clone(), "").await;
            let first = stream.message().await.unwrap().unwrap().event.unwrap();
            let Event::Changed(first) = first else { panic!("{first:?}") };
            assert!(first.nodes.len() < ids(&fixture) / 3, "most of it is not read");
            stopped.push((stream, first.nodes));
        }
        rounds_go_by(&fixture, 1).await;
    }
    let told = heard.told.load(Ordering::Relaxed);
    rounds_go_by(&fixture, rounds).await;
    until("told of a further round", &fixture, &heard.told, told + stopping).await;
    let grown = fixture.resident_bytes().saturating_sub(before);
    eprintln!("{stopping} that do not read: {} bytes resident for each", grown / stopping as u64);
    let bound = SLACK_BYTES + STOPPED_BYTES_MAX * stopping as u64;
    assert!(grown <= bound, "{grown} bytes for {stopping} who do not read, {bound} may be");
    let longest = (fixture.acknowledged.longest(), fixture.answered.longest());
    eprintln!("longest acknowledgement {:?}, longest answer {:?}", longest.0, longest.1);
    assert!(longest.0.max(longest.1) < ANSWER_WITHIN, "{longest:?}");
    // Whoever reads on gets what is so now, or is told to begin anew.
    fixture.look(Sight::All);
    fixture.until_all_are_up().await;
    for (stream, first) in stopped {
        catch_up(stream, first, ids(&fixture)).await;
    }
    fixture.terminate().await;
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }
}

fn ids(fixture: &Fixture) -> usize {
    fixture.ids.len()
}

/// Counts the messages of changes that it hears.
async fn changes_of_some(query: UptimeQueryClient<Channel>, heard: Arc<Heard>) {
    let mut stream = watch(query, "0x0").await;
    let mut synced = false;
    while let Some(message) = stream.message().await.unwrap() {
        match message.event.unwrap() {
            Event::Changed(changed) => {
                assert!(changed.nodes.iter().all(|node| node.id.starts_with("0x0")));
                heard.told.fetch_add(usize::from(synced), Ordering::Relaxed);
            }
            Event::Synced(_) => synced = true,
            Event::Resume(resume) => panic!("{resume:?}"),
        }
    }
}

async fn catch_up(
    mut stream: Streaming<v1::WatchNodesResponse>,
    first: Vec<v1::Node>,
    nodes: usize,
) {
    let mut last: HashMap<String, Verdict> = HashMap::new();
    let mut note = |nodes: Vec<v1::Node>| {
        last.extend(nodes.into_iter().map(|node| (node.id.clone(), node.verdict())));
    };
    note(first);
    loop {
        match stream.message().await.unwrap().unwrap().event.unwrap() {
            Event::Changed(changed) => note(changed.nodes),
            Event::Synced(_) => break,
            Event::Resume(_) => return,
        }
    }
    assert_eq!(last.len(), nodes);
    assert!(last.values().all(|verdict| *verdict == Verdict::Up), "what is so now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_watchers_are_borne() {
    idle_watchers(10, 100, 40, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_ten_thousand_idle_watchers_are_borne() {
    idle_watchers(100, 100, 40, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_stop_reading_cost_a_bound() {
    stopped_watchers(10, 2_000, 1, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_a_hundred_watchers_stop_reading_while_ten_thousand_nodes_change() {
    stopped_watchers(100, 10_000, 5, 4).await;
}
