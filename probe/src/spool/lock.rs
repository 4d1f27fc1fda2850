//! The file `spool.lock`: one process per spool, and the high-water mark.
//!
//! Owns the lock, which the system releases when the process ends, and the mark: how far the spool
//! was written. The mark is overwritten after each entry and gap, without a sync: it detects a
//! segment that was cut, emptied or removed, but not a power cut.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const NAME: &str = "spool.lock";
const MAGIC: &[u8; 8] = b"GUSPMRK2";
/// Magic, sequence number, highest round, oldest waiting round, checksum.
const MARK_BYTES: usize = 36;

/// How far a spool was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct HighWaterMark {
    /// The last sequence number used.
    pub(super) sequence: u64,
    /// The start of the highest round that has a part.
    pub(super) high_water_s: u64,
    /// The start of the oldest round that may wait; 0: not known.
    pub(super) waiting_since_s: u64,
}

/// The held lock.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

/// Why there is no lock.
#[derive(Debug)]
pub(super) enum NoLock {
    /// Another process holds it.
    Held(io::Error),
    /// It cannot be had now.
    NotNow(io::Error),
}

impl Lock {
    /// Takes the lock of a directory's spool.
    pub(super) fn take(directory: &Path) -> Result<Self, NoLock> {
        let path = directory.join(NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            // On a read-only file system what waits can still be sent.
            .or_else(|error| File::open(&path).map_err(|_| error))
            .and_then(|file| match file.metadata()?.is_file() {
                true => Ok(file),
                false => Err(io::Error::other(format!("{} is not a file", path.display()))),
            })
            .map_err(NoLock::NotNow)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(NoLock::Held(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("another probe uses this spool ({} is locked)", path.display()),
            ))),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(path = %path.display(), "this file system has no file locks; \
                    run only one probe on this spool");
                Ok(Self { file })
            }
            Err(TryLockError::Error(error)) => Err(NoLock::NotNow(error)),
        }
    }

    /// Whether the lock file is still in its directory. True where that is not known.
    pub(super) fn lies_in(&self, directory: &Path) -> bool {
        identity(&self.file).is_ok_and(|identity| lies_at(identity, &directory.join(NAME)))
    }

    /// Writes the mark. After a failure less damage is detected; nothing else is lost.
    pub(super) fn write_mark(&self, mark: HighWaterMark) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(mark.sequence.to_le_bytes());
        bytes.extend(mark.high_water_s.to_le_bytes());
        bytes.extend(mark.waiting_since_s.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        if let Err(error) = self.file.write_all_at(&bytes, 0) {
            tracing::debug!(%error, "cannot write the high-water mark of the spool");
        }
    }
}

/// Device and inode of an open file.
pub(super) fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|of| (of.dev(), of.ino()))
}

/// Whether this path is still the same file. True where that is not known.
pub(super) fn lies_at(identity: (u64, u64), path: &Path) -> bool {
    match path.metadata() {
        Ok(there) => (there.dev(), there.ino()) == identity,
        Err(error) => {
            !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
    }
}

/// Whether a process holds the lock.
pub(super) fn is_held(directory: &Path) -> bool {
    let file = File::open(directory.join(NAME));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The mark of a directory's spool, or the default for a new one.
///
/// # Errors
/// When the mark cannot be read or is damaged.
pub(super) fn read_mark(directory: &Path) -> Result<HighWaterMark, String> {
    let bytes = match std::fs::read(directory.join(NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(HighWaterMark::default());
        }
        Err(error) => return Err(error.to_string()),
    };
    if bytes.is_empty() {
        return Ok(HighWaterMark::default());
    }
    parse_mark(&bytes).ok_or_else(|| "the high-water mark is damaged".to_owned())
}

/// The name of the file.
pub(super) const fn name() -> &'static str {
    NAME
}

fn parse_mark(bytes: &[u8]) -> Option<HighWaterMark> {
    let (body, checksum) = bytes.get(..MARK_BYTES)?.split_last_chunk::<4>()?;
    let (magic, rest) = body.split_first_chunk::<8>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (high_water, rest) = rest.split_first_chunk::<8>()?;
    let waiting_since = rest.first_chunk::<8>()?;
    let whole = magic == MAGIC && crc32fast::hash(body) == u32::from_le_bytes(*checksum);
    whole.then(|| HighWaterMark {
        sequence: u64::from_le_bytes(*sequence),
        high_water_s: u64::from_le_bytes(*high_water),
        waiting_since_s: u64::from_le_bytes(*waiting_since),
    })
}
