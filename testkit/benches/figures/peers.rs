//! The same observations in this ledger and in its peers: `stored_bytes_200x10`, `uptime_all_24h`,
//! and what `stored_bytes` and `ingest_rate` are compared with.
//!
//! Owns what is compared and how a peer's answers are held to what is known. The peers are
//! Debian's packages, each run as a child with data of its own; how each is used stands in its
//! file. None of them is tuned against: where there was a choice it fell in the peer's favour.

#[path = "peers/http.rs"]
mod http;
#[path = "peers/one_node.rs"]
mod one_node;
#[path = "peers/postgresql.rs"]
mod postgresql;
#[path = "peers/prometheus.rs"]
mod prometheus;
#[path = "peers/samples.rs"]
mod samples;
#[path = "peers/victoria_metrics.rs"]
mod victoria_metrics;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use uptime_aggregator::engine::Snapshot;

use super::Extent;
use super::bytes::{HOUR_S, KeptData, Stored, stored};
use super::history::ROUND_S;
use super::network::Network;
use super::report::{figure, median_ms, progress, ratio, spread};
pub(crate) use one_node::{OneNode, TIMES as ONE_NODE_TIMES, compare_one_node};
use samples::{Feed, Question, Stretch};

/// Answers of a peer, and ours, may differ from what is known by this: its arithmetic, and never
/// a round.
const DIFFER_MAX: f64 = 1e-9;
/// Ours takes so little time that it is asked more often.
const OUR_TIMES: usize = 31;
/// Probes and rounds of what the peers take in to be compared with `ingest_rate`.
const INGEST_PROBES: usize = 4;
const INGEST_ROUNDS: u64 = 120;
const INGEST_ROUNDS_QUICK: u64 = 12;

/// The share of rounds in which each node was up, and how long it took to say so.
type Answer = (BTreeMap<String, f64>, Duration);

/// A running peer.
trait Peer {
    /// Takes a stretch in by its bulk path; answers how long that alone took.
    fn take_in(&mut self, stretch: &Stretch) -> anyhow::Result<Duration>;
    /// Puts everything on disk, compacted if it is to be, and fails unless so many are there.
    fn settle(&mut self, observations: u64, compact: bool) -> anyhow::Result<()>;
    /// Bytes on disk of what it was given: no logs of changes, no caches, nothing it began with.
    fn stored_bytes(&mut self) -> anyhow::Result<u64>;
    /// Answers how much each node was up.
    fn uptimes(&mut self, question: &Question) -> anyhow::Result<Answer>;
    /// How long an empty question takes: the way there and back.
    fn round_trip(&mut self) -> anyhow::Result<Duration>;
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Prometheus,
    VictoriaMetrics,
    PostgreSql,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Prometheus, Self::VictoriaMetrics, Self::PostgreSql];

    /// As figures name it.
    fn name(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::VictoriaMetrics => "victoria_metrics",
            Self::PostgreSql => "postgresql",
        }
    }

    /// Fails unless its programs are installed.
    fn check_installed(self) -> anyhow::Result<()> {
        let programs = match self {
            Self::Prometheus => vec![installed("prometheus"), installed("promtool")],
            Self::VictoriaMetrics => vec![installed("victoria-metrics")],
            Self::PostgreSql => Vec::from(["initdb", "postgres", "psql"].map(server_program)),
        };
        programs.into_iter().try_for_each(|program| program.map(drop))
    }

    fn open(self) -> anyhow::Result<Box<dyn Peer>> {
        Ok(match self {
            Self::Prometheus => Box::new(prometheus::Prometheus::open()?),
            Self::VictoriaMetrics => Box::new(victoria_metrics::VictoriaMetrics::open()?),
            Self::PostgreSql => Box::new(postgresql::PostgreSql::open()?),
        })
    }
}

/// Where a program lies that has to be installed.
fn installed(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").context("there is no PATH")?;
    let there = std::env::split_paths(&path).map(|place| place.join(name)).find(|p| p.is_file());
    there.with_context(|| format!("{name} is not installed; use: sh deploy/bench.sh"))
}

/// Where a program of PostgreSQL lies: Debian keeps those of each version in a place of its own.
fn server_program(name: &str) -> anyhow::Result<PathBuf> {
    let mut newest: Option<(u32, PathBuf)> = None;
    for entry in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let version = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        let program = entry.path().join("bin").join(name);
        if program.is_file() && newest.as_ref().is_none_or(|(other, _)| *other < version) {
            newest = Some((version, program));
        }
    }
    newest.map_or_else(|| installed(name), |(_, program)| Ok(program))
}

