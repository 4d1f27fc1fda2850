//! Listing the market of a subnet.
//!
//! Owns the ways to list (a scan; on daemons without the scan API a demand), when a listing is
//! complete, and the deleting of demands that a crash left behind. An offer proves nothing about
//! life: the daemon serves those of the dead for up to an hour.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uptime_proto::Reason;

use super::answers::{self, Route};
use super::client::Yagna;
use super::fault::{CouldNotLook, malformed};
use super::http;
pub use super::offer::Offer;
use super::offer::{Form, Listing};
use super::open::{Collection, Opened, is_id, parse_deleted};
use super::options::MARKER_PROPERTY;
use http::Question;

/// How long one poll waits for offers, in seconds. Polls with offers in stock return at once, so
/// this is what the last, empty one costs. Whole seconds are what the scan API is known to take.
pub(super) const POLL_S: u64 = 1;

/// A market is empty when so many pages in a row were, each at the end of the daemon's own waiting:
/// a busy daemon may have had nothing ready for the first one.
const EMPTY_PAGES: usize = 2;

/// What is new on the market is told from its stock by how fast it comes: over this long …
const NEWS_WINDOW: Duration = Duration::from_secs(1);

/// … fewer offers than this are news. A network of 10,000 nodes has three new offers a second;
/// stock was measured to come at 600 a second and more, in a debug build.
const NEWS_OFFERS_MAX: usize = 50;

/// When a demand ends: integer, unix milliseconds.
const EXPIRATION_PROPERTY: &str = "golem.srv.comp.expiration";

/// How far in the future a demand says it ends. Providers only answer demands that end after
/// their offer was published; half an hour is more than any clock is wrong.
const DEMAND_EXPIRES_MS: i64 = 30 * 60 * 1_000;

/// Beyond the time for a listing a scan lives this much longer, should its deletion fail.
const SCAN_SPARE: Duration = Duration::from_secs(20);

/// Demands that one call of [`Yagna::delete_leftovers`] deletes at most.
const LEFTOVERS_MAX: usize = 1_000;

/// The longest subnet name, in bytes; what the aggregator accepts.
const SUBNET_BYTES_MAX: usize = 64;

/// Whether a subnet can be asked for. Names that could break out of the market's constraint
/// language are refused rather than escaped, since escapes differ between versions.
///
/// # Errors
/// What is wrong with the name, as the end of a sentence about it.
pub fn valid_subnet(subnet: &str) -> Result<(), String> {
    if subnet.is_empty() {
        return Err("is empty".to_owned());
    }
    if subnet.len() > SUBNET_BYTES_MAX {
        return Err(format!("has more than {SUBNET_BYTES_MAX} bytes"));
    }
    let unfit = |character: &char| {
        character.is_control()
            || character.is_whitespace()
            || r#"()*\&|!=<>[]{}"'`$,;?"#.contains(*character)
    };
    match subnet.chars().find(unfit) {
        Some(character) => Err(format!("has the character {character:?}")),
        None => Ok(()),
    }
}

/// A listing under way: what it gathers, and where that goes.
pub(super) struct Gathering<'a> {
    pub(super) listing: Listing,
    pub(super) stock: Stock,
    take: &'a mut (dyn FnMut(Offer) + Send),
}

impl Gathering<'_> {
    /// Passes on what has come.
    pub(super) fn pass_on(&mut self) {
        self.listing.drain().for_each(&mut *self.take);
    }

    fn finish(mut self) -> Result<(), CouldNotLook> {
        self.pass_on();
        self.listing.finish().map(|_| ())
    }
}

/// Tells the market's stock from its news. A large network may never come to rest: once there was
/// time enough for the stock, a trickle ends a listing too. What still comes in numbers means
/// that it is incomplete.
pub(super) struct Stock {
    begun: Instant,
    enough_after: Duration,
    window_begun: Instant,
    window_offers: usize,
}

impl Stock {
    fn new(enough_after: Duration) -> Self {
        let now = Instant::now();
        Self { begun: now, enough_after, window_begun: now, window_offers: 0 }
    }

