//! A fake collector, and the probe process that reports to it.
//!
//! Records everything. Acknowledges reports only if the test says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use uptime_proto::convert::{Decoder, PartLimits, part_from_wire, samples_from_wire};
use uptime_proto::v1::collector_server::{Collector, CollectorServer};
use uptime_proto::v1::{self, aggregator_message, probe_message};
use uptime_proto::{Digest, Epoch, NodeId, PROTOCOL_VERSION, Part, PartKey, Period, Sample};
use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, ProviderSpec, World};

/// Reports that this collector lets be on their way.
pub(crate) const IN_FLIGHT_MAX: usize = 64;
/// Longer than two rounds of half a minute, for the one test that has them.
const PATIENCE: Duration = Duration::from_secs(80);

/// What the collector has received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// The digest under each key, and how often it came.
    pub(crate) parts: BTreeMap<PartKey, Vec<(Digest, Part)>>,
    pub(crate) gaps: Vec<v1::Gap>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) details: Vec<v1::NodeDetails>,
    pub(crate) streams: u64,
    pub(crate) streams_ended: u64,
    /// Streams that only asked for a greeting; none of `streams`.
    pub(crate) checks: u64,
    pub(crate) heartbeats: u64,
    pub(crate) last_heartbeat: Option<v1::Heartbeat>,
}

/// Records everything and acknowledges reports only if the test says so.
#[derive(Clone)]
struct FakeCollector {
    received: Arc<watch::Sender<Received>>,
    answers: watch::Receiver<bool>,
    closed: watch::Receiver<bool>,
    manner: Manner,
}

/// What the collector sends to its probes.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    /// How far its clock is ahead of this host's.
    pub(crate) ahead_ms: i64,
    /// How far it trusts its clock; by default it does not say, as 0.1.
    pub(crate) clock_state: v1::ClockState,
    /// How long after it read its clock Welcome is sent.
    pub(crate) welcome_takes: Duration,
    /// The nodes that they look up; `None`: the nodes that they know themselves.
    pub(crate) standing: Option<Vec<NodeId>>,
    /// The greatest age of `seen` that is still positive; 0 for that of the method.
    pub(crate) freshness_s: u32,
    /// `FindNode` questions in flight; 0 for what the probe would do.
    pub(crate) lookups_in_flight_max: u32,
    /// Rounds as an aggregator has them by default, instead of short ones.
    pub(crate) whole_rounds: bool,
    /// Rounds of so many seconds; and when in them, in milliseconds, look-ups begin and suspects
    /// are named.
    pub(crate) rounds: Option<(u32, [u32; 2])>,
}

impl Manner {
    fn standing(&self) -> Option<v1::LookupAssignment> {
        self.standing.as_ref().map(|ids| v1::LookupAssignment {
            stage: v1::LookupStage::First as i32,
            full: true,
            added_node_ids: NodeId::concatenate(ids).into(),
            ..v1::LookupAssignment::default()
        })
    }
}

/// The rules, and when look-ups begin and suspects are named.
fn rules(manner: &Manner) -> (Epoch, [u32; 2]) {
    if let Some((period_s, offsets_ms)) = manner.rounds {
        return (Epoch::with_defaults(Period::new(period_s).unwrap()), offsets_ms);
    }
    if manner.whole_rounds {
        return (Epoch::with_defaults(Period::new(30).unwrap()), [22_500, 24_500]);
    }
    let mut epoch = Epoch::with_defaults(Period::new(2).unwrap());
    epoch.grace_s = 2;
    epoch.direct_timeout_ms = 1_000;
    // Two would not fit after the wait for a list of suspects that this collector never sends.
    epoch.direct_attempts = 1;
    (epoch, [1_000, 1_200])
}

/// The collector's clock.
fn now_ms(manner: &Manner) -> i64 {
    uptime_probe::clock::now_unix_ms() + manner.ahead_ms
}

