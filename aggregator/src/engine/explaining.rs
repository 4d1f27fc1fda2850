//! Why a node had its verdict in a round, read back from the store.
//!
//! Owns which facts are read for it, those that do not count included. Refuses to decide anything:
//! `accounting` explains.

use std::sync::Arc;

use uptime_accounting::explain::{self, Explanation};
use uptime_accounting::fact::Fact;
use uptime_accounting::replay::{Stretch, stretch_around, winning_facts};
use uptime_accounting::state::State;
use uptime_proto::{Epochs, Round};

use crate::store::{Store, StoreError};

/// The account of one node, by its number, and one round, from the store.
///
/// # Errors
/// When the store cannot be read.
pub async fn explain(
    store: &mut impl Store,
    epochs: &Arc<Epochs>,
    node: u32,
    round: Round,
) -> Result<Explanation, StoreError> {
    let retractions = Arc::new(store.retractions().await?);
    let state = State::new(Arc::clone(epochs)).with_retractions(retractions);
    let Stretch { from_s, to_s } = stretch_around(epochs, round, round);
    let facts = store.read(from_s, to_s).await?;
    let of_round = |fact: &&Fact| state.round_of(fact) == round;
    let readable: Vec<_> = facts.iter().filter_map(|fact| fact.as_ref().ok()).collect();
    let mut left_out = Vec::new();
    let mut before = None;
    for fact in readable.into_iter().filter(of_round) {
        let outranked = before.replace(fact.key) == Some(fact.key);
        let retracted = state.is_retracted(fact);
        if outranked || retracted {
            left_out.push((fact.clone(), retracted));
        }
    }
    let window = state.window_of(winning_facts(facts).flatten());
    let mut account = explain::explain(epochs, &window, &left_out, round, node);
    let samples = store.samples(node).await?;
    account.add_samples(&samples.aged, &samples.answered);
    Ok(account)
}
