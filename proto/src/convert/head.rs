//! The head of a part, told from the part before it.
//!
//! Owns what the compact form leaves out of a head and how it is filled in again; see
//! `CompactEvidence` in `collector.proto`. Refuses heads that do not follow.

use super::plain::Refusal;
use crate::evidence::{Kind, Outcome, Part, PartKey, Sets};
use crate::round::Round;
use crate::v1::{self, RefusalReason};

/// What is kept of the last part of a sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    kind: Kind,
    round: Round,
    observed_at_ms: i64,
    relay_session_age_s: Option<u32>,
}

impl Head {
    pub(super) fn of(part: &Part) -> Self {
        Self {
            kind: part.kind,
            round: part.key.round,
            observed_at_ms: part.observed_at_ms,
            relay_session_age_s: part.relay_session_age_s,
        }
    }

    /// Says in `compact` how the head of `part`, of the same subnet and number, differs from this
    /// one. Answers whether that can be said.
    pub(super) fn shorten(&self, part: &Part, compact: &mut v1::CompactEvidence) -> bool {
        let differences = || {
            let period_s = u64::from(self.round.period().seconds());
            let elapsed_s = part.key.round.start_s().checked_sub(self.round.start_s())?;
            let rounds = (elapsed_s / period_s).checked_sub(1)?;
            let later_ms = in_round_ms(part.key.round, part.observed_at_ms)?
                .checked_sub(in_round_ms(self.round, self.observed_at_ms)?)?;
            let older_s = match (self.relay_session_age_s, part.relay_session_age_s) {
                (None, None) => 0,
                (Some(before), Some(now)) => {
                    let expected = i64::from(before).checked_add_unsigned(elapsed_s)?;
                    i64::from(now).checked_sub(expected)?
                }
                _ => return None,
            };
            Some((u32::try_from(rounds).ok()?, later_ms, older_s))
        };
        if part.kind != self.kind
            || part.outcome != Outcome::Looked
            || part.key.round.period() != self.round.period()
        {
            return false;
        }
        let Some((rounds, later_ms, older_s)) = differences() else {
            return false;
        };
        compact.rounds_between = rounds;
        compact.observed_later_ms = later_ms;
        compact.relay_session_older_s = older_s;
        true
    }

    /// The part without its sets that `compact` makes of this head.
    pub(super) fn lengthen(
        &self,
        subnet: &str,
        number: u16,
        compact: &v1::CompactEvidence,
    ) -> Result<Part, Refusal> {
        let filled = || {
            let period_s = u64::from(self.round.period().seconds());
            let elapsed_s = (u64::from(compact.rounds_between) + 1).checked_mul(period_s)?;
            let start_s = self.round.start_s().checked_add(elapsed_s)?;
            let round = Round::new(start_s, self.round.period()).ok()?;
            let observed_at_ms = in_round_ms(self.round, self.observed_at_ms)?
                .checked_add(compact.observed_later_ms)?
                .checked_add(round.start_ms())?;
            let relay_session_age_s = match self.relay_session_age_s {
                None if compact.relay_session_older_s == 0 => None,
                None => return None,
                Some(before) => {
                    let expected = i64::from(before).checked_add_unsigned(elapsed_s)?;
                    let age_s = expected.checked_add(compact.relay_session_older_s)?;
                    Some(u32::try_from(age_s).ok()?)
                }
            };
            Some(Part {
                key: PartKey { subnet: subnet.to_owned(), round, number },
                kind: self.kind,
                outcome: Outcome::Looked,
                observed_at_ms,
                relay_session_age_s,
                sets: Sets::default(),
            })
        };
        filled().ok_or_else(|| {
            let detail = "the head does not follow from that of the part before it";
            Refusal::new(RefusalReason::Resync, detail)
        })
    }
}

fn in_round_ms(round: Round, observed_at_ms: i64) -> Option<i64> {
    observed_at_ms.checked_sub(round.start_ms())
}
