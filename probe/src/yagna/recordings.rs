//! Tests: what each recorded answer of a real daemon is understood to mean.
//!
//! A recording holds one exchange or several; `NAME#2` is the second of several.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod command;
mod market;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use uptime_proto::NodeId;

use super::CouldNotLook;
use super::answers::{self, Route, Taken};
use super::market::parse_own;
use super::net::{parse_found, parse_identity, parse_relay_session, parse_version};
use super::offer::{Form, Listing};
use super::open::{Collection, parse_deleted, parse_id};
use super::peer::parse_scan_reply;
use super::ping::{judge_ping, parse_ping, parse_round_trips};

const LIVING: &str = "0x85f06344fde97d390e87b0840b0325212f26eba7";
const KILLED: &str = "0x73ad8b57b198631d45e2372581115c0602384f11";
const UNKNOWN: &str = "0x0000000000000000000000000000000000000001";
const RELAYED: &str = "0xa6d47feac05940d1ea806facf9513b0c6ddd5c0c";

pub(super) struct Recorded {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    took: Duration,
}

pub(super) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testkit/recordings")
}

pub(super) fn exchanges(file: &Value) -> Vec<Recorded> {
    let one = vec![file.clone()];
    let exchanges = file.get("exchanges").and_then(Value::as_array).unwrap_or(&one);
    let one = file.as_array().or_else(|| file.get("answers")?.as_array()).unwrap_or(exchanges);
    let exchanges = if exchanges.len() == 1 { one } else { exchanges };
    let read = |exchange: &Value| {
        let response = exchange.get("response");
        // The newer form: the body as text beside its status, or a run of the command line.
        if response.is_none_or(Value::is_string) {
            let number = |name| exchange.get(name).and_then(Value::as_u64);
            let text = |name| exchange.get(name).and_then(Value::as_str);
            let status = number("status").or(number("exit")).or(number("exit_code"))?;
            let body = text("response").or(text("stderr")).unwrap_or_default();
            return Some(Recorded {
                status: u16::try_from(status).ok()?,
                body: body.as_bytes().to_vec(),
                took: Duration::from_secs_f64(exchange.get("elapsed_ms")?.as_f64()? / 1_000.0),
            });
        }
        let response = response?;
        Some(Recorded {
            status: u16::try_from(response.get("status")?.as_u64()?).ok()?,
            body: response.get("body")?.as_str()?.as_bytes().to_vec(),
            took: Duration::from_secs_f64(exchange.get("elapsed_ms")?.as_f64()? / 1_000.0),
        })
    };
    exchanges.iter().filter_map(read).collect()
}

pub(super) fn recorded(name: &str) -> Recorded {
    let (name, number) = name.split_once('#').unwrap_or((name, "1"));
    let path = directory().join(format!("{name}.json"));
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let all = exchanges(&serde_json::from_slice(&file).unwrap());
    all.into_iter().nth(number.parse::<usize>().unwrap() - 1).unwrap()
}

/// The recording whose name begins so, `NAME#2` its second exchange.
pub(super) fn recorded_by(name: &str) -> Recorded {
    let (beginning, number) = name.split_once('#').unwrap_or((name, "1"));
    let beginning = format!("{}_", beginning.trim_end_matches('_'));
    let mut names: Vec<String> = std::fs::read_dir(directory())
        .unwrap()
        .filter_map(|entry| {
            Some(entry.unwrap().file_name().to_str()?.strip_suffix(".json")?.into())
        })
        .filter(|file: &String| file.starts_with(&beginning))
        .collect();
    names.sort();
    let file = names.first().unwrap_or_else(|| panic!("no recording {name}"));
    recorded(&format!("{file}#{number}"))
}

/// Every exchange over HTTP that was recorded: the recording, method, target and answer.
pub(super) fn all_recorded() -> Vec<(String, String, String, Recorded)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let single = vec![file.clone()];
        let exchanges = file.get("exchanges").or(file.get("answers")).unwrap_or(&file);
        for exchange in exchanges.as_array().unwrap_or(&single) {
            let Some(answer) = exchanges_of(exchange) else { continue };
            let request = &exchange["request"];
            let line = request.as_str().unwrap_or_default();
            let (method, target) = line.split_once(' ').unwrap_or_default();
            let of = |key: &str, other: &str| request[key].as_str().unwrap_or(other).to_owned();
            all.push((name.clone(), of("method", method), of("target", target), answer));
        }
    }
    all
}

