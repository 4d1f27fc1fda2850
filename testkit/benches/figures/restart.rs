//! How long a start takes that finds a year in the store: `restart_year`, `restart_year_killed`.
//!
//! Owns the year: 10,000 nodes and three probes, every day compacted as the ledger compacts it.
//! Rounds are five minutes long, for the year to be made in minutes; a start reads what nodes went
//! through, and that is nearly the same in rounds of 30 s.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use uptime_aggregator::engine::Engine;
use uptime_aggregator::publish::write_csv;
use uptime_aggregator::store::SqliteStore;
use uptime_proto::{Period, Round};

use super::Extent;
use super::history::{History, options, wait_until_closed};
use super::network::Network;
use super::report::{anywhere, figure, median_ms, progress};

const NODES: usize = 10_000;
const PROBES: usize = 3;
const PERIOD_S: u32 = 300;
const DAYS: u64 = 365;
const ROUNDS_A_DAY: u64 = 86_400 / PERIOD_S as u64;
/// The state is kept every 120 rounds: a process that is killed has kept none for at most so many.
const ROUNDS_NOT_KEPT: u64 = 119;
const TIMES: usize = 7;

/// `restart_year`, `restart_year_killed`.
pub(crate) fn year(_: Extent) -> anyhow::Result<()> {
    let directory = anywhere()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(measure(directory.path())))
}

async fn measure(directory: &Path) -> anyhow::Result<()> {
    let period = Period::new(PERIOD_S)?;
    let network = Network::new(61, NODES, PROBES, PERIOD_S);
    let mut history = History::open(directory, network, PROBES, period).await?;
    history.together = true;
    for _ in 0..DAYS {
        history.run(ROUNDS_A_DAY).await?;
        history.compact().await?;
    }
    history.keep().await;
    history.run(ROUNDS_NOT_KEPT).await?;
    let killed = Told::of(&history)?;
    drop(history.into_store());
    wait_until_closed(directory).await?;
    let took = starts(directory, period, &killed).await?;
    figure("restart_year_killed", median_ms(took), "ms");

    // The last of those starts went on and was stopped as a service is.
    let store = SqliteStore::open(directory).await?;
    let mut engine = Engine::open(store, options(period), killed.now_ms).await?;
    engine.save_checkpoint().await;
    drop(engine.into_store());
    wait_until_closed(directory).await?;
    let took = starts(directory, period, &killed).await?;
    figure("restart_year", median_ms(took), "ms");
    let bytes = std::fs::metadata(directory.join("uptime.sqlite3"))?.len();
    progress(&format!("the store has {bytes} bytes"));
    Ok(())
}

/// What a ledger says.
struct Told {
    csv: Vec<u8>,
    now_ms: i64,
}

impl Told {
    fn of(history: &History) -> anyhow::Result<Self> {
        let snapshot = history.snapshot();
        let mut csv = Vec::new();
        write_csv(&snapshot, &mut csv)?;
        Ok(Self { csv, now_ms: snapshot.closed.map_or(0, Round::end_ms) + 5_000 })
    }
}

/// Starts on a store, from opening it to the first snapshot, and fails unless it says the same.
async fn starts(directory: &Path, period: Period, told: &Told) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    for _ in 0..TIMES {
        let started = Instant::now();
        let store = SqliteStore::open(directory).await?;
        let engine = Engine::open(store, options(period), told.now_ms).await?;
        let snapshot = engine.snapshot();
        took.push(started.elapsed());
        let mut csv = Vec::new();
        write_csv(snapshot, &mut csv)?;
        ensure!(csv == told.csv, "the store, opened again, does not say what it said");
        drop(engine.into_store());
        wait_until_closed(directory).await?;
    }
    Ok(took)
}
