//! An aggregator with its own authority, and its callers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use uptime_aggregator::access::authority::{Authority, Issued, Subject};
use uptime_aggregator::access::{hash_token, new_token};
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::config::SettingArgs;
use uptime_aggregator::store::{
    AuditRecord, By, Changed, CredentialKind, Ends, IdentityStore, NewCredential, NewIdentity,
    Role, SqliteStore,
};
use uptime_proto::v1::admin_client::AdminClient;
use uptime_proto::v1::collector_client::CollectorClient;
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;

pub(crate) use super::fixture::Aggregator;
use super::fixture::{settings, with_token};

const DAY_MS: i64 = 86_400_000;

/// A data directory with an authority in it.
pub(crate) struct Host {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) authority: Authority,
}

impl Host {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(directory.path(), now_unix_ms()).unwrap();
        Self { directory, authority }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Another process on the same store, as the operator's commands are.
    pub(crate) async fn store(&self) -> SqliteStore {
        SqliteStore::open(self.directory.path()).await.unwrap()
    }

    pub(crate) fn by() -> By {
        By { actor: "test".to_owned(), now_ms: now_unix_ms() }
    }

    pub(crate) async fn enrol_with(
        &self,
        name: &str,
        role: Role,
        subnets: &[&str],
        credential: Option<NewCredential>,
    ) {
        let subnets_allowed = subnets.iter().map(|subnet| (*subnet).to_owned()).collect();
        let identity = NewIdentity { name: name.to_owned(), role, subnets_allowed, credential };
        assert!(self.store().await.enrol(&identity, &Self::by()).await.unwrap());
    }

    /// Enrols with a token and answers it.
    pub(crate) async fn enrol(&self, name: &str, role: Role) -> String {
        let token = new_token();
        self.enrol_with(name, role, &[], Some(token_of(&token))).await;
        token
    }

    /// Gives a new token; the old one ends so many milliseconds from now.
    pub(crate) async fn rotate(&self, name: &str, overlap_ms: i64) -> String {
        let token = new_token();
        let by = Self::by();
        let until_ms = by.now_ms + overlap_ms;
        self.store().await.renew(name, &token_of(&token), Ends::All, until_ms, &by).await.unwrap();
        token
    }

    pub(crate) async fn revoke(&self, name: &str) {
        self.store().await.revoke(name, &Self::by()).await.unwrap();
    }

    /// A client certificate of this host's authority that is not enrolled.
    pub(crate) fn client(&self, name: &str) -> Issued {
        issue(&self.authority, name, 0)
    }

    /// Enrols with a certificate of this host's authority and answers it.
    pub(crate) async fn enrol_by_certificate(&self, name: &str, role: Role) -> Issued {
        let issued = self.client(name);
        self.enrol_with(name, role, &[], Some(certificate_of(&issued))).await;
        issued
    }

    /// Adds a certificate to an enrolled identity.
    pub(crate) async fn also_by_certificate(&self, name: &str) -> Issued {
        let (issued, by) = (self.client(name), Self::by());
        let renewed = self
            .store()
            .await
            .renew(name, &certificate_of(&issued), Ends::All, i64::MAX, &by)
            .await;
        assert_eq!(renewed.unwrap(), Changed::Done);
        issued
    }

    /// Settings with TLS on both ports; client certificates of this host's authority are accepted.
    pub(crate) fn with_tls(&self) -> SettingArgs {
        self.write_server_certificate(&["localhost", "127.0.0.1"]);
        let text = |path: PathBuf| Some(path.display().to_string());
        SettingArgs {
            tls_cert_file: text(self.path("server.pem")),
            tls_key_file: text(self.path("server.key")),
            client_ca_file: text(self.authority.ca_file.clone()),
            ..self.plain()
        }
    }

    pub(crate) fn write_server_certificate(&self, names: &[&str]) -> Issued {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let issued = self.authority.issue(&Subject::Server(names), 30, now_unix_ms()).unwrap();
        let write = uptime_aggregator::access::authority::write_over;
        write(&self.path("server.key"), &issued.key_pem, 0o600).unwrap();
        write(&self.path("server.pem"), &issued.cert_pem, 0o644).unwrap();
        issued
    }

    /// Settings without TLS.
    pub(crate) fn plain(&self) -> SettingArgs {
        settings(self.directory.path())
    }

    pub(crate) async fn audit_log(&self) -> Vec<AuditRecord> {
        self.store().await.audit_log(None, 1_000).await.unwrap()
    }
}