/// The lengths of all files below.
fn bytes_below(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// The peers to compare with: all of them, but with `--quick` those that are installed.
fn peers(extent: Extent) -> anyhow::Result<Vec<Kind>> {
    let mut there = Vec::new();
    for kind in Kind::ALL {
        match kind.check_installed() {
            Ok(()) => there.push(kind),
            Err(error) if extent == Extent::Quick => {
                progress(&format!("not compared with {}: {error:#}", kind.name()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(there)
}

/// Fails unless the answer is what is known.
fn check(who: &str, answer: &BTreeMap<String, f64>, known: &Known) -> anyhow::Result<()> {
    let (nodes, wanted) = (answer.len(), known.shares.len());
    ensure!(nodes == wanted, "{who} answered for {nodes} nodes, not {wanted}");
    for (id, share) in &known.shares {
        let said = answer.get(id).with_context(|| format!("{who} does not know {id}"))?;
        let right = (said - share).abs() <= DIFFER_MAX;
        ensure!(right, "{who}: {id} was up for {said} of the time, but really for {share}");
    }
    Ok(())
}

/// What the generator knows of the last rounds of some work.
struct Known {
    question: Question,
    shares: BTreeMap<String, f64>,
    observations: u64,
}

impl Known {
    fn of(what: &Stored, rounds: u64, id_starts: &'static str) -> anyhow::Result<Self> {
        let mut feed = Feed::new(what.network(), what.rounds, rounds)?;
        while feed.stretch()?.is_some() {}
        let (question, shares) = (feed.question(id_starts), feed.known(id_starts));
        Ok(Self { question, shares, observations: feed.observations })
    }

    /// Fails unless the ledger got as many observations as the peers will.
    fn check_count(&self, ours: u64) -> anyhow::Result<()> {
        let theirs = self.observations;
        ensure!(ours == theirs, "{ours} observations are ours, and {theirs} the peers'");
        Ok(())
    }
}

/// Everything of some work in a peer, its bytes printed, its answers checked.
fn load(kind: Kind, what: &Stored, known: &Known, ours: f64) -> anyhow::Result<Box<dyn Peer>> {
    let name = kind.name();
    let mut peer = kind.open()?;
    let mut feed = Feed::new(what.network(), what.rounds, 0)?;
    let mut took = Duration::ZERO;
    while let Some(stretch) = feed.stretch()? {
        took += peer.take_in(&stretch)?;
    }
    let (observations, seconds) = (feed.observations, took.as_secs_f64());
    progress(&format!("{name}: {observations} taken in, {:.0}/s", observations as f64 / seconds));
    let started = Instant::now();
    peer.settle(observations, what.compact)?;
    progress(&format!("{name}: settled in {:.1} s", started.elapsed().as_secs_f64()));
    let bytes = peer.stored_bytes()?;
    progress(&format!("{name}: {bytes} bytes for {observations} observations"));
    let (answer, _) = peer.uptimes(&known.question)?;
    check(name, &answer, known)?;
    let theirs = bytes as f64 / observations as f64;
    figure(&format!("{}_{name}", what.name), theirs, "bytes/observation");
    ratio(what.name, ours / theirs, name);
    Ok(peer)
}

/// Stores with the peers too what ours kept.
pub(crate) fn compare_stored(what: &Stored, kept: &KeptData<()>) -> anyhow::Result<()> {
    let rounds = what.rounds.min(u64::from(24 * HOUR_S / ROUND_S));
    // A sixteenth of the nodes, or what is asked for would be more than one query may bring.
    let known = Known::of(what, rounds, "0x0")?;
    known.check_count(kept.observations)?;
    for kind in peers(Extent::Full)? {
        drop(load(kind, what, &known, kept.bytes_each)?);
    }
    Ok(())
}

/// The sizes in which 200 nodes and 10 probes are compared.
struct Size {
    hours: u32,
    stored: &'static str,
    asked_hours: u32,
    asked: &'static str,
    times: usize,
}

impl Size {
    fn of(extent: Extent) -> Self {
        let (asked_hours, asked, times) = (24, "uptime_all_24h", 5);
        match extent {
            Extent::Quick => {
                let (stored, asked) = ("stored_bytes_200x10_6h", "uptime_all_6h");
                Self { hours: 6, stored, asked_hours: 6, asked, times: 3 }
            }
            Extent::Usual => {
                let stored = "stored_bytes_200x10_3d";
                Self { hours: 3 * 24, stored, asked_hours, asked, times }
            }
            Extent::Full => {
                let stored = "stored_bytes_200x10";
                Self { hours: 30 * 24, stored, asked_hours, asked, times }
            }
        }
    }
}

fn rounds_of(hours: u32) -> u64 {
    u64::from(hours * HOUR_S / ROUND_S)
}

/// Our answer, from the snapshot that readers see.
fn our_uptimes(snapshot: &Snapshot, question: &Question) -> Answer {
    let Question { from_s, to_s, .. } = *question;
    let started = Instant::now();
    let mut shares = Vec::new();
    for number in &snapshot.confirmed {
        let tally = snapshot.windowed(number, from_s, to_s).tally;
        shares.push((number, tally.uptime_percent()));
    }
    let took = started.elapsed();
    let named = shares.into_iter().filter_map(|(number, percent)| {
        Some((snapshot.ids.id(number)?.to_string(), percent? / 100.0))
    });
    (named.collect(), took)
}

fn ask_us(snapshot: &Snapshot, known: &Known) -> anyhow::Result<Vec<Duration>> {
    let (answer, _warm_up) = our_uptimes(snapshot, &known.question);
    check("this ledger", &answer, known)?;
    Ok((0..OUR_TIMES).map(|_| our_uptimes(snapshot, &known.question).1).collect())
}

/// `stored_bytes_200x10` and `uptime_all_24h`.
pub(crate) fn two_hundred_by_ten(extent: Extent) -> anyhow::Result<()> {
    let peers = peers(extent)?;
    let size = Size::of(extent);
    let what = Stored {
        name: size.stored,
        seed: 13,
        nodes: 200,
        probes: 10,
        rounds: rounds_of(size.hours),
        together: true,
        everywhere: true,
        compact: extent != Extent::Quick,
    };
    let known = Known::of(&what, rounds_of(size.asked_hours), "")?;
    let kept = stored(&what, |snapshot| ask_us(snapshot, &known))?;
    known.check_count(kept.observations)?;
    progress(&format!("{}: {}", size.asked, spread(&kept.answer)));
    let ours_ms = median_ms(kept.answer);
    figure(size.asked, ours_ms, "ms");
    for kind in peers {
        let name = kind.name();
        let mut peer = load(kind, &what, &known, kept.bytes_each)?;
        // The question that was checked has warmed it up.
        let mut took = Vec::new();
        for _ in 0..size.times {
            let (answer, once) = peer.uptimes(&known.question)?;
            check(name, &answer, &known)?;
            took.push(once);
        }
        let empty = peer.round_trip()?;
        progress(&format!("{name}: {}; {empty:.2?} for an empty question", spread(&took)));
        let theirs_ms = median_ms(took);
        figure(&format!("{}_{name}", size.asked), theirs_ms, "ms");
        ratio(size.asked, ours_ms / theirs_ms, name);
    }
    Ok(())
}

/// How fast the peers take in what `ingest_rate` takes in: look-ups of these nodes by four probes.
pub(crate) fn compare_ingest(nodes: usize, ours: f64, extent: Extent) -> anyhow::Result<()> {
    let quick = extent == Extent::Quick;
    let rounds = if quick { INGEST_ROUNDS_QUICK } else { INGEST_ROUNDS };
    for kind in peers(extent)? {
        let name = kind.name();
        let network = Network::new(41, nodes, INGEST_PROBES, ROUND_S).looked_for_everywhere();
        let mut feed = Feed::new(network, rounds, 0)?;
        let mut peer = kind.open()?;
        let mut took = Duration::ZERO;
        while let Some(stretch) = feed.stretch()? {
            took += peer.take_in(&stretch)?;
        }
        peer.settle(feed.observations, false)?;
        progress(&format!("{name}: {} observations in {took:.2?}", feed.observations));
        let theirs = feed.observations as f64 / took.as_secs_f64();
        figure(&format!("ingest_rate_{name}"), theirs, "observations/s");
        ratio("ingest_rate", ours / theirs, name);
    }
    Ok(())
}
