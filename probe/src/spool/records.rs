//! Types that the files of the spool share.

use std::io;
use std::path::PathBuf;

/// The aggregator refuses parts of rounds this long before the newest, in seconds: 35 days.
pub const AGE_MAX_S: u64 = 35 * 86_400;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct SpoolLimits {
    /// Bytes on disk; beyond them the oldest segments are dropped.
    pub bytes_max: u64,
    /// Segments whose rounds are all this many seconds old are dropped, once a confirmed clock
    /// tells the time.
    pub age_max_s: u64,
}

impl SpoolLimits {
    /// A size limit, and the age at which the aggregator refuses.
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
    /// Damaged stretches.
    pub damaged: u64,
}

/// Why a part was not stored.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk did not accept it.
    #[error("cannot write the spool in {directory}: {source}")]
    Write {
        /// The spool's directory.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// All keys of this round are used, or it is unknown which are.
    #[error("no unused key for another part of round {}", crate::time_format::utc(*.round_s))]
    NoKey {
        /// The round's start.
        round_s: u64,
    },
}
