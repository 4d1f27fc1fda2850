//! Front door and demands: 01–09b, 10–1i, 20–2n, 29*, 2z, 30–39, 80–86, 90–93, 94h, 96.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use uptime_testkit::fake_yagna::recording::{Exchange, Recording, Response};
use uptime_testkit::fake_yagna::{Daemon, Limits, Restart, World};

use super::judge::{Body, Row, Scene, blank, one, row, waits};
use super::lab::{self, SCALED, asked};

/// What differs between two events of the same offer.
const EVENT: &[&str] = &["eventDate", "proposalId", "timestamp"];
const SCALED_MS: u64 = 60;
const EVENTS_ROUTE: &str = "GET /market-api/v1/demands/{id}/events";

/// The demand a target is about.
fn demand_in(target: &str) -> &str {
    target.split('/').nth(4).unwrap()
}

#[tokio::test]
async fn front_door() {
    let daemon = lab::daemon(&lab::network(0), Limits::default()).await;
    let mut scene = Scene::of(&daemon.base_url());
    scene
        .table(&[
            row("01", Body::Except(&["insertionTs", "updateTs"])),
            row("02", Body::Except(&["insertionTs", "updateTs"])),
            row("03", Body::Exact),
            row("04", Body::Exact),
            row("05", Body::Exact),
            row("06", Body::Exact),
            row("07", Body::Exact),
            row("08", Body::Exact),
            row("09", Body::Exact),
            row("09b", Body::Exact),
        ])
        .await;
}

const DEMANDS: &[Row<'static>] = &[
    row("10", Body::FreshId),
    row("11", Body::FreshId),
    row("12", Body::FreshId),
    row("13", Body::FreshId),
    row("14", Body::FreshId),
    row("15", Body::FreshId),
    row("16", Body::FreshId),
    row("17", Body::FreshId),
    row("18", Body::FreshId),
    row("19", Body::FreshId),
    row("19b", Body::FreshId),
    row("19c", Body::FreshId),
    row("1a", Body::Exact),
    row("1b", Body::Exact),
    row("1c", Body::Exact),
    row("1d", Body::Exact),
    row("1e", Body::FreshId),
    row("1f", Body::Exact),
    row("1g", Body::Exact),
    row("1h", Body::Exact),
    row("1i", Body::Except(&["timestamp"])),
];

const EVENTS: &[Row<'static>] = &[
    row("20", Body::Unordered(EVENT)),
    row("21", Body::Unordered(EVENT)),
    row("22", Body::Unordered(EVENT)),
    row("23", Body::Unordered(EVENT)),
    waits("24", Body::Exact, SCALED_MS),
    waits("25", Body::Exact, SCALED_MS),
    row("26", Body::Unordered(EVENT)),
    waits("27", Body::Exact, SCALED_MS),
    row("28", Body::Unordered(EVENT)),
    waits("29", Body::Exact, SCALED_MS),
    waits("29b", Body::Exact, SCALED_MS),
    row("29c", Body::Unordered(EVENT)),
    waits("2a", Body::Exact, SCALED_MS),
    waits("2b", Body::Exact, SCALED_MS),
    row("2c", Body::Exact),
    row("2d", Body::Exact),
    row("2e", Body::Exact),
    row("2f", Body::Exact),
    row("2g", Body::Exact),
    waits("2h", Body::Exact, SCALED_MS),
    row("2i", Body::Exact),
    row("2j", Body::Exact),
    row("2k", Body::Exact),
    row("2l", Body::Exact),
    row("2m", Body::Exact),
];

const DELETES: &[Row<'static>] = &[
    row("31", Body::Exact),
    row("32", Body::Exact),
    row("33", Body::Exact),
    row("34", Body::Exact),
    row("35", Body::Exact),
    row("36", Body::Exact),
];

