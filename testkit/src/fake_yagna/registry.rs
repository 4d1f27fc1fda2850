//! What the fake relay has registered, and its answers about it.
//!
//! Owns the answers to "where is this identity" and the relay's announcements of new and lost
//! nodes. Everything follows from the world's nodes and its time; nothing here waits.

use std::time::Duration;

use super::clock::UnixTime;
use super::link::Link;
use super::node::{Node, Nothing};
use super::offer::ProviderSpec;
use super::state::{RelayEvent, State};
use super::timing::NetTiming;
use super::world::World;

/// How many of the relay's events are kept for slow readers; a reader further behind gets `drop`.
const RELAY_EVENTS_MAX: usize = 1024;

/// How a node is reached, as far as the network decides it.
#[derive(Clone, Debug)]
pub(crate) struct Contact {
    pub(crate) alive: bool,
    /// Whether the channels to it are closed: the relay has dropped it, or it has not come back.
    pub(crate) closed: bool,
    /// When it fell silent, if it is.
    pub(crate) silent_since: Option<UnixTime>,
    pub(crate) incarnation: u32,
    pub(crate) outage: Duration,
    pub(crate) firewalled: bool,
    pub(crate) port: u16,
    pub(crate) link: Link,
    /// The node does not answer to this identity yet.
    pub(crate) is_strange: bool,
    /// It is not the node's first identity.
    pub(crate) is_second: bool,
}

/// A session as the relay shows it.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) session_id: String,
    pub(crate) port: u16,
    pub(crate) slot: u32,
    /// How long ago it was last heard of, and how long ago its address was checked.
    pub(crate) seen: Duration,
    pub(crate) checked: Duration,
    /// The moment it was last heard of, on the relay's clock.
    pub(crate) seen_unix_s: i64,
    pub(crate) since: UnixTime,
    pub(crate) firewalled: bool,
    pub(crate) identities: Vec<String>,
}

impl World {
    /// Makes a daemon one of the network's nodes, with a relay session that old.
    pub(crate) fn take_part(&self, identity: Option<String>, session_age: Duration) -> String {
        let id = match identity {
            Some(id) if self.lock().find(&id).is_some() => id,
            Some(id) => self.add_provider(ProviderSpec {
                id: Some(id),
                runtimes: Vec::new(),
                ..ProviderSpec::default()
            }),
            None => self.add_requestor(),
        };
        self.begin_session(&id, self.now().saturating_sub(session_age));
        id
    }

    /// Replaces the node's relay sessions by one that began at `since`.
    pub(crate) fn begin_session(&self, id: &str, since: UnixTime) {
        let mut state = self.lock();
        state.begin_session(id, since);
        drop(state);
        self.notify();
    }

    /// `None` if nobody in the network has this identity.
    pub(crate) fn contact(&self, id: &str) -> Option<Contact> {
        let now = self.now();
        let state = self.lock();
        let node = state.find(id)?;
        let alive = node.is_there();
        let closed = match node.sessions.last() {
            Some(newest) if alive => newest.closed_until > now,
            _ => !alive && node.known(now, &state.timing).next().is_none(),
        };
        Some(Contact {
            alive,
            closed,
            silent_since: node.silent_since(),
            incarnation: node.incarnation,
            outage: node.outage,
            firewalled: node.firewalled,
            port: node.sessions.last().map_or(0, |session| session.port),
            link: node.link,
            is_strange: node.made_since.contains(id),
            is_second: node.identities[0] != id,
        })
    }

    /// The seed.
    pub(crate) fn seed(&self) -> u64 {
        self.lock().seed
    }

    /// The sessions of this identity at the relay, oldest first, and what the relay shows if there
    /// is none.
    pub(crate) fn registrations(&self, id: &str) -> (Vec<Registration>, Nothing) {
        let now = self.now();
        let state = self.lock();
        let Some(node) = state.find(id) else {
            return (Vec::new(), Nothing::Absent);
        };
        (registrations(node, now, &state), node.nothing(now))
    }

