//! Tests: what recorded answers of real relays, in both revisions, are understood to mean.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use serde_json::Value;

use super::super::CouldNotLook;
use super::super::recordings::{Recorded, check, directory, exchanges, told};
use super::super::sse::{SseEvent, SseParser};
use super::page::parse_page;
use super::prefix::Prefix;

/// A page under its first digit: who is on it and the age, and how many entries it has.
fn read(root: usize) -> impl Fn(&Recorded) -> Result<Told, CouldNotLook> {
    move |answer| {
        let page = parse_page(answer.status, &answer.body, Prefix::roots()[root])?;
        let nodes =
            page.nodes.iter().map(|(id, seen)| format!("{} {seen:?}", &id.to_string()[..6]));
        Ok(Told(format!("{}: {}", page.entries - page.malformed, nodes.collect::<String>())))
    }
}

struct Told(String);

impl std::fmt::Debug for Told {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

#[test]
fn pages() {
    check(
        read(8),
        &[
            ("61_relay_nodes_2hex", "1: 0x85f0 3.040223865s"),
            ("62_relay_nodes_2hex_nomatch", "0: "),
            ("63_relay_nodes_full", "1: 0x85f0 3.043483903s"),
            ("64_relay_nodes_full_unknown", "0: "),
            ("65_relay_nodes_full_0x", "could not look: relay_error"),
            ("66_relay_nodes_upper", "1: 0x85f0 3.050451053s"),
            ("67_relay_nodes_all", "could not look: malformed_answer"), // asked for 8, told of 0
            ("68_relay_nodes_1hex", "1: 0x85f0 3.056252388s"),
            ("69_relay_nodes_8hex", "1: 0x85f0 3.059104152s"),
            ("6a_relay_nodes_9hex", "could not look: relay_error"),
            ("6b_relay_nodes_nonhex", "could not look: relay_error"),
            ("6c_relay_nodes_empty", "could not look: relay_error"),
            ("6k_oldrelay_nodes_full", "could not look: relay_error"),
            ("6l_oldrelay_nodes_prefix", "1: 0x85f0 955.292116ms"),
            ("6l_oldrelay_nodes_prefix#2", "0: "),
            ("6n_relay_nonloopback_nodes", "1: 0x85f0 1.975960885s"),
        ],
    );
    // The younger of two sessions.
    check(read(7), &[("6p_relay_nodes_two_sessions", "1: 0x73ad 1.149373397s")]);
}

#[test]
fn a_graceful_stop_passes_through_the_shapes_of_nothing() {
    let text = std::fs::read(directory().join("98_graceful_stop_timeline.json")).unwrap();
    let recording: Value = serde_json::from_slice(&text).unwrap();
    let mut shapes = Vec::new();
    for moment in recording["log"].as_array().unwrap() {
        let body = moment["relay_http_body"].as_str().unwrap().as_bytes();
        let page = parse_page(200, body, Prefix::roots()[7]).unwrap();
        assert_eq!(page.malformed, 0);
        shapes.push((page.entries, page.nodes.len()));
    }
    shapes.dedup();
    assert_eq!(shapes, [(1, 1), (1, 0), (0, 0)]);
}

#[test]
fn events() {
    let text = std::fs::read_to_string(directory().join("6j_relay_events_sse.jsonl")).unwrap();
    let mut parser = SseParser::new(4096);
    let mut events: Vec<SseEvent> = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let raw = line.get("raw").and_then(Value::as_str).unwrap_or_default();
        // Each piece is one chunk of the transfer: its length, its bytes.
        if let Some((_, chunk)) = raw.split_once("\r\n").filter(|_| !raw.starts_with("HTTP")) {
            events.extend(parser.push(chunk.strip_suffix("\r\n").unwrap().as_bytes()).unwrap());
        }
    }
    let names: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(names, ["new-node", "lost-node", "new-node", "new-node", "lost-node", "lost-node"]);
    assert!(events.iter().all(|event| event.data.parse::<uptime_proto::NodeId>().is_ok()));
}

#[test]
fn every_recording_is_read_or_refused() {
    for entry in std::fs::read_dir(directory()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for chunk in bytes.chunks(997) {
            // Whether these are events is not asked; that nothing panics is.
            SseParser::new(64).push(chunk).ok();
        }
        for answer in serde_json::from_slice(&bytes).map(|it| exchanges(&it)).unwrap_or_default() {
            for root in 0..16 {
                told(read(root)(&answer));
            }
        }
    }
}
