//! The plain records that cross the border of a store.
//!
//! Owns what a batch, an answer and a registry consist of. Refuses to know how they are stored.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};

use uptime_accounting::fact::{Fact, FactKey, Gap};
use uptime_accounting::position::{Position, Positions};
use uptime_accounting::replay::Late;
use uptime_proto::{Epoch, NodeId};

use super::error::StoreError;
pub use uptime_accounting::replay::Read;
pub use uptime_accounting::retraction::Retraction;

/// A day that was compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactedDay {
    /// Its start, unix seconds.
    pub day_s: u64,
    /// Parts it holds.
    pub parts: u64,
    /// What its segments take.
    pub bytes: u64,
    /// What the sets of its rows took before.
    pub before_bytes: u64,
}

/// A day compacted, ready to take the place of its rows. A reader makes it and the writer commits
/// it, so that nothing waits for the compaction. Both are stores of one kind.
#[derive(Debug)]
pub struct CompactionPlan {
    /// The start of the day, unix seconds.
    pub day_s: u64,
    prepared: Box<dyn Any + Send + Sync>,
}

impl CompactionPlan {
    /// A day, and what a kind of store prepared of it.
    pub fn new(day_s: u64, prepared: impl Any + Send + Sync) -> Self {
        Self { day_s, prepared: Box::new(prepared) }
    }

    /// What was prepared.
    ///
    /// # Errors
    /// When another kind of store prepared it.
    pub fn prepared<T: Any>(&self) -> Result<&T, StoreError> {
        let other = || StoreError::Damaged("a plan of another kind of store".to_owned());
        self.prepared.downcast_ref().ok_or_else(other)
    }
}

/// Who a probe is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeRecord {
    /// Its number in facts.
    pub number: u32,
    /// Its name, its identity.
    pub name: String,
    /// The subnets it may speak for; empty: any.
    pub subnets_allowed: Vec<String>,
    /// When it was enrolled, unix milliseconds.
    pub enrolled_at_ms: i64,
    /// Whether it may speak no more.
    pub revoked: bool,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "documented in types.proto")]
pub struct Details {
    pub name: String,
    pub runtime: String,
    pub runtime_version: String,
    pub networks: Vec<String>,
    /// When it last said something new, by the aggregator's clock, unix seconds.
    pub changed_s: u64,
}

/// Everything but the facts: small enough to be in memory.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// Names the store; 16 random bytes.
    pub store_id: [u8; 16],
    /// Raised by a restore.
    pub generation: u64,
    /// Ascending; empty in a new store.
    pub epochs: Vec<Epoch>,
    /// By number.
    pub probes: Vec<ProbeRecord>,
    /// By number; number 0 is the empty subnet.
    pub subnets: Vec<String>,
    /// By number, the probe that brought it; 0: it is not known.
    pub subnets_brought_by: Vec<u32>,
    /// By number, each with the probe that brought it.
    pub nodes: Vec<(NodeId, u32)>,
    /// Numbers of nodes whose ids are forgotten.
    pub forgotten: BTreeSet<u32>,
}

/// A change of the epochs that have not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochChange {
    /// All epochs as they were when the change was made, ascending.
    pub there: Vec<Epoch>,
    /// So many of them stay, from the first on: at least one, and all that have begun.
    pub kept: usize,
    /// What follows them.
    pub epoch: Option<Epoch>,
    /// What the audit log says of it.
    pub detail: String,
}

/// When a part was observed and received; or the newest ones of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The probe's number.
    pub probe: u32,
    /// When it was observed, unix milliseconds.
    pub observed_at_ms: i64,
    /// When it was received, unix milliseconds, if that was within [`Delivery::PROMPT_MS`] of its
    /// observation.
    pub prompt_ms: Option<i64>,
}

impl Delivery {
    /// A part that is received so soon after its observation shows that two clocks agreed; a later
    /// one waited in a spool, or they do not (accounting page, "Irreversible actions").
    pub const PROMPT_MS: i64 = 60_000;

    /// A part of this probe. Both times in unix milliseconds.
    #[must_use]
    pub fn new(probe: u32, observed_at_ms: i64, received_at_ms: i64) -> Self {
        let apart_ms = received_at_ms.saturating_sub(observed_at_ms).saturating_abs();
        let prompt_ms = (apart_ms <= Self::PROMPT_MS).then_some(received_at_ms);
        Self { probe, observed_at_ms, prompt_ms }
    }

