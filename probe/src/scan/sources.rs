//! What a round asks, and how much of it.

use uptime_proto::v1;

use crate::yagna::Yagna;
use crate::yagna::relay::RelayWatch;

/// What a round asks. Replaced as a whole by a reload; a round keeps the one it began with.
#[derive(Debug)]
pub struct Sources {
    /// The daemon.
    pub yagna: Yagna,
    /// The relay's own listing, if one is configured.
    pub relay: Option<RelayWatch>,
    /// The subnets whose markets are listed.
    pub subnets: Vec<String>,
    /// The sources in use.
    pub enabled: Enabled,
}

/// Which sources of evidence are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enabled {
    /// The market listing.
    pub market: bool,
    /// Look-ups by `FindNode`.
    pub find_node: bool,
    /// The direct question.
    pub direct: bool,
    /// Pings for latency.
    pub latency: bool,
}

impl Enabled {
    /// Everything.
    pub const ALL: Self = Self { market: true, find_node: true, direct: true, latency: true };

    /// Whether nodes are looked up at all.
    pub(super) fn looks_up(self) -> bool {
        self.find_node || self.direct
    }
}

impl Sources {
    /// The lower of this host's rate and the aggregator's.
    pub(super) fn finds_per_s(&self, schedule: &v1::Schedule) -> u32 {
        let own = self.yagna.limits().finds_per_s_max;
        match schedule.lookups_per_s_max {
            0 => own,
            told => told.min(own),
        }
    }

    /// The lower of this host's number of questions in flight and the aggregator's.
    pub(super) fn finds_in_flight(&self, schedule: &v1::Schedule) -> usize {
        let own = self.yagna.limits().find_in_flight_max;
        match schedule.lookups_in_flight_max {
            0 => own,
            told => own.min(told as usize),
        }
    }
}
