//! Listing the market as a stream: the same as by polls, or an error, never a part.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use uptime_probe::yagna::{Limits, MarketForm, Offer};
use uptime_proto::Reason;
use uptime_testkit::standin::{DaemonOptions, Fault, FaultKind, ProviderSpec};

use super::market::{assert_clean, list_while_offers_come, populate};
use super::*;

const SCAN_EVENTS: &str = "GET /market-api/v1/scan/{id}/events";
const EVENTS_FAULT: &str = "GET /market-api/v1/scan";

fn streaming(daemon: &Daemon) -> Yagna {
    streaming_with(daemon, limits())
}

fn streaming_with(daemon: &Daemon, limits: Limits) -> Yagna {
    yagna_with(daemon, Limits { market_form: MarketForm::Stream, ..limits })
}

#[tokio::test]
async fn one_request_lists_the_same_as_polls() {
    let world = world();
    populate(&world);
    let daemon = daemon(&world).await;
    world.kill(&world.subnet_ids("public")[3]);
    let (streamed, polled) = (streaming(&daemon), yagna(&daemon));
    for (subnet, count) in [("public", 25), ("testnet1", 2), ("nobody", 0)] {
        let before = daemon.count(SCAN_EVENTS);
        let offers = streamed.list_market(subnet).await.unwrap();
        assert_eq!(daemon.count(SCAN_EVENTS), before + 1, "{subnet}");
        assert_eq!(offers.len(), count, "{subnet}");
        assert_eq!(offers, polled.list_market(subnet).await.unwrap(), "{subnet}");
        polled.close().await;
        assert_clean(&daemon, &streamed, 0).await;
    }
    until("the streams' ends", || daemon.answering() == 0).await;
}

#[tokio::test]
async fn many_offers_come_through_one_stream() {
    let world = world();
    (0..700).for_each(|_| drop(world.add_provider(ProviderSpec::in_subnet("public"))));
    let daemon = daemon(&world).await;
    let yagna =
        streaming_with(&daemon, Limits { market_timeout: Duration::from_secs(20), ..limits() });
    let mut nodes = std::collections::BTreeSet::new();
    let mut count = 0;
    let take = |offer: Offer| {
        nodes.insert(offer.node_id);
        count += 1;
    };
    yagna.list_market_into("public", take).await.unwrap();
    assert_eq!((nodes.len(), count), (700, 700));
    assert_clean(&daemon, &yagna, 0).await;
}

#[tokio::test]
async fn a_daemon_that_does_not_stream_is_polled() {
    let world = world();
    populate(&world);
    let mut options = DaemonOptions { streams_offers: false, ..DaemonOptions::default() };
    options.limits.poll_default = Duration::from_millis(200);
    let daemon = Daemon::start(world.clone(), options).await.unwrap();
    let yagna = streaming(&daemon);
    for (subnet, count) in [("public", 25), ("testnet1", 2), ("nobody", 0)] {
        assert_eq!(yagna.list_market(subnet).await.unwrap().len(), count);
        assert_clean(&daemon, &yagna, 0).await;
    }
    let old = old_daemon(&world).await;
    assert_eq!(streaming(&old).list_market("public").await.unwrap().len(), 25, "by a demand");
}

#[tokio::test]
async fn a_market_that_never_rests_is_streamed_all_the_same() {
    let world = world();
    populate(&world);
    let daemon = daemon(&world).await;
    list_while_offers_come(&world, &daemon, &streaming(&daemon)).await;
}

#[tokio::test]
async fn too_many_offers_are_refused() {
    let world = world();
    populate(&world);
    let daemon = daemon(&world).await;
    let yagna = streaming_with(&daemon, Limits { offers_max: 10, ..limits() });
    assert_eq!(reason(yagna.list_market("public").await), Reason::AnswerTooLarge);
    assert_clean(&daemon, &yagna, 0).await;
}

#[tokio::test]
async fn damaged_streams_are_never_a_listing() {
    let world = world();
    populate(&world);
    let daemon = daemon(&world).await;
    let status = |status, text: &str| FaultKind::Status(status, text.to_owned());
    for (kind, expected) in [
        (FaultKind::CutShort, Reason::YagnaUnreachable),
        (FaultKind::TruncatedJson, Reason::YagnaUnreachable), // it ends by itself
        (FaultKind::CloseWithoutByte, Reason::YagnaUnreachable),
        (FaultKind::MalformedJson, Reason::MalformedAnswer),
        (FaultKind::SlowDrip(Duration::from_millis(20)), Reason::TimedOut),
        // Pauses that are long enough, in the middle of an event.
        (FaultKind::SlowDrip(Duration::from_millis(1_200)), Reason::TimedOut),
        (FaultKind::Latency(Duration::from_secs(60)), Reason::TimedOut),
        (FaultKind::Endless, Reason::AnswerTooLarge),
        (status(401, "Invalid application key"), Reason::Unauthorised),
        (status(500, "{}"), Reason::MarketError),
        (status(200, "{}"), Reason::MalformedAnswer),
    ] {
        let market_timeout = match kind {
            FaultKind::Endless | FaultKind::SlowDrip(_) => Duration::from_secs(3),
            _ => Duration::from_millis(800),
        };
        let yagna = streaming_with(&daemon, Limits { market_timeout, ..limits() });
        daemon.set_fault(Some(Fault::new(EVENTS_FAULT, kind.clone())));
        assert_eq!(reason(yagna.list_market("public").await), expected, "{kind:?}");
        daemon.set_fault(None);
        assert_clean(&daemon, &yagna, 0).await;
    }
    assert_eq!(streaming(&daemon).list_market("public").await.unwrap().len(), 25, "and it passes");
}

#[tokio::test]
async fn a_daemon_that_stops_or_freezes_in_the_stream_gives_no_listing() {
    let world = world();
    populate(&world);
    let daemon = daemon(&world).await;
    let yagna = streaming_with(&daemon, impatient());
    let count = AtomicUsize::new(0);
    let listing = yagna.list_market_into("public", |_| count_one(&count));
    let (listing, ()) = tokio::join!(listing, async {
        until_all(&count).await;
        daemon.freeze();
    });
    assert_eq!(reason(listing), Reason::TimedOut);
    daemon.thaw();
    count.store(0, Ordering::Relaxed);
    let listing = yagna.list_market_into("public", |_| count_one(&count));
    let (listing, ()) = tokio::join!(listing, async {
        until_all(&count).await;
        daemon.stop_listening().await;
    });
    assert_eq!(reason(listing), Reason::YagnaUnreachable);
}

fn count_one(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

async fn until_all(count: &AtomicUsize) {
    until("all offers", || count.load(Ordering::Relaxed) == 25).await;
}

#[tokio::test]
async fn what_was_opened_is_deleted_after_cancellation() {
    let world = world();
    populate(&world);
    let daemon = daemon(&world).await;
    let yagna = streaming(&daemon);
    tokio::select! {
        listing = yagna.list_market("public") => panic!("{listing:?}"),
        () = until("the stream", || daemon.count(SCAN_EVENTS) == 1) => {}
    }
    assert_clean(&daemon, &yagna, 0).await;
    until("the stream's end", || daemon.answering() == 0).await;
}
