//! `backup`: a consistent copy of the store, in a file or in a folder of which the last ones are
//! kept.
//!
//! Owns the names in such a folder, and which of them go. Refuses to overwrite, to remove what it
//! did not name itself, and to put secrets into a copy: what is not in it is named instead.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::fault::{UpkeepError, file_error};
use crate::disk::{directory_of, resolved};
use crate::store::place::{put_in_place, set_companions_aside, with_ending};
use crate::store::{SqliteStore, Store};

const BEFORE: &str = "uptime-";
const AFTER: &str = ".sqlite3";
/// Names sort as the moments they tell.
const MOMENT: &str = "%Y%m%dT%H%M%SZ";

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// Where it is.
    pub file: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// Older ones that went.
    pub removed: Vec<PathBuf>,
    /// What lies beside the store, is not in the copy, and is wanted after a loss, too.
    pub not_in_it: Vec<PathBuf>,
}

/// Writes a consistent copy of the store, synced; works beside a running serve. `to` is a new file;
/// or, with `keep`, a folder, which then has so many of them at most.
///
/// # Errors
/// When the file is there already, or the store cannot be read or the file written.
pub async fn backup(
    data_dir: &Path,
    to: &Path,
    keep: Option<NonZeroUsize>,
    now_ms: i64,
) -> Result<BackedUp, UpkeepError> {
    let mut store = SqliteStore::open_existing(data_dir).await?;
    let to = resolved(to).map_err(file_error(to))?;
    let file = match keep {
        Some(_) => {
            std::fs::create_dir_all(&to).map_err(file_error(&to))?;
            to.join(name_at(now_ms))
        }
        None if to.is_dir() => return Err(UpkeepError::Folder(to)),
        None => to.clone(),
    };
    if file.symlink_metadata().is_ok() {
        return Err(UpkeepError::Exists(file));
    }
    directory_of(&file).metadata().map_err(file_error(directory_of(&file)))?;
    let partial = with_ending(&file, ".partial");
    remove_if_there(&partial)?;
    set_companions_aside(&partial).map_err(file_error(&partial))?;
    let copied = store.copy_to(&partial).await;
    // Half a copy on a full disk would only keep it full.
    copied.inspect_err(|_| drop(std::fs::remove_file(&partial)))?;
    let bytes = partial.metadata().map_err(file_error(&partial))?.len();
    put_in_place(&partial, &file)?;
    let removed = match keep {
        Some(keep) => remove_all_but(&to, keep)?,
        None => Vec::new(),
    };
    Ok(BackedUp { file, bytes, removed, not_in_it: not_in_it(data_dir) })
}

fn name_at(now_ms: i64) -> String {
    let now = DateTime::<Utc>::from_timestamp_millis(now_ms).unwrap_or_default();
    format!("{BEFORE}{}{AFTER}", now.format(MOMENT))
}

/// Whether a name in a folder is one that was given here.
fn is_ours(name: &str) -> bool {
    let moment = name.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(AFTER));
    moment.is_some_and(|moment| chrono::NaiveDateTime::parse_from_str(moment, MOMENT).is_ok())
}

/// Removes the oldest backups of a folder; answers which went.
fn remove_all_but(folder: &Path, keep: NonZeroUsize) -> Result<Vec<PathBuf>, UpkeepError> {
    let entries = std::fs::read_dir(folder).map_err(file_error(folder))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ours: Vec<String> = names.filter(|name| is_ours(name)).collect();
    ours.sort();
    ours.truncate(ours.len().saturating_sub(keep.get()));
    let old: Vec<PathBuf> = ours.into_iter().map(|name| folder.join(name)).collect();
    for path in &old {
        std::fs::remove_file(path).map_err(file_error(path))?;
    }
    Ok(old)
}

/// The files of the authority and whatever else lies in its directory.
fn not_in_it(data_dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data_dir.join("authority")).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files
}

fn remove_if_there(path: &Path) -> Result<(), UpkeepError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(path)(error)),
        _ => Ok(()),
    }
}

impl BackedUp {
    /// What was done, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let removed = self.removed.iter().map(|path| format!("removed: {}", path.display()));
        lines.extend(removed);
        if !self.not_in_it.is_empty() {
            let files: Vec<String> =
                self.not_in_it.iter().map(|path| path.display().to_string()).collect();
            lines.push(format!(
                "the authority's files are not in it; keep a copy of them apart, for nobody else \
                 to read: {}",
                files.join(" ")
            ));
        }
        lines.push(format!("ok: {} holds the store, {} bytes", self.file.display(), self.bytes));
        lines
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_keeps_the_last_ones_and_what_is_not_ours() {
        let directory = tempfile::tempdir().unwrap();
        let (data, folder) = (directory.path().join("data"), directory.path().join("backups"));
        SqliteStore::open(&data).await.unwrap().close().await.unwrap();
        std::fs::create_dir(&folder).unwrap();
        let others = ["uptime-by-hand.sqlite3", "uptime-20260101T000000Z.sqlite3.partial", "notes"];
        for other in others {
            std::fs::write(folder.join(other), "not ours").unwrap();
        }
        let keep = NonZeroUsize::new(2);
        let day_ms = 86_400_000;
        let mut removed = Vec::new();
        for day in 0..4 {
            let done = backup(&data, &folder, keep, day * day_ms).await.unwrap();
            assert!(done.bytes > 0 && done.file.exists() && done.not_in_it.is_empty());
            removed.extend(done.removed);
        }
        let name = |day| folder.join(format!("uptime-1970010{day}T000000Z.sqlite3"));
        assert_eq!(removed, [name(1), name(2)]);
        assert!(name(3).exists() && name(4).exists());
        assert!(others.iter().all(|other| folder.join(other).exists()));
        let again = backup(&data, &folder, keep, 3 * day_ms).await;
        assert!(matches!(again, Err(UpkeepError::Exists(_))), "{again:?}");
        let wrong = backup(&data, &folder, None, 0).await.unwrap_err().to_string();
        assert!(wrong.contains("--keep"), "{wrong}");
    }

    #[tokio::test]
    async fn what_is_not_in_it_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        SqliteStore::open(&data).await.unwrap().close().await.unwrap();
        std::fs::create_dir(data.join("authority")).unwrap();
        std::fs::write(data.join("authority/ca.key"), "secret").unwrap();
        let file = directory.path().join("backup");
        let done = backup(&data, &file, None, 0).await.unwrap();
        let said = done.lines().join("\n");
        assert!(said.contains("not in it") && said.contains("authority/ca.key"), "{said}");
        assert!(!std::fs::read(&file).unwrap().windows(6).any(|it| it == b"secret"));
        let missing = backup(&data, &directory.path().join("none/backup"), None, 0).await;
        assert!(missing.is_err() && !directory.path().join("none").exists());
    }
}
