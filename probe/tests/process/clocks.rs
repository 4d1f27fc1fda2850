//! Clocks that disagree are told; deaths are none of their doing.

use std::path::Path;
use std::time::Duration;

use uptime_proto::v1::{ClockState, KernelClock};
use uptime_proto::{Class, Kind, NodeId, Outcome, Part, Reason};
use uptime_testkit::fake_yagna::{Daemon, NetTiming, ProviderSpec, Relay, RelayOptions, World};

use super::fake_collector::{
    Manner, Received, Running, collector_with, daemon_of, probe, wait_for,
};

/// Enough that their ages would tell something of clocks.
const DEAD: usize = 14;

/// A network of which some died a minute ago, of whom the relay still knows.
async fn many_died() -> (World, Daemon, Vec<NodeId>) {
    let world = World::new(5);
    let dead: Vec<String> =
        (0..DEAD).map(|_| world.add_provider(ProviderSpec::in_subnet("public"))).collect();
    for _ in 0..12 {
        world.add_provider(ProviderSpec::in_subnet("public"));
    }
    let daemon = daemon_of(&world).await;
    dead.iter().for_each(|id| world.kill_ago(id, Duration::from_secs(60)));
    let mut dead: Vec<NodeId> = dead.iter().map(|id| id.parse().unwrap()).collect();
    dead.sort_unstable();
    (world, daemon, dead)
}

fn look_ups(received: &Received) -> impl Iterator<Item = &Part> {
    received.parts.values().map(|copies| &copies[0].1).filter(|part| part.kind == Kind::Lookup)
}

fn told(received: &Received, reason: Reason) -> bool {
    look_ups(received).any(|part| part.outcome == Outcome::CouldNotLook(reason))
}

