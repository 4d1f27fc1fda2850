//! The settings of `serve` and `check`, as typed.
//!
//! Owns each setting's flag, variable, group and help. Bounds and defaults are checked elsewhere.

use std::path::PathBuf;

use clap::Args;
use uptime_proto::settings::Texts;

use super::rules::rule_help;

macro_rules! setting_args {
    ($($group:literal {
        $($help:expr, $field:ident = $name:literal, $env:literal, $value:literal $(, $flag:tt)?;)+
    })+) => {
        /// Settings of serve and check, as texts.
        #[derive(Debug, Default, Args)]
        #[allow(missing_docs, reason = "--help documents them")]
        pub struct SettingArgs {
            /// TOML file with settings
            #[arg(long, env = "UPTIME_CONFIG", value_name = "FILE")]
            pub config: Option<PathBuf>,
            $($(#[arg(long, env = $env, value_name = $value, help = $help, help_heading = $group)]
            $(#[arg(num_args = 0..=1, default_missing_value = stringify!($flag))])?
            pub $field: Option<String>,)+)+
            /// Serve plaintext beyond loopback: anyone on the network can read and forge traffic
            #[arg(long, help_heading = "TLS")]
            pub insecure_plaintext_beyond_loopback: bool,
            /// Let anyone read beyond loopback without a token or certificate
            #[arg(long, help_heading = "Readers")]
            pub anonymous_readers_beyond_loopback: bool,
        }

        impl SettingArgs {
            pub(super) fn texts(&self) -> Texts {
                let pairs = [$($(($name, &self.$field)),+),+];
                let set = pairs.into_iter().filter_map(|(name, text)| {
                    Some((name.to_owned(), vec![text.clone()?]))
                });
                set.collect()
            }
        }
    };
}

setting_args! {
    "Listening" {
        "gRPC address [default: 127.0.0.1:7640]",
        grpc_addr = "grpc-addr", "UPTIME_GRPC_ADDR",
            "HOST:PORT";
        "HTTP address [default: 127.0.0.1:7641]",
        http_addr = "http-addr", "UPTIME_HTTP_ADDR",
            "HOST:PORT";
    }
    "TLS" {
        "Server certificate chain (PEM); enables TLS on both ports. Reloaded when it changes \
         and on SIGHUP",
        tls_cert_file = "tls-cert-file", "UPTIME_TLS_CERT_FILE",
            "FILE";
        "Private key of the server certificate (PEM), readable only by its owner",
        tls_key_file = "tls-key-file", "UPTIME_TLS_KEY_FILE",
            "FILE";
        "Certificate authorities (PEM) for client certificates",
        client_ca_file = "client-ca-file", "UPTIME_CLIENT_CA_FILE",
            "FILE";
    }
    "Readers" {
        "Require a token or client certificate from readers on loopback too [default: false]",
        readers_need_token = "readers-need-token", "UPTIME_READERS_NEED_TOKEN",
            "BOOL", true;
    }
    "Limits" {
        "Maximum connections, both ports together [default: 2048]",
        connections_max = "connections-max", "UPTIME_CONNECTIONS_MAX",
            "N";
        "Maximum connections from one address [default: 256]",
        connections_per_address_max = "connections-per-address-max",
            "UPTIME_CONNECTIONS_PER_ADDRESS_MAX",
            "N";
    }
    "Probes" {
        "Average parts per second from one probe; a faster probe waits [default: 2000]",
        parts_per_s_max = "parts-per-s-max", "UPTIME_PARTS_PER_S_MAX",
            "N";
        "Stored parts of one probe and round; further parts are refused [default: 256]",
        parts_per_round_max = "parts-per-round-max", "UPTIME_PARTS_PER_ROUND_MAX",
            "N";
        "Ignore a probe that contradicts most others until an operator decides [default: \
         false]",
        set_aside_disagreeing = "set-aside-disagreeing", "UPTIME_SET_ASIDE_DISAGREEING",
            "BOOL", true;
        "Unconfirmed ids that one probe may introduce [default: 100000]",
        unconfirmed_nodes_max = "unconfirmed-nodes-max", "UPTIME_UNCONFIRMED_NODES_MAX",
            "N";
    }
    "Data" {
        "Data directory [default: ./uptime-data]",
        data_dir = "data-dir", "UPTIME_DATA_DIR",
            "DIR";
        "CSV file [default: nodes_status.csv in the data directory]",
        csv = "csv", "UPTIME_CSV",
            "FILE";
        "CSV format: utc, or seed for the script that this project replaces, with \
         scan_count.txt [default: utc]",
        csv_dialect = "csv-dialect", "UPTIME_CSV_DIALECT",
            "DIALECT";
        "Subnet of a seed CSV [default: that of the imported CSV, else the only subnet]",
        csv_subnet = "csv-subnet", "UPTIME_CSV_SUBNET",
            "NAME";
        "Keep details this many days, at least 40; after that only totals. 0: keep forever \
         [default: 400]",
        retention_days = "retention-days", "UPTIME_RETENTION_DAYS",
            "DAYS";
    }
    "Accounting rules (first start only; later: rules set)" {
        concat!(rule_help!(round_period_s), " [default: 30]"),
        round_period_s = "round-period-s", "UPTIME_ROUND_PERIOD_S",
            "S";
        concat!(rule_help!(grace_s), " [default: 5]"),
        grace_s = "grace-s", "UPTIME_GRACE_S",
            "S";
        concat!(rule_help!(positive_probes_min), " [default: 1]"),
        positive_probes_min = "positive-probes-min", "UPTIME_POSITIVE_PROBES_MIN",
            "K";
        concat!(rule_help!(freshness_s), " [default: 20]"),
        freshness_s = "freshness-s", "UPTIME_FRESHNESS_S",
            "S";
        concat!(rule_help!(relay_session_age_min_s), " [default: 60]"),
        relay_session_age_min_s = "relay-session-age-min-s", "UPTIME_RELAY_SESSION_AGE_MIN_S",
            "S";
        concat!(rule_help!(direct_timeout_ms), " [default: 4000]"),
        direct_timeout_ms = "direct-timeout-ms", "UPTIME_DIRECT_TIMEOUT_MS",
            "MS";
    }
    "Clock" {
        "/readyz answers 503 after this many closed rounds without a working probe, at most \
         120. 0: never [default: 20]",
        blind_rounds_max = "blind-rounds-max", "UPTIME_BLIND_ROUNDS_MAX",
            "N";
        "Clock synchronisation: auto (ask the kernel), synchronised or unsynchronised \
         [default: auto]",
        kernel_clock = "kernel-clock", "UPTIME_KERNEL_CLOCK",
            "WORD";
    }
    "Logging" {
        "Log format: text or json [default: text]",
        log_format = "log-format", "UPTIME_LOG_FORMAT",
            "FORMAT";
    }
}
