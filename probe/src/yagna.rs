//! The only room that knows yagna's REST API, its command line where that has to stand in, and
//! the relay's listing.
//!
//! Owns: how the daemon is asked (one shared HTTP client, limits on everything), what its answers
//! mean, and the clearing away of every scan and demand that was opened to ask. `relay` asks the
//! relay itself, past the daemon. Refuses to decide when to ask, how often to repeat a question
//! and what an answer is worth as evidence: that is the scan's. Reads no wall clock.
//!
//! Invariants:
//! * Every answer that is interpreted stands in one table, `answers.rs`, with the recording of a
//!   real daemon that it rests on. Any other answer is "could not look": an error with a reason of
//!   the closed list, which is never turned into "not found" or "unanswered".
//! * Whatever was opened at the daemon is deleted again, also after errors, time limits and
//!   cancellation; a demand of anybody else is never touched.
//! * The application key is in no error, log or debug output.
//! * What the daemon or a provider says is bounded in bytes, items and time before it is believed.

mod absence;
mod answers;
mod command;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod http;
pub mod market;
pub mod net;
mod offer;
mod open;
mod pace;
pub mod peer;
pub mod ping;
mod places;
#[cfg(test)]
mod recordings;
pub mod relay;
mod sse;
mod time_text;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use uptime_proto::Reason;

pub use command::CommandOptions;
pub use market::{Offer, valid_subnet};
pub use net::Found;
pub use peer::{PeerAnswer, PeerQuestions};
pub use ping::RoundTrip;
pub use relay::{Relay, RelayLimits, RelayOptions};

use absence::Absence;
use command::CommandLine;
use http::Http;
use open::Openings;
use pace::Pace;
use places::Places;

/// The property by which this program knows its own demands.
const MARKER_PROPERTY: &str = "golem.uptime.probe";

/// The application key; prints as `***`.
#[derive(Clone)]
pub struct AppKey(String);

impl AppKey {
    /// The key as the daemon knows it.
    #[must_use]
    pub fn new(key: String) -> Self {
        Self(key)
    }
}

impl fmt::Debug for AppKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

impl fmt::Display for AppKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// Which daemon to ask, as whom, and how hard.
#[derive(Debug, Clone)]
pub struct YagnaOptions {
    /// The daemon's REST address, `http://127.0.0.1:7465` unless configured.
    pub base_url: String,
    /// The application key.
    pub app_key: AppKey,
    /// The limits on every question and answer.
    pub limits: Limits,
    /// The wall clock, unix milliseconds; only a demand's expiration needs it.
    pub now_unix_ms: fn() -> i64,
}

/// The limits on every question and answer.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For a connection to come about: 2 s. The daemon is on this host or the next.
    pub connect_timeout: Duration,
    /// For a quick question, answer included: 5 s. `FindNode` gives up on the relay after 3 s and
    /// says so; that answer must be able to arrive.
    pub answer_timeout: Duration,
    /// Bytes of one answer: 16 MiB, which only the market's may have; a page of 100 offers has
    /// 200 kB. What others may have stands in the room of HTTP.
    pub answer_bytes_max: usize,
    /// For the whole market listing of one subnet: 10 s, a third of the shortest usual round.
    pub market_timeout: Duration,
    /// Offers in one listing: 200,000, twenty times the largest network planned for.
    pub offers_max: usize,
    /// Offers in one page, 1 to 100: the daemon refuses more for demands.
    pub page_offers_max: u32,
    /// `FindNode` questions under way at once: 50. Half of what was measured to be no burden to a
    /// daemon, and each takes memory here.
    pub find_in_flight_max: usize,
    /// `FindNode` questions begun per second: 1,000, where a daemon was measured to answer 1,400.
    /// 10,000 nodes over three probes take 3.4 s: a node that dies after its look-up is noticed a
    /// round later, so look-ups are late and close together. How many there are in a round, which
    /// is what the public relay bears, does not depend on this.
    pub finds_per_s_max: u32,
    /// Direct questions under way at once: 500. Each to a dead node lasts four seconds, and must be
    /// put twice within a round; of 10,000 nodes that stay up for twelve hours some 140 died in the
    /// last ten minutes, for so long the relay knows them. A daemon was measured to bear 1,500
    /// polls at a time.
    pub direct_in_flight_max: usize,
    /// Nodes in one call that measures round trips: 32. They are asked in parallel, and each may
    /// open a session of the daemon with that node.
    pub ping_batch_max: usize,
    /// For such a call: 14 s. The daemon pings its own sessions first, for up to 2 s, and gives up
    /// on a node after 10 s more and says so (recording b5); that answer must be able to arrive.
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(5),
            answer_bytes_max: 16 * 1024 * 1024,
            market_timeout: Duration::from_secs(10),
            offers_max: 200_000,
            page_offers_max: 100,
            find_in_flight_max: 50,
            finds_per_s_max: 1_000,
            direct_in_flight_max: 500,
            ping_batch_max: 32,
            ping_timeout: Duration::from_secs(14),
        }
    }
}

