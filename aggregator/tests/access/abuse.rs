//! Peers that send nonsense, too much, too slowly or nothing: they lose their own connection, in
//! time, and nobody else notices.

use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use uptime_aggregator::access::limits::{
    HEADER_LIST_BYTES_MAX, REFUSALS_PER_CONNECTION_MAX, STREAMS_PER_CONNECTION_MAX,
};
use uptime_aggregator::config::{Config, SettingArgs};
use uptime_aggregator::store::Role;
use uptime_proto::v1::{self, RefusalReason, ReportStatus};

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, ENHANCE_YOUR_CALM, FRAME_SIZE_ERROR, HEADERS, PATIENCE,
    REFUSED_STREAM, RST_STREAM, Raw, call, field, frame,
};
use super::reports::{ids, market, report};
use super::streams::Stream;
use super::support::{Aggregator, Caller, Callers, Host, http_get};

const SUBMIT: &str = "/golem.uptime.v1.Collector/Submit";
const CONNECT: &str = "/golem.uptime.v1.Collector/Connect";
const HEALTH: &str = "/grpc.health.v1.Health/Watch";
/// What takes seconds or minutes takes so long here.
const SHORT: Duration = Duration::from_millis(300);

struct Fixture {
    host: Host,
    aggregator: Aggregator,
    honest: Caller,
    token: String,
    metrics: PrometheusHandle,
    // Everything on this thread counts there, and the runtime of a test has no other thread.
    _recorder: metrics::LocalRecorderGuard<'static>,
}

impl Fixture {
    async fn of(tls: bool, change: impl FnOnce(&mut Config)) -> Self {
        let host = Host::new();
        let token = host.enrol("alpha", Role::Probe).await;
        let settings: SettingArgs = if tls { host.with_tls() } else { host.plain() };
        let mut config = Config::read(&settings).unwrap();
        change(&mut config);
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        // Lives as long as the test's process, which ends with it.
        let recorder = metrics::set_default_local_recorder(Box::leak(Box::new(recorder)));
        let aggregator = Aggregator::start_with(config).await;
        let honest = if tls { aggregator.tls_caller(&host) } else { aggregator.caller() };
        let honest = honest.token(&token);
        Self { host, aggregator, honest, token, metrics, _recorder: recorder }
    }

    async fn new() -> Self {
        Self::of(false, |_| {}).await
    }

    /// The status of a call with these bytes as its message, whether or not that ends.
    async fn submit_bytes(&self, data: &[u8], ends: bool, encoding: Option<&str>) -> Code {
        let stream = TcpStream::connect(self.aggregator.grpc).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(connection);
        let mut request = http::Request::post(format!("http://localhost{SUBMIT}"))
            .header("content-type", "application/grpc")
            .header("authorization", format!("Bearer {}", self.token));
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(data.to_vec().into(), ends).unwrap();
        let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").unwrap();
        let mut status = response.headers().get("grpc-status").cloned();
        if status.is_none() {
            let mut body = response.into_body();
            while body.data().await.is_some() {}
            let trailers = body.trailers().await.unwrap().unwrap();
            status = trailers.get("grpc-status").cloned();
        }
        Code::from_bytes(status.unwrap().as_bytes())
    }

    async fn honest_is_served(&self) {
        let part = market(0, ids(0, 10));
        let answer = self.honest.submit(vec![report(vec![part])]).await.unwrap();
        let status = ReportStatus::try_from(answer.results[0].status).unwrap();
        assert!(matches!(status, ReportStatus::Accepted | ReportStatus::Conflict), "{answer:?}");
    }

