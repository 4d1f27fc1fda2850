//! The network's own times and shares.
//!
//! Owns their defaults, which are measured values. Effects that would disturb other tests at random
//! are off by default and on in [`NetTiming::realistic`]. Refuses to act on them.

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
    /// … that late (a2).
    pub late_drop_after: Duration,
    /// In this share of the closed channels the first question still times out (a6).
    pub late_close_share: f64,
    /// The share of the time in which `seen` of a living node is 20 to 43 s old: it has put off a
    /// ping (b4). Zero by default, because which nodes lag now depends on the machine's clock.
    pub seen_lag_share: f64,
    /// A node registers anew between these two times after a link outage of up to 40 s …
    pub returns_after_short: (Duration, Duration),
    /// … and after a longer one. Meanwhile it is not found (b0).
    pub returns_after_long: (Duration, Duration),
    /// In this share of the returns an older session shows instead, for two seconds (b6).
    pub older_session_share: f64,
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
            seen_lag_share: 0.0,
            returns_after_short: (Duration::from_millis(700), Duration::from_secs(12)),
            returns_after_long: (Duration::from_secs(5), Duration::from_secs(28)),
            older_session_share: 0.2,
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
    /// With the measured random effects.
    #[must_use]
    pub fn realistic() -> NetTiming {
        NetTiming { late_close_share: 0.3, seen_lag_share: 0.03, ..NetTiming::default() }
    }
}
