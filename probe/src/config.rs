//! The settings: flags, environment, file.
//!
//! Owns names, defaults and bounds. Reads secrets from the environment or a file, never from the
//! command line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use uptime_proto::address::{AddressFault, Plaintext, Scheme, scheme};
use uptime_proto::clock::KernelClock;
use uptime_proto::settings::{Settings, Texts};

use crate::clock::now_unix_ms;
use crate::scan::Enabled;
use crate::uplink::{Tls, Token};
use crate::yagna::{
    AppKey, CommandOptions, Limits, Relay, RelayLimits, RelayOptions, Yagna, YagnaConfigError,
    YagnaOptions, valid_subnet, valid_url,
};

/// Scans the Golem network through one yagna daemon, once per round, and streams the results to
/// an aggregator. Keeps on disk what it cannot send, and sends it later.
///
/// Each setting comes from its flag, else from the environment variable shown with it, else from
/// the --config file (TOML; flag names with underscores), else from its default. The application
/// key comes from YAGNA_APPKEY or --app-key-file, the probe's token from UPTIME_TOKEN or
/// --token-file. UPTIME_LOG sets the log level, for example info or debug.
///
/// Exit status: 0 success; 1 failure (see the --help of each command); 64 wrong usage or settings;
/// 75 (run --once) the round is on disk but not fully delivered.
#[derive(Debug, Parser)]
#[command(name = "uptime-probe", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Scan round after round until SIGTERM or SIGINT
    ///
    /// Exit status: 0 stopped by a signal, or (--once) the aggregator has the whole round; 1 cannot
    /// start, or failed; 64 wrong usage or settings; 75 (--once) the round is on disk but not fully
    /// delivered.
    Run {
        /// Scan one round and exit, for a systemd timer: the current round if enough time is left,
        /// else the next
        #[arg(long)]
        once: bool,
        /// Settings.
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// Scan one round without an aggregator and print the result
    ///
    /// Failed questions are reported on standard error.
    ///
    /// Exit status: 0 the scan worked, even if some questions failed or the daemon's relay session
    /// is too young to show that a node is unreachable; 1 the scan failed: no market was listed, or
    /// no node's state is known; 64 wrong usage or settings.
    Scan {
        /// Output format
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
        /// Settings.
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// Test everything the probe needs, and say what is wrong and how to fix it
    ///
    /// Each line begins with a word. "ok": this works. "WRONG": this does not work, and the line
    /// says how to fix it. "note": the result is not clear yet. "-": this was not tested, and the
    /// line says why. The check does not disturb a running probe. It takes at most a minute.
    ///
    /// Exit status: 0 nothing is wrong; 1 a line says WRONG; 64 wrong usage or settings.
    Check(SettingArgs),
    /// Exchange a ticket, read from standard input, for this probe's token
    ///
    /// The aggregator's operator makes the ticket with: uptime-aggregator probe add NAME --ticket
    ///
    /// Exit status: 0 the token is in the file; 1 it is not; 64 wrong usage or settings.
    Join(JoinArgs),
    /// Inspect or repair the spool
    #[command(subcommand)]
    Spool(SpoolCommand),
}

/// Settings of `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The aggregator's address
    #[arg(
        long,
        env = "UPTIME_AGGREGATOR",
        value_name = "URL",
        default_value = "http://127.0.0.1:7640"
    )]
    pub aggregator: String,
    /// CA certificates (PEM) to trust for an https aggregator [default: the system's]
    #[arg(long, env = "UPTIME_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The file to write the token to; it must not exist yet
    #[arg(long, env = "UPTIME_TOKEN_FILE", value_name = "FILE")]
    pub token_file: PathBuf,
    /// Allow plaintext beyond loopback; anyone on the way can read the ticket and the token
    #[arg(long)]
    pub insecure_plaintext_beyond_loopback: bool,
}

