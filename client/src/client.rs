//! The connection and the questions.
//!
//! Owns limits of time and size, and the bounded asking again. Every question is a pure one, so
//! asking twice changes nothing; still only `UNAVAILABLE` is asked again, and never a stream that
//! has begun to answer, because its reader would see the beginning twice.

use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;
use uptime_proto::v1::{self, NodeOrder};
use uptime_proto::{MESSAGE_BYTES_MAX, NodeId};

use crate::error::{Error, root};

/// A listening host answers within round trips; who waits longer waits for a dead address.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A million nodes are listed or written within a few seconds; the rest is for a slow line.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A half-open connection is noticed within twice this.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How often a question is put at most.
const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; doubled before each later one.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The aggregator takes no larger page.
const PAGE_MAX: u32 = 1_000;

type Query = UptimeQueryClient<Channel>;

/// A connection to one aggregator. Cheap to clone; clones share the connection, which is made
/// anew by itself when it breaks.
#[derive(Debug, Clone)]
pub struct Client {
    query: Query,
    url: String,
    answer_within: Duration,
}

/// An answer and how fresh it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// As of which round, by which method, and when.
    pub freshness: v1::Freshness,
}

/// One page of a listing of nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Nodes {
    /// The nodes of this page, in the order asked for.
    pub nodes: Vec<v1::Node>,
    /// How many nodes there are on all pages together.
    pub total: u64,
}

/// The order of a listing; by id unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Order {
    /// By what.
    pub by: NodeOrder,
    /// The greatest first.
    pub descending: bool,
}

impl Client {
    /// Connects to the aggregator at `http://HOST:PORT`.
    ///
    /// # Errors
    /// [`Error::Address`] when the URL cannot be used, [`Error::Unreachable`] when nobody accepts
    /// a connection within five seconds.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let unusable =
            |detail: &str| Error::Address { url: url.to_owned(), detail: detail.to_owned() };
        let endpoint =
            Endpoint::from_shared(url.to_owned()).map_err(|error| unusable(&root(&error)))?;
        match (endpoint.uri().scheme_str(), endpoint.uri().host()) {
            (Some("http"), Some(_)) => {}
            (Some("https"), _) => {
                return Err(unusable("TLS is not spoken here; use a tunnel to its host"));
            }
            _ => return Err(unusable("it does not begin with http:// and a host")),
        }
        let channel = endpoint
            .user_agent(concat!("uptime-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| unusable(&root(&error)))?
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .connect()
            .await
            .map_err(|error| Error::Unreachable { url: url.to_owned(), detail: root(&error) })?;
        let query = UptimeQueryClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { query, url: url.to_owned(), answer_within: ANSWER_WITHIN })
    }

    /// The same connection with another limit than 30 s for one question, asking again included;
    /// for a stream, for each of its pieces.
    #[must_use]
    pub fn answer_within(self, limit: Duration) -> Self {
        Self { answer_within: limit, ..self }
    }

    /// One node.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it was never seen or is not confirmed.
    pub async fn node(&self, id: &NodeId) -> Result<Answer<v1::Node>, Error> {
        let request = v1::GetNodeRequest { id: id.to_string() };
        let answer = self
            .ask("GetNode", |mut query| {
                let request = request.clone();
                async move { query.get_node(request).await }
            })
            .await?;
        let node = answer.node.ok_or_else(|| self.malformed("it has no node"))?;
        self.answer(node, answer.freshness)
    }

