//! The only gRPC client: sends what waits in the spool, receives what the aggregator says.
//!
//! Owns one stream at a time and reconnects for ever. A part leaves the spool only when the
//! aggregator has stored it, or has refused it for good.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics::{counter, gauge};
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};
use uptime_proto::address::{Plaintext, Scheme, scheme};
use uptime_proto::clock::{Exchange, Measure};
use uptime_proto::convert::{Encoder, PartLimits, part_to_plain, samples_to_compact};
use uptime_proto::v1::collector_client::CollectorClient;
use uptime_proto::v1::{
    self, ClockState, GoodbyeReason, RefusalReason, ReportStatus, aggregator_message::Message,
    probe_message::Message as ToAggregator,
};
use uptime_proto::{MESSAGE_BYTES_MAX, PROTOCOL_VERSION};

use crate::clock::now_unix_ms;
use crate::control_state::{ControlState, Plan};
use crate::spool::{Cursor, Item, Spool};

/// Messages queued for the transport; a full queue makes the sender wait.
const OUTBOUND_MAX: usize = 8;
/// Details sent beside one part: with 256 bytes a text they stay below the limit of a message.
const DETAILS_PER_REPORT: usize = 500;
/// Samples sent beside one part: some three bytes each, or 25 where the stream has no number.
const SAMPLES_PER_REPORT: usize = 500;
/// A silent connection is pinged after this long, and closed after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// TCP keep-alive packets that may be lost.
const KEEP_ALIVE_RETRIES: u32 = 3;
/// A stream without a message for this long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// Limit for connecting (DNS, TCP, TLS, HTTP/2) and the answer to Hello or to the ticket. A silent
/// address must not delay the next one.
pub const DIAL_WITHIN: Duration = Duration::from_secs(10);
/// The wait between attempts doubles from the first to the last of these, with full jitter.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// Deferred parts are sent again after this long, or once the aggregator is sure of its clock.
const DEFERRED_FIRST: Duration = Duration::from_secs(30);
/// The wait doubles each time, up to this.
const DEFERRED_LAST: Duration = Duration::from_secs(240);
/// A session this long resets the backoff: an aggregator that restarted is soon back.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// The probe's token; prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(MetadataValue<Ascii>);

impl Token {
    /// The token as the aggregator's operator gave it.
    ///
    /// # Errors
    /// When it has characters that a header cannot have.
    pub fn new(token: &str) -> Result<Self, String> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| "the token has invalid characters".to_owned())?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("***")
    }
}

/// TLS settings for `https` addresses; the private key prints as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    ca_pem: Option<String>,
    /// Certificate chain and private key.
    identity: Option<(String, String)>,
}

impl Tls {
    /// CA certificates to trust instead of the system's; a certificate chain and key of our own.
    #[must_use]
    pub fn new(ca_pem: Option<String>, identity: Option<(String, String)>) -> Self {
        Self { ca_pem, identity }
    }

    fn config(&self) -> ClientTlsConfig {
        let config = match &self.ca_pem {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match &self.identity {
            Some((cert, key)) => config.identity(Identity::from_pem(cert, key)),
            None => config,
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let own = self.identity.as_ref().map(|_| "***");
        out.debug_struct("Tls").field("own_ca", &self.ca_pem.is_some()).field("own", &own).finish()
    }
}

/// Which aggregators to connect to, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkOptions {
    /// `https://HOST:PORT` or `http://HOST:PORT`, tried in turn.
    pub aggregators: Vec<String>,
    /// TLS settings for `https` addresses.
    pub tls: Tls,
    /// This probe's token.
    pub token: Option<Token>,
    /// The subnets this probe scans, for the aggregator's information.
    pub subnets: Vec<String>,
}

/// The uplink.
pub struct Uplink {
    options: UplinkOptions,
    spool: Spool,
    control: ControlState,
    instance_id: [u8; 16],
    /// Parts that the aggregator could not decode; they are sent in the plain form next time.
    send_plain: BTreeSet<u64>,
    /// When deferred parts are sent again.
    deferred_until: Option<Instant>,
    deferred_for: Duration,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// No connection.
    #[error("cannot reach {address}: {detail}")]
    Unreachable {
        /// The aggregator's address.
        address: String,
        /// The cause.
        detail: String,
    },
    /// The aggregator refused the stream.
    #[error("{address} refused this probe: {}", .status.message())]
    Refused {
        /// The aggregator's address.
        address: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// The stream ended or broke.
    #[error("the stream ended: {0}")]
    Ended(String),
}

/// An open stream after Hello and Welcome.
struct Session {
    outbound: mpsc::Sender<v1::ProbeMessage>,
    inbound: Streaming<v1::AggregatorMessage>,
    plan: Plan,
    welcome: v1::Welcome,
    /// The times of Hello and Welcome, to compare the clocks.
    exchange: Exchange,
}

/// What the aggregator's welcome says.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// The name by which it knows this probe.
    pub probe_name: String,
    /// Its clock compared with this host's; `None`: this host's clock was set meanwhile.
    pub clock: Option<Measure>,
    /// How far it trusts its own clock.
    pub clock_state: ClockState,
    /// The rules and the schedule.
    pub plan: Plan,
}

impl Uplink {
    /// An uplink over a spool.
    #[must_use]
    pub fn new(options: UplinkOptions, spool: Spool, control: ControlState) -> Self {
        let instance_id = rand::random();
        let send_plain = BTreeSet::new();
        let deferred_for = DEFERRED_FIRST;
        Self {
            options,
            spool,
            control,
            instance_id,
            send_plain,
            deferred_until: None,
            deferred_for,
        }
    }