impl JoinArgs {
    /// The TLS settings for the aggregator.
    ///
    /// # Errors
    /// Every fault of these settings.
    pub fn read(&self, around: &impl Surroundings) -> Result<Tls, Vec<String>> {
        let ca_file = self.ca_file.iter().map(|path| path.display().to_string());
        let said = ca_file.map(|path| ("ca-file".to_owned(), vec![path])).collect();
        let mut settings = Settings::new(said, Texts::new());
        let plaintext = plaintext(self.insecure_plaintext_beyond_loopback);
        check_aggregators(&mut settings, std::slice::from_ref(&self.aggregator), plaintext);
        let tls = read_tls(&mut settings, around, std::slice::from_ref(&self.aggregator));
        settings.finish().map(|()| tls)
    }
}

/// The commands of `spool`.
#[derive(Debug, Subcommand)]
pub enum SpoolCommand {
    /// List its segments: size, waiting parts, rounds, damage
    List(SpoolArgs),
    /// Read everything and report each damaged place; exit status 1 if there is one
    Verify(SpoolArgs),
    /// Rewrite damaged segments with everything that is readable, and quarantine the damaged files;
    /// stop the probe first
    Repair(SpoolArgs),
}

/// Settings of `spool`.
#[derive(Debug, Args)]
pub struct SpoolArgs {
    /// A TOML settings file; only the spool settings are used
    #[arg(long, env = "UPTIME_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The spool's directory [default: ./uptime-spool]
    #[arg(long, env = "UPTIME_SPOOL_DIR", value_name = "DIR")]
    pub spool_dir: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    pub output: SpoolOutput,
}

/// Output formats of `spool`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpoolOutput {
    /// A table
    Table,
    /// JSON
    Json,
}

impl SpoolArgs {
    /// The spool's directory and the bytes it may take.
    ///
    /// # Errors
    /// Every fault of these settings.
    pub fn read(&self, around: &impl Surroundings) -> Result<(PathBuf, u64), Vec<String>> {
        let mut file = match &self.config {
            None => Texts::new(),
            Some(path) => read_file(path, around).map_err(|fault| vec![fault])?,
        };
        file.retain(|name, _| name.replace('_', "-").starts_with("spool-"));
        let said = self.spool_dir.iter().map(|dir| ("spool-dir".to_owned(), vec![dir.clone()]));
        let mut settings = Settings::new(said.collect(), file);
        let directory = settings.one("spool-dir", PathBuf::from("uptime-spool"));
        let bytes_max = spool_bytes_max(&mut settings);
        settings.finish()?;
        Ok((directory, bytes_max))
    }
}

fn spool_bytes_max(settings: &mut Settings) -> u64 {
    settings.number("spool-bytes-max", 64 << 20, 1 << 20, 1 << 40)
}

/// Output formats of `scan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table
    Table,
    /// One JSON array
    Json,
    /// CSV with a header line
    Csv,
}

