//! Parts in: who are you, is it well formed, hand over, answer once durable.
//!
//! Owns the Collector service and the live streams of probes. Refuses what a message is wrong by
//! itself or in time; whether an id is a node, and what a part means, is the ledger's.

mod announce;
mod assignment;
mod connections;
mod dispatch;
mod join;
mod stream;

pub use announce::{Announced, announcements};
pub use connections::Connections;
pub use dispatch::run as dispatch;

use std::sync::Arc;

use metrics::counter;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uptime_accounting::fact::Gap;
use uptime_proto::convert::{
    Decoder, IdPool, PartLimits, Refusal, part_from_wire, samples_from_wire,
};
use uptime_proto::v1::{self, RefusalReason, ReportStatus};
use uptime_proto::{Epoch, Epochs, NodeId, Part, Reason, Sample};

use crate::access::audit::Auditor;
use crate::access::limits::Rates;
use crate::access::{Pass, Refusal as AccessRefusal};
use crate::clock::{Judged, now_unix_ms};
pub use crate::engine::LATENESS_S_MAX;
use crate::ledger::{Ledger, PartOutcome, Submission, Unavailable};
use crate::store::{Details, ProbeRecord};

/// A part may be ahead of this clock by so much, as the probe's offset may be.
const CLOCK_SKEW_MS_MAX: i64 = 2_000;
/// More parts in one report would only make its answer unwieldy.
const PARTS_PER_REPORT_MAX: usize = 64;
/// Reports of one stream on their way at a time; beyond that the stream is not read.
const REPORTS_IN_FLIGHT_MAX: usize = 64;
/// Details of one report.
const DETAILS_MAX: usize = 4_000;
/// One text of a node's details, in bytes.
const DETAIL_TEXT_BYTES_MAX: usize = 256;

/// What the service needs to know besides the ledger.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// Limits on single parts.
    pub part_limits: PartLimits,
    /// The rules and the schedule that probes are told.
    pub announced: Announced,
    /// How fast a probe may hand in parts.
    pub rates: Rates,
    /// Where it is noted that a probe spoke for a subnet it may not speak for.
    pub auditor: Auditor,
}

/// Gaps taken from one report; a probe sends one.
const GAPS_PER_REPORT_MAX: usize = 16;
/// The end of the year 9999: whatever is beyond is no time.
const GAP_END_MAX_S: u64 = 253_402_300_800;
/// The last part of a round is on its way so long before the round closes.
const REPORT_MS: u32 = 1_000;
/// Suspects are asked for with `FindNode` first: this is time for 250 of them, and those not long
/// dead are asked first.
const SUSPECT_FINDS_MS: u32 = 250;
/// Between two direct questions a probe waits so long (accounting page, "Evidence").
const BETWEEN_QUESTIONS_MS: u32 = 1_000;
/// For the last `FindNode`, after the last silence. It takes milliseconds, and the votes count
/// without it.
const LAST_FIND_MS: u32 = 500;
/// First look-ups of a few nodes begin so long before suspects are named; see `Schedule`.
const FIRST_STAGE_MS: u32 = 1_250;
/// The standing lists go out so long before first look-ups begin, and at two fifths of the round at
/// the latest: the markets have been listed by then.
const STANDING_MS: u32 = 600;

/// When in a round look-ups begin and suspects are named, for these rules.
///
/// As late as can be: a node that died is noticed in a round only if its `seen` is stale when it is
/// asked for, so every second earlier is a second more until it is shown as down. Suspects are
/// named so that the last answer about them comes within the grace; in short rounds at two fifths,
/// and never in the last tenth.
#[must_use]
pub fn schedule_for(epoch: &Epoch) -> v1::Schedule {
    let period_ms = epoch.period.seconds().saturating_mul(1000);
    let closes_ms = period_ms.saturating_add(epoch.grace_s.saturating_mul(1000));
    let pauses_ms = epoch.direct_attempts.saturating_sub(1).saturating_mul(BETWEEN_QUESTIONS_MS);
    // A daemon counts the limit of a question in whole seconds.
    let question_ms = epoch.direct_timeout_ms.div_ceil(1_000).saturating_mul(1_000);
    let questions_ms = question_ms.saturating_mul(epoch.direct_attempts);
    let takes_ms = SUSPECT_FINDS_MS + questions_ms + pauses_ms + LAST_FIND_MS + REPORT_MS;
    let latest_ms = closes_ms.saturating_sub(takes_ms);
    let suspects_ms = latest_ms.clamp(period_ms / 5 * 2, period_ms - period_ms / 10);
    v1::Schedule {
        lookups_offset_ms: suspects_ms.saturating_sub(FIRST_STAGE_MS).max(suspects_ms / 3 * 2),
        suspects_offset_ms: suspects_ms,
        lookups_per_s_max: 1_000,
        lookups_in_flight_max: 50,
    }
}

