//! How figures are printed, and the few sums they share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

/// A line for whoever waits; not part of the answer.
pub(crate) fn progress(line: &str) {
    eprintln!("figures: {line}");
}

/// Prints a figure.
#[expect(clippy::print_stdout, reason = "standard output is where figures go")]
pub(crate) fn figure(name: &str, value: f64, unit: &str) {
    println!("figure {name} {} {unit}", number(value));
}

/// Prints ours over the peer's.
#[expect(clippy::print_stdout, reason = "standard output is where figures go")]
pub(crate) fn ratio(name: &str, value: f64, peer: &str) {
    println!("ratio {name} {} {peer}", number(value));
}

/// Four digits that mean something; all before the point; whole numbers as such.
fn number(value: f64) -> String {
    if value.fract() == 0.0 || value >= 1_000.0 {
        return format!("{value:.0}");
    }
    let mut decimals = 4;
    let mut below = 1.0;
    while decimals > 0 && value >= below {
        decimals -= 1;
        below *= 10.0;
    }
    while value < below / 10.0 && decimals < 12 {
        decimals += 1;
        below /= 10.0;
    }
    format!("{value:.decimals$}")
}

/// The middle one of these, in milliseconds.
pub(crate) fn median_ms(mut durations: Vec<Duration>) -> f64 {
    durations.sort_unstable();
    durations.get(durations.len() / 2).map_or(f64::NAN, |middle| middle.as_secs_f64() * 1000.0)
}

/// The shortest time, in seconds, that so many of a hundred do not exceed.
pub(crate) fn percentile_s(durations: &[Duration], percent: usize) -> f64 {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).map_or(f64::NAN, Duration::as_secs_f64)
}

/// Shortest, middle and longest, for whoever wants to know how steady a figure is.
pub(crate) fn spread(durations: &[Duration]) -> String {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    let last = sorted.len().saturating_sub(1);
    format!("{} times, {:.2?} to {:.2?}", sorted.len(), at(0), at(last))
}

/// A directory on the disk that the build is on, gone when dropped. Syncs must cost what they cost,
/// so this is never one in memory.
pub(crate) fn on_disk() -> anyhow::Result<TempDir> {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
    tempfile::tempdir_in(&place).with_context(|| format!("making one in {}", place.display()))
}

/// A directory for what is measured in bytes and not in time: in memory where there is such a
/// place, because the bytes are the same there.
pub(crate) fn anywhere() -> anyhow::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).context("/dev/shm") } else { on_disk() }
}
