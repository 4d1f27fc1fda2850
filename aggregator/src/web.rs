//! HTTP: the pages, the JSON mirrors of the query service, the CSV, badges, metrics and health.
//!
//! Owns routes and what every answer carries. Every text that came from outside is made safe to
//! show (`escape`); no page asks any other origin for anything, and a browser is told to hold it to
//! that. What is asked of `/api/v1` is answered by the query service; the pages read the same
//! snapshots.

mod api;
mod assets;
mod badge;
mod chart;
mod download;
mod error;
mod escape;
mod gate;
mod json;
mod layout;
mod listing;
mod node_page;
mod openapi;
mod overview;
mod query_params;
mod site;
mod table;
mod time_format;
mod words;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tonic::{Code, Request};
use uptime_proto::NodeId;
use uptime_proto::clock::ClockState;
use uptime_proto::v1::uptime_query_server::UptimeQuery;
use uptime_proto::v1::{ExplainRequest, ExplainResponse, GetNodeRequest};

use crate::query::Query;
use error::WebError;
use site::{InPath, Site};

pub use site::Web;

/// How long a page waits for the explanation of the last round before it goes without.
const ACCOUNT_WAIT: Duration = Duration::from_secs(2);

/// The table of nodes that a query asks for, as the link that asks for the same.
///
/// # Errors
/// With why it is refused.
pub fn table_asked_for(query: &str) -> Result<String, String> {
    let wanted = listing::Wanted::read(Some(query)).map_err(|error| error.message)?;
    Ok(wanted.link(wanted.sort_word(), wanted.page))
}

/// The window that a query asks for of a ledger whose last closed round ended then, in unix
/// seconds; 0 at an end leaves it open.
///
/// # Errors
/// With why it is refused.
pub fn window_asked_for(query: &str, closed_end_s: u64) -> Result<(u64, u64), String> {
    let known = ["window", "from", "to"];
    let window =
        query_params::QueryParams::read(Some(query), &known, query_params::QUERY_BYTES_MAX)
            .and_then(|params| time_format::window(&params, closed_end_s))
            .map_err(|error| error.message)?;
    Ok((window.from_unix_s, window.to_unix_s))
}

async fn asset(Path(name): Path<String>) -> Response {
    assets::file(&name).unwrap_or_else(layout::error_page)
}

/// The routes.
pub fn router(web: Web) -> Router {
    let site = Arc::new(Site::new(web));
    let mut router = Router::new()
        .route("/", get(index))
        .route("/nodes", get(|| async { Redirect::permanent("/#nodes") }))
        .route("/nodes/{id}", get(node))
        .route("/nodes_status.csv", get(csv))
        .route("/badge/{file}", get(badge))
        .route("/assets/{name}", get(asset))
        .route("/api/v1/openapi.json", get(openapi))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready));
    for route in &api::ROUTES {
        router = router.route(route.path, route.service());
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(map_response(layout::guarded))
        .with_state(site)
}

/// An error in the form that fits the address.
fn refusal(uri: &Uri, error: WebError) -> Response {
    if uri.path().starts_with("/api/") { error.into_json() } else { layout::error_page(error) }
}

async fn not_found(uri: Uri) -> Response {
    let text = "there is nothing at this address; /api/v1/openapi.json describes the API";
    refusal(&uri, WebError::new(Code::NotFound, text))
}

async fn not_allowed(uri: Uri) -> Response {
    let error = WebError::new(Code::Unimplemented, "only GET and HEAD are allowed here");
    refusal(&uri, WebError { status: StatusCode::METHOD_NOT_ALLOWED, ..error })
}

async fn index(State(site): State<Arc<Site>>, RawQuery(query): RawQuery) -> Response {
    let made = async {
        let wanted = listing::Wanted::read(query.as_deref())?;
        let place = site.gate.enter().await?;
        let there = Arc::clone(&site);
        tokio::task::spawn_blocking(move || {
            // Kept until the page is made, whether or not anybody still waits for it.
            let _place = place;
            let snapshot = there.web.ledger.snapshot();
            let now_ms = (there.web.now_unix_ms)();
            let clock = there.web.ledger.clock().now();
            overview::page(&snapshot, &there.listings, &wanted, now_ms, &clock)
        })
        .await
        .map_err(|error| WebError::internal("the overview", &error))
    };
    match made.await {
        Ok(html) => layout::respond(StatusCode::OK, html),
        Err(error) => layout::error_page(error),
    }
}

