//! Dead nodes, their closed channels, and second identities: a0–a7.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use uptime_testkit::fake_yagna::{DaemonOptions, NetTiming, ProviderSpec, World};

use super::brief::{add_nodes, asked_about, check, daemon, exchanges, is_direct, send};

/// Some moment.
const BEGIN: Duration = Duration::from_secs(1_796_054_000);

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// [a0]: fourteen minutes after the death, for ever the same, whatever is tried in between.
#[tokio::test]
async fn session_closed_fourteen_minutes_after() {
    let recorded = exchanges("a0");
    let world = World::at(40, BEGIN);
    let id = add_nodes(&world, &recorded).remove(0);
    let daemon = daemon(&world, DaemonOptions::default()).await;
    daemon.connect(&id);
    world.kill_process(&id);
    world.advance(s(14 * 60));
    assert!(recorded.len() > 10);
    for exchange in &recorded {
        check(&daemon, exchange).await;
    }
}

/// [a1]: a daemon that never talked to it gets the whole story, here cut short.
#[tokio::test]
async fn never_talked_to() {
    let recorded = exchanges("a1");
    let world = World::at(41, BEGIN);
    let id = add_nodes(&world, &recorded).remove(0);
    world.kill_process_ago(&id, s(14 * 60));
    let options = DaemonOptions { backtraces: true, ..DaemonOptions::default() };
    let daemon = daemon(&world, options).await;
    for exchange in &recorded {
        if !is_direct(exchange) {
            check(&daemon, exchange).await;
            continue;
        }
        let (status, body, _) = send(&daemon, exchange).await;
        let theirs = exchange.response.clone().unwrap();
        let (ours, whole) = (body["message"].as_str().unwrap(), theirs.json());
        let whole = whole["message"].as_str().unwrap();
        assert_eq!(status, theirs.status);
        assert!(whole.starts_with(ours), "{ours}\n{whole}");
        assert!(ours.contains("code 404\n\nStack backtrace:\n   0: anyhow"), "{ours}");
    }
}

/// [a2]: one of two was pinged before both died. The relay was slow to notice; until it does they
/// are alike, and after it they are not.
#[tokio::test]
async fn one_ping_opens_a_channel() {
    let recorded = exchanges("a2");
    let world = World::at(42, BEGIN);
    world.set_timing(NetTiming { late_drop_share: 1.0, ..NetTiming::default() });
    let ids = add_nodes(&world, &recorded);
    let daemon = daemon(&world, DaemonOptions::default()).await;
    check(&daemon, &recorded[0]).await;
    ids.iter().for_each(|id| world.kill_process(id));
    let died = world.now();
    for exchange in &recorded[1..] {
        let after: u64 = exchange.tag.split_once("s after").unwrap().0.parse().unwrap();
        world.advance((died + s(after)).saturating_sub(world.now()));
        check(&daemon, exchange).await;
    }
    world.advance((died + s(161)).saturating_sub(world.now()));
    for exchange in recorded[1..].iter().filter(|exchange| is_direct(exchange)) {
        let (status, body, _) = send(&daemon, exchange).await;
        let closed = body["message"].as_str().unwrap().ends_with("session closed");
        assert_eq!((status, closed), (500, asked_about(exchange) == ids[0]));
    }
}

/// [a3, a4]: a second identity, made at run time and after the node's next start.
#[tokio::test]
async fn second_identities() {
    let made = exchanges("a3");
    let default = made.iter().position(|exchange| exchange.tag == "default FindNode").unwrap();
    let (second, first) = (asked_about(&made[0]), asked_about(&made[default]));
    let offers = |exchange: &uptime_testkit::fake_yagna::recording::Exchange| -> Vec<Value> {
        exchange.response.clone().unwrap().json().as_array().unwrap().clone()
    };
    let world = World::at(43, s(1_796_054_000));
    world.add_provider(ProviderSpec {
        id: Some(first.clone()),
        port: Some(17_311),
        recorded: offers(&made[default + 1]),
        ..ProviderSpec::default()
    });
    world.add_this_identity(&first, &second);
    let daemon = daemon(&world, DaemonOptions::default()).await;
    for exchange in &made {
        check(&daemon, exchange).await;
    }
    world.kill_process(&first);
    world.revive(&first);
    let after = exchanges("a4");
    world.publish_recorded(&offers(&after[1]));
    for exchange in &after {
        if exchange.tag != "default direct" {
            check(&daemon, exchange).await;
            continue;
        }
        // The old offer stands; ours is a real agent's node, which publishes another at its start.
        let (status, body, _) = send(&daemon, exchange).await;
        assert_eq!((status, &body[0]), (200, &offers(exchange)[0]));
    }
}

