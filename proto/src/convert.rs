//! Between the wire and the vocabulary.
//!
//! Owns the checks a message can fail by itself, the plain form, and the compact form with its two
//! stateful ends, [`Encoder`] and [`Decoder`]. Refuses everything that needs a clock, an identity
//! or what came before on other streams: that is the aggregator's.

mod columns;
mod compact;
mod head;
mod plain;
mod pool;
pub mod runs;
mod samples;

pub use compact::{Decoder, Encoder};
pub use plain::{PartLimits, Refusal, part_to_plain};
pub use pool::IdPool;
pub use samples::{SAMPLES_PER_REPORT_MAX, samples_from_wire, samples_to_compact};

use crate::evidence::{Class, Outcome, Part};
use crate::v1::{self, RefusalReason, part::Evidence};
use plain::{head_from_wire, plain_sets};

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

#[cfg(test)]
mod tests;
