//! The compact form: node ids once per stream, sets as differences to the part before.
//!
//! Owns the state of both ends of a stream. A stream is a gRPC connection or a segment of the
//! spool; the coding is the same. Refuses to guess: a reference it cannot follow is `RESYNC`.

use std::collections::HashMap;

use super::head::Head;
use super::plain::{PartLimits, Refusal, check_count, head_from_wire, head_to_wire, part_to_plain};
use super::pool::{IdPool, Numbered};
use super::runs::Bits;
use crate::evidence::{CLASSES, Class, Part, Sets};
use crate::node_id::NodeId;
use crate::v1::{self, RefusalReason, part::Evidence};

type Slot = (String, u32);
type SlotSets = [Bits; CLASSES];

/// Bytes of the digest that travel along.
pub(super) const DIGEST_PREFIX_BYTES: usize = 4;

/// The sending end.
#[derive(Debug, Default)]
pub struct Encoder {
    numbers: Numbers,
    sequences: HashMap<Slot, Sent>,
    for_stream: bool,
    last_round_s: Option<u64>,
}

/// The last part of a sequence, as the far end has it, too.
#[derive(Debug)]
struct Sent {
    number: u32,
    last: Head,
    sets: SlotSets,
    /// Parts since a full one.
    age: u32,
}

/// After so many parts a full one is written, so that a reader who lost one finds its feet.
const FULL_EVERY: u32 = 120;

impl Encoder {
    /// An encoder for what arrives whole and in order, such as a connection: heads are left out
    /// where they can be told, and full sets are sent only where there is nothing to differ from.
    /// The default is for what may be damaged, such as a file.
    #[must_use]
    pub fn for_stream() -> Self {
        Self { for_stream: true, ..Self::default() }
    }

    /// The round (start) of the part that was coded last.
    pub(super) fn last_round_s(&self) -> Option<u64> {
        self.last_round_s
    }

    /// The numbers of all ids that stand in this class in the last part of any sequence.
    pub(super) fn last_of(&self, class: Class) -> Bits {
        let mut all = Bits::default();
        self.sequences.values().for_each(|sent| all.join(&sent.sets[class.index()]));
        all
    }

    /// The number of an id on this stream, if it has one.
    pub(super) fn number(&self, id: NodeId) -> Option<u32> {
        let place = self.numbers.0.binary_search_by_key(&id, |(there, _)| *there).ok()?;
        self.numbers.0.get(place).map(|(_, number)| *number)
    }

    /// Encodes a part as the next one of this stream. Falls back to the plain form when the
    /// stream's numbers are used up.
    pub fn encode(&mut self, part: &Part, limits: &PartLimits) -> v1::Part {
        let mut sets = SlotSets::default();
        let new = Class::ALL
            .map(|class| self.numbers.insert_known(part.sets.of(class), &mut sets[class.index()]));
        let unknown: usize = new.iter().map(Vec::len).sum();
        if self.numbers.0.len() + unknown > limits.compact_nodes_max as usize {
            return part_to_plain(part);
        }
        let mut compact = v1::CompactEvidence {
            digest_prefix: part.digest().0[..DIGEST_PREFIX_BYTES].to_vec().into(),
            new_node_ids: self.numbers.insert_new(&new, &mut sets).into(),
            ..v1::CompactEvidence::default()
        };
        self.last_round_s = Some(part.key.round.start_s());
        let slot = (part.key.subnet.clone(), u32::from(part.key.number));
        let before = self.sequences.get(&slot);
        let base = before.filter(|sent| self.for_stream || sent.age < FULL_EVERY);
        compact.full = base.is_none();
        for class in Class::ALL {
            difference(class, &sets[class.index()], base, &mut compact);
        }
        let mut head = v1::Part::default();
        match before.filter(|_| self.for_stream) {
            Some(sent) if sent.last.shorten(part, &mut compact) => compact.sequence = sent.number,
            _ => head = head_to_wire(part),
        }
        let age = base.map_or(1, |sent| sent.age.saturating_add(1));
        let room = self.sequences.len() < limits.compact_bases_max;
        let next = u32::try_from(self.sequences.len() + 1).unwrap_or(u32::MAX);
        if let Some(number) = before.map(|sent| sent.number).or(room.then_some(next)) {
            self.sequences.insert(slot, Sent { number, last: Head::of(part), sets, age });
        }
        v1::Part { evidence: Some(Evidence::Compact(compact)), ..head }
    }
}

