//! What takes evidence out of the count without deleting it.
//!
//! Pure. Owns which facts a retraction covers. Refuses to know who may make one.

use crate::fact::FactKey;

/// A probe's evidence of an interval that does not count. Stored and reversible; nothing is
/// deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retraction {
    /// Names it.
    pub number: u64,
    /// The probe's number.
    pub probe: u32,
    /// Rounds that start in `[from_s, to_s)`, by the grid the probe knew; unix seconds.
    pub from_s: u64,
    /// See `from_s`.
    pub to_s: u64,
    /// In the words of whoever made it.
    pub reason: String,
    /// Unix milliseconds.
    pub made_at_ms: i64,
    /// When it was undone; `None`: it holds. Unix milliseconds.
    pub undone_at_ms: Option<i64>,
}

impl Retraction {
    /// Whether it takes a fact out of the count.
    #[must_use]
    pub fn covers(&self, key: &FactKey) -> bool {
        let holds = self.undone_at_ms.is_none() && self.probe == key.probe;
        holds && (self.from_s..self.to_s).contains(&key.round.start_s())
    }
}
