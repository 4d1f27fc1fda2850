//! The uplink over connections that come and go.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uptime_probe::clock::Timekeeper;
use uptime_probe::control_state::ControlState;
use uptime_probe::spool::{Spool, SpoolLimits};
use uptime_probe::uplink::{DIAL_WITHIN, Tls, Token, Uplink, UplinkError, UplinkOptions, join};
use uptime_proto::convert::PartLimits;
use uptime_proto::{Class, Kind, NodeId, Outcome, Part, PartKey, Period, Round, Sample, Sets, v1};

use super::fake_collector::{IN_FLIGHT_MAX, Received, collector, wait_for};

const PARTS: u64 = 100;

fn part(number: u64) -> Part {
    let round = Round::new(number * 30, Period::new(30).unwrap()).unwrap();
    Part {
        key: PartKey { subnet: String::new(), round, number: 0 },
        kind: Kind::Lookup,
        outcome: Outcome::Looked,
        observed_at_ms: round.start_ms() + 20_000,
        relay_session_age_s: Some(600),
        sets: Sets::default().with(Class::Seen, vec![NodeId::new([7; 20])]),
    }
}

fn spool(directory: &Path) -> Spool {
    let (spool, _) = Spool::open(directory, SpoolLimits::of_bytes(64 << 20)).unwrap();
    for number in 1..=PARTS {
        spool.append(part(number), &PartLimits::default()).unwrap();
    }
    spool
}

fn uplink(spool: &Spool, aggregators: Vec<String>) -> Uplink {
    uplink_with(spool, aggregators, Tls::default())
}

fn uplink_with(spool: &Spool, aggregators: Vec<String>, tls: Tls) -> Uplink {
    let subnets = Vec::new();
    let options = UplinkOptions { aggregators, tls, token: None, subnets };
    let control = ControlState::open(Path::new("/nonexistent"), Timekeeper::trusted());
    Uplink::new(options, spool.clone(), control)
}

fn copies(received: &Received) -> usize {
    received.parts.values().map(Vec::len).sum()
}

async fn wait_until_empty(spool: &Spool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while spool.waiting() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn no_more_is_on_its_way_than_the_aggregator_wants() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool(directory.path());
    let collector = collector(false, None).await;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(uplink(&spool, vec![collector.address.clone()]).run(stop.clone()));
    wait_for(&collector.received, |received| copies(received) >= IN_FLIGHT_MAX).await;
    // A heartbeat comes after a while without a report: nothing followed for so long.
    wait_for(&collector.received, |received| received.heartbeats > 0).await;
    assert_eq!(copies(&collector.received.borrow()), IN_FLIGHT_MAX);
    stop.cancel();
    tasks.join_next().await;
    assert_eq!(spool.waiting(), PARTS);
}

#[tokio::test]
async fn what_travelled_beside_a_part_over_a_stream_that_broke_travels_again() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool(directory.path());
    let details = vec![v1::NodeDetails { name: "one".to_owned(), ..v1::NodeDetails::default() }];
    assert!(spool.leave_details(details).is_empty());
    let sample = Sample { seen_age_ms: Some(40_000), ..Sample::new(NodeId::new([7; 20]), 30) };
    spool.leave_samples(vec![sample]);
    let collector = collector(false, None).await;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(uplink(&spool, vec![collector.address.clone()]).run(stop.clone()));
    let came = |times: usize| {
        move |received: &Received| {
            received.details.len() == times && received.samples.len() == times
        }
    };
    wait_for(&collector.received, came(1)).await;
    collector.answer.send_replace(true);
    collector.interrupt().await;
    wait_for(&collector.received, came(2)).await;
    // What was acknowledged is told no more.
    wait_until_empty(&spool).await;
    collector.interrupt().await;
    spool.append(part(PARTS + 1), &PartLimits::default()).unwrap();
    wait_for(&collector.received, |received| received.parts.len() as u64 > PARTS).await;
    assert!(came(2)(&collector.received.borrow()));
    stop.cancel();
    tasks.join_next().await;
}

/// Accepts connections and says nothing on them.
async fn silent(tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut taken = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            taken.push(stream);
        }
    });
    address
}

fn over_tls() -> Tls {
    let authority = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    Tls::new(Some(authority.cert.pem()), None)
}

#[tokio::test]
async fn a_peer_that_is_silent_under_tls_is_given_up_and_the_next_one_is_tried() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool(directory.path());
    let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
    let silent = format!("https://{}", silent(&mut tasks).await);
    let collector = collector(true, None).await;
    let uplink = |aggregators| uplink_with(&spool, aggregators, over_tls());
    let both = vec![silent.clone(), collector.address.clone()];
    tasks.spawn(uplink(both).run(stop.clone()));
    let (tls, ticket) = (over_tls(), Token::new("ticket").unwrap());
    let alone = uplink(vec![silent.clone()]);
    let (greeted, joined, ()) = tokio::join!(
        tokio::time::timeout(DIAL_WITHIN * 2, alone.greet()),
        tokio::time::timeout(DIAL_WITHIN * 2, join(&silent, &tls, &ticket)),
        wait_for(&collector.received, |received| copies(received) as u64 == PARTS),
    );
    for error in [greeted.unwrap().unwrap_err(), joined.unwrap().unwrap_err()] {
        assert!(matches!(error, UplinkError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("is silent"), "{error}");
    }
    stop.cancel();
}

#[tokio::test]
async fn a_drain_leaves_time_for_every_address_whoever_is_silent() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool(directory.path());
    let mut tasks = JoinSet::new();
    let collector = collector(true, None).await;
    let addresses = vec![
        format!("https://{}", silent(&mut tasks).await),
        // Silent only after its connection is there.
        format!("http://{}", silent(&mut tasks).await),
        collector.address.clone(),
    ];
    let uplink = uplink_with(&spool, addresses, over_tls());
    assert_eq!(uplink.drain(Duration::from_secs(6)).await, 0);
    assert_eq!(copies(&collector.received.borrow()) as u64, PARTS);
}

#[tokio::test]
async fn a_drain_tries_every_address_too() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool(directory.path());
    let collector = collector(true, None).await;
    let addresses = vec!["http://127.0.0.1:1".to_owned(), collector.address.clone()];
    assert_eq!(uplink(&spool, addresses).drain(Duration::from_secs(20)).await, 0);
    assert_eq!(copies(&collector.received.borrow()) as u64, PARTS);
}

#[tokio::test]
async fn the_next_address_is_tried_and_what_one_has_acknowledged_is_not_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool(directory.path());
    let (first, second) = (collector(true, None).await, collector(true, None).await);
    let nobody = "http://127.0.0.1:1".to_owned();
    let addresses = vec![nobody, first.address.clone(), second.address.clone()];
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(uplink(&spool, addresses).run(stop.clone()));
    wait_for(&first.received, |received| copies(received) as u64 >= PARTS).await;
    wait_until_empty(&spool).await;
    // It goes away; what comes now goes to the other one, and nothing else does.
    first.closed.send_replace(true);
    wait_for(&second.received, |received| received.streams > 0).await;
    spool.append(part(PARTS + 1), &PartLimits::default()).unwrap();
    wait_for(&second.received, |received| copies(received) > 0).await;
    assert_eq!(copies(&first.received.borrow()) as u64, PARTS);
    assert_eq!(copies(&second.received.borrow()), 1);
    stop.cancel();
    tasks.join_next().await;
}
