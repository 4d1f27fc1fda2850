//! The node cache: what a probe remembers of nodes between rounds.
//!
//! Owns which nodes had a recent offer, which details and ages were last sent, and which nodes were
//! unreachable last time. Stores hashes instead of details: the texts of 10,000 nodes would take
//! more memory than the rest of the probe.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use uptime_proto::{NodeId, Sample, v1};

use super::clock_check::Earlier;
use super::dormant::Dormant;
use super::lookup::LookupDetail;
use crate::yagna::Offer;

/// Without an aggregator, nodes whose last offer is older are not looked up.
const REMEMBERED_S: u64 = 86_400;

/// Details sent after one listing; the rest follow after the next ones. This bounds the memory for
/// the texts of 10,000 nodes at the first listing.
const TOLD_PER_LISTING_MAX: usize = 1_000;
/// The hash of details that are not sent yet.
const NOT_TOLD: u64 = 0;

/// The cache.
#[derive(Debug, Default)]
pub(super) struct NodeCache {
    /// By node and subnet: the round of the last offer (start, unix seconds) and the hash of the
    /// details last left for sending.
    offers: HashMap<(NodeId, u16), Remembered>,
    /// Found unreachable in the last round that asked.
    pub(super) unreachable: HashSet<NodeId>,
    /// How long the relay's last listing took.
    pub(super) relay_took: Option<Duration>,
    /// Look-ups per second of the last first stage, if it was long enough to measure.
    pub(super) found_per_s: Option<u32>,
    /// The `seen` last sent for each suspect of the last round, by the relay's clock.
    seen_told: HashMap<NodeId, i64>,
    /// Nodes that have been dead for long.
    pub(super) dormant: Dormant,
    /// The nodes that the relay heard of last, to tell dead nodes from a wrong clock.
    pub(super) stamps: Option<Earlier>,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    round_s: u64,
    details: u64,
}

/// A listing in progress. A failed one leaves no trace in the cache.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The smallest hash of a node's offers: offers come in any order, and a node with two of them
    /// must not look changed in every round.
    least: HashMap<NodeId, u64>,
    /// Details that are new or changed, if their hash stays the smallest.
    candidates: HashMap<NodeId, v1::NodeDetails>,
}

impl Listing {
    /// Takes one offer of a subnet, given by its index in the configuration.
    pub(super) fn take(&mut self, offer: Offer, subnet: u16, cache: &NodeCache) {
        let id = offer.node_id;
        let hash = details_hash(&offer);
        if self.least.get(&id).is_some_and(|least| *least <= hash) {
            return;
        }
        self.least.insert(id, hash);
        let told = cache.offers.get(&(id, subnet)).map(|remembered| remembered.details);
        if told == Some(hash) {
            self.candidates.remove(&id);
        } else if self.candidates.len() < TOLD_PER_LISTING_MAX || self.candidates.contains_key(&id)
        {
            self.candidates.insert(id, details(offer));
        }
    }

    /// Stores a whole listing. Returns its nodes, ascending, and the new or changed details.
    pub(super) fn finish(
        self,
        subnet: u16,
        round_s: u64,
        cache: &mut NodeCache,
    ) -> (Vec<NodeId>, Vec<v1::NodeDetails>) {
        for (id, details) in &self.least {
            let told = cache.offers.get(&(*id, subnet)).map_or(NOT_TOLD, |before| before.details);
            let is_told = self.candidates.contains_key(id) || told == *details;
            let details = if is_told { *details } else { NOT_TOLD };
            cache.offers.insert((*id, subnet), Remembered { round_s, details });
        }
        let old = round_s.saturating_sub(REMEMBERED_S);
        cache.offers.retain(|_, remembered| remembered.round_s >= old);
        let mut ids: Vec<NodeId> = self.least.into_keys().collect();
        ids.sort_unstable();
        (ids, self.candidates.into_values().collect())
    }
}

impl NodeCache {
    /// Nothing is known yet. `name` differs between probes.
    pub(super) fn new(name: &str) -> Self {
        Self { dormant: Dormant::new(name), ..Self::default() }
    }

    /// The nodes with an offer in the last day.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.offers.keys().map(|(id, _)| *id)
    }

    /// These details did not fit the queue: send them again later.
    pub(super) fn details_not_queued(&mut self, subnet: u16, details: &[v1::NodeDetails]) {
        for id in details.iter().filter_map(|it| NodeId::from_slice(&it.node_id).ok()) {
            if let Some(remembered) = self.offers.get_mut(&(id, subnet)) {
                remembered.details = NOT_TOLD;
            }
        }
    }

    /// What is new about the suspects of a round. While the relay does not hear of a node again,
    /// its age is sent once: it grows by itself.
    pub(super) fn news_of(&mut self, details: &[LookupDetail], round_s: u64) -> Vec<Sample> {
        let before = std::mem::take(&mut self.seen_told);
        let mut news = Vec::new();
        for detail in details {
            let is_told = detail.seen.is_none_or(|seen| {
                self.seen_told.insert(detail.node_id, seen.unix_s);
                before.get(&detail.node_id) == Some(&seen.unix_s)
            });
            let seen = detail.seen.filter(|_| !is_told);
            let sample = Sample {
                seen_age_ms: seen.map(|seen| millis(seen.age_s)),
                answered_in_ms: detail
                    .answered_in
                    .map(|took| u32::try_from(took.as_millis()).unwrap_or(u32::MAX)),
                ..Sample::new(detail.node_id, round_s)
            };
            if sample != Sample::new(detail.node_id, round_s) {
                news.push(sample);
            }
        }
        news
    }

    /// These samples did not fit the queue: send their ages again later.
    pub(super) fn samples_not_queued(&mut self, samples: &[Sample]) {
        for sample in samples {
            self.seen_told.remove(&sample.node);
        }
    }
}

