//! The `uptime-aggregator` command.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uptime_aggregator::access::{check_name, hash_token, new_token};
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::config::{
    Cli, Command, Config, ProbeCommand, SettingArgs, default_data_dir,
};
use uptime_aggregator::publish::utc_stamp;
use uptime_aggregator::server::{Server, check};
use uptime_aggregator::store::{SqliteStore, Store};
use uptime_aggregator::transfer::TransferError;
use uptime_aggregator::transfer::export::export;
use uptime_aggregator::transfer::import::import_csv;
use uptime_aggregator::{telemetry, upkeep};

/// Wrong usage or configuration, as sysexits.h has it.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing more can be done when even this cannot be printed.
            error.print().ok();
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("uptime-aggregator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => match configured(&args) {
            Ok(config) => serve(config).await,
            Err(code) => Ok(code),
        },
        Command::Check(args) => match configured(&args) {
            Ok(config) => {
                let found = check(config).await?;
                print_line(&format!("ok: {found}"));
                Ok(ExitCode::SUCCESS)
            }
            Err(code) => Ok(code),
        },
        Command::Verify { data_dir } => {
            let verified =
                upkeep::verify(&data_dir.unwrap_or_else(default_data_dir), now_unix_ms()).await?;
            verified.lines().iter().for_each(|line| print_line(line));
            let sound = verified.is_sound();
            Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Backup { file, data_dir } => {
            let bytes = upkeep::backup(&data_dir.unwrap_or_else(default_data_dir), &file).await?;
            print_line(&format!("ok: {} holds the store, {bytes} bytes", file.display()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Restore { file, data_dir } => {
            let data_dir = data_dir.unwrap_or_else(default_data_dir);
            let generation = upkeep::restore(&file, &data_dir).await?;
            print_line(&format!(
                "ok: {} holds the store of {}, generation {generation}; start serve with it",
                data_dir.display(),
                file.display()
            ));
            Ok(ExitCode::SUCCESS)
        }
        Command::Probe { data_dir, command } => {
            probe(&data_dir.unwrap_or_else(default_data_dir), command).await
        }
        Command::ImportCsv(args) => {
            Ok(ended(import_csv(&args, now_unix_ms(), &mut std::io::stdout()).await))
        }
        Command::Export(args) => Ok(ended(export(&args, now_unix_ms()).await)),
    }
}

fn configured(args: &SettingArgs) -> Result<Config, ExitCode> {
    Config::read(args).map_err(|faults| {
        for fault in &faults {
            eprintln!("uptime-aggregator: {fault}");
        }
        ExitCode::from(EXIT_USAGE)
    })
}

/// Tells what became of a transfer.
fn ended(done: Result<(), TransferError>) -> ExitCode {
    match done {
        Ok(()) => return ExitCode::SUCCESS,
        // Whoever has enough of the rows, as `head`, wants to hear nothing of it.
        Err(TransferError::Gone) => {}
        Err(error) => {
            eprintln!("uptime-aggregator: {error}");
            if matches!(error, TransferError::Usage(_)) {
                return EXIT_USAGE.into();
            }
        }
    }
    ExitCode::FAILURE
}

/// The one place that answers on standard output. Whoever reads it may have gone; that ends no
/// daemon.
fn print_line(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    telemetry::start_logging(config.log_format);
    let metrics = telemetry::start_metrics()?;
    let csv = config.csv.clone();
    let server = Server::build(config, metrics).await?;
    print_line(&format!("grpc {}", server.grpc_addr));
    print_line(&format!("http {}", server.http_addr));
    print_line(&format!("csv {}", csv.display()));
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = shutdown.clone();
    let running = server.run(shutdown);
    tokio::pin!(running);
    loop {
        tokio::select! {
            result = &mut running => return result.map(|()| ExitCode::SUCCESS),
            _ = terminate.recv() => stop.cancel(),
            _ = interrupt.recv() => stop.cancel(),
        }
    }
}

async fn probe(data_dir: &Path, command: ProbeCommand) -> anyhow::Result<ExitCode> {
    let mut store = SqliteStore::open(data_dir).await?;
    match command {
        ProbeCommand::Add { name, subnets_allowed } => {
            if let Err(fault) = check_name(&name) {
                eprintln!("uptime-aggregator: {fault}");
                return Ok(EXIT_USAGE.into());
            }
            let token = new_token();
            let hash = hash_token(&token);
            let added = store.add_probe(&name, &hash, &subnets_allowed, now_unix_ms()).await?;
            if added.is_none() {
                bail!("a probe named {name} is enrolled already; see: probe list");
            }
            eprintln!(
                "Probe {name} is enrolled. Its token follows, once; only a hash of it is kept.\n\
                 On the probe's host put it in a file only the probe can read and start:\n  \
                 uptime-probe run --aggregator http://ADDRESS:7640 --token-file FILE"
            );
            print_line(&token);
        }
        ProbeCommand::List => {
            let probes = store.probes().await.context("reading the probes")?;
            if probes.is_empty() {
                eprintln!("No probe is enrolled yet: uptime-aggregator probe add NAME");
            }
            for probe in probes {
                let subnets = match probe.subnets_allowed.as_slice() {
                    [] => "any subnet".to_owned(),
                    some => some.join(","),
                };
                let state = if probe.revoked { "revoked" } else { "enrolled" };
                let since = utc_stamp(probe.enrolled_at_ms);
                print_line(&format!("{}\t{state}\t{since}\t{subnets}", probe.name));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
