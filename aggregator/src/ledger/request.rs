//! What the ledger task may be asked.
//!
//! Owns the requests and the bound of their queue. Refuses to know how they are served.

use tokio::sync::oneshot;

use crate::engine::{Expiry, LookupState, PartOutcome, Submission};
use crate::store::{
    AuditRecord, By, Changed, CompactedDay, CompactionPlan, Ends, NewCredential, NewIdentity,
    ProbeRecord, Retraction, StoreError,
};

/// Requests that wait for the task. When so many do, senders wait too, and through them the
/// streams they serve: nothing is dropped.
pub(super) const QUEUE_MAX: usize = 256;

/// What a probe says when it connects.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "documented in collector.proto")]
pub struct Greeting {
    pub software_version: String,
    pub subnets: Vec<String>,
}

pub(super) enum Request {
    Submit(Submission, oneshot::Sender<Result<Vec<PartOutcome>, Unavailable>>),
    Refused { probe: u32, parts: u64 },
    Lookups { round_s: u64, answer: oneshot::Sender<LookupState> },
    Access(AccessRequest),
    Connected { probe: ProbeRecord, greeting: Option<Greeting> },
    Assigned { probe: u32, nodes: u64 },
    CommitCompaction(CompactionPlan, oneshot::Sender<Result<Option<CompactedDay>, StoreError>>),
    Expire(Box<Expiry>, oneshot::Sender<Result<u64, StoreError>>),
}

impl std::fmt::Debug for Request {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the contents: a request may carry the hash of a token.
        out.write_str("Request")
    }
}

/// The store would not take it, or the ledger is stopping: nothing was lost, try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not stored, try again: {0}")]
pub struct Unavailable(pub String);

pub(crate) fn stopping() -> Unavailable {
    Unavailable("the aggregator is stopping".to_owned())
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What is asked about identities, retractions and the audit log.
pub(super) enum AccessRequest {
    Refresh {
        if_written: bool,
        answer: oneshot::Sender<()>,
    },
    Enrol(NewIdentity, By, Answer<bool>),
    Renew {
        name: String,
        credential: NewCredential,
        ends: Ends,
        until_ms: i64,
        by: By,
        answer: Answer<Changed>,
    },
    Redeem {
        ticket: [u8; 32],
        token: [u8; 32],
        by: By,
        answer: Answer<(Changed, Option<String>)>,
    },
    Revoke(String, By, Answer<Changed>),
    Retract(Retraction, By, Answer<u64>),
    UndoRetraction(u64, By, Answer<bool>),
    Retractions(Answer<Vec<Retraction>>),
    Note(Vec<AuditRecord>, Answer<()>),
    AuditLog {
        before: Option<u64>,
        count: u32,
        answer: Answer<Vec<AuditRecord>>,
    },
}
