//! A daemon's channels to other nodes, and the question over one of them.
//!
//! A daemon keeps one channel to every node it ever talked to. While the node is away, its channel
//! stays closed and every question over it fails at once (a0), until the node returns or the daemon
//! restarts. Owns what opens a channel and how a question ends.
//! Refuses to decide who is alive: it asks the world.

use std::time::Duration;

use tokio::time::sleep;

use super::chance::draw;
use super::core::Core;
use super::link::Link;
use super::look_up::look_up;
use super::peer::Peer;
use super::registry::Contact;

/// After an outage of at least this length, the first question to a peer fails: the daemon still
/// holds the connection to its earlier life [measure_9: 0.5 s away, no; 40 s away, yes].
const STALE_AFTER: Duration = Duration::from_secs(20);

pub(crate) const NO_CHANNEL: &str =
    "Net: error forwarding message: Fail to open reliable channel\n\nCaused by:\n    ";
const CLOSED: &str = "Net: error sending message: session closed";
/// What a daemon adds if backtraces are enabled (a1), shortened.
const BACKTRACE: &str = "\n\nStack backtrace:\n   \
    0: anyhow::error::<impl anyhow::Error>::msg\n   \
    1: anyhow::__private::format_err\n   \
    2: ya_relay_client::session::SessionLayer::query_node_info::{{closure}}::{{closure}}";

/// The peer's own words for an identity that it does not know yet (a3).
pub(crate) fn unknown_address(id: &str, service: &str) -> String {
    format!("Bad request: Bad request: Unknown address: /net/{id}/{service}")
}

/// How a question to a peer ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Answered,
    /// No answer will come. The caller decides how long it waits.
    Silent,
    /// It was not asked, and why.
    Unreachable(String),
}

/// Puts a question to a peer, over a channel if there is one; an answer comes within `limit`.
pub(crate) async fn ask(core: &Core, id: &str, limit: Duration) -> Asked {
    let contact = core.world.contact(id);
    let channel = contact.as_ref().and_then(|contact| core.channel(id, contact));
    let Some((contact, peer)) = contact.clone().zip(channel) else {
        return ask_first(core, id, contact, limit).await;
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
    carried(core, id, &contact, limit).await
}

/// The first question may still be waiting for an answer when the daemon notices (a6).
fn over_closed(core: &Core, id: &str, peer: &Peer) -> Asked {
    let what = ("closed late", &core.identity, id, peer.incarnation);
    let share = core.world.timing().late_close_share;
    let waits = !peer.closed && draw(core.world.seed(), what) < share;
    core.change(|memory| {
        memory.relay_queries += 1;
        let peer = memory.peers.entry(id.to_owned()).or_insert_with(|| peer.clone());
        peer.closed = true;
    });
    if waits { Asked::Silent } else { Asked::Unreachable(CLOSED.to_owned()) }
}

/// Without a channel, the daemon asks the relay first. A failed question opens no channel.
async fn ask_first(core: &Core, id: &str, contact: Option<Contact>, limit: Duration) -> Asked {
    if let Err(why) = look_up(core, id).await {
        let trace = if core.backtraces { BACKTRACE } else { "" };
        return Asked::Unreachable(format!(
            "{NO_CHANNEL}Failed to find Node on relay server: {why}{trace}"
        ));
    }
    let Some(contact) = contact.filter(|contact| contact.alive && !contact.closed) else {
        return Asked::Silent;
    };
    let answer = carried(core, id, &contact, limit).await;
    if answer == Asked::Answered {
        open(core, id, &contact);
    }
    answer
}

/// Carries a question over the link to a peer that would answer it. The link alone decides whether
/// that takes too long, not the load of this machine.
async fn carried(core: &Core, id: &str, contact: &Contact, limit: Duration) -> Asked {
    let link = core.link(id, contact);
    let Some(times) = core.sent_again(id, link) else { return Asked::Silent };
    let takes = core.limits.peer + link.delay * 2 + core.limits.resend * times;
    if takes > limit {
        return Asked::Silent;
    }
    sleep(takes).await;
    Asked::Answered
}

/// Opens a channel to a node, or opens a closed one again.
pub(crate) fn open(core: &Core, id: &str, contact: &Contact) {
    let peer = Peer::new(core.world.now(), contact.incarnation);
    core.change(|memory| memory.peers.insert(id.to_owned(), peer));
}

impl Core {
    /// The link to a peer: the peer's, the daemon's, and the one between the two.
    pub(crate) fn link(&self, id: &str, contact: &Contact) -> Link {
        let between = self.lock().links.get(id).copied().unwrap_or_default();
        self.world.link_of(&self.identity).then(contact.link).then(between)
    }

    /// Whether a peer does not answer yet to this new identity of its own.
    pub(crate) fn is_strange(&self, id: &str) -> bool {
        self.world.contact(id).is_some_and(|contact| contact.is_strange)
    }

    /// How often a question was sent again until it was answered, or `None` if it was lost.
    fn sent_again(&self, id: &str, link: Link) -> Option<u32> {
        if link.loss <= 0.0 {
            return Some(0);
        }
        let failed_before = self.lock().chances.get(id).is_some_and(|chances| chances.failed);
        let times = link.question(failed_before, self.chance(id), self.chance(id));
        self.change(|memory| {
            memory.chances.entry(id.to_owned()).or_default().failed = times.is_none();
        });
        times
    }

    /// The channel to a node: one that was opened, or one that gossip opened while the node was
    /// there.
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
