//! The `uptime-probe` command.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uptime_probe::check::check;
use uptime_probe::config::{Cli, Command, Config, Output, Real, SettingArgs};
use uptime_probe::orders::Orders;
use uptime_probe::scan::Scanner;
use uptime_probe::spool::{Spool, SpoolLimits};
use uptime_probe::survey::{Progress, Row, Survey, survey};
use uptime_probe::telemetry;
use uptime_probe::uplink::{Uplink, UplinkOptions};
use uptime_probe::yagna::Yagna;

/// Wrong usage or configuration, as sysexits.h has it.
const EXIT_USAGE: u8 = 64;
/// The round is on disk; delivering it is left to a later run.
const EXIT_NOT_DELIVERED: u8 = 75;
/// How long the uplink may take to empty the spool when the probe stops, or did one round.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing more can be done when even this cannot be printed.
            error.print().ok();
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    // One thread: a probe waits far more than it works, and each thread costs memory.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(command(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("uptime-probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { once, settings } => match configured(&settings) {
            Ok(config) => run(config, once).await,
            Err(code) => Ok(code),
        },
        Command::Scan { output, settings } => match configured(&settings) {
            Ok(config) => scan(config, output).await,
            Err(code) => Ok(code),
        },
        Command::Check(settings) => match configured(&settings) {
            Ok(config) => Ok(report_check(&config).await),
            Err(code) => Ok(code),
        },
    }
}

fn configured(args: &SettingArgs) -> Result<Config, ExitCode> {
    Config::read(args, &Real).map_err(|faults| {
        for fault in &faults {
            eprintln!("uptime-probe: {fault}");
        }
        ExitCode::from(EXIT_USAGE)
    })
}

/// The one place that answers on standard output. Whoever reads it may have gone; that ends no
/// daemon.
fn print_line(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

async fn run(config: Config, once: bool) -> anyhow::Result<ExitCode> {
    telemetry::start_logging(config.log_json, "info");
    if let Some(addr) = config.metrics_addr {
        telemetry::serve_metrics(addr)?;
    }
    let yagna = Yagna::new(config.yagna)?;
    let limits = SpoolLimits { bytes_max: config.spool_bytes_max };
    let (spool, found) = Spool::open(&config.spool_dir, limits)
        .with_context(|| format!("cannot use the spool in {}", config.spool_dir.display()))?;
    if found.damaged > 0 {
        tracing::error!(damaged = found.damaged, "the spool was damaged; the rest is delivered");
    }
    let orders = Orders::open(&config.spool_dir);
    if let Err(failure) = yagna.delete_leftovers().await {
        tracing::warn!(%failure, "demands of an earlier run, if any, stay until they end");
    }
    let options = UplinkOptions {
        aggregators: config.aggregators,
        token: config.token,
        subnets: config.subnets.clone(),
    };
    let name = config.spool_dir.display().to_string();
    let uplink = Uplink::new(options.clone(), spool.clone(), orders.clone());
    let scanner = Scanner::new(yagna, spool.clone(), orders.clone(), config.subnets, &name);
    let shutdown = CancellationToken::new();
    let mut tasks: JoinSet<()> = JoinSet::new();
    tasks.spawn(uplink.run(shutdown.clone()));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if once {
        let round = tokio::select! {
            round = scanner.once() => round,
            _ = terminate.recv() => return Ok(EXIT_NOT_DELIVERED.into()),
            _ = interrupt.recv() => return Ok(EXIT_NOT_DELIVERED.into()),
        };
        tracing::info!(round = round.start_s(), "one round done");
    } else {
        let scan_stop = CancellationToken::new();
        let mut scanning: JoinSet<()> = JoinSet::new();
        scanning.spawn(scanner.run(scan_stop.clone()));
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            Some(ended) = scanning.join_next() => ended.context("the scanner ended by itself")?,
            Some(ended) = tasks.join_next() => ended.context("the uplink ended by itself")?,
        }
        // Stop scanning, then let the uplink send what is there.
        scan_stop.cancel();
        while scanning.join_next().await.is_some() {}
    }
    let waiting = wait_empty(&spool).await;
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    if waiting > 0 {
        tracing::warn!(waiting, "parts wait in the spool for the next run");
    }
    Ok(if once && waiting > 0 { EXIT_NOT_DELIVERED.into() } else { ExitCode::SUCCESS })
}

/// Waits a bounded time for the spool to be empty; answers what still waits.
async fn wait_empty(spool: &Spool) -> u64 {
    let empty = async {
        while spool.waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DRAIN_WITHIN, empty).await.ok();
    spool.waiting()
}

async fn scan(config: Config, output: Output) -> anyhow::Result<ExitCode> {
    telemetry::start_logging(config.log_json, "error");
    let yagna = Yagna::new(config.yagna)?;
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} nodes looked up, {eta} left")?;
    bar.set_style(style);
    let found = survey(&yagna, &config.subnets, |progress| match progress {
        Progress::Asking(count) => bar.set_length(count as u64),
        Progress::Answered => bar.inc(1),
    })
    .await;
    bar.finish_and_clear();
    yagna.close().await;
    let found = found.context("nothing could be looked at")?;
    print_survey(&found, output)?;
    for failure in &found.failures {
        eprintln!("could not look: {failure}");
    }
    Ok(if found.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_survey(survey: &Survey, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => print_line(&serde_json::to_string_pretty(&survey.rows)?),
        Output::Csv => {
            let mut out = csv::Writer::from_writer(std::io::stdout());
            for row in &survey.rows {
                out.serialize(row)?;
            }
            out.flush()?;
        }
        Output::Table => {
            let widest = |column: fn(&Row) -> &str, least: usize| {
                let longest = survey.rows.iter().map(|row| column(row).chars().count()).max();
                longest.unwrap_or(0).clamp(least, 32)
            };
            let (name, subnet) = (widest(|row| &row.name, 4), widest(|row| &row.subnet, 6));
            let bold = std::io::stdout().is_terminal();
            let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            print_line(&format!(
                "{on}{:42}  {:14}  {:subnet$}  {:name$}  RUNTIME{off}",
                "NODE", "STATE", "SUBNET", "NAME"
            ));
            for row in &survey.rows {
                let cut: String = row.name.chars().take(32).collect();
                print_line(&format!(
                    "{:42}  {:14}  {:subnet$}  {:name$}  {}",
                    row.node_id, row.state, row.subnet, cut, row.runtime
                ));
            }
            let count = |state: &str| survey.rows.iter().filter(|row| row.state == state).count();
            print_line(&format!(
                "{} rows: {} seen, {} answered, {} unreachable, {} could not be looked at",
                survey.rows.len(),
                count("seen"),
                count("answered"),
                count("unreachable"),
                count("could not look")
            ));
        }
    }
    Ok(())
}

async fn report_check(config: &Config) -> ExitCode {
    let mut all_well = true;
    for finding in check(config).await {
        let (word, text) = match &finding.said {
            Ok(text) => ("ok", text),
            Err(text) => {
                all_well = false;
                ("WRONG", text)
            }
        };
        print_line(&format!("{word:5}  {:10}  {text}", finding.what));
    }
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
