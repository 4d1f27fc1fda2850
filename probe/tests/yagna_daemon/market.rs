//! Listing the market, by scan and by demand, and clearing up behind it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use uptime_probe::yagna::{Limits, Offer, Yagna};
use uptime_proto::Reason;
use uptime_testkit::fake_yagna::{Daemon, Fault, FaultKind, ProviderSpec, Restart, World};

use super::*;

const POST_SCAN: &str = "POST /market-api/v1/scan";
const POST_DEMAND: &str = "POST /market-api/v1/demands";
const SCAN_EVENTS: &str = "GET /market-api/v1/scan/{id}/events";

/// 23 providers with 25 offers in `public`, two in `testnet1`.
pub(super) fn populate(world: &World) {
    for _ in 0..22 {
        world.add_provider(ProviderSpec::in_subnet("public"));
    }
    let runtimes = ["vm", "wasmtime", "automatic"].map(str::to_owned).to_vec();
    world.add_provider(ProviderSpec { runtimes, ..ProviderSpec::in_subnet("public") });
    world.add_provider(ProviderSpec::in_subnet("testnet1"));
    world.add_provider(ProviderSpec::in_subnet("testnet1"));
}

pub(super) fn ids(offers: &[Offer]) -> Vec<String> {
    let mut ids: Vec<String> = offers.iter().map(|offer| offer.node_id.to_string()).collect();
    ids.dedup();
    ids
}

