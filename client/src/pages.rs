//! Listings that come in pages.
//!
//! Owns the walk from page to page: the size of pages, halving those that do not fit a message,
//! and the bounds that end a listing which would never end by itself.

use std::collections::VecDeque;

use futures_util::stream::{self, BoxStream};
use uptime_proto::{NodeId, v1};

use crate::connect::Client;
use crate::error::{Error, is_too_large};
use crate::questions::{Answer, Nodes, Order};
use crate::retry::Question;

/// The aggregator takes no larger page, nor more ids in one question.
const PAGE_MAX: u32 = 1_000;

/// A question that is answered in pages.
pub(crate) trait Paged: Question {
    type Row: Send;

    /// Its page size and its page token.
    fn paging(&mut self) -> (&mut u32, &mut String);

    fn open(reply: Self::Reply) -> Page<Self::Row>;
}

/// What every page has.
#[derive(Debug)]
pub(crate) struct Page<R> {
    pub(crate) rows: Vec<R>,
    pub(crate) next_page_token: String,
    /// Where the question is answered so: the rows of all pages together.
    pub(crate) total: u64,
    pub(crate) freshness: Option<v1::Freshness>,
}

macro_rules! paged {
    ($($request:ident: $row:ident in $rows:ident, total $total:expr;)+) => {$(
        impl Paged for v1::$request {
            type Row = v1::$row;

            fn paging(&mut self) -> (&mut u32, &mut String) {
                (&mut self.page_size, &mut self.page_token)
            }

            fn open(reply: Self::Reply) -> Page<Self::Row> {
                let total: fn(&Self::Reply) -> u64 = $total;
                let total = total(&reply);
                let (next_page_token, freshness) = (reply.next_page_token, reply.freshness);
                Page { rows: reply.$rows, next_page_token, total, freshness }
            }
        }
    )+};
}

paged! {
    ListNodesRequest: Node in nodes, total |reply| reply.total;
    GetUptimeRequest: NodeUptime in nodes, total |_| 0;
    ListOutagesRequest: Outage in outages, total |_| 0;
    ListRoundsRequest: Round in rounds, total |_| 0;
}

/// The walk through one listing.
pub(crate) struct Walk<Q> {
    client: Client,
    /// For the next page; `None` after the last.
    request: Option<Q>,
    rows_seen: u64,
    rows_max: u64,
}

impl<Q: Paged> Walk<Q> {
    /// From the first page on; 0 stands for the largest pages.
    pub(crate) fn begin(client: &Client, mut request: Q, page_size: u32) -> Self {
        let (size, _) = request.paging();
        *size = if page_size == 0 { PAGE_MAX } else { page_size.min(PAGE_MAX) };
        let rows_max = client.bounds.rows_max;
        Self { client: client.clone(), request: Some(request), rows_seen: 0, rows_max }
    }

    /// The next page, with how fresh it is; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<(Page<Q::Row>, v1::Freshness)>, Error> {
        let Some(mut request) = self.request.take() else {
            return Ok(None);
        };
        let mut page = self.client.page(&mut request).await?;
        let (_, token) = request.paging();
        if !page.next_page_token.is_empty() {
            if page.rows.is_empty() {
                return Err(self.client.malformed("an empty page that is not the last"));
            }
            if page.next_page_token == *token {
                return Err(self.client.malformed("a page that names itself as the next"));
            }
        }
        self.rows_seen = self.rows_seen.saturating_add(page.rows.len() as u64);
        if self.rows_seen > self.rows_max {
            return Err(self.client.endless(Q::CALL, self.rows_max, "rows"));
        }
        let freshness = self.client.freshness(page.freshness.take())?;
        *token = std::mem::take(&mut page.next_page_token);
        let more = !token.is_empty();
        self.request = more.then_some(request);
        Ok(Some((page, freshness)))
    }

    fn has_more(&self) -> bool {
        self.request.is_some()
    }
}

impl Client {
    /// One page. One whose texts are so long that it exceeds a message is asked for in halves; a
    /// token names a row, so the size of pages may change on the way.
    async fn page<Q: Paged>(&self, request: &mut Q) -> Result<Page<Q::Row>, Error> {
        loop {
            match self.put(request.clone()).await? {
                Ok(reply) => return Ok(Q::open(reply)),
                Err(status) => {
                    let (size, _) = request.paging();
                    if !is_too_large(&status) || *size <= 1 {
                        return Err(self.failure(Q::CALL, &status));
                    }
                    *size /= 2;
                }
            }
        }
    }

    pub(crate) fn endless(&self, call: &'static str, limit: u64, what: &'static str) -> Error {
        Error::Endless { url: self.url.clone(), call, limit, what }
    }

