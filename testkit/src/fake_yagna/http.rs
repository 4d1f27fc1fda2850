//! A small HTTP/1.1 server that controls each byte.
//!
//! Owns sockets, parsing, framing and the ways of misbehaving that a framework would not allow:
//! saying nothing, closing without a byte, cutting an answer short, dripping it, never ending
//! it. Refuses to know any route. Handlers are dropped when their client goes away, so a client
//! that gives up a long poll takes nothing with it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Larger heads and bodies close the connection: no client of ours sends such.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Whether the answer may be a stream of events.
    pub(crate) fn wants_events(&self) -> bool {
        self.header("accept").is_some_and(|types| types.contains("text/event-stream"))
    }

    /// A query parameter, percent-decoded.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| percent_decoded(value))
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match code.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A reply.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Sent in this order, after length and connection and before the date.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
    pub(crate) delivery: Delivery,
}

pub(crate) enum Body {
    Bytes(Vec<u8>),
    /// Chunks as they come; the end of the stream ends the answer.
    Stream(BoxStream<'static, Vec<u8>>),
    /// The same, with its length in the head.
    Sized(u64, BoxStream<'static, Vec<u8>>),
    /// No answer at all: the connection ends without a byte.
    Hangup,
}

/// How the bytes are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Delivery {
    #[default]
    Whole,
    /// Head and half the body, of a stream its first chunk and half the second; then the
    /// connection ends.
    CutShort,
    /// One byte at a time.
    Drip(Duration),
}

impl Reply {
    pub(crate) fn empty(status: u16) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: Body::Bytes(Vec::new()),
            delivery: Delivery::Whole,
        }
    }

    pub(crate) fn json(status: u16, body: impl ToString) -> Reply {
        let body = Body::Bytes(body.to_string().into_bytes());
        let headers = vec![("content-type", "application/json".to_owned())];
        Reply { headers, body, ..Reply::empty(status) }
    }

    pub(crate) fn text(status: u16, body: impl Into<String>) -> Reply {
        let body = Body::Bytes(body.into().into_bytes());
        let headers = vec![("content-type", "text/plain; charset=utf-8".to_owned())];
        Reply { headers, body, ..Reply::empty(status) }
    }

    pub(crate) fn hangup() -> Reply {
        Reply { body: Body::Hangup, ..Reply::empty(500) }
    }

    fn head(&self, close: bool, date: &str) -> String {
        let status = self.status;
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        match &self.body {
            Body::Stream(_) => head.push_str("transfer-encoding: chunked\r\n"),
            Body::Sized(length, _) => head.push_str(&format!("content-length: {length}\r\n")),
            Body::Bytes(_) if status == 204 => {}
            Body::Bytes(body) => head.push_str(&format!("content-length: {}\r\n", body.len())),
            Body::Hangup => {}
        }
        if close {
            head.push_str("connection: close\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("date: {date}\r\n\r\n"));
        head
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        410 => "Gone",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

/// What answers requests.
pub(crate) trait Site: Send + Sync + 'static {
    /// Answers one request; dropped if the client goes away first.
    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Reply>;

    /// The date header.
    fn date(&self) -> String;
}

/// A listening socket and everything accepted from it.
#[derive(Debug)]
pub(crate) struct Listening {
    stop: CancellationToken,
    tasks: TaskTracker,
    pub(crate) address: SocketAddr,
}

impl Listening {
    /// Binds on loopback (port 0: any) and serves `site` until closed. While `frozen` holds,
    /// connections are accepted and nothing is read or written.
    pub(crate) async fn open(
        port: u16,
        site: Arc<dyn Site>,
        frozen: watch::Receiver<bool>,
    ) -> io::Result<Listening> {
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let listener = TcpListener::bind(local).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let accepting = accept(listener, site, frozen, stop.clone(), tasks.clone());
        tasks.spawn(accepting);
        tasks.close();
        Ok(Listening { stop, tasks, address })
    }

    /// Ends every connection at once. When this returns, new ones are refused.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    site: Arc<dyn Site>,
    frozen: watch::Receiver<bool>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: give the clients a moment to go away.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (site, frozen, stop) = (Arc::clone(&site), frozen.clone(), stop.clone());
        tasks.spawn(async move {
            let connection = Connection { stream, buffer: Vec::new(), frozen };
            tokio::select! {
                () = stop.cancelled() => {}
                // How a client disconnected does not matter.
                _ended = connection.serve(site) => {}
            }
        });
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    frozen: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(mut self, site: Arc<dyn Site>) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        while let Some(request) = self.read_request().await? {
            self.thawed().await;
            let connection = request.header("connection").unwrap_or_default();
            let close = connection.eq_ignore_ascii_case("close");
            let is_head = request.method == "HEAD";
            let answer = Arc::clone(&site).answer(request);
            let reply = tokio::select! {
                reply = answer => reply,
                gone = read_more(&mut self.stream, &mut self.buffer) => return gone,
            };
            self.thawed().await;
            let more = self.write_reply(reply, close, is_head, &site.date()).await?;
            if close || !more {
                return self.stream.shutdown().await;
            }
        }
        Ok(())
    }

    async fn thawed(&mut self) {
        // An error means that the owner is gone: it is not frozen any more.
        let _thawed = self.frozen.wait_for(|frozen| !frozen).await;
    }

    /// `None` at the end of the connection.
    async fn read_request(&mut self) -> io::Result<Option<Request>> {
        loop {
            self.thawed().await;
            if let Some((request, used)) = parse(&self.buffer)? {
                self.buffer.drain(..used);
                return Ok(Some(request));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Whether the connection can be used again.
    async fn write_reply(
        &mut self,
        reply: Reply,
        close: bool,
        is_head: bool,
        date: &str,
    ) -> io::Result<bool> {
        let head = reply.head(close, date);
        match reply.body {
            Body::Hangup => Ok(false),
            Body::Stream(chunks) => {
                self.stream.write_all(head.as_bytes()).await?;
                self.write_stream(chunks, reply.delivery).await
            }
            Body::Sized(length, chunks) => {
                self.stream.write_all(head.as_bytes()).await?;
                self.write_sized(length, chunks).await
            }
            Body::Bytes(_) if is_head => {
                self.stream.write_all(head.as_bytes()).await?;
                Ok(true)
            }
            Body::Bytes(body) => self.write_bytes(head, &body, reply.delivery).await,
        }
    }

    async fn write_bytes(
        &mut self,
        head: String,
        body: &[u8],
        delivery: Delivery,
    ) -> io::Result<bool> {
        let mut bytes = head.into_bytes();
        match delivery {
            Delivery::Whole => {
                bytes.extend_from_slice(body);
                self.stream.write_all(&bytes).await?;
                Ok(true)
            }
            Delivery::CutShort => {
                bytes.extend_from_slice(&body[..body.len() / 2]);
                self.stream.write_all(&bytes).await?;
                Ok(false)
            }
            Delivery::Drip(every) => {
                bytes.extend_from_slice(body);
                for byte in bytes {
                    self.thawed().await;
                    self.stream.write_all(&[byte]).await?;
                    tokio::time::sleep(every).await;
                }
                Ok(true)
            }
        }
    }

    async fn write_sized(
        &mut self,
        length: u64,
        mut chunks: BoxStream<'static, Vec<u8>>,
    ) -> io::Result<bool> {
        let mut left = length;
        while left > 0 {
            let Some(chunk) = chunks.next().await else { return Ok(false) };
            let count = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.stream.write_all(&chunk[..count]).await?;
            left -= count as u64;
        }
        Ok(true)
    }

    async fn write_stream(
        &mut self,
        mut chunks: BoxStream<'static, Vec<u8>>,
        delivery: Delivery,
    ) -> io::Result<bool> {
        for number in 0_u64.. {
            let chunk = tokio::select! {
                chunk = chunks.next() => chunk,
                gone = read_more(&mut self.stream, &mut self.buffer) => return gone.map(|()| false),
            };
            self.thawed().await;
            let Some(chunk) = chunk else {
                self.stream.write_all(b"0\r\n\r\n").await?;
                return Ok(true);
            };
            match delivery {
                Delivery::CutShort if number == 1 => {
                    let whole = chunked(&chunk);
                    self.stream.write_all(&whole[..whole.len() / 2]).await?;
                    return Ok(false);
                }
                Delivery::Drip(every) => {
                    for byte in chunk {
                        self.stream.write_all(&chunked(&[byte])).await?;
                        tokio::time::sleep(every).await;
                    }
                }
                Delivery::Whole | Delivery::CutShort => {
                    self.stream.write_all(&chunked(&chunk)).await?;
                }
            }
        }
        Ok(false)
    }
}

/// Bytes as one chunk.
fn chunked(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:X}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// Keeps what the client sends ahead; returns only when it is gone.
async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(());
        }
        if buffer.len() > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// A whole request from the front of `buffer` and its length; `None` while it is incomplete.
fn parse(buffer: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if buffer.len() > REQUEST_BYTES_MAX { Err(bad()) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&buffer[..end]).map_err(|_| bad())?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target)) = (first.next(), first.next()) else {
        return Err(bad());
    };
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut request = Request { method, target, headers, body: Vec::new() };
    let length = match request.header("content-length") {
        Some(length) => length.parse::<usize>().map_err(|_| bad())?,
        // Bodies in chunks are not understood, and no client of ours sends them.
        None if request.header("transfer-encoding").is_some() => return Err(bad()),
        None => 0,
    };
    if length > REQUEST_BYTES_MAX {
        return Err(bad());
    }
    let start = end + 4;
    let Some(body) = buffer.get(start..start + length) else {
        return Ok(None);
    };
    request.body = body.to_vec();
    Ok(Some((request, start + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_is_whole_and_waits_for_the_rest() {
        let bytes = b"POST /a/b?x=1%2F2&y HTTP/1.1\r\nContent-Length: 2\r\nA: b\r\n\r\nhiGET";
        for cut in 0..bytes.len() - 3 {
            assert!(parse(&bytes[..cut]).unwrap().is_none(), "{cut}");
        }
        let (request, used) = parse(bytes).unwrap().unwrap();
        assert_eq!(used, bytes.len() - 3);
        assert_eq!((request.method.as_str(), request.path()), ("POST", "/a/b"));
        assert_eq!(request.query("x").as_deref(), Some("1/2"));
        assert_eq!(request.query("y").as_deref(), Some(""));
        assert_eq!(request.query("z"), None);
        assert_eq!(request.body, b"hi");
        assert!(parse(b"nonsense\r\n\r\n").is_err());
    }
}
