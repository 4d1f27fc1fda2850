//! The handle to one relay, and its limits.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use uptime_proto::Reason;

use super::super::adjustable_semaphore::is_permit_count;
use super::super::http::Http;
use super::super::options::Unfit;
use super::super::rate_limiter::RateLimiter;
use super::moment::Moment;
use super::prefix::Prefix;

/// Which relay to ask, within which limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOptions {
    /// The address of its HTTP listing, as in `http://relay.example:9000`.
    pub base_url: String,
    /// The limits on every question and answer.
    pub limits: RelayLimits,
}

/// The limits on every question and answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayLimits {
    /// For a connection to come about: 2 s.
    pub connect_timeout: Duration,
    /// For one page, answer included, and for the event stream's head: 5 s.
    pub answer_timeout: Duration,
    /// For all pages of one listing: 10 s, a third of the shortest usual round. With the default
    /// pace that is a thousand pages. Ten thousand nodes take 500, eleven thousand 800; at 12,800
    /// half of all pages of two digits are full, and from there on it is some thousands.
    pub listing_timeout: Duration,
    /// Bytes of one page: 256 KiB. Fifty nodes have about 10 kB.
    pub answer_bytes_max: usize,
    /// Pages under way at once: 8. The relay is everybody's.
    pub requests_in_flight_max: usize,
    /// Pages asked for per second: 100, for the same reason.
    pub requests_per_s_max: u32,
    /// Nodes in one listing, and in what is remembered between listings: 200,000. A bound on
    /// memory; time is short long before.
    pub nodes_max: usize,
    /// Bytes of one event: 4 KiB. The real ones have 70.
    pub event_bytes_max: usize,
    /// The wait before connecting to the event stream again doubles from 1 s …
    pub reconnect_first: Duration,
    /// … to 60 s. A stream that stood for longer begins anew with the first.
    pub reconnect_last: Duration,
    /// The least time between two listings that news make necessary: 10 s. Such a listing is only
    /// there to be nearly right between rounds; each round makes its own.
    pub relist_pause: Duration,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(5),
            listing_timeout: Duration::from_secs(10),
            answer_bytes_max: 256 * 1024,
            requests_in_flight_max: 8,
            requests_per_s_max: 100,
            nodes_max: 200_000,
            event_bytes_max: 4 * 1024,
            reconnect_first: Duration::from_secs(1),
            reconnect_last: Duration::from_secs(60),
            relist_pause: Duration::from_secs(10),
        }
    }
}

impl RelayLimits {
    /// The first limit that would make every question fail, wait for ever, or never rest.
    fn fault(&self) -> Option<&'static str> {
        let reconnects = self.reconnect_first.is_zero() || self.reconnect_last.is_zero();
        let faults = [
            (self.connect_timeout.is_zero(), "connect_timeout is zero"),
            (self.answer_timeout.is_zero(), "answer_timeout is zero"),
            (self.listing_timeout.is_zero(), "listing_timeout is zero"),
            (self.answer_bytes_max == 0, "answer_bytes_max is zero"),
            (
                !is_permit_count(self.requests_in_flight_max),
                "requests_in_flight_max is zero or too large",
            ),
            (self.requests_per_s_max == 0, "requests_per_s_max is zero"),
            (self.nodes_max == 0, "nodes_max is zero"),
            (self.event_bytes_max == 0, "event_bytes_max is zero"),
            (reconnects, "reconnect_first or reconnect_last is zero"),
            (self.relist_pause.is_zero(), "relist_pause is zero"),
        ];
        faults.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }
}

/// Invalid options for the relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayConfigError {
    /// The address is invalid.
    #[error("the relay address {url:?} {fault}")]
    BaseUrl {
        /// What was configured, without what may be a password in it.
        url: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A limit is invalid.
    #[error("relay limits: {0}")]
    Limits(&'static str),
    /// The HTTP client cannot be created.
    #[error("cannot create the HTTP client for the relay")]
    Client(#[source] reqwest::Error),
}

impl From<Unfit> for RelayConfigError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::BaseUrl { url, fault } => Self::BaseUrl { url, fault },
            Unfit::Client(error) => Self::Client(error),
        }
    }
}

/// A cheap handle to one relay; clones share the client, the limiters and what was learnt.
#[derive(Clone)]
pub struct Relay {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) http: Http,
    pub(super) limits: RelayLimits,
    /// What every [`Moment`] is counted from.
    pub(super) origin: Instant,
    pub(super) requests: Semaphore,
    pub(super) limiter: RateLimiter,
    /// The prefixes to begin the next listing with.
    pub(super) leaves: Mutex<Vec<Prefix>>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Relay").field("base", &self.inner.http.base()).finish_non_exhaustive()
    }
}

impl Relay {
    /// A handle; connects to nothing yet.
    ///
    /// Installs `ring` as this process's TLS provider unless `main` has installed one.
    ///
    /// # Errors
    /// When the address or a limit is unusable.
    pub fn new(options: RelayOptions) -> Result<Self, RelayConfigError> {
        let RelayOptions { base_url, limits } = options;
        if let Some(fault) = limits.fault() {
            return Err(RelayConfigError::Limits(fault));
        }
        let (connect_timeout, bytes_max) = (limits.connect_timeout, limits.answer_bytes_max);
        let inner = Inner {
            http: Http::keyless(&base_url, connect_timeout, bytes_max, Reason::RelayError)?,
            origin: Instant::now(),
            requests: Semaphore::new(limits.requests_in_flight_max),
            limiter: RateLimiter::new(limits.requests_per_s_max),
            leaves: Mutex::new(Prefix::roots().to_vec()),
            limits,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Inner {
    pub(super) fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    pub(super) fn moment(&self, at: Instant) -> Moment {
        Moment(0).after(at.saturating_duration_since(self.origin))
    }

    pub(super) fn leaves(&self) -> Vec<Prefix> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn learn(&self, leaves: Vec<Prefix>) {
        *self.leaves.lock().unwrap_or_else(PoisonError::into_inner) = leaves;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn options(limits: RelayLimits) -> RelayOptions {
        RelayOptions { base_url: "http://127.0.0.1:9".to_owned(), limits }
    }

    #[test]
    fn unusable_options() {
        assert!(Relay::new(options(RelayLimits::default())).is_ok());
        let zero = Duration::ZERO;
        let default = RelayLimits::default;
        for limits in [
            RelayLimits { connect_timeout: zero, ..default() },
            RelayLimits { answer_timeout: zero, ..default() },
            RelayLimits { listing_timeout: zero, ..default() },
            RelayLimits { answer_bytes_max: 0, ..default() },
            RelayLimits { requests_in_flight_max: 0, ..default() },
            RelayLimits { requests_in_flight_max: usize::MAX, ..default() },
            RelayLimits { requests_per_s_max: 0, ..default() },
            RelayLimits { nodes_max: 0, ..default() },
            RelayLimits { event_bytes_max: 0, ..default() },
            RelayLimits { reconnect_first: zero, ..default() },
            RelayLimits { reconnect_last: zero, ..default() },
            RelayLimits { relist_pause: zero, ..default() },
        ] {
            let refused = Relay::new(options(limits.clone()));
            assert!(matches!(refused, Err(RelayConfigError::Limits(_))), "{limits:?}");
        }
        let secret = RelayOptions {
            base_url: "http://user:secret@relay.example".to_owned(),
            limits: default(),
        };
        let error = Relay::new(secret).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    }
}
