//! Questions that need stored facts, answered on a connection of its own.
//!
//! Owns the task that answers them, so that a question about last year delays no acknowledgement.
//! Refuses to write.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uptime_accounting::explain::Explanation;
use uptime_accounting::snapshot::AsOf;
use uptime_proto::{Epochs, Round};

use crate::engine::{Snapshot, as_of, explain};
use crate::store::{Latency, Store, StoreError};

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
                answer.send(explain(&mut store, &epochs, node, round).await).ok();
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
