//! `export`: every observation, verdict and node, the same in both formats.

use std::collections::BTreeMap;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Value};
use sqlx::Connection;
use uptime_aggregator::engine::replay::rebuild;
use uptime_aggregator::publish::write_csv;
use uptime_aggregator::store::{
    By, Details, IdentityStore, Registry, Retraction, SqliteStore, Store,
};
use uptime_aggregator::transfer::TransferError;
use uptime_aggregator::transfer::columns::{NODES, OBSERVATIONS, VERDICTS};
use uptime_aggregator::transfer::export::{ExportArgs, Format, What, export};
use uptime_proto::{Outcome, Reason, Sets};

use crate::support::{Network, PERIOD_S, START_S, id, lookup, market, round};

/// More than two stretches of what is read at once.
const ROUNDS: u64 = 500;
const UP: u8 = 0x11;
/// Comes and goes.
const FLAPS: u8 = 0x22;
/// Dies in round 300.
const DIES: u8 = 0x33;
/// Its offer is in another subnet.
const ELSEWHERE: u8 = 0x44;

fn flaps_up(number: u64) -> bool {
    number % 50 < 30
}

/// What a probe reports of a round; from round 400 to 409 the second could not look.
fn parts(probe: usize, number: u64) -> Vec<uptime_proto::Part> {
    let mut parts = vec![market("public", number, &[UP, FLAPS, DIES])];
    if number.is_multiple_of(7) {
        parts.push(market("other", number, &[ELSEWHERE]));
    }
    let (mut seen, mut dead) = (vec![UP, ELSEWHERE], Vec::new());
    if flaps_up(number) { &mut seen } else { &mut dead }.push(FLAPS);
    if number < 300 { &mut seen } else { &mut dead }.push(DIES);
    let mut looked = lookup(number, &seen[1..], &seen[..1], &dead);
    if probe == 1 && (400..410).contains(&number) {
        looked.outcome = Outcome::CouldNotLook(Reason::YagnaUnreachable);
        looked.sets = Sets::default();
    }
    parts.push(looked);
    parts
}

pub(crate) async fn network() -> (Network, i64) {
    let mut network = Network::new().await;
    for probe in 0..2 {
        let all = (0..ROUNDS).flat_map(|number| parts(probe, number)).collect();
        network.submit(probe, all, ROUNDS - 1).await;
    }
    let details = Details {
        name: "a \"quoted\" näme\n".to_owned(),
        runtime: "vm".to_owned(),
        runtime_version: "0.4.2".to_owned(),
        networks: vec!["polygon".to_owned(), "holesky".to_owned()],
        changed_s: 0,
    };
    network.submit_with(0, Vec::new(), vec![(id(UP), details)], ROUNDS - 1).await;
    let now_ms = network.close(ROUNDS - 1).await;
    (network, now_ms)
}

pub(crate) fn args(data_dir: &Path, what: What, format: Format, out: &Path) -> ExportArgs {
    ExportArgs {
        what,
        format,
        from: None,
        to: None,
        out: out.to_owned(),
        force: true,
        data_dir: Some(data_dir.to_owned()),
    }
}

pub(crate) type Row = Map<String, Value>;

pub(crate) fn read_ndjson(path: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Str(text) => text.as_str().into(),
        Field::Long(number) => (*number).into(),
        Field::Double(number) => (*number).into(),
        Field::Bool(flag) => (*flag).into(),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => panic!("{other:?}"),
    }
}

fn read_parquet(path: &Path) -> Vec<Row> {
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    let named = |(name, field): (&String, &Field)| (name.clone(), value(field));
    rows.map(|row| row.unwrap().get_column_iter().map(named).collect()).collect()
}

async fn exported(network: &Network, what: What, now_ms: i64, window: (u64, u64)) -> Vec<Row> {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("rows");
    let mut args = args(network.data_dir(), what, Format::Ndjson, &path);
    if what != What::Nodes {
        (args.from, args.to) = (Some(window.0), Some(window.1));
    }
    export(&args, now_ms).await.unwrap();
    read_ndjson(&path)
}

