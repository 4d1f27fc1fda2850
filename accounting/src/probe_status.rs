//! How one probe fares, as readers see it.
//!
//! Owns the record and which of its gaps are shown. Refuses to know where the figures come from.

use crate::fact::Gap;

/// How one probe fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProbeStatus {
    /// Its number in facts.
    pub number: u32,
    /// Its identity.
    pub name: String,
    /// It may speak no more.
    pub revoked: bool,
    /// It has a live stream.
    pub connected: bool,
    /// What it said of its software.
    pub software_version: String,
    /// The subnets it says it scans.
    pub subnets: Vec<String>,
    /// When it last handed in a part, unix milliseconds.
    pub last_report_ms: Option<i64>,
    /// Since the start of this process.
    pub parts_accepted: u64,
    /// Since the start of this process.
    pub parts_refused: u64,
    /// Since the start of this process.
    pub conflicts: u64,
    /// Nodes on its standing list of look-ups.
    pub assigned_nodes: u64,
    /// Ids it brought that were never confirmed.
    pub unconfirmed_nodes: u64,
    /// The last gaps it reported, by their rounds; at most [`ProbeStatus::GAPS_MAX`].
    pub gaps: Vec<Gap>,
}

impl ProbeStatus {
    /// Older gaps are stored and not shown: so many tell what a probe suffers from.
    pub const GAPS_MAX: usize = 8;
    /// Gaps that ended longer ago are not shown after a start.
    pub const GAPS_WITHIN_S: u64 = 7 * 86_400;

    /// Takes a gap in, unless it is known.
    pub fn note_gap(&mut self, gap: Gap) {
        let place = self.gaps.partition_point(|there| {
            (there.to_s, there.from_s, there.reason) < (gap.to_s, gap.from_s, gap.reason)
        });
        if self.gaps.get(place) != Some(&gap) {
            self.gaps.insert(place, gap);
        }
        if self.gaps.len() > Self::GAPS_MAX {
            self.gaps.remove(0);
        }
    }
}
