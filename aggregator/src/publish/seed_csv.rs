//! The `seed` dialect of the canonical CSV: what the script this project replaces can load and
//! continue, of one subnet.
//!
//! Owns the bytes of both its files, `nodes_status.csv` and `scan_count.txt`, and the sum of
//! opening balance and observed rounds. Uptime is by `seed-v1`; stamps are naive UTC, as the script
//! reads whatever it finds as the time of its own host.
//!
//! The script cannot load a row without a stamp. A node without any sign of life is therefore given
//! the round of its last offer, which is one under `seed-v1`, and one that was imported without a
//! stamp and never observed the year 1970.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use uptime_accounting::seed::{Covered, Seed};
use uptime_proto::NodeId;

use super::format::{HEADER, ShortestDecimal};
use crate::disk::{Replaced, replace_file};
use crate::engine::Snapshot;
use crate::store::{Opening, OpeningRow};

/// Why the dialect cannot be written; what is there stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetFault {
    /// It is of one subnet, and there are several.
    #[error(
        "the seed dialect is of one subnet, and probes report {}: say which with --csv-subnet, or \
         take --csv-dialect utc", .0.join(", ")
    )]
    Several(Vec<String>),
    /// The opening balance is of another.
    #[error(
        "the opening balance is of the subnet {imported}, the CSV of {wanted}: set --csv-subnet \
         {imported}, or import the files of {wanted} with --replace"
    )]
    Another {
        /// The balance's.
        imported: String,
        /// The CSV's.
        wanted: String,
    },
}

/// The number of the subnet that the CSV is of; `None`: nothing of it is known yet.
///
/// # Errors
/// When nobody said which of several, or the opening balance is of another one.
pub fn subnet_of(
    snapshot: &Snapshot,
    wanted: Option<&str>,
    opening: Option<&Opening>,
) -> Result<Option<u32>, SubnetFault> {
    // Number 0 is the empty name: of what concerns the whole network.
    let known = || (0u32..).zip(snapshot.subnets.iter()).skip(1);
    let imported = opening.and_then(|opening| opening.subnet.as_deref());
    let name = match wanted.or(imported) {
        Some(name) => name,
        None => {
            let mut all = known();
            match (all.next(), all.next()) {
                (None, _) => return Ok(None),
                (Some((number, _)), None) => return Ok(Some(number)),
                _ => {
                    let names = known().map(|(_, name)| name.clone()).collect();
                    return Err(SubnetFault::Several(names));
                }
            }
        }
    };
    if let Some(imported) = imported.filter(|imported| *imported != name) {
        let (imported, wanted) = (imported.to_owned(), name.to_owned());
        return Err(SubnetFault::Another { imported, wanted });
    }
    Ok(known().find(|(_, known)| *known == name).map(|(number, _)| number))
}

/// An instant as the script's `datetime.fromisoformat` reads it.
fn naive_stamp(unix_ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(unix_ms)
        .unwrap_or_default()
        .format("%Y-%m-%d %H:%M:%S%.6f")
        .to_string()
}

/// One row of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    id: NodeId,
    is_online: bool,
    last_seen_ms: Option<i64>,
    online_scans: u64,
}

/// Everything the two files are made from.
#[derive(Debug, Clone, Copy)]
pub struct SeedBooks<'a> {
    /// What was observed.
    pub snapshot: &'a Snapshot,
    /// The same by `seed-v1`.
    pub seed: &'a Seed,
    /// What was imported.
    pub opening: Option<&'a Opening>,
    /// See [`subnet_of`].
    pub subnet: Option<u32>,
}

