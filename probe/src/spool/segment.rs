//! One file of the spool: its header, its frames, and the writing of them.
//!
//! Owns the bytes of the format. Refuses a frame that is not whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uptime_proto::v1::{self, part::Evidence};

const MAGIC: &[u8; 8] = b"GUSPOOL1";
/// Magic, high water, checksum.
pub(super) const HEADER_BYTES: usize = 20;
/// Every frame begins so.
pub(super) const MARK: [u8; 2] = [0xa5, 0x5a];
/// Mark, kind, length; the checksum follows the body.
pub(super) const FRAME_HEAD_BYTES: usize = 7;
/// What a frame has besides its body.
const FRAME_BYTES_LEAST: usize = FRAME_HEAD_BYTES + 4;
/// A part fits a message, so no frame is larger by more than its own head.
const BODY_BYTES_MAX: usize = uptime_proto::MESSAGE_BYTES_MAX + 64;

/// The highest sequence number: beyond what any number of parts a second comes to.
pub(super) const SEQUENCE_MAX: u64 = 1 << 62;

/// Kind of a frame: a part.
pub(super) const ENTRY: u8 = 1;
/// Kind of a frame: an acknowledgement.
pub(super) const ACK: u8 = 2;
/// Kind of a frame: a gap.
pub(super) const GAP: u8 = 3;

/// The name of a segment's file.
pub(super) fn name(number: u64) -> String {
    format!("{number:08}.spool")
}

/// Where a segment lies.
pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(name(number))
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

/// Syncs a directory.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The header of a segment before which rounds up to this one were seen.
pub(crate) fn header(high_water_s: u64) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(high_water_s.to_le_bytes());
    let checksum = crc32fast::hash(&header);
    header.extend(checksum.to_le_bytes());
    header
}

/// The high water of a header; `None`: it is damaged.
pub(super) fn read_header(bytes: &[u8]) -> Option<u64> {
    let header = bytes.get(..HEADER_BYTES)?;
    let (body, checksum) = header.split_last_chunk::<4>()?;
    let (magic, high_water) = body.split_first_chunk::<8>()?;
    let whole = magic == MAGIC && crc32fast::hash(body) == u32::from_le_bytes(*checksum);
    whole.then(|| u64::from_le_bytes(*high_water.first_chunk::<8>().unwrap_or(&[0; 8])))
}

/// A whole frame.
pub(crate) fn frame(kind: u8, body: &[u8]) -> io::Result<Vec<u8>> {
    if body.len() > BODY_BYTES_MAX {
        return Err(io::Error::other("a frame larger than the format allows"));
    }
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(FRAME_BYTES_LEAST + body.len());
    frame.extend(MARK);
    frame.push(kind);
    frame.extend(length.to_le_bytes());
    frame.extend(body);
    let checksum = crc32fast::hash(&frame[MARK.len()..]);
    frame.extend(checksum.to_le_bytes());
    Ok(frame)
}

/// What is at one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A whole frame with a body of this size.
    Whole {
        /// [`ENTRY`], [`ACK`] or [`GAP`].
        kind: u8,
        /// Bytes of the body.
        body: usize,
    },
    /// What may be the beginning of a frame, as far as it goes.
    Cut,
    /// Not a frame; this many bytes had a wrong checksum.
    Nothing(usize),
}

/// What stands at the beginning of these bytes. Bodies beyond `body_max` are not considered.
pub(super) fn parse(bytes: &[u8], body_max: usize) -> Parsed {
    let Some((head, after)) = bytes.split_at_checked(FRAME_HEAD_BYTES) else {
        let mark = bytes.len().min(MARK.len());
        let kind = bytes.get(MARK.len()).is_none_or(|kind| known(*kind));
        let cut = mark > 0 && bytes[..mark] == MARK[..mark] && kind;
        return if cut { Parsed::Cut } else { Parsed::Nothing(0) };
    };
    let kind = head[MARK.len()];
    if head[..MARK.len()] != MARK || !known(kind) {
        return Parsed::Nothing(0);
    }
    let length = u32::from_le_bytes([head[3], head[4], head[5], head[6]]) as usize;
    if length > BODY_BYTES_MAX.min(body_max) {
        return Parsed::Nothing(0);
    }
    let Some(checksum) = after.get(length..).and_then(|after| after.first_chunk::<4>()) else {
        return Parsed::Cut;
    };
    let summed = crc32fast::hash(&bytes[MARK.len()..FRAME_HEAD_BYTES + length]);
    if summed == u32::from_le_bytes(*checksum) {
        Parsed::Whole { kind, body: length }
    } else {
        Parsed::Nothing(length)
    }
}

fn known(kind: u8) -> bool {
    matches!(kind, ENTRY | ACK | GAP)
}

/// The bytes of a frame with such a body.
pub(super) const fn frame_bytes(body: usize) -> usize {
    body + FRAME_BYTES_LEAST
}

/// The sequence number of a frame's body, and what follows it. `None` also for zero and for a
/// number that no spool gets to: believed, it would leave none for the parts to come.
pub(super) fn sequence(body: &[u8]) -> Option<(u64, &[u8])> {
    let (sequence, rest) = body.split_first_chunk::<8>()?;
    let sequence = u64::from_le_bytes(*sequence);
    (1..=SEQUENCE_MAX).contains(&sequence).then_some((sequence, rest))
}

/// Whether entries after this one cannot be read without it.
pub(super) fn brings_ids(part: &v1::Part) -> bool {
    match &part.evidence {
        Some(Evidence::Compact(compact)) => !compact.new_node_ids.is_empty(),
        _ => false,
    }
}

/// The open segment.
#[derive(Debug)]
pub(super) struct Writer {
    number: u64,
    file: File,
    /// What was made: device and inode.
    identity: (u64, u64),
    bytes: u64,
    synced: bool,
}

impl Writer {
    /// Makes a new segment; its header and its name are on disk when this returns, unless a test
    /// wants nothing synced.
    pub(super) fn create(
        directory: &Path,
        number: u64,
        high_water_s: u64,
        synced: bool,
    ) -> io::Result<Self> {
        let path = path(directory, number);
        let made = Self::create_at(&path, number, high_water_s, synced).and_then(|writer| {
            if synced { sync_directory(directory).map(|()| writer) } else { Ok(writer) }
        });
        if made.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
            // Half a header would look like damage; the same number is tried again.
            std::fs::remove_file(&path).ok();
        }
        made
    }

    /// Makes a file at another place than a segment's, for it to be renamed when it is whole.
    pub(super) fn create_at(
        path: &Path,
        number: u64,
        high_water_s: u64,
        synced: bool,
    ) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).create_new(true).open(path)?;
        file.write_all(&header(high_water_s))?;
        if synced {
            file.sync_all()?;
        }
        let identity = super::lock::identity(&file)?;
        Ok(Self { number, file, identity, bytes: HEADER_BYTES as u64, synced })
    }

    /// Every write from now on fails as on a full disk.
    #[cfg(test)]
    #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    pub(super) fn fill_disk(&mut self) {
        self.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether its file still lies in its directory.
    pub(super) fn lies_in(&self, directory: &Path) -> bool {
        super::lock::lies_at(self.identity, &path(directory, self.number))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing was written but the header.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == HEADER_BYTES as u64
    }

    /// Appends a frame; not synced. What a failure left half written is cut off again where that
    /// is possible; the writer must not be used any more.
    pub(super) fn put(&mut self, frame: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(frame) {
            self.file.set_len(self.bytes).ok();
            return Err(error);
        }
        self.bytes += frame.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        if self.synced { self.file.sync_data() } else { Ok(()) }
    }
}