macro_rules! setting_args {
    ($($(#[doc = $doc:literal])+ $field:ident = $name:literal, $env:literal, $value:literal;)+) => {
        /// Settings, as texts.
        #[derive(Debug, Default, Args)]
        pub struct SettingArgs {
            /// A TOML settings file
            #[arg(long, env = "UPTIME_CONFIG", value_name = "FILE")]
            pub config: Option<PathBuf>,
            /// A subnet to scan; repeatable [default: public]
            #[arg(long = "subnet-tag", env = "UPTIME_SUBNET_TAG", value_name = "SUBNET",
                  value_delimiter = ',')]
            pub subnet_tag: Vec<String>,
            /// The aggregator's address; repeatable, tried in turn
            /// [default: http://127.0.0.1:7640]
            #[arg(long, env = "UPTIME_AGGREGATOR", value_name = "URL", value_delimiter = ',')]
            pub aggregator: Vec<String>,
            /// Allow plaintext beyond loopback; anyone on the way can read and forge the token and
            /// all observations
            #[arg(long)]
            pub insecure_plaintext_beyond_loopback: bool,
            $($(#[doc = $doc])+ #[arg(long, env = $env, value_name = $value)]
            pub $field: Option<String>,)+
        }

        impl SettingArgs {
            fn texts(&self) -> Texts {
                let pairs = [$(($name, &self.$field)),+];
                let said = pairs.into_iter().filter_map(|(name, text)| {
                    Some((name.to_owned(), vec![text.clone()?]))
                });
                let lists = [("subnet-tag", &self.subnet_tag), ("aggregator", &self.aggregator)];
                let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
                said.chain(lists.map(|(name, list)| (name.to_owned(), list.clone()))).collect()
            }
        }
    };
}

setting_args! {
    /// The address of yagna's REST API [default: http://127.0.0.1:7465]
    yagna_url = "yagna-url", "YAGNA_API_URL", "URL";
    /// A file with yagna's application key, instead of YAGNA_APPKEY
    app_key_file = "app-key-file", "UPTIME_APP_KEY_FILE", "FILE";
    /// A file with this probe's token, instead of UPTIME_TOKEN
    token_file = "token-file", "UPTIME_TOKEN_FILE", "FILE";
    /// CA certificates (PEM) to trust for an https aggregator [default: the system's]
    ca_file = "ca-file", "UPTIME_CA_FILE", "FILE";
    /// This probe's certificate chain (PEM), if the aggregator requires one
    cert_file = "cert-file", "UPTIME_CERT_FILE", "FILE";
    /// The private key of that certificate (PEM)
    key_file = "key-file", "UPTIME_KEY_FILE", "FILE";
    /// The yagna program, used only if the daemon's REST API cannot look nodes up
    yagna_command = "yagna-command", "UPTIME_YAGNA_COMMAND", "PATH";
    /// The address of a relay's HTTP listing, as an additional source [default: none]
    relay_url = "relay-url", "UPTIME_RELAY_URL", "URL";
    /// Pages of the relay's listing per second, at most [default: 100]
    relay_requests_per_s_max = "relay-requests-per-s-max", "UPTIME_RELAY_REQUESTS_PER_S_MAX", "N";
    /// Time limit for a full listing of the relay [default: 10000]
    relay_timeout_ms = "relay-timeout-ms", "UPTIME_RELAY_TIMEOUT_MS", "MS";
    /// Comma-separated sources: market, find-node, direct, latency [default: all]
    sources = "sources", "UPTIME_SOURCES", "LIST";
    /// The directory for parts that wait to be delivered [default: ./uptime-spool]
    spool_dir = "spool-dir", "UPTIME_SPOOL_DIR", "DIR";
    /// Size limit of the spool; beyond it the oldest parts are dropped and reported as a gap
    /// [default: 67108864]
    spool_bytes_max = "spool-bytes-max", "UPTIME_SPOOL_BYTES_MAX", "BYTES";
    /// Serve Prometheus metrics here; loopback only [default: off]
    metrics_addr = "metrics-addr", "UPTIME_METRICS_ADDR", "ADDR:PORT";
    /// FindNode questions per second, at most [default: 1000]
    lookups_per_s_max = "lookups-per-s-max", "UPTIME_LOOKUPS_PER_S_MAX", "N";
    /// FindNode questions in flight, at most [default: 50]
    lookups_in_flight_max = "lookups-in-flight-max", "UPTIME_LOOKUPS_IN_FLIGHT_MAX", "N";
    /// Direct questions in flight, at most [default: 500]
    direct_in_flight_max = "direct-in-flight-max", "UPTIME_DIRECT_IN_FLIGHT_MAX", "N";
    /// Time limit for a short answer of yagna [default: 5000]
    answer_timeout_ms = "answer-timeout-ms", "UPTIME_ANSWER_TIMEOUT_MS", "MS";
    /// Time limit for listing the market of one subnet [default: 10000]
    market_timeout_ms = "market-timeout-ms", "UPTIME_MARKET_TIMEOUT_MS", "MS";
    /// Size limit of one market answer; other answers have lower limits [default: 16777216]
    answer_bytes_max = "answer-bytes-max", "UPTIME_ANSWER_BYTES_MAX", "BYTES";
    /// Whether this host's clock is synchronised: auto asks the kernel; synchronised or
    /// unsynchronised overrides its answer [default: auto]
    kernel_clock = "kernel-clock", "UPTIME_KERNEL_CLOCK", "WORD";
    /// Log format: text or json [default: text]
    log_format = "log-format", "UPTIME_LOG_FORMAT", "FORMAT";
}

/// Everything the probe needs to know.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "named as the flags, which --help documents")]
pub struct Config {
    pub yagna: YagnaOptions,
    pub subnets: Vec<String>,
    pub aggregators: Vec<String>,
    pub token: Option<Token>,
    pub tls: Tls,
    pub enabled: Enabled,
    pub kernel_clock: Option<KernelClock>,
    pub command: Option<CommandOptions>,
    pub relay: Option<RelayOptions>,
    pub spool_dir: PathBuf,
    pub spool_bytes_max: u64,
    pub metrics_addr: Option<SocketAddr>,
    pub log_json: bool,
}

/// Where secrets and files are read from. Tests replace it.
pub trait Surroundings {
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// A file's text.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, path: &Path) -> std::io::Result<String>;
}

/// The real environment and file system.
#[derive(Debug, Clone, Copy)]
pub struct Real;

impl Surroundings for Real {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> std::io::Result<String> {
        std::fs::read_to_string(path)
    }
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// All faults, each with the name of the setting and what it may be.
    pub fn read(args: &SettingArgs, around: &impl Surroundings) -> Result<Self, Vec<String>> {
        let file = match &args.config {
            None => Texts::new(),
            Some(path) => read_file(path, around).map_err(|fault| vec![fault])?,
        };
        let mut settings = Settings::new(args.texts(), file);
        let base_url = settings.checked("yagna-url", "http://127.0.0.1:7465".to_owned(), |text| {
            valid_url(text).map(|()| text.to_owned())
        });
        let app_key =
            secret(&mut settings, around, "YAGNA_APPKEY", "app-key-file").unwrap_or_else(|| {
                settings.fault(
                    "no application key: set YAGNA_APPKEY, or --app-key-file to a file with it \
                     (make one with: yagna app-key create uptime-probe)",
                );
                String::new()
            });
        let token = secret(&mut settings, around, "UPTIME_TOKEN", "token-file");
        let token = token.and_then(|token| match Token::new(&token) {
            Ok(token) => Some(token),
            Err(fault) => {
                settings.fault(format!("UPTIME_TOKEN or --token-file: {fault}"));
                None
            }
        });
        let subnets = read_subnets(&mut settings);
        let plaintext = plaintext(args.insecure_plaintext_beyond_loopback);
        let aggregators = read_aggregators(&mut settings, plaintext);
        let spool_dir = settings.one("spool-dir", PathBuf::from("uptime-spool"));
        let spool_bytes_max = spool_bytes_max(&mut settings);
        let metrics_addr = settings.optional("metrics-addr", loopback);
        let tls = read_tls(&mut settings, around, &aggregators);
        let enabled = settings.checked("sources", Enabled::ALL, read_sources);
        let limits = read_limits(&mut settings);
        let kernel_clock = settings.checked("kernel-clock", None, KernelClock::read_setting);
        let command = settings.optional("yagna-command", |text| Ok(CommandOptions::new(text)));
        let relay = read_relay(&mut settings);
        let log_json = settings.checked("log-format", false, |text| match text {
            "text" => Ok(false),
            "json" => Ok(true),
            _ => Err("must be text or json".to_owned()),
        });
        settings.finish()?;
        let app_key = AppKey::new(app_key);
        let yagna = YagnaOptions { base_url, app_key, limits, now_unix_ms };
        Ok(Self {
            yagna,
            subnets,
            aggregators,
            token,
            tls,
            enabled,
            kernel_clock,
            command,
            relay,
            spool_dir,
            spool_bytes_max,
            metrics_addr,
            log_json,
        })
    }
}

impl Config {
    /// A handle to the daemon; it marks its demands with this name, see [`crate::identity`].
    ///
    /// # Errors
    /// When its address, key or limits are unusable.
    pub fn open_yagna(&self, instance: &str) -> Result<Yagna, YagnaConfigError> {
        let yagna = Yagna::new(self.yagna.clone())?.with_instance(instance);
        match &self.command {
            Some(command) => yagna.with_command(command.clone()),
            None => Ok(yagna),
        }
    }
}

fn read_subnets(settings: &mut Settings) -> Vec<String> {
    let mut subnets = settings.many("subnet-tag");
    if subnets.is_empty() {
        subnets.push("public".to_owned());
    }
    subnets.sort();
    subnets.dedup();
    for subnet in &subnets {
        if let Err(fault) = valid_subnet(subnet) {
            settings.fault(format!("--subnet-tag: {fault}"));
        }
    }
    subnets
}

fn plaintext(beyond_loopback: bool) -> Plaintext {
    if beyond_loopback { Plaintext::Anywhere } else { Plaintext::Loopback }
}

fn read_aggregators(settings: &mut Settings, plaintext: Plaintext) -> Vec<String> {
    let mut aggregators = settings.many("aggregator");
    if aggregators.is_empty() {
        aggregators.push("http://127.0.0.1:7640".to_owned());
    }
    check_aggregators(settings, &aggregators, plaintext);
    aggregators
}

fn check_aggregators(settings: &mut Settings, aggregators: &[String], plaintext: Plaintext) {
    for aggregator in aggregators {
        let Err(fault) = scheme(aggregator, plaintext) else { continue };
        let mend = match fault {
            AddressFault::Malformed => "",
            AddressFault::Plaintext => {
                ": use its https:// address, or a tunnel that ends on this host, or set \
                 --insecure-plaintext-beyond-loopback"
            }
        };
        settings.fault(format!("--aggregator: {aggregator:?}: {fault}{mend}"));
    }
}

/// Whether certificates are used at all. If not, setting one is a fault.
fn any_https(aggregators: &[String]) -> bool {
    let scheme = |address: &String| scheme(address, Plaintext::Anywhere);
    aggregators.iter().any(|address| scheme(address) != Ok(Scheme::Http))
}

fn read_limits(settings: &mut Settings) -> Limits {
    let defaults = Limits::default();
    let mut in_flight = |name, default: usize| {
        let default = u32::try_from(default).unwrap_or(1);
        settings.number32(name, default, 1, 10_000) as usize
    };
    let find_in_flight_max = in_flight("lookups-in-flight-max", defaults.find_in_flight_max);
    let direct_in_flight_max = in_flight("direct-in-flight-max", defaults.direct_in_flight_max);
    let mut millis = |name, default: Duration, low, high| {
        let default = u64::try_from(default.as_millis()).unwrap_or(low);
        Duration::from_millis(settings.number(name, default, low, high))
    };
    let answer_timeout = millis("answer-timeout-ms", defaults.answer_timeout, 100, 60_000);
    let market_timeout = millis("market-timeout-ms", defaults.market_timeout, 1_000, 600_000);
    let bytes = settings.number32("answer-bytes-max", 16 << 20, 64 << 10, 1 << 30);
    Limits {
        find_in_flight_max,
        direct_in_flight_max,
        answer_timeout,
        market_timeout,
        answer_bytes_max: bytes as usize,
        finds_per_s_max: settings.number32(
            "lookups-per-s-max",
            defaults.finds_per_s_max,
            1,
            100_000,
        ),
        ..defaults
    }
}

fn read_relay(settings: &mut Settings) -> Option<RelayOptions> {
    let defaults = RelayLimits::default();
    let timeout_ms = settings.number("relay-timeout-ms", 10_000, 1_000, 600_000);
    let limits = RelayLimits {
        requests_per_s_max: settings.number32(
            "relay-requests-per-s-max",
            defaults.requests_per_s_max,
            1,
            100_000,
        ),
        listing_timeout: Duration::from_millis(timeout_ms),
        ..defaults
    };
    settings.optional("relay-url", |text| {
        let options = RelayOptions { base_url: text.to_owned(), limits: limits.clone() };
        Relay::new(options.clone()).map(|_| options).map_err(|error| error.to_string())
    })
}

fn read_sources(text: &str) -> Result<Enabled, String> {
    let mut enabled = Enabled { market: false, find_node: false, direct: false, latency: false };
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "market" => enabled.market = true,
            "find-node" => enabled.find_node = true,
            "direct" => enabled.direct = true,
            "latency" => enabled.latency = true,
            other => {
                return Err(format!("{other:?} is not one of market, find-node, direct, latency"));
            }
        }
    }
    Ok(enabled)
}

