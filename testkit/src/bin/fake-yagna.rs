//! A fake Golem network on loopback, for demonstrations where no real one is at hand.
//!
//! Prints where its daemons listen, then `ready`, and runs until SIGTERM or SIGINT. Refuses the
//! application key on the command line, where everybody could read it.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use uptime_testkit::fake_yagna::{Demonstration, Plan};

/// A fake Golem network on loopback: several daemons with partial views, providers in
/// several subnets, three of them dead but still on the market: one's process died, one's host is
/// gone, one is frozen.
///
/// The daemons take the application key that stands in the environment variable
/// FAKE_YAGNA_APPKEY, or where --app-key-env or --app-key-file point.
#[derive(Debug, Parser)]
#[command(name = "fake-yagna")]
struct Options {
    /// How many daemons
    #[arg(long, default_value_t = 3)]
    daemons: usize,
    /// How many providers, the dead ones included
    #[arg(long, default_value_t = 300)]
    providers: usize,
    /// A subnet; repeatable, the first gets about 70 % of the providers
    #[arg(long = "subnet", default_value = "public")]
    subnets: Vec<String>,
    /// Draws the network
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The environment variable with the application key
    #[arg(long, value_name = "NAME", default_value = "FAKE_YAGNA_APPKEY")]
    app_key_env: String,
    /// A file with the application key, instead
    #[arg(long, value_name = "FILE")]
    app_key_file: Option<PathBuf>,
    /// Serve a relay listing too, and print where
    #[arg(long)]
    relay: bool,
    /// Print a line per provider
    #[arg(long)]
    list: bool,
    /// Write the printed lines to this file too, complete from the moment it is there
    #[arg(long, value_name = "FILE")]
    announce: Option<PathBuf>,
    /// A daemon that freezes half way: it accepts connections and never answers
    #[arg(long, value_name = "INDEX", requires = "freeze_after_s")]
    freeze_daemon: Option<usize>,
    /// When it does, in seconds from `ready`
    #[arg(long, value_name = "S", requires = "freeze_daemon")]
    freeze_after_s: Option<u64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if options.freeze_daemon.is_some_and(|index| index >= options.daemons) {
        bail!("--freeze-daemon counts from 0 and must name one of {} daemons", options.daemons);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let plan = Plan {
        seed: options.seed,
        daemons: options.daemons,
        providers: options.providers,
        subnets: options.subnets.clone(),
        app_key: app_key(&options)?,
        relay: options.relay,
    };
    let network = Demonstration::start(&plan).await.context("cannot listen on loopback")?;
    announce(&network, &options)?;
    let freezes = async {
        let delay = Duration::from_secs(options.freeze_after_s.unwrap_or_default());
        match options.freeze_daemon.and_then(|index| network.daemons.get(index)) {
            None => std::future::pending().await,
            Some(daemon) => {
                tokio::time::sleep(delay).await;
                daemon.freeze();
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = freezes => {}
    }
    Ok(())
}

fn app_key(options: &Options) -> Result<String> {
    let key = match &options.app_key_file {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the application key in {}", path.display()))?,
        None => std::env::var(&options.app_key_env).with_context(|| {
            format!("set {}, or name a file with --app-key-file", options.app_key_env)
        })?,
    };
    let key = key.trim();
    if key.is_empty() {
        bail!("the application key is empty");
    }
    Ok(key.to_owned())
}

fn announce(network: &Demonstration, options: &Options) -> Result<()> {
    let mut lines = String::new();
    for (index, daemon) in network.daemons.iter().enumerate() {
        lines.push_str(&format!("daemon {index} {}\n", daemon.base_url()));
    }
    if let Some(relay) = &network.relay {
        lines.push_str(&format!("relay {}\n", relay.base_url()));
    }
    for (dead, how) in &network.dead {
        lines.push_str(&format!("dead {dead} {how}\n"));
    }
    if options.list {
        let alive = network.world.alive_ids();
        for (id, subnet) in network.world.providers() {
            let state = if alive.binary_search(&id).is_ok() { "alive" } else { "dead" };
            lines.push_str(&format!("provider {id} {subnet} {state}\n"));
        }
    }
    lines.push_str("ready\n");
    if let Some(path) = &options.announce {
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(".tmp");
        std::fs::write(&unfinished, &lines)
            .and_then(|()| std::fs::rename(&unfinished, path))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(lines.as_bytes())?;
    stdout.flush()?;
    Ok(())
}
