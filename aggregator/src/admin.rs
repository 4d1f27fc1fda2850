//! The Admin service: what an operator may do over the network. The gate has seen to it that an
//! admin calls.
//!
//! Owns checking what is asked. The same is done by `uptime-aggregator probe` on the aggregator's
//! own host.

use std::net::IpAddr;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uptime_proto::v1;

use crate::access::audit::Auditor;
use crate::access::commands::check_reason;
use crate::access::{CallContext, Refusal, check_name, check_subnet, hash_token, new_token};
use crate::clock::now_unix_ms;
use crate::ledger::{AccessError, Ledger};
use crate::store::{
    AuditRecord, By, Changed, CredentialKind, Ends, NewCredential, NewIdentity, ProbeRecord,
    Retraction, Role,
};

/// Subnets that one probe may be allowed by name.
const SUBNETS_MAX: usize = 64;
/// How long an old token may stay valid beside a new one: 30 days.
const OVERLAP_S_MAX: u32 = 30 * 86_400;
/// Lines of the audit log in one answer, unless fewer are asked for.
const PAGE_MAX: u32 = 1_000;
/// Where nothing is asked for.
const PAGE: u32 = 100;

/// The service.
#[derive(Debug, Clone)]
pub struct Admin {
    ledger: Ledger,
    auditor: Auditor,
}

/// Who calls.
struct Caller {
    by: By,
    address: IpAddr,
}

impl Caller {
    fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let pass = request.extensions().get::<CallContext>();
        let caller = pass.and_then(|pass| {
            let address = pass.peer.address.ip();
            let actor = format!("{} at {address}", pass.identity.as_ref()?.name);
            Some(Self { by: By { actor, now_ms: now_unix_ms() }, address })
        });
        caller.ok_or_else(|| Status::unauthenticated("no admin makes this call"))
    }
}

fn unavailable(error: AccessError) -> Status {
    Status::unavailable(error.to_string())
}

fn invalid(fault: String) -> Status {
    Status::invalid_argument(fault)
}

impl Admin {
    /// The service over a ledger.
    #[must_use]
    pub fn new(ledger: Ledger, auditor: Auditor) -> Self {
        Self { ledger, auditor }
    }

    async fn probe(&self, name: &str) -> Result<ProbeRecord, Status> {
        self.ledger.refresh_identities().await;
        let identities = self.ledger.identities();
        let probe = identities.probes.get(name).cloned();
        probe.ok_or_else(|| Status::not_found(format!("no probe is named {name:?}")))
    }
}

fn done(name: &str, changed: Changed) -> Result<(), Status> {
    match changed {
        Changed::Done => Ok(()),
        Changed::Revoked => {
            Err(Status::failed_precondition(format!("{name} is revoked, and stays so")))
        }
        Changed::NoSuchName | Changed::NoSuchTicket | Changed::NoSuchCredential | Changed::Over => {
            Err(Status::not_found(format!("no probe is named {name:?}")))
        }
    }
}

fn token_of(token: &str) -> NewCredential {
    let (hash, kind) = (hash_token(token), CredentialKind::Token);
    NewCredential { hash, kind, valid_until_ms: None }
}

fn event(line: AuditRecord) -> v1::AuditEvent {
    v1::AuditEvent {
        at_unix_ms: line.at_ms,
        actor: line.actor,
        action: line.action,
        subject: line.subject,
        detail: line.detail,
        count: line.count,
    }
}

#[tonic::async_trait]
impl v1::admin_server::Admin for Admin {
    type BackupStream = ReceiverStream<Result<v1::BackupResponse, Status>>;

