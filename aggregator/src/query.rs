//! Answers over gRPC, from immutable snapshots.
//!
//! Owns the translation of a snapshot into wire messages, and pages. Refuses to touch the ledger's
//! state: whatever is asked, ingest is not held up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use uptime_proto::v1::{self, NodeOrder};
use uptime_proto::{NodeId, Round};

use crate::clock::now_unix_ms;
use crate::ledger::Ledger;
use crate::ledger::evidence::Ineligibility;
use crate::ledger::snapshot::{NodeView, ProbeStatus, Snapshot};
use crate::ledger::state::RoundSummary;
use crate::ledger::uptime::Tally;
use crate::ledger::verdict::Verdict;
use crate::publish::write_csv;

/// The largest page.
const PAGE_MAX: u32 = 1_000;
/// The encoded rows of a page: leaves a message room for the rest.
const PAGE_BYTES_MAX: usize = uptime_proto::MESSAGE_BYTES_MAX - 16 * 1024;
/// Tag and length of a row in its message.
const ROW_OVERHEAD_BYTES: usize = 8;
/// Snapshots kept for readers in the middle of a listing: ten minutes at the default period.
const PAGED_SNAPSHOTS_MAX: usize = 20;
/// Bytes of CSV in one message.
const CSV_PIECE_BYTES: usize = 64 * 1024;

/// The `UptimeQuery` service.
#[derive(Clone)]
pub struct Query {
    ledger: Ledger,
    /// Snapshots that a page token may name, oldest first, one per closed round.
    paged: Arc<Mutex<VecDeque<Arc<Snapshot>>>>,
}

/// What a page token says: the listing's snapshot and the next row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PageToken {
    closed_s: u64,
    serial: u64,
    next: usize,
}

impl PageToken {
    fn read(text: &str) -> Result<Option<Self>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        let mut parts = text.split('-');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let token = (|| {
            let (closed_s, serial, next) = (number()?, number()?, number()?);
            Some(Self { closed_s, serial, next: usize::try_from(next).ok()? })
        })();
        let parts = token.filter(|_| parts.next().is_none());
        parts.map(Some).ok_or_else(|| {
            Status::invalid_argument("page_token: give back what the last page said, unchanged")
        })
    }

    fn write(self) -> String {
        format!("{}-{}-{}", self.closed_s, self.serial, self.next)
    }
}

fn page_size(asked: u32, default: u32) -> usize {
    let size = if asked == 0 { default } else { asked.min(PAGE_MAX) };
    size as usize
}

fn unimplemented(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not answered by this version"))
}

impl Query {
    /// The service over a ledger's snapshots.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, paged: Arc::default() }
    }

    /// The snapshot of a listing: the current one for a first page, else the one its token names.
    fn snapshot_of(&self, token: Option<PageToken>) -> Result<Arc<Snapshot>, Status> {
        let current = self.ledger.snapshot();
        // A leaf: nothing is awaited while it is held.
        let mut paged = self.paged.lock().unwrap_or_else(PoisonError::into_inner);
        match token {
            None => {
                if paged.back().is_none_or(|last| last.serial != current.serial) {
                    paged.push_back(Arc::clone(&current));
                    if paged.len() > PAGED_SNAPSHOTS_MAX {
                        paged.pop_front();
                    }
                }
                Ok(current)
            }
            Some(token) => {
                let kept = paged
                    .iter()
                    .find(|kept| kept.serial == token.serial && closed_s(kept) == token.closed_s);
                kept.map(Arc::clone).ok_or_else(|| {
                    Status::aborted("page_token: this listing is too old to go on; start anew")
                })
            }
        }
    }
}

/// How fresh an answer from this snapshot is.
#[must_use]
pub fn freshness(snapshot: &Snapshot, now_ms: i64) -> v1::Freshness {
    let closed_s = snapshot.closed.map_or(0, Round::start_s);
    let epoch = snapshot.epochs.at(closed_s);
    v1::Freshness {
        last_closed_round_unix_s: closed_s,
        round_period_s: epoch.period.seconds(),
        answered_at_unix_ms: now_ms,
        method: uptime_proto::round::METHOD_FRESH.to_owned(),
        epoch_start_unix_s: epoch.start_s,
        store_id: snapshot.store_id.to_vec().into(),
        generation: snapshot.generation,
    }
}

