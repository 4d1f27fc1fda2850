//! What the operator may say: flags, environment, file.
//!
//! Owns names, defaults and bounds. The configuration is read whole before any port is bound.

mod access;
mod commands;
mod rules;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
pub use commands::{AccessCommand, AuthorityCommand, CertificateArgs, ProbeCommand};
pub use rules::{RuleArgs, RulesCommand};
use uptime_accounting::agreement::Policy;
use uptime_proto::clock::KernelClock;
use uptime_proto::settings::{Settings, Texts};
use uptime_proto::{Epoch, Period};

use crate::access::TlsFiles;
use crate::access::limits::Limits;
use crate::disk::default_data_dir;
use crate::engine::RETENTION_S_MIN;
use crate::rules::GivenRules;
use crate::telemetry::LogFormat;
use crate::transfer::export::ExportArgs;
use crate::transfer::import::ImportArgs;

/// See [`RETENTION_S_MIN`].
const RETENTION_DAYS_MIN: u64 = RETENTION_S_MIN / 86_400;
/// A hundred years.
const RETENTION_DAYS_MAX: u64 = 36_525;

/// Decides which Golem providers are up from what many probes saw, writes nodes_status.csv and
/// answers for it.
///
/// Settings are taken from a flag, else from the environment variable named beside it, else from
/// the file given with --config (TOML, the flag's name with underscores), else the default.
/// UPTIME_LOG chooses what is logged, as info or debug.
/// Exit status: 0 done, 1 failed, 64 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "uptime-aggregator", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take reports, close rounds, write the CSV and answer, until SIGTERM or SIGINT
    Serve(SettingArgs),
    /// Read the configuration and open the store as serve would, say what is wrong, and exit
    Check(SettingArgs),
    /// Bring the store of an earlier version up to date, as serve does when it starts; not beside a
    /// running serve
    Migrate {
        /// Where the aggregator keeps its store [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Check everything stored against itself and against the state made of it; works beside a
    /// running serve. Exit status 1 when something is wrong
    Verify {
        /// Where the aggregator keeps its store [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Write a consistent copy of the store into a new file; works beside a running serve
    ///
    /// The files of the built-in authority are not in it; they are named, to be kept apart.
    Backup {
        /// The file, which must not be there yet; with --keep a folder
        file: PathBuf,
        /// Give the copy the name of this moment, in the folder, and remove the oldest such copies
        /// beyond this number
        #[arg(long, value_name = "N")]
        keep: Option<NonZeroUsize>,
        /// Where the aggregator keeps its store [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Check a backup and make a store of it, in a data directory that has none
    Restore {
        /// The backup
        file: PathBuf,
        /// Where the store is to live [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Probes: who may hand in, and what of it counts; works beside a running serve
    Probe {
        /// Where the aggregator keeps its store [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR", global = true)]
        data_dir: Option<PathBuf>,
        /// What to do with them.
        #[command(subcommand)]
        command: ProbeCommand,
    },
    /// Who may read and who may administer, and the trail; works beside a running serve
    Access {
        /// Where the aggregator keeps its store [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR", global = true)]
        data_dir: Option<PathBuf>,
        /// What to do with them.
        #[command(subcommand)]
        command: AccessCommand,
    },
    /// The rules that decide verdicts, as the length of a round; works beside a running serve
    ///
    /// The first start of serve stores the rules it is configured with. From then on they change by
    /// rules set alone: settings of serve that differ change nothing and are reported.
    Rules {
        /// Where the aggregator keeps its store [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR", global = true)]
        data_dir: Option<PathBuf>,
        /// What to do with them.
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// The small built-in certificate authority, for those who have none
    Authority {
        /// Where the aggregator keeps its store [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR", global = true)]
        data_dir: Option<PathBuf>,
        /// What to do with it.
        #[command(subcommand)]
        command: AuthorityCommand,
    },
    /// Take over the totals of an existing nodes_status.csv and its scan_count.txt
    ///
    /// They are kept as a dated opening balance, apart from what is observed, and are added to it
    /// in the CSV of --csv-dialect seed only. Every count below zero or above the number of scans
    /// is clamped, and every stamp of a local time that came twice or never is resolved; each is
    /// told. Any other fault, and nothing is imported. Not beside a running serve.
    ImportCsv(ImportArgs),
    /// Write what is stored as a table, as NDJSON or Parquet; works beside a running serve
    ///
    /// It takes what is stored at the moment it starts. Stored parts that cannot be read are named
    /// and left out, and the exit status is 1.
    Export(ExportArgs),
}

macro_rules! setting_args {
    ($($(#[doc = $doc:literal])+ $field:ident = $name:literal, $env:literal, $value:literal;)+) => {
        /// Settings of serve and check, as texts.
        #[derive(Debug, Default, Args)]
        pub struct SettingArgs {
            /// A TOML file with settings
            #[arg(long, env = "UPTIME_CONFIG", value_name = "FILE")]
            pub config: Option<PathBuf>,
            /// Serve plaintext on addresses beyond loopback, for anyone to read and to forge
            #[arg(long)]
            pub insecure_plaintext_beyond_loopback: bool,
            /// Let anyone read on addresses beyond loopback, without a token or a certificate
            #[arg(long)]
            pub anonymous_readers_beyond_loopback: bool,
            $($(#[doc = $doc])+ #[arg(long, env = $env, value_name = $value)]
            pub $field: Option<String>,)+
        }

        impl SettingArgs {
            fn texts(&self) -> Texts {
                let pairs = [$(($name, &self.$field)),+];
                let said = pairs.into_iter().filter_map(|(name, text)| {
                    Some((name.to_owned(), vec![text.clone()?]))
                });
                said.collect()
            }
        }
    };
}

setting_args! {
    /// Where gRPC is served [default: 127.0.0.1:7640]
    grpc_addr = "grpc-addr", "UPTIME_GRPC_ADDR", "ADDR:PORT";
    /// Where HTTP is served [default: 127.0.0.1:7641]
    http_addr = "http-addr", "UPTIME_HTTP_ADDR", "ADDR:PORT";
    /// The server's certificate (and those between it and its authority), PEM; read anew when it
    /// changes and on SIGHUP. With it both ports speak TLS
    tls_cert_file = "tls-cert-file", "UPTIME_TLS_CERT_FILE", "FILE";
    /// Its private key, PEM, for nobody else to read
    tls_key_file = "tls-key-file", "UPTIME_TLS_KEY_FILE", "FILE";
    /// Authorities, PEM: a client certificate that one of them signed proves the name in it
    client_ca_file = "client-ca-file", "UPTIME_CLIENT_CA_FILE", "FILE";
    /// Whether reading wants a token or a certificate on loopback, too [default: false]
    readers_need_token = "readers-need-token", "UPTIME_READERS_NEED_TOKEN", "BOOL";
    /// Connections, both ports together [default: 2048]
    connections_max = "connections-max", "UPTIME_CONNECTIONS_MAX", "N";
    /// Connections from one address [default: 256]
    connections_per_address_max =
        "connections-per-address-max", "UPTIME_CONNECTIONS_PER_ADDRESS_MAX", "N";
    /// Parts a second that one probe may hand in on average; beyond that it waits [default: 2000]
    parts_per_s_max = "parts-per-s-max", "UPTIME_PARTS_PER_S_MAX", "N";
    /// Parts of one round that one probe may have stored, over all subnets; further ones are
    /// refused [default: 256]
    parts_per_round_max = "parts-per-round-max", "UPTIME_PARTS_PER_ROUND_MAX", "N";
    /// Whether a probe that mostly contradicts all others counts no more until a person decides
    /// [default: false]
    set_aside_disagreeing = "set-aside-disagreeing", "UPTIME_SET_ASIDE_DISAGREEING", "BOOL";
    /// Where the store lives [default: ./uptime-data]
    data_dir = "data-dir", "UPTIME_DATA_DIR", "DIR";
    /// The canonical CSV [default: nodes_status.csv in the data directory]
    csv = "csv", "UPTIME_CSV", "FILE";
    /// How the CSV is written: utc, or seed: what the script this project replaces can load and
    /// continue, with scan_count.txt beside it [default: utc]
    csv_dialect = "csv-dialect", "UPTIME_CSV_DIALECT", "DIALECT";
    /// The subnet that a CSV of the dialect seed is of [default: that of the imported CSV, where it
    /// was told, else the only one]
    csv_subnet = "csv-subnet", "UPTIME_CSV_SUBNET", "NAME";
    /// Length of a round in seconds; divides 86,400. As the next five settings it counts at the
    /// first start with a new store; later: rules set [default: 30]
    round_period_s = "round-period-s", "UPTIME_ROUND_PERIOD_S", "S";
    /// Seconds after a round's end in which its parts are on time [default: 5]
    grace_s = "grace-s", "UPTIME_GRACE_S", "S";
    /// How many probes must have found a node for it to be up [default: 1]
    positive_probes_min = "positive-probes-min", "UPTIME_POSITIVE_PROBES_MIN", "K";
    /// The greatest age of the relay's `seen` that proves life, in seconds [default: 20]
    freshness_s = "freshness-s", "UPTIME_FRESHNESS_S", "S";
    /// The relay session of a probe's daemon must be so old for its "not found" to count
    /// [default: 60]
    relay_session_age_min_s = "relay-session-age-min-s", "UPTIME_RELAY_SESSION_AGE_MIN_S", "S";
    /// How long a provider may take to answer a direct question, in milliseconds [default: 4000]
    direct_timeout_ms = "direct-timeout-ms", "UPTIME_DIRECT_TIMEOUT_MS", "MS";
    /// Ids one probe may have brought that were never confirmed [default: 100000]
    unconfirmed_nodes_max = "unconfirmed-nodes-max", "UPTIME_UNCONFIRMED_NODES_MAX", "N";
    /// Days after which single facts are let go and only their sums stay; at least 40, or 0: never
    /// [default: 400]
    retention_days = "retention-days", "UPTIME_RETENTION_DAYS", "DAYS";
    /// After so many closed rounds in which no probe could look /readyz answers 503; at most 120,
    /// or 0: never, as where probes come through something that follows /readyz [default: 20]
    blind_rounds_max = "blind-rounds-max", "UPTIME_BLIND_ROUNDS_MAX", "N";
    /// Whether this host's clock is synchronised: auto asks the kernel; synchronised or
    /// unsynchronised overrides its answer [default: auto]
    kernel_clock = "kernel-clock", "UPTIME_KERNEL_CLOCK", "WORD";
    /// How logs are written: text or json [default: text]
    log_format = "log-format", "UPTIME_LOG_FORMAT", "FORMAT";
}

/// How the canonical CSV is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CsvDialect {
    /// Stamps with an offset, uptime by the method in force.
    Utc,
    /// For the script this project replaces, by `seed-v1`.
    Seed,
}

/// Everything serve needs to know.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "named as the flags, which --help documents")]
pub struct Config {
    pub grpc_addr: SocketAddr,
    pub http_addr: SocketAddr,
    pub data_dir: PathBuf,
    pub csv: PathBuf,
    pub csv_dialect: CsvDialect,
    pub csv_subnet: Option<String>,
    /// The first rules of a new store.
    pub rules: Epoch,
    /// Those of them that somebody named: nobody differs by a default.
    pub given_rules: GivenRules,
    pub unconfirmed_nodes_max: u64,
    pub retention_s: Option<u64>,
    pub blind_rounds_max: u64,
    pub kernel_clock: Option<KernelClock>,
    pub log_format: LogFormat,
    pub tls: Option<TlsFiles>,
    pub anonymous_grpc: bool,
    pub anonymous_http: bool,
    pub limits: Limits,
    pub disagreement: Policy,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Every fault of it, each with the name of the setting and what it may be.
    pub fn read(args: &SettingArgs) -> Result<Self, Vec<String>> {
        let file = match &args.config {
            None => Texts::new(),
            Some(path) => read_file(path).map_err(|fault| vec![fault])?,
        };
        Self::resolve(args, file)
    }

    fn resolve(args: &SettingArgs, file: Texts) -> Result<Self, Vec<String>> {
        let mut settings = Settings::new(args.texts(), file);
        let grpc_addr = settings.one("grpc-addr", SocketAddr::from(([127, 0, 0, 1], 7640)));
        let http_addr = settings.one("http-addr", SocketAddr::from(([127, 0, 0, 1], 7641)));
        let access = access::resolve(&mut settings, args, grpc_addr, http_addr);
        let data_dir = settings.one("data-dir", default_data_dir());
        let csv = settings.one("csv", data_dir.join("nodes_status.csv"));
        let (csv_dialect, csv_subnet) = csv_form(&mut settings);
        let given_rules = GivenRules::read(&mut settings);
        let rules = given_rules.over(&Epoch::with_defaults(Period::DEFAULT));
        let unconfirmed_nodes_max =
            settings.number("unconfirmed-nodes-max", 100_000, 1, u64::from(u32::MAX));
        let retention_s = retention(&mut settings);
        let blind_rounds_max = settings.number("blind-rounds-max", 20, 0, 120);
        let kernel_clock = settings.checked("kernel-clock", None, KernelClock::read_setting);
        let log_format = settings.checked("log-format", LogFormat::Text, |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("text or json is wanted".to_owned()),
        });
        settings.finish()?;
        let access::Access { tls, anonymous_grpc, anonymous_http, limits, disagreement } = access;
        Ok(Self {
            grpc_addr,
            http_addr,
            data_dir,
            csv,
            csv_dialect,
            csv_subnet,
            rules,
            given_rules,
            unconfirmed_nodes_max,
            retention_s,
            blind_rounds_max,
            kernel_clock,
            log_format,
            tls,
            anonymous_grpc,
            anonymous_http,
            limits,
            disagreement,
        })
    }
}

/// Seconds after which single facts are let go.
fn retention(settings: &mut Settings) -> Option<u64> {
    let days = settings.checked("retention-days", 400, |text| match text.parse() {
        Ok(0) => Ok(0),
        Ok(days) if (RETENTION_DAYS_MIN..=RETENTION_DAYS_MAX).contains(&days) => Ok(days),
        _ => Err(format!("0, or {RETENTION_DAYS_MIN} to {RETENTION_DAYS_MAX} is wanted")),
    });
    (days > 0).then_some(days * 86_400)
}

fn csv_form(settings: &mut Settings) -> (CsvDialect, Option<String>) {
    let csv_dialect = settings.checked("csv-dialect", CsvDialect::Utc, |text| match text {
        "utc" => Ok(CsvDialect::Utc),
        "seed" => Ok(CsvDialect::Seed),
        _ => Err("utc or seed is wanted".to_owned()),
    });
    let csv_subnet = settings.optional("csv-subnet", |text| match text {
        "" => Err("the name of a subnet is wanted".to_owned()),
        name => Ok(name.to_owned()),
    });
    if csv_subnet.is_some() && csv_dialect == CsvDialect::Utc {
        settings.fault("--csv-subnet: only the dialect seed is of one subnet");
    }
    (csv_dialect, csv_subnet)
}

fn read_file(path: &Path) -> Result<Texts, String> {
    let fault = |error: &dyn std::fmt::Display| format!("--config {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| fault(&error))?;
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
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = Config::resolve(&SettingArgs::default(), Texts::new()).unwrap();
        assert_eq!(config.grpc_addr.to_string(), "127.0.0.1:7640");
        assert_eq!(config.http_addr.to_string(), "127.0.0.1:7641");
        assert_eq!(config.csv, Path::new("uptime-data/nodes_status.csv"));
        assert_eq!(config.rules, Epoch::with_defaults(Period::new(30).unwrap()));
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let args = SettingArgs {
            grpc_addr: Some("nowhere".into()),
            http_addr: Some("0.0.0.0:80".into()),
            round_period_s: Some("7".into()),
            grace_s: Some("-1".into()),
            retention_days: Some("35".into()),
            csv_dialect: Some("excel".into()),
            csv_subnet: Some("public".into()),
            ..SettingArgs::default()
        };
        let faults = Config::resolve(&args, Texts::from([("typo".into(), vec![])])).unwrap_err();
        let names = ["grpc-addr", "http-addr", "round-period-s", "grace-s", "typo", "csv-dialect"];
        for name in names.into_iter().chain(["csv-subnet", "retention-days"]) {
            assert!(faults.iter().any(|fault| fault.contains(name)), "{name}: {faults:?}");
        }
        assert_eq!(faults.len(), 8, "{faults:?}");
    }
}