#[tokio::test]
async fn demands_events_and_deletion() {
    let world = lab::network(0);
    let limits = Limits { poll_max: Duration::from_secs(20), ..lab::scaled() };
    let patient = lab::daemon(&world, limits).await;
    let daemon = lab::daemon(&world, lab::scaled()).await;
    let mut scene = Scene::of(&daemon.base_url());
    // One demand was there before the recordings began; the list shows it.
    let list = Recording::load("1i").unwrap();
    let first = list.exchanges[0].response.as_ref().unwrap().json()[0].clone();
    let mut before = Recording::load("11").unwrap().exchanges[0].clone();
    before.body = Some(first.to_string());
    before.headers.retain(|(name, _)| name != "Content-Length");
    before.headers.push(("Content-Length".to_owned(), first.to_string().len().to_string()));
    let (made, _) = scene.send(&before).await;
    scene.map(first["demandId"].as_str().unwrap(), made.unwrap().body.trim_matches('"'));
    scene.table(DEMANDS).await;
    assert_eq!(daemon.open_demands(), 14);
    scene.table(EVENTS).await;
    let provider = lab::provider_daemon(&world).await;
    scene.at(&provider.base_url()).table(&[row("2n", Body::Exact)]).await;
    scene.table(DELETES).await;
    assert_eq!(daemon.open_demands(), 13);
    delete_during_a_long_poll(&patient).await;
}

/// [30]: the poll of 20 s ends with the deletion, not with its time.
async fn delete_during_a_long_poll(daemon: &Daemon) {
    let mut scene = Scene::of(&daemon.base_url());
    scene.table(&[row("11", Body::FreshId)]).await;
    let recording = Recording::load("30").unwrap();
    let [delete, poll] = recording.exchanges.as_slice() else { panic!("two exchanges") };
    let drain = poll.to(&poll.target.replace("timeout=20", "timeout=0.2"));
    let (drained, _) = scene.send(&drain).await;
    assert_eq!(drained.unwrap().json().as_array().unwrap().len(), 2);
    let (polled, deleted) = tokio::join!(scene.send(poll), async {
        asked(daemon, EVENTS_ROUTE, 2).await;
        scene.send(delete).await
    });
    scene.judge("30 delete", delete, deleted.0.as_ref(), Body::Exact);
    scene.judge("30 poll", poll, polled.0.as_ref(), Body::Exact);
}

/// [37, 38, 39]: an hour later, pushed forward instead of waited for.
#[tokio::test]
async fn after_an_hour() {
    let world = lab::network(0);
    let limits = Limits { poll_max: Duration::from_millis(300), ..lab::scaled() };
    let daemon = lab::daemon(&world, limits).await;
    let provider = lab::provider_daemon(&world).await;
    let mut scene = Scene::of(&daemon.base_url());
    let recording = Recording::load("37").unwrap();
    let [poll, later @ ..] = recording.exchanges.as_slice() else { panic!("five exchanges") };
    scene.demand_for("19", demand_in(&poll.target)).await;
    let (polled, ()) = tokio::join!(scene.send(poll), async {
        asked(&daemon, EVENTS_ROUTE, 1).await;
        world.advance(Duration::from_secs(3600));
    });
    scene.judge("37 [0]", poll, polled.0.as_ref(), Body::Exact);
    for exchange in later {
        let (answer, _) = scene.send(exchange).await;
        scene.judge("37", exchange, answer.as_ref(), Body::Exact);
    }

    let mut offers = scene.at(&provider.base_url());
    let published = &lab::offers("49", 1)[0];
    let old = published["offerId"].as_str().unwrap();
    let asked_for = |number: &str| {
        let target = Recording::load(number).unwrap().exchanges[0].target.clone();
        target.rsplit('/').next().unwrap().to_owned()
    };
    offers.map(&asked_for("38"), old);
    offers.table(&[row("38", Body::Exact)]).await;
    let renewed = lab::network(0);
    let provider = lab::provider_daemon(&renewed).await;
    let mut offers = Scene::of(&provider.base_url());
    offers.map(&asked_for("39"), old);
    offers.table(&[row("39", Body::Exact)]).await;
}

