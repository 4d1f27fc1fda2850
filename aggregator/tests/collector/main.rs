//! The Collector over real sockets: what is taken, what is refused, and that a refusal disturbs
//! nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod fixture;
mod kill;
#[path = "../shared/program.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod program;
#[path = "../shared/reports.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod reports;

use fixture::{Aggregator, PERIOD_S, enrol, settings, with_token};
use reports::{ids, market, report, round_now_s, submit};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use uptime_accounting::fact::Gap;
use uptime_aggregator::config::SettingArgs;
use uptime_aggregator::store::{FactLog, SqliteStore};
use uptime_proto::v1::collector_client::CollectorClient;
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;
use uptime_proto::v1::{
    self, GoodbyeReason, RefusalReason, ReportStatus, aggregator_message, probe_message,
};
use uptime_proto::{PROTOCOL_VERSION, Reason};

fn status(result: &v1::ReportResult) -> ReportStatus {
    ReportStatus::try_from(result.status).unwrap()
}

fn reason(result: &v1::ReportResult) -> RefusalReason {
    RefusalReason::try_from(result.reason).unwrap()
}

#[tokio::test]
async fn a_part_is_taken_once_and_another_content_is_a_conflict() {
    let directory = tempfile::tempdir().unwrap();
    let token = enrol(directory.path(), "alpha", &[]).await;
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut collector = aggregator.collector().await;
    let part = market(0, ids(0, 3));
    let other = v1::Part { observed_at_unix_ms: part.observed_at_unix_ms - 1, ..part.clone() };
    for (part, wanted) in [
        (part.clone(), ReportStatus::Accepted),
        (part.clone(), ReportStatus::Duplicate),
        (other.clone(), ReportStatus::Conflict),
        (other, ReportStatus::Duplicate),
    ] {
        assert_eq!(status(&submit(&mut collector, &token, report(vec![part])).await), wanted);
    }
    aggregator.stop().await;
    // The same after a restart: what was acknowledged is on disk.
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut collector = aggregator.collector().await;
    let result = submit(&mut collector, &token, report(vec![part])).await;
    assert_eq!(status(&result), ReportStatus::Duplicate);
    aggregator.stop().await;
}

#[tokio::test]
async fn a_report_of_a_gap_alone_is_taken_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let token = enrol(directory.path(), "alpha", &[]).await;
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut collector = aggregator.collector().await;
    let gap = v1::Gap {
        from_round_unix_s: round_now_s() - 10 * PERIOD_S,
        to_round_unix_s: round_now_s(),
        reason: v1::CouldNotLookReason::SpoolFull as i32,
    };
    let nonsense = v1::Gap { to_round_unix_s: 0, ..gap };
    let told = v1::Report { gaps: vec![gap, nonsense], ..report(vec![]) };
    for _ in 0..2 {
        let result = submit(&mut collector, &token, told.clone()).await;
        assert_eq!((status(&result), result.report_id), (ReportStatus::Accepted, 1));
    }
    aggregator.stop().await;
    // What was acknowledged is on disk, once.
    let mut store = SqliteStore::open(directory.path()).await.unwrap();
    let kept = store.gaps(0, u64::from(u32::MAX)).await.unwrap();
    let wanted = Gap {
        probe: kept[0].probe,
        from_s: gap.from_round_unix_s,
        to_s: gap.to_round_unix_s,
        reason: Reason::SpoolFull,
    };
    assert_eq!(kept, [wanted]);
    assert!(store.gaps(0, gap.from_round_unix_s).await.unwrap().is_empty());
}

