//! Wire messages made from a snapshot.
//!
//! Owns the translation and nothing else: it decides nothing and asks for nothing.

use std::fmt::Write;

use uptime_accounting::evidence::Ineligibility;
use uptime_accounting::explain::{Explanation, PartAccount, ProbeAccount};
use uptime_accounting::outage::Outage;
use uptime_accounting::probe_status::ProbeStatus;
use uptime_accounting::snapshot::NodeView;
use uptime_accounting::state::RoundSummary;
use uptime_accounting::uptime::Tally;
use uptime_accounting::verdict::Verdict;
use uptime_proto::{Outcome, Round, v1};

use crate::clock::{Judged, PeerClock};
use crate::engine::Snapshot;
use crate::store::Latency;

/// How fresh an answer from this snapshot is.
pub(super) fn freshness(snapshot: &Snapshot, now_ms: i64) -> v1::Freshness {
    let closed_s = snapshot.closed.map_or(0, Round::start_s);
    let epoch = snapshot.epochs.at(closed_s);
    v1::Freshness {
        last_closed_round_unix_s: closed_s,
        round_period_s: epoch.period.seconds(),
        answered_at_unix_ms: now_ms,
        method: uptime_proto::round::METHOD_FRESH.to_owned(),
        epoch_start_unix_s: epoch.start_s,
        store_id: snapshot.store_id.to_vec().into(),
        generation: snapshot.generation,
    }
}

fn verdict(verdict: Verdict) -> v1::Verdict {
    match verdict {
        Verdict::Up => v1::Verdict::Up,
        Verdict::Down => v1::Verdict::Down,
        Verdict::Unknown => v1::Verdict::Unknown,
    }
}

fn ineligibility(reason: Ineligibility) -> i32 {
    reason.to_wire() as i32
}

fn figures(tally: &Tally, from_unix_s: u64, to_unix_s: u64) -> v1::UptimeFigures {
    v1::UptimeFigures {
        uptime_percent: tally.uptime_percent(),
        coverage_percent: tally.coverage_percent(),
        up_s: tally.up_s,
        down_s: tally.down_s,
        unknown_s: tally.unknown_s,
        up_rounds: tally.up_rounds,
        down_rounds: tally.down_rounds,
        unknown_rounds: tally.unknown_rounds,
        window: Some(v1::Window { from_unix_s, to_unix_s }),
    }
}

pub(super) fn node(view: &NodeView<'_>, snapshot: &Snapshot) -> v1::Node {
    node_at(view, snapshot, snapshot.closed_end_s())
}

/// A node as it was when the round that ends then was closed.
pub(super) fn node_at(view: &NodeView<'_>, snapshot: &Snapshot, end_s: u64) -> v1::Node {
    let details = snapshot.details.get(view.number).unwrap_or_default();
    v1::Node {
        id: view.id.to_string(),
        is_online: view.is_online,
        verdict: verdict(view.verdict) as i32,
        verdict_since_unix_s: view.verdict_since_s,
        first_seen_unix_s: view.first_seen_s,
        last_seen_unix_ms: view.last_seen_ms,
        retired: view.retired,
        all: Some(figures(&view.tally, view.first_seen_s, end_s)),
        subnets: view.subnets.iter().map(|name| (*name).to_owned()).collect(),
        name: details.name,
        runtime: details.runtime,
        runtime_version: details.runtime_version,
        networks: details.networks,
        round_trip_us: view.round_trip_us,
        flapping: view.flapping,
        state_since_unix_s: view.state_since_s,
        state_unknown_rounds: view.state_unknown_rounds,
    }
}

