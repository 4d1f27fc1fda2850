//! Those who answer what cannot be understood.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use uptime_client::{Client, Error, v1};

use crate::help::run;
use crate::id;

/// Speaks gRPC, but its messages are not what was asked for: of each, the first field is a text.
#[derive(Clone)]
struct Babbler;

impl NamedService for Babbler {
    const NAME: &'static str = "golem.uptime.v1.UptimeQuery";
}

/// The text it says.
#[derive(Clone)]
struct Babble;

impl UnaryService<v1::ExportCsvRequest> for Babble {
    type Response = String;
    type Future = Ready<Result<Response<String>, Status>>;

    fn call(&mut self, _: Request<v1::ExportCsvRequest>) -> Self::Future {
        ready(Ok(Response::new("\u{7f}\u{7f}\u{7f} no message".to_owned())))
    }
}

impl Service<http::Request<Body>> for Babbler {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<String, v1::ExportCsvRequest>::default());
            Ok(grpc.unary(Babble, request).await)
        })
    }
}

async fn babbler() -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut running = JoinSet::new();
    running.spawn(async move {
        let serving = tonic::transport::Server::builder().add_service(Babbler);
        serving.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    (url, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_told_as_such() {
    let (url, _running) = babbler().await;
    let client = Client::connect(&url).await.unwrap();
    let failure = client.node(&id(1)).await.unwrap_err();
    assert!(matches!(failure, Error::Malformed { .. }), "{failure:?}");
    let failure = client.explain(&id(1), None).await.unwrap_err();
    let wanted = "a malformed answer: it does not say how fresh it is";
    assert!(failure.to_string().contains(wanted), "{failure}");
    let failure = client.summary().await.unwrap_err();
    assert!(matches!(failure, Error::Malformed { .. }), "{failure:?}");
    let mut watch = client.watch(v1::NodeFilter::default(), Vec::new());
    let failure = watch.next().await.unwrap().unwrap_err();
    assert!(matches!(failure, Error::Malformed { .. }), "{failure:?}");
    assert!(watch.next().await.is_none());
    let node = id(1).to_string();
    for arguments in [
        &["summary"][..],
        &["nodes"],
        &["node", &node],
        &["node", &node, "--exit-status"],
        &["explain", &node],
        &["uptime"],
        &["outages", &node],
        &["watch"],
        &["probes"],
        &["rounds"],
        &["csv"],
    ] {
        let ran = run(&[arguments, &["--address", &url]].concat()).await;
        assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains("malformed answer"), "{arguments:?}: {}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_grpc_is_told_as_such() {
    for said in [&b"220 mail.example ESMTP\r\n"[..], &[0xff; 64], b"HTTP/1.1 200 OK\r\n\r\n", b""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut running = JoinSet::new();
        running.spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                near.write_all(said).await.ok();
            }
        });
        let ran = run(&["probes", "--address", &url]).await;
        assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{said:?}: {}", ran.err);
        assert!(ran.err.starts_with("uptimectl: "), "{said:?}: {}", ran.err);
        let clean = |letter: char| !letter.is_control() || letter == '\n';
        assert!(ran.err.chars().all(clean), "{said:?}: {:?}", ran.err);
    }
}
