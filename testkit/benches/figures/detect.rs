//! How long a death takes to reach the CSV: `detect_down_…` where the host is gone and nobody
//! answers, `detect_refused_…` where the process died and its host lives.
//!
//! Everything runs as it would in the field, in real time: an aggregator and three probes as
//! processes of their own, each beside a fake daemon. Providers die one by one, without a word:
//! first those whose process dies, then those whose host goes. Refuses a figure where a living
//! provider was ever shown as down, or a dead one as up again.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use uptime_testkit::fake_yagna::{NetTiming, ProviderSpec, World};

use super::Extent;
use super::process::Running;
use super::report::{figure, percentile_s, progress};
use super::system::System;

const SEED: u64 = 61;
/// How often the file is looked at. So much later than it was replaced may a death be noted.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Within so many rounds all providers must be up, and the last death must be noticed.
const PATIENCE_ROUNDS: u32 = 6;

/// How much of it.
#[derive(Clone, Copy)]
struct Plan {
    /// The end of the names of its figures.
    name: &'static str,
    period_s: u32,
    providers: usize,
    /// Of each kind.
    deaths: u32,
    /// Over so many rounds the deaths of a kind are spread.
    rounds: u32,
}

/// How providers die.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// The process died; the relay drops its session soon, and daemons say so at once.
    Refused,
    /// The host is gone; nobody answers until the limit of the question.
    Silent,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Refused => "detect_refused",
            Self::Silent => "detect_down",
        }
    }

    fn kill(self, world: &World, id: &str) {
        match self {
            Self::Refused => world.kill_process(id),
            Self::Silent => world.kill(id),
        }
    }
}

/// Two deaths a round: of 1,500 providers that stay up for twelve hours on average one dies in a
/// round. More of them, and some question of each round waits for its limit, so that no round
/// closes before its grace is over.
const USUAL: Plan = Plan { name: "", period_s: 30, providers: 1_500, deaths: 100, rounds: 50 };

/// `detect_down_p99`, `detect_down_median`, and the same of `detect_refused`.
pub(crate) fn down(extent: Extent) -> anyhow::Result<()> {
    let quick = Plan { providers: 300, deaths: 8, rounds: 4, ..USUAL };
    figures(if extent == Extent::Quick { quick } else { USUAL })
}

/// The same in rounds of 15 s.
pub(crate) fn in_15_s(_: Extent) -> anyhow::Result<()> {
    figures(Plan { name: "_15s", period_s: 15, ..USUAL })
}

/// The same with 10,000 providers, of which seven die in a round.
pub(crate) fn of_10k(_: Extent) -> anyhow::Result<()> {
    figures(Plan { name: "_10k", providers: 10_000, rounds: 14, ..USUAL })
}

fn figures(plan: Plan) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (kind, took) in runtime.block_on(Box::pin(measure(&plan)))? {
        progress(&format!(
            "{} deaths among {} providers, noticed after {:.1} s to {:.1} s",
            took.len(),
            plan.providers,
            percentile_s(&took, 0),
            percentile_s(&took, 100)
        ));
        let name = kind.name();
        figure(&format!("{name}{}_p99", plan.name), percentile_s(&took, 99), "s");
        figure(&format!("{name}{}_median", plan.name), percentile_s(&took, 50), "s");
    }
    Ok(())
}

async fn measure(plan: &Plan) -> anyhow::Result<Vec<(Kind, Vec<Duration>)>> {
    let world = World::new(SEED);
    world.set_timing(NetTiming::realistic());
    for _ in 0..plan.providers {
        world.add_provider(ProviderSpec::in_subnet("public"));
    }
    let mut system = System::start(&world, plan.period_s).await?;
    let mut file = Csv::new(&system.aggregator.csv());
    let watched = async {
        all_up(&mut file, plan, &mut system.probes).await?;
        let mut dead = HashMap::new();
        let mut took = Vec::new();
        for kind in [Kind::Refused, Kind::Silent] {
            let probes = &mut system.probes;
            let noticed = kill_and_watch(&world, plan, kind, &mut dead, &mut file, probes);
            took.push((kind, noticed.await?));
        }
        anyhow::Ok(took)
    };
    let watched = watched.await;
    let took = watched.with_context(|| system.log_of_a_probe())?;
    system.terminate()?;
    Ok(took)
}

