//! The durable outbox: parts and gaps on disk until the aggregator has them.
//!
//! Owns a directory of segments, append-only files of checksummed frames. A part is on disk,
//! synced, before it is sent, and leaves when it is acknowledged. Refuses to make a key twice,
//! also across restarts. Only damaged records are lost: the spool logs, counts and skips them,
//! delivers the rest, and reports the lost rounds as a gap. A full disk does not stop it either:
//! losses are reported once the disk accepts writes. A directory, lock or segment that is removed
//! under a running probe counts as damage and is created again.
//!
//! # Format, version 1
//!
//! Integers are little-endian, checksums CRC-32 (u32) as in zlib, messages those of
//! `collector.proto`.
//!
//! A **segment** is named by its number, `00000001.spool`. It holds the 8 bytes `GUSPOOL1`; the
//! high water, which is the highest round (start, u64) of a part made before this segment; the
//! checksum of these 16 bytes; then frames. Only the process that created it appends to it. A
//! segment is closed at 4 MiB, at 1 MiB if nothing waits, and at an eighth of the spool's size
//! limit.
//!
//! A **frame** is the bytes `A5 5A`; its kind (u8); the length of its body (u32), at most 64 more
//! than a message may have; the body; the checksum of kind, length and body. Kinds:
//!
//! 1. An entry: sequence number (u64), then a `Part` in the compact form. Each segment is a stream
//!    of its own, so it can be read alone. An entry with new node ids is written twice in a row,
//!    because later entries cannot be read without those ids, unless it is larger than a sixteenth
//!    of the spool's size limit. Of two entries with one number the first counts.
//! 2. An acknowledgement: the sequence number (u64) of an entry or gap in this or an earlier
//!    segment, or of a missing one whose rounds were reported as a gap.
//! 3. A gap: sequence number (u64), then a `Gap`. It waits and is acknowledged like an entry.
//!
//! Sequence numbers ascend over all segments and are never used twice; failed writes leave missing
//! numbers. Bytes that are not a frame are damage, except a possible beginning of a frame at the
//! end of a file: an unfinished write.
//!
//! `spool.lock` is locked by the process that has the spool open. Its content is the
//! high-water mark: the 8 bytes `GUSPMRK2`, the last sequence number (u64), the highest round
//! (start, u64) of a part, the oldest round (start, u64; 0: not known) that may wait, the checksum
//! of these 32 bytes. It is overwritten after each entry and gap, and not synced.
//!
//! The entries show which keys are used. This is unknown for rounds up to a segment's high water if
//! earlier segments have no such round. With damage, a missing sequence number, or a mark ahead of
//! the segments it is unknown for every round up to the highest. Such rounds are not scanned again.
//!
//! The content of a missing number is unknown; its rounds are estimated from the entries around it.
//! If a gap is damaged before it is delivered, the rounds reported for it may therefore differ.
//!
//! `NAME.damaged` is a damaged segment in quarantine. At most 8 such files are kept, with at most
//! an eighth of the spool's size limit; nothing reads them.

mod attachments;
mod cursor;
mod quarantine;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    //! Whole frames for a fuzz target to put into a segment.

    pub(crate) use super::segment::{frame, header};
}
mod gaps;
mod handle;
pub mod inspect;
mod lock;
mod missing_sequences;
mod numbers;
mod opening;
mod reading;
mod records;
pub mod repair;
mod segment;
mod sequences;
mod state;
mod vanished;

pub use attachments::Done;
pub use cursor::{Cursor, Item};
pub use handle::Spool;
pub(crate) use handle::waiting_for_the_disk;
pub use records::{AGE_MAX_S, Found, SpoolError, SpoolLimits};

#[cfg(test)]
mod tests;