/// When in a round the standing lists of look-ups go out, for these rules: so long after its start,
/// milliseconds.
fn standing_ms(epoch: &Epoch) -> u32 {
    let lookups_ms = schedule_for(epoch).lookups_offset_ms;
    let latest_ms = epoch.period.seconds().saturating_mul(1000) / 5 * 2;
    lookups_ms.saturating_sub(STANDING_MS).min(latest_ms)
}

/// The Collector service.
#[derive(Clone)]
pub struct Ingest {
    ledger: Ledger,
    connections: Connections,
    options: Arc<IngestOptions>,
    /// Ids that probes have numbered on their streams.
    ids: IdPool,
}

impl Ingest {
    /// The service over a ledger; `connections` is shared with [`dispatch`].
    #[must_use]
    pub fn new(ledger: Ledger, connections: Connections, options: IngestOptions) -> Self {
        Self { ledger, connections, options: Arc::new(options), ids: IdPool::default() }
    }

    /// Checks a report and hands it over. The outer future ends when it has its place in the
    /// ledger's queue, the inner one when it is durable.
    async fn take(
        &self,
        caller: &Caller,
        report: v1::Report,
        mut decoder: Option<&mut Decoder>,
    ) -> Result<impl Future<Output = Result<v1::ReportResult, Unavailable>> + use<>, Unavailable>
    {
        let probe = &caller.probe;
        let clock = self.ledger.clock().now();
        let checked = self.check(caller, &report, decoder.as_deref_mut(), &clock);
        let samples = read_samples(probe, &report, decoder.as_deref());
        let is_refused = |part: &&Result<_, _>| matches!(part, Err(PartOutcome::Refused(..)));
        let refused = checked.iter().filter(is_refused).count() as u64;
        if refused > 0 {
            self.ledger.refused(probe.number, refused).await;
        }
        let details = read_details(&report.details);
        let details = details.unwrap_or_else(|refusal| {
            tracing::warn!(probe = probe.name, %refusal, "details left out");
            Vec::new()
        });
        let done_round_s = report.round_done.then(|| done_round_s(&report, &checked)).flatten();
        let (parts, faults): (Vec<_>, Vec<_>) = checked
            .into_iter()
            .map(|part| match part {
                Ok(part) => (Some(part), None),
                Err(not_taken) => (None, Some(not_taken)),
            })
            .unzip();
        let submission = Submission {
            probe: probe.number,
            parts: parts.into_iter().flatten().collect(),
            details,
            gaps: read_gaps(probe, &report.gaps, &self.ledger.epochs(), &clock),
            samples,
            done_round_s,
        };
        let outcomes = self.ledger.submit(submission).await?;
        let (report_id, name) = (report.report_id, probe.name.clone());
        Ok(async move {
            let mut outcomes = outcomes.await?.into_iter();
            let outcome = |fault: Option<PartOutcome>| fault.or_else(|| outcomes.next());
            let all: Vec<PartOutcome> = faults.into_iter().filter_map(outcome).collect();
            all.iter().for_each(|outcome| tell(outcome, &name));
            Ok(report_result(report_id, &all))
        })
    }

