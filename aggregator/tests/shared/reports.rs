//! Reports as a simple probe makes them, in the plain form.

use tonic::transport::Channel;
use uptime_aggregator::clock::now_unix_ms;
use uptime_proto::v1::collector_client::CollectorClient;
use uptime_proto::v1::{self, part::Evidence};

use crate::fixture::{PERIOD_S, with_token};

/// The start of the round that is going on.
pub fn round_now_s() -> u64 {
    let now_s = u64::try_from(now_unix_ms() / 1000).unwrap();
    now_s - now_s % PERIOD_S
}

/// Ids that no other call makes.
pub fn ids(first: u32, count: u32) -> Vec<u8> {
    (first..first + count)
        .flat_map(|number| {
            let mut id = [7; 20];
            id[16..].copy_from_slice(&number.to_be_bytes());
            id
        })
        .collect()
}

/// A market part of this round in the plain form.
pub fn market(number: u32, node_ids: Vec<u8>) -> v1::Part {
    let group = v1::PlainGroup {
        evidence_class: v1::EvidenceClass::Offer as i32,
        node_ids: node_ids.into(),
    };
    v1::Part {
        subnet: "public".into(),
        round_unix_s: round_now_s(),
        round_period_s: u32::try_from(PERIOD_S).unwrap(),
        number,
        kind: v1::PartKind::Market as i32,
        outcome: v1::Outcome::Looked as i32,
        reason: 0,
        observed_at_unix_ms: now_unix_ms(),
        relay_session_age_s: None,
        evidence: Some(Evidence::Plain(v1::PlainEvidence { groups: vec![group] })),
    }
}

pub fn report(parts: Vec<v1::Part>) -> v1::Report {
    v1::Report { report_id: 1, parts, ..v1::Report::default() }
}

/// Submits one report and answers its result.
pub async fn submit(
    collector: &mut CollectorClient<Channel>,
    token: &str,
    report: v1::Report,
) -> v1::ReportResult {
    let request = with_token(v1::SubmitRequest { reports: vec![report] }, token);
    let mut response = collector.submit(request).await.unwrap().into_inner();
    assert_eq!(response.results.len(), 1);
    response.results.remove(0)
}
