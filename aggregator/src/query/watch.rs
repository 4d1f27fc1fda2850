//! Watchers: everything first, then changes, and a token to resume with.
//!
//! Owns the log of changes: each new snapshot is compared with the one before once, for all
//! watchers together. A watcher is a place in that log and what it is about to send: one message,
//! made of what is so now when the connection has room for it. What changes behind a reader in the
//! midst of everything it is told again before that is said to be complete. A reader that stops
//! reading costs no more than that message, what is on its way, and two bits a node; when it has
//! fallen behind the log it must start again.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::Stream;
use prost::Message;
use roaring::RoaringBitmap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uptime_proto::{NodeId, v1};

use super::filter::{begins, lowest, wanted};
use super::present::{freshness, node};
use super::refusal::bad_field;
use crate::clock::now_unix_ms;
use crate::engine::Snapshot;

/// Changes kept for watchers that are slow or away: half a day at the default period. Whoever comes
/// later is answered from what the ledger remembers of each node.
const LOG_MAX: usize = 1_440;
/// Retirement takes a month; that somebody has retired is told within so many snapshots.
const RETIRED_EVERY: u64 = 20;
/// The nodes of one message: small, as one may wait in memory for each reader that does not read.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Nodes that one watcher looks at without letting others have the processor: some milliseconds.
const LOOKED_MAX: usize = 4_096;

/// What changed from one snapshot to the next.
#[derive(Debug, Clone)]
struct Entry {
    /// Ascending by one.
    number: u64,
    /// The end of the last closed round by then, unix seconds.
    closed_end_s: u64,
    changed: Arc<RoaringBitmap>,
}

/// The latest snapshot and how it came about.
#[derive(Debug, Clone)]
struct Log {
    snapshot: Arc<Snapshot>,
    entries: VecDeque<Entry>,
    next: u64,
    /// Tells the logs of several processes apart.
    id: u64,
}

/// The log of changes, for watchers.
#[derive(Debug, Clone)]
pub(super) struct Feed(watch::Receiver<Arc<Log>>);

/// Keeps the log until shutdown.
pub(super) fn keep_log(
    snapshots: watch::Receiver<Arc<Snapshot>>,
    shutdown: CancellationToken,
) -> (Feed, impl Future<Output = ()> + Send + 'static) {
    let snapshot = Arc::clone(&snapshots.borrow());
    let log = Arc::new(Log { snapshot, entries: VecDeque::new(), next: 0, id: rand::random() });
    let (sender, feed) = watch::channel(log);
    (Feed(feed), follow(snapshots, sender, shutdown))
}

async fn follow(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    log: watch::Sender<Arc<Log>>,
    shutdown: CancellationToken,
) {
    let mut retired_s = log.borrow().snapshot.closed_end_s();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = snapshots.changed() => if changed.is_err() { break },
        }
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let before = Arc::clone(&log.borrow());
        let mut changed = snapshot.changed_since(&before.snapshot);
        if snapshot.serial.is_multiple_of(RETIRED_EVERY) {
            changed |= snapshot.retired_since(retired_s);
            retired_s = snapshot.closed_end_s();
        }
        log.send_replace(Arc::new(before.grown(snapshot, changed)));
    }
}

impl Log {
    fn grown(&self, snapshot: Arc<Snapshot>, changed: RoaringBitmap) -> Self {
        let mut entries = self.entries.clone();
        let mut next = self.next;
        if !changed.is_empty() || snapshot.closed != self.snapshot.closed {
            let closed_end_s = snapshot.closed_end_s();
            entries.push_back(Entry { number: next, closed_end_s, changed: Arc::new(changed) });
            next += 1;
            if entries.len() > LOG_MAX {
                entries.pop_front();
            }
        }
        Self { snapshot, entries, next, id: self.id }
    }

    /// What may have changed since a token was given out; `None`: nobody knows.
    fn after(&self, token: &Token) -> Option<RoaringBitmap> {
        let current = self.token();
        let same = (token.store_id, token.generation) == (current.store_id, current.generation);
        if !same || token.closed_end_s > current.closed_end_s {
            return None;
        }
        if token.log_id == self.id && token.next <= self.next {
            return self.since_entry(token.next).or_else(|| self.since(token.closed_end_s));
        }
        self.since(token.closed_end_s)
    }

    /// What changed from an entry on; `None`: the log does not reach back so far.
    fn since_entry(&self, next: u64) -> Option<RoaringBitmap> {
        let first = self.entries.front().map_or(self.next, |entry| entry.number);
        (next >= first).then(|| self.sum(|entry| entry.number >= next))
    }

    /// What may have changed since a round was closed; `None`: nobody knows.
    fn since(&self, closed_end_s: u64) -> Option<RoaringBitmap> {
        if self.entries.front().is_some_and(|first| first.closed_end_s <= closed_end_s) {
            // Of the round itself some may have been told of and some not.
            return Some(self.sum(|entry| entry.closed_end_s >= closed_end_s));
        }
        self.snapshot.changed_after(closed_end_s)
    }