pub(super) fn probe(
    status: &ProbeStatus,
    last: Option<&RoundSummary>,
    clock: Option<PeerClock>,
) -> v1::Probe {
    let measure = clock.and_then(|clock| clock.measure);
    let round = last.and_then(|last| last.probes.get(&status.number));
    let reasons = round.map_or(&[][..], |round| &round.ineligibilities);
    v1::Probe {
        name: status.name.clone(),
        connected: status.connected,
        revoked: status.revoked,
        software_version: status.software_version.clone(),
        subnets: status.subnets.clone(),
        last_report_unix_ms: status.last_report_ms.unwrap_or(0),
        last_round_unix_s: last.filter(|_| round.is_some()).map_or(0, |last| last.round.start_s()),
        eligible: round.is_some_and(|round| round.ballot.eligible),
        ineligibilities: reasons.iter().copied().map(ineligibility).collect(),
        could_not_look: round.map_or_else(Vec::new, |round| {
            round.could_not_look.iter().map(|reason| reason.to_wire() as i32).collect()
        }),
        failed_nodes: round.map_or(0, |round| round.failed_nodes),
        parts_accepted: status.parts_accepted,
        parts_refused: status.parts_refused,
        conflicts: status.conflicts,
        assigned_nodes: status.assigned_nodes,
        unconfirmed_nodes: status.unconfirmed_nodes,
        clock_offset_ms: measure.map(|measure| measure.offset_ms),
        clock_error_ms: measure.map_or(0, |measure| measure.error_ms.unsigned_abs()),
        kernel_clock: clock.map_or(0, |clock| clock.kernel.to_wire() as i32),
        clock_votes: clock.is_some_and(|clock| clock.votes),
        gaps: status
            .gaps
            .iter()
            .map(|gap| v1::ProbeGap {
                from_round_unix_s: gap.from_s,
                to_round_unix_s: gap.to_s,
                reason: gap.reason.to_wire() as i32,
            })
            .collect(),
    }
}

pub(super) fn round(summary: &RoundSummary, snapshot: &Snapshot) -> v1::Round {
    let eligible = summary.probes.values().filter(|probe| probe.ballot.eligible).count();
    let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::Round {
        start_unix_s: summary.round.start_s(),
        period_s: summary.round.period().seconds(),
        up: summary.up,
        down: summary.down,
        unknown: summary.unknown,
        probes_reported: narrow(summary.probes.len()),
        probes_eligible: narrow(eligible),
        probes: summary
            .probes
            .iter()
            .map(|(number, probe)| v1::RoundProbe {
                probe: probe_name(*number, snapshot),
                eligible: probe.ballot.eligible,
                ineligibilities: probe.ineligibilities.iter().copied().map(ineligibility).collect(),
                could_not_look: probe.could_not_look.iter().map(|r| r.to_wire() as i32).collect(),
                offers: probe.offers,
                looked: probe.tallied.looked,
                found: probe.tallied.found,
                failed_nodes: probe.failed_nodes,
            })
            .collect(),
    }
}

/// A node over a window, and how it stood at its end.
pub(super) fn uptime(
    snapshot: &Snapshot,
    number: u32,
    id: String,
    (from_s, to_s): (u64, u64),
) -> v1::NodeUptime {
    let windowed = snapshot.windowed(number, from_s, to_s);
    let ending = snapshot.ending(number, &windowed);
    let up = ending.and_then(|ending| ending.up);
    v1::NodeUptime {
        id,
        figures: Some(figures(&windowed.tally, windowed.from_s, windowed.to_s)),
        verdict: ending.map(|ending| verdict(ending.verdict) as i32),
        is_online: ending.map(|ending| ending.is_online),
        first_up_unix_s: up.map(|(first_s, _)| first_s),
        up_until_unix_s: up.map(|(_, until_s)| until_s),
        latency: None,
    }
}

pub(super) fn latency(latency: &Latency) -> v1::Latency {
    v1::Latency {
        samples: latency.samples,
        min_us: latency.min_us,
        mean_us: latency.mean_us(),
        max_us: latency.max_us,
    }
}

pub(super) fn outage(outage: &Outage) -> v1::Outage {
    let window = |(from_unix_s, to_unix_s): &(u64, u64)| v1::Window {
        from_unix_s: *from_unix_s,
        to_unix_s: *to_unix_s,
    };
    v1::Outage {
        from_unix_s: outage.from_s,
        to_unix_s: outage.to_s,
        open: outage.open,
        unknown_stretches: outage.unknown.iter().map(window).collect(),
    }
}

