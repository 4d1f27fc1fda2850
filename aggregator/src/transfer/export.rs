//! `export`: everything that is stored, and what follows from it, as tables.
//!
//! Owns the command and how facts, verdicts and nodes become rows. It reads one moment of the
//! store, beside a serving aggregator or without one, a bounded stretch of rounds at a time.
//! Refuses to leave anything out in silence.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use chrono_tz::Tz;
use clap::{Args, ValueEnum};
use uptime_accounting::fact::{Fact, FactKey};
use uptime_accounting::replay::STRETCH_S;
use uptime_accounting::snapshot::NodeView;
use uptime_accounting::verdict::Verdict;
use uptime_proto::round::METHOD_FRESH;
use uptime_proto::{Class, Epochs, Kind, NodeId, Outcome};

use super::columns::{Cell, Column, NODES, OBSERVATIONS, VERDICTS};
use super::ndjson::Ndjson;
use super::output::Output;
use super::parquet::Parquet;
use super::{TransferError, stamp};
use crate::disk::default_data_dir;
use crate::engine::details::DetailsTable;
use crate::engine::replay::{LeftOut, Replayed, rebuild};
use crate::publish::utc_stamp;
use crate::store::{Catalogue, FactLog, Registry, Retraction, SqliteStore, Store};

/// The exported table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Observations of probes, one row each; limit them with --from and --to
    Observations,
    /// Verdicts, one row per node and run of equal verdicts
    Verdicts,
    /// Current nodes, one row each
    Nodes,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object per line
    Ndjson,
    /// Apache Parquet, compressed with zstd
    Parquet,
}

/// Options of `export`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = super::columns::help())]
pub struct ExportArgs {
    /// Table to export
    #[arg(long, value_name = "WHAT")]
    pub what: What,
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "ndjson")]
    pub format: Format,
    /// Start of the first round: 2026-01-31, 2026-01-31T12:00:00Z or Unix seconds; UTC
    #[arg(long, value_name = "TIME", value_parser = second)]
    pub from: Option<u64>,
    /// Only rounds that start before this time
    #[arg(long, value_name = "TIME", value_parser = second)]
    pub to: Option<u64>,
    /// Output file, which appears when complete, or - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub out: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Data directory [default: ./uptime-data]
    #[arg(long, env = "UPTIME_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// The first whole second at or after an instant.
fn second(text: &str) -> Result<u64, String> {
    if let Ok(second) = text.parse() {
        return Ok(second);
    }
    let unix_ms = match stamp::read_day(text) {
        Some(unix_ms) => unix_ms,
        None => stamp::read(text, Tz::UTC).map_err(str::to_owned)?.unix_ms,
    };
    u64::try_from(unix_ms)
        .map(|unix_ms| unix_ms.div_ceil(1000))
        .map_err(|_| "a time since 1970 is wanted".to_owned())
}

/// Writes the rows of a table.
enum Rows<'a> {
    Ndjson(Ndjson<&'a mut Output>),
    Parquet(Box<Parquet<&'a mut Output>>),
}

impl<'a> Rows<'a> {
    fn new(
        format: Format,
        name: &str,
        columns: &'static [Column],
        out: &'a mut Output,
    ) -> io::Result<Self> {
        Ok(match format {
            Format::Ndjson => Self::Ndjson(Ndjson::new(columns, out)),
            Format::Parquet => Self::Parquet(Box::new(Parquet::new(name, columns, out)?)),
        })
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        match self {
            Self::Ndjson(rows) => rows.row(cells),
            Self::Parquet(rows) => rows.row(cells),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Ndjson(_) => Ok(()),
            Self::Parquet(rows) => rows.finish(),
        }
    }
}

/// Why an export stopped short.
enum Stop {
    /// What is read.
    Transfer(TransferError),
    /// What is written.
    Output(io::Error),
}

impl<E: Into<TransferError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Transfer(error.into())
    }
}

fn put(rows: &mut Rows<'_>, cells: &[Cell<'_>]) -> Result<(), Stop> {
    rows.row(cells).map_err(Stop::Output)
}