const ALL: (u64, u64) = (0, u64::MAX);

#[tokio::test]
async fn both_formats_say_the_same_and_have_the_columns() {
    let (network, now_ms) = network().await;
    let out = tempfile::tempdir().unwrap();
    for (what, columns) in
        [(What::Observations, OBSERVATIONS), (What::Verdicts, VERDICTS), (What::Nodes, NODES)]
    {
        let mut said = Vec::new();
        for (name, format) in [("ndjson", Format::Ndjson), ("parquet", Format::Parquet)] {
            let path = out.path().join(name);
            let args = args(network.data_dir(), what, format, &path);
            export(&args, now_ms).await.unwrap();
            let once = std::fs::read(&path).unwrap();
            export(&args, now_ms).await.unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), once, "the same store, the same bytes");
            said.push(if name == "ndjson" { read_ndjson(&path) } else { read_parquet(&path) });
        }
        assert!(said[0].len() > 3, "{what:?}");
        assert_eq!(said[0], said[1], "{what:?}");
        let text = std::fs::read_to_string(out.path().join("ndjson")).unwrap();
        let first = text.lines().next().unwrap();
        let mut at = 0;
        for column in columns {
            let key = format!("\"{}\":", column.name);
            at += first[at..].find(&key).expect(column.name);
        }
    }
}

#[tokio::test]
async fn every_observation_is_a_row() {
    let (network, now_ms) = network().await;
    let rows = exported(&network, What::Observations, now_ms, ALL).await;
    let mut wanted = 0;
    for (probe, name) in ["alpha", "beta"].into_iter().enumerate() {
        for number in 0..ROUNDS {
            wanted +=
                parts(probe, number).iter().map(|part| part.sets.count().max(1)).sum::<usize>();
        }
        assert!(rows.iter().any(|row| row["probe"] == name));
    }
    assert_eq!(rows.len(), wanted);
    let blind: Vec<&Row> = rows.iter().filter(|row| row["outcome"] == "could_not_look").collect();
    assert_eq!(blind.len(), 10);
    let wanted = serde_json::json!({
        "round_unix_s": START_S + 400 * PERIOD_S, "round_period_s": 30, "probe": "beta",
        "subnet": "", "part": 1, "kind": "lookup", "outcome": "could_not_look",
        "reason": "yagna_unreachable", "class": null, "node_id": null,
        "observed_at_unix_ms": round(400).start_ms() + 20_500,
        "received_at_unix_ms": round(ROUNDS - 1).start_ms() + 29_000,
        "relay_session_age_s": 600, "counts": true,
    });
    assert_eq!(Value::Object(blind[0].clone()), wanted);
    let of_round: Vec<String> = rows
        .iter()
        .filter(|row| row["round_unix_s"] == START_S && row["probe"] == "alpha")
        .map(|row| {
            format!("{} {} {}", row["subnet"], row["class"], &row["node_id"].as_str().unwrap()[..4])
        })
        .collect();
    let wanted = [
        "\"\" \"seen\" 0x22",
        "\"\" \"seen\" 0x33",
        "\"\" \"seen\" 0x44",
        "\"\" \"answered\" 0x11",
        "\"public\" \"offer\" 0x11",
        "\"public\" \"offer\" 0x22",
        "\"public\" \"offer\" 0x33",
        "\"other\" \"offer\" 0x44",
    ];
    assert_eq!(of_round, wanted);
}

