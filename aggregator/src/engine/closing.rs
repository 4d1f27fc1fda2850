//! When a round closes: after its end, as soon as every probe that had look-ups says it is done,
//! and at the latest when its grace is over.
//!
//! Owns who is waited for. Closing early is no promise: what comes later decides the round again.

use std::collections::BTreeSet;

use metrics::gauge;
use uptime_accounting::replay::last_over;
use uptime_proto::{Kind, Round};

use super::core::Engine;
use crate::store::Store;

impl<S: Store> Engine<S> {
    /// The probes that a round waits for: those that have look-ups to make, and those that made
    /// some in this round or the one before and may come back.
    fn lookers(&self, round: Round) -> BTreeSet<u32> {
        let assigned = self.probes.values().filter(|it| it.connected && it.assigned_nodes > 0);
        let mut probes: BTreeSet<u32> = assigned.map(|status| status.number).collect();
        let before = self.state.epochs().previous(round);
        for there in before.into_iter().chain([round]) {
            let facts = self.state.window().get(&there.start_s());
            let facts = facts.into_iter().flat_map(|facts| facts.facts());
            probes.extend(facts.filter(|it| it.kind == Kind::Lookup).map(|it| it.key.probe));
        }
        probes
    }

    /// Whether nobody is waited for in this round. Asked after every message, and who is waited for
    /// is told by all facts of two rounds: so that comes last.
    fn is_done(&self, round: Round) -> bool {
        self.done.has_any(round) && self.done.has_all(round, &self.lookers(round))
    }

    /// When the next round closes, unix milliseconds; long ago while none has closed yet.
    #[must_use]
    pub fn next_close_ms(&self) -> i64 {
        let epochs = self.state.epochs();
        let Some(closed) = self.state.closed() else {
            return i64::MIN;
        };
        let next = epochs.next(closed);
        if self.is_done(next) {
            next.end_ms()
        } else {
            epochs.at(next.start_s()).closes_at_ms(next)
        }
    }

    /// The last round that is to be closed by now.
    pub(super) fn last_over(&self, now_ms: i64) -> Round {
        let epochs = self.state.epochs();
        let over = last_over(epochs, now_ms);
        // A round that was closed early stays closed.
        let closed = self.state.closed().filter(|closed| closed.end_ms() <= now_ms);
        let mut over = closed.map_or(over, |closed| closed.max(over));
        // Where graces are longer than rounds several may be closed early one after another.
        loop {
            let next = epochs.next(over);
            if next.end_ms() > now_ms || !self.is_done(next) {
                return over;
            }
            over = next;
        }
    }

    /// Closes every round that is over at this moment, and does what is due once a round: looks
    /// after the store, compares probes, learns what other processes changed, forgets ids. Answers
    /// whether a round was closed. `may_delete`: the clock has been sure for long enough for what
    /// cannot be undone.
    pub async fn close_due(&mut self, now_ms: i64, may_delete: bool) -> bool {
        self.take_back_what_is_ahead(now_ms).await;
        if self.next_close_ms() > now_ms {
            return false;
        }
        self.state.close_through(self.last_over(now_ms));
        self.done.forget_before(self.state.closed_end_s());
        self.report_round();
        self.look_after_store();
        self.note_agreement(now_ms).await;
        self.learn_from_others().await;
        self.forget_unconfirmed(now_ms, may_delete).await;
        true
    }

    /// Rules and identities may be changed, and evidence retracted, by another process.
    pub async fn learn_from_others(&mut self) {
        if let Err(error) = self.apply_since().await {
            tracing::error!(%error, "cannot read what other processes committed");
        }
        if let Err(error) = self.learn_epochs().await {
            tracing::error!(%error, "the rules are those that were read before");
        }
        if let Err(error) = self.learn_retractions().await {
            tracing::warn!(%error, "retractions are those of the round before");
        }
        self.refresh_identities().await;
    }

    fn report_round(&self) {
        let Some(summary) = self.state.summaries().back() else {
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "numbers of nodes")]
        let number = |count: u64| count as f64;
        gauge!("uptime_ledger_nodes", "verdict" => "up").set(number(summary.up));
        gauge!("uptime_ledger_nodes", "verdict" => "down").set(number(summary.down));
        gauge!("uptime_ledger_nodes", "verdict" => "unknown").set(number(summary.unknown));
        gauge!("uptime_ledger_last_closed_round_seconds").set(number(summary.round.start_s()));
        let eligible = summary.probes.values().filter(|probe| probe.ballot.eligible).count();
        tracing::info!(
            round = summary.round.start_s(),
            up = summary.up,
            down = summary.down,
            unknown = summary.unknown,
            probes = summary.probes.len(),
            eligible,
            "round closed"
        );
    }
}
