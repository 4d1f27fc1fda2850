//! Channels: what opens them, when they are closed, and what ends that.

use std::time::Duration;

use reqwest::StatusCode;
use uptime_testkit::fake_yagna::{DaemonOptions, NetTiming, Restart, World};

use super::client::{Client, daemon, populate, quick};

const CLOSED: &str = "GSB failure: Net: error sending message: session closed";
const NOT_FOUND: &str = "Request failed: Request failed with code 404";
const SECOND: Duration = Duration::from_secs(1);

/// What a direct question comes to: its status, and the first line of what went wrong.
async fn asked(client: &Client, id: &str) -> (u16, String) {
    let (status, body) = client.ask(id).await;
    let text = body["message"].as_str().unwrap_or_default();
    (status.as_u16(), text.to_owned())
}

fn closed() -> (u16, String) {
    (500, CLOSED.to_owned())
}

async fn is_found(client: &Client, id: &str) -> bool {
    client.find(id).await["Ok"].is_object()
}

#[tokio::test]
async fn a_dead_process_is_dropped_and_its_channels_close_for_ever() {
    let world = World::new(31);
    let id = populate(&world, 1, "public").remove(0);
    let (talked, client) = daemon(&world, quick()).await;
    let (_silent, stranger) = daemon(&world, quick()).await;
    assert_eq!(client.ping(&[&id]).await, [true]);
    world.kill_process(&id);
    world.advance(Duration::from_secs(11));
    for client in [&client, &stranger] {
        assert!(is_found(client, &id).await);
        assert_eq!(client.ask(&id).await.0, 504);
    }
    // The latest that the relay drops it.
    for passed in [150, 1200, 3600] {
        world.advance(Duration::from_secs(passed));
        assert_eq!(client.find(&id).await["Err"]["RuntimeException"], NOT_FOUND);
        assert_eq!(asked(&client, &id).await, closed());
        assert_eq!(client.ping(&[&id]).await, [false]);
        let (status, text) = asked(&stranger, &id).await;
        assert_eq!(status, 500);
        assert!(text.starts_with("GSB failure: Net: error forwarding message: Fail to open"));
        assert!(text.ends_with(&format!("Node on relay server: {NOT_FOUND}")));
    }
    // A restart of the asking daemon forgets the channel.
    let how = Restart { relearn_after: Duration::ZERO, blind_for: Duration::ZERO };
    talked.restart(how).await.unwrap();
    assert!(asked(&client, &id).await.1.ends_with("code 404"));
}

#[tokio::test]
async fn the_node_s_return_opens_its_channels() {
    let world = World::new(32);
    let id = populate(&world, 1, "public").remove(0);
    let (_daemon, client) = daemon(&world, quick()).await;
    assert_eq!(client.ask(&id).await.0, 200);
    world.kill_process_ago(&id, Duration::from_secs(200));
    assert_eq!(asked(&client, &id).await, closed());
    world.revive(&id);
    // The first question is lost with the connection to the earlier life.
    let answers = [client.ask(&id).await.0, client.ask(&id).await.0];
    assert_eq!(answers, [StatusCode::GATEWAY_TIMEOUT, StatusCode::OK]);
}

#[tokio::test]
async fn a_host_that_is_gone_is_silent_for_ten_minutes() {
    let world = World::new(33);
    let ids = populate(&world, 2, "public");
    let (_daemon, client) = daemon(&world, quick()).await;
    assert_eq!(client.ping(&[&ids[0], &ids[1]]).await, [true, true]);
    world.kill(&ids[0]);
    world.freeze(&ids[1]);
    world.advance(Duration::from_secs(580));
    for id in &ids {
        assert!(is_found(&client, id).await);
        assert_eq!(client.ask(id).await.0, 504);
    }
    world.advance(Duration::from_secs(21));
    for id in &ids {
        assert!(!is_found(&client, id).await);
        assert_eq!(asked(&client, id).await, closed());
    }
    world.revive(&ids[1]);
    assert!(is_found(&client, &ids[1]).await);
}

