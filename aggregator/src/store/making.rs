//! Making, opening and bringing up to date the embedded store.
//!
//! Owns which of the three is done when. A store is made whole, beside its place, and then put
//! there, so that a half-made one is never taken for one. Refuses what is empty or another
//! program's, and to touch any of it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode,
    SqliteSynchronous,
};

use super::connection::{Compacted, FILE_NAME, RoundParts, SqliteStore};
use super::damage::{is_damage, vital};
use super::error::StoreError;
use super::schema::{ADDED, COMPACTED_IDS, SCHEMA, SCHEMA_VERSION};
use super::{ids, place};
use crate::disk::named;

/// What is written ahead is given back to the system beyond this, once it is in the file: while
/// somebody reads for long it grows by all that is written.
const WAL_BYTES_KEPT: &str = "16777216";
/// How long another process (`probe add`) may hold the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a file cannot be opened, and what to do about it.
fn cannot_open(path: &Path, error: sqlx::Error) -> StoreError {
    // Before damage, which is told by reading: both are errors of the disk to the database.
    if code_of(&error).is_some_and(|code| NO_ROOM_CODES.contains(&code)) {
        return StoreError::NoRoom { path: path.to_owned(), detail: error.to_string() };
    }
    let detail = if is_damage(&error) {
        format!(
            "{error}: it is no database or does not tell its tables any more; {}; keep them, and \
             restore a backup: uptime-aggregator restore --help",
            place::advice(path)
        )
    } else {
        error.to_string()
    };
    StoreError::Path { path: path.to_owned(), detail }
}

/// `SQLITE_FULL`, `SQLITE_READONLY`, `SQLITE_CANTOPEN`, and of `SQLITE_IOERR` those of writing,
/// syncing, shortening, and of the index of what was written ahead.
const NO_ROOM_CODES: [i64; 11] = [13, 8, 14, 778, 1_034, 1_290, 1_546, 4_618, 4_874, 5_130, 5_386];

fn code_of(error: &sqlx::Error) -> Option<i64> {
    error.as_database_error()?.code()?.parse().ok()
}

fn is_for_want_of_room(error: &StoreError) -> bool {
    match error {
        StoreError::NoRoom { .. } => true,
        StoreError::Database(error) => {
            code_of(error).is_some_and(|code| NO_ROOM_CODES.contains(&code))
        }
        _ => false,
    }
}

impl SqliteStore {
    /// The version of the tables that this program works with.
    pub const VERSION: i64 = SCHEMA_VERSION;