    fn check(
        &self,
        caller: &Caller,
        report: &v1::Report,
        mut decoder: Option<&mut Decoder>,
        clock: &Judged,
    ) -> Vec<Result<Part, PartOutcome>> {
        let too_many = report.parts.len() > PARTS_PER_REPORT_MAX;
        report
            .parts
            .iter()
            .map(|wire| {
                let limits = &self.options.part_limits;
                let part = part_from_wire(wire, decoder.as_deref_mut(), limits)?;
                if too_many {
                    let detail = format!(
                        "{} parts in one report, at most {PARTS_PER_REPORT_MAX}",
                        report.parts.len()
                    );
                    return Err(Refusal::new(RefusalReason::TooManyParts, detail).into());
                }
                check_subnet(&part, &caller.probe).inspect_err(|_| {
                    let (address, name) = (caller.pass.peer.address.ip(), &caller.probe.name);
                    let (refusal, subnet) = (AccessRefusal::Subnet, &part.key.subnet);
                    self.options.auditor.refused(refusal, address, Some(name), subnet);
                })?;
                let timely = check_time(&part, &self.ledger.epochs(), clock.wall_ms);
                timely.map_err(|untimely| untimely.judged(clock.may_refuse))?;
                Ok(part)
            })
            .collect()
    }

    fn limits(&self) -> v1::Limits {
        let part = &self.options.part_limits;
        let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        v1::Limits {
            message_bytes_max: narrow(uptime_proto::MESSAGE_BYTES_MAX),
            parts_per_report_max: narrow(PARTS_PER_REPORT_MAX),
            observations_per_part_max: narrow(part.observations_per_part_max),
            part_numbers_max: u32::from(part.part_numbers_max),
            parts_per_round_max: part.parts_per_round_max,
            reports_in_flight_max: narrow(REPORTS_IN_FLIGHT_MAX),
            compact_bases_max: narrow(part.compact_bases_max),
            compact_nodes_max: part.compact_nodes_max,
            lateness_s_max: LATENESS_S_MAX,
            subnet_bytes_max: narrow(part.subnet_bytes_max),
        }
    }
}

/// Who hands in: the gate has seen to it that it is a probe.
#[derive(Debug, Clone)]
struct Caller {
    probe: Arc<ProbeRecord>,
    pass: Pass,
}

impl Caller {
    fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let pass = request.extensions().get::<Pass>().cloned();
        let caller = pass.and_then(|pass| {
            let probe = pass.identity.as_ref()?.probe.clone()?;
            Some(Self { probe, pass })
        });
        caller.ok_or_else(|| Status::unauthenticated("no probe makes this call"))
    }
}

/// The round that a report ends. `None`: its last part was refused, and says nothing.
fn done_round_s(report: &v1::Report, checked: &[Result<Part, PartOutcome>]) -> Option<u64> {
    match checked.last() {
        None => Some(report.done_round_unix_s),
        Some(last) => last.as_ref().ok().map(|part| part.key.round.start_s()),
    }
}

fn check_subnet(part: &Part, probe: &ProbeRecord) -> Result<(), Refusal> {
    let subnet = &part.key.subnet;
    if subnet.is_empty()
        || probe.subnets_allowed.is_empty()
        || probe.subnets_allowed.contains(subnet)
    {
        return Ok(());
    }
    let allowed = probe.subnets_allowed.join(", ");
    let detail = format!("{} may speak for {allowed}, not for {subnet}", probe.name);
    Err(Refusal::new(RefusalReason::SubnetNotAllowed, detail))
}

/// Logs and counts a part that was not taken.
fn tell(outcome: &PartOutcome, probe: &str) {
    match outcome {
        PartOutcome::Refused(reason, detail) => {
            let reason = reason.as_str_name();
            counter!("uptime_ingest_parts_refused_total", "reason" => reason).increment(1);
            tracing::warn!(probe, reason, detail, "refused");
        }
        PartOutcome::Later(reason, detail) => {
            let reason = reason.as_str_name();
            counter!("uptime_ingest_parts_put_off_total", "reason" => reason).increment(1);
            tracing::debug!(probe, reason, detail, "put off: the clock is not sure");
        }
        PartOutcome::Accepted | PartOutcome::Duplicate | PartOutcome::Conflict => {}
    }
}

