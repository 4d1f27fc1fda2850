//! Tokens and names: how they are made, and how they are read from a call.
//!
//! Refuses to keep or print a token: it is shown once, when it is made, and only its hash goes
//! further.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// A name is at most so long; it becomes a metric label, a file name and a name in a certificate.
const NAME_BYTES_MAX: usize = 64;
/// A subnet's tag is at most so long, as in a part; see `PartLimits::subnet_bytes_max`.
const SUBNET_BYTES_MAX: usize = 64;
/// A header that is longer holds no token of ours, and is not looked at.
const HEADER_BYTES_MAX: usize = 512;

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

/// Checks a name that an identity is to have.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    // A file is named after it, so it must not be hidden, nor a way up.
    let visible = !name.starts_with(['.', '-']);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) || !visible {
        return Err(format!(
            "a name has 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.' and begins with \
             neither '-' nor '.'; {name:?} does not"
        ));
    }
    Ok(())
}

/// Checks the tag of a subnet that a probe is to be allowed.
///
/// # Errors
/// What is wrong with it.
pub fn check_subnet(tag: &str) -> Result<(), String> {
    if tag.is_empty() || tag.len() > SUBNET_BYTES_MAX || tag.chars().any(char::is_control) {
        return Err(format!(
            "a subnet has 1 to {SUBNET_BYTES_MAX} bytes without control characters; {tag:?} has not"
        ));
    }
    Ok(())
}

/// The hash of the token in `authorization: Bearer TOKEN`, or in the password of `Basic`, which is
/// what browsers send; `None` without such a header.
///
/// # Errors
/// When there is one and no token can be read from it.
pub(super) fn token_in(headers: &HeaderMap) -> Result<Option<[u8; 32]>, ()> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() || value.len() > HEADER_BYTES_MAX {
        return Err(());
    }
    let (scheme, rest) = value.to_str().map_err(|_| ())?.split_once(' ').ok_or(())?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(hash_token(rest.trim())));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = BASE64_STANDARD.decode(rest.trim()).map_err(|_| ())?;
        let decoded = String::from_utf8(decoded).map_err(|_| ())?;
        let (_, password) = decoded.split_once(':').ok_or(())?;
        return Ok(Some(hash_token(password.trim())));
    }
    Err(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_names_are_plain() {
        assert_ne!(new_token(), new_token());
        assert_eq!(new_token().len(), 64);
        for good in ["alpha", "eu-west_1.golem", "A"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "a b", "ä", "a/b", "x\n", "..", ".hidden", "-x", &"n".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        let limits = uptime_proto::convert::PartLimits::default();
        assert_eq!(SUBNET_BYTES_MAX, limits.subnet_bytes_max);
        assert_eq!(check_subnet("public"), Ok(()));
        for bad in ["", "a\nb", &"s".repeat(65)] {
            assert!(check_subnet(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_read_from_both_schemes_and_from_nothing_else() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            token_in(&headers)
        };
        let token = Ok(Some(hash_token("secret")));
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["Bearer secret"]), token);
        assert_eq!(read(&["bearer  secret "]), token);
        // "anyone:secret"
        assert_eq!(read(&["Basic YW55b25lOnNlY3JldA=="]), token);
        let long = format!("Bearer {}", "x".repeat(600));
        for bad in ["secret", "Digest secret", "Basic ????", "Basic c2VjcmV0", long.as_str()] {
            assert_eq!(read(&[bad]), Err(()), "{bad}");
        }
        assert_eq!(read(&["Bearer secret", "Bearer secret"]), Err(()), "two are one too many");
    }
}
