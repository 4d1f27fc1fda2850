//! Recorded exchanges with real daemons, and how to send one again.
//!
//! Owns reading `recordings/*.json`, and a client that sends the exact bytes of a recorded request,
//! with its headers in their order, and reads the answer as it comes. Refuses to compare: the tests
//! do.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One file of recordings.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The file's name without `.json`.
    pub name: String,
    /// What was asked and answered, in order.
    pub exchanges: Vec<Exchange>,
    /// The whole file, for content that is not an exchange.
    pub file: Value,
}

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// When and why it was asked, where the recording says so.
    pub tag: String,
    /// As in `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// In order.
    pub headers: Vec<(String, String)>,
    /// What followed the headers.
    pub body: Option<String>,
    /// `None`: the connection ended without a byte, or the client gave up.
    pub response: Option<Response>,
    /// How long it took.
    pub elapsed: Duration,
}

/// An answer, recorded or received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// As in 200.
    pub status: u16,
    /// In order.
    pub headers: Vec<(String, String)>,
    /// Without transfer encoding.
    pub body: String,
}

impl Response {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `Null` if it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

impl Recording {
    /// Reads the recording whose file name is `number` and an underscore, and then anything.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn load(number: &str) -> io::Result<Recording> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
        let prefix = format!("{number}_");
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            if is_json && (name == number || name.starts_with(&prefix)) {
                let file: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
                let (name, exchanges) = (name.to_owned(), exchanges(&file));
                return Ok(Recording { name, exchanges, file });
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("no recording {number}")))
    }
}

fn exchanges(file: &Value) -> Vec<Exchange> {
    let brief = file.as_array().or_else(|| file.get("answers")?.as_array());
    match (file.get("exchanges").and_then(Value::as_array), brief) {
        (Some(several), _) => several.iter().filter_map(exchange).collect(),
        (None, Some(several)) => several.iter().filter_map(brief_exchange).collect(),
        (None, None) => exchange(file).into_iter().collect(),
    }
}

/// A recording of 2026-11-30, which has no headers: only those that a request needs are added,
/// without a key. The output of a command is not an exchange.
fn brief_exchange(value: &Value) -> Option<Exchange> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (method, target) = value.get("request")?.as_str()?.split_once(' ')?;
    let body = value.get("body").filter(|body| !body.is_null()).map(Value::to_string);
    let mut headers = vec![("Connection".to_owned(), "close".to_owned())];
    if let Some(body) = &body {
        headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        headers.push(("Content-Length".to_owned(), body.len().to_string()));
    }
    let status = value.get("status")?.as_u64().and_then(|status| u16::try_from(status).ok())?;
    let response = Response { status, headers: Vec::new(), body: text("response").to_owned() };
    Some(Exchange {
        tag: text("tag").to_owned(),
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body,
        response: Some(response),
        elapsed: Duration::from_secs_f64(value.get("elapsed_ms")?.as_f64()? / 1000.0),
    })
}

fn exchange(value: &Value) -> Option<Exchange> {
    let request = value.get("request")?;
    let text = |name: &str| request.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(Exchange {
        tag: String::new(),
        method: text("method")?,
        target: text("target")?,
        headers: headers(request),
        body: text("body"),
        response: value.get("response").and_then(response),
        elapsed: Duration::from_secs_f64(value.get("elapsed_ms")?.as_f64()? / 1000.0),
    })
}

fn headers(value: &Value) -> Vec<(String, String)> {
    let pairs = value.get("headers").and_then(Value::as_array).into_iter().flatten();
    let text = |pair: &Value, at: usize| pair.get(at).and_then(Value::as_str).map(str::to_owned);
    pairs.filter_map(|pair| text(pair, 0).zip(text(pair, 1))).collect()
}

fn response(value: &Value) -> Option<Response> {
    let status = value.get("status")?.as_u64().and_then(|status| u16::try_from(status).ok())?;
    let body = value.get("body")?.as_str().unwrap_or_default().to_owned();
    Some(Response { status, headers: headers(value), body })
}

impl Exchange {
    /// The same request with this application key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Exchange {
        let mut keyed = self.clone();
        keyed.headers.push(("Authorization".to_owned(), format!("Bearer {key}")));
        keyed
    }

    /// The same request for another target.
    #[must_use]
    pub fn to(&self, target: &str) -> Exchange {
        Exchange { target: target.to_owned(), ..self.clone() }
    }

    /// Sends the request over a new connection and waits for the answer to end, but no longer
    /// than `patience`; what has come by then counts.
    ///
    /// # Errors
    /// If the connection cannot be made.
    pub async fn replay(
        &self,
        address: SocketAddr,
        patience: Duration,
    ) -> io::Result<(Option<Response>, Duration)> {
        let started = Instant::now();
        let mut stream = TcpStream::connect(address).await?;
        let mut request = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(self.body.as_deref().unwrap_or_default());
        stream.write_all(request.as_bytes()).await?;
        let mut received = Vec::new();
        let ended = tokio::time::timeout(patience, async {
            // A broken connection ends the answer like a closed one.
            while stream.read_buf(&mut received).await.is_ok_and(|count| count > 0) {}
        });
        let _in_time = ended.await;
        Ok((read(&received), started.elapsed()))
    }
}

/// Reads an answer as far as it has come; `None` if not even its head has.
fn read(received: &[u8]) -> Option<Response> {
    let text = String::from_utf8_lossy(received);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
    let body = if chunked { dechunked(body) } else { body.to_owned() };
    Some(Response { status, headers, body })
}

fn dechunked(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((length, tail)) = rest.split_once("\r\n") {
        let Ok(length) = usize::from_str_radix(length, 16) else {
            break;
        };
        let Some(chunk) = tail.get(..length).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        whole.push_str(chunk);
        rest = tail.get(length + 2..).unwrap_or_default();
    }
    whole
}