impl From<Refusal> for PartOutcome {
    fn from(Refusal { reason, detail }: Refusal) -> Self {
        Self::Refused(reason, detail)
    }
}

/// A part that is not of its time.
struct Untimely {
    refusal: Refusal,
    /// This host's clock says so; without, the part contradicts itself.
    by_the_clock: bool,
}

impl Untimely {
    /// What becomes of the part: only a clock that has been sure for some time refuses for good.
    fn judged(self, may_refuse: bool) -> PartOutcome {
        let Refusal { reason, detail } = self.refusal;
        if self.by_the_clock && !may_refuse {
            PartOutcome::Later(reason, detail)
        } else {
            PartOutcome::Refused(reason, detail)
        }
    }

    fn by_the_clock(reason: RefusalReason, detail: String) -> Self {
        Self { refusal: Refusal::new(reason, detail), by_the_clock: true }
    }

    fn by_itself(reason: RefusalReason, detail: String) -> Self {
        Self { refusal: Refusal::new(reason, detail), by_the_clock: false }
    }
}

fn check_time(part: &Part, epochs: &Epochs, now_ms: i64) -> Result<(), Untimely> {
    let round = part.key.round;
    if !epochs.all().iter().any(|epoch| epoch.period == round.period()) {
        let detail = format!("no epoch has rounds of {} s", round.period().seconds());
        return Err(Untimely::by_itself(RefusalReason::PeriodInvalid, detail));
    }
    if round.start_ms() > now_ms + CLOCK_SKEW_MS_MAX {
        let ahead_ms = round.start_ms() - now_ms;
        let detail = format!("round {} starts {ahead_ms} ms from now", round.start_s());
        return Err(Untimely::by_the_clock(RefusalReason::RoundInFuture, detail));
    }
    let lateness_ms = i64::try_from(LATENESS_S_MAX * 1000).unwrap_or(i64::MAX);
    if round.start_ms().saturating_add(lateness_ms) < now_ms {
        let detail = format!("round {} began more than 35 days ago", round.start_s());
        return Err(Untimely::by_the_clock(RefusalReason::RoundTooOld, detail));
    }
    let closes_ms = epochs.at(round.start_s()).closes_at_ms(round);
    let in_round = (round.start_ms()..closes_ms).contains(&part.observed_at_ms);
    if !in_round || part.observed_at_ms > now_ms + CLOCK_SKEW_MS_MAX {
        let detail = format!(
            "observed at {} ms, but round {} and its grace reach from {} to {} ms, and now it is \
             {now_ms} ms",
            part.observed_at_ms,
            round.start_s(),
            round.start_ms(),
            closes_ms
        );
        let reason = RefusalReason::ObservedOutsideRound;
        return Err(Untimely { refusal: Refusal::new(reason, detail), by_the_clock: in_round });
    }
    Ok(())
}

/// The gaps of a report. They decide nothing, so one that makes no sense is left out.
fn read_gaps(probe: &ProbeRecord, wire: &[v1::Gap], epochs: &Epochs, clock: &Judged) -> Vec<Gap> {
    // A probe whose clock is ahead may tell of rounds to come.
    let ahead_ms = clock.wall_ms.saturating_add(CLOCK_SKEW_MS_MAX);
    let end_s = if clock.is_sure() { epochs.round_at_ms(ahead_ms).end_s() } else { GAP_END_MAX_S };
    let read = |wire: &v1::Gap| {
        let reason = Reason::from_wire(wire.reason)?;
        let (from_s, to_s) = (wire.from_round_unix_s, wire.to_round_unix_s);
        let sane = from_s < to_s && to_s <= end_s;
        sane.then_some(Gap { probe: probe.number, from_s, to_s, reason })
    };
    let gaps: Vec<Gap> = wire.iter().take(GAPS_PER_REPORT_MAX).filter_map(read).collect();
    for Gap { from_s, to_s, reason, .. } in &gaps {
        let (name, reason) = (&probe.name, reason.as_str());
        tracing::warn!(probe = name, from_s, to_s, reason, "a probe has nothing of these rounds");
        counter!("uptime_ingest_gaps_total", "reason" => reason).increment(1);
    }
    if gaps.len() < wire.len() {
        let left_out = wire.len() - gaps.len();
        tracing::warn!(probe = probe.name, left_out, "gaps that are none, or too many of them");
    }
    gaps
}

