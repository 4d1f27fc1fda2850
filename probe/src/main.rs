//! The `uptime-probe` command.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use uptime_probe::check::{Said, Step, check};
use uptime_probe::config::{
    Cli, Command, Config, JoinArgs, Output, Real, SettingArgs, SpoolArgs, SpoolCommand, SpoolOutput,
};
use uptime_probe::daemon::{self, Ended};
use uptime_probe::identity;
use uptime_probe::join;
use uptime_probe::scan_command::{Progress, Row, ScanReport, Scope, scan_once};
use uptime_probe::spool::{SpoolLimits, inspect, repair};
use uptime_probe::telemetry;
use uptime_probe::yagna::Relay;

/// Wrong usage or configuration, as sysexits.h has it.
const EXIT_USAGE: u8 = 64;
/// Follows a scan that found nothing.
const ADVICE: &str = "run `uptime-probe check` to see what is wrong and how to fix it";
/// At the end, work that waits for the disk gets this long.
const END_WITHIN: Duration = Duration::from_secs(1);
/// The round is on disk; a later run delivers it.
const EXIT_NOT_DELIVERED: u8 = 75;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing more can be done when even this cannot be printed.
            error.print().ok();
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    // One worker thread: a probe mostly waits, and each thread costs memory. This thread handles
    // signals and the watchdog; waits for the disk get threads of their own.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            telemetry::say(&format!("uptime-probe: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(command(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            telemetry::say(&format!("uptime-probe: {error:#}"));
            ExitCode::FAILURE
        }
    };
    // A disk or name server that does not answer must not block the exit.
    runtime.shutdown_timeout(END_WITHIN);
    code
}

async fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { once, settings } => match configured(&settings) {
            Ok(config) => run(config, once, &settings).await,
            Err(code) => Ok(code),
        },
        Command::Scan { output, settings } => match configured(&settings) {
            Ok(config) => scan(config, output).await,
            Err(code) => Ok(code),
        },
        Command::Check(settings) => match configured(&settings) {
            Ok(config) => report_check(&config).await,
            Err(code) => Ok(code),
        },
        Command::Join(args) => join(&args).await,
        Command::Spool(command) => spool(&command),
    }
}

fn configured(args: &SettingArgs) -> Result<Config, ExitCode> {
    Config::read(args, &Real).map_err(|faults| usage(&faults))
}

fn usage(faults: &[String]) -> ExitCode {
    for fault in faults {
        telemetry::say(&format!("uptime-probe: {fault}"));
    }
    ExitCode::from(EXIT_USAGE)
}

