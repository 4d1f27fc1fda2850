//! One port: accepting, the handshake, and each connection until its end.
//!
//! Owns what a connection may take before anyone has proved to be someone, and when one that does
//! nothing is over. Refuses to know what is served: a router behind the gate comes in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use metrics::counter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::access::audit::Auditor;
use crate::access::limits::{
    ACCEPT_PAUSE, ACCEPTED_AT_ONCE, BACKLOG, ERROR_STREAMS_MAX, FRAME_BYTES_MAX,
    HEADER_LIST_BYTES_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX, Limits, RESET_STREAMS_MAX,
    SEND_BUFFER_BYTES_MAX, STREAMS_PER_CONNECTION_MAX, Slot, Slots,
};
use crate::access::{Peer, Refusal, Tls, Usage, handshake_refusal, peer_certificate};

/// After an error of the system's own, as too many open files: time for others to end.
const AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(100);
/// The first byte of every TLS connection: a handshake record.
const TLS_FIRST_BYTE: u8 = 22;

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// HTTP/2 only.
    Grpc,
    /// HTTP/1.1 only.
    Http,
}

impl Wire {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// A bound port.
pub(super) struct Listener {
    pub(super) tcp: TcpListener,
    pub(super) port: Port,
}

/// What all connections of one port share.
#[derive(Clone)]
pub(super) struct Port {
    pub(super) wire: Wire,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) slots: Slots,
    pub(super) limits: Limits,
    pub(super) auditor: Auditor,
}

/// Binds a port.
///
/// # Errors
/// What the system says.
pub(super) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As after a restart the connections of before still linger.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

impl Listener {
    /// Accepts and serves until told to stop; then waits for open calls to end.
    pub(super) async fn run(self, router: Router, shutdown: CancellationToken) -> io::Result<()> {
        let Self { tcp, port } = self;
        let builder = port.builder();
        let mut connections = JoinSet::new();
        let mut at_once = 0;
        loop {
            if at_once == ACCEPTED_AT_ONCE {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                at_once = 0;
            }
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = tcp.accept() => accepted,
            };
            at_once += 1;
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !of_the_peer(&error) {
                        tracing::error!(%error, port = port.wire.as_str(), "cannot accept");
                        tokio::time::sleep(AFTER_ACCEPT_ERROR).await;
                    }
                    continue;
                }
            };
            match port.slots.take(address.ip()) {
                Ok(slot) => {
                    let (port, builder) = (port.clone(), builder.clone());
                    let (router, shutdown) = (router.clone(), shutdown.clone());
                    connections.spawn(async move {
                        let how =
                            port.connection(stream, address, slot, &builder, router, shutdown);
                        let (label, reason) = (port.wire.as_str(), how.await);
                        counter!("uptime_access_connections_ended_total",
                            "port" => label, "reason" => reason)
                        .increment(1);
                    });
                }
                Err(refusal) => {
                    port.auditor.refused(refusal, address.ip(), None, port.wire.as_str());
                }
            }
        }
        // Whoever connects from now on is told at once that nobody is there.
        drop(tcp);
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