#[tokio::test]
async fn bad_parts_are_refused_with_their_reason_and_good_ones_beside_them_are_taken() {
    use RefusalReason as R;
    let directory = tempfile::tempdir().unwrap();
    let token = enrol(directory.path(), "alpha", &["public"]).await;
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut collector = aggregator.collector().await;
    type Change = fn(&mut v1::Part);
    let cases: Vec<(Change, RefusalReason)> = vec![
        (|part| part.evidence = market(0, vec![1; 19]).evidence, R::MalformedNodeId),
        (|part| part.round_unix_s += 1, R::RoundOffGrid),
        (|part| part.round_period_s = 17, R::PeriodInvalid),
        (|part| (part.round_period_s, part.round_unix_s) = (60, 0), R::PeriodInvalid),
        (|part| part.round_unix_s += 10 * PERIOD_S, R::RoundInFuture),
        (|part| part.round_unix_s -= 36 * 86_400, R::RoundTooOld),
        (|part| part.round_unix_s -= 10 * PERIOD_S, R::ObservedOutsideRound),
        (|part| part.observed_at_unix_ms = 0, R::ObservedOutsideRound),
        (|part| part.observed_at_unix_ms = i64::MAX, R::ObservedOutsideRound),
        (|part| part.subnet = "testnet".into(), R::SubnetNotAllowed),
        (|part| part.subnet = String::new(), R::SubnetInvalid),
        (|part| part.number = 64, R::PartNumberTooLarge),
        (|part| part.evidence = market(0, ids(0, 40_001)).evidence, R::TooManyObservations),
        (
            |part| part.evidence = market(0, [ids(0, 1), ids(0, 1)].concat()).evidence,
            R::Contradiction,
        ),
        (|part| (part.kind, part.subnet) = (2, String::new()), R::ClassNotInKind),
        (|part| part.outcome = 0, R::FieldMissing),
    ];
    for (number, (change, wanted)) in (0u32..).zip(cases) {
        let mut bad = market(1, ids(0, 1));
        change(&mut bad);
        // A clock that has not been sure for long puts off what is wrong by it alone.
        let by_the_clock = [R::RoundInFuture, R::RoundTooOld].contains(&wanted);
        let said = if by_the_clock { ReportStatus::Later } else { ReportStatus::Refused };
        let result = submit(&mut collector, &token, report(vec![bad.clone()])).await;
        assert_eq!((status(&result), reason(&result)), (said, wanted), "{bad:?}");
        assert!(!result.detail.is_empty());
        let both = report(vec![bad, market(10 + number, ids(0, 1))]);
        let result = submit(&mut collector, &token, both).await;
        let parts: Vec<i32> = result.parts.iter().map(|part| part.status).collect();
        assert_eq!(parts, [said as i32, ReportStatus::Accepted as i32]);
    }
    let many = report((0..65).map(|number| market(number % 64, vec![])).collect());
    assert_eq!(reason(&submit(&mut collector, &token, many).await), R::TooManyParts);
    aggregator.stop().await;
}

/// Whether its own clock is right is not known here, so the aggregator refuses nothing by it.
#[tokio::test]
async fn what_would_be_refused_for_its_time_alone_is_put_off_while_the_clock_is_not_sure() {
    use RefusalReason as R;
    use ReportStatus::{Accepted, Later, Refused};
    let directory = tempfile::tempdir().unwrap();
    let token = enrol(directory.path(), "alpha", &[]).await;
    let settings = || SettingArgs {
        kernel_clock: Some("unsynchronised".into()),
        ..fixture::settings(directory.path())
    };
    let aggregator = Aggregator::start(settings()).await;
    let mut collector = aggregator.collector().await;
    let moved = |by_s: i64| {
        let part = market(1, ids(0, 1));
        v1::Part {
            round_unix_s: part.round_unix_s.checked_add_signed(by_s).unwrap(),
            observed_at_unix_ms: part.observed_at_unix_ms + by_s * 1_000,
            ..part
        }
    };
    let period_s = i64::try_from(PERIOD_S).unwrap();
    let outside = v1::Part { observed_at_unix_ms: 0, ..market(1, ids(0, 1)) };
    for (number, (part, wanted)) in (2..).zip([
        (moved(10 * period_s), (Later, R::RoundInFuture)),
        (moved(-36 * 86_400), (Later, R::RoundTooOld)),
        // No clock makes these right.
        (outside, (Refused, R::ObservedOutsideRound)),
        (v1::Part { round_period_s: 17, ..market(1, ids(0, 1)) }, (Refused, R::PeriodInvalid)),
    ]) {
        let result = submit(&mut collector, &token, report(vec![part.clone()])).await;
        assert_eq!((status(&result), reason(&result)), wanted, "{part:?}");
        // A good part beside it is taken, and the report is to be sent again where one was put off.
        let both = report(vec![part, market(number, ids(0, 1))]);
        let result = submit(&mut collector, &token, both).await;
        assert_eq!(status(&result), wanted.0);
        let parts: Vec<i32> = result.parts.iter().map(|part| part.status).collect();
        assert_eq!(parts, [wanted.0 as i32, Accepted as i32]);
    }
    aggregator.stop().await;
}