    /// All nodes that pass a filter, as a stream of pages. All pages are of one round, that of the
    /// first. A page has at most `page_size` nodes (1 to 1,000; 0: 1,000).
    ///
    /// The stream ends after its first error. [`Error::ListingGone`] means that the aggregator no
    /// longer holds that round; the caller decides whether to begin anew.
    #[must_use]
    pub fn nodes(
        &self,
        filter: v1::NodeFilter,
        order: Order,
        page_size: u32,
    ) -> BoxStream<'static, Result<Answer<Nodes>, Error>> {
        let request = v1::ListNodesRequest {
            page_size: if page_size == 0 { PAGE_MAX } else { page_size.min(PAGE_MAX) },
            page_token: String::new(),
            filter: Some(filter),
            order: order.by as i32,
            descending: order.descending,
        };
        let begin = (self.clone(), Some(request));
        Box::pin(stream::try_unfold(begin, |(client, request)| async move {
            let Some(mut request) = request else {
                return Ok(None);
            };
            let page = client.page(&mut request).await?;
            if page.nodes.is_empty() && !page.next_page_token.is_empty() {
                return Err(client.malformed("an empty page that is not the last"));
            }
            let nodes = Nodes { nodes: page.nodes, total: page.total };
            let answer = client.answer(nodes, page.freshness)?;
            request.page_token = page.next_page_token;
            let more = (!request.page_token.is_empty()).then_some(request);
            Ok(Some((answer, (client, more))))
        }))
    }

    /// One page of nodes. One whose texts are so long that it exceeds a message is asked for in
    /// halves; a token names a row, so the size of pages may change on the way.
    async fn page(
        &self,
        request: &mut v1::ListNodesRequest,
    ) -> Result<v1::ListNodesResponse, Error> {
        loop {
            let asked = request.clone();
            let put = |mut query: Query| {
                let request = asked.clone();
                async move { query.list_nodes(request).await }
            };
            match self.put("ListNodes", put).await? {
                Err(status) if status.code() == Code::OutOfRange && request.page_size > 1 => {
                    request.page_size /= 2;
                }
                Err(status) => return Err(Error::from_status(&self.url, "ListNodes", &status)),
                Ok(page) => return Ok(page),
            }
        }
    }

    /// The probes and how they fare.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn probes(&self) -> Result<Answer<Vec<v1::Probe>>, Error> {
        let put =
            |mut query: Query| async move { query.list_probes(v1::ListProbesRequest {}).await };
        let answer = self.ask("ListProbes", put).await?;
        self.answer(answer.probes, answer.freshness)
    }

    /// The most recent rounds, newest first: at most `count`, fewer if the aggregator remembers
    /// fewer.
    ///
    /// # Errors
    /// When there is no answer; [`Error::ListingGone`] as for [`Client::nodes`].
    pub async fn rounds(&self, count: usize) -> Result<Answer<Vec<v1::Round>>, Error> {
        let mut rounds = Vec::new();
        let mut page_token = String::new();
        loop {
            let wanted = u32::try_from(count - rounds.len()).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
            let request = v1::ListRoundsRequest { page_size: wanted, page_token };
            let page = self
                .ask("ListRounds", |mut query| {
                    let request = request.clone();
                    async move { query.list_rounds(request).await }
                })
                .await?;
            if page.rounds.is_empty() && !page.next_page_token.is_empty() {
                return Err(self.malformed("an empty page that is not the last"));
            }
            rounds.extend(page.rounds);
            rounds.truncate(count);
            page_token = page.next_page_token;
            if rounds.len() == count || page_token.is_empty() {
                return self.answer(rounds, page.freshness);
            }
        }
    }

    /// The canonical CSV, piece by piece, exactly as the aggregator writes it to its file. Whole
    /// only when the stream ends without an error.
    ///
    /// # Errors
    /// When there is no answer. Within the stream, when it broke off.
    pub async fn csv(&self) -> Result<Answer<BoxStream<'static, Result<Vec<u8>, Error>>>, Error> {
        let put = |mut query: Query| async move {
            let mut pieces = query.export_csv(v1::ExportCsvRequest {}).await?.into_inner();
            let first = pieces.message().await?;
            Ok(Response::new((first, pieces)))
        };
        let (first, pieces) = self.ask("ExportCsv", put).await?;
        let first = first.ok_or_else(|| self.malformed("it is empty"))?;
        let begin = (self.url.clone(), Some(Vec::from(first.data)), pieces);
        let rest = stream::try_unfold(begin, |(url, mut first, mut pieces)| async move {
            if let Some(data) = first.take() {
                return Ok(Some((data, (url, None, pieces))));
            }
            match timeout(ANSWER_WITHIN, pieces.message()).await {
                Ok(Ok(None)) => Ok(None),
                Ok(Ok(Some(piece))) => Ok(Some((Vec::from(piece.data), (url, None, pieces)))),
                Ok(Err(status)) => Err(Error::from_status(&url, "ExportCsv", &status)),
                Err(_) => Err(Error::TimedOut { url, call: "ExportCsv", limit: ANSWER_WITHIN }),
            }
        });
        self.answer(Box::pin(rest) as BoxStream<'static, _>, first.freshness)
    }

    async fn ask<T, F>(&self, call: &'static str, put: impl Fn(Query) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = self.put(call, put).await?;
        answer.map_err(|status| Error::from_status(&self.url, call, &status))
    }

    /// Puts a question, again if the aggregator is unavailable, all within the limit.
    async fn put<T, F>(
        &self,
        call: &'static str,
        put: impl Fn(Query) -> F,
    ) -> Result<Result<T, Status>, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let asked = async {
            let mut wait = BACKOFF_FIRST;
            for _ in 1..ATTEMPTS_MAX {
                match put(self.query.clone()).await {
                    Err(status) if status.code() == Code::Unavailable => sleep(wait).await,
                    answer => return answer,
                }
                wait *= 2;
            }
            put(self.query.clone()).await
        };
        match timeout(self.answer_within, asked).await {
            Ok(answer) => Ok(answer.map(Response::into_inner)),
            Err(_) => Err(self.timed_out(call)),
        }
    }

    fn timed_out(&self, call: &'static str) -> Error {
        Error::TimedOut { url: self.url.clone(), call, limit: self.answer_within }
    }

    fn answer<T>(&self, value: T, freshness: Option<v1::Freshness>) -> Result<Answer<T>, Error> {
        let freshness =
            freshness.ok_or_else(|| self.malformed("it does not say how fresh it is"))?;
        Ok(Answer { value, freshness })
    }

    fn malformed(&self, detail: &'static str) -> Error {
        Error::Malformed { url: self.url.clone(), detail }
    }
}
