//! What to do where a page of the embedded store's file is damaged.
//!
//! Owns telling damage from other errors, and finding the ends of what can be read. A database that
//! meets a damaged page answers the whole question with an error: so it is asked smaller questions.

use std::collections::BTreeMap;
use std::fmt;

use super::connection::{SELECT_ROWS, SqliteStore, signed};
use super::error::StoreError;
use super::verbs::Registry;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

/// `SQLITE_CORRUPT`, `SQLITE_NOTADB` and kin, in the low byte of the extended code.
const DAMAGE_CODES: [i64; 3] = [10, 11, 26];

/// Whether the database says that what is on disk is not what it wrote: the file's pages make no
/// sense, or cannot be read from the disk.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.and_then(|code| code.parse::<i64>().ok());
    code.is_some_and(|code| DAMAGE_CODES.contains(&(code & 0xff)))
}

/// Of what the rest can do without: where it is damaged there is none of it, and that is reported.
pub(super) fn dispensable<T: Default>(
    read: Result<T, sqlx::Error>,
    what: &str,
) -> Result<T, StoreError> {
    match read {
        Err(error) if is_damage(&error) => {
            tracing::error!(
                %error,
                "{what} cannot be read and are passed over; uptime-aggregator verify tells more, a \
                 backup may have them"
            );
            Ok(T::default())
        }
        other => Ok(other?),
    }
}

/// Of what nothing means anything without.
pub(super) fn vital<T>(read: Result<T, sqlx::Error>, what: &str) -> Result<T, StoreError> {
    read.map_err(|error| {
        if is_damage(&error) {
            StoreError::Damaged(format!(
                "{what} cannot be read ({error}), and without them nothing stored has a meaning; \
                 keep its file, -wal and -shm, move them away together, and restore a backup: \
                 uptime-aggregator restore --help"
            ))
        } else {
            error.into()
        }
    })
}

/// Questions that may fail while the ends of a damaged stretch are looked for. A page holds some
/// fifty parts; where the damage is in a page that leads to many others, all that they hold is lost
/// at once.
const FAILURES_MAX: u32 = 4_096;

/// A span whose rows cannot be read.
struct Lost {
    from_s: u64,
    to_s: u64,
    error: sqlx::Error,
}

impl fmt::Display for Lost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from_s, to_s, error } = self;
        write!(out, "the parts of rounds from {from_s} to {to_s}: {error}")
    }
}

/// Adds to the stretch before, if it is one with it.
fn lose(all: &mut Vec<Result<SqliteRow, Lost>>, lost: Lost) {
    match all.last_mut() {
        Some(Err(before)) if before.to_s == lost.from_s => before.to_s = lost.to_s,
        _ => all.push(Err(lost)),
    }
}

/// Rounds start before this, the year 2106.
const SECONDS_END: u64 = 1 << 32;
const DAY_S: u64 = uptime_proto::round::DAY_S as u64;

async fn one(
    connection: &mut SqliteConnection,
    select: &'static str,
    from_s: u64,
) -> Result<Option<u64>, sqlx::Error> {
    let row: Option<SqliteRow> =
        sqlx::query(select).bind(signed(from_s)).fetch_optional(connection).await?;
    Ok(row.and_then(|row| u64::try_from(row.get::<i64, _>(0)).ok()))
}