    /// A counter of the aggregator, all its labels that have these words together.
    fn counted(&self, name: &str, words: &[&str]) -> f64 {
        let text = self.metrics.render();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && words.iter().all(|word| line.contains(word)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a counter has reached this.
    async fn counts(&self, name: &str, words: &[&str], least: f64) {
        let began = Instant::now();
        while self.counted(name, words) < least {
            assert!(began.elapsed() < PATIENCE, "{name} {words:?}:\n{}", self.metrics.render());
            tokio::task::yield_now().await;
        }
    }

    async fn ended(&self, reason: &str) {
        let reason = format!("reason=\"{reason}\"");
        self.counts("uptime_access_connections_ended_total", &[&reason], 1.0).await;
    }
}

/// Reads until the other end closes.
async fn closes(mut stream: TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut came)).await;
    // A reset is an end, too.
    read.expect("closed in time").ok();
    came
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_their_connection() {
    let fixture = Fixture::new().await;
    let mut raw = Raw::connect(fixture.aggregator.grpc).await;
    let headers = call(SUBMIT, None);
    let mut flood = Vec::new();
    for number in 0..2_000 {
        let stream = 2 * number + 1;
        flood.extend(frame(HEADERS, END_HEADERS, stream, &headers));
        flood.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
    }
    raw.send(&flood).await;
    assert_eq!(raw.end().await, Some(ENHANCE_YOUR_CALM));
    fixture.ended("protocol").await;
    fixture.honest_is_served().await;
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn headers_without_end_end_their_connection() {
    let fixture = Fixture::new().await;
    let mut raw = Raw::connect(fixture.aggregator.grpc).await;
    raw.send(&frame(HEADERS, 0, 1, &call(SUBMIT, Some(&fixture.token)))).await;
    for _ in 0..1_000 {
        raw.send(&frame(CONTINUATION, 0, 1, &field("x", "y"))).await;
    }
    assert_eq!(raw.end().await, Some(ENHANCE_YOUR_CALM));
    fixture.ended("protocol").await;
    fixture.honest_is_served().await;
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn headers_that_are_too_many_and_frames_that_are_too_long_are_refused() {
    let fixture = Fixture::new().await;
    let mut raw = Raw::connect(fixture.aggregator.grpc).await;
    let mut block = call(SUBMIT, Some(&fixture.token));
    while block.len() < HEADER_LIST_BYTES_MAX as usize {
        block.extend(field("x-filler", &"y".repeat(1_000)));
    }
    let (first, rest) = block.split_at(16_000);
    raw.send(&frame(HEADERS, 0, 1, first)).await;
    raw.send(&frame(CONTINUATION, END_HEADERS, 1, rest)).await;
    // The stream is answered (431) or reset; whether the connection goes on is its own affair.
    let answer = raw.next().await.expect("an answer");
    assert!(matches!(answer.kind, HEADERS | RST_STREAM), "{answer:?}");
    assert_eq!(fixture.counted("uptime_ingest_parts_total", &[]), 0.0);

    let mut raw = Raw::connect(fixture.aggregator.grpc).await;
    raw.send(&frame(HEADERS, END_HEADERS, 1, &call(CONNECT, Some(&fixture.token)))).await;
    raw.send(&frame(DATA, 0, 1, &vec![0; 20_000])).await;
    assert_eq!(raw.end().await, Some(FRAME_SIZE_ERROR));
    fixture.honest_is_served().await;
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn one_connection_has_so_many_streams_and_no_more() {
    let fixture = Fixture::new().await;
    let mut raw = Raw::connect(fixture.aggregator.grpc).await;
    let headers = call(CONNECT, Some(&fixture.token));
    for number in 0..=STREAMS_PER_CONNECTION_MAX {
        raw.send(&frame(HEADERS, END_HEADERS, 2 * number + 1, &headers)).await;
    }
    let refused = loop {
        let frame = raw.next().await.expect("a stream is refused, not the connection");
        if frame.kind == RST_STREAM {
            break frame;
        }
    };
    assert_eq!(
        (refused.code(), refused.stream),
        (REFUSED_STREAM, 2 * STREAMS_PER_CONNECTION_MAX + 1)
    );
    fixture.honest_is_served().await;
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn whoever_says_nothing_is_cut() {
    let fixture = Fixture::of(true, |config| {
        config.limits.handshake_within = SHORT;
        config.limits.first_call_within = SHORT;
    })
    .await;
    // Nothing at all; half a handshake; a handshake and nothing.
    let nothing = TcpStream::connect(fixture.aggregator.grpc).await.unwrap();
    let mut half = TcpStream::connect(fixture.aggregator.http).await.unwrap();
    half.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let ca = &fixture.host.authority.ca_pem;
    let mut shaken =
        super::support::tls_stream(fixture.aggregator.grpc, ca, None, b"h2").await.unwrap();
    assert!(closes(nothing).await.is_empty());
    closes(half).await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, shaken.read_to_end(&mut rest)).await;
    read.expect("closed in time").ok();
    fixture.ended("slow-handshake").await;
    fixture.ended("no-first-call").await;
    fixture.counts("uptime_access_refused_total", &["slow-handshake"], 2.0).await;
    fixture.honest_is_served().await;
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn whoever_dribbles_is_cut() {
    let fixture = Fixture::of(false, |config| {
        config.limits.handshake_within = SHORT;
        config.limits.keepalive = SHORT;
    })
    .await;
    // A byte of an HTTP/1 head now and then.
    let mut head = TcpStream::connect(fixture.aggregator.http).await.unwrap();
    let dribble = async {
        for byte in b"GET / HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'y')) {
            if head.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dribble).await.expect("cut in time");
    // A byte of a gRPC message now and then, in the midst of a frame: no ping is answered there.
    let mut raw = Raw::connect(fixture.aggregator.grpc).await;
    raw.answers_pings = false;
    raw.send(&frame(HEADERS, END_HEADERS, 1, &call(CONNECT, Some(&fixture.token)))).await;
    raw.send(&frame(DATA, 0, 1, &[0; 1_000])[..9]).await;
    raw.end().await;
    fixture.ended("silent").await;
    fixture.honest_is_served().await;
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn a_message_that_does_not_end_is_not_waited_for_for_ever() {
    let fixture = Fixture::of(false, |config| config.limits.call_within = SHORT).await;
    // A thousand bytes are promised, and pings are answered: only the message does not come.
    let status = fixture.submit_bytes(&[0, 0, 0, 3, 232, 1, 2], false, None).await;
    assert_eq!(status, Code::DeadlineExceeded);
    fixture.honest_is_served().await;
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn connections_without_calls_are_given_up_and_those_with_calls_are_not() {
    let fixture = Fixture::of(false, |config| {
        config.limits.grpc_idle_max = SHORT;
        config.limits.http_idle_max = SHORT;
        config.limits.first_call_within = SHORT;
    })
    .await;
    let mut idle = Raw::connect(fixture.aggregator.grpc).await;
    let unary = [0, 0, 0, 0, 0];
    idle.send(&frame(HEADERS, END_HEADERS, 1, &call(SUBMIT, Some(&fixture.token)))).await;
    idle.send(&frame(DATA, 1, 1, &unary)).await;
    let mut busy = Raw::connect(fixture.aggregator.grpc).await;
    busy.send(&frame(HEADERS, END_HEADERS, 1, &call(CONNECT, Some(&fixture.token)))).await;
    // Whoever watches the health of the process proves nothing and is let be.
    let mut watching = Raw::connect(fixture.aggregator.grpc).await;
    watching.send(&frame(HEADERS, END_HEADERS, 1, &call(HEALTH, None))).await;
    watching.send(&frame(DATA, 1, 1, &unary)).await;
    idle.end().await;
    fixture.ended("idle").await;
    for kept in [&mut busy, &mut watching] {
        kept.send(&frame(HEADERS, END_HEADERS, 3, &call(HEALTH, None))).await;
        kept.send(&frame(DATA, 1, 3, &unary)).await;
        while kept.next().await.expect("still served").stream != 3 {}
    }
    let mut http = TcpStream::connect(fixture.aggregator.http).await.unwrap();
    http.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let page = closes(http).await;
    assert!(page.starts_with(b"HTTP/1.1 200"));
    drop((busy, watching));
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn whoever_tries_tokens_needs_a_new_connection_now_and_then() {
    let fixture = Fixture::new().await;
    let mut raw = Raw::connect(fixture.aggregator.grpc).await;
    for number in 0..REFUSALS_PER_CONNECTION_MAX {
        let guess = call(SUBMIT, Some(&format!("guess-{number}")));
        raw.send(&frame(HEADERS, END_HEADERS, 2 * number + 1, &guess)).await;
    }
    raw.end().await;
    fixture.ended("cut").await;
    let guesses = f64::from(REFUSALS_PER_CONNECTION_MAX);
    fixture.counts("uptime_access_refused_total", &["unknown-token"], guesses).await;
    fixture.honest_is_served().await;
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let fixture = Fixture::of(false, |config| config.limits.connections_per_address_max = 3).await;
    // They have shown who they are, so they stay.
    let mut held = Vec::new();
    for _ in 0..3 {
        let channel = fixture.honest.channel().await.unwrap();
        let mut client = v1::collector_client::CollectorClient::new(channel);
        client.submit(fixture.honest.request(v1::SubmitRequest { reports: vec![] })).await.unwrap();
        held.push(client);
    }
    assert!(closes(TcpStream::connect(fixture.aggregator.grpc).await.unwrap()).await.is_empty());
    fixture.counts("uptime_access_refused_total", &["connections-of-address"], 1.0).await;
    held.pop();
    // As soon as the place is given back.
    let began = Instant::now();
    while fixture.honest.submit(Vec::new()).await.is_err() {
        assert!(began.elapsed() < PATIENCE);
    }
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn newcomers_make_room_for_newcomers() {
    let fixture = Fixture::of(false, |config| config.limits.connections_per_address_max = 3).await;
    let first = TcpStream::connect(fixture.aggregator.grpc).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(TcpStream::connect(fixture.aggregator.grpc).await.unwrap());
    }
    closes(first).await;
    fixture.ended("pushed-out").await;
    // The honest one is let in where idle ones hold all places.
    fixture.honest_is_served().await;
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn lies_about_length_and_compression_are_refused() {
    let fixture = Fixture::new().await;
    let submit = async |data: &[u8]| fixture.submit_bytes(data, true, None).await;
    // An empty message is a report of nothing.
    assert_eq!(submit(&[0, 0, 0, 0, 0]).await, Code::Ok);
    // Four gigabytes are promised; more than a message may have; more than there is; less.
    assert_eq!(submit(&[0, 255, 255, 255, 255, 1]).await, Code::OutOfRange);
    assert_eq!(submit(&[0, 0, 16, 0, 1, 1]).await, Code::OutOfRange);
    assert_ne!(submit(&[0, 0, 0, 0, 9, 1]).await, Code::Ok);
    assert_ne!(submit(&[0, 0, 0, 0, 1, 1, 1, 1]).await, Code::Ok);
    // A field that says it is longer than its message.
    assert_ne!(submit(&[0, 0, 0, 0, 3, 10, 255, 127]).await, Code::Ok);
    // Nothing is ever decompressed, so nothing blows up.
    assert_ne!(submit(&[1, 0, 0, 0, 2, 31, 139]).await, Code::Ok);
    let bomb = fixture.submit_bytes(&[1, 0, 0, 0, 2, 31, 139], true, Some("gzip")).await;
    assert_eq!(bomb, Code::Unimplemented);
    fixture.honest_is_served().await;
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn a_few_bytes_that_stand_for_many_observations_are_refused() {
    use uptime_proto::v1::part::Evidence;
    let fixture = Fixture::new().await;
    let mut stream = Stream::open(&fixture.honest).await;
    let compact = |number, new: Vec<u8>, offer: Vec<u8>| {
        let compact = v1::CompactEvidence {
            new_node_ids: new.into(),
            full: true,
            offer: offer.into(),
            digest_prefix: vec![1, 2, 3, 4].into(),
            ..v1::CompactEvidence::default()
        };
        let evidence = Some(Evidence::Compact(compact));
        v1::Part { evidence, ..market(number, Vec::new()) }
    };
    // One run from number 0 on, as seven bytes: its length less one stands in 31 bits.
    let run = |length: u64| {
        let bits = (1 << 32 | 1 << 31 | (length - 1)) << 7;
        [vec![32, 31], u64::to_be_bytes(bits)[3..].to_vec()].concat()
    };
    // Sixty thousand ids are numbered, which takes as many bytes as they have.
    for (number, offer, reason) in [
        (0, Vec::new(), RefusalReason::Resync),
        (1, Vec::new(), RefusalReason::Resync),
        (2, run(60_000), RefusalReason::TooManyObservations),
        (3, run(1 << 31), RefusalReason::Resync),
    ] {
        let new = if number < 2 { ids(number * 30_000, 30_000) } else { Vec::new() };
        let part = compact(number, new, offer);
        let result = stream.report(report(vec![part])).await;
        assert_eq!(RefusalReason::try_from(result.reason).unwrap(), reason, "{number}: {result:?}");
    }
    // Four thousand bytes for two and a half million observations, and no answer but no.
    let parts = (0..64).map(|number| compact(number, Vec::new(), run(60_000))).collect();
    let result = stream.report(report(parts)).await;
    assert_eq!(result.status, ReportStatus::Refused as i32);
    // The simple form of a call does not take it at all.
    let part = compact(0, ids(0, 1), run(1));
    let answer = fixture.honest.submit(vec![report(vec![part])]).await.unwrap();
    assert_eq!(answer.results[0].reason, RefusalReason::CompactNotAllowed as i32);
    let result = stream.report(report(vec![market(0, ids(0, 5))])).await;
    assert_eq!(result.status, ReportStatus::Accepted as i32);
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn whoever_hands_in_too_fast_waits_and_nobody_else_does() {
    let fixture = Fixture::of(false, |config| config.limits.parts_per_s_max = 1).await;
    let beta = fixture.host.enrol("beta", Role::Probe).await;
    // Ten are free at once; the next one is too many until they were paid for.
    let parts = (0..12).map(|number| market(number, ids(0, 1))).collect();
    let answer = fixture.honest.submit(vec![report(parts)]).await.unwrap();
    assert_eq!(answer.results[0].status, ReportStatus::Accepted as i32);
    let refused = fixture.honest.submit(Vec::new()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    fixture.counts("uptime_ingest_slowed_total", &[], 1.0).await;
    let other = fixture.aggregator.caller().token(&beta);
    other.submit(vec![report(vec![market(0, ids(0, 1))])]).await.unwrap();
    // Two seconds later they are paid for.
    let began = Instant::now();
    while fixture.honest.submit(Vec::new()).await.is_err() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fixture.aggregator.stop().await;
}

#[tokio::test]
async fn an_http_head_has_its_limits() {
    let fixture = Fixture::new().await;
    let many: String = (0..100).map(|number| format!("x-{number}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(40_000));
    for headers in [many, long] {
        let mut stream = TcpStream::connect(fixture.aggregator.http).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.ok();
        let answer = String::from_utf8_lossy(&closes(stream).await).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let stream = TcpStream::connect(fixture.aggregator.http).await.unwrap();
    assert_eq!(http_get(stream, "/", None).await.0, 200);
    fixture.aggregator.stop().await;
}
