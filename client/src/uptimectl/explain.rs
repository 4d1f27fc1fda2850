//! `explain`: why a node is shown as it is.
//!
//! Owns the records of JSON and CSV; `words` says the same for the node's provider.

mod words;

use anyhow::{Result, anyhow};
use serde::Serialize;
use uptime_client::v1::{self, EvidenceClass, Outcome, PartKind};
use uptime_client::{Answer, Client, Error};

use crate::args::{ExplainArgs, Output};
use crate::fresh::FreshnessRecord;
use crate::nodes::verdict_text;
use crate::output::{self, Misuse, Reply, field};
use crate::probes::{could_not_look, ineligibilities};
use crate::screen::Screen;
use crate::time_argument::RoundChoice;

/// An explanation as it stands in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ExplainRecord {
    id: String,
    round_unix_s: u64,
    verdict: &'static str,
    rule: String,
    positive_probes: u32,
    positive_probes_min: Option<u32>,
    eligible_probes: u32,
    eligible_looked: u32,
    eligible_unreachable: u32,
    probes: Vec<ProbeRecord>,
}

/// What one probe said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ProbeRecord {
    probe: String,
    eligible: bool,
    ineligibilities: Vec<String>,
    parts: Vec<PartRecord>,
}

/// One part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PartRecord {
    kind: String,
    subnet: String,
    number: u32,
    outcome: String,
    could_not_look: Option<String>,
    observed_at_unix_ms: i64,
    received_at_unix_ms: i64,
    evidence: Vec<String>,
    relay_session_age_s: Option<u32>,
    seen_age_ms: Option<i32>,
    answered_in_ms: Option<u32>,
    conflict: bool,
    retracted: bool,
    asked_round_unix_s: Option<u64>,
    age_kept: bool,
    failed_nodes: u64,
}

#[derive(Serialize)]
struct ExplainDocument {
    freshness: FreshnessRecord,
    explanation: ExplainRecord,
}

/// The stable text of a value of one of the closed lists; `None`: this version has no such value.
fn listed(name: Option<&'static str>, prefix: &str, value: i32) -> String {
    match name {
        Some(name) => name.strip_prefix(prefix).unwrap_or(name).to_lowercase(),
        None => format!("value_{value}"),
    }
}

fn kind(value: i32) -> String {
    let name = PartKind::try_from(value).ok().map(|kind| kind.as_str_name());
    listed(name, "PART_KIND_", value)
}

fn outcome(value: i32) -> String {
    let name = Outcome::try_from(value).ok().map(|outcome| outcome.as_str_name());
    listed(name, "OUTCOME_", value)
}

fn class(value: &i32) -> String {
    let name = EvidenceClass::try_from(*value).ok().map(|class| class.as_str_name());
    listed(name, "EVIDENCE_CLASS_", *value)
}

impl From<&v1::PartEvidence> for PartRecord {
    fn from(part: &v1::PartEvidence) -> Self {
        let looked = part.outcome == Outcome::Looked as i32;
        Self {
            kind: kind(part.kind),
            subnet: part.subnet.clone(),
            number: part.number,
            outcome: outcome(part.outcome),
            could_not_look: could_not_look(&[part.reason]).pop().filter(|_| !looked),
            observed_at_unix_ms: part.observed_at_unix_ms,
            received_at_unix_ms: part.received_at_unix_ms,
            evidence: part.evidence.iter().map(class).collect(),
            relay_session_age_s: part.relay_session_age_s,
            seen_age_ms: part.seen_age_ms,
            answered_in_ms: part.answered_in_ms,
            conflict: part.conflict,
            retracted: part.retracted,
            asked_round_unix_s: part.asked_round_unix_s,
            age_kept: part.age_kept,
            failed_nodes: part.failed_nodes,
        }
    }
}

impl From<&v1::ExplainResponse> for ExplainRecord {
    fn from(wire: &v1::ExplainResponse) -> Self {
        let probe = |probe: &v1::ProbeEvidence| ProbeRecord {
            probe: probe.probe.clone(),
            eligible: probe.eligible,
            ineligibilities: ineligibilities(&probe.ineligibilities),
            parts: probe.parts.iter().map(PartRecord::from).collect(),
        };
        Self {
            id: wire.id.clone(),
            round_unix_s: wire.round_unix_s,
            verdict: verdict_text(wire.verdict()),
            rule: wire.rule.clone(),
            positive_probes: wire.positive_probes,
            positive_probes_min: wire.epoch.as_ref().map(|epoch| epoch.positive_probes_min),
            eligible_probes: wire.eligible_probes,
            eligible_looked: wire.eligible_looked,
            eligible_unreachable: wire.eligible_unreachable,
            probes: wire.probes.iter().map(probe).collect(),
        }
    }
}

impl ExplainRecord {
    /// The columns of CSV: a row for each part, the fields of JSON, lists joined by `;`.
    const HEADER: [&str; 22] = [
        "id",
        "round_unix_s",
        "verdict",
        "probe",
        "eligible",
        "ineligibilities",
        "kind",
        "subnet",
        "number",
        "outcome",
        "could_not_look",
        "observed_at_unix_ms",
        "received_at_unix_ms",
        "evidence",
        "relay_session_age_s",
        "seen_age_ms",
        "answered_in_ms",
        "conflict",
        "retracted",
        "asked_round_unix_s",
        "age_kept",
        "failed_nodes",
    ];

