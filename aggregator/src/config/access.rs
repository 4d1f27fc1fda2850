//! Settings of TLS, readers and limits.
//!
//! Refuses unsafe settings: beyond loopback, plaintext and anonymous readers each need a flag with
//! a name that is hard to overlook.

use std::net::SocketAddr;
use std::path::PathBuf;

use uptime_accounting::agreement::Policy;
use uptime_proto::convert::PartLimits;
use uptime_proto::settings::Settings;

use super::settings::SettingArgs;
use crate::access::TlsFiles;
use crate::access::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, Limits, PARTS_PER_S_MAX,
};

/// The checked settings.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) tls: Option<TlsFiles>,
    pub(super) anonymous_grpc: bool,
    pub(super) anonymous_http: bool,
    pub(super) limits: Limits,
    pub(super) disagreement: Policy,
}

pub(super) fn resolve(
    settings: &mut Settings,
    args: &SettingArgs,
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
) -> Access {
    let path = |text: &str| Ok::<_, String>(PathBuf::from(text));
    let cert = settings.optional("tls-cert-file", path);
    let key = settings.optional("tls-key-file", path);
    let client_ca = settings.optional("client-ca-file", path);
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key, client_ca }),
        (None, None) => {
            if client_ca.is_some() {
                settings.fault(
                    "--client-ca-file: client certificates need TLS: give --tls-cert-file and \
                     --tls-key-file too",
                );
            }
            None
        }
        (Some(_), None) => {
            settings.fault("--tls-cert-file: its private key is missing: give --tls-key-file");
            None
        }
        (None, Some(_)) => {
            settings.fault("--tls-key-file: its certificate is missing: give --tls-cert-file");
            None
        }
    };
    let readers_need_token = settings.checked("readers-need-token", false, |text| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false is wanted".to_owned()),
    });
    let beyond = args.anonymous_readers_beyond_loopback;
    if readers_need_token && beyond {
        settings.fault(
            "--anonymous-readers-beyond-loopback: conflicts with --readers-need-token: remove \
             one of them",
        );
    }
    for (name, addr) in [("grpc-addr", grpc_addr), ("http-addr", http_addr)] {
        let loopback = addr.ip().is_loopback();
        if !loopback && tls.is_none() && !args.insecure_plaintext_beyond_loopback {
            settings.fault(format!(
                "--{name}: {addr} is not loopback, and without TLS anyone on the network can read \
                 and forge traffic, including tokens: give --tls-cert-file and --tls-key-file \
                 ('uptime-aggregator authority init' creates an authority), or bind to \
                 loopback, or give --insecure-plaintext-beyond-loopback"
            ));
        }
    }
    let anonymous = |addr: SocketAddr| !readers_need_token && (addr.ip().is_loopback() || beyond);
    let limits = limits(settings);
    let disagreement = settings.checked("set-aside-disagreeing", Policy::Tell, |text| match text {
        "true" => Ok(Policy::SetAside),
        "false" => Ok(Policy::Tell),
        _ => Err("true or false is wanted".to_owned()),
    });
    let (anonymous_grpc, anonymous_http) = (anonymous(grpc_addr), anonymous(http_addr));
    Access { tls, anonymous_grpc, anonymous_http, limits, disagreement }
}

/// Limits on connections and on single probes.
fn limits(settings: &mut Settings) -> Limits {
    Limits {
        connections_max: settings.number32("connections-max", CONNECTIONS_MAX, 16, 1_000_000),
        connections_per_address_max: settings.number32(
            "connections-per-address-max",
            CONNECTIONS_PER_ADDRESS_MAX,
            1,
            1_000_000,
        ),
        parts_per_s_max: settings.number32("parts-per-s-max", PARTS_PER_S_MAX, 1, 1_000_000),
        parts_per_round_max: settings.number32(
            "parts-per-round-max",
            PartLimits::default().parts_per_round_max,
            // What a probe makes of one subnet in pieces of a large network.
            16,
            1_000_000,
        ),
        ..Limits::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uptime_proto::settings::Texts;

    use super::super::Config;
    use super::*;

    fn resolved(args: SettingArgs) -> Result<Config, Vec<String>> {
        Config::resolve(&args, Texts::new())
    }

    fn public() -> SettingArgs {
        SettingArgs { grpc_addr: Some("0.0.0.0:7640".into()), ..SettingArgs::default() }
    }

    fn with_tls() -> SettingArgs {
        SettingArgs {
            tls_cert_file: Some("cert.pem".into()),
            tls_key_file: Some("key.pem".into()),
            ..public()
        }
    }

    #[test]
    fn beyond_loopback_tls_is_wanted_unless_a_flag_says_so() {
        let faults = resolved(public()).unwrap_err();
        assert!(faults.len() == 1 && faults[0].contains("authority init"), "{faults:?}");
        assert!(resolved(with_tls()).is_ok());
        let open = SettingArgs { insecure_plaintext_beyond_loopback: true, ..public() };
        assert!(resolved(open).is_ok());
    }

    #[test]
    fn who_reads_without_a_proof_depends_on_the_address_and_can_be_said() {
        let anonymous = |args| {
            let config = resolved(args).unwrap();
            (config.anonymous_grpc, config.anonymous_http)
        };
        assert_eq!(anonymous(SettingArgs::default()), (true, true));
        assert_eq!(anonymous(with_tls()), (false, true));
        let open = SettingArgs { anonymous_readers_beyond_loopback: true, ..with_tls() };
        assert_eq!(anonymous(open), (true, true));
        let closed = SettingArgs { readers_need_token: Some("true".into()), ..with_tls() };
        assert_eq!(anonymous(closed), (false, false));
        // Plaintext beyond loopback does not open reading by itself.
        let plain = SettingArgs { insecure_plaintext_beyond_loopback: true, ..public() };
        assert_eq!(anonymous(plain), (false, true));
    }

    #[test]
    fn halves_and_contradictions_are_faults() {
        let text = || Some("x".to_owned());
        for args in [
            SettingArgs { tls_cert_file: text(), ..SettingArgs::default() },
            SettingArgs { tls_key_file: text(), ..SettingArgs::default() },
            SettingArgs { client_ca_file: text(), ..SettingArgs::default() },
            SettingArgs {
                readers_need_token: Some("true".into()),
                anonymous_readers_beyond_loopback: true,
                ..SettingArgs::default()
            },
            SettingArgs { readers_need_token: text(), ..SettingArgs::default() },
            SettingArgs { connections_max: Some("1".into()), ..SettingArgs::default() },
            SettingArgs { parts_per_s_max: Some("0".into()), ..SettingArgs::default() },
            SettingArgs { parts_per_round_max: Some("15".into()), ..SettingArgs::default() },
        ] {
            let said = format!("{args:?}");
            assert_eq!(resolved(args).unwrap_err().len(), 1, "{said}");
        }
    }
}