impl SeedBooks<'_> {
    fn covered(&self) -> Covered<'_> {
        self.seed.in_subnet(self.subnet, self.snapshot.closed_end_s(), &self.snapshot.epochs)
    }

    fn imported_scans(&self) -> u64 {
        self.opening.map_or(0, |opening| opening.scan_count)
    }

    /// The imported scans and the covered rounds.
    #[must_use]
    pub fn scan_count(&self) -> u64 {
        self.imported_scans().saturating_add(self.covered().scan_count())
    }

    /// Nodes of the subnet that listings show, and imported ones whether observed or not;
    /// ascending.
    fn lines<'b>(&'b self, covered: &'b Covered<'_>) -> impl Iterator<Item = Line> + 'b {
        let mut imported = self.opening.map_or(&[][..], |opening| &opening.rows).iter().peekable();
        let snapshot = self.snapshot;
        let here = self.subnet.and_then(|subnet| snapshot.subnets.get(subnet as usize));
        let mut observed = snapshot.nodes().filter_map(move |view| {
            let offered = here.is_some_and(|here| view.subnets.contains(&here.as_str()));
            offered.then_some((view.id, view.number))
        });
        let mut next = observed.next();
        std::iter::from_fn(move || {
            let row = match next {
                Some((id, _)) => imported.next_if(|row| row.id <= id),
                None => imported.next(),
            };
            let id = row.map(|row| row.id).or(next.map(|(id, _)| id))?;
            if next.is_some_and(|(observed, _)| observed == id) {
                next = observed.next();
            }
            Some(self.line(id, row, covered))
        })
    }

    /// What was observed of a node, on top of what was imported. Whoever imported it says that it
    /// is a node of this subnet: what was seen of it counts, confirmed or not.
    fn line(&self, id: NodeId, row: Option<&OpeningRow>, covered: &Covered<'_>) -> Line {
        let number = self.snapshot.ids.number(&id);
        let seen = number.and_then(|number| self.snapshot.last_seen_ms(number));
        let offered = number.and_then(|number| self.snapshot.last_offer_ms(number));
        let imported = row.and_then(|row| row.last_seen_ms);
        let scans = number.map_or(0, |number| covered.online_scans(number));
        // As the script left it, until a round says more.
        let was_online = covered.scan_count() == 0 && row.is_some_and(|row| row.is_online);
        Line {
            id,
            is_online: was_online || number.is_some_and(|number| covered.is_online(number)),
            last_seen_ms: seen.max(offered).max(imported),
            online_scans: scans.saturating_add(row.map_or(0, |row| row.online_scans)),
        }
    }

    /// Writes the rows.
    ///
    /// # Errors
    /// Only what the writer returns.
    pub fn write_csv(&self, out: impl Write) -> io::Result<()> {
        let covered = self.covered();
        let scan_count = self.imported_scans().saturating_add(covered.scan_count());
        let mut csv = csv::WriterBuilder::new().from_writer(out);
        csv.write_record(HEADER)?;
        for line in self.lines(&covered) {
            csv.write_record([
                line.id.to_string().as_str(),
                if line.is_online { "True" } else { "False" },
                &naive_stamp(line.last_seen_ms.unwrap_or(0)),
                &line.online_scans.to_string(),
                &ShortestDecimal(percent(line.online_scans, scan_count)).to_string(),
            ])?;
        }
        csv.flush()
    }

    /// Replaces both files, each whole. The count goes first: whatever moment a reader or a crash
    /// picks, no node was online more often than there were scans.
    ///
    /// # Errors
    /// With the path in question; what could not be replaced stays.
    pub fn replace(&self, csv: &Path) -> io::Result<Replaced> {
        let scan_count = self.scan_count();
        let first = replace_file(&scan_count_path(csv), |out| write!(out, "{scan_count}"))?;
        let second = replace_file(csv, |out| self.write_csv(out))?;
        Ok(if first == Replaced::AtOnce { second } else { first })
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of scans stay far below 2^53")]
fn percent(online: u64, scans: u64) -> f64 {
    if scans == 0 { 0.0 } else { 100.0 * online as f64 / scans as f64 }
}

/// Where the number of scans goes.
#[must_use]
pub fn scan_count_path(csv: &Path) -> PathBuf {
    csv.with_file_name("scan_count.txt")
}
