//! The canonical CSV.
//!
//! Owns its bytes and how they reach the disk: written to a temporary file beside it, synced,
//! renamed, the directory synced, once per closed round. A reader never sees half a file; a write
//! that fails leaves the file before it and is reported.

pub mod format;
pub mod seed_csv;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use metrics::{counter, histogram};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uptime_accounting::snapshot::NodeLine;

use crate::clock::now_unix_ms;
pub use crate::disk::replace_file;
use crate::disk::{Replaced, try_out};
use crate::engine::Snapshot;
use crate::store::Opening;
use format::ShortestDecimal;
pub use format::{HEADER, utc_stamp};
use seed_csv::{SeedBooks, scan_count_path, subnet_of};

/// Writes the canonical CSV of a snapshot: a function of the facts and the last closed round.
///
/// # Errors
/// Only what the writer returns.
pub fn write_csv(snapshot: &Snapshot, out: impl Write) -> io::Result<()> {
    // No field holds anything that would need quotes.
    let mut csv = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Never).from_writer(out);
    csv.write_record(HEADER)?;
    // Neighbours were mostly seen at the same instant: format it once.
    let mut stamp = (i64::MIN, String::new());
    let mut record = csv::ByteRecord::with_capacity(128, HEADER.len());
    let mut number = Vec::with_capacity(32);
    for NodeLine { id, is_online, last_seen_ms, tally, .. } in snapshot.lines() {
        match last_seen_ms {
            Some(ms) if ms != stamp.0 => stamp = (ms, utc_stamp(ms)),
            None => stamp = (i64::MIN, String::new()),
            Some(_) => {}
        }
        record.clear();
        record.push_field(&id.to_text());
        record.push_field(if is_online { b"True" } else { b"False" });
        record.push_field(stamp.1.as_bytes());
        number.clear();
        write!(number, "{}", tally.up_rounds)?;
        record.push_field(&number);
        number.clear();
        write!(number, "{}", ShortestDecimal(tally.uptime_percent().unwrap_or(0.0)))?;
        record.push_field(&number);
        csv.write_byte_record(&record)?;
    }
    csv.flush()
}

/// What the `seed` dialect takes besides the snapshot.
#[derive(Debug)]
pub struct SeedTerms {
    /// What was imported.
    pub opening: Option<Opening>,
    /// The subnet the CSV is of, where the operator said so.
    pub subnet: Option<String>,
}

/// The CSV: where it goes and what it says.
#[derive(Debug, Clone)]
pub struct PublishedCsv {
    /// The file.
    pub path: PathBuf,
    /// In the `seed` dialect: what that takes.
    pub seed: Option<Arc<SeedTerms>>,
}

impl PublishedCsv {
    /// Whether the files can be written, as far as can be told without writing them.
    ///
    /// # Errors
    /// With the path in question.
    pub fn try_out(&self) -> io::Result<()> {
        try_out(&self.path)?;
        if self.seed.is_some() { try_out(&scan_count_path(&self.path)) } else { Ok(()) }
    }

    /// Replaces the file, and in the `seed` dialect the number of scans beside it, by what a
    /// snapshot says.
    ///
    /// # Errors
    /// With what is wrong; where it can be replaced at once, the file before stays.
    pub fn replace(&self, snapshot: &Snapshot) -> io::Result<Replaced> {
        let Some(terms) = &self.seed else {
            return replace_file(&self.path, |out| write_csv(snapshot, out));
        };
        let opening = terms.opening.as_ref();
        let subnet = subnet_of(snapshot, terms.subnet.as_deref(), opening);
        let subnet = subnet.map_err(io::Error::other)?;
        let seed = snapshot.seed().ok_or_else(|| io::Error::other("seed-v1 is not kept"))?;
        SeedBooks { snapshot, seed, opening, subnet }.replace(&self.path)
    }
}

/// Writes the CSV now and after every closed round, until told to stop; after the last word of
/// the ledger it writes once more. `published` tells readers which round the file is of.
pub async fn run(
    csv: PublishedCsv,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    published: watch::Sender<Option<u64>>,
    shutdown: CancellationToken,
) {
    // The round and the snapshot that the file is of.
    let mut written = None;
    let mut stopping = false;
    let mut told = false;
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let key = snapshot.closed.map(uptime_proto::Round::start_s);
        let is_new = written.is_none_or(|(round, _)| round != key);
        if is_new && write(&csv, &snapshot, &mut told).await {
            written = Some((key, snapshot.serial));
            published.send_replace(key);
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { break },
            // The ledger's last word comes when it has stopped.
            () = shutdown.cancelled(), if !stopping => stopping = true,
        }
    }
    let last = Arc::clone(&snapshots.borrow());
    let is_new = written.is_none_or(|(_, serial)| serial != last.serial);
    if is_new && write(&csv, &last, &mut told).await {
        published.send_replace(last.closed.map(uptime_proto::Round::start_s));
    }
}

/// Writes the file, and says how that went; once, where it could only be written over.
async fn write(csv: &PublishedCsv, snapshot: &Arc<Snapshot>, told: &mut bool) -> bool {
    let (target, snapshot) = (csv.clone(), Arc::clone(snapshot));
    let started = now_unix_ms();
    let result = tokio::task::spawn_blocking(move || target.replace(&snapshot))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
    match &result {
        Err(error) => {
            counter!("uptime_publish_failed_total").increment(1);
            tracing::error!(%error, "cannot write the CSV; the previous file stays");
        }
        Ok(replaced) => {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
            let took = (now_unix_ms() - started) as f64 / 1000.0;
            histogram!("uptime_publish_csv_seconds").record(took);
            if *replaced == Replaced::WrittenOver && !std::mem::replace(told, true) {
                tracing::warn!(
                    csv = %csv.path.display(),
                    "no file can be put in the place of this one (is it mounted by itself, or its \
                     folder not writable?), so it is written over: whoever reads it meanwhile may \
                     see half of it. Mount its folder, or choose another file with --csv"
                );
            }
        }
    }
    result.is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_file_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nodes_status.csv");
        replace_file(&path, |out| out.write_all(b"first")).unwrap();
        let fault = replace_file(&path, |out| {
            out.write_all(b"half of the sec")?;
            Err(io::Error::other("disk full"))
        });
        assert!(fault.unwrap_err().to_string().contains("disk full"));
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
    }
}
