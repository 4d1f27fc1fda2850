//! Watchers: everything first, then what changes and nothing else, and how they go on after a
//! break.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::Streaming;
use uptime_aggregator::store::{Checkpoints, SqliteStore};
use uptime_proto::v1::{self, watch_nodes_response::Event};

use crate::service::{Service, id, round_s};

struct Watcher {
    stream: Streaming<v1::WatchNodesResponse>,
    token: Vec<u8>,
}

impl Watcher {
    async fn new(service: &mut Service, token: &[u8], filter: Option<v1::NodeFilter>) -> Self {
        let resume_token = token.to_vec().into();
        let request = v1::WatchNodesRequest { filter, resume_token };
        let stream = service.query.watch_nodes(request).await.unwrap().into_inner();
        Self { stream, token: token.to_vec() }
    }

    async fn next(&mut self) -> Event {
        let message = self.stream.message().await.unwrap().unwrap();
        if !message.resume_token.is_empty() {
            self.token = message.resume_token.to_vec();
        }
        message.event.unwrap()
    }

    /// The next change: ids, shortened, and verdicts, ascending.
    async fn changed(&mut self) -> Vec<(String, v1::Verdict)> {
        match self.next().await {
            Event::Changed(changed) => {
                let mut nodes: Vec<_> =
                    changed.nodes.iter().map(|node| (node.id.clone(), node.verdict())).collect();
                nodes.sort();
                nodes
            }
            other => panic!("{other:?}"),
        }
    }

    async fn until_synced(&mut self) -> usize {
        let mut nodes = 0;
        loop {
            match self.next().await {
                Event::Changed(changed) => nodes += changed.nodes.len(),
                Event::Synced(_) => return nodes,
                Event::Resume(resume) => panic!("{resume:?}"),
            }
        }
    }
}

fn of(nodes: &[(u64, v1::Verdict)]) -> Vec<(String, v1::Verdict)> {
    let mut nodes: Vec<_> =
        nodes.iter().map(|(node, verdict)| (id(*node).to_string(), *verdict)).collect();
    nodes.sort();
    nodes
}

#[tokio::test]
async fn everything_first_then_changes_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 2).await;
    service.round(0, 3, &[0, 1, 2], &[]).await;
    let mut watcher = Watcher::new(&mut service, &[], None).await;
    assert_eq!(watcher.until_synced().await, 3);
    // Nothing changes: nothing is said, until one goes down.
    service.round(1, 3, &[0, 1, 2], &[]).await;
    service.round(2, 3, &[0, 2], &[1]).await;
    assert_eq!(watcher.changed().await, of(&[(1, v1::Verdict::Down)]));
    service.rename(2, 2, "a new name").await;
    service.round(3, 3, &[0, 2], &[1]).await;
    assert_eq!(watcher.changed().await, of(&[(2, v1::Verdict::Up)]));
    // A new node, known at once as two probes have its offer.
    service.round(4, 4, &[0, 2], &[1]).await;
    assert_eq!(watcher.changed().await, of(&[(3, v1::Verdict::Unknown)]));
}

#[tokio::test]
async fn a_filter_tells_of_what_leaves_it_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 2).await;
    service.round(0, 3, &[0, 1], &[2]).await;
    let filter = Some(v1::NodeFilter { is_online: Some(true), ..Default::default() });
    let mut watcher = Watcher::new(&mut service, &[], filter).await;
    assert_eq!(watcher.until_synced().await, 2);
    service.round(1, 3, &[1], &[0, 2]).await;
    assert_eq!(watcher.changed().await, of(&[(0, v1::Verdict::Down)]));
    service.round(2, 3, &[1, 2], &[0]).await;
    assert_eq!(watcher.changed().await, of(&[(2, v1::Verdict::Up)]));
}

