//! The scan API: 2y, 40–4b, 97e, 97g, 97h.

use uptime_testkit::fake_yagna::recording::Recording;
use uptime_testkit::fake_yagna::{Limits, ProviderSpec, World};

use super::judge::{Body, Scene, one, row, waits};
use super::lab::{self, SCALED};

const SCALED_MS: u64 = 60;

#[tokio::test]
async fn scans() {
    let world = lab::network(0);
    world.kill(lab::KILLED);
    world.freeze(lab::FROZEN);
    let daemon = lab::daemon(&world, lab::scaled()).await;
    let mut scene = Scene::of(&daemon.base_url());
    scene
        .table(&[
            row("40", Body::Exact),
            row("41", Body::Exact),
            waits("42", Body::Exact, SCALED_MS),
            row("43", Body::Exact),
            row("44", Body::Exact),
            waits("45", Body::Exact, SCALED_MS),
            row("46", Body::Exact),
            waits("47", Body::Exact, SCALED_MS),
            row("48", Body::Exact),
            row("49", Body::Exact),
        ])
        .await;
    // The scan behind 4a was begun by a request that was not recorded: that of 49 again.
    let (begun, _) = scene.send(&Recording::load("49").unwrap().exchanges[0]).await;
    assert_eq!(begun.unwrap().body, "\"3\"");
    scene.table(&[row("4a", Body::Exact)]).await;
    assert_eq!(daemon.open_scans(), 3);
    scene.table(&[row("4b", Body::Exact)]).await;
    assert_eq!(daemon.open_scans(), 2);
    assert_eq!(daemon.count("GET /market-api/v1/scan/{id}/events?peerId"), 6);
}

/// [2y]: the real agent's three offers, fetched from the peer itself.
#[tokio::test]
async fn direct_question_to_a_real_agent() {
    let offers = lab::offers("2y", 1);
    let world = World::at(4, std::time::Duration::from_secs(lab::BEGIN + 2100));
    world.add_recorded(&offers, 11_502);
    let daemon = lab::daemon(&world, lab::scaled()).await;
    let mut scene = Scene::of(&daemon.base_url());
    // Four scans had been begun before on that daemon.
    for _ in 0..4 {
        scene.send(&Recording::load("49").unwrap().exchanges[0]).await;
    }
    scene.table(&[row("2y", Body::Exact)]).await;
}

/// [97e, 97g, 97h]: behind a firewall it is the same.
#[tokio::test]
async fn direct_question_through_a_firewall() {
    let world = World::at(5, std::time::Duration::from_secs(lab::BEGIN + 2500));
    world.add_provider(ProviderSpec {
        id: Some(lab::PROVIDER_3.to_owned()),
        firewalled: true,
        recorded: lab::offers("97e", 0),
        port: Some(11_503),
        ..ProviderSpec::default()
    });
    let limits = Limits { direct: SCALED, ..Limits::default() };
    let daemon = lab::daemon(&world, limits).await;
    let mut scene = Scene::of(&daemon.base_url());
    scene.send(&Recording::load("49").unwrap().exchanges[0]).await;
    scene.table(&[one("97e", 0, Body::Exact)]).await;
    world.freeze(lab::PROVIDER_3);
    // 97g ended at the client's 15 s, 97h at the daemon's own 30 s; here both at the latter.
    scene
        .table(&[waits("97g", Body::Exact, SCALED_MS), waits("97h", Body::Exact, SCALED_MS)])
        .await;
}