fn read_tls(settings: &mut Settings, around: &impl Surroundings, aggregators: &[String]) -> Tls {
    let of_use = any_https(aggregators);
    let mut read = |name: &str| {
        let path = settings.optional(name, |text| Ok(PathBuf::from(text)))?;
        if !of_use {
            settings.fault(format!(
                "--{name}: certificates are used only with TLS, and no --aggregator address begins \
                 with https://: set one that does, or remove --{name}"
            ));
            // It was set, so the check for a half pair below must not fail, too.
            return Some(String::new());
        }
        match around.read(&path) {
            Ok(text) if text.contains("-----BEGIN") => Some(text),
            Ok(_) => {
                settings.fault(format!("--{name}: {} has nothing in PEM format", path.display()));
                None
            }
            Err(error) => {
                settings.fault(format!("--{name}: {}: {error}", path.display()));
                None
            }
        }
    };
    let (ca, cert, key) = (read("ca-file"), read("cert-file"), read("key-file"));
    if cert.is_some() != key.is_some() {
        settings.fault("--cert-file and --key-file must be set together");
    }
    Tls::new(ca, cert.zip(key))
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text.parse().map_err(|_| "must be ADDR:PORT".to_owned())?;
    if addr.ip().is_loopback() { Ok(addr) } else { Err("must be a loopback address".to_owned()) }
}

