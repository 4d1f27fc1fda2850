//! `uptime-probe spool list` and `verify`: what is in a spool, without changing it.
//!
//! Owns the reports for people. Takes no lock and writes nothing, so it does not disturb a running
//! probe; what the probe writes meanwhile may be missing.

use std::io;
use std::path::Path;

use prost::Message;
use serde::Serialize;
use uptime_proto::convert::Decoder;
use uptime_proto::v1;

use super::cursor::expand;
use super::reading::{Contents, Damage, Frames, Step, Stretch, contents};
use super::segment::{ACK, ENTRY, GAP, HEADER_BYTES, sequence};
use super::sequences::Sequences;
use super::{lock, quarantine, segment};
use crate::time_format::utc;

/// Faults that are listed; more are only counted.
const FAULTS_MAX: usize = 10_000;

/// One segment, or one quarantined file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// The file's name.
    pub file: String,
    /// The file's size.
    pub bytes: u64,
    /// Parts that wait to be sent.
    pub parts_waiting: u64,
    /// Gaps that wait to be sent.
    pub gaps_waiting: u64,
    /// The start of the first round in it, UTC.
    pub first_round: Option<String>,
    /// The start of the last round in it, UTC.
    pub last_round: Option<String>,
    /// Damaged stretches in it.
    pub damaged_stretches: u64,
    /// It was damaged and is not read any more.
    #[serde(rename = "set_aside")]
    pub quarantined: bool,
}

/// What is in a spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// A probe has it open.
    pub in_use: bool,
    /// Its files, the oldest first.
    pub segments: Vec<Segment>,
}

impl Listing {
    /// Parts and gaps that wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.segments.iter().map(|segment| segment.parts_waiting + segment.gaps_waiting).sum()
    }

    /// Damaged stretches, without those in quarantined files.
    #[must_use]
    pub fn damaged_stretches(&self) -> u64 {
        self.segments.iter().map(|segment| segment.damaged_stretches).sum()
    }

    /// The report as lines of text.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:26} {:>10} {:>8} {:>6} {:20} {:20} DAMAGED",
            "FILE", "BYTES", "PARTS", "GAPS", "FIRST ROUND", "LAST ROUND"
        )];
        for segment in &self.segments {
            let dash = || "-".to_owned();
            lines.push(format!(
                "{:26} {:>10} {:>8} {:>6} {:20} {:20} {}",
                segment.file,
                segment.bytes,
                segment.parts_waiting,
                segment.gaps_waiting,
                segment.first_round.clone().unwrap_or_else(dash),
                segment.last_round.clone().unwrap_or_else(dash),
                if segment.quarantined {
                    "quarantined".to_owned()
                } else {
                    segment.damaged_stretches.to_string()
                },
            ));
        }
        let (bytes, waiting) =
            (self.segments.iter().map(|it| it.bytes).sum::<u64>(), self.waiting());
        let used = if self.in_use { "; a probe has it open" } else { "" };
        lines.push(format!("{bytes} bytes, {waiting} parts and gaps wait{used}"));
        lines
    }
}

/// A place where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The name of the file.
    pub file: String,
    /// Bytes from the beginning of the file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// What is wrong.
    pub what: String,
}

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verified {
    /// Segments that were read.
    pub segments: u64,
    /// Whole parts, delivered ones included.
    pub parts: u64,
    /// Whole gaps.
    pub gaps: u64,
    /// What is wrong, by file and offset; at most 10,000 places.
    pub faults: Vec<Fault>,
    /// Places beyond those.
    pub more_faults: u64,
}

impl Verified {
    /// The report as lines of text.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let fault = |fault: &Fault| {
            format!("{}: {} bytes at {}: {}", fault.file, fault.length, fault.offset, fault.what)
        };
        let mut lines: Vec<String> = self.faults.iter().map(fault).collect();
        let count = self.faults.len() as u64 + self.more_faults;
        lines.push(format!(
            "{} segments, {} parts, {} gaps read; {count} faults",
            self.segments, self.parts, self.gaps
        ));
        lines
    }

    pub(super) fn fault(&mut self, file: &str, stretch: Stretch, what: impl Into<String>) {
        if self.faults.len() >= FAULTS_MAX {
            self.more_faults += 1;
            return;
        }
        let Stretch { offset, length } = stretch;
        // A long stretch is read in pieces.
        if let Some(last) = self.faults.last_mut()
            && last.file == file
            && last.what == NO_FRAME
            && last.offset.saturating_add(last.length) == offset
        {
            last.length = last.length.saturating_add(length);
            return;
        }
        self.faults.push(Fault { file: file.to_owned(), offset, length, what: what.into() });
    }
}

