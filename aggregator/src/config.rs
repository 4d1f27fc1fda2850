//! Settings from flags, environment and file.
//!
//! Owns names, defaults and bounds. The configuration is complete before any port is bound.

mod access;
mod commands;
mod rules;
mod settings;

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
pub use commands::{AccessCommand, AuthorityCommand, CertificateArgs, ProbeCommand};
pub use rules::{RuleArgs, RulesCommand};
pub use settings::SettingArgs;
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

/// Decide from the reports of many probes which Golem providers are up, and publish it
///
/// A setting comes from its flag, else its environment variable, else the --config file, else its
/// default. In the file (TOML) it has the flag's name.
/// UPTIME_LOG sets the log level, for example info or debug.
/// Exit status: 0 success, 1 failure, 64 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "uptime-aggregator", version, max_term_width = 100)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the aggregator until SIGTERM or SIGINT
    Serve(SettingArgs),
    /// Check the configuration and the store, and exit
    Check(SettingArgs),
    /// Upgrade the store of an earlier version, as serve does at its start; stop serve first
    Migrate {
        /// Data directory [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Check the stored data and replay it to compare the results; serve may be running. Exit
    /// status 1 if something is wrong
    Verify {
        /// Data directory [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Write a consistent copy of the store to a new file; serve may be running
    ///
    /// The copy does not contain the files of the built-in authority. The command lists them: keep
    /// them separately.
    Backup {
        /// The file, which must not exist; with --keep, a directory
        file: PathBuf,
        /// Name the copy after the current time, and keep only the N newest copies
        #[arg(long, value_name = "N")]
        keep: Option<NonZeroUsize>,
        /// Data directory [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Check a backup and restore it into a data directory without a store
    Restore {
        /// The backup file
        file: PathBuf,
        /// Data directory for the restored store [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Manage probes, their tokens and retractions; serve may be running
    Probe {
        /// Data directory [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR", global = true)]
        data_dir: Option<PathBuf>,
        /// The command.
        #[command(subcommand)]
        command: ProbeCommand,
    },
    /// Manage readers and admins, and show the audit log; serve may be running
    Access {
        /// Data directory [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR", global = true)]
        data_dir: Option<PathBuf>,
        /// The command.
        #[command(subcommand)]
        command: AccessCommand,
    },
    /// Show or change the accounting rules; serve may be running
    ///
    /// The first start of serve stores its configured rules. Later only rules set changes them:
    /// serve reports settings that differ and ignores them.
    Rules {
        /// Data directory [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR", global = true)]
        data_dir: Option<PathBuf>,
        /// The command.
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// Manage the built-in certificate authority
    Authority {
        /// Data directory [default: ./uptime-data]
        #[arg(long, env = "UPTIME_DATA_DIR", global = true)]
        data_dir: Option<PathBuf>,
        /// The command.
        #[command(subcommand)]
        command: AuthorityCommand,
    },
    /// Import the totals of an existing nodes_status.csv and scan_count.txt
    ///
    /// Imported totals are dated and kept apart from observations. Only --csv-dialect seed adds
    /// them. The import clamps counts below zero or above the number of scans, resolves
    /// ambiguous local times, and reports each change. Any other error stops it, and nothing is
    /// imported. Stop serve first.
    ImportCsv(ImportArgs),
    /// Export stored data as a table, NDJSON or Parquet; serve may be running
    ///
    /// It exports what is stored at its start. If stored parts cannot be read, it lists them, omits
    /// them and exits with status 1.
    Export(ExportArgs),
}

/// How the canonical CSV is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CsvDialect {
    /// Stamps with an offset, uptime by the method in force.
    Utc,
    /// For the script this project replaces, by `seed-v1`.
    Seed,
}

/// The checked settings of serve.
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
    /// The rules that were set explicitly: a default is no difference.
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
        let grpc_addr = settings.checked("grpc-addr", ([127, 0, 0, 1], 7640).into(), listen_addr);
        let http_addr = settings.checked("http-addr", ([127, 0, 0, 1], 7641).into(), listen_addr);
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

/// An address to listen on. A host name is resolved once, at the start.
fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    let wanted = || "HOST:PORT with an address or a known host name is wanted";
    let mut found = text.to_socket_addrs().map_err(|error| format!("{}: {error}", wanted()))?;
    found.next().ok_or_else(|| wanted().to_owned())
}

/// Seconds after which details expire.
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
        settings.fault("--csv-subnet: needs --csv-dialect seed");
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