fn welcome(manner: &Manner) -> v1::Welcome {
    let (mut epoch, [lookups_offset_ms, suspects_offset_ms]) = rules(manner);
    if manner.freshness_s > 0 {
        epoch.freshness_s = manner.freshness_s;
    }
    let limits = PartLimits::default();
    v1::Welcome {
        server_time_unix_ms: now_ms(manner),
        clock_state: manner.clock_state as i32,
        epochs: vec![v1::Epoch::from(&epoch)],
        limits: Some(v1::Limits {
            observations_per_part_max: 40_000,
            part_numbers_max: 64,
            reports_in_flight_max: u32::try_from(IN_FLIGHT_MAX).unwrap(),
            compact_bases_max: 64,
            compact_nodes_max: limits.compact_nodes_max,
            subnet_bytes_max: 64,
            ..v1::Limits::default()
        }),
        schedule: Some(v1::Schedule {
            lookups_offset_ms,
            suspects_offset_ms,
            lookups_in_flight_max: manner.lookups_in_flight_max,
            ..v1::Schedule::default()
        }),
        ..v1::Welcome::default()
    }
}

fn says(message: aggregator_message::Message) -> Result<v1::AggregatorMessage, Status> {
    Ok(v1::AggregatorMessage { message: Some(message) })
}

