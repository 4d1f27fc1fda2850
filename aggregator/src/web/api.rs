//! `/api/v1/…`: the query service over HTTP, as JSON.
//!
//! Owns the list of routes: what each is called, which parameters it knows, and the message that
//! answers it. Asks the same methods that gRPC does and prints what they answer, so there is one
//! definition of every answer. Refuses to compute anything about a node.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use prost::Message;
use tonic::{Code, Request, Status};
use uptime_proto::NodeId;
use uptime_proto::v1::uptime_query_server::UptimeQuery;
use uptime_proto::v1::{self, NodeOrder};

use super::error::WebError;
use super::json;
use super::query_params::{QUERY_BYTES_MAX, QUERY_OF_IDS_BYTES_MAX, QueryParams};
use super::site::{InPath, Site};
use super::time_format::{instant, window};

/// The most ids one address may name: with them it still fits the head of a request that the
/// listener takes, cookies and all. gRPC takes four times as many.
pub(super) const IDS_MAX: usize = 250;

/// What a question is put to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Nodes,
    Node,
    NodeUptime,
    Uptime,
    Outages,
    Explain,
    Rounds,
    Probes,
    Summary,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Flag,
    PageSize,
    Ids,
    Order,
    Instant,
    Span,
}

/// One parameter of a query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) what: &'static str,
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) call: Call,
    /// The method of the query service that answers, and its messages' short names.
    pub(super) method: &'static str,
    pub(super) request: &'static str,
    pub(super) response: &'static str,
    pub(super) what: &'static str,
    pub(super) parameters: &'static [&'static Parameter],
}

const fn parameter(name: &'static str, kind: Kind, what: &'static str) -> Parameter {
    Parameter { name, kind, what }
}

const PAGE_SIZE: Parameter = parameter(
    "page_size",
    Kind::PageSize,
    "Rows per page, 1 to 1,000; larger values mean 1,000. A page may be shorter.",
);
const PAGE_TOKEN: Parameter = parameter(
    "page_token",
    Kind::Text,
    "The next_page_token of the previous page; keep all other parameters.",
);
const IS_ONLINE: Parameter =
    parameter("is_online", Kind::Flag, "Only nodes whose last known verdict is up (or is not).");
const SUBNET: Parameter =
    parameter("subnet", Kind::Text, "Only nodes with an offer in this subnet.");
const ID_PREFIX: Parameter =
    parameter("id_prefix", Kind::Text, "Only ids with this prefix, 0x included.");
const NAME_CONTAINS: Parameter =
    parameter("name_contains", Kind::Text, "Only nodes whose name contains this text.");
const INCLUDE_RETIRED: Parameter =
    parameter("include_retired", Kind::Flag, "Include retired nodes.");
const MEMBERS_ONLY: Parameter =
    parameter("members_only", Kind::Flag, "Only nodes with an offer in the last 24 hours.");
const ORDER: Parameter = parameter("order", Kind::Order, "Sort key; equal rows go by id.");
const DESCENDING: Parameter = parameter("descending", Kind::Flag, "Sort in descending order.");
const IDS: Parameter =
    parameter("ids", Kind::Ids, "Comma-separated node ids, at most 250 [default: all, in pages].");
const WINDOW: Parameter = parameter(
    "window",
    Kind::Span,
    "Length of the window before the end of the last closed round (24h, 7d, 30d, 90d, …), or \
     all. Not together with from and to.",
);
const FROM: Parameter = parameter("from", Kind::Instant, "Start, inclusive [default: first seen].");
const TO: Parameter =
    parameter("to", Kind::Instant, "End, exclusive [default: the end of the last closed round].");
const ROUND: Parameter =
    parameter("round", Kind::Instant, "The start of the round [default: the last closed round].");

const LATENCY: Parameter = parameter(
    "with_latency",
    Kind::Flag,
    "Include round trip times on the UTC days that the window touches; takes longer.",
);

