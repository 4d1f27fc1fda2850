//! Pings: how far away the living are, and whether one node is there at all.
//!
//! Owns `GsbPing`: the round trips of nodes that were just found alive, many in one call, and the
//! ping of a single node, which stands in for the direct question on daemons without the scan
//! API. Refuses to mix the two: a call takes as long as its slowest node, so that one suspect in a
//! batch would hold up all the living for the daemon's ten seconds.
//!
//! A ping always takes the daemon's own ten seconds to fail, whatever limit was given; nothing
//! (`null`) at once means that the node could not even be asked: the relay does not know it, or the
//! daemon's channel to it is closed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use uptime_proto::{NodeId, Reason};

use super::adjustable_semaphore::acquire;
use super::answers::Route;
use super::client::Yagna;
use super::fault::{CouldNotLook, malformed};
use super::http::{self, Question};
use super::net;
use super::outcome::PeerAnswer;
use super::peer::MARGIN;

const PING_PATH: &str = "/_gsb/local/net/GsbPing";

/// How long the daemon tries a ping.
const PING_TRIES: Duration = Duration::from_secs(10);

/// A ping that failed sooner than this after [`PING_TRIES`] did not try to its end; timers are
/// not this wrong.
const PING_TRIES_SPARE: Duration = Duration::from_millis(500);

/// A ping that failed within this time was not put at all: the daemon's channel to the node is
/// closed, or the relay, asked for the node's address, answered that it does not know it (8 and 5
/// ms on loopback). The daemon pings its own sessions first, for up to 2 s (b5). A relay that does
/// not answer is given up after 3 s, which says nothing about the node.
const PING_NOT_PUT: Duration = Duration::from_millis(2_500);

/// How long the daemon pings its own sessions before it pings the node (b5).
const PING_BEGINS: Duration = Duration::from_secs(2);

/// A longer round trip is no measurement: the daemon itself gives up after ten seconds.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(60);

/// How long the daemon and a node need to hear of each other. At least one of the two is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    /// The node.
    pub node_id: NodeId,
    /// Over the reliable channel.
    pub tcp: Option<Duration>,
    /// Over the unreliable one.
    pub udp: Option<Duration>,
}

/// One node's line in the answer to a ping.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ping {
    node_id: String,
    tcp_ping: Option<Duration>,
    udp_ping: Option<Duration>,
}

impl Yagna {
    /// Measures the round trips of nodes that were just found alive, in one call; those whose
    /// pings did not come back are left out, which says nothing about them. The order is that of
    /// the answer. Waits for its turn among the direct questions first; the time limit,
    /// `ping_timeout`, begins with its turn.
    ///
    /// Never put a suspect among the living: the call takes as long as its slowest node. It is
    /// the caller who sees to that.
    ///
    /// # Errors
    /// When the daemon could not be asked; [`Reason::Missed`], with nobody asked, for more than
    /// `ping_batch_max` nodes.
    pub async fn round_trips(&self, living: &[NodeId]) -> Result<Vec<RoundTrip>, CouldNotLook> {
        let asked: BTreeSet<NodeId> = living.iter().copied().collect();
        let limits = &self.inner.limits;
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        if asked.len() > limits.ping_batch_max {
            let detail =
                format!("{} pings in one call, {} at most", asked.len(), limits.ping_batch_max);
            return Err(CouldNotLook::new(Reason::Missed, detail));
        }
        let _permit = acquire(&self.inner.directs).await?;
        let nodes: Vec<String> = asked.iter().map(NodeId::to_string).collect();
        let body = json!({ "nodes": nodes });
        let question = Question::post(Route::Ping, PING_PATH, &body).at_most(http::NODES_BYTES_MAX);
        let parse = |status, body: &[u8]| parse_round_trips(status, body, asked);
        let (trips, _) = self.inner.http.ask(question, limits.ping_timeout, parse).await?;
        Ok(trips)
    }

    /// The direct question as a ping of this one node.
    pub(super) async fn ping(
        &self,
        id: NodeId,
        limit: Duration,
    ) -> Result<PeerAnswer, CouldNotLook> {
        let patience = limit.max(PING_TRIES) + PING_BEGINS + MARGIN;
        let body = json!({ "nodes": [id.to_string()] });
        let question = Question::post(Route::Ping, PING_PATH, &body).at_most(http::NODES_BYTES_MAX);
        let parse = |status, body: &[u8]| parse_ping(status, body, id);
        let (answered, took) = self.inner.http.ask(question, patience, parse).await?;
        judge_ping(answered, took)
    }
}

/// The round trips of those who were asked for. A line that cannot be read costs only itself,
/// unless all are so.
pub(super) fn parse_round_trips(
    status: u16,
    body: &[u8],
    mut asked: BTreeSet<NodeId>,
) -> Result<Vec<RoundTrip>, CouldNotLook> {
    let lines: Vec<Box<RawValue>> = net::parse_bus(Route::Ping, status, body)?;
    let read = |line: &RawValue| serde_json::from_str::<Ping>(line.get()).ok();
    let pings: Vec<Ping> = lines.iter().filter_map(|line| read(line)).collect();
    if pings.is_empty() && !lines.is_empty() {
        return Err(malformed(format!("none of {} pings is readable", lines.len())));
    }
    let believed = |ping: Option<Duration>| ping.filter(|ping| *ping <= ROUND_TRIP_MAX);
    let trips = pings.iter().filter_map(|ping| {
        let node_id = ping.node_id.parse().ok().filter(|id| asked.remove(id))?;
        let (tcp, udp) = (believed(ping.tcp_ping), believed(ping.udp_ping));
        (tcp.is_some() || udp.is_some()).then_some(RoundTrip { node_id, tcp, udp })
    });
    Ok(trips.collect())
}

/// Whether the ping of this node came back.
pub(super) fn parse_ping(status: u16, body: &[u8], id: NodeId) -> Result<bool, CouldNotLook> {
    let pings: Vec<Ping> = net::parse_bus(Route::Ping, status, body)?;
    let ping = pings.iter().find(|ping| ping.node_id.parse() == Ok(id));
    let ping = ping.ok_or_else(|| malformed("the ping of another node"))?;
    Ok(ping.tcp_ping.is_some() || ping.udp_ping.is_some())
}

pub(super) fn judge_ping(answered: bool, took: Duration) -> Result<PeerAnswer, CouldNotLook> {
    if answered {
        Ok(PeerAnswer::Answered { took })
    } else if took < PING_NOT_PUT || took + PING_TRIES_SPARE >= PING_TRIES {
        Ok(PeerAnswer::Unanswered)
    } else {
        // The relay did not answer in its three seconds, or the like.
        let detail = format!("the ping failed after {took:?}, before it was tried to its end");
        Err(CouldNotLook::new(Reason::NetError, detail))
    }
}
