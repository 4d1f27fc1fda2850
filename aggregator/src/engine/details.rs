//! What nodes say of themselves, on disk: four bytes of memory a node.
//!
//! Owns a file without a name, to which what is said is only ever added, so that who still reads
//! the table as it was finds all of it. It is made anew from the store at every start and is gone
//! with the process: there is nothing to recover. What the store keeps is the truth; where the file
//! cannot be read, nodes are shown without details, and that is reported. Refuses to judge what is
//! said: `ingest` has bounded it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use roaring::RoaringBitmap;
use uptime_accounting::cow_vec::CowVec;
use uptime_accounting::snapshot::Metadata;

use crate::store::{Details, Store, StoreError};

/// Records begin at multiples of this, so that 32 bits reach over 64 GiB.
const ALIGN: u64 = 16;
/// What is read at once where one node is asked for: more than nearly all say.
const ONE_BYTES: usize = 512;
/// What is read at once where all nodes are.
const MANY_BYTES: usize = 64 * 1024;
/// The length before each record, little-endian.
const HEAD_BYTES: usize = 4;
/// The file is written anew when more of it than this, and than what is still said, is outdated.
const OUTDATED_BYTES_MIN: u64 = 1024 * 1024;
/// Nodes whose details are read from the store at once.
const LOAD_AT_ONCE: u32 = 4_096;

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    runtime: String,
    #[prost(string, tag = "3")]
    runtime_version: String,
    #[prost(string, repeated, tag = "4")]
    networks: Vec<String>,
    #[prost(uint64, tag = "5")]
    changed_s: u64,
}

/// Of a [`Record`], for whoever goes through all of them.
#[derive(Clone, PartialEq, Message)]
struct Name {
    #[prost(string, tag = "1")]
    name: String,
}

/// Likewise.
#[derive(Clone, PartialEq, Message)]
struct Changed {
    #[prost(uint64, tag = "5")]
    changed_s: u64,
}

impl From<Details> for Record {
    fn from(details: Details) -> Self {
        let Details { name, runtime, runtime_version, networks, changed_s } = details;
        Self { name, runtime, runtime_version, networks, changed_s }
    }
}

impl From<Record> for Details {
    fn from(record: Record) -> Self {
        let Record { name, runtime, runtime_version, networks, changed_s } = record;
        Self { name, runtime, runtime_version, networks, changed_s }
    }
}

/// What is there of so many bytes at this place.
fn read_up_to(file: &File, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let (mut read, mut filled) = (vec![0; bytes], 0);
    while let Some(rest) = read.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    read.truncate(filled);
    Ok(read)
}

/// Bytes of the file, as far as they were read.
#[derive(Default)]
struct Stretch {
    at: u64,
    bytes: Vec<u8>,
}

impl Stretch {
    /// The record that begins here, where all of it was read; else how many bytes are needed.
    fn record(&self, at: u64) -> Result<&[u8], usize> {
        let from = at.checked_sub(self.at).and_then(|from| usize::try_from(from).ok());
        let rest = from.and_then(|from| self.bytes.get(from..)).unwrap_or_default();
        let (head, rest) = rest.split_first_chunk::<HEAD_BYTES>().ok_or(HEAD_BYTES)?;
        let length = u32::from_le_bytes(*head) as usize;
        rest.get(..length).ok_or(HEAD_BYTES + length)
    }

    /// The record that begins here; reads so many bytes at once, more where one takes more.
    fn read<M: Message + Default>(&mut self, file: &File, at: u64, bytes: usize) -> io::Result<M> {
        let mut wanted = bytes;
        loop {
            match self.record(at) {
                Ok(record) => return M::decode(record).map_err(io::Error::other),
                // It was read from its beginning, and so long a record there is none.
                Err(needed) if self.at == at && needed <= self.bytes.len() => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Err(needed) => wanted = wanted.max(needed),
            }
            let read = read_up_to(file, at, wanted)?;
            if read.len() < HEAD_BYTES || (self.at == at && read.len() <= self.bytes.len()) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            *self = Self { at, bytes: read };
        }
    }
}

