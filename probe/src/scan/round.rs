//! One round of one probe, from its start to its grace.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use metrics::counter;
use tokio::time::{Instant, sleep_until};
use uptime_proto::{Class, Epoch, Kind, NodeId, Outcome, Part, PartKey, Reason, Round, Sets};

use super::{Findings, Fresh, REPORT_MS, Scanner, SuspectPlan, first_look_ups, suspects};
use crate::clock::now_unix_ms;
use crate::orders::{CLOCK_OFFSET_MS_MAX, Plan, State};
use crate::yagna::CouldNotLook;

/// How long after its time the list of suspects is waited for.
const SUSPECTS_PATIENCE: Duration = Duration::from_millis(700);

/// What a round came to, for the log.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) offers: usize,
    pub(super) looked_up: usize,
    pub(super) found: usize,
    pub(super) unreachable: usize,
    pub(super) failures: Vec<&'static str>,
}

/// A round being scanned.
pub(super) struct RoundScan<'a> {
    scanner: &'a Scanner,
    round: Round,
    epoch: &'a Epoch,
    plan: &'a Arc<Plan>,
    /// Ties the monotonic clock to aggregator time, once per round.
    anchor: (Instant, i64),
    offset_ms: i64,
    end_ms: i64,
    counts: Counts,
}

impl<'a> RoundScan<'a> {
    pub(super) fn new(
        scanner: &'a Scanner,
        round: Round,
        epoch: &'a Epoch,
        plan: &'a Arc<Plan>,
        end_ms: i64,
    ) -> Self {
        let state: State = scanner.orders.now();
        let anchor = (Instant::now(), state.now_ms());
        let offset_ms = state.clock_offset_ms;
        Self { scanner, round, epoch, plan, anchor, offset_ms, end_ms, counts: Counts::default() }
    }

    pub(super) async fn run(mut self) -> Counts {
        if self.offset_ms.abs() > CLOCK_OFFSET_MS_MAX {
            let detail = format!("this host's clock is {} ms off the aggregator's", self.offset_ms);
            self.could_not_look(Kind::Lookup, "", Reason::Clock, &detail, None);
            return self.counts;
        }
        self.list_markets().await;
        let lookups_ms = i64::from(self.plan.schedule.lookups_offset_ms);
        sleep_until(self.instant(self.round.start_ms() + lookups_ms)).await;
        let standing = self.standing();
        let Some(stage) = self.look_up(&standing).await else {
            return self.counts;
        };
        let suspects_ms = i64::from(self.plan.schedule.suspects_offset_ms);
        sleep_until(self.instant(self.round.start_ms() + suspects_ms)).await;
        let suspects = self.suspects_of_round(stage.not_fresh).await;
        self.ask_suspects(&suspects, stage.session_age_s).await;
        self.counts
    }