    /// A stored part.
    #[must_use]
    pub fn of(fact: &Fact) -> Self {
        Self::new(fact.key.probe, fact.observed_at_ms, fact.received_at_ms)
    }
}

/// What travels beside a part, of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "as `uptime_proto::Sample`, by numbers")]
pub struct NodeSample {
    pub probe: u32,
    pub node: u32,
    pub round_s: u64,
    pub seen_age_ms: Option<i32>,
    pub answered_in_ms: Option<u32>,
    /// By the reliable channel, else by the other.
    pub round_trip_us: Option<u32>,
}

/// Round trips to a node over some days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// How many were taken.
    pub samples: u64,
    /// The shortest, microseconds.
    pub min_us: u32,
    /// The longest, microseconds.
    pub max_us: u32,
    /// All of them, microseconds.
    pub sum_us: u64,
}

impl Latency {
    /// The mean, microseconds, rounded down.
    #[must_use]
    pub fn mean_us(&self) -> u32 {
        u32::try_from(self.sum_us / self.samples.max(1)).unwrap_or(u32::MAX)
    }
}

/// What is kept of the samples of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSamples {
    /// Probe, round, and how long before it the relay had heard of the node. The last that each
    /// probe told: until another comes it grows by the time that passes.
    pub aged: Vec<(u32, u64, i32)>,
    /// Probe, round, and how long the node took to answer the direct question; the last.
    pub answered: Vec<(u32, u64, u32)>,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Parts looked at.
    pub done: u64,
    /// Parts there are.
    pub of: u64,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// Parts that stand in rows.
    pub parts: u64,
    /// Parts of compacted days.
    pub compacted_parts: u64,
    /// Node ids.
    pub nodes: u64,
    /// What does not agree, each with where it is; the first [`Checked::FAULTS_MAX`].
    pub faults: Vec<String>,
    /// How many faults there are in all.
    pub faults_in_all: u64,
}

impl Checked {
    /// More are counted and not named.
    pub const FAULTS_MAX: usize = 200;

    /// Notes a fault.
    pub fn fault(&mut self, what: String) {
        self.faults_in_all += 1;
        if self.faults.len() < Self::FAULTS_MAX {
            self.faults.push(what);
        }
    }
}

/// What one commit writes, all or nothing.
#[derive(Debug, Default)]
pub struct Batch {
    /// The numbers that its facts build on; `None`: it is not checked.
    pub names_known: Option<NamesKnown>,
    /// Ids that take the next node numbers, with the probe that brought each.
    pub new_nodes: Vec<(NodeId, u32)>,
    /// Names that take the next subnet numbers, with the probe that brought each.
    pub new_subnets: Vec<(String, u32)>,
    /// Facts.
    pub facts: Vec<Fact>,
    /// Details that are new or changed, by node number.
    pub details: BTreeMap<u32, Details>,
    /// Gaps; one that is there already changes nothing.
    pub gaps: Vec<Gap>,
    /// Samples.
    pub samples: Vec<NodeSample>,
    /// Parts that one probe may have stored for one round; `None`: any number.
    pub parts_per_round_max: Option<u32>,
    /// When it is written, unix milliseconds.
    pub now_ms: i64,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
            && self.details.is_empty()
            && self.gaps.is_empty()
            && self.samples.is_empty()
    }
}

/// How many nodes and subnets have a number, as far as a process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NamesKnown {
    pub nodes: u32,
    pub subnets: u32,
}

/// Ids and subnets by their numbers, each with the probe that brought it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NewNames {
    pub nodes: Vec<(NodeId, u32)>,
    pub subnets: Vec<(String, u32)>,
}

/// What a commit came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    /// One answer per fact, in order.
    pub puts: Vec<Put>,
    /// Its position; `None`: it had no facts.
    pub position: Option<Position>,
}

/// What was committed after some positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Since {
    /// Keys of facts, and compacted days that hold some.
    pub late: Late,
    /// Those keys of which another fact, at or before the positions, had the smallest digest
    /// until then.
    pub outranked: BTreeSet<FactKey>,
    /// The last commit of every writer.
    pub to: Positions,
}

/// Says that its holder has the lease; later holders have greater ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What became of a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Stored as the first under its key.
    New,
    /// Was there already.
    Duplicate,
    /// Stored beside another one under the same key, and has the smallest digest of them.
    ConflictSmallest,
    /// Stored beside another one under the same key that has a smaller digest.
    ConflictLarger,
    /// Not stored: the round has as many parts of this probe as it may.
    RoundFull,
}
