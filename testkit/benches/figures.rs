//! The figures: what the program costs, each measured in the run that prints it.
//!
//! Owns the list of figures and which of them a quick, a default and a full run measure. Started by
//! `sh deploy/bench.sh`, which builds the programs that some figures start; `docs/benchmarks.md`
//! says what each figure is. Answers stand on standard output, progress on standard error.

#[path = "figures/asking.rs"]
mod asking;
#[path = "figures/bytes.rs"]
mod bytes;
#[path = "figures/detect.rs"]
mod detect;
#[path = "figures/history.rs"]
mod history;
#[path = "figures/ingest.rs"]
mod ingest;
#[path = "figures/loaded.rs"]
mod loaded;
#[path = "figures/memory.rs"]
mod memory;
#[path = "figures/network.rs"]
mod network;
#[path = "figures/outbox.rs"]
mod outbox;
#[path = "figures/page.rs"]
mod page;
#[path = "figures/past.rs"]
mod past;
#[path = "figures/peers.rs"]
mod peers;
#[path = "figures/probe.rs"]
mod probe;
#[path = "figures/process.rs"]
mod process;
#[path = "figures/quiet.rs"]
mod quiet;
#[path = "figures/report.rs"]
mod report;
#[path = "figures/restart.rs"]
mod restart;
#[path = "figures/rounds.rs"]
mod rounds;
#[path = "figures/rows.rs"]
mod rows;
#[path = "figures/samples.rs"]
mod samples;
#[path = "../../aggregator/tests/shared/stepping.rs"]
#[allow(dead_code, clippy::unwrap_used, unreachable_pub, reason = "shared with tests")]
mod stepping;
#[path = "figures/system.rs"]
mod system;
#[path = "figures/watching.rs"]
mod watching;

use std::process::ExitCode;
use std::time::Instant;

use report::progress;

/// Wrong usage, as sysexits.h has it.
const EXIT_USAGE: u8 = 64;

/// How much is measured when no figure is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// A smoke run.
    Quick,
    /// Everything that takes minutes.
    Usual,
    /// Everything.
    Full,
}

/// A figure: its name, from which extent on it is measured unasked, and how.
struct Figure {
    name: &'static str,
    from: Extent,
    measure: fn(Extent) -> anyhow::Result<()>,
}

const fn figure(
    name: &'static str,
    from: Extent,
    measure: fn(Extent) -> anyhow::Result<()>,
) -> Figure {
    Figure { name, from, measure }
}

const FIGURES: [Figure; 27] = [
    figure("ingest_rate", Extent::Quick, ingest::native),
    figure("ingest_rate_plain", Extent::Quick, ingest::plain),
    figure("wire_bytes", Extent::Quick, bytes::wire),
    figure("stored_bytes", Extent::Usual, bytes::stored_day),
    figure("stored_bytes_200x10", Extent::Quick, peers::two_hundred_by_ten),
    figure("uptime_all_24h", Extent::Quick, peers::two_hundred_by_ten),
    figure("round_close_10k", Extent::Quick, rounds::close_10k),
    figure("round_close_1m", Extent::Usual, rounds::close_1m),
    figure("csv_10k", Extent::Quick, rows::csv_10k),
    figure("csv_1m", Extent::Usual, rows::csv_1m),
    figure("round_write", Extent::Quick, rows::round_write),
    figure("page_overview", Extent::Quick, page::overview),
    figure("probe_binary", Extent::Quick, probe::binary),
    figure("probe_memory", Extent::Quick, probe::memory),
    figure("spool_35_days", Extent::Quick, outbox::weeks),
    figure("detect_down_p99", Extent::Full, detect::down),
    figure("detect_down_15s_p99", Extent::Full, detect::in_15_s),
    figure("detect_down_10k_p99", Extent::Full, detect::of_10k),
    figure("dead_error_lines", Extent::Usual, quiet::dead),
    figure("uptime_one_p99", Extent::Usual, asking::questions),
    figure("get_node_p99", Extent::Usual, asking::questions),
    figure("query_rate", Extent::Usual, asking::questions),
    figure("watch_delay_p99", Extent::Usual, watching::delay),
    figure("node_as_of_p99", Extent::Usual, past::as_of),
    figure("aggregator_memory", Extent::Usual, memory::aggregator),
    figure("restart_year", Extent::Full, restart::year),
    figure("stored_bytes_hour", Extent::Quick, bytes::stored_hour),
];

/// The first of each is measured with the second, on the same data.
const COME_ALONG: [(&str, &str); 3] = [
    ("uptime_all_24h", "stored_bytes_200x10"),
    ("get_node_p99", "uptime_one_p99"),
    ("query_rate", "uptime_one_p99"),
];

struct Wanted {
    extent: Extent,
    names: Vec<String>,
}

fn read_arguments(arguments: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted { extent: Extent::Usual, names: Vec::new() };
    for argument in arguments {
        match argument.as_str() {
            // Cargo says so to every bench.
            "--bench" => {}
            "--quick" => wanted.extent = Extent::Quick,
            "--full" => wanted.extent = Extent::Full,
            name if FIGURES.iter().any(|figure| figure.name == name) => {
                wanted.names.push(name.to_owned());
            }
            other => {
                let names: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
                let names = names.join(" ");
                return Err(format!("{other:?} is no figure; there are: {names}"));
            }
        }
    }
    Ok(wanted)
}

fn is_wanted(figure: &Figure, wanted: &Wanted) -> bool {
    if wanted.names.is_empty() {
        // The hour stands in for the day, and only where there is no time for the day.
        let stand_in = figure.name == "stored_bytes_hour" && wanted.extent != Extent::Quick;
        let comes_along = COME_ALONG.iter().any(|(name, _)| *name == figure.name);
        figure.from <= wanted.extent && !stand_in && !comes_along
    } else {
        let named = |name: &str| wanted.names.iter().any(|other| other == name);
        let comes_along = |(name, with): &(&str, &str)| *name == figure.name && named(with);
        named(figure.name) && !COME_ALONG.iter().any(comes_along)
    }
}

/// In which size a figure is measured. The month, by name, is a month.
fn extent_of(figure: &Figure, wanted: &Wanted) -> Extent {
    let month = figure.name == "stored_bytes_200x10" && !wanted.names.is_empty();
    if month && wanted.extent == Extent::Usual { Extent::Full } else { wanted.extent }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, directory] = arguments.as_slice()
        && first == memory::KEEP_LEDGER
    {
        return ended("the ledger to measure", memory::keep_ledger(directory.as_ref()));
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        progress("figures take minutes and are no tests: sh deploy/bench.sh measures them");
        return ExitCode::SUCCESS;
    }
    let wanted = match read_arguments(&arguments) {
        Ok(wanted) => wanted,
        Err(fault) => {
            progress(&fault);
            return EXIT_USAGE.into();
        }
    };
    let mut all = ExitCode::SUCCESS;
    for figure in FIGURES.iter().filter(|figure| is_wanted(figure, &wanted)) {
        progress(&format!("{} ...", figure.name));
        let started = Instant::now();
        let one = ended(figure.name, (figure.measure)(extent_of(figure, &wanted)));
        progress(&format!("{} took {:.1} s", figure.name, started.elapsed().as_secs_f64()));
        if one != ExitCode::SUCCESS {
            all = one;
        }
    }
    all
}

fn ended(what: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("{what} FAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
