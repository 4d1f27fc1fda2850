//! With a relay's listing configured: whom it shows to be fresh is asked for no more.

use std::time::Duration;

use uptime_proto::{Class, Kind, Outcome, Reason};
use uptime_testkit::fake_yagna::{Relay, RelayOptions, World};

use super::fake_collector::{Received, collector, daemon_of, probe, wait_for};

fn of_kind(received: &Received, kind: Kind) -> impl Iterator<Item = &uptime_proto::Part> {
    received.parts.values().map(|copies| &copies[0].1).filter(move |part| part.kind == kind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listing_stands_in_for_look_ups_and_its_loss_is_told() {
    let world = World::new(5);
    let daemon = daemon_of(&world).await;
    let relay = Relay::start(world.clone(), RelayOptions::default()).await.unwrap();
    // An age of several seconds would not be fresh any more while the test looks.
    world.advance(Duration::from_secs(1));
    let collector = collector(true, None).await;
    let spool = tempfile::tempdir().unwrap();
    let mut child = probe("run", &daemon, &collector.address, spool.path())
        .args(["--relay-url", &relay.base_url()])
        .spawn()
        .unwrap();
    let all_seen = |received: &Received| {
        of_kind(received, Kind::Lookup).any(|part| part.sets.of(Class::Seen).len() == 8)
    };
    wait_for(&collector.received, all_seen).await;
    assert!(of_kind(&collector.received.borrow(), Kind::Relay).count() > 0);
    let finds = daemon.requests().get("POST /_gsb/local/net/FindNode").copied().unwrap_or(0);
    assert_eq!(finds, 0, "nobody had to be asked for");
    // The listing fails: that is told, and the daemon is asked for everybody again.
    relay.stop().await;
    relay.start_again().await.unwrap();
    relay.freeze();
    let lost = Outcome::CouldNotLook(Reason::TimedOut);
    let told =
        |received: &Received| of_kind(received, Kind::Relay).any(|part| part.outcome == lost);
    wait_for(&collector.received, told).await;
    child.kill().await.unwrap();
}
