//! One question and its answer over HTTP.
//!
//! Owns the client, the key if there is one, and the mapping of transport failures: connections,
//! time limits, sizes. Also opens endless answers. Does not know what an answer means: `answers.rs`
//! does.

use std::error::Error;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, Response};
use tokio::time::Instant;
use uptime_proto::Reason;

use super::answers::{Route, Strange};
use super::fault::{CouldNotLook, DETAIL_BYTES_MAX, clean};
use super::options::{AppKey, Limits, Unfit, YagnaConfigError, parse_base};

/// An idle connection is closed after this long. The daemon's HTTP server closes it after five
/// seconds; a question at that moment would fail without need.
const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(3);

/// Bytes of an answer unless the question says otherwise: that of one fact, or an error. The
/// longest recorded has 700.
pub(super) const SMALL_BYTES_MAX: usize = 64 * 1024;
/// Of an answer that one node, or as many as one ping may have, give: 32 pings have 4 kB; twenty
/// offers of one node 40 kB.
pub(super) const NODES_BYTES_MAX: usize = 256 * 1024;
/// Of the list of the daemon's sessions: some 500 bytes each, and a daemon may have thousands.
pub(super) const SESSIONS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Of a page of the market, or of a production daemon's demands; the setting decides.
pub(super) const MARKET_BYTES_MAX: usize = usize::MAX;

/// The client for one daemon or relay.
pub(super) struct Http {
    client: Client,
    /// Without a slash at its end.
    base: String,
    /// The key and its header. A relay needs none.
    key: Option<(AppKey, HeaderValue)>,
    /// Of any answer, whatever the question allows.
    answer_bytes_max: usize,
    /// The reason when there is no connection, or it ends without a whole answer.
    unreachable: Reason,
    failures: Failures,
    strange: Strange,
}

/// Counts failures of the connection itself.
#[derive(Default)]
struct Failures(AtomicU64);

impl Failures {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request.
pub(super) struct Question<'a> {
    route: Route,
    pub(super) method: Method,
    /// With the leading slash and the query.
    pub(super) path: &'a str,
    pub(super) body: Option<String>,
    /// The requested type of answer; `None`: any.
    accept: Option<&'static str>,
    /// Bytes of the answer that are read.
    bytes_max: usize,
}

/// An answer of which the head has come, and whose body may go on for ever. Dropping it ends the
/// connection.
pub(super) struct Streaming<'a> {
    http: &'a Http,
    route: Route,
    path: &'a str,
    response: Response,
}

impl<'a> Question<'a> {
    pub(super) fn get(route: Route, path: &'a str) -> Self {
        let (method, bytes_max) = (Method::GET, SMALL_BYTES_MAX);
        Self { route, method, path, body: None, accept: None, bytes_max }
    }

