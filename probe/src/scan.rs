//! When a round is due and how it becomes parts, failures included.
//!
//! Owns the course of a round: the market of each subnet at its start, or at once in a round that
//! is joined later, first look-ups, then suspects. Every part goes to the spool and nowhere else.
//! Refuses to judge: freshness of `seen` is all it decides. Whatever could not be looked at becomes
//! a part that says so and why; rounds that were not scanned at all are reported as a gap.

mod clocks;
mod dormant;
mod grid;
mod lookup;
mod memory;
mod round;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uptime_proto::{Epoch, NodeId, Reason, Round, Sample, v1};

use crate::clock::{NoTime, Now, moment};
use crate::orders::{Orders, Plan, State};
use crate::spool::{AGE_MAX_S, Spool};
use crate::yagna::relay::RelayWatch;
use crate::yagna::{Offer, Yagna};
pub use clocks::Ages;
pub use dormant::{Dormant, Silence};
use grid::{Begun, Grid, look_ups_take_ms};
pub use lookup::{Aside, Findings, Fresh, Seen, SuspectPlan, first_look_ups, suspects};
use memory::{Listing, Memory};
use round::RoundScan;

/// Fewer look-ups do not tell how quickly many would go.
const PACE_TOLD_BY: usize = 100;
/// How long the relay's first listing is expected to take: 500 pages at 100 a second.
const RELAY_TAKES: Duration = Duration::from_secs(5);
/// The aggregator's list of look-ups follows its greeting at once; it is waited for so long where
/// it decides whether a round may still be joined.
const LIST_PATIENCE: Duration = Duration::from_millis(500);
/// A clock that nothing confirms is read again after so long.
const CLOCK_AGAIN: Duration = Duration::from_secs(1);
/// A spool that lets no round be made is asked again after so long.
const SPOOL_AGAIN: Duration = Duration::from_secs(1);

/// What is asked, and how. Replaced as a whole when the settings are read anew; a round keeps to
/// the one it began with.
#[derive(Debug)]
pub struct Sources {
    /// The daemon.
    pub yagna: Yagna,
    /// The relay's own listing, where one is configured.
    pub relay: Option<RelayWatch>,
    /// The subnets whose markets are listed.
    pub subnets: Vec<String>,
    /// Which questions are put.
    pub enabled: Enabled,
}

/// Which sources of evidence are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enabled {
    /// The market listing.
    pub market: bool,
    /// Look-ups by `FindNode`.
    pub find_node: bool,
    /// The direct question.
    pub direct: bool,
    /// Pings for latency.
    pub latency: bool,
}

impl Enabled {
    /// Everything.
    pub const ALL: Self = Self { market: true, find_node: true, direct: true, latency: true };

    /// Whether nodes are looked up at all.
    fn looks_up(self) -> bool {
        self.find_node || self.direct
    }
}

impl Sources {
    /// The lower of this host's rate and the aggregator's.
    fn finds_per_s(&self, schedule: &v1::Schedule) -> u32 {
        let own = self.yagna.limits().finds_per_s_max;
        match schedule.lookups_per_s_max {
            0 => own,
            told => told.min(own),
        }
    }

    /// The lower of this host's number of questions in flight and the aggregator's.
    fn finds_in_flight(&self, schedule: &v1::Schedule) -> usize {
        let own = self.yagna.limits().find_in_flight_max;
        match schedule.lookups_in_flight_max {
            0 => own,
            told => own.min(told as usize),
        }
    }
}

/// What a scanner works with.
#[derive(Clone)]
pub struct Scanner {
    sources: watch::Receiver<Arc<Sources>>,
    spool: Spool,
    orders: Orders,
    /// 0 to 999: where in the jitter this probe begins its rounds.
    jitter_permille: u16,
    memory: Arc<Mutex<Memory>>,
    /// When the scanner last began a round or saw that it has to wait for one, by the boot clock,
    /// in milliseconds.
    alive_ms: Arc<AtomicU64>,
    /// The start of this run's first round, where it is not known yet which one the last run made
    /// last; 0: nothing is owed.
    owed_until_s: Arc<AtomicU64>,
}

