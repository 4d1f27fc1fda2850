//! Both ports with what they share: the gate, the audit log, the places, TLS.
//!
//! Owns which service stands behind which gate.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use uptime_proto::MESSAGE_BYTES_MAX;
use uptime_proto::convert::PartLimits;
use uptime_proto::v1::admin_server::AdminServer;
use uptime_proto::v1::collector_server::CollectorServer;
use uptime_proto::v1::uptime_query_server::UptimeQueryServer;

use super::listener::{Listener, Port, Wire};
use super::readers::answered_there;
use crate::access::audit::Auditor;
use crate::access::limits::{Limits, Rates, Slots};
use crate::access::{Gate, Tls, grpc_gate, http_gate};
use crate::admin::Admin;
use crate::config::Config;
use crate::ingest::{Announced, Connections, Ingest, IngestOptions};
use crate::ledger::Ledger;
use crate::query::Query;
use crate::web::{Web, router};

/// What both ports share.
pub(super) struct Doors {
    ledger: Ledger,
    /// Takes refusals; to be run by whoever lives as long as the ledger.
    pub(super) auditor: Auditor,
    gate: Gate,
    slots: Slots,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    anonymous_http: bool,
    readers: Handle,
}

impl Doors {
    pub(super) fn new(
        ledger: Ledger,
        config: &Config,
        tls: Option<Arc<Tls>>,
        readers: Handle,
    ) -> Self {
        let auditor = Auditor::default();
        let gate = Gate::new(ledger.clone(), auditor.clone(), &config.limits);
        let slots = Slots::new(config.limits);
        let (limits, anonymous_http) = (config.limits, config.anonymous_http);
        Self { ledger, auditor, gate, slots, tls, limits, anonymous_http, readers }
    }

    /// Starts what watches over open calls and over the certificates.
    pub(super) fn spawn_keepers(&self, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        tasks.spawn(self.gate.clone().run(shutdown.clone()));
        if let Some(tls) = &self.tls {
            tasks.spawn(Arc::clone(tls).run(shutdown.clone()));
        }
    }

    pub(super) fn listener(&self, wire: Wire, tcp: TcpListener) -> Listener {
        let (tls, slots, limits) = (self.tls.clone(), self.slots.clone(), self.limits);
        Listener { tcp, port: Port { wire, tls, slots, limits, auditor: self.auditor.clone() } }
    }

    /// The routes of the HTTP port, behind the gate.
    pub(super) fn http_router(&self, web: Web) -> Router {
        let gate = self.gate.with_anonymous_reading(self.anonymous_http);
        let answered = from_fn_with_state(self.readers.clone(), answered_there);
        router(web).layer(answered).layer(from_fn_with_state(gate, http_gate))
    }

    /// The services of the gRPC port, behind the gate.
    pub(super) async fn grpc_router(
        &self,
        connections: Connections,
        announced: Announced,
        query: Query,
        config: &Config,
    ) -> anyhow::Result<Router> {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<CollectorServer<Ingest>>().await;
        health.set_serving::<UptimeQueryServer<Query>>().await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(uptime_proto::DESCRIPTOR)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // Newer clients ask for v1; Python's know only v1alpha.
        let (reflection, reflection_alpha) =
            (reflection().build_v1()?, reflection().build_v1alpha()?);
        let options = IngestOptions {
            part_limits: PartLimits {
                parts_per_round_max: config.limits.parts_per_round_max,
                ..PartLimits::default()
            },
            announced,
            rates: Rates::new(config.limits),
            auditor: self.auditor.clone(),
        };
        let ingest = Ingest::new(self.ledger.clone(), connections, options);
        let routes = Routes::new(health_service)
            .add_service(reflection)
            .add_service(reflection_alpha)
            .add_service(
                CollectorServer::new(ingest)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
            )
            .add_service(
                UptimeQueryServer::new(query)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
            )
            .add_service(
                AdminServer::new(Admin::new(self.ledger.clone(), self.auditor.clone()))
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
            );
        let gate = self.gate.with_anonymous_reading(config.anonymous_grpc);
        let answered = from_fn_with_state(self.readers.clone(), answered_there);
        let router = routes.prepare().into_axum_router().layer(answered);
        Ok(router.layer(from_fn_with_state(gate, grpc_gate)))
    }
}
