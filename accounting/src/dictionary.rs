//! Node ids and the numbers they go by inside one store.
//!
//! Owns the only map between the two. Numbers are given once and never reused.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use uptime_proto::NodeId;

use crate::cow_vec::CowVec;

/// Ids by number and numbers by id.
#[derive(Debug, Clone, Default)]
pub struct NodeDictionary {
    ids: CowVec<NodeId>,
    numbers: HashMap<NodeId, u32>,
    by_id: Arc<Vec<u32>>,
    /// Numbers whose ids are forgotten.
    forgotten: RoaringBitmap,
    /// Numbers below this stand in `by_id`, or are forgotten.
    sorted: usize,
}

/// What readers need of a [`NodeDictionary`]; cheap to copy.
#[derive(Debug, Clone, Default)]
pub struct NodeIds {
    ids: CowVec<NodeId>,
    by_id: Arc<Vec<u32>>,
}

impl NodeDictionary {
    /// The number of an id, given now if it had none.
    pub fn intern(&mut self, id: NodeId) -> u32 {
        let next = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(id).or_insert_with(|| {
            self.ids.push(id);
            next
        })
    }

    /// Takes the next number for an id, as it is stored. One that has a number already was
    /// forgotten under it.
    pub fn push(&mut self, id: NodeId) {
        if let Some(before) = self.number(&id) {
            self.forget(before);
        }
        self.intern(id);
    }

    /// Takes the next number for an id that has been forgotten: stored facts may still name it.
    pub fn push_forgotten(&mut self, id: NodeId) {
        self.forgotten.insert(u32::try_from(self.ids.len()).unwrap_or(u32::MAX));
        self.ids.push(id);
    }

    /// Forgets which number an id has. The number is not given again, and the id gets another one
    /// if it comes again.
    pub fn forget(&mut self, number: u32) {
        if let Some(id) = self.id(number)
            && self.numbers.get(&id) == Some(&number)
        {
            self.numbers.remove(&id);
            self.forgotten.insert(number);
            Arc::make_mut(&mut self.by_id).retain(|there| *there != number);
        }
    }

    /// The number of an id, if it has one.
    #[must_use]
    pub fn number(&self, id: &NodeId) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    /// The id of a number.
    #[must_use]
    pub fn id(&self, number: u32) -> Option<NodeId> {
        self.ids.get(number as usize).copied()
    }

    /// How many ids have a number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Forgets the numbers from this one on, which no stored fact knows.
    pub fn truncate(&mut self, len: usize) {
        for number in len..self.ids.len() {
            if let Some(id) = self.ids.get(number) {
                self.numbers.remove(id);
            }
        }
        self.ids.truncate(len);
        self.sorted = self.sorted.min(len);
        if self.by_id.len() > len {
            Arc::make_mut(&mut self.by_id).retain(|number| (*number as usize) < len);
        }
    }

    /// The ids as they are now, for readers.
    pub fn ids(&mut self) -> NodeIds {
        if self.sorted < self.ids.len() {
            let by_id = Arc::make_mut(&mut self.by_id);
            let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let fresh = narrow(self.sorted)..narrow(self.ids.len());
            by_id.extend(fresh.filter(|number| !self.forgotten.contains(*number)));
            self.sorted = self.ids.len();
            // The old numbers are one sorted run already, which this sort makes use of.
            by_id.sort_by_key(|number| self.ids.get(*number as usize).copied());
        }
        NodeIds { ids: self.ids.clone(), by_id: Arc::clone(&self.by_id) }
    }
}

impl NodeIds {
    /// The number of an id, if it has one.
    #[must_use]
    pub fn number(&self, id: &NodeId) -> Option<u32> {
        let first = self.at_or_after(id).first().copied();
        first.filter(|number| self.id(*number) == Some(*id))
    }

    /// The numbers of this id and of all greater ones, ascending by id.
    #[must_use]
    pub fn at_or_after(&self, id: &NodeId) -> &[u32] {
        let place = self.by_id.partition_point(|number| self.id(*number).is_some_and(|x| x < *id));
        &self.by_id[place..]
    }

    /// The id of a number.
    #[inline]
    #[must_use]
    pub fn id(&self, number: u32) -> Option<NodeId> {
        self.ids.get(number as usize).copied()
    }

    /// All numbers, ascending by id.
    #[inline]
    #[must_use]
    pub fn by_id(&self) -> &[u32] {
        &self.by_id
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_and_names_come_sorted() {
        let id = |byte| NodeId::new([byte; 20]);
        let mut table = NodeDictionary::default();
        for byte in [9, 3, 7, 3] {
            table.intern(id(byte));
        }
        let early = table.ids();
        table.intern(id(1));
        let late = table.ids();
        assert_eq!((early.number(&id(1)), late.number(&id(1))), (None, Some(3)));
        let sorted: Vec<_> = late.by_id().iter().map(|n| late.id(*n).unwrap()).collect();
        assert_eq!(sorted, [id(1), id(3), id(7), id(9)]);
        assert_eq!(late.at_or_after(&id(7)), [2, 0]);
        assert_eq!((late.at_or_after(&id(0)).len(), late.at_or_after(&id(10)).len()), (4, 0));
        table.truncate(2);
        assert_eq!((table.len(), table.number(&id(1)), table.number(&id(3))), (2, None, Some(1)));
        assert_eq!(table.ids().by_id().len(), 2);
    }

    #[test]
    fn a_forgotten_id_gets_another_number() {
        let id = |byte| NodeId::new([byte; 20]);
        let mut table = NodeDictionary::default();
        table.intern(id(1));
        table.push_forgotten(id(2));
        table.intern(id(3));
        table.forget(0);
        assert_eq!((table.number(&id(1)), table.number(&id(2))), (None, None));
        assert_eq!((table.id(0), table.id(1)), (Some(id(1)), Some(id(2))), "facts name them still");
        assert_eq!((table.intern(id(2)), table.intern(id(1))), (3, 4));
        let names = table.ids();
        assert_eq!(names.by_id(), [4, 3, 2]);
        assert_eq!(names.number(&id(1)), Some(4));
    }
}
