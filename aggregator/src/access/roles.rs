//! Who a proof shows someone to be, and what that one may do. Pure: no clock, no store, no wire.
//!
//! Owns the closed list of reasons for a refusal.

use std::sync::Arc;

use super::peer::PeerCertificate;
use crate::store::{CredentialKind, Identities, ProbeRecord, Role};

/// What a call shows of who makes it.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The hash of a token.
    pub token: Option<[u8; 32]>,
    /// The certificate of the connection.
    pub certificate: Option<PeerCertificate>,
}

/// Someone whose proof was good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name: the one on the wire, in metrics and in the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// For probes.
    pub probe: Option<Arc<ProbeRecord>>,
}

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// Anyone may.
    Nothing,
    /// To hand in observations.
    Probe,
    /// To read.
    Read,
    /// To administer.
    Admin,
    /// To exchange a ticket.
    Ticket,
}

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why someone was refused. A closed list with stable texts, which are metric labels and
        /// actions in the audit log.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Refusal {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its stable text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

refusals! {
    /// No token and no certificate.
    NoProof = "no-proof",
    /// An `authorization` that cannot be read, or two of them.
    MalformedProof = "malformed-proof",
    /// No such token was ever given out.
    UnknownToken = "unknown-token",
    /// The token was replaced, and its time is over.
    EndedToken = "ended-token",
    /// The certificate was replaced, and its time is over.
    EndedCertificate = "ended-certificate",
    /// The certificate is of the built-in authority and not on record as this name's.
    UnknownCertificate = "unknown-certificate",
    /// The certificate ran out while its connection lasted.
    ExpiredCertificate = "expired-certificate",
    /// The certificate names nobody, or several.
    NamelessCertificate = "nameless-certificate",
    /// Nobody of the certificate's name is enrolled.
    UnknownName = "unknown-name",
    /// Token and certificate name two.
    Mismatch = "mismatch",
    /// The identity was revoked.
    Revoked = "revoked",
    /// The identity is known and may not make this call.
    Role = "role",
    /// A probe spoke for a subnet that it may not speak for.
    Subnet = "subnet",
    /// Enrolment under a name that is, or was, somebody's.
    NameTaken = "name-taken",
    /// No such ticket was ever given out.
    UnknownTicket = "unknown-ticket",
    /// The ticket was used, or its time is over.
    EndedTicket = "ended-ticket",
    /// What came was not TLS.
    Plaintext = "plaintext",
    /// The certificate is of an authority that is not trusted here.
    WrongAuthority = "wrong-authority",
    /// The certificate was out of date at the handshake.
    OutdatedCertificate = "outdated-certificate",
    /// The certificate is not valid yet.
    EarlyCertificate = "early-certificate",
    /// The certificate is wrong in another way.
    BadCertificate = "bad-certificate",
    /// The handshake broke off.
    Handshake = "handshake",
    /// The handshake took too long.
    SlowHandshake = "slow-handshake",
    /// There are as many connections as there may be.
    Connections = "connections",
    /// There are as many connections from one address as there may be.
    ConnectionsOfAddress = "connections-of-address",
}

/// A refusal, and whom it concerns where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The identity.
    pub name: Option<String>,
}

impl Refused {
    pub(super) const fn unnamed(refusal: Refusal) -> Self {
        Self { refusal, name: None }
    }

    fn of(refusal: Refusal, name: &str) -> Self {
        Self { refusal, name: Some(name.to_owned()) }
    }
}