impl Scanner {
    /// A scanner over these sources. `name` only decides the probe's place in the jitter.
    #[must_use]
    pub fn new(
        sources: watch::Receiver<Arc<Sources>>,
        spool: Spool,
        orders: Orders,
        name: &str,
    ) -> Self {
        let memory = Memory::new(name);
        let jitter = crc32fast::hash(name.as_bytes()) % 1000;
        Self {
            sources,
            spool,
            orders,
            jitter_permille: u16::try_from(jitter).unwrap_or(0),
            memory: Arc::new(Mutex::new(memory)),
            alive_ms: Arc::new(AtomicU64::new(boot_ms())),
            owed_until_s: Arc::default(),
        }
    }

    /// For how many periods the scanner has neither begun a round nor waited for one; 0 while there
    /// is no schedule yet.
    #[must_use]
    pub fn behind_periods(&self) -> u64 {
        let state = self.orders.now();
        let Some(plan) = state.plan else {
            return 0;
        };
        let period = plan.epochs.round_at_ms(moment().wall_ms).period();
        let since_ms = boot_ms().saturating_sub(self.alive_ms.load(Ordering::Relaxed));
        since_ms / 1_000 / u64::from(period.seconds())
    }

    fn sources(&self) -> Arc<Sources> {
        self.sources.borrow().clone()
    }