    /// Sets the size limit of the answer.
    pub(super) fn at_most(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// A question whose answer may be a stream of this type, to be read piece by piece.
    pub(super) fn get_stream(route: Route, path: &'a str, accept: &'static str) -> Self {
        Self { accept: Some(accept), ..Self::get(route, path) }
    }

    pub(super) fn post(route: Route, path: &'a str, body: &serde_json::Value) -> Self {
        Self { method: Method::POST, body: Some(body.to_string()), ..Self::get(route, path) }
    }

    pub(super) fn delete(path: &'a str) -> Self {
        Self { method: Method::DELETE, ..Self::get(Route::Delete, path) }
    }
}

impl Http {
    pub(super) fn new(
        base_url: &str,
        key: &AppKey,
        limits: &Limits,
    ) -> Result<Self, YagnaConfigError> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.0))
            .map_err(|_| YagnaConfigError::AppKey("has invalid characters"))?;
        if key.0.trim().is_empty() {
            return Err(YagnaConfigError::AppKey("is empty"));
        }
        authorization.set_sensitive(true);
        let unreachable = Reason::YagnaUnreachable;
        let (connect_timeout, bytes_max) = (limits.connect_timeout, limits.answer_bytes_max);
        let keyless = Self::keyless(base_url, connect_timeout, bytes_max, unreachable)?;
        Ok(Self { key: Some((key.clone(), authorization)), ..keyless })
    }

    /// A client that shows no key. `unreachable` is the reason when there is no connection.
    pub(super) fn keyless(
        base_url: &str,
        connect_timeout: Duration,
        answer_bytes_max: usize,
        unreachable: Reason,
    ) -> Result<Self, Unfit> {
        let base = parse_base(base_url)?;
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Losing the race against another installer is as good as winning it.
            rustls::crypto::ring::default_provider().install_default().ok();
        }
        let mut builder = Client::builder()
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(IDLE_CONNECTION_MAX);
        if base.scheme() == "http" {
            // On a machine without CA certificates the client could not be made otherwise.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            client: builder.build().map_err(Unfit::Client)?,
            base: base.as_str().trim_end_matches('/').to_owned(),
            key: None,
            answer_bytes_max,
            unreachable,
            failures: Failures::default(),
            strange: Strange::default(),
        })
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// How many connections have failed so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures.count()
    }

    /// Asks and lets `parse` read status and body. `limit` covers everything from connecting to the
    /// last byte. Also returns how long it took.
    pub(super) async fn ask<T>(
        &self,
        question: Question<'_>,
        limit: Duration,
        parse: impl FnOnce(u16, &[u8]) -> Result<T, CouldNotLook>,
    ) -> Result<(T, Duration), CouldNotLook> {
        let begun = Instant::now();
        let (route, path) = (question.route, question.path.to_owned());
        let exchange = tokio::time::timeout(limit, self.exchange(question));
        let answer = exchange.await.unwrap_or_else(|_| Err(out_of_time(limit)));
        let took = begun.elapsed();
        let parsed = answer.and_then(|(status, body)| {
            parse(status, &body).inspect_err(|_| self.strange.note(route, status, &body))
        });
        parsed.map(|parsed| (parsed, took)).map_err(|fault| self.failed(&path, fault))
    }

    /// Asks and waits for the head of the answer, up to `limit`.
    pub(super) async fn begin<'a>(
        &'a self,
        question: Question<'a>,
        limit: Duration,
    ) -> Result<Streaming<'a>, CouldNotLook> {
        let (route, path) = (question.route, question.path);
        let answer = tokio::time::timeout(limit, self.send(question)).await.unwrap_or_else(|_| {
            let detail = format!("no answer began within {limit:?}");
            Err(CouldNotLook::new(Reason::TimedOut, detail))
        });
        match answer {
            Ok(response) => Ok(Streaming { http: self, route, path, response }),
            Err(fault) => Err(self.failed(path, fault)),
        }
    }

    async fn send(&self, question: Question<'_>) -> Result<Response, CouldNotLook> {
        let url = format!("{}{}", self.base, question.path);
        let mut request = self.client.request(question.method, url);
        if let Some((_, authorization)) = &self.key {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(accept) = question.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(body) = question.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        request.send().await.map_err(|error| transport_fault(error, self.unreachable))
    }

    async fn exchange(&self, question: Question<'_>) -> Result<(u16, Vec<u8>), CouldNotLook> {
        let bytes_max = question.bytes_max;
        let mut response = self.send(question).await?;
        let body = self.body(&mut response, bytes_max).await?;
        Ok((response.status().as_u16(), body))
    }

    async fn body(
        &self,
        response: &mut Response,
        bytes_max: usize,
    ) -> Result<Vec<u8>, CouldNotLook> {
        let most = bytes_max.min(self.answer_bytes_max);
        let too_large = || {
            let detail = format!("the answer has more than {most} bytes");
            Err(CouldNotLook::new(Reason::AnswerTooLarge, detail))
        };
        let told = response.content_length().and_then(|length| usize::try_from(length).ok());
        if told.is_some_and(|length| length > most) {
            return too_large();
        }
        let mut body = Vec::new();
        let transport_fault = |error| transport_fault(error, self.unreachable);
        while let Some(chunk) = response.chunk().await.map_err(transport_fault)? {
            if body.len() + chunk.len() > most {
                return too_large();
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Records an answer that led to a failure, over HTTP or the command line.
    pub(super) fn note_strange(&self, route: Route, status: u16, body: &[u8]) {
        self.strange.note(route, status, body);
    }

    /// Counts a failed connection, over HTTP or the command line.
    pub(super) fn failed(&self, path: &str, fault: CouldNotLook) -> CouldNotLook {
        if fault.reason == self.unreachable {
            self.failures.add();
        }
        self.described(path, fault)
    }

    /// The fault with the route it happened on, and without the key, should anything between us
    /// and the daemon have echoed it.
    fn described(&self, path: &str, fault: CouldNotLook) -> CouldNotLook {
        let route = path.split('?').next().unwrap_or_default();
        let mut detail = format!("{route}: {}", fault.detail);
        if let Some((key, _)) = &self.key {
            detail = detail.replace(&key.0, "***");
        }
        CouldNotLook { detail, ..fault }
    }
}

fn out_of_time(limit: Duration) -> CouldNotLook {
    CouldNotLook::new(Reason::TimedOut, format!("no complete answer within {limit:?}"))
}

impl Streaming<'_> {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Lets `read` see the next bytes, waiting for them until then at most; `None` when the time
    /// is over. The end of the answer is an error: a stream has none.
    pub(super) async fn next<T>(
        &mut self,
        until: Instant,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, CouldNotLook> {
        let Ok(chunk) = tokio::time::timeout_at(until, self.response.chunk()).await else {
            return Ok(None);
        };
        let fault = match chunk.map_err(|error| transport_fault(error, self.http.unreachable)) {
            Ok(Some(chunk)) => return Ok(Some(read(&chunk))),
            Ok(None) => CouldNotLook::new(self.http.unreachable, "the stream ended by itself"),
            Err(fault) => fault,
        };
        Err(self.failed(fault))
    }

    /// Takes note of the answer's body, or its beginning, where it was not understood.
    pub(super) fn note_strange(&self, body: &[u8]) {
        self.http.strange.note(self.route, self.status(), body);
    }

    /// A fault of this answer, told like those of others.
    pub(super) fn failed(&self, fault: CouldNotLook) -> CouldNotLook {
        self.http.failed(self.path, fault)
    }
}

fn transport_fault(error: reqwest::Error, unreachable: Reason) -> CouldNotLook {
    let error = error.without_url();
    let mut detail = error.to_string();
    let mut malformed = false;
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        write!(detail, ": {cause}").ok();
        let hyper = cause.downcast_ref::<hyper::Error>();
        malformed |= hyper.is_some_and(hyper::Error::is_parse);
        source = cause.source();
    }
    let reason = if error.is_timeout() {
        Reason::TimedOut
    } else if malformed {
        Reason::MalformedAnswer
    } else {
        unreachable
    };
    CouldNotLook::new(reason, clean(&detail, DETAIL_BYTES_MAX))
}