#[tonic::async_trait]
impl Collector for FakeCollector {
    type ConnectStream = ReceiverStream<Result<v1::AggregatorMessage, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ProbeMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        if *self.closed.borrow() {
            return Err(Status::unavailable("closed"));
        }
        let mut inbound = request.into_inner();
        let (outbound, messages) = mpsc::channel(256);
        let fake = self.clone();
        #[expect(clippy::disallowed_methods, reason = "ends with its stream")]
        tokio::spawn(async move {
            let mut decoder = Decoder::default();
            let mut closed = fake.closed.clone();
            loop {
                let message = tokio::select! {
                    _ = closed.wait_for(|closed| *closed) => break,
                    message = inbound.message() => message,
                };
                let Ok(Some(message)) = message else { break };
                match message.message {
                    Some(probe_message::Message::Hello(hello)) => {
                        assert_eq!(hello.protocol_version, PROTOCOL_VERSION);
                        fake.received.send_modify(|received| match hello.check_only {
                            true => received.checks += 1,
                            false => received.streams += 1,
                        });
                        let welcome = welcome(&fake.manner);
                        tokio::time::sleep(fake.manner.welcome_takes).await;
                        let welcome = aggregator_message::Message::Welcome(welcome);
                        outbound.send(says(welcome)).await.ok();
                        if hello.check_only {
                            return;
                        }
                        if let Some(standing) = fake.manner.standing() {
                            let standing = aggregator_message::Message::Assignment(standing);
                            outbound.send(says(standing)).await.ok();
                        }
                    }
                    Some(probe_message::Message::Report(report)) => {
                        fake.note(&report, &mut decoder);
                        if *fake.answers.borrow() {
                            let result = v1::ReportResult {
                                report_id: report.report_id,
                                status: v1::ReportStatus::Accepted as i32,
                                ..v1::ReportResult::default()
                            };
                            let result = aggregator_message::Message::Result(result);
                            outbound.send(says(result)).await.ok();
                        }
                    }
                    Some(probe_message::Message::Heartbeat(beat)) => {
                        let now_ms = now_ms(&fake.manner);
                        let answer = v1::Heartbeat {
                            sent_unix_ms: now_ms,
                            echoed_unix_ms: beat.sent_unix_ms,
                            received_unix_ms: now_ms,
                            clock_state: fake.manner.clock_state as i32,
                            ..v1::Heartbeat::default()
                        };
                        let answer = aggregator_message::Message::Heartbeat(answer);
                        outbound.send(says(answer)).await.ok();
                        fake.received.send_modify(|received| {
                            received.heartbeats += 1;
                            received.last_heartbeat = Some(beat);
                        });
                    }
                    None => {}
                }
            }
            fake.received.send_modify(|received| received.streams_ended += 1);
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn submit(
        &self,
        _: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        Err(Status::unimplemented("the native probe streams"))
    }

    async fn join(
        &self,
        _: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        Err(Status::unimplemented("nobody joins here"))
    }
}

impl FakeCollector {
    fn note(&self, report: &v1::Report, decoder: &mut Decoder) {
        self.received.send_modify(|received| {
            received.gaps.extend(report.gaps.iter().cloned());
            received.details.extend(report.details.iter().cloned());
        });
        for wire in &report.parts {
            let part = part_from_wire(wire, Some(decoder), &PartLimits::default()).unwrap();
            let (key, digest) = (part.key.clone(), part.digest());
            self.received.send_modify(|received| {
                received.parts.entry(key).or_default().push((digest, part));
            });
        }
        let samples = samples_from_wire(report, Some(decoder)).unwrap();
        self.received.send_modify(|received| received.samples.extend(samples));
    }
}

/// A collector on a port of its own, and what it has received.
pub(crate) struct Running {
    pub(crate) address: String,
    pub(crate) received: Arc<watch::Sender<Received>>,
    pub(crate) answer: watch::Sender<bool>,
    /// Ends its streams and takes no new ones.
    pub(crate) closed: watch::Sender<bool>,
    _tasks: JoinSet<Result<(), tonic::transport::Error>>,
}

impl Running {
    /// Ends its streams, and takes new ones.
    pub(crate) async fn interrupt(&self) {
        let streams = self.received.borrow().streams;
        self.closed.send_replace(true);
        wait_for(&self.received, |received| received.streams_ended >= streams).await;
        self.closed.send_replace(false);
    }
}

pub(crate) async fn collector(answers: bool, tls: Option<ServerTlsConfig>) -> Running {
    collector_with(answers, tls, Manner::default()).await
}

pub(crate) async fn collector_with(
    answers: bool,
    tls: Option<ServerTlsConfig>,
    manner: Manner,
) -> Running {
    let received = Arc::new(watch::Sender::new(Received::default()));
    let (answer, answers) = watch::channel(answers);
    let (close, closed) = watch::channel(false);
    let fake = FakeCollector { received: Arc::clone(&received), answers, closed, manner };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = match tls {
        Some(_) => format!("https://localhost:{port}"),
        None => format!("http://127.0.0.1:{port}"),
    };
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(
        server
            .add_service(CollectorServer::new(fake))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    Running { address, received, answer, closed: close, _tasks: tasks }
}

/// A daemon of a network with some providers in the subnets `public` and `other`.
pub(crate) async fn daemon() -> Daemon {
    daemon_of(&World::new(5)).await
}

pub(crate) async fn daemon_of(world: &World) -> Daemon {
    daemon_with(world, DaemonOptions::default()).await
}

pub(crate) async fn daemon_with(world: &World, options: DaemonOptions) -> Daemon {
    for _ in 0..8 {
        world.add_provider(ProviderSpec::in_subnet("public"));
    }
    world.add_provider(ProviderSpec::in_subnet("other"));
    let options = DaemonOptions {
        app_key: "the-key".into(),
        relay_session_age: Duration::from_secs(3_600),
        ..options
    };
    Daemon::start(world.clone(), options).await.unwrap()
}

/// `uptime-probe COMMAND` beside a daemon, for a collector.
pub(crate) fn probe(command: &str, daemon: &Daemon, address: &str, spool: &Path) -> Command {
    let mut probe = Command::new(env!("CARGO_BIN_EXE_uptime-probe"));
    probe
        .args([command, "--aggregator", address, "--yagna-url", &daemon.base_url()])
        .arg("--spool-dir")
        .arg(spool)
        .env("YAGNA_APPKEY", "the-key")
        .env("UPTIME_KERNEL_CLOCK", "synchronised")
        .env("UPTIME_LOG", "error")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    probe
}

/// Sends a signal to a process.
pub(crate) async fn signal(child: &Child, name: &str) {
    let id = child.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-s", name, &id]).status().await.unwrap();
    assert!(sent.success());
}

pub(crate) async fn wait_for(
    received: &watch::Sender<Received>,
    so: impl FnMut(&Received) -> bool,
) {
    let mut changes = received.subscribe();
    // What it answers holds the lock, which is not to be had twice by one reader.
    let waited = tokio::time::timeout(PATIENCE, changes.wait_for(so)).await.is_ok();
    let received = received.borrow();
    let Received { parts, gaps, samples, streams, heartbeats, .. } = &*received;
    let (parts, gaps, samples) = (parts.keys().collect::<Vec<_>>(), gaps.len(), samples.len());
    assert!(
        waited,
        "not within {PATIENCE:?}: {streams} streams, {heartbeats} heartbeats, {gaps} gaps, \
         {samples} samples, {parts:?}"
    );
}
