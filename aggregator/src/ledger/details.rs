//! What nodes say of themselves, in memory.
//!
//! Pure. Owns how little that takes: the name is a node's own, its runtime and networks are shared
//! by all that say the same. A change copies a few pointers, whoever still reads the table as it
//! was. Refuses to judge what is said: `ingest` has bounded it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::chunked::Chunked;
use crate::store::Details;

/// Distinct runtimes and networks that are looked up before those that nobody says any more are
/// dropped.
const COMMON_MIN: usize = 1_024;

/// What many nodes say alike.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Common {
    runtime: String,
    runtime_version: String,
    networks: Vec<String>,
}

/// What one node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    name: Box<str>,
    common: Arc<Common>,
    changed_s: u64,
}

impl Told {
    /// What it calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it last said something new, by the aggregator's clock, unix seconds.
    #[must_use]
    pub fn changed_s(&self) -> u64 {
        self.changed_s
    }

    /// All of it.
    #[must_use]
    pub fn details(&self) -> Details {
        Details {
            name: self.name.to_string(),
            runtime: self.common.runtime.clone(),
            runtime_version: self.common.runtime_version.clone(),
            networks: self.common.networks.clone(),
            changed_s: self.changed_s,
        }
    }

    fn says_the_same(&self, details: &Details) -> bool {
        let Details { name, runtime, runtime_version, networks, .. } = details;
        let common = &*self.common;
        *self.name == **name
            && (&common.runtime, &common.runtime_version) == (runtime, runtime_version)
            && common.networks == *networks
    }
}

/// The table as it was at one moment; cheap to copy.
#[derive(Debug, Clone, Default)]
pub struct ToldByNodes(Chunked<Option<Arc<Told>>>);

impl ToldByNodes {
    /// What the node of this number says.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&Told> {
        self.0.get(number as usize)?.as_deref()
    }

    /// All who say anything, ascending by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Told)> {
        (0u32..).zip(self.0.iter()).filter_map(|(number, told)| Some((number, told.as_deref()?)))
    }

    /// The numbers of those who say something else here than there; costs by what was changed.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = u32> + 'a {
        let unshared = self.0.unshared(&before.0);
        let numbers = unshared.filter_map(|index| u32::try_from(index).ok());
        numbers.filter(|number| self.get(*number) != before.get(*number))
    }
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct DetailsTable {
    told: ToldByNodes,
    common: HashSet<Arc<Common>>,
}

impl From<BTreeMap<u32, Details>> for DetailsTable {
    fn from(all: BTreeMap<u32, Details>) -> Self {
        let mut table = Self::default();
        all.into_iter().for_each(|(number, details)| table.set(number, details));
        table
    }
}

impl DetailsTable {
    /// Whether a node has said just this, whenever it did.
    pub(super) fn is_known(&self, number: u32, details: &Details) -> bool {
        self.told.get(number).is_some_and(|told| told.says_the_same(details))
    }

    /// A node says this now.
    pub(super) fn set(&mut self, number: u32, details: Details) {
        let Details { name, runtime, runtime_version, networks, changed_s } = details;
        let common = self.shared(Common { runtime, runtime_version, networks });
        let told = Arc::new(Told { name: name.into(), common, changed_s });
        while self.told.0.len() <= number as usize {
            self.told.0.push(None);
        }
        if let Some(slot) = self.told.0.get_mut(number as usize) {
            *slot = Some(told);
        }
    }

    fn shared(&mut self, common: Common) -> Arc<Common> {
        if let Some(there) = self.common.get(&common) {
            return Arc::clone(there);
        }
        if self.common.len() >= COMMON_MIN && self.common.len() == self.common.capacity() {
            self.common.retain(|common| Arc::strong_count(common) > 1);
        }
        let common = Arc::new(common);
        self.common.insert(Arc::clone(&common));
        common
    }

    /// For readers.
    pub(super) fn told(&self) -> ToldByNodes {
        self.told.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn details(name: &str, runtime: &str, changed_s: u64) -> Details {
        let networks = vec!["polygon".to_owned()];
        let (name, runtime) = (name.to_owned(), runtime.to_owned());
        Details { name, runtime, runtime_version: "0.4.2".to_owned(), networks, changed_s }
    }

    #[test]
    fn what_was_said_comes_back_and_readers_keep_what_they_had() {
        let mut table = DetailsTable::default();
        table.set(3, details("ada", "vm", 30));
        table.set(100, details("bob", "vm", 30));
        let before = table.told();
        assert!(table.is_known(3, &details("ada", "vm", 90)), "whenever it was said");
        assert!(!table.is_known(3, &details("ada", "wasm", 30)));
        assert!(!table.is_known(4, &details("ada", "vm", 30)));
        table.set(3, details("eve", "wasm", 60));
        let after = table.told();
        assert_eq!(before.get(3).unwrap().details(), details("ada", "vm", 30));
        assert_eq!(after.get(3).unwrap().details(), details("eve", "wasm", 60));
        assert_eq!(after.changed_since(&before).collect::<Vec<_>>(), [3]);
        let names: Vec<_> = after.iter().map(|(number, told)| (number, told.name())).collect();
        assert_eq!(names, [(3, "eve"), (100, "bob")]);
    }

    #[test]
    fn what_many_say_stands_once_and_goes_with_the_last_of_them() {
        let mut table = DetailsTable::default();
        for number in 0..1_000 {
            table.set(number, details(&format!("node {number}"), "vm", 0));
        }
        assert_eq!(table.common.len(), 1);
        for turn in 0..20_000 {
            table.set(7, details("turns", &format!("runtime {turn}"), turn));
        }
        assert!(table.common.len() <= 4 * COMMON_MIN, "{}", table.common.len());
        assert_eq!(table.told().get(8).unwrap().details().runtime, "vm");
    }
}
