//! Where a rebuild stands, and how soon one is wanted.
//!
//! Owns the states and the changes between them. Refuses to run anything.

use std::sync::Arc;

use uptime_accounting::retraction::Retraction;
use uptime_proto::Epochs;

/// How soon a rebuild is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// When there is time: facts contradicted each other, which one probe can do round after round.
    Later,
    /// At once: an operator waits for it.
    Now,
}

/// Where a rebuild stands.
#[derive(Debug)]
pub(super) enum Rebuild {
    NotWanted,
    Wanted(Urgency),
    /// A job is out.
    Running {
        epochs: Arc<Epochs>,
        retractions: Arc<Vec<Retraction>>,
        again: Option<Urgency>,
    },
}

impl Rebuild {
    pub(super) fn want(&mut self, urgency: Urgency) {
        match self {
            Self::NotWanted => *self = Self::Wanted(urgency),
            Self::Wanted(there) => *there = urgency.max(*there),
            Self::Running { again, .. } => *again = Some(urgency).max(*again),
        }
    }
}