/// The samples of a report, after its parts went through the decoder. They decide nothing, so those
/// that make no sense, or are of no round that may still come, are left out.
fn read_samples(
    probe: &ProbeRecord,
    report: &v1::Report,
    decoder: Option<&Decoder>,
) -> Vec<Sample> {
    let now_s = u64::try_from(now_unix_ms() / 1000).unwrap_or(0);
    let may_be = now_s.saturating_sub(LATENESS_S_MAX)..=now_s + 2;
    match samples_from_wire(report, decoder) {
        Ok(mut samples) => {
            samples.retain(|sample| may_be.contains(&sample.round_start_s));
            samples
        }
        Err(refusal) => {
            tracing::warn!(probe = probe.name, %refusal, "samples left out");
            Vec::new()
        }
    }
}

fn read_details(wire: &[v1::NodeDetails]) -> Result<Vec<(NodeId, Details)>, Refusal> {
    let refuse = |detail: String| Refusal::new(RefusalReason::DetailsInvalid, detail);
    if wire.len() > DETAILS_MAX {
        return Err(refuse(format!("{} details, at most {DETAILS_MAX}", wire.len())));
    }
    wire.iter()
        .map(|wire| {
            let id =
                NodeId::from_slice(&wire.node_id).map_err(|error| refuse(error.to_string()))?;
            let texts = [&wire.name, &wire.runtime, &wire.runtime_version];
            let mut texts = texts.into_iter().chain(&wire.networks);
            if texts.any(|text| {
                text.len() > DETAIL_TEXT_BYTES_MAX || text.chars().any(char::is_control)
            }) || wire.networks.len() > 32
            {
                return Err(refuse(format!(
                    "a text of {id} is too long or has control characters"
                )));
            }
            let details = Details {
                name: wire.name.clone(),
                runtime: wire.runtime.clone(),
                runtime_version: wire.runtime_version.clone(),
                networks: wire.networks.clone(),
                changed_s: 0,
            };
            Ok((id, details))
        })
        .collect()
}

fn part_status(outcome: &PartOutcome) -> (ReportStatus, RefusalReason) {
    match outcome {
        PartOutcome::Accepted => (ReportStatus::Accepted, RefusalReason::Unspecified),
        PartOutcome::Duplicate => (ReportStatus::Duplicate, RefusalReason::Unspecified),
        PartOutcome::Conflict => (ReportStatus::Conflict, RefusalReason::Unspecified),
        PartOutcome::Refused(reason, _) => (ReportStatus::Refused, *reason),
        PartOutcome::Later(reason, _) => (ReportStatus::Later, *reason),
    }
}

