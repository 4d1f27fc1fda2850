//! The site behind the aggregator's own doors: its listener, its gate and its limits.

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uptime_aggregator::config::{Config, SettingArgs};
use uptime_aggregator::server::Server;

use crate::fixture::{client, node};

#[tokio::test]
async fn everything_is_reached_through_the_front_door() {
    let directory = tempfile::tempdir().unwrap();
    let args = SettingArgs {
        data_dir: Some(directory.path().display().to_string()),
        grpc_addr: Some("127.0.0.1:0".into()),
        http_addr: Some("127.0.0.1:0".into()),
        ..SettingArgs::default()
    };
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let server = Server::build(Config::read(&args).unwrap(), metrics).await.unwrap();
    let address = format!("http://{}", server.http_addr);
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(server.run(stop.clone()));
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
    stop.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
}
