//! Who may speak: probes' tokens.
//!
//! Owns making, hashing and reading tokens. Refuses to keep or print one: it is shown once, when
//! it is made, and only its hash goes further.

use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::ledger::Ledger;
use crate::store::ProbeRecord;

/// A probe's name is at most so long; it becomes a metric label and a file name.
const NAME_BYTES_MAX: usize = 64;

/// A new random token: 256 bits, as 64 hex digits. Too many to guess, so a plain hash protects it.
#[must_use]
pub fn new_token() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is stored of a token.
#[must_use]
pub fn hash_token(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

/// Checks a name that a probe is to have.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
        return Err(format!(
            "a probe's name has 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'; \
             {name:?} does not"
        ));
    }
    Ok(())
}

/// Who a call comes from.
///
/// # Errors
/// `UNAUTHENTICATED` without a valid token, in words that help no attacker; `UNAVAILABLE` when the
/// store cannot be asked.
pub async fn authenticate(ledger: &Ledger, metadata: &MetadataMap) -> Result<ProbeRecord, Status> {
    let refused = || {
        metrics::counter!("uptime_access_refused_total").increment(1);
        Status::unauthenticated(
            "give this probe's token as 'authorization: Bearer TOKEN' \
             (the aggregator's operator makes one with: uptime-aggregator probe add NAME)",
        )
    };
    let header = metadata.get("authorization").ok_or_else(refused)?;
    let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
    let token = token.ok_or_else(refused)?.trim();
    let probe = ledger
        .authenticate(hash_token(token))
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    probe.filter(|probe| !probe.revoked).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_names_are_plain() {
        assert_ne!(new_token(), new_token());
        assert_eq!(new_token().len(), 64);
        for good in ["alpha", "eu-west_1.golem", "A"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "a b", "ä", "a/b", "x\n", &"n".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
