//! The verbs that concern identities, retractions and the audit log: of the handle and the task.
//!
//! Owns how they are asked for. Whether a proof is good is judged in `crate::access`; what is
//! stored, in the store. Every change carries who makes it, for the audit log.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::handle::Ledger;
use super::request::{AccessRequest, Answer, Request, Unavailable, stopping};
use super::task::Task;
use crate::store::{
    AuditRecord, By, Changed, Ends, Identities, NewCredential, NewIdentity, Retraction, Store,
};

/// Why a change was not made.
pub type AccessError = Unavailable;

impl Ledger {
    /// The identities as they were read last.
    #[must_use]
    pub fn identities(&self) -> Arc<Identities> {
        Arc::clone(&self.identities.borrow())
    }

    /// Tells when they change.
    #[must_use]
    pub fn identities_seen(&self) -> watch::Receiver<Arc<Identities>> {
        self.identities.clone()
    }

    /// Reads the identities again if another process has written to the store since, and waits
    /// until that is done.
    pub async fn refresh_identities(&self) {
        let (answer, done) = oneshot::channel();
        self.tell(Request::Access(AccessRequest::Refresh { if_written: true, answer })).await;
        // No answer comes from a ledger that is stopping.
        done.await.ok();
    }

    /// Enrols; answers whether the name was free.
    ///
    /// # Errors
    /// When nothing was stored; so with all these verbs.
    pub async fn enrol(&self, identity: NewIdentity, by: By) -> Result<bool, AccessError> {
        self.ask(|answer| AccessRequest::Enrol(identity, by, answer)).await
    }

    /// Gives a new proof; those of the older ones that end do so at `until_ms` at the latest.
    ///
    /// # Errors
    /// See [`Ledger::enrol`].
    pub async fn renew(
        &self,
        name: String,
        credential: NewCredential,
        ends: Ends,
        until_ms: i64,
        by: By,
    ) -> Result<Changed, AccessError> {
        self.ask(|answer| AccessRequest::Renew { name, credential, ends, until_ms, by, answer })
            .await
    }

    /// Exchanges a ticket for a token, both by their hashes; answers whose ticket it is or was.
    ///
    /// # Errors
    /// See [`Ledger::enrol`].
    pub async fn redeem(
        &self,
        ticket: [u8; 32],
        token: [u8; 32],
        by: By,
    ) -> Result<(Changed, Option<String>), AccessError> {
        self.ask(|answer| AccessRequest::Redeem { ticket, token, by, answer }).await
    }

    /// Ends an identity for good.
    ///
    /// # Errors
    /// See [`Ledger::enrol`].
    pub async fn revoke(&self, name: String, by: By) -> Result<Changed, AccessError> {
        self.ask(|answer| AccessRequest::Revoke(name, by, answer)).await
    }

    /// Takes a probe's evidence of an interval out of the count; answers the retraction's number.
    ///
    /// # Errors
    /// See [`Ledger::enrol`].
    pub async fn retract(&self, retraction: Retraction, by: By) -> Result<u64, AccessError> {
        self.ask(|answer| AccessRequest::Retract(retraction, by, answer)).await
    }

    /// Undoes a retraction; answers whether there was one that held.
    ///
    /// # Errors
    /// See [`Ledger::enrol`].
    pub async fn undo_retraction(&self, number: u64, by: By) -> Result<bool, AccessError> {
        self.ask(|answer| AccessRequest::UndoRetraction(number, by, answer)).await
    }

    /// All retractions, the undone ones included.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn retractions(&self) -> Result<Vec<Retraction>, AccessError> {
        self.ask(AccessRequest::Retractions).await
    }

    /// Adds lines to the audit log.
    ///
    /// # Errors
    /// See [`Ledger::enrol`].
    pub async fn note(&self, lines: Vec<AuditRecord>) -> Result<(), AccessError> {
        self.ask(|answer| AccessRequest::Note(lines, answer)).await
    }

    /// The audit log, newest first.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn audit_log(
        &self,
        before: Option<u64>,
        count: u32,
    ) -> Result<Vec<AuditRecord>, AccessError> {
        self.ask(|answer| AccessRequest::AuditLog { before, count, answer }).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(Answer<T>) -> AccessRequest,
    ) -> Result<T, AccessError> {
        let (answer, answered) = oneshot::channel();
        self.tell(Request::Access(request(answer))).await;
        let answered = answered.await.map_err(|_| stopping())?;
        answered.map_err(|error| Unavailable(error.to_string()))
    }
}

impl<S: Store> Task<S> {
    /// One of them. Whoever asked may have gone; what was changed stands all the same.
    pub(super) async fn access(&mut self, request: AccessRequest) {
        match request {
            AccessRequest::Refresh { if_written, answer } => {
                // When it cannot be told whether others wrote, what they may have written is read.
                let unwritten =
                    matches!(self.engine().store().written_by_others().await, Ok(false));
                if !(if_written && unwritten) {
                    self.engine().learn_from_others().await;
                    self.publish();
                }
                answer.send(()).ok();
            }
            AccessRequest::Enrol(identity, by, answer) => {
                let done = self.engine().store().enrol(&identity, &by).await;
                self.show_identities().await;
                answer.send(done).ok();
            }
            AccessRequest::Renew { name, credential, ends, until_ms, by, answer } => {
                let done =
                    self.engine().store().renew(&name, &credential, ends, until_ms, &by).await;
                self.show_identities().await;
                answer.send(done).ok();
            }
            AccessRequest::Redeem { ticket, token, by, answer } => {
                let done = self.engine().store().redeem(&ticket, &token, &by).await;
                self.show_identities().await;
                answer.send(done).ok();
            }
            AccessRequest::Revoke(name, by, answer) => {
                let done = self.engine().store().revoke(&name, &by).await;
                self.show_identities().await;
                answer.send(done).ok();
            }
            AccessRequest::Retract(retraction, by, answer) => {
                answer.send(self.engine().retract(&retraction, &by).await).ok();
            }
            AccessRequest::UndoRetraction(number, by, answer) => {
                answer.send(self.engine().undo_retraction(number, &by).await).ok();
            }
            AccessRequest::Retractions(answer) => {
                answer.send(self.engine().store().retractions().await).ok();
            }
            AccessRequest::Note(lines, answer) => {
                answer.send(self.engine().store().note(&lines).await).ok();
            }
            AccessRequest::AuditLog { before, count, answer } => {
                answer.send(self.engine().store().audit_log(before, count).await).ok();
            }
        }
    }

    /// Reads the identities anew and shows them, before whoever changed them is answered.
    async fn show_identities(&mut self) {
        self.engine().refresh_identities().await;
        self.show_settings();
    }
}