    /// Runs until `shutdown`; reconnects for ever.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut backoff = BACKOFF_FIRST;
        let mut attempt = 0;
        loop {
            let Some(address) = self.address(attempt) else {
                return;
            };
            attempt += 1;
            let began = Instant::now();
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.session(&address, DIAL_WITHIN) => ended,
            };
            self.control.disconnected();
            gauge!("uptime_uplink_connected").set(0.0);
            counter!("uptime_uplink_sessions_ended_total").increment(1);
            if began.elapsed() > STABLE_AFTER {
                backoff = BACKOFF_FIRST;
            }
            let wait = rand::rng().random_range(BACKOFF_FIRST / 5..backoff);
            let waiting = self.spool.waiting();
            tracing::warn!(error = %ended, waiting, ?wait, "not connected; retrying");
            backoff = (backoff * 2).min(BACKOFF_LAST);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// The address of this attempt: they take turns.
    fn address(&self, attempt: usize) -> Option<String> {
        let addresses = &self.options.aggregators;
        addresses.get(attempt.checked_rem(addresses.len())?).cloned()
    }

    /// Runs until nothing waits or the time is over; returns how much still waits. The addresses
    /// take turns, and a silent one does not use up the time of the others.
    pub async fn drain(mut self, within: Duration) -> u64 {
        let deadline = Instant::now() + within;
        let addresses = u32::try_from(self.options.aggregators.len()).unwrap_or(u32::MAX).max(1);
        let dial_within = (within / addresses).min(DIAL_WITHIN);
        let mut attempt = 0;
        while self.spool.waiting() > 0 && Instant::now() < deadline {
            let spool = self.spool.clone();
            let empty = async {
                while spool.waiting() > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let Some(address) = self.address(attempt) else {
                break;
            };
            attempt += 1;
            tokio::select! {
                () = empty => break,
                () = tokio::time::sleep_until(deadline) => break,
                ended = self.session(&address, dial_within) => {
                    tracing::warn!(error = %ended, "not connected");
                    tokio::time::sleep(BACKOFF_FIRST).await;
                }
            }
        }
        self.control.disconnected();
        self.spool.waiting()
    }

    /// Connects to the first address and exchanges greetings only, for `check`.
    ///
    /// # Errors
    /// When there is no connection or no greeting.
    pub async fn greet(&self) -> Result<Greeting, UplinkError> {
        let address = self.options.aggregators.first().cloned().unwrap_or_default();
        let session = self.open(&address, true, DIAL_WITHIN).await?;
        Ok(Greeting {
            clock: session.exchange.measure(),
            clock_state: ClockState::try_from(session.welcome.clock_state).unwrap_or_default(),
            probe_name: session.welcome.probe_name,
            plan: session.plan,
        })
    }

    /// Connects and exchanges greetings. With `check_only` the stream does nothing else, and does
    /// not take over from a running probe of the same identity.
    async fn open(
        &self,
        address: &str,
        check_only: bool,
        within: Duration,
    ) -> Result<Session, UplinkError> {
        let unreachable =
            |detail: String| UplinkError::Unreachable { address: address.to_owned(), detail };
        let deadline = Instant::now() + within;
        let channel = dial(address, &self.options.tls, within).await.map_err(unreachable)?;
        let mut client = CollectorClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (outbound, messages) = mpsc::channel(OUTBOUND_MAX);
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(Token(token)) = &self.options.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        let hello = v1::Hello {
            protocol_version: PROTOCOL_VERSION,
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: self.instance_id.to_vec().into(),
            subnets: self.options.subnets.clone(),
            check_only,
        };
        let asked_ms = now_unix_ms();
        // The queue is empty: this is the first message.
        outbound.send(message(ToAggregator::Hello(hello))).await.ok();
        let refused = |status: Status| match status.code() {
            tonic::Code::Unavailable => unreachable(status.message().to_owned()),
            _ => UplinkError::Refused { address: address.to_owned(), status: Box::new(status) },
        };
        let greeting = async {
            let mut inbound = client.connect(request).await.map_err(refused)?.into_inner();
            let first = inbound.message().await.map_err(refused)?;
            Ok::<_, UplinkError>((inbound, first))
        };
        let (inbound, first) = timeout_at(deadline, greeting).await.map_err(|_| {
            unreachable(format!(
                "it accepted the connection but did not answer hello within {within:?}"
            ))
        })??;
        let Some(v1::AggregatorMessage { message: Some(Message::Welcome(welcome)) }) = first else {
            return Err(UplinkError::Ended(
                "the aggregator's first message was not a welcome".to_owned(),
            ));
        };
        let back_ms = now_unix_ms();
        let plan = Plan::from_welcome(&welcome).map_err(UplinkError::Ended)?;
        let answered_ms = welcome.server_time_unix_ms;
        let exchange = Exchange { asked_ms, received_ms: answered_ms, answered_ms, back_ms };
        Ok(Session { outbound, inbound, plan, welcome, exchange })
    }

    async fn session(&mut self, address: &str, dial_within: Duration) -> UplinkError {
        let session = match self.open(address, false, dial_within).await {
            Ok(session) => session,
            Err(error) => return error,
        };
        let Session { outbound, inbound, plan, welcome, exchange } = session;
        let clock_offset_ms = exchange.measure().map(|measure| measure.offset_ms);
        tracing::info!(
            address,
            probe = welcome.probe_name,
            clock_offset_ms,
            waiting = self.spool.waiting(),
            "connected to aggregator"
        );
        gauge!("uptime_uplink_connected").set(1.0);
        let limits = plan.part_limits();
        let in_flight_max = plan.limits.reports_in_flight_max.max(1) as usize;
        self.control.connected(plan, &welcome, exchange);
        let sending = Sending { outbound, encoder: Encoder::for_stream(), limits, in_flight_max };
        self.exchange(sending, inbound).await
    }

    async fn exchange(
        &mut self,
        mut sending: Sending,
        mut inbound: Streaming<v1::AggregatorMessage>,
    ) -> UplinkError {
        self.deferred_until = None;
        let mut cursor = self.spool.cursor();
        let mut in_flight = InFlight::default();
        let mut heard = Instant::now();
        // The first heartbeat goes out at once, to compare the clocks.
        let mut heartbeat_at = heard;
        loop {
            // Deferred parts are sent again, with all that waits, when nothing is in flight.
            if self.deferred_until.is_some_and(|at| at <= Instant::now()) && in_flight.len() == 0 {
                self.deferred_until = None;
                cursor = self.spool.cursor();
            }
            while in_flight.len() < sending.in_flight_max {
                match self.send_next(&mut sending, &mut cursor, &mut in_flight).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => return error,
                }
            }
            tokio::select! {
                received = inbound.message() => {
                    heard = Instant::now();
                    match received {
                        Ok(Some(v1::AggregatorMessage { message: Some(received) })) => {
                            if let Err(error) = self.receive(received, &mut in_flight) {
                                return error;
                            }
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => return UplinkError::Ended("closed by the aggregator".into()),
                        Err(status) => return UplinkError::Ended(status.message().to_owned()),
                    }
                }
                () = self.spool.appended(), if in_flight.len() < sending.in_flight_max => {}
                () = tokio::time::sleep_until(heartbeat_at) => {
                    let heartbeat = self.control.clock().heartbeat();
                    let heartbeat = message(ToAggregator::Heartbeat(heartbeat));
                    // A full queue means that the aggregator hears from this probe anyway.
                    sending.outbound.try_send(heartbeat).ok();
                    heartbeat_at = Instant::now() + self.control.clock().heartbeat_after();
                }
                () = until(self.deferred_until), if in_flight.len() == 0 => {}
                // Compare the clocks again.
                () = self.control.clock().was_set() => heartbeat_at = Instant::now(),
                () = tokio::time::sleep_until(heard + SILENCE_MAX) => {
                    return UplinkError::Ended(format!("no message for {SILENCE_MAX:?}"));
                }
            }
        }
    }

    async fn send_next(
        &mut self,
        sending: &mut Sending,
        cursor: &mut Cursor,
        in_flight: &mut InFlight,
    ) -> Result<bool, UplinkError> {
        let Some((sequence, item)) = cursor.next_item() else {
            let Some(done) = self.spool.take_done(None) else {
                return Ok(false);
            };
            let report = v1::Report {
                report_id: in_flight.insert(None),
                round_done: true,
                done_round_unix_s: done.round_s,
                ..v1::Report::default()
            };
            return sending.send(report).await.map(|()| true);
        };
        let report_id = in_flight.insert(Some(sequence));
        let mut report = v1::Report { report_id, ..v1::Report::default() };
        match item {
            Item::Gap(gap) => report.gaps.push(gap),
            Item::Part(part) => {
                report.parts.push(if self.send_plain.contains(&sequence) {
                    part_to_plain(&part)
                } else {
                    sending.encoder.encode(&part, &sending.limits)
                });
                // After the part, so that samples can use the node numbers that it introduces.
                let samples = self.spool.take_samples(sequence, SAMPLES_PER_REPORT);
                report.compact_samples = samples_to_compact(&samples, &sending.encoder).into();
                report.details = self.spool.take_details(sequence, DETAILS_PER_REPORT);
                report.round_done = self.spool.take_done(Some(sequence)).is_some();
            }
        }
        sending.send(report).await.map(|()| true)
    }

    fn receive(&mut self, received: Message, in_flight: &mut InFlight) -> Result<(), UplinkError> {
        let nonsense = |what: String| {
            UplinkError::Ended(format!("the aggregator sent an invalid message: {what}"))
        };
        match received {
            Message::Result(result) => match in_flight.remove(result.report_id) {
                Some(Some(sequence)) => self.answered(sequence, &result),
                // It only reported that a round is done.
                Some(None) => Ok(()),
                None => Err(nonsense(format!("an answer to unknown report {}", result.report_id))),
            },
            Message::Assignment(assignment) => self.control.assigned(&assignment).map_err(nonsense),
            Message::Epochs(epochs) => self.control.announced(&epochs).map_err(nonsense),
            Message::Heartbeat(theirs) => {
                self.control.heard(&theirs);
                if theirs.clock_state == ClockState::Sure as i32 {
                    self.deferred_for = DEFERRED_FIRST;
                    self.deferred_until = self.deferred_until.map(|_| Instant::now());
                }
                Ok(())
            }
            Message::Welcome(_) => Err(nonsense("a second welcome".to_owned())),
            Message::Goodbye(goodbye) => {
                let reason = GoodbyeReason::try_from(goodbye.reason).unwrap_or_default();
                let detail = goodbye.detail;
                Err(UplinkError::Ended(format!("{}: {detail}", reason.as_str_name())))
            }
        }
    }

    fn answered(&mut self, sequence: u64, result: &v1::ReportResult) -> Result<(), UplinkError> {
        let status = ReportStatus::try_from(result.status).unwrap_or_default();
        match status {
            ReportStatus::Accepted | ReportStatus::Duplicate => {}
            ReportStatus::Conflict => {
                tracing::error!(
                    sequence,
                    "conflict: the aggregator has another part under this key"
                );
                counter!("uptime_uplink_conflicts_total").increment(1);
            }
            ReportStatus::Refused => {
                let reason = RefusalReason::try_from(result.reason).unwrap_or_default();
                if reason == RefusalReason::Resync && self.send_plain.insert(sequence) {
                    let detail = format!("the aggregator asks for a new stream: {}", result.detail);
                    return Err(UplinkError::Ended(detail));
                }
                let name = reason.as_str_name();
                counter!("uptime_uplink_refused_total", "reason" => name).increment(1);
                tracing::error!(
                    reason = name,
                    detail = result.detail,
                    "the aggregator refused a part; it is not sent again"
                );
            }
            ReportStatus::Later => {
                let reason = RefusalReason::try_from(result.reason).unwrap_or_default();
                let reason = reason.as_str_name();
                counter!("uptime_uplink_deferred_total", "reason" => reason).increment(1);
                if self.deferred_until.is_none() {
                    self.deferred_until = Some(Instant::now() + self.deferred_for);
                    self.deferred_for = (self.deferred_for * 2).min(DEFERRED_LAST);
                    tracing::warn!(
                        reason,
                        detail = result.detail,
                        "the aggregator defers a part until it is sure of its clock; retrying"
                    );
                }
                return Ok(());
            }
            // A newer protocol: keep the part and send it again later.
            ReportStatus::Unspecified => return Ok(()),
        }
        self.send_plain.remove(&sequence);
        self.spool.acknowledge(sequence);
        Ok(())
    }
}

/// Exchanges a ticket for this probe's token. Returns the token and the probe's name.
///
/// # Errors
/// When the aggregator cannot be reached or refuses the ticket.
pub async fn join(
    address: &str,
    tls: &Tls,
    ticket: &Token,
) -> Result<(String, String), UplinkError> {
    let unreachable =
        |detail: String| UplinkError::Unreachable { address: address.to_owned(), detail };
    let deadline = Instant::now() + DIAL_WITHIN;
    let channel = dial(address, tls, DIAL_WITHIN).await.map_err(unreachable)?;
    let mut request = Request::new(v1::JoinRequest {});
    request.metadata_mut().insert("authorization", ticket.0.clone());
    let joined = async { CollectorClient::new(channel).join(request).await };
    let joined = timeout_at(deadline, joined).await.map_err(|_| {
        unreachable(format!(
            "it accepted the connection but did not answer within {DIAL_WITHIN:?}; ask the \
             aggregator's operator whether the ticket was used: it works only once"
        ))
    })?;
    let v1::JoinResponse { token, probe_name } = joined
        .map_err(|status| UplinkError::Refused {
            address: address.to_owned(),
            status: Box::new(status),
        })?
        .into_inner();
    Ok((token, probe_name))
}

struct Sending {
    outbound: mpsc::Sender<v1::ProbeMessage>,
    encoder: Encoder,
    limits: PartLimits,
    in_flight_max: usize,
}

impl Sending {
    async fn send(&self, report: v1::Report) -> Result<(), UplinkError> {
        let sent = self.outbound.send(message(ToAggregator::Report(report))).await;
        sent.map_err(|_| UplinkError::Ended("the connection was lost".to_owned()))?;
        counter!("uptime_uplink_reports_sent_total").increment(1);
        Ok(())
    }
}

/// Reports without an answer yet. An id is the smallest free number, so ids stay short, while
/// sequence numbers grow for ever.
#[derive(Debug, Default)]
struct InFlight {
    /// Sequence numbers by id; `None`: the report held nothing from the spool.
    reports: BTreeMap<u64, Option<u64>>,
}

impl InFlight {
    fn len(&self) -> usize {
        self.reports.len()
    }

