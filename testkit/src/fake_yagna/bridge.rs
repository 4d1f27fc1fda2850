//! The daemon's REST bridge to its bus: look-ups, pings, sessions, and the net status route.
//!
//! Owns the answers of the bus and the exact words for every failure. Refuses to decide who is
//! alive: it asks the world.

use std::time::Duration;

use futures_util::future::join_all;
use rand::Rng;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::channel::{Asked, NO_CHANNEL, ask, unknown_address};
use super::clock;
use super::core::Core;
use super::http::{Reply, Request};
use super::look_up::look_up;
use super::peer::Peer;
use super::registry::{Contact, Registration};
use super::replies::body_json;

/// `POST /_gsb/…`
pub(crate) async fn call(core: &Core, address: &str, request: &Request) -> Reply {
    let body: Value = match body_json(request) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let parts: Vec<&str> = address.split('/').collect();
    let result = match parts.as_slice() {
        ["local", "net", "FindNode"] => find_node(core, body).await,
        ["local", "net", "GsbPing"] => ping(core, body).await,
        ["local", "net", "Status"] => Ok(status(core)),
        ["local", "net", "Sessions"] => Ok(sessions(core)),
        ["local", "net", "ListNeighbours"] => neighbours(core, body).await,
        ["net", id, "diagnostic", "net", "GsbRemotePing"] => remote_ping(core, id).await,
        _ => Err("Bad request: endpoint address not found".to_owned()),
    };
    match result {
        Ok(answer) => Reply::json(200, answer),
        Err(text) => Reply::text(500, text),
    }
}

fn typed<T: DeserializeOwned>(body: Value) -> Result<T, String> {
    serde_json::from_value(body).map_err(|error| format!("Bad content: Serde Error: {error}"))
}

fn exception(text: &str) -> Value {
    json!({"Err": {"RuntimeException": text}})
}

/// Reads a node id as the daemon does: `0x`, 40 digits, either case.
pub(crate) fn node_id(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("NodeId `{text}` parsing error: {why}"));
    if text.len() != 42 {
        return wrong("expected length is 42 chars");
    }
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            Ok(text.to_ascii_lowercase())
        }
        _ => wrong("invalid format"),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FindNode {
    node_id: String,
}

async fn find_node(core: &Core, body: Value) -> Result<Value, String> {
    let asked: FindNode = typed(body)?;
    let id = match node_id(&asked.node_id) {
        Ok(id) => id,
        Err(text) => return Ok(exception(&text)),
    };
    Ok(match look_up(core, &id).await {
        Err(text) => exception(&text),
        Ok(session) => {
            let endpoints = if session.firewalled { json!([]) } else { json!([v4(session.port)]) };
            json!({"Ok": {
                "encryption": [],
                "endpoints": endpoints,
                "identities": session.identities,
                "seen": session.seen_unix_s,
                "slot": session.slot,
            }})
        }
    })
}

fn v4(port: u16) -> Value {
    json!({"V4": [[127, 0, 0, 1], port]})
}

fn span(duration: Duration) -> Value {
    json!({"secs": duration.as_secs(), "nanos": duration.subsec_nanos()})
}

#[derive(Deserialize)]
struct GsbPing {
    nodes: Vec<String>,
}

/// All in parallel; the call takes as long as its slowest.
async fn ping(core: &Core, body: Value) -> Result<Value, String> {
    let asked: GsbPing = typed(body)?;
    let ids: Result<Vec<String>, String> = asked.nodes.iter().map(|id| node_id(id)).collect();
    let ids = ids.map_err(|text| format!("Bad content: Serde Error: {text}"))?;
    let pings = join_all(ids.iter().map(|id| ping_one(core, id))).await;
    Ok(json!({"Ok": pings}))
}

async fn ping_one(core: &Core, id: &str) -> Value {
    let contact = core.world.contact(id);
    let link = contact.as_ref().map(|contact| core.link(id, contact)).unwrap_or_default();
    let bad = link.loss > 0.0;
    if bad || core.world.relay_link().loss > 0.0 {
        // It pings its own sessions first, again and again until they answer [b5].
        let share = (core.chance(id) * 5.0).floor() / 4.0;
        sleep(core.limits.relay_down_ping.mul_f64(share)).await;
    }
    let begun = Instant::now();
    let deadline = clock::deadline(core.limits.ping);
    let relay_down = core.world.relay_down_for().is_some();
    let asked = ask(core, id, core.limits.ping).await;
    let there = asked == Asked::Answered || bad && contact.as_ref().is_some_and(is_open);
    // An identity that its own node does not know yet has a connection and no pings [a3].
    let strange = contact.as_ref().is_some_and(|contact| contact.is_strange);
    let tcp = (asked == Asked::Answered && !strange).then(|| core.trip(begun, bad));
    // Only the first identity echoes single packets [a4].
    let second = contact.as_ref().is_some_and(|contact| contact.is_second);
    let echoes = there && !strange && !second && (!bad || link.echo(core.chance(id)));
    let udp = echoes.then(|| core.trip(begun, false));
    match asked {
        Asked::Answered if relay_down => sleep(core.limits.relay_down_ping).await,
        // A ping that was lost is waited for, whatever became of the other [b5].
        Asked::Answered if bad && (tcp.is_none() || udp.is_none()) => sleep_until(deadline).await,
        Asked::Answered | Asked::Unreachable(_) => {}
        Asked::Silent => sleep_until(deadline).await,
    }
    let direct = contact.is_some_and(|contact| !contact.firewalled);
    json!({
        "isP2p": asked == Asked::Answered && direct && link.is_direct(),
        "nodeAlias": null,
        "nodeId": id,
        "tcpPing": tcp.map(span),
        "udpPing": udp.map(span),
    })
}

