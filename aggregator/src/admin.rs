//! The Admin service: not answered by this version.
//!
//! `uptime-aggregator probe add|list` do the operator's work on the aggregator's own host.

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uptime_proto::v1;

/// Answers `UNIMPLEMENTED` to every call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Admin;

macro_rules! unimplemented_calls {
    ($($name:ident($request:ty) -> $response:ty;)+) => {
        #[tonic::async_trait]
        impl v1::admin_server::Admin for Admin {
            type BackupStream = ReceiverStream<Result<v1::BackupResponse, Status>>;
            $(
                async fn $name(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                    let name = stringify!($name);
                    Err(Status::unimplemented(format!("{name} is not answered by this version")))
                }
            )+
        }
    };
}

unimplemented_calls! {
    enrol_probe(v1::EnrolProbeRequest) -> v1::EnrolProbeResponse;
    rotate_probe(v1::RotateProbeRequest) -> v1::RotateProbeResponse;
    revoke_probe(v1::RevokeProbeRequest) -> v1::RevokeProbeResponse;
    retract(v1::RetractRequest) -> v1::RetractResponse;
    undo_retraction(v1::UndoRetractionRequest) -> v1::UndoRetractionResponse;
    list_retractions(v1::ListRetractionsRequest) -> v1::ListRetractionsResponse;
    import_csv(Streaming<v1::ImportCsvRequest>) -> v1::ImportCsvResponse;
    backup(v1::BackupRequest) -> ReceiverStream<Result<v1::BackupResponse, Status>>;
    list_audit(v1::ListAuditRequest) -> v1::ListAuditResponse;
}