// === Whole scans by demand: subscribe, poll until nothing comes, delete ===

/// All events of a recorded sequence, whichever poll they came with.
fn union(answers: &[Response]) -> Value {
    let events = answers.iter().flat_map(|it| it.json().as_array().cloned().unwrap_or_default());
    blank(events.collect(), EVENT, true)
}

fn is_poll(exchange: &Exchange) -> bool {
    exchange.target.contains("/events")
}

/// Replays a sequence; polls until an empty answer, as the recorded client did, and compares
/// the union of what came. Returns how many came with each poll.
async fn sequence(daemon: &Daemon, number: &str) -> Vec<usize> {
    let recording = Recording::load(number).unwrap();
    let mut scene = Scene::of(&daemon.base_url());
    let (polls, others): (Vec<_>, Vec<_>) = recording.exchanges.iter().partition(|it| is_poll(it));
    let [subscribe, rest @ ..] = others.as_slice() else { panic!("{number}") };
    let (made, _) = scene.send(subscribe).await;
    scene.judge(number, subscribe, made.as_ref(), Body::FreshId);
    let mut answers = Vec::new();
    loop {
        let (answer, _) = scene.send(polls[0]).await;
        scene.judge(number, polls[0], answer.as_ref(), Body::Any);
        answers.extend(answer);
        if answers.last().unwrap().body == "[]" {
            break;
        }
    }
    let recorded: Vec<Response> = polls.iter().filter_map(|it| it.response.clone()).collect();
    assert_eq!(union(&answers), union(&recorded), "{number}");
    for delete in rest {
        let (answer, _) = scene.send(delete).await;
        scene.judge(number, delete, answer.as_ref(), Body::Exact);
    }
    answers.iter().map(|it| it.json().as_array().unwrap().len()).collect()
}

/// The offers behind the events of these recordings, by provider, in scan form.
fn offers_behind(numbers: &[&str]) -> BTreeMap<String, Vec<Value>> {
    let mut found: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for number in numbers {
        let recording = Recording::load(number).unwrap();
        let answers = recording.exchanges.iter().filter(|it| is_poll(it));
        for event in answers.flat_map(|it| {
            it.response.as_ref().unwrap().json().as_array().cloned().unwrap_or_default()
        }) {
            let proposal = &event["proposal"];
            let issuer = proposal["issuerId"].as_str().unwrap().to_owned();
            // Events name no offer; what tells two offers of one provider apart is their text.
            let text = format!("{}{}", proposal["properties"], proposal["constraints"]);
            let count = found.values().map(BTreeMap::len).sum::<usize>();
            let offer = json!({
                "properties": proposal["properties"], "constraints": proposal["constraints"],
                "providerId": issuer, "timestamp": "2026-11-23T21:30:00.000000000Z",
                "offerId": format!("{count:032x}-{count:064x}"),
            });
            found.entry(issuer).or_default().entry(text).or_insert(offer);
        }
    }
    found.into_iter().map(|(id, offers)| (id, offers.into_values().collect())).collect()
}

fn world_behind(numbers: &[&str]) -> World {
    let world = World::at(2, Duration::from_secs(lab::BEGIN + 1800));
    world.add_provider(lab::bare(lab::REQUESTOR, 11_500));
    for offers in offers_behind(numbers).into_values() {
        world.add_recorded(&offers, 11_501);
    }
    world
}

#[tokio::test]
async fn whole_scans_by_demand() {
    for numbers in [
        // Two subnets are there; each demand sees one.
        ["29e", "29f", "29g", "29h", "29d", "29i", "28"].as_slice(),
        ["2z"].as_slice(),
        ["94h"].as_slice(),
    ] {
        let world = world_behind(numbers);
        let daemon = lab::daemon(&world, lab::scaled()).await;
        if numbers == ["94h"] {
            // The market serves what it has while the relay is down.
            world.relay_down();
        }
        for number in numbers.iter().filter(|number| **number != "28") {
            sequence(&daemon, number).await;
        }
        assert_eq!(daemon.open_demands(), usize::from(numbers == ["94h"]));
    }
}

