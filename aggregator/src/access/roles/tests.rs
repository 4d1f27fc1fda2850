//! Every way a proof can be good or bad, without a wire.

use std::collections::BTreeSet;

use super::*;
use crate::store::{CallerRecord, Credential};

const NOW_MS: i64 = 1_000_000;

fn identities() -> Identities {
    let mut all = Identities::default();
    for (number, name, revoked) in [(1, "alpha", false), (2, "beta", false), (3, "gone", true)] {
        let (subnets_allowed, enrolled_at_ms) = (Vec::new(), 0);
        let name = name.to_owned();
        let probe =
            ProbeRecord { number, name: name.clone(), subnets_allowed, enrolled_at_ms, revoked };
        all.probes.insert(name, probe);
    }
    for (name, role) in [("eye", Role::Reader), ("boss", Role::Admin)] {
        let name = name.to_owned();
        let caller = CallerRecord { name: name.clone(), role, enrolled_at_ms: 0, revoked: false };
        all.callers.insert(name, caller);
    }
    let credentials = [
        (1, "alpha", CredentialKind::Token, None),
        (2, "alpha", CredentialKind::Token, Some(NOW_MS)),
        (3, "alpha", CredentialKind::Token, Some(NOW_MS + 1)),
        (4, "beta", CredentialKind::Token, None),
        (5, "gone", CredentialKind::Token, None),
        (6, "eye", CredentialKind::Token, None),
        (7, "boss", CredentialKind::Token, None),
        (8, "alpha", CredentialKind::Ticket, None),
        (9, "alpha", CredentialKind::Certificate, Some(NOW_MS)),
        (10, "alpha", CredentialKind::Certificate, None),
    ];
    for (hash, name, kind, valid_until_ms) in credentials {
        let (name, made_at_ms, not_after_ms) = (name.to_owned(), 0, None);
        let credential = Credential { name, kind, made_at_ms, valid_until_ms, not_after_ms };
        all.credentials.insert([hash; 32], credential);
    }
    all.authorities.insert(OWN);
    all
}

/// The built-in authority, one that a part of it signed, and another one.
const OWN: [u8; 32] = [200; 32];
const BELOW: [u8; 32] = [201; 32];
const OTHER: [u8; 32] = [202; 32];

fn certificate_of(
    issuers: &[[u8; 32]],
    name: Option<&str>,
    fingerprint: u8,
    not_after_ms: i64,
) -> PeerCertificate {
    let (name, issuers) = (name.map(str::to_owned), issuers.to_vec());
    PeerCertificate { name, fingerprint: [fingerprint; 32], issuers, not_after_ms }
}

fn certificate(name: Option<&str>, fingerprint: u8, not_after_ms: i64) -> PeerCertificate {
    certificate_of(&[OTHER], name, fingerprint, not_after_ms)
}

fn judged(
    token: Option<u8>,
    certificate: Option<PeerCertificate>,
) -> Result<(String, Role), Refusal> {
    let credentials = Credentials { token: token.map(|byte| [byte; 32]), certificate };
    let identity = credentials.judge(&identities(), NOW_MS).map_err(|refused| refused.refusal)?;
    assert_eq!(identity.probe.is_some(), identity.role == Role::Probe);
    Ok((identity.name, identity.role))
}

#[test]
fn tokens_show_who_has_them_until_they_end() {
    assert_eq!(judged(None, None), Err(Refusal::NoProof));
    for (token, wanted) in [
        (1, Ok(("alpha".to_owned(), Role::Probe))),
        (2, Err(Refusal::EndedToken)),
        (3, Ok(("alpha".to_owned(), Role::Probe))),
        (5, Err(Refusal::Revoked)),
        (6, Ok(("eye".to_owned(), Role::Reader))),
        (7, Ok(("boss".to_owned(), Role::Admin))),
        // The hashes of a ticket and of a certificate are no tokens.
        (8, Err(Refusal::UnknownToken)),
        (10, Err(Refusal::UnknownToken)),
        (99, Err(Refusal::UnknownToken)),
    ] {
        assert_eq!(judged(Some(token), None), wanted, "{token}");
    }
}

