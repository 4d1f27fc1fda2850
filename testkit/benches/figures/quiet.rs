//! What dead providers cost the operators of daemons: `dead_error_lines`, ERROR lines a day in the
//! log of one daemon, and `dead_relay_queries`, questions to the relay per round of all probes,
//! with 300 of 1,500 providers dead.
//!
//! The shipped aggregator and three shipped probes, each beside a fake yagna that has a channel to
//! everybody and counts what it logs and asks. Rounds of 10 s, so that the probes are through with
//! asking ever less often in minutes; a day has as many rounds as one of 30 s rounds. Both are told
//! for the first rounds, too, in which everybody is asked: the ratio is what asking less saves.

use std::time::{Duration, Instant};

use anyhow::ensure;
use uptime_testkit::fake_yagna::{Daemon, NetTiming, ProviderSpec, World};

use super::Extent;
use super::report::{figure, progress};
use super::system::{PROBES, System};

const PERIOD_S: u32 = 10;
const PROVIDERS: usize = 1_500;
const DEAD: usize = 300;
/// Rounds that are counted first, after one in which the probes learn whom to ask.
const FIRST_ROUNDS: u32 = 2;
/// From the third pair of questions on, nodes are asked after 1, 2, 4, 8, 16 and 20 rounds: by then
/// all are asked every twentieth round.
const SETTLED_AFTER: u32 = 60;
/// A whole cycle.
const LATER_ROUNDS: u32 = 20;
/// Rounds of a day at the default period.
const ROUNDS_A_DAY: u32 = 2_880;

/// What the daemons have logged and asked so far.
#[derive(Clone, Copy)]
struct Counted {
    lines: u64,
    queries: u64,
}

/// `dead_error_lines` and `dead_relay_queries`.
pub(crate) fn dead(_: Extent) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let [first, later] = runtime.block_on(Box::pin(measure()))?;
    let probes = f64::from(u32::try_from(PROBES)?);
    let day = |(lines, _): (f64, f64)| lines / probes * f64::from(ROUNDS_A_DAY);
    figure("dead_error_lines", day(later), "lines/day");
    figure("dead_error_lines_at_first", day(first), "lines/day");
    figure("dead_relay_queries", later.1, "queries/round");
    figure("dead_relay_queries_at_first", first.1, "queries/round");
    Ok(())
}

/// Lines and queries per round, of all daemons: at first, and when all are asked seldom.
async fn measure() -> anyhow::Result<[(f64, f64); 2]> {
    let world = World::new(7);
    world.set_timing(NetTiming::realistic());
    for number in 0..PROVIDERS {
        let id = world.add_provider(ProviderSpec::in_subnet("public"));
        if number < DEAD {
            // So long ago that the relay has dropped its session.
            world.kill_process_ago(&id, Duration::from_secs(1_200));
        }
    }
    let system = System::start(&world, PERIOD_S).await?;
    let counted = || Counted {
        lines: system.daemons.iter().map(Daemon::error_lines).sum(),
        queries: system.daemons.iter().map(Daemon::relay_queries).sum(),
    };
    // In the first round whoever is on the market becomes known.
    let patience = Instant::now() + Duration::from_secs(60);
    while counted().lines == 0 {
        ensure!(Instant::now() < patience, "nobody was asked within a minute");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let rounds = |count: u32| Duration::from_secs((count * PERIOD_S).into());
    tokio::time::sleep(rounds(1)).await;
    let mut told = Vec::new();
    for (pause, count) in [(0, FIRST_ROUNDS), (SETTLED_AFTER, LATER_ROUNDS)] {
        tokio::time::sleep(rounds(pause)).await;
        let before = counted();
        tokio::time::sleep(rounds(count)).await;
        let after = counted();
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let per_round = |grew: u64| grew as f64 / f64::from(count);
        let lines = per_round(after.lines - before.lines);
        let queries = per_round(after.queries - before.queries);
        progress(&format!("{lines:.1} lines and {queries:.1} queries a round"));
        told.push((lines, queries));
    }
    system.terminate()?;
    told.try_into().map_err(|_| anyhow::anyhow!("two stretches were measured"))
}