/// Exports.
///
/// # Errors
/// When nothing was exported; with [`TransferError::Damaged`] the export is there, and this is what
/// it lacks.
pub async fn export(args: &ExportArgs, now_ms: i64) -> Result<(), TransferError> {
    let (from_s, to_s) = (args.from.unwrap_or(0), args.to.unwrap_or(u64::MAX));
    if args.what == What::Nodes && (args.from.is_some() || args.to.is_some()) {
        let why = "--from and --to are for observations and verdicts: nodes are as they stand";
        return Err(TransferError::Usage(why.to_owned()));
    }
    if from_s >= to_s {
        return Err(TransferError::Usage("--from must lie before --to".to_owned()));
    }
    let data_dir = args.data_dir.clone().unwrap_or_else(default_data_dir);
    let mut store = SqliteStore::open_existing(&data_dir).await?;
    let to_stdout = args.out.as_os_str() == "-";
    let mut out = if to_stdout { Output::standard() } else { Output::file(&args.out, args.force)? };
    if args.format == Format::Parquet && out.is_terminal() {
        let why = "Parquet is not for reading on a terminal: say where to with --out FILE";
        return Err(TransferError::Usage(why.to_owned()));
    }
    let left_out =
        match write(args, (&data_dir, &mut store), (from_s, to_s), now_ms, &mut out).await {
            Ok(left_out) => left_out,
            Err(Stop::Transfer(error)) => return Err(error),
            Err(Stop::Output(error)) => return Err(out.failed(&error)),
        };
    out.finish()?;
    if left_out.count == 0 {
        return Ok(());
    }
    let mut told = format!("stored parts left out as they cannot be read: {}", left_out.count);
    for what in left_out.listed {
        told.push_str(&format!("\n  {what}"));
    }
    Err(TransferError::Damaged(told))
}

async fn write(
    args: &ExportArgs,
    (data_dir, store): (&Path, &mut SqliteStore),
    window: (u64, u64),
    now_ms: i64,
    out: &mut Output,
) -> Result<LeftOut, Stop> {
    store.hold().await?;
    let (name, columns) = match args.what {
        What::Observations => ("observations", OBSERVATIONS),
        What::Verdicts => ("verdicts", VERDICTS),
        What::Nodes => ("nodes", NODES),
    };
    let mut rows = Rows::new(args.format, name, columns, out).map_err(Stop::Output)?;
    let left_out = if args.what == What::Observations {
        observations(store, window, &mut rows).await?
    } else {
        let mut rebuilt = rebuild(store, now_ms, false).await?;
        if let Some(rebuilt) = &mut rebuilt {
            match args.what {
                What::Nodes => {
                    let details = DetailsTable::load(store, data_dir).await?;
                    rebuilt.snapshot.details = details.told();
                    nodes(rebuilt, &mut rows)?;
                }
                _ => verdicts(rebuilt, window, &mut rows)?,
            }
        }
        rebuilt.map(|rebuilt| rebuilt.left_out).unwrap_or_default()
    };
    rows.finish().map_err(Stop::Output)?;
    Ok(left_out)
}

/// Names and numbers, for the rows of observations.
struct Names {
    probes: HashMap<u32, String>,
    subnets: Vec<String>,
    ids: Vec<NodeId>,
    retractions: Vec<Retraction>,
}

impl Names {
    fn new(catalogue: Catalogue, retractions: Vec<Retraction>) -> Self {
        let probes = catalogue.probes.into_iter().map(|probe| (probe.number, probe.name));
        let ids = catalogue.nodes.into_iter().map(|(id, _)| id).collect();
        Self { probes: probes.collect(), subnets: catalogue.subnets, ids, retractions }
    }
}

async fn observations(
    store: &mut SqliteStore,
    (from_s, to_s): (u64, u64),
    rows: &mut Rows<'_>,
) -> Result<LeftOut, Stop> {
    let names = Names::new(store.catalogue().await?, store.retractions().await?);
    let mut left_out = LeftOut::default();
    let Some((first, last)) = store.extent().await? else {
        return Ok(left_out);
    };
    let (mut begin_s, end_s) = (first.max(from_s), to_s.min(last.saturating_add(1)));
    // Of one key, the store answers the fact that counts first.
    let mut counting: Option<FactKey> = None;
    while begin_s < end_s {
        let chunk_end_s = begin_s.saturating_add(STRETCH_S).min(end_s);
        for fact in store.read(begin_s, chunk_end_s).await? {
            match fact {
                Ok(fact) => {
                    let counts = counting.replace(fact.key) != Some(fact.key);
                    part(&fact, counts, &names, rows, &mut left_out)?;
                }
                Err(what) => left_out.add(what),
            }
        }
        begin_s = chunk_end_s;
    }
    Ok(left_out)
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Market => "market",
        Kind::Lookup => "lookup",
        Kind::Relay => "relay",
    }
}

const fn class(class: Class) -> &'static str {
    match class {
        Class::Offer => "offer",
        Class::Seen => "seen",
        Class::Answered => "answered",
        Class::Unreachable => "unreachable",
        Class::Failed => "failed",
        Class::AskedEarlier => "asked_earlier",
    }
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Up => "up",
        Verdict::Down => "down",
        Verdict::Unknown => "unknown",
    }
}

