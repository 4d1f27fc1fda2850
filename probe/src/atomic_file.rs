//! Replacing a small file: after a power cut the old content or the new one is there, never a part.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Writes a new file, synced, under the extension `new`, then renames it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut out = File::create(&fresh)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&fresh, path)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
