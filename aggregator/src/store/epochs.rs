//! The epochs in the embedded store.
//!
//! Owns the table `epoch`. An epoch that has begun is never changed or removed: rounds were decided
//! by it. A change of those that have not begun, and its line in the audit log, are one
//! transaction.

use prost::Message;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uptime_proto::{Epoch, Epochs, v1};

use super::connection::{SqliteStore, signed};
use super::damage::vital;
use super::error::StoreError;
use super::identities::{add_line, line};
use super::identity_store::By;
use super::records::EpochChange;

/// What the audit log calls a change of the rules.
const ACTION: &str = "rules-set";

/// All of them, ascending.
pub(super) async fn all(connection: &mut SqliteConnection) -> Result<Vec<Epoch>, StoreError> {
    let rows = sqlx::query("SELECT start_s, rules, crc FROM epoch ORDER BY start_s")
        .fetch_all(connection)
        .await;
    vital(rows, "the epochs")?.iter().map(read).collect()
}

fn read(row: &SqliteRow) -> Result<Epoch, StoreError> {
    let damaged = |why: &str| StoreError::Damaged(format!("epoch {}: {why}", row.get::<i64, _>(0)));
    let rules: &[u8] = row.get(1);
    if i64::from(crc32fast::hash(rules)) != row.get::<i64, _>(2) {
        return Err(damaged("the checksum does not match"));
    }
    let wire = v1::Epoch::decode(rules).map_err(|error| damaged(&error.to_string()))?;
    Epoch::try_from(&wire).map_err(|error| damaged(&error.to_string()))
}

async fn insert(connection: &mut SqliteConnection, epoch: &Epoch) -> Result<(), StoreError> {
    let rules = v1::Epoch::from(epoch).encode_to_vec();
    sqlx::query("INSERT INTO epoch VALUES (?, ?, ?)")
        .bind(signed(epoch.start_s))
        .bind(rules.as_slice())
        .bind(i64::from(crc32fast::hash(&rules)))
        .execute(connection)
        .await?;
    Ok(())
}

impl SqliteStore {
    pub(super) async fn insert_epoch(&mut self, epoch: &Epoch) -> Result<(), StoreError> {
        insert(&mut self.connection, epoch).await?;
        self.opened.check()
    }

    pub(super) async fn put_epochs(
        &mut self,
        change: &EpochChange,
        by: &By,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        let there = all(&mut transaction).await?;
        let (stay, go) = there.split_at(change.kept.min(there.len()));
        let now_s = u64::try_from(by.now_ms.div_euclid(1000)).unwrap_or(0);
        let begun = stay.is_empty() || go.iter().any(|epoch| epoch.start_s <= now_s);
        if there != change.there || begun {
            return Ok(false);
        }
        // Nobody could start with epochs that cannot be.
        Epochs::new([stay, change.epoch.as_slice()].concat())
            .map_err(|error| StoreError::Damaged(format!("the epochs to be stored: {error}")))?;
        for epoch in go {
            sqlx::query("DELETE FROM epoch WHERE start_s = ?")
                .bind(signed(epoch.start_s))
                .execute(&mut *transaction)
                .await?;
        }
        if let Some(epoch) = &change.epoch {
            insert(&mut transaction, epoch).await?;
        }
        add_line(&mut transaction, &line(by, ACTION, "rules", change.detail.clone())).await?;
        self.opened.commit(transaction).await?;
        Ok(true)
    }
}
