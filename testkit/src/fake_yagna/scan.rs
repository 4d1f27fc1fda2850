//! The scan API: everything the fake daemon knows, and the direct question to a peer.
//!
//! Owns scans with their cursors. A page is cut before it is filtered, so a page shorter than
//! asked for is not the last one; an empty page only comes with the timeout. A direct question
//! goes to the peer itself and has no cursor.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use tokio::time::Instant;

use super::bridge::node_id;
use super::channel::{Asked, ask, unknown_address};
use super::clock;
use super::constraint::Expression;
use super::core::Core;
use super::cursor::Scan;
use super::http::{Body, Reply, Request};
use super::market::Poll;
use super::offer::Offer;
use super::replies::{body_json, message, quoted};

/// The default maximum number of offers per poll.
const OFFERS_DEFAULT: usize = 500;
/// A direct question fetches at least this number of offers.
const DIRECT_PAGE_MIN: usize = 10;
/// A scan without requests for this time expires, unless it has its own timeout.
const SCAN_TIMEOUT_DEFAULT_S: u64 = 300;

/// How long an ERROR line is, and one with a backtrace (a6, a1).
const LOG_LINE_BYTES: u64 = 200;
const LOG_BACKTRACE_BYTES: u64 = 4096;

#[derive(Deserialize)]
struct NewScan {
    #[serde(rename = "type")]
    kind: Kind,
    timeout: Option<u64>,
    constraints: Option<String>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Offer,
    Demand,
}

/// `POST /market-api/v1/scan`
pub(crate) fn begin(core: &Core, request: &Request) -> Reply {
    let new: NewScan = match body_json(request) {
        Ok(new) => new,
        Err(refusal) => return refusal,
    };
    // As in the real one, an invalid constraint also takes a number [48, 49].
    let id = core.change(|memory| {
        memory.next_scan += 1;
        memory.next_scan - 1
    });
    let expression = match new.constraints.as_deref().map(Expression::parse) {
        Some(None) => return message(400, "Invalid constraint. Parsing error: Alternative"),
        Some(Some(expression)) => Some(expression),
        None => None,
    };
    // Demands cannot be scanned; such a scan stays empty.
    let nothing = Expression::Any(Vec::new());
    let expression = if new.kind == Kind::Demand { Some(nothing) } else { expression };
    let lifetime = Duration::from_secs(new.timeout.unwrap_or(SCAN_TIMEOUT_DEFAULT_S));
    let ends = core.world.now() + lifetime;
    core.change(|memory| {
        let (passed, left) = (BTreeSet::new(), BTreeMap::new());
        memory.scans.insert(id, Scan { expression, passed, left, lifetime, ends });
    });
    Reply::json(201, quoted(&id.to_string()))
}

/// `DELETE /market-api/v1/scan/{id}`
pub(crate) fn end(core: &Core, id: &str) -> Reply {
    let number = match standing(core, id) {
        Ok(number) => number,
        Err(refusal) => return refusal,
    };
    core.change(|memory| memory.scans.remove(&number));
    Reply::empty(204)
}

/// `GET /market-api/v1/scan/{id}/events`, in its three forms.
pub(crate) async fn events(core: &Arc<Core>, id: &str, request: &Request) -> Reply {
    let number = match standing(core, id) {
        Ok(number) => number,
        Err(refusal) => return refusal,
    };
    let count = match request.query("maxEvents").map(|text| text.parse::<usize>()) {
        None => OFFERS_DEFAULT,
        Some(Ok(count)) => count,
        Some(Err(error)) => return Reply::text(400, format!("Query deserialize error: {error}")),
    };
    let deadline = match Poll::of(request, &core.limits) {
        Ok(Poll::Until(deadline)) => deadline,
        Ok(Poll::Panics) => return Reply::hangup(),
        Err(refusal) => return refusal,
    };
    if let Some(peer) = request.query("peerId") {
        return match node_id(&peer) {
            Ok(peer) => direct(core, number, &peer, count, deadline).await,
            Err(_) => Reply::text(400, "Query deserialize error: invalid format"),
        };
    }
    if request.wants_events() {
        return stream_offers(Arc::clone(core), number);
    }
    match collect(core, number, count, Some(deadline)).await {
        Some(offers) => listing(&offers),
        None => not_found(id),
    }
}

fn listing(offers: &[Arc<Offer>]) -> Reply {
    let bodies: Vec<String> = offers.iter().map(|offer| offer.json()).collect();
    Reply::json(200, format!("[{}]", bodies.join(",")))
}

fn not_found(id: &str) -> Reply {
    message(404, format!("Iterator with id {} not found", quoted(id)))
}

