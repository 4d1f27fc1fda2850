//! Reading beside a serving aggregator.
//!
//! Owns how a second connection sees one moment of the store, though days are compacted and parts
//! come while it reads. Refuses to wait for anybody: readers and the writer do not hold each other
//! up.

use super::connection::{FILE_NAME, SqliteStore};
use super::error::StoreError;
use std::path::Path;

impl SqliteStore {
    /// Whether a data directory has a store; opening one makes it.
    #[must_use]
    pub fn exists(data_dir: &Path) -> bool {
        data_dir.join(FILE_NAME).is_file()
    }

    /// Begins a transaction that ends with the connection. Until then the log that is written ahead
    /// grows by what others write.
    pub(super) async fn hold_still(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("BEGIN").execute(&mut self.connection).await?;
        // The first statement that reads is the moment; which days are compacted is of that moment,
        // too.
        self.learn_compacted().await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use roaring::RoaringBitmap;
    use uptime_proto::{Digest, Kind, NodeId, Outcome, Period, Round};

    use super::super::{Batch, FactLog, Store};
    use super::*;
    use uptime_accounting::fact::{Fact, FactKey};

    fn batch(round_s: u64, nodes: u32) -> Batch {
        let round = Round::new(round_s, Period::new(30).unwrap()).unwrap();
        let offers: RoaringBitmap = (0..nodes).collect();
        let empty = RoaringBitmap::new;
        let fact = Fact {
            key: FactKey { round, subnet: 0, probe: 1, number: 0 },
            kind: Kind::Market,
            outcome: Outcome::Looked,
            digest: Some(Digest([7; 16])),
            observed_at_ms: round.start_ms() + 100,
            received_at_ms: round.start_ms() + 200,
            relay_session_age_s: None,
            sets: Arc::new([offers, empty(), empty(), empty(), empty(), empty()]),
        };
        let new_nodes = if round_s == 0 {
            (0..nodes).map(|n| (NodeId::new([u8::try_from(n).unwrap(); 20]), 1)).collect()
        } else {
            Vec::new()
        };
        Batch { new_nodes, facts: vec![fact], ..Batch::default() }
    }

    #[tokio::test]
    async fn what_others_write_is_not_seen_and_not_held_up() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!SqliteStore::exists(directory.path()));
        let mut writer = SqliteStore::open(directory.path()).await.unwrap();
        assert!(SqliteStore::exists(directory.path()));
        for round in 0..4 {
            writer.put(&batch(round * 30, 5)).await.unwrap();
        }
        let mut reader = SqliteStore::open(directory.path()).await.unwrap();
        reader.hold().await.unwrap();
        let there = reader.read(0, 86_400).await.unwrap();
        assert_eq!(there.len(), 4);
        writer.put(&batch(120, 5)).await.unwrap();
        // As when a day is compacted: rows go.
        sqlx::raw_sql("DELETE FROM part WHERE round < 60")
            .execute(&mut writer.connection)
            .await
            .unwrap();
        assert_eq!(reader.read(0, 86_400).await.unwrap(), there);
        assert_eq!(reader.extent().await.unwrap(), Some((0, 90)));
        let mut next = SqliteStore::open(directory.path()).await.unwrap();
        assert_eq!(next.read(0, 86_400).await.unwrap().len(), 3);
    }
}
