//! The connection to an aggregator.
//!
//! Owns the way from an address to a connection: TLS, the token, keep-alive, and every limit that
//! one connection's questions keep to. Secrets print as `***`.

use std::fmt;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use uptime_proto::MESSAGE_BYTES_MAX;
use uptime_proto::address::{Plaintext, Scheme, scheme};
use uptime_proto::v1::admin_client::AdminClient;
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;

use crate::error::{Error, root};

/// A listening host answers within round trips; a longer wait means a dead address. For the
/// connection with its TLS, whenever one is made: a peer may accept it and say nothing.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A million nodes are listed or written within a few seconds; the rest is for a slow line.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A half-open connection is noticed within twice this.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Packets of keep-alive that may be lost.
const KEEPALIVE_RETRIES: u32 = 3;
/// Four times the million nodes that an aggregator is made for: more than that is no listing but
/// an aggregator that never ends.
const ROWS_MAX: u64 = 4_000_000;
/// A line of the CSV is some 110 bytes, so this is ten times what the most rows take.
const CSV_BYTES_MAX: u64 = 4 << 30;

/// The generated client, with the token in every request.
pub(crate) type Query = UptimeQueryClient<InterceptedService<Channel, Credentials>>;
/// The same for the aggregator's Admin service.
pub(crate) type Admin = AdminClient<InterceptedService<Channel, Credentials>>;

/// A bearer token, for an aggregator that asks for one; prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(MetadataValue<Ascii>);

impl Token {
    /// The token as the aggregator's operator gave it.
    ///
    /// # Errors
    /// When it is empty or has characters that cannot be sent.
    pub fn new(token: &str) -> Result<Self, String> {
        let token = token.trim();
        if token.is_empty() {
            return Err("the token is empty".to_owned());
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| "the token has characters that no token has".to_owned())?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// How `https` addresses are spoken to; the private key prints as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    ca_pem: Option<String>,
    /// Certificate chain and private key.
    identity: Option<(String, String)>,
}

impl Tls {
    /// These certificates (PEM) to trust instead of the system's, and this chain and key of our
    /// own (PEM), where the aggregator asks for one.
    #[must_use]
    pub fn new(ca_pem: Option<String>, identity: Option<(String, String)>) -> Self {
        Self { ca_pem, identity }
    }

