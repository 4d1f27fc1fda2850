//! HTTP/2 spoken by hand, right and wrong: frames as bytes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;

/// How long anything may take here before it counts as not happening.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field that is not to be indexed, name and value as they are.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // Lengths below 127 take one byte, larger ones 127 and the rest in sevens.
        let mut rest = text.len();
        if rest < 127 {
            bytes.push(u8::try_from(rest).unwrap());
        } else {
            bytes.push(127);
            rest -= 127;
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128 + 128).unwrap());
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).unwrap());
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The headers of a gRPC call.
pub(crate) fn call(path: &str, token: Option<&str>) -> Vec<u8> {
    let mut block = Vec::new();
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in fields {
        block.extend(field(name, value));
    }
    if let Some(token) = token {
        block.extend(field("authorization", &format!("Bearer {token}")));
    }
    block
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM, or of a GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let from = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[from..from + 4].try_into().unwrap())
    }
}

pub(crate) struct Raw {
    stream: TcpStream,
    /// Answers to pings; a peer that gives none is taken for dead.
    pub(crate) answers_pings: bool,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut raw = Self { stream, answers_pings: true };
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        raw.send(&frame(SETTINGS, 0, 0, &[])).await;
        raw
    }

    /// Sends what the other end still takes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.ok();
    }

    /// The next frame that is no housekeeping; `None`: the connection is over.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let read = async {
            loop {
                let mut head = [0; 9];
                self.stream.read_exact(&mut head).await.ok()?;
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; length as usize];
                self.stream.read_exact(&mut payload).await.ok()?;
                let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
                let (kind, acknowledges) = (head[3], head[4] & ACK != 0);
                match kind {
                    SETTINGS if !acknowledges => {
                        self.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await.ok();
                    }
                    PING if !acknowledges && self.answers_pings => {
                        self.stream.write_all(&frame(PING, ACK, 0, &payload)).await.ok();
                    }
                    SETTINGS | PING | 8 => {}
                    _ => return Some(Frame { kind, stream, payload }),
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("a frame or the end, in time")
    }

    /// Reads until the connection is over; answers the reason that was given.
    pub(crate) async fn end(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                reason = Some(frame.code());
            }
        }
        reason
    }
}
