//! The small built-in certificate authority, for those who have none.
//!
//! Owns one key in the data directory and what it signs: the server's certificate and clients'.
//! Refuses to be more: no intermediate authorities, no lists of revoked certificates, since the
//! aggregator is the only one who looks at clients' certificates and knows itself who is revoked:
//! of what an authority issued that it knows for its own, only what is on record passes.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use x509_parser::pem::{Pem, parse_x509_pem};

use super::peer::{fingerprint, hash_of};
use crate::disk::sync_directory_of;

/// Its directory in the data directory.
const DIRECTORY: &str = "authority";
const CERT_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
/// How the name of each begins.
const NAME: &str = "Golem Uptime authority";
/// The authority's own certificate. When it ends all clients have to be told of a new one.
const AUTHORITY_DAYS: u32 = 3_650;
/// What it issues, unless told otherwise: what public authorities last issued for a year.
pub const LEAF_DAYS: u32 = 398;
/// Clocks differ: what is issued is valid from a little before now.
const EARLIER_S: i64 = 300;

/// Why something was not issued.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is none yet.
    #[error(
        "no authority in {}: create one with 'uptime-aggregator authority init'",
        .0.display()
    )]
    None(PathBuf),
    /// There is one already.
    #[error("{} already has an authority; its certificates depend on it", .0.display())]
    There(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name or a date that no certificate can have, or a damaged key.
    #[error("cannot create the certificate")]
    Certificate(#[from] rcgen::Error),
}

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A server, by the names and addresses that its clients know it by.
    Server(Vec<String>),
    /// An identity.
    Client(String),
}

/// A certificate and its key, in PEM form.
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key. Kept nowhere else.
    pub key_pem: String,
    /// What is stored of it.
    pub fingerprint: [u8; 32],
    /// Unix milliseconds.
    pub not_after_ms: i64,
}

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, which clients are to trust, in PEM form.
    pub ca_pem: String,
    /// The file with it.
    pub ca_file: PathBuf,
    /// What the store knows it by, see [`crate::store::Identities::authorities`].
    pub known_by: [u8; 32],
}

fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join(DIRECTORY)
}

impl Authority {
    /// Makes one. Its key never leaves the data directory.
    ///
    /// # Errors
    /// When there is one, or it cannot be written.
    pub fn create(data_dir: &Path, now_ms: i64) -> Result<Self, AuthorityError> {
        let directory = directory(data_dir);
        let (cert_file, key_file) = (directory.join(CERT_FILE), directory.join(KEY_FILE));
        if cert_file.exists() || key_file.exists() {
            return Err(AuthorityError::There(directory));
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|source| AuthorityError::File { path: directory.clone(), source })?;
        let key = KeyPair::generate()?;
        let mut params = dated(now_ms, AUTHORITY_DAYS)?;
        // Told apart from the authority of another aggregator by the name, too.
        let name = format!("{NAME} {:08x}", rand::random::<u32>());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let cert_pem = params.self_signed(&key)?.pem();
        write_secret(&key_file, &key.serialize_pem())?;
        write_new(&cert_file, &cert_pem, 0o644)?;
        Self::open(data_dir)
    }