fn exchanges_of(exchange: &Value) -> Option<Recorded> {
    exchanges(exchange).into_iter().next()
}

pub(super) fn told<T: Debug>(result: Result<T, CouldNotLook>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(fault) => format!("could not look: {}", fault.reason),
    }
}

/// Every recording means what the table says.
pub(super) fn check<T: Debug>(
    parse: impl Fn(&Recorded) -> Result<T, CouldNotLook>,
    table: &[(&str, impl AsRef<str>)],
) {
    for (name, meaning) in table {
        assert_eq!(told(parse(&recorded(name))), meaning.as_ref(), "{name}");
    }
}

#[test]
fn finding_a_node() {
    let known =
        |seen: i64, id: &str| format!("Known {{ seen_unix_s: {seen}, identities: [{id}] }}");
    check(
        |answer| parse_found(answer.status, &answer.body),
        &[
            ("52_gsb_findnode_online", known(1_795_469_147, LIVING)),
            ("53_gsb_findnode_killed", known(1_795_469_022, KILLED)),
            ("97c_nat_findnode", known(1_795_471_177, RELAYED)),
            ("97i_nat_frozen_findnode", known(1_795_471_177, RELAYED)),
            ("54_gsb_findnode_never", "NotKnown".to_owned()),
            ("55_gsb_findnode_malformed", "could not look: net_error".to_owned()),
            ("56_gsb_findnode_snake", "could not look: net_error".to_owned()),
            ("57_gsb_findnode_noauth", "could not look: unauthorised".to_owned()),
            ("58_gsb_unknown_service", "could not look: net_error".to_owned()),
            ("94b_gsb_findnode_relay_down", "could not look: timed_out".to_owned()),
            ("51_net_rest_find_missing", "could not look: net_error".to_owned()),
            ("59_gsb_ping_online", "could not look: malformed_answer".to_owned()),
        ],
    );
}

#[test]
fn finding_a_node_while_the_relay_refuses_the_daemon() {
    // The words of 95b, in the bridge's form.
    let body = br#"{"Err":{"RuntimeException":"Request failed: Request failed with code 400"}}"#;
    assert_eq!(told(parse_found(200, body)), "could not look: net_error");
    let body = br#"{"Err":{"RuntimeException":"Request failed: Request failed with code 4041"}}"#;
    assert_eq!(told(parse_found(200, body)), "could not look: net_error");
}

#[test]
fn asking_a_peer_over_a_scan() {
    check(
        |answer| parse_scan_reply(answer.status, &answer.body),
        &[
            ("43_scan_direct_online", "Answered"),
            ("44_scan_direct_online_again", "Answered"),
            ("2y_real_ya_provider_scan_direct#2", "Answered"),
            ("97e_nat_scan_direct", "Answered"),
            ("42_scan_collect_again", "Answered"), // the empty list
            ("45_scan_direct_killed", "Unanswered"),
            ("47_scan_direct_frozen", "Unanswered"),
            ("97g_nat_frozen_scan_direct", "Unanswered"),
            ("97h_nat_frozen_scan_direct_60", "Unanswered"),
            ("46_scan_direct_never", "Unanswered"),
            ("48_scan_bad_requests#3", "ScanGone"),
            ("48_scan_bad_requests#5", "could not look: net_error"),
            ("48_scan_bad_requests#6", "could not look: unauthorised"),
            ("4b_scan_end#3", "ScanGone"),
            ("5h_gsb_remote_ping_killed", "could not look: net_error"),
            ("03_me_auth", "could not look: malformed_answer"),
        ],
    );
}

#[test]
fn what_looks_like_silence_but_is_none() {
    // A proxy before a frozen daemon.
    let proxy = b"<html><h1>504 Gateway Time-out</h1></html>";
    assert_eq!(told(parse_scan_reply(504, proxy)), "could not look: net_error");
    assert_eq!(told(parse_scan_reply(504, b"")), "could not look: net_error");
    // The relay was asked for the node's address and did not answer.
    let relay_down = br#"{"message":"GSB failure: Net: error forwarding message: Fail to open
        reliable channel\n\nCaused by:\n    Failed to find Node on relay server: Request failed:
        Request timed out after 3000 ms"}"#;
    assert_eq!(told(parse_scan_reply(500, relay_down)), "could not look: timed_out");
}