fn verdict(verdict: Verdict) -> v1::Verdict {
    match verdict {
        Verdict::Up => v1::Verdict::Up,
        Verdict::Down => v1::Verdict::Down,
        Verdict::Unknown => v1::Verdict::Unknown,
    }
}

fn ineligibility(reason: Ineligibility) -> i32 {
    let reason = match reason {
        Ineligibility::RelaySessionYoung => v1::Ineligibility::RelaySessionYoung,
        Ineligibility::RelaySessionMissing => v1::Ineligibility::RelaySessionMissing,
        Ineligibility::MassLoss => v1::Ineligibility::MassLoss,
        Ineligibility::DidNotLook => v1::Ineligibility::DidNotLook,
    };
    reason as i32
}

fn figures(tally: &Tally, from_unix_s: u64, to_unix_s: u64) -> v1::UptimeFigures {
    v1::UptimeFigures {
        uptime_percent: tally.uptime_percent(),
        coverage_percent: tally.coverage_percent(),
        up_s: tally.up_s,
        down_s: tally.down_s,
        unknown_s: tally.unknown_s,
        up_rounds: tally.up_rounds,
        down_rounds: tally.down_rounds,
        unknown_rounds: tally.unknown_rounds,
        window: Some(v1::Window { from_unix_s, to_unix_s }),
    }
}

fn node(view: &NodeView<'_>, snapshot: &Snapshot) -> v1::Node {
    let details = view.details.cloned().unwrap_or_default();
    v1::Node {
        id: view.id.to_string(),
        is_online: view.is_online,
        verdict: verdict(view.verdict) as i32,
        verdict_since_unix_s: view.verdict_since_s,
        first_seen_unix_s: view.first_seen_s,
        last_seen_unix_ms: view.last_seen_ms,
        retired: view.retired,
        all: Some(figures(&view.tally, view.first_seen_s, snapshot.closed_end_s())),
        subnets: view.subnets.iter().map(|name| (*name).to_owned()).collect(),
        name: details.name,
        runtime: details.runtime,
        runtime_version: details.runtime_version,
        networks: details.networks,
        round_trip_us: None,
        flapping: false,
    }
}

fn probe(status: &ProbeStatus, last: Option<&RoundSummary>) -> v1::Probe {
    let round = last.and_then(|last| last.probes.get(&status.number));
    let reasons = round.map_or(&[][..], |round| &round.ineligibilities);
    v1::Probe {
        name: status.name.clone(),
        connected: status.connected,
        revoked: status.revoked,
        software_version: status.software_version.clone(),
        subnets: status.subnets.clone(),
        last_report_unix_ms: status.last_report_ms.unwrap_or(0),
        last_round_unix_s: last.filter(|_| round.is_some()).map_or(0, |last| last.round.start_s()),
        eligible: round.is_some_and(|round| round.ballot.eligible),
        ineligibilities: reasons.iter().copied().map(ineligibility).collect(),
        could_not_look: round.map_or_else(Vec::new, |round| {
            round.could_not_look.iter().map(|reason| reason.to_wire() as i32).collect()
        }),
        parts_accepted: status.parts_accepted,
        parts_refused: status.parts_refused,
        conflicts: status.conflicts,
        assigned_nodes: status.assigned_nodes,
    }
}

fn round(summary: &RoundSummary, snapshot: &Snapshot) -> v1::Round {
    let name = |number: u32| {
        let status = snapshot.probes.iter().find(|status| status.number == number);
        status.map_or_else(|| format!("probe {number}"), |status| status.name.clone())
    };
    let eligible = summary.probes.values().filter(|probe| probe.ballot.eligible).count();
    let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::Round {
        start_unix_s: summary.round.start_s(),
        period_s: summary.round.period().seconds(),
        up: summary.up,
        down: summary.down,
        unknown: summary.unknown,
        probes_reported: narrow(summary.probes.len()),
        probes_eligible: narrow(eligible),
        probes: summary
            .probes
            .iter()
            .map(|(number, probe)| v1::RoundProbe {
                probe: name(*number),
                eligible: probe.ballot.eligible,
                ineligibilities: probe.ineligibilities.iter().copied().map(ineligibility).collect(),
                could_not_look: probe.could_not_look.iter().map(|r| r.to_wire() as i32).collect(),
                offers: probe.offers,
                looked: probe.tallied.looked,
                found: probe.tallied.found,
            })
            .collect(),
    }
}

