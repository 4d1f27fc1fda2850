//! What all routes share.
//!
//! Owns the settings of the routes, what is kept between requests, and how a path is read.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use super::download::Digests;
use super::gate::Gate;
use super::listing::Listings;
use crate::ledger::Ledger;
use crate::query::Query;

/// What the routes need.
#[derive(Clone)]
pub struct Web {
    /// For the pages.
    pub ledger: Ledger,
    /// What answers `/api/v1`.
    pub query: Query,
    /// The CSV on disk.
    pub csv: PathBuf,
    /// The round the CSV on disk is of.
    pub published: watch::Receiver<Option<u64>>,
    /// For `/metrics`.
    pub metrics: PrometheusHandle,
    /// Rounds in a row in which no probe could look that make this not ready; 0: any number do not.
    pub blind_rounds_max: u64,
    /// The clock; pages say how old they are.
    pub now_unix_ms: fn() -> i64,
}

/// What the routes share.
pub(super) struct Site {
    pub(super) web: Web,
    pub(super) query: Query,
    pub(super) gate: Gate,
    pub(super) listings: Listings,
    pub(super) digests: Arc<Digests>,
}

impl Site {
    pub(super) fn new(web: Web) -> Self {
        Self {
            query: web.query.clone(),
            web,
            gate: Gate::default(),
            listings: Listings::default(),
            digests: Arc::default(),
        }
    }
}

/// The last segment of a path; empty where it is not UTF-8, which is no name of anything.
pub(super) struct InPath(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, site: &S) -> Result<Self, Infallible> {
        let path = Path::<String>::from_request_parts(parts, site).await;
        Ok(Self(path.map(|Path(segment)| segment).unwrap_or_default()))
    }
}
