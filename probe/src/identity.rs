//! A random name that tells probes on one daemon apart, stored with the spool.
//!
//! Owns the file. The name sets the probe's jitter and marks its demands, so that it deletes only
//! its own. It is not a secret, and not the name by which the aggregator knows the probe.

use std::io;
use std::path::Path;

use crate::atomic_file;

const FILE: &str = "probe-id";
/// Random bytes in a name; it is written in hexadecimal.
const BYTES: usize = 16;

/// The name stored in a directory; creates it the first time. If it cannot be stored, a name for
/// this run only: demands that an earlier run left then end by themselves.
#[must_use]
pub fn kept(directory: &Path) -> String {
    let path = directory.join(FILE);
    let read = std::fs::read_to_string(&path);
    match &read {
        Ok(text) if is_name(text.trim()) => return text.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => {
            tracing::warn!(file = %path.display(), "invalid probe name; using a new one");
        }
    }
    let name = fresh();
    if let Err(error) = atomic_file::replace(&path, format!("{name}\n").as_bytes()) {
        tracing::warn!(%error, file = %path.display(), "cannot store the probe name");
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
