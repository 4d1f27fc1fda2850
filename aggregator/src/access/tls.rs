//! TLS: the files, what is made of them, and making it anew when they change.
//!
//! Owns the server's certificate and which authority's client certificates are taken. Files that
//! changed and make sense are in force for the next connection; files that make none leave those
//! before in force and are reported. Sessions are never resumed: a resumed one would be trusted for
//! a certificate that was looked at long ago.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::{counter, gauge};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore, ServerConfig};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::peer::PeerCertificate;
use super::roles::Refusal;
use crate::clock::now_unix_ms;

/// The files are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// More of one file is not read: a chain takes some kilobytes, a bundle of all public authorities
/// a few hundred.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Certificates of the server that end so soon are worth a line in the log at each start.
const ENDS_SOON_MS: i64 = 14 * 86_400_000;

/// Where the certificates are, all in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose client certificates are taken; none: client certificates are not
    /// asked for.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{path}: {detail}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        detail: String,
    },
    /// Certificate and key are not of each other, or of a kind that is not spoken.
    #[error("{cert} and {key}: {detail}")]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why not.
        detail: String,
    },
}

/// What both ports speak.
#[derive(Clone)]
struct Configs {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    not_after_ms: i64,
}

/// TLS as it is in force.
pub struct Tls {
    files: TlsFiles,
    configs: RwLock<Configs>,
    reload: Notify,
}

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Tells whether a file may have changed.
type Stamp = Option<(i64, i64, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let of = |meta: Metadata| (meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino());
    std::fs::metadata(path).ok().map(of)
}

impl TlsFiles {
    fn stamps(&self) -> [Stamp; 3] {
        let client_ca = self.client_ca.as_deref().and_then(stamp);
        [stamp(&self.cert), stamp(&self.key), client_ca]
    }

    fn load(&self) -> Result<Configs, TlsError> {
        let chain = certificates(&self.cert)?;
        let key = private_key(&self.key)?;
        let not_after_ms = chain.first().and_then(|first| not_after_ms(first)).unwrap_or(0);
        let pair = |error: rustls::Error| TlsError::Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            detail: error.to_string(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let file = |detail: String| TlsError::File { path: path.clone(), detail };
                let mut roots = RootCertStore::empty();
                for root in certificates(path)? {
                    roots.add(root).map_err(|error| file(error.to_string()))?;
                }
                // Whoever has no certificate may have a token; the gate wants one or the other.
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .allow_unauthenticated()
                        .build()
                        .map_err(|error| file(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let speaking = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Ok(Configs { grpc: speaking(b"h2"), http: speaking(b"http/1.1"), not_after_ms })
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let configs = RwLock::new(files.load()?);
        Ok(Self { files, configs, reload: Notify::new() })
    }

    fn configs(&self) -> Configs {
        self.configs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the gRPC port speaks now.
    #[must_use]
    pub fn grpc(&self) -> Arc<ServerConfig> {
        self.configs().grpc
    }

    /// What the HTTP port speaks now.
    #[must_use]
    pub fn http(&self) -> Arc<ServerConfig> {
        self.configs().http
    }

    /// Has the files read anew, changed or not.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Reads the files anew when they change or when told to, until told to stop.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        self.tell_end();
        // Those in force; what was tried and made no sense is not tried again until it changes.
        let mut seen = self.files.stamps();
        loop {
            let told = tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.reload.notified() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let now = self.files.stamps();
            if now == seen && !told {
                continue;
            }
            seen = now;
            match self.files.load() {
                Ok(configs) => {
                    *self.configs.write().unwrap_or_else(PoisonError::into_inner) = configs;
                    let cert = self.files.cert.display();
                    tracing::info!(%cert, "certificates reloaded");
                    counter!("uptime_access_certificate_reloads_total", "outcome" => "done")
                        .increment(1);
                    self.tell_end();
                }
                Err(error) => {
                    tracing::error!(%error, "cannot reload certificates; keeping the old ones");
                    counter!("uptime_access_certificate_reloads_total", "outcome" => "failed")
                        .increment(1);
                }
            }
        }
    }

    fn tell_end(&self) {
        let not_after_ms = self.configs().not_after_ms;
        #[expect(clippy::cast_precision_loss, reason = "seconds of this century")]
        gauge!("uptime_access_certificate_not_after_seconds").set((not_after_ms / 1000) as f64);
        if not_after_ms < now_unix_ms() + ENDS_SOON_MS {
            let until = crate::publish::utc_stamp(not_after_ms);
            let cert = self.files.cert.display();
            tracing::warn!(%cert, until, "server certificate expires soon or has expired");
        }
    }
}

/// What a finished handshake showed of the client.
pub(crate) fn peer_certificate(session: &rustls::ServerConnection) -> Option<PeerCertificate> {
    PeerCertificate::read_chain(session.peer_certificates()?)
}

/// Why a handshake failed.
pub(crate) fn handshake_refusal(error: &std::io::Error) -> Refusal {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = inner else {
        return Refusal::Handshake;
    };
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Refusal::WrongAuthority,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Refusal::OutdatedCertificate
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Refusal::EarlyCertificate
        }
        _ => Refusal::BadCertificate,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let fault = |detail: String| TlsError::File { path: path.to_owned(), detail };
    let meta = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?;
    if meta.len() > FILE_BYTES_MAX {
        return Err(fault(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read(path).map_err(|error| fault(error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |detail: String| TlsError::File { path: path.to_owned(), detail };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let found = found.map_err(|error| fault(error.to_string()))?;
    if found.is_empty() {
        return Err(fault("there is no certificate in it; PEM is wanted".to_owned()));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let fault = |detail: String| TlsError::File { path: path.to_owned(), detail };
    let meta = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?;
    if meta.mode() & 0o007 != 0 {
        let mode = meta.mode() & 0o777;
        return Err(fault(format!(
            "everyone on this host may use this private key (mode {mode:o}): chmod 600 it"
        )));
    }
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| fault(format!("no private key in PEM form: {error}")))
}

fn not_after_ms(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp().saturating_mul(1000))
}
