//! Logs and metrics of the process.
//!
//! Owns how logs look and what metrics are called. Logs go to standard error, so that standard
//! output stays for answers.

use std::io::{self, Write};

use metrics::counter;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging at the levels of `UPTIME_LOG`, for example `info` or `uptime_aggregator=debug`.
pub fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("UPTIME_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = without_statements(filter);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines::default)
        // On a failure it would use a print that panics.
        .log_internal_errors(false)
        .with_ansi(colours)
        .with_target(false);
    // Fails only when logging was started before, as in tests.
    match format {
        LogFormat::Text => builder.try_init().ok(),
        LogFormat::Json => builder.json().try_init().ok(),
    };
}

/// Hides SQL statements, unless everything is logged or the filter names sqlx.
fn without_statements(filter: EnvFilter) -> EnvFilter {
    let all = filter.max_level_hint().is_some_and(|level| level == LevelFilter::TRACE);
    match "sqlx::query=warn".parse() {
        Ok(directive) if !all && !filter.to_string().contains("sqlx") => {
            filter.add_directive(directive)
        }
        _ => filter,
    }
}

/// Standard error. Its reader may be gone or the disk full: lines that cannot be written are
/// counted and lost, and the process goes on.
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

/// Prints a line to standard error. Errors are ignored.
pub fn say(text: &str) {
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// Starts collecting metrics and returns their renderer.
///
/// # Errors
/// When metrics were started before in this process.
pub fn start_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new().install_recorder()
}