/// A secret from the environment, or from the file that a setting names.
fn secret(
    settings: &mut Settings,
    around: &impl Surroundings,
    variable: &str,
    name: &str,
) -> Option<String> {
    let file = settings.optional(name, |text| Ok(PathBuf::from(text)));
    if let Some(value) = around.variable(variable).filter(|value| !value.trim().is_empty()) {
        return Some(value.trim().to_owned());
    }
    let path = file?;
    match around.read(&path) {
        Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Ok(_) => {
            settings.fault(format!("--{name}: {} is empty", path.display()));
            None
        }
        Err(error) => {
            settings.fault(format!("--{name}: {}: {error}", path.display()));
            None
        }
    }
}

fn read_file(path: &Path, around: &impl Surroundings) -> Result<Texts, String> {
    let fault = |error: &dyn std::fmt::Display| format!("--config {}: {error}", path.display());
    let text = around.read(path).map_err(|error| fault(&error))?;
    let table: BTreeMap<String, toml::Value> =
        toml::from_str(&text).map_err(|error| fault(&error))?;
    Ok(table.into_iter().map(|(name, value)| (name, plain_texts(value))).collect())
}

fn plain_texts(value: toml::Value) -> Vec<String> {
    match value {
        toml::Value::String(text) => vec![text],
        toml::Value::Array(values) => values.into_iter().flat_map(plain_texts).collect(),
        other => vec![other.to_string()],
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
