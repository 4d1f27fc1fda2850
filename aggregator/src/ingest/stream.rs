//! One probe's stream from hello to goodbye.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use metrics::{counter, gauge};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use uptime_proto::PROTOCOL_VERSION;
use uptime_proto::convert::Decoder;
use uptime_proto::v1::{
    self, GoodbyeReason, aggregator_message::Message, probe_message::Message as FromProbe,
};

use super::announce::Announced;
use super::connections::{Outbound, message};
use super::intake::{Caller, Ingest, REPORTS_IN_FLIGHT_MAX};
use crate::ledger::{Greeting, Unavailable};
use crate::store::ProbeRecord;

/// Messages to a probe that it has not taken yet. A probe that does not read is not read either.
const OUTBOUND_MAX: usize = 128;
/// A stream that does not say hello in this time is ended.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Version 1 lacks what later versions added, and nothing else changed.
const PROTOCOL_VERSIONS: std::ops::RangeInclusive<u32> = 1..=PROTOCOL_VERSION;
/// A native probe sends a heartbeat every 10 to 25 s.
const SILENCE_MAX: Duration = Duration::from_secs(35);

type Inbound = Streaming<v1::ProbeMessage>;

/// Why a stream ended, for the probe and the log.
struct Ended(Option<(GoodbyeReason, String)>);

/// Starts the task that serves a stream, and answers what it sends.
pub(super) fn start(
    ingest: Ingest,
    caller: Caller,
    inbound: Inbound,
) -> ReceiverStream<Result<v1::AggregatorMessage, Status>> {
    let (outbound, messages) = mpsc::channel(OUTBOUND_MAX);
    // Ends with its stream: when the probe goes, inbound ends; when the server stops, the token.
    #[expect(clippy::disallowed_methods, reason = "a stream lives as long as its probe")]
    tokio::spawn(serve(ingest, caller, inbound, outbound));
    ReceiverStream::new(messages)
}

async fn serve(ingest: Ingest, caller: Caller, mut inbound: Inbound, outbound: Outbound) {
    let probe = &caller.probe;
    let hello = match first_hello(&mut inbound).await {
        Ok(hello) => hello,
        Err(refused) => {
            outbound.send(Err(refused)).await.ok();
            return;
        }
    };
    if hello.check_only {
        let told = v1::EpochAnnouncement::clone(&ingest.options.announced.borrow());
        outbound.send(Ok(message(Message::Welcome(welcome(&ingest, probe, told))))).await.ok();
        tracing::info!(
            probe = probe.name,
            version = hello.software_version,
            "connection checked by probe"
        );
        return;
    }
    let (serial, superseded) =
        ingest.connections.enter(probe.number, &probe.name, outbound.clone());
    tracing::info!(probe = probe.name, version = hello.software_version, "probe connected");
    gauge!("uptime_ingest_streams").increment(1);
    let greeting = Greeting { software_version: hello.software_version, subnets: hello.subnets };
    ingest.ledger.clock().connected(probe.number, probe.enrolled_at_ms);
    ingest.ledger.connected(ProbeRecord::clone(probe), Some(greeting)).await;
    let mut announced = ingest.options.announced.clone();
    let told = v1::EpochAnnouncement::clone(&announced.borrow_and_update());
    let welcome = message(Message::Welcome(welcome(&ingest, probe, told)));
    let ended = if outbound.send(Ok(welcome)).await.is_err() {
        Ended(None)
    } else {
        ingest.connections.ready();
        tokio::select! {
            ended = exchange(&ingest, &caller, inbound, &outbound, announced) => ended,
            () = caller.pass.ended.cancelled() => Ended(Some((
                GoodbyeReason::Revoked,
                "this identity may hand in no more".to_owned(),
            ))),
            () = superseded.cancelled() => Ended(Some((
                GoodbyeReason::Superseded,
                "a newer stream of the same identity took over".to_owned(),
            ))),
            () = ingest.connections.stopping().cancelled() => Ended(Some((
                GoodbyeReason::Stopping,
                "the aggregator is stopping".to_owned(),
            ))),
        }
    };
    gauge!("uptime_ingest_streams").decrement(1);
    let leaves = || ingest.ledger.clock().left(probe.number);
    if ingest.connections.leave(probe.number, serial, leaves) {
        ingest.ledger.connected(ProbeRecord::clone(probe), None).await;
    }
    let detail = ended.0.as_ref().map_or("the probe went away", |(_, detail)| detail.as_str());
    tracing::info!(probe = probe.name, detail, "probe disconnected");
    if let Some((reason, detail)) = ended.0 {
        let goodbye = v1::Goodbye { reason: reason as i32, detail };
        // A probe that does not read must not hold this task up.
        outbound.try_send(Ok(message(Message::Goodbye(goodbye)))).ok();
    }
}

