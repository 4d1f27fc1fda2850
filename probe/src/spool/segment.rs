//! One file of the spool: writing frames, finding frames among damage.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use uptime_proto::v1;

use super::{Held, Numbers};

const MAGIC: &[u8; 8] = b"GUSPOOL1";
const HEADER_BYTES: usize = 20;
const MARK: [u8; 2] = [0xa5, 0x5a];
/// Mark, kind, length; the checksum follows the body.
const FRAME_HEAD_BYTES: usize = 7;
/// A part fits a message, so no frame is larger by more than its own head.
const BODY_BYTES_MAX: usize = uptime_proto::MESSAGE_BYTES_MAX + 64;

/// The highest sequence number: beyond what any number of parts a second comes to.
pub(super) const SEQUENCE_MAX: u64 = 1 << 62;

/// Kind of a frame: a part.
pub(super) const ENTRY: u8 = 1;
/// Kind of a frame: an acknowledgement.
pub(super) const ACK: u8 = 2;

/// Where a segment lies.
pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:08}.spool"))
}

/// The segments of a directory, ascending.
pub(super) fn list(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".spool"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            segments.push((number, path));
        }
    }
    segments.sort();
    Ok(segments)
}

/// The open segment.
#[derive(Debug)]
pub(super) struct Writer {
    number: u64,
    file: File,
    bytes: u64,
}

impl Writer {
    /// Makes a new segment; its header and its name are on disk when this returns.
    pub(super) fn create(directory: &Path, number: u64, high_water_s: u64) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().append(true).create_new(true).open(path(directory, number))?;
        file.write_all(&header(high_water_s))?;
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
        Ok(Self { number, file, bytes: HEADER_BYTES as u64 })
    }

    /// A writer whose every write fails as on a full disk.
    #[cfg(test)]
    #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    pub(super) fn full(directory: &Path) -> Self {
        let number = list(directory).unwrap().last().unwrap().0;
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        Self { number, file, bytes: 0 }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a frame; not synced.
    pub(super) fn frame(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        if body.len() > BODY_BYTES_MAX {
            return Err(io::Error::other("a frame larger than any reader takes"));
        }
        let frame = frame(kind, body);
        self.file.write_all(&frame)?;
        self.bytes += frame.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The first bytes of a segment.
pub(crate) fn header(high_water_s: u64) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(high_water_s.to_le_bytes());
    let checksum = crc32fast::hash(&header);
    header.extend(checksum.to_le_bytes());
    header
}

/// A frame; its body is no longer than [`BODY_BYTES_MAX`].
pub(crate) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + body.len() + 4);
    frame.extend(MARK);
    frame.push(kind);
    frame.extend(length.to_le_bytes());
    frame.extend(body);
    let checksum = crc32fast::hash(&frame[MARK.len()..]);
    frame.extend(checksum.to_le_bytes());
    frame
}

/// A whole frame, and where the next one may begin.
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) body: &'a [u8],
    pub(super) end: usize,
}

fn frame_at(bytes: &[u8], at: usize) -> Option<Frame<'_>> {
    let rest = bytes.get(at..)?;
    let (head, after) = rest.split_at_checked(FRAME_HEAD_BYTES)?;
    if head[..2] != MARK || !(head[2] == ENTRY || head[2] == ACK) {
        return None;
    }
    let length = u32::from_le_bytes([head[3], head[4], head[5], head[6]]) as usize;
    if length > BODY_BYTES_MAX {
        return None;
    }
    let (body, after) = after.split_at_checked(length)?;
    let checksum = u32::from_le_bytes(*after.first_chunk::<4>()?);
    let whole = crc32fast::hash(&rest[MARK.len()..FRAME_HEAD_BYTES + length]) == checksum;
    whole.then_some(Frame { kind: head[2], body, end: at + FRAME_HEAD_BYTES + length + 4 })
}

/// The next whole frame from `at` on, and whether bytes were passed over to find it.
pub(super) fn next_frame(bytes: &[u8], at: usize) -> Option<(Frame<'_>, bool)> {
    if let Some(frame) = frame_at(bytes, at) {
        return Some((frame, false));
    }
    (at + 1..bytes.len()).find_map(|at| frame_at(bytes, at)).map(|frame| (frame, true))
}

/// The sequence number of a frame's body, and what follows it. `None` also for zero and for a
/// number that no spool gets to: believed, it would leave none for the parts to come.
pub(super) fn sequence(body: &[u8]) -> Option<(u64, &[u8])> {
    let (sequence, rest) = body.split_first_chunk::<8>()?;
    let sequence = u64::from_le_bytes(*sequence);
    (1..=SEQUENCE_MAX).contains(&sequence).then_some((sequence, rest))
}

/// Where frames begin.
pub(super) const fn first_frame() -> u64 {
    HEADER_BYTES as u64
}

/// What a segment says besides what waits in it.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// From the header; `None`: the header is damaged.
    pub(super) earlier_high_water_s: Option<u64>,
    pub(super) last_sequence: u64,
    pub(super) numbers: Numbers,
    pub(super) acknowledged: BTreeSet<u64>,
    /// Stretches of bytes that are no frames. A torn last frame is no damage: it was never
    /// promised to anyone.
    pub(super) damaged: u64,
}

/// Reads a segment through.
pub(super) fn scan(path: &Path) -> io::Result<(Held, Scanned)> {
    let bytes = std::fs::read(path)?;
    let mut scanned = Scanned::default();
    let mut held = Held { bytes: bytes.len() as u64, ..Held::default() };
    match read_header(&bytes) {
        Some(high_water_s) => scanned.earlier_high_water_s = Some(high_water_s),
        None => scanned.damaged += 1,
    }
    let mut at = HEADER_BYTES;
    while let Some((frame, passed_over)) = next_frame(&bytes, at) {
        scanned.damaged += u64::from(passed_over);
        at = frame.end;
        let Some((number, rest)) = sequence(frame.body) else {
            continue;
        };
        scanned.last_sequence = scanned.last_sequence.max(number);
        if frame.kind == ACK {
            scanned.acknowledged.insert(number);
            continue;
        }
        // Entries ascend. One that does not is a piece of this file in the wrong place.
        if held.waiting.last().is_some_and(|last| *last >= number) {
            scanned.damaged += 1;
            continue;
        }
        held.waiting.insert(number);
        let Ok(part) = v1::Part::decode(rest) else {
            continue;
        };
        let round_s = part.round_unix_s;
        let (first, last) = held.rounds.unwrap_or((round_s, round_s));
        held.rounds = Some((first.min(round_s), last.max(round_s)));
        let next = u16::try_from(part.number).unwrap_or(u16::MAX).saturating_add(1);
        let slot = scanned.numbers.entry((round_s, part.subnet)).or_default();
        *slot = next.max(*slot);
    }
    Ok((held, scanned))
}

fn read_header(bytes: &[u8]) -> Option<u64> {
    let header = bytes.get(..HEADER_BYTES)?;
    let (body, checksum) = header.split_last_chunk::<4>()?;
    let (magic, high_water) = body.split_first_chunk::<8>()?;
    let whole = magic == MAGIC && crc32fast::hash(body) == u32::from_le_bytes(*checksum);
    whole.then(|| u64::from_le_bytes(*high_water.first_chunk::<8>().unwrap_or(&[0; 8])))
}