impl Limits {
    /// The first limit that would make every question fail or wait for ever.
    fn fault(&self) -> Option<&'static str> {
        let faults = [
            (self.connect_timeout.is_zero(), "connect_timeout is zero"),
            (self.answer_timeout.is_zero(), "answer_timeout is zero"),
            (self.market_timeout.is_zero(), "market_timeout is zero"),
            (self.answer_bytes_max == 0, "answer_bytes_max is zero"),
            (self.offers_max == 0, "offers_max is zero"),
            (!(1..=100).contains(&self.page_offers_max), "page_offers_max is not 1 to 100"),
            (!places(self.find_in_flight_max), "find_in_flight_max is zero or too large"),
            (!places(self.direct_in_flight_max), "direct_in_flight_max is zero or too large"),
            (self.finds_per_s_max == 0, "finds_per_s_max is zero"),
            (self.ping_batch_max == 0, "ping_batch_max is zero"),
            (self.ping_timeout.is_zero(), "ping_timeout is zero"),
        ];
        faults.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
    }
}

/// Whether this can be the address of a daemon.
///
/// # Errors
/// What is wrong with it, as the end of a sentence about it.
pub fn valid_url(url: &str) -> Result<(), String> {
    match http::parse_base(url) {
        Err(http::Unfit::BaseUrl { fault, .. }) => Err(fault.to_owned()),
        _ => Ok(()),
    }
}

/// Whether a semaphore can have so many places and lets anybody in.
fn places(count: usize) -> bool {
    (1..=Semaphore::MAX_PERMITS).contains(&count)
}

