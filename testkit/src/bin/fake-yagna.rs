//! A fake Golem network on loopback, for demonstrations without a real one.
//!
//! Prints the addresses of its daemons, then `ready`, and runs until SIGTERM or SIGINT. Refuses the
//! application key on the command line, where other users could read it.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use uptime_testkit::fake_yagna::{Demonstration, Plan};

/// Run a fake Golem network on loopback.
///
/// The network has several daemons with partial views and providers in several subnets. Three
/// providers are dead but still have offers on the market: a process that died, a host that is
/// gone, and a frozen process.
///
/// The daemons accept one application key, from the environment variable FAKE_YAGNA_APPKEY, or from
/// --app-key-env or --app-key-file.
#[derive(Debug, Parser)]
#[command(name = "fake-yagna")]
struct Options {
    /// Number of daemons
    #[arg(long, default_value_t = 3)]
    daemons: usize,
    /// Number of providers, including the dead ones
    #[arg(long, default_value_t = 300)]
    providers: usize,
    /// Subnet; repeatable. The first has about 70 % of the providers
    #[arg(long = "subnet", default_value = "public")]
    subnets: Vec<String>,
    /// Seed of the random network
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Environment variable with the application key
    #[arg(long, value_name = "NAME", default_value = "FAKE_YAGNA_APPKEY")]
    app_key_env: String,
    /// File with the application key; overrides --app-key-env
    #[arg(long, value_name = "FILE")]
    app_key_file: Option<PathBuf>,
    /// Also serve a relay listing and print its address
    #[arg(long)]
    relay: bool,
    /// Print one line per provider
    #[arg(long)]
    list: bool,
    /// Also write the printed lines to this file; it is complete as soon as it exists
    #[arg(long, value_name = "FILE")]
    announce: Option<PathBuf>,
    /// Index of a daemon that freezes: it accepts connections and does not answer
    #[arg(long, value_name = "INDEX", requires = "freeze_after_s")]
    freeze_daemon: Option<usize>,
    /// Seconds from `ready` until that daemon freezes
    #[arg(long, value_name = "S", requires = "freeze_daemon")]
    freeze_after_s: Option<u64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if options.freeze_daemon.is_some_and(|index| index >= options.daemons) {
        bail!("--freeze-daemon must be less than the number of daemons, {}", options.daemons);
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
