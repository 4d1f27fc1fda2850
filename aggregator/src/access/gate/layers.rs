//! The gate as a layer of the two routers: what each call asks for, what a refusal looks like, and
//! watching an answer until its last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::{Admitted, CallContext, Gate, OpenCall};
use crate::access::peer::Peer;
use crate::access::roles::{Credentials, Permission, Refusal};
use crate::access::tokens::token_in;

/// The same whatever was wrong: nobody learns from it what to try next.
const PROVE_YOURSELF: &str = "give a valid token as 'authorization: Bearer TOKEN', or a valid \
     client certificate (the aggregator's operator makes them: uptime-aggregator probe add NAME, \
     or access add-reader NAME)";
const NOT_FOR_YOU: &str = "this identity may not make this call";
const NO_MORE: &str = "this identity may make this call no more";

/// What a gRPC call asks for.
fn grpc_need(path: &str) -> Permission {
    match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some(("golem.uptime.v1.Collector", "Join")) => Permission::Ticket,
        Some(("golem.uptime.v1.Collector", _)) => Permission::Probe,
        Some(("golem.uptime.v1.Admin", _)) => Permission::Admin,
        // Load balancers ask it, and learn nothing but that the process lives.
        Some(("grpc.health.v1.Health", _)) => Permission::Nothing,
        _ => Permission::Read,
    }
}

/// What an HTTP request asks for.
fn http_need(path: &str) -> Permission {
    match path {
        "/healthz" | "/readyz" => Permission::Nothing,
        _ => Permission::Read,
    }
}

enum Stopped {
    Refused(Refusal),
    TooSlow,
}

/// The gate for gRPC, as a layer of a router.
pub async fn grpc_gate(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let permission = grpc_need(request.uri().path());
    let status = match context(&gate, permission, request, next, Wire::Grpc).await {
        Ok(response) => return response,
        Err(Stopped::Refused(Refusal::Role)) => Status::permission_denied(NOT_FOR_YOU),
        Err(Stopped::Refused(_)) => Status::unauthenticated(PROVE_YOURSELF),
        Err(Stopped::TooSlow) => {
            Status::deadline_exceeded(format!("it took longer than {:?}", gate.inner.call_within))
        }
    };
    status.into_http()
}

/// The gate for HTTP, as a layer of a router.
pub async fn http_gate(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let permission = http_need(request.uri().path());
    match context(&gate, permission, request, next, Wire::Http).await {
        Ok(response) => response,
        Err(Stopped::Refused(Refusal::Role)) => {
            (StatusCode::FORBIDDEN, format!("{NOT_FOR_YOU}\n")).into_response()
        }
        Err(Stopped::Refused(_)) => {
            // Browsers ask for a password, which is the token; the name with it says nothing.
            let how = [(header::WWW_AUTHENTICATE, "Basic realm=\"golem-uptime\"")];
            (StatusCode::UNAUTHORIZED, how, format!("{PROVE_YOURSELF}\n")).into_response()
        }
        Err(Stopped::TooSlow) => (StatusCode::GATEWAY_TIMEOUT, "too slow\n").into_response(),
    }
}

#[derive(Debug, Clone, Copy)]
enum Wire {
    Grpc,
    Http,
}

async fn context(
    gate: &Gate,
    permission: Permission,
    mut request: Request,
    next: Next,
    wire: Wire,
) -> Result<Response, Stopped> {
    // The listener puts it there; without it nobody is let in.
    let peer = request.extensions().get::<Arc<Peer>>().cloned();
    let peer = peer.ok_or(Stopped::Refused(Refusal::NoProof))?;
    let credentials = token_in(request.headers())
        .map(|token| Credentials { token, certificate: peer.certificate.clone() });
    let Admitted { identity, ticket } = match gate.admit(permission, &credentials).await {
        Ok(admitted) => admitted,
        Err(refused) => {
            gate.refused(&refused, &peer, request.uri().path());
            return Err(Stopped::Refused(refused.refusal));
        }
    };
    // Nobody behind the gate has business with it.
    request.headers_mut().remove(header::AUTHORIZATION);
    let context = CallContext { identity, ticket, peer, ended: CancellationToken::new() };
    let open = gate.enter(permission, credentials.unwrap_or_default(), &context);
    let ended = context.ended.clone();
    request.extensions_mut().insert(context);
    let answered = next.run(request);
    let response = match permission {
        // What an admin hands in may be large; whoever has that role can do worse than be slow.
        Permission::Admin => answered.await,
        _ => match tokio::time::timeout(gate.inner.call_within, answered).await {
            Ok(response) => response,
            Err(_) => return Err(Stopped::TooSlow),
        },
    };
    // A probe's stream is ended by whoever serves it, with a word to the probe.
    let ended = match permission {
        Permission::Probe => CancellationToken::new(),
        _ => ended,
    };
    let ended = Box::pin(ended.cancelled_owned());
    Ok(response.map(|body| Body::new(Watched { body, wire, ended, open: Some(open) })))
}

/// An answer on its way: an open call until its last byte is taken, and cut when its time is over.
struct Watched {
    body: Body,
    wire: Wire,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Gone when the answer is over.
    open: Option<OpenCall>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.open.is_none() {
            return Poll::Ready(None);
        }
        if self.ended.as_mut().poll(context).is_ready() {
            self.open = None;
            return Poll::Ready(Some(match self.wire {
                Wire::Grpc => Ok(Frame::trailers(no_more())),
                // HTTP/1 has no other way to say that this is not the whole answer.
                Wire::Http => Err(axum::Error::new(Status::unauthenticated(NO_MORE))),
            }));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = &polled {
            self.open = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn no_more() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Plain text always goes into a header.
    Status::unauthenticated(NO_MORE).add_header(&mut trailers).ok();
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_asks_for_a_reader() {
        for (path, permission) in [
            ("/golem.uptime.v1.Collector/Connect", Permission::Probe),
            ("/golem.uptime.v1.Collector/Submit", Permission::Probe),
            ("/golem.uptime.v1.Collector/Join", Permission::Ticket),
            ("/golem.uptime.v1.Collector/Other", Permission::Probe),
            ("/golem.uptime.v1.UptimeQuery/GetNode", Permission::Read),
            ("/golem.uptime.v1.Admin/ListAudit", Permission::Admin),
            ("/grpc.health.v1.Health/Check", Permission::Nothing),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Permission::Read),
            ("/golem.uptime.v1.Later/Call", Permission::Read),
            ("//golem.uptime.v1.Admin/ListAudit", Permission::Read),
            ("", Permission::Read),
        ] {
            assert_eq!(grpc_need(path), permission, "{path}");
        }
        for (path, permission) in [
            ("/", Permission::Read),
            ("/metrics", Permission::Read),
            ("/healthz", Permission::Nothing),
            ("/readyz", Permission::Nothing),
            ("/healthz/", Permission::Read),
        ] {
            assert_eq!(http_need(path), permission, "{path}");
        }
    }
}