/// The table as it was at one moment; cheap to copy.
#[derive(Debug, Clone, Default)]
pub struct NodeMetadata {
    /// By number: 0, or one more than the place in [`ALIGN`]s.
    places: CowVec<u32>,
    file: Option<Arc<File>>,
}

fn place(number: u32) -> Option<u64> {
    Some(u64::from(number.checked_sub(1)?) * ALIGN)
}

fn report(error: &io::Error) {
    tracing::error!(
        %error,
        "details of nodes cannot be read back and are not shown; a restart takes them from the \
         store again"
    );
}

impl NodeMetadata {
    /// What the node of this number says.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<Details> {
        let at = place(*self.places.get(number as usize)?)?;
        let record = Stretch::default().read::<Record>(self.file.as_deref()?, at, ONE_BYTES);
        record.inspect_err(report).ok().map(Details::from)
    }

    /// All who say anything, ascending by number. Reads the file from its beginning to its end, as
    /// far as it is in this order.
    fn records<M: Message + Default>(&self) -> impl Iterator<Item = (u32, M)> + '_ {
        let mut stretch = Stretch::default();
        (0u32..).zip(self.places.iter()).filter_map(move |(number, there)| {
            let at = place(*there)?;
            let end = stretch.at + stretch.bytes.len() as u64;
            let goes_on = (stretch.at..end + MANY_BYTES as u64).contains(&at);
            let bytes = if goes_on { MANY_BYTES } else { ONE_BYTES };
            let record = stretch.read(self.file.as_deref()?, at, bytes);
            Some((number, record.inspect_err(report).ok()?))
        })
    }

    /// What all nodes call themselves.
    #[must_use]
    pub fn names(&self) -> Names {
        let mut names = Names::default();
        for (number, Name { name }) in self.records() {
            names.ends.resize(number as usize, names.text.len());
            names.text.push_str(&name);
            names.ends.push(names.text.len());
        }
        names
    }

    /// The numbers of those whose name is such.
    pub fn named(&self, such: impl Fn(&str) -> bool) -> RoaringBitmap {
        let all = self.records().filter(|(_, Name { name })| such(name));
        all.map(|(number, _)| number).collect()
    }
}

impl Metadata for NodeMetadata {
    fn changed_after(&self, second: u64) -> RoaringBitmap {
        let all = self.records().filter(|(_, Changed { changed_s })| *changed_s >= second);
        all.map(|(number, _)| number).collect()
    }

    /// Costs by what was changed, or, where the file was written anew in between, by all there is.
    fn changed_since(&self, before: &Self) -> RoaringBitmap {
        let same_file = match (&self.file, &before.file) {
            (Some(here), Some(there)) => Arc::ptr_eq(here, there),
            _ => false,
        };
        let at =
            |table: &Self, number: u32| table.places.get(number as usize).copied().unwrap_or(0);
        let differs = |number: &u32| {
            let (here, there) = (at(self, *number), at(before, *number));
            let same_place = here == there && (same_file || here == 0);
            !same_place && self.get(*number) != before.get(*number)
        };
        let unshared = self.places.unshared(&before.places);
        unshared.filter_map(|index| u32::try_from(index).ok()).filter(differs).collect()
    }
}

/// What nodes call themselves, close together.
#[derive(Debug, Default)]
pub struct Names {
    text: String,
    /// By number, where the name ends; it begins where the one before ends.
    ends: Vec<usize>,
}

impl Names {
    /// The name of a node; empty where it says none.
    #[must_use]
    pub fn of(&self, number: u32) -> &str {
        let index = number as usize;
        let begin = index.checked_sub(1).and_then(|before| self.ends.get(before)).unwrap_or(&0);
        self.ends.get(index).and_then(|end| self.text.get(*begin..*end)).unwrap_or("")
    }
}

/// The table.
#[derive(Debug)]
pub struct DetailsTable {
    told: NodeMetadata,
    scratch: PathBuf,
    end: u64,
    /// Bytes that nobody says any more.
    outdated: u64,
}

