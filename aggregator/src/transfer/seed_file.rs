//! The files of the script this project replaces, read and judged.
//!
//! Pure. Owns what a row of its `nodes_status.csv` and its `scan_count.txt` may say, which faults
//! forbid the import and what is mended and told. It takes what the script writes, and this
//! program's own canonical CSV in either dialect. Refuses a file that has any fault: half of an
//! account is none.

use std::collections::HashMap;

use chrono_tz::Tz;
use csv::ByteRecord;
use uptime_proto::NodeId;

use super::stamp::{self, Reading};
use crate::publish::HEADER;
use crate::store::OpeningRow;

/// What is read of a file at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of the whole file.
    pub file_bytes_max: u64,
    /// Without the header.
    pub rows_max: usize,
    /// Faults that are told one by one; the rest are counted.
    pub faults_listed_max: usize,
}

impl Default for Limits {
    /// A hundred times the network this is made for: a row of the script takes some 110 bytes.
    fn default() -> Self {
        Self { file_bytes_max: 128 << 20, rows_max: 1_000_000, faults_listed_max: 100 }
    }
}

/// Scans that nobody can have made: one a second takes thirty thousand years.
pub const SCAN_COUNT_MAX: u64 = 1_000_000_000_000;
/// A stamp may be so far ahead of this machine's clock: hosts differ by some seconds.
const AHEAD_MAX_MS: i64 = 120_000;
/// So much of a wrong text is shown.
const SHOWN_CHARS_MAX: usize = 64;

/// What is needed to read the rows.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The scans the script has made.
    pub scan_count: u64,
    /// The zone of its stamps.
    pub zone: Tz,
    /// Unix milliseconds.
    pub now_ms: i64,
    /// How much is read.
    pub limits: Limits,
}

/// Something that was mended, and must be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A count below zero or above the scan count.
    Clamped {
        /// What it was.
        from: i64,
        /// What it is now.
        to: u64,
    },
    /// A local time that a clock shows twice or never.
    Resolved {
        /// What the file says.
        text: Box<str>,
        /// Which of the two.
        reading: Reading,
        /// What it was taken for, unix milliseconds.
        unix_ms: i64,
    },
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeedFile {
    /// Ascending by id.
    pub rows: Vec<OpeningRow>,
    /// By line, with the node each concerns.
    pub notices: Vec<(u64, NodeId, Notice)>,
}

/// Everything that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// The first of them, each with its line.
    pub listed: Vec<String>,
    /// All of them.
    pub count: u64,
    listed_max: usize,
}

impl Faults {
    fn new(listed_max: usize) -> Self {
        Self { listed_max, ..Self::default() }
    }

    fn add(&mut self, fault: impl FnOnce() -> String) {
        if self.listed.len() < self.listed_max {
            self.listed.push(fault());
        }
        self.count += 1;
    }
}

/// Where each column stands.
type Places = [usize; HEADER.len()];

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// The number in a `scan_count.txt`.
///
/// # Errors
/// When there is none, or one that cannot be.
pub fn read_scan_count(text: &str) -> Result<u64, String> {
    let count = text.trim().parse().ok().filter(|count| *count <= SCAN_COUNT_MAX);
    count.ok_or_else(|| {
        format!(
            "the number of scans is wanted, from 0 to {SCAN_COUNT_MAX}, not {}",
            shown(text.as_bytes())
        )
    })
}

fn places(header: &ByteRecord) -> Result<Places, String> {
    let mut places = [usize::MAX; HEADER.len()];
    let wanted = || format!("the header {} is wanted", HEADER.join(","));
    for (place, name) in header.iter().enumerate() {
        let known = HEADER.iter().position(|wanted| wanted.as_bytes() == name);
        let column = known.and_then(|column| places.get_mut(column));
        let column = column.ok_or_else(|| format!("no column {}: {}", shown(name), wanted()))?;
        if *column != usize::MAX {
            return Err(format!("the column {} stands twice: {}", shown(name), wanted()));
        }
        *column = place;
    }
    let missing = HEADER.iter().zip(places).find(|(_, place)| *place == usize::MAX);
    match missing {
        Some((name, _)) => Err(format!("the column {name} is missing: {}", wanted())),
        None => Ok(places),
    }
}

/// Numbers of lines as an editor shows them: a reader of CSV takes the end of a line for the
/// beginning of the next record, and does not count what it skips.
struct Lines<'a> {
    bytes: &'a [u8],
    behind: usize,
    /// Line ends in what is behind.
    before: u64,
}

impl Lines<'_> {
    /// The line of the record that is at or after this byte; asked for in ascending order.
    fn line_of(&mut self, byte: u64) -> u64 {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        for next in self.bytes.get(self.behind..).unwrap_or_default() {
            if self.behind >= byte && !matches!(next, b'\r' | b'\n') {
                break;
            }
            self.before += u64::from(*next == b'\n');
            self.behind += 1;
        }
        self.before + 1
    }
}

type Row = (OpeningRow, [Option<Notice>; 2]);