/// Waits until the file shows every provider, and all of them up.
async fn all_up(file: &mut Csv, plan: &Plan, probes: &mut [Running]) -> anyhow::Result<()> {
    let providers = plan.providers;
    let deadline = Instant::now() + Duration::from_secs((PATIENCE_ROUNDS * plan.period_s).into());
    let mut up = 0;
    while up < providers {
        ensure!(Instant::now() < deadline, "only {up} of {providers} providers came up");
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(rows) = file.replaced()? {
            up = rows.iter().filter(|(_, is_online)| *is_online).count();
            progress(&format!("{up} of {providers} providers are up"));
            all_running(probes)?;
        }
    }
    Ok(())
}

/// Kills providers at random moments, one in each of equal stretches of time; answers how long each
/// took to be shown as down.
async fn kill_and_watch(
    world: &World,
    plan: &Plan,
    kind: Kind,
    dead: &mut HashMap<String, Death>,
    file: &mut Csv,
    probes: &mut [Running],
) -> anyhow::Result<Vec<Duration>> {
    let mut dice = StdRng::seed_from_u64(SEED);
    let mut ids = world.alive_ids();
    ids.shuffle(&mut dice);
    let stretch = Duration::from_secs((plan.rounds * plan.period_s).into()) / plan.deaths;
    let began = Instant::now();
    let moments = (0..plan.deaths)
        .map(|number| began + stretch * number + stretch.mul_f64(dice.random()))
        .collect::<Vec<Instant>>();
    let patience = Duration::from_secs((PATIENCE_ROUNDS * plan.period_s).into());
    let deadline = began + stretch * plan.deaths + patience;
    let mut to_come = ids.into_iter().zip(moments).peekable();
    let dead_before = dead.len();
    let mut noticed = 0;
    while noticed < plan.deaths as usize {
        let now = Instant::now();
        let died = dead.len() - dead_before;
        ensure!(now < deadline, "only {noticed} of {died} deaths were noticed");
        while let Some((id, _)) = to_come.next_if(|(_, moment)| *moment <= now) {
            kind.kill(world, &id);
            dead.insert(id, Death { at: Instant::now(), noticed_after: None, is_new: true });
        }
        if let Some(rows) = file.replaced()? {
            noticed += note(&rows, dead)?;
            progress(&format!("{} are dead, {noticed} of them shown as down", dead.len()));
            all_running(probes)?;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let took = |death: &mut Death| {
        std::mem::take(&mut death.is_new).then_some(death.noticed_after).flatten()
    };
    Ok(dead.values_mut().filter_map(took).collect())
}

struct Death {
    at: Instant,
    noticed_after: Option<Duration>,
    /// Of the kind that is measured now.
    is_new: bool,
}

/// Holds the file to what is true; answers how many deaths it shows for the first time.
fn note(rows: &[(String, bool)], dead: &mut HashMap<String, Death>) -> anyhow::Result<usize> {
    let mut new = 0;
    for (id, is_online) in rows {
        match (dead.get_mut(id), *is_online) {
            (None, false) => anyhow::bail!("{id} lives and was shown as down"),
            (Some(Death { noticed_after: Some(_), .. }), true) => {
                anyhow::bail!("{id} is dead and was shown as up again")
            }
            (Some(Death { at, noticed_after: noticed_after @ None, .. }), false) => {
                *noticed_after = Some(at.elapsed());
                new += 1;
            }
            _ => {}
        }
    }
    Ok(new)
}

fn all_running(probes: &mut [Running]) -> anyhow::Result<()> {
    for probe in probes {
        ensure!(probe.0.try_wait()?.is_none(), "a probe ended");
    }
    Ok(())
}

/// The CSV, as somebody sees it who only looks at the file.
struct Csv {
    path: PathBuf,
    /// Inode and time of the last change, seconds and nanoseconds.
    seen: Option<(u64, i64, i64)>,
}

impl Csv {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None }
    }

    /// Ids and whether they are up, if the file is another than when last looked at.
    fn replaced(&mut self) -> anyhow::Result<Option<Vec<(String, bool)>>> {
        let Ok(mut file) = File::open(&self.path) else {
            return Ok(None);
        };
        let about = file.metadata()?;
        let seen = Some((about.ino(), about.mtime(), about.mtime_nsec()));
        if self.seen == seen {
            return Ok(None);
        }
        self.seen = seen;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let rows = text.lines().skip(1).map(|line| {
            let mut columns = line.split(',');
            let id = columns.next().context("a row without an id")?;
            let is_online = columns.next().context("a row without a state")?;
            Ok((id.to_owned(), is_online == "True"))
        });
        Ok(Some(rows.collect::<anyhow::Result<_>>()?))
    }
}
