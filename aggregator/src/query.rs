//! Answers over gRPC, from immutable snapshots.
//!
//! Owns the questions: what each asks for, what of it is refused, and where the answer comes from.
//! Refuses to touch the ledger's state: no question delays ingest.

mod filter;
mod listing;
mod present;
mod refusal;
pub(crate) mod rows;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use uptime_proto::v1::{self, NodeOrder};
use uptime_proto::{NodeId, Round};

use crate::clock::now_unix_ms;
use crate::engine::Snapshot;
use crate::ledger::Ledger;
use crate::publish::write_csv;
use listing::{Listings, PageToken, node_rows, page_size, question};
use present::freshness;
use refusal::{bad_field, node_id, not_found, not_found_by, window};
use watch::Feed;

/// Ids one question may name.
const IDS_MAX: usize = 1_000;
/// Bytes of CSV in one message.
const CSV_PIECE_BYTES: usize = 64 * 1024;

/// The `UptimeQuery` service.
#[derive(Clone)]
pub struct Query {
    ledger: Ledger,
    listings: Listings,
    feed: Feed,
}

impl Query {
    /// The service over a ledger's snapshots, and the task that keeps the log of changes for
    /// watchers until shutdown.
    pub fn new(
        ledger: Ledger,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (feed, keep_log) = watch::keep_log(ledger.snapshots(), shutdown);
        (Self { ledger, listings: Listings::default(), feed }, keep_log)
    }

    /// The round that a question about the past means.
    fn closed_round(snapshot: &Snapshot, start_s: u64) -> Result<Round, Status> {
        let Some(closed) = snapshot.closed else {
            return Err(Status::failed_precondition("no round has closed yet"));
        };
        if start_s == 0 {
            return Ok(closed);
        }
        let start_ms = i64::try_from(start_s.saturating_mul(1000)).unwrap_or(i64::MAX);
        let round = snapshot.epochs.round_at_ms(start_ms);
        if round > closed {
            let why = format!("it has not closed; the last closed round is {}", closed.start_s());
            return Err(bad_field("round_unix_s", why));
        }
        if round.start_s() != start_s {
            let why = format!(
                "no round starts then; one of {} s starts at {}",
                round.period().seconds(),
                round.start_s()
            );
            return Err(bad_field("round_unix_s", why));
        }
        if start_s < snapshot.rolled_up_to_s() {
            return Err(Status::out_of_range(format!(
                "round_unix_s: what is kept round by round begins with round {}",
                snapshot.rolled_up_to_s()
            )));
        }
        Ok(round)
    }
}

