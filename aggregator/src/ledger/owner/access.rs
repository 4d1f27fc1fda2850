//! What the owner does about identities, retractions and the trail: the store's verbs, and telling
//! everyone who waits for what changed.

use std::sync::Arc;

use super::{Owner, status_of};
use crate::ledger::access::AccessRequest;
use crate::store::Store;

impl<S: Store> Owner<S> {
    /// One of them. Whoever asked may have gone; what was changed stands all the same.
    pub(super) async fn access(&mut self, request: AccessRequest) {
        match request {
            AccessRequest::Refresh { if_written, answer } => {
                self.refresh_if(if_written).await;
                answer.send(()).ok();
            }
            AccessRequest::Enrol(identity, by, answer) => {
                let done = self.store.enrol(&identity, &by).await;
                self.refresh_identities().await;
                answer.send(done).ok();
            }
            AccessRequest::Renew { name, credential, ends, until_ms, by, answer } => {
                let done = self.store.renew(&name, &credential, ends, until_ms, &by).await;
                self.refresh_identities().await;
                answer.send(done).ok();
            }
            AccessRequest::Redeem { ticket, token, by, answer } => {
                let done = self.store.redeem(&ticket, &token, &by).await;
                self.refresh_identities().await;
                answer.send(done).ok();
            }
            AccessRequest::Revoke(name, by, answer) => {
                let done = self.store.revoke(&name, &by).await;
                self.refresh_identities().await;
                answer.send(done).ok();
            }
            AccessRequest::Retract(retraction, by, answer) => {
                answer.send(self.store.retract_by(&retraction, &by).await).ok();
            }
            AccessRequest::UndoRetraction(number, by, answer) => {
                answer.send(self.store.undo_retraction_by(number, &by).await).ok();
            }
            AccessRequest::Retractions(answer) => {
                answer.send(self.store.retractions().await).ok();
            }
            AccessRequest::Note(lines, answer) => {
                answer.send(self.store.note(&lines).await).ok();
            }
            AccessRequest::Trail { before, count, answer } => {
                answer.send(self.store.trail(before, count).await).ok();
            }
        }
    }

    async fn refresh_if(&mut self, only_if_written: bool) {
        // When that cannot be told, they are read.
        if only_if_written && matches!(self.store.written_by_others().await, Ok(false)) {
            return;
        }
        self.learn_from_others().await;
    }

    /// Reads the identities. They may be changed by another process; a probe that was enrolled and
    /// never came is worth showing, too.
    pub(super) async fn refresh_identities(&mut self) {
        let identities = match self.store.identities().await {
            Ok(identities) => identities,
            Err(error) => {
                tracing::error!(%error, "identities are those that were read before");
                return;
            }
        };
        for probe in identities.probes.values() {
            let status = self.probes.entry(probe.number).or_insert_with(|| status_of(probe));
            status.revoked = probe.revoked;
        }
        self.identities.send_if_modified(|there| {
            let changed = **there != identities;
            if changed {
                *there = Arc::new(identities);
            }
            changed
        });
    }
}
