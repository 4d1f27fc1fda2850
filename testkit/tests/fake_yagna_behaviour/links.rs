//! Links that fail, lose and delay, `seen` that lags, and identities made at run time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uptime_testkit::fake_yagna::{
    Daemon, DaemonOptions, Limits, Link, NetTiming, Relay, RelayOptions, World,
};

use super::client::{Client, SHORT, daemon, populate, quick};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn age(world: &World, client: &Client, id: &str) -> Option<u64> {
    let seen = client.find(id).await["Ok"]["seen"].as_u64()?;
    Some(world.now().as_secs().saturating_sub(seen))
}

#[tokio::test]
async fn a_link_that_returns_is_not_found_until_it_registers() {
    let world = World::new(61);
    let timing = NetTiming { older_session_share: 0.0, ..NetTiming::default() };
    world.set_timing(timing);
    let ids = populate(&world, 20, "public");
    let (daemon, client) = daemon(&world, quick()).await;
    ids.iter().for_each(|id| daemon.connect(id));
    for (outage, soonest, latest) in [(20, 0, 12), (60, 5, 28)] {
        ids.iter().for_each(|id| world.link_down(id));
        world.advance(s(outage));
        assert!(age(&world, &client, &ids[0]).await.unwrap() >= outage);
        assert_eq!(client.ask(&ids[0]).await.0, 504);
        assert_eq!(client.ping(&[&ids[0]]).await, [false]);
        assert_eq!(world.alive_ids().len(), 20, "they live all the same");
        ids.iter().for_each(|id| world.link_up(id));
        world.advance(s(soonest));
        let known = || ids.iter().filter(|id| world.seen_age(id).is_some()).count();
        assert_eq!(known(), 0);
        assert_eq!(client.ask(&ids[0]).await.0, 500, "the channel is closed");
        world.advance(s((latest - soonest) / 2));
        assert!((1..20).contains(&known()), "{}", known());
        world.advance(s((latest - soonest) / 2 + 1));
        assert_eq!(known(), 20);
        // The first question is lost with the old connection.
        assert_eq!([client.ask(&ids[0]).await.0, client.ask(&ids[0]).await.0], [504, 200]);
        world.advance(s(15));
    }
}

#[tokio::test]
async fn a_link_that_returns_may_show_an_older_session() {
    let world = World::new(62);
    world.set_timing(NetTiming { older_session_share: 1.0, ..NetTiming::default() });
    let id = populate(&world, 1, "public").remove(0);
    let (_daemon, client) = daemon(&world, quick()).await;
    world.link_down(&id);
    world.advance(s(20));
    world.link_up(&id);
    assert!((500..600).contains(&age(&world, &client, &id).await.unwrap()));
    assert_eq!(client.ask(&id).await.0, 504);
    world.advance(s(2));
    assert!(age(&world, &client, &id).await.unwrap() < 3);
}

#[tokio::test]
async fn what_happens_behind_a_dead_link_shows_when_it_returns() {
    let world = World::new(63);
    let ids = populate(&world, 2, "public");
    ids.iter().for_each(|id| world.link_down(id));
    world.kill(&ids[0]);
    world.kill(&ids[1]);
    world.revive(&ids[1]);
    world.relay_down();
    world.relay_up();
    world.advance(s(60));
    assert_eq!((world.seen_age(&ids[0]), world.seen_age(&ids[1])), (None, None));
    ids.iter().for_each(|id| world.link_up(id));
    world.advance(s(30));
    assert_eq!(world.seen_age(&ids[0]), None);
    assert!(world.seen_age(&ids[1]).is_some());
}

/// A daemon whose waits are short, but for the questions' own.
async fn patient(world: &World) -> (Daemon, Client) {
    let limits = Limits {
        direct: Duration::from_secs(5),
        resend: Duration::from_millis(2),
        ..quick().limits
    };
    daemon(world, DaemonOptions { limits, ..DaemonOptions::default() }).await
}

