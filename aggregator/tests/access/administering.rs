//! The Admin service, as an operator far from the aggregator's host uses it.

use tonic::{Code, Status};
use uptime_aggregator::store::Role;
use uptime_proto::v1::{self, admin_client::AdminClient};

use super::support::{Aggregator, Caller, Callers, Host};

struct Desk {
    caller: Caller,
    client: AdminClient<tonic::transport::Channel>,
}

impl Desk {
    async fn open(host: &Host, aggregator: &Aggregator) -> Self {
        let boss = host.enrol_by_certificate("boss", Role::Admin).await;
        let caller = aggregator.tls_caller(host).with(&boss);
        let client = caller.admin().await;
        Self { caller, client }
    }

    async fn enrol(&mut self, name: &str, subnets: &[&str]) -> Result<String, Status> {
        let subnets_allowed = subnets.iter().map(|subnet| (*subnet).to_owned()).collect();
        let request = v1::EnrolProbeRequest { name: name.to_owned(), subnets_allowed };
        Ok(self.client.enrol_probe(self.caller.request(request)).await?.into_inner().token)
    }

    async fn rotate(&mut self, name: &str, overlap_s: u32) -> Result<String, Status> {
        let request =
            v1::RotateProbeRequest { name: name.to_owned(), overlap_s, ..Default::default() };
        Ok(self.client.rotate_probe(self.caller.request(request)).await?.into_inner().token)
    }

    async fn revoke(&mut self, name: &str) -> Result<(), Status> {
        let request = v1::RevokeProbeRequest { name: name.to_owned() };
        self.client.revoke_probe(self.caller.request(request)).await.map(drop)
    }

    async fn retract(&mut self, probe: &str, from: u64, to: u64, why: &str) -> Result<u64, Status> {
        let request = v1::RetractRequest {
            probe: probe.to_owned(),
            from_unix_s: from,
            to_unix_s: to,
            reason: why.to_owned(),
        };
        let answer = self.client.retract(self.caller.request(request)).await?;
        Ok(answer.into_inner().retraction_id)
    }

    async fn undo(&mut self, retraction_id: u64) -> Result<(), Status> {
        let request = v1::UndoRetractionRequest { retraction_id };
        self.client.undo_retraction(self.caller.request(request)).await.map(drop)
    }

    async fn retractions(&mut self) -> Vec<v1::Retraction> {
        let request = self.caller.request(v1::ListRetractionsRequest {});
        self.client.list_retractions(request).await.unwrap().into_inner().retractions
    }

    async fn audit(
        &mut self,
        page_size: u32,
        token: &str,
    ) -> Result<v1::ListAuditResponse, Status> {
        let request = v1::ListAuditRequest { page_size, page_token: token.to_owned() };
        Ok(self.client.list_audit(self.caller.request(request)).await?.into_inner())
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn probes_are_enrolled_rotated_and_revoked_and_it_holds_at_once() {
    let host = Host::new();
    let aggregator = Aggregator::start(host.with_tls()).await;
    let mut desk = Desk::open(&host, &aggregator).await;
    let first = desk.enrol("alpha", &["public"]).await.unwrap();
    let probe = |token: &str| aggregator.tls_caller(&host).token(token);
    probe(&first).submit(Vec::new()).await.unwrap();
    let second = desk.rotate("alpha", 3_600).await.unwrap();
    for token in [&first, &second] {
        probe(token).submit(Vec::new()).await.unwrap();
    }
    let third = desk.rotate("alpha", 0).await.unwrap();
    for token in [&first, &second] {
        assert_eq!(code(probe(token).submit(Vec::new()).await), Code::Unauthenticated);
    }
    probe(&third).submit(Vec::new()).await.unwrap();
    desk.revoke("alpha").await.unwrap();
    assert_eq!(code(probe(&third).submit(Vec::new()).await), Code::Unauthenticated);

    // What makes no sense is said, to someone who may know.
    let long = "n".repeat(65);
    for (result, wanted) in [
        (desk.enrol("alpha", &[]).await.map(drop), Code::AlreadyExists),
        (desk.enrol("boss", &[]).await.map(drop), Code::AlreadyExists),
        (desk.enrol("a b", &[]).await.map(drop), Code::InvalidArgument),
        (desk.enrol(&long, &[]).await.map(drop), Code::InvalidArgument),
        (desk.enrol("beta", &["a\nb"]).await.map(drop), Code::InvalidArgument),
        (desk.enrol("beta", &["x"; 65]).await.map(drop), Code::InvalidArgument),
        (desk.rotate("alpha", 0).await.map(drop), Code::FailedPrecondition),
        (desk.rotate("nobody", 0).await.map(drop), Code::NotFound),
        (desk.rotate("boss", 0).await.map(drop), Code::NotFound),
        (desk.rotate("alpha", 31 * 86_400).await.map(drop), Code::InvalidArgument),
        (desk.revoke("alpha").await, Code::FailedPrecondition),
        (desk.revoke("boss").await, Code::NotFound),
    ] {
        assert_eq!(code(result), wanted);
    }
    let imported = desk.client.import_csv(tokio_stream::iter([])).await;
    assert_eq!(imported.unwrap_err().code(), Code::Unimplemented);
    aggregator.stop().await;
}

#[tokio::test]
async fn retractions_and_the_trail_are_read_page_by_page() {
    let host = Host::new();
    host.enrol("alpha", Role::Probe).await;
    let aggregator = Aggregator::start(host.with_tls()).await;
    let mut desk = Desk::open(&host, &aggregator).await;
    let number = desk.retract("alpha", 30, 90, "its clock was wrong").await.unwrap();
    for (result, wanted) in [
        (desk.retract("nobody", 30, 90, "x").await, Code::NotFound),
        (desk.retract("boss", 30, 90, "x").await, Code::NotFound),
        (desk.retract("alpha", 90, 90, "x").await, Code::InvalidArgument),
        (desk.retract("alpha", 30, 90, " ").await, Code::InvalidArgument),
        (desk.retract("alpha", 30, 90, &"x".repeat(501)).await, Code::InvalidArgument),
    ] {
        assert_eq!(code(result), wanted);
    }
    desk.undo(number).await.unwrap();
    assert_eq!(code(desk.undo(number).await), Code::NotFound);
    assert_eq!(code(desk.undo(99).await), Code::NotFound);
    let there = desk.retractions().await;
    assert_eq!(there.len(), 1);
    assert_eq!((there[0].probe.as_str(), there[0].undone), ("alpha", true));
    assert_eq!((there[0].from_unix_s, there[0].to_unix_s), (30, 90));

    let mut actions = Vec::new();
    let mut token = String::new();
    loop {
        let page = desk.audit(2, &token).await.unwrap();
        actions.extend(page.events.into_iter().map(|event| (event.action, event.actor)));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let here = |action: &str| (action.to_owned(), "boss at 127.0.0.1".to_owned());
    let there = |action: &str| (action.to_owned(), "test".to_owned());
    let wanted = [here("undo-retraction"), here("retract"), there("enrol"), there("enrol")];
    assert_eq!(actions, wanted);
    assert_eq!(code(desk.audit(2, "nonsense").await), Code::InvalidArgument);
    let all = desk.audit(0, "").await.unwrap();
    assert!(all.events.len() == 4 && all.events.iter().all(|event| event.count == 1));
    aggregator.stop().await;
}