impl Credentials {
    /// Whether nothing was shown.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.token.is_none() && self.certificate.is_none()
    }

    /// Who shows this now.
    ///
    /// # Errors
    /// Why it shows nobody.
    pub fn judge(&self, identities: &Identities, now_ms: i64) -> Result<Identity, Refused> {
        let by_token = self.token.map(|hash| by_token(identities, &hash, now_ms)).transpose()?;
        let certificate = self.certificate.as_ref();
        let by_certificate =
            certificate.map(|shown| by_certificate(identities, shown, now_ms)).transpose()?;
        let name = match (by_token, by_certificate) {
            (None, None) => return Err(Refused::unnamed(Refusal::NoProof)),
            (Some(token), Some(certificate)) if token != certificate => {
                return Err(Refused::of(Refusal::Mismatch, token));
            }
            (Some(name), _) | (None, Some(name)) => name,
        };
        let (role, revoked, probe) = if let Some(probe) = identities.probes.get(name) {
            (Role::Probe, probe.revoked, Some(Arc::new(probe.clone())))
        } else if let Some(caller) = identities.callers.get(name) {
            (caller.role, caller.revoked, None)
        } else {
            return Err(Refused::of(Refusal::UnknownName, name));
        };
        if revoked {
            return Err(Refused::of(Refusal::Revoked, name));
        }
        Ok(Identity { name: name.to_owned(), role, probe })
    }
}

impl Credentials {
    /// The ticket that this shows, if it is still good.
    ///
    /// # Errors
    /// Why it shows none.
    pub(super) fn judge_ticket(
        &self,
        identities: &Identities,
        now_ms: i64,
    ) -> Result<[u8; 32], Refused> {
        let hash = self.token.ok_or(Refused::unnamed(Refusal::NoProof))?;
        let credential = identities.credential(&hash);
        let ticket = credential.filter(|found| found.kind == CredentialKind::Ticket);
        let ticket = ticket.ok_or(Refused::unnamed(Refusal::UnknownTicket))?;
        if over(ticket.valid_until_ms, now_ms) {
            return Err(Refused::of(Refusal::EndedTicket, &ticket.name));
        }
        Ok(hash)
    }
}

fn over(valid_until_ms: Option<i64>, now_ms: i64) -> bool {
    valid_until_ms.is_some_and(|until_ms| until_ms <= now_ms)
}

fn by_token<'a>(
    identities: &'a Identities,
    hash: &[u8; 32],
    now_ms: i64,
) -> Result<&'a str, Refused> {
    let credential = identities.credential(hash);
    let credential = credential.filter(|found| found.kind == CredentialKind::Token);
    let credential = credential.ok_or(Refused::unnamed(Refusal::UnknownToken))?;
    if over(credential.valid_until_ms, now_ms) {
        return Err(Refused::of(Refusal::EndedToken, &credential.name));
    }
    Ok(&credential.name)
}

fn by_certificate<'a>(
    identities: &Identities,
    shown: &'a PeerCertificate,
    now_ms: i64,
) -> Result<&'a str, Refused> {
    let name = shown.name.as_deref();
    let name = name.ok_or(Refused::unnamed(Refusal::NamelessCertificate))?;
    if shown.not_after_ms <= now_ms {
        return Err(Refused::of(Refusal::ExpiredCertificate, name));
    }
    let credential = identities.credential(&shown.fingerprint);
    match credential.filter(|known| known.kind == CredentialKind::Certificate) {
        Some(known) if over(known.valid_until_ms, now_ms) => {
            Err(Refused::of(Refusal::EndedCertificate, name))
        }
        Some(known) if known.name == name => Ok(name),
        Some(_) => Err(Refused::of(Refusal::UnknownCertificate, name)),
        // A record that was deleted, or is younger than the backup that was restored: whether it
        // ended nobody knows here.
        None if shown.issuers.iter().any(|issuer| identities.authorities.contains(issuer)) => {
            Err(Refused::of(Refusal::UnknownCertificate, name))
        }
        // Another authority answers for its certificates itself.
        None => Ok(name),
    }
}

/// Whether one of this role may do what is asked for.
pub(super) const fn authorize(role: Role, permission: Permission) -> bool {
    match permission {
        Permission::Nothing | Permission::Ticket => true,
        Permission::Probe => matches!(role, Role::Probe),
        Permission::Read => matches!(role, Role::Reader | Role::Admin),
        Permission::Admin => matches!(role, Role::Admin),
    }
}

#[cfg(test)]
#[path = "roles/tests.rs"]
mod tests;
