//! The past, read back on connections of its own, beside the owner.
//!
//! Owns two tasks that write nothing: one answers questions which need stored facts, the other
//! packs days that are over and sums up days beyond the retention, and hands the result to the
//! owner. So a question about last year, or a day's packing, holds up no acknowledgement.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uptime_proto::{Epochs, Round};

use super::Ledger;
use super::as_of::as_of;
use super::owner::{base_for, has_expired, pack_before_s};
use super::vouched::vouched_ms;
use crate::clock::Judged;
use crate::ledger::Snapshot;
use crate::store::{Latency, Store, StoreError};
use uptime_accounting::explain::{Explanation, explain};
use uptime_accounting::fact::Fact;
use uptime_accounting::replay::{Stretch, stretch_around, winning_facts};
use uptime_accounting::snapshot::AsOf;
use uptime_accounting::state::State;

/// Questions that wait. When so many do, whoever asks waits too.
pub(super) const QUESTIONS_MAX: usize = 64;

/// What is asked of the past.
pub(super) enum Question {
    /// Why a node had its verdict in a round.
    Explain {
        /// By which the round is named.
        epochs: Arc<Epochs>,
        node: u32,
        round: Round,
        answer: oneshot::Sender<Result<Explanation, StoreError>>,
    },
    /// What is needed to show a node as it was when a round was closed.
    AsOf {
        snapshot: Arc<Snapshot>,
        node: u32,
        round: Round,
        answer: oneshot::Sender<Result<AsOf, StoreError>>,
    },
    /// Round trips of nodes on the days of a window.
    Latency {
        nodes: Vec<u32>,
        window: (u64, u64),
        answer: oneshot::Sender<Result<Vec<Option<Latency>>, StoreError>>,
    },
}

/// Answers questions until told to stop.
pub(super) async fn answer_questions(
    mut store: impl Store,
    mut questions: mpsc::Receiver<Question>,
    shutdown: CancellationToken,
) {
    loop {
        let question = tokio::select! {
            () = shutdown.cancelled() => break,
            question = questions.recv() => question,
        };
        match question {
            Some(Question::Explain { epochs, node, round, answer }) => {
                // Whoever asked may have gone.
                answer.send(account_of(&mut store, &epochs, node, round).await).ok();
            }
            Some(Question::AsOf { snapshot, node, round, answer }) => {
                answer.send(as_of(&mut store, &snapshot, node, round).await).ok();
            }
            Some(Question::Latency { nodes, window: (from_s, to_s), answer }) => {
                answer.send(store.latency(&nodes, from_s, to_s).await).ok();
            }
            None => break,
        }
    }
}

/// The account of one node and one round, from the store.
pub(super) async fn account_of(
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
    let mut account = explain(epochs, &window, &left_out, round, node);
    let samples = store.samples(node).await?;
    account.add_samples(&samples.aged, &samples.answered);
    Ok(account)
}

/// What the chores are about.
#[derive(Debug, Clone)]
pub(super) struct Chores {
    pub(super) retention_s: Option<u64>,
    pub(super) with_seed: bool,
}

/// Does the chores of every day, once it is over, until told to stop.
pub(super) async fn do_chores(
    mut store: impl Store,
    ledger: Ledger,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    chores: Chores,
    shutdown: CancellationToken,
) {
    let mut done_before_s = 0;
    let mut expiry_waits = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = snapshots.changed() => if changed.is_err() { break },
        }
        let clock = ledger.clock().now();
        let now_ms = clock.wall_ms;
        let before_s = pack_before_s(now_ms);
        let before_s = before_s - before_s % u64::from(uptime_proto::round::DAY_S);
        if before_s == done_before_s && !(expiry_waits && clock.may_delete) {
            continue;
        }
        let done = chores_of(&mut store, &ledger, &chores, &clock, &shutdown).await;
        expiry_waits = matches!(done, Ok(Done::NotSure));
        if let Err(error) = done {
            tracing::error!(%error, "closed days were not packed; tried again tomorrow");
        }
        done_before_s = before_s;
    }
}

/// What became of the chores.
enum Done {
    All,
    /// Facts have expired by this clock, and it has not been sure for long enough.
    NotSure,
}

async fn chores_of(
    store: &mut impl Store,
    ledger: &Ledger,
    chores: &Chores,
    clock: &Judged,
    shutdown: &CancellationToken,
) -> Result<Done, StoreError> {
    let now_ms = clock.wall_ms;
    while !shutdown.is_cancelled()
        && let Some(prepared) = store.prepare_pack(pack_before_s(now_ms)).await?
    {
        let packed = tokio::select! {
            () = shutdown.cancelled() => break,
            packed = ledger.commit_pack(prepared) => packed,
        };
        let Some(packed) = packed else { break };
        // Something came to the day meanwhile: it is packed again.
        let Some(day) = packed? else { continue };
        tracing::info!(
            day_s = day.day_s,
            parts = day.parts,
            bytes = day.bytes,
            before_bytes = day.before_bytes,
            "a day was packed"
        );
    }
    if !has_expired(store, chores, now_ms).await? {
        return Ok(Done::All);
    }
    if !clock.may_delete {
        return Ok(Done::NotSure);
    }
    let Some(vouched_ms) = vouched_ms(store, now_ms).await? else {
        tracing::warn!(
            "facts beyond the retention stay: by this clock they are too old, but the parts of the \
             last 24 hours do not confirm it. Check the clock of this host"
        );
        return Ok(Done::All);
    };
    let base = base_for(store, &ledger.epochs(), chores, vouched_ms).await?;
    let Some((base, before_s)) = base else {
        return Ok(Done::All);
    };
    let gone = tokio::select! {
        () = shutdown.cancelled() => None,
        gone = ledger.let_go(base, before_s) => gone,
    };
    if let Some(gone) = gone {
        let gone = gone?;
        tracing::info!(
            before_s,
            gone,
            "facts beyond the retention were let go, their sums carried"
        );
    }
    Ok(Done::All)
}
