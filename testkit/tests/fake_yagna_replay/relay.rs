//! The relay's listing: 60–6p without the command line, 73b, 73d, 73f, 97b, 98.

use std::time::Duration;

use uptime_testkit::fake_yagna::recording::Recording;
use uptime_testkit::fake_yagna::{Flavour, ProviderSpec, Relay, RelayOptions, World};

use super::judge::{Body, Scene, one, row};
use super::lab;

const SESSION: &[&str] = &["sessionId", "seen", "addrStatus"];

async fn relay(world: &World, flavour: Flavour, trusts_caller: bool) -> Relay {
    let options = RelayOptions { flavour, trusts_caller, ..RelayOptions::default() };
    Relay::start(world.clone(), options).await.unwrap()
}

/// The network of recordings 60 to 6i: one requestor, three providers.
fn four() -> World {
    let world = World::at(7, Duration::from_secs(lab::BEGIN + 240));
    world.add_provider(lab::bare(lab::REQUESTOR, 11_500));
    for (offer, port) in lab::offers("49", 1).into_iter().zip(11_501..) {
        world.add_recorded(&[offer], port);
    }
    world
}

#[tokio::test]
async fn main_revision() {
    let world = four();
    let relay = relay(&world, Flavour::Main, true).await;
    let mut scene = Scene::of(&relay.base_url());
    scene
        .table(&[
            row("60", Body::Exact),
            row("61", Body::Except(SESSION)),
            row("62", Body::Exact),
            row("63", Body::Except(SESSION)),
            row("64", Body::Exact),
            row("65", Body::Exact),
            row("66", Body::Except(SESSION)),
            row("67", Body::Except(SESSION)),
            row("68", Body::Except(SESSION)),
            row("69", Body::Except(SESSION)),
            row("6a", Body::Exact),
            row("6b", Body::Exact),
            row("6c", Body::Exact),
            row("6g", Body::Any),
            row("6i", Body::Exact),
        ])
        .await;
    let (listed, _) = scene.send(&Recording::load("63").unwrap().exchanges[0]).await;
    let session = listed.unwrap().json()[lab::PROVIDER_1][0]["sessionId"].clone();
    let recorded = Recording::load("63").unwrap().exchanges[0].response.clone().unwrap();
    let theirs = recorded.json()[lab::PROVIDER_1][0]["sessionId"].clone();
    scene.map(theirs.as_str().unwrap(), session.as_str().unwrap());
    scene
        .table(&[
            row("6d", Body::Except(&["seen", "addrStatus"])),
            row("6e", Body::Exact),
            row("6f", Body::Exact),
        ])
        .await;
}

#[tokio::test]
async fn main_revision_seen_from_afar() {
    let world = World::at(8, Duration::from_secs(lab::BEGIN + 1800));
    world.add_provider(lab::bare(lab::REQUESTOR, 11_500));
    world.add_recorded(&lab::offers("49", 1)[..1], 11_501);
    let relay = relay(&world, Flavour::Main, false).await;
    let mut scene = Scene::of(&relay.base_url());
    scene.table(&[row("6n", Body::Except(SESSION)), row("6o", Body::Exact)]).await;
}

#[tokio::test]
async fn pinned_revision() {
    let world = World::at(9, Duration::from_secs(lab::BEGIN + 1800));
    world.add_provider(lab::bare(lab::REQUESTOR, 11_500));
    world.add_recorded(&lab::offers("49", 1)[..1], 11_501);
    let relay = relay(&world, Flavour::Pinned, false).await;
    let mut scene = Scene::of(&relay.base_url());
    scene
        .table(&[
            row("6k", Body::Exact),
            row("6l", Body::Except(SESSION)),
            one("6m", 0, Body::Exact),
            one("6m", 1, Body::Except(SESSION)),
            one("6m", 2, Body::Exact),
            one("6m", 3, Body::Exact),
            one("6m", 4, Body::Exact),
            one("6m", 5, Body::Exact),
            one("6m", 6, Body::Any),
        ])
        .await;
}

