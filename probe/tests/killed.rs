//! The probe's process killed without notice: what it had written is delivered by the next one,
//! and no key is ever made with another content.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use uptime_proto::convert::{Decoder, PartLimits, part_from_wire};
use uptime_proto::v1::collector_server::{Collector, CollectorServer};
use uptime_proto::v1::{self, aggregator_message, probe_message};
use uptime_proto::{Digest, Epoch, PROTOCOL_VERSION, Part, PartKey, Period};
use uptime_testkit::standin::{Daemon, DaemonOptions, ProviderSpec, World};

const PATIENCE: Duration = Duration::from_secs(40);

/// What an aggregator would have got: the digest under each key, and how often it came.
type Received = BTreeMap<PartKey, Vec<(Digest, Part)>>;

/// A collector that notes everything and answers only when told to.
#[derive(Clone)]
struct Notebook {
    received: Arc<watch::Sender<Received>>,
    answers: watch::Receiver<bool>,
}

fn welcome() -> v1::Welcome {
    let mut epoch = Epoch::with_defaults(Period::new(2).unwrap());
    epoch.grace_s = 2;
    epoch.direct_timeout_ms = 1_000;
    let limits = PartLimits::default();
    v1::Welcome {
        server_time_unix_ms: uptime_probe::clock::now_unix_ms(),
        epochs: vec![v1::Epoch::from(&epoch)],
        limits: Some(v1::Limits {
            observations_per_part_max: 40_000,
            part_numbers_max: 64,
            reports_in_flight_max: 64,
            compact_bases_max: 64,
            compact_nodes_max: limits.compact_nodes_max,
            subnet_bytes_max: 64,
            ..v1::Limits::default()
        }),
        schedule: Some(v1::Schedule {
            lookups_offset_ms: 1_300,
            suspects_offset_ms: 1_500,
            ..v1::Schedule::default()
        }),
        ..v1::Welcome::default()
    }
}

fn says(message: aggregator_message::Message) -> Result<v1::AggregatorMessage, Status> {
    Ok(v1::AggregatorMessage { message: Some(message) })
}

#[tonic::async_trait]
impl Collector for Notebook {
    type ConnectStream = ReceiverStream<Result<v1::AggregatorMessage, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ProbeMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut inbound = request.into_inner();
        let (outbound, messages) = mpsc::channel(256);
        let notebook = self.clone();
        #[expect(clippy::disallowed_methods, reason = "ends with its stream")]
        tokio::spawn(async move {
            let mut decoder = Decoder::default();
            while let Ok(Some(message)) = inbound.message().await {
                match message.message {
                    Some(probe_message::Message::Hello(hello)) => {
                        assert_eq!(hello.protocol_version, PROTOCOL_VERSION);
                        let welcome = aggregator_message::Message::Welcome(welcome());
                        outbound.send(says(welcome)).await.ok();
                    }
                    Some(probe_message::Message::Report(report)) => {
                        notebook.note(&report, &mut decoder);
                        if *notebook.answers.borrow() {
                            let result = v1::ReportResult {
                                report_id: report.report_id,
                                status: v1::ReportStatus::Accepted as i32,
                                ..v1::ReportResult::default()
                            };
                            let result = aggregator_message::Message::Result(result);
                            outbound.send(says(result)).await.ok();
                        }
                    }
                    _ => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn submit(
        &self,
        _: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        Err(Status::unimplemented("the native probe streams"))
    }
}

impl Notebook {
    fn note(&self, report: &v1::Report, decoder: &mut Decoder) {
        for wire in &report.parts {
            let part = part_from_wire(wire, Some(decoder), &PartLimits::default()).unwrap();
            let (key, digest) = (part.key.clone(), part.digest());
            self.received.send_modify(|received| {
                received.entry(key).or_default().push((digest, part));
            });
        }
    }
}

fn probe(daemon: &Daemon, address: &str, spool: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_uptime-probe"))
        .args(["run", "--subnet-tag", "public", "--aggregator", address])
        .args(["--yagna-url", &daemon.base_url()])
        .arg("--spool-dir")
        .arg(spool)
        .env("YAGNA_APPKEY", "the-key")
        .env("UPTIME_LOG", "error")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn wait_for(received: &watch::Sender<Received>, so: impl FnMut(&Received) -> bool) {
    let mut changes = received.subscribe();
    let waited = tokio::time::timeout(PATIENCE, changes.wait_for(so)).await;
    assert!(waited.is_ok(), "not within {PATIENCE:?}: {:?}", received.borrow().keys());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_probe_had_written_is_delivered_by_the_next() {
    let world = World::new(5);
    for _ in 0..8 {
        world.add_provider(ProviderSpec::in_subnet("public"));
    }
    let options = DaemonOptions {
        app_key: "the-key".into(),
        relay_session_age: Duration::from_secs(3_600),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::start(world, options).await.unwrap();
    let received = Arc::new(watch::Sender::new(Received::new()));
    let (answer, answers) = watch::channel(false);
    let notebook = Notebook { received: Arc::clone(&received), answers };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(
        tonic::transport::Server::builder()
            .add_service(CollectorServer::new(notebook))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let spool = tempfile::tempdir().unwrap();
    // Killed three times, each time with more in its spool, at moments that differ.
    for (run, parts) in [3, 6, 10].into_iter().enumerate() {
        let mut child = probe(&daemon, &address, spool.path());
        wait_for(&received, |received| received.len() >= parts).await;
        tokio::time::sleep(Duration::from_millis(170 * run as u64)).await;
        child.kill().await.unwrap();
    }
    let before: BTreeMap<PartKey, usize> =
        received.borrow().iter().map(|(key, copies)| (key.clone(), copies.len())).collect();
    // The next one delivers all of it, and may then forget it.
    answer.send_replace(true);
    let mut child = probe(&daemon, &address, spool.path());
    let again = |received: &Received| before.iter().all(|(key, n)| received[key].len() > *n);
    wait_for(&received, again).await;
    child.kill().await.unwrap();
    for (key, copies) in received.borrow().iter() {
        assert!(copies.iter().all(|copy| copy.0 == copies[0].0), "{key:?} has two contents");
    }
    assert!(received.borrow().values().any(|copies| copies[0].1.sets.count() > 0));
}