    /// Scans round after round until told to stop. Rounds overlap by their grace, so that a slow
    /// one never delays the next.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut rounds: JoinSet<()> = JoinSet::new();
        let mut begun = Begun::default();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                due = self.next_round(&mut begun) => {
                    let scanner = self.clone();
                    rounds.spawn(async move {
                        let (round, plan) = due;
                        scanner.round(round, &plan).await;
                    });
                }
                Some(ended) = rounds.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a round ended badly; the next one goes on");
                    }
                }
            }
        }
        rounds.shutdown().await;
        self.sources().yagna.close().await;
    }

    /// Scans the round that is due now or next, and answers which it was.
    pub async fn once(&self) -> Round {
        let (round, plan) = self.next_round(&mut Begun::default()).await;
        self.round(round, &plan).await;
        self.sources().yagna.close().await;
        round
    }

    /// Waits for the start of the next round to scan, with the plan it is scanned by.
    async fn next_round(&self, begun: &mut Begun) -> (Round, Arc<Plan>) {
        let mut awaited = false;
        let mut told = None;
        loop {
            self.orders.wait_for(|state| state.plan.is_some()).await;
            let state = self.orders.now();
            let Some(plan) = state.plan.clone() else {
                continue;
            };
            self.alive_ms.store(boot_ms(), Ordering::Relaxed);
            let now = self.orders.clock().now();
            let now_ms = match now.time_ms() {
                Ok(now_ms) => now_ms,
                Err(why) => {
                    waits_for_time(why, &mut told);
                    tokio::time::sleep(CLOCK_AGAIN).await;
                    begun.waited_for_time(CLOCK_AGAIN);
                    continue;
                }
            };
            let current = plan.epochs.round_at_ms(now_ms);
            let next = plan.epochs.next(current);
            if now.is_confirmed {
                begun.forget_after(next);
            }
            // While it is not known which keys were made before, none can be made. Scanning goes on
            // all the same, so that it is known who is there when they can; what comes of it is
            // lost and noted as a gap.
            let readable = self.spool.is_readable();
            if readable && now.is_confirmed {
                self.spool.settle_clock(current.start_s(), next.start_s());
            }
            let may_make = |round| !readable || self.spool.may_make(round);
            let grid = Grid {
                epochs: &plan.epochs,
                jitter_permille: self.jitter_permille,
                suspects_ms: i64::from(plan.schedule.suspects_offset_ms),
                look_ups_take_ms: self.look_ups_take_ms(&state, &plan.schedule),
            };
            let Some(round) = grid.due(now_ms, begun.last(), may_make) else {
                tracing::error!("no round may be scanned for long: was this clock set back?");
                tokio::time::sleep(SPOOL_AGAIN).await;
                continue;
            };
            if round > next {
                waits_for_later(round, &mut told);
            }
            let unknown = state.connected && state.standing.is_none();
            if unknown && !awaited && now_ms > grid.on_time_until_ms(round) {
                let known = |state: &State| state.standing.is_some() || !state.connected;
                tokio::time::timeout(LIST_PATIENCE, self.orders.wait_for(known)).await.ok();
                awaited = true;
                continue;
            }
            let begins_ms = grid.begins_ms(round);
            let wait = u64::try_from(begins_ms.saturating_sub(now_ms)).unwrap_or(0);
            // No longer than a period at once: whoever waits is alive.
            let period = Duration::from_secs(u64::from(current.period().seconds()));
            tokio::time::sleep(Duration::from_millis(wait).min(period)).await;
            // The clock or the plan may have changed meanwhile.
            let state = self.orders.now();
            let current = state.plan.as_ref().is_some_and(|there| **there == *plan);
            let may_begin = begins_ms - 5..=grid.begun_until_ms(round);
            let now = self.orders.clock().now();
            if current && now.time_ms().is_ok_and(|time_ms| may_begin.contains(&time_ms)) {
                self.report_missed(begun, round, &now, &plan);
                begun.add(round, now.moment.boot, now.steps);
                return (round, plan);
            }
        }
    }

    /// How long the first look-ups of a round will take, as far as it is known now whom they are
    /// for: the aggregator's list, or the nodes that this probe remembers. 0 where nobody is known
    /// yet.
    fn look_ups_take_ms(&self, state: &State, schedule: &v1::Schedule) -> i64 {
        let sources = self.sources();
        if !sources.enabled.looks_up() {
            return 0;
        }
        let count = match &state.standing {
            Some(list) if state.connected => list.len(),
            _ => self.remembered().len(),
        };
        let allowed = sources.finds_per_s(schedule);
        let reached = self.memory().found_per_s.unwrap_or(allowed);
        let listing_ms = if sources.relay.is_some() { self.relay_takes_ms() } else { 0 };
        look_ups_take_ms(count, allowed.min(reached), listing_ms)
    }

    /// Reports the rounds between the last one that was scanned, by this run or an earlier one, and
    /// this; or those that went by while rounds were begun in vain, by a clock that was ahead.
    fn report_missed(&self, begun: &Begun, next: Round, now: &Now, plan: &Plan) {
        let next_s = next.start_s();
        let reason = begun.why_missed(next, now.steps);
        if let Some(last) = begun.last() {
            self.report_missed_between(last.end_s(), next_s, reason, plan);
        } else if let Some(in_vain) = begun.in_vain_for(now.moment.boot) {
            let first_ms = next.start_ms() - i64::try_from(in_vain.as_millis()).unwrap_or(0);
            let first_s = plan.epochs.round_at_ms(first_ms).start_s();
            self.report_missed_between(first_s, next_s, Reason::Clock, plan);
        } else {
            self.owed_until_s.store(next_s, Ordering::Relaxed);
        }
        // What an earlier run made last is known once the spool can be read.
        let owed_s = self.owed_until_s.load(Ordering::Relaxed);
        if owed_s > 0 && self.spool.is_readable() {
            self.owed_until_s.store(0, Ordering::Relaxed);
            if let high_s @ 1.. = self.spool.high_water_s() {
                let from_s = high_s + u64::from(plan.epochs.at(high_s).period.seconds());
                self.report_missed_between(from_s, owed_s, reason, plan);
            }
        }
    }

    fn report_missed_between(&self, from_s: u64, to_s: u64, reason: Reason, plan: &Plan) {
        // The aggregator takes nothing of older rounds.
        let from_s = from_s.max(to_s.saturating_sub(AGE_MAX_S));
        if from_s >= to_s {
            return;
        }
        let count = plan.epochs.rounds_between(from_s, to_s);
        let why = reason.as_str();
        tracing::warn!(missed = count, from = from_s, to = to_s, why, "rounds were missed");
        counter!("uptime_scan_rounds_missed_total").increment(count);
        self.spool.report_gap(gap(from_s, to_s, reason));
    }

    /// Scans a round.
    async fn round(&self, round: Round, plan: &Arc<Plan>) {
        let started = Instant::now();
        let epoch: &Epoch = plan.epochs.at(round.start_s());
        let counts = RoundScan::new(self, round, epoch, plan).run().await;
        histogram!("uptime_scan_round_seconds").record(started.elapsed());
        tracing::info!(
            round = round.start_s(),
            parts = counts.parts,
            offers = counts.offers,
            looked_up = counts.looked_up,
            found = counts.found,
            unreachable = counts.unreachable,
            could_not_look = counts.failures.join(","),
            waiting = self.spool.waiting(),
            "round scanned"
        );
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A leaf: nothing is awaited while it is held, and each change to it is whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes a probe left to itself looks up.
    fn remembered(&self) -> BTreeSet<NodeId> {
        self.memory().nodes().collect()
    }

    fn take_offer(&self, listing: &mut Listing, offer: Offer, subnet: u16) {
        listing.take(offer, subnet, &self.memory());
    }

    /// Remembers a whole listing; answers its nodes.
    fn note_offers(&self, listing: Listing, subnet: u16, round: Round) -> Vec<NodeId> {
        let (ids, changed) = listing.finish(subnet, round.start_s(), &mut self.memory());
        let no_room = self.spool.leave_details(changed);
        self.memory().details_not_told(subnet, &no_room);
        ids
    }

    /// Leaves what is news of these suspects to be told.
    fn note_asides(&self, asides: &[Aside], round: Round) {
        let news = self.memory().news_of(asides, round.start_s());
        self.leave_samples(news);
    }

    fn leave_samples(&self, samples: Vec<Sample>) {
        let no_room = self.spool.leave_samples(samples);
        self.memory().samples_not_told(&no_room);
    }

    fn note_relay_took(&self, took: Duration) {
        self.memory().relay_took = Some(took);
    }

    /// How long the relay's listing takes: as the last one did, and a quarter more.
    fn relay_takes_ms(&self) -> i64 {
        let took = self.memory().relay_took.unwrap_or(RELAY_TAKES) * 5 / 4;
        i64::try_from(took.as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// Remembers how quickly look-ups went: the relay may be far away.
    fn note_pace(&self, asked: usize, took: Duration) {
        if asked < PACE_TOLD_BY {
            return;
        }
        let per_s = asked as u128 * 1_000 / took.as_millis().max(1);
        self.memory().found_per_s = Some(u32::try_from(per_s).unwrap_or(u32::MAX).max(1));
    }

    fn note_unreachable(&self, ids: &[NodeId]) {
        self.memory().unreachable = ids.iter().copied().collect();
    }

    /// These nodes, those first that were not found unreachable in the last round.
    fn likely_slow_first(&self, ids: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let memory = self.memory();
        let (known, new): (Vec<NodeId>, Vec<NodeId>) =
            ids.iter().partition(|id| memory.unreachable.contains(id));
        new.into_iter().chain(known).collect()
    }
}

/// Rounds that were not scanned: from the start of the first to the end of the last.
fn gap(from_s: u64, to_s: u64, reason: Reason) -> v1::Gap {
    let reason = reason.to_wire() as i32;
    v1::Gap { from_round_unix_s: from_s, to_round_unix_s: to_s, reason }
}

/// What the scanner waits for, other than the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// For a clock that can be trusted.
    ForTime,
    /// For rounds whose keys were not made yet.
    ForLater,
}

/// Says once that no round is begun, and why.
fn waits_for_time(why: NoTime, told: &mut Option<Waits>) {
    if told.replace(Waits::ForTime) != Some(Waits::ForTime) {
        tracing::error!(%why, "no round is begun until the clock is right");
    }
}

/// Says once that no round is begun for long.
fn waits_for_later(round: Round, told: &mut Option<Waits>) {
    if told.replace(Waits::ForLater) != Some(Waits::ForLater) {
        tracing::warn!(
            round = round.start_s(),
            "this probe waits for this round, as it has made parts of later rounds: was this clock \
             set back?"
        );
    }
}

/// The boot clock, milliseconds.
fn boot_ms() -> u64 {
    u64::try_from(moment().boot.as_millis()).unwrap_or(u64::MAX)
}
