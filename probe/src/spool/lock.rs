//! The file `spool.lock`: one process per spool, and a mark of how far it was written.
//!
//! Owns the lock, which the system lets go of when the process ends, however it ends, and the
//! mark. The mark is overwritten after each entry and gap and not synced: it tells of a segment
//! that was cut, emptied or taken away, not of a power cut.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const NAME: &str = "spool.lock";
const MAGIC: &[u8; 8] = b"GUSPMRK2";
/// Magic, sequence number, high water, since when something waits, checksum.
const MARK_BYTES: usize = 36;

/// How far a spool was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// The last sequence number given out.
    pub(super) sequence: u64,
    /// The highest round (start) of which a part was made.
    pub(super) high_water_s: u64,
    /// Nothing that waits is of a round (start) before this one; 0: not known.
    pub(super) waiting_since_s: u64,
}

/// The lock, held.
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
            // On a file system that is read only now, what waits can still be sent.
            .or_else(|error| File::open(&path).map_err(|_| error))
            .and_then(|file| match file.metadata()?.is_file() {
                true => Ok(file),
                false => Err(io::Error::other(format!("{} is no file", path.display()))),
            })
            .map_err(NoLock::NotNow)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(NoLock::Held(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("another probe uses this spool ({} is locked)", path.display()),
            ))),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(path = %path.display(), "files cannot be locked here: see to it \
                    that no two probes use this spool");
                Ok(Self { file })
            }
            Err(TryLockError::Error(error)) => Err(NoLock::NotNow(error)),
        }
    }

    /// Whether the lock still lies in its directory. Where that cannot be told it does.
    pub(super) fn lies_in(&self, directory: &Path) -> bool {
        identity(&self.file).is_ok_and(|identity| lies_at(identity, &directory.join(NAME)))
    }

    /// Notes how far the spool was written. A failure only means that less will be noticed.
    pub(super) fn write_mark(&self, mark: Mark) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(mark.sequence.to_le_bytes());
        bytes.extend(mark.high_water_s.to_le_bytes());
        bytes.extend(mark.waiting_since_s.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        if let Err(error) = self.file.write_all_at(&bytes, 0) {
            tracing::debug!(%error, "the mark was not written");
        }
    }
}

/// Device and inode of an open file.
pub(super) fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|of| (of.dev(), of.ino()))
}

/// Whether a file is the one under this name, and not taken away or replaced. Where that cannot be
/// told it is.
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

/// The mark of a directory's spool: the default where none was made yet.
///
/// # Errors
/// When there is one and it cannot be read or is damaged.
pub(super) fn read_mark(directory: &Path) -> Result<Mark, String> {
    let bytes = match std::fs::read(directory.join(NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mark::default()),
        Err(error) => return Err(error.to_string()),
    };
    if bytes.is_empty() {
        return Ok(Mark::default());
    }
    parse_mark(&bytes).ok_or_else(|| "the mark is damaged".to_owned())
}

/// The name of the file, for people.
pub(super) const fn name() -> &'static str {
    NAME
}

fn parse_mark(bytes: &[u8]) -> Option<Mark> {
    let (body, checksum) = bytes.get(..MARK_BYTES)?.split_last_chunk::<4>()?;
    let (magic, rest) = body.split_first_chunk::<8>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (high_water, rest) = rest.split_first_chunk::<8>()?;
    let waiting_since = rest.first_chunk::<8>()?;
    let whole = magic == MAGIC && crc32fast::hash(body) == u32::from_le_bytes(*checksum);
    whole.then(|| Mark {
        sequence: u64::from_le_bytes(*sequence),
        high_water_s: u64::from_le_bytes(*high_water),
        waiting_since_s: u64::from_le_bytes(*waiting_since),
    })
}