/// [80, 81]: the first poll returns with one event although two are on their way.
#[tokio::test]
async fn first_poll_is_partial() {
    let pace = Duration::from_millis(200);
    let limits = Limits {
        match_first: pace,
        match_each: pace,
        poll_max: Duration::from_millis(500),
        ..Limits::default()
    };
    let numbers = ["81_parallel_subnets_public", "81_parallel_subnets_testnet1"];
    let daemon = lab::daemon(&world_behind(&numbers), limits).await;
    let (public, testnet, nobody) = tokio::join!(
        sequence(&daemon, numbers[0]),
        sequence(&daemon, numbers[1]),
        sequence(&daemon, "81_parallel_subnets_nobody"),
    );
    assert_eq!((public, testnet, nobody), (vec![1, 1, 0], vec![1, 0], vec![0]));
    // 80 begins with a demand already made, whose request was not recorded: that of 10.
    let mut scene = Scene::of(&daemon.base_url());
    let recording = Recording::load("80").unwrap();
    scene.demand_for("10", demand_in(&recording.exchanges[0].target)).await;
    let mut answers = Vec::new();
    for exchange in &recording.exchanges {
        answers.extend(scene.send(exchange).await.0);
    }
    let recorded: Vec<Response> =
        recording.exchanges.iter().filter_map(|it| it.response.clone()).collect();
    assert_eq!(union(&answers), union(&recorded));
    let count = |it: &Response| it.json().as_array().unwrap().len();
    assert_eq!(
        answers.iter().map(count).collect::<Vec<_>>(),
        recorded.iter().map(count).collect::<Vec<_>>()
    );
}

/// [82, 84]: one event goes to one of two polls; a client that gives up takes nothing.
#[tokio::test]
async fn an_event_goes_to_one_poll() {
    let world = lab::network(0);
    world.withdraw_offers(lab::PROVIDER_1);
    world.withdraw_offers(lab::PROVIDER_2);
    let limits = Limits { poll_max: Duration::from_millis(400), ..lab::scaled() };
    let daemon = lab::daemon(&world, limits).await;
    let mut scene = Scene::of(&daemon.base_url());
    let recording = Recording::load("82").unwrap();
    // The demand of 10 ends a moment after the recordings begin, and what is published later
    // would refuse it; that of 16 ends in an hour.
    scene.demand_for("16", demand_in(&recording.exchanges[0].target)).await;
    let [loser, winner] = recording.exchanges.as_slice() else { panic!("two exchanges") };
    let (first, second, ()) = tokio::join!(scene.send(loser), scene.send(winner), async {
        asked(&daemon, EVENTS_ROUTE, 2).await;
        world.publish_offers(lab::PROVIDER_2);
    });
    let mut got = [first.0.unwrap(), second.0.unwrap()];
    got.sort_by_key(|answer| answer.body.len());
    scene.judge("82 [0]", loser, Some(&got[0]), Body::Exact);
    scene.judge("82 [1]", winner, Some(&got[1]), Body::Any);
    assert_eq!(got[1].json().as_array().unwrap().len(), 1);

    let recording = Recording::load("84").unwrap();
    let [abandoned, next] = recording.exchanges.as_slice() else { panic!("two exchanges") };
    scene.demand_for("16", demand_in(&abandoned.target)).await;
    let (drained, _) = scene.send(next).await;
    assert_eq!(drained.unwrap().json().as_array().unwrap().len(), 1);
    let recorded = demand_in(&abandoned.target);
    let abandoned = abandoned.to(&abandoned.target.replace(recorded, &scene.ours(recorded)));
    let (answer, _) = abandoned.replay(scene.address, SCALED).await.unwrap();
    assert_eq!(answer, None);
    // Not before the daemon has noticed; the recorded offer came 5 s later.
    while daemon.answering() > 0 {
        tokio::task::yield_now().await;
    }
    world.publish_offers(lab::PROVIDER_2);
    let (answer, _) = scene.send(next).await;
    scene.judge("84", next, answer.as_ref(), Body::Any);
    assert_eq!(answer.unwrap().json().as_array().unwrap().len(), 1);
}

