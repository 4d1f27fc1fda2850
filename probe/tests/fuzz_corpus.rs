//! The fuzz targets over their corpus; see `uptime_probe::fuzzing`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use prost::Message;
use serde_json::Value;
use uptime_probe::fuzzing::{TARGETS, run};
use uptime_probe::spool::{Spool, SpoolLimits};
use uptime_proto::convert::{Encoder, PartLimits};
use uptime_proto::v1::{self, aggregator_message::Message as FromAggregator};
use uptime_proto::{Class, Epoch, Kind, NodeId, Outcome, Part, PartKey, Period, Round, Sets};
use uptime_testkit::corpus;

/// Recorded runs of the command line, for the target `net_find`.
const RUNS: &[&str] = &[
    "70_net_find_online_json",
    "74_net_find_never_json",
    "7c_net_sessions_json",
    "7j_net_find_daemon_down_tcp",
    "94a_net_find_relay_down_0s",
];

/// Ages in every unit the relay prints them in, for the target `relay_page`.
const AGES: &str = "14.97s\n955.292116ms\n12.5µs\n80ns\n18446744073709551615.999999999s\n";

/// Bodies of recorded answers of a real daemon, by target; `NAME#2` is the second exchange.
const RECORDED: &[(&str, &[&str])] = &[
    (
        "bus_find_node",
        &["52_gsb_findnode_online", "54_gsb_findnode_never", "94b_gsb_findnode_relay_down"],
    ),
    ("bus_ping", &["59_gsb_ping_online", "5a_gsb_ping_killed", "5c_gsb_ping_mixed"]),
    ("bus_sessions", &["5e_gsb_net_sessions"]),
    ("demands", &["1i_demands_list"]),
    ("identity", &["01_version_get_noauth", "03_me_auth", "04_me_noauth"]),
    ("offers_events", &["20_events_yapapi_scanner", "28_events_testnet1", "29_events_none"]),
    ("offers_scan", &["41_scan_collect", "42_scan_collect_again", "97e_nat_scan_direct"]),
    ("opened", &["11_demand_post_subnet_and", "31_delete_ok", "40_scan_begin"]),
    (
        "relay_page",
        &["61_relay_nodes_2hex", "6p_relay_nodes_two_sessions", "73f_relay_nodes_purged"],
    ),
    ("round_trips", &["59_gsb_ping_online", "5a_gsb_ping_killed", "5c_gsb_ping_mixed"]),
    ("scan_reply", &["43_scan_direct_online", "45_scan_direct_killed", "46_scan_direct_never"]),
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn recording(file: &str) -> Vec<u8> {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/recordings");
    std::fs::read(recordings.join(file)).unwrap()
}

fn recorded(name: &str) -> Vec<u8> {
    let file: Value = serde_json::from_slice(&recording(&format!("{name}.json"))).unwrap();
    let exchange = file.get("exchanges").and_then(|all| all.get(0)).unwrap_or(&file);
    exchange["response"]["body"].as_str().unwrap().as_bytes().to_vec()
}

/// A recorded run as the target `net_find` takes it.
fn run_of_command(name: &str) -> Vec<u8> {
    let file: Value = serde_json::from_slice(&recording(&format!("{name}.json"))).unwrap();
    let code = u8::try_from(file["exit_code"].as_u64().unwrap()).unwrap();
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| file[name].as_str().unwrap());
    let length = u16::try_from(stdout.len()).unwrap().to_le_bytes();
    [&[code], length.as_slice(), stdout.as_bytes(), stderr.as_bytes()].concat()
}

/// The relay's recorded events, out of the chunks they came in.
fn relay_events() -> Vec<u8> {
    let file = String::from_utf8(recording("6j_relay_events_sse.jsonl")).unwrap();
    let lines = file.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let raw: Vec<String> =
        lines.filter_map(|line| line["raw"].as_str().map(str::to_owned)).collect();
    // The first is the head of the answer. A chunk is its length, its bytes, an empty line.
    let chunks = raw.iter().skip(1).map(|chunk| chunk.split("\r\n").nth(1).unwrap());
    chunks.collect::<String>().into_bytes()
}

