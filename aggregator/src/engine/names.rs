//! Ids, subnets and round trips by number, as a store has them at a start.

use std::collections::HashMap;

use roaring::RoaringBitmap;
use uptime_accounting::cow_vec::CowVec;
use uptime_accounting::dictionary::NodeDictionary;

use crate::store::Catalogue;

/// Ids and their numbers, and which probe brought which.
pub(super) fn names_of(catalogue: &Catalogue) -> (NodeDictionary, HashMap<u32, RoaringBitmap>) {
    let mut nodes = NodeDictionary::default();
    let mut brought: HashMap<u32, RoaringBitmap> = HashMap::new();
    for (number, (id, probe)) in (0..).zip(&catalogue.nodes) {
        if catalogue.forgotten.contains(&number) {
            nodes.push_forgotten(*id);
        } else {
            nodes.intern(*id);
            brought.entry(*probe).or_default().insert(number);
        }
    }
    (nodes, brought)
}

/// How many subnets each probe brought.
pub(super) fn subnets_brought(brought_by: &[u32]) -> HashMap<u32, usize> {
    let mut brought = HashMap::new();
    for probe in brought_by {
        *brought.entry(*probe).or_default() += 1;
    }
    brought
}

/// Notes the last round trip of a node, microseconds.
pub(super) fn note_round_trip(round_trips_us: &mut CowVec<u32>, node: u32, round_trip_us: u32) {
    while round_trips_us.len() <= node as usize {
        round_trips_us.push(0);
    }
    if let Some(there) = round_trips_us.get_mut(node as usize) {
        *there = round_trip_us;
    }
}
