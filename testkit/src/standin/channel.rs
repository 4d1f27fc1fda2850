//! A daemon's channels to other nodes, and the question over one of them.
//!
//! A daemon keeps one channel to every node it ever talked to. While the node is away its channel
//! stays behind, closed, and every question over it fails at once [a0]; only the node's return or
//! a restart of the daemon ends that. Owns what opens a channel and what becomes of a question.
//! Refuses to decide who is alive: it asks the world.

use tokio::time::{Instant, sleep_until};

use super::bridge::look_up;
use super::chance::draw;
use super::clock::{self, UnixTime};
use super::daemon::Core;
use super::registry::Contact;

/// A peer that was away at least that long and came back is asked once in vain: the daemon still
/// holds the connection to the earlier life [measure_9: 0.5 s away, no; 40 s away, yes].
const STALE_AFTER: std::time::Duration = std::time::Duration::from_secs(20);

pub(crate) const NO_CHANNEL: &str =
    "Net: error forwarding message: Fail to open reliable channel\n\nCaused by:\n    ";
const CLOSED: &str = "Net: error sending message: session closed";
/// What a daemon adds where the operator has switched backtraces on [a1], cut short.
const BACKTRACE: &str = "\n\nStack backtrace:\n   \
    0: anyhow::error::<impl anyhow::Error>::msg\n   \
    1: anyhow::__private::format_err\n   \
    2: ya_relay_client::session::SessionLayer::query_node_info::{{closure}}::{{closure}}";

/// What became of a question to a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Answered,
    /// Nothing will come. How long to wait for it is the asker's business.
    Silent,
    /// It was never asked, and why.
    Unreachable(String),
}

/// A channel to a peer.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) since: UnixTime,
    /// The life of the peer it was made with; a later one does not know of it.
    pub(crate) incarnation: u32,
    /// Whether the daemon has noticed that it is closed.
    closed: bool,
}

impl Peer {
    pub(crate) fn new(since: UnixTime, incarnation: u32) -> Peer {
        Peer { since, incarnation, closed: false }
    }
}

/// Puts a question to a peer, over a channel if there is one.
pub(crate) async fn ask(core: &Core, id: &str, deadline: Instant) -> Asked {
    let contact = core.world.contact(id);
    let channel = contact.as_ref().and_then(|contact| core.channel(id, contact));
    let Some((contact, peer)) = contact.clone().zip(channel) else {
        return ask_first(core, id, contact, deadline).await;
    };
    if contact.closed {
        return over_closed(core, id, &peer);
    }
    if !contact.alive {
        core.lock().relay_queries += 1;
        return Asked::Silent;
    }
    if peer.closed || peer.incarnation != contact.incarnation {
        open(core, id, &contact);
        if peer.incarnation != contact.incarnation && contact.outage >= STALE_AFTER {
            return Asked::Silent;
        }
    }
    answered_by(core, deadline).await
}

/// The first question may still be waiting for an answer when the daemon notices [a6].
fn over_closed(core: &Core, id: &str, peer: &Peer) -> Asked {
    let (seed, share) = core.world.late_closing();
    let what = ("closed late", &core.identity, id, peer.incarnation);
    let waits = !peer.closed && draw(seed, what) < share;
    core.change(|memory| {
        memory.relay_queries += 1;
        let peer = memory.peers.entry(id.to_owned()).or_insert_with(|| peer.clone());
        peer.closed = true;
    });
    if waits { Asked::Silent } else { Asked::Unreachable(CLOSED.to_owned()) }
}

/// Without a channel the relay is asked first.
async fn ask_first(core: &Core, id: &str, contact: Option<Contact>, deadline: Instant) -> Asked {
    let found = look_up(core, id).await;
    if let Err(why) = found {
        let trace = if core.backtraces { BACKTRACE } else { "" };
        return Asked::Unreachable(format!(
            "{NO_CHANNEL}Failed to find Node on relay server: {why}{trace}"
        ));
    }
    match contact.filter(|contact| contact.alive) {
        None => Asked::Silent,
        Some(contact) => {
            let answer = answered_by(core, deadline).await;
            open(core, id, &contact);
            answer
        }
    }
}

async fn answered_by(core: &Core, deadline: Instant) -> Asked {
    let arrives = clock::deadline(core.limits.peer);
    sleep_until(arrives.min(deadline)).await;
    if arrives <= deadline { Asked::Answered } else { Asked::Silent }
}

/// Opens a channel to a node, or opens a closed one again.
pub(crate) fn open(core: &Core, id: &str, contact: &Contact) {
    let peer = Peer::new(core.world.now(), contact.incarnation);
    core.change(|memory| memory.peers.insert(id.to_owned(), peer));
}

impl Core {
    /// The channel to a node: one that was opened, or one that gossip and neighbourhood opened
    /// while the node was there.
    fn channel(&self, id: &str, contact: &Contact) -> Option<Peer> {
        let memory = self.lock();
        let gossiped = self.gossips
            && memory.view.holds(id)
            && memory.knows_from <= self.world.now()
            && contact.silent_since.is_none_or(|since| since >= memory.knows_from);
        let by_gossip = || Peer::new(memory.knows_from, contact.incarnation);
        memory.peers.get(id).cloned().or_else(|| gossiped.then(by_gossip))
    }
}
