//! The direct question.

use std::time::Duration;

use tokio::time::Instant;
use uptime_probe::yagna::{Limits, PeerAnswer};
use uptime_proto::Reason;
use uptime_testkit::fake_yagna::{DaemonOptions, ProviderSpec, Restart, World};

use super::*;

const POST_SCAN: &str = "POST /market-api/v1/scan";
const ASK: &str = "GET /market-api/v1/scan/{id}/events?peerId";
const PING: &str = "POST /_gsb/local/net/GsbPing";
const NOBODY: &str = "0x0000000000000000000000000000000000000001";

/// The shortest limit there is.
const LIMIT: Duration = Duration::from_secs(1);

fn provider(world: &World) -> String {
    world.add_provider(ProviderSpec::in_subnet("public"))
}

fn answered(answer: PeerAnswer) -> bool {
    matches!(answer, PeerAnswer::Answered { took } if took > Duration::ZERO)
}

#[tokio::test]
async fn only_the_living_answer() {
    let world = world();
    let (living, dead, frozen) = (provider(&world), provider(&world), provider(&world));
    let idle = world.add_requestor();
    world.kill(&dead);
    world.freeze(&frozen);
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    let ask = |id: &str| {
        let (yagna, id) = (yagna.clone(), id.parse().unwrap());
        async move { yagna.ask_peer(id, LIMIT).await.unwrap() }
    };
    let answers = tokio::join!(ask(&living), ask(&dead), ask(&frozen), ask(NOBODY), ask(&idle));
    assert!(answered(answers.0));
    assert_eq!(answers.1, PeerAnswer::Unanswered);
    assert_eq!(answers.2, PeerAnswer::Unanswered);
    assert_eq!(answers.3, PeerAnswer::Unanswered);
    assert!(answered(answers.4), "an empty list is an answer");
    assert_eq!((daemon.count(POST_SCAN), daemon.count(ASK)), (1, 5));
    world.revive(&frozen);
    assert!(answered(ask(&frozen).await), "the second question counts");
    assert_eq!(daemon.count(POST_SCAN), 1, "who was silent is asked over the same scan");
    assert!(answered(ask(&living).await));
    assert_eq!(daemon.count(POST_SCAN), 2, "who has answered is asked over another");
    until("the old scan's deletion", || daemon.open_scans() == 1).await;
    yagna.close().await;
    assert_eq!(daemon.open_scans(), 0);
    assert_eq!(daemon.count(PING), 0);
}

#[tokio::test]
async fn a_scan_the_daemon_forgot_is_opened_again() {
    let world = world();
    let (one, other) = (provider(&world), provider(&world));
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    assert!(answered(yagna.ask_peer(id(&one), LIMIT).await.unwrap()));
    let restart = Restart { relearn_after: Duration::ZERO, blind_for: Duration::ZERO };
    daemon.restart(restart).await.unwrap();
    assert!(answered(yagna.ask_peer(id(&other), LIMIT).await.unwrap()));
    assert_eq!(daemon.open_scans(), 1);
    drop(yagna);
    until("the deletion", || daemon.open_scans() == 0).await;
}

#[tokio::test]
async fn a_daemon_that_freezes_makes_nobody_silent() {
    let world = world();
    let (one, other) = (provider(&world), provider(&world));
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    assert!(answered(yagna.ask_peer(id(&one), LIMIT).await.unwrap()));
    daemon.freeze();
    assert_eq!(reason(yagna.ask_peer(id(&other), LIMIT).await), Reason::TimedOut);
}

#[tokio::test]
async fn all_who_wait_for_a_frozen_daemon_give_up_together() {
    let world = world();
    let nodes: Vec<String> = (0..20).map(|_| provider(&world)).collect();
    let daemon = daemon(&world).await;
    let yagna = yagna_with(&daemon, impatient());
    daemon.freeze();
    let begun = Instant::now();
    let asked = nodes.iter().map(|node| yagna.ask_peer(id(node), LIMIT));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(reason(answer), Reason::TimedOut);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn so_many_questions_at_once_and_no_more() {
    let world = world();
    let nodes: Vec<String> = (0..6).map(|_| provider(&world)).collect();
    nodes.iter().for_each(|node| world.kill(node));
    let daemon = daemon(&world).await;
    let yagna = yagna_with(&daemon, Limits { direct_in_flight_max: 3, ..limits() });
    let begun = Instant::now();
    let asked = nodes.iter().map(|node| yagna.ask_peer(id(node), LIMIT));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.unwrap(), PeerAnswer::Unanswered);
    }
    assert!(begun.elapsed() >= 2 * LIMIT, "{:?}", begun.elapsed());
    yagna.close().await;
    assert_eq!(daemon.open_scans(), 0);
}

#[tokio::test]
async fn without_the_scan_api_a_ping_asks() {
    let world = world();
    let (living, dead) = (provider(&world), provider(&world));
    world.kill(&dead);
    let mut options = DaemonOptions { has_scan_api: false, ..DaemonOptions::default() };
    options.limits.ping = Duration::from_secs(3);
    let daemon = Daemon::start(world.clone(), options).await.unwrap();
    let yagna = yagna(&daemon);
    assert!(answered(yagna.ask_peer(id(&living), LIMIT).await.unwrap()));
    assert_eq!(yagna.ask_peer(id(NOBODY), LIMIT).await.unwrap(), PeerAnswer::Unanswered);
    // Pings are tried for ten seconds; one that failed sooner did not try to its end.
    assert_eq!(reason(yagna.ask_peer(id(&dead), LIMIT).await), Reason::NetError);
    assert_eq!((daemon.count(POST_SCAN), daemon.count(PING)), (1, 3));
}