#[tokio::test]
async fn loss_between_two_or_for_all() {
    let world = World::new(64);
    let ids = populate(&world, 2, "public");
    let (near, first) = patient(&world).await;
    let (far, second) = patient(&world).await;
    let answered = async |client: &Client, id: &str| {
        let mut count = 0;
        for _ in 0..20 {
            count += usize::from(client.ping(&[id]).await[0]);
        }
        count
    };
    near.set_link(&ids[0], Link::losing(1.0));
    assert_eq!(answered(&first, &ids[0]).await, 0);
    assert_eq!(answered(&second, &ids[0]).await, 20);
    assert_eq!(answered(&first, &ids[1]).await, 20);
    near.set_link(&ids[0], Link::default());
    assert_eq!(answered(&first, &ids[0]).await, 20);
    world.set_link(&ids[0], Link::losing(0.1));
    for client in [&first, &second] {
        for _ in 0..20 {
            assert_eq!(client.ask(&ids[0]).await.0, 200, "10 % costs time alone");
        }
    }
    // A vantage with a bad link: its look-ups suffer, too.
    world.set_link(far.identity(), Link::losing(1.0));
    let lost = second.find(&ids[1]).await;
    assert_eq!(lost["Err"]["RuntimeException"], "Request failed: Request timed out after 3000 ms");
    assert!(first.find(&ids[1]).await["Ok"].is_object());
    assert_eq!(answered(&second, &ids[1]).await, 0);
}

#[tokio::test]
async fn a_delay_is_waited_for_twice() {
    let world = World::new(65);
    let id = populate(&world, 1, "public").remove(0);
    let (_daemon, client) = patient(&world).await;
    assert_eq!(client.ask(&id).await.0, 200);
    world.set_link(&id, Link { delay: SHORT, ..Link::default() });
    let begun = Instant::now();
    assert_eq!(client.ask(&id).await.0, 200);
    assert!(begun.elapsed() >= SHORT * 2);
}

#[tokio::test]
async fn seen_of_a_living_node_lags_when_told_to() {
    let world = World::new(66);
    let ids = populate(&world, 400, "public");
    let (_daemon, client) = daemon(&world, quick()).await;
    let oldest = || ids.iter().filter_map(|id| world.seen_age(id)).max().unwrap();
    world.advance(s(100));
    assert!(oldest() < s(16));
    world.set_seen_age(&ids[0], s(43));
    assert!((43..45).contains(&age(&world, &client, &ids[0]).await.unwrap()));
    assert_eq!(client.ask(&ids[0]).await.0, 200);
    world.advance(s(10));
    assert!(age(&world, &client, &ids[0]).await.unwrap() >= 53);
    world.advance(s(6));
    assert!(age(&world, &client, &ids[0]).await.unwrap() < 5);
    world.set_timing(NetTiming::realistic());
    let (mut stale, mut known) = (0, 0);
    for _ in 0..40 {
        world.advance(s(7));
        stale += ids.iter().filter(|id| world.seen_age(id) > Some(s(20))).count();
        known += ids.len();
        assert!(oldest() < s(44));
    }
    assert!((known / 50..known / 25).contains(&stale), "2 to 4 %: {stale} of {known}");
}

#[tokio::test]
async fn an_identity_made_at_run_time_is_strange_to_its_own_node() {
    let world = World::new(67);
    let id = populate(&world, 1, "public").remove(0);
    let (_daemon, client) = daemon(&world, quick()).await;
    let relay = Relay::start(world.clone(), RelayOptions::default()).await.unwrap();
    let second = world.add_identity(&id);
    assert_eq!(world.identities_of(&id), [id.clone(), second.clone()]);
    assert_eq!(client.find(&second).await, client.find(&id).await);
    let path = format!("/nodes/{}", &second[2..]);
    let listed: Value =
        Client::of(&relay.base_url()).get(&path).send().await.unwrap().json().await.unwrap();
    assert!(listed[&second].is_array());
    let (status, body) = client.ask(&second).await;
    let text = body["message"].as_str().unwrap();
    let address = format!("/net/{second}/market/protocol/mk1/discovery/offers/Query");
    assert_eq!(status, 500);
    assert_eq!(text, format!("Bad request: Bad request: Unknown address: {address}"));
    assert_eq!(client.ping(&[&second, &id]).await, [false, true]);
    // A dead node's second identity is as dead as its first.
    world.kill(&id);
    assert_eq!(client.ask(&second).await.0, 504);
    world.revive(&id);
    assert_eq!(client.ask(&second).await, (reqwest::StatusCode::OK, json!([])));
    assert_eq!(client.ping(&[&second]).await, [true]);
}
