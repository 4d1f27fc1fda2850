//! The switches of a daemon, a relay and the demonstration.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use uptime_testkit::fake_yagna::{
    DaemonOptions, Demonstration, Fault, FaultKind, Flavour, Plan, Relay, RelayOptions, Restart,
    World,
};

use super::client::{Client, KEY, SHORT, daemon, populate, quick};

#[tokio::test]
async fn freeze_is_silent_and_thaw_goes_on() {
    let world = World::new(9);
    populate(&world, 1, "public");
    let (daemon, client) = daemon(&world, DaemonOptions::default()).await;
    daemon.freeze();
    let frozen = client.get("/me").timeout(SHORT).send().await.unwrap_err();
    assert!(frozen.is_timeout(), "{frozen:?}");
    let (answer, ()) = tokio::join!(client.get("/me").send(), async {
        tokio::task::yield_now().await;
        daemon.thaw();
    });
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn a_restarted_daemon_knows_nothing_and_finds_nobody() {
    let world = World::new(10);
    let id = populate(&world, 1, "public").remove(0);
    let (daemon, client) = daemon(&world, quick()).await;
    let relay_age_s = async || {
        let sessions = client.post("/_gsb/local/net/Sessions", json!({})).await;
        let entries = sessions["Ok"].as_array().unwrap().clone();
        let relay = entries.iter().find(|it| it["sessionType"] == "relay");
        relay.unwrap()["duration"]["secs"].as_u64().unwrap()
    };
    assert!((3600..3700).contains(&relay_age_s().await));
    client.scan(json!({"type": "offer"})).await;
    daemon.restart(Restart::default()).await.unwrap();
    assert_eq!(daemon.open_scans(), 0);
    assert!(relay_age_s().await < 3);
    assert_eq!(client.market(10).await.len(), 0);
    let not_found = client.find(&id).await;
    assert!(not_found["Err"]["RuntimeException"].as_str().unwrap().ends_with("404"));
    world.advance(Duration::from_secs(3));
    assert!(client.find(&id).await["Ok"].is_object());
    assert_eq!(client.market(10).await.len(), 0);
    world.advance(Duration::from_secs(3));
    assert_eq!(client.market(10).await.len(), 1);
    daemon.set_relay_session_age(Duration::from_secs(120));
    assert!((120..130).contains(&relay_age_s().await));
}

#[tokio::test]
async fn a_restarted_relay_forgets_the_living() {
    let world = World::new(11);
    let ids = populate(&world, 20, "public");
    let (_daemon, client) = daemon(&world, quick()).await;
    let relay = Relay::start(world.clone(), RelayOptions::default()).await.unwrap();
    relay.stop().await;
    let text = client.find(&ids[0]).await["Err"]["RuntimeException"].clone();
    assert_eq!(text, "Request failed: Request timed out after 3000 ms");
    let listing = Client::of(&relay.base_url());
    assert!(listing.get("/nodes/all").send().await.unwrap_err().is_connect());
    relay.start_again().await.unwrap();
    let found = async || {
        let mut found = 0;
        for id in &ids {
            found += usize::from(client.find(id).await["Ok"].is_object());
        }
        found
    };
    assert_eq!(found().await, 0);
    world.advance(Duration::from_secs(18));
    assert!((1..20).contains(&found().await));
    world.advance(Duration::from_secs(17));
    assert_eq!(found().await, 20);
}

#[tokio::test]
async fn refusals_by_key_relay_and_age() {
    let world = World::new(12);
    let id = populate(&world, 1, "public").remove(0);
    let (daemon, client) = daemon(&world, DaemonOptions::default()).await;
    daemon.refuse_key(true);
    let refused = client.get("/me").send().await.unwrap();
    assert_eq!(
        (refused.status(), refused.text().await.unwrap().as_str()),
        (StatusCode::UNAUTHORIZED, "Invalid application key")
    );
    daemon.refuse_key(false);
    daemon.refuse_by_relay(true);
    let text = client.find(&id).await["Err"]["RuntimeException"].clone();
    assert_eq!(text, "Network error: Request failed: Request failed with code 400");
    let status: Value =
        client.get("/net-api/v2/net/status").send().await.unwrap().json().await.unwrap();
    assert_eq!((&status["sessions"], &status["publicIp"]), (&json!(0), &Value::Null));
    daemon.refuse_by_relay(false);
    daemon.set_scan_api(false);
    assert_eq!(client.get("/market-api/v1/scan/0/events").send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn the_relay_clock_can_be_ahead() {
    let world = World::new(13);
    let id = populate(&world, 1, "public").remove(0);
    let (_daemon, client) = daemon(&world, DaemonOptions::default()).await;
    world.set_relay_clock_ahead(40);
    let seen = client.find(&id).await["Ok"]["seen"].as_u64().unwrap();
    assert!(seen > world.now().as_secs() + 20);
}

#[tokio::test]
async fn faults_damage_answers() {
    let world = World::new(14);
    let (daemon, client) = daemon(&world, DaemonOptions::default()).await;
    let on_me = |kind| Some(Fault::new("GET /me", kind));
    daemon.set_fault(on_me(FaultKind::Status(503, "{}".to_owned())));
    assert_eq!(client.get("/me").send().await.unwrap().status(), 503);
    assert_eq!(client.get("/version/get").send().await.unwrap().status(), 200);
    for kind in [FaultKind::MalformedJson, FaultKind::TruncatedJson] {
        daemon.set_fault(on_me(kind));
        let body = client.get("/me").send().await.unwrap().bytes().await.unwrap();
        assert!(serde_json::from_slice::<Value>(&body).is_err());
    }
    daemon.set_fault(on_me(FaultKind::CloseWithoutByte));
    assert!(client.get("/me").send().await.is_err());
    daemon.set_fault(on_me(FaultKind::CutShort));
    assert!(client.get("/me").send().await.unwrap().bytes().await.is_err());
    daemon.set_fault(on_me(FaultKind::SlowDrip(Duration::from_millis(5))));
    let dripping = client.get("/me").timeout(SHORT).send().await;
    assert!(dripping.is_err());
    daemon.set_fault(on_me(FaultKind::Endless));
    let mut endless = client.get("/me").send().await.unwrap();
    let mut received = 0;
    while received < 100_000 {
        received += endless.chunk().await.unwrap().unwrap().len();
    }
    drop(endless);
    daemon.set_fault(on_me(FaultKind::Latency(SHORT)));
    let started = Instant::now();
    assert_eq!(client.get("/me").send().await.unwrap().status(), 200);
    assert!(started.elapsed() >= SHORT);
    daemon.set_fault(None);
    assert_eq!(client.get("/me").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_demand_behind() {
    let world = World::new(15);
    let (daemon, client) = daemon(&world, DaemonOptions::default()).await;
    daemon.set_fault(Some(Fault::new("POST /market-api", FaultKind::CloseWithoutByte)));
    let body = json!({"properties": {}, "constraints": "()"});
    let request = client.http.post(format!("{}/market-api/v1/demands", client.base));
    assert!(request.bearer_auth(KEY).json(&body).send().await.is_err());
    assert_eq!(daemon.open_demands(), 1);
    let listed: Vec<Value> =
        client.get("/market-api/v1/demands").send().await.unwrap().json().await.unwrap();
    assert_eq!(listed.len(), 1);
}

#[tokio::test]
async fn the_relay_caps_its_listing_silently() {
    let world = World::new(16);
    let ids = populate(&world, 200, "public");
    for flavour in [Flavour::Main, Flavour::Pinned] {
        let options = RelayOptions { flavour, ..RelayOptions::default() };
        let relay = Relay::start(world.clone(), options).await.unwrap();
        let client = Client::of(&relay.base_url());
        let mut listed = BTreeSet::new();
        for prefix in ["all".to_owned()].into_iter().chain((0..256).map(|n| format!("{n:02x}"))) {
            let path = format!("/nodes/{prefix}");
            let nodes: Value = client.get(&path).send().await.unwrap().json().await.unwrap();
            let nodes = nodes.as_object().unwrap();
            assert!(prefix != "all" || nodes.len() == 50);
            listed.extend(nodes.keys().cloned());
        }
        assert!(ids.iter().all(|id| listed.contains(id)));
        assert_eq!(relay.requests()["GET /nodes/{prefix}"], 256);
    }
}

#[tokio::test]
async fn a_daemon_without_a_bridge_knows_no_such_route() {
    let world = World::new(21);
    let id = populate(&world, 1, "public").remove(0);
    let options = DaemonOptions { has_bridge: false, ..quick() };
    let (daemon, client) = daemon(&world, options).await;
    let find = async |key: &str| {
        let request = client.http.post(format!("{}/_gsb/local/net/FindNode", client.base));
        let answer = request.bearer_auth(key).json(&json!({"nodeId": id})).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(find(KEY).await, (404, String::new()));
    assert_eq!(find("wrong").await.0, 401, "the key comes first");
    assert_eq!(client.market(10).await.len(), 1, "the rest is there");
    daemon.set_bridge(true);
    assert_eq!(find(KEY).await.0, 200);
}

/// What a scan answers to one who accepts events, within a moment: its type and its bytes.
async fn events(client: &Client) -> (String, String) {
    let scan = client.scan(json!({"type": "offer"})).await;
    let path = format!("/market-api/v1/scan/{scan}/events");
    let request = client.get(&path).header("accept", "text/event-stream");
    let mut answer = request.send().await.unwrap();
    let media_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = answer.chunk().await {
            body.extend_from_slice(&chunk);
        }
    };
    let ended = tokio::time::timeout(Duration::from_millis(500), read).await.is_ok();
    body.extend_from_slice(if ended { b"(end)" } else { b"(open)" });
    (media_type, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn streams_of_offers_and_their_faults() {
    let world = World::new(22);
    populate(&world, 3, "public");
    let (daemon, client) = daemon(&world, quick()).await;
    let offers = |body: &str| body.matches("\"}\n\n").count();
    let (media_type, body) = events(&client).await;
    assert_eq!((media_type.as_str(), offers(&body)), ("text/event-stream", 3));
    assert!(body.ends_with("}\n\n(open)"), "{body}");
    let fault = |kind| daemon.set_fault(Some(Fault::new("GET /market-api/v1/scan", kind)));
    fault(FaultKind::CutShort);
    let (_, body) = events(&client).await;
    assert!(offers(&body) == 1 && !body.contains("(open)"), "one and a half: {body}");
    fault(FaultKind::TruncatedJson);
    let (_, body) = events(&client).await;
    assert!(offers(&body) == 1 && body.ends_with("}\n\n(end)"), "{body}");
    fault(FaultKind::MalformedJson);
    let (_, body) = events(&client).await;
    assert!(body.matches('\u{1}').count() == 3 && body.ends_with("(open)"), "{body}");
    fault(FaultKind::SlowDrip(Duration::from_millis(1)));
    let (_, body) = events(&client).await;
    assert!(body.starts_with("event: offer") && body.ends_with("(open)"), "{body}");
    fault(FaultKind::Endless);
    let (media_type, body) = events(&client).await;
    assert!(media_type == "text/event-stream" && body.starts_with("    "), "{media_type}");
}

#[tokio::test]
async fn a_demonstration_is_as_planned() {
    let plan = Plan {
        seed: 7,
        daemons: 3,
        providers: 50,
        subnets: vec!["public".to_owned(), "testnet".to_owned()],
        app_key: KEY.to_owned(),
        relay: true,
    };
    let network = Demonstration::start(&plan).await.unwrap();
    let dead = network.dead.clone();
    let ways: Vec<String> = dead.iter().map(|(_, how)| how.to_string()).collect();
    assert_eq!(ways, ["process-died", "host-gone", "frozen"]);
    assert_eq!(network.world.subnet_ids("public").len(), 35);
    assert_eq!(network.world.alive_ids().len(), 47);
    assert_eq!(network.world.seen_age(&dead[0].0), None, "the relay has dropped it");
    for (id, _) in &dead[1..] {
        assert!(network.world.seen_age(id).unwrap() >= Duration::from_secs(60));
    }
    let mut times = std::collections::BTreeMap::<String, usize>::new();
    for daemon in &network.daemons {
        let client = Client::of(&daemon.base_url());
        let market = client.market(500).await;
        assert!(market.len() < 50 && dead.iter().all(|(id, _)| market.contains(id)));
        // At once, where a question to the others would wait. At most the first one waits [a6].
        let answers = [client.ask(&dead[0].0).await, client.ask(&dead[0].0).await];
        let text = answers[1].1["message"].as_str().unwrap();
        assert!(text.ends_with("session closed"), "{answers:?}");
        market.into_iter().for_each(|id| *times.entry(id).or_default() += 1);
    }
    assert!(times.len() == 50 && times.values().all(|&count| count >= 2));
    // The same seed draws the same network.
    let again = Demonstration::start(&plan).await.unwrap();
    assert_eq!(again.world.providers(), network.world.providers());
    assert_eq!(again.dead, network.dead);
}