impl SqliteStore {
    /// The rows of a span. Where a page of the file is damaged the rows around it are found by
    /// asking for ever shorter spans; what cannot be read at all is named.
    pub(super) async fn rows_of(
        &mut self,
        from_s: u64,
        to_s: u64,
    ) -> Result<Vec<Result<SqliteRow, String>>, StoreError> {
        let mut spans = vec![(from_s, to_s)];
        let mut all: Vec<Result<SqliteRow, Lost>> = Vec::new();
        let (mut failures, mut shortest_s) = (0, 1);
        while let Some((from_s, to_s)) = spans.pop() {
            let rows = sqlx::query(SELECT_ROWS)
                .bind(signed(from_s))
                .bind(signed(to_s))
                .fetch_all(&mut self.connection)
                .await;
            match rows {
                Ok(rows) => all.extend(rows.into_iter().map(Ok)),
                Err(error) if !is_damage(&error) => return Err(error.into()),
                Err(error) => {
                    if failures == 0 {
                        let periods = self.epochs().await?;
                        let periods = periods.iter().map(|epoch| epoch.period.seconds());
                        shortest_s = u64::from(periods.min().unwrap_or(1));
                    }
                    failures += 1;
                    if to_s - from_s > shortest_s && failures < FAILURES_MAX {
                        let middle_s = from_s + (to_s - from_s) / 2;
                        spans.extend([(middle_s, to_s), (from_s, middle_s)]);
                    } else {
                        lose(&mut all, Lost { from_s, to_s, error });
                    }
                }
            }
        }
        Ok(all.into_iter().map(|row| row.map_err(|lost| lost.to_string())).collect())
    }

    /// Ends of compacted spans by their beginnings. Where the list is damaged it is asked for day
    /// by day, and days of which nothing is said stand in it as if they were compacted: reading
    /// them names them.
    pub(super) async fn compacted_spans(&mut self) -> Result<BTreeMap<u64, u64>, StoreError> {
        let mut spans = vec![(0, SECONDS_END - SECONDS_END % DAY_S)];
        let mut all = BTreeMap::new();
        let mut failures = 0;
        while let Some((from_s, to_s)) = spans.pop() {
            let rows: Result<Vec<(i64, i64)>, sqlx::Error> =
                sqlx::query_as("SELECT from_s, to_s FROM segment WHERE from_s >= ? AND from_s < ?")
                    .bind(signed(from_s))
                    .bind(signed(to_s))
                    .fetch_all(&mut self.connection)
                    .await;
            let second = |value: i64| u64::try_from(value).unwrap_or(0);
            match rows {
                Ok(rows) => all.extend(rows.iter().map(|(from, to)| (second(*from), second(*to)))),
                Err(error) if !is_damage(&error) => return Err(error.into()),
                Err(_) => {
                    failures += 1;
                    if to_s - from_s > DAY_S && failures < FAILURES_MAX {
                        let middle_s = from_s + (to_s - from_s) / (2 * DAY_S) * DAY_S;
                        spans.extend([(middle_s, to_s), (from_s, middle_s)]);
                    } else {
                        all.insert(from_s, to_s);
                    }
                }
            }
        }
        Ok(all)
    }

    /// The starts of the first and the last round that has a row, as far as pages can be read.
    pub(super) async fn extent_of_rows(&mut self) -> Result<Option<(u64, u64)>, StoreError> {
        let from = "SELECT round FROM part WHERE round >= ? ORDER BY round LIMIT 1";
        let until = "SELECT round FROM part WHERE round <= ? ORDER BY round DESC LIMIT 1";
        let first = self.end_of_rows(from, 0, SECONDS_END).await?;
        let last = self.end_of_rows(until, SECONDS_END, 0).await?;
        Ok(first.zip(last))
    }

    /// The first row from one end of time on, towards the other. Where a page in its way is
    /// damaged: the first beyond the damage, found by halving.
    async fn end_of_rows(
        &mut self,
        select: &'static str,
        mut near: u64,
        mut far: u64,
    ) -> Result<Option<u64>, StoreError> {
        match one(&mut self.connection, select, near).await {
            Err(error) if is_damage(&error) => {}
            other => return Ok(other?),
        }
        while near.abs_diff(far) > 1 {
            let middle = near.midpoint(far);
            match one(&mut self.connection, select, middle).await {
                Ok(_) => far = middle,
                Err(error) if is_damage(&error) => near = middle,
                Err(error) => return Err(error.into()),
            }
        }
        // What lies in the damaged stretch itself is asked for round by round when it is read.
        let there = one(&mut self.connection, select, far).await;
        dispensable(there, "all parts that stand in rows")
    }
}