async fn node(State(site): State<Arc<Site>>, InPath(id): InPath) -> Response {
    let made = async {
        let id = api::node_id("id", &id)?;
        let place = site.gate.enter().await?;
        let page = node_page(&site, id).await;
        drop(place);
        page
    };
    match made.await {
        Ok(html) => layout::respond(StatusCode::OK, html),
        Err(error) => layout::error_page(error),
    }
}

async fn node_page(site: &Arc<Site>, id: NodeId) -> Result<String, WebError> {
    let request = Request::new(GetNodeRequest { id: id.to_string(), round_unix_s: 0 });
    let answer = site.query.get_node(request).await;
    let answer = answer.map_err(|status| WebError::refused(&status, &["id"]))?.into_inner();
    let snapshot = site.web.ledger.snapshot();
    let account = match snapshot.closed {
        Some(round) => account(&site.query, id, round.start_s()).await,
        None => Err("No round has closed yet."),
    };
    let now_ms = (site.web.now_unix_ms)();
    let told = node_page::Told { node: answer.node.unwrap_or_default(), account, now_ms };
    let drawn = tokio::task::spawn_blocking(move || {
        snapshot.node(&id).map(|view| node_page::page(&snapshot, &view, &told))
    });
    let drawn = drawn.await.map_err(|error| WebError::internal("the page of a node", &error))?;
    // The node was there a moment ago.
    drawn.ok_or_else(|| WebError::new(Code::NotFound, "this node is no longer known"))
}

/// The explanation of a round, if it comes in time: a page now is worth more than a complete one.
async fn account(
    query: &Query,
    id: NodeId,
    round_unix_s: u64,
) -> Result<ExplainResponse, &'static str> {
    let request = Request::new(ExplainRequest { id: id.to_string(), round_unix_s });
    match tokio::time::timeout(ACCOUNT_WAIT, query.explain(request)).await {
        Ok(Ok(account)) => Ok(account.into_inner()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a round was not explained");
            Err("The explanation is not available now. Reload the page in a moment.")
        }
        Err(_) => Err("The explanation took too long. Reload the page in a moment."),
    }
}

async fn csv(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    download::respond(&site.digests, &site.web.csv, &headers).await
}

async fn badge(
    State(site): State<Arc<Site>>,
    InPath(file): InPath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    badge::respond(&site.web.ledger.snapshot(), &file, query.as_deref(), &headers)
}

async fn openapi() -> Response {
    match openapi::text() {
        Ok(text) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            ];
            (headers, text).into_response()
        }
        Err(error) => WebError::internal("the API's document", error).into_json(),
    }
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], site.web.metrics.render()).into_response()
}

/// Why the aggregator is not ready; `None`: it is.
fn not_ready(web: &Web) -> Option<String> {
    if let Some(why) = web.ledger.cannot_store() {
        return Some(format!("cannot store reports, so none is acknowledged: {why}"));
    }
    let snapshot = web.ledger.snapshot();
    let clock = web.ledger.clock().now();
    if clock.state == ClockState::Wrong {
        return Some(format!("the clock of this host is wrong: {}", clock.why));
    }
    let (Some(closed), Some(late_ms)) = (snapshot.closed, overview::late_ms(&snapshot)) else {
        return Some("no round has closed yet".to_owned());
    };
    let now_ms = (web.now_unix_ms)();
    let now_ms = match clock.closing_ms {
        Some(closing_ms) if !clock.is_sure() => now_ms.min(closing_ms),
        _ => now_ms,
    };
    if now_ms > late_ms {
        let next = snapshot.epochs.next(closed);
        return Some(format!("round {} is overdue: it has not closed", next.start_s()));
    }
    let published = *web.published.borrow();
    let before = snapshot.epochs.previous(closed).map(uptime_proto::Round::start_s);
    if published.is_none() || (published < Some(closed.start_s()) && published != before) {
        return Some("the CSV is not of the last round; see the log".to_owned());
    }
    let (blind, most) = (snapshot.blind_rounds(), web.blind_rounds_max);
    (most > 0 && blind >= most).then(|| {
        format!(
            "no probe could look in the last {blind} rounds or more: all verdicts are unknown, and \
             the CSV keeps what was last known; / and `uptimectl probes` show why"
        )
    })
}

/// Ready: what comes can be stored, the last due round is closed, the CSV on disk is of the last
/// closed round or the one before it, and some probe could look lately.
async fn ready(State(site): State<Arc<Site>>) -> Response {
    match not_ready(&site.web) {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        None => "ready\n".into_response(),
    }
}
