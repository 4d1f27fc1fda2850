//! The bridge to the bus: 50–5i, 94b, 94c, 94e, 97c, 97d, 97f, 97i.

use std::time::Duration;

use serde_json::json;
use uptime_testkit::fake_yagna::recording::Recording;
use uptime_testkit::fake_yagna::{ProviderSpec, World};

use super::judge::{Body, Scene, one, row, waits};
use super::lab;

const SCALED_MS: u64 = 60;
/// What a session's entry has of its own.
const SESSION: &[&str] =
    &["duration", "id", "metrics", "ping", "rxAvg", "rxCurrent", "txAvg", "txCurrent"];
const FOUND: &[&str] = &["seen", "slot"];
const TRIP: &[&str] = &["nanos"];

#[tokio::test]
async fn look_ups_pings_and_sessions() {
    let world = lab::network(0);
    let daemon = lab::daemon(&world, lab::scaled()).await;
    for peer in [lab::PROVIDER_1, lab::PROVIDER_2, lab::PROVIDER_3, lab::FROZEN] {
        daemon.connect(peer);
    }
    let mut scene = Scene::of(&daemon.base_url());
    scene
        .table(&[
            row("50", Body::Exact),
            row("51", Body::Exact),
            row("52", Body::Except(FOUND)),
            row("5d", Body::Except(&["metrics"])),
            row("5f", Body::Unordered(&[])),
            one("5j", 0, Body::Exact),
            one("5k", 1, Body::Exact),
        ])
        .await;
    sessions(&mut scene).await;
    world.kill(lab::KILLED);
    scene
        .table(&[
            row("53", Body::Except(FOUND)),
            row("54", Body::Exact),
            row("55", Body::Exact),
            row("56", Body::Exact),
            row("57", Body::Exact),
            row("58", Body::Exact),
            row("59", Body::Except(TRIP)),
            waits("5a", Body::Exact, SCALED_MS),
            row("5b", Body::Exact),
            waits("5c", Body::Except(TRIP), SCALED_MS),
            row("5g", Body::Exact),
            waits("5h", Body::Exact, SCALED_MS),
            row("5i", Body::Exact),
        ])
        .await;
}

/// [5e]: by shape, the relay's entry and the peers'.
async fn sessions(scene: &mut Scene) {
    let recording = Recording::load("5e").unwrap();
    let exchange = &recording.exchanges[0];
    let (answer, _) = scene.send(exchange).await;
    scene.judge("5e", exchange, answer.as_ref(), Body::Any);
    let shape = |body: serde_json::Value| {
        let mut entries = body["Ok"].as_array().unwrap().clone();
        for entry in &mut entries {
            // The recorded averages are sometimes whole; the number's kind is all the same.
            for field in ["metrics", "duration", "ping", "seen", "id"] {
                let names = entry[field].as_object().map(|it| it.keys().cloned().collect());
                entry[field] = json!(names.unwrap_or_else(|| vec![field.to_owned()]));
            }
        }
        super::judge::blank(json!(entries), SESSION, true)
    };
    let theirs = exchange.response.as_ref().unwrap().json();
    assert_eq!(shape(answer.unwrap().json()), shape(theirs));
}

/// [94b, 94c, 94e]: the relay's death leaves the direct connections.
#[tokio::test]
async fn relay_down() {
    let world = lab::network(0);
    let daemon = lab::daemon(&world, lab::scaled()).await;
    for peer in [lab::PROVIDER_1, lab::PROVIDER_2] {
        daemon.connect(peer);
    }
    world.relay_down();
    let mut scene = Scene::of(&daemon.base_url());
    scene
        .table(&[waits("94b", Body::Exact, SCALED_MS), waits("94c", Body::Except(TRIP), SCALED_MS)])
        .await;
    world.advance(Duration::from_secs(30));
    scene.table(&[row("94e", Body::Exact)]).await;
}

/// [97c, 97d, 97f, 97i]: a node behind a firewall, then frozen.
#[tokio::test]
async fn behind_a_firewall() {
    let world = World::at(6, Duration::from_secs(lab::BEGIN + 2500));
    world.add_provider(ProviderSpec {
        id: Some(lab::PROVIDER_3.to_owned()),
        firewalled: true,
        recorded: lab::offers("97e", 0),
        ..ProviderSpec::default()
    });
    let daemon = lab::daemon(&world, lab::scaled()).await;
    let mut scene = Scene::of(&daemon.base_url());
    scene.table(&[row("97c", Body::Except(FOUND)), row("97d", Body::Except(TRIP))]).await;
    world.freeze(lab::PROVIDER_3);
    scene.table(&[waits("97f", Body::Exact, SCALED_MS), row("97i", Body::Except(FOUND))]).await;
}
