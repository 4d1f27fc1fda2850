//! The `uptime-aggregator` command.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uptime_aggregator::access::commands::{self, CommandError, Place, Said};
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::config::{Cli, Command, Config, SettingArgs};
use uptime_aggregator::disk::default_data_dir;
use uptime_aggregator::rules::commands::rules;
use uptime_aggregator::server::{Ended, Misconfigured, Server, check};
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
            telemetry::say(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            telemetry::say(&format!("uptime-aggregator: {error:#}"));
            if error.is::<Misconfigured>() { EXIT_USAGE.into() } else { ExitCode::FAILURE }
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let now_ms = now_unix_ms();
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
        Command::Migrate { data_dir } => {
            let data_dir = or_default(data_dir);
            let (was, is) = upkeep::migrate(&data_dir).await?;
            let (was, place) = (if was == is { "already" } else { "now" }, data_dir.display());
            print_line(&format!("ok: the store in {place} {was} has schema version {is}"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { data_dir } => {
            let verified = upkeep::verify(&or_default(data_dir), now_unix_ms()).await?;
            verified.lines().iter().for_each(|line| print_line(line));
            let sound = verified.is_sound();
            Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Backup { file, keep, data_dir } => {
            let data_dir = or_default(data_dir);
            let done = upkeep::backup(&data_dir, &file, keep, now_ms).await?;
            done.lines().iter().for_each(|line| print_line(line));
            Ok(ExitCode::SUCCESS)
        }
        Command::Restore { file, data_dir } => {
            let data_dir = or_default(data_dir);
            let restored = upkeep::restore(&file, &data_dir).await?;
            for aside in &restored.aside {
                print_line(&format!("moved aside, left by another store: {}", aside.display()));
            }
            print_line(&format!(
                "ok: {} holds the store of {}, generation {}; start serve with it",
                data_dir.display(),
                file.display(),
                restored.generation
            ));
            Ok(ExitCode::SUCCESS)
        }
        Command::Probe { data_dir, command } => {
            let data_dir = or_default(data_dir);
            say(commands::probe(Place { data_dir: &data_dir, now_ms, tell }, &command).await)
        }
        Command::Access { data_dir, command } => {
            let data_dir = or_default(data_dir);
            say(commands::access(Place { data_dir: &data_dir, now_ms, tell }, &command).await)
        }
        Command::Rules { data_dir, command } => {
            say(rules(Place { data_dir: &or_default(data_dir), now_ms, tell }, &command).await)
        }
        Command::Authority { data_dir, command } => {
            let data_dir = or_default(data_dir);
            say(commands::authority(Place { data_dir: &data_dir, now_ms, tell }, &command))
        }
        Command::ImportCsv(args) => {
            Ok(ended(import_csv(&args, now_unix_ms(), &mut std::io::stdout()).await))
        }
        Command::Export(args) => Ok(ended(export(&args, now_unix_ms()).await)),
    }
}

fn or_default(data_dir: Option<PathBuf>) -> PathBuf {
    data_dir.unwrap_or_else(default_data_dir)
}

fn configured(args: &SettingArgs) -> Result<Config, ExitCode> {
    Config::read(args).map_err(|faults| {
        for fault in &faults {
            telemetry::say(&format!("uptime-aggregator: {fault}"));
        }
        ExitCode::from(EXIT_USAGE)
    })
}

/// Reports the result of a transfer.
fn ended(done: Result<(), TransferError>) -> ExitCode {
    match done {
        Ok(()) => return ExitCode::SUCCESS,
        // The reader, such as `head`, has closed the pipe: no error.
        Err(TransferError::Gone) => {}
        Err(error) => {
            telemetry::say(&format!("uptime-aggregator: {error}"));
            if matches!(error, TransferError::Usage(_)) {
                return EXIT_USAGE.into();
            }
        }
    }
    ExitCode::FAILURE
}

/// Prints to standard output. A closed pipe does not stop the daemon.
fn print_line(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

async fn serve(mut config: Config) -> anyhow::Result<ExitCode> {
    telemetry::start_logging(config.log_format);
    let metrics = telemetry::start_metrics()?;
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup: signal(SignalKind::hangup())?,
    };
    loop {
        let server = Server::build(config.clone(), metrics.clone()).await?;
        print_line(&format!("grpc {}", server.grpc_addr));
        print_line(&format!("http {}", server.http_addr));
        print_line(&format!("csv {}", config.csv.display()));
        let version = env!("CARGO_PKG_VERSION");
        let (grpc, http) = (server.grpc_addr, server.http_addr);
        tracing::info!(version, %grpc, %http, "aggregator started");
        // A restart listens on the same addresses.
        (config.grpc_addr, config.http_addr) = (server.grpc_addr, server.http_addr);
        match run_server(server, &mut signals).await? {
            Ended::Stopped => return Ok(ExitCode::SUCCESS),
            Ended::RoomCame => {}
        }
    }
}

/// The handled signals.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

async fn run_server(server: Server, signals: &mut Signals) -> anyhow::Result<Ended> {
    let shutdown = CancellationToken::new();
    let tls = server.tls();
    let stop = shutdown.clone();
    let running = server.run_until_room(shutdown);
    tokio::pin!(running);
    loop {
        tokio::select! {
            result = &mut running => return result,
            _ = signals.terminate.recv() => stop.cancel(),
            _ = signals.interrupt.recv() => stop.cancel(),
            _ = signals.hangup.recv() => match &tls {
                Some(tls) => tls.reload(),
                None => tracing::info!("no certificates to reload"),
            },
        }
    }
}

/// Tells what a command about identities says; a token that nobody saw is of no use to anybody.
fn tell(Said { answer, note, .. }: &Said) -> std::io::Result<()> {
    if !note.is_empty() {
        telemetry::say(note.trim_end());
    }
    let mut out = std::io::stdout().lock();
    out.write_all(answer.as_bytes()).and_then(|()| out.flush())
}

/// Prints what a command about identities says, unless it was told already.
fn say(said: Result<Said, CommandError>) -> anyhow::Result<ExitCode> {
    match said {
        Ok(said) => {
            if !said.told {
                tell(&said)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(CommandError::Usage(fault)) => {
            telemetry::say(&format!("uptime-aggregator: {fault}"));
            Ok(EXIT_USAGE.into())
        }
        Err(error) => Err(error.into()),
    }
}
