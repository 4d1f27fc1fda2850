//! Checkpoints, roll-ups, retractions and expiry, in the embedded store.
//!
//! Owns the tables `state` and `retraction`. A piece of a state stands there as its
//! length (u32, little-endian) and a zstd frame. Refuses to look into it: pieces are bytes, checked
//! by whoever made them.

use super::connection::{SqliteStore, signed};
use super::connection::{check_token, unsigned};
use super::damage::{is_damage, vital};
use super::error::StoreError;
use super::records::{Retraction, Token};
use sqlx::sqlite::SqliteConnection;

/// The names of states in the table, which are those of 0.1.0.
pub(super) const CHECKPOINT: &str = "latest";
pub(super) const ROLL_UP: &str = "base";

/// A checkpoint is saved every hour or so, by the task that also takes in reports: a quick level.
const LEVEL: i32 = 3;
/// No piece is longer, whatever it says of itself: some thousand nodes and the year of each.
const PIECE_BYTES_MAX: usize = 256 * 1024 * 1024;

fn compressed(piece: &[u8]) -> std::io::Result<Vec<u8>> {
    let length = u32::try_from(piece.len()).map_err(std::io::Error::other)?;
    let mut body = length.to_le_bytes().to_vec();
    body.extend(zstd::bulk::compress(piece, LEVEL)?);
    Ok(body)
}

/// What is no compressed piece comes out as one that no state begins with and none has: whoever
/// reads it takes note that something is lost.
fn decompressed(body: &[u8]) -> Vec<u8> {
    let compressed = body.split_first_chunk::<4>();
    let compressed =
        compressed.map(|(length, frame)| (u32::from_le_bytes(*length) as usize, frame));
    let fits = compressed.filter(|(length, _)| *length <= PIECE_BYTES_MAX);
    fits.and_then(|(length, frame)| zstd::bulk::decompress(frame, length).ok()).unwrap_or_default()
}

async fn write_state(
    connection: &mut SqliteConnection,
    name: &str,
    pieces: &[Vec<u8>],
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM state WHERE name = ?").bind(name).execute(&mut *connection).await?;
    for (piece, body) in (0i64..).zip(pieces) {
        sqlx::query("INSERT INTO state VALUES (?, ?, ?)")
            .bind(name)
            .bind(piece)
            .bind(compressed(body)?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

impl SqliteStore {
    pub(super) async fn write_checkpoint(&mut self, pieces: &[Vec<u8>]) -> Result<(), StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        write_state(&mut transaction, CHECKPOINT, pieces).await?;
        self.opened.commit(transaction).await?;
        Ok(())
    }

    pub(super) async fn read_state(&mut self, name: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let select = "SELECT body FROM state WHERE name = ? ORDER BY piece";
        let pieces: Result<Vec<Vec<u8>>, _> =
            sqlx::query_scalar(select).bind(name).fetch_all(&mut self.connection).await;
        match pieces {
            Err(error) if is_damage(&error) => Ok(vec![Vec::new()]),
            pieces => Ok(pieces?.iter().map(|body| decompressed(body)).collect()),
        }
    }

    pub(super) async fn roll_up_before(
        &mut self,
        before_s: u64,
        roll_up: &[Vec<u8>],
        token: Token,
    ) -> Result<u64, StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        check_token(&mut transaction, token).await?;
        write_state(&mut transaction, ROLL_UP, roll_up).await?;
        let mut gone = 0;
        for delete in [
            "DELETE FROM part WHERE round < ?",
            "DELETE FROM segment WHERE to_s <= ?",
            "DELETE FROM gap WHERE to_s <= ?",
            "DELETE FROM day_position WHERE day < ?",
        ] {
            let done =
                sqlx::query(delete).bind(signed(before_s)).execute(&mut *transaction).await?;
            gone += done.rows_affected();
        }
        self.opened.commit(transaction).await?;
        self.bases.clear();
        self.learn_compacted().await?;
        sqlx::raw_sql(super::compaction::VACUUM).execute(&mut self.connection).await?;
        Ok(gone)
    }

    pub(super) async fn all_retractions(&mut self) -> Result<Vec<Retraction>, StoreError> {
        type Row = (i64, i64, i64, i64, String, i64, Option<i64>);
        let select = "SELECT number, probe, from_s, to_s, reason, made_at_ms, undone_at_ms
             FROM retraction ORDER BY number";
        let rows = sqlx::query_as(select).fetch_all(&mut self.connection).await;
        let rows: Vec<Row> = vital(rows, "the retractions")?;
        let read = |(number, probe, from_s, to_s, reason, made_at_ms, undone_at_ms): Row| {
            let probe = u32::try_from(probe).unwrap_or(u32::MAX);
            let (number, from_s, to_s) = (unsigned(number), unsigned(from_s), unsigned(to_s));
            Retraction { number, probe, from_s, to_s, reason, made_at_ms, undone_at_ms }
        };
        Ok(rows.into_iter().map(read).collect())
    }

    pub(super) async fn add_retraction(&mut self, it: &Retraction) -> Result<u64, StoreError> {
        let insert = "INSERT INTO retraction (probe, from_s, to_s, reason, made_at_ms)
             VALUES (?, ?, ?, ?, ?)";
        let done = sqlx::query(insert)
            .bind(i64::from(it.probe))
            .bind(signed(it.from_s))
            .bind(signed(it.to_s))
            .bind(&it.reason)
            .bind(it.made_at_ms)
            .execute(&mut self.connection)
            .await?;
        Ok(unsigned(done.last_insert_rowid()))
    }

    pub(super) async fn undo(&mut self, number: u64, now_ms: i64) -> Result<bool, StoreError> {
        let update = "UPDATE retraction SET undone_at_ms = ?
             WHERE number = ? AND undone_at_ms IS NULL";
        let done = sqlx::query(update)
            .bind(now_ms)
            .bind(signed(number))
            .execute(&mut self.connection)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_and_nonsense_is_an_empty_one() {
        let piece: Vec<u8> =
            (0..100_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let body = compressed(&piece).unwrap();
        assert!(body.len() < piece.len() / 4);
        assert_eq!(decompressed(&body), piece);
        assert!(decompressed(&compressed(&[]).unwrap()).is_empty());
        let mut long = body.clone();
        long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut short = body.clone();
        short[..4].copy_from_slice(&7u32.to_le_bytes());
        for nonsense in [&[][..], &[1, 2, 3], &[9; 40], &body[..body.len() - 1], &long, &short] {
            assert!(decompressed(nonsense).is_empty());
        }
    }
}
