//! Looking after what is stored, on the aggregator's own host: `verify`, `backup` and `restore`.
//!
//! Owns what these commands do and say. Refuses to overwrite anything, and to mend anything: what
//! is damaged stays as it is, to be looked at.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::disk::sync_directory_of;
use crate::ledger::kept_state_agrees;
use crate::store::{Checked, Progress, STORE_FILE_NAME, SqliteStore, Store, StoreError};

/// Why looking after a store failed.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no store.
    #[error("{0} holds no store; give the directory that serve was given with --data-dir")]
    Missing(PathBuf),
    /// Something is there already.
    #[error("{0} is there already and is not overwritten; move it away or choose another place")]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A backup is damaged.
    #[error("{path} is damaged and was not restored: {fault}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// The first fault.
        fault: String,
    },
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> UpkeepError + '_ {
    move |source| UpkeepError::File { path: path.to_owned(), source }
}

async fn open_existing(data_dir: &Path) -> Result<SqliteStore, UpkeepError> {
    if !SqliteStore::exists(data_dir) {
        return Err(UpkeepError::Missing(data_dir.to_owned()));
    }
    Ok(SqliteStore::open(data_dir).await?)
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
            "{} parts in rows, {} in packed days, {} node ids; {} faults",
            checked.parts, checked.packed_parts, checked.nodes, checked.faults_in_all
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
    let mut store = open_existing(data_dir).await?;
    let bar = progress_bar();
    let checked = store
        .check(&mut |Progress { done, of }| {
            bar.set_length(of);
            bar.set_position(done);
        })
        .await?;
    bar.set_message("rebuilding the state");
    let state = kept_state_agrees(&mut store, now_ms).await;
    bar.finish_and_clear();
    let state = match state {
        Ok(state) => state,
        Err(error) if checked.faults_in_all > 0 => {
            tracing::warn!(%error, "the state could not be rebuilt");
            None
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Verified { checked, state })
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

/// Writes a consistent copy of the store into a new file, synced; works beside a running serve.
/// Answers its length.
///
/// # Errors
/// When the file is there already, or the store cannot be read or the file written.
pub async fn backup(data_dir: &Path, to: &Path) -> Result<u64, UpkeepError> {
    let mut store = open_existing(data_dir).await?;
    if to.exists() {
        return Err(UpkeepError::Exists(to.to_owned()));
    }
    let partial = beside(to, ".partial");
    remove_if_there(&partial)?;
    store.copy_to(&partial).await?;
    let file = File::open(&partial).map_err(file_error(&partial))?;
    file.sync_all().map_err(file_error(&partial))?;
    let length = file.metadata().map_err(file_error(&partial))?.len();
    put_in_place(&partial, to)?;
    Ok(length)
}

/// Makes a store of a backup in a data directory that has none, under a new generation. The backup
/// is checked first.
///
/// # Errors
/// When there is a store already, the backup is damaged, or files cannot be read or written.
pub async fn restore(from: &Path, data_dir: &Path) -> Result<u64, UpkeepError> {
    let to = data_dir.join(STORE_FILE_NAME);
    if to.exists() {
        return Err(UpkeepError::Exists(to));
    }
    File::open(from).map_err(file_error(from))?;
    std::fs::create_dir_all(data_dir).map_err(file_error(data_dir))?;
    let partial = data_dir.join("restore.partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(file_error(&partial))?;
    }
    std::fs::create_dir(&partial).map_err(file_error(&partial))?;
    let copy = partial.join(STORE_FILE_NAME);
    std::fs::copy(from, &copy).map_err(file_error(from))?;
    let damaged = |fault| UpkeepError::Damaged { path: from.to_owned(), fault };
    let mut store =
        SqliteStore::open(&partial).await.map_err(|error| damaged(error.to_string()))?;
    let bar = progress_bar();
    let checked = store
        .check(&mut |Progress { done, of }| {
            bar.set_length(of);
            bar.set_position(done);
        })
        .await;
    bar.finish_and_clear();
    let checked = checked.map_err(|error| damaged(error.to_string()))?;
    if let Some(fault) = checked.faults.into_iter().next() {
        return Err(damaged(fault));
    }
    let generation = store.raise_generation().await?;
    store.close().await?;
    File::open(&copy).and_then(|file| file.sync_all()).map_err(file_error(&copy))?;
    put_in_place(&copy, &to)?;
    std::fs::remove_dir_all(&partial).map_err(file_error(&partial))?;
    Ok(generation)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn remove_if_there(path: &Path) -> Result<(), UpkeepError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(path)(error)),
        _ => Ok(()),
    }
}

/// Renames a synced file to where nothing is, and syncs the directory.
fn put_in_place(from: &Path, to: &Path) -> Result<(), UpkeepError> {
    std::fs::rename(from, to).and_then(|()| sync_directory_of(to)).map_err(file_error(to))
}
