//! The quarantine: damaged files, kept for people to look at.
//!
//! Owns their names and how many are kept. Never reads a quarantined file again.

use std::io;
use std::path::{Path, PathBuf};

/// Files that are kept; the oldest are deleted.
const FILES_MAX: usize = 8;
/// They may take one part in this many of the spool's size limit.
const BYTES_SHARE: u64 = 8;

/// The quarantined files and their sizes, oldest first.
pub(super) fn list(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.contains(".spool.") && name.ends_with(".damaged")) {
            let bytes = path.metadata().map_or(0, |of| of.len());
            found.push((path, bytes));
        }
    }
    // By segment number: names begin with it, padded.
    found.sort();
    Ok(found)
}

/// The size of all quarantined files.
pub(super) fn bytes(directory: &Path) -> u64 {
    list(directory).map_or(0, |files| files.iter().map(|(_, bytes)| bytes).sum())
}

/// The highest number of a quarantined segment.
pub(super) fn last_number(directory: &Path) -> u64 {
    let files = list(directory).unwrap_or_default();
    let number = |(path, _): &(PathBuf, u64)| -> Option<u64> {
        path.file_name()?.to_str()?.split('.').next()?.parse().ok()
    };
    files.iter().filter_map(number).max().unwrap_or(0)
}

/// A free name in the quarantine for this file.
pub(super) fn name_for(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    let mut free = PathBuf::from(&name);
    let mut count = 1;
    while free.exists() && count < 100 {
        count += 1;
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{count}.damaged"));
        free = PathBuf::from(name);
    }
    free
}

/// Renames a damaged file, then deletes the oldest files beyond the limits.
pub(super) fn add(path: &Path, bytes_max: u64) -> io::Result<PathBuf> {
    let to = name_for(path);
    std::fs::rename(path, &to)?;
    tracing::warn!(file = %to.display(), "damaged spool file quarantined");
    if let Some(directory) = path.parent() {
        keep_within(directory, bytes_max / BYTES_SHARE);
    }
    Ok(to)
}

/// Deletes the oldest files while they are too many or too large together.
fn keep_within(directory: &Path, bytes_max: u64) {
    let Ok(files) = list(directory) else {
        return;
    };
    let mut count = files.len();
    let mut bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    for (path, size) in files {
        if count <= FILES_MAX && bytes <= bytes_max {
            return;
        }
        remove(&path);
        count -= 1;
        bytes -= size;
    }
}

/// Deletes the oldest file. Returns whether there was one.
pub(super) fn remove_oldest(directory: &Path) -> bool {
    let oldest = list(directory).ok().and_then(|files| files.into_iter().next());
    oldest.is_some_and(|(path, _)| remove(&path))
}

/// Applies the limits, as after a repair.
pub(super) fn tidy(directory: &Path, bytes_max: u64) {
    keep_within(directory, bytes_max / BYTES_SHARE);
}

fn remove(path: &Path) -> bool {
    let removed = std::fs::remove_file(path);
    match &removed {
        Ok(()) => tracing::warn!(file = %path.display(), "quarantined spool file deleted"),
        Err(error) => {
            tracing::warn!(%error, file = %path.display(), "cannot delete a quarantined file");
        }
    }
    removed.is_ok()
}