    fn config(&self) -> ClientTlsConfig {
        let config = match &self.ca_pem {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match &self.identity {
            Some((cert, key)) => config.identity(Identity::from_pem(cert, key)),
            None => config,
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.identity.as_ref().map(|_| "***");
        out.debug_struct("Tls").field("own_ca", &self.ca_pem.is_some()).field("own", &own).finish()
    }
}

/// The token of each request, if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Credentials(Option<Token>);

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(Token(value)) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// What the answers of one connection may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) answer_within: Duration,
    pub(crate) rows_max: u64,
    pub(crate) csv_bytes_max: u64,
}

/// An aggregator's address and what else there is to say about asking it.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use uptime_client::{Options, Tls, Token};
///
/// let ca = std::fs::read_to_string("ca.pem")?;
/// let client = Options::new("https://uptime.example:7640")
///     .tls(Tls::new(Some(ca), None))
///     .token(Token::new(&std::fs::read_to_string("token")?)?)
///     .answer_within(Duration::from_secs(5))
///     .connect()
///     .await?;
/// println!("{} nodes", client.summary().await?.value.nodes);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    url: String,
    tls: Tls,
    token: Option<Token>,
    plaintext: Plaintext,
    keepalive: Duration,
    bounds: Bounds,
}

impl Options {
    /// The aggregator at `https://HOST:PORT`, or at `http://HOST:PORT` on this host.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        let bounds = Bounds {
            answer_within: ANSWER_WITHIN,
            rows_max: ROWS_MAX,
            csv_bytes_max: CSV_BYTES_MAX,
        };
        Self {
            url: url.into(),
            tls: Tls::default(),
            token: None,
            plaintext: Plaintext::Loopback,
            keepalive: KEEPALIVE,
            bounds,
        }
    }

    /// For `https` only: whom to trust and who we are. Without it, the system's certificates count.
    #[must_use]
    pub fn tls(self, tls: Tls) -> Self {
        Self { tls, ..self }
    }

    /// The token to show. Over `http`, which is for this host alone, it travels in the clear.
    #[must_use]
    pub fn token(self, token: Token) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Uses `http` to other hosts, too: anyone on the way can read the token and forge answers.
    #[must_use]
    pub fn insecure_plaintext_beyond_loopback(self) -> Self {
        Self { plaintext: Plaintext::Anywhere, ..self }
    }

    /// Another limit than 30 s for one question, asking again included; for a stream, for each of
    /// its pieces.
    #[must_use]
    pub fn answer_within(self, limit: Duration) -> Self {
        Self { bounds: Bounds { answer_within: limit, ..self.bounds }, ..self }
    }

    /// Another interval than 10 s for asking a silent connection whether it still lives. A dead
    /// one is noticed within twice this.
    #[must_use]
    pub fn keepalive(self, interval: Duration) -> Self {
        Self { keepalive: interval, ..self }
    }

    /// Another limit than 4,000,000 for the rows of one listing, over all its pages.
    #[must_use]
    pub fn rows_max(self, rows: u64) -> Self {
        Self { bounds: Bounds { rows_max: rows, ..self.bounds }, ..self }
    }

    /// Another limit than 4 GiB for the CSV.
    #[must_use]
    pub fn csv_bytes_max(self, bytes: u64) -> Self {
        Self { bounds: Bounds { csv_bytes_max: bytes, ..self.bounds }, ..self }
    }

    /// Connects.
    ///
    /// # Errors
    /// [`Error::Address`] when the URL or a certificate cannot be used, or the URL is plaintext to
    /// another host, [`Error::Unreachable`] when no connection comes about within five seconds,
    /// TLS included.
    pub async fn connect(self) -> Result<Client, Error> {
        let endpoint = self.endpoint()?;
        let unreachable = |detail: String| Error::Unreachable { url: self.url.clone(), detail };
        let within = self.bounds.answer_within.min(CONNECT_WITHIN);
        let dialled = timeout(within, endpoint.connect_with_connector(self.tcp())).await;
        let channel = match dialled {
            Ok(connected) => connected.map_err(|error| unreachable(root(&error)))?,
            Err(_) => return Err(unreachable(format!("no connection came about in {within:?}"))),
        };
        Ok(self.client(channel))
    }

    fn client(self, channel: Channel) -> Client {
        let credentials = Credentials(self.token);
        let query = UptimeQueryClient::with_interceptor(channel.clone(), credentials.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let admin = AdminClient::with_interceptor(channel, credentials)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Client { query, admin, url: self.url, bounds: self.bounds }
    }

    /// Without a connection until one is needed.
    #[cfg(test)]
    pub(crate) fn lazily(self) -> Result<Client, Error> {
        let channel = self.endpoint()?.connect_with_connector_lazy(self.tcp());
        Ok(self.client(channel))
    }

    /// The transport's own, but for one thing: with a connector that is handed in, its limit on the
    /// connection holds for TLS, too, also after a reconnect.
    fn tcp(&self) -> HttpConnector {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_WITHIN));
        tcp.set_keepalive(Some(self.keepalive));
        tcp.set_keepalive_interval(Some(self.keepalive));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        tcp
    }

    /// The scheme of the address. TLS settings for a plaintext address are an error.
    fn scheme(&self) -> Result<Scheme, Error> {
        let unusable = |detail: String| Error::Address { url: self.url.clone(), detail };
        match scheme(&self.url, self.plaintext).map_err(|fault| unusable(fault.to_string()))? {
            Scheme::Http if self.tls != Tls::default() => Err(unusable(
                "certificates are looked at over TLS only, and it does not begin with https://"
                    .to_owned(),
            )),
            scheme => Ok(scheme),
        }
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let unusable =
            |detail: &str| Error::Address { url: self.url.clone(), detail: detail.to_owned() };
        let mut endpoint =
            Endpoint::from_shared(self.url.clone()).map_err(|error| unusable(&root(&error)))?;
        if self.scheme()? == Scheme::Https {
            let config = self.tls.config();
            endpoint = endpoint.tls_config(config).map_err(|error| unusable(&root(&error)))?;
        }
        endpoint
            .user_agent(concat!("uptime-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| unusable(&root(&error)))
            .map(|endpoint| {
                endpoint
                    .connect_timeout(CONNECT_WITHIN)
                    .http2_keep_alive_interval(self.keepalive)
                    .keep_alive_timeout(self.keepalive)
                    .keep_alive_while_idle(true)
            })
    }
}

/// A connection to one aggregator. Cheap to clone; clones share the connection, which reconnects
/// by itself.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) query: Query,
    pub(crate) admin: Admin,
    pub(crate) url: String,
    pub(crate) bounds: Bounds,
}