#[test]
fn pinging_a_peer() {
    let ping = |id: &'static str| {
        let id: NodeId = id.parse().unwrap();
        move |answer: &Recorded| {
            let answered = parse_ping(answer.status, &answer.body, id)?;
            judge_ping(answered, answer.took)
        }
    };
    check(
        ping(LIVING),
        &[
            ("59_gsb_ping_online", "Answered { took: 9.4ms }"),
            ("94c_gsb_ping_relay_down", "Answered { took: 2.0095s }"),
            ("5a_gsb_ping_killed", "could not look: malformed_answer"), // of another node
            ("57_gsb_findnode_noauth", "could not look: unauthorised"),
            ("58_gsb_unknown_service", "could not look: net_error"),
        ],
    );
    check(
        ping(KILLED),
        &[("5a_gsb_ping_killed", "Unanswered"), ("5c_gsb_ping_mixed", "Unanswered")],
    );
    check(ping(UNKNOWN), &[("5b_gsb_ping_never", "Unanswered")]);
    check(ping(RELAYED), &[("97f_nat_frozen_gsbping", "Unanswered")]);
    let between = judge_ping(false, Duration::from_secs(3));
    assert_eq!(told(between), "could not look: net_error");
}

/// The round trips that an answer to a ping of these two gives, in microseconds.
fn round_trips(status: u16, body: &[u8], asked: [&str; 2]) -> String {
    let asked: BTreeSet<NodeId> = asked.into_iter().map(|id| id.parse().unwrap()).collect();
    told(parse_round_trips(status, body, asked).map(|trips| {
        let micros = |trip: Option<Duration>| trip.map(|trip| trip.as_micros());
        let line = |trip: &super::RoundTrip| {
            (trip.node_id.to_string(), micros(trip.tcp), micros(trip.udp))
        };
        trips.iter().map(line).collect::<Vec<_>>()
    }))
}

#[test]
fn round_trips_of_the_living() {
    let one = |id: &str, tcp: u32, udp: u32| format!("[({id:?}, Some({tcp}), Some({udp}))]");
    for (name, expected) in [
        ("59_gsb_ping_online", one(LIVING, 4_083, 4_019)),
        ("5a_gsb_ping_killed", "[]".to_owned()),
        ("5b_gsb_ping_never", "[]".to_owned()),
        ("5c_gsb_ping_mixed", one(LIVING, 2_743, 2_173)),
        ("97f_nat_frozen_gsbping", "[]".to_owned()),
        ("58_gsb_unknown_service", "could not look: net_error".to_owned()),
        ("57_gsb_findnode_noauth", "could not look: unauthorised".to_owned()),
        ("54_gsb_findnode_never", "could not look: net_error".to_owned()),
        ("94b_gsb_findnode_relay_down", "could not look: timed_out".to_owned()),
        ("5d_gsb_net_status", "could not look: malformed_answer".to_owned()),
        ("5e_gsb_net_sessions", "[]".to_owned()), // of nobody who was asked for
    ] {
        let answer = recorded(name);
        assert_eq!(round_trips(answer.status, &answer.body, [LIVING, KILLED]), expected, "{name}");
    }
    for (name, tcp, udp) in [("97d_nat_gsbping", 3_460, 3_279), ("97d_nat_gsbping#2", 3_390, 2_999)]
    {
        let answer = recorded(name);
        let asked = [RELAYED, LIVING];
        let expected = one(RELAYED, tcp, udp);
        assert_eq!(round_trips(answer.status, &answer.body, asked), expected, "{name}");
    }
    let answer = recorded("59_gsb_ping_online");
    assert_eq!(round_trips(200, &answer.body, [KILLED, UNKNOWN]), "[]", "not asked for");
}

