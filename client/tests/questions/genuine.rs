//! A real aggregator in this process, with two probes, rounds of a second and no grace.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::TryStreamExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::Endpoint;
use uptime_aggregator::access::{hash_token, new_token};
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::config::{Config, SettingArgs};
use uptime_aggregator::server::Server;
use uptime_aggregator::store::{Registry, SqliteStore};
use uptime_client::v1::collector_client::CollectorClient;
use uptime_client::v1::{self, EvidenceClass, NodeFilter, PartKind, ReportStatus};
use uptime_client::{Client, NodeId, Order};

use crate::DEADLINE;

/// An aggregator that serves until dropped.
pub(crate) struct Genuine {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    directory: TempDir,
    /// Of alpha, who looks, and of beta, who only lists the market.
    tokens: [String; 2],
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl Genuine {
    /// Starts an empty one.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tokens = [new_token(), new_token()];
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        for (name, token) in ["alpha", "beta"].into_iter().zip(&tokens) {
            let hash = hash_token(token);
            store.add_probe(name, &hash, &[], now_unix_ms()).await.unwrap().unwrap();
        }
        drop(store);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut genuine = Self {
            grpc: any,
            http: any,
            directory,
            tokens,
            stop: CancellationToken::new(),
            running: JoinSet::new(),
        };
        genuine.serve().await;
        genuine
    }

    /// Starts serving at `self.grpc`, or on a free port if that is 0.
    async fn serve(&mut self) {
        let args = SettingArgs {
            grpc_addr: Some(self.grpc.to_string()),
            http_addr: Some(self.http.to_string()),
            data_dir: Some(self.directory.path().display().to_string()),
            round_period_s: Some("1".into()),
            grace_s: Some("0".into()),
            ..SettingArgs::default()
        };
        let config = Config::read(&args).unwrap();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let server = Server::build(config, metrics).await.unwrap();
        (self.grpc, self.http) = (server.grpc_addr, server.http_addr);
        self.stop = CancellationToken::new();
        let stop = self.stop.clone();
        self.running.spawn(async move { server.run(stop).await.unwrap() });
    }

    /// Stops it and starts it again: same data, same ports.
    pub(crate) async fn restart(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
        self.serve().await;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// The CSV it writes.
    pub(crate) fn csv(&self) -> PathBuf {
        self.directory.path().join("nodes_status.csv")
    }

    /// Hands in what the probes found in a round and waits until it is decided: these nodes up,
    /// those down; two offers confirm the latter. `name` makes each one's name
    /// of its id.
    pub(crate) async fn observe(
        &self,
        up: &[NodeId],
        down: &[NodeId],
        name: impl Fn(&NodeId) -> String,
    ) -> Client {
        // The round after the next, the furthest that is taken: it is handed in on time then.
        let round_s = now_unix_ms() / 1000 + 2;
        let part = |number, subnet: &str, kind: PartKind, groups: &[(EvidenceClass, &[NodeId])]| {
            let groups = groups.iter().map(|(class, ids)| v1::PlainGroup {
                evidence_class: *class as i32,
                node_ids: NodeId::concatenate(*ids).into(),
            });
            let plain = v1::PlainEvidence { groups: groups.collect() };
            v1::Part {
                subnet: subnet.into(),
                round_unix_s: u64::try_from(round_s).unwrap(),
                round_period_s: 1,
                number,
                kind: kind as i32,
                outcome: v1::Outcome::Looked as i32,
                reason: 0,
                observed_at_unix_ms: round_s * 1000,
                relay_session_age_s: Some(600),
                evidence: Some(v1::part::Evidence::Plain(plain)),
            }
        };
        let all = [up, down].concat();
        let found = [(EvidenceClass::Seen, up), (EvidenceClass::Unreachable, down)];
        let offers = [(EvidenceClass::Offer, all.as_slice())];
        let details = all.iter().map(|id| v1::NodeDetails {
            node_id: id.as_bytes().to_vec().into(),
            name: name(id),
            runtime: "vm".into(),
            runtime_version: "0.4.1".into(),
            networks: vec!["polygon".into()],
            subnet: "public".into(),
        });
        let market = || part(0, "public", PartKind::Market, &offers);
        let look_ups = part(1, "", PartKind::Lookup, &found);
        let report = v1::Report {
            parts: vec![market(), look_ups],
            details: details.collect(),
            ..v1::Report::default()
        };
        self.submit(report, &self.tokens[0]).await;
        let report = v1::Report { parts: vec![market()], ..v1::Report::default() };
        self.submit(report, &self.tokens[1]).await;
        self.decided(up.len(), down.len()).await
    }

    async fn submit(&self, report: v1::Report, token: &str) {
        let channel = Endpoint::from_shared(self.url()).unwrap().connect().await.unwrap();
        let mut collector = CollectorClient::new(channel);
        let mut request = Request::new(v1::SubmitRequest { reports: vec![report] });
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let answer = collector.submit(request).await.unwrap().into_inner();
        let result = &answer.results[0];
        assert_eq!(result.status(), ReportStatus::Accepted, "{}", result.detail);
    }

    /// Watches until so many nodes were up and down for a round, and the CSV on disk says so.
    async fn decided(&self, up: usize, down: usize) -> Client {
        let client = Client::connect(&self.url()).await.unwrap();
        let mut again = tokio::time::interval(Duration::from_millis(20));
        let watch = async {
            loop {
                again.tick().await;
                let csv = tokio::fs::read_to_string(self.csv()).await;
                let csv = csv.unwrap_or_default();
                let written = (csv.matches(",True,").count(), csv.lines().count());
                if written == (up, up + down + 1) && judged(&client).await == (up, down) {
                    return;
                }
            }
        };
        let watched = tokio::time::timeout(DEADLINE, watch).await;
        watched.expect("the round is decided in time");
        client
    }
}

/// How many nodes were up, and how many down, for a round.
async fn judged(client: &Client) -> (usize, usize) {
    let pages = client.nodes(NodeFilter::default(), Order::default(), 0);
    let pages: Vec<_> = pages.try_collect().await.unwrap();
    let nodes = pages.into_iter().flat_map(|page| page.value.nodes);
    let figures: Vec<_> = nodes.filter_map(|node| node.all).collect();
    let count = |rounds: fn(&v1::UptimeFigures) -> u64| {
        figures.iter().filter(|figures| rounds(figures) == 1).count()
    };
    (count(|figures| figures.up_rounds), count(|figures| figures.down_rounds))
}
