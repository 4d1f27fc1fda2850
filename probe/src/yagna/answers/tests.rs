//! The table against the recordings of real daemons and relays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use super::super::recordings::{all_recorded, recorded_by};
use super::*;

#[test]
fn every_row_rests_on_its_recordings() {
    for row in TABLE {
        // Streams are recorded in another form.
        assert!(!row.recordings.is_empty() || row.route == Route::RelayEvents);
        for name in row.recordings {
            let answer = recorded_by(name);
            assert_eq!(answer.status, row.status, "{name} for {:?}", row.route);
            assert!(row.words.match_body(&answer.body), "{name} for {:?}", row.route);
            assert_eq!(find(row.route, answer.status, &answer.body), Some(row.taken), "{name}");
        }
    }
}

/// The question that was recorded, where it is one that this program puts.
fn route(method: &str, target: &str) -> Option<Route> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let in_scan = path.strip_prefix("/market-api/v1/scan/");
    let in_demands = path.strip_prefix("/market-api/v1/demands/");
    Some(match (method, path) {
        ("GET", "/me") => Route::Me,
        ("GET", "/version/get") => Route::Version,
        ("POST", "/market-api/v1/scan") => Route::OpenScan,
        ("POST", "/market-api/v1/demands") => Route::OpenDemand,
        ("GET", "/market-api/v1/demands") => Route::ListDemands,
        ("DELETE", _) if in_scan.is_some() || in_demands.is_some() => Route::Delete,
        ("GET", _) if in_scan.is_some() && query.contains("peerId=") => Route::Direct,
        ("GET", _) if in_scan.is_some() => Route::ScanPage,
        ("GET", _) if in_demands.is_some() => Route::DemandPage,
        ("POST", "/_gsb/local/net/FindNode") => Route::FindNode,
        ("POST", "/_gsb/local/net/GsbPing") => Route::Ping,
        ("POST", "/_gsb/local/net/Sessions") => Route::Sessions,
        ("GET", _) if path.starts_with("/nodes/") => Route::RelayNodes,
        _ => return None,
    })
}

/// What was recorded and is not understood: wrong questions, which this program does not put, and
/// what it would make of them. A recording that appears here is a gap in the table.
#[test]
fn what_is_not_understood_of_the_recordings() {
    let mut strange: BTreeSet<String> = BTreeSet::new();
    for (name, method, target, answer) in all_recorded() {
        let Some(route) = route(&method, &target) else { continue };
        if find(route, answer.status, &answer.body).is_none() {
            let class = class_of(route, answer.status, &answer.body).unwrap().name();
            let number = name.split('_').next().unwrap_or_default();
            strange.insert(format!("{number} {} {} {class}", route.name(), answer.status));
        }
    }
    let strange: Vec<String> = strange.into_iter().collect();
    expect_test::expect![[r#"
        1c open_demand 400 status
        1d open_demand 400 status
        1f open_demand 400 status
        1g open_demand 400 status
        2e demand_page 400 status
        2f demand_page 400 status
        2g demand_page 400 status
        2j demand_page 400 status
        34 delete 400 status
        48 direct 400 status
        48 open_scan 400 status
        55 find_node 200 words
        56 find_node 500 status
        65 relay_nodes 400 status
        6a relay_nodes 400 status
        6b relay_nodes 400 status
        6c relay_nodes 404 status
        6k relay_nodes 400 status
        6m relay_nodes 400 status"#]]
    .assert_eq(&strange.join("\n"));
}

#[test]
fn an_answer_that_no_row_matches_is_could_not_look() {
    let told = |route, status, body: &[u8]| match read(route, status, body) {
        Ok(taken) => format!("{taken:?}"),
        Err(fault) => fault.reason.to_string(),
    };
    for (route, status, body, wanted) in [
        // A proxy before a frozen daemon says 504, too.
        (Route::Direct, 504, &b"<html><h1>504 Gateway Time-out</h1></html>"[..], "net_error"),
        (Route::Direct, 504, b"", "net_error"),
        // In yagna's source, not recorded: a peer that is too old, or answered with an error.
        (Route::Direct, 502, br#"{"message":"peer"}"#, "net_error"),
        (Route::Direct, 500, b"session closed", "net_error"),
        (Route::Direct, 500, br#"{"message":"Unknown address: /local/net"}"#, "net_error"),
        (Route::Direct, 500, br#"{"message":"code 4041"}"#, "net_error"),
        (Route::Direct, 500, br#"{"message":"Request timed out after 3000 ms"}"#, "timed_out"),
        (Route::Direct, 403, b"", "unauthorised"),
        (Route::FindNode, 200, br#"{"Err":{"RuntimeException":"code 400"}}"#, "net_error"),
        (Route::ScanPage, 500, b"", "market_error"),
        (Route::RelayNodes, 403, b"", "relay_error"),
    ] {
        assert_eq!(told(route, status, body), wanted, "{route:?} {status}");
    }
}

#[test]
fn classes_are_told_apart() {
    let body = br#"{"message":"GSB failure: something new"}"#;
    assert_eq!(class_of(Route::Direct, 500, body), Some(Class::Words));
    assert_eq!(class_of(Route::Direct, 502, body), Some(Class::Status));
    assert_eq!(class_of(Route::Direct, 200, b"[1"), Some(Class::Form));
    assert_eq!(class_of(Route::Direct, 401, b"Missing application key"), None);
}

#[test]
fn a_text_of_a_class_is_logged_once_an_hour() {
    let strange = Strange::default();
    let begun = Instant::now();
    let note = |status, after| strange.note_at(Route::Direct, status, b"new", begun + after);
    let logged = || strange.logged.lock().unwrap().values().max().copied().unwrap();
    let second = Duration::from_secs(1);
    note(502, Duration::ZERO);
    note(502, LOGGED_EVERY - second);
    assert_eq!(logged(), begun);
    note(502, LOGGED_EVERY);
    assert_eq!(logged(), begun + LOGGED_EVERY);
    (600..900).for_each(|status| note(status, second));
    assert_eq!(strange.logged.lock().unwrap().len(), 2, "bounded");
}