fn part(round: u64, seen: std::ops::Range<u8>) -> Part {
    let round = Round::new(round * 30, Period::new(30).unwrap()).unwrap();
    let ids = seen.map(|byte| NodeId::new([byte; 20])).collect();
    Part {
        key: PartKey { subnet: String::new(), round, number: 0 },
        kind: Kind::Lookup,
        outcome: Outcome::Looked,
        observed_at_ms: round.start_ms() + 21_000,
        relay_session_age_s: Some(600),
        sets: Sets::default().with(Class::Seen, ids),
    }
}

/// A segment as a spool writes it: four parts, of which one was acknowledged.
fn segment() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(directory.path(), SpoolLimits::of_bytes(1 << 20)).unwrap();
    for round in 1..=4u8 {
        spool.append(part(u64::from(round), round..9 + round), &PartLimits::default()).unwrap();
    }
    spool.acknowledge(2);
    std::fs::read(directory.path().join("00000001.spool")).unwrap()
}

/// Frames as the target `spool_frames` takes them: entries of a stream, then acknowledgements.
fn frames() -> Vec<u8> {
    let mut bytes = 60u64.to_le_bytes().to_vec();
    let mut frame = |kind: u8, body: &[u8]| {
        bytes.extend([kind, u8::try_from(body.len()).unwrap()]);
        bytes.extend(body);
    };
    let mut encoder = Encoder::default();
    for sequence in 1..=4u8 {
        let part = part(u64::from(sequence) + 3, sequence..sequence + 5);
        let wire = encoder.encode(&part, &PartLimits::default()).encode_to_vec();
        frame(1, &[&u64::from(sequence).to_le_bytes(), wire.as_slice()].concat());
    }
    frame(2, &2u64.to_le_bytes());
    frame(2, &u64::MAX.to_le_bytes());
    bytes
}

/// A welcome, a list of look-ups, an announcement.
fn control_state() -> Vec<u8> {
    let epoch = v1::Epoch::from(&Epoch::with_defaults(Period::new(30).unwrap()));
    let welcome = v1::Welcome {
        epochs: vec![epoch.clone()],
        limits: Some(v1::Limits::default()),
        schedule: Some(v1::Schedule::default()),
        ..v1::Welcome::default()
    };
    let list = v1::LookupAssignment {
        round_unix_s: 60,
        stage: v1::LookupStage::First as i32,
        full: true,
        added_node_ids: vec![7; 60].into(),
        ..v1::LookupAssignment::default()
    };
    let told = v1::EpochAnnouncement { epochs: vec![epoch], schedule: None };
    let mut bytes = Vec::new();
    for message in [
        FromAggregator::Welcome(welcome),
        FromAggregator::Assignment(list),
        FromAggregator::Epochs(told),
    ] {
        let message = v1::AggregatorMessage { message: Some(message) }.encode_to_vec();
        bytes.extend(u16::try_from(message.len()).unwrap().to_le_bytes());
        bytes.extend(message);
    }
    bytes
}

#[test]
fn the_corpus_is_fresh() {
    let mut files = vec![
        ("events", "6j_relay_events_sse", relay_events()),
        ("control_state", "told", control_state()),
        ("relay_page", "ages", AGES.into()),
        ("spool_file", "four_parts", segment()),
        ("spool_frames", "four_parts", frames()),
    ];
    files.extend(RUNS.iter().map(|name| ("net_find", *name, run_of_command(name))));
    for (target, names) in RECORDED {
        files.extend(names.iter().map(|name| (*target, *name, recorded(name))));
    }
    corpus::hold_to(&directory(), &files);
}

#[test]
fn the_manifest_has_every_target() {
    corpus::hold_manifest_to(&directory(), TARGETS);
}

#[test]
fn targets_stand_their_corpus_and_changes_of_it() {
    for (name, _) in TARGETS {
        // By name, as the fuzzer calls them.
        run(name, b"");
    }
    corpus::run(&directory(), TARGETS);
}