const NO_FRAME: &str = "not a valid record";

/// Lists what is in a spool.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(directory: &Path) -> io::Result<Listing> {
    let mut acknowledged = Sequences::default();
    let mut read: Vec<(String, Contents)> = Vec::new();
    for (number, path) in segment::list(directory)? {
        let contents = contents(&path, |_| {}).unwrap_or_else(|_| {
            let damage = Damage { count: 1, ..Damage::default() };
            Contents { damage, ..Contents::default() }
        });
        for sequence in contents.acknowledged.iter() {
            acknowledged.insert(sequence);
        }
        read.push((segment::name(number), contents));
    }
    let mut segments: Vec<Segment> = Vec::new();
    for (file, contents) in read {
        let waits = |set: &Sequences| {
            set.iter().filter(|sequence| !acknowledged.contains(*sequence)).count() as u64
        };
        let gaps_waiting = waits(&contents.gaps);
        segments.push(Segment {
            file,
            bytes: contents.bytes,
            parts_waiting: waits(&contents.sequences) - gaps_waiting,
            gaps_waiting,
            first_round: contents.rounds.map(|rounds| utc(rounds.first_s)),
            last_round: contents.rounds.map(|rounds| utc(rounds.last_s)),
            damaged_stretches: contents.damage.count,
            quarantined: false,
        });
    }
    for (path, bytes) in quarantine::list(directory)? {
        segments.push(Segment {
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes,
            parts_waiting: 0,
            gaps_waiting: 0,
            first_round: None,
            last_round: None,
            damaged_stretches: 0,
            quarantined: true,
        });
    }
    Ok(Listing { in_use: lock::is_held(directory), segments })
}

/// Reads everything in a spool, every part of it included.
///
/// # Errors
/// When the directory cannot be read.
pub fn verify(directory: &Path) -> io::Result<Verified> {
    let mut verified = Verified::default();
    for (number, path) in segment::list(directory)? {
        verified.segments += 1;
        let file = segment::name(number);
        if let Err(error) = verify_segment(&file, &path, &mut verified) {
            let stretch = Stretch { offset: 0, length: 0 };
            verified.fault(&file, stretch, format!("cannot be read: {error}"));
        }
    }
    if let Err(error) = lock::read_mark(directory) {
        verified.fault(lock::name(), Stretch { offset: 0, length: 0 }, error);
    }
    Ok(verified)
}

fn verify_segment(file: &str, path: &Path, verified: &mut Verified) -> io::Result<()> {
    let bytes = path.metadata()?.len();
    let (mut frames, header) = Frames::open(path)?;
    if header.is_none() {
        let length = bytes.min(HEADER_BYTES as u64);
        verified.fault(file, Stretch { offset: 0, length }, "the header is damaged");
    }
    let (mut decoder, mut last) = (Decoder::default(), 0);
    while let Some(step) = frames.next()? {
        let (kind, offset, body) = match step {
            Step::Frame { kind, offset, body } => (kind, offset, body),
            Step::Damage(stretch) => {
                verified.fault(file, stretch, NO_FRAME);
                continue;
            }
        };
        let stretch = Stretch { offset, length: segment::frame_bytes(body.len()) as u64 };
        let Some((number, rest)) = sequence(body) else {
            verified.fault(file, stretch, "a record without a sequence number");
            continue;
        };
        // An entry that stands twice counts once.
        if kind == ACK || number <= last {
            continue;
        }
        last = number;
        match kind {
            ENTRY if expand(rest, &mut decoder).is_some() => verified.parts += 1,
            GAP if v1::Gap::decode(rest).is_ok() => verified.gaps += 1,
            ENTRY => {
                verified.fault(file, stretch, "a part that depends on a damaged one, or is invalid")
            }
            _ => verified.fault(file, stretch, "an invalid gap"),
        }
    }
    Ok(())
}

/// What `check` says of a spool: that it can be written, or that a running probe has it.
///
/// # Errors
/// When it can be neither read nor written.
pub fn check(directory: &Path) -> io::Result<Listing> {
    std::fs::create_dir_all(directory)?;
    let listing = list(directory)?;
    if !listing.in_use {
        let path = directory.join("spool.check");
        let tried = std::fs::write(&path, [0; 4096]);
        std::fs::remove_file(&path).ok();
        tried?;
    }
    Ok(listing)
}
