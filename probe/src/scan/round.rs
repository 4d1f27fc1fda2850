//! One round of one probe, from its start to its grace.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use metrics::counter;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use uptime_proto::clock::Moment;
use uptime_proto::{
    Class, Epoch, Kind, NodeId, Outcome, Part, PartKey, Reason, Round, Sample, Sets, v1,
};

use super::clock_check::{Ages, NODES_MIN, SAMPLE_MAX};
use super::dormant::Silence;
use super::lookup::{Findings, Fresh, SuspectPlan, first_look_ups, suspects};
use super::node_cache::Listing;
use super::round_schedule::{fitted, look_ups_begin_ms};
use super::scanner::{Scanner, gap};
use super::sources::Sources;
use crate::clock::{moment, now_unix_ms};
use crate::control_state::{Plan, State};
use crate::time_format::utc;
use crate::yagna::CouldNotLook;

/// How long to wait for a late list of suspects.
const SUSPECTS_PATIENCE: Duration = Duration::from_millis(700);
/// Look-ups end this long before the round closes.
const REPORT_MS: i64 = 500;
/// How often a node's latency is measured.
const PING_EVERY_S: u32 = 3_600;
/// Pings of one round at most: a thirtieth of 10,000 nodes is due in a round of two minutes.
const PINGS_PER_ROUND_MAX: usize = 320;
/// The standing list of a round arrives after this many fifths of it, plus a reserve.
const STANDING_FIFTHS: i64 = 2;
const STANDING_SPARE_MS: i64 = 300;

/// Look-ups wait for the markets until the suspects are named, and at least this long.
const MARKETS_MS_MIN: i64 = 3_000;
/// Markets and look-ups go on side by side.
const STRANDS: usize = 2;

/// The counts of a round, for the log.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Parts in the spool.
    pub(super) parts: usize,
    pub(super) offers: usize,
    pub(super) looked_up: usize,
    pub(super) found: usize,
    pub(super) unreachable: usize,
    pub(super) failures: Vec<&'static str>,
    strands_done: usize,
    clock_was_set: bool,
}

/// A round being scanned.
pub(super) struct RoundScan<'a> {
    scanner: &'a Scanner,
    sources: Arc<Sources>,
    round: Round,
    epoch: &'a Epoch,
    plan: &'a Arc<Plan>,
    schedule: v1::Schedule,
    /// Ties timers and the boot clock to the time, once per round.
    began: (Instant, Moment),
    /// The time less this host's wall clock, milliseconds.
    offset_ms: i64,
    counts: Mutex<Counts>,
}

impl<'a> RoundScan<'a> {
    pub(super) fn new(
        scanner: &'a Scanner,
        round: Round,
        epoch: &'a Epoch,
        plan: &'a Arc<Plan>,
    ) -> Self {
        let now = scanner.control.clock().now();
        let began = (Instant::now(), now.moment);
        // There was a time a moment ago, when this round was found to be due.
        let offset_ms = now.offset_ms.unwrap_or(0);
        let sources = scanner.sources();
        let schedule = fitted(&plan.schedule, round);
        sources.yagna.limit_find_rate(sources.finds_per_s(&schedule));
        sources.yagna.limit_finds_in_flight(sources.finds_in_flight(&schedule));
        let counts = Mutex::default();
        Self { scanner, sources, round, epoch, plan, schedule, began, offset_ms, counts }
    }

    pub(super) async fn run(self) -> Counts {
        let listed = Notify::new();
        let markets = async {
            if self.sources.enabled.market {
                self.list_markets().await;
            }
            self.strand_done();
            listed.notify_one();
        };
        let look_ups = async {
            // Nodes on the market help to check the clock. A market that hangs must not delay the
            // look-ups.
            let period_ms = self.round.period().millis();
            let suspects_ms = i64::from(self.schedule.suspects_offset_ms);
            let patience_ms = suspects_ms.max(MARKETS_MS_MIN).min(period_ms);
            let until = self.instant(self.round.start_ms() + patience_ms);
            tokio::time::timeout_at(until, listed.notified()).await.ok();
            self.look_ups().await;
        };
        tokio::join!(markets, look_ups);
        self.into_counts()
    }