    /// Opens the store in a data directory, making both where missing, and brings it up to date.
    /// Whoever does so beside others has the directory's lock.
    ///
    /// # Errors
    /// When the directory cannot be used, the file is no store or newer than this program.
    pub async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        if !Self::exists(data_dir) {
            Self::create(data_dir).await?;
        }
        let mut store = Self::connect(&data_dir.join(FILE_NAME)).await?;
        store.migrate().await?;
        store.opened.check()?;
        Ok(store)
    }

    /// As [`SqliteStore::open`]; where the disk has no room for what a database needs beside its
    /// file, for reading alone. No other process can use it then.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_if_only_to_read(data_dir: &Path) -> Result<Self, StoreError> {
        match Self::open(data_dir).await {
            Err(error) if Self::exists(data_dir) && is_for_want_of_room(&error) => {
                let path = data_dir.join(FILE_NAME);
                // The index of what was written ahead is in memory.
                let options = Self::options(&path)
                    .locking_mode(SqliteLockingMode::Exclusive)
                    .pragma("query_only", "ON");
                let store = Self::connect_with(&path, &options).await;
                let Ok(mut store) = store else { return Err(error) };
                match store.version().await {
                    Ok(SCHEMA_VERSION) => {}
                    _ => return Err(error),
                }
                store.opened = store.opened.read_only(error.to_string());
                Ok(store)
            }
            opened => opened,
        }
    }

    /// Whether no serve has worked with this store yet, and nothing was imported into it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn is_unused(&mut self) -> Result<bool, StoreError> {
        let select = "SELECT NOT EXISTS (SELECT 1 FROM epoch)
             AND NOT EXISTS (SELECT 1 FROM opening_head)";
        let unused = sqlx::query_scalar(select).fetch_one(&mut self.connection).await;
        vital(unused, "the epochs")
    }

    /// Why nothing can be written, where that is so.
    #[must_use]
    pub fn why_read_only(&self) -> Option<&str> {
        self.opened.why_read_only()
    }

    /// Opens the store in a data directory as it is: nothing is made, and nothing brought up to
    /// date.
    ///
    /// # Errors
    /// When there is none, or it is not of this program's version.
    pub async fn open_existing(data_dir: &Path) -> Result<Self, StoreError> {
        let (store, found) = Self::look(data_dir).await?;
        let path = store.path.clone();
        match found {
            SCHEMA_VERSION => Ok(store),
            found => Err(StoreError::TooOld { path, found, known: SCHEMA_VERSION }),
        }
    }

    /// The version of the tables of the store in a data directory, which may be an older one.
    ///
    /// # Errors
    /// When there is no store, or it is newer than this program.
    pub async fn found_version(data_dir: &Path) -> Result<i64, StoreError> {
        let (store, found) = Self::look(data_dir).await?;
        store.connection.close().await?;
        Ok(found)
    }

    async fn look(data_dir: &Path) -> Result<(Self, i64), StoreError> {
        let path = data_dir.join(FILE_NAME);
        if !Self::exists(data_dir) {
            return Err(StoreError::Missing(std::path::absolute(&path).unwrap_or(path)));
        }
        let mut store = Self::connect(&path).await?;
        let found = store.version().await?;
        store.opened.check()?;
        Ok((store, found))
    }

    /// Makes an empty store, whole or not at all.
    async fn create(data_dir: &Path) -> Result<(), StoreError> {
        std::fs::create_dir_all(data_dir).map_err(|error| StoreError::Path {
            path: data_dir.to_owned(),
            detail: format!("{error}; give a directory this user may write with --data-dir"),
        })?;
        let path = data_dir.join(FILE_NAME);
        let new = place::with_ending(&path, ".new");
        for left in place::all_files(&new) {
            match std::fs::remove_file(&left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(named(error, &left).into());
                }
                _ => {}
            }
        }
        let options = Self::options(&new)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .auto_vacuum(SqliteAutoVacuum::Incremental);
        let mut store = Self::connect_with(&new, &options).await?;
        store.make_tables().await?;
        store.close().await?;
        place::put_in_place(&new, &path)?;
        Ok(())
    }

    /// Has something told before the next enrolment or renewal is committed; if it cannot be,
    /// nothing is.
    pub fn tell_before_commit(
        &mut self,
        tell: impl FnOnce() -> io::Result<()> + Send + Sync + 'static,
    ) {
        self.delivery = Some(Box::new(tell));
    }

    fn options(path: &Path) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", WAL_BYTES_KEPT)
            .busy_timeout(BUSY_TIMEOUT)
    }

    /// A connection to the file of a store that is there.
    pub(super) async fn connect(path: &Path) -> Result<Self, StoreError> {
        if path.metadata().is_ok_and(|file| file.len() == 0) {
            return Err(StoreError::Foreign { path: path.to_owned(), what: "an empty file" });
        }
        Self::connect_with(path, &Self::options(path)).await
    }

    async fn connect_with(path: &Path, options: &SqliteConnectOptions) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let connection = SqliteConnection::connect_with(options).await;
        let connection = connection.map_err(|error| cannot_open(&path, error))?;
        Ok(Self {
            connection,
            opened: place::Opened::new(&path),
            delivery: None,
            path,
            bases: HashMap::new(),
            compacted: Compacted::default(),
            round_parts: RoundParts::default(),
            writer: None,
            data_version: None,
        })
    }

    /// The version of the store's tables.
    async fn version(&mut self) -> Result<i64, StoreError> {
        let path = self.path.clone();
        let select = "SELECT user_version, (SELECT count(*) FROM sqlite_schema WHERE name = 'meta')
             FROM pragma_user_version";
        let (found, tables): (i64, i64) = sqlx::query_as(select)
            .fetch_one(&mut self.connection)
            .await
            .map_err(|error| cannot_open(&path, error))?;
        if found > SCHEMA_VERSION {
            return Err(StoreError::TooNew { path, found, known: SCHEMA_VERSION });
        }
        if found < 1 || tables == 0 {
            let what = "a database, but not a store of this program";
            return Err(StoreError::Foreign { path, what });
        }
        Ok(found)
    }

    /// The first version of the tables, and what stands in them from the beginning.
    async fn make_tables(&mut self) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO subnet VALUES (0, '')").execute(&mut *transaction).await?;
        let store_id: [u8; 16] = rand::random();
        let insert = "INSERT INTO meta VALUES ('store_id', ?), ('generation', ?)";
        sqlx::query(insert)
            .bind(store_id.as_slice())
            .bind(1u64.to_le_bytes().as_slice())
            .execute(&mut *transaction)
            .await?;
        sqlx::raw_sql("PRAGMA user_version = 1").execute(&mut *transaction).await?;
        transaction.commit().await?;
        self.migrate().await
    }

    /// Brings the tables up to date, in one transaction; where they are, nothing is written.
    async fn migrate(&mut self) -> Result<(), StoreError> {
        if self.version().await? < SCHEMA_VERSION {
            let path = self.path.clone();
            self.add_tables().await.map_err(|error| match error {
                StoreError::Database(error) if is_damage(&error) => cannot_open(&path, error),
                error => error,
            })?;
        }
        // A backup that was put here by hand is not written ahead yet.
        sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&mut self.connection).await?;
        Ok(())
    }

    async fn add_tables(&mut self) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let found: i64 =
            sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await?;
        for (version, added) in ADDED {
            if found < version {
                sqlx::raw_sql(added).execute(&mut *transaction).await?;
                if version == COMPACTED_IDS {
                    ids::compact(&mut transaction).await?;
                }
                let raise = format!("PRAGMA user_version = {version}");
                sqlx::raw_sql(sqlx::AssertSqlSafe(raise)).execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }
}
