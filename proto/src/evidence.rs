//! Parts: what one probe found in one piece of one round.
//!
//! Owns the classes of evidence, the closed lists of reasons with their stable names, and the
//! digest by which two parts are told to be the same. Refuses to judge: verdicts are the ledger's.

use std::fmt;

use crate::node_id::NodeId;
use crate::round::Round;
use crate::v1;

/// What an observation is evidence of. See `EvidenceClass` in `types.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "documented in types.proto")]
pub enum Class {
    Offer,
    Seen,
    Answered,
    Unreachable,
    Failed,
    AskedEarlier,
}

/// How many classes there are: the length of arrays that hold one thing per class.
pub const CLASSES: usize = 6;

/// The first classes in canonical order, which every form has known from the beginning. Stored
/// forms and digests leave the later ones out where they are empty.
pub const FIRST_CLASSES: usize = 4;

impl Class {
    /// All classes, in canonical order.
    pub const ALL: [Self; CLASSES] = [
        Self::Offer,
        Self::Seen,
        Self::Answered,
        Self::Unreachable,
        Self::Failed,
        Self::AskedEarlier,
    ];

    /// Its place in [`Class::ALL`] and in arrays that hold one thing per class.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether parts of a kind may carry it.
    #[must_use]
    pub const fn fits(self, kind: Kind) -> bool {
        match kind {
            Kind::Market => matches!(self, Self::Offer),
            Kind::Lookup => !matches!(self, Self::Offer),
            Kind::Relay => matches!(self, Self::Seen),
        }
    }

    /// The class a wire value means, if any.
    #[must_use]
    pub fn from_wire(value: i32) -> Option<Self> {
        match v1::EvidenceClass::try_from(value).ok()? {
            v1::EvidenceClass::Unspecified => None,
            v1::EvidenceClass::Offer => Some(Self::Offer),
            v1::EvidenceClass::Seen => Some(Self::Seen),
            v1::EvidenceClass::Answered => Some(Self::Answered),
            v1::EvidenceClass::Unreachable => Some(Self::Unreachable),
            v1::EvidenceClass::Failed => Some(Self::Failed),
            v1::EvidenceClass::AskedEarlier => Some(Self::AskedEarlier),
        }
    }

    /// Its value on the wire.
    #[must_use]
    pub const fn to_wire(self) -> v1::EvidenceClass {
        match self {
            Self::Offer => v1::EvidenceClass::Offer,
            Self::Seen => v1::EvidenceClass::Seen,
            Self::Answered => v1::EvidenceClass::Answered,
            Self::Unreachable => v1::EvidenceClass::Unreachable,
            Self::Failed => v1::EvidenceClass::Failed,
            Self::AskedEarlier => v1::EvidenceClass::AskedEarlier,
        }
    }
}

/// Where the observations of a part come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "documented in types.proto")]
pub enum Kind {
    Market,
    Lookup,
    Relay,
}

impl Kind {
    /// The kind a wire value means, if any.
    #[must_use]
    pub fn from_wire(value: i32) -> Option<Self> {
        match v1::PartKind::try_from(value).ok()? {
            v1::PartKind::Unspecified => None,
            v1::PartKind::Market => Some(Self::Market),
            v1::PartKind::Lookup => Some(Self::Lookup),
            v1::PartKind::Relay => Some(Self::Relay),
        }
    }

    /// Its value on the wire.
    #[must_use]
    pub const fn to_wire(self) -> v1::PartKind {
        match self {
            Self::Market => v1::PartKind::Market,
            Self::Lookup => v1::PartKind::Lookup,
            Self::Relay => v1::PartKind::Relay,
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// Why a probe could not look. Closed; see `CouldNotLookReason` in `types.proto`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// Every reason, in the order of the wire.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The one stable text for logs, metric labels and tables.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The reason a wire value means, if any.
            #[must_use]
            pub fn from_wire(value: i32) -> Option<Self> {
                match v1::CouldNotLookReason::try_from(value).ok()? {
                    v1::CouldNotLookReason::Unspecified => None,
                    $(v1::CouldNotLookReason::$name => Some(Self::$name),)+
                }
            }

            /// Its value on the wire.
            #[must_use]
            pub const fn to_wire(self) -> v1::CouldNotLookReason {
                match self { $(Self::$name => v1::CouldNotLookReason::$name,)+ }
            }
        }
    };
}

