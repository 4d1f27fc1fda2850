//! Recordings of 2026-11-30: how one is sent, and how its answer is compared.
//!
//! They have no headers and some bodies are cut short; what they do have is compared: the status,
//! the words, and the order of magnitude of the time.

use std::time::Duration;

use serde_json::{Value, json};
use uptime_testkit::fake_yagna::recording::{Exchange, Recording};
use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, World};

use super::judge::blank;
use super::lab;

const KEY: &str = "fake-key";
/// What no two answers share.
const VOLATILE: &[&str] = &["seen", "slot", "nanos", "secs"];

/// A daemon of the scene, with scaled limits.
pub async fn daemon(world: &World, options: DaemonOptions) -> Daemon {
    let options = DaemonOptions { limits: lab::scaled(), ..options };
    Daemon::start(world.clone(), options).await.unwrap()
}

pub fn exchanges(number: &str) -> Vec<Exchange> {
    Recording::load(number).unwrap().exchanges
}

/// The id that an exchange asks about.
pub fn asked_about(exchange: &Exchange) -> String {
    let text = format!("{}{}", exchange.target, exchange.body.as_deref().unwrap_or_default());
    let at = text.find("0x").unwrap();
    text[at..at + 42].to_owned()
}

pub fn is_direct(exchange: &Exchange) -> bool {
    exchange.target.contains("peerId=")
}

/// Adds every node that a recording asks about, where it listened then; returns their ids.
pub fn add_nodes(world: &World, recorded: &[Exchange]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for id in recorded.iter().map(asked_about) {
        let about = recorded.iter().filter(|exchange| asked_about(exchange) == id);
        let mut ports = about.filter_map(|exchange| {
            let found = exchange.response.as_ref()?.json()["Ok"]["endpoints"][0]["V4"][1].as_u64();
            u16::try_from(found?).ok()
        });
        if !ids.contains(&id) {
            world.add_provider(lab::bare(&id, ports.next().unwrap_or(17_306)));
            ids.push(id);
        }
    }
    ids
}

/// Sends an exchange's request, a direct question over a scan of our own: status and body.
pub async fn send(daemon: &Daemon, exchange: &Exchange) -> (u16, Value, Duration) {
    let mut asked = exchange.with_key(KEY);
    if is_direct(exchange) {
        let query = asked.target.split_once('?').unwrap().1.to_owned();
        let begun = json!({"type": "offer"}).to_string();
        let mut begin = asked.to("/market-api/v1/scan");
        begin.method = "POST".to_owned();
        begin.headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        begin.headers.push(("Content-Length".to_owned(), begun.len().to_string()));
        begin.body = Some(begun);
        let scan = replay(daemon, &begin).await.1;
        asked = asked.to(&format!("/market-api/v1/scan/{}/events?{query}", scan.as_str().unwrap()));
    }
    replay(daemon, &asked).await
}

async fn replay(daemon: &Daemon, exchange: &Exchange) -> (u16, Value, Duration) {
    let address = daemon.base_url().trim_start_matches("http://").parse().unwrap();
    let (answer, elapsed) = exchange.replay(address, Duration::from_secs(20)).await.unwrap();
    let answer = answer.unwrap();
    (answer.status, answer.json(), elapsed)
}

/// Sends an exchange and holds the answer to the recorded one.
pub async fn check(daemon: &Daemon, exchange: &Exchange) {
    let (status, body, elapsed) = send(daemon, exchange).await;
    let theirs = exchange.response.clone().unwrap();
    let what = format!("{} {}: {body}", exchange.tag, exchange.target);
    assert_eq!(status, theirs.status, "{what}");
    match serde_json::from_str::<Value>(&theirs.body) {
        // Cut short by whoever recorded it.
        Ok(whole) if whole["Ok"]["…"].is_string() => {
            assert!(body["Ok"]["seen"].is_u64(), "{what}")
        }
        Ok(whole) => {
            assert_eq!(blank(body, VOLATILE, false), blank(whole, VOLATILE, false), "{what}");
        }
        Err(_) => assert!(theirs.body.ends_with('…') && body.is_array(), "{what}"),
    }
    if status == 504 {
        assert!(elapsed >= lab::SCALED && exchange.elapsed.as_secs() >= 4, "{what}");
    } else {
        assert!(elapsed.as_secs() < 2 && exchange.elapsed.as_secs() < 2, "{what}: {elapsed:?}");
    }
}

/// How old `seen` is that the daemon tells, if it finds the node.
pub async fn age(world: &World, daemon: &Daemon, exchange: &Exchange) -> Option<f64> {
    let (_, body, _) = send(daemon, exchange).await;
    let seen = body["Ok"]["seen"].as_u64()?;
    Some(world.now().as_secs_f64() - Duration::from_secs(seen).as_secs_f64())
}