/// [73b, 73d, 73f, 6p]: killed, a minute later, restarted elsewhere, purged.
#[tokio::test]
async fn the_life_of_a_session() {
    let world = lab::network(0);
    let relay = relay(&world, Flavour::Main, true).await;
    let daemon = lab::daemon(&world, lab::scaled()).await;
    let mut scene = Scene::of(&relay.base_url());
    world.advance(Duration::from_secs(30));
    world.set_seen_age(lab::KILLED, Duration::from_secs(12));
    world.kill(lab::KILLED);
    scene.table(&[row("73b", Body::Except(SESSION))]).await;
    world.advance(Duration::from_secs(60));
    scene.table(&[row("73d", Body::Except(SESSION))]).await;
    assert_eq!(world.seen_age(lab::KILLED).unwrap().as_secs(), 72);
    // The recorded node came back on port 11999; ours takes the next free one.
    world.revive_elsewhere(lab::KILLED);
    let recording = Recording::load("6p").unwrap();
    let [listing, look_up] = recording.exchanges.as_slice() else { panic!("two exchanges") };
    scene.map("11999", "11501");
    let (answer, _) = scene.send(listing).await;
    scene.judge("6p listing", listing, answer.as_ref(), Body::Except(SESSION));
    let mut at_daemon = scene.at(&daemon.base_url());
    let (answer, _) = at_daemon.send(look_up).await;
    at_daemon.judge("6p", look_up, answer.as_ref(), Body::Except(&["seen", "slot"]));
    world.freeze(lab::FROZEN);
    world.advance(Duration::from_secs(601));
    scene.table(&[row("73f", Body::Exact)]).await;
}

/// [97b]: behind a firewall the address is invalid.
#[tokio::test]
async fn behind_a_firewall() {
    let world = World::at(10, Duration::from_secs(lab::BEGIN + 2500));
    world.add_provider(ProviderSpec {
        id: Some(lab::PROVIDER_3.to_owned()),
        firewalled: true,
        runtimes: Vec::new(),
        port: Some(11_503),
        ..ProviderSpec::default()
    });
    let relay = relay(&world, Flavour::Main, true).await;
    Scene::of(&relay.base_url()).table(&[row("97b", Body::Except(SESSION))]).await;
}

/// [98]: a graceful stop passes through the three shapes of nothing, with the recorded bodies.
#[tokio::test]
async fn shapes_of_nothing() {
    let world = lab::network(0);
    let relay = relay(&world, Flavour::Main, true).await;
    let scene = Scene::of(&relay.base_url());
    let log = Recording::load("98").unwrap().file["log"].clone();
    let bodies = log.as_array().unwrap().iter().map(|it| it["relay_http_body"].as_str().unwrap());
    let mut recorded: Vec<&str> = bodies.skip_while(|body| body.contains("seen")).collect();
    recorded.dedup();
    let ask = Recording::load("73b").unwrap().exchanges[0].clone();
    world.stop(lab::KILLED);
    let mut ours = Vec::new();
    for later in [0, 1000, 4000] {
        world.advance(Duration::from_millis(later));
        ours.push(scene.send(&ask).await.0.unwrap().body);
    }
    assert_eq!(ours, recorded);
}

/// [6j]: who comes and goes is told, from now on; a quick return is not.
#[tokio::test]
async fn event_stream() {
    let world = four();
    let relay = relay(&world, Flavour::Main, true).await;
    let mut request = Recording::load("60").unwrap().exchanges[0].to("/events");
    request.headers.retain(|(name, _)| name != "Connection");
    let address = relay.base_url().trim_start_matches("http://").parse().unwrap();
    let (answer, ()) = tokio::join!(request.replay(address, Duration::from_millis(600)), async {
        while !relay.requests().contains_key("GET /events") {
            tokio::task::yield_now().await;
        }
        let node = world.add_provider(lab::bare(lab::FROZEN, 11_504));
        settle().await;
        world.stop(&node);
        settle().await;
        // Killed and started again at once: nothing is told.
        world.kill(lab::PROVIDER_1);
        world.revive(lab::PROVIDER_1);
        settle().await;
        relay.lag();
        settle().await;
        world.kill(lab::PROVIDER_2);
        world.advance(Duration::from_secs(600));
    });
    let answer = answer.unwrap().0.unwrap();
    let first = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("recordings/6j_relay_events_sse.jsonl"),
    );
    let first = first.unwrap().lines().nth(1).unwrap().to_owned();
    let head: serde_json::Value = serde_json::from_str(&first).unwrap();
    let names = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once(": ")?.0.to_owned())).collect()
    };
    let ours: Vec<String> = answer.headers.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(ours, names(head["raw"].as_str().unwrap()));
    let event = |kind: &str, data: &str| format!("event: {kind}\ndata: {data}\n\n");
    assert_eq!(
        answer.body,
        event("new-node", lab::FROZEN)
            + &event("lost-node", lab::FROZEN)
            + &event("drop", "1")
            + &event("lost-node", lab::PROVIDER_2)
    );
}

/// Lets the stream's task see one state before the next.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
