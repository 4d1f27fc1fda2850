//! What drawing the overview costs: `page_overview`, `page_overview_sorted`.
//!
//! The real router, asked in process: what a page costs the server, without sockets and browsers.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::query::Query;
use uptime_aggregator::store::Details;
use uptime_aggregator::web::{Web, router};
use uptime_proto::Period;

use super::Extent;
use super::history::{History, ROUND_S};
use super::network::Network;
use super::report::{anywhere, figure, median_ms, progress, spread};

const NODES: usize = 100_000;
const PROBES: usize = 10;
/// Rounds before the first page: what mass loss looks back on, and then some.
const ROUNDS_BEFORE: u64 = 24;
/// Far above what a page has.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// `page_overview`.
pub(crate) fn overview(extent: Extent) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(draw(if extent == Extent::Quick { 5 } else { 31 })))
}

async fn draw(times: usize) -> anyhow::Result<()> {
    let directory = anywhere()?;
    let network = Network::new(71, NODES, PROBES, ROUND_S);
    let mut history =
        Box::pin(History::open(directory.path(), network, PROBES, Period::new(ROUND_S)?)).await?;
    let named = (0..).zip(&history.network.ids).map(|(number, id)| (*id, details(number)));
    history.details = named.collect();
    history.together = true;
    history.run(ROUNDS_BEFORE).await?;
    let (_, published) = watch::channel(None);
    let (query, _) = Query::new(history.ledger.clone(), CancellationToken::new());
    let web = Web {
        ledger: history.ledger.clone(),
        query,
        csv: directory.path().join("nodes_status.csv"),
        published,
        metrics: PrometheusBuilder::new().build_recorder().handle(),
        now_unix_ms,
        blind_rounds_max: 20,
    };
    let site = router(web);
    let (mut plain, mut sorted) = (Vec::new(), Vec::new());
    for _ in 0..times {
        // Each time another snapshot, so that nothing made for the last one helps.
        history.run(1).await?;
        plain.push(page(&site, "/", NODES).await?);
        sorted.push(page(&site, "/?sort=-uptime&state=up", NODES / 2).await?);
    }
    progress(&format!("the overview: {}", spread(&plain)));
    progress(&format!("filtered and sorted: {}", spread(&sorted)));
    figure("page_overview", median_ms(plain), "ms");
    figure("page_overview_sorted", median_ms(sorted), "ms");
    Ok(())
}

fn details(number: u32) -> Details {
    Details {
        name: format!("provider-{number}"),
        runtime: "vm".to_owned(),
        runtime_version: "0.5.1".to_owned(),
        networks: vec!["polygon".to_owned()],
        ..Details::default()
    }
}

/// Asks for a page that must be whole and speak of at least so many nodes; answers how long it took
/// from the question to its last byte.
async fn page(site: &Router, address: &str, least: usize) -> anyhow::Result<Duration> {
    let request = Request::get(address).body(Body::empty())?;
    let started = Instant::now();
    let answer = site.clone().oneshot(request).await?;
    let status = answer.status();
    let body = to_bytes(answer.into_body(), PAGE_BYTES_MAX).await?;
    let took = started.elapsed();
    ensure!(status.is_success(), "{address} answers {status}");
    let html = std::str::from_utf8(&body)?;
    ensure!(html.ends_with("</html>\n"), "{address} is not whole");
    let rows = html.matches("<a href=\"/nodes/0x").count();
    ensure!(rows == 50, "{address} shows {rows} nodes");
    let total = html.split("Nodes 1 to 50 of ").nth(1).and_then(|rest| rest.split('.').next());
    let total = total.context("the table says how many there are")?.replace(',', "");
    let total: usize = total.parse()?;
    ensure!((least..=NODES).contains(&total), "{address} speaks of {total} nodes");
    Ok(took)
}
