//! A ticket becomes a token: how a probe's host gets a secret that nobody else ever saw.

use tonic::{Request, Response, Status};
use uptime_proto::v1;

use crate::access::audit::Auditor;
use crate::access::{CallContext, Refusal, hash_token, new_token};
use crate::clock::now_unix_ms;
use crate::ledger::Ledger;
use crate::store::{By, Changed};

/// The same whatever was wrong with it.
const NO_TICKET: &str = "this ticket is good for nothing; ask the aggregator's operator";

/// Exchanges the ticket that the gate has let in. Of two who come with it at once one is too late.
pub(super) async fn join(
    ledger: &Ledger,
    auditor: &Auditor,
    request: &Request<v1::JoinRequest>,
) -> Result<Response<v1::JoinResponse>, Status> {
    let no_ticket = || Status::unauthenticated(NO_TICKET);
    let pass = request.extensions().get::<CallContext>().ok_or_else(no_ticket)?;
    let ticket = pass.ticket.ok_or_else(no_ticket)?;
    let address = pass.peer.address.ip();
    let by = By { actor: address.to_string(), now_ms: now_unix_ms() };
    let token = new_token();
    let redeemed = ledger.redeem(ticket, hash_token(&token), by).await;
    match redeemed.map_err(|error| Status::unavailable(error.to_string()))? {
        (Changed::Done, Some(probe_name)) => {
            tracing::info!(probe = probe_name, %address, "ticket exchanged for a token");
            Ok(Response::new(v1::JoinResponse { token, probe_name }))
        }
        (changed, name) => {
            let refusal = match changed {
                Changed::Revoked => Refusal::Revoked,
                _ => Refusal::EndedTicket,
            };
            auditor.refused(refusal, address, name.as_deref(), "Join");
            Err(no_ticket())
        }
    }
}
