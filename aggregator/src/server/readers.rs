//! The runtime of readers: no reader's work delays a close or an acknowledgement.
//!
//! Owns a second runtime, on which calls of readers are answered and the frames of their answers
//! are made. The first one is left to the connections themselves, to what probes send, and to the
//! ledger. Refuses to decide who may read: the gate has, before a call comes here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Frames of one answer that wait for its connection. When so many do, no further one is made.
const FRAMES_MAX: usize = 1;
/// By so much the threads of readers are less urgent than those that close and acknowledge, where
/// both want a processor.
const NICE: i32 = 5;
/// What stays on the first runtime: services of probes and administrators, and whether the process
/// is well.
const NOT_READING: [&str; 5] = [
    "/golem.uptime.v1.Collector/",
    "/golem.uptime.v1.Admin/",
    "/grpc.health.v1.Health/",
    "/healthz",
    "/readyz",
];

/// The runtime; its tasks end when it is dropped.
pub(super) struct Readers {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Readers {
    /// Starts it, with as many workers as there are processors.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .thread_name("reader")
            .on_thread_start(|| {
                // Of this thread alone, on Linux. Where it is refused, readers are as urgent.
                #[cfg(target_os = "linux")]
                rustix::process::nice(NICE).ok();
            })
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle })
    }

    /// Starts tasks on it.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting is not allowed where this is dropped, and readers lose nothing.
            runtime.shutdown_background();
        }
    }
}

type Made = Result<Frame<Bytes>, axum::Error>;
/// A frame, or the end of the body: without it the answer was cut short.
type FrameOrEnd = Option<Made>;

/// Answers a reader's call on the runtime of readers. What it does there ends when the connection
/// gives the call up.
pub(super) async fn answered_there(
    State(readers): State<Handle>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if NOT_READING.iter().any(|service| path.starts_with(service)) {
        return next.run(request).await;
    }
    let answering = AbortOnDropHandle::new(readers.spawn(next.run(request)));
    let response = match answering.await {
        Ok(response) => response,
        // As where it panics on the connection's own task: the call is cut.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    response.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        let size = body.size_hint();
        let (made, frames) = mpsc::channel(FRAMES_MAX);
        let making = AbortOnDropHandle::new(readers.spawn(make_frames(body, made)));
        Body::new(MadeElsewhere { frames, size, _making: making })
    })
}

async fn make_frames(mut body: Body, made: mpsc::Sender<FrameOrEnd>) {
    // A frame is made when there is room for it, so none is made for a reader who stopped.
    while let Ok(room) = made.reserve().await {
        let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let ended = next.is_none();
        room.send(next);
        if ended {
            break;
        }
    }
}

/// A body whose frames are made on the other runtime.
struct MadeElsewhere {
    frames: mpsc::Receiver<FrameOrEnd>,
    /// What the body said of itself before.
    size: http_body::SizeHint,
    _making: AbortOnDropHandle<()>,
}

impl HttpBody for MadeElsewhere {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Made>> {
        self.frames.poll_recv(context).map(|next| {
            // Never the end of a whole answer: what makes the frames broke down.
            next.unwrap_or_else(|| Some(Err(axum::Error::new("the answer was cut short"))))
        })
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.size
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::any;
    use futures_util::{StreamExt, stream};
    use tokio::sync::Notify;
    use tower::ServiceExt;

    use super::*;

    fn thread() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    async fn text(router: &Router, path: &str) -> String {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let bytes = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn readers_are_answered_elsewhere_and_probes_are_not() {
        let readers = Readers::start().unwrap();
        // Frames are made late, as those of a stream are.
        let frames = any(|| async {
            let began = thread();
            let frame = async move { Ok::<_, io::Error>(format!("{began} {}", thread())) };
            Body::from_stream(stream::once(frame))
        });
        let router = Router::new()
            .route("/golem.uptime.v1.UptimeQuery/GetNode", frames.clone())
            .route("/golem.uptime.v1.Collector/Submit", frames)
            .layer(from_fn_with_state(readers.handle().clone(), answered_there));
        let here = thread();
        let query = text(&router, "/golem.uptime.v1.UptimeQuery/GetNode").await;
        assert_eq!(query, "reader reader");
        let collector = text(&router, "/golem.uptime.v1.Collector/Submit").await;
        assert_eq!(collector, format!("{here} {here}"));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_down_is_no_whole_one() {
        let readers = Readers::start().unwrap();
        let breaking = any(|| async {
            let frames = stream::iter(0..2).map(|at| {
                assert!(at == 0, "it breaks down");
                Ok::<_, io::Error>("first")
            });
            Body::from_stream(frames)
        });
        let answered = from_fn_with_state(readers.handle().clone(), answered_there);
        let router = Router::new().route("/breaking", breaking).layer(answered);
        let request = Request::get("/breaking").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let cut = axum::body::to_bytes(response.into_body(), 1_000).await;
        assert!(cut.is_err(), "{cut:?}");
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_ends() {
        struct Ends(Arc<Notify>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let readers = Readers::start().unwrap();
        let (ended, started) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (end, start) = (Arc::clone(&ended), Arc::clone(&started));
        let endless = any(move || {
            let (ends, start) = (Ends(Arc::clone(&end)), Arc::clone(&start));
            async move {
                start.notify_one();
                std::future::pending::<()>().await;
                drop(ends);
            }
        });
        let end = Arc::clone(&ended);
        let streaming = any(move || {
            let ends = Ends(Arc::clone(&end));
            async move {
                let frames = stream::unfold(ends, |ends| async move {
                    std::future::pending::<()>().await;
                    Some((Ok::<_, io::Error>("never"), ends))
                });
                Body::from_stream(frames)
            }
        });
        let router = Router::new()
            .route("/endless", endless)
            .route("/streaming", streaming)
            .layer(from_fn_with_state(readers.handle().clone(), answered_there));
        let request = |path: &str| Request::get(path).body(Body::empty()).unwrap();
        let mut calls = tokio::task::JoinSet::new();
        let call = calls.spawn(router.clone().oneshot(request("/endless")));
        started.notified().await;
        call.abort();
        ended.notified().await;
        let response = router.oneshot(request("/streaming")).await.unwrap();
        drop(response);
        ended.notified().await;
    }
}