impl Client {
    /// Connects to the aggregator at `http://HOST:PORT` or `https://HOST:PORT`. [`Options`] can
    /// set more.
    ///
    /// # Errors
    /// [`Error::Address`] when the URL cannot be used, [`Error::Unreachable`] when nobody accepts
    /// a connection within five seconds.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Options::new(url).connect().await
    }

    /// The URL as it was given.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn timed_out(&self, call: &'static str) -> Error {
        Error::TimedOut { url: self.url.clone(), call, limit: self.bounds.answer_within }
    }

    pub(crate) fn failure(&self, call: &'static str, status: &Status) -> Error {
        Error::from_status(&self.url, call, self.bounds.answer_within, status)
    }

    pub(crate) fn malformed(&self, detail: &'static str) -> Error {
        Error::Malformed { url: self.url.clone(), detail: detail.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let token = Token::new(" s3cret\n").unwrap();
        let tls = Tls::new(Some("authority".into()), Some(("chain".into(), "k3y".into())));
        let options = Options::new("https://localhost:1").token(token.clone()).tls(tls);
        let printed = format!("{token:?} {options:?}");
        assert!(!printed.contains("s3cret") && !printed.contains("k3y"), "{printed}");
        assert!(Token::new("two\nlines").is_err() && Token::new(" ").is_err());
    }

    #[tokio::test]
    async fn only_http_and_https_are_addresses() {
        for bad in [
            "",
            "127.0.0.1:7640",
            "ftp://localhost:1",
            "unix:/run/x",
            "unix:///run/x",
            "http://",
            "http:///",
        ] {
            let failure = Options::new(bad).connect().await.unwrap_err();
            assert!(matches!(failure, Error::Address { .. }), "{bad}: {failure:?}");
        }
    }

    #[tokio::test]
    async fn plaintext_stays_on_this_host_unless_it_may_go_anywhere() {
        let there = || Options::new("http://192.0.2.1:7640").token(Token::new("s3cret").unwrap());
        let failure = there().connect().await.unwrap_err();
        assert!(matches!(failure, Error::Address { .. }), "{failure:?}");
        assert!(failure.to_string().contains("plaintext to another host"), "{failure}");
        assert!(there().lazily().is_err());
        assert!(there().insecure_plaintext_beyond_loopback().lazily().is_ok());
        assert!(Options::new("http://localhost:7640").lazily().is_ok());
    }

    #[tokio::test]
    async fn certificates_are_not_given_in_vain() {
        let tls = Tls::new(Some("-----BEGIN CERTIFICATE-----".into()), None);
        let options = Options::new("http://127.0.0.1:7640").tls(tls);
        let failure = options.connect().await.unwrap_err();
        assert!(matches!(failure, Error::Address { .. }), "{failure:?}");
        assert!(failure.to_string().contains("over TLS only"), "{failure}");
    }
}