    fn rows(&self) -> impl Iterator<Item = [String; 22]> {
        let parts = |probe: &ProbeRecord| {
            let parts: Vec<Option<PartRecord>> = match probe.parts.is_empty() {
                // A probe that has nothing to say of the node is a row, too.
                true => vec![None],
                false => probe.parts.iter().cloned().map(Some).collect(),
            };
            parts.into_iter().map(|part| self.row(probe, part)).collect::<Vec<_>>()
        };
        self.probes.iter().flat_map(parts)
    }

    fn row(&self, probe: &ProbeRecord, part: Option<PartRecord>) -> [String; 22] {
        let text = |value: fn(&PartRecord) -> String| part.as_ref().map(value).unwrap_or_default();
        [
            self.id.clone(),
            self.round_unix_s.to_string(),
            self.verdict.to_owned(),
            probe.probe.clone(),
            probe.eligible.to_string(),
            probe.ineligibilities.join(";"),
            text(|part| part.kind.clone()),
            text(|part| part.subnet.clone()),
            text(|part| part.number.to_string()),
            text(|part| part.outcome.clone()),
            text(|part| field(part.could_not_look.clone())),
            text(|part| part.observed_at_unix_ms.to_string()),
            text(|part| part.received_at_unix_ms.to_string()),
            text(|part| part.evidence.join(";")),
            text(|part| field(part.relay_session_age_s)),
            text(|part| field(part.seen_age_ms)),
            text(|part| field(part.answered_in_ms)),
            text(|part| part.conflict.to_string()),
            text(|part| part.retracted.to_string()),
            text(|part| field(part.asked_round_unix_s)),
            text(|part| part.age_kept.to_string()),
            text(|part| part.failed_nodes.to_string()),
        ]
    }
}

/// The start of a round, by what the aggregator says of its last one; `None`: that one.
pub(crate) async fn start_of(client: &Client, round: RoundChoice) -> Result<Option<u64>> {
    if round == RoundChoice::Back(0) {
        return Ok(None);
    }
    let last = client.rounds(1).await?;
    Ok(round.start_unix_s(&last.freshness).map_err(Misuse)?)
}

/// Answers `explain`.
pub(crate) async fn reply(client: &Client, args: &ExplainArgs, screen: &Screen) -> Result<Reply> {
    let round_unix_s = start_of(client, args.round).await?;
    let Answer { value: explanation, freshness } = client.explain(&args.id, round_unix_s).await?;
    let text = match args.how.output {
        Output::Table => {
            // How the node is shown now is said beside it; one that is not listed is not shown.
            let shown = match client.node(&args.id).await {
                Ok(answer) => Some(answer.value),
                Err(Error::NotFound(_)) => None,
                Err(error) => return Err(anyhow!(error)),
            };
            words::tell(&explanation, shown.as_ref(), &freshness, screen)
        }
        Output::Json => {
            let record = ExplainRecord::from(&explanation);
            let freshness = FreshnessRecord::from(&freshness);
            output::json(&ExplainDocument { freshness, explanation: record })?
        }
        Output::Csv => {
            let record = ExplainRecord::from(&explanation);
            output::csv(ExplainRecord::HEADER, record.rows())?
        }
    };
    let says_freshness = args.how.output == Output::Table;
    Ok(Reply { says_freshness, ..Reply::new(text, freshness) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_a_row_for_each_part_and_for_each_silent_probe() {
        let part = v1::PartEvidence {
            kind: PartKind::Lookup as i32,
            number: 1,
            outcome: Outcome::CouldNotLook as i32,
            reason: v1::CouldNotLookReason::TimedOut as i32,
            observed_at_unix_ms: 5,
            received_at_unix_ms: 6,
            evidence: vec![EvidenceClass::Seen as i32, 77],
            seen_age_ms: Some(-3),
            asked_round_unix_s: Some(30),
            ..v1::PartEvidence::default()
        };
        let probe = |name: &str, parts| v1::ProbeEvidence {
            probe: name.into(),
            eligible: false,
            ineligibilities: vec![1, 2],
            parts,
        };
        let wire = v1::ExplainResponse {
            id: "0x1".into(),
            round_unix_s: 30,
            verdict: v1::Verdict::Down as i32,
            probes: vec![probe("alpha", vec![part.clone(), part]), probe("beta", vec![])],
            ..v1::ExplainResponse::default()
        };
        let record = ExplainRecord::from(&wire);
        let rows: Vec<String> = record.rows().map(|row| row.join(",")).collect();
        let alpha = "0x1,30,down,alpha,false,relay_session_young;relay_session_missing,lookup,,1,\
                     could_not_look,timed_out,5,6,seen;value_77,,-3,,false,false,30,false,0";
        assert_eq!(rows[..2], [alpha, alpha]);
        let beta = "0x1,30,down,beta,false,relay_session_young;relay_session_missing,";
        assert!(rows[2].starts_with(beta) && rows[2].ends_with(",,,,,,,,,,,"), "{}", rows[2]);
        let value = serde_json::to_value(&record.probes[0].parts[0]).unwrap();
        let names = value.as_object().unwrap().keys();
        assert!(names.clone().all(|name| ExplainRecord::HEADER.contains(&name.as_str())));
    }
}