#[tokio::test]
async fn most_processes_are_dropped_soon_and_some_late() {
    let world = World::new(34);
    let ids = populate(&world, 200, "public");
    ids.iter().for_each(|id| world.kill_process(id));
    let known = || ids.iter().filter(|id| world.seen_age(id).is_some()).count();
    world.advance(Duration::from_secs(11));
    assert_eq!(known(), 200);
    world.advance(Duration::from_secs(20));
    let late = known();
    assert!((40..70).contains(&late), "3 of 11: {late}");
    world.advance(Duration::from_secs(120));
    assert_eq!(known(), late);
    world.advance(Duration::from_secs(10));
    assert_eq!(known(), 0);
}

#[tokio::test]
async fn gossip_opens_channels_to_those_who_were_there() {
    let world = World::new(35);
    let ids = populate(&world, 2, "public");
    let (daemon, client) = daemon(&world, DaemonOptions { gossips: true, ..quick() }).await;
    world.kill_process_ago(&ids[0], Duration::from_secs(300));
    assert_eq!(asked(&client, &ids[0]).await, closed());
    // After a restart it never hears of the dead, and of the living once it has learnt again.
    daemon.restart(Restart::default()).await.unwrap();
    world.advance(Duration::from_secs(10));
    world.kill_process(&ids[1]);
    world.advance(Duration::from_secs(200));
    assert!(asked(&client, &ids[0]).await.1.ends_with("code 404"));
    assert_eq!(asked(&client, &ids[1]).await, closed());
}

#[tokio::test]
async fn the_first_question_after_the_drop_may_wait_in_vain() {
    let world = World::new(36);
    world.set_timing(NetTiming { late_close_share: 1.0, ..NetTiming::default() });
    let id = populate(&world, 1, "public").remove(0);
    let (daemon, client) = daemon(&world, quick()).await;
    daemon.connect(&id);
    world.kill_process_ago(&id, Duration::from_secs(200));
    assert_eq!(client.ask(&id).await.0, 504);
    assert_eq!(asked(&client, &id).await, closed());
}

#[tokio::test]
async fn a_relay_restart_closes_channels_to_the_living_for_a_while() {
    let world = World::new(37);
    let ids = populate(&world, 40, "public");
    let (daemon, client) = daemon(&world, quick()).await;
    ids.iter().for_each(|id| daemon.connect(id));
    world.kill(&ids[0]);
    let answering = async || {
        let mut count = 0;
        for id in &ids[1..] {
            let answer = asked(&client, id).await;
            assert!(answer.0 == 200 || answer == closed(), "{answer:?}");
            count += usize::from(answer.0 == 200);
        }
        count
    };
    world.relay_down();
    assert_eq!(answering().await, 39, "they need no relay");
    assert_eq!(client.ask(&ids[0]).await.0, 504);
    world.relay_up();
    assert_eq!(answering().await, 0);
    assert_eq!(asked(&client, &ids[0]).await, closed());
    world.advance(Duration::from_secs(15));
    assert!((5..35).contains(&answering().await));
    world.advance(Duration::from_secs(11) + SECOND / 2);
    assert_eq!(answering().await, 39);
    let found = async || is_found(&client, &ids[0]).await;
    assert!(!found().await);
    // And some that answer are not registered yet.
    let mut registered = 0;
    for id in &ids[1..] {
        registered += usize::from(is_found(&client, id).await);
    }
    assert!((20..39).contains(&registered), "{registered}");
}

#[tokio::test]
async fn failed_questions_cost_lines_and_queries() {
    let world = World::new(38);
    let ids = populate(&world, 3, "public");
    let (daemon, client) = daemon(&world, quick()).await;
    ids[..2].iter().for_each(|id| daemon.connect(id));
    assert_eq!(client.ask(&ids[0]).await.0, 200);
    assert!(is_found(&client, &ids[0]).await);
    assert_eq!((daemon.error_lines(), daemon.relay_queries()), (0, 1));
    world.kill(&ids[0]);
    world.kill_process_ago(&ids[1], Duration::from_secs(200));
    world.kill_process_ago(&ids[2], Duration::from_secs(200));
    for (at, lines) in [(0, 1), (1, 2), (2, 1)] {
        let before = (daemon.error_lines(), daemon.error_bytes(), daemon.relay_queries());
        assert!(client.ask(&ids[at]).await.0.is_server_error());
        assert_eq!(daemon.error_lines() - before.0, lines, "{at}");
        assert!((200..5000).contains(&(daemon.error_bytes() - before.1)));
        assert_eq!(daemon.relay_queries() - before.2, 3, "{at}");
    }
}