    /// Whether, with so many more offers, the stock is complete.
    pub(super) fn is_complete_with(&mut self, came: usize) -> bool {
        self.window_offers += came;
        if self.window_begun.elapsed() < NEWS_WINDOW {
            return false;
        }
        let trickle = self.window_offers < NEWS_OFFERS_MAX;
        (self.window_begun, self.window_offers) = (Instant::now(), 0);
        trickle && self.begun.elapsed() >= self.enough_after
    }
}

impl Yagna {
    /// Lists the offers of a subnet, ascending by node id; a node may have several.
    ///
    /// # Errors
    /// When the listing did not come to its end. [`Reason::MarketError`] also for a subnet that
    /// [`valid_subnet`] refuses.
    pub async fn list_market(&self, subnet: &str) -> Result<Vec<Offer>, CouldNotLook> {
        let mut offers = Vec::new();
        self.list_market_into(subnet, |offer| offers.push(offer)).await?;
        offers.sort_unstable();
        Ok(offers)
    }

    /// Lists the offers of a subnet one by one, in no order, as they come; never holds more than
    /// a page of them. A node may have several.
    ///
    /// # Errors
    /// As [`Yagna::list_market`]. What was taken until then is part of a listing and must be
    /// discarded: whoever is not in it may well be on the market.
    pub async fn list_market_into(
        &self,
        subnet: &str,
        mut take: impl FnMut(Offer) + Send,
    ) -> Result<(), CouldNotLook> {
        if let Err(fault) = valid_subnet(subnet) {
            let detail = format!("the subnet {subnet:?} {fault}");
            return Err(CouldNotLook::new(Reason::MarketError, detail));
        }
        let limit = self.inner.limits.market_timeout;
        let (listing, stock) = (Listing::new(subnet), Stock::new(limit / 2));
        let gathering = Gathering { listing, stock, take: &mut take };
        tokio::time::timeout(limit, self.list(subnet, gathering)).await.unwrap_or_else(|_| {
            let detail = format!("the listing of {subnet:?} did not end within {limit:?}");
            Err(CouldNotLook::new(Reason::TimedOut, detail))
        })
    }

    async fn list(&self, subnet: &str, mut gathering: Gathering<'_>) -> Result<(), CouldNotLook> {
        let inner = &self.inner;
        if !inner.scan_api.is_absent(&inner.http) {
            let lives = inner.limits.market_timeout + SCAN_SPARE;
            let body = json!({
                "type": "offer",
                "constraints": constraint(subnet),
                "timeout": lives.as_secs(),
            });
            if let Some(scan) = inner.openings.open(Collection::Scans, body).await? {
                self.drain(&scan, Form::Scan, &mut gathering).await?;
                return gathering.finish();
            }
            inner.scan_api.found_absent(&inner.http);
        }
        self.sweep().await;
        let body = demand(subnet, (inner.now_unix_ms)(), &self.marker);
        let Some(demand) = inner.openings.open(Collection::Demands, body).await? else {
            return Err(CouldNotLook::new(Reason::MarketError, "this yagna takes no demands"));
        };
        self.drain(&demand, Form::Events, &mut gathering).await?;
        gathering.finish()
    }

    /// Polls until there is nothing more.
    async fn drain(
        &self,
        opened: &Opened,
        form: Form,
        gathering: &mut Gathering<'_>,
    ) -> Result<(), CouldNotLook> {
        let limits = &self.inner.limits;
        let page = limits.page_offers_max;
        let path = format!("{}/events?timeout={POLL_S}&maxEvents={page}", opened.path());
        let limit = Duration::from_secs(POLL_S) + limits.answer_timeout;
        let mut came = false;
        let mut empty_pages = 0;
        loop {
            let listing = &mut gathering.listing;
            let take =
                |status, body: &[u8]| listing.take_page(form, limits.offers_max, status, body);
            let question = Question::get(form.route(), &path).at_most(http::MARKET_BYTES_MAX);
            let (count, _) = self.inner.http.ask(question, limit, take).await?;
            gathering.pass_on();
            came |= count > 0;
            empty_pages += usize::from(count == 0);
            // A short page says nothing: pages are cut before they are filtered.
            let ended = count == 0 && (came || empty_pages >= EMPTY_PAGES);
            if ended || (count > 0 && gathering.stock.is_complete_with(count)) {
                return Ok(());
            }
        }
    }