async fn post_demand(daemon: &Daemon, properties: Value) {
    let client = client();
    let body =
        json!({ "properties": properties, "constraints": "(golem.node.debug.subnet=public)" });
    let request = client.post(format!("{}/market-api/v1/demands", daemon.base_url()));
    let answer = request.bearer_auth(KEY).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

/// Nothing but what `foreign` demands there are is left, once everything has settled.
pub(super) async fn assert_clean(daemon: &Daemon, yagna: &Yagna, foreign: usize) {
    yagna.close().await;
    assert_eq!((daemon.open_scans(), daemon.open_demands()), (0, foreign));
}

#[tokio::test]
async fn a_scan_lists_the_subnet_page_by_page() {
    let world = world();
    populate(&world);
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    let dead = world.subnet_ids("public")[3].clone();
    world.kill(&dead);
    let offers = yagna.list_market("public").await.unwrap();
    assert_eq!(offers.len(), 25);
    assert_eq!(ids(&offers), world.subnet_ids("public"), "the dead one's offer is served too");
    assert!(offers.iter().all(|offer| offer.subnet == "public" && !offer.networks.is_empty()));
    assert!(daemon.count(SCAN_EVENTS) >= 8, "{:?}", daemon.requests());
    assert_eq!(daemon.count(POST_DEMAND), 0);
    assert_clean(&daemon, &yagna, 0).await;
    assert_eq!(yagna.list_market("nobody").await.unwrap(), []);
    assert_clean(&daemon, &yagna, 0).await;
}

#[tokio::test]
async fn a_listing_is_passed_on_page_by_page() {
    let world = world();
    populate(&world);
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    let polls_at = std::sync::Mutex::new(Vec::new());
    let mut offers = Vec::new();
    let take = |offer| {
        offers.push(offer);
        polls_at.lock().unwrap().push(daemon.count(SCAN_EVENTS));
    };
    yagna.list_market_into("public", take).await.unwrap();
    offers.sort();
    assert_eq!(offers, yagna.list_market("public").await.unwrap());
    let polls_at = polls_at.into_inner().unwrap();
    assert_eq!((polls_at.first(), polls_at.len()), (Some(&1), 25), "not kept to the end");
    assert_clean(&daemon, &yagna, 0).await;
}

#[tokio::test]
async fn without_the_scan_api_a_demand_lists_the_same() {
    let world = world();
    populate(&world);
    let daemon = old_daemon(&world).await;
    let yagna = yagna(&daemon);
    post_demand(&daemon, json!({ "golem.node.debug.subnet": "public" })).await;
    let dead = world.subnet_ids("public")[3].clone();
    world.kill(&dead);
    let (public, testnet) =
        tokio::join!(yagna.list_market("public"), yagna.list_market("testnet1"));
    assert_eq!(public.as_ref().unwrap().len(), 25);
    assert_eq!(ids(&public.unwrap()), world.subnet_ids("public"));
    assert_eq!(ids(&testnet.unwrap()), world.subnet_ids("testnet1"));
    let tried = daemon.count(POST_SCAN);
    yagna.list_market("public").await.unwrap();
    assert_eq!(daemon.count(POST_SCAN), tried, "it is known that there is none");
    assert_clean(&daemon, &yagna, 1).await;
}

#[tokio::test]
async fn the_scan_api_is_looked_for_again_after_a_restart() {
    let world = world();
    populate(&world);
    let daemon = old_daemon(&world).await;
    let yagna = yagna(&daemon);
    yagna.list_market("testnet1").await.unwrap();
    daemon.stop_listening().await;
    assert_eq!(reason(yagna.list_market("testnet1").await), Reason::YagnaUnreachable);
    daemon.set_scan_api(true);
    let restart = Restart { relearn_after: Duration::ZERO, blind_for: Duration::ZERO };
    daemon.restart(restart).await.unwrap();
    let demands = daemon.count(POST_DEMAND);
    assert_eq!(yagna.list_market("testnet1").await.unwrap().len(), 2);
    assert_eq!(daemon.count(POST_DEMAND), demands);
    assert_clean(&daemon, &yagna, 0).await;
}

#[tokio::test]
async fn a_market_that_never_rests_is_listed_all_the_same() {
    let world = world();
    populate(&world);
    let daemon = daemon(&world).await;
    list_while_offers_come(&world, &daemon, &yagna(&daemon)).await;
}

/// Lists a market on which something is new all the time, in whatever form this client asks.
pub(crate) async fn list_while_offers_come(world: &World, daemon: &Daemon, yagna: &Yagna) {
    let busy = world.subnet_ids("public")[0].clone();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let publish = async {
        loop {
            tick.tick().await;
            world.publish_offers(&busy);
        }
    };
    let offers = tokio::select! {
        offers = yagna.list_market("public") => offers.unwrap(),
        () = publish => unreachable!(),
    };
    assert_eq!(ids(&offers), world.subnet_ids("public"));
    assert_clean(daemon, yagna, 0).await;
}

#[tokio::test]
async fn ids_in_upper_case_are_lowered() {
    let world = world();
    let node = world.add_provider(ProviderSpec::in_subnet("elsewhere"));
    let shouted = format!("0x{}", node[2..].to_uppercase());
    world.add_recorded(
        &[json!({
            "properties": { "golem.node.debug.subnet": "public" },
            "constraints": "()",
            "offerId": "a",
            "providerId": shouted,
            "timestamp": "2027-01-15T07:59:00.000000000Z",
        })],
        1,
    );
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    assert_eq!(ids(&yagna.list_market("public").await.unwrap()), [node]);
    assert_clean(&daemon, &yagna, 0).await;
}

#[tokio::test]
async fn a_subnet_cannot_break_out_of_the_constraint() {
    let world = world();
    let daemon = daemon(&world).await;
    let listing = yagna(&daemon).list_market("x)(golem.node.debug.subnet=*").await;
    assert_eq!(reason(listing), Reason::MarketError);
    assert_eq!(daemon.requests().len(), 0);
}

#[tokio::test]
async fn too_many_offers_are_refused() {
    let world = world();
    populate(&world);
    let daemon = daemon(&world).await;
    let yagna = yagna_with(&daemon, Limits { offers_max: 10, ..limits() });
    assert_eq!(reason(yagna.list_market("public").await), Reason::AnswerTooLarge);
    assert_clean(&daemon, &yagna, 0).await;
}

#[tokio::test]
async fn what_was_opened_is_deleted_after_errors_and_time_limits() {
    let world = world();
    populate(&world);
    let events = "GET /market-api/v1/";
    let cases = [
        (FaultKind::Status(500, "{\"message\":\"no\"}".to_owned()), Reason::MarketError),
        (FaultKind::MalformedJson, Reason::MalformedAnswer),
        (FaultKind::CloseWithoutByte, Reason::YagnaUnreachable),
        (FaultKind::Latency(Duration::from_secs(60)), Reason::TimedOut),
    ];
    for daemon in [daemon(&world).await, old_daemon(&world).await] {
        let market_timeout = Duration::from_millis(600);
        let yagna = yagna_with(&daemon, Limits { market_timeout, ..limits() });
        for (kind, expected) in cases.clone() {
            daemon.set_fault(Some(Fault::new(events, kind)));
            assert_eq!(reason(yagna.list_market("public").await), expected);
            daemon.set_fault(None);
            assert_clean(&daemon, &yagna, 0).await;
        }
    }
}

#[tokio::test]
async fn what_was_opened_is_deleted_after_cancellation() {
    let world = world();
    for (daemon, events) in [
        (daemon(&world).await, SCAN_EVENTS),
        (old_daemon(&world).await, "GET /market-api/v1/demands/{id}/events"),
    ] {
        let yagna = yagna(&daemon);
        tokio::select! {
            listing = yagna.list_market("public") => panic!("{listing:?}"),
            () = until("a poll", || daemon.count(events) == 1) => {}
        }
        assert_clean(&daemon, &yagna, 0).await;
    }
}

#[tokio::test]
async fn a_listing_cancelled_while_opening_leaves_nothing() {
    let world = world();
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    let late = FaultKind::Latency(Duration::from_millis(200));
    daemon.set_fault(Some(Fault::new(POST_SCAN, late)));
    tokio::select! {
        listing = yagna.list_market("public") => panic!("{listing:?}"),
        () = until("the scan", || daemon.open_scans() == 1) => {}
    }
    assert_clean(&daemon, &yagna, 0).await;
}

#[tokio::test]
async fn a_demand_whose_answer_was_lost_is_deleted() {
    let world = world();
    let daemon = old_daemon(&world).await;
    let yagna = yagna(&daemon);
    post_demand(&daemon, json!({ "golem.node.debug.subnet": "public" })).await;
    daemon.set_fault(Some(Fault::new(POST_DEMAND, FaultKind::CloseWithoutByte)));
    assert_eq!(reason(yagna.list_market("public").await), Reason::YagnaUnreachable);
    daemon.set_fault(None);
    assert_eq!(daemon.open_demands(), 2);
    assert_clean(&daemon, &yagna, 1).await;
}

#[tokio::test]
async fn lost_demands_are_deleted_once_they_are_old() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    NOW.store(now_unix_ms(), Ordering::Relaxed);
    let world = world();
    let daemon = old_daemon(&world).await;
    let limits = Limits {
        market_timeout: Duration::from_millis(2_500),
        answer_timeout: Duration::from_millis(500),
        ..limits()
    };
    let yagna = Yagna::new(YagnaOptions {
        base_url: daemon.base_url(),
        app_key: AppKey::new(KEY.to_owned()),
        limits,
        now_unix_ms: || NOW.load(Ordering::Relaxed),
    });
    let yagna = yagna.unwrap();
    daemon.set_fault(Some(Fault::new(POST_DEMAND, FaultKind::CloseWithoutByte)));
    assert_eq!(reason(yagna.list_market("public").await), Reason::YagnaUnreachable);
    daemon.set_fault(None);
    // A listing of nothing takes two seconds; the demand may be in use for three.
    for _ in 0..4 {
        NOW.fetch_add(1_001, Ordering::Relaxed);
        assert_eq!(yagna.list_market("public").await.unwrap(), []);
    }
    until("the deletion", || daemon.open_demands() == 0).await;
}

#[tokio::test]
async fn leftovers_of_this_instance_and_no_others_are_deleted() {
    let world = world();
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon).with_instance("one");
    for marker in [json!("one"), json!("one"), json!("two"), json!(null)] {
        post_demand(&daemon, json!({ "golem.uptime.probe": marker, "a": 1 })).await;
    }
    assert_eq!(yagna.delete_leftovers().await.unwrap(), 2);
    assert_eq!(yagna.delete_leftovers().await.unwrap(), 0);
    assert_clean(&daemon, &yagna, 2).await;
}