fn is_open(contact: &Contact) -> bool {
    contact.alive && !contact.closed
}

impl Core {
    /// How long a ping took: some milliseconds, and over a bad link what it was really waited for.
    fn trip(&self, begun: Instant, waited: bool) -> Duration {
        let micros = self.lock().rng.random_range(1500..5000);
        let waited = if waited { begun.elapsed() } else { Duration::ZERO };
        waited + Duration::from_micros(micros)
    }
}

async fn remote_ping(core: &Core, id: &str) -> Result<Value, String> {
    let id = node_id(id)?;
    let deadline = clock::deadline(core.limits.remote_ping);
    match ask(core, &id, core.limits.remote_ping).await {
        Asked::Answered if core.is_strange(&id) => {
            Err(unknown_address(&id, "diagnostic/net/GsbRemotePing"))
        }
        Asked::Answered => Ok(json!({"Ok": {}})),
        Asked::Unreachable(why) => Err(format!("GSB failure: {why}")),
        Asked::Silent => {
            sleep_until(deadline).await;
            Err(format!(
                "GSB failure: {NO_CHANNEL}0: Failed to connect to {id} on channel Messages\n    \
                 1: error when waiting\n    2: establishing Tcp connection\n    \
                 3: Connection timed out"
            ))
        }
    }
}

#[derive(Deserialize)]
struct ListNeighbours {
    size: usize,
}

async fn neighbours(core: &Core, body: Value) -> Result<Value, String> {
    let asked: ListNeighbours = typed(body)?;
    if let Err(why) = look_up(core, &core.identity).await {
        return Ok(exception(&why));
    }
    let mut ids = core.world.registered();
    ids.retain(|id| *id != core.identity);
    ids.truncate(asked.size);
    Ok(json!({"Ok": ids}))
}

/// The daemon's session with the relay, if it has one.
fn relay_session(core: &Core) -> Option<Registration> {
    let down = core.world.relay_down_for();
    let lost = down.is_some_and(|down| down > core.world.timing().session_lost_after);
    if lost || core.lock().relay_refuses {
        return None;
    }
    core.world.registrations(&core.identity).0.pop()
}

/// Peers with a connection, and their ports.
fn connected(core: &Core) -> Vec<(String, Peer, u16)> {
    let peers = core.lock().peers.clone();
    let living = peers.into_iter().filter_map(|(id, peer)| {
        let contact = core.world.contact(&id).filter(|it| it.alive && !it.closed)?;
        Some((id, peer, contact.port))
    });
    living.collect()
}

fn traffic() -> Value {
    json!({"rxAvg": 0.0, "rxCurrent": 0.0, "rxTotal": 0, "txAvg": 0.0, "txCurrent": 0.0,
        "txTotal": 0})
}

fn sessions(core: &Core) -> Value {
    let now = core.world.now();
    let entry = |kind: &str, id: &str, node: &str, port: u16, duration, seen| {
        json!({
            "duration": span(duration),
            "id": id,
            "metrics": traffic(),
            "nodeId": node,
            "ping": span(Duration::from_micros(1400)),
            "remoteAddress": v4(port),
            "seen": span(seen),
            "sessionType": kind,
        })
    };
    let mut entries = Vec::new();
    if let Some(own) = relay_session(core) {
        let nobody = "0x0000000000000000000000000000000000000000";
        let age = now.saturating_sub(own.since);
        entries.push(entry("relay", &own.session_id, nobody, 7477, age, own.seen.min(age)));
    }
    for (id, peer, port) in connected(core) {
        let age = now.saturating_sub(peer.since);
        let session = &id[2..34];
        entries.push(entry("p2p", session, &id, port, age, age.min(Duration::from_secs(2))));
    }
    json!({"Ok": entries})
}

/// How many sessions there are, the daemon's port, and whether it knows its public address.
fn summary(core: &Core) -> (usize, u16, bool) {
    let own = relay_session(core);
    let port = core.world.contact(&core.identity).map_or(0, |contact| contact.port);
    let refused = core.lock().relay_refuses;
    (connected(core).len() + usize::from(own.is_some()), port, !refused)
}

fn status(core: &Core) -> Value {
    let (sessions, port, known) = summary(core);
    json!({"Ok": {
        "listenAddress": v4(port),
        "metrics": traffic(),
        "nodeId": core.identity,
        "publicAddress": if known { v4(port) } else { Value::Null },
        "sessions": sessions,
    }})
}

/// `GET /net-api/v2/net/status`
pub(crate) fn net_status(core: &Core) -> Reply {
    let (sessions, port, known) = summary(core);
    let own = format!("\"127.0.0.1:{port}\"");
    let public = if known { own.as_str() } else { "null" };
    let node = &core.identity;
    let addresses = format!(r#""nodeId":"{node}","listenIp":{own},"publicIp":{public}"#);
    Reply::json(200, format!(r#"{{{addresses},"sessions":{sessions}}}"#))
}
