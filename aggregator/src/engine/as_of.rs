//! How a node stood when a past round was closed: what its timeline does not tell.
//!
//! Owns where to look for it: verdicts and sums of any round are in memory, so only the rounds in
//! which its last sign of life, its last offer or its confirmation must lie are read from the
//! store. As everywhere, "as of a round" means facts known now, rounds up to it. Refuses to go
//! behind what is known round by round: there the kept base answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use uptime_accounting::fact::Fact;
use uptime_accounting::replay::{LeftOut, STRETCH_S, slack_s, winning_facts};
use uptime_accounting::snapshot::AsOf;
use uptime_accounting::state::State;
use uptime_proto::{Class, Epochs, Round};

use super::core::Snapshot;
use super::replay::{report, rolled_up};
use crate::store::{Store, StoreError};

fn millis(second: u64) -> i64 {
    i64::try_from(second.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// Looks for it. The round is closed, and known round by round.
pub async fn as_of(
    store: &mut impl Store,
    snapshot: &Snapshot,
    node: u32,
    round: Round,
) -> Result<AsOf, StoreError> {
    let retractions = Arc::new(store.retractions().await?);
    let state = State::new(Arc::clone(&snapshot.epochs)).with_retractions(retractions);
    let first_s = store.extent().await?.map_or(u64::MAX, |(first_s, _)| first_s);
    let slack_s = slack_s(&snapshot.epochs);
    let first_s = first_s.saturating_sub(slack_s).max(snapshot.rolled_up_to_s());
    let mut search =
        Search { store, snapshot, state, slack_s, node, first_s, end_s: round.end_s(), base: None };
    let last_seen_ms = search.last_seen().await?;
    Ok(AsOf {
        confirmed: last_seen_ms.is_some() || search.offered_by_two().await?,
        last_seen_ms,
        last_offer_ms: search.last_offer(last_seen_ms).await?,
    })
}

/// Whether in some round of this span one probe alone cannot make a node up.
fn wants_several(epochs: &Epochs, from_s: u64, to_s: u64) -> bool {
    let later = epochs.all().iter().skip(1).map(|epoch| epoch.start_s).chain([u64::MAX]);
    let spans = epochs.all().iter().zip(later).enumerate();
    spans.into_iter().any(|(at, (epoch, end_s))| {
        // The first holds before its start, too.
        let start_s = if at == 0 { 0 } else { epoch.start_s };
        epoch.positive_probes_min > 1 && start_s < to_s && from_s < end_s
    })
}

struct Search<'a, S> {
    store: &'a mut S,
    snapshot: &'a Snapshot,
    /// Of no facts; knows what counts, and where.
    state: State,
    slack_s: u64,
    node: u32,
    /// The first round that is known round by round.
    first_s: u64,
    /// The end of the round that is asked about.
    end_s: u64,
    base: Option<State>,
}

impl<S: Store> Search<'_, S> {
    /// The facts that count of the rounds in force that start in `[from_s, to_s)`.
    async fn facts(&mut self, from_s: u64, to_s: u64) -> Result<Vec<Fact>, StoreError> {
        let read =
            self.store.read(from_s.saturating_sub(self.slack_s), to_s + self.slack_s).await?;
        let within = |fact: &Fact| {
            let start_s = self.state.round_of(fact).start_s();
            (from_s..to_s).contains(&start_s) && !self.state.is_retracted(fact)
        };
        let readable = winning_facts(read).filter_map(|fact| {
            fact.inspect_err(|what| tracing::error!(what, "a stored part cannot be read")).ok()
        });
        Ok(readable.filter(within).collect())
    }

    /// The state of the rounds that are known by their sums only.
    async fn base(&mut self) -> Result<&State, StoreError> {
        let base = match self.base.take() {
            Some(base) => base,
            None => {
                let mut left_out = LeftOut::default();
                let retractions = Arc::clone(self.state.retractions());
                let epochs = &self.snapshot.epochs;
                let base =
                    rolled_up(self.store, epochs, &retractions, false, &mut left_out).await?;
                report(&left_out);
                base
            }
        };
        Ok(self.base.insert(base))
    }

    /// The last sign of life.
    async fn last_seen(&mut self) -> Result<Option<i64>, StoreError> {
        let last_ms = self.snapshot.last_seen_ms(self.node);
        // What was observed then lies in a round that began before.
        if last_ms.is_none_or(|last_ms| last_ms < millis(self.end_s)) {
            return Ok(last_ms);
        }
        let epochs = Arc::clone(&self.snapshot.epochs);
        // What is observed in a round's grace is later than what comes early in the next.
        let reach = epochs.all().iter().map(|it| u64::from(it.period.seconds() + it.grace_s));
        let reach_s = reach.max().unwrap_or(0);
        let rolled_up_to_s = self.snapshot.rolled_up_to_s();
        let up = self.snapshot.up_within(self.node, rolled_up_to_s, self.end_s);
        let up_end_s = up.map_or(0, |(_, up_end_s)| up_end_s);
        let low_s = match up {
            Some((_, up_end_s)) => {
                let last_up = epochs.round_at_ms(millis(up_end_s) - 1);
                last_up.start_s().saturating_sub(reach_s)
            }
            None => self.first_s,
        };
        let mut found = None;
        // Where one sign of life makes a node up, it gave none in rounds in which it was not.
        let mut to_s = match wants_several(&epochs, up_end_s, self.end_s) {
            true => self.end_s,
            false => up_end_s,
        };
        while to_s > low_s && found.is_none_or(|found| found < millis(to_s + reach_s)) {
            let from_s = to_s.saturating_sub(STRETCH_S).max(low_s);
            if from_s < up_end_s || wants_several(&epochs, from_s, to_s) {
                let facts = self.facts(from_s, to_s).await?;
                let signs = facts.iter().filter(|fact| fact.positive().contains(self.node));
                found = found.max(signs.map(|fact| fact.observed_at_ms).max());
            }
            to_s = from_s;
        }
        let to_the_beginning = to_s <= low_s && low_s <= self.first_s;
        if to_the_beginning && rolled_up_to_s > 0 {
            let node = self.node;
            found = found.max(self.base().await?.seen().of(node));
        }
        match up {
            // Of what cannot be read nothing is made up.
            Some((_, up_end_s)) if found.is_none() => Err(StoreError::Damaged(format!(
                "the parts of the round that ended at {up_end_s}, in which it was last up, cannot \
                 be read"
            ))),
            _ => Ok(found),
        }
    }

    /// The last offer, where retirement depends on it.
    async fn last_offer(&mut self, last_seen_ms: Option<i64>) -> Result<Option<i64>, StoreError> {
        let last_ms = self.snapshot.last_offer_ms(self.node);
        if last_ms.is_none_or(|last_ms| last_ms < millis(self.end_s)) {
            return Ok(last_ms);
        }
        let Some(low_s) = self.snapshot.offers_matter_from_s(self.node, last_seen_ms, self.end_s)
        else {
            return Ok(None);
        };
        let mut to_s = self.end_s;
        while to_s > low_s.max(self.first_s) {
            let from_s = to_s.saturating_sub(STRETCH_S).max(low_s).max(self.first_s);
            let facts = self.facts(from_s, to_s).await?;
            let offers = facts.iter().filter(|fact| fact.of(Class::Offer).contains(self.node));
            let rounds = offers.map(|fact| self.state.round_of(fact).start_ms());
            if let Some(last_ms) = rounds.max() {
                return Ok(Some(last_ms));
            }
            to_s = from_s;
        }
        if low_s < self.snapshot.rolled_up_to_s() {
            let node = self.node;
            return Ok(self.base().await?.last_offer().of(node));
        }
        Ok(None)
    }

    /// Whether two probes had heard it offer.
    async fn offered_by_two(&mut self) -> Result<bool, StoreError> {
        let mut probes = BTreeSet::new();
        if self.snapshot.rolled_up_to_s() > 0 {
            let node = self.node;
            probes.extend(self.base().await?.probes_offered_to(node));
        }
        let first_seen_s = self.snapshot.first_seen_s(self.node).unwrap_or(u64::MAX);
        let mut from_s = first_seen_s.max(self.first_s);
        while probes.len() < 2 && from_s < self.end_s {
            let to_s = (from_s + STRETCH_S).min(self.end_s);
            let facts = self.facts(from_s, to_s).await?;
            let offers = facts.iter().filter(|fact| fact.of(Class::Offer).contains(self.node));
            probes.extend(offers.map(|fact| fact.key.probe));
            from_s = to_s;
        }
        Ok(probes.len() >= 2)
    }
}
