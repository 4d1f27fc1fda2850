//! A demand and the events that offers make for it.
//!
//! Owns matching (both sides' constraints must hold) and when each event is ready. Refuses to wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::clock::{self, UnixTime};
use super::constraint::Expression;
use super::offer::{self, Offer};
use super::options::Limits;
use super::replies::quoted;

/// A demand and its events.
#[derive(Debug)]
pub(crate) struct Demand {
    pub(crate) properties: Map<String, Value>,
    pub(crate) constraints: String,
    /// `None` if the constraint did not parse: the demand is accepted and matches nothing.
    pub(crate) expression: Option<Expression>,
    pub(crate) created: UnixTime,
    /// Offers that were compared with it, matching or not.
    pub(crate) judged: BTreeSet<String>,
    pub(crate) queue: Vec<Event>,
    pub(crate) next_slot: Instant,
}

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) ready: Instant,
    date: UnixTime,
    proposal_id: String,
    offer: Arc<Offer>,
}

impl Demand {
    /// Queues an event for every matching offer that was not compared before.
    pub(crate) fn match_known(
        &mut self,
        known: Vec<Arc<Offer>>,
        now: UnixTime,
        limits: &Limits,
        rng: &mut StdRng,
    ) {
        let instant = Instant::now();
        let mut fresh: Vec<Arc<Offer>> = Vec::new();
        for offer in known {
            if self.judged.insert(offer.offer_id.clone()) && self.matches(&offer) {
                fresh.push(offer);
            }
        }
        while !fresh.is_empty() {
            let offer = fresh.swap_remove(rng.random_range(0..fresh.len()));
            let ready = self.next_slot.max(instant);
            self.next_slot = ready + limits.match_each;
            let date = now + ready.duration_since(instant);
            let proposal_id = format!("R-{}", offer::hex(rng, 64));
            self.queue.push(Event { ready, date, proposal_id, offer });
        }
    }

    fn matches(&self, offer: &Offer) -> bool {
        let wanted = self.expression.as_ref();
        wanted.is_some_and(|it| it.matches(&offer.properties)) && offer.accepts(&self.properties)
    }

    /// Takes up to `count` of the events that were ready at `at`, in random order.
    pub(crate) fn take(&mut self, at: Instant, count: usize, rng: &mut StdRng) -> Vec<Event> {
        let mut ready: Vec<usize> =
            (0..self.queue.len()).filter(|&index| self.queue[index].ready <= at).collect();
        let (chosen, _) = ready.partial_shuffle(rng, count);
        // From the back, so that removing one does not move the others.
        chosen.sort_unstable_by_key(|&index| std::cmp::Reverse(index));
        let mut taken: Vec<Event> =
            chosen.iter().map(|&index| self.queue.swap_remove(index)).collect();
        taken.shuffle(rng);
        taken
    }

    pub(crate) fn json(&self, id: &str, requestor: &str) -> String {
        let properties = Value::Object(self.properties.clone());
        format!(
            r#"{{"properties":{properties},"constraints":{},"demandId":"{id}","#,
            quoted(&self.constraints),
        ) + &format!(
            r#""requestorId":"{requestor}","timestamp":"{}"}}"#,
            clock::nanos(self.created)
        )
    }
}

impl Event {
    pub(crate) fn json(&self) -> String {
        format!(
            r#"{{"eventType":"ProposalEvent","eventDate":"{}","proposal":{{{},"#,
            clock::millis(self.date),
            self.offer.terms_json()
        ) + &format!(
            r#""proposalId":"{}","issuerId":"{}","state":"Initial","timestamp":"{}"}}}}"#,
            self.proposal_id,
            self.offer.provider_id,
            clock::nanos(self.date)
        )
    }
}