fn millis(age_s: i64) -> i32 {
    i32::try_from(age_s.saturating_mul(1_000)).unwrap_or(i32::MAX)
}

fn details_hash(offer: &Offer) -> u64 {
    let mut hasher = DefaultHasher::new();
    offer.hash(&mut hasher);
    hasher.finish().max(NOT_TOLD + 1)
}

fn details(offer: Offer) -> v1::NodeDetails {
    v1::NodeDetails {
        node_id: offer.node_id.as_bytes().to_vec().into(),
        name: offer.name,
        runtime: offer.runtime,
        runtime_version: offer.runtime_version,
        networks: offer.networks,
        subnet: offer.subnet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Seen;

    fn offer(node: u8, runtime: &str) -> Offer {
        Offer {
            node_id: NodeId::new([node; 20]),
            name: "n".to_owned(),
            runtime: runtime.to_owned(),
            runtime_version: String::new(),
            networks: Vec::new(),
            subnet: "public".to_owned(),
        }
    }

    fn told(cache: &mut NodeCache, round_s: u64, offers: Vec<Offer>) -> usize {
        let mut listing = Listing::default();
        for offer in offers {
            listing.take(offer, 0, cache);
        }
        listing.finish(0, round_s, cache).1.len()
    }

    #[test]
    fn details_are_told_once_whatever_the_order_of_offers() {
        let mut cache = NodeCache::default();
        assert_eq!(told(&mut cache, 30, vec![offer(1, "vm"), offer(1, "wasm")]), 1);
        assert_eq!(told(&mut cache, 60, vec![offer(1, "wasm"), offer(1, "vm")]), 0);
        assert_eq!(told(&mut cache, 90, vec![offer(1, "vm"), offer(1, "wasm"), offer(2, "x")]), 1);
        assert_eq!(told(&mut cache, 120, vec![offer(2, "y")]), 1, "it changed");
    }

    #[test]
    fn many_new_nodes_are_told_over_several_listings() {
        let mut cache = NodeCache::default();
        let many = || {
            (0..2_500u16).map(|number| {
                let mut id = [0; 20];
                id[..2].copy_from_slice(&number.to_be_bytes());
                Offer { node_id: NodeId::new(id), ..offer(0, "vm") }
            })
        };
        let told: Vec<usize> =
            (1..=4).map(|round| told(&mut cache, round * 30, many().collect())).collect();
        assert_eq!(told, [1_000, 1_000, 500, 0]);
        assert_eq!(cache.nodes().count(), 2_500);
    }

    #[test]
    fn details_that_found_no_room_are_told_again() {
        let mut cache = NodeCache::default();
        let mut listing = Listing::default();
        listing.take(offer(1, "vm"), 0, &cache);
        listing.take(offer(2, "vm"), 0, &cache);
        let (_, details) = listing.finish(0, 30, &mut cache);
        assert_eq!(details.len(), 2);
        cache.details_not_queued(0, &details[..1]);
        assert_eq!(told(&mut cache, 60, vec![offer(1, "vm"), offer(2, "vm")]), 1);
        assert_eq!(told(&mut cache, 90, vec![offer(1, "vm"), offer(2, "vm")]), 0);
    }

    #[test]
    fn the_age_of_a_suspect_is_told_until_it_is_heard_of_again() {
        let mut cache = NodeCache::default();
        let seen = |unix_s, age_s| Some(Seen { unix_s, age_s });
        let detail =
            |byte, seen| LookupDetail { node_id: NodeId::new([byte; 20]), seen, answered_in: None };
        let mut ages = |round_s, details: &[LookupDetail]| -> Vec<i32> {
            let news = cache.news_of(details, round_s);
            news.iter().filter_map(|sample| sample.seen_age_ms).collect()
        };
        assert_eq!(ages(30, &[detail(1, seen(0, 55)), detail(2, None)]), [55_000]);
        // It grows as it must, and another one is new.
        assert_eq!(ages(60, &[detail(1, seen(0, 85)), detail(3, seen(60, 25))]), [25_000]);
        assert_eq!(ages(90, &[detail(1, seen(90, 21)), detail(3, seen(60, 55))]), [21_000]);
        assert_eq!(ages(120, &[detail(3, seen(60, 85))]), [0i32; 0]);
        // It was no suspect for a round.
        assert_eq!(ages(150, &[detail(1, seen(90, 81)), detail(3, seen(60, 115))]), [81_000]);
        let answered = LookupDetail {
            answered_in: Some(Duration::from_millis(70)),
            ..detail(3, seen(60, 145))
        };
        let news = cache.news_of(&[answered], 180);
        assert_eq!(news.len(), 1);
        assert_eq!((news[0].seen_age_ms, news[0].answered_in_ms), (None, Some(70)));
        cache.samples_not_queued(&news);
        assert_eq!(cache.news_of(&[detail(3, seen(60, 175))], 210)[0].seen_age_ms, Some(175_000));
    }

    #[test]
    fn a_day_without_an_offer_is_forgotten() {
        let mut cache = NodeCache::default();
        told(&mut cache, 30, vec![offer(1, "vm")]);
        told(&mut cache, 30 + REMEMBERED_S, vec![offer(2, "vm")]);
        assert_eq!(cache.nodes().count(), 2);
        told(&mut cache, 60 + REMEMBERED_S, vec![offer(2, "vm")]);
        assert_eq!(cache.nodes().collect::<Vec<_>>(), [NodeId::new([2; 20])]);
    }
}