/// The ids of a stream with their numbers, ascending by id. Parts are sorted, too, and mostly hold
/// nearly all ids, so both are walked side by side: strangers choose the ids, and nothing here
/// depends on how.
#[derive(Debug, Default)]
struct Numbers(Vec<(NodeId, u32)>);

impl Numbers {
    /// Puts the numbers of ascending ids into a set; answers the ids that have none.
    fn insert_known(&self, ids: &[NodeId], set: &mut Bits) -> Vec<NodeId> {
        let mut new = Vec::new();
        let mut rest = self.0.as_slice();
        for id in ids {
            if rest.first().is_none_or(|(there, _)| there != id) {
                rest = from(rest, id);
            }
            match rest.split_first() {
                Some(((there, number), after)) if there == id => {
                    set.insert(*number);
                    rest = after;
                }
                _ => new.push(*id),
            }
        }
        new
    }

    /// Numbers the ids of each class that had no number and puts them into the sets; answers the
    /// newly numbered, as they travel.
    fn insert_new(&mut self, classes: &[Vec<NodeId>; CLASSES], sets: &mut SlotSets) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (ids, set) in classes.iter().zip(sets) {
            if ids.is_empty() {
                continue;
            }
            // The class before may have brought some of them.
            let new = self.insert_known(ids, set);
            let first = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
            for (id, number) in new.iter().zip(first..) {
                set.insert(number);
                self.0.push((*id, number));
            }
            // Adaptive: these are two sorted runs.
            self.0.sort_by_key(|(id, _)| *id);
            bytes.extend(NodeId::concatenate(&new));
        }
        bytes
    }
}

/// What is left of ascending ids from this one on. Looks near the beginning first and strides on
/// from there, so that few ids among many are found as quickly as many.
fn from<'a>(ids: &'a [(NodeId, u32)], id: &NodeId) -> &'a [(NodeId, u32)] {
    let mut stride = 1;
    while ids.get(stride - 1).is_some_and(|(there, _)| there < id) {
        stride *= 2;
    }
    // All before the half of the stride are less; the one at its end is not, or there is none.
    let (low, high) = (stride / 2, stride.min(ids.len()));
    let within = ids.get(low..high).unwrap_or_default();
    let skipped = low + within.partition_point(|(there, _)| there < id);
    ids.get(skipped..).unwrap_or_default()
}

/// Writes what changed in one class, or the whole class where that is less.
fn difference(class: Class, set: &Bits, base: Option<&Sent>, compact: &mut v1::CompactEvidence) {
    let toggled = base.map(|sent| set.symmetric_difference(&sent.sets[class.index()]));
    let coded = match toggled {
        None => set.to_runs(),
        Some(toggled) if toggled.count() <= set.count() => toggled.to_runs(),
        Some(_) => {
            compact.whole.push(class.to_wire() as i32);
            set.to_runs()
        }
    };
    let field = match class {
        Class::Offer => &mut compact.offer,
        Class::Seen => &mut compact.seen,
        Class::Answered => &mut compact.answered,
        Class::Unreachable => &mut compact.unreachable,
        Class::Failed => &mut compact.failed,
        Class::AskedEarlier => &mut compact.asked_earlier,
    };
    *field = coded.into();
}

fn coded(class: Class, compact: &v1::CompactEvidence) -> &[u8] {
    match class {
        Class::Offer => &compact.offer,
        Class::Seen => &compact.seen,
        Class::Answered => &compact.answered,
        Class::Unreachable => &compact.unreachable,
        Class::Failed => &compact.failed,
        Class::AskedEarlier => &compact.asked_earlier,
    }
}

/// The receiving end.
#[derive(Debug, Default)]
pub struct Decoder {
    ids: Numbered,
    /// The numbers in the order of their ids, so that sets come out sorted without sorting.
    by_id: Vec<u32>,
    sequences: Vec<Received>,
    last_round_s: Option<u64>,
    /// A part could not be followed: the last sets of this stream are not those of its sender.
    is_lost: bool,
    /// The places of the sequences in the list.
    places: HashMap<Slot, usize>,
}

/// The last part of a sequence, as the sender has it, too; `None`: it cannot be followed.
#[derive(Debug)]
struct Received {
    subnet: String,
    last: Option<Head>,
    number: u16,
    sets: Option<SlotSets>,
}

impl Decoder {
    /// A decoder that keeps ids it shares with others in this pool.
    #[must_use]
    pub fn sharing(pool: &IdPool) -> Self {
        Self { ids: Numbered::sharing(pool), ..Self::default() }
    }