#[tokio::test]
async fn a_window_takes_the_rounds_that_start_in_it() {
    let (network, now_ms) = network().await;
    let all = exported(&network, What::Observations, now_ms, ALL).await;
    let (from, to) = (START_S + 239 * PERIOD_S + 1, START_S + 481 * PERIOD_S);
    let some = exported(&network, What::Observations, now_ms, (from, to)).await;
    let within = |row: &&Row| (from..to).contains(&row["round_unix_s"].as_u64().unwrap());
    assert_eq!(some, all.iter().filter(within).cloned().collect::<Vec<_>>());
    let runs = exported(&network, What::Verdicts, now_ms, (from, to)).await;
    for run in &runs {
        assert!(run["from_unix_s"].as_u64().unwrap() >= START_S + 240 * PERIOD_S, "{run:?}");
        assert!(run["to_unix_s"].as_u64().unwrap() <= to, "{run:?}");
    }
    let of_up: Vec<&Row> = runs.iter().filter(|run| run["node_id"] == id(UP).to_string()).collect();
    assert_eq!(of_up.len(), 1);
    assert_eq!(of_up[0]["from_unix_s"], START_S + 240 * PERIOD_S);
    assert_eq!(of_up[0]["to_unix_s"], to);
}

#[tokio::test]
async fn runs_of_verdicts_add_up_to_the_nodes_and_nodes_are_the_csv() {
    let (network, now_ms) = network().await;
    let nodes = exported(&network, What::Nodes, now_ms, ALL).await;
    let runs = exported(&network, What::Verdicts, now_ms, ALL).await;
    let mut sums: BTreeMap<(String, String), u64> = BTreeMap::new();
    for run in &runs {
        let text = |name: &str| run[name].as_str().unwrap().to_owned();
        let length = run["to_unix_s"].as_u64().unwrap() - run["from_unix_s"].as_u64().unwrap();
        *sums.entry((text("node_id"), text("verdict"))).or_default() += length;
        assert_eq!(run["method"], "fresh-v1");
    }
    let mut csv = Vec::new();
    write_csv(&network.snapshot(), &mut csv).unwrap();
    let csv = String::from_utf8(csv).unwrap();
    assert_eq!(nodes.len(), csv.lines().count() - 1);
    for (node, line) in nodes.iter().zip(csv.lines().skip(1)) {
        let id = node["issuer_id"].as_str().unwrap();
        for (verdict, column) in [("up", "up_s"), ("down", "down_s"), ("unknown", "unknown_s")] {
            let sum = sums.get(&(id.to_owned(), verdict.to_owned())).copied().unwrap_or(0);
            assert_eq!(node[column], sum, "{id} {verdict}");
        }
        let online = if node["is_online"] == true { "True" } else { "False" };
        let last_seen = node["last_seen"].as_str().unwrap_or_default();
        let scans = &node["total_online_scans"];
        assert_eq!(line, format!("{id},{online},{last_seen},{scans},{}", node["uptime"]));
    }
    let up = &nodes[0];
    assert_eq!(up["name"], "a \"quoted\" näme\n");
    assert_eq!(up["networks"], serde_json::json!(["polygon", "holesky"]));
    assert_eq!(up["subnets"], serde_json::json!(["public"]));
    assert_eq!(up["rounds"], ROUNDS);
    assert_eq!(up["last_closed_round_unix_s"], START_S + (ROUNDS - 1) * PERIOD_S);
    assert_eq!((&up["coverage"], &up["verdict"]), (&100.0.into(), &"up".into()));
}

