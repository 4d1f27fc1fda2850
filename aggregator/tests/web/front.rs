//! The site behind the aggregator's own doors: its listener, its gate and its limits.

use crate::fixture::{Aggregator, settings};
use crate::site::{client, node};

#[tokio::test]
async fn everything_is_reached_through_the_front_door() {
    let directory = tempfile::tempdir().unwrap();
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let address = format!("http://{}", aggregator.http);
    let client = client();
    // As many ids as an address may name.
    let ids: Vec<String> = (0..250).map(|number| node(number).to_string()).collect();
    let many = format!("/api/v1/uptime?window=30d&ids={}", ids.join(","));
    for path in ["/", "/api/v1/summary", "/api/v1/openapi.json", "/metrics", many.as_str()] {
        let answer = client.get(format!("{address}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", &path[..path.len().min(60)]);
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        // Nothing counts in this process: its metrics are an empty page.
        assert_eq!(answer.bytes().await.unwrap().is_empty(), path == "/metrics");
    }
    aggregator.stop().await;
}