    /// How many ids the stream has numbered.
    #[must_use]
    pub fn numbered(&self) -> usize {
        self.ids.len()
    }

    /// The round (start) of the last part in this form; `None` where that part had none.
    pub(super) fn last_round_s(&self) -> Option<u64> {
        self.last_round_s
    }

    /// As [`Encoder::last_of`]; `None` where that is not known any more.
    pub(super) fn last_of(&self, class: Class) -> Option<Bits> {
        let mut all = Bits::default();
        let sets = self.sequences.iter().filter_map(|received| received.sets.as_ref());
        sets.for_each(|sets| all.join(&sets[class.index()]));
        (!self.is_lost).then_some(all)
    }

    /// What the last part came to is not what its sender meant.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
    }

    /// The id of this number.
    pub(super) fn id(&self, number: u32) -> Option<NodeId> {
        self.ids.id(number)
    }

    /// The next part of this stream. What it says of the stream is kept even when the part is
    /// refused, as the sender keeps it.
    pub(super) fn decode(
        &mut self,
        wire: &v1::Part,
        compact: &v1::CompactEvidence,
        limits: &PartLimits,
    ) -> Result<Part, Refusal> {
        // Until the part has been followed.
        self.last_round_s = None;
        let was_lost = std::mem::replace(&mut self.is_lost, true);
        self.number_new(&compact.new_node_ids, limits)?;
        let (place, head) = if compact.sequence == 0 {
            let head = head_from_wire(wire, limits);
            (self.place(wire, limits), head)
        } else {
            let place = self.named_place(compact.sequence)?;
            (Some(place), self.short_head(place, wire, compact))
        };
        let known = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        self.last_round_s = head.as_ref().ok().map(|head| head.key.round.start_s());
        let base = place.and_then(|place| self.sequences[place].sets.take());
        let sets = toggled(compact, base, known);
        let expanded = sets.as_ref().map_err(Clone::clone).and_then(|sets| {
            let count = sets.iter().map(Bits::count).sum();
            check_count(count, limits).map(|()| self.expand(sets))
        });
        if let Some(sequence) = place.map(|place| &mut self.sequences[place]) {
            sequence.last = head.as_ref().ok().map(Head::of);
            sequence.sets = sets.ok();
        }
        self.is_lost = was_lost || place.is_some_and(|place| self.sequences[place].sets.is_none());
        let head = head?;
        Ok(Part { sets: expanded?, ..head })
    }

    /// The place of a part's sequence, a new one if need be; `None` when there is no room.
    fn place(&mut self, wire: &v1::Part, limits: &PartLimits) -> Option<usize> {
        let slot = (wire.subnet.clone(), wire.number);
        if let Some(place) = self.places.get(&slot) {
            return Some(*place);
        }
        let place = self.sequences.len();
        if place >= limits.compact_bases_max {
            return None;
        }
        // A number too large for a part is refused with its head, which is then not kept.
        let number = u16::try_from(wire.number).unwrap_or(u16::MAX);
        let subnet = wire.subnet.clone();
        self.sequences.push(Received { subnet, number, last: None, sets: None });
        self.places.insert(slot, place);
        Some(place)
    }

    fn named_place(&self, sequence: u32) -> Result<usize, Refusal> {
        let place = usize::try_from(sequence).ok().and_then(|sequence| sequence.checked_sub(1));
        place.filter(|place| *place < self.sequences.len()).ok_or_else(|| {
            let detail = format!("this stream has no sequence {sequence}");
            Refusal::new(RefusalReason::Resync, detail)
        })
    }

    fn short_head(
        &self,
        place: usize,
        wire: &v1::Part,
        compact: &v1::CompactEvidence,
    ) -> Result<Part, Refusal> {
        let bare = v1::Part { evidence: None, ..wire.clone() };
        if bare != v1::Part::default() {
            let detail = "a part that names its sequence has a head of its own, too";
            return Err(Refusal::new(RefusalReason::Contradiction, detail));
        }
        let Received { subnet, number, last, .. } = &self.sequences[place];
        let last = last.as_ref().ok_or_else(|| {
            let detail = format!("no head before it in sequence {}", compact.sequence);
            Refusal::new(RefusalReason::Resync, detail)
        })?;
        last.lengthen(subnet, *number, compact)
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
        self.by_id.reserve_exact(new.len());
        self.ids.extend(&new);
        let last = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        self.by_id.extend(first..last);
        let (pool, places) = self.ids.read();
        // Adaptive: the old numbers are one sorted run already.
        self.by_id.sort_by_key(|number| pool.id(places[*number as usize]));
        let twice = |pair: &[u32]| places[pair[0] as usize] == places[pair[1] as usize];
        let is_twice = self.by_id.windows(2).any(twice);
        drop(pool);
        if is_twice {
            // Not kept: no set may ever hold an id twice.
            self.by_id.retain(|number| *number < first);
            self.ids.truncate(first as usize);
            let detail = "an id was numbered twice on this stream";
            return Err(Refusal::new(RefusalReason::Resync, detail));
        }
        Ok(())
    }

    fn expand(&self, sets: &SlotSets) -> Sets {
        let mut expanded = Sets::default();
        let (pool, places) = self.ids.read();
        for class in Class::ALL {
            let bits = &sets[class.index()];
            let mut ids = Vec::with_capacity(bits.count());
            if ids.capacity() > 0 {
                let members = self.by_id.iter().filter(|number| bits.contains(**number));
                ids.extend(members.map(|number| pool.id(places[*number as usize])));
            }
            expanded.set_sorted(class, ids);
        }
        expanded
    }
}