    fn sum(&self, wanted: impl Fn(&Entry) -> bool) -> RoaringBitmap {
        let mut sum = RoaringBitmap::new();
        for entry in self.entries.iter().filter(|entry| wanted(entry)) {
            sum |= &*entry.changed;
        }
        sum
    }

    fn token(&self) -> Token {
        Token {
            store_id: self.snapshot.store_id,
            generation: self.snapshot.generation,
            closed_end_s: self.snapshot.closed_end_s(),
            log_id: self.id,
            next: self.next,
        }
    }
}

/// What a resume token says: everything up to the close of that round of that store is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    store_id: [u8; 16],
    generation: u64,
    closed_end_s: u64,
    /// More exactly, for the process that gave it out: up to this entry of its log.
    log_id: u64,
    next: u64,
}

impl Token {
    fn write(self) -> Vec<u8> {
        let numbers = [self.generation, self.closed_end_s, self.log_id, self.next];
        let numbers = numbers.into_iter().flat_map(u64::to_le_bytes);
        self.store_id.into_iter().chain(numbers).collect()
    }

    fn read(bytes: &[u8]) -> Result<Self, Status> {
        let read = || {
            let (store_id, rest) = bytes.split_first_chunk::<16>()?;
            let (numbers, []) = rest.as_chunks::<8>() else { return None };
            let numbers: Vec<u64> = numbers.iter().map(|it| u64::from_le_bytes(*it)).collect();
            let [generation, closed_end_s, log_id, next] = numbers.try_into().ok()?;
            Some(Self { store_id: *store_id, generation, closed_end_s, log_id, next })
        };
        read().ok_or_else(|| {
            bad_field("resume_token", "give back what an earlier message said, unchanged")
        })
    }
}

/// Where a watcher stands. It holds no snapshot between two messages: one that is not read would
/// keep alive what everyone else has long let go of.
struct Watcher {
    feed: watch::Receiver<Arc<Log>>,
    filter: v1::NodeFilter,
    /// Where the walk through all nodes, ascending by id, goes on; `None`: it is over.
    walk: Option<NodeId>,
    /// Nodes that are still to be told of, or again, because they changed.
    left: RoaringBitmap,
    /// Its token means nothing here.
    refused: bool,
    /// The first entry of the log that was not yet looked at.
    next: u64,
    /// Everything there was at the beginning has been sent, and this was said.
    synced: bool,
    /// What of the network this watcher was told of: what leaves its filter is told once more.
    told: RoaringBitmap,
    ended: bool,
}

/// Begins to watch.
///
/// # Errors
/// When the token is malformed.
pub(super) fn watch(
    feed: &Feed,
    request: v1::WatchNodesRequest,
) -> Result<impl Stream<Item = Result<v1::WatchNodesResponse, Status>> + use<>, Status> {
    let feed = feed.0.clone();
    let log = Arc::clone(&feed.borrow());
    let mut watcher = Watcher {
        feed,
        filter: request.filter.unwrap_or_default(),
        walk: None,
        left: RoaringBitmap::new(),
        refused: false,
        next: log.next,
        synced: false,
        told: RoaringBitmap::new(),
        ended: false,
    };
    if request.resume_token.is_empty() {
        watcher.walk = lowest(&watcher.filter.id_prefix);
    } else {
        let token = Token::read(&request.resume_token)?;
        let changed = log.after(&token);
        watcher.refused = changed.is_none();
        watcher.left = changed.unwrap_or_default();
        // It was told of all of them some time, as far as its filter goes.
        watcher.told = log.snapshot.confirmed.clone();
        watcher.told.optimize();
    }
    Ok(futures_util::stream::unfold(watcher, |mut watcher| async move {
        let message = watcher.next().await?;
        Some((Ok(message), watcher))
    }))
}

impl Watcher {
    /// The next message; `None`: the stream ends.
    async fn next(&mut self) -> Option<v1::WatchNodesResponse> {
        while !self.ended {
            let log = Arc::clone(&self.feed.borrow_and_update());
            if self.refused {
                let why = "the token is of another store, or of a time nobody remembers";
                return Some(self.end(&log, why));
            }
            if self.next != log.next {
                let Some(changed) = log.since_entry(self.next) else {
                    return Some(
                        self.end(&log, "this reader is slower than the changes it watches"),
                    );
                };
                self.left |= changed;
                self.next = log.next;
            }
            let nodes = self.some(&log.snapshot);
            let all = self.walk.is_none() && self.left.is_empty();
            if !nodes.is_empty() {
                // Until all of it is sent a reader that resumes must begin with it again.
                let event = v1::watch_nodes_response::Event::Changed(v1::NodesChanged { nodes });
                return Some(message(&log, event, self.synced && all));
            }
            if !all {
                drop(log);
                tokio::task::yield_now().await;
                continue;
            }
            if !self.synced {
                self.synced = true;
                self.told.optimize();
                let event = v1::watch_nodes_response::Event::Synced(v1::Synced {});
                return Some(message(&log, event, true));
            }
            drop(log);
            self.feed.changed().await.ok()?;
        }
        None
    }