impl DetailsTable {
    /// Without anything said. The file is in this directory, and nobody can find it there.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn new(scratch: &Path) -> io::Result<Self> {
        let file = Some(Arc::new(tempfile::tempfile_in(scratch)?));
        let told = NodeMetadata { places: CowVec::default(), file };
        Ok(Self { told, scratch: scratch.to_owned(), end: 0, outdated: 0 })
    }

    /// With all that a store has.
    ///
    /// # Errors
    /// When the store cannot be read or the file cannot be written.
    pub async fn load(store: &mut impl Store, scratch: &Path) -> Result<Self, StoreError> {
        let unusable = |error: io::Error| StoreError::Path {
            path: scratch.to_owned(),
            detail: format!("{error}; details of nodes need a file there while this runs"),
        };
        let mut table = Self::new(scratch).map_err(unusable)?;
        let mut from = Some(0);
        while let Some(first) = from {
            let some = store.details(first, LOAD_AT_ONCE).await?;
            from = some.last_key_value().and_then(|(last, _)| last.checked_add(1));
            table.set(some).map_err(unusable)?;
        }
        Ok(table)
    }

    /// Whether a node has said just this, whenever it did.
    #[must_use]
    pub fn is_known(&self, number: u32, details: &Details) -> bool {
        let told = self.told.get(number);
        told.is_some_and(|told| Details { changed_s: details.changed_s, ..told } == *details)
    }

    /// Nodes say this now.
    ///
    /// # Errors
    /// When it cannot be written; then all is as it was.
    pub fn set(&mut self, details: BTreeMap<u32, Details>) -> io::Result<()> {
        let Some(file) = self.told.file.clone().filter(|_| !details.is_empty()) else {
            return Ok(());
        };
        let (mut bytes, mut places) = (Vec::new(), Vec::with_capacity(details.len()));
        for (number, details) in details {
            let at = (self.end + bytes.len() as u64) / ALIGN + 1;
            places.push((number, u32::try_from(at).map_err(io::Error::other)?));
            let record = Record::from(details).encode_to_vec();
            let length = u32::try_from(record.len()).map_err(io::Error::other)?;
            bytes.extend(length.to_le_bytes());
            bytes.extend(record);
            while !(bytes.len() as u64).is_multiple_of(ALIGN) {
                bytes.push(0);
            }
        }
        file.write_all_at(&bytes, self.end)?;
        self.end += bytes.len() as u64;
        for (number, at) in places {
            self.outdated += self.taken_by(number);
            while self.told.places.len() <= number as usize {
                self.told.places.push(0);
            }
            if let Some(slot) = self.told.places.get_mut(number as usize) {
                *slot = at;
            }
        }
        if self.outdated > OUTDATED_BYTES_MIN && self.outdated > self.end / 2 {
            self.write_anew()?;
        }
        Ok(())
    }

    /// What a node's record takes.
    fn taken_by(&self, number: u32) -> u64 {
        let at = self.told.places.get(number as usize).and_then(|there| place(*there));
        let head = at.zip(self.told.file.as_deref()).and_then(|(at, file)| {
            let mut head = [0; HEAD_BYTES];
            file.read_exact_at(&mut head, at).ok().map(|()| u32::from_le_bytes(head))
        });
        head.map_or(0, |length| (HEAD_BYTES as u64 + u64::from(length)).next_multiple_of(ALIGN))
    }

    /// In another file, without what is outdated. Who reads this one goes on reading it.
    fn write_anew(&mut self) -> io::Result<()> {
        let mut anew = Self::new(&self.scratch)?;
        let mut some = BTreeMap::new();
        for (number, record) in self.told.records::<Record>() {
            some.insert(number, record.into());
            if some.len() >= LOAD_AT_ONCE as usize {
                anew.set(std::mem::take(&mut some))?;
            }
        }
        anew.set(some)?;
        *self = anew;
        Ok(())
    }

    /// For readers.
    #[must_use]
    pub fn told(&self) -> NodeMetadata {
        self.told.clone()
    }
}

#[cfg(test)]
#[path = "details/tests.rs"]
mod tests;
