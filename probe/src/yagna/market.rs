//! Listing the market of a subnet.
//!
//! Owns the two ways to list (a scan; on daemons without the scan API a demand) and the deleting
//! of demands that a crash left behind. An offer proves nothing about life: the daemon serves
//! those of the dead for up to an hour.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uptime_proto::Reason;

pub use super::offer::Offer;
use super::offer::{Form, Listing};
use super::open::{Collection, Opened, is_id, parse_deleted};
use super::{CouldNotLook, MARKER_PROPERTY, Yagna, http};
use http::Question;

/// How long one poll waits for offers, in seconds. Polls with offers in stock return at once, so
/// this is what the last, empty one costs. Whole seconds are what the scan API is known to take.
const POLL_S: u64 = 1;

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

impl Yagna {
    /// Lists the offers of a subnet, ascending by node id; a node may have several.
    ///
    /// # Errors
    /// When the listing did not come to its end. [`Reason::MarketError`] also for a subnet that
    /// [`valid_subnet`] refuses.
    pub async fn list_market(&self, subnet: &str) -> Result<Vec<Offer>, CouldNotLook> {
        if let Err(fault) = valid_subnet(subnet) {
            let detail = format!("the subnet {subnet:?} {fault}");
            return Err(CouldNotLook::new(Reason::MarketError, detail));
        }
        let limit = self.inner.limits.market_timeout;
        tokio::time::timeout(limit, self.list(subnet)).await.unwrap_or_else(|_| {
            let detail = format!("the listing of {subnet:?} did not end within {limit:?}");
            Err(CouldNotLook::new(Reason::TimedOut, detail))
        })
    }

    async fn list(&self, subnet: &str) -> Result<Vec<Offer>, CouldNotLook> {
        let inner = &self.inner;
        if !inner.scan_api.is_absent(&inner.http) {
            let lives = inner.limits.market_timeout + SCAN_SPARE;
            let body = json!({
                "type": "offer",
                "constraints": constraint(subnet),
                "timeout": lives.as_secs(),
            });
            if let Some(scan) = inner.openings.open(Collection::Scans, body).await? {
                return self.drain(&scan, Form::Scan, subnet).await;
            }
            inner.scan_api.found_absent(&inner.http);
        }
        self.sweep().await;
        let body = demand(subnet, (inner.now_unix_ms)(), &self.marker);
        let Some(demand) = inner.openings.open(Collection::Demands, body).await? else {
            return Err(CouldNotLook::new(Reason::MarketError, "this yagna takes no demands"));
        };
        self.drain(&demand, Form::Events, subnet).await
    }

    /// Polls until there is nothing more.
    async fn drain(
        &self,
        opened: &Opened,
        form: Form,
        subnet: &str,
    ) -> Result<Vec<Offer>, CouldNotLook> {
        let limits = &self.inner.limits;
        let page = limits.page_offers_max;
        let path = format!("{}/events?timeout={POLL_S}&maxEvents={page}", opened.path());
        let limit = Duration::from_secs(POLL_S) + limits.answer_timeout;
        let begun = Instant::now();
        let (mut window_begun, mut window_offers) = (begun, 0);
        let mut listing = Listing::new(subnet);
        loop {
            let take =
                |status, body: &[u8]| listing.take_page(form, limits.offers_max, status, body);
            let (count, _) = self.inner.http.ask(Question::get(&path), limit, take).await?;
            // A short page says nothing: pages are cut before they are filtered.
            if count == 0 {
                return listing.finish();
            }
            window_offers += count;
            if window_begun.elapsed() < NEWS_WINDOW {
                continue;
            }
            // A large network may never give an empty page. Once there was time enough for the
            // stock, a trickle ends the listing too; a stream still means that it is incomplete.
            let trickle = window_offers < NEWS_OFFERS_MAX;
            if trickle && begun.elapsed() >= limits.market_timeout / 2 {
                return listing.finish();
            }
            (window_begun, window_offers) = (Instant::now(), 0);
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
            tracing::debug!(%fault, "lost demands not deleted");
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
        let list = Question::get(Collection::Demands.path());
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
    let body = http::answered(status, body, Reason::MarketError)?;
    let demands: Vec<&RawValue> = serde_json::from_slice(body).map_err(http::malformed)?;
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