/// The greeting of a probe that speaks this version.
async fn first_hello(inbound: &mut Inbound) -> Result<v1::Hello, Status> {
    let first = tokio::time::timeout(HELLO_WITHIN, inbound.message()).await;
    let Ok(Ok(Some(v1::ProbeMessage { message: Some(FromProbe::Hello(hello)) }))) = first else {
        let detail = format!("the first message, within {HELLO_WITHIN:?}, must be Hello");
        return Err(Status::failed_precondition(detail));
    };
    if !PROTOCOL_VERSIONS.contains(&hello.protocol_version) {
        return Err(Status::failed_precondition(format!(
            "this aggregator speaks protocol versions 1 to {PROTOCOL_VERSION}, the probe {}: \
             install matching versions",
            hello.protocol_version
        )));
    }
    Ok(hello)
}

fn welcome(ingest: &Ingest, probe: &ProbeRecord, told: v1::EpochAnnouncement) -> v1::Welcome {
    let snapshot = ingest.ledger.snapshot();
    let judged = ingest.ledger.clock().now();
    v1::Welcome {
        store_id: snapshot.store_id.to_vec().into(),
        generation: snapshot.generation,
        probe_name: probe.name.clone(),
        server_time_unix_ms: judged.wall_ms,
        clock_state: judged.state.to_wire() as i32,
        epochs: told.epochs,
        limits: Some(ingest.limits()),
        schedule: told.schedule,
        subnets_allowed: probe.subnets_allowed.clone(),
    }
}

/// Takes reports and answers them until the stream ends.
async fn exchange(
    ingest: &Ingest,
    caller: &Caller,
    mut inbound: Inbound,
    outbound: &Outbound,
    mut announced: Announced,
) -> Ended {
    let mut decoder = Decoder::sharing(&ingest.ids);
    let mut pending = FuturesUnordered::new();
    // Who hands in too much is not read for a while; what it sends waits at its own end.
    let mut read_from = Instant::now();
    loop {
        let room = pending.len() < REPORTS_IN_FLIGHT_MAX;
        let next = async {
            tokio::time::sleep_until(read_from).await;
            tokio::time::timeout(SILENCE_MAX, inbound.message()).await
        };
        tokio::select! {
            Some(result) = pending.next() => {
                let result: Result<v1::ReportResult, Unavailable> = result;
                // Unanswered reports stay in the probe's spool; it connects again later.
                let Ok(result) = result else { return not_stored() };
                if outbound.send(Ok(message(Message::Result(result)))).await.is_err() {
                    return Ended(None);
                }
            }
            Ok(()) = announced.changed() => {
                let told = v1::EpochAnnouncement::clone(&announced.borrow_and_update());
                if outbound.send(Ok(message(Message::Epochs(told)))).await.is_err() {
                    return Ended(None);
                }
            }
            next = next, if room => {
                let next = match next {
                    Err(_) => return protocol(format!("silent for {SILENCE_MAX:?}")),
                    Ok(Err(status)) => return protocol(status.message().to_owned()),
                    Ok(Ok(None)) => return Ended(None),
                    Ok(Ok(Some(next))) => next,
                };
                match next.message {
                    Some(FromProbe::Report(report)) => {
                        let now = Instant::now();
                        let parts = report.parts.len();
                        let wait = ingest.options.rates.charge(caller.probe.number, parts, now);
                        if !wait.is_zero() {
                            counter!("uptime_ingest_slowed_total").increment(1);
                        }
                        read_from = now + wait;
                        match ingest.take(caller, report, Some(&mut decoder)).await {
                            Ok(answer) => pending.push(answer),
                            Err(Unavailable(_)) => return not_stored(),
                        }
                    }
                    Some(FromProbe::Heartbeat(beat)) => {
                        let clock = ingest.ledger.clock();
                        let beat = clock.answer(caller.probe.number, &beat);
                        outbound.try_send(Ok(message(Message::Heartbeat(beat)))).ok();
                    }
                    Some(FromProbe::Hello(_)) => return protocol("a second Hello".to_owned()),
                    None => return protocol("a message of an unknown kind".to_owned()),
                }
            }
        }
    }
}

fn protocol(detail: String) -> Ended {
    Ended(Some((GoodbyeReason::Protocol, detail)))
}

fn not_stored() -> Ended {
    Ended(Some((GoodbyeReason::Stopping, "the store does not take reports".to_owned())))
}
