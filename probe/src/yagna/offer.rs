//! From a page of JSON, or an event of a stream, to offers.
//!
//! Owns the shape of offers and proposal events. Everything in them was written by strangers: a
//! page is split into items without looking inside, so that one bad offer costs only itself, and
//! every text is cut and cleaned.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use uptime_proto::{NodeId, Reason};

use super::answers::{self, Route};
use super::fault::{CouldNotLook, clean, malformed};

/// Bytes of a text taken from an offer: names in use are far shorter, columns not much wider.
const TEXT_BYTES_MAX: usize = 128;

/// Payment networks taken from one offer; real ones have one or two.
const NETWORKS_MAX: usize = 32;

/// One offer on the market: what a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offer {
    /// The node that made it.
    pub node_id: NodeId,
    /// `golem.node.id.name`; empty if it has none.
    pub name: String,
    /// `golem.runtime.name`, such as `vm`; empty if it has none.
    pub runtime: String,
    /// `golem.runtime.version`; empty if it has none.
    pub runtime_version: String,
    /// The payment platforms it takes, such as `erc20-polygon-glm`; ascending, none twice.
    pub networks: Vec<String>,
    /// The subnet it is in, which is the one that was asked for.
    pub subnet: String,
}

/// The two ways in which offers come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Items are offers, as a scan gives them.
    Scan,
    /// Items are proposal events, as a demand gives them.
    Events,
}

impl Form {
    /// The question for a page.
    pub(super) const fn route(self) -> Route {
        match self {
            Self::Scan => Route::ScanPage,
            Self::Events => Route::DemandPage,
        }
    }
}

/// The offers gathered and not yet passed on, how many there were, and what was left out.
#[derive(Debug)]
pub(super) struct Listing {
    subnet: String,
    offers: Vec<Offer>,
    good: usize,
    /// Items that were no offer at all.
    bad: usize,
    /// Offers of other subnets, and events that bring no offer.
    unrelated: usize,
}

#[derive(Deserialize)]
struct RawOffer<'a> {
    #[serde(borrow, rename = "providerId", alias = "issuerId")]
    node_id: &'a RawValue,
    #[serde(borrow)]
    properties: HashMap<String, &'a RawValue>,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    proposal: Option<&'a RawValue>,
}

/// What an item turned out to be.
enum Item {
    Offer(Offer),
    Unrelated,
    Bad,
}

impl Listing {
    pub(super) fn new(subnet: &str) -> Self {
        Self { subnet: subnet.to_owned(), offers: Vec::new(), good: 0, bad: 0, unrelated: 0 }
    }

    /// Takes in one page; returns how many items it had.
    ///
    /// # Errors
    /// When the status or the whole page is wrong, or there are more than `offers_max` items.
    pub(super) fn take_page(
        &mut self,
        form: Form,
        offers_max: usize,
        status: u16,
        body: &[u8],
    ) -> Result<usize, CouldNotLook> {
        let body = answers::answer(form.route(), status, body)?;
        let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(malformed)?;
        self.expect(items.len(), offers_max)?;
        for item in &items {
            self.take(read(form, item.get(), &self.subnet));
        }
        Ok(items.len())
    }

    fn expect(&self, more: usize, offers_max: usize) -> Result<(), CouldNotLook> {
        if self.good + self.bad + self.unrelated + more > offers_max {
            let detail = format!("the listing has more than {offers_max} offers");
            return Err(CouldNotLook::new(Reason::AnswerTooLarge, detail));
        }
        Ok(())
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Offer(offer) => {
                self.good += 1;
                self.offers.push(offer);
            }
            Item::Unrelated => self.unrelated += 1,
            Item::Bad => self.bad += 1,
        }
    }

    /// Passes on what has been gathered so far.
    pub(super) fn drain(&mut self) -> std::vec::Drain<'_, Offer> {
        self.offers.drain(..)
    }

    /// The offers that were not passed on, by node.
    ///
    /// # Errors
    /// When there were items and none of them was an offer.
    pub(super) fn finish(mut self) -> Result<Vec<Offer>, CouldNotLook> {
        if self.bad > 0 {
            tracing::debug!(subnet = self.subnet, bad = self.bad, "unreadable offers skipped");
            if self.good == 0 && self.unrelated == 0 {
                return Err(malformed(format!("none of {} offers is readable", self.bad)));
            }
        }
        self.offers.sort_unstable();
        Ok(self.offers)
    }
}

fn read(form: Form, item: &str, subnet: &str) -> Item {
    match form {
        Form::Scan => read_offer(item, subnet),
        Form::Events => match serde_json::from_str::<RawEvent<'_>>(item) {
            Ok(RawEvent { proposal: Some(proposal) }) => read_offer(proposal.get(), subnet),
            // Rejections and the like.
            Ok(RawEvent { proposal: None }) => Item::Unrelated,
            Err(_) => Item::Bad,
        },
    }
}

fn read_offer(item: &str, subnet: &str) -> Item {
    let Ok(raw) = serde_json::from_str::<RawOffer<'_>>(item) else {
        return Item::Bad;
    };
    let Some(node_id) = text(raw.node_id).and_then(|text| text.parse::<NodeId>().ok()) else {
        return Item::Bad;
    };
    // A scan has no demand behind it, so it is for us to see that the offer is of this subnet.
    if property(&raw.properties, "golem.node.debug.subnet").as_deref() != Some(subnet) {
        return Item::Unrelated;
    }
    let cleaned = |name| {
        property(&raw.properties, name).map(|text| clean(&text, TEXT_BYTES_MAX)).unwrap_or_default()
    };
    Item::Offer(Offer {
        node_id,
        name: cleaned("golem.node.id.name"),
        runtime: cleaned("golem.runtime.name"),
        runtime_version: cleaned("golem.runtime.version"),
        networks: networks(raw.properties.keys()),
        subnet: subnet.to_owned(),
    })
}

/// The text of a property. Its key may carry the market's marks: `?` for a property told on
/// demand, `@v` for a version.
fn property(properties: &HashMap<String, &RawValue>, name: &str) -> Option<String> {
    ["", "@v", "?"].iter().find_map(|mark| text(properties.get(&format!("{name}{mark}"))?))
}

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

fn networks<'a>(keys: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut networks: Vec<String> = keys
        .filter_map(|key| key.strip_prefix("golem.com.payment.platform.")?.strip_suffix(".address"))
        .filter(|name| !name.is_empty())
        .map(|name| clean(name, TEXT_BYTES_MAX))
        .collect();
    networks.sort_unstable();
    networks.dedup();
    networks.truncate(NETWORKS_MAX);
    networks
}
