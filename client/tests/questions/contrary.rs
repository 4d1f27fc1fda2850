//! An aggregator that answers as a test tells it to.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use uptime_client::v1::uptime_query_server::{UptimeQuery, UptimeQueryServer};
use uptime_client::v1::{self, Freshness};
use uptime_proto::MESSAGE_BYTES_MAX;

/// A stream of answers.
pub(crate) type Pieces<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
/// The answer to a question: the number of the call, from 0, and the request come in.
type Handler<Q, A> = Box<dyn Fn(usize, Q) -> Result<A, Status> + Send + Sync>;

/// What it answers to each question. Where an answer has a place for freshness, the script's goes
/// there.
pub(crate) struct Script {
    pub(crate) node: Handler<v1::GetNodeRequest, v1::Node>,
    pub(crate) nodes: Handler<v1::ListNodesRequest, v1::ListNodesResponse>,
    pub(crate) uptime: Handler<v1::GetUptimeRequest, v1::GetUptimeResponse>,
    pub(crate) outages: Handler<v1::ListOutagesRequest, v1::ListOutagesResponse>,
    pub(crate) explain: Handler<v1::ExplainRequest, v1::ExplainResponse>,
    pub(crate) summary: Handler<v1::GetSummaryRequest, v1::GetSummaryResponse>,
    pub(crate) rounds: Handler<v1::ListRoundsRequest, v1::ListRoundsResponse>,
    pub(crate) probes: Handler<v1::ListProbesRequest, v1::ListProbesResponse>,
    pub(crate) csv: Handler<v1::ExportCsvRequest, Pieces<v1::ExportCsvResponse>>,
    pub(crate) watch: Handler<v1::WatchNodesRequest, Pieces<v1::WatchNodesResponse>>,
    pub(crate) freshness: Option<Freshness>,
    /// The value of `authorization` that every request must carry.
    pub(crate) authorization: Option<&'static str>,
}

/// A handler that has nothing to say.
fn silent<Q, A>() -> Handler<Q, A> {
    Box::new(|_, _| Err(Status::unimplemented("not in the script")))
}

impl Default for Script {
    fn default() -> Self {
        Self {
            node: silent(),
            nodes: silent(),
            uptime: silent(),
            outages: silent(),
            explain: silent(),
            summary: silent(),
            // Asked by the way, for how late it is there.
            rounds: Box::new(|_, _| Ok(v1::ListRoundsResponse::default())),
            probes: silent(),
            csv: silent(),
            watch: silent(),
            freshness: Some(fresh()),
            authorization: None,
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

/// Just these answers, and then the end.
pub(crate) fn only<T: Send + 'static>(answers: Vec<Result<T, Status>>) -> Pieces<T> {
    Box::pin(tokio_stream::iter(answers))
}

/// Just these answers, and then silence.
pub(crate) fn then_silence<T: Send + 'static>(answers: Vec<T>) -> Pieces<T> {
    let answers = answers.into_iter().map(Ok);
    let stream = tokio_stream::iter(answers);
    Box::pin(tokio_stream::StreamExt::chain(stream, tokio_stream::pending()))
}

struct Service {
    script: Script,
    calls: Arc<AtomicUsize>,
}

/// A running one.
pub(crate) struct Contrary {
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicUsize>,
    // Ends with this.
    _running: JoinSet<()>,
}

impl Contrary {
    pub(crate) async fn start(script: Script) -> Self {
        Self::start_with(script, None).await
    }

    /// Over TLS.
    pub(crate) async fn start_with(script: Script, tls: Option<ServerTlsConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let service = Service { script, calls: Arc::clone(&calls) };
        let service = UptimeQueryServer::new(service).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let serving = server.add_service(service);
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
    /// Lets a request in and numbers it. One that is answered at once has to say how long its
    /// asker waits; for a stream that would be the time of the whole of it.
    fn admit<Q>(&self, request: Request<Q>, streams: bool) -> Result<(usize, Q), Status> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        assert_ne!(request.metadata().contains_key("grpc-timeout"), streams);
        let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if self.script.authorization.is_some_and(|wanted| shown != Some(wanted)) {
            return Err(Status::unauthenticated("a token is wanted"));
        }
        Ok((call, request.into_inner()))
    }

    fn put<Q, A>(&self, handler: &Handler<Q, A>, request: Request<Q>) -> Result<A, Status> {
        let (call, request) = self.admit(request, false)?;
        handler(call, request)
    }

    fn stream<Q, A>(&self, handler: &Handler<Q, A>, request: Request<Q>) -> Result<A, Status> {
        let (call, request) = self.admit(request, true)?;
        handler(call, request)
    }

    fn freshness(&self) -> Option<Freshness> {
        self.script.freshness.clone()
    }
}

macro_rules! unary {
    ($($method:ident by $field:ident: $request:ident => $reply:ident;)+) => {
        #[tonic::async_trait]
        impl UptimeQuery for Service {
            type WatchNodesStream = Pieces<v1::WatchNodesResponse>;
            type ExportCsvStream = Pieces<v1::ExportCsvResponse>;

            async fn get_node(
                &self,
                request: Request<v1::GetNodeRequest>,
            ) -> Result<Response<v1::GetNodeResponse>, Status> {
                let node = Some(self.put(&self.script.node, request)?);
                let freshness = self.freshness();
                Ok(Response::new(v1::GetNodeResponse { node, freshness, round_unix_s: 0 }))
            }

            async fn export_csv(
                &self,
                request: Request<v1::ExportCsvRequest>,
            ) -> Result<Response<Self::ExportCsvStream>, Status> {
                self.stream(&self.script.csv, request).map(Response::new)
            }

            async fn watch_nodes(
                &self,
                request: Request<v1::WatchNodesRequest>,
            ) -> Result<Response<Self::WatchNodesStream>, Status> {
                self.stream(&self.script.watch, request).map(Response::new)
            }

            $(async fn $method(
                &self,
                request: Request<v1::$request>,
            ) -> Result<Response<v1::$reply>, Status> {
                let reply = self.put(&self.script.$field, request)?;
                Ok(Response::new(v1::$reply { freshness: self.freshness(), ..reply }))
            })+
        }
    };
}

unary! {
    list_nodes by nodes: ListNodesRequest => ListNodesResponse;
    get_uptime by uptime: GetUptimeRequest => GetUptimeResponse;
    list_outages by outages: ListOutagesRequest => ListOutagesResponse;
    explain by explain: ExplainRequest => ExplainResponse;
    get_summary by summary: GetSummaryRequest => GetSummaryResponse;
    list_rounds by rounds: ListRoundsRequest => ListRoundsResponse;
    list_probes by probes: ListProbesRequest => ListProbesResponse;
}