/// The one place that prints to standard output. A closed pipe does not end the process.
fn print_line(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

async fn run(config: Config, once: bool, args: &SettingArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_logging(config.log_json, "info");
    Ok(match daemon::run(config, once, || Config::read(args, &Real)).await? {
        Ended::Done => ExitCode::SUCCESS,
        Ended::NotDelivered => EXIT_NOT_DELIVERED.into(),
    })
}

async fn scan(config: Config, output: Output) -> anyhow::Result<ExitCode> {
    telemetry::start_logging(config.log_json, "error");
    if !config.enabled.market {
        return Ok(usage(&[
            "--sources: scan needs the market source: it names the nodes to look up".to_owned(),
        ]));
    }
    let yagna = config.open_yagna(&identity::fresh())?;
    let relay = config.relay.clone().map(Relay::new).transpose()?;
    let (subnets, enabled) = (&config.subnets, config.enabled);
    let scope = Scope { yagna: &yagna, relay: relay.as_ref(), subnets, enabled };
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} nodes looked up, {eta} left")?;
    bar.set_style(style);
    let found = scan_once(&scope, |progress| match progress {
        Progress::Asking(count) => bar.set_length(count as u64),
        Progress::Answered => bar.inc(1),
    })
    .await;
    bar.finish_and_clear();
    yagna.close().await;
    let found = found
        .map_err(|failure| anyhow::anyhow!("no market could be listed ({failure}); {ADVICE}"))?;
    print_report(&found, output)?;
    found.failures.iter().for_each(|failure| telemetry::say(&format!("could not look: {failure}")));
    found.notes.iter().for_each(|note| telemetry::say(&format!("note: {note}")));
    if !found.looked() {
        telemetry::say(&format!("uptime-probe: no node could be looked up; {ADVICE}"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_report(report: &ScanReport, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => print_line(&serde_json::to_string_pretty(&report.rows)?),
        Output::Csv => {
            let mut out = csv::Writer::from_writer(std::io::stdout());
            for row in &report.rows {
                out.serialize(row)?;
            }
            out.flush()?;
        }
        Output::Table => {
            let widest = |column: fn(&Row) -> &str, least: usize| {
                let longest = report.rows.iter().map(|row| column(row).chars().count()).max();
                longest.unwrap_or(0).clamp(least, 32)
            };
            let (name, subnet) = (widest(|row| &row.name, 4), widest(|row| &row.subnet, 6));
            let bold = std::io::stdout().is_terminal();
            let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            print_line(&format!(
                "{on}{:42}  {:14}  {:subnet$}  {:name$}  RUNTIME{off}",
                "NODE", "STATE", "SUBNET", "NAME"
            ));
            for row in &report.rows {
                let cut: String = row.name.chars().take(32).collect();
                print_line(&format!(
                    "{:42}  {:14}  {:subnet$}  {:name$}  {}",
                    row.node_id, row.state, row.subnet, cut, row.runtime
                ));
            }
            let count = |state: &str| report.rows.iter().filter(|row| row.state == state).count();
            let states = ["seen", "answered", "unreachable", "could not look", "not asked"];
            let counts = states.map(|state| format!("{} {state}", count(state)));
            print_line(&format!("{} rows: {}", report.rows.len(), counts.join(", ")));
        }
    }
    Ok(())
}

async fn join(args: &JoinArgs) -> anyhow::Result<ExitCode> {
    let tls = match args.read(&Real) {
        Ok(tls) => tls,
        Err(faults) => return Ok(usage(&faults)),
    };
    let ticket = join::read_ticket(std::io::stdin().lock())?;
    let name = join::join(&args.aggregator, &tls, &ticket, &args.token_file).await?;
    print_line(&format!("{} holds the token of {name}", args.token_file.display()));
    Ok(ExitCode::SUCCESS)
}

fn spool(command: &SpoolCommand) -> anyhow::Result<ExitCode> {
    let (SpoolCommand::List(args) | SpoolCommand::Verify(args) | SpoolCommand::Repair(args)) =
        command;
    let (directory, bytes_max) = match args.read(&Real) {
        Ok(read) => read,
        Err(faults) => return Ok(usage(&faults)),
    };
    let within = || format!("the spool in {}", directory.display());
    let mut well = true;
    match command {
        SpoolCommand::List(_) => {
            let listing = inspect::list(&directory).with_context(within)?;
            print_found(args, &listing, listing.lines())?;
        }
        SpoolCommand::Verify(_) => {
            let verified = inspect::verify(&directory).with_context(within)?;
            well = verified.faults.is_empty();
            print_found(args, &verified, verified.lines())?;
        }
        SpoolCommand::Repair(_) => {
            let limits = SpoolLimits::of_bytes(bytes_max);
            let repaired = repair::repair(&directory, limits).with_context(within)?;
            let mut lines: Vec<String> = repaired.iter().flat_map(|it| it.lines()).collect();
            lines.push(format!("{} segments rewritten", repaired.len()));
            print_found(args, &repaired, lines)?;
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_found(
    args: &SpoolArgs,
    found: &impl serde::Serialize,
    lines: Vec<String>,
) -> anyhow::Result<()> {
    match args.output {
        SpoolOutput::Json => print_line(&serde_json::to_string_pretty(found)?),
        SpoolOutput::Table => lines.iter().for_each(|line| print_line(line)),
    }
    Ok(())
}

/// Prints a line per finding, at once. On a terminal a progress line says what is being tested.
async fn report_check(config: &Config) -> anyhow::Result<ExitCode> {
    let trying = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    trying.set_style(ProgressStyle::with_template("trying {msg} …")?);
    let well = check(config, |step| match step {
        Step::Trying(what) => {
            trying.set_message(what);
            trying.tick();
        }
        Step::Found(finding) => {
            let (word, text) = match &finding.said {
                Said::Well(text) => ("ok", text.clone()),
                Said::Wrong(text) => ("WRONG", text.clone()),
                Said::Unsure(text) => ("note", text.clone()),
                Said::NotTried(why) => ("-", format!("not tried: {why}")),
            };
            trying.suspend(|| print_line(&format!("{word:5}  {:10}  {text}", finding.what)));
        }
    })
    .await;
    trying.finish_and_clear();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
