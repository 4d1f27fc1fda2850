//! Log positions, in the embedded store.
//!
//! Owns the tables `writer` and `day_position`, and the columns of `part` that say which commit
//! wrote it. Each process that stores facts is a writer of its own. Its commits count from one
//! without gaps, so that two processes never take the same position. A compacted day keeps the
//! highest commit of each writer: who is behind it folds the whole day again.

use std::collections::{BTreeMap, HashMap};

use super::connection::Writer;
use super::connection::{SqliteStore, signed, unsigned};
use super::error::StoreError;
use super::records::Since;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uptime_accounting::fact::FactKey;
use uptime_accounting::position::{Position, Positions, WriterId};
use uptime_proto::round::DAY_S;
use uptime_proto::{Period, Round};

/// What version 7 added, in place of the keys of late parts. Those become the one commit of the
/// first writer that an earlier checkpoint does not include.
pub(super) const SCHEMA_POSITIONS: &str = "
CREATE TABLE writer (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, last_commit INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL, ended INTEGER NOT NULL
) STRICT;
INSERT INTO writer VALUES (0, zeroblob(16), 1, 0, 1);
CREATE TABLE day_position (
    day INTEGER NOT NULL, writer INTEGER NOT NULL, last_commit INTEGER NOT NULL,
    PRIMARY KEY (day, writer)
) WITHOUT ROWID, STRICT;
ALTER TABLE part ADD COLUMN writer INTEGER NOT NULL DEFAULT 0;
ALTER TABLE part ADD COLUMN commit_number INTEGER NOT NULL DEFAULT 0;
UPDATE part SET commit_number = 1 WHERE EXISTS (
    SELECT 1 FROM late_part late WHERE late.round = part.round AND late.subnet = part.subnet
        AND late.period = part.period AND late.probe = part.probe AND late.number = part.number
);
INSERT OR IGNORE INTO day_position
    SELECT round - round % 86400, 0, 1 FROM late_part late WHERE NOT EXISTS (
        SELECT 1 FROM part WHERE part.round = late.round AND part.subnet = late.subnet
            AND part.period = late.period AND part.probe = late.probe
            AND part.number = late.number
    );
DROP TABLE late_part;
CREATE INDEX part_position ON part (writer, commit_number);
CREATE TABLE lease (one INTEGER PRIMARY KEY CHECK (one = 0), token INTEGER NOT NULL) STRICT;
INSERT INTO lease VALUES (0, 0);
";

impl SqliteStore {
    /// Takes the next position, in the transaction that is under way. A writer that was ended by
    /// another process, or whose commits are not those it knows of, begins as a new one.
    pub(super) async fn next_position(&mut self, now_ms: i64) -> Result<Writer, StoreError> {
        if let Some(Writer { number, position }) = self.writer {
            let update = "UPDATE writer SET last_commit = last_commit + 1, seen_ms = ?
                 WHERE number = ? AND last_commit = ? AND ended = 0";
            let done = sqlx::query(update)
                .bind(now_ms)
                .bind(number)
                .bind(signed(position.commit))
                .execute(&mut self.connection)
                .await?;
            if done.rows_affected() == 1 {
                let position = Position { commit: position.commit + 1, ..position };
                return Ok(Writer { number, position });
            }
            tracing::warn!("another process ended this writer; it begins as a new one");
        }
        let writer = WriterId(rand::random());
        let insert = "INSERT INTO writer (id, last_commit, seen_ms, ended) VALUES (?, 1, ?, 0)";
        let done = sqlx::query(insert)
            .bind(writer.0.as_slice())
            .bind(now_ms)
            .execute(&mut self.connection)
            .await?;
        let position = Position { writer, commit: 1 };
        Ok(Writer { number: done.last_insert_rowid(), position })
    }

    pub(super) async fn end_others(&mut self, before_ms: i64) -> Result<u64, StoreError> {
        let me = self.writer.map_or(-1, |writer| writer.number);
        let update = "UPDATE writer SET ended = 1 WHERE ended = 0 AND number != ? AND seen_ms < ?";
        let done =
            sqlx::query(update).bind(me).bind(before_ms).execute(&mut self.connection).await?;
        Ok(done.rows_affected())
    }

