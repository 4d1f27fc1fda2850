//! What a probe asks, and what it tells of it.

use std::time::Duration;

use uptime_proto::{Class, Kind, NodeId, Outcome};
use uptime_testkit::fake_yagna::{DaemonOptions, Limits, ProviderSpec, World};

use super::fake_collector::{
    Manner, Received, collector, collector_with, daemon_of, daemon_with, probe, wait_for,
};

const LOOKS: [&str; 2] = ["POST /_gsb/local/net/FindNode", "POST /_gsb/local/net/Sessions"];

fn rounds(received: &Received) -> usize {
    let starts: std::collections::BTreeSet<u64> =
        received.parts.keys().map(|key| key.round.start_s()).collect();
    starts.len()
}

fn looked(received: &Received) -> impl Iterator<Item = &uptime_proto::Part> {
    let parts = received.parts.values().map(|copies| &copies[0].1);
    parts.filter(|part| part.kind == Kind::Lookup && part.outcome == Outcome::Looked)
}

/// A network with one node that died a minute ago, of which the relay still knows.
fn world_with_a_dead_node() -> (World, impl Fn() -> NodeId) {
    let world = World::new(5);
    let here = world.clone();
    let dead = move || {
        let id = here.subnet_ids("public").remove(0);
        here.kill_ago(&id, Duration::from_secs(60));
        id.parse().unwrap()
    };
    (world, dead)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_suspect_was_one_travels_beside_the_evidence() {
    let (world, kill) = world_with_a_dead_node();
    let daemon = daemon_of(&world).await;
    let dead = kill();
    let collector = collector(true, None).await;
    let spool = tempfile::tempdir().unwrap();
    let mut child = probe("run", &daemon, &collector.address, spool.path()).spawn().unwrap();
    let unreachable = |received: &Received| {
        looked(received).any(|part| part.sets.of(Class::Unreachable) == [dead])
    };
    wait_for(&collector.received, unreachable).await;
    let of_dead = |received: &Received| {
        let sample = received.samples.iter().find(|sample| sample.node == dead);
        sample.and_then(|sample| sample.seen_age_ms).is_some_and(|age_ms| age_ms >= 59_000)
    };
    wait_for(&collector.received, of_dead).await;
    // Some rounds later it is as dead as before, which is no news.
    let count = collector.received.borrow().parts.len();
    wait_for(&collector.received, |received| received.parts.len() >= count + 6).await;
    child.kill().await.unwrap();
    let told = |received: &Received| {
        let ages = received.samples.iter().filter(|sample| sample.seen_age_ms.is_some());
        ages.filter(|sample| sample.node == dead).count()
    };
    assert_eq!(told(&collector.received.borrow()), 1);
    let living = collector
        .received
        .borrow()
        .samples
        .iter()
        .any(|sample| sample.node != dead && sample.seen_age_ms.is_some());
    assert!(!living, "the ages of the living say nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_asked_at_once_than_the_aggregator_or_the_operator_wants() {
    let world = World::new(5);
    for _ in 0..20 {
        world.add_provider(ProviderSpec::in_subnet("public"));
    }
    let slow = Limits { look_up: Duration::from_millis(60), ..Limits::default() };
    let daemon =
        daemon_with(&world, DaemonOptions { limits: slow, ..DaemonOptions::default() }).await;
    let spool = tempfile::tempdir().unwrap();
    // The lower one of the two counts.
    for (told, own, most) in [(4, "8", 4), (8, "4", 4), (0, "6", 6)] {
        let manner = Manner { lookups_in_flight_max: told, ..Manner::default() };
        let collector = collector_with(true, None, manner).await;
        daemon.forget_busiest();
        let mut child = probe("run", &daemon, &collector.address, spool.path())
            .args(["--lookups-in-flight-max", own])
            .spawn()
            .unwrap();
        wait_for(&collector.received, |received| looked(received).count() >= 2).await;
        child.kill().await.unwrap();
        assert_eq!(daemon.busiest(LOOKS[0]).at_once, most, "{told} told, {own} of its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_switched_off_is_not_asked() {
    let (world, kill) = world_with_a_dead_node();
    let daemon = daemon_of(&world).await;
    kill();
    let only_market = collector(true, None).await;
    let no_direct = collector(true, None).await;
    let directory = tempfile::tempdir().unwrap();
    let start = |address: &str, name: &str, sources: &str| {
        let mut command = probe("run", &daemon, address, &directory.path().join(name));
        command.args(["--sources", sources]).spawn().unwrap()
    };
    let mut child = start(&only_market.address, "a", "market");
    wait_for(&only_market.received, |received| rounds(received) >= 3).await;
    child.kill().await.unwrap();
    assert!(only_market.received.borrow().parts.keys().all(|key| key.subnet == "public"));
    let asked = daemon.requests();
    assert!(LOOKS.iter().all(|route| !asked.contains_key(*route)), "{asked:?}");
    // Without the direct question nobody is found unreachable.
    let mut child = start(&no_direct.address, "b", "market,find-node");
    wait_for(&no_direct.received, |received| looked(received).count() >= 4).await;
    child.kill().await.unwrap();
    let received = no_direct.received.borrow();
    assert!(looked(&received).any(|part| part.sets.of(Class::Seen).len() == 7));
    assert!(looked(&received).all(|part| part.sets.of(Class::Unreachable).is_empty()));
    assert!(daemon.requests().contains_key(LOOKS[0]));
}
