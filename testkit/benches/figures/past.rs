//! A node as it was when a round of the past was closed: `node_as_of_p99`.

use std::time::Instant;

use anyhow::{Context, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use uptime_proto::{Period, Round};

use super::Extent;
use super::bytes::HOUR_S;
use super::history::{History, ROUND_S, first_round};
use super::network::Network;
use super::report::{anywhere, figure, percentile_s, progress, spread};

const NODES: usize = 10_000;
const PROBES: usize = 3;
const QUESTIONS: usize = 500;

/// `node_as_of_p99`.
pub(crate) fn as_of(_: Extent) -> anyhow::Result<()> {
    let directory = anywhere()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(async {
        let network = Network::new(14, NODES, PROBES, ROUND_S);
        let period = Period::new(ROUND_S)?;
        let mut history = History::open(directory.path(), network, PROBES, period).await?;
        let rounds = u64::from(24 * HOUR_S / ROUND_S);
        history.run(rounds).await?;
        history.compact().await?;
        let (snapshot, first) = (history.snapshot(), first_round(period)?);
        let mut dice = StdRng::seed_from_u64(14);
        let mut times = Vec::with_capacity(QUESTIONS);
        for _ in 0..QUESTIONS {
            let number = dice.random_range(0..u32::try_from(NODES)?);
            // Not the first rounds: by then nodes must have offered.
            let start_s = first.start_s() + dice.random_range(100..rounds) * u64::from(ROUND_S);
            let round = Round::new(start_s, period)?;
            let started = Instant::now();
            let past = history.past(number, round).await?;
            let view = snapshot.view_at(number, round, &past);
            times.push(started.elapsed());
            let view = view.context("a node was none")?;
            // What is read from the store agrees with the verdicts in memory.
            let whole = snapshot.windowed(number, 0, round.end_s());
            let up = snapshot.ending(number, &whole).and_then(|ending| ending.up);
            let seen_s = view.last_seen_ms.and_then(|ms| u64::try_from(ms / 1000).ok());
            let agrees = match (up, seen_s) {
                (Some((_, end_s)), Some(seen_s)) => {
                    (end_s - u64::from(ROUND_S)..end_s + 5).contains(&seen_s)
                }
                (up, seen) => up.is_none() && seen.is_none(),
            };
            ensure!(agrees, "up {up:?}, last seen {seen_s:?} as of {start_s}");
        }
        progress(&format!(
            "{QUESTIONS} nodes as they were, each at some round: {}",
            spread(&times)
        ));
        figure("node_as_of_p99", percentile_s(&times, 99) * 1000.0, "ms");
        Ok(())
    }))
}
