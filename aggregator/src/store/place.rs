//! The embedded store as files: which belong to it, and putting a database where one is wanted.
//!
//! Owns the names beside a database (`-wal`, `-shm`, `-journal`), which the database believes
//! whatever file they lie beside: one that was left by another database turns the new one into a
//! malformed one, or silently into the old one. Owns, too, that what is written goes into the files
//! that lie under these names: who wrote on into files that were moved away would acknowledge into
//! nothing. Refuses to overwrite, and to delete, any of them.
//!
//! Never opens a file of a database that is in use: closing it would take the locks away that this
//! process has on it through the database itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Sqlite, Transaction};

use super::error::{StoreError, companions};
pub use super::error::{advice, with_ending};
use crate::disk::{named, sync_directory_of};

/// Names that are tried for what is set aside.
const ASIDE_MAX: u32 = 10_000;

/// All the files of a database, whether they are there or not; its own comes last.
pub(super) fn all_files(database: &Path) -> impl Iterator<Item = PathBuf> + '_ {
    companions(database).chain([database.to_owned()])
}

/// Whether anything is there under this name, if only a link to nothing.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Gives what lies beside a database another name, so that no other database takes it for its own;
/// answers the new names.
///
/// # Errors
/// With the file that stays.
pub fn set_companions_aside(database: &Path) -> io::Result<Vec<PathBuf>> {
    let mut aside = Vec::new();
    for path in companions(database).filter(|path| is_there(path)) {
        let mut free = (1..ASIDE_MAX).map(|number| with_ending(&path, &format!(".aside-{number}")));
        let free = free.find(|path| !is_there(path));
        let free = free.ok_or_else(|| io::Error::other("too much was set aside here"));
        let free = free.map_err(|error| named(error, &path))?;
        std::fs::rename(&path, &free).map_err(|error| named(error, &path))?;
        tracing::warn!(
            file = %path.display(),
            aside = %free.display(),
            "this was left by another database and is set aside"
        );
        aside.push(free);
    }
    if !aside.is_empty() {
        sync_directory_of(database)?;
    }
    Ok(aside)
}

/// Puts a closed database where nothing is, with nothing of another one beside it; it and the
/// directory are synced. Answers what was set aside.
///
/// # Errors
/// When something is there already, or cannot be moved.
pub fn put_in_place(from: &Path, to: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let there = || StoreError::Path {
        path: to.to_owned(),
        detail: format!("it is there already and is not overwritten; {}", advice(to)),
    };
    if is_there(to) {
        return Err(there());
    }
    File::open(from).and_then(|file| file.sync_all()).map_err(|error| named(error, from))?;
    let aside = set_companions_aside(to)?;
    match std::fs::hard_link(from, to) {
        Ok(()) => std::fs::remove_file(from).map_err(|error| named(error, from))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(there()),
        // Where the file system knows no links.
        Err(_) => std::fs::rename(from, to).map_err(|error| named(error, to))?,
    }
    sync_directory_of(to)?;
    Ok(aside)
}

/// What is to be told before a commit, so that nothing is stored that nobody learnt of.
pub(super) type Delivery = Option<Box<dyn FnOnce() -> io::Result<()> + Send + Sync>>;

/// Tells it. Whoever gets an error takes back what was to be committed.
pub(super) fn deliver(delivery: &mut Delivery) -> Result<(), StoreError> {
    delivery.take().map_or(Ok(()), |tell| tell().map_err(StoreError::Untold))
}

/// The files of a database as they were when it was opened. Once one of them is gone, or another
/// file is under its name, nothing is written any more until the database is opened anew: what is
/// in memory would not be what is stored, even if the file came back.
#[derive(Debug)]
pub(super) struct Opened {
    /// Each with device and inode, from when it was first there.
    files: [(PathBuf, OnceLock<(u64, u64)>); 3],
    /// What was found.
    gone: OnceLock<String>,
    /// Why nothing can be written, where it was opened for reading alone.
    read_only: Option<String>,
}

impl Opened {
    /// Of a database that was just opened. The first check notes what is there: not before it was
    /// read from, since until then its last user may take `-wal` and `-shm` away.
    pub(super) fn new(database: &Path) -> Self {
        let file = |ending| (with_ending(database, ending), OnceLock::new());
        let files = ["", "-wal", "-shm"].map(file);
        Self { files, gone: OnceLock::new(), read_only: None }
    }

    /// The same, for reading alone.
    pub(super) fn read_only(self, why: String) -> Self {
        Self { read_only: Some(why), ..self }
    }

    /// Why nothing can be written, where that is so.
    pub(super) fn why_read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    /// Fails when what was opened is not what lies there now, or is for reading alone.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if let Some(why) = &self.read_only {
            return Err(StoreError::ReadOnly(why.clone()));
        }
        if self.gone.get().is_none()
            && let Some(what) = self.files.iter().find_map(not_the_one)
        {
            self.gone.set(what).ok();
        }
        match self.gone.get() {
            None => Ok(()),
            Some(what) => Err(StoreError::Gone(what.clone())),
        }
    }

    /// Begins to write.
    pub(super) async fn begin<'c>(
        &self,
        connection: &'c mut SqliteConnection,
    ) -> Result<Transaction<'c, Sqlite>, StoreError> {
        self.check()?;
        Ok(connection.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Ends to write: when this returns `Ok`, it is in the file that lies there.
    pub(super) async fn commit(
        &self,
        transaction: Transaction<'_, Sqlite>,
    ) -> Result<(), StoreError> {
        transaction.commit().await?;
        self.check()
    }
}

fn not_the_one((path, identity): &(PathBuf, OnceLock<(u64, u64)>)) -> Option<String> {
    match (path.metadata(), identity.get()) {
        (Ok(file), None) => {
            identity.set((file.dev(), file.ino())).ok();
            None
        }
        (Ok(file), Some(there)) if (file.dev(), file.ino()) == *there => None,
        (Ok(_), Some(_)) => Some(format!("{} is another file now", path.display())),
        (Err(error), Some(_)) => Some(format!("{} is gone ({error})", path.display())),
        (Err(_), None) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::disk::tests::names;

    #[test]
    fn what_another_database_left_is_set_aside_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["a", "a-wal", "a-shm", "a-wal.aside-1"] {
            std::fs::write(at(name), name).unwrap();
        }
        let fault = put_in_place(&at("new"), &at("a")).unwrap_err().to_string();
        for wanted in ["not overwritten", "move a out of", "a-wal", "a-shm", "a-journal"] {
            assert!(fault.contains(wanted), "{fault}");
        }
        std::fs::remove_file(at("a")).unwrap();
        std::fs::write(at("new"), "new").unwrap();
        let aside = put_in_place(&at("new"), &at("a")).unwrap();
        assert_eq!(aside, [at("a-wal.aside-2"), at("a-shm.aside-1")]);
        assert_eq!(
            names(directory.path()),
            ["a", "a-shm.aside-1", "a-wal.aside-1", "a-wal.aside-2"]
        );
        assert_eq!(std::fs::read(at("a")).unwrap(), b"new");
        assert_eq!(std::fs::read(at("a-wal.aside-1")).unwrap(), b"a-wal.aside-1");
    }
}
