//! One listing of the whole network, page by page.
//!
//! Owns the walk: which page is asked next, which is too full to be trusted, when it is over.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use metrics::counter;
use tokio::time::Instant;
use uptime_proto::{NodeId, Reason};

use super::super::adjustable_semaphore::acquire;
use super::super::answers::Route;
use super::super::fault::CouldNotLook;
use super::super::http::Question;
use super::client::{Inner, Relay};
use super::moment::{Listed, Moment, listed};
use super::page::{Page, parse_page};
use super::prefix::{Prefix, learnt};

/// The relay never lists more and does not say so: a page with so many may have been cut off.
const PAGE_ENTRIES_FULL: usize = 50;

/// A whole listing.
pub(super) struct Listing {
    /// Everybody with a session, and when the relay last heard of them.
    pub(super) nodes: BTreeMap<NodeId, Moment>,
    /// When it began: what happened before is in it.
    pub(super) begun: Moment,
    /// The pages it was put together from, and when each was asked for.
    pages: BTreeMap<Prefix, Moment>,
}

impl Listing {
    /// A listing of these nodes, all of whose pages were asked for at `begun`.
    #[cfg(test)]
    pub(super) fn of(nodes: impl IntoIterator<Item = (NodeId, Moment)>, begun: Moment) -> Self {
        let pages = Prefix::roots().into_iter().map(|root| (root, begun)).collect();
        Self { nodes: nodes.into_iter().collect(), begun, pages }
    }

    /// When the page was asked for on which this node stands or would stand.
    pub(super) fn asked_for(&self, id: NodeId) -> Moment {
        let page = self.pages.range(..=Prefix::last_of(id)).next_back();
        page.map_or(self.begun, |(_, asked)| *asked)
    }
}

impl Relay {
    /// Everybody who has a session with the relay now, by ascending id, nobody twice.
    ///
    /// Takes as many questions as the network is large, so some seconds; see
    /// [`RelayLimits`](super::client::RelayLimits). Who
    /// is listed was there; who is not may still be alive: a relay that was just started again
    /// lists the living only as they come back, over half a minute.
    ///
    /// # Errors
    /// When one page could not be read, or all of them not in time: then nothing is known.
    pub async fn list(&self) -> Result<Vec<Listed>, CouldNotLook> {
        let listing = self.inner.listing().await?;
        let now = self.inner.now();
        Ok(listing.nodes.into_iter().map(|(id, seen)| listed(id, seen, now)).collect())
    }
}

impl Inner {
    /// Lists the whole network. On success the prefixes to begin with next time are remembered.
    pub(super) async fn listing(&self) -> Result<Listing, CouldNotLook> {
        let begun = Instant::now();
        let deadline = begun + self.limits.listing_timeout;
        let mut listing =
            Listing { nodes: BTreeMap::new(), begun: self.moment(begun), pages: BTreeMap::new() };
        let mut entries: BTreeMap<Prefix, usize> = BTreeMap::new();
        let mut malformed = 0;
        let mut waiting = self.leaves();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < self.limits.requests_in_flight_max {
                let Some(prefix) = waiting.pop() else { break };
                under_way.push(self.page(prefix));
            }
            let open = waiting.len() + under_way.len();
            let Ok(answer) = tokio::time::timeout_at(deadline, under_way.next()).await else {
                return Err(self.out_of_time(entries.len(), open));
            };
            let Some(answer) = answer else { break };
            let (prefix, asked, page) = answer?;
            if page.entries >= PAGE_ENTRIES_FULL {
                // Not even kept as seen: the finer pages tell the same, and later.
                waiting.extend(prefix.children().ok_or_else(|| too_dense(prefix))?);
                continue;
            }
            malformed += page.malformed;
            entries.insert(prefix, page.entries);
            listing.pages.insert(prefix, asked);
            for (id, seen_ago) in page.nodes {
                let seen = asked.before(seen_ago);
                let known = listing.nodes.entry(id).or_insert(seen);
                *known = seen.max(*known);
            }
            if listing.nodes.len() > self.limits.nodes_max {
                let detail = format!("the relay lists more than {} nodes", self.limits.nodes_max);
                return Err(CouldNotLook::new(Reason::AnswerTooLarge, detail));
            }
        }
        counter!("uptime_relay_listings_total").increment(1);
        if malformed > 0 {
            tracing::debug!(malformed, "unreadable entries in the relay's listing");
        }
        self.learn(learnt(entries));
        Ok(listing)
    }

    /// Asks for one page; waits for its turn first, and the time limit begins with its turn.
    async fn page(&self, prefix: Prefix) -> Result<(Prefix, Moment, Page), CouldNotLook> {
        let _permit = acquire(&self.requests).await?;
        self.limiter.wait().await;
        counter!("uptime_relay_pages_total").increment(1);
        let asked = self.now();
        let path = format!("/nodes/{prefix}");
        let question =
            Question::get(Route::RelayNodes, &path).at_most(self.limits.answer_bytes_max);
        let limit = self.limits.answer_timeout;
        let parse = |status, body: &[u8]| parse_page(status, body, prefix);
        let (page, _) = self.http.ask(question, limit, parse).await?;
        Ok((prefix, asked, page))
    }

    fn out_of_time(&self, read: usize, open: usize) -> CouldNotLook {
        let limit = self.limits.listing_timeout;
        let detail = format!("/nodes: {read} pages read in {limit:?}, at least {open} are left");
        CouldNotLook::new(Reason::TimedOut, detail)
    }
}

fn too_dense(prefix: Prefix) -> CouldNotLook {
    let detail = format!("/nodes/{prefix}: 50 nodes or more share eight digits");
    CouldNotLook::new(Reason::RelayError, detail)
}
