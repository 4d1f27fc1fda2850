//! Round trips of the living.

use std::time::Duration;

use tokio::time::Instant;
use uptime_probe::yagna::{Limits, RoundTrip};
use uptime_proto::{NodeId, Reason};
use uptime_testkit::fake_yagna::{DaemonOptions, Fault, FaultKind, ProviderSpec, World};

use super::*;

const PING: &str = "POST /_gsb/local/net/GsbPing";
const NOBODY: &str = "0x0000000000000000000000000000000000000001";

fn providers(world: &World, count: usize) -> Vec<NodeId> {
    (0..count).map(|_| id(&world.add_provider(ProviderSpec::in_subnet("public")))).collect()
}

fn measured(trips: &[RoundTrip]) -> Vec<NodeId> {
    let mut ids: Vec<NodeId> = trips.iter().map(|trip| trip.node_id).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn all_of_a_batch_in_one_call() {
    let world = world();
    let mut living = providers(&world, 32);
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    let trips = yagna.round_trips(&living).await.unwrap();
    living.sort_unstable();
    assert_eq!(measured(&trips), living);
    assert!(trips.iter().all(|trip| trip.tcp > Some(Duration::ZERO) && trip.udp.is_some()));
    assert_eq!(daemon.count(PING), 1);
    // Nobody, and one several times over.
    assert_eq!(yagna.round_trips(&[]).await.unwrap(), []);
    assert_eq!(daemon.count(PING), 1);
    assert_eq!(yagna.round_trips(&[living[0]; 40]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn more_than_a_batch_is_not_asked() {
    let world = world();
    let living = providers(&world, 4);
    let daemon = daemon(&world).await;
    let yagna = yagna_with(&daemon, Limits { ping_batch_max: 3, ..limits() });
    assert_eq!(reason(yagna.round_trips(&living).await), Reason::Missed);
    assert_eq!(daemon.count(PING), 0);
    assert_eq!(yagna.round_trips(&living[..3]).await.unwrap().len(), 3);
}

#[tokio::test]
async fn those_who_do_not_answer_are_left_out_and_hold_up_the_call() {
    let world = world();
    let mut ids = providers(&world, 3);
    world.kill(&ids[1].to_string());
    ids.push(id(NOBODY));
    let mut options = DaemonOptions::default();
    options.limits.ping = Duration::from_millis(300);
    let daemon = Daemon::start(world.clone(), options).await.unwrap();
    let begun = Instant::now();
    let trips = yagna(&daemon).round_trips(&ids).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    let mut living = vec![ids[0], ids[2]];
    living.sort_unstable();
    assert_eq!(measured(&trips), living);
    let nobody = yagna(&daemon).round_trips(&[id(NOBODY)]).await.unwrap();
    assert_eq!(nobody, []);
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_none() {
    let world = world();
    let living = providers(&world, 1);
    let daemon = daemon(&world).await;
    let ping_timeout = Duration::from_millis(300);
    let yagna = yagna_with(&daemon, Limits { ping_timeout, ..limits() });
    daemon.freeze();
    assert_eq!(reason(yagna.round_trips(&living).await), Reason::TimedOut);
    daemon.stop_listening().await;
    assert_eq!(reason(yagna.round_trips(&living).await), Reason::YagnaUnreachable);
}

#[tokio::test]
async fn faults() {
    let world = world();
    let living = providers(&world, 2);
    let daemon = daemon(&world).await;
    let ping_timeout = Duration::from_millis(300);
    let yagna = yagna_with(&daemon, Limits { ping_timeout, ..faults::small() });
    for (kind, expected) in faults::cases() {
        daemon.set_fault(Some(Fault::new(PING, kind.clone())));
        let expected = expected.unwrap_or(Reason::NetError);
        assert_eq!(reason(yagna.round_trips(&living).await), expected, "{kind:?}");
    }
    let nothing = FaultKind::Status(200, r#"{"Ok":[]}"#.to_owned());
    daemon.set_fault(Some(Fault::new(PING, nothing)));
    assert_eq!(yagna.round_trips(&living).await.unwrap(), []);
    daemon.set_fault(None);
    assert_eq!(yagna.round_trips(&living).await.unwrap().len(), 2, "and it passes");
}
