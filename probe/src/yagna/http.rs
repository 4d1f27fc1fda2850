//! One question and its answer over HTTP.
//!
//! Owns the client, the key, and the mapping of everything that can go wrong below the level of
//! meaning: connections, time limits, sizes, status codes. Refuses to know any route.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, Url};
use tokio::time::Instant;
use uptime_proto::Reason;

use super::{AppKey, CouldNotLook, Failures, Limits, YagnaConfigError};

/// An idle connection is dropped after this long. The daemon's HTTP server closes its own after
/// five seconds; a question put at that very moment would fail for nothing.
const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(3);

/// Bytes of foreign text that enter an error's detail; enough for every message recorded.
const DETAIL_BYTES_MAX: usize = 240;

/// The client for one daemon.
pub(super) struct Http {
    client: Client,
    /// Without a slash at its end.
    base: String,
    key: AppKey,
    authorization: HeaderValue,
    answer_bytes_max: usize,
    failures: Failures,
}

/// What is sent.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    /// With the leading slash and the query.
    pub(super) path: &'a str,
    pub(super) body: Option<String>,
}

impl<'a> Question<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: None }
    }

    pub(super) fn post(path: &'a str, body: &serde_json::Value) -> Self {
        Self { method: Method::POST, path, body: Some(body.to_string()) }
    }

    pub(super) fn delete(path: &'a str) -> Self {
        Self { method: Method::DELETE, path, body: None }
    }
}

impl Http {
    pub(super) fn new(
        base_url: &str,
        key: &AppKey,
        limits: &Limits,
    ) -> Result<Self, YagnaConfigError> {
        let base = parse_base(base_url)?;
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.0))
            .map_err(|_| YagnaConfigError::AppKey("has characters that no key has"))?;
        if key.0.trim().is_empty() {
            return Err(YagnaConfigError::AppKey("is empty"));
        }
        authorization.set_sensitive(true);
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Losing the race against another installer is as good as winning it.
            rustls::crypto::ring::default_provider().install_default().ok();
        }
        let mut builder = Client::builder()
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(limits.connect_timeout)
            .pool_idle_timeout(IDLE_CONNECTION_MAX);
        if base.scheme() == "http" {
            // On a machine without CA certificates the client could not be made otherwise.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(YagnaConfigError::Client)?;
        Ok(Self {
            client,
            base: base.as_str().trim_end_matches('/').to_owned(),
            key: key.clone(),
            authorization,
            answer_bytes_max: limits.answer_bytes_max,
            failures: Failures::default(),
        })
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// How many connections have failed so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures.count()
    }

    /// Puts a question and lets `parse` read status and body; `limit` is for everything together,
    /// from connecting to the last byte. Also returns how long it took.
    pub(super) async fn ask<T>(
        &self,
        question: Question<'_>,
        limit: Duration,
        parse: impl FnOnce(u16, &[u8]) -> Result<T, CouldNotLook>,
    ) -> Result<(T, Duration), CouldNotLook> {
        let begun = Instant::now();
        let path = question.path.to_owned();
        let exchange = tokio::time::timeout(limit, self.exchange(question));
        let answer = exchange.await.unwrap_or_else(|_| {
            let detail = format!("no complete answer within {limit:?}");
            Err(CouldNotLook::new(Reason::TimedOut, detail))
        });
        let took = begun.elapsed();
        let parsed = answer.and_then(|(status, body)| parse(status, &body));
        parsed.map(|parsed| (parsed, took)).map_err(|fault| {
            if fault.reason == Reason::YagnaUnreachable {
                self.failures.add();
            }
            self.described(&path, fault)
        })
    }

    async fn exchange(&self, question: Question<'_>) -> Result<(u16, Vec<u8>), CouldNotLook> {
        let url = format!("{}{}", self.base, question.path);
        let mut request = self
            .client
            .request(question.method, url)
            .header(AUTHORIZATION, self.authorization.clone());
        if let Some(body) = question.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let mut response = request.send().await.map_err(transport_fault)?;
        let too_large = || {
            let detail = format!("the answer has more than {} bytes", self.answer_bytes_max);
            CouldNotLook::new(Reason::AnswerTooLarge, detail)
        };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport_fault)? {
            if body.len() + chunk.len() > self.answer_bytes_max {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status().as_u16(), body))
    }

    /// The fault with the route it happened on, and without the key, should anything between us
    /// and the daemon have echoed it.
    fn described(&self, path: &str, fault: CouldNotLook) -> CouldNotLook {
        let route = path.split('?').next().unwrap_or_default();
        let detail = format!("{route}: {}", fault.detail).replace(&self.key.0, "***");
        CouldNotLook { detail, ..fault }
    }
}