#[test]
fn certificates_show_whom_they_name_until_they_end() {
    let later = NOW_MS + 1;
    for (shown, wanted) in [
        (certificate(Some("alpha"), 10, later), Ok(("alpha".to_owned(), Role::Probe))),
        // Of another authority: not on record here.
        (certificate(Some("alpha"), 77, later), Ok(("alpha".to_owned(), Role::Probe))),
        (certificate(Some("boss"), 77, later), Ok(("boss".to_owned(), Role::Admin))),
        (certificate(Some("alpha"), 9, later), Err(Refusal::EndedCertificate)),
        (certificate(Some("alpha"), 10, NOW_MS), Err(Refusal::ExpiredCertificate)),
        (certificate(None, 10, later), Err(Refusal::NamelessCertificate)),
        (certificate(Some("nobody"), 77, later), Err(Refusal::UnknownName)),
        (certificate(Some("gone"), 77, later), Err(Refusal::Revoked)),
    ] {
        assert_eq!(judged(None, Some(shown.clone())), wanted, "{shown:?}");
    }
}

#[test]
fn of_the_built_in_authority_only_what_is_on_record_as_ones_own_passes() {
    let shown = |issuers: &[[u8; 32]], name, fingerprint| {
        judged(None, Some(certificate_of(issuers, Some(name), fingerprint, NOW_MS + 1)))
    };
    let alpha = Ok(("alpha".to_owned(), Role::Probe));
    assert_eq!(shown(&[OWN], "alpha", 10), alpha);
    assert_eq!(shown(&[OWN], "alpha", 9), Err(Refusal::EndedCertificate));
    for unknown in [
        shown(&[OWN], "alpha", 77),
        shown(&[BELOW, OWN], "alpha", 77),
        shown(&[OWN], "nobody", 77),
        shown(&[OWN], "gone", 77),
        // Another one's, or of another kind.
        shown(&[OWN], "beta", 10),
        shown(&[OWN], "alpha", 1),
    ] {
        assert_eq!(unknown, Err(Refusal::UnknownCertificate));
    }
    assert_eq!(shown(&[OTHER], "alpha", 77), alpha);
}

#[test]
fn token_and_certificate_must_agree_and_each_must_be_good() {
    let alpha = || Some(certificate(Some("alpha"), 10, NOW_MS + 1));
    assert_eq!(judged(Some(1), alpha()), Ok(("alpha".to_owned(), Role::Probe)));
    assert_eq!(judged(Some(4), alpha()), Err(Refusal::Mismatch));
    assert_eq!(judged(Some(99), alpha()), Err(Refusal::UnknownToken));
    assert_eq!(judged(Some(2), alpha()), Err(Refusal::EndedToken));
    let ended = certificate(Some("alpha"), 9, NOW_MS + 1);
    assert_eq!(judged(Some(1), Some(ended)), Err(Refusal::EndedCertificate));
}

#[test]
fn each_role_may_do_what_it_is_for() {
    use Permission::{Admin, Nothing, Probe, Read};
    let all = [Nothing, Probe, Read, Admin];
    for (role, wanted) in [
        (Role::Probe, vec![Nothing, Probe]),
        (Role::Reader, vec![Nothing, Read]),
        (Role::Admin, vec![Nothing, Read, Admin]),
    ] {
        let allowed: Vec<Permission> =
            all.into_iter().filter(|permission| authorize(role, *permission)).collect();
        assert_eq!(allowed, wanted, "{role:?}");
    }
}

#[test]
fn reasons_have_texts_of_their_own() {
    let texts: BTreeSet<&str> = Refusal::ALL.iter().map(|refusal| refusal.as_str()).collect();
    assert_eq!(texts.len(), Refusal::ALL.len());
    assert!(texts.iter().all(|text| text.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
}