fn wanted(view: &NodeView<'_>, filter: &v1::NodeFilter) -> bool {
    let name = view.details.map_or("", |details| details.name.as_str());
    filter.is_online.is_none_or(|online| online == view.is_online)
        && (filter.subnet.is_empty() || view.subnets.contains(&filter.subnet.as_str()))
        && (filter.id_prefix.is_empty()
            || view.id.to_string().starts_with(&filter.id_prefix.to_lowercase()))
        && (filter.name_contains.is_empty() || name.contains(&filter.name_contains))
        && (filter.include_retired || !view.retired)
}

fn sorted<'a>(
    mut views: Vec<NodeView<'a>>,
    order: NodeOrder,
    descending: bool,
) -> Vec<NodeView<'a>> {
    let uptime = |view: &NodeView<'_>| view.tally.uptime_percent().unwrap_or(-1.0);
    let name = |view: &NodeView<'a>| view.details.map_or("", |details| details.name.as_str());
    // Views come ascending by id and sorting is stable, so equal keys stay ascending by id.
    match order {
        NodeOrder::Unspecified | NodeOrder::Id => {}
        NodeOrder::Uptime => views.sort_by(|a, b| uptime(a).total_cmp(&uptime(b))),
        NodeOrder::LastSeen => views.sort_by_key(|view| view.last_seen_ms),
        NodeOrder::Name => views.sort_by(|a, b| name(a).cmp(name(b))),
    }
    if descending {
        views.reverse();
    }
    views
}

fn closed_s(snapshot: &Snapshot) -> u64 {
    snapshot.closed.map_or(0, Round::start_s)
}

/// One page, and the token of the next. A page ends early where it would not fit a message.
fn page<T, R: Message>(
    rows: &[T],
    token: Option<PageToken>,
    size: usize,
    snapshot: &Snapshot,
    show: impl Fn(&T) -> R,
) -> (Vec<R>, String) {
    let from = token.map_or(0, |token| token.next).min(rows.len());
    let (mut shown, mut bytes) = (Vec::new(), 0);
    for row in rows[from..].iter().take(size) {
        let row = show(row);
        bytes += row.encoded_len() + ROW_OVERHEAD_BYTES;
        if bytes > PAGE_BYTES_MAX && !shown.is_empty() {
            break;
        }
        shown.push(row);
    }
    let next = from + shown.len();
    let token = PageToken { closed_s: closed_s(snapshot), serial: snapshot.serial, next };
    let token = if next < rows.len() { token.write() } else { String::new() };
    (shown, token)
}

