//! The network's own times and shares.
//!
//! Owns their defaults, which are measured values. What makes a run depend on the machine's clock
//! is off by default and on in [`NetTiming::realistic`]. Refuses to know what a time is for.

use std::time::Duration;

/// How the network's own times are set.
#[derive(Clone, Copy, Debug)]
pub struct NetTiming {
    /// How often a node pings the relay.
    pub ping_interval: Duration,
    /// How long the relay keeps a silent session.
    pub purge_after: Duration,
    /// The relay drops the session of a dead process, whose host answers for it, between these
    /// two times after the death …
    pub drop_after: (Duration, Duration),
    /// … or in this share of the deaths …
    pub late_drop_share: f64,
    /// … that late [a2].
    pub late_drop_after: Duration,
    /// In this share of the closed channels the first question still waits in vain [a6].
    pub late_close_share: f64,
    /// How long an offer lives.
    pub offer_lifetime: Duration,
    /// How long after its offer ended a living provider publishes the next.
    pub renewal_gap: Duration,
    /// How long a publication or a withdrawal takes to reach the other daemons. Measured: up to
    /// 5–6 s; zero by default, so that tests need not wait.
    pub gossip: Duration,
    /// Living nodes come back between these two times after a relay restart.
    pub register_again: (Duration, Duration),
    /// A channel to a living node that has not come back is closed for that long after a relay
    /// restart.
    pub closed_by_relay_restart: Duration,
    /// How long after the relay died a daemon drops its relay session.
    pub session_lost_after: Duration,
}

impl Default for NetTiming {
    fn default() -> Self {
        NetTiming {
            ping_interval: Duration::from_secs(15),
            purge_after: Duration::from_secs(600),
            drop_after: (Duration::from_secs(12), Duration::from_secs(30)),
            late_drop_share: 3.0 / 11.0,
            late_drop_after: Duration::from_secs(160),
            late_close_share: 0.0,
            offer_lifetime: Duration::from_secs(3600),
            renewal_gap: Duration::from_secs(15),
            gossip: Duration::ZERO,
            register_again: (Duration::from_millis(2800), Duration::from_millis(34_900)),
            closed_by_relay_restart: Duration::from_secs(26),
            session_lost_after: Duration::from_secs(25),
        }
    }
}

impl NetTiming {
    /// As measured in everything: the defaults, and what would make a test's run differ from the
    /// next.
    #[must_use]
    pub fn realistic() -> NetTiming {
        NetTiming { late_close_share: 0.3, gossip: Duration::from_secs(5), ..NetTiming::default() }
    }
}
