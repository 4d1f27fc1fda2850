//! Checks a report's form, time and subnets, and hands it to the ledger.
//!
//! Owns the checks of single reports. Refuses what is wrong by itself or in time; the ledger
//! decides whether an id is a node and what a part means.

use std::sync::Arc;

use metrics::counter;
use tonic::{Request, Status};
use uptime_accounting::fact::Gap;
use uptime_proto::convert::{
    Decoder, IdPool, PartLimits, Refusal, part_from_wire, samples_from_wire,
};
use uptime_proto::v1::{self, RefusalReason, ReportStatus};
use uptime_proto::{Epochs, NodeId, Part, Reason, Sample};

use super::announce::Announced;
use super::connections::Connections;
use crate::access::audit::Auditor;
use crate::access::limits::Rates;
use crate::access::{CallContext, Refusal as AccessRefusal};
use crate::clock::{Judged, now_unix_ms};
use crate::engine::LATENESS_S_MAX;
use crate::ledger::{Ledger, PartOutcome, Submission, Unavailable};
use crate::store::{Details, ProbeRecord};

/// A part may be this far ahead of this host's clock: the bound of a probe's offset.
const CLOCK_SKEW_MS_MAX: i64 = 2_000;
/// Parts in one report; further ones are refused.
const PARTS_PER_REPORT_MAX: usize = 64;
/// Unanswered reports of one stream; at this number the stream is not read.
pub(super) const REPORTS_IN_FLIGHT_MAX: usize = 64;
/// Node details in one report; a report with more loses them all.
const DETAILS_MAX: usize = 4_000;
/// Bytes in one text of a node's details.
const DETAIL_TEXT_BYTES_MAX: usize = 256;

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// Limits on single parts.
    pub part_limits: PartLimits,
    /// The rules and the schedule that probes are told.
    pub announced: Announced,
    /// How fast a probe may hand in parts.
    pub rates: Rates,
    /// Records parts of subnets that a probe may not report.
    pub auditor: Auditor,
}

/// Gaps in one report; further ones are dropped. A probe sends one.
const GAPS_PER_REPORT_MAX: usize = 16;
/// The end of the year 9999; later times are invalid.
const GAP_END_MAX_S: u64 = 253_402_300_800;
/// The Collector service.
#[derive(Clone)]
pub struct Ingest {
    pub(super) ledger: Ledger,
    pub(super) connections: Connections,
    pub(super) options: Arc<IngestOptions>,
    /// Ids that probes have numbered on their streams.
    pub(super) ids: IdPool,
}

impl Ingest {
    /// The service over a ledger; `connections` is shared with `dispatch`.
    #[must_use]
    pub fn new(ledger: Ledger, connections: Connections, options: IngestOptions) -> Self {
        Self { ledger, connections, options: Arc::new(options), ids: IdPool::default() }
    }

    /// Checks a report and queues it. The outer future ends when the report is in the ledger's
    /// queue, the inner one when it is durable.
    pub(super) async fn take(
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
            tracing::warn!(probe = probe.name, %refusal, "details dropped");
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

    pub(super) fn limits(&self) -> v1::Limits {
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

/// The probe that calls, as the gate identified it.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) probe: Arc<ProbeRecord>,
    pub(super) pass: CallContext,
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let pass = request.extensions().get::<CallContext>().cloned();
        let caller = pass.and_then(|pass| {
            let probe = pass.identity.as_ref()?.probe.clone()?;
            Some(Self { probe, pass })
        });
        caller.ok_or_else(|| Status::unauthenticated("only a probe may make this call"))
    }
}

/// The round that a report ends. `None` if its last part was refused.
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
    let detail = format!("{} may report the subnets {allowed}, not {subnet}", probe.name);
    Err(Refusal::new(RefusalReason::SubnetNotAllowed, detail))
}

/// Logs and counts a part that was refused or deferred.
fn tell(outcome: &PartOutcome, probe: &str) {
    match outcome {
        PartOutcome::Refused(reason, detail) => {
            let reason = reason.as_str_name();
            counter!("uptime_ingest_parts_refused_total", "reason" => reason).increment(1);
            tracing::warn!(probe, reason, detail, "part refused");
        }
        PartOutcome::Later(reason, detail) => {
            let reason = reason.as_str_name();
            counter!("uptime_ingest_parts_put_off_total", "reason" => reason).increment(1);
            tracing::debug!(probe, reason, detail, "part deferred: the clock is not sure");
        }
        PartOutcome::Accepted | PartOutcome::Duplicate | PartOutcome::Conflict => {}
    }
}

impl From<Refusal> for PartOutcome {
    fn from(Refusal { reason, detail }: Refusal) -> Self {
        Self::Refused(reason, detail)
    }
}

/// A part whose time is not acceptable.
struct Untimely {
    refusal: Refusal,
    /// This host's clock decides; if false, the part contradicts itself.
    by_the_clock: bool,
}

impl Untimely {
    /// The outcome. Only a clock that has been sure for some time refuses for good.
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

/// The gaps of a report. They decide nothing, so invalid ones are dropped.
fn read_gaps(probe: &ProbeRecord, wire: &[v1::Gap], epochs: &Epochs, clock: &Judged) -> Vec<Gap> {
    // A probe whose clock is ahead may report future rounds.
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
        tracing::warn!(probe = name, from_s, to_s, reason, "gap reported");
        counter!("uptime_ingest_gaps_total", "reason" => reason).increment(1);
    }
    if gaps.len() < wire.len() {
        let left_out = wire.len() - gaps.len();
        tracing::warn!(probe = probe.name, left_out, "invalid or surplus gaps dropped");
    }
    gaps
}

/// The samples of a report, after the decoder has seen its parts. They decide nothing, so invalid
/// ones and those of unacceptable rounds are dropped.
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
            tracing::warn!(probe = probe.name, %refusal, "samples dropped");
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
    // A report without parts, such as one with a gap only, is accepted.
    let mut status = match outcomes {
        [] => ReportStatus::Accepted,
        _ => ReportStatus::Duplicate,
    };
    for outcome in outcomes {
        status = match (status, part_status(outcome).0) {
            // If one part is deferred, the probe sends the report again.
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uptime_proto::{Epoch, Kind, Outcome, PartKey, Period, Sets};

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
}
