//! The durable truth: facts, and what is needed to read them.
//!
//! Owns the trait every store keeps to and the plain records that cross it. Refuses to interpret:
//! a store knows nothing of verdicts. Only the ledger, and `transfer` beside it, talk to a store.

mod blob;
mod check;
mod compaction;
mod connection;
mod credentials;
mod damage;
mod epochs;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod hold;
mod identities;
mod identity_store;
mod ids;
mod making;
mod opening;
pub mod place;
mod positions;
mod records;
mod round_parts;
mod samples;
mod schema;
mod segment;
mod sqlite;
mod states;
mod verbs;

pub use connection::{FILE_NAME as STORE_FILE_NAME, SqliteStore};
pub use credentials::{Credential, CredentialKind, Ends, NewCredential, credential_id};
pub use error::StoreError;
pub use identity_store::{
    AuditRecord, By, CallerRecord, Changed, Identities, IdentityStore, NewIdentity, ON_THIS_HOST,
    REFUSED, Role,
};
pub use opening::{Opening, OpeningRow};
pub use records::{
    Batch, Catalogue, Checked, CompactedDay, CompactionPlan, Delivery, Details, EpochChange,
    Latency, NamesKnown, NewNames, NodeSample, NodeSamples, ProbeRecord, Progress, Put, Read,
    Retraction, Since, Stored, Token,
};
pub use verbs::{Checkpoints, FactLog, Lease, Registry, Samples, Store};
