//! Listings in pages that are consistent among themselves.
//!
//! Owns page tokens and what they stand for: the snapshot of the first page, and the rows in order,
//! found once and kept while somebody may ask for the next page, so that the last page costs what
//! the first does, less the sorting. Bounded: the least recently used goes first, and a
//! reader that comes back too late must start again.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use tonic::Status;
use uptime_proto::{Round, v1};

use super::filter::wanted;
use super::refusal::bad_field;
use super::rows::{Order, rows_of, sorted};
use crate::engine::Snapshot;

/// The largest page.
const PAGE_MAX: u32 = 1_000;
/// The encoded rows of a page: leaves a message room for the rest.
const PAGE_BYTES_MAX: usize = uptime_proto::MESSAGE_BYTES_MAX - 16 * 1024;
/// Tag and length of a row in its message.
const ROW_OVERHEAD_BYTES: usize = 8;
/// Snapshots kept for readers in the middle of a listing: ten minutes at the default period.
const SNAPSHOTS_MAX: usize = 20;
/// Listings whose rows are kept in order; others are sorted again. A million rows are four
/// megabytes.
const LISTINGS_MAX: usize = 32;

/// What a page token says: the listing, and the next row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageToken {
    closed_s: u64,
    serial: u64,
    question: u64,
    next: usize,
}

impl PageToken {
    /// Reads a token; `None`: the first page is wanted.
    pub(super) fn read(text: &str) -> Result<Option<Self>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        let mut parts = text.split('-');
        let mut number = |radix| u64::from_str_radix(parts.next()?, radix).ok();
        let token = (|| {
            let (closed_s, serial, question) = (number(10)?, number(10)?, number(16)?);
            Some(Self { closed_s, serial, question, next: usize::try_from(number(10)?).ok()? })
        })();
        let token = token.filter(|_| parts.next().is_none());
        token
            .map(Some)
            .ok_or_else(|| bad_field("page_token", "give back what the last page said, unchanged"))
    }

    fn write(self) -> String {
        format!("{}-{}-{:x}-{}", self.closed_s, self.serial, self.question, self.next)
    }
}

/// How many rows a page is to have.
pub(super) fn page_size(asked: u32, default: u32) -> usize {
    let size = if asked == 0 { default } else { asked.min(PAGE_MAX) };
    size as usize
}

fn closed_s(snapshot: &Snapshot) -> u64 {
    snapshot.closed.map_or(0, Round::start_s)
}

/// Rows in order, all of one snapshot.
#[derive(Clone)]
pub(super) struct Listing {
    pub(super) snapshot: Arc<Snapshot>,
    /// The listed numbers.
    pub(super) rows: Arc<Vec<u32>>,
    question: u64,
}

/// Names a question: what it is about, and everything of it but the page.
pub(super) fn question(about: &str, of: &impl Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    about.hash(&mut hasher);
    of.encode_to_vec().hash(&mut hasher);
    hasher.finish()
}

/// The listings that somebody may be in the middle of.
#[derive(Clone, Default)]
pub(super) struct Listings(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// The most recently used last; each once.
    snapshots: VecDeque<Arc<Snapshot>>,
    /// Likewise.
    listings: VecDeque<Listing>,
}

/// Finds one and makes it the last to go.
fn used<T: Clone>(all: &mut VecDeque<T>, wanted: impl Fn(&T) -> bool) -> Option<T> {
    let found = all.remove(all.iter().position(wanted)?)?;
    all.push_back(found.clone());
    Some(found)
}

impl Kept {
    fn snapshot(&mut self, closed: u64, serial: u64) -> Option<Arc<Snapshot>> {
        used(&mut self.snapshots, |there| (closed_s(there), there.serial) == (closed, serial))
    }

    fn listing(&mut self, snapshot: &Arc<Snapshot>, question: u64) -> Option<Listing> {
        used(&mut self.listings, |there| {
            there.question == question && Arc::ptr_eq(&there.snapshot, snapshot)
        })
    }

    fn remember(&mut self, snapshot: &Arc<Snapshot>) {
        if self.snapshot(closed_s(snapshot), snapshot.serial).is_none() {
            self.snapshots.push_back(Arc::clone(snapshot));
            if self.snapshots.len() > SNAPSHOTS_MAX {
                self.snapshots.pop_front();
            }
        }
    }
}

impl Listings {
    /// The listing a page is of: the one its token names, or of the current snapshot.
    pub(super) async fn open(
        &self,
        token: Option<PageToken>,
        current: Arc<Snapshot>,
        question: u64,
        rows: impl FnOnce(&Snapshot) -> Vec<u32> + Send + 'static,
    ) -> Result<Listing, Status> {
        if token.is_some_and(|token| token.question != question) {
            return Err(bad_field(
                "page_token",
                "it is of another listing; filter and order must stay as they were",
            ));
        }
        let (snapshot, there) = {
            // A leaf: nothing is awaited while it is held.
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let snapshot = match token {
                None => {
                    kept.remember(&current);
                    current
                }
                Some(token) => kept.snapshot(token.closed_s, token.serial).ok_or_else(|| {
                    Status::aborted(
                        "page_token: this listing has expired; start again without a token",
                    )
                })?,
            };
            let there = kept.listing(&snapshot, question);
            (snapshot, there)
        };
        if let Some(there) = there {
            return Ok(there);
        }
        // Sorting a large network takes a while: not on a thread that others wait for.
        let listing = tokio::task::spawn_blocking(move || {
            let rows = Arc::new(rows(&snapshot));
            Listing { snapshot, rows, question }
        })
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.listings.push_back(listing.clone());
        if kept.listings.len() > LISTINGS_MAX {
            kept.listings.pop_front();
        }
        Ok(listing)
    }
}