#[tokio::test]
async fn invented_subnets_are_refused_and_nobody_else_is_disturbed() {
    let directory = tempfile::tempdir().unwrap();
    let liar = enrol(directory.path(), "liar", &[]).await;
    let honest = enrol(directory.path(), "honest", &[]).await;
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut collector = aggregator.collector().await;
    let of = |subnet: String| v1::Part { subnet, ..market(0, ids(0, 1)) };
    for number in 0..64 {
        let part = of(format!("made-up-{number}"));
        let result = submit(&mut collector, &liar, report(vec![part])).await;
        assert_eq!(status(&result), ReportStatus::Accepted, "{result:?}");
    }
    // Also not after a restart: who brought which subnet is stored.
    aggregator.stop().await;
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut collector = aggregator.collector().await;
    let one_more = report(vec![of("one-more".to_owned()), of("made-up-7".to_owned())]);
    let result = submit(&mut collector, &liar, one_more).await;
    assert_eq!(reason(&result), RefusalReason::SubnetInvalid);
    assert!(result.detail.contains("brought 64 such"), "{}", result.detail);
    let parts: Vec<i32> = result.parts.iter().map(|part| part.status).collect();
    assert_eq!(parts[0], ReportStatus::Refused as i32);
    assert_ne!(parts[1], ReportStatus::Refused as i32, "what is known may be reported");
    for subnet in ["one-more", "made-up-3"] {
        let result = submit(&mut collector, &honest, report(vec![of(subnet.to_owned())])).await;
        assert_eq!(status(&result), ReportStatus::Accepted, "{subnet}: {result:?}");
    }
    aggregator.stop().await;
}

