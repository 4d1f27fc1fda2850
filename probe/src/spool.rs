//! The durable outbox: parts and gaps on disk until the aggregator has them.
//!
//! Owns a directory of segments, append-only files of checksummed frames. A part is on disk,
//! synced, before it is sent, and leaves when it is acknowledged. Refuses to make a key twice,
//! also across restarts. Damage never stops it: what cannot be read is named in the log, counted
//! and passed over, the rest is delivered, and the rounds of what waited there are reported as a
//! gap. Nor does a disk that takes nothing: what is lost meanwhile is reported when it can be. A
//! folder, lock or segment that is removed meanwhile is damage, too, and is made anew.
//!
//! # Format, version 1
//!
//! Integers are little-endian, checksums CRC-32 (u32) as in zlib, messages those of
//! `collector.proto`.
//!
//! A **segment** is named by its number, `00000001.spool`. It is the 8 bytes `GUSPOOL1`; the high
//! water, that is the highest round (start, u64) of a part made before this segment; the checksum
//! of these 16 bytes; then frames. Only the process that made it appends to it. A segment is closed
//! at 4 MiB, at 1 MiB when nothing waits, and at an eighth of the bytes the spool may take.
//!
//! A **frame** is the bytes `A5 5A`; its kind (u8); the length of its body (u32), at most 64 more
//! than a message may have; the body; the checksum of kind, length and body. Kinds:
//!
//! 1. An entry: sequence number (u64), then a `Part` in the compact form, for which each segment is
//!    a stream of its own, so that it reads alone. An entry that brings new node ids stands twice
//!    in a row, unless it takes more than a sixteenth of the bytes the spool may take: the entries
//!    after it cannot be read without those ids. Of two entries with one number the first counts.
//! 2. An acknowledgement: the sequence number (u64) of an entry or gap in this or an earlier
//!    segment, or of one that is missing and whose rounds were reported as a gap.
//! 3. A gap: sequence number (u64), then a `Gap`. It waits and is acknowledged like an entry.
//!
//! Sequence numbers ascend over all segments and are never given out twice; those of writes that
//! failed are missing. Bytes that are no frame are damage, except what may be the beginning of a
//! frame at the end of a file: a write that did not end.
//!
//! `spool.lock` is locked by the process that has the spool open. Its content is the mark: the 8
//! bytes `GUSPMRK2`, the last sequence number (u64), the highest round (start, u64) of a part, a
//! round (start, u64; 0: not known) before which nothing is that waits, the checksum of these 32
//! bytes. It is overwritten after each entry and gap, and not synced.
//!
//! Which keys were made before: those of the entries. Of rounds up to a segment's high water that
//! is not known when the segments before it tell of no such round; where something is damaged,
//! where a sequence number is missing, or where the mark is ahead of the segments, it is not known
//! of any round up to the highest. Such rounds are not scanned again.
//!
//! What a missing number was is not known; its rounds are taken to be about those of the entries
//! around it. So a second damage, to the gap that tells of a first one before that was delivered,
//! is told of with rounds that need not be the gap's.
//!
//! `NAME.damaged` was a segment in which something was damaged. At most 8 such files are kept, and
//! of them at most an eighth of the bytes the spool may take; nothing reads them.

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
