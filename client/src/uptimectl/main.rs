//! The `uptimectl` command.

mod args;
mod fresh;
mod node;
mod nodes;
mod output;
mod probes;
mod rounds;
mod screen;
mod table;
mod text;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use futures_util::TryStreamExt;
use uptime_client::{Client, Error};

use crate::args::{Cli, Command, CsvArgs};
use crate::output::{Replacement, Reply};
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
    match runtime.block_on(run(&cli)) {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("uptimectl: {}", text::clean(&format!("{error:#}")));
            if let Some(hint) = hint(&error) {
                eprintln!("{hint}");
            }
            match error.downcast_ref() {
                Some(Error::Address { .. }) => EXIT_USAGE.into(),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// What to do about a failure.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref()? {
        Error::Unreachable { .. } => Some(
            "Is it running? It prints its address at the start, as 'grpc ADDRESS'; give it with \
             --address http://ADDRESS or in UPTIME_ADDRESS.",
        ),
        Error::Broken { .. } => {
            Some("Is that its gRPC port? By default gRPC is served on 7640 and HTTP on 7641.")
        }
        Error::Address { .. } => Some("Give another with --address or in UPTIME_ADDRESS."),
        _ => None,
    }
}

async fn run(cli: &Cli) -> Result<u8> {
    let client = Client::connect(&cli.address).await?;
    let screen = Screen::of_stdout();
    let reply = match &cli.command {
        Command::Nodes(args) => nodes::reply(&client, args, &screen).await?,
        Command::Node(args) => node::reply(&client, args, &screen).await?,
        Command::Probes(args) => probes::reply(&client, *args, &screen).await?,
        Command::Rounds(args) => rounds::reply(&client, args, &screen).await?,
        Command::Csv(args) => csv(&client, args).await?,
    };
    output::put(reply.text.as_bytes())?;
    for note in &reply.notes {
        eprintln!("{note}");
    }
    if !reply.says_freshness {
        eprintln!("as of {}", fresh::words(&reply.freshness));
    }
    if let Some(warning) = fresh::warning(&reply.freshness) {
        eprintln!("{warning}");
    }
    Ok(reply.status)
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
