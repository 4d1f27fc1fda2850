//! Reports in: identify the probe, check, hand over, answer once durable.
//!
//! Owns the Collector service and the live streams of probes. `intake` checks reports; the ledger
//! decides what they mean.

mod announce;
mod assignment;
mod connections;
mod dispatch;
mod intake;
mod join;
mod schedule;
mod stream;

pub use announce::{Announced, announcements};
pub use connections::Connections;
pub use dispatch::run as dispatch;
pub use intake::{Ingest, IngestOptions};
pub use schedule::schedule_for;

use intake::Caller;
use metrics::counter;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uptime_proto::v1;

use crate::clock::now_unix_ms;
pub use crate::engine::LATENESS_S_MAX;
use crate::ledger::Unavailable;

#[tonic::async_trait]
impl v1::collector_server::Collector for Ingest {
    type ConnectStream = ReceiverStream<Result<v1::AggregatorMessage, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ProbeMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(stream::start(self.clone(), caller, request.into_inner())))
    }

    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (rates, probe) = (&self.options.rates, caller.probe.number);
        let owed = rates.owed(probe, Instant::now());
        if !owed.is_zero() {
            counter!("uptime_ingest_slowed_total").increment(1);
            return Err(Status::resource_exhausted(format!(
                "this probe exceeds its rate of parts; try again in {} s",
                owed.as_secs() + 1
            )));
        }
        let mut results = Vec::new();
        for report in request.into_inner().reports {
            // The next call waits for this charge.
            rates.charge(probe, report.parts.len(), Instant::now());
            let unavailable = |error: Unavailable| Status::unavailable(error.to_string());
            let result = self.take(&caller, report, None).await.map_err(unavailable)?;
            results.push(result.await.map_err(unavailable)?);
        }
        let now_ms = now_unix_ms();
        let now_s = u64::try_from(now_ms / 1000).unwrap_or(0);
        let snapshot = self.ledger.snapshot();
        Ok(Response::new(v1::SubmitResponse {
            results,
            store_id: snapshot.store_id.to_vec().into(),
            generation: snapshot.generation,
            server_time_unix_ms: now_ms,
            epoch: Some(self.ledger.epochs().at(now_s).into()),
        }))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        join::join(&self.ledger, &self.options.auditor, &request).await
    }
}
