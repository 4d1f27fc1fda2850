//! The market API of the fake daemon: demands, and polls for their events.
//!
//! Owns how a poll waits (the first returns as soon as one event is there, in random order, each
//! offer once) and the daemon's words for every failure. Where several polls wait on one demand,
//! one gets an event and the others go on waiting.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::clock;
use super::constraint::{Expression, flatten};
use super::core::{Core, Memory};
use super::demand::{Demand, Event};
use super::http::{Reply, Request};
use super::offer;
use super::options::Limits;
use super::replies::{body_json, message, quoted};

/// The default number of events per poll.
const EVENTS_DEFAULT: usize = 20;
/// The market's bound on events per poll.
const EVENTS_MAX: i32 = 100;

#[derive(Deserialize)]
struct NewDemand {
    properties: Value,
    constraints: String,
}

/// `POST /market-api/v1/demands`
pub(crate) fn subscribe(core: &Core, request: &Request) -> Reply {
    let new: NewDemand = match body_json(request) {
        Ok(new) => new,
        Err(refusal) => return refusal,
    };
    let now = core.world.now();
    let id = core.change(|memory| {
        let mut demand = Demand {
            properties: flatten(&new.properties),
            expression: Expression::parse(&new.constraints),
            constraints: new.constraints,
            created: now,
            judged: BTreeSet::new(),
            queue: Vec::new(),
            next_slot: Instant::now() + core.limits.match_first,
        };
        let known = core.known(memory);
        demand.match_known(known.offers, now, &core.limits, &mut memory.rng);
        let id = offer::subscription_id(&mut memory.rng);
        memory.demands.insert(id.clone(), demand);
        id
    });
    Reply::json(201, quoted(&id))
}

/// `GET /market-api/v1/demands`
pub(crate) fn list(core: &Core) -> Reply {
    let (now, lifetime) = (core.world.now(), core.limits.demand_lifetime);
    let memory = core.lock();
    let mut standing: Vec<(&String, &Demand)> =
        memory.demands.iter().filter(|(_, demand)| demand.created + lifetime > now).collect();
    standing.sort_by_key(|(_, demand)| demand.created);
    let bodies: Vec<String> =
        standing.iter().map(|(id, demand)| demand.json(id, &core.identity)).collect();
    Reply::json(200, format!("[{}]", bodies.join(",")))
}

/// `GET /market-api/v1/demands/{id}/events`
pub(crate) async fn events(core: &Core, id: &str, request: &Request) -> Reply {
    if let Some(refusal) = malformed(id) {
        return refusal;
    }
    let poll = match Poll::of(request, &core.limits) {
        Ok(poll) => poll,
        Err(refusal) => return refusal,
    };
    let count = match request.query("maxEvents").map(|text| text.parse::<i32>()) {
        None => EVENTS_DEFAULT,
        Some(Ok(count)) if (1..=EVENTS_MAX).contains(&count) => {
            usize::try_from(count).unwrap_or(EVENTS_DEFAULT)
        }
        Some(Ok(count)) => {
            let text = format!("Invalid maxEvents '{count}', should be between 1 and 100.");
            return message(400, text);
        }
        Some(Err(error)) => return Reply::text(400, format!("Query deserialize error: {error}")),
    };
    let Poll::Until(deadline) = poll else {
        return Reply::hangup();
    };
    if let Some(refusal) = ended(core, id) {
        return refusal;
    }
    let mut changes = core.changes();
    // The instant this poll waits for. Events that are ready later are for the next poll, even if
    // this one wakes late.
    let mut at = Instant::now();
    loop {
        let learns = learn(core, id);
        let (taken, wake) = {
            let mut memory = core.lock();
            let Memory { demands, rng, .. } = &mut *memory;
            let Some(demand) = demands.get_mut(id) else {
                return gone(id);
            };
            let taken = demand.take(at, count, rng);
            (taken, demand.queue.iter().map(|event| event.ready).min())
        };
        if !taken.is_empty() || at >= deadline {
            let bodies: Vec<String> = taken.iter().map(Event::json).collect();
            return Reply::json(200, format!("[{}]", bodies.join(",")));
        }
        let learns = learns.map(clock::deadline);
        let next = [wake, learns].into_iter().flatten().fold(deadline, Instant::min);
        changes.wait_until(next).await;
        at = if Instant::now() >= next { next } else { Instant::now() };
    }
}

