//! Calls that are open while their identity changes.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use uptime_aggregator::access::SWEEP_EVERY;
use uptime_aggregator::store::{Ends, IdentityStore, Role};
use uptime_proto::PROTOCOL_VERSION;
use uptime_proto::v1::collector_client::CollectorClient;
use uptime_proto::v1::{self, GoodbyeReason, aggregator_message, probe_message};

use super::support::{Aggregator, Caller, Callers, Host, certificate_of};

/// Time for two sweeps and a busy machine; far less than a round of 30 s.
const WITHIN: Duration = Duration::from_secs(15);

/// A probe's stream, its greetings exchanged.
pub(crate) struct Stream {
    sender: mpsc::Sender<v1::ProbeMessage>,
    inbound: Streaming<v1::AggregatorMessage>,
}

impl Stream {
    pub(crate) async fn open(caller: &Caller) -> Self {
        let (sender, receiver) = mpsc::channel(8);
        let hello = v1::Hello { protocol_version: PROTOCOL_VERSION, ..v1::Hello::default() };
        let hello = Some(probe_message::Message::Hello(hello));
        sender.send(v1::ProbeMessage { message: hello }).await.unwrap();
        let mut client = CollectorClient::new(caller.channel().await.unwrap());
        let request = caller.request(ReceiverStream::new(receiver));
        let mut inbound = client.connect(request).await.unwrap().into_inner();
        let welcome = inbound.message().await.unwrap().unwrap().message;
        assert!(matches!(welcome, Some(aggregator_message::Message::Welcome(_))), "{welcome:?}");
        Self { sender, inbound }
    }

    /// Sends a report and waits for its answer.
    pub(crate) async fn report(&mut self, report: v1::Report) -> v1::ReportResult {
        let message = Some(probe_message::Message::Report(report));
        self.sender.send(v1::ProbeMessage { message }).await.unwrap();
        loop {
            let message = self.inbound.message().await.unwrap().expect("an answer").message;
            if let Some(aggregator_message::Message::Result(result)) = message {
                return result;
            }
        }
    }

    /// Why the aggregator ended it.
    async fn goodbye(&mut self) -> GoodbyeReason {
        let told = async {
            loop {
                let message = self.inbound.message().await.unwrap().expect("a goodbye").message;
                if let Some(aggregator_message::Message::Goodbye(goodbye)) = message {
                    return GoodbyeReason::try_from(goodbye.reason).unwrap();
                }
            }
        };
        tokio::time::timeout(WITHIN, told).await.expect("in time")
    }

    async fn lives(&mut self) -> bool {
        // Nothing is said on a stream that lives, but for look-up lists.
        let said = tokio::time::timeout(Duration::from_millis(100), self.inbound.message()).await;
        !matches!(said, Ok(Ok(None) | Err(_)))
    }
}

#[tokio::test]
async fn a_revoked_probe_is_cut_within_seconds_and_told_why() {
    let host = Host::new();
    let (alpha, beta) =
        (host.enrol("alpha", Role::Probe).await, host.enrol("beta", Role::Probe).await);
    let aggregator = Aggregator::start(host.with_tls()).await;
    let caller = |token: &str| aggregator.tls_caller(&host).token(token);
    let gamma = host.enrol_by_certificate("gamma", Role::Probe).await;
    let by_certificate = aggregator.tls_caller(&host).with(&gamma);
    let mut streams = [
        Stream::open(&caller(&alpha)).await,
        Stream::open(&by_certificate).await,
        Stream::open(&caller(&beta)).await,
    ];
    let began = Instant::now();
    host.revoke("alpha").await;
    host.revoke("gamma").await;
    for stream in &mut streams[..2] {
        assert_eq!(stream.goodbye().await, GoodbyeReason::Revoked);
    }
    assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
    assert!(streams[2].lives().await, "nobody else is cut");
    aggregator.stop().await;
    let audit_log = host.audit_log().await;
    let mut cut: Vec<&str> = audit_log
        .iter()
        .filter(|line| line.action == "refused: revoked" && line.detail.contains("cut"))
        .map(|line| line.subject.as_str())
        .collect();
    cut.sort_unstable();
    assert_eq!(cut, ["alpha", "gamma"]);
}