/// All routes.
pub(super) const ROUTES: [Route; 9] = [
    Route {
        path: "/api/v1/nodes",
        call: Call::Nodes,
        method: "ListNodes",
        request: "ListNodesRequest",
        response: "ListNodesResponse",
        what: "Nodes by filter; all pages are of the same round.",
        parameters: &[
            &IS_ONLINE,
            &SUBNET,
            &ID_PREFIX,
            &NAME_CONTAINS,
            &INCLUDE_RETIRED,
            &MEMBERS_ONLY,
            &ORDER,
            &DESCENDING,
            &PAGE_SIZE,
            &PAGE_TOKEN,
        ],
    },
    Route {
        path: "/api/v1/nodes/{id}",
        call: Call::Node,
        method: "GetNode",
        request: "GetNodeRequest",
        response: "GetNodeResponse",
        what: "One node, now or as of a closed round.",
        parameters: &[&ROUND],
    },
    Route {
        path: "/api/v1/nodes/{id}/uptime",
        call: Call::NodeUptime,
        method: "GetUptime",
        request: "GetUptimeRequest",
        response: "GetUptimeResponse",
        what: "Uptime of one node over any window.",
        parameters: &[&WINDOW, &FROM, &TO, &LATENCY],
    },
    Route {
        path: "/api/v1/uptime",
        call: Call::Uptime,
        method: "GetUptime",
        request: "GetUptimeRequest",
        response: "GetUptimeResponse",
        what: "Uptime of many nodes over any window. Unknown nodes come without figures.",
        parameters: &[&IDS, &WINDOW, &FROM, &TO, &LATENCY, &PAGE_SIZE, &PAGE_TOKEN],
    },
    Route {
        path: "/api/v1/nodes/{id}/outages",
        call: Call::Outages,
        method: "ListOutages",
        request: "ListOutagesRequest",
        response: "ListOutagesResponse",
        what: "Outages of one node in a window, with their unknown stretches.",
        parameters: &[&WINDOW, &FROM, &TO, &PAGE_SIZE, &PAGE_TOKEN],
    },
    Route {
        path: "/api/v1/nodes/{id}/explain",
        call: Call::Explain,
        method: "Explain",
        request: "ExplainRequest",
        response: "ExplainResponse",
        what: "What each probe saw of a node in a round, and the rule that decided.",
        parameters: &[&ROUND],
    },
    Route {
        path: "/api/v1/rounds",
        call: Call::Rounds,
        method: "ListRounds",
        request: "ListRoundsRequest",
        response: "ListRoundsResponse",
        what: "Recent rounds, newest first.",
        parameters: &[&PAGE_SIZE, &PAGE_TOKEN],
    },
    Route {
        path: "/api/v1/probes",
        call: Call::Probes,
        method: "ListProbes",
        request: "ListProbesRequest",
        response: "ListProbesResponse",
        what: "The probes and their state.",
        parameters: &[],
    },
    Route {
        path: "/api/v1/summary",
        call: Call::Summary,
        method: "GetSummary",
        request: "GetSummaryRequest",
        response: "GetSummaryResponse",
        what: "The network in a few numbers.",
        parameters: &[],
    },
];

/// The sort keys of a listing, as the parameter names them.
pub(super) const ORDERS: [(&str, NodeOrder); 4] = [
    ("id", NodeOrder::Id),
    ("uptime", NodeOrder::Uptime),
    ("last_seen", NodeOrder::LastSeen),
    ("name", NodeOrder::Name),
];

type Shared = State<Arc<Site>>;

impl Route {
    fn names(&self) -> Vec<&'static str> {
        self.parameters.iter().map(|parameter| parameter.name).collect()
    }

    fn query_bytes_max(&self) -> usize {
        let ids = self.parameters.iter().any(|parameter| parameter.kind == Kind::Ids);
        if ids { QUERY_OF_IDS_BYTES_MAX } else { QUERY_BYTES_MAX }
    }

    /// What answers it.
    pub(super) fn service(&'static self) -> MethodRouter<Arc<Site>> {
        if self.path.contains("{id}") {
            get(move |State(site): Shared, InPath(id): InPath, query: RawQuery| async move {
                self.respond(&site, Some(&id), query).await
            })
        } else {
            get(move |State(site): Shared, query: RawQuery| async move {
                self.respond(&site, None, query).await
            })
        }
    }

    async fn respond(&self, site: &Site, id: Option<&str>, RawQuery(query): RawQuery) -> Response {
        match self.answer(site, id, query.as_deref()).await {
            Ok(body) => {
                let headers = [
                    (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
                ];
                (headers, body).into_response()
            }
            Err(error) => error.into_json(),
        }
    }

    async fn answer(
        &self,
        site: &Site,
        id: Option<&str>,
        query: Option<&str>,
    ) -> Result<Bytes, WebError> {
        let params = QueryParams::read(query, &self.names(), self.query_bytes_max())?;
        let id = id.map(|id| node_id("id", id)).transpose()?;
        let id = id.map_or_else(String::new, |id| id.to_string());
        let _place = site.gate.enter().await?;
        let mut fields = self.names();
        fields.push("id");
        let encoded = self.encoded(site, id, &params).await?;
        let encoded = encoded.map_err(|status| WebError::refused(&status, &fields))?;
        let name = self.response;
        let printed = tokio::task::spawn_blocking(move || json::print(name, &encoded)).await;
        let printed = printed.map_err(|error| WebError::internal(name, &error))?;
        printed.map(Bytes::from).map_err(|error| WebError::internal(name, &error))
    }

    /// Asks; answers the encoded message.
    async fn encoded(
        &self,
        site: &Site,
        id: String,
        params: &QueryParams,
    ) -> Result<Result<Vec<u8>, Status>, WebError> {
        let query = &site.query;
        let closed_end_s = site.web.ledger.snapshot().closed_end_s();
        Ok(match self.call {
            Call::Nodes => encoded(query.list_nodes(nodes_request(params)?).await),
            Call::Node => {
                let round_unix_s = round(params)?;
                encoded(query.get_node(Request::new(v1::GetNodeRequest { id, round_unix_s })).await)
            }
            Call::NodeUptime => {
                let window = Some(window(params, closed_end_s)?);
                let with_latency = params.flag("with_latency")?.unwrap_or(false);
                let ids = vec![id];
                let request =
                    v1::GetUptimeRequest { ids, window, with_latency, ..Default::default() };
                known(query.get_uptime(Request::new(request)).await)
            }
            Call::Uptime => {
                let request = uptime_request(params, closed_end_s)?;
                encoded(query.get_uptime(Request::new(request)).await)
            }
            Call::Outages => {
                let request = v1::ListOutagesRequest {
                    id,
                    window: Some(window(params, closed_end_s)?),
                    page_size: params.count("page_size")?,
                    page_token: params.text("page_token")?,
                };
                encoded(query.list_outages(Request::new(request)).await)
            }
            Call::Explain => {
                let round_unix_s = round(params)?;
                encoded(query.explain(Request::new(v1::ExplainRequest { id, round_unix_s })).await)
            }
            Call::Rounds => {
                let request = v1::ListRoundsRequest {
                    page_size: params.count("page_size")?,
                    page_token: params.text("page_token")?,
                };
                encoded(query.list_rounds(Request::new(request)).await)
            }
            Call::Probes => {
                encoded(query.list_probes(Request::new(v1::ListProbesRequest {})).await)
            }
            Call::Summary => {
                encoded(query.get_summary(Request::new(v1::GetSummaryRequest {})).await)
            }
        })
    }
}

