//! Bad links and stale `seen`: b0–b7.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, Limits, Link, NetTiming, World};

use super::brief::{add_nodes, age, asked_about, check, daemon, exchanges, is_direct, send};
use super::lab;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A world with the nodes that a recording asks about, and a daemon; the first one's id.
async fn scene(number: &str, timing: NetTiming) -> (World, Daemon, String) {
    let world = World::at(50, s(1_796_058_000));
    world.set_timing(timing);
    let id = add_nodes(&world, &exchanges(number)).remove(0);
    let daemon = daemon(&world, DaemonOptions::default()).await;
    (world, daemon, id)
}

/// What a tag says after these words, up to the next blank.
fn said(tag: &str, before: &str) -> Option<f64> {
    tag.split_once(before)?.1.split(' ').next()?.parse().ok()
}

/// Asks as recorded and compares the age of `seen`, or that the node is not found.
async fn check_age(world: &World, daemon: &Daemon, number: &str, at: usize) {
    let exchange = &exchanges(number)[at];
    check(daemon, exchange).await;
    let ours = age(world, daemon, exchange).await;
    match said(&exchange.tag, "age of seen ") {
        None => assert_eq!(ours, None, "{}", exchange.tag),
        Some(theirs) => {
            let ours = ours.unwrap();
            assert!((ours - theirs).abs() < 2.0, "{}: {ours}", exchange.tag);
        }
    }
}

/// [b0]: an outage of 60 s; then not found until it has registered anew.
#[tokio::test]
async fn a_long_outage() {
    let timing = NetTiming {
        returns_after_long: (s(26), s(26)),
        older_session_share: 0.0,
        ..NetTiming::default()
    };
    let (world, daemon, id) = scene("b0", timing).await;
    let down = world.now() + Duration::from_millis(7200);
    world.set_seen_age(&id, Duration::from_millis(6800));
    let to = |at_s: f64| {
        let at = Duration::from_secs_f64(down.as_secs_f64() + at_s);
        world.advance(at.saturating_sub(world.now()));
    };
    for (at, exchange) in exchanges("b0").iter().enumerate() {
        if at == 1 {
            to(0.0);
            world.link_down(&id);
        }
        if at == 3 {
            to(60.0);
            world.link_up(&id);
        }
        to(said(&exchange.tag, "asked at ").unwrap());
        check_age(&world, &daemon, "b0", at).await;
    }
}

/// [b6]: an outage of 20 s; then for two seconds an older session.
#[tokio::test]
async fn an_older_session_shows_through() {
    let timing = NetTiming { older_session_share: 1.0, ..NetTiming::default() };
    let (world, daemon, id) = scene("b6", timing).await;
    world.set_seen_age(&id, Duration::from_millis(12_600));
    world.link_down(&id);
    let ages: Vec<f64> =
        exchanges("b6").iter().map(|it| said(&it.tag, "age of seen ").unwrap()).collect();
    assert!(ages[2] < 40.0 && ages[3] > 500.0 && ages[5] < 2.0);
    world.advance(Duration::from_millis(18_300));
    for at in 0..ages.len() {
        if at == 3 {
            world.link_up(&id);
        }
        check_age(&world, &daemon, "b6", at).await;
        world.advance(s(1));
    }
}

/// [b1, b2, b3]: how many direct questions over a bad link are answered, and in what runs.
#[test]
fn direct_questions_over_bad_links() {
    for (number, loss, answered) in
        [("b3", 0.15, 1.0..=1.0), ("b1", 0.3, 0.35..=0.41), ("b2", 0.5, 0.0..=0.02)]
    {
        let link = Link::losing(loss);
        let theirs: Vec<bool> = exchanges(number)
            .iter()
            .map(|it| it.response.as_ref().unwrap().status == 200)
            .collect();
        let share = |answers: &[bool]| {
            let good = answers.iter().filter(|&&good| good).count();
            good as f64 / answers.len() as f64
        };
        let mut rng = StdRng::seed_from_u64(7);
        let mut failed = false;
        let mut slowest = 0;
        let answers: Vec<bool> = (0..20_000)
            .map(|_| {
                let times = link.question(failed, rng.random(), rng.random());
                failed = times.is_none();
                slowest = slowest.max(times.unwrap_or_default());
                !failed
            })
            .collect();
        assert!(answered.contains(&share(&answers)), "{loss}: {}", share(&answers));
        // The recorded twenty are one of many stretches that this brings.
        let stretches: BTreeSet<usize> =
            answers.chunks(20).map(|it| it.iter().filter(|&&good| good).count()).collect();
        let theirs_good = theirs.iter().filter(|&&good| good).count();
        assert!(stretches.contains(&theirs_good), "{loss}: {theirs_good} in {stretches:?}");
        // 0.9 s each: two seconds up to 15 %, within the question's four at 30 %.
        let waits = Limits::default().resend * slowest;
        let longest = exchanges(number).iter().map(|it| it.elapsed).max().unwrap();
        assert!(waits <= longest.min(s(4)), "{loss}: {waits:?}");
        if loss > 0.2 && loss < 0.4 {
            let after = |first: bool| {
                let pairs = answers.windows(2).filter(|pair| pair[0] == first);
                let then: Vec<bool> = pairs.map(|pair| pair[1]).collect();
                share(&then)
            };
            assert!(after(false) < 0.25 && after(true) > 0.6, "a failure follows a failure");
        }
    }
}