    async fn enrol_probe(
        &self,
        request: Request<v1::EnrolProbeRequest>,
    ) -> Result<Response<v1::EnrolProbeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let v1::EnrolProbeRequest { name, subnets_allowed } = request.into_inner();
        check_name(&name).map_err(invalid)?;
        if subnets_allowed.len() > SUBNETS_MAX {
            return Err(invalid(format!("at most {SUBNETS_MAX} subnets can be named")));
        }
        subnets_allowed.iter().try_for_each(|tag| check_subnet(tag)).map_err(invalid)?;
        let token = new_token();
        let credential = Some(token_of(&token));
        let identity =
            NewIdentity { name: name.clone(), role: Role::Probe, subnets_allowed, credential };
        if !self.ledger.enrol(identity, caller.by).await.map_err(unavailable)? {
            let refusal = Refusal::NameTaken;
            self.auditor.refused(refusal, caller.address, Some(&name), "EnrolProbe");
            let detail = format!("{name} is enrolled already, or was");
            return Err(Status::already_exists(detail));
        }
        Ok(Response::new(v1::EnrolProbeResponse { token }))
    }

    async fn rotate_probe(
        &self,
        request: Request<v1::RotateProbeRequest>,
    ) -> Result<Response<v1::RotateProbeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let v1::RotateProbeRequest { name, overlap_s, keep_others } = request.into_inner();
        if overlap_s > OVERLAP_S_MAX {
            return Err(invalid(format!("overlap_s: at most {OVERLAP_S_MAX}")));
        }
        self.probe(&name).await?;
        let token = new_token();
        let until_ms = caller.by.now_ms.saturating_add(i64::from(overlap_s) * 1000);
        let (credential, ends) = (token_of(&token), Ends::keeping_others(keep_others));
        let renewed = self.ledger.renew(name.clone(), credential, ends, until_ms, caller.by).await;
        done(&name, renewed.map_err(unavailable)?)?;
        Ok(Response::new(v1::RotateProbeResponse { token }))
    }

    async fn revoke_probe(
        &self,
        request: Request<v1::RevokeProbeRequest>,
    ) -> Result<Response<v1::RevokeProbeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().name;
        self.probe(&name).await?;
        let revoked = self.ledger.revoke(name.clone(), caller.by).await.map_err(unavailable)?;
        done(&name, revoked)?;
        Ok(Response::new(v1::RevokeProbeResponse {}))
    }

    async fn retract(
        &self,
        request: Request<v1::RetractRequest>,
    ) -> Result<Response<v1::RetractResponse>, Status> {
        let caller = Caller::of(&request)?;
        let v1::RetractRequest { probe, from_unix_s, to_unix_s, reason } = request.into_inner();
        check_reason(&reason).map_err(invalid)?;
        if from_unix_s >= to_unix_s {
            return Err(invalid("from_unix_s must be before to_unix_s".to_owned()));
        }
        let retraction = Retraction {
            number: 0,
            probe: self.probe(&probe).await?.number,
            from_s: from_unix_s,
            to_s: to_unix_s,
            reason,
            made_at_ms: caller.by.now_ms,
            undone_at_ms: None,
        };
        let retraction_id =
            self.ledger.retract(retraction, caller.by).await.map_err(unavailable)?;
        Ok(Response::new(v1::RetractResponse { retraction_id }))
    }

    async fn undo_retraction(
        &self,
        request: Request<v1::UndoRetractionRequest>,
    ) -> Result<Response<v1::UndoRetractionResponse>, Status> {
        let caller = Caller::of(&request)?;
        let number = request.into_inner().retraction_id;
        if !self.ledger.undo_retraction(number, caller.by).await.map_err(unavailable)? {
            return Err(Status::not_found(format!("no retraction {number} is in force")));
        }
        Ok(Response::new(v1::UndoRetractionResponse {}))
    }

    async fn list_retractions(
        &self,
        request: Request<v1::ListRetractionsRequest>,
    ) -> Result<Response<v1::ListRetractionsResponse>, Status> {
        Caller::of(&request)?;
        let identities = self.ledger.identities();
        let name = |number: u32| {
            let probe = identities.probes.values().find(|probe| probe.number == number);
            probe.map(|probe| probe.name.clone()).unwrap_or_default()
        };
        let retractions = self.ledger.retractions().await.map_err(unavailable)?;
        let retractions = retractions.into_iter().map(|retraction| v1::Retraction {
            retraction_id: retraction.number,
            probe: name(retraction.probe),
            from_unix_s: retraction.from_s,
            to_unix_s: retraction.to_s,
            reason: retraction.reason,
            made_at_unix_ms: retraction.made_at_ms,
            undone: retraction.undone_at_ms.is_some(),
        });
        let retractions = retractions.collect();
        Ok(Response::new(v1::ListRetractionsResponse { retractions }))
    }

    async fn import_csv(
        &self,
        _: Request<Streaming<v1::ImportCsvRequest>>,
    ) -> Result<Response<v1::ImportCsvResponse>, Status> {
        Err(Status::unimplemented("ImportCsv is not answered by this version"))
    }

    async fn backup(
        &self,
        _: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented("Backup is not answered by this version"))
    }

    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        Caller::of(&request)?;
        let v1::ListAuditRequest { page_size, page_token } = request.into_inner();
        let count = if page_size == 0 { PAGE } else { page_size.min(PAGE_MAX) };
        let before = match page_token.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| invalid("page_token is none".to_owned()))?),
        };
        let lines = self.ledger.audit_log(before, count).await.map_err(unavailable)?;
        // A page that is not full is the last one.
        let next = lines.last().filter(|_| lines.len() == count as usize);
        let next_page_token = next.map(|line| line.number.to_string()).unwrap_or_default();
        let events = lines.into_iter().map(event).collect();
        Ok(Response::new(v1::ListAuditResponse { events, next_page_token }))
    }
}