#[tonic::async_trait]
impl v1::uptime_query_server::UptimeQuery for Query {
    type WatchNodesStream = ReceiverStream<Result<v1::WatchNodesResponse, Status>>;
    type ExportCsvStream = ReceiverStream<Result<v1::ExportCsvResponse, Status>>;

    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let id: NodeId = request
            .into_inner()
            .id
            .parse()
            .map_err(|error| Status::invalid_argument(format!("id: {error}")))?;
        let snapshot = self.ledger.snapshot();
        let view = snapshot.node(&id).ok_or_else(|| {
            Status::not_found(format!(
                "{id} was never seen, or is not confirmed yet: one probe's offer alone is not \
                 enough"
            ))
        })?;
        Ok(Response::new(v1::GetNodeResponse {
            node: Some(node(&view, &snapshot)),
            freshness: Some(freshness(&snapshot, now_unix_ms())),
        }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let request = request.into_inner();
        let order = NodeOrder::try_from(request.order)
            .map_err(|_| Status::invalid_argument(format!("order: {} unknown", request.order)))?;
        let filter = request.filter.unwrap_or_default();
        if filter.members_only {
            return Err(unimplemented("filter.members_only"));
        }
        let token = PageToken::read(&request.page_token)?;
        let snapshot = self.snapshot_of(token)?;
        let views = snapshot.nodes().filter(|view| wanted(view, &filter)).collect();
        let views = sorted(views, order, request.descending);
        let size = page_size(request.page_size, 100);
        let (nodes, next_page_token) =
            page(&views, token, size, &snapshot, |view| node(view, &snapshot));
        Ok(Response::new(v1::ListNodesResponse {
            nodes,
            next_page_token,
            total: views.len() as u64,
            freshness: Some(freshness(&snapshot, now_unix_ms())),
        }))
    }

    async fn list_rounds(
        &self,
        request: Request<v1::ListRoundsRequest>,
    ) -> Result<Response<v1::ListRoundsResponse>, Status> {
        let request = request.into_inner();
        let token = PageToken::read(&request.page_token)?;
        let snapshot = self.snapshot_of(token)?;
        let newest_first: Vec<_> = snapshot.rounds.iter().rev().collect();
        let size = page_size(request.page_size, 20);
        let (rounds, next_page_token) =
            page(&newest_first, token, size, &snapshot, |summary| round(summary, &snapshot));
        Ok(Response::new(v1::ListRoundsResponse {
            rounds,
            next_page_token,
            freshness: Some(freshness(&snapshot, now_unix_ms())),
        }))
    }

    async fn list_probes(
        &self,
        _request: Request<v1::ListProbesRequest>,
    ) -> Result<Response<v1::ListProbesResponse>, Status> {
        let snapshot = self.ledger.snapshot();
        let last = snapshot.rounds.last().map(|summary| &**summary);
        Ok(Response::new(v1::ListProbesResponse {
            probes: snapshot.probes.iter().map(|status| probe(status, last)).collect(),
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
        _request: Request<v1::GetUptimeRequest>,
    ) -> Result<Response<v1::GetUptimeResponse>, Status> {
        Err(unimplemented("GetUptime"))
    }

    async fn list_outages(
        &self,
        _request: Request<v1::ListOutagesRequest>,
    ) -> Result<Response<v1::ListOutagesResponse>, Status> {
        Err(unimplemented("ListOutages"))
    }

    async fn explain(
        &self,
        _request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        Err(unimplemented("Explain"))
    }

    async fn watch_nodes(
        &self,
        _request: Request<v1::WatchNodesRequest>,
    ) -> Result<Response<Self::WatchNodesStream>, Status> {
        Err(unimplemented("WatchNodes"))
    }

    async fn get_summary(
        &self,
        _request: Request<v1::GetSummaryRequest>,
    ) -> Result<Response<v1::GetSummaryResponse>, Status> {
        Err(unimplemented("GetSummary"))
    }
}

#[cfg(test)]
mod tests {
    use uptime_proto::{Epoch, Epochs, Period};

    use super::*;

    fn snapshot() -> Snapshot {
        let epoch = Epoch::with_defaults(Period::new(30).expect("divides the day"));
        let epochs = Epochs::new(vec![epoch]).expect("one epoch");
        Snapshot::empty(Arc::new(epochs))
    }

    #[test]
    fn page_tokens_come_back_and_others_are_refused() {
        let token = PageToken { closed_s: 1_800_000_000, serial: 7, next: 300 };
        assert_eq!(PageToken::read(&token.write()).ok().flatten(), Some(token));
        assert_eq!(PageToken::read("").ok(), Some(None));
        for bad in ["x", "1-", "1-2", "-1-2", "1-2-3-4", "99999999999999999999-1-1"] {
            assert!(PageToken::read(bad).is_err(), "{bad}");
        }
    }

    /// Every row once, whatever ends a page; answers how many pages it took.
    fn pages_of(rows: &[String], size: usize) -> usize {
        let (mut all, mut token, mut pages) = (Vec::new(), None, 0);
        loop {
            let (part, next) = page(rows, token, size, &snapshot(), String::clone);
            let bytes: usize = part.iter().map(String::len).sum();
            assert!(part.len() <= size && (bytes < 1 << 20 || part.len() == 1));
            all.extend(part);
            pages += 1;
            token = PageToken::read(&next).ok().flatten();
            if token.is_none() {
                assert_eq!(all, rows);
                return pages;
            }
        }
    }

    #[test]
    fn pages_cover_everything_once_and_fit_a_message() {
        let row = |number: usize, bytes| format!("{number}{}", "x".repeat(bytes));
        let small: Vec<String> = (0..25).map(|number| row(number, 4)).collect();
        assert_eq!(pages_of(&small, 10), 3);
        let large: Vec<String> = (0..25).map(|number| row(number, 300_000)).collect();
        assert_eq!(pages_of(&large, 10), 9);
        assert_eq!((page_size(0, 100), page_size(5, 100), page_size(9_999, 100)), (100, 5, 1_000));
    }
}