fn report_result(report_id: u64, outcomes: &[PartOutcome]) -> v1::ReportResult {
    // A report without parts, as one that only tells of a gap, is taken.
    let mut status = match outcomes {
        [] => ReportStatus::Accepted,
        _ => ReportStatus::Duplicate,
    };
    for outcome in outcomes {
        status = match (status, part_status(outcome).0) {
            // As long as one part is put off the report is to be sent again.
            (ReportStatus::Later, _) | (_, ReportStatus::Later) => ReportStatus::Later,
            (ReportStatus::Refused, _) | (_, ReportStatus::Refused) => ReportStatus::Refused,
            (ReportStatus::Conflict, _) | (_, ReportStatus::Conflict) => ReportStatus::Conflict,
            (ReportStatus::Accepted, _) | (_, ReportStatus::Accepted) => ReportStatus::Accepted,
            _ => ReportStatus::Duplicate,
        };
    }
    let refused = outcomes.iter().find_map(|outcome| match outcome {
        PartOutcome::Refused(reason, detail) | PartOutcome::Later(reason, detail) => {
            Some((*reason, detail.clone()))
        }
        _ => None,
    });
    let (reason, detail) = refused.unwrap_or((RefusalReason::Unspecified, String::new()));
    let alike = outcomes.windows(2).all(|pair| part_status(&pair[0]) == part_status(&pair[1]));
    let parts = if alike { &[] } else { outcomes };
    let parts = parts
        .iter()
        .map(part_status)
        .map(|(status, reason)| v1::PartResult { status: status as i32, reason: reason as i32 });
    v1::ReportResult {
        report_id,
        status: status as i32,
        reason: reason as i32,
        detail,
        parts: parts.collect(),
    }
}

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
                "this probe hands in more than it may; try again in {} s",
                owed.as_secs() + 1
            )));
        }
        let mut results = Vec::new();
        for report in request.into_inner().reports {
            // What it owes is asked for at the next call.
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uptime_proto::{Kind, Outcome, PartKey, Period, Sets};

    use super::*;

    #[test]
    fn only_a_clock_that_has_been_sure_refuses_for_good() {
        let epochs = Epochs::new(vec![Epoch::with_defaults(Period::new(30).unwrap())]).unwrap();
        let now_ms = 1_800_000_010_000;
        let judged = |slots: i64, after_ms: i64, may_refuse| {
            let round = epochs.round_at_ms(now_ms + slots * 30_000);
            let key = PartKey { subnet: "public".to_owned(), round, number: 0 };
            let part = Part {
                key,
                kind: Kind::Market,
                outcome: Outcome::Looked,
                observed_at_ms: round.start_ms() + after_ms,
                relay_session_age_s: None,
                sets: Sets::default(),
            };
            let untimely = check_time(&part, &epochs, now_ms).err()?;
            Some(part_status(&untimely.judged(may_refuse)))
        };
        let (refused, later) = (ReportStatus::Refused, ReportStatus::Later);
        let (future, old) = (RefusalReason::RoundInFuture, RefusalReason::RoundTooOld);
        let outside = RefusalReason::ObservedOutsideRound;
        for (slots, after_ms, for_good, for_now) in [
            (0, 9_000, None, None),
            (-100, 34_999, None, None),
            (1, 0, Some((refused, future)), Some((later, future))),
            (-200_000, 0, Some((refused, old)), Some((later, old))),
            (0, 20_000, Some((refused, outside)), Some((later, outside))),
            // No clock makes this right.
            (-100, 35_000, Some((refused, outside)), Some((refused, outside))),
        ] {
            assert_eq!(judged(slots, after_ms, true), for_good, "{slots} {after_ms}");
            assert_eq!(judged(slots, after_ms, false), for_now, "{slots} {after_ms}");
        }
    }

    #[test]
    fn everything_in_a_round_fits_before_it_closes() {
        let wanted = [(1, 266, 400), (10, 3_000, 4_250), (15, 8_000, 9_250), (30, 23_000, 24_250)];
        for (period_s, lookups_ms, suspects_ms) in wanted {
            let epoch = Epoch::with_defaults(Period::new(period_s).unwrap());
            let schedule = schedule_for(&epoch);
            let found = (schedule.lookups_offset_ms, schedule.suspects_offset_ms);
            assert_eq!(found, (lookups_ms, suspects_ms), "rounds of {period_s} s");
            // In rounds of 10 s and more the silent are asked to the end before the probe's
            // deadline, half a second before the close.
            if period_s >= 10 {
                assert!(
                    suspects_ms + 250 + 9_000 + 500 <= period_s * 1_000 + 4_500,
                    "{period_s} s"
                );
            }
            assert!(standing_ms(&epoch) < lookups_ms);
        }
        let quick = Epoch {
            grace_s: 3_600,
            direct_timeout_ms: 1,
            ..Epoch::with_defaults(Period::new(30).unwrap())
        };
        assert_eq!(schedule_for(&quick).suspects_offset_ms, 27_000, "not after the round");
        let of = |direct_timeout_ms| {
            let rules = Epoch::with_defaults(Period::new(10).unwrap());
            schedule_for(&Epoch { grace_s: 2, direct_timeout_ms, ..rules })
        };
        assert_eq!(of(300), of(1_000), "a daemon waits for a whole second");
    }
}