#[tokio::test]
async fn an_old_token_is_good_until_its_time_is_over_and_not_longer() {
    let host = Host::new();
    let older = host.enrol("alpha", Role::Probe).await;
    let aggregator = Aggregator::start(host.with_tls()).await;
    let caller = |token: &str| aggregator.tls_caller(&host).token(token);
    let mut stream = Stream::open(&caller(&older)).await;
    let overlap = SWEEP_EVERY * 3;
    let newer = host.rotate("alpha", i64::try_from(overlap.as_millis()).unwrap()).await;
    // Both are good for a while; a unary call leaves the stream alone.
    caller(&newer).submit(Vec::new()).await.unwrap();
    caller(&older).submit(Vec::new()).await.unwrap();
    assert!(stream.lives().await);
    assert_eq!(stream.goodbye().await, GoodbyeReason::Revoked);
    let refused = caller(&older).submit(Vec::new()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut stream = Stream::open(&caller(&newer)).await;
    assert!(stream.lives().await);
    aggregator.stop().await;
}

/// Whichever was stolen: rotating the one ends the other, too, and so does ending it by itself.
#[tokio::test]
async fn streams_end_with_what_they_were_let_in_by() {
    let host = Host::new();
    let alpha = host.enrol_by_certificate("alpha", Role::Probe).await;
    let beta = host.enrol("beta", Role::Probe).await;
    let gamma = host.enrol_by_certificate("gamma", Role::Probe).await;
    let also = host.enrol("delta", Role::Probe).await;
    let aggregator = Aggregator::start(host.with_tls()).await;
    let caller = || aggregator.tls_caller(&host);
    let mut streams = [
        Stream::open(&caller().with(&alpha)).await,
        Stream::open(&caller().token(&beta)).await,
        Stream::open(&caller().with(&gamma)).await,
    ];
    let mut other = Stream::open(&caller().token(&also)).await;
    let token = host.rotate("alpha", 0).await;
    let (by, newer) = (Host::by(), host.client("beta"));
    host.store()
        .await
        .renew("beta", &certificate_of(&newer), Ends::All, by.now_ms, &by)
        .await
        .unwrap();
    host.store().await.end_credential(&gamma.fingerprint, &by).await.unwrap();
    for stream in &mut streams {
        assert_eq!(stream.goodbye().await, GoodbyeReason::Revoked);
    }
    assert!(other.lives().await, "nobody else is cut");
    for stolen in [caller().with(&alpha), caller().token(&beta), caller().with(&gamma)] {
        let refused = stolen.submit(Vec::new()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    caller().token(&token).submit(Vec::new()).await.unwrap();
    caller().with(&newer).submit(Vec::new()).await.unwrap();
    aggregator.stop().await;
}

#[tokio::test]
async fn a_revoked_reader_loses_what_it_has_open() {
    let host = Host::new();
    let token = host.enrol("eye", Role::Reader).await;
    let settings = uptime_aggregator::config::SettingArgs {
        readers_need_token: Some("true".into()),
        ..host.plain()
    };
    let aggregator = Aggregator::start(settings).await;
    let caller = aggregator.caller().token(&token);
    let (sender, receiver) = mpsc::channel::<ServerReflectionRequest>(1);
    let mut client = ServerReflectionClient::new(caller.channel().await.unwrap());
    let request = caller.request(ReceiverStream::new(receiver));
    let mut answers = client.server_reflection_info(request).await.unwrap().into_inner();
    host.revoke("eye").await;
    let ended = tokio::time::timeout(WITHIN, answers.message()).await.expect("in time");
    assert_eq!(ended.unwrap_err().code(), Code::Unauthenticated);
    drop(sender);
    aggregator.stop().await;
}
