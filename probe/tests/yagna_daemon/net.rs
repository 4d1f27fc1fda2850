//! Asking the network, and who the daemon is.

use std::time::Duration;

use tokio::time::Instant;
use uptime_probe::yagna::{Found, Limits};
use uptime_proto::Reason;
use uptime_testkit::fake_yagna::{DaemonOptions, Fault, FaultKind, ProviderSpec};

use super::*;

const FIND: &str = "POST /_gsb/local/net/FindNode";
const NOBODY: &str = "0x0000000000000000000000000000000000000001";

fn seen_s(found: &Found) -> i64 {
    match found {
        Found::Known { seen_unix_s, .. } => *seen_unix_s,
        Found::NotKnown => panic!("not known"),
    }
}

#[tokio::test]
async fn nodes_are_found_as_the_relay_knows_them() {
    let world = world();
    let add = || world.add_provider(ProviderSpec::in_subnet("public"));
    let (living, dead, purged) = (add(), add(), add());
    let many = world.add_provider(ProviderSpec { other_identities: 2, ..ProviderSpec::default() });
    world.kill(&dead);
    world.advance(Duration::from_secs(120));
    world.purge(&purged);
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    let now_s = i64::try_from(world.now().as_secs()).unwrap();
    let found = yagna.find_node(id(&living)).await.unwrap();
    assert!((0..=20).contains(&(now_s - seen_s(&found))), "{found:?}");
    let found = yagna.find_node(id(&dead)).await.unwrap();
    assert!((120..=140).contains(&(now_s - seen_s(&found))), "{found:?}");
    assert_eq!(yagna.find_node(id(&purged)).await.unwrap(), Found::NotKnown);
    assert_eq!(yagna.find_node(id(NOBODY)).await.unwrap(), Found::NotKnown);
    let other = &world.identities_of(&many)[2];
    match yagna.find_node(id(other)).await.unwrap() {
        Found::Known { identities, .. } => assert_eq!(identities.len(), 3),
        Found::NotKnown => panic!("not known"),
    }
}

#[tokio::test]
async fn a_relay_that_is_down_or_refuses_is_no_evidence() {
    let world = world();
    let node = world.add_provider(ProviderSpec::in_subnet("public"));
    let mut options = DaemonOptions::default();
    options.limits.relay_down = Duration::from_millis(50);
    let daemon = Daemon::start(world.clone(), options).await.unwrap();
    let yagna = yagna(&daemon);
    let age = yagna.relay_session_age().await.unwrap().unwrap();
    assert!((3600..3660).contains(&age.as_secs()), "{age:?}");
    daemon.set_relay_session_age(Duration::from_secs(30));
    let age = yagna.relay_session_age().await.unwrap().unwrap();
    assert!((30..90).contains(&age.as_secs()), "{age:?}");
    world.relay_down();
    assert_eq!(reason(yagna.find_node(id(&node)).await), Reason::TimedOut);
    world.advance(Duration::from_secs(30));
    assert_eq!(yagna.relay_session_age().await.unwrap(), None);
    world.relay_up();
    daemon.refuse_by_relay(true);
    assert_eq!(reason(yagna.find_node(id(&node)).await), Reason::NetError);
    assert_eq!(yagna.relay_session_age().await.unwrap(), None);
}

#[tokio::test]
async fn the_daemon_says_who_it_is() {
    let world = world();
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    assert_eq!(yagna.identity().await.unwrap(), id(daemon.identity()));
    assert!(yagna.version().await.unwrap().starts_with("0.17"));
    daemon.refuse_key(true);
    assert_eq!(reason(yagna.identity().await), Reason::Unauthorised);
    assert!(yagna.version().await.is_ok(), "the version needs no key");
}

/// Puts so many `FindNode` questions at once; how long all of them take.
async fn flood(daemon: &Daemon, limits: Limits, count: u64) -> Duration {
    let yagna = yagna_with(daemon, limits);
    let before = daemon.count(FIND);
    let begun = Instant::now();
    let finds = (0..count).map(|_| {
        let yagna = yagna.clone();
        async move { yagna.find_node(id(NOBODY)).await.unwrap() }
    });
    futures_util::future::join_all(finds).await;
    assert_eq!(daemon.count(FIND) - before, count);
    begun.elapsed()
}

#[tokio::test]
async fn questions_keep_to_their_rate_and_number() {
    let world = world();
    let daemon = daemon(&world).await;
    let paced = Limits { finds_per_s_max: 200, ..limits() };
    let took = flood(&daemon, paced, 100).await;
    assert!(took >= Duration::from_millis(495), "100 questions at 200/s in {took:?}");
    let late = FaultKind::Latency(Duration::from_millis(50));
    daemon.set_fault(Some(Fault::new(FIND, late)));
    let few = Limits { find_in_flight_max: 4, finds_per_s_max: 10_000, ..limits() };
    let took = flood(&daemon, few, 20).await;
    assert!(took >= Duration::from_millis(250), "20 questions of 50 ms, 4 at once, in {took:?}");
}