impl Port {
    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.limits.keepalive)
            .keep_alive_timeout(self.limits.keepalive)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .max_local_error_reset_streams(ERROR_STREAMS_MAX);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.handshake_within)
            .max_headers(HTTP_HEADERS_MAX)
            .max_buf_size(HTTP_HEAD_BYTES_MAX);
        match self.wire {
            Wire::Grpc => builder.http2_only(),
            Wire::Http => builder.http1_only(),
        }
    }

    /// One connection from its first byte; answers why it ended.
    async fn connection(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        slot: Slot,
        builder: &Builder<TokioExecutor>,
        router: Router,
        shutdown: CancellationToken,
    ) -> &'static str {
        // It only makes answers slower where it cannot be set.
        stream.set_nodelay(true).ok();
        let Some(tls) = &self.tls else {
            return self
                .talk(stream, Peer::new(address, None), &slot, builder, router, shutdown)
                .await;
        };
        let config = match self.wire {
            Wire::Grpc => tls.grpc(),
            Wire::Http => tls.http(),
        };
        let shaken = shake_hands(stream, TlsAcceptor::from(config));
        let shaken = tokio::select! {
            shaken = timeout(self.limits.handshake_within, shaken) => shaken,
            () = slot.pushed_out.cancelled() => return "pushed-out",
            () = shutdown.cancelled() => return "stopping",
        };
        match shaken.unwrap_or(Err(Refusal::SlowHandshake)) {
            Ok(stream) => {
                let peer = Peer::new(address, peer_certificate(stream.get_ref().1));
                self.talk(stream, peer, &slot, builder, router, shutdown).await
            }
            Err(refusal) => {
                self.auditor.refused(refusal, address.ip(), None, self.wire.as_str());
                refusal.as_str()
            }
        }
    }

    /// HTTP over a connection; answers why it ended.
    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        peer: Peer,
        slot: &Slot,
        builder: &Builder<TokioExecutor>,
        router: Router,
        shutdown: CancellationToken,
    ) -> &'static str {
        let peer = Arc::new(peer);
        let (routes, of) = (TowerToHyperService::new(router), Arc::clone(&peer));
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&of));
            routes.call(request.map(Body::new))
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let outstayed = outstayed(peer.usage.subscribe(), slot, self.wire, &self.limits);
        tokio::pin!(outstayed);
        let mut stopping = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => return how_it_ended(ended),
                reason = &mut outstayed => return reason,
                () = slot.pushed_out.cancelled() => return "pushed-out",
                () = peer.cut.cancelled() => return "cut",
                () = shutdown.cancelled(), if !stopping => {
                    let usage = *peer.usage.borrow();
                    if !usage.settled && usage.open == 0 {
                        // Nobody has said anything that would have to be answered.
                        return "stopping";
                    }
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: TlsAcceptor,
) -> Result<TlsStream<TcpStream>, Refusal> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first == [TLS_FIRST_BYTE] => {}
        Ok(1) => return Err(Refusal::Plaintext),
        _ => return Err(Refusal::Handshake),
    }
    acceptor.accept(stream).await.map_err(|error| handshake_refusal(&error))
}

/// Ends when the connection has done nothing for too long; answers what it did not do.
async fn outstayed(
    mut usage: watch::Receiver<Usage>,
    slot: &Slot,
    wire: Wire,
    limits: &Limits,
) -> &'static str {
    let idle_max = match wire {
        Wire::Grpc => limits.grpc_idle_max,
        Wire::Http => limits.http_idle_max,
    };
    // Those who watch the health of this process have a call open and never settle. They are let
    // be, and are the first to go when places are wanted.
    let settled =
        timeout(limits.first_call_within, usage.wait_for(|usage| usage.settled)).await.is_ok();
    if !settled {
        let now = usage.wait_for(|usage| usage.settled || usage.open == 0).await;
        if !now.is_ok_and(|usage| usage.settled) {
            return "no-first-call";
        }
    }
    slot.settle();
    loop {
        let begun = usage.borrow().begun;
        let over = usage.wait_for(|usage| usage.open == 0 || usage.begun != begun);
        match wire {
            Wire::Grpc => drop(over.await),
            Wire::Http => match timeout(limits.http_answer_within, over).await {
                Ok(over) => drop(over),
                Err(_) => return "slow-answer",
            },
        }
        let more = usage.wait_for(|usage| usage.open > 0 || usage.begun != begun);
        if timeout(idle_max, more).await.is_err() {
            return "idle";
        }
    }
}

/// Errors that one peer causes, and that say nothing of the next.
fn of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
    )
}

fn how_it_ended(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) -> &'static str {
    let Err(error) = ended else {
        return "closed";
    };
    tracing::debug!(error = ?error, "a connection ended");
    match error.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_timeout() => "silent",
        Some(error) if error.is_incomplete_message() || error.is_canceled() => "gone",
        Some(error) if error.is_closed() || error.is_body_write_aborted() => "gone",
        Some(_) => "protocol",
        None => "gone",
    }
}
