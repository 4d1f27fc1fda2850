//! Types that the files of the spool share.

use std::io;
use std::path::PathBuf;

/// Parts of rounds so long before the newest, in seconds, are refused by the aggregator: 35 days.
pub const AGE_MAX_S: u64 = 35 * 86_400;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct SpoolLimits {
    /// Bytes on disk; beyond them the oldest segments go.
    pub bytes_max: u64,
    /// Segments of which every round is so many seconds older than now go, once a clock that is
    /// confirmed says which round it is.
    pub age_max_s: u64,
}

impl SpoolLimits {
    /// So many bytes, and the age at which the aggregator refuses.
    #[must_use]
    pub const fn of_bytes(bytes_max: u64) -> Self {
        Self { bytes_max, age_max_s: AGE_MAX_S }
    }
}

/// A stretch of rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rounds {
    /// The start of the first, unix seconds.
    pub(super) first_s: u64,
    /// The start of the last.
    pub(super) last_s: u64,
    /// The end of the last.
    pub(super) end_s: u64,
}

impl Rounds {
    pub(super) fn join(into: &mut Option<Self>, other: Self) {
        let there = into.unwrap_or(other);
        *into = Some(Self {
            first_s: there.first_s.min(other.first_s),
            last_s: there.last_s.max(other.last_s),
            end_s: there.end_s.max(other.end_s),
        });
    }
}

/// What was found when a spool was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Parts and gaps that wait to be sent.
    pub waiting: u64,
    /// Stretches of bytes that are no frames.
    pub damaged: u64,
}

/// Why a part was not kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk would not take it.
    #[error("cannot write the spool in {directory}: {source}")]
    Write {
        /// Where.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A part of this round was made before by an earlier run, or too many were made, or it is
    /// not known which were.
    #[error("no unused key for another part of round {}", crate::time_format::utc(*.round_s))]
    NoKey {
        /// The round's start.
        round_s: u64,
    },
}
