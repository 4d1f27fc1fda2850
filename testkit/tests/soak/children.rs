//! The shipped programs of the soak: their addresses, files and settings.
//!
//! Each program listens on a loopback address of its own, made from this process's number, at a
//! fixed port: it can be started again at the same place, and nothing else on the machine takes
//! that place meanwhile.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::PERIOD_S;
pub(crate) use super::program::Program;
use super::program::{PORT_GRPC, PORT_HTTP, address, program};

/// A key that only the fake daemons take.
pub(crate) const APP_KEY: &str = "soak-key";
/// The subnets of the network.
pub(crate) const SUBNETS: [&str; 2] = ["public", "testnet"];
/// Probes, each beside a daemon of its own.
pub(crate) const PROBES: usize = 3;

/// The aggregator's block of addresses; the probes' follow.
const BLOCK: usize = 64;

/// Where the aggregator is asked.
pub(crate) fn grpc_address() -> String {
    address(BLOCK, 0, PORT_GRPC)
}

/// Where the aggregator's or a probe's metrics are.
fn metrics_address(place: usize) -> String {
    address(BLOCK + place, 0, PORT_HTTP)
}

/// `uptime-aggregator serve` over this directory.
pub(crate) fn aggregator(directory: &Path) -> Program {
    let period = PERIOD_S.to_string();
    let (grpc, http) = (grpc_address(), metrics_address(0));
    let data = directory.join("data").display().to_string();
    let settings = [
        ("--data-dir", data.as_str()),
        ("--grpc-addr", &grpc),
        ("--http-addr", &http),
        ("--round-period-s", &period),
        ("--grace-s", "4"),
        ("--freshness-s", "3"),
        ("--direct-timeout-ms", "1000"),
        ("--relay-session-age-min-s", "5"),
    ];
    Program::new(
        ("uptime-aggregator", "aggregator"),
        "serve",
        directory,
        http.clone(),
        &settings,
        vec![],
    )
}

/// `uptime-probe run` beside this daemon. One asks the relay itself.
pub(crate) fn probe(
    number: usize,
    directory: &Path,
    daemon: &str,
    relay: &str,
    token: &str,
) -> Program {
    let spool = spool(directory, number).display().to_string();
    let (aggregator, metrics) = (format!("http://{}", grpc_address()), metrics_address(number + 1));
    let mut settings = vec![
        ("--aggregator", aggregator.as_str()),
        ("--metrics-addr", &metrics),
        ("--spool-dir", &spool),
        ("--yagna-url", daemon),
        ("--answer-timeout-ms", "1000"),
        ("--market-timeout-ms", "1500"),
        ("--log-format", "json"),
    ];
    settings.extend(SUBNETS.map(|subnet| ("--subnet-tag", subnet)));
    if number == 2 {
        settings.extend([("--relay-url", relay), ("--relay-timeout-ms", "1000")]);
    }
    let secrets = vec![("YAGNA_APPKEY", APP_KEY.to_owned()), ("UPTIME_TOKEN", token.into())];
    let name = format!("probe-{number}");
    Program::new(("uptime-probe", &name), "run", directory, metrics.clone(), &settings, secrets)
}

/// Where a probe's spool is.
pub(crate) fn spool(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("spool-{number}"))
}

/// Parts and gaps that wait in a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) parts: u64,
    pub(crate) gaps: u64,
}

/// What waits in a probe's spool, as its own command tells it.
pub(crate) async fn waiting(directory: &Path, number: usize) -> Waiting {
    let output = Command::new(program("uptime-probe"))
        .args(["spool", "list", "--output", "json", "--spool-dir"])
        .arg(spool(directory, number))
        .env_clear()
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listing: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let segments = listing["segments"].as_array().unwrap();
    let sum = |name| segments.iter().map(|segment| segment[name].as_u64().unwrap()).sum();
    Waiting { parts: sum("parts_waiting"), gaps: sum("gaps_waiting") }
}
