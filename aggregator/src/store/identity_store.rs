//! Who may speak: the records, and the verbs of a store about them.
//!
//! Owns what an identity, a line of the audit log and a change of either are. Refuses to judge:
//! whether credentials are good now is decided in `access`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::credentials::{Credential, Ends, NewCredential};
use super::error::StoreError;
use super::records::{ProbeRecord, Retraction};

/// Who acts when someone works on the aggregator's own host: whoever may write its files may do
/// anything, so no more of a name is claimed.
pub const ON_THIS_HOST: &str = "this host";

/// How the action of a refusal begins.
pub const REFUSED: &str = "refused: ";

/// What an identity may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Hands in what it observed.
    Probe,
    /// Asks.
    Reader,
    /// Asks, enrols, revokes, retracts.
    Admin,
}

impl Role {
    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Reader => "reader",
            Self::Admin => "admin",
        }
    }
}

/// Someone who reads or administers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerRecord {
    /// The name.
    pub name: String,
    /// Reader or admin.
    pub role: Role,
    /// Unix milliseconds.
    pub enrolled_at_ms: i64,
    /// May call no more.
    pub revoked: bool,
}

/// An identity that is new.
#[derive(Clone)]
pub struct NewIdentity {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// For a probe: the subnets it may speak for; empty: any.
    pub subnets_allowed: Vec<String>,
    /// Its first proof; a probe known by another authority's certificate has none here.
    pub credential: Option<NewCredential>,
}

/// All identities and their proofs: some hundreds, so they are in memory as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    /// By name.
    pub probes: BTreeMap<String, ProbeRecord>,
    /// Readers and admins, by name.
    pub callers: BTreeMap<String, CallerRecord>,
    /// By hash. For proofs shown by strangers see [`Identities::credential`].
    pub credentials: HashMap<[u8; 32], Credential>,
    /// The built-in authorities whose certificates are on record one by one, by the hash of the
    /// name that stands in what they issued.
    pub authorities: BTreeSet<[u8; 32]>,
}

impl Identities {
    /// The credential with this hash. Every stored hash is compared, each in constant time, so that
    /// how long it takes says nothing of how much of one was guessed; there are some hundreds.
    #[must_use]
    pub fn credential(&self, shown: &[u8; 32]) -> Option<&Credential> {
        let shown = blake3::Hash::from_bytes(*shown);
        self.credentials.iter().fold(None, |found, (hash, credential)| {
            // This type's comparison is of constant time.
            if blake3::Hash::from_bytes(*hash) == shown { Some(credential) } else { found }
        })
    }
}

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Ascending, never used twice; ignored in what is to be written.
    pub number: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Who did it, or tried to.
    pub actor: String,
    /// What; of a closed list.
    pub action: String,
    /// Whom or what it concerns.
    pub subject: String,
    /// The rest, for people.
    pub detail: String,
    /// How often it happened in a row.
    pub count: u64,
}

/// Who does something, and when.
#[derive(Debug, Clone)]
pub struct By {
    /// For the audit log.
    pub actor: String,
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// What became of a change to an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Done.
    Done,
    /// There is nobody of that name.
    NoSuchName,
    /// It is revoked, and stays so.
    Revoked,
    /// The ticket was used, has ended, or never was.
    NoSuchTicket,
    /// There is no such credential.
    NoSuchCredential,
    /// It has ended before.
    Over,
}

/// The verbs that concern identities. As with [`super::Store`], what a call that returned `Ok`
/// wrote survives power loss.
pub trait IdentityStore: Send {
    /// All of them.
    fn identities(&mut self) -> impl Future<Output = Result<Identities, StoreError>> + Send;

    /// Whether another process has written since the last time this was asked.
    fn written_by_others(&mut self) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Notes a built-in authority: of what it issued only certificates on record pass from then on.
    fn add_authority(
        &mut self,
        authority: &[u8; 32],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Enrols; answers whether the name was free.
    fn enrol(
        &mut self,
        identity: &NewIdentity,
        by: &By,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Gives a new proof. Those of the older ones that end do so at `others_until_ms` at the
    /// latest, and tickets at once.
    fn renew(
        &mut self,
        name: &str,
        credential: &NewCredential,
        ends: Ends,
        others_until_ms: i64,
        by: &By,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Ends one credential now, by its hash.
    fn end_credential(
        &mut self,
        hash: &[u8; 32],
        by: &By,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Uses a ticket up and gives its owner this token.
    fn redeem(
        &mut self,
        ticket: &[u8; 32],
        token: &[u8; 32],
        by: &By,
    ) -> impl Future<Output = Result<(Changed, Option<String>), StoreError>> + Send;

    /// Ends an identity for good.
    fn revoke(
        &mut self,
        name: &str,
        by: &By,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Adds a retraction, with its line in the audit log; its number is ignored and the one it got
    /// is answered.
    fn retract(
        &mut self,
        retraction: &Retraction,
        by: &By,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Undoes a retraction, with its line in the audit log; answers whether there was one that
    /// held.
    fn undo_retraction(
        &mut self,
        number: u64,
        by: &By,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Adds lines to the audit log.
    fn note(
        &mut self,
        lines: &[AuditRecord],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The audit log, newest first: at most `count` lines with numbers below `before`.
    fn audit_log(
        &mut self,
        before: Option<u64>,
        count: u32,
    ) -> impl Future<Output = Result<Vec<AuditRecord>, StoreError>> + Send;
}