    /// Takes as many nodes as one message holds: of the walk first, then of what changed behind it.
    fn some(&mut self, snapshot: &Snapshot) -> Vec<v1::Node> {
        let mut page = Page::default();
        let Self { filter, walk, left, told, .. } = self;
        if let Some(from) = walk.take() {
            for number in snapshot.ids.at_or_after(&from) {
                let Some(id) = snapshot.ids.id(*number) else { continue };
                if !begins(&id, &filter.id_prefix) {
                    break;
                }
                if page.is_full() {
                    *walk = Some(id);
                    break;
                }
                left.remove(*number);
                page.tell(*number, snapshot, filter, told);
            }
        }
        let mut until = None;
        for number in left.iter().take_while(|_| walk.is_none()) {
            if page.is_full() {
                break;
            }
            page.tell(number, snapshot, filter, told);
            until = Some(number);
        }
        if let Some(until) = until {
            left.remove_range(..=until);
        }
        page.nodes
    }

    fn end(&mut self, log: &Log, why: &str) -> v1::WatchNodesResponse {
        self.ended = true;
        let detail = format!("{why}: start again without a token");
        let event = v1::watch_nodes_response::Event::Resume(v1::Resume { detail });
        v1::WatchNodesResponse { resume_token: Vec::new().into(), ..message(log, event, false) }
    }
}

/// The nodes of one message, while it is made.
#[derive(Default)]
struct Page {
    nodes: Vec<v1::Node>,
    bytes: usize,
    looked: usize,
}

impl Page {
    fn is_full(&self) -> bool {
        self.bytes >= MESSAGE_BYTES_MAX || self.looked >= LOOKED_MAX
    }

    fn tell(
        &mut self,
        number: u32,
        snapshot: &Snapshot,
        filter: &v1::NodeFilter,
        told: &mut RoaringBitmap,
    ) {
        self.looked += 1;
        // An id stays what it is, so one that does not pass by it was never told of.
        let passes = |id: NodeId| begins(&id, &filter.id_prefix);
        if !snapshot.ids.id(number).is_some_and(passes) {
            return;
        }
        let Some(view) = snapshot.view(number) else { return };
        // One that does no longer pass the filter is told of once, so that a watcher can drop it.
        let passes = wanted(&view, filter, snapshot);
        if passes || told.contains(number) {
            let row = node(&view, snapshot);
            self.bytes += row.encoded_len();
            self.nodes.push(row);
        }
        if passes {
            told.insert(number);
        } else {
            told.remove(number);
        }
    }
}

fn message(
    log: &Log,
    event: v1::watch_nodes_response::Event,
    complete: bool,
) -> v1::WatchNodesResponse {
    // Without a token where the reader does not have all of this state yet.
    let resume_token = if complete { log.token().write() } else { Vec::new() };
    v1::WatchNodesResponse {
        event: Some(event),
        resume_token: resume_token.into(),
        freshness: Some(freshness(&log.snapshot, now_unix_ms())),
    }
}

#[cfg(test)]
mod tests {
    use uptime_proto::{Epoch, Epochs, Period};

    use super::*;

    #[test]
    fn tokens_come_back_and_others_are_refused() {
        let token = Token {
            store_id: [7; 16],
            generation: 3,
            closed_end_s: 1_800_000_000,
            log_id: u64::MAX,
            next: 9,
        };
        assert_eq!(Token::read(&token.write()).ok(), Some(token));
        for bad in [&b"x"[..], &[0; 47], &[0; 49], &[0; 56]] {
            assert!(Token::read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_log_tells_what_it_has_and_says_when_it_does_not_reach_back() {
        let epoch = Epoch::with_defaults(Period::new(30).expect("divides the day"));
        let epochs = Epochs::new(vec![epoch]).expect("one epoch");
        let snapshot = Arc::new(Snapshot::empty(Arc::new(epochs)));
        let entries = VecDeque::new();
        let mut log = Log { snapshot: Arc::clone(&snapshot), entries, next: 0, id: 1 };
        log = log.grown(Arc::clone(&snapshot), RoaringBitmap::new());
        assert_eq!(log.next, 0, "nothing changed, nothing is noted");
        let members =
            |log: &Log, next| log.since_entry(next).map(|it| it.iter().collect::<Vec<_>>());
        for node in [5u32, 7] {
            log = log.grown(Arc::clone(&snapshot), [node].into());
        }
        assert_eq!(members(&log, 0), Some(vec![5, 7]));
        assert_eq!(members(&log, 1), Some(vec![7]));
        assert_eq!(members(&log, 2), Some(vec![]));
        for _ in 0..LOG_MAX {
            log = log.grown(Arc::clone(&snapshot), [9].into());
        }
        assert_eq!(members(&log, 1), None, "that is forgotten");
        assert_eq!(members(&log, 2), Some(vec![9]));
    }
}
