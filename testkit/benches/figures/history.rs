//! A ledger on its real store, led through simulated rounds, every answer and verdict checked.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use uptime_accounting::snapshot::AsOf;
use uptime_aggregator::clock::Timekeeper;
use uptime_aggregator::engine::{Engine, EngineOptions, PartOutcome, Snapshot, Submission, as_of};
use uptime_aggregator::ledger::{Ledger, Task};
use uptime_aggregator::publish::write_csv;
use uptime_aggregator::store::{Details, Registry, SqliteStore};
use uptime_proto::{Epoch, NodeId, Period, Round};

use super::network::{FIRST_S, Network, Piece, Seen, Stages};
use super::report::progress;
use super::stepping::{catch_up, compact, submit};

/// The contract's period.
pub(crate) const ROUND_S: u32 = 30;
/// A line of progress so often.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long the last word may take to reach the disk after the store was dropped.
const CLOSED_WITHIN: Duration = Duration::from_secs(60);

/// The first round of simulated time.
pub(crate) fn first_round(period: Period) -> anyhow::Result<Round> {
    Ok(Round::new(FIRST_S, period)?)
}

pub(crate) fn options(period: Period) -> EngineOptions {
    EngineOptions {
        unconfirmed_nodes_max: 4_000_000,
        ..EngineOptions::new(Epoch::with_defaults(period))
    }
}

/// Enrols probes and answers their numbers.
pub(crate) async fn enrol(store: &mut SqliteStore, probes: usize) -> anyhow::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for probe in 0..probes {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&(probe as u64).to_le_bytes());
        let added = store.add_probe(&format!("probe-{probe}"), &hash, &[], 0).await?;
        numbers.push(added.context("an empty store has this probe already")?.number);
    }
    Ok(numbers)
}

/// Fails unless the last closed round says what the network knows.
pub(crate) fn check_round(
    snapshot: &Snapshot,
    round: Round,
    up: u64,
    down: u64,
) -> anyhow::Result<()> {
    ensure!(snapshot.closed == Some(round), "{round:?} was not closed");
    let last = snapshot.rounds.last().context("no round was summed up")?;
    ensure!(last.round == round, "{round:?} was not summed up");
    let found = (last.up, last.down);
    ensure!(found == (up, down), "{round:?}: up and down are {found:?}, not {:?}", (up, down));
    Ok(())
}

/// The ledger and the network it hears of.
pub(crate) struct History {
    task: Task<SqliteStore>,
    reader: SqliteStore,
    pub(crate) ledger: Ledger,
    probes: Vec<u32>,
    pub(crate) network: Network,
    round: Round,
    seen: Option<Seen>,
    pub(crate) observations: u64,
    pub(crate) parts: u64,
    /// Commit the parts of a probe's round together. Changes no byte on disk, only the time.
    pub(crate) together: bool,
    /// What nodes say of themselves; handed in with the next parts.
    pub(crate) details: Vec<(NodeId, Details)>,
}

impl History {
    pub(crate) async fn open(
        directory: &Path,
        network: Network,
        probes: usize,
        period: Period,
    ) -> Opened {
        let round = first_round(period)?;
        let mut store = SqliteStore::open(directory).await?;
        let probes = enrol(&mut store, probes).await?;
        let engine = Engine::open(store, options(period), round.start_ms()).await?;
        let reader = engine.reader().await?;
        let (task, ledger) = Task::new(engine, Arc::new(Timekeeper::trusted()));
        Ok(Self {
            task,
            reader,
            ledger,
            probes,
            network,
            round,
            seen: None,
            observations: 0,
            parts: 0,
            together: false,
            details: Vec::new(),
        })
    }

    /// Hands in everything of the next round.
    pub(crate) async fn hear(&mut self) -> anyhow::Result<()> {
        let mut seen = self.network.look();
        let views = std::mem::take(&mut seen.views);
        let (round, mut all) = (self.round, Vec::new());
        for view in views {
            all.push(self.network.stages(view, round));
        }
        let probes = self.probes.clone();
        if self.together {
            for (probe, stages) in probes.iter().zip(&all) {
                self.submit(*probe, stages.all()).await?;
            }
        } else {
            let by_stage: [fn(&Stages) -> &[Piece]; 3] =
                [|all| &all.market, |all| &all.first, |all| &all.second];
            for stage in by_stage {
                for (probe, stages) in probes.iter().zip(&all) {
                    self.submit(*probe, stage(stages).iter()).await?;
                }
            }
        }
        self.seen = Some(seen);
        Ok(())
    }