#[test]
fn round_trips_that_are_not_believed() {
    let line = |id: &str, tcp: &str, udp: &str| {
        format!(r#"{{"nodeId":"{id}","tcpPing":{tcp},"udpPing":{udp}}}"#)
    };
    let ms = |ms: u32| format!(r#"{{"secs":0,"nanos":{}}}"#, ms * 1_000_000);
    let shouted = LIVING.to_uppercase().replace("0X", "0x");
    let over = r#"{"secs":60,"nanos":1}"#;
    for (lines, expected) in [
        (vec![], "[]".to_owned()),
        (vec![line(&shouted, &ms(1), "null")], format!("[({LIVING:?}, Some(1000), None)]")),
        // Once each: the first one counts.
        (
            vec![line(LIVING, &ms(1), &ms(2)), line(LIVING, &ms(3), &ms(4))],
            format!("[({LIVING:?}, Some(1000), Some(2000))]"),
        ),
        (vec![line(LIVING, over, &ms(2))], format!("[({LIVING:?}, None, Some(2000))]")),
        (
            vec![line(LIVING, r#"{"secs":60,"nanos":0}"#, over)],
            format!("[({LIVING:?}, Some(60000000), None)]"),
        ),
        (vec![line(LIVING, over, over)], "[]".to_owned()),
        // A line that is none costs only itself.
        (
            vec![
                "7".to_owned(),
                line(KILLED, "-1", "null"),
                line(KILLED, r#"{"secs":18446744073709551615,"nanos":4294967295}"#, "null"),
                line(LIVING, "null", &ms(5)),
            ],
            format!("[({LIVING:?}, None, Some(5000))]"),
        ),
        (vec!["7".to_owned()], "could not look: malformed_answer".to_owned()),
        (vec![line("zzz", &ms(1), &ms(1))], "[]".to_owned()),
    ] {
        let body = format!(r#"{{"Ok":[{}]}}"#, lines.join(","));
        assert_eq!(round_trips(200, body.as_bytes(), [LIVING, KILLED]), expected, "{body}");
    }
}

#[test]
fn a_daemon_without_a_bridge() {
    for (name, expected) in [
        ("09_unknown_path", true),
        ("51_net_rest_find_missing", true),
        ("2i_events_unknown_id", true), // JSON, but not the bus's
        ("52_gsb_findnode_online", false),
        ("54_gsb_findnode_never", false),
        ("56_gsb_findnode_snake", false),
        ("58_gsb_unknown_service", false),
        ("57_gsb_findnode_noauth", false),
    ] {
        let answer = recorded(name);
        let taken = answers::read(Route::FindNode, answer.status, &answer.body);
        assert_eq!(taken == Ok(Taken::Absent), expected, "{name}");
    }
    assert_eq!(answers::read(Route::FindNode, 404, b""), Ok(Taken::Absent));
}

#[test]
fn the_daemon_itself() {
    check(
        |answer| parse_identity(answer.status, &answer.body),
        &[
            ("03_me_auth", "0x02b825859950ee253c103a91e082d9670e3a45fa"),
            ("04_me_noauth", "could not look: unauthorised"),
            ("05_me_badkey", "could not look: unauthorised"),
            ("06_me_basic_scheme", "could not look: unauthorised"),
            ("07_me_lowercase_bearer", "could not look: unauthorised"),
            ("09_unknown_path", "could not look: net_error"),
            ("09b_unknown_path_noauth", "could not look: unauthorised"),
        ],
    );
    check(
        |answer| parse_version(answer.status, &answer.body),
        &[
            ("01_version_get_noauth", "\"0.17.6-nightly\""),
            ("02_version_get_auth", "\"0.17.6-nightly\""),
            ("03_me_auth", "could not look: malformed_answer"),
        ],
    );
    check(
        |answer| parse_relay_session(answer.status, &answer.body),
        &[
            ("5e_gsb_net_sessions", "Some(602.072940317s)"),
            ("5d_gsb_net_status", "could not look: malformed_answer"),
            ("57_gsb_findnode_noauth", "could not look: unauthorised"),
        ],
    );
    // As in 94g: the relay is down, sessions with peers stand.
    let peers = br#"{"Ok":[{"sessionType":"p2p","duration":{"secs":60,"nanos":0}}]}"#;
    assert_eq!(told(parse_relay_session(200, peers)), "None");
    let two = br#"{"Ok":[{"sessionType":"relay","duration":{"secs":60,"nanos":0}},
        {"sessionType":"relay","duration":{"secs":5,"nanos":0}}]}"#;
    assert_eq!(told(parse_relay_session(200, two)), "Some(5s)");
}

#[test]
fn opening_and_deleting() {
    let id = "7488df13a028430ebe04f3cae08fc366-\
        3041e3c197a74a634196e5199c2ad4ed32d7edc95ce12a2da9ba5ca33619c833";
    check(
        |answer| parse_id(Collection::Demands, answer.status, &answer.body),
        &[
            ("11_demand_post_subnet_and", format!("Some({id:?})")),
            ("1a_demand_post_noauth", "could not look: unauthorised".to_owned()),
            ("1b_demand_post_badkey", "could not look: unauthorised".to_owned()),
            ("1c_demand_post_malformed_json", "could not look: market_error".to_owned()),
            ("1f_demand_post_no_content_type", "could not look: market_error".to_owned()),
            ("1h_demand_put_405", "could not look: market_error".to_owned()),
        ],
    );
    check(
        |answer| parse_id(Collection::Scans, answer.status, &answer.body),
        &[
            ("40_scan_begin", "Some(\"0\")"),
            ("48_scan_bad_requests#1", "could not look: market_error"),
            ("48_scan_bad_requests#6", "could not look: unauthorised"),
            ("09_unknown_path", "None"), // a daemon that has no such route
        ],
    );
    check(
        |answer| parse_deleted(answer.status, &answer.body),
        &[
            ("31_delete_ok", "true"),
            ("32_delete_again", "false"),
            ("34_delete_malformed", "could not look: market_error"),
            ("36_delete_noauth", "could not look: unauthorised"),
            ("38_offer_expired_delete", "false"),
            ("4b_scan_end#1", "true"),
            ("4b_scan_end#2", "false"),
        ],
    );
    for unfit in ["\"\"", "7", "\"../../me\"", "\"a b\"", "{}"] {
        assert!(parse_id(Collection::Scans, 201, unfit.as_bytes()).is_err(), "{unfit}");
    }
}

/// Puts an answer through every parser; they may refuse it, never panic.
fn every_parser(status: u16, body: &[u8]) {
    let id: NodeId = LIVING.parse().unwrap();
    let _ = told(parse_found(status, body));
    let _ = told(parse_relay_session(status, body));
    let _ = told(parse_identity(status, body));
    let _ = told(parse_version(status, body));
    let _ = told(parse_scan_reply(status, body));
    let _ = told(parse_ping(status, body, id));
    let _ = round_trips(status, body, [LIVING, KILLED]);
    command::every_parser(body);
    let _ = told(parse_id(Collection::Scans, status, body));
    let _ = told(parse_id(Collection::Demands, status, body));
    let _ = told(parse_deleted(status, body));
    let _ = told(parse_own(status, body, "default", 0));
    for form in [Form::Scan, Form::Events] {
        let mut listing = Listing::new("public");
        let _ = told(listing.take_page(form, 10, status, body));
        let _ = told(listing.finish());
    }
}

#[test]
fn every_recording_goes_through_every_parser() {
    let mut exchanges_read = 0;
    for entry in std::fs::read_dir(directory()).unwrap() {
        let Ok(file) = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap())
        else {
            continue; // lines of JSON
        };
        for answer in exchanges(&file) {
            every_parser(answer.status, &answer.body);
            exchanges_read += 1;
        }
    }
    assert!(exchanges_read > 100, "{exchanges_read}");
}

fn status() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![200, 201, 204, 301, 400, 401, 404, 410, 500, 504])
}

proptest! {
    #[test]
    fn no_parser_panics_on_garbage(
        status in status(),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        every_parser(status, &body);
    }

    #[test]
    fn no_parser_panics_on_damaged_answers(
        status in status(),
        name in prop::sample::select(vec![
            "41_scan_collect", "20_events_yapapi_scanner", "52_gsb_findnode_online",
            "54_gsb_findnode_never", "5e_gsb_net_sessions", "5c_gsb_ping_mixed",
            "46_scan_direct_never", "1i_demands_list", "03_me_auth",
        ]),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut body = recorded(name).body;
        let at = at.index(body.len());
        body[at] = byte;
        if cut {
            body.truncate(at);
        }
        every_parser(status, &body);
    }
}
