//! A growing list whose copies share what has not changed.
//!
//! Pure. A snapshot of a million entries costs a copy of some ten thousand pointers; a change to
//! one entry copies its chunk, once per snapshot that still holds it.

use std::sync::Arc;

/// Entries per chunk. A changed entry copies so many and touches each, a snapshot copies one
/// pointer a chunk. Of a million nodes some thousand change in a round, mostly in chunks of their
/// own, so the cheapest is about the root of a thousand.
const CHUNK: usize = 32;

/// The list.
#[derive(Debug, Clone, PartialEq)]
pub struct CowVec<T>(Vec<Arc<Vec<T>>>);

impl<T> Default for CowVec<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> CowVec<T> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * CHUNK + last.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, entry: T) {
        match self.0.last_mut() {
            Some(last) if last.len() < CHUNK => Arc::make_mut(last).push(entry),
            _ => self.0.push(Arc::new(vec![entry])),
        }
    }

    /// Drops the entries from this one on.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len.div_ceil(CHUNK));
        if let Some(last) = self.0.last_mut()
            && !len.is_multiple_of(CHUNK)
        {
            Arc::make_mut(last).truncate(len % CHUNK);
        }
    }

    /// One entry.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.0.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// One entry, to change.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        Arc::make_mut(self.0.get_mut(index / CHUNK)?).get_mut(index % CHUNK)
    }

    /// The numbers of entries that another copy does not share: these two may differ. Costs by what
    /// was changed, not by what there is.
    pub fn unshared<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        let chunks = self.0.len().max(other.0.len());
        let differ = move |index: &usize| match (self.0.get(*index), other.0.get(*index)) {
            (Some(one), Some(other)) => !Arc::ptr_eq(one, other),
            _ => true,
        };
        let len = self.len().max(other.len());
        (0..chunks)
            .filter(differ)
            .flat_map(move |chunk| chunk * CHUNK..((chunk + 1) * CHUNK).min(len))
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(|chunk| chunk.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_had() {
        let mut list = CowVec::default();
        for number in 0..1_000 {
            list.push(number);
        }
        let copy = list.clone();
        if let Some(entry) = list.get_mut(700) {
            *entry = -1;
        }
        list.truncate(900);
        assert_eq!((copy.len(), copy.get(700)), (1_000, Some(&700)));
        let unshared: Vec<usize> = list.unshared(&copy).collect();
        assert!(unshared.contains(&700) && unshared.contains(&950));
        assert!(!unshared.contains(&0) && unshared.iter().all(|index| *index < 1_000));
        assert_eq!((list.len(), list.get(700), list.get(900)), (900, Some(&-1), None));
        list.truncate(512);
        assert_eq!(list.iter().count(), 512);
    }
}
