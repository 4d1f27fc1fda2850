//! The plain form of a part, the limits on parts, and why a part is refused.
//!
//! Owns the head of a part, which both forms share, and groups of ids. Refuses the compact form.

use std::fmt;

use crate::evidence::{Class, Kind, Outcome, Part, PartKey, Reason, Sets};
use crate::node_id::{NODE_ID_BYTES, NodeId};
use crate::round::{Period, Round};
use crate::v1::{self, RefusalReason, part::Evidence};

/// Limits on parts. Defaults are what the aggregator announces unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented in types.proto")]
pub struct PartLimits {
    pub observations_per_part_max: usize,
    pub part_numbers_max: u16,
    /// Over all subnets of a round. Nothing a message is wrong by alone: whoever makes parts and
    /// whoever stores them keep to it.
    pub parts_per_round_max: u32,
    pub subnet_bytes_max: usize,
    pub compact_bases_max: usize,
    pub compact_nodes_max: u32,
}

impl Default for PartLimits {
    /// 40,000 ids are 800 kB, so a part always fits a message; 64 such parts carry 2.5 million. A
    /// probe makes some three parts a round and one more for each further subnet: 256 leave room
    /// for sixty subnets of a large network.
    fn default() -> Self {
        Self {
            observations_per_part_max: 40_000,
            part_numbers_max: 64,
            parts_per_round_max: 256,
            subnet_bytes_max: 64,
            compact_bases_max: 64,
            compact_nodes_max: 2_000_000,
        }
    }
}

/// Why a part is not taken: a reason from the closed list, and what was wrong where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable reason.
    pub reason: RefusalReason,
    /// For people.
    pub detail: String,
}

impl Refusal {
    /// A refusal for this reason.
    pub fn new(reason: RefusalReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.reason.as_str_name().trim_start_matches("REFUSAL_REASON_");
        write!(out, "{name}: {}", self.detail)
    }
}

impl std::error::Error for Refusal {}

/// The part without its sets.
pub(super) fn head_from_wire(wire: &v1::Part, limits: &PartLimits) -> Result<Part, Refusal> {
    let missing = |what: &str| Refusal::new(RefusalReason::FieldMissing, format!("{what} not set"));
    let kind = Kind::from_wire(wire.kind).ok_or_else(|| missing("kind"))?;
    let period = Period::new(wire.round_period_s)
        .map_err(|error| Refusal::new(RefusalReason::PeriodInvalid, error.to_string()))?;
    let round = Round::new(wire.round_unix_s, period)
        .map_err(|error| Refusal::new(RefusalReason::RoundOffGrid, error.to_string()))?;
    let number = u16::try_from(wire.number)
        .ok()
        .filter(|number| *number < limits.part_numbers_max)
        .ok_or_else(|| {
            let detail =
                format!("part number {} is not below {}", wire.number, limits.part_numbers_max);
            Refusal::new(RefusalReason::PartNumberTooLarge, detail)
        })?;
    check_subnet(&wire.subnet, kind, limits)?;
    let outcome = match v1::Outcome::try_from(wire.outcome) {
        Ok(v1::Outcome::Looked) => Outcome::Looked,
        Ok(v1::Outcome::CouldNotLook) => Outcome::CouldNotLook(
            Reason::from_wire(wire.reason).ok_or_else(|| missing("reason of could-not-look"))?,
        ),
        _ => return Err(missing("outcome")),
    };
    Ok(Part {
        key: PartKey { subnet: wire.subnet.clone(), round, number },
        kind,
        outcome,
        observed_at_ms: wire.observed_at_unix_ms,
        relay_session_age_s: wire.relay_session_age_s,
        sets: Sets::default(),
    })
}

fn check_subnet(subnet: &str, kind: Kind, limits: &PartLimits) -> Result<(), Refusal> {
    let refuse = |detail: String| Err(Refusal::new(RefusalReason::SubnetInvalid, detail));
    if (kind == Kind::Market) == subnet.is_empty() {
        return refuse("a market part names its subnet, other parts have an empty one".to_owned());
    }
    if subnet.len() > limits.subnet_bytes_max {
        let (got, most) = (subnet.len(), limits.subnet_bytes_max);
        return refuse(format!("a subnet has at most {most} bytes, this one {got}"));
    }
    if subnet.chars().any(char::is_control) {
        return refuse(format!("{subnet:?} has a control character"));
    }
    Ok(())
}

pub(super) fn plain_sets(plain: &v1::PlainEvidence, limits: &PartLimits) -> Result<Sets, Refusal> {
    let bytes: usize = plain.groups.iter().map(|group| group.node_ids.len()).sum();
    check_count(bytes / NODE_ID_BYTES, limits)?;
    let mut sets = Sets::default();
    for group in &plain.groups {
        let class = Class::from_wire(group.evidence_class).ok_or_else(|| {
            Refusal::new(RefusalReason::FieldMissing, "evidence class of a group not set")
        })?;
        let ids = NodeId::split(&group.node_ids).map_err(|_| {
            let detail = format!(
                "node_ids of {} has {} bytes, not a multiple of 20",
                class.to_wire().as_str_name(),
                group.node_ids.len()
            );
            Refusal::new(RefusalReason::MalformedNodeId, detail)
        })?;
        let mut ids: Vec<NodeId> = sets.of(class).iter().copied().chain(ids).collect();
        let before = ids.len();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != before {
            let detail = format!("a node stands twice under {}", class.to_wire().as_str_name());
            return Err(Refusal::new(RefusalReason::Contradiction, detail));
        }
        sets.set_sorted(class, ids);
    }
    Ok(sets)
}

pub(super) fn check_count(count: usize, limits: &PartLimits) -> Result<(), Refusal> {
    let most = limits.observations_per_part_max;
    if count <= most {
        return Ok(());
    }
    let detail = format!("{count} observations in one part, at most {most}: send several parts");
    Err(Refusal::new(RefusalReason::TooManyObservations, detail))
}

/// The part in the plain form.
#[must_use]
pub fn part_to_plain(part: &Part) -> v1::Part {
    let groups = Class::ALL
        .into_iter()
        .filter(|class| !part.sets.of(*class).is_empty())
        .map(|class| v1::PlainGroup {
            evidence_class: class.to_wire() as i32,
            node_ids: NodeId::concatenate(part.sets.of(class)).into(),
        })
        .collect();
    v1::Part { evidence: Some(Evidence::Plain(v1::PlainEvidence { groups })), ..head_to_wire(part) }
}

pub(super) fn head_to_wire(part: &Part) -> v1::Part {
    let (outcome, reason) = match part.outcome {
        Outcome::Looked => (v1::Outcome::Looked, v1::CouldNotLookReason::Unspecified),
        Outcome::CouldNotLook(reason) => (v1::Outcome::CouldNotLook, reason.to_wire()),
    };
    v1::Part {
        subnet: part.key.subnet.clone(),
        round_unix_s: part.key.round.start_s(),
        round_period_s: part.key.round.period().seconds(),
        number: u32::from(part.key.number),
        kind: part.kind.to_wire() as i32,
        outcome: outcome as i32,
        reason: reason as i32,
        observed_at_unix_ms: part.observed_at_ms,
        relay_session_age_s: part.relay_session_age_s,
        evidence: None,
    }
}
