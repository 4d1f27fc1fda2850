//! When a round closes: after its end, as soon as every probe that had look-ups says it is done,
//! and at the latest when its grace is over.
//!
//! Owns who is waited for. Closing early is no promise: what comes later decides the round again.

use std::collections::{BTreeMap, BTreeSet};

use metrics::gauge;
use uptime_proto::{Kind, Round};

use super::Engine;
use crate::store::Store;
use uptime_accounting::replay::last_over;

/// The probes that made their last part of a round, by the round's start. Rounds that are closed
/// are left out.
#[derive(Debug, Default)]
pub(super) struct Done(BTreeMap<u64, BTreeSet<u32>>);

/// A probe may name any round it likes: so many are kept, the latest ones.
const ROUNDS_MAX: usize = 8;

impl Done {
    pub(super) fn note(&mut self, probe: u32, round_s: u64, closed_end_s: u64) {
        if round_s < closed_end_s {
            return;
        }
        self.0.entry(round_s).or_default().insert(probe);
        if self.0.len() > ROUNDS_MAX {
            // The furthest in the future goes: no honest probe is that far ahead.
            self.0.pop_last();
        }
    }

    pub(super) fn forget_before(&mut self, second: u64) {
        self.0 = self.0.split_off(&second);
    }

    fn has_any(&self, round: Round) -> bool {
        self.0.contains_key(&round.start_s())
    }

    fn has_all(&self, round: Round, probes: &BTreeSet<u32>) -> bool {
        !probes.is_empty()
            && self.0.get(&round.start_s()).is_some_and(|done| probes.is_subset(done))
    }
}

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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uptime_proto::Period;

    use super::*;

    #[test]
    fn a_round_waits_for_all_and_for_nobody_it_does_not_know() {
        let round = Round::new(60, Period::new(30).unwrap()).unwrap();
        let mut done = Done::default();
        let all = |probes: &[u32]| probes.iter().copied().collect::<BTreeSet<u32>>();
        assert!(!done.has_all(round, &all(&[])), "nobody looks: the grace counts");
        done.note(1, 60, 60);
        assert!(done.has_all(round, &all(&[1])));
        assert!(!done.has_all(round, &all(&[1, 2])));
        done.note(2, 30, 60);
        done.note(2, 90, 60);
        assert!(!done.has_all(round, &all(&[1, 2])), "of other rounds");
        done.note(2, 60, 60);
        assert!(done.has_all(round, &all(&[1, 2])));
        done.forget_before(90);
        assert!(!done.has_all(round, &all(&[1, 2])));
    }

    #[test]
    fn rounds_of_the_future_are_bounded() {
        let mut done = Done::default();
        done.note(1, 60, 60);
        (0..1_000).for_each(|number| done.note(1, 10_000 + number * 30, 60));
        assert_eq!(done.0.len(), ROUNDS_MAX);
        assert!(done.0.contains_key(&60));
    }
}
