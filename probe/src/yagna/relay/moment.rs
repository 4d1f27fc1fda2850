//! Moments of the relay's listing, and a node as it is listed.

use std::time::Duration;

use uptime_proto::NodeId;

/// A node that has a session with the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The node's id.
    pub node_id: NodeId,
    /// How long before the listing's end the relay last heard of it.
    pub seen_ago: Duration,
}

/// A moment, in microseconds from the making of the handle; those before it are negative. Half as
/// large as an `Instant`, and nothing before the machine's start is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) i64);

impl Moment {
    pub(super) fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    pub(super) fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// Zero when `earlier` is not.
    pub(super) fn since(self, earlier: Moment) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn listed(node_id: NodeId, seen: Moment, now: Moment) -> Listed {
    Listed { node_id, seen_ago: now.since(seen) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let origin = Moment(0);
        let seen = origin.before(Duration::from_secs(600));
        assert_eq!(origin.since(seen), Duration::from_secs(600));
        assert_eq!(seen.since(origin), Duration::ZERO);
        assert_eq!(origin.before(Duration::MAX).before(Duration::MAX), Moment(-i64::MAX - 1));
        assert!(origin.since(origin.before(Duration::MAX)) > Duration::from_secs(1 << 40));
    }
}