/// [86]: 45 offers of one provider come in pages and in random order, each once.
#[tokio::test]
async fn bulk_offers_come_in_pages() {
    let recording = Recording::load("86").unwrap();
    let world = World::at(3, Duration::from_secs(lab::BEGIN + 1800));
    world.add_provider(lab::bare(lab::REQUESTOR, 11_500));
    let mut offers = Vec::new();
    for n in 0..45 {
        let mut offer = lab::offers("49", 1)[0].clone();
        offer["offerId"] = json!(format!("{n:032x}-{n:064x}"));
        offer["properties"]["n"] = json!(n);
        offer["timestamp"] = json!("2026-11-23T21:38:00.000000000Z");
        offers.push(offer);
    }
    world.add_recorded(&offers, 11_501);
    let daemon = lab::daemon(&world, lab::scaled()).await;
    let mut scene = Scene::of(&daemon.base_url());
    scene.demand_for("10", demand_in(&recording.exchanges[0].target)).await;
    let mut order = Vec::new();
    for exchange in &recording.exchanges {
        let (answer, _) = scene.send(exchange).await;
        let events = answer.unwrap().json().as_array().unwrap().clone();
        let theirs = exchange.response.as_ref().unwrap().json();
        assert_eq!(events.len(), theirs.as_array().unwrap().len());
        order.extend(events.iter().map(|it| it["proposal"]["properties"]["n"].as_u64().unwrap()));
    }
    assert!(!order.is_sorted(), "{order:?}");
    order.sort_unstable();
    assert!(order.into_iter().eq(0..45));
}

/// [85, 90, 91, 92, 93, 96]: connections that live on, end, are refused, or stay silent.
#[tokio::test]
async fn connections() {
    let world = lab::network(0);
    let limits = Limits { poll_max: Duration::from_secs(30), ..lab::scaled() };
    let daemon = lab::daemon(&world, limits).await;
    let mut scene = Scene::of(&daemon.base_url());
    let poll = Recording::load("90").unwrap().exchanges[0].clone();
    scene.demand_for("19", demand_in(&poll.target)).await;
    let panics = Recording::load("96").unwrap().file["bad"]["request"].clone();
    let bad = panics["target"].as_str().unwrap();
    let ours = scene.ours(demand_in(&poll.target));
    scene.map(demand_in(bad), &ours);
    // One poll hangs up on its own timeout; the others notice nothing.
    let (in_flight, hung_up, stopped) = tokio::join!(
        scene.send(&poll),
        async {
            asked(&daemon, EVENTS_ROUTE, 1).await;
            scene.send(&poll.to(bad)).await
        },
        async {
            asked(&daemon, EVENTS_ROUTE, 2).await;
            let me = scene.send(&Recording::load("03").unwrap().exchanges[0]).await;
            daemon.stop_listening().await;
            me
        },
    );
    assert_eq!((hung_up.0, stopped.0.unwrap().status), (None, 200));
    scene.judge("90 [0]", &poll, in_flight.0.as_ref(), Body::Exact);
    let fresh = Recording::load("90").unwrap().exchanges[1].clone();
    let refused = fresh.replay(scene.address, SCALED).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    daemon.restart(Restart::default()).await.unwrap();
    scene.table(&[one("91", 0, Body::Exact)]).await;
    daemon.freeze();
    let silent = Recording::load("93").unwrap().exchanges[0].clone();
    let (answer, elapsed) = silent.replay(scene.address, SCALED).await.unwrap();
    assert!(answer.is_none() && elapsed >= SCALED);
}
