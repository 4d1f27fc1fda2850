//! A real aggregator on loopback, and a hand-made probe to talk to it.

use std::path::Path;

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::Channel;
use uptime_aggregator::access::{hash_token, new_token};
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::config::{Config, SettingArgs};
use uptime_aggregator::server::Server;
use uptime_aggregator::store::{Registry, SqliteStore};
use uptime_proto::v1::collector_client::CollectorClient;
use uptime_proto::v1::{self, part::Evidence};

/// Rounds of 30 s, so that none closes by accident while a test of messages runs.
pub(crate) const PERIOD_S: u64 = 30;

/// A serving aggregator; stopped when dropped.
pub(crate) struct Aggregator {
    pub(crate) address: String,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Aggregator {
    pub(crate) async fn start(data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut args = SettingArgs {
            data_dir: Some(data_dir.display().to_string()),
            grpc_addr: Some("127.0.0.1:0".into()),
            http_addr: Some("127.0.0.1:0".into()),
            kernel_clock: Some("synchronised".into()),
            ..SettingArgs::default()
        };
        for (name, value) in settings {
            let value = Some((*value).to_owned());
            match *name {
                "parts-per-round-max" => args.parts_per_round_max = value,
                "kernel-clock" => args.kernel_clock = value,
                "unconfirmed-nodes-max" => args.unconfirmed_nodes_max = value,
                other => panic!("{other}"),
            }
        }
        let config = Config::read(&args).unwrap();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let server = Server::build(config, metrics).await.unwrap();
        let address = format!("http://{}", server.grpc_addr);
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "stopped and awaited by stop()")]
        let running = tokio::spawn(server.run(stop.clone()));
        Self { address, stop, running }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(self.address.clone()).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn collector(&self) -> CollectorClient<Channel> {
        CollectorClient::new(self.channel().await)
            .max_encoding_message_size(16 << 20)
            .max_decoding_message_size(16 << 20)
    }
}

/// Enrols a probe and answers its token.
pub(crate) async fn enrol(data_dir: &Path, name: &str, subnets: &[&str]) -> String {
    let token = new_token();
    let mut store = SqliteStore::open(data_dir).await.unwrap();
    let subnets: Vec<String> = subnets.iter().map(|subnet| (*subnet).to_owned()).collect();
    let added = store.add_probe(name, &hash_token(&token), &subnets, now_unix_ms()).await.unwrap();
    assert!(added.is_some());
    token
}

pub(crate) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// The start of the round that is going on.
pub(crate) fn round_now_s() -> u64 {
    let now_s = u64::try_from(now_unix_ms() / 1000).unwrap();
    now_s - now_s % PERIOD_S
}

/// Ids that no other call makes.
pub(crate) fn ids(first: u32, count: u32) -> Vec<u8> {
    (first..first + count)
        .flat_map(|number| {
            let mut id = [7; 20];
            id[16..].copy_from_slice(&number.to_be_bytes());
            id
        })
        .collect()
}

/// A market part of this round in the plain form.
pub(crate) fn market(number: u32, node_ids: Vec<u8>) -> v1::Part {
    let group = v1::PlainGroup {
        evidence_class: v1::EvidenceClass::Offer as i32,
        node_ids: node_ids.into(),
    };
    v1::Part {
        subnet: "public".into(),
        round_unix_s: round_now_s(),
        round_period_s: u32::try_from(PERIOD_S).unwrap(),
        number,
        kind: v1::PartKind::Market as i32,
        outcome: v1::Outcome::Looked as i32,
        reason: 0,
        observed_at_unix_ms: now_unix_ms(),
        relay_session_age_s: None,
        evidence: Some(Evidence::Plain(v1::PlainEvidence { groups: vec![group] })),
    }
}

pub(crate) fn report(parts: Vec<v1::Part>) -> v1::Report {
    v1::Report { report_id: 1, parts, ..v1::Report::default() }
}

/// Submits one report and answers its result.
pub(crate) async fn submit(
    collector: &mut CollectorClient<Channel>,
    token: &str,
    report: v1::Report,
) -> v1::ReportResult {
    let request = with_token(v1::SubmitRequest { reports: vec![report] }, token);
    let mut response = collector.submit(request).await.unwrap().into_inner();
    assert_eq!(response.results.len(), 1);
    response.results.remove(0)
}
