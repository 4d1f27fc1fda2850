//! The durable truth: facts, and what is needed to read them.
//!
//! Owns the trait every store keeps to and the plain records that cross it. Refuses to interpret:
//! a store knows nothing of verdicts. Only the ledger talks to a store.

mod blob;
mod sqlite;

pub use sqlite::SqliteStore;

use std::collections::BTreeMap;
use std::path::PathBuf;

use uptime_proto::{Epoch, NodeId, Reason};

use crate::ledger::evidence::Fact;

/// Why a store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory or a file in it cannot be used.
    #[error("cannot use {path}: {detail}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        detail: String,
    },
    /// The file was written by a newer version of this program.
    #[error("{path} has schema version {found}, this program knows {known}: use a newer program")]
    TooNew {
        /// Which.
        path: PathBuf,
        /// What it says of itself.
        found: i64,
        /// What this program can read.
        known: i64,
    },
    /// The database refused; nothing of the call was stored.
    #[error("the database refused: {0}")]
    Database(#[from] sqlx::Error),
    /// Something stored does not read back.
    #[error("damaged: {0}")]
    Damaged(String),
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
    /// By number, each with the probe that brought it.
    pub nodes: Vec<(NodeId, u32)>,
    /// By node number.
    pub details: BTreeMap<u32, Details>,
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

/// What one commit writes, all or nothing.
#[derive(Debug, Default)]
pub struct Batch {
    /// Ids that take the next node numbers, with the probe that brought each.
    pub new_nodes: Vec<(NodeId, u32)>,
    /// Names that take the next subnet numbers.
    pub new_subnets: Vec<String>,
    /// Facts.
    pub facts: Vec<Fact>,
    /// Details that are new or changed, by node number.
    pub details: BTreeMap<u32, Details>,
    /// Gaps; one that is there already changes nothing.
    pub gaps: Vec<Gap>,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.details.is_empty() && self.gaps.is_empty()
    }
}

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
}

/// A fact, or the place of one that cannot be read.
pub type Read = Result<Fact, String>;

/// The verbs of a store. When a call that writes returns `Ok`, what it wrote survives power loss.
pub trait Store: Send {
    /// Everything but the facts.
    fn catalogue(&mut self) -> impl Future<Output = Result<Catalogue, StoreError>> + Send;

    /// Writes a batch in one transaction; one answer per fact, in order.
    fn put(&mut self, batch: &Batch) -> impl Future<Output = Result<Vec<Put>, StoreError>> + Send;

    /// The facts of rounds that start in `[from_s, to_s)`, ascending by key, conflicting ones
    /// included. What is damaged is named and does not take the rest along.
    fn read(
        &mut self,
        from_s: u64,
        to_s: u64,
    ) -> impl Future<Output = Result<Vec<Read>, StoreError>> + Send;

    /// The gaps that have a part in `[from_s, to_s)`, ascending.
    fn gaps(
        &mut self,
        from_s: u64,
        to_s: u64,
    ) -> impl Future<Output = Result<Vec<Gap>, StoreError>> + Send;

    /// The starts of the first and last round that has a fact.
    fn extent(&mut self) -> impl Future<Output = Result<Option<(u64, u64)>, StoreError>> + Send;

    /// Adds an epoch.
    fn add_epoch(&mut self, epoch: &Epoch) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Enrols a probe, or answers `None` when the name is taken.
    fn add_probe(
        &mut self,
        name: &str,
        token_hash: &[u8; 32],
        subnets_allowed: &[String],
        now_ms: i64,
    ) -> impl Future<Output = Result<Option<ProbeRecord>, StoreError>> + Send;

    /// All probes.
    fn probes(&mut self) -> impl Future<Output = Result<Vec<ProbeRecord>, StoreError>> + Send;

    /// The probe whose token has this hash.
    fn probe_by_token(
        &mut self,
        token_hash: &[u8; 32],
    ) -> impl Future<Output = Result<Option<ProbeRecord>, StoreError>> + Send;
}