    async fn look_ups(&self) {
        let stage = match self.sources.enabled.looks_up() {
            true => self.first_stage().await,
            false => None,
        };
        let Some(stage) = stage else {
            self.strand_done();
            return;
        };
        let suspects_ms = i64::from(self.schedule.suspects_offset_ms);
        sleep_until(self.instant(self.round.start_ms() + suspects_ms)).await;
        // The living are pinged beside the suspects, and never in one call with them.
        let pings = ping(self.scanner, self.sources.clone(), stage.to_ping, self.round);
        let suspects = async {
            let suspects = self.suspects_of_round(stage.not_fresh).await;
            self.ask_suspects(&suspects).await;
            self.strand_done();
        };
        tokio::join!(pings, suspects);
    }

    async fn first_stage(&self) -> Option<FirstStage> {
        self.wait_for_look_ups().await;
        let standing = self.standing();
        let listed = self.list_relay(&standing).await;
        self.look_up(&standing, listed).await
    }

    /// One of the two strands, markets and look-ups, has made its last part; after the second one
    /// the round is done.
    fn strand_done(&self) {
        let mut counts = self.counts();
        counts.strands_done += 1;
        if counts.strands_done == STRANDS {
            self.scanner.spool.round_done(self.round.start_s());
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A leaf: nothing is awaited while it is held.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn into_counts(self) -> Counts {
        self.counts.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the relay's own listing says, where one is configured: the nodes of the list that are
    /// fresh by it. Other nodes this probe knows go into a part of their own. That a node is not
    /// listed says nothing: the relay may have been restarted.
    async fn list_relay(&self, standing: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let Some(relay) = self.sources.relay.clone() else {
            return BTreeSet::new();
        };
        let begun = Instant::now();
        let listing = within(self.deadline(), relay.fresh_view()).await;
        self.scanner.note_relay_took(begun.elapsed());
        match listing {
            Ok(listing) => {
                let fresh = Duration::from_secs(u64::from(self.epoch.freshness_s));
                let fresh = listing.iter().filter(|listed| listed.seen_ago <= fresh);
                // The relay lists requestors, too; report known nodes only.
                let known = self.scanner.remembered();
                let (asked, others): (BTreeSet<NodeId>, BTreeSet<NodeId>) = fresh
                    .map(|listed| listed.node_id)
                    .filter(|id| standing.contains(id) || known.contains(id))
                    .partition(|id| standing.contains(id));
                let sets = Sets::default().with(Class::Seen, others.into_iter().collect());
                self.keep(Kind::Relay, "", Outcome::Looked, None, sets);
                asked
            }
            Err(CouldNotLook { reason, detail }) => {
                self.could_not_look(Kind::Relay, "", reason, &detail, None);
                BTreeSet::new()
            }
        }
    }

    /// Waits until first look-ups are due. Their list may still change until shortly after the
    /// aggregator sends it.
    async fn wait_for_look_ups(&self) {
        let told_ms = self.round.period().millis() / 5 * STANDING_FIFTHS + STANDING_SPARE_MS;
        let begin_ms = self.look_ups_begin_ms(self.standing().len());
        sleep_until(self.instant(self.round.start_ms() + begin_ms.min(told_ms))).await;
        let begin_ms = self.look_ups_begin_ms(self.standing().len());
        sleep_until(self.instant(self.round.start_ms() + begin_ms)).await;
    }

    fn look_ups_begin_ms(&self, count: usize) -> i64 {
        let schedule = &self.schedule;
        let allowed = self.sources.finds_per_s(schedule);
        let reached = self.scanner.cache().found_per_s.unwrap_or(allowed);
        let listing_ms = match self.sources.relay {
            Some(_) => self.scanner.relay_takes_ms(),
            None => 0,
        };
        look_ups_begin_ms(schedule, count, allowed.min(reached), listing_ms)
    }

    fn instant(&self, time_ms: i64) -> Instant {
        let (instant, moment) = self.began;
        let began_ms = moment.wall_ms.saturating_add(self.offset_ms);
        let ahead = u64::try_from(time_ms.saturating_sub(began_ms)).unwrap_or(0);
        instant + Duration::from_millis(ahead)
    }

    /// Look-ups end so early that their part is still on time.
    fn deadline(&self) -> Instant {
        self.instant(self.epoch.closes_at_ms(self.round) - REPORT_MS)
    }

    fn fresh(&self) -> Fresh {
        Fresh {
            freshness_s: i64::from(self.epoch.freshness_s),
            now_ms: now_unix_ms,
            offset_ms: self.offset_ms,
        }
    }

    /// The market of every subnet, side by side; each part goes out as soon as it is there.
    async fn list_markets(&self) {
        let (scanner, sources) = (self.scanner, self.sources.clone());
        let end = self.instant(self.round.end_ms());
        let mut listings: FuturesUnordered<_> = (0..sources.subnets.len())
            .filter_map(|place| u16::try_from(place).ok())
            .map(|place| list_market(scanner, &sources, place, end))
            .collect();
        while let Some((place, listed)) = listings.next().await {
            let Some(subnet) = sources.subnets.get(usize::from(place)) else {
                continue;
            };
            match listed {
                Ok(listing) => {
                    let ids = self.scanner.note_offers(listing, place, self.round);
                    self.counts().offers += ids.len();
                    let sets = Sets::default().with(Class::Offer, ids);
                    self.keep(Kind::Market, subnet, Outcome::Looked, None, sets);
                }
                Err(CouldNotLook { reason, detail }) => {
                    self.could_not_look(Kind::Market, subnet, reason, &detail, None);
                }
            }
        }
    }

    /// The aggregator's list, or, left to itself, every node with an offer in the last day.
    fn standing(&self) -> Arc<BTreeSet<NodeId>> {
        let state = self.scanner.control.now();
        match state.standing {
            Some(list) if state.connected => list,
            _ => Arc::new(self.scanner.remembered()),
        }
    }

    /// First stage. `None` when there is no sense in a second one. Those the relay's listing showed
    /// to be fresh are asked for no more.
    async fn look_up(
        &self,
        ids: &BTreeSet<NodeId>,
        listed: BTreeSet<NodeId>,
    ) -> Option<FirstStage> {
        // Without a session no node can be looked up.
        self.relay_session_age_s().await?;
        self.counts().looked_up += ids.len();
        let mut findings = if self.sources.enabled.find_node {
            let asked = ids.difference(&listed).copied();
            let (begun, mut count) = (Instant::now(), 0);
            let (yagna, fresh, deadline) = (&self.sources.yagna, self.fresh(), self.deadline());
            let findings = first_look_ups(yagna, asked, fresh, deadline, || count += 1).await;
            self.scanner.note_find_rate(count, begun.elapsed());
            findings
        } else {
            let not_fresh = ids.difference(&listed).copied().collect();
            Findings { not_fresh, ..Findings::default() }
        };
        let told = self.clocks_disagree(findings.ages.clone(), ids, &listed).await;
        let session_age_s = self.relay_session_age_s().await;
        if let Some(told) = told {
            self.clock(&told, session_age_s);
            return None;
        }
        findings.seen.extend(listed);
        let not_fresh = findings.not_fresh.iter().copied().collect();
        let to_ping = match self.sources.enabled.latency {
            true => due_for_ping(&findings.seen, self.round),
            false => Vec::new(),
        };
        self.keep_findings(findings, session_age_s);
        Some(FirstStage { not_fresh, to_ping })
    }

    /// Whether the ages of first look-ups cannot be right, and what says so. Those asked for may
    /// all be dead, above all where a listing has shown who lives: then others tell the time.
    async fn clocks_disagree(
        &self,
        mut ages: Ages,
        ids: &BTreeSet<NodeId>,
        listed: &BTreeSet<NodeId>,
    ) -> Option<String> {
        if !self.sources.enabled.find_node {
            return None;
        }
        // By the listing's own ages, which are no times of day, these live.
        let lives = listed.len() >= NODES_MIN;
        if lives {
            ages.join(self.ages_of(some_of(listed)).await);
        } else if ages.all_old() {
            let remembered = self.scanner.remembered();
            let others = remembered.difference(ids).chain(listed).copied().collect();
            ages.join(self.ages_of(some_of(&others)).await);
        }
        let earlier = self.scanner.cache().stamps.clone();
        let freshness = Duration::from_secs(u64::from(self.epoch.freshness_s));
        let dead = match &earlier {
            Some(earlier) if ages.all_old() && !lives => {
                let found = self.ages_of(earlier.nodes()).await;
                earlier.none_came_back(&found, Instant::now(), freshness)
            }
            _ => false,
        };
        let told = (ages.in_future() || ages.all_old() && !dead).then(|| ages.told());
        self.scanner.cache().stamps = ages.kept(earlier, Instant::now(), freshness);
        told
    }

    async fn ages_of(&self, ids: Vec<NodeId>) -> Ages {
        let (yagna, deadline) = (&self.sources.yagna, self.deadline());
        first_look_ups(yagna, ids, self.fresh(), deadline, || {}).await.ages
    }

    /// The aggregator's suspects for this round, or, left to itself, those not fresh just now.
    async fn suspects_of_round(&self, own: BTreeSet<NodeId>) -> Arc<BTreeSet<NodeId>> {
        let round_s = self.round.start_s();
        let told = |state: &State| {
            !state.connected || state.suspects.as_ref().is_some_and(|(of, _)| *of >= round_s)
        };
        let waited =
            tokio::time::timeout(SUSPECTS_PATIENCE, self.scanner.control.wait_for(told)).await;
        let state = self.scanner.control.now();
        match state.suspects {
            Some((of, list)) if of == round_s && waited.is_ok() => list,
            _ => Arc::new(own),
        }
    }

    async fn ask_suspects(&self, ids: &BTreeSet<NodeId>) {
        let began = moment();
        if ids.is_empty() {
            self.note_silences(began, Vec::new());
            return;
        }
        let Some(age_s) = self.relay_session_age_s().await else {
            return;
        };
        let enabled = self.sources.enabled;
        let plan = SuspectPlan {
            direct_timeout: Duration::from_millis(u64::from(self.epoch.direct_timeout_ms)),
            direct_attempts: if enabled.direct { self.epoch.direct_attempts } else { 0 },
            find_node: enabled.find_node,
            may_stand_in: self.may_stand_in(began, age_s),
            ..SuspectPlan::default()
        };
        let deadline = self.deadline();
        // The relay answers at once for nodes that are long dead. Nodes that have just died take
        // the full time of the direct question, so they come first.
        let asked = self.scanner.likely_slow_first(ids);
        let mut findings =
            suspects(&self.sources.yagna, asked, self.fresh(), &plan, deadline, || {}).await;
        self.note_silences(began, std::mem::take(&mut findings.silences));
        // The relay or the daemon may have restarted meanwhile, and then living nodes are not found
        // for a while.
        let session_age_s = self.relay_session_age_s().await;
        // They may all be dead; and that a wrong clock makes the living look old does no harm
        // here: they answer.
        if findings.ages.in_future() {
            self.clock(&findings.ages.told(), session_age_s);
            return;
        }
        self.scanner.note_unreachable(&findings.unreachable);
        self.scanner.note_lookup_details(&findings.details, self.round);
        self.keep_findings(findings, session_age_s);
    }

    /// Whose earlier questions may stand in for this round's. A probe without an aggregator asks
    /// everybody in every round.
    fn may_stand_in(&self, began: Moment, session_age_s: u32) -> HashSet<NodeId> {
        let session_age = Duration::from_secs(u64::from(session_age_s));
        let daemon = self.sources.yagna.address();
        let mut cache = self.scanner.cache();
        let standing = cache.dormant.may_stand_in(self.round, began, session_age, daemon);
        if self.scanner.control.now().connected { standing } else { HashSet::new() }
    }

    fn note_silences(&self, began: Moment, silences: Vec<(NodeId, Silence)>) {
        self.scanner.cache().dormant.note(self.round, began.boot, silences.into_iter());
    }

    /// The age of the daemon's relay session. `None`: there is none, or it is unknown; a part says
    /// why.
    async fn relay_session_age_s(&self) -> Option<u32> {
        let (reason, detail) = match self.sources.yagna.relay_session_age().await {
            Ok(Some(age)) => return Some(u32::try_from(age.as_secs()).unwrap_or(u32::MAX)),
            Ok(None) => {
                let detail = "the daemon has no session with the relay";
                (Reason::RelaySessionMissing, detail.to_owned())
            }
            Err(CouldNotLook { reason, detail }) => (reason, detail),
        };
        self.could_not_look(Kind::Lookup, "", reason, &detail, None);
        None
    }

    fn clock(&self, told: &str, session_age_s: Option<u32>) {
        let detail = format!("{told}: check the clock");
        self.could_not_look(Kind::Lookup, "", Reason::Clock, &detail, session_age_s);
    }

    /// Turns findings into parts.
    fn keep_findings(&self, findings: Findings, session_age_s: Option<u32>) {
        self.counts().found += findings.seen.len() + findings.answered.len();
        self.counts().unreachable += findings.unreachable.len();
        for (outcome, sets, detail) in findings.into_parts() {
            if let Outcome::CouldNotLook(reason) = outcome {
                self.note_failure("", reason, &detail);
            }
            self.keep(Kind::Lookup, "", outcome, session_age_s, sets);
        }
    }

    fn could_not_look(
        &self,
        kind: Kind,
        subnet: &str,
        reason: Reason,
        detail: &str,
        session_age_s: Option<u32>,
    ) {
        self.note_failure(subnet, reason, detail);
        let outcome = Outcome::CouldNotLook(reason);
        self.keep(kind, subnet, outcome, session_age_s, Sets::default());
    }

    /// The round, for the log.
    fn name(&self) -> String {
        utc(self.round.start_s())
    }

    fn note_failure(&self, subnet: &str, reason: Reason, detail: &str) {
        tracing::warn!(round = self.name(), subnet, %reason, detail, "could not look");
        counter!("uptime_scan_could_not_look_total", "reason" => reason.as_str()).increment(1);
        self.counts().failures.push(reason.as_str());
    }

    /// No part is made of a round in which the clock was set; its rest is a gap.
    fn clock_was_set(&self) {
        counter!("uptime_scan_parts_clock_set_total").increment(1);
        if !std::mem::replace(&mut self.counts().clock_was_set, true) {
            let (from_s, to_s) = (self.round.start_s(), self.round.end_s());
            tracing::warn!(
                round = self.name(),
                "the clock was set during this round; it gets no more parts"
            );
            self.scanner.spool.report_gap(gap(from_s, to_s, Reason::Clock));
        }
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
        let now = moment();
        if now.has_stepped_since(self.began.1) {
            return self.clock_was_set();
        }
        // By the boot clock: a host that slept has not been looking meanwhile.
        let observed_at_ms = now.carried_from_ms(self.began.1).saturating_add(self.offset_ms);
        if observed_at_ms >= self.epoch.closes_at_ms(self.round) {
            tracing::warn!(round = self.name(), "a part was too late for its round");
            counter!("uptime_scan_parts_too_late_total").increment(1);
            return;
        }
        let limits = self.plan.part_limits();
        for sets in in_pieces(sets, limits.observations_per_part_max) {
            let key = PartKey { subnet: subnet.to_owned(), round: self.round, number: 0 };
            let part = Part { key, kind, outcome, observed_at_ms, relay_session_age_s, sets };
            match self.scanner.spool.append(part, &limits) {
                Ok(_) => self.counts().parts += 1,
                Err(error) => {
                    tracing::error!(round = self.name(), %error, "a part is lost");
                    counter!("uptime_scan_parts_lost_total").increment(1);
                }
            }
        }
    }
}

/// As many as it takes to tell the time by, from all over the set.
fn some_of(ids: &BTreeSet<NodeId>) -> Vec<NodeId> {
    ids.iter().step_by(ids.len().div_ceil(SAMPLE_MAX).max(1)).copied().collect()
}

/// Lists one market, offer by offer.
async fn list_market(
    scanner: &Scanner,
    sources: &Sources,
    place: u16,
    end: Instant,
) -> (u16, Result<Listing, CouldNotLook>) {
    let subnet = sources.subnets.get(usize::from(place)).map_or("", String::as_str);
    let mut listing = Listing::default();
    let listed = async {
        let take = |offer| scanner.take_offer(&mut listing, offer, place);
        sources.yagna.list_market_into(subnet, take).await
    };
    let listed = within(end, listed).await;
    (place, listed.map(|()| listing))
}

/// What was asked, if it is there before the round is over.
async fn within<T>(
    end: Instant,
    asked: impl Future<Output = Result<T, CouldNotLook>>,
) -> Result<T, CouldNotLook> {
    tokio::time::timeout_at(end, asked).await.unwrap_or_else(|_| {
        let detail = "the round was over".to_owned();
        Err(CouldNotLook { reason: Reason::TimedOut, detail })
    })
}

/// Which of the living are pinged in this round: each has a round of its own in every hour, by the
/// beginning of its id. Nodes of one round thus have adjacent ids, which takes few bytes.
fn due_for_ping(living: &[NodeId], round: Round) -> Vec<NodeId> {
    let period_s = round.period().seconds();
    let rounds = (PING_EVERY_S / period_s).max(1);
    let slot = round.start_s() / u64::from(period_s) % u64::from(rounds);
    let is_due = |id: &&NodeId| {
        let [first, second, third, fourth, ..] = *id.as_bytes();
        let beginning = u32::from_be_bytes([first, second, third, fourth]);
        (u64::from(beginning) * u64::from(rounds)) >> 32 == slot
    };
    living.iter().filter(is_due).copied().take(PINGS_PER_ROUND_MAX).collect()
}

/// Pings the living for their latency, in calls side by side: one that died just now holds up its
/// own call only. That one does not come back says nothing.
async fn ping(scanner: &Scanner, sources: Arc<Sources>, ids: Vec<NodeId>, round: Round) {
    let yagna = &sources.yagna;
    let calls = ids.chunks(yagna.limits().ping_batch_max).map(|batch| yagna.round_trips(batch));
    for trips in join_all(calls).await {
        let trips = match trips {
            Ok(trips) => trips,
            Err(fault) => {
                tracing::debug!(%fault, "cannot measure latency");
                continue;
            }
        };
        let samples = trips.iter().map(|trip| Sample {
            tcp_round_trip_us: trip.tcp.map(micros),
            udp_round_trip_us: trip.udp.map(micros),
            ..Sample::new(trip.node_id, round.start_s())
        });
        scanner.leave_samples(samples.collect());
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

struct FirstStage {
    not_fresh: BTreeSet<NodeId>,
    to_ping: Vec<NodeId>,
}

/// Splits sets so that no piece has more observations than this. At least one piece.
fn in_pieces(sets: Sets, most: usize) -> Vec<Sets> {
    if sets.count() <= most.max(1) {
        return vec![sets];
    }
    let mut pieces = Vec::new();
    // Who is ASKED_EARLIER is UNREACHABLE in the same piece.
    let earlier = sets.of(Class::AskedEarlier);
    for class in Class::ALL.into_iter().filter(|class| *class != Class::AskedEarlier) {
        let room = if class == Class::Unreachable { (most / 2).max(1) } else { most.max(1) };
        for ids in sets.of(class).chunks(room) {
            let is_in = |id: &NodeId| class == Class::Unreachable && ids.binary_search(id).is_ok();
            let earlier = earlier.iter().copied().filter(is_in).collect();
            let piece = Sets::default().with(class, ids.to_vec());
            pieces.push(piece.with(Class::AskedEarlier, earlier));
        }
    }
    pieces
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_pinged_once_an_hour() {
        let period = uptime_proto::Period::new(30).expect("it divides a day");
        let ids: Vec<NodeId> = (0..200u8).map(|byte| NodeId::new([byte; 20])).collect();
        let mut pinged = Vec::new();
        for number in 0..120 {
            let round = Round::new(1_800_000_000 + number * 30, period).expect("on a boundary");
            pinged.extend(due_for_ping(&ids, round));
        }
        pinged.sort_unstable();
        assert_eq!(pinged, ids);
    }

    #[test]
    fn pieces_hold_everything_once() {
        let id = |byte| NodeId::new([byte; 20]);
        let sets = Sets::default()
            .with(Class::Seen, (0..7).map(id).collect())
            .with(Class::Unreachable, (7..12).map(id).collect())
            .with(Class::AskedEarlier, (8..11).map(id).collect());
        let pieces = in_pieces(sets.clone(), 4);
        assert!(pieces.iter().all(|piece| piece.count() <= 4));
        for piece in &pieces {
            let unreachable = piece.of(Class::Unreachable);
            assert!(piece.of(Class::AskedEarlier).iter().all(|id| unreachable.contains(id)));
        }
        assert_eq!(pieces.iter().map(Sets::count).sum::<usize>(), sets.count());
        assert_eq!(in_pieces(Sets::default(), 3).len(), 1);
    }
}
