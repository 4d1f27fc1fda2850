//! Looking after what is stored, on the aggregator's own host: `verify`, `backup` and `restore`.
//!
//! Owns what these commands do and say. Refuses to overwrite anything, and to mend anything: what
//! is damaged stays as it is, to be looked at.

mod backup;
mod fault;

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub use backup::{BackedUp, backup};
pub use fault::UpkeepError;
use fault::file_error;

use crate::engine::replay::checkpoint_agrees;
use crate::lock::DirectoryLock;
use crate::store::place::{put_in_place, with_ending};
use crate::store::{Checked, Progress, Registry, STORE_FILE_NAME, SqliteStore, Store, StoreError};

/// Brings a store up to date with this program, as serve does when it starts; answers what it was
/// and is.
///
/// # Errors
/// When there is none, it is in use, or cannot be written.
pub async fn migrate(data_dir: &Path) -> Result<(i64, i64), UpkeepError> {
    // First what is there, so that no directory gets a lock that has no store.
    let found = SqliteStore::found_version(data_dir).await?;
    let _lock = DirectoryLock::take(data_dir)?;
    let store = SqliteStore::open(data_dir).await?;
    store.close().await?;
    Ok((found, SqliteStore::VERSION))
}

/// What `verify` found.
#[derive(Debug)]
pub struct Verified {
    /// What is stored, against itself.
    pub checked: Checked,
    /// The state that is kept, against the one that the facts make; `None`: there is none to check.
    pub state: Option<Result<uptime_proto::Round, String>>,
}

impl Verified {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.checked.faults_in_all == 0 && !matches!(self.state, Some(Err(_)))
    }

    /// What was found, a line each: faults first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let checked = &self.checked;
        let mut lines: Vec<String> =
            checked.faults.iter().map(|fault| format!("fault: {fault}")).collect();
        let unnamed = checked.faults_in_all.saturating_sub(checked.faults.len() as u64);
        if unnamed > 0 {
            lines.push(format!("fault: and {unnamed} more"));
        }
        match &self.state {
            Some(Err(difference)) => lines.push(format!(
                "fault: the state that is kept is not the one that the facts make: {difference}; \
                 serve would go on with it until its next restart without it"
            )),
            Some(Ok(round)) => lines.push(format!(
                "the state that is kept is the one that the facts make, up to round {}",
                round.start_s()
            )),
            None => lines.push("no state is kept that could be compared with the facts".to_owned()),
        }
        lines.push(format!(
            "{} parts in rows, {} in compacted days, {} node ids; {} faults",
            checked.parts, checked.compacted_parts, checked.nodes, checked.faults_in_all
        ));
        lines
    }
}

/// Checks everything stored against itself, and rebuilds the state from the facts to compare it
/// with the one that is kept. Works beside a running serve.
///
/// # Errors
/// When the store cannot be opened or read at all. Faults are no errors: see [`Verified`].
pub async fn verify(data_dir: &Path, now_ms: i64) -> Result<Verified, UpkeepError> {
    let mut store = SqliteStore::open_existing(data_dir).await?;
    // One moment for all of it: a probe that drains its spool would look like a fault of the state.
    store.hold().await?;
    verify_held(&mut store, now_ms).await
}

/// As [`verify`], of a store that reads one moment.
///
/// # Errors
/// As [`verify`].
pub async fn verify_held(store: &mut SqliteStore, now_ms: i64) -> Result<Verified, UpkeepError> {
    let bar = progress_bar();
    let checked = check(store, &bar).await?;
    bar.set_message("rebuilding the state");
    let state = checkpoint_agrees(store, now_ms).await;
    bar.finish_and_clear();
    let state = match state {
        Ok(state) => state,
        Err(error) if checked.faults_in_all > 0 => {
            tracing::warn!(%error, "cannot rebuild the state");
            None
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Verified { checked, state })
}

/// Checks everything stored against itself, and shows how far that is.
async fn check(store: &mut SqliteStore, bar: &ProgressBar) -> Result<Checked, StoreError> {
    let mut told = |Progress { done, of }| {
        bar.set_length(of);
        bar.set_position(done);
    };
    store.check(&mut told).await
}

/// On a terminal; nothing in a pipe.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let template = "{msg} {wide_bar} {human_pos}/{human_len} parts {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message("checking");
    bar
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The store's generation from now on.
    pub generation: u64,
    /// What another store had left where this one is now, under its new names.
    pub aside: Vec<PathBuf>,
}

/// Makes a store of a backup in a data directory that has none, under a new generation. The backup
/// is checked first, and the store again where it is to be used. A backup of an earlier version
/// of this program is brought up to date on the way: nobody else knows the copy.
///
/// # Errors
/// When there is a store already, the backup is damaged, or files cannot be read or written.
pub async fn restore(from: &Path, data_dir: &Path) -> Result<Restored, UpkeepError> {
    let to = data_dir.join(STORE_FILE_NAME);
    if to.symlink_metadata().is_ok() {
        return Err(UpkeepError::StoreExists(to));
    }
    let length = from.metadata().map_err(file_error(from))?.len();
    if with_ending(from, "-wal").metadata().is_ok_and(|wal| wal.len() > 0) {
        return Err(UpkeepError::NotABackup(from.to_owned()));
    }
    let damaged = |fault| UpkeepError::Damaged { path: from.to_owned(), fault };
    if length == 0 {
        return Err(damaged("it is empty".to_owned()));
    }
    std::fs::create_dir_all(data_dir).map_err(file_error(data_dir))?;
    let _lock = DirectoryLock::take(data_dir)?;
    let partial = data_dir.join("restore.partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(file_error(&partial))?;
    }
    std::fs::create_dir(&partial).map_err(file_error(&partial))?;
    let copy = partial.join(STORE_FILE_NAME);
    std::fs::copy(from, &copy).map_err(file_error(from))?;
    let checked = checked(&partial).await.map_err(damaged)?;
    let generation = checked.raise_generation_and_close().await?;
    let aside = put_in_place(&copy, &to)?;
    std::fs::remove_dir_all(&partial).map_err(file_error(&partial))?;
    check_in_place(data_dir, generation).await?;
    Ok(Restored { generation, aside })
}

/// A store in which nothing is wrong; else the first fault of it.
async fn checked(data_dir: &Path) -> Result<SqliteStore, String> {
    let mut store = SqliteStore::open(data_dir).await.map_err(|error| error.to_string())?;
    let bar = progress_bar();
    let checked = check(&mut store, &bar).await;
    bar.finish_and_clear();
    match checked.map_err(|error| error.to_string())?.faults.into_iter().next() {
        None => Ok(store),
        Some(fault) => Err(fault),
    }
}

/// That what is read under the store's name is what was just put there: pages, and the generation,
/// which nothing older can have.
async fn check_in_place(data_dir: &Path, generation: u64) -> Result<(), UpkeepError> {
    let damaged = |fault| UpkeepError::InPlace { path: data_dir.join(STORE_FILE_NAME), fault };
    let store = SqliteStore::open(data_dir).await;
    let mut store = store.map_err(|error| damaged(error.to_string()))?;
    if let Some(fault) = store.first_page_fault().await? {
        return Err(damaged(fault));
    }
    let there = store.catalogue().await.map_err(|error| damaged(error.to_string()))?.generation;
    store.close().await?;
    if there != generation {
        return Err(damaged(format!("its generation is {there} and not {generation}")));
    }
    Ok(())
}
