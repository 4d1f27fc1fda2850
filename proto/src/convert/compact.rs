//! The compact form: node ids once per stream, sets as differences to the part before.
//!
//! Owns the state of both ends of a stream. A stream is a gRPC connection or a segment of the
//! spool; the coding is the same. Refuses to guess: a reference it cannot follow is `RESYNC`.

use std::collections::HashMap;

use super::runs::Bits;
use super::{PartLimits, Refusal, check_count, head_to_wire};
use crate::evidence::{Class, Part, Sets};
use crate::node_id::NodeId;
use crate::v1::{self, RefusalReason, part::Evidence};

type Slot = (String, u32);
type SlotSets = [Bits; 4];

/// The sending end.
#[derive(Debug, Default)]
pub struct Encoder {
    numbers: HashMap<NodeId, u32>,
    bases: HashMap<Slot, (SlotSets, u32)>,
}

/// After so many differences a full set is sent, so that a reader who lost one finds its feet.
const FULL_EVERY: u32 = 120;

impl Encoder {
    /// Encodes a part as the next one of this stream. Falls back to the plain form when the
    /// stream's numbers are used up.
    pub fn encode(&mut self, part: &Part, limits: &PartLimits) -> v1::Part {
        let ids = || Class::ALL.into_iter().flat_map(|class| part.sets.of(class));
        let unknown = ids().filter(|id| !self.numbers.contains_key(id)).count();
        if self.numbers.len() + unknown > limits.compact_nodes_max as usize {
            return super::part_to_plain(part);
        }
        let mut new_ids = Vec::with_capacity(unknown * crate::node_id::NODE_ID_BYTES);
        let mut sets = SlotSets::default();
        for class in Class::ALL {
            for id in part.sets.of(class) {
                let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
                let number = *self.numbers.entry(*id).or_insert_with(|| {
                    new_ids.extend_from_slice(id.as_bytes());
                    next
                });
                sets[class.index()].insert(number);
            }
        }
        let slot = (part.key.subnet.clone(), u32::from(part.key.number));
        let empty = (SlotSets::default(), FULL_EVERY);
        let (base, age) = self.bases.get(&slot).unwrap_or(&empty);
        let full = *age >= FULL_EVERY;
        let base = if full { &empty.0 } else { base };
        let groups = Class::ALL
            .into_iter()
            .map(|class| (class, sets[class.index()].symmetric_difference(&base[class.index()])))
            .filter(|(_, toggled)| toggled.count() > 0)
            .map(|(class, toggled)| v1::CompactGroup {
                evidence_class: class.to_wire() as i32,
                toggled_runs: toggled.to_runs().into(),
            })
            .collect();
        let age = if full { 1 } else { age + 1 };
        if self.bases.contains_key(&slot) || self.bases.len() < limits.compact_bases_max {
            self.bases.insert(slot, (sets, age));
        }
        let compact = v1::CompactEvidence {
            new_node_ids: new_ids.into(),
            full,
            groups,
            digest_prefix: part.digest().0[..8].to_vec().into(),
        };
        v1::Part { evidence: Some(Evidence::Compact(compact)), ..head_to_wire(part) }
    }
}

/// The receiving end.
#[derive(Debug, Default)]
pub struct Decoder {
    ids: Vec<NodeId>,
    /// The numbers in the order of their ids, so that sets come out sorted without sorting.
    by_id: Vec<u32>,
    bases: HashMap<Slot, SlotSets>,
}

impl Decoder {
    /// How many ids the stream has numbered.
    #[must_use]
    pub fn numbered(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn decode(
        &mut self,
        subnet: &str,
        number: u32,
        compact: &v1::CompactEvidence,
        limits: &PartLimits,
    ) -> Result<Sets, Refusal> {
        self.number_new(&compact.new_node_ids, limits)?;
        let slot = (subnet.to_owned(), number);
        let mut sets = match (compact.full, self.bases.remove(&slot)) {
            (true, _) => SlotSets::default(),
            (false, Some(base)) => base,
            (false, None) => {
                let detail = format!("no base for part {number} of subnet {subnet:?}");
                return Err(Refusal::new(RefusalReason::Resync, detail));
            }
        };
        let known = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        for group in &compact.groups {
            let class = Class::from_wire(group.evidence_class).ok_or_else(|| {
                Refusal::new(RefusalReason::FieldMissing, "evidence class of a group not set")
            })?;
            sets[class.index()].toggle_runs(&group.toggled_runs, known).map_err(|_| {
                let detail = format!("runs beyond the {known} ids of this stream, or no runs");
                Refusal::new(RefusalReason::Resync, detail)
            })?;
        }
        let count = sets.iter().map(Bits::count).sum();
        let expanded = check_count(count, limits).map(|()| self.expand(&sets));
        if self.bases.len() < limits.compact_bases_max {
            self.bases.insert(slot, sets);
        }
        expanded
    }

    fn number_new(&mut self, bytes: &[u8], limits: &PartLimits) -> Result<(), Refusal> {
        if bytes.is_empty() {
            return Ok(());
        }
        let new: Vec<NodeId> = NodeId::split(bytes)
            .map_err(|_| {
                let detail = format!("new_node_ids has {} bytes", bytes.len());
                Refusal::new(RefusalReason::MalformedNodeId, detail)
            })?
            .collect();
        if self.ids.len() + new.len() > limits.compact_nodes_max as usize {
            let detail = format!("a stream numbers at most {} ids", limits.compact_nodes_max);
            return Err(Refusal::new(RefusalReason::Resync, detail));
        }
        let first = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        self.ids.extend(new);
        let last = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        self.by_id.extend(first..last);
        let ids = &self.ids;
        // Adaptive: the old numbers are one sorted run already.
        self.by_id.sort_by_key(|number| ids[*number as usize]);
        let twice = |pair: &[u32]| ids[pair[0] as usize] == ids[pair[1] as usize];
        if self.by_id.windows(2).any(twice) {
            let detail = "an id was numbered twice on this stream";
            return Err(Refusal::new(RefusalReason::Resync, detail));
        }
        Ok(())
    }

    fn expand(&self, sets: &SlotSets) -> Sets {
        let mut expanded = Sets::default();
        for class in Class::ALL {
            let bits = &sets[class.index()];
            let mut ids = Vec::with_capacity(bits.count());
            if ids.capacity() > 0 {
                let members = self.by_id.iter().filter(|number| bits.contains(**number));
                ids.extend(members.map(|number| self.ids[*number as usize]));
            }
            expanded.set_sorted(class, ids);
        }
        expanded
    }
}
