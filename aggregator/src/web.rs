//! HTTP: the status page, the CSV, metrics and health.
//!
//! Owns routes and HTML. Every text that came from outside is escaped; no page asks any other
//! origin for anything.

mod page;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::clock::now_unix_ms;
use crate::ledger::Ledger;

/// What the routes need.
#[derive(Clone)]
pub struct Web {
    /// For the page.
    pub ledger: Ledger,
    /// The CSV on disk.
    pub csv: PathBuf,
    /// The round the CSV on disk is of.
    pub published: watch::Receiver<Option<u64>>,
    /// For `/metrics`.
    pub metrics: PrometheusHandle,
}

/// The routes.
pub fn router(web: Web) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/nodes_status.csv", get(csv))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Arc::new(web))
}

async fn index(State(web): State<Arc<Web>>) -> Html<String> {
    Html(page::overview(&web.ledger.snapshot(), now_unix_ms()))
}

async fn csv(State(web): State<Arc<Web>>) -> Response {
    match tokio::fs::read(&web.csv).await {
        Ok(bytes) => ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], bytes).into_response(),
        Err(error) => {
            tracing::error!(%error, path = %web.csv.display(), "the CSV cannot be read");
            (StatusCode::SERVICE_UNAVAILABLE, "the CSV is not there; see the log\n").into_response()
        }
    }
}

async fn metrics(State(web): State<Arc<Web>>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], web.metrics.render()).into_response()
}

/// Ready: the last due round is closed and the CSV on disk is of the last closed round or the one
/// before it.
async fn ready(State(web): State<Arc<Web>>) -> Response {
    let snapshot = web.ledger.snapshot();
    let Some(closed) = snapshot.closed else {
        return (StatusCode::SERVICE_UNAVAILABLE, "no round has closed yet\n").into_response();
    };
    let epochs = &snapshot.epochs;
    let next = epochs.next(closed);
    // One period of patience for a busy machine.
    let late_ms = epochs.at(next.start_s()).closes_at_ms(next) + next.period().millis();
    if now_unix_ms() > late_ms {
        let text = format!("round {} should be closed and is not\n", next.start_s());
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let published = *web.published.borrow();
    let before = epochs.previous(closed).map(uptime_proto::Round::start_s);
    if published.is_none() || (published < Some(closed.start_s()) && published != before) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the CSV is not of the last round\n")
            .into_response();
    }
    "ready\n".into_response()
}