reasons! {
    /// No connection to the daemon, or it ended without an answer.
    YagnaUnreachable = "yagna_unreachable",
    /// The daemon refused the application key.
    Unauthorised = "unauthorised",
    /// The daemon answered the market question with an error.
    MarketError = "market_error",
    /// The daemon answered a network question with an error.
    NetError = "net_error",
    /// The daemon has no session with the relay.
    RelaySessionMissing = "relay_session_missing",
    /// The answer did not come, or did not end, in time.
    TimedOut = "timed_out",
    /// The answer could not be understood.
    MalformedAnswer = "malformed_answer",
    /// The answer was larger than the probe reads.
    AnswerTooLarge = "answer_too_large",
    /// The clocks disagree.
    Clock = "clock",
    /// The round was over before the probe came to it.
    Missed = "missed",
    /// The relay could not be reached, or answered with an error.
    RelayError = "relay_error",
    /// The spool was full.
    SpoolFull = "spool_full",
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Whether the probe could look at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It looked; nodes not among the observations were not found.
    Looked,
    /// It could not, and says why. Makes no node down.
    CouldNotLook(Reason),
}

/// What names a part, together with the probe that made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartKey {
    /// The subnet of a market listing; empty for look-ups and relay listings.
    pub subnet: String,
    /// The round, on the grid the probe knew.
    pub round: Round,
    /// Tells the parts of one subnet and round apart.
    pub number: u16,
}

/// The observations of a part: for each class a sorted set of ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sets([Vec<NodeId>; CLASSES]);

impl Sets {
    /// The ids of one class, ascending, none twice.
    #[must_use]
    pub fn of(&self, class: Class) -> &[NodeId] {
        &self.0[class.index()]
    }

    /// Replaces the ids of one class by these, in any order.
    pub fn set(&mut self, class: Class, mut ids: Vec<NodeId>) {
        ids.sort_unstable();
        ids.dedup();
        self.0[class.index()] = ids;
    }

    /// Replaces the ids of one class by ids that are ascending already, none twice.
    pub(crate) fn set_sorted(&mut self, class: Class, ids: Vec<NodeId>) {
        debug_assert!(ids.is_sorted_by(|a, b| a < b));
        self.0[class.index()] = ids;
    }

    /// These sets with one class replaced.
    #[must_use]
    pub fn with(mut self, class: Class, ids: Vec<NodeId>) -> Self {
        self.set(class, ids);
        self
    }

    /// How many observations there are over all classes.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

/// One piece of what a probe found: a fact, immutable under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What names it.
    pub key: PartKey,
    /// Where its observations come from.
    pub kind: Kind,
    /// Whether the probe could look.
    pub outcome: Outcome,
    /// When, in aggregator time, unix milliseconds.
    pub observed_at_ms: i64,
    /// Age of the daemon's relay session, seconds; `None`: it had none.
    pub relay_session_age_s: Option<u32>,
    /// What was found.
    pub sets: Sets,
}

