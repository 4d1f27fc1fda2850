//! The `uptimectl` command.

mod args;
mod audit;
mod connection;
mod explain;
mod fresh;
mod listing;
mod live_view;
mod node;
mod nodes;
mod outages;
mod output;
mod probes;
mod refused;
mod rounds;
mod screen;
mod summary;
mod table;
mod text;
mod time_argument;
mod uptime;
mod watch;
mod watch_state;
mod window;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use futures_util::TryStreamExt;
use uptime_client::{Client, Error};

use crate::args::{Cli, Command, CsvArgs};
use crate::output::{Misuse, Replacement, Reply};
use crate::screen::Screen;

/// Wrong usage, as sysexits.h has it.
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
    // One thread: a question waits far more than it works.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(run(&cli));
    // Nobody waits for a name server that was asked and given up.
    runtime.shutdown_background();
    match done {
        Ok(status) => status.into(),
        Err(error) => {
            let told = format!("{error:#}");
            for line in told.lines() {
                eprintln!("uptimectl: {}", text::clean(line));
            }
            for line in refused::lines(&error) {
                eprintln!("uptimectl: {}", text::clean(&line));
            }
            if let Some(hint) = hint(&error) {
                eprintln!("{hint}");
            }
            let misuse =
                error.is::<Misuse>() || matches!(error.downcast_ref(), Some(Error::Address { .. }));
            if misuse { EXIT_USAGE.into() } else { ExitCode::FAILURE }
        }
    }
}

/// What to do about a failure.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref()? {
        Error::Unreachable { url, .. } if url.starts_with("https:") => Some(
            "Is it running, does it speak TLS there, and does its certificate come from the \
             authority in --ca-file, or else from one that the system knows?",
        ),
        Error::Unreachable { .. } => Some(
            "Is it running? It prints its address at the start, as 'grpc ADDRESS'; give it with \
             --address http://ADDRESS or in UPTIME_ADDRESS.",
        ),
        Error::Broken { .. } => Some(
            "Is that its gRPC port? By default gRPC is served on 7640 and HTTP on 7641. Or does it \
             speak TLS? Then its address begins with https.",
        ),
        Error::TimedOut { .. } => Some("If it only takes long, give it more time with --timeout."),
        Error::Denied { .. } => Some(
            "Give a token with --token-file or in UPTIME_TOKEN, or a certificate with --cert-file \
             and --key-file.",
        ),
        Error::Address { .. } => Some("Give another with --address or in UPTIME_ADDRESS."),
        _ => None,
    }
}

async fn run(cli: &Cli) -> Result<u8> {
    if let Command::Completions(args) = &cli.command {
        return show(&completions(args.shell.into()));
    }
    let client = cli.connection.options()?.connect().await?;
    let screen = Screen::of_stdout();
    let reply = match &cli.command {
        Command::Summary(args) => summary::reply(&client, *args, &screen).await?,
        Command::Nodes(args) => nodes::reply(&client, args, &screen).await?,
        Command::Node(args) => node::reply(&client, args, &screen).await?,
        Command::Explain(args) => explain::reply(&client, args, &screen).await?,
        Command::Uptime(args) => uptime::reply(&client, args, &screen).await?,
        Command::Outages(args) => outages::reply(&client, args, &screen).await?,
        Command::Watch(args) => return watch::run(&client, args).await,
        Command::Probes(args) => probes::reply(&client, *args, &screen).await?,
        Command::Rounds(args) => rounds::reply(&client, args, &screen).await?,
        Command::Audit(args) => audit::reply(&client, args, &screen).await?,
        Command::Csv(args) => csv(&client, args).await?,
        Command::Completions(args) => completions(args.shell.into()),
    };
    show(&reply)
}

/// Says what there is to say, each to whom it belongs.
fn show(reply: &Reply) -> Result<u8> {
    output::put(reply.text.as_bytes())?;
    for note in &reply.notes {
        eprintln!("{note}");
    }
    if let Some(freshness) = &reply.freshness {
        if !reply.says_freshness {
            eprintln!("as of {}", fresh::words(freshness));
        }
        if let Some(warning) = fresh::warning(freshness) {
            eprintln!("{warning}");
        }
    }
    Ok(reply.status)
}

fn completions(shell: Shell) -> Reply {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "uptimectl", &mut bytes);
    Reply::of_our_own(String::from_utf8_lossy(&bytes).into_owned())
}

/// Passes the CSV on as it comes, byte for byte.
async fn csv(client: &Client, args: &CsvArgs) -> Result<Reply> {
    let mut answer = client.csv().await?;
    let mut file = args.out.as_deref().map(Replacement::begin).transpose()?;
    while let Some(piece) = answer.value.try_next().await? {
        match &mut file {
            Some(file) => file.write(&piece)?,
            None if output::put(&piece)? => {}
            // Nobody reads the rest.
            None => break,
        }
    }
    if let Some(file) = file {
        file.finish()?;
    }
    Ok(Reply::new(String::new(), answer.freshness))
}
