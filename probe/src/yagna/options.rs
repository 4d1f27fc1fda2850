//! Which daemon is asked, as whom, and within which limits.

use std::fmt;
use std::time::Duration;

use reqwest::Url;

use super::adjustable_semaphore::is_permit_count;

/// The property by which this program knows its own demands.
pub(super) const MARKER_PROPERTY: &str = "golem.uptime.probe";

/// The application key; prints as `***`.
#[derive(Clone)]
pub struct AppKey(pub(super) String);

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
    /// The first limit with which every question would fail or wait for ever.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let faults = [
            (self.connect_timeout.is_zero(), "connect_timeout is zero"),
            (self.answer_timeout.is_zero(), "answer_timeout is zero"),
            (self.market_timeout.is_zero(), "market_timeout is zero"),
            (self.answer_bytes_max == 0, "answer_bytes_max is zero"),
            (self.offers_max == 0, "offers_max is zero"),
            (!(1..=100).contains(&self.page_offers_max), "page_offers_max is not 1 to 100"),
            (!is_permit_count(self.find_in_flight_max), "find_in_flight_max is zero or too large"),
            (
                !is_permit_count(self.direct_in_flight_max),
                "direct_in_flight_max is zero or too large",
            ),
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
    match parse_base(url) {
        Err(Unfit::BaseUrl { fault, .. }) => Err(fault.to_owned()),
        _ => Ok(()),
    }
}

/// Why no HTTP client can be created.
#[derive(Debug)]
pub(super) enum Unfit {
    /// An invalid address, without a possible password in it, and its fault.
    BaseUrl { url: String, fault: &'static str },
    /// The client itself.
    Client(reqwest::Error),
}

/// Invalid options for the daemon.
#[derive(Debug, thiserror::Error)]
pub enum YagnaConfigError {
    /// The address is invalid.
    #[error("the yagna address {url:?} {fault}")]
    BaseUrl {
        /// What was configured.
        url: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The key cannot be sent in a header.
    #[error("the yagna application key {0}")]
    AppKey(&'static str),
    /// A limit is invalid.
    #[error("yagna limits: {0}")]
    Limits(&'static str),
    /// The command cannot be used.
    #[error("--yagna-command: {0}")]
    Command(&'static str),
    /// The HTTP client cannot be created.
    #[error("cannot create the HTTP client for yagna")]
    Client(#[source] reqwest::Error),
}

impl From<Unfit> for YagnaConfigError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::BaseUrl { url, fault } => Self::BaseUrl { url, fault },
            Unfit::Client(error) => Self::Client(error),
        }
    }
}

pub(super) fn parse_base(base_url: &str) -> Result<Url, Unfit> {
    let refuse = |fault| {
        // What stands before an @ may be a password.
        let url = base_url.rsplit('@').next().unwrap_or_default().to_owned();
        Err(Unfit::BaseUrl { url, fault })
    };
    let Ok(url) = Url::parse(base_url.trim()) else {
        return refuse("is not a URL");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse("is neither http nor https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("has a user name in it");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("has a query or fragment");
    }
    Ok(url)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["http://127.0.0.1:7465", "http://[::1]:7465/", " https://yagna.example/a/b "] {
            assert!(parse_base(good).is_ok(), "{good}");
        }
        for bad in
            ["", "127.0.0.1:7465", "ftp://a", "http://", "http://a?authToken=b", "http://a#b"]
        {
            assert!(parse_base(bad).is_err(), "{bad}");
        }
        let error = format!("{:?}", parse_base("http://user:secret@host").unwrap_err());
        assert!(!error.contains("secret"), "{error}");
    }
}