/// A certificate for a name that begins to be valid so many days from now.
pub(crate) fn issue(authority: &Authority, name: &str, from_days: i64) -> Issued {
    let at_ms = now_unix_ms() + from_days * DAY_MS;
    authority.issue(&Subject::Client(name.to_owned()), 5, at_ms).unwrap()
}

pub(crate) fn token_of(token: &str) -> NewCredential {
    NewCredential { hash: hash_token(token), kind: CredentialKind::Token, valid_until_ms: None }
}

pub(crate) fn certificate_of(issued: &Issued) -> NewCredential {
    let (hash, kind) = (issued.fingerprint, CredentialKind::Certificate);
    NewCredential { hash, kind, valid_until_ms: Some(issued.not_after_ms) }
}

/// Who calls an aggregator.
pub(crate) trait Callers {
    /// Over plain text.
    fn caller(&self) -> Caller;

    /// Over TLS.
    fn tls_caller(&self, host: &Host) -> Caller;
}

impl Callers for Aggregator {
    fn caller(&self) -> Caller {
        let address = format!("http://{}", self.grpc);
        Caller { address, ca_pem: None, certificate: None, token: None }
    }

    fn tls_caller(&self, host: &Host) -> Caller {
        let address = format!("https://{}", self.grpc);
        let ca_pem = Some(host.authority.ca_pem.clone());
        Caller { address, ca_pem, certificate: None, token: None }
    }
}

/// A caller and its credentials.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) address: String,
    pub(crate) ca_pem: Option<String>,
    pub(crate) certificate: Option<(String, String)>,
    pub(crate) token: Option<String>,
}

impl Caller {
    pub(crate) fn with(self, certificate: &Issued) -> Self {
        let certificate = Some((certificate.cert_pem.clone(), certificate.key_pem.clone()));
        Self { certificate, ..self }
    }

    pub(crate) fn token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// A connection of its own.
    pub(crate) async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let mut endpoint = Endpoint::from_shared(self.address.clone())?;
        if let Some(ca_pem) = &self.ca_pem {
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem));
            if let Some((cert, key)) = &self.certificate {
                tls = tls.identity(Identity::from_pem(cert, key));
            }
            endpoint = endpoint.tls_config(tls)?;
        }
        endpoint.connect().await
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        match &self.token {
            Some(token) => with_token(message, token),
            None => Request::new(message),
        }
    }

    /// A failed connection is a status, too.
    async fn connected(&self) -> Result<Channel, Status> {
        self.channel().await.map_err(|error| Status::unavailable(format!("{error:?}")))
    }

    pub(crate) async fn submit(
        &self,
        reports: Vec<uptime_proto::v1::Report>,
    ) -> Result<uptime_proto::v1::SubmitResponse, Status> {
        let mut client = CollectorClient::new(self.connected().await?);
        let request = self.request(uptime_proto::v1::SubmitRequest { reports });
        Ok(client.submit(request).await?.into_inner())
    }

    pub(crate) async fn join(&self) -> Result<uptime_proto::v1::JoinResponse, Status> {
        let mut client = CollectorClient::new(self.connected().await?);
        let request = self.request(uptime_proto::v1::JoinRequest {});
        Ok(client.join(request).await?.into_inner())
    }

    pub(crate) async fn probes(&self) -> Result<uptime_proto::v1::ListProbesResponse, Status> {
        let mut client = UptimeQueryClient::new(self.connected().await?);
        let request = self.request(uptime_proto::v1::ListProbesRequest {});
        Ok(client.list_probes(request).await?.into_inner())
    }

    pub(crate) async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel().await.unwrap())
    }

    pub(crate) async fn audit(&self) -> Result<uptime_proto::v1::ListAuditResponse, Status> {
        let mut client = AdminClient::new(self.connected().await?);
        let request = self.request(uptime_proto::v1::ListAuditRequest::default());
        Ok(client.list_audit(request).await?.into_inner())
    }
}

/// A TLS connection made by hand.
pub(crate) async fn tls_stream(
    address: SocketAddr,
    ca_pem: &str,
    certificate: Option<&Issued>,
    protocol: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let cert = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// One HTTP/1.1 request by hand; answers the status and everything that came.
pub(crate) async fn http_get(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    authorization: Option<&str>,
) -> (u16, String) {
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n"));
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}\r\n",
        authorization.unwrap_or_default()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A peer that ends TLS without a goodbye is an error after the answer.
    stream.read_to_end(&mut answer).await.ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer)
}
