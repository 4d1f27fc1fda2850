//! Replay: reading what [`Replay`] asks for.
//!
//! Owns the loop between a store and the replay, for the five places that fold stored facts again:
//! a start, a rebuild, verification, export and expiry. Refuses to decide what is read, and to make
//! up what cannot be: it says what was left out.

use std::sync::Arc;

use metrics::counter;
use uptime_accounting::checkpoint;
pub use uptime_accounting::replay::LeftOut;
use uptime_accounting::replay::{Plan, Replay, Step, last_over, slack_s};
use uptime_accounting::retraction::Retraction;
use uptime_accounting::snapshot::SnapshotInputs;
use uptime_accounting::state::State;
use uptime_proto::round::DAY_S;
use uptime_proto::{Epochs, Round};

use super::core::{Snapshot, checked};
use super::names::names_of;
use crate::store::{Catalogue, Since, Store, StoreError};

/// Replays to the end; answers the state, in which nothing is left to be judged again.
pub(super) async fn replayed(
    store: &mut impl Store,
    state: State,
    plan: Plan,
    left_out: &mut LeftOut,
) -> Result<State, StoreError> {
    let mut replay = Replay::new(state, plan);
    loop {
        match replay.step() {
            Step::Read(stretch) => replay.take(store.read(stretch.from_s, stretch.to_s).await?),
            Step::Again => {}
            Step::Done => break,
        }
    }
    let (state, _, more) = replay.end();
    left_out.merge(more);
    Ok(state)
}

/// Facts of rounds that start at or after this came to no closed round of a state, unix seconds.
pub(super) fn reach_s(state: &State) -> u64 {
    state.closed_end_s().saturating_add(slack_s(state.epochs()))
}

/// Says what was left out, in the log and the metrics.
pub(super) fn report(left_out: &LeftOut) {
    for what in &left_out.listed {
        tracing::error!(what, "something stored cannot be read and is left out");
    }
    if left_out.count > 0 {
        tracing::error!(count = left_out.count, "in all; uptime-aggregator verify tells more");
        counter!("uptime_store_parts_damaged_total").increment(left_out.count);
    }
}

/// A state and how it is shown.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// All verdicts.
    pub state: State,
    /// All nodes as readers see them; probes, and what nodes say of themselves, are left out.
    pub snapshot: Snapshot,
    /// Facts that cannot be read.
    pub left_out: LeftOut,
}

/// Makes the state of all that a store holds, up to the last round that is over; `None`: nobody
/// ever served from it, so it has no rules.
///
/// # Errors
/// When the store cannot be read.
pub async fn rebuild<S: Store>(
    store: &mut S,
    now_ms: i64,
    with_seed: bool,
) -> Result<Option<Replayed>, StoreError> {
    let catalogue = store.catalogue().await?;
    if catalogue.epochs.is_empty() {
        return Ok(None);
    }
    let epochs = checked(catalogue.epochs.clone())?;
    let retractions = Arc::new(store.retractions().await?);
    let mut left_out = LeftOut::default();
    let rolled_up = rolled_up(store, &epochs, &retractions, with_seed, &mut left_out).await?;
    let plan = Plan::new(store.extent().await?, last_over(&epochs, now_ms));
    let state = replayed(store, rolled_up, plan, &mut left_out).await?;
    let snapshot = snapshot_of(&state, catalogue);
    Ok(Some(Replayed { state, snapshot, left_out }))
}

fn snapshot_of(state: &State, catalogue: Catalogue) -> Snapshot {
    let (mut nodes, _) = names_of(&catalogue);
    let inputs = SnapshotInputs {
        store_id: catalogue.store_id,
        generation: catalogue.generation,
        ids: nodes.ids(),
        subnets: Arc::new(catalogue.subnets),
        ..SnapshotInputs::default()
    };
    Snapshot::new(state, inputs)
}

/// The state that every replay of all facts begins with: the roll-up of expired facts, or nothing.
pub(super) async fn rolled_up(
    store: &mut impl Store,
    epochs: &Arc<Epochs>,
    retractions: &Arc<Vec<Retraction>>,
    with_seed: bool,
    left_out: &mut LeftOut,
) -> Result<State, StoreError> {
    let pieces = store.load_roll_up().await?;
    let newest_s = store.extent().await?.map_or(u64::MAX, |(_, newest_s)| newest_s);
    // What was carried is not touched by retractions any more, made or undone.
    let state = match checkpoint::read(&pieces, epochs, &Arc::default()) {
        // Facts expire forty days after their time at the earliest, and newer ones confirm that.
        Ok(Some((state, _)))
            if state.rolled_up_to_s() > newest_s.saturating_add(u64::from(DAY_S)) =>
        {
            left_out.add(format!(
                "the sums of days whose facts are gone: they reach to {}, which is after the \
                 newest stored part, so they are of a clock that was ahead",
                state.rolled_up_to_s()
            ));
            State::new(Arc::clone(epochs))
        }
        Ok(Some((state, _))) => state,
        Ok(None) => State::new(Arc::clone(epochs)),
        Err(error) => {
            left_out.add(format!(
                "the sums of days whose facts are gone ({error}); a backup may have them"
            ));
            State::new(Arc::clone(epochs))
        }
    };
    let state = state.with_retractions(Arc::clone(retractions));
    Ok(if with_seed && state.seed().is_none() { state.with_seed() } else { state })
}

/// Whether a state counts a fact that was outranked since: only a replay of all facts takes it out.
pub(super) fn counts_outranked(state: &State, since: &Since) -> bool {
    // On an outdated grid the two may fall into different rounds.
    let counts = |round: Round| {
        !state.epochs().in_force(round) || state.closed().is_some_and(|closed| round <= closed)
    };
    since.outranked.iter().any(|key| counts(key.round))
}

/// Whether the checkpoint, replayed to now, is the state that all facts make; `None`: there is
/// none, or it is of other rules and would not be used.
///
/// # Errors
/// When the store cannot be read.
pub async fn checkpoint_agrees(
    store: &mut impl Store,
    now_ms: i64,
) -> Result<Option<Result<Round, String>>, StoreError> {
    let epochs = checked(store.epochs().await?)?;
    let retractions = Arc::new(store.retractions().await?);
    let pieces = store.load_checkpoint().await?;
    let Ok(Some((kept, positions))) = checkpoint::read(&pieces, &epochs, &retractions) else {
        return Ok(None);
    };
    let Ok(since) = store.since(&positions, reach_s(&kept)).await else { return Ok(None) };
    if counts_outranked(&kept, &since) {
        return Ok(None);
    }
    // A round may have been closed before its grace was over.
    let early = kept.closed().filter(|closed| closed.end_ms() <= now_ms);
    let over = last_over(&epochs, now_ms);
    let target = early.map_or(over, |early| early.max(over));
    let mut left_out = LeftOut::default();
    let with_seed = kept.seed().is_some();
    let anew = rolled_up(store, &epochs, &retractions, with_seed, &mut left_out).await?;
    let all = Plan::new(store.extent().await?, target);
    let since = Plan { late: since.late, ..all.clone() };
    let kept = replayed(store, kept, since, &mut left_out).await?;
    let anew = replayed(store, anew, all, &mut left_out).await?;
    Ok(Some(kept.differs_from(&anew).map_or(Ok(target), Err)))
}