    /// Deletes demands of this run that got lost, once none of that age can be in use.
    async fn sweep(&self) {
        let limits = &self.inner.limits;
        let unused = limits.market_timeout + limits.answer_timeout;
        if !self.inner.openings.take_lost(unused) {
            return;
        }
        let unused_ms = i64::try_from(unused.as_millis()).unwrap_or(i64::MAX);
        let until = (self.inner.now_unix_ms)().saturating_sub(unused_ms);
        if let Err(fault) = self.delete_own(until).await {
            tracing::debug!(%fault, "cannot delete lost demands");
            self.inner.openings.may_be_lost(Collection::Demands);
        }
    }

    /// Deletes the demands an earlier run of this instance left behind; returns how many. For the
    /// start, before anything is listed. Never touches a demand without our marker.
    ///
    /// # Errors
    /// When the demands could not be listed or one of them not be deleted.
    pub async fn delete_leftovers(&self) -> Result<usize, CouldNotLook> {
        self.delete_own(i64::MAX).await
    }

    /// Deletes the demands with our marker made until then.
    async fn delete_own(&self, until_unix_ms: i64) -> Result<usize, CouldNotLook> {
        let (http, limit) = (&self.inner.http, self.inner.limits.answer_timeout);
        let list = Question::get(Route::ListDemands, Collection::Demands.path());
        let list = list.at_most(http::MARKET_BYTES_MAX);
        let parse = |status, body: &[u8]| parse_own(status, body, &self.marker, until_unix_ms);
        let (own, _) = http.ask(list, limit, parse).await?;
        let mut deleted = 0;
        for id in own.iter().take(LEFTOVERS_MAX) {
            let path = format!("{}/{id}", Collection::Demands.path());
            let (was_there, _) = http.ask(Question::delete(&path), limit, parse_deleted).await?;
            deleted += usize::from(was_there);
        }
        Ok(deleted)
    }
}

fn constraint(subnet: &str) -> String {
    format!("(golem.node.debug.subnet={subnet})")
}

fn demand(subnet: &str, now_unix_ms: i64, marker: &str) -> Value {
    json!({
        "properties": {
            "golem.node.id.name": "golem-uptime-probe",
            "golem.node.debug.subnet": subnet,
            EXPIRATION_PROPERTY: now_unix_ms.saturating_add(DEMAND_EXPIRES_MS),
            MARKER_PROPERTY: marker,
        },
        "constraints": constraint(subnet),
    })
}

/// The ids of the demands that carry this marker and were made until then.
pub(super) fn parse_own(
    status: u16,
    body: &[u8],
    marker: &str,
    until_unix_ms: i64,
) -> Result<Vec<String>, CouldNotLook> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Demand {
        demand_id: String,
        properties: Map<String, Value>,
    }
    let body = answers::answer(Route::ListDemands, status, body)?;
    let demands: Vec<&RawValue> = serde_json::from_slice(body).map_err(malformed)?;
    // A demand that cannot be read is not ours.
    let demands = demands.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok());
    let own = demands.filter(|demand: &Demand| {
        let expires = demand.properties.get(EXPIRATION_PROPERTY).and_then(Value::as_i64);
        let made = expires.map_or(0, |expires| expires.saturating_sub(DEMAND_EXPIRES_MS));
        demand.properties.get(MARKER_PROPERTY).and_then(Value::as_str) == Some(marker)
            && made <= until_unix_ms
    });
    Ok(own.map(|demand| demand.demand_id).filter(|id| is_id(id)).collect())
}
