//! An aggregator that answers as a test tells it to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use uptime_client::v1::uptime_query_server::{UptimeQuery, UptimeQueryServer};
use uptime_client::v1::{self, Freshness};
use uptime_proto::MESSAGE_BYTES_MAX;

type Pieces<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Handler<Q, A> = Box<dyn Fn(usize, Q) -> Result<A, Status> + Send + Sync>;

/// What it answers to each question: the number of the call, from 0, and the request come in.
pub(crate) struct Script {
    pub(crate) node: Handler<v1::GetNodeRequest, v1::Node>,
    pub(crate) nodes: Handler<v1::ListNodesRequest, v1::ListNodesResponse>,
    pub(crate) pieces: Vec<Result<v1::ExportCsvResponse, Status>>,
    pub(crate) freshness: Freshness,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            node: Box::new(|_, _| Err(Status::unimplemented("not in the script"))),
            nodes: Box::new(|_, _| Err(Status::unimplemented("not in the script"))),
            pieces: Vec::new(),
            freshness: fresh(),
        }
    }
}

/// Of an answer that is as fresh as can be.
pub(crate) fn fresh() -> Freshness {
    Freshness {
        last_closed_round_unix_s: 1_769_862_870,
        round_period_s: 30,
        answered_at_unix_ms: 1_769_862_907_000,
        method: "fresh-v1".into(),
        ..Freshness::default()
    }
}

struct Service {
    script: Script,
    calls: Arc<AtomicUsize>,
}

/// A running one.
pub(crate) struct Contrary {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    // Ends with this.
    _running: JoinSet<()>,
}

impl Contrary {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let service = Service { script, calls: Arc::clone(&calls) };
        let service = UptimeQueryServer::new(service).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let serving = Server::builder().add_service(service);
        let mut running = JoinSet::new();
        running.spawn(async move {
            serving.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, calls, _running: running }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many questions came.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Service {
    fn call(&self) -> usize {
        self.calls.fetch_add(1, Ordering::SeqCst)
    }

    fn not_served<T>(&self) -> Result<T, Status> {
        self.call();
        Err(Status::unimplemented("not in the script"))
    }
}

#[tonic::async_trait]
impl UptimeQuery for Service {
    type WatchNodesStream = Pieces<v1::WatchNodesResponse>;
    type ExportCsvStream = Pieces<v1::ExportCsvResponse>;

    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let node = Some((self.script.node)(self.call(), request.into_inner())?);
        let freshness = Some(self.script.freshness.clone());
        Ok(Response::new(v1::GetNodeResponse { node, freshness }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let page = (self.script.nodes)(self.call(), request.into_inner())?;
        let freshness = Some(self.script.freshness.clone());
        Ok(Response::new(v1::ListNodesResponse { freshness, ..page }))
    }

    async fn export_csv(
        &self,
        _request: Request<v1::ExportCsvRequest>,
    ) -> Result<Response<Self::ExportCsvStream>, Status> {
        self.call();
        let pieces = tokio_stream::iter(self.script.pieces.clone());
        Ok(Response::new(Box::pin(pieces)))
    }

    /// Never answers.
    async fn list_rounds(
        &self,
        _request: Request<v1::ListRoundsRequest>,
    ) -> Result<Response<v1::ListRoundsResponse>, Status> {
        self.call();
        std::future::pending().await
    }

    async fn list_probes(
        &self,
        _request: Request<v1::ListProbesRequest>,
    ) -> Result<Response<v1::ListProbesResponse>, Status> {
        self.not_served()
    }

    async fn get_uptime(
        &self,
        _request: Request<v1::GetUptimeRequest>,
    ) -> Result<Response<v1::GetUptimeResponse>, Status> {
        self.not_served()
    }

    async fn list_outages(
        &self,
        _request: Request<v1::ListOutagesRequest>,
    ) -> Result<Response<v1::ListOutagesResponse>, Status> {
        self.not_served()
    }

    async fn explain(
        &self,
        _request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        self.not_served()
    }

    async fn watch_nodes(
        &self,
        _request: Request<v1::WatchNodesRequest>,
    ) -> Result<Response<Self::WatchNodesStream>, Status> {
        self.not_served()
    }

    async fn get_summary(
        &self,
        _request: Request<v1::GetSummaryRequest>,
    ) -> Result<Response<v1::GetSummaryResponse>, Status> {
        self.not_served()
    }
}