    async fn submit<'a>(
        &mut self,
        probe: u32,
        pieces: impl Iterator<Item = &'a Piece>,
    ) -> anyhow::Result<()> {
        let (mut parts, mut now_ms) = (Vec::new(), 0);
        for piece in pieces {
            now_ms = now_ms.max(piece.observed_at_ms + 40);
            self.observations += piece.observations();
            parts.push(piece.part(&self.network.ids, self.round));
        }
        self.parts += parts.len() as u64;
        let details = std::mem::take(&mut self.details);
        let submission = Submission { probe, parts, details, ..Submission::default() };
        let outcomes = submit(self.task.engine(), submission, now_ms).await;
        let good = outcomes.iter().all(|outcome| *outcome == PartOutcome::Accepted);
        ensure!(good, "not all were accepted: {outcomes:?}");
        Ok(())
    }

    /// Closes the round that was heard of, and checks it; answers how long closing took.
    pub(crate) async fn close(&mut self) -> anyhow::Result<Duration> {
        let seen = self.seen.take().context("nothing was heard of this round")?;
        let now_ms = Epoch::with_defaults(self.round.period()).closes_at_ms(self.round);
        let started = Instant::now();
        catch_up(self.task.engine(), now_ms).await;
        let took = started.elapsed();
        self.task.publish();
        check_round(&self.snapshot(), self.round, seen.up, seen.down)?;
        self.round = self.round.next();
        self.network.advance();
        Ok(took)
    }

    /// So many rounds, one after the other.
    pub(crate) async fn run(&mut self, rounds: u64) -> anyhow::Result<()> {
        let mut told = Instant::now();
        for round in 0..rounds {
            self.hear().await?;
            self.close().await?;
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                progress(&format!("round {round} of {rounds}"));
            }
        }
        Ok(())
    }

    /// Compacts every day that is over by the last closed round, whether or not it is time; answers
    /// how long that took.
    pub(crate) async fn compact(&mut self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let now_ms = self.round.start_ms() + 3_600_000;
        for day in compact(self.task.engine(), now_ms).await {
            progress(&format!(
                "day {}: {} parts, {} bytes of sets in rows, {} compacted",
                day.day_s, day.parts, day.before_bytes, day.bytes
            ));
        }
        Ok(started.elapsed())
    }

    /// What must be looked for to show a node as it was.
    pub(crate) async fn past(&mut self, number: u32, round: Round) -> anyhow::Result<AsOf> {
        let snapshot = self.snapshot();
        Ok(as_of(&mut self.reader, &snapshot, number, round).await?)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.ledger.snapshot()
    }

    /// Keeps the state, as a stop does.
    pub(crate) async fn keep(&mut self) {
        self.task.engine().save_checkpoint().await;
    }

    /// Ends without keeping anything.
    pub(crate) fn into_store(self) -> SqliteStore {
        self.task.into_engine().into_store()
    }

    /// Stops cleanly, opens the store again, and fails unless it still says the same.
    pub(crate) async fn close_store(self, directory: &Path) -> anyhow::Result<()> {
        let (snapshot, period) = (self.snapshot(), self.round.period());
        let now_ms = snapshot.closed.map_or(0, Round::end_ms) + 5_000;
        let mut before = Vec::new();
        write_csv(&snapshot, &mut before)?;
        let rows = before.iter().filter(|byte| **byte == b'\n').count();
        let nodes = self.network.ids.len();
        ensure!(rows == nodes + 1, "the CSV has {rows} lines for {nodes} nodes and a header");
        drop(self.task.into_engine().into_store());
        wait_until_closed(directory).await?;
        let store = SqliteStore::open(directory).await?;
        let engine = Engine::open(store, options(period), now_ms).await?;
        let mut after = Vec::new();
        write_csv(engine.snapshot(), &mut after)?;
        ensure!(before == after, "the store, opened again, does not say what it said");
        drop(engine.into_store());
        wait_until_closed(directory).await
    }
}

type Opened = anyhow::Result<History>;

/// A store that was dropped is closed by a thread of its own, which then removes its log.
pub(crate) async fn wait_until_closed(directory: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + CLOSED_WITHIN;
    let is_open = || -> std::io::Result<bool> {
        for entry in std::fs::read_dir(directory)? {
            if entry?.file_name().to_string_lossy().ends_with("-wal") {
                return Ok(true);
            }
        }
        Ok(false)
    };
    while is_open()? {
        ensure!(Instant::now() < deadline, "the store was not closed in {CLOSED_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
