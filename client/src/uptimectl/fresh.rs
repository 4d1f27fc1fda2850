//! How fresh an answer is, in words and as a record.
//!
//! Pure. Ages are reckoned against the aggregator's own clock, which stands in every answer, so a
//! wrong clock at this end misleads nobody.

use serde::Serialize;
use uptime_client::v1::Freshness;

use crate::text::{clean, hex, second, span, stamp};

/// A round closes its grace after it ended, so the last closed one is at most a period and a grace
/// old; three periods mean that at least one did not close.
const STALE_PERIODS: u64 = 3;
/// With the shortest periods the grace alone would be more than that.
const STALE_S_MIN: u64 = 15;

/// As it stands in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FreshnessRecord {
    last_closed_round_unix_s: Option<u64>,
    round_period_s: u32,
    answered_at_unix_ms: i64,
    method: String,
    epoch_start_unix_s: u64,
    store_id: String,
    generation: u64,
}

impl From<&Freshness> for FreshnessRecord {
    fn from(wire: &Freshness) -> Self {
        let closed = wire.last_closed_round_unix_s;
        Self {
            last_closed_round_unix_s: (closed > 0).then_some(closed),
            round_period_s: wire.round_period_s,
            answered_at_unix_ms: wire.answered_at_unix_ms,
            method: wire.method.clone(),
            epoch_start_unix_s: wire.epoch_start_unix_s,
            store_id: hex(&wire.store_id),
            generation: wire.generation,
        }
    }
}

/// The seconds from an instant to the answer; none if the instant lies after it.
pub(crate) fn ago_s(fresh: &Freshness, unix_s: u64) -> u64 {
    second(fresh.answered_at_unix_ms).saturating_sub(unix_s)
}

/// The end of the last closed round; 0: none has closed.
pub(crate) fn closed_end_s(fresh: &Freshness) -> u64 {
    match fresh.last_closed_round_unix_s {
        0 => 0,
        closed => closed.saturating_add(fresh.round_period_s.into()),
    }
}

/// The seconds since the last closed round ended; `None`: none has closed.
fn age_s(fresh: &Freshness) -> Option<u64> {
    let end_s = closed_end_s(fresh);
    (end_s > 0).then(|| ago_s(fresh, end_s))
}

/// `round 2026-01-31 12:34:30 UTC, ended 7 s ago, fresh-v1`.
pub(crate) fn words(fresh: &Freshness) -> String {
    let method = clean(&fresh.method);
    match age_s(fresh) {
        None => format!("no round, because none has closed yet, {method}"),
        Some(age) => {
            let round = stamp(fresh.last_closed_round_unix_s);
            format!("round {round}, ended {} ago, {method}", span(age))
        }
    }
}

/// What is to be said if the answer is out of date.
pub(crate) fn warning(fresh: &Freshness) -> Option<String> {
    let age = age_s(fresh)?;
    let limit = (STALE_PERIODS * u64::from(fresh.round_period_s)).max(STALE_S_MIN);
    (age > limit).then(|| {
        format!(
            "warning: no round has closed for {}, though a round is {} long: this answer is out \
             of date; see the aggregator's log and its /readyz",
            span(age),
            span(fresh.round_period_s.into())
        )
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer of 2026-01-31 12:35:07 UTC.
    pub(crate) fn fresh() -> Freshness {
        Freshness {
            last_closed_round_unix_s: 1_769_862_870,
            round_period_s: 30,
            answered_at_unix_ms: 1_769_862_907_500,
            method: "fresh-v1".into(),
            epoch_start_unix_s: 0,
            store_id: vec![0xab; 16].into(),
            generation: 1,
        }
    }

    #[test]
    fn the_age_is_that_of_the_rounds_end() {
        assert_eq!(words(&fresh()), "round 2026-01-31 12:34:30 UTC, ended 7 s ago, fresh-v1");
        let none = Freshness { last_closed_round_unix_s: 0, ..fresh() };
        assert_eq!(words(&none), "no round, because none has closed yet, fresh-v1");
        assert_eq!(warning(&none), None);
        let ahead = Freshness { answered_at_unix_ms: 0, ..fresh() };
        assert!(words(&ahead).contains("ended 0 s ago"));
    }

    #[test]
    fn three_periods_are_too_old() {
        let aged = |age_s: i64, period_s| Freshness {
            answered_at_unix_ms: (1_769_862_870 + i64::from(period_s) + age_s) * 1000,
            round_period_s: period_s,
            ..fresh()
        };
        assert_eq!(warning(&aged(90, 30)), None);
        assert!(warning(&aged(91, 30)).is_some_and(|text| text.contains("for 1 min 31 s")));
        assert_eq!(warning(&aged(15, 1)), None);
        assert!(warning(&aged(16, 1)).is_some());
    }
}