/// A direct question of a timeline: when it was put and what came of it.
struct Asked {
    at_s: f64,
    status: u16,
}

/// What one daemon's part of a timeline tells: the questions, and when it learnt of the end.
struct Told {
    asked: Vec<Asked>,
    dropped_s: f64,
}

fn seconds(line: &str) -> f64 {
    let parts: Vec<f64> = line[..12].split(':').map(|part| part.parse().unwrap()).collect();
    parts.iter().fold(0.0, |sum, part| sum * 60.0 + part)
}

/// The parts of a timeline; `drop` is the first line after which the channel is closed.
fn timeline(name: &str, drop: &str) -> Vec<Told> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let parts = text.split("== ").filter(|part| !part.is_empty());
    let told = parts.map(|part| {
        let lines = part.lines().filter(|line| line.len() > 12 && line.as_bytes()[2] == b':');
        let mut asked = Vec::new();
        let mut dropped_s = None;
        for line in lines {
            if let Some((_, answer)) = line.split_once("direct -> ") {
                let (status, took) = answer.split_once(" in ").unwrap();
                let took: f64 = took.trim_end_matches('s').parse().unwrap();
                let at_s = seconds(line) - took;
                asked.push(Asked { at_s, status: status.parse().unwrap() });
            } else if line.contains(drop) {
                dropped_s.get_or_insert(seconds(line));
            }
        }
        Told { asked, dropped_s: dropped_s.unwrap() }
    });
    told.collect()
}

/// Puts a part's questions at the recorded times; the node falls silent at the first of them or
/// so, and the relay drops it when the recording says.
async fn put(told: &Told, host_is_up: bool, late_close_share: f64) {
    let world = World::at(44, BEGIN);
    let silent_for = if host_is_up { s(20) } else { s(600) };
    let timing = NetTiming {
        drop_after: (silent_for, silent_for),
        late_drop_share: 0.0,
        late_close_share,
        ..NetTiming::default()
    };
    world.set_timing(timing);
    let id = world.add_provider(ProviderSpec::default());
    let daemon = daemon(&world, DaemonOptions::default()).await;
    daemon.connect(&id);
    world.set_seen_age(&id, Duration::ZERO);
    if host_is_up {
        world.kill_process(&id)
    } else {
        world.kill(&id)
    }
    let died = world.now();
    let like = &exchanges("a0")[1];
    let mut question = like.clone();
    question.target = like.target.replace(&asked_about(like), &id);
    for asked in &told.asked {
        let after = asked.at_s - told.dropped_s + silent_for.as_secs_f64();
        let at = died + Duration::from_secs_f64(after);
        world.advance(at.saturating_sub(world.now()));
        let (status, body, _) = send(&daemon, &question).await;
        assert_eq!(status, asked.status, "{after} s after the death: {body}");
    }
}

/// [a5]: pinged once, then the process was killed.
#[tokio::test]
async fn timeline_of_a_pinged_one() {
    for told in timeline("a5_pinged_once_then_killed_timeline.txt", " closed") {
        put(&told, true, 0.0).await;
    }
}

/// [a6]: one daemon's first question met the drop, the other's came after it; both waited in vain.
#[tokio::test]
async fn timeline_of_a_dead_process() {
    let parts = timeline("a6_killed_port_unreachable_timeline.txt", "disconnected from Relay");
    assert_eq!(parts.len(), 2);
    assert!(parts[0].asked.len() > 60);
    put(&parts[0], true, 0.0).await;
    put(&parts[1], true, 1.0).await;
}

/// [a7]: silence until the relay's purge, then closed.
#[tokio::test]
async fn timeline_of_a_host_that_is_gone() {
    let parts = timeline("a7_killed_host_gone_relay_purge_timeline.txt", "from Relay");
    for told in &parts {
        assert!(told.asked.iter().any(|asked| asked.status == 504));
        put(told, false, 0.0).await;
    }
}
