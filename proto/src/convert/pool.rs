//! Ids that several streams have numbered, in memory once.
//!
//! Owns who still holds which: an id goes with the last stream that numbered it, so nobody can fill
//! the memory of others by coming again and again. Says nothing of what an id means.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use hashbrown::HashTable;

use crate::node_id::NodeId;

/// The ids of the streams that share it; cheap to copy. A hundred probes that number the same
/// million nodes keep four bytes of each instead of twenty.
#[derive(Clone, Default)]
pub struct IdPool(Arc<RwLock<Pool>>);

impl fmt::Debug for IdPool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "IdPool({} ids)", self.len())
    }
}

/// Ids by place.
#[derive(Default)]
pub(super) struct Pool {
    ids: Vec<NodeId>,
    /// How many streams hold the id at each place; 0: the place is free.
    holders: Vec<u32>,
    free: Vec<u32>,
    places: HashTable<u32>,
    hasher: RandomState,
}

impl IdPool {
    /// How many ids are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().places.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Pool> {
        // Nothing between two changes can panic.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut Pool)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Pool {
    /// The id at a place that somebody holds.
    pub(super) fn id(&self, place: u32) -> NodeId {
        self.ids[place as usize]
    }

    fn hold(&mut self, id: NodeId) -> u32 {
        let Self { ids, holders, free, places, hasher } = self;
        let hash = hasher.hash_one(id);
        if let Some(place) = places.find(hash, |place| ids[*place as usize] == id) {
            holders[*place as usize] += 1;
            return *place;
        }
        let place = free.pop().unwrap_or_else(|| {
            ids.push(id);
            holders.push(0);
            u32::try_from(ids.len() - 1).unwrap_or(u32::MAX)
        });
        ids[place as usize] = id;
        holders[place as usize] = 1;
        places.insert_unique(hash, place, |place| hasher.hash_one(ids[*place as usize]));
        place
    }

    fn release(&mut self, place: u32) {
        let Self { ids, holders, free, places, hasher } = self;
        let holding = &mut holders[place as usize];
        *holding -= 1;
        if *holding == 0 {
            let hash = hasher.hash_one(ids[place as usize]);
            if let Ok(entry) = places.find_entry(hash, |there| *there == place) {
                entry.remove();
            }
            free.push(place);
        }
    }
}

/// The ids of one stream, by the numbers it gave them.
#[derive(Debug, Default)]
pub(super) struct Numbered {
    pool: IdPool,
    places: Vec<u32>,
}

impl Numbered {
    pub(super) fn sharing(pool: &IdPool) -> Self {
        Self { pool: pool.clone(), places: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn id(&self, number: u32) -> Option<NodeId> {
        self.places.get(number as usize).map(|place| self.pool.read().id(*place))
    }

    /// The ids, for whoever asks for many.
    pub(super) fn read(&self) -> (RwLockReadGuard<'_, Pool>, &[u32]) {
        (self.pool.read(), &self.places)
    }

    /// Numbers these, in order.
    pub(super) fn extend(&mut self, ids: &[NodeId]) {
        // Not twice as much as is needed: there is one of these per stream.
        self.places.reserve_exact(ids.len());
        let places = &mut self.places;
        self.pool.write(|pool| places.extend(ids.iter().map(|id| pool.hold(*id))));
    }

    /// Takes the numbers from this one on back.
    pub(super) fn truncate(&mut self, len: usize) {
        let gone = self.places.split_off(len.min(self.places.len()));
        self.pool.write(|pool| {
            gone.into_iter().for_each(|place| pool.release(place));
            if pool.places.is_empty() {
                *pool = Pool::default();
            }
        });
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        self.truncate(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> NodeId {
        NodeId::new([byte; 20])
    }

    fn ids(numbered: &Numbered) -> Vec<NodeId> {
        (0..).map_while(|number| numbered.id(number)).collect()
    }

    #[test]
    fn an_id_stands_once_and_goes_with_the_last_that_holds_it() {
        let pool = IdPool::default();
        let (mut one, mut other) = (Numbered::sharing(&pool), Numbered::sharing(&pool));
        one.extend(&[id(3), id(1), id(2)]);
        other.extend(&[id(2), id(4)]);
        assert_eq!(pool.len(), 4);
        one.truncate(1);
        assert_eq!((ids(&one), pool.len()), (vec![id(3)], 3));
        one.extend(&[id(7), id(4)]);
        assert_eq!(ids(&one), [id(3), id(7), id(4)]);
        assert_eq!(ids(&other), [id(2), id(4)], "what another holds stays where it is");
        drop(other);
        assert_eq!((ids(&one), pool.len()), (vec![id(3), id(7), id(4)], 3));
        drop(one);
        assert!(pool.is_empty());
        assert_eq!(pool.read().ids.capacity(), 0, "nothing is kept for nobody");
    }

    #[test]
    fn streams_that_come_and_go_leave_nothing() {
        let pool = IdPool::default();
        let mut stays = Numbered::sharing(&pool);
        stays.extend(&[id(0)]);
        for turn in 0..100u8 {
            let mut comes = Numbered::sharing(&pool);
            comes.extend(&(0..50u8).map(|byte| id(byte.wrapping_mul(turn))).collect::<Vec<_>>());
        }
        assert_eq!((pool.len(), ids(&stays)), (1, vec![id(0)]));
        assert!(pool.read().ids.len() <= 51);
    }
}