/// The sets of a part over those before it.
fn toggled(
    compact: &v1::CompactEvidence,
    base: Option<SlotSets>,
    known: u32,
) -> Result<SlotSets, Refusal> {
    let mut sets = if compact.full {
        SlotSets::default()
    } else {
        base.ok_or_else(|| {
            let detail = "a difference to a part that is not known here";
            Refusal::new(RefusalReason::Resync, detail)
        })?
    };
    for class in &compact.whole {
        let class = Class::from_wire(*class).ok_or_else(|| {
            Refusal::new(RefusalReason::FieldMissing, "evidence class of a whole set not set")
        })?;
        sets[class.index()] = Bits::default();
    }
    for class in Class::ALL {
        sets[class.index()].toggle_runs(coded(class, compact), known).map_err(|_| {
            let detail = format!("no set of numbers below the {known} ids of this stream");
            Refusal::new(RefusalReason::Resync, detail)
        })?;
    }
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ids that differ late and early.
    fn id(number: u32) -> NodeId {
        let mut bytes = [0; 20];
        bytes[0] = number.to_le_bytes()[0] % 3;
        bytes[16..].copy_from_slice(&number.to_be_bytes());
        NodeId::new(bytes)
    }

    proptest! {
        /// Numbers are given in the order of classes, then of ids, and never given again.
        #[test]
        fn numbers_are_those_a_map_would_give(
            parts in prop::collection::vec(
                prop::array::uniform6(prop::collection::btree_set(0u32..300, 0..60)), 1..12,
            ),
        ) {
            let mut numbers = Numbers::default();
            let mut model: HashMap<NodeId, u32> = HashMap::new();
            for classes in parts {
                let (mut sets, mut wanted) = (SlotSets::default(), SlotSets::default());
                let mut wanted_bytes: Vec<u8> = Vec::new();
                let classes = classes.map(|class| {
                    let mut ids: Vec<NodeId> = class.into_iter().map(id).collect();
                    ids.sort_unstable();
                    ids
                });
                for (ids, set) in classes.iter().zip(&mut wanted) {
                    for id in ids {
                        let next = u32::try_from(model.len()).unwrap_or(u32::MAX);
                        set.insert(*model.entry(*id).or_insert_with(|| {
                            wanted_bytes.extend(id.as_bytes());
                            next
                        }));
                    }
                }
                let mut each = classes.iter().zip(&mut sets);
                let new = [(); CLASSES].map(|()| {
                    each.next().map_or_else(Vec::new, |(ids, set)| numbers.insert_known(ids, set))
                });
                prop_assert_eq!(numbers.insert_new(&new, &mut sets), wanted_bytes);
                prop_assert_eq!(&sets, &wanted);
            }
        }

        #[test]
        fn what_is_left_begins_where_a_search_says(
            there in prop::collection::btree_set(0u32..1_000, 0..200),
            wanted in 0u32..1_000,
        ) {
            let mut ids: Vec<(NodeId, u32)> = there.into_iter().map(|n| (id(n), n)).collect();
            ids.sort_unstable();
            let wanted = id(wanted);
            let at = ids.partition_point(|(there, _)| *there < wanted);
            prop_assert_eq!(from(&ids, &wanted), &ids[at..]);
        }
    }
}