#[tokio::test]
async fn a_token_outlives_the_connection_and_the_aggregator() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 2).await;
    let all: Vec<u64> = (0..20).collect();
    service.round(0, 20, &all, &[]).await;
    let mut watcher = Watcher::new(&mut service, &[], None).await;
    assert_eq!(watcher.until_synced().await, 20);
    let token = watcher.token.clone();
    assert_eq!(token.len(), 48);
    drop(watcher);
    service.round(1, 20, &all[1..], &[0]).await;
    // After a broken connection: the one that changed.
    let mut watcher = Watcher::new(&mut service, &token, None).await;
    assert_eq!(watcher.changed().await, of(&[(0, v1::Verdict::Down)]));
    assert!(matches!(watcher.next().await, Event::Synced(_)));
    let token = watcher.token.clone();
    drop(watcher);
    service.round(2, 20, &all[1..], &[0]).await;
    service.round(3, 20, &all[2..], &[0, 1]).await;
    service.rename(3, 7, "seven").await;
    let store = service.end().await;
    let mut service = Service::over(store, round_s(5)).await;
    let mut watcher = Watcher::new(&mut service, &token, None).await;
    let changed = watcher.changed().await;
    for (node, verdict) in [(1, v1::Verdict::Down), (7, v1::Verdict::Up)] {
        assert!(changed.contains(&(id(node).to_string(), verdict)), "{changed:?}");
    }
    assert!(matches!(watcher.next().await, Event::Synced(_)));
}

/// A token of another store, or of a time that nobody remembers, means: begin anew.
#[tokio::test]
async fn a_token_that_means_nothing_here_ends_in_resume() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut service = Service::new(&one, 2).await;
    service.round(0, 3, &[0, 1, 2], &[]).await;
    let mut watcher = Watcher::new(&mut service, &[], None).await;
    watcher.until_synced().await;
    let token = watcher.token.clone();
    let mut elsewhere = Service::new(&other, 2).await;
    elsewhere.round(0, 3, &[0, 1, 2], &[]).await;
    let mut strange = Watcher::new(&mut elsewhere, &token, None).await;
    assert!(matches!(strange.next().await, Event::Resume(_)));
    assert!(strange.stream.message().await.unwrap().is_none(), "and the stream ends");
    let request = v1::WatchNodesRequest { filter: None, resume_token: vec![1, 2, 3].into() };
    let refused = service.query.watch_nodes(request).await.unwrap_err();
    assert_eq!(crate::field_of(&refused), "resume_token");
    // The checkpoint is gone: what changed when is not known any more.
    drop(watcher);
    let mut store: SqliteStore = service.end().await;
    store.save_checkpoint(&[vec![1]]).await.unwrap();
    let mut service = Service::over(store, round_s(9)).await;
    let mut watcher = Watcher::new(&mut service, &token, None).await;
    assert!(matches!(watcher.next().await, Event::Resume(_)));
}

/// Reads until everything has come; answers what was told last of each node, and how often it was
/// told of any.
async fn last_words(watcher: &mut Watcher) -> (BTreeMap<String, v1::Verdict>, usize) {
    let (mut last, mut told) = (BTreeMap::new(), 0);
    loop {
        match watcher.next().await {
            Event::Changed(changed) => {
                told += changed.nodes.len();
                let nodes = changed.nodes.into_iter();
                last.extend(nodes.map(|node| (node.id.clone(), node.verdict())));
            }
            Event::Synced(_) => return (last, told),
            Event::Resume(resume) => panic!("{resume:?}"),
        }
    }
}

