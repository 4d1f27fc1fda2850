//! `uptime-probe spool repair`: rewrites damaged segments with everything readable.
//!
//! Owns the one change to a spool that is not the probe's. Refuses while a probe has it open.
//!
//! No sequence number and no key is made twice afterwards, although the damage is no longer to be
//! seen: a rewritten segment names the highest round of the whole spool as its high water, and
//! the mark is set one ahead of the last sequence number, so that the next start takes every round
//! up to that for unknown.

use std::io;
use std::path::Path;

use prost::Message;
use serde::Serialize;
use uptime_proto::convert::{Decoder, Encoder};
use uptime_proto::v1;

use super::cursor::{expand, own_limits};
use super::inspect::{Fault, verify};
use super::lock::{self, HighWaterMark, Lock, NoLock};
use super::quarantine;
use super::reading::{Frames, Step, contents};
use super::records::SpoolLimits;
use super::segment::{self, ACK, ENTRY, GAP, Writer, sequence};

/// What was in the damaged file and is not in the new one.
pub type LeftOut = Fault;

/// A segment that was rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Its name.
    pub file: String,
    /// Parts in the new file, delivered ones included.
    pub parts_kept: u64,
    /// Gaps in the new file.
    pub gaps_kept: u64,
    /// Acknowledgements in the new file.
    pub acknowledgements_kept: u64,
    /// What could not be kept. It stays in the quarantined file.
    pub left_out: Vec<LeftOut>,
    /// The name the damaged file has now.
    #[serde(rename = "set_aside")]
    pub quarantined: String,
}

impl Repaired {
    /// The report as lines of text.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{}: kept {} parts, {} gaps, {} acknowledgements; the damaged file is now {}",
            self.file,
            self.parts_kept,
            self.gaps_kept,
            self.acknowledgements_kept,
            self.quarantined
        )];
        lines.extend(self.left_out.iter().map(|fault| {
            format!("  left out {} bytes at {}: {}", fault.length, fault.offset, fault.what)
        }));
        lines
    }
}

/// Rewrites every damaged segment of a spool.
///
/// # Errors
/// When a probe has it open, or it cannot be read or written. Segments that were already repaired
/// stay repaired, and nothing is lost.
pub fn repair(directory: &Path, limits: SpoolLimits) -> io::Result<Vec<Repaired>> {
    // A missing directory is a typing mistake; do not create it.
    std::fs::read_dir(directory)?;
    let lock = Lock::take(directory).map_err(|no_lock| match no_lock {
        NoLock::Held(error) | NoLock::NotNow(error) => error,
    })?;
    let verified = verify(directory)?;
    if verified.faults.is_empty() {
        return Ok(Vec::new());
    }
    let mark = highest(directory)?;
    // First, so that an interrupted repair reports everything, too.
    lock.write_mark(mark);
    let mut repaired = Vec::new();
    for (number, path) in segment::list(directory)? {
        let file = segment::name(number);
        let faults = verified.faults.iter().filter(|fault| fault.file == file);
        let left_out: Vec<Fault> = faults.cloned().collect();
        if !left_out.is_empty() {
            repaired.push(rewrite(number, &path, mark.high_water_s, left_out)?);
        }
    }
    quarantine::tidy(directory, limits.bytes_max);
    Ok(repaired)
}

/// A mark beyond every sequence number and round in the spool.
fn highest(directory: &Path) -> io::Result<HighWaterMark> {
    let mut mark = lock::read_mark(directory).unwrap_or_default();
    for (_, path) in segment::list(directory)? {
        let Ok(contents) = contents(&path, |_| {}) else {
            continue;
        };
        let last = contents.sequences.last().max(contents.acknowledged.last());
        mark.sequence = mark.sequence.max(last.unwrap_or(0));
        let earlier_s = contents.earlier_high_water_s.unwrap_or(0);
        mark.high_water_s = mark.high_water_s.max(contents.high_water_s).max(earlier_s);
    }
    mark.sequence = mark.sequence.saturating_add(1);
    Ok(mark)
}

fn rewrite(
    number: u64,
    path: &Path,
    high_water_s: u64,
    left_out: Vec<Fault>,
) -> io::Result<Repaired> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let fresh = path.with_extension("spool.new");
    if let Err(error) = std::fs::remove_file(&fresh)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let quarantined = quarantine::name_for(path);
    let name = quarantined.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut repaired = Repaired {
        file: segment::name(number),
        parts_kept: 0,
        gaps_kept: 0,
        acknowledgements_kept: 0,
        left_out,
        quarantined: name,
    };
    let written = Writer::create_at(&fresh, number, high_water_s, true).and_then(|mut writer| {
        copy(path, &mut writer, &mut repaired)?;
        writer.sync()
    });
    if written.is_err() {
        // Leave no file behind on a full disk.
        std::fs::remove_file(&fresh).ok();
    }
    written?;
    // Link the damaged file to its new name before replacing it, so that every frame is in some
    // file at any time.
    if std::fs::hard_link(path, &quarantined).is_err() {
        std::fs::copy(path, &quarantined)?;
        std::fs::File::open(&quarantined)?.sync_all()?;
    }
    segment::sync_directory(directory)?;
    std::fs::rename(&fresh, path)?;
    segment::sync_directory(directory)?;
    Ok(repaired)
}

/// Copies everything readable. Parts are decoded and encoded again, because they may depend on what
/// was left out.
fn copy(path: &Path, writer: &mut Writer, repaired: &mut Repaired) -> io::Result<()> {
    let (mut frames, _) = Frames::open(path)?;
    let (mut decoder, mut encoder) = (Decoder::default(), Encoder::default());
    let mut last = 0;
    while let Some(step) = frames.next()? {
        let Step::Frame { kind, body, .. } = step else {
            continue;
        };
        let Some((number, rest)) = sequence(body) else {
            continue;
        };
        if kind == ACK {
            writer.put(&segment::frame(ACK, body)?)?;
            repaired.acknowledgements_kept += 1;
            continue;
        }
        if number <= last {
            continue;
        }
        last = number;
        match kind {
            ENTRY => {
                let Some(part) = expand(rest, &mut decoder) else {
                    continue;
                };
                let wire = encoder.encode(&part, &own_limits());
                let mut body = number.to_le_bytes().to_vec();
                wire.encode_raw(&mut body);
                let frame = segment::frame(ENTRY, &body)?;
                writer.put(&frame)?;
                if segment::brings_ids(&wire) {
                    writer.put(&frame)?;
                }
                repaired.parts_kept += 1;
            }
            GAP if v1::Gap::decode(rest).is_ok() => {
                writer.put(&segment::frame(GAP, body)?)?;
                repaired.gaps_kept += 1;
            }
            _ => {}
        }
    }
    Ok(())
}
