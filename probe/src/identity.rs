//! What tells this probe from others beside the same daemon: a random name, kept with its spool.
//!
//! Owns the file. The name decides the probe's place in the jitter and marks its demands, so that
//! it deletes only its own. It is no secret, and not the name the aggregator knows it by, which is
//! not known before the first connection.

use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "probe-id";
/// Bytes of a name, before it is written in hexadecimal digits.
const BYTES: usize = 16;

/// The name that is kept in a directory, made at the first time. Where it cannot be kept, one for
/// this run: two that get the same are then as unlikely as ever, and what an earlier run left at
/// the daemon ends by itself.
#[must_use]
pub fn kept(directory: &Path) -> String {
    let path = directory.join(FILE);
    let read = std::fs::read_to_string(&path);
    match &read {
        Ok(text) if is_name(text.trim()) => return text.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => {
            tracing::warn!(file = %path.display(), "this is no name of a probe; it gets a new one");
        }
    }
    let name = fresh();
    if let Err(error) = keep(&path, &name) {
        tracing::warn!(%error, file = %path.display(), "the name of this run is not kept");
    }
    name
}

/// A name for one run.
#[must_use]
pub fn fresh() -> String {
    let bytes: [u8; BYTES] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_name(text: &str) -> bool {
    text.len() == 2 * BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn keep(path: &Path, name: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut out = std::fs::File::create(&fresh)?;
    writeln!(out, "{name}")?;
    out.sync_all()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_with_its_directory() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = kept(one.path());
        assert!(is_name(&name));
        assert_eq!(kept(one.path()), name);
        assert_ne!(kept(other.path()), name);
    }

    #[test]
    fn where_it_cannot_be_kept_there_is_one_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent");
        assert!(is_name(&kept(&absent)));
        assert_ne!(kept(&absent), kept(&absent));
        // Garbage is replaced.
        std::fs::write(directory.path().join(FILE), "../../etc/passwd").unwrap();
        let name = kept(directory.path());
        assert!(is_name(&name));
        assert_eq!(kept(directory.path()), name);
    }
}