async fn found_dead(collector: &Running, dead: &[NodeId]) {
    let found = |received: &Received| {
        look_ups(received).any(|part| part.sets.of(Class::Unreachable) == dead)
    };
    wait_for(&collector.received, |received| found(received) || told(received, Reason::Clock))
        .await;
    let received = collector.received.borrow();
    assert!(!told(&received, Reason::Clock), "nothing is wrong with any clock");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_listing_only_the_dead_are_left_to_ask_for() {
    let (world, daemon, dead) = many_died().await;
    let relay = Relay::start(world.clone(), RelayOptions::default()).await.unwrap();
    let collector = collector_with(true, None, Manner::default()).await;
    let spool = tempfile::tempdir().unwrap();
    let mut child = probe("run", &daemon, &collector.address, spool.path())
        .args(["--relay-url", &relay.base_url()])
        .spawn()
        .unwrap();
    found_dead(&collector, &dead).await;
    // A clock that is wrong is still noticed: the living tell.
    world.set_relay_clock_ahead(-40);
    wait_for(&collector.received, |received| told(received, Reason::Clock)).await;
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_dead_nodes_does_not_make_a_clock_wrong() {
    let (world, daemon, dead) = many_died().await;
    let manner = Manner { standing: Some(dead.clone()), ..Manner::default() };
    let collector = collector_with(true, None, manner).await;
    let spool = tempfile::tempdir().unwrap();
    let mut child = probe("run", &daemon, &collector.address, spool.path()).spawn().unwrap();
    found_dead(&collector, &dead).await;
    world.set_relay_clock_ahead(-40);
    wait_for(&collector.received, |received| told(received, Reason::Clock)).await;
    child.kill().await.unwrap();
}

/// As after an aggregator stood still between reading its clock and saying so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_welcome_that_took_long_does_not_make_a_clock_wrong() {
    let (_world, daemon, dead) = many_died().await;
    let manner = Manner {
        welcome_takes: Duration::from_secs(6),
        standing: Some(dead.clone()),
        ..Manner::default()
    };
    let collector = collector_with(true, None, manner).await;
    let spool = tempfile::tempdir().unwrap();
    // Without the kernel's word it goes by the aggregator's clock, which Welcome tells to within
    // three seconds only.
    let mut child = probe("run", &daemon, &collector.address, spool.path())
        .env("UPTIME_KERNEL_CLOCK", "unsynchronised")
        .spawn()
        .unwrap();
    found_dead(&collector, &dead).await;
    assert!(collector.received.borrow().heartbeats > 0);
    child.kill().await.unwrap();
}

/// Nobody who lives is left to tell the time: the dead do, as they are not heard of again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_everybody_died_the_clock_is_not_blamed_for_long() {
    let (world, daemon, _) = many_died().await;
    world.set_timing(NetTiming { ping_interval: Duration::from_secs(1), ..world.timing() });
    world.alive_ids().iter().for_each(|id| world.kill_ago(id, Duration::from_secs(60)));
    let mut all: Vec<NodeId> =
        world.subnet_ids("public").iter().map(|id| id.parse().unwrap()).collect();
    all.sort_unstable();
    let manner = Manner { freshness_s: 3, ..Manner::default() };
    let collector = collector_with(true, None, manner).await;
    let spool = tempfile::tempdir().unwrap();
    let mut child = probe("run", &daemon, &collector.address, spool.path()).spawn().unwrap();
    let found = |received: &Received| {
        look_ups(received).any(|part| part.sets.of(Class::Unreachable) == all)
    };
    wait_for(&collector.received, found).await;
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_off_the_relays_is_told_and_nobody_is_looked_up() {
    let world = World::new(5);
    for _ in 0..12 {
        world.add_provider(ProviderSpec::in_subnet("public"));
    }
    let daemon = daemon_of(&world).await;
    let directory = tempfile::tempdir().unwrap();
    let start = |collector: &Running, name: &str| {
        probe("run", &daemon, &collector.address, &directory.path().join(name)).spawn().unwrap()
    };
    for ahead_s in [-40, 40] {
        world.set_relay_clock_ahead(ahead_s);
        let collector = collector_with(true, None, Manner::default()).await;
        let mut child = start(&collector, &ahead_s.to_string());
        wait_for(&collector.received, |received| told(received, Reason::Clock)).await;
        child.kill().await.unwrap();
        let received = collector.received.borrow();
        let nothing = |part: &Part| part.sets.count() == 0;
        assert!(look_ups(&received).all(nothing), "{ahead_s}: no evidence by a wrong clock");
    }
}

/// Where the kernel says that the clock is not synchronised, rounds go by that of an aggregator
/// that is sure of its own, or agrees; without either no round is begun and no key is used up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_nothing_confirms_begins_no_round() {
    let world = World::new(5);
    world.add_provider(ProviderSpec::in_subnet("public"));
    let daemon = daemon_of(&world).await;
    let start = |collector: &Running, spool: &Path| {
        probe("run", &daemon, &collector.address, spool)
            .env("UPTIME_KERNEL_CLOCK", "unsynchronised")
            .spawn()
            .unwrap()
    };
    let manner = |clock_state, ahead_ms| Manner { clock_state, ahead_ms, ..Manner::default() };
    for (clock_state, ahead_ms) in [(ClockState::Wrong, 0), (ClockState::Doubtful, 3_600_000)] {
        let collector = collector_with(true, None, manner(clock_state, ahead_ms)).await;
        let spool = tempfile::tempdir().unwrap();
        let mut child = start(&collector, spool.path());
        // The second one comes after ten seconds, which are five rounds.
        wait_for(&collector.received, |received| received.heartbeats > 1).await;
        child.kill().await.unwrap();
        let received = collector.received.borrow();
        assert!(received.parts.is_empty(), "{clock_state:?}: {:?}", received.parts.keys());
        let told = received.last_heartbeat.as_ref().unwrap();
        assert_eq!(told.kernel_clock, KernelClock::Unsynchronised as i32);
        assert!(told.sent_unix_ms > 0);
    }
    for (clock_state, ahead_ms) in [(ClockState::Sure, 3_600_000), (ClockState::Doubtful, 0)] {
        let collector = collector_with(true, None, manner(clock_state, ahead_ms)).await;
        let spool = tempfile::tempdir().unwrap();
        let mut child = start(&collector, spool.path());
        wait_for(&collector.received, |received| received.parts.len() > 3).await;
        child.kill().await.unwrap();
        let now_ms = uptime_probe::clock::now_unix_ms() + ahead_ms;
        let received = collector.received.borrow();
        for key in received.parts.keys() {
            let since_ms = now_ms - key.round.start_ms();
            assert!((0..60_000).contains(&since_ms), "{clock_state:?}: {key:?}, {since_ms} ms");
        }
    }
}
