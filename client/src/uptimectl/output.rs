//! The ways out: standard output, standard error, a file.
//!
//! Owns how records become JSON and CSV, and that no byte of a foreign text does harm on the way.
//! A reader that goes away (`| head`) is no failure.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use uptime_client::v1::Freshness;

use crate::text::{clean, is_hostile};

/// What a command has to say.
#[derive(Debug)]
pub(crate) struct Reply {
    /// For standard output, lines ended.
    pub(crate) text: String,
    /// Of the answer; goes to standard error.
    pub(crate) freshness: Option<Freshness>,
    /// The text says itself how fresh it is.
    pub(crate) says_freshness: bool,
    /// For standard error, one line each.
    pub(crate) notes: Vec<String>,
    /// The exit status.
    pub(crate) status: u8,
}

impl Reply {
    /// An answer without remarks.
    pub(crate) fn new(text: String, freshness: Freshness) -> Self {
        let freshness = Some(freshness);
        Self { text, freshness, says_freshness: false, notes: Vec::new(), status: 0 }
    }

    /// A text that is no answer of an aggregator's.
    pub(crate) fn of_our_own(text: String) -> Self {
        Self { text, freshness: None, says_freshness: true, notes: Vec::new(), status: 0 }
    }

    /// With a remark, if there is one.
    pub(crate) fn note(mut self, note: Option<String>) -> Self {
        self.notes.extend(note);
        self
    }
}

/// Wrong usage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misuse(pub(crate) String);

/// The record as indented JSON. Hostile characters stand as `\u` escapes: the same JSON, harmless
/// on a terminal.
pub(crate) fn json(record: &impl Serialize) -> anyhow::Result<String> {
    Ok(harmless(&serde_json::to_string_pretty(record)?))
}

/// The same on one line.
pub(crate) fn json_line(record: &impl Serialize) -> anyhow::Result<String> {
    Ok(harmless(&serde_json::to_string(record)?))
}

fn harmless(plain: &str) -> String {
    let mut text = String::with_capacity(plain.len() + 1);
    for letter in plain.chars() {
        // Line ends stand between tokens only; those within strings are escaped already.
        if is_hostile(letter) && letter != '\n' {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(letter);
        }
    }
    text.push('\n');
    text
}

/// Rows under a header as CSV. Hostile characters are written out, as in tables.
pub(crate) fn csv<const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> anyhow::Result<String> {
    let header = header.map(str::to_owned);
    csv_rows(std::iter::once(header).chain(rows))
}

/// Rows as CSV, without a header.
pub(crate) fn csv_rows<const N: usize>(
    rows: impl Iterator<Item = [String; N]>,
) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row.iter().map(|text| clean(text).into_owned()))?;
    }
    let bytes = writer.into_inner().context("writing CSV")?;
    Ok(String::from_utf8(bytes)?)
}

/// A field that may be empty.
pub(crate) fn field<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Writes to standard output; `false`: its reader has gone.
pub(crate) fn put(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing to standard output"),
    }
}

/// A file that takes another's place once it is whole, or is written straight to where a rename
/// makes no sense, as a device.
#[derive(Debug)]
pub(crate) struct Replacement {
    out: BufWriter<File>,
    path: PathBuf,
    temporary: Option<PathBuf>,
}

impl Replacement {
    /// Begins beside the file at `path`.
    pub(crate) fn begin(path: &Path) -> anyhow::Result<Self> {
        // Of a link, what it points to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let device = fs::metadata(&path).is_ok_and(|there| !there.is_file());
        let temporary = (!device).then(|| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(".new");
            path.with_file_name(name)
        });
        let written = temporary.as_ref().unwrap_or(&path);
        let file =
            File::create(written).with_context(|| format!("cannot write {}", written.display()))?;
        Ok(Self { out: BufWriter::new(file), path, temporary })
    }

    /// Adds to it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.out.write_all(bytes);
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Syncs it and puts it in its place.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let context = || format!("cannot write {}", self.path.display());
        self.out.flush().with_context(context)?;
        let Some(temporary) = self.temporary.take() else {
            return Ok(());
        };
        let synced = self.out.get_ref().sync_all();
        synced.and_then(|()| fs::rename(&temporary, &self.path)).with_context(context)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It was not finished; what is left of it is of no use to anyone.
            fs::remove_file(temporary).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_and_harmless() {
        let hostile = "a\"\u{1b}[2J\u{9b}\u{7f}\n\u{202e}\u{e0041}ä";
        let text = json(&[hostile]).unwrap();
        assert!(!text.contains(|letter| is_hostile(letter) && letter != '\n'), "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [hostile]);
        let line = json_line(&[hostile]).unwrap();
        assert!(!line.trim_end_matches('\n').contains(is_hostile), "{line}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&line).unwrap(), [hostile]);
    }

    #[test]
    fn csv_is_quoted_and_harmless() {
        let rows = [["a,\"b\"".to_owned(), "\u{1b}\n".to_owned()]];
        let text = csv(["one", "two"], rows.into_iter()).unwrap();
        assert_eq!(text, "one,two\n\"a,\"\"b\"\"\",\\u{1b}\\n\n");
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nodes.csv");
        fs::write(&path, "before").unwrap();
        let mut given_up = Replacement::begin(&path).unwrap();
        given_up.write(b"half").unwrap();
        drop(given_up);
        assert_eq!(fs::read(&path).unwrap(), b"before");
        let mut whole = Replacement::begin(&path).unwrap();
        whole.write(b"after").unwrap();
        whole.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let mut device = Replacement::begin(Path::new("/dev/null")).unwrap();
        device.write(b"gone").unwrap();
        device.finish().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
