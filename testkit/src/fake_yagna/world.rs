//! The simulated Golem network: its nodes, living and dead, what the relay knows, and the offers.
//!
//! Several fake daemons and a fake relay share one world. They read it and report themselves to it.
//! Everything random comes from the seed. Time passes by itself (see `clock`) and can be pushed
//! forward with [`World::advance`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::sync::watch;

use super::clock::{Clock, UnixTime};
use super::link::Link;
use super::node::{Life, Node};
use super::offer::{self, ProviderSpec};
use super::state::State;
use super::timing::NetTiming;

/// The simulated network. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct World {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl World {
    /// An empty network at the machine's time.
    #[must_use]
    pub fn new(seed: u64) -> World {
        World::with_clock(seed, Clock::real())
    }

    /// An empty network whose clock shows `unix_time` now.
    #[must_use]
    pub fn at(seed: u64, unix_time: UnixTime) -> World {
        World::with_clock(seed, Clock::at(unix_time))
    }

    fn with_clock(seed: u64, clock: Clock) -> World {
        let state = State::new(seed);
        let shared = Shared { clock, state: Mutex::new(state), changed: watch::Sender::new(0) };
        World { shared: Arc::new(shared) }
    }

    /// The world's time.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.shared.clock.now()
    }

    /// Pushes the world's clock forward: sessions age and are purged, offers end, daemons grow
    /// old. Clients' waits are not shortened.
    pub fn advance(&self, by: Duration) {
        self.shared.clock.push(by);
        self.notify();
    }

    /// Sets the network's times; see [`NetTiming`].
    pub fn set_timing(&self, timing: NetTiming) {
        self.with(|state, _| state.timing = timing);
    }

    /// The network's times.
    #[must_use]
    pub fn timing(&self) -> NetTiming {
        self.lock().timing
    }

    /// Adds a provider that has just started, and returns its id.
    ///
    /// # Panics
    /// If the id is taken, or a recorded offer is not an offer of this provider.
    pub fn add_provider(&self, spec: ProviderSpec) -> String {
        self.with(|state, now| state.add(spec, now))
    }

    /// Adds a provider as it stands in recorded offers (scan form), all by the same provider.
    ///
    /// # Panics
    /// As [`World::add_provider`].
    pub fn add_recorded(&self, offers: &[serde_json::Value], port: u16) -> String {
        let id = offers.first().and_then(|offer| offer.get("providerId")?.as_str());
        assert!(id.is_some(), "a recorded offer names its provider");
        self.add_provider(ProviderSpec {
            id: id.map(str::to_owned),
            recorded: offers.to_vec(),
            port: Some(port),
            ..ProviderSpec::default()
        })
    }

    /// Adds a requestor: known to the relay, without offers. Returns its id.
    pub fn add_requestor(&self) -> String {
        self.add_provider(ProviderSpec { runtimes: Vec::new(), ..ProviderSpec::default() })
    }

    /// Every identity that ever was in the network, requestors too.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.lock().by_id.keys().cloned().collect()
    }

    /// The ids of providers (default identities that publish offers) that run.
    #[must_use]
    pub fn alive_ids(&self) -> Vec<String> {
        self.provider_ids(|node| node.life == Life::Alive)
    }

    /// The ids of providers in `subnet`, dead or alive.
    #[must_use]
    pub fn subnet_ids(&self, subnet: &str) -> Vec<String> {
        self.provider_ids(|node| node.subnet == subnet)
    }

    /// All providers and their subnets, dead or alive, by id.
    #[must_use]
    pub fn providers(&self) -> Vec<(String, String)> {
        let state = self.lock();
        let providers = state.nodes.iter().filter(|node| !node.listings.is_empty());
        let mut pairs: Vec<_> =
            providers.map(|node| (node.identities[0].clone(), node.subnet.clone())).collect();
        pairs.sort();
        pairs
    }

    fn provider_ids(&self, keep: impl Fn(&Node) -> bool) -> Vec<String> {
        let state = self.lock();
        let providers = state.nodes.iter().filter(|node| !node.listings.is_empty() && keep(node));
        let mut ids: Vec<String> = providers.map(|node| node.identities[0].clone()).collect();
        ids.sort();
        ids
    }

    /// The other identities of the node behind `id`, its own included.
    ///
    /// # Panics
    /// If no node has this id. So do all methods here that take an id.
    #[must_use]
    pub fn identities_of(&self, id: &str) -> Vec<String> {
        let state = self.lock();
        state.nodes[state.index(id)].identities.clone()
    }

    /// Makes another identity on a running node, and returns it. The relay knows it at once; the
    /// node itself answers to it only after its next start (a3, a4).
    pub fn add_identity(&self, id: &str) -> String {
        self.with(|state, _| {
            let identity = offer::node_id(&mut state.rng);
            state.add_identity(id, &identity);
            identity
        })
    }

    /// As [`World::add_identity`], with a given identity.
    ///
    /// # Panics
    /// If it is taken.
    pub fn add_this_identity(&self, id: &str, identity: &str) {
        self.with(|state, _| state.add_identity(id, identity));
    }

    /// The node publishes these recorded offers (scan form), under the identities that they name.
    pub fn publish_recorded(&self, offers: &[serde_json::Value]) {
        self.with(|state, _| state.publish_recorded(offers));
    }

    /// The node's agent withdraws its offers; the node itself lives on.
    pub fn withdraw_offers(&self, id: &str) {
        self.with(|state, now| {
            let node = state.node(id);
            node.withdrawn = true;
            for listing in &mut node.listings {
                listing.withdrawn.get_or_insert(now);
            }
        });
    }

    /// The node's agent publishes a new set of offers, in addition to those that exist.
    pub fn publish_offers(&self, id: &str) {
        self.with(|state, now| {
            state.node(id).withdrawn = false;
            let at = state.index(id);
            state.publish(at, now);
        });
    }

    /// The node's last ping was `age` ago. An age of more than a ping interval, even of a living
    /// node, means that it has put the next ping off, by another interval from now.
    pub fn set_seen_age(&self, id: &str, age: Duration) {
        self.with(|state, now| {
            let timing = state.timing;
            state.node(id).set_last_ping(now.saturating_sub(age), now, &timing);
        });
    }

    /// The node lives and answers, but does not ping the relay: `seen` grows. A node that asks the
    /// relay for neighbours all the time behaves like this (b4).
    pub fn hold_pings(&self, id: &str) {
        self.with(|state, now| {
            let timing = state.timing;
            let pings = &mut state.node(id).pings;
            pings.hold(pings.last(now, &timing));
        });
    }

    /// It pings now, and regularly from then on.
    pub fn resume_pings(&self, id: &str) {
        self.with(|state, now| {
            let timing = state.timing;
            state.node(id).pings.let_go(now, &timing);
        });
    }

    /// How long ago the relay last heard of the node; `None` if it does not know it.
    #[must_use]
    pub fn seen_age(&self, id: &str) -> Option<Duration> {
        let now = self.now();
        let state = self.lock();
        let node = &state.nodes[state.index(id)];
        let sessions = node.known(now, &state.timing);
        let seen = sessions.map(|session| session.last_seen(&node.pings, now, &state.timing));
        seen.max().map(|seen| now.saturating_sub(seen))
    }

    /// The relay dies: nobody can look up or register; direct connections live on.
    pub fn relay_down(&self) {
        self.with(|state, now| state.relay.down_since = Some(now));
    }

    /// The relay is back, empty; living nodes register again over half a minute.
    pub fn relay_up(&self) {
        self.with(|state, now| {
            state.relay.down_since = None;
            state.relay.announced.clear();
            let (soonest, latest) = state.timing.register_again;
            for at in 0..state.nodes.len() {
                let spread = latest.saturating_sub(soonest).mul_f64(state.rng.random());
                let port = state.nodes[at].sessions.last().map(|session| session.port);
                state.nodes[at].sessions.clear();
                if state.nodes[at].is_there() {
                    let since = now + soonest + spread;
                    let closed_until = since.min(now + state.timing.closed_by_relay_restart);
                    state.open_session(at, since, port).closed_until = closed_until;
                }
            }
        });
    }

    /// Sets the relay's clock ahead of (or behind) everybody else's: `FindNode` shows its time.
    pub fn set_relay_clock_ahead(&self, seconds: i64) {
        self.with(|state, _| state.relay.clock_ahead = seconds);
    }

    /// Sets how bad the link of this node is. A daemon's own identity is a node, too: with a bad
    /// link, its look-ups suffer as well.
    pub fn set_link(&self, id: &str, link: Link) {
        self.with(|state, _| state.node(id).link = link);
    }

    /// Sets how bad the link between the relay and every daemon is. Nodes register and ping as
    /// before: a lost ping is repeated within half a second.
    pub fn set_relay_link(&self, link: Link) {
        self.with(|state, _| state.relay.link = link);
    }

    // For the fake servers.

    /// The link of this node; a clean one if there is no such node.
    pub(crate) fn link_of(&self, id: &str) -> Link {
        self.lock().find(id).map(|node| node.link).unwrap_or_default()
    }

    /// The relay's link.
    pub(crate) fn relay_link(&self) -> Link {
        self.lock().relay.link
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the tasks that wait for a change.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State, UnixTime) -> T) -> T {
        let now = self.now();
        let result = work(&mut self.lock(), now);
        self.notify();
        result
    }

    pub(crate) fn notify(&self) {
        self.shared.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }
}
