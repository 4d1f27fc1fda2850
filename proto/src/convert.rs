//! Between the wire and the vocabulary.
//!
//! Owns the checks a message can fail by itself, the plain form, and the compact form with its two
//! stateful ends, [`Encoder`] and [`Decoder`]. Refuses everything that needs a clock, an identity
//! or what came before on other streams: that is the aggregator's.

mod columns;
mod compact;
mod head;
mod pool;
pub mod runs;
mod samples;

pub use compact::{Decoder, Encoder};
pub use pool::IdPool;
pub use samples::{SAMPLES_PER_REPORT_MAX, samples_from_wire, samples_to_compact};

use std::fmt;

use crate::evidence::{Class, Kind, Outcome, Part, PartKey, Reason, Sets};
use crate::node_id::NodeId;
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

/// Reads a part. `decoder` is the stream's; without one (unary calls) only the plain form is taken.
///
/// # Errors
/// A [`Refusal`] for everything that is wrong with the message by itself.
pub fn part_from_wire(
    wire: &v1::Part,
    mut decoder: Option<&mut Decoder>,
    limits: &PartLimits,
) -> Result<Part, Refusal> {
    let part = match (&wire.evidence, decoder.as_deref_mut()) {
        (Some(Evidence::Compact(compact)), Some(decoder)) => {
            decoder.decode(wire, compact, limits)?
        }
        (Some(Evidence::Compact(_)), None) => {
            let detail = "the compact form needs a Connect stream; send the plain form";
            return Err(Refusal::new(RefusalReason::CompactNotAllowed, detail));
        }
        (Some(Evidence::Plain(plain)), _) => {
            let head = head_from_wire(wire, limits)?;
            Part { sets: plain_sets(plain, limits)?, ..head }
        }
        (None, _) => head_from_wire(wire, limits)?,
    };
    check_sets(&part)?;
    if let Some(Evidence::Compact(compact)) = &wire.evidence {
        let digest = part.digest();
        if compact.digest_prefix.as_ref() != &digest.0[..compact::DIGEST_PREFIX_BYTES] {
            if let Some(decoder) = decoder {
                decoder.lose();
            }
            return Err(Refusal::new(
                RefusalReason::Resync,
                "the compact form expands to another part than its digest names",
            ));
        }
    }
    Ok(part)
}

/// The part without its sets.
fn head_from_wire(wire: &v1::Part, limits: &PartLimits) -> Result<Part, Refusal> {
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

fn plain_sets(plain: &v1::PlainEvidence, limits: &PartLimits) -> Result<Sets, Refusal> {
    let bytes: usize = plain.groups.iter().map(|group| group.node_ids.len()).sum();
    check_count(bytes / crate::node_id::NODE_ID_BYTES, limits)?;
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

fn check_count(count: usize, limits: &PartLimits) -> Result<(), Refusal> {
    let most = limits.observations_per_part_max;
    if count <= most {
        return Ok(());
    }
    let detail = format!("{count} observations in one part, at most {most}: send several parts");
    Err(Refusal::new(RefusalReason::TooManyObservations, detail))
}

fn check_sets(part: &Part) -> Result<(), Refusal> {
    for class in Class::ALL {
        if !class.fits(part.kind) && !part.sets.of(class).is_empty() {
            let (class, kind) = (class.to_wire(), part.kind.to_wire());
            let detail = format!("{} in a {}", class.as_str_name(), kind.as_str_name());
            return Err(Refusal::new(RefusalReason::ClassNotInKind, detail));
        }
    }
    let unreachable = part.sets.of(Class::Unreachable);
    if !unreachable.is_empty() && part.outcome != Outcome::Looked {
        let detail = "UNREACHABLE in a part that could not look";
        return Err(Refusal::new(RefusalReason::Contradiction, detail));
    }
    let failed = part.sets.of(Class::Failed);
    if !failed.is_empty() && part.outcome == Outcome::Looked {
        let detail = "FAILED in a part that looked";
        return Err(Refusal::new(RefusalReason::Contradiction, detail));
    }
    let mut earlier = part.sets.of(Class::AskedEarlier).iter();
    if let Some(id) = earlier.find(|id| unreachable.binary_search(id).is_err()) {
        let detail = format!("{id} is ASKED_EARLIER and not UNREACHABLE");
        return Err(Refusal::new(RefusalReason::Contradiction, detail));
    }
    for positive in [Class::Seen, Class::Answered] {
        let found = part.sets.of(positive);
        if let Some(id) = unreachable.iter().find(|id| found.binary_search(id).is_ok()) {
            let name = positive.to_wire().as_str_name();
            let detail = format!("{id} is both UNREACHABLE and {name}");
            return Err(Refusal::new(RefusalReason::Contradiction, detail));
        }
    }
    Ok(())
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

fn head_to_wire(part: &Part) -> v1::Part {
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

#[cfg(test)]
mod tests;
