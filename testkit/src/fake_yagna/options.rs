//! What a fake daemon starts with: its key and identity, its view, its measured delays.
//!
//! Owns the defaults, which are the measured values, and keeps the key out of `Debug`.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Which providers' offers a daemon has cached.
#[derive(Clone, Debug, Default)]
pub enum View {
    /// Everybody's.
    #[default]
    Everything,
    /// Only those of these providers.
    Only(BTreeSet<String>),
}

impl View {
    pub(crate) fn holds(&self, id: &str) -> bool {
        match self {
            View::Everything => true,
            View::Only(ids) => ids.contains(id),
        }
    }
}

/// How long things take in a daemon. The defaults are the measured values; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After this a silent node's pings are null.
    pub ping: Duration,
    /// After this a direct question fails, even if the request has a longer timeout.
    pub direct: Duration,
    /// After this a remote ping of a silent node fails.
    pub remote_ping: Duration,
    /// After this a look-up fails while the relay is down.
    pub relay_down: Duration,
    /// How long a ping over a direct connection takes while the relay is down.
    pub relay_down_ping: Duration,
    /// The default timeout of a poll.
    pub poll_default: Duration,
    /// The maximum length of a poll. The real daemon has no such limit.
    pub poll_max: Duration,
    /// How long a demand lives.
    pub demand_lifetime: Duration,
    /// How long the relay takes to answer a look-up.
    pub look_up: Duration,
    /// How long a living peer takes to answer.
    pub peer: Duration,
    /// How long a question over a bad link waits until it is sent again.
    pub resend: Duration,
    /// How long after subscribing the first event is there, and …
    pub match_first: Duration,
    /// … how long each further one takes. Both make the first poll return with part of it.
    pub match_each: Duration,
}

impl Limits {
    /// Everything is fast, for tests that push the clock and do not wait.
    #[must_use]
    pub fn momentary() -> Self {
        let moment = Duration::from_millis(3);
        Limits {
            ping: moment,
            direct: moment,
            relay_down: moment,
            relay_down_ping: Duration::ZERO,
            look_up: Duration::ZERO,
            peer: Duration::ZERO,
            ..Limits::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            ping: Duration::from_secs(10),
            direct: Duration::from_secs(30),
            remote_ping: Duration::from_secs(25),
            relay_down: Duration::from_secs(3),
            relay_down_ping: Duration::from_secs(2),
            poll_default: Duration::from_secs(5),
            poll_max: Duration::from_secs(86_400),
            demand_lifetime: Duration::from_secs(3600),
            look_up: Duration::from_millis(3),
            peer: Duration::from_millis(7),
            resend: Duration::from_millis(900),
            match_first: Duration::from_millis(4),
            match_each: Duration::from_micros(1200),
        }
    }
}

/// What a fake daemon starts with.
#[derive(Clone)]
pub struct DaemonOptions {
    /// The only application key it takes.
    pub app_key: String,
    /// 0 for any free port.
    pub port: u16,
    /// Its identity; one of the world's nodes, or a new requestor's. `None`: a new requestor.
    pub identity: Option<String>,
    /// Which offers it has cached.
    pub view: View,
    /// How old its session with the relay is at the start.
    pub relay_session_age: Duration,
    /// Daemons before 0.15 have none: 404.
    pub has_scan_api: bool,
    /// The REST bridge to its bus; without it everything under `/_gsb/` is 404. All recorded
    /// daemons have it.
    pub has_bridge: bool,
    /// Whether gossip and neighbourhood open channels to every provider of its view. Off by
    /// default: then only pings, answered questions and `Daemon::connect` open them.
    pub gossips: bool,
    /// Whether its longer errors carry a backtrace, as the operator's environment decides (a1).
    pub backtraces: bool,
    /// How long things take.
    pub limits: Limits,
}

impl fmt::Debug for DaemonOptions {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DaemonOptions")
            .field("port", &self.port)
            .field("identity", &self.identity)
            .field("has_scan_api", &self.has_scan_api)
            .finish_non_exhaustive()
    }
}

impl Default for DaemonOptions {
    fn default() -> Self {
        DaemonOptions {
            app_key: "fake-key".to_owned(),
            port: 0,
            identity: None,
            view: View::Everything,
            relay_session_age: Duration::from_secs(3600),
            has_scan_api: true,
            has_bridge: true,
            gossips: false,
            backtraces: false,
            limits: Limits::default(),
        }
    }
}

/// How a restart goes. The default is a quick one in the measured middle.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// Until then (world time) its market is empty; measured 2 to 22 s, once 135 s.
    pub relearn_after: Duration,
    /// Until then (world time) its look-ups find nobody: "not found" for the living too.
    pub blind_for: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Restart { relearn_after: Duration::from_secs(6), blind_for: Duration::from_secs(3) }
    }
}