impl Listing {
    /// One page, and the token of the next. A page ends early where it would not fit a message.
    pub(super) fn page<R: Message>(
        &self,
        token: Option<PageToken>,
        size: usize,
        show: impl Fn(u32) -> Option<R>,
    ) -> (Vec<R>, String) {
        let from = token.map_or(0, |token| token.next).min(self.rows.len());
        let (mut shown, mut bytes, mut next) = (Vec::new(), 0, from);
        for number in self.rows[from..].iter().take(size) {
            if let Some(row) = show(*number) {
                bytes += row.encoded_len() + ROW_OVERHEAD_BYTES;
                if bytes > PAGE_BYTES_MAX && !shown.is_empty() {
                    break;
                }
                shown.push(row);
            }
            next += 1;
        }
        let token = PageToken {
            closed_s: closed_s(&self.snapshot),
            serial: self.snapshot.serial,
            question: self.question,
            next,
        };
        let token = if next < self.rows.len() { token.write() } else { String::new() };
        (shown, token)
    }
}

/// The numbers of the nodes that a filter lets through, in order.
pub(super) fn node_rows(
    snapshot: &Snapshot,
    filter: &v1::NodeFilter,
    order: v1::NodeOrder,
    descending: bool,
) -> Vec<u32> {
    // All names are looked at in one go, which is quicker than one by one.
    let has_name = |name: &str| name.contains(&filter.name_contains);
    let named = (!filter.name_contains.is_empty()).then(|| snapshot.details.named(has_name));
    let rest = v1::NodeFilter { name_contains: String::new(), ..filter.clone() };
    let views = snapshot
        .nodes()
        .filter(|view| named.as_ref().is_none_or(|named| named.contains(view.number)))
        .filter(|view| wanted(view, &rest, snapshot));
    let order = match order {
        v1::NodeOrder::Unspecified | v1::NodeOrder::Id => Order::Id,
        v1::NodeOrder::Uptime => Order::Uptime,
        v1::NodeOrder::LastSeen => Order::LastSeen,
        v1::NodeOrder::Name => Order::Name,
    };
    sorted(rows_of(snapshot, views), snapshot, order, descending)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use uptime_proto::{Epoch, Epochs, Period};

    use super::*;

    fn snapshot() -> Snapshot {
        let epoch = Epoch::with_defaults(Period::new(30).expect("divides the day"));
        let epochs = Epochs::new(vec![epoch]).expect("one epoch");
        Snapshot::empty(Arc::new(epochs))
    }

    #[test]
    fn page_tokens_come_back_and_others_are_refused() {
        let token = PageToken { closed_s: 1_800_000_000, serial: 7, question: u64::MAX, next: 300 };
        assert_eq!(PageToken::read(&token.write()).ok().flatten(), Some(token));
        assert_eq!(PageToken::read("").ok(), Some(None));
        for bad in ["x", "1-", "1-2-3", "-1-2-3-4", "1-2-3-4-5", "99999999999999999999-1-1-1"] {
            assert!(PageToken::read(bad).is_err(), "{bad}");
        }
    }

    /// Listings that others begin between two pages: all but what pushes out whoever goes on.
    const OTHERS: u64 = SNAPSHOTS_MAX as u64 - 1;

    fn next_serial() -> u64 {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        SERIAL.fetch_add(1, Ordering::Relaxed)
    }

    /// Every row once, whatever ends a page; answers how many pages it took.
    async fn pages_of(rows: &[String], size: usize) -> usize {
        let (listings, current) = (Listings::default(), Arc::new(snapshot()));
        let numbers: Vec<u32> = (0..).take(rows.len()).collect();
        let (mut all, mut token, mut pages) = (Vec::new(), None, 0);
        let sorted = Arc::new(AtomicU32::new(0));
        loop {
            let (numbers, count) = (numbers.clone(), Arc::clone(&sorted));
            let current = Arc::clone(&current);
            let listing = listings.open(token, current, 1, move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                numbers
            });
            let listing = listing.await.expect("the listing is there");
            // Others begin listings of later rounds, and go away.
            for question in 10..10 + OTHERS {
                let mut later = snapshot();
                later.serial = next_serial();
                assert!(
                    listings.open(None, Arc::new(later), question, |_| Vec::new()).await.is_ok()
                );
            }
            let (part, next) = listing.page(token, size, |row| rows.get(row as usize).cloned());
            let bytes: usize = part.iter().map(String::len).sum();
            assert!(part.len() <= size && (bytes < 1 << 20 || part.len() == 1));
            all.extend(part);
            pages += 1;
            token = PageToken::read(&next).ok().flatten();
            if token.is_none() {
                assert_eq!(all, rows);
                assert_eq!(sorted.load(Ordering::Relaxed), 1, "the order is found once");
                return pages;
            }
            let other = listings.open(token, Arc::new(snapshot()), 2, |_| Vec::new()).await;
            assert!(other.is_err(), "a token is of one question");
        }
    }

    #[tokio::test]
    async fn pages_cover_everything_once_and_fit_a_message() {
        let row = |number: usize, bytes| format!("{number}{}", "x".repeat(bytes));
        let small: Vec<String> = (0..25).map(|number| row(number, 4)).collect();
        assert_eq!(pages_of(&small, 10).await, 3);
        let large: Vec<String> = (0..25).map(|number| row(number, 300_000)).collect();
        assert_eq!(pages_of(&large, 10).await, 9);
        assert_eq!((page_size(0, 100), page_size(5, 100), page_size(9_999, 100)), (100, 5, 1_000));
    }
}