fn part_account(part: &PartAccount, snapshot: &Snapshot) -> v1::PartEvidence {
    let (outcome, reason) = match part.outcome {
        Outcome::Looked => (v1::Outcome::Looked, v1::CouldNotLookReason::Unspecified),
        Outcome::CouldNotLook(reason) => (v1::Outcome::CouldNotLook, reason.to_wire()),
    };
    let subnet = snapshot.subnets.get(part.key.subnet as usize);
    v1::PartEvidence {
        kind: part.kind.to_wire() as i32,
        subnet: subnet.cloned().unwrap_or_default(),
        number: u32::from(part.key.number),
        outcome: outcome as i32,
        reason: reason as i32,
        observed_at_unix_ms: part.observed_at_ms,
        received_at_unix_ms: part.received_at_ms,
        evidence: part.evidence.iter().map(|class| class.to_wire() as i32).collect(),
        relay_session_age_s: part.relay_session_age_s,
        seen_age_ms: part.seen_age_ms,
        answered_in_ms: part.answered_in_ms,
        conflict: part.outranked,
        retracted: part.retracted,
        asked_round_unix_s: part.asked_round_s,
        age_kept: part.age_kept,
        failed_nodes: part.failed_nodes,
    }
}

fn probe_account(account: &ProbeAccount, snapshot: &Snapshot) -> v1::ProbeEvidence {
    v1::ProbeEvidence {
        probe: probe_name(account.probe, snapshot),
        eligible: account.eligible,
        ineligibilities: account.ineligibilities.iter().copied().map(ineligibility).collect(),
        parts: account.parts.iter().map(|part| part_account(part, snapshot)).collect(),
    }
}

fn probe_name(number: u32, snapshot: &Snapshot) -> String {
    let status = snapshot.probes.iter().find(|status| status.number == number);
    status.map_or_else(|| format!("probe {number}"), |status| status.name.clone())
}

/// Which probes said that they have nothing of a round, and why: sentences to follow a rule.
pub(super) fn gaps(snapshot: &Snapshot, round: Round) -> String {
    let mut words = String::new();
    for (status, reason) in snapshot.gaps_of(round) {
        // Writing to a String cannot fail.
        let why = uptime_proto::words::reason(reason);
        write!(words, ". {} has nothing of this round: {why}", status.name).ok();
    }
    words
}

/// The explanation of a node's verdict in a round; `rule` is a sentence.
pub(super) fn explanation(
    id: String,
    account: &Explanation,
    rule: String,
    snapshot: &Snapshot,
    now_ms: i64,
) -> v1::ExplainResponse {
    let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::ExplainResponse {
        id,
        round_unix_s: account.round.start_s(),
        verdict: verdict(account.verdict) as i32,
        rule,
        probes: account.probes.iter().map(|probe| probe_account(probe, snapshot)).collect(),
        positive_probes: narrow(account.positive),
        eligible_probes: narrow(account.eligible),
        eligible_looked: narrow(account.looked),
        eligible_unreachable: narrow(account.unreachable),
        epoch: Some((&account.epoch).into()),
        freshness: Some(freshness(snapshot, now_ms)),
    }
}

/// The network in a few numbers.
pub(super) fn summary(snapshot: &Snapshot, clock: &Judged) -> v1::GetSummaryResponse {
    let counts = snapshot.counts();
    let last = snapshot.rounds.last();
    let decided = last.map(|last| (last.up + last.down, last.up + last.down + last.unknown));
    #[expect(clippy::cast_precision_loss, reason = "numbers of nodes")]
    let coverage = decided
        .filter(|(_, all)| *all > 0)
        .map(|(decided, all)| 100.0 * decided as f64 / all as f64);
    let eligible =
        last.map_or(0, |last| last.probes.values().filter(|probe| probe.ballot.eligible).count());
    let connected = snapshot.probes.iter().filter(|probe| probe.connected).count();
    let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::GetSummaryResponse {
        nodes: counts.listed,
        online: counts.online,
        retired: counts.retired,
        unconfirmed: counts.unconfirmed,
        coverage_percent: coverage,
        probes_connected: narrow(connected),
        probes_eligible: narrow(eligible),
        freshness: Some(freshness(snapshot, clock.wall_ms)),
        clock_state: clock.state.to_wire() as i32,
        clock_detail: clock.why.clone(),
    }
}
