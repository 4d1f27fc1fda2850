//! The nodes of the fake network and the relay, and how they change.
//!
//! Owns every change: arriving, publishing, restarting, renewing. The world locks it and knows the
//! time; nothing here reads a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::clock::UnixTime;
use super::link::Link;
use super::node::{Life, Listing, Node, Session};
use super::offer::{self, Offer, ProviderIdentity, ProviderSpec};
use super::pings::Pings;
use super::timing::NetTiming;

/// The default first UDP port of a node.
const PORT_FIRST: u16 = 11_500;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) seed: u64,
    pub(crate) rng: StdRng,
    pub(crate) timing: NetTiming,
    pub(crate) nodes: Vec<Node>,
    pub(crate) by_id: BTreeMap<String, usize>,
    pub(crate) relay: RelayState,
    next_slot: u32,
    next_port: u16,
}

#[derive(Debug, Default)]
pub(crate) struct RelayState {
    pub(crate) down_since: Option<UnixTime>,
    pub(crate) clock_ahead: i64,
    pub(crate) link: Link,
    /// The identities that stand announced to readers of the event stream.
    pub(crate) announced: BTreeSet<String>,
    pub(crate) events: VecDeque<(u64, RelayEvent)>,
    pub(crate) next_event: u64,
}

/// An event of the relay's event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RelayEvent {
    New(String),
    Lost(String),
}

impl State {
    pub(crate) fn new(seed: u64) -> State {
        State {
            seed,
            rng: StdRng::seed_from_u64(seed),
            timing: NetTiming::default(),
            nodes: Vec::new(),
            by_id: BTreeMap::new(),
            relay: RelayState::default(),
            next_slot: 1,
            next_port: PORT_FIRST,
        }
    }

    pub(crate) fn index(&self, id: &str) -> usize {
        let at = self.by_id.get(id);
        assert!(at.is_some(), "nobody in the fake network is called {id}");
        at.copied().unwrap_or_default()
    }

    pub(crate) fn node(&mut self, id: &str) -> &mut Node {
        let at = self.index(id);
        &mut self.nodes[at]
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Node> {
        self.by_id.get(id).map(|&at| &self.nodes[at])
    }

    pub(crate) fn add(&mut self, spec: ProviderSpec, now: UnixTime) -> String {
        let id = spec.id.unwrap_or_else(|| offer::node_id(&mut self.rng));
        let mut identities = vec![id.clone()];
        identities.extend((0..spec.other_identities).map(|_| offer::node_id(&mut self.rng)));
        let at = self.nodes.len();
        for identity in &identities {
            let before = self.by_id.insert(identity.clone(), at);
            assert!(before.is_none(), "{identity} is in the fake network already");
        }
        let salt = self.seed.wrapping_add(at as u64);
        let recorded = spec.recorded.first();
        let recorded = |name: &str| recorded?.get("properties")?.get(name)?.as_str();
        let subnet = recorded("golem.node.debug.subnet").unwrap_or(&spec.subnet).to_owned();
        let name = recorded("golem.node.id.name").map(str::to_owned).or(spec.name);
        let runtime = recorded("golem.runtime.name").map(|name| vec![name.to_owned()]);
        self.nodes.push(Node {
            name: name.unwrap_or_else(|| format!("provider-{}", &id[2..10])),
            subnet,
            runtimes: runtime.unwrap_or(spec.runtimes),
            firewalled: spec.firewalled,
            life: Life::Alive,
            pings: Pings::new(self.rng.random(), salt),
            sessions: Vec::new(),
            left: None,
            listings: Vec::new(),
            withdrawn: false,
            incarnation: 0,
            outage: Duration::ZERO,
            link: Link::default(),
            link_down: None,
            link_returns: 0,
            made_since: BTreeSet::new(),
            identities,
        });
        self.open_session(at, now, spec.port);
        // It has been there for a while: a full ping interval of history.
        let interval = self.timing.ping_interval;
        self.nodes[at].sessions[0].since = now.saturating_sub(interval);
        if spec.recorded.is_empty() {
            self.publish(at, now);
        }
        self.publish_recorded(&spec.recorded);
        id
    }

    pub(crate) fn publish_recorded(&mut self, offers: &[Value]) {
        for value in offers {
            let offer = Offer::recorded(value, self.timing.offer_lifetime);
            let at = offer.as_ref().and_then(|offer| self.by_id.get(&offer.provider_id));
            assert!(at.is_some(), "no offer of anybody in the fake network: {value}");
            if let (Some(offer), Some(&at)) = (offer, at) {
                self.nodes[at].listings.push(Listing { offer: Arc::new(offer), withdrawn: None });
            }
        }
    }

    pub(crate) fn add_identity(&mut self, id: &str, identity: &str) {
        let at = self.index(id);
        let before = self.by_id.insert(identity.to_owned(), at);
        assert!(before.is_none(), "{identity} is in the fake network already");
        self.nodes[at].identities.push(identity.to_owned());
        self.nodes[at].made_since.insert(identity.to_owned());
    }

    pub(crate) fn publish(&mut self, at: usize, published: UnixTime) {
        let node = &mut self.nodes[at];
        let provider = ProviderIdentity {
            id: &node.identities[0],
            name: &node.name,
            subnet: &node.subnet,
            public: !node.firewalled,
        };
        for runtime in &node.runtimes {
            let lifetime = self.timing.offer_lifetime;
            let offer = Offer::generate(&mut self.rng, &provider, runtime, published, lifetime);
            node.listings.push(Listing { offer: Arc::new(offer), withdrawn: None });
        }
    }

    pub(crate) fn open_session(
        &mut self,
        at: usize,
        since: UnixTime,
        port: Option<u16>,
    ) -> &mut Session {
        let port = port.unwrap_or_else(|| {
            self.next_port = self.next_port.checked_add(1).unwrap_or(PORT_FIRST);
            self.next_port
        });
        self.next_slot += 1;
        let id = offer::hex(&mut self.rng, 32);
        let session = Session {
            id,
            port,
            slot: self.next_slot,
            since,
            silent_since: None,
            dropped_at: None,
            closed_until: since,
        };
        let sessions = &mut self.nodes[at].sessions;
        sessions.push(session);
        let newest = sessions.len() - 1;
        &mut sessions[newest]
    }

    /// Living providers renew offers that have ended.
    pub(crate) fn renew_offers(&mut self, now: UnixTime) {
        for at in 0..self.nodes.len() {
            let gap = self.timing.renewal_gap;
            loop {
                let node = &self.nodes[at];
                let ends = node.listings.iter().map(|listing| listing.offer.expires + gap).max();
                let due = ends.filter(|&due| due <= now && node.life == Life::Alive);
                match due {
                    Some(due) if !node.withdrawn && gap + self.timing.offer_lifetime > gap => {
                        self.publish(at, due);
                    }
                    _ => break,
                }
            }
            let keep = self.timing.offer_lifetime;
            let listings = &mut self.nodes[at].listings;
            if listings.len() > 1 {
                let newest = listings.iter().map(|l| l.offer.published).max();
                listings
                    .retain(|l| l.offer.expires + keep > now || Some(l.offer.published) == newest);
            }
        }
    }
}
