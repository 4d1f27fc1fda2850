//! What is known between listings follows the relay's news, and misses nothing for long.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;

/// A watch at work, which has made its first listing.
struct Watching {
    watch: RelayWatch,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Watching {
    fn begin(fake: &fake_yagna::Relay, limits: RelayLimits) -> Self {
        let shutdown = CancellationToken::new();
        let (watch, run) = relay_with(fake, limits).watch(shutdown.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(run);
        Self { watch, shutdown, tasks }
    }

    async fn listed(fake: &fake_yagna::Relay, limits: RelayLimits) -> Self {
        let watching = Self::begin(fake, limits);
        until("a first listing", || watching.watch.known().is_some()).await;
        watching
    }
}

/// Relisting takes longer than any test.
fn one_listing() -> RelayLimits {
    RelayLimits { relist_pause: Duration::from_secs(3_600), ..brisk() }
}

#[tokio::test]
async fn nodes_come_and_go_without_a_listing() {
    let world = world();
    let first = world.add_requestor();
    let fake = fake_relay(&world, Flavour::Main).await;
    let mut watching = Watching::listed(&fake, brisk()).await;
    assert!(knows(&watching.watch, &first));
    let second = world.add_requestor();
    until("new-node", || knows(&watching.watch, &second)).await;
    world.purge(&first);
    until("lost-node", || !knows(&watching.watch, &first)).await;
    assert_eq!(pages(&fake), FIRST_PAGES);
    assert_eq!(ids(&watching.watch.fresh_view().await.unwrap()), [id(&second)]);
    assert_eq!(pages(&fake), 2 * FIRST_PAGES);
    watching.shutdown.cancel();
    watching.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn missed_news_are_mended_by_a_listing() {
    let world = world();
    let gone = world.add_requestor();
    let fake = fake_relay(&world, Flavour::Main).await;
    let watching = Watching::listed(&fake, brisk()).await;
    // Nothing runs in between: the reader lags before it was told of either.
    let fresh = world.add_requestor();
    world.purge(&gone);
    fake.lag();
    until("a fresh listing", || knows(&watching.watch, &fresh) && !knows(&watching.watch, &gone))
        .await;
    assert_eq!(pages(&fake), 2 * FIRST_PAGES);
}

#[tokio::test]
async fn news_missed_often_do_not_make_many_listings() {
    let world = world();
    let fake = fake_relay(&world, Flavour::Main).await;
    let watching = Watching::listed(&fake, one_listing()).await;
    let known = || watching.watch.known().unwrap().len();
    for _ in 0..5 {
        fake.lag();
        let before = known();
        // What comes together with the lag is lost; the first that is told was told after it.
        until("news", || {
            world.add_requestor();
            known() > before
        })
        .await;
    }
    assert_eq!(pages(&fake), FIRST_PAGES);
}

#[tokio::test]
async fn a_new_connection_means_a_fresh_listing() {
    let world = world();
    let mut timing = world.timing();
    timing.register_again = (Duration::ZERO, Duration::ZERO);
    world.set_timing(timing);
    let gone = world.add_requestor();
    let fake = fake_relay(&world, Flavour::Main).await;
    let watching = Watching::listed(&fake, brisk()).await;
    fake.stop().await;
    world.kill(&gone);
    let fresh = world.add_requestor();
    assert_eq!(reason(watching.watch.fresh_view().await), Reason::RelayError);
    assert!(knows(&watching.watch, &gone), "what was known stays");
    fake.start_again().await.unwrap();
    until("a fresh listing", || knows(&watching.watch, &fresh) && !knows(&watching.watch, &gone))
        .await;
    assert!(asked(&fake, "GET /events") >= 2);
}

#[tokio::test]
async fn news_that_come_during_a_listing_are_in_it() {
    let world = world();
    let stays = add(&world, "f", 1);
    let gone = add(&world, "f", 2);
    let fake = fake_relay(&world, Flavour::Main).await;
    let limits = RelayLimits { requests_in_flight_max: 16, ..one_listing() };
    let watching = Watching::listed(&fake, limits).await;
    // The page is made when it is asked for, and arrives when the news have long been told.
    let late = FaultKind::Latency(Duration::from_millis(500));
    fake.set_faults(vec![Fault::new("/nodes/f", late)]);
    let watch = watching.watch.clone();
    let mut listings = JoinSet::new();
    listings.spawn(async move { watch.fresh_view().await });
    until("all pages are asked for", || pages(&fake) == 2 * FIRST_PAGES).await;
    let fresh = add(&world, "f", 3);
    world.purge(&gone);
    until("the news", || knows(&watching.watch, &fresh) && !knows(&watching.watch, &gone)).await;
    let listed = listings.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(ids(&listed), expected([&stays, &fresh]));
    assert_eq!(ids(&watching.watch.known().unwrap()), ids(&listed));
    let age = listed.iter().find(|listed| listed.node_id == id(&fresh)).unwrap().seen_ago;
    assert!(age < Duration::from_secs(5), "{age:?}");
}

#[tokio::test]
async fn a_relay_without_events() {
    let world = world();
    let node = world.add_requestor();
    let fake = fake_relay(&world, Flavour::Pinned).await;
    let mut watching = Watching::begin(&fake, brisk());
    until("the question for events", || asked(&fake, "GET /events") == 1).await;
    assert_eq!(watching.watch.known(), None);
    assert_eq!(ids(&watching.watch.fresh_view().await.unwrap()), [id(&node)]);
    assert!(knows(&watching.watch, &node));
    // It is not asked again at once, as after a fault.
    let other = world.add_requestor();
    assert_eq!(watching.watch.fresh_view().await.unwrap().len(), 2);
    assert!(knows(&watching.watch, &other));
    assert_eq!(asked(&fake, "GET /events"), 1);
    watching.shutdown.cancel();
    watching.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn faults_of_the_event_stream_pass() {
    let world = world();
    let fake = fake_relay(&world, Flavour::Main).await;
    let kinds = [
        FaultKind::Status(500, String::new()),
        FaultKind::Status(200, "event: new-node\ndata: nobody\n\n".to_owned()),
        FaultKind::Status(200, "x".repeat(10_000)),
        FaultKind::CloseWithoutByte,
        FaultKind::Endless,
        FaultKind::Latency(Duration::from_secs(60)),
    ];
    for kind in kinds {
        fake.set_faults(vec![Fault::new("/events", kind.clone())]);
        let before = asked(&fake, "GET /events");
        let limits = RelayLimits { answer_timeout: Duration::from_millis(300), ..brisk() };
        let watching = Watching::begin(&fake, limits);
        let again = || asked(&fake, "GET /events") >= before + 3;
        until(&format!("it is asked again after {kind:?}"), again).await;
        fake.set_faults(Vec::new());
        until("a listing", || watching.watch.known().is_some()).await;
        let node = world.add_requestor();
        until(&format!("news after {kind:?}"), || knows(&watching.watch, &node)).await;
    }
}

#[tokio::test]
async fn listings_work_while_the_event_stream_does_not() {
    let world = world();
    let node = world.add_requestor();
    let fake = fake_relay(&world, Flavour::Main).await;
    fake.set_faults(vec![Fault::new("/events", FaultKind::Status(503, String::new()))]);
    let watching = Watching::begin(&fake, brisk());
    assert_eq!(ids(&watching.watch.fresh_view().await.unwrap()), [id(&node)]);
}

#[tokio::test]
async fn a_frozen_relay_is_followed_again() {
    let world = world();
    let fake = fake_relay(&world, Flavour::Main).await;
    let watching = Watching::listed(&fake, brisk()).await;
    fake.freeze();
    let hasty = RelayLimits { answer_timeout: Duration::from_millis(300), ..brisk() };
    let frozen = Watching::begin(&fake, hasty);
    assert_eq!(reason(frozen.watch.fresh_view().await), Reason::TimedOut);
    let node = world.add_requestor();
    fake.thaw();
    until("news", || knows(&watching.watch, &node) && knows(&frozen.watch, &node)).await;
}
