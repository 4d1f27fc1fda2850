//! The latest instant at which each node was in some set.
//!
//! Pure. Made for sets that hardly change from one round to the next: an instant is kept with its
//! set, and only nodes that fell out of the later sets are written down one by one. Order of
//! arrival does not matter, as only the greatest instant of a node is asked for.

use std::sync::Arc;

use roaring::RoaringBitmap;

/// Whole sets kept before the older ones are written down node by node.
const RECENT_MAX: usize = 32;

/// The greatest instant per node number.
#[derive(Debug, Clone, Default)]
pub struct LastSeenIndex {
    /// Per node number, `i64::MIN` for never.
    settled: Arc<Vec<i64>>,
    recent: Vec<(i64, Arc<RoaringBitmap>)>,
}

impl LastSeenIndex {
    /// Of instants per node number, `i64::MIN` for never.
    #[must_use]
    pub fn of_all(instants: Vec<i64>) -> Self {
        Self { settled: Arc::new(instants), recent: Vec::new() }
    }

    /// Notes that these nodes were in the set at that instant.
    pub fn note(&mut self, instant: i64, nodes: RoaringBitmap) {
        if nodes.is_empty() {
            return;
        }
        let place = self.recent.partition_point(|(there, _)| *there > instant);
        if let Some((_, there)) = self.recent.get_mut(place).filter(|(there, _)| *there == instant)
        {
            *Arc::make_mut(there) |= nodes;
            return;
        }
        self.recent.insert(place, (instant, Arc::new(nodes)));
        if self.recent.len() > RECENT_MAX {
            self.settle();
        }
    }

    /// Keeps of each set only the nodes that no later set has, and writes the older half down.
    fn settle(&mut self) {
        let mut covered = RoaringBitmap::new();
        for (_, nodes) in &mut self.recent {
            let only = &**nodes - &covered;
            covered |= &**nodes;
            *nodes = Arc::new(only);
        }
        let settled = Arc::make_mut(&mut self.settled);
        for (instant, nodes) in self.recent.drain(RECENT_MAX / 2..) {
            for node in &*nodes {
                let index = node as usize;
                if index >= settled.len() {
                    settled.resize(index + 1, i64::MIN);
                }
                settled[index] = settled[index].max(instant);
            }
        }
        self.recent.retain(|(_, nodes)| !nodes.is_empty());
    }

    /// The greatest instant of one node; `None`: never.
    #[must_use]
    pub fn of(&self, node: u32) -> Option<i64> {
        let settled = self.settled.get(node as usize).copied().unwrap_or(i64::MIN);
        let recent = self.recent.iter().find(|(_, nodes)| nodes.contains(node));
        let greatest = recent.map_or(settled, |(instant, _)| settled.max(*instant));
        (greatest > i64::MIN).then_some(greatest)
    }

    /// The greatest instant of every node below `nodes`, and of all others that have one,
    /// `i64::MIN` for never: for whoever wants them all, in one pass over each set.
    #[must_use]
    pub fn all(&self, nodes: usize) -> Vec<i64> {
        let mut all = self.settled.to_vec();
        // An id may be seen long before anything else is known of it.
        let beyond = self.recent.iter().filter_map(|(_, set)| Some(set.max()? as usize + 1)).max();
        all.resize(nodes.max(all.len()).max(beyond.unwrap_or(0)), i64::MIN);
        let mut covered = RoaringBitmap::new();
        for (instant, set) in &self.recent {
            for node in &(&**set - &covered) {
                if let Some(slot) = all.get_mut(node as usize) {
                    *slot = (*slot).max(*instant);
                }
            }
            covered |= &**set;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_greatest_instant_of_each_node(
            notes in prop::collection::vec(
                (0i64..500, prop::collection::btree_set(0u32..40, 0..40)), 0..120),
        ) {
            let (mut latest, mut list) = (LastSeenIndex::default(), BTreeMap::new());
            for (instant, nodes) in notes {
                for node in &nodes {
                    let slot = list.entry(*node).or_insert(instant);
                    *slot = instant.max(*slot);
                }
                latest.note(instant, nodes.into_iter().collect());
            }
            let all = latest.all(20);
            for node in 0u32..40 {
                prop_assert_eq!(latest.of(node), list.get(&node).copied());
                let there = all.get(node as usize).copied().unwrap_or(i64::MIN);
                prop_assert_eq!(there, list.get(&node).copied().unwrap_or(i64::MIN));
            }
        }
    }
}