/// [b4]: a living node whose `seen` grows for two minutes, and which answers at once.
#[tokio::test]
async fn stale_seen_of_a_living_node() {
    let (world, daemon, id) = scene("b4", NetTiming::default()).await;
    let recorded = exchanges("b4");
    world.set_seen_age(&id, Duration::ZERO);
    world.hold_pings(&id);
    let held = world.now();
    for (at, exchange) in recorded.iter().enumerate() {
        if is_direct(exchange) {
            check(&daemon, exchange).await;
            continue;
        }
        let theirs = said(&exchange.tag, "age of seen ").unwrap();
        if theirs < 10.0 {
            world.advance((held + s(121)).saturating_sub(world.now()));
            world.resume_pings(&id);
        }
        let since = if at < recorded.len() - 4 { held } else { held + s(121) };
        world.advance((since + Duration::from_secs_f64(theirs)).saturating_sub(world.now()));
        let ours = age(&world, &daemon, exchange).await.unwrap();
        assert!((ours - theirs).abs() < 2.0, "{}: {ours}", exchange.tag);
    }
}

/// Which of a ping's two answers came.
fn shape(body: &Value) -> (bool, bool, bool) {
    let ping = &body["Ok"][0];
    let came = |name: &str| !ping[name].is_null();
    (came("tcpPing"), came("udpPing"), ping["isP2p"] == true)
}

/// [b5]: pings over bad links come by one way, by the other or not at all, and all of the
/// recorded shapes come.
#[tokio::test]
async fn pings_under_loss() {
    let recorded = exchanges("b5");
    let loss = |tag: &str| match tag.split_once(" %") {
        Some(("30", _)) => 0.3,
        Some(("40", _)) => 0.4,
        _ => 0.0,
    };
    let (world, daemon, _) = scene("b5", NetTiming::default()).await;
    world.set_relay_link(Link::losing(0.2));
    let mut missing: Vec<(String, (bool, bool, bool))> = recorded
        .iter()
        .map(|it| (asked_about(it), shape(&it.response.as_ref().unwrap().json())))
        .collect();
    for exchange in &recorded {
        let id = asked_about(exchange);
        world.set_link(&id, Link::losing(loss(&exchange.tag)));
        daemon.connect(&id);
    }
    for turn in 0..100 {
        if missing.is_empty() {
            break;
        }
        for exchange in &recorded[..3] {
            let (status, body, elapsed) = send(&daemon, exchange).await;
            let ours = shape(&body);
            assert_eq!(status, 200);
            let clean = loss(&exchange.tag) == 0.0;
            assert!(!clean || ours == (true, true, true), "{turn}: {body}");
            assert!(ours.0 && ours.1 || elapsed >= lab::SCALED, "{elapsed:?}");
            let id = asked_about(exchange);
            missing.retain(|it| *it != (id.clone(), ours));
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// [b7]: a look-up is lost four times in a row now and then.
#[tokio::test]
async fn look_ups_under_loss() {
    let recorded = &exchanges("b7")[0];
    let theirs = recorded.response.as_ref().unwrap().json();
    let (world, daemon, _) = scene("b7", NetTiming::default()).await;
    world.set_relay_link(Link::losing(0.4));
    let mut lost = 0;
    for _ in 0..120 {
        let (status, body, elapsed) = send(&daemon, recorded).await;
        assert_eq!(status, 200);
        if body["Ok"].is_null() {
            assert_eq!(body, theirs);
            assert!(elapsed >= lab::SCALED);
            lost += 1;
        }
    }
    assert!((8..40).contains(&lost), "(1 - 0.6²)⁴ is 17 %: {lost}");
    let mut rng = StdRng::seed_from_u64(8);
    let link = Link::losing(0.2);
    let draws = (0..20_000).map(|_| link.look_up([(); 4].map(|()| rng.random())));
    let lost = draws.filter(Option::is_none).count();
    assert!((200..500).contains(&lost), "1.7 %: {lost}");
}