/// Options that no daemon can be asked with.
#[derive(Debug, thiserror::Error)]
pub enum YagnaConfigError {
    /// The address is none.
    #[error("the yagna address {url:?} {fault}")]
    BaseUrl {
        /// What was configured.
        url: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The key cannot stand in a header.
    #[error("the yagna application key {0}")]
    AppKey(&'static str),
    /// A limit makes no sense.
    #[error("yagna limits: {0}")]
    Limits(&'static str),
    /// The command line cannot be used so.
    #[error("the yagna command: {0}")]
    Command(&'static str),
    /// The HTTP client could not be made.
    #[error("cannot make the HTTP client for yagna")]
    Client(#[source] reqwest::Error),
}

impl From<http::Unfit> for YagnaConfigError {
    fn from(unfit: http::Unfit) -> Self {
        match unfit {
            http::Unfit::BaseUrl { url, fault } => Self::BaseUrl { url, fault },
            http::Unfit::Client(error) => Self::Client(error),
        }
    }
}

/// A failure to look. Says nothing about any node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct CouldNotLook {
    /// Why, of the closed list.
    pub reason: Reason,
    /// What happened, for the log and `check`. Never contains the key.
    pub detail: String,
}

impl CouldNotLook {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// A cheap handle to one daemon; clones share the client, the limiters and what is open.
#[derive(Clone)]
pub struct Yagna {
    inner: Arc<Inner>,
    /// The value of [`MARKER_PROPERTY`] in our demands.
    marker: Arc<str>,
    command: Option<Arc<CommandLine>>,
}

struct Inner {
    http: Arc<Http>,
    limits: Limits,
    now_unix_ms: fn() -> i64,
    scan_api: Absence,
    bridge: Absence,
    peers: Mutex<peer::PeerScans>,
    finds: Places,
    find_pace: Pace,
    directs: Semaphore,
    openings: Arc<Openings>,
}

impl fmt::Debug for Yagna {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Yagna").field("base", &self.inner.http.base()).finish_non_exhaustive()
    }
}

impl Yagna {
    /// A handle; connects to nothing yet.
    ///
    /// Installs `ring` as this process's TLS provider unless `main` has installed one.
    ///
    /// # Errors
    /// When the address, the key or a limit is unusable.
    pub fn new(options: YagnaOptions) -> Result<Self, YagnaConfigError> {
        let YagnaOptions { base_url, app_key, limits, now_unix_ms } = options;
        if let Some(fault) = limits.fault() {
            return Err(YagnaConfigError::Limits(fault));
        }
        let http = Arc::new(Http::new(&base_url, &app_key, &limits)?);
        let inner = Inner {
            openings: Arc::new(Openings::new(http.clone(), limits.answer_timeout)),
            http,
            now_unix_ms,
            scan_api: Absence::of("no scan API: demands and pings are used instead"),
            bridge: Absence::of("no bridge to its bus: look-ups need its command line"),
            peers: Mutex::default(),
            finds: Places::new(limits.find_in_flight_max),
            find_pace: Pace::new(limits.finds_per_s_max),
            directs: Semaphore::new(limits.direct_in_flight_max),
            limits,
        };
        Ok(Self { inner: Arc::new(inner), marker: Arc::from("default"), command: None })
    }

    /// This handle with its demands marked as those of this instance. Needed where several probes
    /// share one daemon: each deletes only the leftovers of its own name, which must therefore
    /// stay the same over restarts.
    #[must_use]
    pub fn with_instance(mut self, instance: &str) -> Self {
        self.marker = Arc::from(http::clean(instance, 64).as_str());
        self
    }

    /// This handle with the command line as a way to look nodes up, for daemons that have no
    /// bridge to their bus. Without it such a daemon's look-ups fail.
    ///
    /// # Errors
    /// When a limit makes no sense or the program has no name.
    pub fn with_command(mut self, options: CommandOptions) -> Result<Self, YagnaConfigError> {
        let command = CommandLine::new(options).map_err(YagnaConfigError::Command)?;
        self.command = Some(Arc::new(command));
        Ok(self)
    }

    /// The daemon's address, without a slash at its end.
    #[must_use]
    pub fn address(&self) -> &str {
        self.inner.http.base()
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// From now on at most so many `FindNode` questions a second, and never more than the limits
    /// say: an aggregator may ask its probes to be gentler.
    pub fn pace_finds(&self, per_s: u32) {
        self.inner.find_pace.set(per_s.min(self.inner.limits.finds_per_s_max));
    }

    /// From now on at most so many `FindNode` questions under way, and never more than the limits
    /// say.
    pub fn bound_finds(&self, in_flight: usize) {
        self.inner.finds.set(in_flight.min(self.inner.limits.find_in_flight_max));
    }

    /// Deletes whatever is still open at the daemon, as well as it can within `answer_timeout`.
    /// Cancel the questions first; those that go on asking may open something anew.
    pub async fn close(&self) {
        let limit = self.inner.limits.answer_timeout;
        let close = async {
            self.inner.peers.lock().await.forget();
            self.inner.openings.settle().await;
            if self.inner.openings.take_lost(Duration::ZERO) {
                self.delete_leftovers().await?;
            }
            Ok(())
        };
        let closed: Result<Result<(), CouldNotLook>, _> = tokio::time::timeout(limit, close).await;
        match closed {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!(%fault, "a demand may be left behind at yagna"),
            Err(_) => tracing::warn!(?limit, "yagna did not confirm all deletions in time"),
        }
    }
}

/// Counts failures of the connection itself.
#[derive(Default)]
struct Failures(AtomicU64);

impl Failures {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Waits for a place among the questions under way.
async fn place(places: &Semaphore) -> Result<SemaphorePermit<'_>, CouldNotLook> {
    // No semaphore of this room is ever closed; should one be, the question was not put.
    places.acquire().await.map_err(|_| CouldNotLook::new(Reason::Missed, "closed"))
}