    /// The one that was made.
    ///
    /// # Errors
    /// When there is none, or its files cannot be used.
    pub fn open(data_dir: &Path) -> Result<Self, AuthorityError> {
        let directory = directory(data_dir);
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => AuthorityError::None(directory.clone()),
                _ => AuthorityError::File { path, source },
            })
        };
        let (ca_pem, key_pem) = (read(CERT_FILE)?, read(KEY_FILE)?);
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, KeyPair::from_pem(&key_pem)?)?;
        let ca_file = directory.join(CERT_FILE);
        let known_by = known_by(&ca_file, &ca_pem)?;
        Ok(Self { issuer, ca_pem, ca_file, known_by })
    }

    /// What the store is to know the authority of this data directory by; `None`: there is none.
    /// Its key may have been taken elsewhere.
    ///
    /// # Errors
    /// When its certificate cannot be read.
    pub fn of_directory(data_dir: &Path) -> Result<Option<[u8; 32]>, AuthorityError> {
        let path = directory(data_dir).join(CERT_FILE);
        match fs::read_to_string(&path) {
            Ok(ca_pem) => Ok(Some(known_by(&path, &ca_pem)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(AuthorityError::File { path, source }),
        }
    }

    /// Signs a certificate for a key that is made for it.
    ///
    /// # Errors
    /// When a name is none.
    pub fn issue(
        &self,
        subject: &Subject,
        days: u32,
        now_ms: i64,
    ) -> Result<Issued, AuthorityError> {
        let mut params = dated(now_ms, days)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        // A client's certificate makes no server, and the other way round.
        match subject {
            Subject::Server(names) => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                for name in names {
                    params.subject_alt_names.push(match name.parse::<IpAddr>() {
                        Ok(address) => SanType::IpAddress(address),
                        Err(_) => SanType::DnsName(name.as_str().try_into()?),
                    });
                }
                let first = names.first().map_or("uptime-aggregator", String::as_str);
                params.distinguished_name.push(DnType::CommonName, first);
            }
            Subject::Client(name) => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
                params.distinguished_name.push(DnType::CommonName, name);
            }
        }
        let not_after_ms = params.not_after.unix_timestamp().saturating_mul(1000);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            fingerprint: fingerprint(cert.der()),
            not_after_ms,
        })
    }
}

/// Those in a file of trusted authorities that are named as built-in ones are, of this aggregator
/// or of another.
///
/// # Errors
/// When it cannot be read.
pub fn named_as_built_in(path: &Path) -> Result<Vec<[u8; 32]>, AuthorityError> {
    let file = |source| AuthorityError::File { path: path.to_owned(), source };
    let text = fs::read(path).map_err(file)?;
    let mut found = Vec::new();
    for pem in Pem::iter_from_buffer(&text) {
        let pem = pem.map_err(|_| unreadable(path))?;
        let certificate = pem.parse_x509().map_err(|_| unreadable(path))?;
        let names = certificate.subject().iter_common_name().filter_map(|it| it.as_str().ok());
        if names.into_iter().any(|name| name.starts_with(NAME)) {
            found.push(hash_of(certificate.subject()));
        }
    }
    Ok(found)
}

fn known_by(path: &Path, ca_pem: &str) -> Result<[u8; 32], AuthorityError> {
    let (_, pem) = parse_x509_pem(ca_pem.as_bytes()).map_err(|_| unreadable(path))?;
    let certificate = pem.parse_x509().map_err(|_| unreadable(path))?;
    Ok(hash_of(certificate.subject()))
}

fn unreadable(path: &Path) -> AuthorityError {
    let source = io::Error::new(io::ErrorKind::InvalidData, "there is no certificate in PEM form");
    AuthorityError::File { path: path.to_owned(), source }
}

/// An otherwise empty certificate that is valid for so many days from now.
fn dated(now_ms: i64, days: u32) -> Result<CertificateParams, AuthorityError> {
    let at =
        |unix_s: i64| OffsetDateTime::from_unix_timestamp(unix_s).map_err(|_| rcgen::Error::Time);
    let now_s = now_ms.div_euclid(1000);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = at(now_s - EARLIER_S)?;
    params.not_after = at(now_s + i64::from(days) * 86_400)?;
    Ok(params)
}

/// Writes a file that only its owner may read, and that must not be there yet.
///
/// # Errors
/// When it is there, or cannot be written.
pub fn write_secret(path: &Path, text: &str) -> Result<(), AuthorityError> {
    write_new(path, text, 0o600)
}

/// Writes a file with these permissions that must not be there yet, synced.
///
/// # Errors
/// When it is there, or cannot be written.
pub fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(
        |mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            sync_directory_of(path)
        },
    );
    written.map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