    /// All nodes that pass a filter, as a stream of pages. All pages are of one round, that of the
    /// first. A page has at most `page_size` nodes (1 to 1,000; 0: 1,000).
    ///
    /// The stream ends after its first error. [`Error::ListingGone`] means that the aggregator no
    /// longer holds that round; the caller decides whether to start again.
    #[must_use]
    pub fn nodes(
        &self,
        filter: v1::NodeFilter,
        order: Order,
        page_size: u32,
    ) -> BoxStream<'static, Result<Answer<Nodes>, Error>> {
        let request = v1::ListNodesRequest {
            filter: Some(filter),
            order: order.by as i32,
            descending: order.descending,
            ..v1::ListNodesRequest::default()
        };
        let walk = Walk::begin(self, request, page_size);
        Box::pin(stream::try_unfold(walk, |mut walk| async move {
            let page = walk.next().await?;
            Ok(page.map(|(page, freshness)| {
                let value = Nodes { nodes: page.rows, total: page.total };
                (Answer { value, freshness }, walk)
            }))
        }))
    }

    /// The uptime of these nodes over a window, as a stream of pages; any number of nodes, put in
    /// batches. A node that is not known comes without figures. Without ids the stream is empty.
    ///
    /// A window that is open at its end ends for all of them where it ends for the first batch,
    /// whatever rounds close meanwhile. The stream ends after its first error.
    #[must_use]
    pub fn uptime(
        &self,
        ids: &[NodeId],
        question: impl Into<UptimeQuestion>,
    ) -> BoxStream<'static, Result<Answer<Vec<v1::NodeUptime>>, Error>> {
        let batches = ids.chunks(PAGE_MAX as usize);
        let batches = batches.map(|batch| batch.iter().map(ToString::to_string).collect());
        let (client, question) = (self.clone(), question.into());
        let begin = Batches { client, question, left: batches.collect(), walk: None };
        Box::pin(stream::try_unfold(begin, |mut batches| async move {
            let answer = batches.next().await?;
            Ok(answer.map(|answer| (answer, batches)))
        }))
    }

    /// The uptime of all confirmed nodes over a window, as a stream of pages.
    ///
    /// The stream ends after its first error; [`Error::ListingGone`] as for [`Client::nodes`].
    #[must_use]
    pub fn uptime_of_all(
        &self,
        question: impl Into<UptimeQuestion>,
    ) -> BoxStream<'static, Result<Answer<Vec<v1::NodeUptime>>, Error>> {
        self.rows(question.into().of(Vec::new()))
    }

    /// The outages of one node in a window, as a stream of pages.
    ///
    /// The stream ends after its first error: [`Error::NotFound`] if the node was never seen or is
    /// not confirmed; [`Error::ListingGone`] as for [`Client::nodes`].
    #[must_use]
    pub fn outages(
        &self,
        id: &NodeId,
        window: v1::Window,
    ) -> BoxStream<'static, Result<Answer<Vec<v1::Outage>>, Error>> {
        let (id, window) = (id.to_string(), Some(window));
        self.rows(v1::ListOutagesRequest { id, window, ..v1::ListOutagesRequest::default() })
    }

    fn rows<Q: Paged>(&self, request: Q) -> BoxStream<'static, Result<Answer<Vec<Q::Row>>, Error>> {
        let walk = Walk::begin(self, request, 0);
        Box::pin(stream::try_unfold(walk, |mut walk| async move {
            let page = walk.next().await?;
            Ok(page.map(|(page, freshness)| (Answer { value: page.rows, freshness }, walk)))
        }))
    }

    /// The most recent rounds, newest first: at most `count`, fewer if the aggregator remembers
    /// fewer.
    ///
    /// # Errors
    /// When there is no answer; [`Error::ListingGone`] as for [`Client::nodes`].
    pub async fn rounds(&self, count: usize) -> Result<Answer<Vec<v1::Round>>, Error> {
        let size = u32::try_from(count).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let mut walk = Walk::begin(self, v1::ListRoundsRequest::default(), size);
        let mut all = Answer { value: Vec::new(), freshness: v1::Freshness::default() };
        while let Some((page, freshness)) = walk.next().await? {
            all.freshness = freshness;
            all.value.extend(page.rows);
            if all.value.len() >= count {
                break;
            }
        }
        all.value.truncate(count);
        Ok(all)
    }
}

/// A request for uptimes; a window alone is one, too.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct UptimeQuestion {
    /// Over which rounds.
    pub window: v1::Window,
    /// Also the round trips of the UTC days that the window touches; it takes longer.
    pub with_latency: bool,
}

impl From<v1::Window> for UptimeQuestion {
    fn from(window: v1::Window) -> Self {
        Self { window, with_latency: false }
    }
}

impl UptimeQuestion {
    fn of(self, ids: Vec<String>) -> v1::GetUptimeRequest {
        let Self { window, with_latency } = self;
        v1::GetUptimeRequest { ids, window: Some(window), with_latency, ..Default::default() }
    }
}

/// Many nodes, a batch after the other.
struct Batches {
    client: Client,
    question: UptimeQuestion,
    left: VecDeque<Vec<String>>,
    /// Through the answer to the batch that is being asked about.
    walk: Option<Walk<v1::GetUptimeRequest>>,
}

impl Batches {
    async fn next(&mut self) -> Result<Option<Answer<Vec<v1::NodeUptime>>>, Error> {
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => {
                let Some(ids) = self.left.pop_front() else {
                    return Ok(None);
                };
                let asked = ids.len() as u64;
                let mut walk = Walk::begin(&self.client, self.question.of(ids), 0);
                walk.rows_max = asked;
                walk
            }
        };
        let Some((page, freshness)) = walk.next().await? else {
            return Err(self.client.malformed("a listing without a page"));
        };
        let window = &mut self.question.window;
        if window.to_unix_s == 0 && freshness.last_closed_round_unix_s > 0 {
            let period_s = u64::from(freshness.round_period_s);
            window.to_unix_s = freshness.last_closed_round_unix_s.saturating_add(period_s);
        }
        self.walk = walk.has_more().then_some(walk);
        Ok(Some(Answer { value: page.rows, freshness }))
    }
}