#[tokio::test]
async fn a_million_invented_nodes_are_refused_and_nobody_else_is_disturbed() {
    let directory = tempfile::tempdir().unwrap();
    let liar = enrol(directory.path(), "liar", &[]).await;
    let honest = enrol(directory.path(), "honest", &[]).await;
    let settings = || SettingArgs {
        unconfirmed_nodes_max: Some("70000".into()),
        ..fixture::settings(directory.path())
    };
    let aggregator = Aggregator::start(settings()).await;
    let mut collector = aggregator.collector().await;
    let mut taken = 0;
    for number in 0..25 {
        let part = market(number, ids(number * 40_000, 40_000));
        let result = submit(&mut collector, &liar, report(vec![part])).await;
        match status(&result) {
            ReportStatus::Accepted => taken += 40_000,
            _ => assert_eq!(reason(&result), RefusalReason::TooManyUnconfirmedNodes),
        }
    }
    assert_eq!(taken, 40_000);
    // Also not after a restart: who brought which id is stored.
    aggregator.stop().await;
    let aggregator = Aggregator::start(settings()).await;
    let mut collector = aggregator.collector().await;
    let again = report(vec![market(40, ids(2_000_000, 40_000))]);
    let result = submit(&mut collector, &liar, again).await;
    assert_eq!(reason(&result), RefusalReason::TooManyUnconfirmedNodes);
    let good = report(vec![market(0, ids(3_000_000, 40_000))]);
    assert_eq!(status(&submit(&mut collector, &honest, good).await), ReportStatus::Accepted);
    let csv = std::fs::read_to_string(directory.path().join("nodes_status.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1, "invented ids are shown to nobody");
    aggregator.stop().await;
}

#[tokio::test]
async fn a_round_takes_so_many_parts_of_a_probe_whatever_their_subnets_and_contents() {
    use ReportStatus as S;
    let directory = tempfile::tempdir().unwrap();
    let greedy = enrol(directory.path(), "greedy", &[]).await;
    let honest = enrol(directory.path(), "honest", &[]).await;
    let settings = || SettingArgs {
        parts_per_round_max: Some("16".into()),
        ..fixture::settings(directory.path())
    };
    let aggregator = Aggregator::start(settings()).await;
    let mut collector = aggregator.collector().await;
    let first = market(0, ids(0, 1));
    let start_ms = i64::try_from(first.round_unix_s * 1_000).unwrap();
    let first = v1::Part { observed_at_unix_ms: start_ms + 1_000, ..first };
    let numbered = |number| v1::Part { number, ..first.clone() };
    let at = |ms| v1::Part { observed_at_unix_ms: first.observed_at_unix_ms - ms, ..first.clone() };
    // Two numbers, seven subnets, and seven contents under one key: sixteen.
    let subnet = |name: String| v1::Part { subnet: name, ..first.clone() };
    let subnets = (0..7).map(|number| subnet(format!("s-{number}")));
    let parts: Vec<v1::Part> =
        [first.clone(), numbered(1)].into_iter().chain(subnets).chain((1..8).map(at)).collect();
    assert_eq!(parts.len(), 16);
    let result = submit(&mut collector, &greedy, report(parts[..15].to_vec())).await;
    assert_eq!(status(&result), S::Conflict);
    // The sixteenth comes after a restart: who has how many is what is stored.
    aggregator.stop().await;
    let aggregator = Aggregator::start(settings()).await;
    let mut collector = aggregator.collector().await;
    assert_eq!(
        status(&submit(&mut collector, &greedy, report(vec![parts[15].clone()])).await),
        S::Conflict
    );
    for beyond in [numbered(2), subnet("s-7".into()), at(8)] {
        let result = submit(&mut collector, &greedy, report(vec![beyond.clone()])).await;
        let why = (status(&result), reason(&result));
        assert_eq!(why, (S::Refused, RefusalReason::TooManyPartsOfRound), "{beyond:?}");
    }
    // What is there is there, other rounds and other probes have their own.
    let again = submit(&mut collector, &greedy, report(parts)).await;
    assert_eq!(status(&again), S::Duplicate, "{again:?}");
    let before = v1::Part {
        round_unix_s: first.round_unix_s - PERIOD_S,
        observed_at_unix_ms: start_ms - 1,
        ..first.clone()
    };
    for (token, part) in [(&greedy, before), (&honest, first)] {
        assert_eq!(status(&submit(&mut collector, token, report(vec![part])).await), S::Accepted);
    }
    aggregator.stop().await;
    let mut store = SqliteStore::open(directory.path()).await.unwrap();
    assert_eq!(store.read(0, u64::from(u32::MAX)).await.unwrap().len(), 18);
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_the_call_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let token = enrol(directory.path(), "alpha", &[]).await;
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut collector = aggregator.collector().await;
    let large = v1::SubmitRequest { reports: vec![report(vec![market(0, ids(0, 60_000))])] };
    let refused = collector.submit(with_token(large, &token)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    let good = report(vec![market(0, ids(0, 40_000))]);
    assert_eq!(status(&submit(&mut collector, &token, good).await), ReportStatus::Accepted);
    aggregator.stop().await;
}

#[tokio::test]
async fn without_a_valid_token_nothing_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut collector = aggregator.collector().await;
    let request = || v1::SubmitRequest { reports: vec![] };
    let bare = collector.submit(request()).await.unwrap_err();
    let wrong = collector.submit(with_token(request(), "0000")).await.unwrap_err();
    assert_eq!((bare.code(), wrong.code()), (Code::Unauthenticated, Code::Unauthenticated));
    assert_eq!(bare.message(), wrong.message(), "no word tells the two apart");
    // A probe that is enrolled while the aggregator runs is known at once.
    let token = enrol(directory.path(), "late", &[]).await;
    assert!(collector.submit(with_token(request(), &token)).await.is_ok());
    aggregator.stop().await;
}

type Stream =
    (tokio::sync::mpsc::Sender<v1::ProbeMessage>, tonic::Streaming<v1::AggregatorMessage>);

async fn connect(
    collector: &mut CollectorClient<tonic::transport::Channel>,
    token: &str,
    first: probe_message::Message,
) -> Stream {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    sender.send(v1::ProbeMessage { message: Some(first) }).await.unwrap();
    let request = with_token(ReceiverStream::new(receiver), token);
    (sender, collector.connect(request).await.unwrap().into_inner())
}

fn hello(protocol_version: u32) -> probe_message::Message {
    probe_message::Message::Hello(v1::Hello { protocol_version, ..v1::Hello::default() })
}

#[tokio::test]
async fn one_probe_has_one_stream_and_the_newer_wins() {
    let directory = tempfile::tempdir().unwrap();
    let token = enrol(directory.path(), "alpha", &[]).await;
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut collector = aggregator.collector().await;
    let (_older_sender, mut older) = connect(&mut collector, &token, hello(PROTOCOL_VERSION)).await;
    let first = older.message().await.unwrap().unwrap().message;
    let Some(aggregator_message::Message::Welcome(welcome)) = first else { panic!("{first:?}") };
    assert_eq!(welcome.probe_name, "alpha");
    assert_eq!((welcome.store_id.len(), welcome.generation), (16, 1));
    assert_eq!(u64::from(welcome.epochs[0].round_period_s), PERIOD_S);
    let (sender, mut newer) = connect(&mut collector, &token, hello(PROTOCOL_VERSION)).await;
    loop {
        let Some(message) = older.message().await.unwrap() else { panic!("no goodbye") };
        if let Some(aggregator_message::Message::Goodbye(goodbye)) = message.message {
            assert_eq!(goodbye.reason, GoodbyeReason::Superseded as i32);
            break;
        }
    }
    let taken = v1::Report { report_id: 77, ..report(vec![market(0, ids(0, 5))]) };
    let taken = v1::ProbeMessage { message: Some(probe_message::Message::Report(taken)) };
    sender.send(taken).await.unwrap();
    loop {
        let message = newer.message().await.unwrap().unwrap().message;
        if let Some(aggregator_message::Message::Result(result)) = message {
            assert_eq!((result.report_id, status(&result)), (77, ReportStatus::Accepted));
            break;
        }
    }
    aggregator.stop().await;
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_this_versions_hello_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let token = enrol(directory.path(), "alpha", &[]).await;
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut collector = aggregator.collector().await;
    let beat = probe_message::Message::Heartbeat(v1::Heartbeat::default());
    for first in [beat, hello(PROTOCOL_VERSION + 1)] {
        let (_sender, mut stream) = connect(&mut collector, &token, first).await;
        assert_eq!(stream.message().await.unwrap_err().code(), Code::FailedPrecondition);
    }
    aggregator.stop().await;
}

#[tokio::test]
async fn a_stream_is_not_read_faster_than_it_is_answered_and_answers_all() {
    let directory = tempfile::tempdir().unwrap();
    let token = enrol(directory.path(), "alpha", &[]).await;
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut collector = aggregator.collector().await;
    let (sender, mut stream) = connect(&mut collector, &token, hello(PROTOCOL_VERSION)).await;
    let send = async {
        for number in 0..640u64 {
            // Old rounds, ten parts each: all late, all distinct.
            let back = 40 + number / 10;
            let mut part = market(u32::try_from(number % 10).unwrap(), ids(0, 100));
            part.round_unix_s = round_now_s() - back * PERIOD_S;
            part.observed_at_unix_ms = i64::try_from(part.round_unix_s).unwrap() * 1000 + 5;
            let report = v1::Report { report_id: number, ..report(vec![part]) };
            let message = Some(probe_message::Message::Report(report));
            sender.send(v1::ProbeMessage { message }).await.unwrap();
        }
    };
    let receive = async {
        let mut answered = std::collections::BTreeSet::new();
        while answered.len() < 640 {
            let message = stream.message().await.unwrap().unwrap().message;
            if let Some(aggregator_message::Message::Result(result)) = message {
                assert_eq!(status(&result), ReportStatus::Accepted, "{result:?}");
                assert!(answered.insert(result.report_id));
            }
        }
    };
    tokio::join!(send, receive);
    aggregator.stop().await;
}

#[tokio::test]
async fn what_is_not_answered_yet_says_so_and_health_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let mut query = UptimeQueryClient::new(aggregator.channel().await);
    let bad = query
        .get_node(v1::GetNodeRequest { id: "0x12".into(), round_unix_s: 0 })
        .await
        .unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    let id = format!("0x{}", "ab".repeat(20));
    let unknown = query.get_node(v1::GetNodeRequest { id, round_unix_s: 0 }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut health = tonic_health::pb::health_client::HealthClient::new(aggregator.channel().await);
    let service = "golem.uptime.v1.Collector".to_owned();
    let answer = health.check(tonic_health::pb::HealthCheckRequest { service }).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
    aggregator.stop().await;
}

#[tokio::test]
async fn two_aggregators_cannot_share_a_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let aggregator = Aggregator::start(settings(directory.path())).await;
    let output = program::serve_command(&[], directory.path()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("in use by another aggregator"), "{said}");
    aggregator.stop().await;
}