fn parse_base(base_url: &str) -> Result<Url, YagnaConfigError> {
    let refuse = |fault| {
        // What stands before an @ may be a password.
        let url = base_url.rsplit('@').next().unwrap_or_default().to_owned();
        Err(YagnaConfigError::BaseUrl { url, fault })
    };
    let Ok(url) = Url::parse(base_url.trim()) else {
        return refuse("is not a URL");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse("is neither http nor https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("has a user name in it");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("has a query or fragment");
    }
    Ok(url)
}

fn transport_fault(error: reqwest::Error) -> CouldNotLook {
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
        Reason::YagnaUnreachable
    };
    CouldNotLook::new(reason, clean(&detail, DETAIL_BYTES_MAX))
}

/// The body of an answer whose status says that it is one. `otherwise` is the reason when the
/// status says anything else but "unauthorised".
pub(super) fn answered(status: u16, body: &[u8], otherwise: Reason) -> Result<&[u8], CouldNotLook> {
    match status {
        200..=299 => Ok(body),
        // 403 is not yagna's own; something that guards it may say so.
        401 | 403 => Err(refused(Reason::Unauthorised, status, body)),
        _ => Err(refused(otherwise, status, body)),
    }
}

/// The fault of an answer with this status and this text.
pub(super) fn refused(reason: Reason, status: u16, body: &[u8]) -> CouldNotLook {
    let text = clean(&message(body), DETAIL_BYTES_MAX);
    CouldNotLook::new(reason, format!("status {status}: {text}"))
}

/// The fault of an answer that was not understood.
pub(super) fn malformed(what: impl std::fmt::Display) -> CouldNotLook {
    CouldNotLook::new(Reason::MalformedAnswer, clean(&what.to_string(), DETAIL_BYTES_MAX))
}

/// The words of an error body: its `message` where it is the usual JSON, else all of it.
pub(super) fn message(body: &[u8]) -> String {
    json_message(body).unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

/// The `message` of an error body in yagna's own form.
pub(super) fn json_message(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct ErrorBody {
        message: String,
    }
    serde_json::from_slice::<ErrorBody>(body).ok().map(|body| body.message)
}

/// Foreign text made fit for logs and tables: no control or direction characters, at most so
/// many bytes, cut between characters.
pub(super) fn clean(text: &str, bytes_max: usize) -> String {
    let mut cleaned = String::new();
    for character in text.chars() {
        let character = match character {
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ' ',
            other if other.is_control() => ' ',
            other => other,
        };
        if cleaned.len() + character.len_utf8() > bytes_max {
            break;
        }
        cleaned.push(character);
    }
    cleaned
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["http://127.0.0.1:7465", "http://[::1]:7465/", " https://yagna.example/a/b "] {
            assert!(parse_base(good).is_ok(), "{good}");
        }
        for bad in
            ["", "127.0.0.1:7465", "ftp://a", "http://", "http://a?authToken=b", "http://a#b"]
        {
            assert!(parse_base(bad).is_err(), "{bad}");
        }
        let error = parse_base("http://user:secret@host").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn foreign_text() {
        assert_eq!(clean("a\nb\u{202e}c\u{7f}", 9), "a b c ");
        assert_eq!(clean("äöü", 5), "äö");
        assert_eq!(clean("abc", 0), "");
    }
}