/// A reader that stops reading is not waited for, and catches up in one step: what it was told of
/// before it stopped and has changed since is told again, all else once, and as it is now.
#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up() {
    const NODES: u64 = 3_000;
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 1).await;
    let all: Vec<u64> = (0..NODES).collect();
    service.round(0, NODES, &all, &[]).await;
    let mut watcher = Watcher::new(&mut service, &[], None).await;
    // One message is taken; the rest waits, as far as there is room on the way.
    let heard = watcher.changed().await;
    let first = heard.len();
    assert!(first > 50 && first < 500, "{first} nodes in a message");
    let then = Arc::downgrade(&service.snapshot());
    for at in 1..=60u64 {
        let seen: &[u64] = if at % 2 == 0 { &all[..5] } else { &all[..3] };
        service.round(at, 5, seen, &[]).await;
    }
    assert_eq!(service.snapshot().closed.unwrap().start_s(), round_s(60));
    assert!(then.upgrade().is_none(), "nothing old is kept for it");
    let (mut last, told) = last_words(&mut watcher).await;
    for (id, verdict) in heard {
        // One that has not changed since was not told of again.
        last.entry(id).or_insert(verdict);
    }
    assert_eq!(last.len(), usize::try_from(NODES).unwrap());
    let up = last.values().filter(|verdict| **verdict == v1::Verdict::Up).count();
    assert_eq!(up, 5, "what is so now");
    // Sixty rounds are one change, of what had been on the way when they came: a window's worth and
    // a message or two.
    let again = told + first - last.len();
    assert!(again + 5 >= first && again < 5 * first, "{again} were told again");
    let token = watcher.token.clone();
    drop(watcher);
    // It is complete as of that round: nothing is left to be told.
    let mut watcher = Watcher::new(&mut service, &token, None).await;
    assert_eq!(watcher.until_synced().await, 0);
}

/// Whoever reads nothing while half a day of rounds goes by is told to begin anew, each of a
/// hundred; and that costs nobody else anything.
#[tokio::test]
async fn readers_that_fall_behind_the_log_are_told_to_begin_anew() {
    const NODES: u64 = 4_000;
    /// More than the log of changes holds.
    const ROUNDS: u64 = 1_500;
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 1).await;
    let all: Vec<u64> = (0..NODES).collect();
    service.round(0, NODES, &all, &[]).await;
    let mut stopped = Vec::new();
    for _ in 0..100 {
        let mut watcher = Watcher::new(&mut service, &[], None).await;
        assert!(watcher.changed().await.len() > 50);
        stopped.push(watcher);
    }
    let mut reading = Watcher::new(&mut service, &[], None).await;
    reading.until_synced().await;
    for at in 1..=ROUNDS {
        service.close(at).await;
        // Each snapshot is to be an entry of the log.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    let changed = reading.changed().await;
    assert!(changed.iter().all(|(_, verdict)| *verdict == v1::Verdict::Unknown), "{changed:?}");
    for mut watcher in stopped {
        let mut told = 0;
        let why = loop {
            match watcher.next().await {
                Event::Changed(changed) => told += changed.nodes.len(),
                Event::Resume(resume) => break resume.detail,
                Event::Synced(_) => panic!("{told} nodes, and it never read"),
            }
        };
        assert!(why.contains("slower than the changes"), "{why}");
        assert!(told < all.len(), "what was on its way: {told}");
        assert!(watcher.stream.message().await.unwrap().is_none(), "and the stream ends");
    }
    let mut anew = Watcher::new(&mut service, &[], None).await;
    assert_eq!(anew.until_synced().await, all.len());
}

/// Of ids that begin in one way, without looking at the others.
#[tokio::test]
async fn a_beginning_of_ids_is_watched_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 1).await;
    let all: Vec<u64> = (0..600).collect();
    service.round(0, 600, &all, &[]).await;
    let beginning = id(7).to_string()[..3].to_uppercase().replace("0X", "0x");
    let of_it: Vec<u64> = all
        .iter()
        .copied()
        .filter(|node| id(*node).to_string().starts_with(&beginning.to_lowercase()))
        .collect();
    assert!(of_it.len() > 20 && of_it.len() < 80, "{}", of_it.len());
    let filter = Some(v1::NodeFilter { id_prefix: beginning, ..Default::default() });
    let mut watcher = Watcher::new(&mut service, &[], filter.clone()).await;
    let (last, told) = last_words(&mut watcher).await;
    assert_eq!((last.len(), told), (of_it.len(), of_it.len()));
    service.round(1, 600, &[], &[]).await;
    let wanted: Vec<_> = of_it.iter().map(|node| (*node, v1::Verdict::Unknown)).collect();
    assert_eq!(watcher.changed().await, of(&wanted));
    let filter = v1::NodeFilter { id_prefix: "0xg".to_owned(), ..Default::default() };
    let mut none = Watcher::new(&mut service, &[], Some(filter)).await;
    assert_eq!(none.until_synced().await, 0);
}