    /// The last commit of each writer, with the writer's number.
    pub(super) async fn writers(&mut self) -> Result<HashMap<i64, Position>, StoreError> {
        let rows = sqlx::query("SELECT number, id, last_commit FROM writer")
            .fetch_all(&mut self.connection)
            .await?;
        let writer = |row: &SqliteRow| {
            let id: Option<[u8; 16]> = row.get::<&[u8], _>(1).try_into().ok();
            let id = id.ok_or_else(|| StoreError::Damaged("the id of a writer".to_owned()))?;
            let position = Position { writer: WriterId(id), commit: unsigned(row.get(2)) };
            Ok((row.get(0), position))
        };
        rows.iter().map(writer).collect()
    }

    pub(super) async fn since_in_turn(
        &mut self,
        positions: &Positions,
        before_s: u64,
    ) -> Result<Since, StoreError> {
        let writers = self.writers().await?;
        let mut since = Since { to: writers.values().copied().collect(), ..Since::default() };
        // Whether a fact has a smaller digest than all that are known under its key.
        let mut smallest: BTreeMap<(FactKey, Vec<u8>), bool> = BTreeMap::new();
        for (number, last) in &writers {
            let known = positions.of(last.writer);
            if last.commit <= known {
                continue;
            }
            let select = "SELECT p.round, p.subnet, p.period, p.probe, p.number,
                    o.writer, o.commit_number, o.digest < p.digest, p.digest
                 FROM part p INDEXED BY part_position
                 LEFT JOIN part o ON o.round = p.round AND o.subnet = p.subnet
                    AND o.period = p.period AND o.probe = p.probe AND o.number = p.number
                    AND o.digest != p.digest
                 WHERE p.writer = ? AND p.commit_number > ? AND p.round < ?";
            let rows = sqlx::query(select)
                .bind(number)
                .bind(signed(known))
                .bind(signed(before_s))
                .fetch_all(&mut self.connection)
                .await?;
            for row in &rows {
                let key = key_of(row)?;
                since.late.keys.insert(key);
                let other = row.get::<Option<i64>, _>(5).zip(row.get::<Option<i64>, _>(6));
                let other = other.and_then(|(writer, commit)| {
                    let writer = writers.get(&writer)?.writer;
                    Some(Position { writer, commit: unsigned(commit) })
                });
                if other.is_some_and(|other| positions.include(other)) {
                    let smaller = row.get::<Option<bool>, _>(7) == Some(true);
                    let among = (key, row.get::<Vec<u8>, _>(8));
                    *smallest.entry(among).or_insert(true) &= !smaller;
                }
            }
        }
        let outranks = smallest.into_iter().filter(|(_, smallest)| *smallest);
        since.outranked.extend(outranks.map(|((key, _), _)| key));
        let days = sqlx::query("SELECT day, writer, last_commit FROM day_position WHERE day < ?")
            .bind(signed(before_s))
            .fetch_all(&mut self.connection)
            .await?;
        for row in &days {
            let last = writers.get(&row.get(1)).map(|it| it.writer).unwrap_or_default();
            if !positions.include(Position { writer: last, commit: unsigned(row.get(2)) }) {
                since.late.days.insert(unsigned(row.get(0)));
            }
        }
        Ok(since)
    }
}

fn key_of(row: &SqliteRow) -> Result<FactKey, StoreError> {
    let number = |index: usize| u32::try_from(row.get::<i64, _>(index)).ok();
    let key = || {
        let round = Round::new(unsigned(row.get(0)), Period::new(number(2)?).ok()?).ok()?;
        let part = u16::try_from(row.get::<i64, _>(4)).ok()?;
        Some(FactKey { round, subnet: number(1)?, probe: number(3)?, number: part })
    };
    key().ok_or_else(|| StoreError::Damaged("the key of a part".to_owned()))
}

/// Notes the highest commits of a day whose rows are about to be compacted.
pub(super) async fn note_day(
    connection: &mut SqliteConnection,
    day_s: u64,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO day_position
         SELECT ?1, writer, max(commit_number) FROM part
         WHERE round >= ?1 AND round < ?2 AND commit_number > 0 GROUP BY writer
         ON CONFLICT (day, writer)
         DO UPDATE SET last_commit = max(last_commit, excluded.last_commit)";
    sqlx::query(insert)
        .bind(signed(day_s))
        .bind(signed(day_s + u64::from(DAY_S)))
        .execute(connection)
        .await?;
    Ok(())
}
