//! What the readers of imported files, of addresses and of stored bytes must stand, whatever comes.
//!
//! Owns the fuzz targets of this crate. They are run by libFuzzer (see `deploy/fuzz.sh`) and, over
//! the committed corpus and changes of it, by `tests/fuzz_corpus.rs`. A new target is a line in
//! `TARGETS`, a `[[bin]]` in `Cargo.toml` beside this file, a copy of any file in `fuzz_targets`
//! under its name, and a corpus.

use std::sync::Arc;

use chrono_tz::Tz;
use uptime_accounting::checkpoint;
use uptime_aggregator::publish::utc_stamp;
use uptime_aggregator::store::fuzzing::{stored_segment, stored_sets};
use uptime_aggregator::transfer::seed_file::{Limits, Terms, read, read_scan_count};
use uptime_aggregator::transfer::stamp::{self, Reading};
use uptime_aggregator::web::{table_asked_for, window_asked_for};
use uptime_proto::{Epoch, Epochs, Period};

/// A target's name, and what it does with any bytes: it panics where it finds a fault.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target by its name.
pub(crate) const TARGETS: &[Target] = &[
    ("checkpoint", one_checkpoint),
    ("query_string", query_string),
    ("seed_file", seed_file),
    ("stamp", one_stamp),
    ("stored_segment", stored_segment),
    ("stored_sets", stored_sets),
];

/// The bytes as two pieces of a checkpoint, but for the checksums, before them the length of the
/// first in two bytes, little-endian: refused, or a state.
fn one_checkpoint(bytes: &[u8]) {
    let period = Period::new(30).expect("a period");
    let epochs = Arc::new(Epochs::new(vec![Epoch::with_defaults(period)]).expect("one epoch"));
    let Some((length, bytes)) = bytes.split_first_chunk::<2>() else { return };
    let (head, nodes) = bytes.split_at(bytes.len().min(u16::from_le_bytes(*length).into()));
    let sealed = |piece: &[u8]| [piece, &crc32fast::hash(piece).to_le_bytes()].concat();
    checkpoint::read(&[sealed(head)], &epochs, &Arc::default()).ok();
    checkpoint::read(&[sealed(head), sealed(nodes)], &epochs, &Arc::default()).ok();
}

/// Runs the target of this name.
///
/// # Panics
/// When there is none, and when it finds a fault.
pub(crate) fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("a target of this name").1(bytes);
}

/// A file that was taken says the same when it is written again in UTC, and then nothing of it has
/// to be mended.
fn seed_file(bytes: &[u8]) {
    let terms = |zone| Terms {
        scan_count: 1_000,
        zone,
        now_ms: 1_800_000_000_000,
        limits: Limits { file_bytes_max: 1 << 20, rows_max: 100, faults_listed_max: 10 },
    };
    let mut behind = 0;
    let file = match read(bytes, &terms(Tz::Europe__Warsaw), |bytes| behind = bytes) {
        Ok(file) => file,
        Err(faults) => {
            assert!(faults.count >= faults.listed.len() as u64 && faults.count > 0);
            assert!(faults.listed.len() <= 10);
            return;
        }
    };
    assert!(behind <= bytes.len() as u64);
    assert!(file.rows.len() <= 100 && file.rows.is_sorted_by(|a, b| a.id < b.id));
    let mut text = "issuer_id,is_online,last_seen,total_online_scans,uptime\n".to_owned();
    for row in &file.rows {
        assert!(row.online_scans <= 1_000);
        let online = if row.is_online { "True" } else { "False" };
        let stamp = row.last_seen_ms.map(utc_stamp).unwrap_or_default();
        text.push_str(&format!("{},{online},{stamp},{},0.0\n", row.id, row.online_scans));
    }
    let again = read(text.as_bytes(), &terms(Tz::UTC), |_| {}).expect("what was taken");
    assert_eq!(again.rows, file.rows);
    assert!(again.notices.is_empty());
}

/// An instant that was read is written and read again; a number of scans too.
fn one_stamp(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for zone in [Tz::UTC, Tz::Europe__Warsaw, Tz::Pacific__Apia, Tz::Africa__Monrovia] {
        let Ok(read) = stamp::read(text, zone) else { continue };
        assert!(zone != Tz::UTC || read.reading == Reading::Plain);
        let again = stamp::read(&utc_stamp(read.unix_ms), zone).expect("what was written");
        assert_eq!((again.unix_ms, again.reading), (read.unix_ms, Reading::Plain));
    }
    std::hint::black_box(stamp::read_day(text));
    if let Ok(count) = read_scan_count(text) {
        assert_eq!(read_scan_count(&count.to_string()), Ok(count));
    }
}

/// A table that was asked for is asked for again by its own link, which no markup can be in; a
/// window is never empty.
fn query_string(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(link) = table_asked_for(text) {
        assert!(link.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'<>`".contains(&byte)));
        let query = link.strip_prefix("/?").and_then(|link| link.strip_suffix("#nodes"));
        let again = table_asked_for(&query.expect("a link to the table").replace("&amp;", "&"));
        assert_eq!(again, Ok(link));
    }
    if let Ok((from_s, to_s)) = window_asked_for(text, 1_800_000_000) {
        assert!(to_s == 0 || from_s < to_s);
    }
}
