//! The records that accounting starts from: parts and gaps.
//!
//! In them probes, subnets and nodes go by number.
//!
//! Owns what names a fact and when two say the same. Refuses to judge: `evidence.rs` says what the
//! facts of a round amount to.

use std::sync::Arc;

use roaring::RoaringBitmap;
use uptime_proto::{
    CLASSES, Class, Digest, Kind, NodeId, Outcome, Part, PartKey, Reason, Round, Sets,
};

/// A part as the ledger and the store hold it: probe, subnet and nodes by number.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// What names it.
    pub key: FactKey,
    /// Where its observations come from.
    pub kind: Kind,
    /// Whether the probe could look.
    pub outcome: Outcome,
    /// Of the canonical expanded form. `None`: it stood alone under its key when its day was
    /// compacted, and compacted days keep none.
    pub digest: Option<Digest>,
    /// Aggregator time, unix milliseconds.
    pub observed_at_ms: i64,
    /// When it was accepted, unix milliseconds. Enters no verdict.
    pub received_at_ms: i64,
    /// Age of the daemon's relay session, seconds.
    pub relay_session_age_s: Option<u32>,
    /// Node numbers per class, in the order of [`Class::ALL`].
    pub sets: Arc<[RoaringBitmap; CLASSES]>,
}

/// The key of a fact. Orders by round first, as the store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactKey {
    /// The round, on the grid the probe knew.
    pub round: Round,
    /// The subnet's number; 0 is the empty one.
    pub subnet: u32,
    /// The probe's number.
    pub probe: u32,
    /// The part's number.
    pub number: u16,
}

impl Fact {
    /// The nodes of one class.
    #[must_use]
    pub fn of(&self, class: Class) -> &RoaringBitmap {
        &self.sets[class.index()]
    }

    /// The nodes with positive evidence.
    #[must_use]
    pub fn positive(&self) -> RoaringBitmap {
        self.of(Class::Seen) | self.of(Class::Answered)
    }

    /// Whether both say the same, whenever they came: what equal digests mean.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        let told = |fact: &Self| {
            (fact.key, fact.kind, fact.outcome, fact.observed_at_ms, fact.relay_session_age_s)
        };
        told(self) == told(other) && self.sets == other.sets
    }

    /// The part as the probe made it; `None` when `id` does not know a number.
    #[must_use]
    pub fn to_part(&self, subnet: &str, id: impl Fn(u32) -> Option<NodeId>) -> Option<Part> {
        let mut sets = Sets::default();
        for class in Class::ALL {
            sets.set(class, self.of(class).iter().map(&id).collect::<Option<_>>()?);
        }
        let FactKey { round, number, .. } = self.key;
        Some(Part {
            key: PartKey { subnet: subnet.to_owned(), round, number },
            kind: self.kind,
            outcome: self.outcome,
            observed_at_ms: self.observed_at_ms,
            relay_session_age_s: self.relay_session_age_s,
            sets,
        })
    }
}

/// Rounds of which a probe says that it has nothing to hand in. No verdict looks at them; they tell
/// why nothing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// The probe's number.
    pub probe: u32,
    /// The start of the first round, unix seconds.
    pub from_s: u64,
    /// The end of the last.
    pub to_s: u64,
    /// Why.
    pub reason: Reason,
}
