//! What is done about probes that disagree with all others: it is told, and where the
//! operator said so, what they say is retracted until a person decides.

use metrics::{counter, gauge};
use uptime_accounting::agreement::{Policy, Standing, compare};
use uptime_accounting::state::judge;

use super::core::Engine;
use crate::store::{By, Retraction, Store, StoreError};

/// The end of the year 9999: whoever is set aside stays so.
const FOR_EVER_S: u64 = 253_402_300_800;
/// Who makes such a retraction, and how its reason begins.
const BY: &str = "agreement policy";

impl<S: Store> Engine<S> {
    /// What is done about probes that disagree, from now on.
    pub fn set_disagreement_policy(&mut self, policy: Policy) {
        self.agreement.policy = policy;
    }

    /// Compares the votes of the round that has just closed.
    pub(super) async fn note_agreement(&mut self, now_ms: i64) {
        let Some(closed) = self.state.closed() else {
            return;
        };
        let voters = self.state.summaries().back().map_or(0, |summary| summary.probes.len());
        // With one other alone nobody could say who is wrong.
        if voters < 3 {
            return;
        }
        let (_, probes) = judge(self.state.epochs(), self.state.window(), closed);
        let ballots = probes.into_iter().map(|(probe, round)| (probe, round.ballot)).collect();
        let before: Vec<(u32, Standing)> =
            self.probes.keys().map(|probe| (*probe, self.agreement.standing(*probe))).collect();
        self.agreement.note(&compare(&ballots));
        for (probe, before) in before {
            let Some(status) = self.probes.get(&probe) else { continue };
            let (standing, all) = (self.agreement.standing(probe), self.agreement.of(probe));
            let disagrees = standing == Standing::Disagrees;
            let name = status.name.clone();
            gauge!("uptime_ledger_probe_agreement", "probe" => name.clone()).set(all.share());
            gauge!("uptime_ledger_probe_disagrees", "probe" => name.clone())
                .set(f64::from(u8::from(disagrees)));
            if disagrees && before != Standing::Disagrees {
                let (agreed, compared) = (all.agreed, all.compared);
                tracing::error!(name, agreed, compared, "a probe disagrees with all others");
            }
        }
        if let Err(error) = self.set_aside(closed.start_s(), now_ms).await {
            tracing::error!(%error, "a probe that disagrees still counts");
        }
    }

    async fn set_aside(&mut self, closed_s: u64, now_ms: i64) -> Result<(), StoreError> {
        let wrong = self.agreement.to_set_aside();
        if wrong.is_empty() {
            return Ok(());
        }
        let there = self.store.retractions().await?;
        for probe in wrong {
            let all = self.agreement.of(probe);
            self.agreement.forget(probe);
            // Who was let count again by a person is not set aside a second time behind its back.
            let decided = there.iter().any(|one| one.probe == probe && one.reason.starts_with(BY));
            if decided {
                continue;
            }
            let reason = format!(
                "{BY}: it agreed with the others in {} of {} votes; until a person decides",
                all.agreed, all.compared
            );
            let retraction = Retraction {
                number: 0,
                probe,
                from_s: closed_s,
                to_s: FOR_EVER_S,
                reason,
                made_at_ms: now_ms,
                undone_at_ms: None,
            };
            let by = By { actor: BY.to_owned(), now_ms };
            let number = self.store.retract(&retraction, &by).await?;
            counter!("uptime_ledger_probes_set_aside_total").increment(1);
            tracing::error!(probe, number, "set aside; see: uptime-aggregator probe retractions");
        }
        Ok(())
    }
}
