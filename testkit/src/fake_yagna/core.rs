//! A daemon as its routes see it: its options, and what it remembers.
//!
//! Owns the lock around the memory, and which offers a daemon knows at a moment. Refuses to answer
//! requests.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::watch;

use super::chance::draw;
use super::clock::UnixTime;
use super::cursor::Scan;
use super::demand::Demand;
use super::fault::Fault;
use super::link::Link;
use super::offer::Offer;
use super::options::{Limits, View};
use super::peer::{Chances, Peer};
use super::traffic::{Log, Traffic};
use super::world::World;

/// A daemon as its routes see it.
pub(crate) struct Core {
    pub(crate) world: World,
    pub(crate) identity: String,
    pub(crate) app_key: String,
    pub(crate) limits: Limits,
    pub(crate) gossips: bool,
    pub(crate) backtraces: bool,
    pub(crate) started: UnixTime,
    pub(crate) memory: Mutex<Memory>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) frozen: watch::Sender<bool>,
    pub(crate) answering: AtomicUsize,
}

/// What a daemon remembers; a restart forgets most of it.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) rng: StdRng,
    pub(crate) salt: u64,
    pub(crate) view: View,
    /// Nothing was learnt before this.
    pub(crate) knows_from: UnixTime,
    pub(crate) blind_until: UnixTime,
    pub(crate) demands: BTreeMap<String, Demand>,
    pub(crate) scans: BTreeMap<u64, Scan>,
    pub(crate) next_scan: u64,
    pub(crate) peers: BTreeMap<String, Peer>,
    pub(crate) traffic: Traffic,
    pub(crate) log: Log,
    pub(crate) relay_queries: u64,
    /// Links that are bad for this daemon alone.
    pub(crate) links: BTreeMap<String, Link>,
    /// What bad links did so far, by peer.
    pub(crate) chances: BTreeMap<String, Chances>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) key_refused: bool,
    pub(crate) relay_refuses: bool,
    pub(crate) has_scan_api: bool,
    pub(crate) has_bridge: bool,
}

/// The offers a daemon knows at some moment.
pub(crate) struct Known {
    /// In the order in which it learnt of them.
    pub(crate) offers: Vec<Arc<Offer>>,
    /// When, from now, it will learn of or lose the next.
    pub(crate) next: Option<Duration>,
}

impl Core {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the memory and wakes the tasks that wait for a change.
    pub(crate) fn change<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        let result = work(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// A number drawn for this daemon and a peer, the next one each time.
    pub(crate) fn chance(&self, id: &str) -> f64 {
        let number = self.change(|memory| {
            let chances = memory.chances.entry(id.to_owned()).or_default();
            chances.drawn += 1;
            chances.drawn
        });
        draw(self.world.seed(), ("link", &self.identity, id, number))
    }

    /// Subscriptions to changes of the daemon and of the world. Subscribe before you look, so that
    /// no change is missed in between.
    pub(crate) fn changes(&self) -> Changes {
        Changes { own: self.changed.subscribe(), world: self.world.changes() }
    }

    pub(crate) fn known(&self, memory: &Memory) -> Known {
        let now = self.world.now();
        let mut state = self.world.lock();
        state.renew_offers(now);
        let gossip = state.timing.gossip;
        let mut next: Option<UnixTime> = None;
        let mut offers = Vec::new();
        let in_view = |id: &str| memory.view.holds(id);
        let nodes = state.nodes.iter().filter(|node| in_view(&node.identities[0]));
        for listing in nodes.flat_map(|node| &node.listings) {
            let learnt = (listing.offer.published + gossip).max(memory.knows_from);
            let withdrawn = listing.withdrawn.map(|at| at + gossip);
            let lost = withdrawn.map_or(listing.offer.expires, |at| at.min(listing.offer.expires));
            if learnt <= now && now < lost {
                offers.push((learnt, Arc::clone(&listing.offer)));
            } else if learnt > now && learnt < lost {
                next = Some(next.map_or(learnt, |soonest| soonest.min(learnt)));
            }
        }
        // Offers that were learnt at the same time have no meaningful order.
        offers.sort_by_cached_key(|(learnt, offer)| {
            let mut hasher = DefaultHasher::new();
            (memory.salt, &offer.offer_id).hash(&mut hasher);
            (*learnt, hasher.finish())
        });
        let offers = offers.into_iter().map(|(_, offer)| offer).collect();
        Known { offers, next: next.map(|at| at.saturating_sub(now)) }
    }
}

/// Waits for the next change of a daemon or its world.
pub(crate) struct Changes {
    own: watch::Receiver<u64>,
    world: watch::Receiver<u64>,
}

impl Changes {
    /// Returns at the next change, or at `deadline`.
    pub(crate) async fn wait_until(&mut self, deadline: tokio::time::Instant) {
        tokio::select! {
            // An error means that the sender is gone; the deadline still ends the wait.
            Ok(()) = self.own.changed() => {}
            Ok(()) = self.world.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}