#[tokio::test]
async fn what_does_not_count_says_so() {
    let (mut network, now_ms) = network().await;
    // Another content under a key that is there.
    let mut other = lookup(3, &[UP], &[], &[]);
    other.observed_at_ms += 1;
    network.submit(0, vec![other], ROUNDS).await;
    let mut store = SqliteStore::open(network.data_dir()).await.unwrap();
    let probes = store.probes().await.unwrap();
    let retraction = Retraction {
        number: 0,
        probe: probes[1].number,
        from_s: START_S + 10 * PERIOD_S,
        to_s: START_S + 20 * PERIOD_S,
        reason: "its clock was wrong".to_owned(),
        made_at_ms: 0,
        undone_at_ms: None,
    };
    store.retract(&retraction, &By { actor: "a test".to_owned(), now_ms: 0 }).await.unwrap();
    let rows = exported(&network, What::Observations, now_ms, ALL).await;
    let void: Vec<&Row> = rows.iter().filter(|row| row["counts"] == false).collect();
    let retracted = |row: &&&Row| row["probe"] == "beta";
    let rounds: Vec<u64> =
        void.iter().filter(retracted).map(|row| row["round_unix_s"].as_u64().unwrap()).collect();
    let wanted: usize = (10..20)
        .map(|number| parts(1, number).iter().map(|part| part.sets.count()).sum::<usize>())
        .sum();
    assert_eq!(rounds.len(), wanted);
    assert!(rounds.iter().all(|round| (10..20).contains(&((round - START_S) / PERIOD_S))));
    let conflicting: Vec<&&Row> = void.iter().filter(|row| row["probe"] == "alpha").collect();
    assert!(!conflicting.is_empty());
    assert!(conflicting.iter().all(|row| row["round_unix_s"] == START_S + 3 * PERIOD_S));
    // The state passes over them, too.
    let rebuilt = rebuild(&mut store, now_ms, false).await.unwrap().unwrap();
    assert_eq!(rebuilt.left_out.count, 0);
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_the_rest_is_there() {
    let (network, now_ms) = network().await;
    let url = format!("sqlite:{}/uptime.sqlite3", network.data_dir().display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let damage = "UPDATE part SET reason = 99 WHERE number = 1 AND probe = 1 AND round =
        (SELECT max(round) FROM part)";
    assert_eq!(sqlx::query(damage).execute(&mut connection).await.unwrap().rows_affected(), 1);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("rows");
    for what in [What::Observations, What::Verdicts, What::Nodes] {
        let args = args(network.data_dir(), what, Format::Ndjson, &path);
        let fault = export(&args, now_ms).await.unwrap_err();
        assert!(matches!(fault, TransferError::Damaged(_)), "{fault}");
        let told = fault.to_string();
        let (last, wanted) =
            (round(ROUNDS - 1).start_s(), "cannot be read: 1\n  part 1 of probe 1");
        assert!(told.contains(wanted) && told.contains(&last.to_string()), "{told}");
        assert!(!read_ndjson(&path).is_empty(), "{what:?}");
    }
    assert_eq!(read_ndjson(&path).len(), 4);
}

#[tokio::test]
async fn the_state_rebuilt_is_the_owners() {
    let (network, now_ms) = network().await;
    let mut store = SqliteStore::open(network.data_dir()).await.unwrap();
    store.hold().await.unwrap();
    let rebuilt = rebuild(&mut store, now_ms, false).await.unwrap().unwrap();
    let csv = |snapshot| {
        let mut csv = Vec::new();
        write_csv(snapshot, &mut csv).unwrap();
        String::from_utf8(csv).unwrap()
    };
    assert_eq!(csv(&rebuilt.snapshot), csv(&network.snapshot()));
    let empty = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(empty.path()).await.unwrap();
    assert!(rebuild(&mut store, now_ms, false).await.unwrap().is_none());
}

#[tokio::test]
async fn what_cannot_be_meant_or_found_is_refused_with_the_mend() {
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().join("rows");
    let mut args = args(empty.path(), What::Nodes, Format::Ndjson, &path);
    let fault = export(&args, 0).await.unwrap_err().to_string();
    assert!(fault.contains("--data-dir"), "{fault}");
    assert!(std::fs::read_dir(empty.path()).unwrap().next().is_none(), "no store is made");
    args.from = Some(5);
    assert!(matches!(export(&args, 0).await.unwrap_err(), TransferError::Usage(_)));
    (args.what, args.to) = (What::Verdicts, Some(5));
    assert!(matches!(export(&args, 0).await.unwrap_err(), TransferError::Usage(_)));
    // Nothing stored yet: tables without rows.
    drop(SqliteStore::open(empty.path()).await.unwrap());
    (args.from, args.to) = (None, None);
    for (what, format) in [(What::Nodes, Format::Parquet), (What::Observations, Format::Ndjson)] {
        (args.what, args.format) = (what, format);
        export(&args, 0).await.unwrap();
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"");
    args.force = false;
    let fault = export(&args, 0).await.unwrap_err().to_string();
    assert!(fault.contains("--force"), "{fault}");
}
