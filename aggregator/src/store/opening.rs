//! The opening balance: the totals of an imported CSV, in the embedded store.
//!
//! Owns the tables `opening` (a row per node) and `opening_head` (one row: what holds for all of
//! them, and a checksum over everything). Refuses to add it to anything: it stays apart from what
//! was observed.

use super::connection::{SqliteStore, signed};
use super::error::StoreError;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row};
use uptime_proto::NodeId;

/// What the script this project replaces had counted when its files were imported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opening {
    /// When, unix milliseconds.
    pub imported_at_ms: i64,
    /// How many scans it had made.
    pub scan_count: u64,
    /// The time zone its stamps were read in.
    pub time_zone: String,
    /// The subnet it had scanned, where whoever imported it said so.
    pub subnet: Option<String>,
    /// Ascending by id, each id once.
    pub rows: Vec<OpeningRow>,
}

/// One node of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpeningRow {
    /// Which.
    pub id: NodeId,
    /// Whether its last scan had found it.
    pub is_online: bool,
    /// When it was last seen, unix milliseconds.
    pub last_seen_ms: Option<i64>,
    /// How many scans had found it; not more than there were.
    pub online_scans: u64,
}

impl Opening {
    /// Sixteen bytes over all that it says.
    fn digest(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        text(&self.time_zone);
        // An empty subnet and none are two things.
        text(&self.subnet.as_ref().map_or_else(String::new, |subnet| format!("={subnet}")));
        hasher.update(&self.imported_at_ms.to_le_bytes());
        hasher.update(&self.scan_count.to_le_bytes());
        for row in &self.rows {
            hasher.update(row.id.as_bytes());
            hasher.update(&[u8::from(row.is_online), u8::from(row.last_seen_ms.is_some())]);
            hasher.update(&row.last_seen_ms.unwrap_or(0).to_le_bytes());
            hasher.update(&row.online_scans.to_le_bytes());
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        digest
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!(
        "the imported opening balance: {what}; import its files again with --replace"
    ))
}

fn read_row(row: &SqliteRow) -> Result<OpeningRow, StoreError> {
    let id = NodeId::from_slice(row.get(0)).map_err(|error| damaged(&error.to_string()))?;
    let online_scans = u64::try_from(row.get::<i64, _>(3));
    Ok(OpeningRow {
        id,
        is_online: row.get::<i64, _>(1) != 0,
        last_seen_ms: row.get(2),
        online_scans: online_scans.map_err(|_| damaged("a count below zero"))?,
    })
}

impl SqliteStore {
    pub(super) async fn read_opening(&mut self) -> Result<Option<Opening>, StoreError> {
        // Both tables as they are at one moment.
        let mut transaction = self.connection.begin().await?;
        let head = "SELECT imported_at_ms, scan_count, time_zone, subnet, digest FROM opening_head";
        let head = sqlx::query(head).fetch_optional(&mut *transaction).await?;
        let rows = "SELECT id, is_online, last_seen_ms, online_scans FROM opening ORDER BY id";
        let rows = sqlx::query(rows).fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        let Some(head) = head else {
            return if rows.is_empty() { Ok(None) } else { Err(damaged("its head is gone")) };
        };
        let scan_count = u64::try_from(head.get::<i64, _>(1));
        let opening = Opening {
            imported_at_ms: head.get(0),
            scan_count: scan_count.map_err(|_| damaged("a count below zero"))?,
            time_zone: head.get(2),
            subnet: head.get(3),
            rows: rows.iter().map(read_row).collect::<Result<_, _>>()?,
        };
        if opening.digest().as_slice() != head.get::<&[u8], _>(4) {
            return Err(damaged("the checksum does not match"));
        }
        Ok(Some(opening))
    }

    pub(super) async fn write_opening(&mut self, opening: &Opening) -> Result<(), StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        sqlx::raw_sql("DELETE FROM opening; DELETE FROM opening_head")
            .execute(&mut *transaction)
            .await?;
        sqlx::query("INSERT INTO opening_head VALUES (0, ?, ?, ?, ?, ?)")
            .bind(opening.imported_at_ms)
            .bind(signed(opening.scan_count))
            .bind(&opening.time_zone)
            .bind(&opening.subnet)
            .bind(opening.digest().as_slice())
            .execute(&mut *transaction)
            .await?;
        for row in &opening.rows {
            sqlx::query("INSERT INTO opening VALUES (?, ?, ?, ?)")
                .bind(row.id.as_bytes().as_slice())
                .bind(i64::from(row.is_online))
                .bind(row.last_seen_ms)
                .bind(signed(row.online_scans))
                .execute(&mut *transaction)
                .await?;
        }
        self.opened.commit(transaction).await?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::Registry;
    use super::*;

    fn opening(nodes: u8) -> Opening {
        let row = |byte: u8| OpeningRow {
            id: NodeId::new([byte; 20]),
            is_online: byte.is_multiple_of(2),
            last_seen_ms: (!byte.is_multiple_of(3)).then_some(1_769_862_896_789),
            online_scans: u64::from(byte) * 7,
        };
        Opening {
            imported_at_ms: 1_770_000_000_000,
            scan_count: 5_000,
            time_zone: "Europe/Warsaw".to_owned(),
            subnet: Some("public".to_owned()),
            rows: (0..nodes).map(row).collect(),
        }
    }

    #[tokio::test]
    async fn it_reads_back_and_the_next_one_takes_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        assert_eq!(store.opening().await.unwrap(), None);
        store.put_opening(&opening(40)).await.unwrap();
        assert_eq!(store.opening().await.unwrap(), Some(opening(40)));
        let second = Opening { subnet: None, ..opening(3) };
        store.put_opening(&second).await.unwrap();
        drop(store);
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        assert_eq!(store.opening().await.unwrap(), Some(second));
    }

    #[tokio::test]
    async fn one_that_cannot_be_written_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        store.put_opening(&opening(3)).await.unwrap();
        let mut twice = opening(9);
        twice.rows.push(twice.rows[0]);
        assert!(store.put_opening(&twice).await.is_err());
        assert_eq!(store.opening().await.unwrap(), Some(opening(3)));
    }

    #[tokio::test]
    async fn a_change_on_disk_is_noticed_and_can_be_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        for change in [
            "UPDATE opening SET online_scans = online_scans + 1 WHERE online_scans = 35",
            "UPDATE opening SET last_seen_ms = 0 WHERE last_seen_ms IS NULL",
            "DELETE FROM opening WHERE online_scans = 0",
            "UPDATE opening_head SET subnet = NULL",
            "DELETE FROM opening_head",
        ] {
            store.put_opening(&opening(12)).await.unwrap();
            sqlx::query(change).execute(&mut store.connection).await.unwrap();
            let fault = store.opening().await.unwrap_err();
            assert!(fault.to_string().contains("--replace"), "{change}: {fault}");
        }
        store.put_opening(&opening(12)).await.unwrap();
        assert_eq!(store.opening().await.unwrap(), Some(opening(12)));
    }
}