fn read_row(record: &ByteRecord, places: &Places, terms: &Terms) -> Result<Row, Vec<String>> {
    if record.len() != HEADER.len() {
        return Err(vec![format!("{} columns, {} wanted", record.len(), HEADER.len())]);
    }
    let [id, is_online, last_seen, scans, uptime] =
        places.map(|place| record.get(place).unwrap_or_default());
    let mut faults = Vec::new();
    let mut fault = |column: &str, field: &[u8], why: &dyn std::fmt::Display| {
        faults.push(format!("{column} {}: {why}", shown(field)));
    };
    let text = |field| std::str::from_utf8(field).unwrap_or("\u{fffd}");
    let id = text(id).parse::<NodeId>().map_err(|_| {
        fault("issuer_id", id, &"a node id is 0x and 40 hex digits");
    });
    let is_online = match is_online {
        b"True" => Some(true),
        b"False" => Some(false),
        other => {
            fault("is_online", other, &"True or False is wanted");
            None
        }
    };
    let last_seen = match read_last_seen(text(last_seen), terms) {
        Ok(last_seen) => Some(last_seen),
        Err(why) => {
            fault("last_seen", last_seen, &why);
            None
        }
    };
    let scans = text(scans).parse::<i64>().map_err(|_| {
        fault("total_online_scans", scans, &"a whole number is wanted");
    });
    // Not taken over, as it follows from the counts; but a row that has none is no row.
    if !text(uptime).parse::<f64>().is_ok_and(f64::is_finite) {
        fault("uptime", uptime, &"a percentage is wanted");
    }
    let (Ok(id), Some(is_online), Some(last_seen), Ok(scans), true) =
        (id, is_online, last_seen, scans, faults.is_empty())
    else {
        return Err(faults);
    };
    let (last_seen_ms, resolved) = last_seen;
    let online_scans = u64::try_from(scans).unwrap_or(0).min(terms.scan_count);
    let clamped = (i64::try_from(online_scans) != Ok(scans))
        .then_some(Notice::Clamped { from: scans, to: online_scans });
    Ok((OpeningRow { id, is_online, last_seen_ms, online_scans }, [clamped, resolved]))
}

fn read_last_seen(text: &str, terms: &Terms) -> Result<(Option<i64>, Option<Notice>), String> {
    // The script always writes one; this program's own CSV has none for a node never seen.
    if text.is_empty() {
        return Ok((None, None));
    }
    let stamp = stamp::read(text, terms.zone).map_err(str::to_owned)?;
    let ahead_ms = stamp.unix_ms.saturating_sub(terms.now_ms);
    if ahead_ms > AHEAD_MAX_MS {
        return Err(format!(
            "{} s in the future when read in the time zone {}: is that the zone of the host that \
             wrote it?",
            ahead_ms / 1000,
            terms.zone
        ));
    }
    if stamp.unix_ms < 0 {
        return Err("before 1970".to_owned());
    }
    let resolved = (stamp.reading != Reading::Plain).then(|| Notice::Resolved {
        text: text.into(),
        reading: stamp.reading,
        unix_ms: stamp.unix_ms,
    });
    Ok((Some(stamp.unix_ms), resolved))
}

/// Reads a whole file. `progress` hears how many bytes are behind it, again and again.
///
/// # Errors
/// All that is wrong with it.
pub fn read(
    bytes: &[u8],
    terms: &Terms,
    mut progress: impl FnMut(u64),
) -> Result<SeedFile, Faults> {
    let mut faults = Faults::new(terms.limits.faults_listed_max);
    if bytes.len() as u64 > terms.limits.file_bytes_max {
        faults.add(|| format!("longer than {} bytes", terms.limits.file_bytes_max));
        return Err(faults);
    }
    // What spreadsheets put before the first column's name.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(bytes);
    let mut record = ByteRecord::new();
    if !reader.read_byte_record(&mut record).unwrap_or(false) {
        faults.add(|| {
            "empty: the script empties its file whenever it writes; copy it again".to_owned()
        });
        return Err(faults);
    }
    let places = match places(&record) {
        Ok(places) => places,
        Err(fault) => {
            faults.add(|| format!("line 1: {fault}"));
            return Err(faults);
        }
    };
    let mut file = SeedFile::default();
    let mut lines: HashMap<NodeId, u64> = HashMap::new();
    let mut lines_counted = Lines { bytes, behind: 0, before: 0 };
    let mut rows = 0;
    // Reading from memory does not fail, and any bytes are some record.
    while reader.read_byte_record(&mut record).unwrap_or(false) {
        let line = lines_counted.line_of(record.position().map_or(0, csv::Position::byte));
        rows += 1;
        if rows > terms.limits.rows_max {
            faults.add(|| format!("line {line}: more than {} rows", terms.limits.rows_max));
            break;
        }
        match read_row(&record, &places, terms) {
            Ok((row, notices)) => {
                if let Some(before) = lines.insert(row.id, line) {
                    faults.add(|| format!("line {line}: {} stands on line {before}, too", row.id));
                }
                let notices = notices.into_iter().flatten();
                file.notices.extend(notices.map(|notice| (line, row.id, notice)));
                file.rows.push(row);
            }
            Err(wrong) => {
                wrong.into_iter().for_each(|fault| faults.add(|| format!("line {line}: {fault}")));
            }
        }
        progress(lines_counted.behind as u64);
    }
    if !bytes.ends_with(b"\n") {
        faults.add(|| {
            "the last line has no end, as if the file were cut short or being written: copy it \
             again, or end the line if the file is whole"
                .to_owned()
        });
    }
    if faults.count > 0 {
        return Err(faults);
    }
    file.rows.sort_unstable_by_key(|row| row.id);
    Ok(file)
}

#[cfg(test)]
mod tests;