    /// How long the relay has been down.
    pub(crate) fn relay_down_for(&self) -> Option<Duration> {
        let now = self.now();
        self.lock().relay.down_since.map(|since| now.saturating_sub(since))
    }

    /// Every identity that the relay shows something for, in no particular order.
    pub(crate) fn registered(&self) -> Vec<String> {
        let now = self.now();
        let state = self.lock();
        let shown = state.nodes.iter().filter(|node| {
            node.known(now, &state.timing).next().is_some() || node.nothing(now) != Nothing::Absent
        });
        shown.flat_map(|node| node.identities.iter().cloned()).collect()
    }

    /// The relay's announcements after number `after`: the newest number, and `None` in place of
    /// them if the reader has fallen too far behind.
    pub(crate) fn announcements(&self, after: u64) -> (u64, Option<Vec<RelayEvent>>) {
        let now = self.now();
        let mut state = self.lock();
        state.announce(now);
        let relay = &state.relay;
        let oldest = relay.events.front().map_or(relay.next_event, |(number, _)| *number);
        let fresh = relay.events.iter().filter(|(number, _)| *number >= after);
        let fresh = fresh.map(|(_, event)| event.clone()).collect();
        (relay.next_event, (after >= oldest).then_some(fresh))
    }

    /// How long until the relay's knowledge next changes by itself.
    pub(crate) fn next_announcement(&self) -> Option<Duration> {
        let now = self.now();
        let state = self.lock();
        let begins = state.nodes.iter().flat_map(|node| &node.sessions).map(|it| it.since);
        let ends = state.nodes.iter().flat_map(|node| {
            node.sessions.iter().filter_map(|it| it.purged_at(&node.pings, &state.timing))
        });
        let next = begins.chain(ends).filter(|&at| at > now).min()?;
        Some(next.saturating_sub(now))
    }
}

fn registrations(node: &Node, now: UnixTime, state: &State) -> Vec<Registration> {
    let timing: &NetTiming = &state.timing;
    let shown = node.known(now, timing).map(|session| {
        let seen_at = session.last_seen(&node.pings, now, timing);
        let seen_s = i64::try_from(seen_at.as_secs()).unwrap_or(i64::MAX);
        Registration {
            session_id: session.id.clone(),
            port: session.port,
            slot: session.slot,
            seen: now.saturating_sub(seen_at),
            checked: now.saturating_sub(session.since),
            seen_unix_s: seen_s.saturating_add(state.relay.clock_ahead),
            since: session.since,
            firewalled: node.firewalled,
            identities: node.identities.clone(),
        }
    });
    shown.collect()
}

impl State {
    /// Compares what stands announced with what is registered. A node that left and came back
    /// between two comparisons is not announced: so it is with the real relay.
    fn announce(&mut self, now: UnixTime) {
        let timing = self.timing;
        for node in &self.nodes {
            let registered = node.known(now, &timing).next().is_some();
            for id in &node.identities {
                let event = match (registered, self.relay.announced.contains(id)) {
                    (true, false) => RelayEvent::New(id.clone()),
                    (false, true) => RelayEvent::Lost(id.clone()),
                    _ => continue,
                };
                if registered {
                    self.relay.announced.insert(id.clone());
                } else {
                    self.relay.announced.remove(id);
                }
                let number = self.relay.next_event;
                self.relay.events.push_back((number, event));
                self.relay.next_event += 1;
            }
        }
        let surplus = self.relay.events.len().saturating_sub(RELAY_EVENTS_MAX);
        self.relay.events.drain(..surplus);
    }

    fn begin_session(&mut self, id: &str, since: UnixTime) {
        let at = self.index(id);
        let port = self.nodes[at].sessions.last().map(|session| session.port);
        self.nodes[at].sessions.clear();
        self.open_session(at, since, port);
    }
}
