//! Nodes that live, die, withdraw and come back, as the market and the bridge show them.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use uptime_testkit::fake_yagna::{DaemonOptions, NetTiming, ProviderSpec, View, World};

use super::client::{daemon, populate, quick, soon, sorted};

#[tokio::test]
async fn each_offer_comes_once_whatever_the_page() {
    let world = World::new(1);
    let public = populate(&world, 120, "public");
    let (daemon, client) = daemon(&world, DaemonOptions::default()).await;
    for page in [1, 7, 100, 500] {
        assert_eq!(sorted(client.market(page).await), sorted(public.clone()), "{page}");
    }
    assert_eq!(sorted(client.demand("public", soon(&world)).await), sorted(public));
    // It took many polls: events trickle.
    assert!(daemon.count("GET /market-api/v1/demands/{id}/events") > 2);
    assert_eq!((daemon.open_scans(), daemon.open_demands()), (0, 0));
}

#[tokio::test]
async fn a_filtered_page_is_short_and_not_the_last() {
    let world = World::new(2);
    for subnet in ["public", "testnet", "public", "testnet"] {
        populate(&world, 1, subnet);
    }
    let (_daemon, client) = daemon(&world, DaemonOptions::default()).await;
    let constraints = "(golem.node.debug.subnet=testnet)";
    let scan = client.scan(json!({"type": "offer", "constraints": constraints})).await;
    let path = format!("/market-api/v1/scan/{scan}/events?timeout=0&maxEvents=2");
    let mut pages = Vec::new();
    for _ in 0..3 {
        let page: Vec<Value> = client.get(&path).send().await.unwrap().json().await.unwrap();
        pages.push(page.len());
    }
    assert_eq!(pages, [1, 1, 0]);
}

#[tokio::test]
async fn a_demand_that_ends_now_misses_what_is_published_later() {
    let world = World::new(3);
    let early = populate(&world, 1, "public");
    let (_daemon, client) = daemon(&world, DaemonOptions::default()).await;
    let now = world.now().as_millis() + 1;
    world.advance(Duration::from_secs(1));
    let late = populate(&world, 1, "public");
    assert_eq!(client.demand("public", now).await, early);
    assert_eq!(client.demand("public", soon(&world)).await.len(), 2);
    // The scan has no demand, and no such trap.
    assert_eq!(sorted(client.market(10).await), sorted([early, late].concat()));
}

#[tokio::test]
async fn the_dead_stay_on_the_market_and_with_the_relay() {
    let world = World::new(4);
    let ids = populate(&world, 2, "public");
    let [dead, alive] = ids.as_slice() else { unreachable!() };
    let (_daemon, client) = daemon(&world, quick()).await;
    world.advance(Duration::from_secs(60));
    world.kill(dead);
    world.advance(Duration::from_secs(59));
    assert_eq!(client.market(10).await.len(), 2);
    let age = |answer: &Value| world.now().as_secs() - answer["Ok"]["seen"].as_u64().unwrap();
    assert!((59..=75).contains(&age(&client.find(dead).await)));
    assert!(age(&client.find(alive).await) <= 16);
    assert_eq!(client.ask(dead).await.0, 504);
    assert_eq!(client.ask(alive).await.0, 200);
    assert_eq!(client.ping(&[alive, dead]).await, [true, false]);

    // Ten minutes later the relay has forgotten it; its offer is still there.
    world.advance(Duration::from_secs(600));
    let gone = "Request failed: Request failed with code 404";
    assert_eq!(client.find(dead).await["Err"]["RuntimeException"], gone);
    assert_eq!(client.ask(dead).await.0, 500);
    assert_eq!(client.market(10).await.len(), 2);

    // An hour after its publication it is not, and the living one's is not either for a moment.
    world.advance(Duration::from_secs(3600 - 719 + 5));
    assert_eq!(client.market(10).await, Vec::<String>::new());
    world.advance(Duration::from_secs(11));
    assert_eq!(client.market(10).await, std::slice::from_ref(alive));
}

#[tokio::test]
async fn withdrawn_offers_leave_a_node_that_answers() {
    let world = World::new(5);
    let timing = NetTiming { gossip: Duration::from_secs(5), ..NetTiming::default() };
    world.set_timing(timing);
    let id = populate(&world, 1, "public").remove(0);
    let (_daemon, client) = daemon(&world, quick()).await;
    assert_eq!(client.market(10).await.len(), 0);
    world.advance(Duration::from_secs(5));
    assert_eq!(client.market(10).await.len(), 1);
    world.withdraw_offers(&id);
    assert_eq!(client.market(10).await.len(), 1);
    assert_eq!(client.ask(&id).await, (StatusCode::OK, json!([])));
    world.advance(Duration::from_secs(5));
    assert_eq!(client.market(10).await.len(), 0);
    assert_eq!(client.ping(&[&id]).await, [true]);
}

#[tokio::test]
async fn after_an_outage_the_first_question_is_lost() {
    let world = World::new(6);
    let ids = populate(&world, 2, "public");
    let (_daemon, client) = daemon(&world, quick()).await;
    assert_eq!(client.ping(&[&ids[0], &ids[1]]).await, [true, true]);
    for id in &ids {
        world.kill(id);
    }
    assert_eq!(client.ping(&[&ids[0]]).await, [false]);
    world.revive(&ids[0]);
    world.advance(Duration::from_secs(40));
    world.revive(&ids[1]);
    // Half a second away costs nothing, forty seconds cost one question.
    assert_eq!(client.ping(&[&ids[0], &ids[1]]).await, [true, false]);
    assert_eq!(client.ping(&[&ids[0], &ids[1]]).await, [true, true]);
    // Old and new offers stand side by side.
    assert_eq!(client.market(10).await.len(), 4);
    assert_eq!(client.ask(&ids[1]).await.1.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn views_differ_and_can_be_set() {
    let world = World::new(7);
    let ids = populate(&world, 3, "public");
    let view = |ids: &[String]| View::Only(ids.iter().cloned().collect::<BTreeSet<_>>());
    let partial = DaemonOptions { view: view(&ids[..2]), ..DaemonOptions::default() };
    let (first, client) = daemon(&world, partial).await;
    let (_second, everything) = daemon(&world, DaemonOptions::default()).await;
    assert_eq!(sorted(client.market(10).await), sorted(ids[..2].to_vec()));
    assert_eq!(everything.market(10).await.len(), 3);
    // What it has not cached can be asked all the same.
    assert_eq!(client.ask(&ids[2]).await.0, 200);
    first.set_view(view(&ids[2..]));
    assert_eq!(client.market(10).await, ids[2..]);
}

#[tokio::test]
async fn several_identities_share_a_session() {
    let world = World::new(8);
    let spec = ProviderSpec { other_identities: 2, ..ProviderSpec::default() };
    let id = world.add_provider(spec);
    let all = world.identities_of(&id);
    let (_daemon, client) = daemon(&world, quick()).await;
    let first = client.find(&all[0]).await;
    assert_eq!(first, client.find(&all[2]).await);
    assert_eq!(first["Ok"]["identities"], json!(all));
    assert_eq!(client.ping(&[&all[1]]).await, [true]);
    assert_eq!(world.alive_ids(), [id]);
}
