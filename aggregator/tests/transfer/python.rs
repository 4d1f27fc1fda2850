//! Programs that know nothing of this one read what it wrote: the script it replaces continues its
//! CSV, and DuckDB reads its Parquet.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use uptime_aggregator::engine::replay::rebuild;
use uptime_aggregator::publish::seed_csv::{SeedBooks, subnet_of};
use uptime_aggregator::store::{Registry, SqliteStore};
use uptime_aggregator::transfer::columns::{NODES, OBSERVATIONS, Type, VERDICTS};
use uptime_aggregator::transfer::export::{Format, What, export};
use uptime_aggregator::transfer::import::{ImportArgs, import_csv};

use crate::support::id;
use crate::{export as exports, seed};

/// The Python of deploy/test.sh.
fn python() -> PathBuf {
    let prepared = std::env::var_os("UPTIME_PYTHON").map(PathBuf::from).unwrap_or_else(|| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python")
    });
    assert!(
        prepared.exists(),
        "{} is missing: `sh deploy/test.sh` makes it, or set UPTIME_PYTHON to a Python with the \
         packages of deploy/test-requirements.txt",
        prepared.display()
    );
    prepared
}

async fn run(script: &str, arguments: &[&OsStr]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transfer").join(script);
    let output = tokio::process::Command::new(python())
        .arg(script)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{wrong}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_script_continues_the_seed_dialect_and_its_files_are_imported_again() {
    let (network, now_ms) = seed::network().await;
    let mut store = SqliteStore::open(network.data_dir()).await.unwrap();
    let rebuilt = rebuild(&mut store, now_ms, true).await.unwrap().unwrap();
    let opening = seed::opening();
    let (snapshot, seed) = (&rebuilt.snapshot, rebuilt.state.seed().unwrap());
    let subnet = subnet_of(snapshot, None, Some(&opening)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let csv = directory.path().join("nodes_status.csv");
    let books = SeedBooks { snapshot, seed, opening: Some(&opening), subnet };
    books.replace(&csv).unwrap();

    let found = id(seed::NEW).to_string();
    run("seed_script.py", &[directory.path().as_os_str(), found.as_ref()]).await;

    let args = ImportArgs {
        file: csv,
        scan_count: None,
        scan_count_file: None,
        time_zone: chrono_tz::UTC,
        subnet: None,
        data_dir: Some(directory.path().join("data")),
        replace: false,
        dry_run: false,
    };
    let mut told = Vec::new();
    import_csv(&args, 1_800_000_000_000, &mut told).await.unwrap();
    let mut store = SqliteStore::open(&directory.path().join("data")).await.unwrap();
    let opening = store.opening().await.unwrap().unwrap();
    assert_eq!(opening.scan_count, 99);
    let rows: Vec<(_, bool, u64)> =
        opening.rows.iter().map(|row| (row.id, row.is_online, row.online_scans)).collect();
    let wanted = [
        (id(seed::OLD), false, 85),
        (id(seed::GONE), false, 44),
        (id(seed::NEW), true, 9),
        (id(seed::RUMOUR), false, 0),
    ];
    assert_eq!(rows, wanted);
}

#[tokio::test]
async fn duckdb_reads_the_parquet_as_the_json_says_it() {
    let (network, now_ms) = exports::network().await;
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("rows");
    for (what, columns) in
        [(What::Observations, OBSERVATIONS), (What::Verdicts, VERDICTS), (What::Nodes, NODES)]
    {
        let args = exports::args(network.data_dir(), what, Format::Ndjson, &path);
        export(&args, now_ms).await.unwrap();
        let wanted = exports::read_ndjson(&path);
        let args = exports::args(network.data_dir(), what, Format::Parquet, &path);
        export(&args, now_ms).await.unwrap();
        let said = run("parquet_rows.py", &[path.as_os_str()]).await;
        let mut lines = said.lines().map(|line| serde_json::from_str::<Map<_, _>>(line).unwrap());
        let types = lines.next().unwrap();
        assert_eq!(types.len(), columns.len());
        for column in columns {
            let wanted = match column.kind {
                Type::Text => "VARCHAR",
                Type::Number => "BIGINT",
                Type::Fraction => "DOUBLE",
                Type::Flag => "BOOLEAN",
                Type::Texts => "VARCHAR[]",
            };
            assert_eq!(types[column.name], Value::from(wanted), "{}", column.name);
        }
        assert_eq!(lines.collect::<Vec<_>>(), wanted, "{what:?}");
    }
}