/// Matches offers that the daemon has learnt of since. Answers when it will learn of the next.
fn learn(core: &Core, id: &str) -> Option<Duration> {
    let now = core.world.now();
    let mut memory = core.lock();
    let known = core.known(&memory);
    let next = known.next;
    let Memory { demands, rng, .. } = &mut *memory;
    demands.get_mut(id)?.match_known(known.offers, now, &core.limits, rng);
    next
}

/// `DELETE /market-api/v1/demands/{id}`
pub(crate) fn unsubscribe(core: &Core, id: &str) -> Reply {
    if let Some(refusal) = malformed(id) {
        return refusal;
    }
    let (now, lifetime) = (core.world.now(), core.limits.demand_lifetime);
    let removed = core.change(|memory| {
        let standing = memory.demands.get(id).filter(|it| it.created + lifetime > now).is_some();
        standing.then(|| memory.demands.remove(id))
    });
    match removed {
        Some(_) => Reply::empty(204),
        None => message(404, format!("Demand [{id}] not found.")),
    }
}

/// `DELETE /market-api/v1/offers/{id}`, the provider's side.
pub(crate) fn withdraw_offer(core: &Core, id: &str) -> Reply {
    if let Some(refusal) = malformed(id) {
        return refusal;
    }
    let now = core.world.now();
    let reply = {
        let mut state = core.world.lock();
        let own = state.nodes.iter_mut().filter(|node| node.identities.contains(&core.identity));
        let mut listings = own.flat_map(|node| &mut node.listings);
        match listings.find(|listing| listing.offer.offer_id == id) {
            None => message(404, format!("Offer [{id}] not found.")),
            Some(listing) if listing.withdrawn.is_some() => {
                message(410, format!("Offer [{id}] already unsubscribed."))
            }
            Some(listing) if listing.offer.expires <= now => {
                message(410, format!("Can't unsubscribe expired Offer [{id}]."))
            }
            Some(listing) => {
                listing.withdrawn = Some(now);
                Reply::empty(204)
            }
        }
    };
    core.world.notify();
    reply
}

fn gone(id: &str) -> Reply {
    message(404, format!("Subscription [{id}] not found. Could be unsubscribed."))
}

/// An expired demand gets its own answer, but only at the start of a poll: a poll that is waiting
/// when the demand expires waits to its end.
fn ended(core: &Core, id: &str) -> Option<Reply> {
    let (now, lifetime) = (core.world.now(), core.limits.demand_lifetime);
    match core.lock().demands.get(id) {
        None => Some(gone(id)),
        Some(demand) if demand.created + lifetime <= now => {
            Some(message(404, format!("Subscription [{id}] expired.")))
        }
        Some(_) => None,
    }
}

fn malformed(id: &str) -> Option<Reply> {
    let part = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let well_formed = id.split_once('-').is_some_and(|(a, b)| part(a, 32) && part(b, 64));
    let text = format!("Path deserialize error: Subscription id [{id}] has invalid format.");
    // As recorded: the body is JSON, but the content type is plain text.
    (!well_formed).then(|| Reply::text(400, format!(r#"{{"message":{}}}"#, quoted(&text))))
}

/// How long a poll waits.
pub(crate) enum Poll {
    Until(Instant),
    /// The timeout makes the daemon's handler panic: the connection ends without a byte.
    Panics,
}

impl Poll {
    pub(crate) fn of(request: &Request, limits: &Limits) -> Result<Poll, Reply> {
        let timeout = match request.query("timeout").map(|text| text.parse::<f32>()) {
            None => limits.poll_default,
            Some(Err(error)) => {
                return Err(Reply::text(400, format!("Query deserialize error: {error}")));
            }
            Some(Ok(seconds)) => match Duration::try_from_secs_f32(seconds) {
                Ok(timeout) => timeout,
                Err(_) if seconds < 0.0 => Duration::ZERO,
                Err(_) => return Ok(Poll::Panics),
            },
        };
        Ok(Poll::Until(clock::deadline(timeout.min(limits.poll_max))))
    }
}
