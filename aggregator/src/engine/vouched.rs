//! How far the stored parts vouch for the clock: what cannot be undone reaches no further.
//!
//! Owns the rule "Irreversible actions" of the accounting page, as far as it rests on stored facts:
//! before a moment lie 24 hours, in 23 of which parts were received within a minute of their
//! observation, from two probes where two are enrolled. A clock that was wrong for a while, here or
//! at the probes, does not make such hours. Whether this host's clock is sure is not asked here.

use std::collections::BTreeSet;

use crate::store::{Delivery, Read, Store, StoreError};

const HOUR_S: u64 = 3_600;
const HOURS: u64 = 24;
const HOURS_MIN: u64 = 23;
/// Two probes are enough for an hour, and one where only one is enrolled.
const PROBES_MIN: usize = 2;
/// An hour is read in pieces, up to the first one that vouches for it.
const PIECE_S: u64 = 300;

/// The moment up to which the stored parts vouch for the clock, unix milliseconds, no later than
/// `now_ms`; `None`: they do not, and nothing irreversible may be done.
///
/// # Errors
/// When the store cannot be read.
pub async fn vouched_ms(store: &mut impl Store, now_ms: i64) -> Result<Option<i64>, StoreError> {
    let Some((_, last_s)) = store.extent().await? else { return Ok(None) };
    let now_s = u64::try_from(now_ms.div_euclid(1000)).unwrap_or(0);
    let end_s = now_s.min(last_s);
    let enrolled = store.catalogue().await?.probes.iter().filter(|it| !it.revoked).count();
    let probes_min = enrolled.clamp(1, PROBES_MIN);
    let mut good = 0;
    for hour in 0..HOURS {
        let to_s = end_s.saturating_sub(hour * HOUR_S);
        good += u64::from(is_good(store, to_s.saturating_sub(HOUR_S), to_s, probes_min).await?);
        if good + (HOURS - 1 - hour) < HOURS_MIN {
            return Ok(None);
        }
    }
    Ok(Some(i64::try_from(end_s * 1000).unwrap_or(i64::MAX)))
}

async fn is_good(
    store: &mut impl Store,
    from_s: u64,
    to_s: u64,
    probes_min: usize,
) -> Result<bool, StoreError> {
    let mut probes = BTreeSet::new();
    let mut piece_s = from_s;
    while piece_s < to_s {
        let end_s = (piece_s + PIECE_S).min(to_s);
        let prompt = |read: Read| {
            let Delivery { probe, prompt_ms, .. } = Delivery::of(&read.ok()?);
            prompt_ms.map(|_| probe)
        };
        probes.extend(store.read(piece_s, end_s).await?.into_iter().filter_map(prompt));
        if probes.len() >= probes_min {
            return Ok(true);
        }
        piece_s = end_s;
    }
    Ok(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use uptime_proto::{Digest, Kind, Outcome, Period, Round};

    use super::*;
    use crate::store::{Batch, FactLog, Registry, SqliteStore};
    use uptime_accounting::fact::{Fact, FactKey};

    const NOW_S: u64 = 1_800_000_000;

    fn ms(second: u64) -> i64 {
        i64::try_from(second * 1000).unwrap()
    }

    /// A part that was received so long after it was observed.
    fn fact(probe: u32, start_s: u64, late_ms: i64) -> Fact {
        let round = Round::new(start_s, Period::new(30).unwrap()).unwrap();
        let observed_at_ms = round.start_ms() + 20_000;
        Fact {
            key: FactKey { round, subnet: 0, probe, number: 0 },
            kind: Kind::Lookup,
            outcome: Outcome::Looked,
            digest: Some(Digest([7; 16])),
            observed_at_ms,
            received_at_ms: observed_at_ms + late_ms,
            relay_session_age_s: Some(600),
            sets: Arc::default(),
        }
    }

    /// What vouches, with parts in these hours before a moment.
    async fn vouched(
        probes: u32,
        end_s: u64,
        hours: impl Iterator<Item = u64>,
        late_ms: i64,
        now_ms: i64,
    ) -> Option<i64> {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        for number in 0..2 {
            store.add_probe(&format!("p{number}"), &[number; 32], &[], 1).await.unwrap();
        }
        let mut facts: Vec<Fact> = Vec::new();
        for hour in hours {
            let at_s = end_s - hour * HOUR_S - 1_800;
            facts.extend((1..=probes).map(|probe| fact(probe, at_s - at_s % 30, late_ms)));
        }
        facts.extend((1..=probes).map(|probe| fact(probe, end_s - end_s % 30, late_ms)));
        store.put(&Batch { facts, ..Batch::default() }).await.unwrap();
        vouched_ms(&mut store, now_ms).await.unwrap()
    }

    #[tokio::test]
    async fn a_day_of_prompt_parts_from_two_probes_vouches() {
        let now_ms = ms(NOW_S);
        assert_eq!(vouched(2, NOW_S, 0..24, 100, now_ms).await, Some(now_ms));
        assert_eq!(vouched(2, NOW_S, 1..24, 100, now_ms).await, Some(now_ms), "23 hours suffice");
        assert_eq!(vouched(2, NOW_S, 2..24, 100, now_ms).await, None);
        assert_eq!(vouched(1, NOW_S, 0..24, 100, now_ms).await, None, "two probes are enrolled");
        assert_eq!(vouched(2, NOW_S, 0..24, 61_000, now_ms).await, None, "parts of a spool");
        assert_eq!(vouched(2, NOW_S, 0..24, -61_000, now_ms).await, None);
    }

    #[tokio::test]
    async fn a_clock_that_is_ahead_reaches_no_further_than_the_parts() {
        let ahead_ms = ms(NOW_S + 800 * 86_400);
        assert_eq!(vouched(2, NOW_S, 0..24, 100, ahead_ms).await, Some(ms(NOW_S)));
        // The probes' clocks were ahead, too, for a moment: that hour stands alone.
        let end_s = NOW_S + 800 * 86_400;
        assert_eq!(vouched(2, end_s, 0..1, 100, ahead_ms).await, None);
    }
}
