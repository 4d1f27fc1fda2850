//! Faults that a test or a demonstration injects into a fake server's answers.
//!
//! Owns the list of faults and how each damages a correct answer. Unless a fault says otherwise,
//! the daemon carries out the request (makes a demand, delivers an event): a lost answer to a
//! request that succeeded is the hard case.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use super::http::{Body, Delivery, Reply, Request};

/// A fault on the routes that begin with a prefix.
#[derive(Clone, Debug)]
pub struct Fault {
    /// A path as in `/market-api/v1/scan`, or a method and a path as in `GET /market-api/v1/scan`.
    pub route_prefix: String,
    /// What goes wrong.
    pub kind: FaultKind,
}

impl Fault {
    /// A fault of this kind on the routes that begin with `route_prefix`.
    #[must_use]
    pub fn new(route_prefix: &str, kind: FaultKind) -> Fault {
        Fault { route_prefix: route_prefix.to_owned(), kind }
    }

    pub(crate) fn concerns(&self, method: &str, target: &str) -> bool {
        match self.route_prefix.split_once(' ') {
            Some((only, prefix)) => only == method && target.starts_with(prefix),
            None => target.starts_with(&self.route_prefix),
        }
    }
}

/// What goes wrong with an answer.
#[derive(Clone, Debug)]
pub enum FaultKind {
    /// This status with this body; the request is not carried out.
    Status(u16, String),
    /// The correct answer with a byte that makes it invalid JSON; in a stream, in every event.
    MalformedJson,
    /// Half of the correct answer, with a matching length: valid HTTP, half a document. A
    /// stream ends after its first event.
    TruncatedJson,
    /// The connection ends without a byte; the request was carried out.
    CloseWithoutByte,
    /// The head and half of the body, then the connection ends; in a stream, half way through
    /// its second event.
    CutShort,
    /// The correct answer, one byte per interval.
    SlowDrip(Duration),
    /// An answer that streams white space for ever, or an event without end if the client asked for
    /// events; the request is not carried out.
    Endless,
    /// The correct answer, later by this time.
    Latency(Duration),
    /// The correct answer, padded with white space to this number of bytes.
    Padded(usize),
    /// An answer that streams white space for ever, as fast as it is taken.
    Flood,
    /// An answer with this length, all white space, as fast as it is taken.
    Huge(u64),
}

impl FaultKind {
    /// An answer that does not need the request to be carried out.
    pub(crate) fn instead(&self, request: &Request) -> Option<Reply> {
        match self {
            FaultKind::Status(status, body) => Some(Reply::text(*status, body.as_str())),
            FaultKind::Endless => Some(endless(request)),
            FaultKind::Flood => {
                Some(Reply { body: Body::Stream(white_space()), ..Reply::json(200, "") })
            }
            FaultKind::Huge(bytes) => {
                Some(Reply { body: Body::Sized(*bytes, white_space()), ..Reply::json(200, "") })
            }
            _ => None,
        }
    }

    /// Damages a correct answer.
    pub(crate) async fn damage(&self, mut reply: Reply) -> Reply {
        match (self, &mut reply.body) {
            (FaultKind::Latency(extra), _) => tokio::time::sleep(*extra).await,
            (FaultKind::CloseWithoutByte, _) => return Reply::hangup(),
            (FaultKind::CutShort, _) => reply.delivery = Delivery::CutShort,
            (FaultKind::SlowDrip(every), _) => reply.delivery = Delivery::Drip(*every),
            (FaultKind::MalformedJson, Body::Bytes(body)) => {
                body.insert(body.len() / 2, b'\x01');
                body.insert(0, b'}');
            }
            (FaultKind::MalformedJson, Body::Stream(events)) => {
                let true_ones = std::mem::replace(events, stream::empty().boxed());
                let damaged = true_ones.map(|mut event| {
                    event.insert(event.len() / 2, b'\x01');
                    event
                });
                *events = damaged.boxed();
            }
            (FaultKind::TruncatedJson, Body::Stream(events)) => {
                let true_ones = std::mem::replace(events, stream::empty().boxed());
                *events = true_ones.take(1).boxed();
            }
            (FaultKind::TruncatedJson, Body::Bytes(body)) => body.truncate(body.len() / 2),
            (FaultKind::Padded(bytes), Body::Bytes(body)) => {
                body.resize(body.len().max(*bytes), b' ');
            }
            _ => {}
        }
        reply
    }
}

fn white_space() -> stream::BoxStream<'static, Vec<u8>> {
    stream::repeat_with(|| vec![b' '; 64 * 1024]).boxed()
}

fn endless(request: &Request) -> Reply {
    // Fast enough to fill a careless client, slow enough not to load the machine.
    let pause = Duration::from_millis(1);
    let chunks = stream::repeat(()).then(move |()| async move {
        tokio::time::sleep(pause).await;
        vec![b' '; 4096]
    });
    let mut reply = Reply::json(200, "");
    reply.body = Body::Stream(chunks.boxed());
    if request.wants_events() {
        reply.headers = vec![("content-type", "text/event-stream".to_owned())];
    }
    reply
}
