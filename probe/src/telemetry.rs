//! Logs and metrics of the process.
//!
//! Owns the log format and the metrics endpoint: on loopback, off by default. Logs go to standard
//! error; standard output is for results.

use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::Context;
use metrics::counter;
use metrics_exporter_prometheus::PrometheusBuilder;
use tracing_subscriber::EnvFilter;

/// Starts logging. `UPTIME_LOG` sets the level, as `info` or `uptime_probe=debug`.
pub fn start_logging(json: bool, default: &str) {
    let filter = EnvFilter::try_from_env("UPTIME_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines::default)
        // It would report a failure with a print that panics.
        .log_internal_errors(false)
        .with_ansi(colours)
        .with_target(false);
    // Fails only if logging has started before, as in tests.
    if json {
        builder.json().try_init().ok()
    } else {
        builder.try_init().ok()
    };
}

/// Standard error. A line that cannot be written is counted and lost: a closed pipe or a full disk
/// must not end the process.
#[derive(Debug, Clone, Copy, Default)]
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if io::stderr().write_all(line).is_err() {
            counter!("uptime_log_lines_lost_total").increment(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints a line to standard error, if it is still open.
pub fn say(text: &str) {
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// Serves metrics for Prometheus on this loopback address.
///
/// # Errors
/// When it cannot be bound.
pub fn serve_metrics(addr: SocketAddr) -> anyhow::Result<()> {
    PrometheusBuilder::new()
        .with_http_listener(addr)
        .install()
        .with_context(|| format!("cannot serve metrics on {addr}; set another --metrics-addr"))
}
