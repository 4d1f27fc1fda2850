//! One connection as the calls on it see it: where it comes from, what it showed, how it is used.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::tokens::check_name;

/// Refused calls on one connection; then it is cut.
pub const REFUSALS_PER_CONNECTION_MAX: u32 = 16;

/// A client certificate that a trusted authority signed; the handshake has seen to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whom it names; `None`: nobody, or several.
    pub name: Option<String>,
    /// The hash of its DER form.
    pub fingerprint: [u8; 32],
    /// Who signed it, and whatever else was shown with it: hashes of their names as they stand in
    /// the certificates. The handshake took these for the names of who signed.
    pub issuers: Vec<[u8; 32]>,
    /// Unix milliseconds.
    pub not_after_ms: i64,
}

impl PeerCertificate {
    /// Reads a certificate in DER form, without those that may be shown with it; `None`: it is
    /// none.
    ///
    /// The name is its one DNS name, or its one common name where it has no DNS name at all. One
    /// with several names nobody: who would have to guess has been fooled before.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let alternative = certificate.subject_alternative_name().ok()?;
        let alternative = alternative.map_or(&[][..], |found| &found.value.general_names);
        let mut names: Vec<&str> = alternative
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(*name),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            let common = certificate.subject().iter_common_name();
            names = common.filter_map(|name| name.as_str().ok()).collect();
        }
        let name = match names.as_slice() {
            [name] if check_name(name).is_ok() => Some((*name).to_owned()),
            _ => None,
        };
        let not_after_ms = certificate.validity().not_after.timestamp().saturating_mul(1000);
        let issuers = vec![hash_of(certificate.issuer())];
        Some(Self { name, fingerprint: fingerprint(der), issuers, not_after_ms })
    }

    /// Reads a chain as a handshake shows it, the certificate itself first; `None`: there is none.
    /// Where something of it cannot be read it names nobody.
    pub(super) fn read_chain(chain: &[impl AsRef<[u8]>]) -> Option<Self> {
        let (first, others) = chain.split_first()?;
        let first = first.as_ref();
        let read = || {
            let mut read = Self::read(first)?;
            for other in others {
                let (_, other) = X509Certificate::from_der(other.as_ref()).ok()?;
                read.issuers.push(hash_of(other.issuer()));
            }
            Some(read)
        };
        let unreadable = || {
            let (fingerprint, issuers) = (fingerprint(first), Vec::new());
            Self { name: None, fingerprint, issuers, not_after_ms: 0 }
        };
        Some(read().unwrap_or_else(unreadable))
    }
}

/// What is stored of the name of an authority.
pub(super) fn hash_of(name: &X509Name<'_>) -> [u8; 32] {
    *blake3::hash(name.as_raw()).as_bytes()
}

/// What is stored of a certificate, and what tells two apart.
#[must_use]
pub(super) fn fingerprint(der: &[u8]) -> [u8; 32] {
    *blake3::hash(der).as_bytes()
}

/// How a connection is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// A call on it was let in.
    pub(crate) settled: bool,
    /// Calls that have not ended.
    pub(crate) open: u32,
    /// Calls that were begun; it tells one from the next.
    pub(crate) begun: u64,
}

/// One connection.
#[derive(Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// What it showed in the handshake.
    pub certificate: Option<PeerCertificate>,
    pub(crate) usage: watch::Sender<Usage>,
    /// Cancelled when the connection is to end at once.
    pub(crate) cut: CancellationToken,
    refusals: AtomicU32,
}

impl Peer {
    /// A connection that is new.
    #[must_use]
    pub fn new(address: SocketAddr, certificate: Option<PeerCertificate>) -> Self {
        Self {
            address,
            certificate,
            usage: watch::Sender::new(Usage::default()),
            cut: CancellationToken::new(),
            refusals: AtomicU32::new(0),
        }
    }

    /// Counts a refused call. Whoever tries again and again may come on a new connection.
    pub(super) fn refused(&self) {
        if self.refusals.fetch_add(1, Ordering::Relaxed) + 1 >= REFUSALS_PER_CONNECTION_MAX {
            self.cut.cancel();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(dns: &[&str], common: &[&str]) -> Vec<u8> {
        let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(dns).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn name(dns: &[&str], common: &[&str]) -> Option<String> {
        PeerCertificate::read(&certificate(dns, common)).unwrap().name
    }

    #[test]
    fn a_certificate_names_one_or_nobody() {
        let alpha = Some("alpha".to_owned());
        assert_eq!(name(&["alpha"], &[]), alpha);
        assert_eq!(name(&["alpha"], &["other"]), alpha, "the DNS name is the newer way");
        assert_eq!(name(&[], &["alpha"]), alpha);
        // An address is no name, and does not hide the common one.
        assert_eq!(name(&["10.0.0.1"], &["alpha"]), alpha);
        for (dns, common) in [
            (&["alpha", "beta"][..], &[][..]),
            (&[], &[]),
            (&["*.example"], &["alpha"]),
            (&[], &["Alpha Beta"]),
            (&[], &["../alpha"]),
        ] {
            assert_eq!(name(dns, common), None, "{dns:?} {common:?}");
        }
    }

    #[test]
    fn whoever_signed_anything_of_a_chain_is_known_or_it_names_nobody() {
        let issuer_of = |der: &[u8]| PeerCertificate::read(der).unwrap().issuers[0];
        let (leaf, between) = (certificate(&["alpha"], &["alpha"]), certificate(&[], &["between"]));
        let chain = [leaf.clone(), between.clone()];
        let read = PeerCertificate::read_chain(&chain).unwrap();
        assert_eq!(read.name.as_deref(), Some("alpha"));
        assert_eq!(read.issuers, [issuer_of(&leaf), issuer_of(&between)]);
        for odd in [[leaf, b"nonsense".to_vec()], [b"nonsense".to_vec(), between]] {
            assert_eq!(PeerCertificate::read_chain(&odd).unwrap().name, None);
        }
        assert_eq!(PeerCertificate::read_chain(&[] as &[Vec<u8>]), None);
    }

    static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| certificate(&["alpha"], &["alpha"]));

    proptest! {
        #[test]
        fn no_bytes_end_more_than_their_own_connection(
            noise in prop::collection::vec(any::<u8>(), 0..200),
            flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..6),
        ) {
            prop_assert_eq!(PeerCertificate::read(&noise), None);
            let mut der = GOOD.clone();
            for (at, flip) in flips {
                let at = at.index(der.len());
                der[at] ^= flip;
            }
            // Whatever it still names: a signature over it would not hold.
            std::hint::black_box(PeerCertificate::read(&der));
        }
    }
}
