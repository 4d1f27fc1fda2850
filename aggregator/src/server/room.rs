//! A full disk at the start: the store is served for reading until there is room.
//!
//! Owns the question whether there is. Refuses to make any.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// How often it is tried.
const TRY_EVERY: Duration = Duration::from_secs(5);
/// What a store needs to begin with, and some more, so that it does not end at once.
const WANTED_BYTES: usize = 4 << 20;

/// Waits until so much can be written in a directory; for ever where there is none to try.
pub(super) async fn comes(data_dir: Option<&Path>) {
    let Some(data_dir) = data_dir else {
        return std::future::pending().await;
    };
    let mut tries = tokio::time::interval(TRY_EVERY);
    loop {
        tries.tick().await;
        let path = data_dir.join("room.try");
        let tried = tokio::task::spawn_blocking(move || {
            let written = write(&path);
            // What was written goes in any case.
            std::fs::remove_file(&path).and(written)
        });
        if matches!(tried.await, Ok(Ok(()))) {
            tracing::info!("disk has free space again: restarting");
            return;
        }
    }
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&vec![0; WANTED_BYTES])?;
    file.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_there_is_room_it_comes_at_once_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        comes(Some(directory.path())).await;
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