/// The rows of one part: one per observation, or one without a node.
fn part(
    fact: &Fact,
    counts: bool,
    names: &Names,
    rows: &mut Rows<'_>,
    left_out: &mut LeftOut,
) -> Result<(), Stop> {
    let FactKey { round, subnet, probe, number } = fact.key;
    let place = || format!("part {number} of probe {probe} in round {}", round.start_s());
    let (Some(probe_name), Some(subnet)) =
        (names.probes.get(&probe), names.subnets.get(subnet as usize))
    else {
        left_out.add(format!("{}: its probe or subnet has no name", place()));
        return Ok(());
    };
    let (outcome, reason) = match fact.outcome {
        Outcome::Looked => ("looked", None),
        Outcome::CouldNotLook(reason) => ("could_not_look", Some(Cell::Text(reason.as_str()))),
    };
    let counts = counts && !names.retractions.iter().any(|it| it.covers(&fact.key));
    let mut row = |class: Cell<'_>, node: Cell<'_>| {
        let cells = [
            Cell::count(round.start_s()),
            Cell::count(round.period().seconds()),
            Cell::Text(probe_name),
            Cell::Text(subnet),
            Cell::count(number),
            Cell::Text(kind(fact.kind)),
            Cell::Text(outcome),
            Cell::or_absent(reason),
            class,
            node,
            Cell::Number(fact.observed_at_ms),
            Cell::Number(fact.received_at_ms),
            Cell::or_absent(fact.relay_session_age_s.map(Cell::count)),
            Cell::Flag(counts),
        ];
        put(rows, &cells)
    };
    let mut nothing = true;
    for which in Class::ALL {
        let set = fact.of(which);
        nothing &= set.is_empty();
        let mut ids: Vec<NodeId> =
            set.iter().filter_map(|node| names.ids.get(node as usize).copied()).collect();
        if (ids.len() as u64) < set.len() {
            left_out.add(format!("{}: a node has no id", place()));
        }
        ids.sort_unstable();
        for id in ids {
            row(Cell::Text(class(which)), Cell::Text(&id.to_string()))?;
        }
    }
    if nothing { row(Cell::Absent, Cell::Absent) } else { Ok(()) }
}

/// The start of the first round in force that starts at or after this moment.
fn round_from(epochs: &Epochs, moment_s: u64) -> u64 {
    let moment_ms = i64::try_from(moment_s.saturating_mul(1000)).unwrap_or(i64::MAX);
    let round = epochs.round_at_ms(moment_ms);
    if round.start_s() < moment_s { round.end_s() } else { round.start_s() }
}

fn verdicts(
    rebuilt: &Replayed,
    (from_s, to_s): (u64, u64),
    rows: &mut Rows<'_>,
) -> Result<(), Stop> {
    let (state, snapshot) = (&rebuilt.state, &rebuilt.snapshot);
    let from_s = round_from(state.epochs(), from_s).max(state.rolled_up_to_s());
    let to_s = round_from(state.epochs(), to_s).min(state.closed_end_s());
    for view in snapshot.nodes() {
        let Some(node) = state.nodes().get(view.number as usize) else { continue };
        let from_s = from_s.max(view.first_seen_s);
        if from_s >= to_s {
            continue;
        }
        let id = view.id.to_string();
        for (begin_s, end_s, decided) in node.timeline.stretches(from_s, to_s) {
            put(
                rows,
                &[
                    Cell::Text(&id),
                    Cell::count(begin_s),
                    Cell::count(end_s),
                    Cell::Text(verdict(decided)),
                    Cell::Text(METHOD_FRESH),
                ],
            )?;
        }
    }
    Ok(())
}

fn nodes(rebuilt: &Replayed, rows: &mut Rows<'_>) -> Result<(), Stop> {
    let snapshot = &rebuilt.snapshot;
    let closed_s = snapshot.closed.map_or(0, |closed| closed.start_s());
    let epoch_s = snapshot.epochs.at(closed_s).start_s;
    for view in snapshot.nodes() {
        let NodeView { number, tally, .. } = &view;
        let last_seen = view.last_seen_ms.map(utc_stamp);
        let details = snapshot.details.get(*number).unwrap_or_default();
        let networks: Vec<&str> = details.networks.iter().map(String::as_str).collect();
        put(
            rows,
            &[
                Cell::Text(&view.id.to_string()),
                Cell::Flag(view.is_online),
                Cell::or_absent(last_seen.as_deref().map(Cell::Text)),
                Cell::count(tally.up_rounds),
                Cell::Fraction(tally.uptime_percent().unwrap_or(0.0)),
                Cell::or_absent(tally.coverage_percent().map(Cell::Fraction)),
                Cell::count(view.first_seen_s),
                Cell::or_absent(view.last_seen_ms.map(Cell::Number)),
                Cell::Text(verdict(view.verdict)),
                Cell::Flag(view.retired),
                Cell::count(tally.up_rounds + tally.down_rounds + tally.unknown_rounds),
                Cell::count(tally.up_s),
                Cell::count(tally.down_s),
                Cell::count(tally.unknown_s),
                Cell::count(closed_s),
                Cell::Text(METHOD_FRESH),
                Cell::count(epoch_s),
                Cell::Texts(&view.subnets),
                Cell::Text(&details.name),
                Cell::Text(&details.runtime),
                Cell::Text(&details.runtime_version),
                Cell::Texts(&networks),
            ],
        )?;
    }
    Ok(())
}