    fn insert(&mut self, sequence: Option<u64>) -> u64 {
        let free = (1..).zip(self.reports.keys()).find(|(id, taken)| id < *taken);
        let id = free.map_or(self.reports.len() as u64 + 1, |(id, _)| id);
        self.reports.insert(id, sequence);
        id
    }

    fn remove(&mut self, id: u64) -> Option<Option<u64>> {
        self.reports.remove(&id)
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn message(message: ToAggregator) -> v1::ProbeMessage {
    v1::ProbeMessage { message: Some(message) }
}

/// Connects, with TLS for `https`. The transport's own time limit covers TCP only.
async fn dial(address: &str, tls: &Tls, within: Duration) -> Result<Channel, String> {
    let mut endpoint =
        Endpoint::from_shared(address.to_owned()).map_err(|error| error.to_string())?;
    // The settings were checked for plaintext when they were read.
    if scheme(address, Plaintext::Anywhere) == Ok(Scheme::Https) {
        endpoint = endpoint.tls_config(tls.config()).map_err(|error| chain(&error))?;
    }
    let endpoint = endpoint
        .connect_timeout(within)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEP_ALIVE))
        .tcp_keepalive_interval(Some(KEEP_ALIVE))
        .tcp_keepalive_retries(Some(KEEP_ALIVE_RETRIES))
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    match timeout(within, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|error| chain(&error)),
        Err(_) => Err(format!(
            "no connection within {within:?}: nothing accepts one, or the other end is silent"
        )),
    }
}

/// An error with its causes: transport errors say little by themselves.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_have_short_ids_that_are_used_again() {
        let mut in_flight = InFlight::default();
        assert_eq!([700, 701, 702].map(|sequence| in_flight.insert(Some(sequence))), [1, 2, 3]);
        assert_eq!(in_flight.remove(2), Some(Some(701)));
        assert_eq!(in_flight.remove(2), None);
        assert_eq!(in_flight.insert(Some(703)), 2);
        assert_eq!(in_flight.insert(None), 4);
        assert_eq!((in_flight.remove(1), in_flight.insert(Some(705))), (Some(Some(700)), 1));
        assert_eq!(in_flight.len(), 4);
    }
}