type Watching = Pin<Box<dyn Stream<Item = Result<v1::WatchNodesResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::uptime_query_server::UptimeQuery for Query {
    type WatchNodesStream = Watching;
    type ExportCsvStream = ReceiverStream<Result<v1::ExportCsvResponse, Status>>;

    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let v1::GetNodeRequest { id, round_unix_s } = request.into_inner();
        let id = node_id("id", &id)?;
        let snapshot = self.ledger.snapshot();
        let view = snapshot.node(&id).ok_or_else(|| not_found(&id))?;
        let (node, round) = match round_unix_s {
            0 => (present::node(&view, &snapshot), snapshot.closed),
            start_s => {
                let round = Self::closed_round(&snapshot, start_s)?;
                (self.node_at(&snapshot, view.number, &id, round).await?, Some(round))
            }
        };
        Ok(Response::new(v1::GetNodeResponse {
            node: Some(node),
            freshness: Some(freshness(&snapshot, now_unix_ms())),
            round_unix_s: round.map_or(0, Round::start_s),
        }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let request = request.into_inner();
        let order = NodeOrder::try_from(request.order)
            .map_err(|_| bad_field("order", format!("{} is no order", request.order)))?;
        let filter = request.filter.unwrap_or_default();
        let asked = v1::ListNodesRequest {
            filter: Some(filter.clone()),
            order: request.order,
            descending: request.descending,
            ..v1::ListNodesRequest::default()
        };
        let token = PageToken::read(&request.page_token)?;
        let rows =
            move |snapshot: &Snapshot| node_rows(snapshot, &filter, order, request.descending);
        let question = question("nodes", &asked);
        let listing = self.listings.open(token, self.ledger.snapshot(), question, rows).await?;
        let snapshot = &listing.snapshot;
        let size = page_size(request.page_size, 100);
        let (nodes, next_page_token) = listing.page(token, size, |number| {
            snapshot.view(number).map(|view| present::node(&view, snapshot))
        });
        Ok(Response::new(v1::ListNodesResponse {
            nodes,
            next_page_token,
            total: listing.rows.len() as u64,
            freshness: Some(freshness(snapshot, now_unix_ms())),
        }))
    }

    async fn list_rounds(
        &self,
        request: Request<v1::ListRoundsRequest>,
    ) -> Result<Response<v1::ListRoundsResponse>, Status> {
        let request = request.into_inner();
        let token = PageToken::read(&request.page_token)?;
        let rows = |snapshot: &Snapshot| (0..).take(snapshot.rounds.len()).collect();
        let question = question("rounds", &v1::ListRoundsRequest::default());
        let listing = self.listings.open(token, self.ledger.snapshot(), question, rows).await?;
        let snapshot = &listing.snapshot;
        let size = page_size(request.page_size, 20);
        let (rounds, next_page_token) = listing.page(token, size, |row| {
            let newest_first = snapshot.rounds.iter().rev().nth(row as usize);
            newest_first.map(|summary| present::round(summary, snapshot))
        });
        Ok(Response::new(v1::ListRoundsResponse {
            rounds,
            next_page_token,
            freshness: Some(freshness(snapshot, now_unix_ms())),
        }))
    }

    async fn list_probes(
        &self,
        _request: Request<v1::ListProbesRequest>,
    ) -> Result<Response<v1::ListProbesResponse>, Status> {
        let snapshot = self.ledger.snapshot();
        let last = snapshot.rounds.last().map(|summary| &**summary);
        Ok(Response::new(v1::ListProbesResponse {
            probes: snapshot
                .probes
                .iter()
                .map(|status| present::probe(status, last, self.ledger.clock().peer(status.number)))
                .collect(),
            freshness: Some(freshness(&snapshot, now_unix_ms())),
        }))
    }

    async fn export_csv(
        &self,
        _request: Request<v1::ExportCsvRequest>,
    ) -> Result<Response<Self::ExportCsvStream>, Status> {
        let snapshot = self.ledger.snapshot();
        let fresh = freshness(&snapshot, now_unix_ms());
        let bytes = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            write_csv(&snapshot, &mut bytes).map(|()| bytes)
        })
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| Status::internal(error.to_string()))?;
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        // Ends with its reader or with the last piece.
        #[expect(clippy::disallowed_methods, reason = "lives as long as the call")]
        tokio::spawn(async move {
            for (index, piece) in bytes.chunks(CSV_PIECE_BYTES).enumerate() {
                let freshness = (index == 0).then(|| fresh.clone());
                let response = v1::ExportCsvResponse { data: piece.to_vec().into(), freshness };
                if sender.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_uptime(
        &self,
        request: Request<v1::GetUptimeRequest>,
    ) -> Result<Response<v1::GetUptimeResponse>, Status> {
        let request = request.into_inner();
        let (from_s, to_s) = window(request.window)?;
        let days = request.with_latency.then_some((from_s, to_s));
        if !request.ids.is_empty() {
            let snapshot = self.ledger.snapshot();
            let mut nodes = uptime_of(&snapshot, &request.ids, (from_s, to_s))?;
            self.add_latency(&snapshot, &mut nodes, days).await?;
            return Ok(Response::new(v1::GetUptimeResponse {
                nodes,
                next_page_token: String::new(),
                freshness: Some(freshness(&snapshot, now_unix_ms())),
            }));
        }
        let token = PageToken::read(&request.page_token)?;
        let rows = |snapshot: &Snapshot| {
            let all = snapshot.ids.by_id().iter().copied();
            all.filter(|number| snapshot.confirmed.contains(*number)).collect()
        };
        let asked = v1::GetUptimeRequest { window: request.window, ..Default::default() };
        // With latency or without, it is the same rows.
        let question = question("uptime", &asked);
        let listing = self.listings.open(token, self.ledger.snapshot(), question, rows).await?;
        let snapshot = &listing.snapshot;
        let size = page_size(request.page_size, 100);
        let (mut nodes, next_page_token) = listing.page(token, size, |number| {
            let id = snapshot.ids.id(number)?.to_string();
            Some(present::uptime(snapshot, number, id, (from_s, to_s)))
        });
        self.add_latency(snapshot, &mut nodes, days).await?;
        Ok(Response::new(v1::GetUptimeResponse {
            nodes,
            next_page_token,
            freshness: Some(freshness(snapshot, now_unix_ms())),
        }))
    }

    async fn list_outages(
        &self,
        request: Request<v1::ListOutagesRequest>,
    ) -> Result<Response<v1::ListOutagesResponse>, Status> {
        let request = request.into_inner();
        let id = node_id("id", &request.id)?;
        let (from_s, to_s) = window(request.window)?;
        let token = PageToken::read(&request.page_token)?;
        let asked = v1::ListOutagesRequest {
            id: request.id.clone(),
            window: request.window,
            ..Default::default()
        };
        let outages_of = move |snapshot: &Snapshot| {
            let number = snapshot.node(&id).map(|view| view.number);
            number.map(|number| snapshot.outages(number, from_s, to_s))
        };
        let current = self.ledger.snapshot();
        if snapshot_lacks(&current, &id) {
            return Err(not_found(&id));
        }
        let rows = move |snapshot: &Snapshot| {
            let count = outages_of(snapshot).map_or(0, |outages| outages.len());
            (0..).take(count).collect()
        };
        let listing = self.listings.open(token, current, question("outages", &asked), rows).await?;
        let snapshot = &listing.snapshot;
        let outages = outages_of(snapshot).unwrap_or_default();
        let size = page_size(request.page_size, 100);
        let (outages, next_page_token) =
            listing.page(token, size, |row| outages.get(row as usize).map(present::outage));
        Ok(Response::new(v1::ListOutagesResponse {
            outages,
            next_page_token,
            freshness: Some(freshness(snapshot, now_unix_ms())),
        }))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let request = request.into_inner();
        let id = node_id("id", &request.id)?;
        let snapshot = self.ledger.snapshot();
        let view = snapshot.node(&id).ok_or_else(|| not_found(&id))?;
        let round = Self::closed_round(&snapshot, request.round_unix_s)?;
        let account = self.ledger.explain(view.number, round).await;
        let mut account = account.map_err(|error| Status::unavailable(error.to_string()))?;
        account.forget_ages(&snapshot.epochs, snapshot.closed.unwrap_or(round));
        let mut rule = account.to_string();
        if round.start_s() < view.first_seen_s {
            rule.push_str(". The round lies before its first offer and does not count");
        }
        rule.push_str(&present::gaps(&snapshot, round));
        let (id, now_ms) = (id.to_string(), now_unix_ms());
        Ok(Response::new(present::explanation(id, &account, rule, &snapshot, now_ms)))
    }

    async fn watch_nodes(
        &self,
        request: Request<v1::WatchNodesRequest>,
    ) -> Result<Response<Self::WatchNodesStream>, Status> {
        let watching = watch::watch(&self.feed, request.into_inner())?;
        Ok(Response::new(Box::pin(watching)))
    }

    async fn get_summary(
        &self,
        _request: Request<v1::GetSummaryRequest>,
    ) -> Result<Response<v1::GetSummaryResponse>, Status> {
        Ok(Response::new(present::summary(&self.ledger.snapshot(), &self.ledger.clock().now())))
    }
}

fn snapshot_lacks(snapshot: &Snapshot, id: &NodeId) -> bool {
    snapshot.node(id).is_none()
}

impl Query {
    /// Adds the round trips of a window's days, where they are wanted.
    async fn add_latency(
        &self,
        snapshot: &Snapshot,
        nodes: &mut [v1::NodeUptime],
        window: Option<(u64, u64)>,
    ) -> Result<(), Status> {
        let Some(window) = window else { return Ok(()) };
        let ids = &snapshot.ids;
        let known = nodes.iter_mut().filter(|node| node.figures.is_some());
        let numbered = known.filter_map(|node| Some((ids.number(&node.id.parse().ok()?)?, node)));
        let (numbers, nodes): (Vec<u32>, Vec<_>) = numbered.unzip();
        let latency = self.ledger.latency(numbers, window).await;
        let latency = latency.map_err(|error| Status::unavailable(error.to_string()))?;
        for (node, latency) in nodes.into_iter().zip(latency) {
            node.latency = latency.as_ref().map(present::latency);
        }
        Ok(())
    }

    /// A node as it was when a closed round was closed.
    async fn node_at(
        &self,
        snapshot: &Arc<Snapshot>,
        number: u32,
        id: &NodeId,
        round: Round,
    ) -> Result<v1::Node, Status> {
        let as_of = self.ledger.as_of(Arc::clone(snapshot), number, round).await;
        let as_of = as_of.map_err(|error| Status::unavailable(error.to_string()))?;
        let view = snapshot.view_at(number, round, &as_of);
        let view = view.ok_or_else(|| not_found_by(id, round))?;
        Ok(present::node_at(&view, snapshot, round.end_s()))
    }
}

/// The uptime of these nodes; those that are not known come without figures.
fn uptime_of(
    snapshot: &Snapshot,
    ids: &[String],
    window: (u64, u64),
) -> Result<Vec<v1::NodeUptime>, Status> {
    if ids.len() > IDS_MAX {
        return Err(bad_field("ids", format!("{} ids, at most {IDS_MAX}", ids.len())));
    }
    let one = |(at, text): (usize, &String)| {
        let id = node_id(&format!("ids[{at}]"), text)?;
        let number = snapshot.node(&id).map(|view| view.number);
        let id = id.to_string();
        Ok(match number {
            Some(number) => present::uptime(snapshot, number, id, window),
            None => v1::NodeUptime { id, ..v1::NodeUptime::default() },
        })
    };
    ids.iter().enumerate().map(one).collect()
}