fn encoded<M: Message>(answer: Result<tonic::Response<M>, Status>) -> Result<Vec<u8>, Status> {
    answer.map(|answer| answer.into_inner().encode_to_vec())
}

/// The uptime of one node; without figures it is not known, which one route says by its status.
fn known(
    answer: Result<tonic::Response<v1::GetUptimeResponse>, Status>,
) -> Result<Vec<u8>, Status> {
    let answer = answer?.into_inner();
    if answer.nodes.iter().all(|node| node.figures.is_none()) {
        let text = "this node was never seen, or is not confirmed yet";
        return Err(Status::new(Code::NotFound, text));
    }
    Ok(answer.encode_to_vec())
}

/// A node id, checked; upper-case digits are taken, as people paste them.
pub(super) fn node_id(field: &str, text: &str) -> Result<NodeId, WebError> {
    text.parse().map_err(|_| {
        WebError::of(field, "must be 0x and 40 hexadecimal digits, as a node's yagna prints its id")
    })
}

fn nodes_request(params: &QueryParams) -> Result<Request<v1::ListNodesRequest>, WebError> {
    let filter = v1::NodeFilter {
        is_online: params.flag("is_online")?,
        subnet: params.text("subnet")?,
        id_prefix: params.text("id_prefix")?,
        name_contains: params.text("name_contains")?,
        include_retired: params.flag("include_retired")?.unwrap_or(false),
        members_only: params.flag("members_only")?.unwrap_or(false),
    };
    Ok(Request::new(v1::ListNodesRequest {
        page_size: params.count("page_size")?,
        page_token: params.text("page_token")?,
        filter: Some(filter),
        order: params.choice("order", &ORDERS)?.unwrap_or(NodeOrder::Unspecified) as i32,
        descending: params.flag("descending")?.unwrap_or(false),
    }))
}

fn uptime_request(
    params: &QueryParams,
    closed_end_s: u64,
) -> Result<v1::GetUptimeRequest, WebError> {
    let ids: Vec<&str> = params.get("ids").map_or_else(Vec::new, |ids| ids.split(',').collect());
    if ids.len() > IDS_MAX {
        return Err(WebError::of("ids", format!("are {}, at most {IDS_MAX}", ids.len())));
    }
    let checked = ids.iter().map(|id| node_id("ids", id).map(|id| id.to_string()));
    Ok(v1::GetUptimeRequest {
        ids: checked.collect::<Result<_, _>>()?,
        window: Some(window(params, closed_end_s)?),
        page_size: params.count("page_size")?,
        page_token: params.text("page_token")?,
        with_latency: params.flag("with_latency")?.unwrap_or(false),
    })
}

/// The start of a round; 0: the last closed one.
fn round(params: &QueryParams) -> Result<u64, WebError> {
    let Some(text) = params.get("round") else { return Ok(0) };
    let second = instant("round", text)?;
    u64::try_from(second)
        .ok()
        .filter(|second| *second > 0)
        .ok_or_else(|| WebError::of("round", "lies before anything could be recorded"))
}
