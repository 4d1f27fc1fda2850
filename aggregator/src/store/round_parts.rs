//! How many parts of a probe a round has.
//!
//! Owns the count that a limit is held to: rows, those that share a key one by one, and compacted
//! parts. What is in memory is a memory only, of one writer; without it the count is asked for.

use std::collections::HashSet;

use super::connection::{SqliteStore, signed};
use super::error::StoreError;
use uptime_accounting::fact::FactKey;

/// Counts kept, each of a round and a probe; then all are forgotten. Rounds that are open at a time
/// are a handful, and a probe that empties its spool goes from round to round.
const KEPT_MAX: usize = 4_096;

impl SqliteStore {
    /// Parts of the key's round and probe that are stored. Asked after the key itself was looked
    /// for, which brings the keys of a compacted day into memory.
    pub(super) async fn parts_of_round(&mut self, key: &FactKey) -> Result<u32, StoreError> {
        let of = (key.round, key.probe);
        if let Some(count) = self.round_parts.0.get(&of) {
            return Ok(*count);
        }
        let select = "SELECT subnet, number FROM part WHERE round = ? AND period = ? AND probe = ?";
        let rows: Vec<(i64, i64)> = sqlx::query_as(select)
            .bind(signed(key.round.start_s()))
            .bind(i64::from(key.round.period().seconds()))
            .bind(i64::from(key.probe))
            .fetch_all(&mut self.connection)
            .await?;
        // A row wins over the compacted copy of it.
        let in_rows: HashSet<(i64, i64)> = rows.iter().copied().collect();
        let compacted = self.compacted.keys_of(key.round, key.probe);
        let compacted = compacted
            .filter(|there| !in_rows.contains(&(i64::from(there.subnet), i64::from(there.number))));
        let count = u32::try_from(rows.len() + compacted.count()).unwrap_or(u32::MAX);
        if self.round_parts.0.len() >= KEPT_MAX {
            self.round_parts.forget();
        }
        self.round_parts.0.insert(of, count);
        Ok(count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use roaring::RoaringBitmap;
    use uptime_proto::{Class, Kind, NodeId, Outcome, Part, PartKey, Period, Round, Sets};

    use super::super::{Batch, FactLog, Lease, Put};
    use super::*;
    use uptime_accounting::fact::Fact;

    /// What a probe saw at this moment of the first round of all, under this number.
    fn fact(number: u16, at_ms: i64) -> Fact {
        let round = Round::new(0, Period::new(30).unwrap()).unwrap();
        let part = Part {
            key: PartKey { subnet: String::new(), round, number },
            kind: Kind::Market,
            outcome: Outcome::Looked,
            observed_at_ms: at_ms,
            relay_session_age_s: None,
            sets: Sets::default().with(Class::Offer, vec![NodeId::new([7; 20])]),
        };
        let of = |class| part.sets.of(class).iter().map(|_| 0).collect::<RoaringBitmap>();
        Fact {
            key: FactKey { round, subnet: 0, probe: 1, number },
            kind: part.kind,
            outcome: part.outcome,
            digest: Some(part.digest()),
            observed_at_ms: at_ms,
            received_at_ms: at_ms,
            relay_session_age_s: None,
            sets: Arc::new(Class::ALL.map(of)),
        }
    }

    async fn put(store: &mut SqliteStore, fact: Fact, most: u32) -> Put {
        let batch =
            Batch { facts: vec![fact], parts_per_round_max: Some(most), ..Batch::default() };
        store.put(&batch).await.unwrap().puts[0]
    }

    #[tokio::test]
    async fn compacted_parts_count_and_what_stands_in_both_places_counts_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        let first = Batch {
            new_nodes: vec![(NodeId::new([7; 20]), 1)],
            facts: vec![fact(0, 1), fact(1, 1), fact(2, 1)],
            ..Batch::default()
        };
        store.put(&first).await.unwrap();
        let prepared = store.plan_compaction(86_400).await.unwrap().unwrap();
        let token = store.acquire_lease(0).await.unwrap().unwrap();
        assert_eq!(store.commit_compaction(&prepared, token).await.unwrap().unwrap().parts, 3);
        // Counted anew by each opening, then by memory.
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        assert_eq!(put(&mut store, fact(3, 1), 3).await, Put::RoundFull);
        assert_eq!(put(&mut store, fact(2, 1), 3).await, Put::Duplicate);
        // The compacted part becomes a row beside the one that contradicts it: four parts, not
        // five.
        assert_ne!(put(&mut store, fact(0, 2), 4).await, Put::RoundFull);
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        assert_eq!(put(&mut store, fact(3, 1), 4).await, Put::RoundFull);
        assert_eq!(put(&mut store, fact(3, 1), 5).await, Put::New);
        assert_eq!(put(&mut store, fact(4, 1), 5).await, Put::RoundFull);
    }
}