    fn now_ms(&self) -> i64 {
        let since = i64::try_from(self.anchor.0.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.anchor.1.saturating_add(since)
    }

    fn instant(&self, aggregator_ms: i64) -> Instant {
        let ahead = u64::try_from(aggregator_ms.saturating_sub(self.anchor.1)).unwrap_or(0);
        self.anchor.0 + Duration::from_millis(ahead)
    }

    fn deadline(&self) -> Instant {
        self.instant(self.end_ms - REPORT_MS)
    }

    fn fresh(&self) -> Fresh {
        Fresh {
            freshness_s: i64::from(self.epoch.freshness_s),
            now_ms: now_unix_ms,
            offset_ms: self.offset_ms,
        }
    }

    /// The market of every subnet, side by side; each part goes out as soon as it is there.
    async fn list_markets(&mut self) {
        let yagna = &self.scanner.yagna;
        let end = self.instant(self.round.end_ms());
        let listings = self.scanner.subnets.iter().map(|subnet| async move {
            let listed = tokio::time::timeout_at(end, yagna.list_market(subnet)).await;
            let listed = listed.unwrap_or_else(|_| {
                let detail = "the round was over".to_owned();
                Err(CouldNotLook { reason: Reason::TimedOut, detail })
            });
            (subnet.clone(), listed)
        });
        for (subnet, listed) in join_all(listings).await {
            match listed {
                Ok(offers) => {
                    self.scanner.note_offers(&offers, self.round);
                    let ids: BTreeSet<NodeId> = offers.iter().map(|offer| offer.node_id).collect();
                    self.counts.offers += ids.len();
                    let ids = ids.into_iter().collect();
                    let sets = Sets::default().with(Class::Offer, ids);
                    self.keep(Kind::Market, &subnet, Outcome::Looked, None, sets);
                }
                Err(failure) => {
                    let CouldNotLook { reason, detail } = failure;
                    self.could_not_look(Kind::Market, &subnet, reason, &detail, None);
                }
            }
        }
    }

    /// The aggregator's list, or, left to itself, every node with an offer in the last day.
    fn standing(&self) -> Arc<BTreeSet<NodeId>> {
        let state = self.scanner.orders.now();
        match state.standing {
            Some(list) if state.connected => list,
            _ => Arc::new(self.scanner.remembered()),
        }
    }

    /// First stage. `None` when there is no sense in a second one.
    async fn look_up(&mut self, ids: &BTreeSet<NodeId>) -> Option<FirstStage> {
        let session_age_s = match self.relay_session_age_s().await {
            Ok(Some(age)) => age,
            Ok(None) => {
                let detail = "the daemon has no session with the relay";
                let reason = Reason::RelaySessionMissing;
                self.could_not_look(Kind::Lookup, "", reason, detail, None);
                return None;
            }
            Err(CouldNotLook { reason, detail }) => {
                self.could_not_look(Kind::Lookup, "", reason, &detail, None);
                return None;
            }
        };
        let deadline = self.deadline();
        let findings =
            first_look_ups(&self.scanner.yagna, ids, self.fresh(), deadline, || {}).await;
        self.counts.looked_up += ids.len();
        let not_fresh = findings.not_fresh.iter().copied().collect();
        self.keep_findings(findings, session_age_s)
            .then_some(FirstStage { not_fresh, session_age_s })
    }

    /// The aggregator's suspects for this round, or, left to itself, those not fresh just now.
    async fn suspects_of_round(&self, own: BTreeSet<NodeId>) -> Arc<BTreeSet<NodeId>> {
        let round_s = self.round.start_s();
        let told = |state: &State| {
            !state.connected || state.suspects.as_ref().is_some_and(|(of, _)| *of >= round_s)
        };
        let waited =
            tokio::time::timeout(SUSPECTS_PATIENCE, self.scanner.orders.wait_for(told)).await;
        let state = self.scanner.orders.now();
        match state.suspects {
            Some((of, list)) if of == round_s && waited.is_ok() => list,
            _ => Arc::new(own),
        }
    }

    async fn ask_suspects(&mut self, ids: &BTreeSet<NodeId>, first_age_s: u32) {
        if ids.is_empty() {
            return;
        }
        // The session may have been lost since the first stage: the younger age counts.
        let session_age_s = match self.relay_session_age_s().await {
            Ok(Some(age)) => age.min(first_age_s.saturating_add(self.round.period().seconds())),
            Ok(None) => {
                let detail = "the daemon lost its session with the relay";
                let reason = Reason::RelaySessionMissing;
                self.could_not_look(Kind::Lookup, "", reason, detail, None);
                return;
            }
            Err(CouldNotLook { reason, detail }) => {
                self.could_not_look(Kind::Lookup, "", reason, &detail, None);
                return;
            }
        };
        let plan = SuspectPlan {
            direct_timeout: Duration::from_millis(u64::from(self.epoch.direct_timeout_ms)),
            direct_attempts: self.epoch.direct_attempts,
        };
        let deadline = self.deadline();
        let findings =
            suspects(&self.scanner.yagna, ids, self.fresh(), plan, deadline, || {}).await;
        self.keep_findings(findings, session_age_s);
    }

    async fn relay_session_age_s(&self) -> Result<Option<u32>, CouldNotLook> {
        let age = self.scanner.yagna.relay_session_age().await?;
        Ok(age.map(|age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX)))
    }