/// Puts a file with these permissions in the place of another one, or where there is none.
///
/// # Errors
/// When it cannot be written.
pub fn write_over(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let fresh = path.with_extension("new");
    let failed = |path: &Path, source| AuthorityError::File { path: path.to_owned(), source };
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&fresh, error)),
        _ => {}
    }
    write_new(&fresh, text, mode)?;
    fs::rename(&fresh, path)
        .and_then(|()| sync_directory_of(path))
        .map_err(|source| failed(path, source))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::access::PeerCertificate;

    const NOW_MS: i64 = 1_800_000_000_000;

    #[test]
    fn it_is_made_once_and_its_secrets_are_its_owners() {
        let directory = tempfile::tempdir().unwrap();
        let missing = Authority::open(directory.path()).err().unwrap().to_string();
        assert!(missing.contains("authority init"), "{missing}");
        let made = Authority::create(directory.path(), NOW_MS).unwrap();
        let there = Authority::create(directory.path(), NOW_MS).err().unwrap();
        assert!(matches!(there, AuthorityError::There(_)), "{there}");
        let opened = Authority::open(directory.path()).unwrap();
        assert_eq!(made.ca_pem, opened.ca_pem);
        let mode = |name: &str| {
            fs::metadata(directory.path().join("authority").join(name)).unwrap().mode() & 0o777
        };
        assert_eq!((mode("ca.key"), mode("ca.pem"), mode(".")), (0o600, 0o644, 0o700));
    }

    #[test]
    fn what_it_issues_names_one_and_ends() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(directory.path(), NOW_MS).unwrap();
        let issued = authority.issue(&Subject::Client("eu-west_1".into()), 10, NOW_MS).unwrap();
        let der = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
        let read = PeerCertificate::read(&der).unwrap();
        assert_eq!(read.name.as_deref(), Some("eu-west_1"));
        assert_eq!(read.fingerprint, issued.fingerprint);
        assert_eq!(read.not_after_ms, issued.not_after_ms);
        assert_eq!(read.not_after_ms, NOW_MS + 10 * 86_400_000);
        let names = vec!["one.example".to_owned(), "two.example".to_owned(), "10.0.0.1".to_owned()];
        let issued = authority.issue(&Subject::Server(names), 10, NOW_MS).unwrap();
        let der = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
        assert_eq!(PeerCertificate::read(&der).unwrap().name, None, "two names are none");
        assert!(authority.issue(&Subject::Server(vec!["ö".into()]), 10, NOW_MS).is_err());
        assert_eq!(read.issuers, [authority.known_by]);
        assert_eq!(PeerCertificate::read(b"nonsense"), None);
    }

    #[test]
    fn it_is_known_without_its_key_and_told_from_those_of_others() {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(Authority::of_directory(directory.path()).unwrap(), None);
        let authority = Authority::create(directory.path(), NOW_MS).unwrap();
        let other = Authority::create(elsewhere.path(), NOW_MS).unwrap();
        assert_ne!(authority.known_by, other.known_by);
        fs::remove_file(directory.path().join("authority/ca.key")).unwrap();
        let known = Authority::of_directory(directory.path()).unwrap();
        assert_eq!(known, Some(authority.known_by));
        let foreign = rcgen::generate_simple_self_signed(vec!["an authority".into()]).unwrap();
        let file = directory.path().join("trusted.pem");
        let pems = [&authority.ca_pem, &foreign.cert.pem(), &other.ca_pem];
        fs::write(&file, pems.map(String::as_str).concat()).unwrap();
        let named = named_as_built_in(&file).unwrap();
        assert_eq!(named, [authority.known_by, other.known_by]);
        fs::write(&authority.ca_file, "no certificate").unwrap();
        assert!(Authority::of_directory(directory.path()).is_err());
    }

    #[test]
    fn a_secret_is_never_written_over_by_accident() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write_secret(&path, "one").unwrap();
        assert!(write_secret(&path, "two").is_err());
        write_over(&path, "three", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
