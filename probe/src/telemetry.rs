//! Logs and metrics of the process.
//!
//! Owns how logs look and where metrics are served: on loopback, and only when asked for. Logs go
//! to standard error, so that standard output stays for answers.

use std::net::SocketAddr;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusBuilder;
use tracing_subscriber::EnvFilter;

/// Starts logging; `UPTIME_LOG` chooses what, as `info` or `uptime_probe=debug`.
pub fn start_logging(json: bool, default: &str) {
    let filter = EnvFilter::try_from_env("UPTIME_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false);
    // Fails only when logging was started before, as in tests.
    if json {
        builder.json().try_init().ok()
    } else {
        builder.try_init().ok()
    };
}

/// Serves metrics for Prometheus on this loopback address.
///
/// # Errors
/// When it cannot be bound.
pub fn serve_metrics(addr: SocketAddr) -> anyhow::Result<()> {
    PrometheusBuilder::new()
        .with_http_listener(addr)
        .install()
        .with_context(|| format!("cannot serve metrics on {addr}; choose another --metrics-addr"))
}