/// The number of a scan that exists; a request keeps it alive.
fn standing(core: &Core, id: &str) -> Result<u64, Reply> {
    let now = core.world.now();
    let mut memory = core.lock();
    memory.scans.retain(|_, scan| scan.ends > now);
    let number = id.parse().ok().filter(|number| memory.scans.contains_key(number));
    let number: u64 = number.ok_or_else(|| not_found(id))?;
    if let Some(scan) = memory.scans.get_mut(&number) {
        scan.ends = now + scan.lifetime;
    }
    Ok(number)
}

/// The next page; waits for one until the deadline. `None` once the scan is gone.
async fn collect(
    core: &Core,
    number: u64,
    count: usize,
    deadline: Option<Instant>,
) -> Option<Vec<Arc<Offer>>> {
    let mut changes = core.changes();
    loop {
        let next = {
            let mut memory = core.lock();
            let known = core.known(&memory);
            let scan = memory.scans.get_mut(&number)?;
            let fresh = known.offers.into_iter().filter(|it| !scan.passed.contains(&it.offer_id));
            let mut rows = fresh.collect::<Vec<_>>().into_iter();
            loop {
                let row: Vec<Arc<Offer>> = rows.by_ref().take(count).collect();
                if row.is_empty() {
                    break;
                }
                scan.passed.extend(row.iter().map(|offer| offer.offer_id.clone()));
                let page: Vec<_> = row.into_iter().filter(|offer| scan.wants(offer)).collect();
                if !page.is_empty() {
                    return Some(page);
                }
            }
            known.next
        };
        if count == 0 || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(Vec::new());
        }
        let until = clock::deadline(next.unwrap_or(Duration::MAX));
        changes.wait_until(deadline.map_or(until, |deadline| until.min(deadline))).await;
    }
}

/// Offers one by one, until the scan or the client is gone.
fn stream_offers(core: Arc<Core>, number: u64) -> Reply {
    let events = stream::unfold(VecDeque::new(), move |mut page: VecDeque<Arc<Offer>>| {
        let core = Arc::clone(&core);
        async move {
            while page.is_empty() {
                page = collect(&core, number, OFFERS_DEFAULT, None).await?.into();
            }
            let offer = page.pop_front()?;
            let event = format!("event: offer\ndata: {}\n\n", offer.json());
            Some((event.into_bytes(), page))
        }
    });
    let headers = vec![
        ("content-type", "text/event-stream".to_owned()),
        ("cache-control", "no-cache".to_owned()),
    ];
    Reply { headers, body: Body::Stream(events.boxed()), ..Reply::empty(200) }
}

async fn direct(core: &Core, number: u64, peer: &str, count: usize, deadline: Instant) -> Reply {
    let limit = deadline.saturating_duration_since(Instant::now()).min(core.limits.direct);
    let deadline = deadline.min(clock::deadline(core.limits.direct));
    let left = core.lock().scans.get_mut(&number).and_then(|scan| scan.left.remove(peer));
    match ask(core, peer, limit).await {
        Asked::Answered if core.is_strange(peer) => {
            return message(
                500,
                unknown_address(peer, "market/protocol/mk1/discovery/offers/Query"),
            );
        }
        Asked::Answered => {}
        Asked::Silent => {
            tokio::time::sleep_until(deadline).await;
            return failed(core, 504, "Timeout while attempting to fetch data from a peer");
        }
        Asked::Unreachable(why) => return failed(core, 500, &format!("GSB failure: {why}")),
    }
    let now = core.world.now();
    let standing: Vec<Arc<Offer>> = {
        let state = core.world.lock();
        let standing = state.find(peer).into_iter().flat_map(|node| node.standing(now));
        standing.filter(|offer| offer.provider_id == peer).cloned().collect()
    };
    let mut memory = core.lock();
    let Some(scan) = memory.scans.get_mut(&number) else {
        return not_found(&number.to_string());
    };
    let offers =
        left.unwrap_or_else(|| standing.into_iter().filter(|offer| scan.wants(offer)).collect());
    let page = count.max(DIRECT_PAGE_MIN).min(offers.len());
    let (page, rest) = offers.split_at(page);
    if !rest.is_empty() {
        scan.left.insert(peer.to_owned(), rest.to_vec());
    }
    listing(page)
}

/// A direct question without an answer: it is in the operator's log, and there were two more
/// queries to the relay after the look-up (a6, a7).
fn failed(core: &Core, status: u16, text: &str) -> Reply {
    // A closed channel writes two lines, and a backtrace takes kilobytes.
    let lines = if text.ends_with("session closed") { 2 } else { 1 };
    let bytes = if text.contains("Caused by") { LOG_BACKTRACE_BYTES } else { LOG_LINE_BYTES };
    let mut memory = core.lock();
    memory.log.write(lines, lines * bytes);
    memory.relay_queries += 2;
    message(status, text)
}