/// 128 bits of BLAKE3 over the canonical expanded form of a part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl Part {
    /// The digest of its canonical expanded form, which is, integers little-endian: the text
    /// `golem.uptime.part.v1`, length (u32) and bytes of the subnet, round start (u64), period
    /// (u32), part number (u16), kind (u8, wire value), reason (u8, wire value, 0 for "looked"),
    /// `observed_at_ms` (i64), relay session age (u64, `u64::MAX` for none); then per class in
    /// canonical order the class (u8, wire value), the number of ids (u64) and the ids ascending.
    /// Classes after the first [`FIRST_CLASSES`] enter only where they have ids.
    ///
    /// Neither wire bytes nor node numbers enter, so every form of the same part has one digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let key = &self.key;
        hasher.update(b"golem.uptime.part.v1");
        hasher.update(&u32::try_from(key.subnet.len()).unwrap_or(u32::MAX).to_le_bytes());
        hasher.update(key.subnet.as_bytes());
        hasher.update(&key.round.start_s().to_le_bytes());
        hasher.update(&key.round.period().seconds().to_le_bytes());
        hasher.update(&key.number.to_le_bytes());
        let reason = match self.outcome {
            Outcome::Looked => 0,
            Outcome::CouldNotLook(reason) => reason.to_wire() as u8,
        };
        hasher.update(&[self.kind.to_wire() as u8, reason]);
        hasher.update(&self.observed_at_ms.to_le_bytes());
        hasher.update(&self.relay_session_age_s.map_or(u64::MAX, u64::from).to_le_bytes());
        for class in Class::ALL {
            let ids = self.sets.of(class);
            if class.index() >= FIRST_CLASSES && ids.is_empty() {
                continue;
            }
            hasher.update(&[class.to_wire() as u8]);
            hasher.update(&(ids.len() as u64).to_le_bytes());
            let bytes: Vec<u8> = NodeId::concatenate(ids);
            hasher.update(&bytes);
        }
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Digest(digest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::round::Period;

    fn part() -> Part {
        let round = Round::new(60, Period::new(30).unwrap()).unwrap();
        Part {
            key: PartKey { subnet: String::new(), round, number: 0 },
            kind: Kind::Lookup,
            outcome: Outcome::Looked,
            observed_at_ms: 75_000,
            relay_session_age_s: Some(600),
            sets: Sets::default()
                .with(Class::Seen, vec![NodeId::new([2; 20]), NodeId::new([1; 20])]),
        }
    }

    #[test]
    fn the_digest_has_a_fixed_value() {
        // A change here means that every stored digest and every spool changes its meaning.
        assert_eq!(format!("{:?}", part().digest()), "fc8731421e69f5867dda1cb3a0a577f6");
    }

    #[test]
    fn every_field_is_in_the_digest() {
        let base = part();
        let changed: Vec<Part> = vec![
            Part { key: PartKey { subnet: "a".into(), ..base.key.clone() }, ..base.clone() },
            Part { key: PartKey { number: 1, ..base.key.clone() }, ..base.clone() },
            Part {
                key: PartKey { round: base.key.round.next(), ..base.key.clone() },
                ..base.clone()
            },
            Part { kind: Kind::Relay, ..base.clone() },
            Part { outcome: Outcome::CouldNotLook(Reason::Clock), ..base.clone() },
            Part { observed_at_ms: 75_001, ..base.clone() },
            Part { relay_session_age_s: None, ..base.clone() },
            Part { relay_session_age_s: Some(0), ..base.clone() },
            Part { sets: Sets::default(), ..base.clone() },
            Part {
                sets: base.sets.clone().with(Class::Failed, vec![NodeId::new([3; 20])]),
                ..base.clone()
            },
            Part {
                sets: base.sets.clone().with(Class::AskedEarlier, vec![NodeId::new([3; 20])]),
                ..base.clone()
            },
            Part {
                sets: Sets::default().with(Class::Answered, base.sets.of(Class::Seen).to_vec()),
                ..base.clone()
            },
        ];
        let mut digests: Vec<_> = changed.iter().chain([&base]).map(Part::digest).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), changed.len() + 1);
    }

    #[test]
    fn reasons_and_the_wire_agree() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_wire(reason.to_wire() as i32), Some(*reason));
            let name = reason.to_wire().as_str_name().to_lowercase();
            assert_eq!(name, format!("could_not_look_reason_{reason}"));
        }
        assert_eq!(Reason::from_wire(0), None);
        assert_eq!(Reason::from_wire(9_999), None);
    }
}