    /// Turns findings into parts; answers whether they were worth anything.
    fn keep_findings(&mut self, findings: Findings, session_age_s: u32) -> bool {
        if findings.clocks_disagree() {
            let (age_s, over) = findings.youngest_s.unwrap_or_default();
            let detail = format!(
                "of {over} nodes the one seen last was seen {age_s} s ago: check the clock"
            );
            let age = Some(session_age_s);
            self.could_not_look(Kind::Lookup, "", Reason::Clock, &detail, age);
            return false;
        }
        let nothing = findings.seen.is_empty()
            && findings.answered.is_empty()
            && findings.unreachable.is_empty()
            && findings.not_fresh.is_empty();
        let failure = findings.main_failure().map(|(reason, detail)| (reason, detail.to_owned()));
        self.counts.found += findings.seen.len() + findings.answered.len();
        self.counts.unreachable += findings.unreachable.len();
        if !(nothing && failure.is_some()) {
            let sets = Sets::default()
                .with(Class::Seen, findings.seen)
                .with(Class::Answered, findings.answered)
                .with(Class::Unreachable, findings.unreachable);
            self.keep(Kind::Lookup, "", Outcome::Looked, Some(session_age_s), sets);
        }
        if let Some((reason, detail)) = failure {
            let age = Some(session_age_s);
            self.could_not_look(Kind::Lookup, "", reason, &detail, age);
        }
        true
    }

    fn could_not_look(
        &mut self,
        kind: Kind,
        subnet: &str,
        reason: Reason,
        detail: &str,
        session_age_s: Option<u32>,
    ) {
        tracing::warn!(round = self.round.start_s(), subnet, %reason, detail, "could not look");
        counter!("uptime_scan_could_not_look_total", "reason" => reason.as_str()).increment(1);
        self.counts.failures.push(reason.as_str());
        let outcome = Outcome::CouldNotLook(reason);
        self.keep(kind, subnet, outcome, session_age_s, Sets::default());
    }

    /// Puts a part, in pieces that fit a message, into the spool.
    fn keep(
        &self,
        kind: Kind,
        subnet: &str,
        outcome: Outcome,
        relay_session_age_s: Option<u32>,
        sets: Sets,
    ) {
        let observed_at_ms = self.now_ms();
        if observed_at_ms >= self.epoch.closes_at_ms(self.round) {
            tracing::warn!(round = self.round.start_s(), "a part came too late for its round");
            counter!("uptime_scan_parts_too_late_total").increment(1);
            return;
        }
        let limits = self.plan.part_limits();
        for sets in in_pieces(sets, limits.observations_per_part_max) {
            let key = PartKey { subnet: subnet.to_owned(), round: self.round, number: 0 };
            let part = Part { key, kind, outcome, observed_at_ms, relay_session_age_s, sets };
            if let Err(error) = self.scanner.spool.append(part, &limits) {
                tracing::error!(%error, "a part is lost");
                counter!("uptime_scan_parts_lost_total").increment(1);
            }
        }
    }
}

struct FirstStage {
    not_fresh: BTreeSet<NodeId>,
    session_age_s: u32,
}

/// Splits sets so that no piece has more observations than this. At least one piece.
fn in_pieces(sets: Sets, most: usize) -> Vec<Sets> {
    if sets.count() <= most.max(1) {
        return vec![sets];
    }
    let mut pieces = Vec::new();
    for class in Class::ALL {
        for ids in sets.of(class).chunks(most.max(1)) {
            pieces.push(Sets::default().with(class, ids.to_vec()));
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hold_everything_once() {
        let id = |byte| NodeId::new([byte; 20]);
        let sets = Sets::default()
            .with(Class::Seen, (0..7).map(id).collect())
            .with(Class::Unreachable, (7..9).map(id).collect());
        let pieces = in_pieces(sets.clone(), 3);
        assert!(pieces.iter().all(|piece| piece.count() <= 3));
        assert_eq!(pieces.iter().map(Sets::count).sum::<usize>(), sets.count());
        assert_eq!(in_pieces(Sets::default(), 3).len(), 1);
    }
}
