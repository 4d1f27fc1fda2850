//! What writing the CSV costs, and what the method this replaces costs: `csv_10k`, `csv_1m`,
//! `round_write`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use uptime_aggregator::publish::{HEADER, replace_file, write_csv};
use uptime_proto::Period;

use super::Extent;
use super::history::{History, ROUND_S};
use super::network::Network;
use super::report::{anywhere, figure, median_ms, on_disk, progress, ratio, spread};

fn publish(history: &History, path: &Path) -> anyhow::Result<Duration> {
    let snapshot = history.snapshot();
    let started = Instant::now();
    replace_file(path, |out| write_csv(&snapshot, out))?;
    Ok(started.elapsed())
}

/// Fails unless the file has a full row for every node; answers the rows.
fn read_rows(path: &Path, nodes: usize) -> anyhow::Result<Vec<csv::StringRecord>> {
    let mut reader = csv::Reader::from_path(path)?;
    ensure!(*reader.headers()? == HEADER[..], "the header is another");
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>()?;
    ensure!(rows.len() == nodes, "{} rows for {nodes} nodes", rows.len());
    let full = |row: &csv::StringRecord| row.iter().all(|field| !field.is_empty());
    let full = rows.iter().filter(|row| full(row)).count();
    // Those down from the first round on were never seen.
    ensure!(full > nodes / 2, "only {full} rows of {nodes} are full");
    Ok(rows)
}

fn csv(name: &str, seed: u64, nodes: usize, rounds: u64, times: usize) -> anyhow::Result<()> {
    // The store is apart, so that nothing of it waits to be written where the CSV is synced.
    let (directory, store) = (on_disk()?, anywhere()?);
    let path = directory.path().join("nodes_status.csv");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let took = runtime.block_on(async {
        let network = Network::new(seed, nodes, 3, ROUND_S);
        let mut history =
            Box::pin(History::open(store.path(), network, 3, Period::new(ROUND_S)?)).await?;
        history.run(rounds).await?;
        (0..times).map(|_| publish(&history, &path)).collect::<anyhow::Result<Vec<_>>>()
    })?;
    read_rows(&path, nodes)?;
    let bytes = std::fs::metadata(&path)?.len();
    progress(&format!("{name}: {bytes} bytes, {}", spread(&took)));
    figure(name, median_ms(took), "ms");
    Ok(())
}

/// `csv_10k`.
pub(crate) fn csv_10k(_: Extent) -> anyhow::Result<()> {
    csv("csv_10k", 31, 10_000, 20, 31)
}

/// `csv_1m`.
pub(crate) fn csv_1m(_: Extent) -> anyhow::Result<()> {
    csv("csv_1m", 32, 1_000_000, 2, 9)
}

/// Nodes of the comparison, each of which has one event in the round.
const NODES: usize = 2_000;

/// What the script did: at each event the node's row changes and the whole file is written anew.
/// Not synced, as it never was.
fn csv_per_event(path: &Path, rows: &[csv::StringRecord]) -> anyhow::Result<Duration> {
    // The file is complete from the start, with what was there before the round.
    let mut table: Vec<csv::StringRecord> = rows
        .iter()
        .map(|row| {
            let id = row.get(0).unwrap_or_default();
            csv::StringRecord::from(vec![id, "False", "", "0", "0.0"])
        })
        .collect();
    let started = Instant::now();
    for (event, row) in rows.iter().enumerate() {
        table[event] = row.clone();
        let mut writer = csv::Writer::from_path(path)?;
        writer.write_record(HEADER)?;
        for row in &table {
            writer.write_record(row)?;
        }
        writer.flush()?;
    }
    Ok(started.elapsed())
}

/// `round_write`: a round of 2,000 nodes until it stands in the CSV, by both methods.
pub(crate) fn round_write(extent: Extent) -> anyhow::Result<()> {
    let directory = on_disk()?;
    let (ours, theirs) =
        (directory.path().join("nodes_status.csv"), directory.path().join("per_event.csv"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rounds = if extent == Extent::Quick { 5 } else { 31 };
    let took = runtime.block_on(async {
        let network = Network::new(33, NODES, 3, ROUND_S);
        let mut history =
            Box::pin(History::open(directory.path(), network, 3, Period::new(ROUND_S)?)).await?;
        history.run(20).await?;
        let mut took = Vec::new();
        for _ in 0..rounds {
            history.hear().await?;
            let closed = history.close().await?;
            took.push(closed + publish(&history, &ours)?);
        }
        anyhow::Ok(took)
    })?;
    let rows = read_rows(&ours, NODES)?;
    let times = if extent == Extent::Quick { 1 } else { 3 };
    let peer =
        (0..times).map(|_| csv_per_event(&theirs, &rows)).collect::<anyhow::Result<Vec<_>>>()?;
    let same = std::fs::read(&ours)? == std::fs::read(&theirs)?;
    ensure!(same, "the two methods do not end with the same file");
    progress(&format!("round_write: ours {}; per event {}", spread(&took), spread(&peer)));
    let (ours_ms, peer_ms) = (median_ms(took), median_ms(peer));
    figure("round_write_ours", ours_ms, "ms");
    figure("round_write_csv_per_event", peer_ms, "ms");
    let share = (peer_ms > 0.0).then(|| ours_ms / peer_ms).context("the peer took no time")?;
    ratio("round_write", share, "csv_per_event");
    Ok(())
}
