//! The scan loop: starts each round and turns what it finds into parts.
//!
//! Owns the course of a round: each subnet's market at the start (or at once, in a round joined
//! late), first look-ups, then suspects. Parts go to the spool only. Decides nothing but whether
//! `seen` is fresh. A failed question becomes a part with the reason; rounds that were not scanned
//! are reported as a gap.

mod clock_check;
mod dormant;
mod lookup;
mod node_cache;
mod round;
mod round_schedule;
mod scanner;
mod sources;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uptime_proto::{Epoch, Reason, Round, v1};

use crate::clock::{NoTime, Now};
use crate::control_state::{Plan, State};
use crate::spool::AGE_MAX_S;
use crate::time_format::utc;
pub use clock_check::Ages;
pub use dormant::{Dormant, Silence};
pub use lookup::{Findings, Fresh, LookupDetail, Seen, SuspectPlan, first_look_ups, suspects};
use round::RoundScan;
use round_schedule::{Begun, RoundSchedule, look_ups_take_ms};
pub use scanner::Scanner;
use scanner::{boot_ms, gap};
pub use sources::{Enabled, Sources};

/// How long to wait for the aggregator's list of look-ups, when it decides whether a round can
/// still be joined. The list follows the welcome at once.
const LIST_PATIENCE: Duration = Duration::from_millis(500);
/// Pause before reading an unconfirmed clock again.
const CLOCK_AGAIN: Duration = Duration::from_secs(1);
/// Pause before asking a spool again that allows no round.
const SPOOL_AGAIN: Duration = Duration::from_secs(1);

impl Scanner {
    /// Scans round after round until `shutdown`. Rounds overlap by their grace, so a slow one never
    /// delays the next.
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
                        tracing::error!(%error, "a round failed; continuing with the next");
                    }
                }
            }
        }
        rounds.shutdown().await;
        self.sources().yagna.close().await;
    }

    /// Scans the round that is due now or next, and returns it.
    pub async fn once(&self) -> Round {
        let (round, plan) = self.next_round(&mut Begun::default()).await;
        self.round(round, &plan).await;
        self.sources().yagna.close().await;
        round
    }

    /// Waits for the start of the next round to scan; returns it with its plan.
    async fn next_round(&self, begun: &mut Begun) -> (Round, Arc<Plan>) {
        let mut awaited = false;
        let mut told = None;
        loop {
            self.control.wait_for(|state| state.plan.is_some()).await;
            let state = self.control.now();
            let Some(plan) = state.plan.clone() else {
                continue;
            };
            self.alive_ms.store(boot_ms(), Ordering::Relaxed);
            let now = self.control.clock().now();
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
            // Without knowing which keys exist, no part can be made. Scanning continues, so that
            // the probe knows the nodes once it can; those results are lost and become a gap.
            let readable = self.spool.is_readable();
            if readable && now.is_confirmed {
                self.spool.settle_clock(current.start_s(), next.start_s());
            }
            let may_make = |round| !readable || self.spool.may_make(round);
            let schedule = RoundSchedule {
                epochs: &plan.epochs,
                jitter_permille: self.jitter_permille,
                suspects_ms: i64::from(plan.schedule.suspects_offset_ms),
                look_ups_take_ms: self.look_ups_take_ms(&state, &plan.schedule),
            };
            let Some(round) = schedule.due(now_ms, begun.last(), may_make) else {
                tracing::error!("no round can be scanned soon: was this host's clock set back?");
                tokio::time::sleep(SPOOL_AGAIN).await;
                continue;
            };
            if round > next {
                waits_for_later(round, &mut told);
            }
            let unknown = state.connected && state.standing.is_none();
            if unknown && !awaited && now_ms > schedule.on_time_until_ms(round) {
                let known = |state: &State| state.standing.is_some() || !state.connected;
                tokio::time::timeout(LIST_PATIENCE, self.control.wait_for(known)).await.ok();
                awaited = true;
                continue;
            }
            let begins_ms = schedule.begins_ms(round);
            let wait = u64::try_from(begins_ms.saturating_sub(now_ms)).unwrap_or(0);
            // At most a period at a time, so that the watchdog sees progress.
            let period = Duration::from_secs(u64::from(current.period().seconds()));
            tokio::time::sleep(Duration::from_millis(wait).min(period)).await;
            // The clock or the plan may have changed during the wait.
            let state = self.control.now();
            let current = state.plan.as_ref().is_some_and(|there| **there == *plan);
            let may_begin = begins_ms - 5..=schedule.begun_until_ms(round);
            let now = self.control.clock().now();
            if current && now.time_ms().is_ok_and(|time_ms| may_begin.contains(&time_ms)) {
                self.report_missed(begun, round, &now, &plan);
                begun.add(round, now.moment.boot, now.steps);
                return (round, plan);
            }
        }
    }

    /// How long the first look-ups of a round will take: those of the aggregator's list, else of
    /// the nodes in the cache. 0 if neither names a node yet.
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
        let reached = self.cache().found_per_s.unwrap_or(allowed);
        let listing_ms = if sources.relay.is_some() { self.relay_takes_ms() } else { 0 };
        look_ups_take_ms(count, allowed.min(reached), listing_ms)
    }

    /// Reports the rounds between the last scanned one, of this run or an earlier one, and this; or
    /// those that passed while the clock was ahead.
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
        // The last round of an earlier run is known once the spool is readable.
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
        // The aggregator refuses older rounds.
        let from_s = from_s.max(to_s.saturating_sub(AGE_MAX_S));
        if from_s >= to_s {
            return;
        }
        let count = plan.epochs.rounds_between(from_s, to_s);
        let why = reason.as_str();
        tracing::warn!(count, from = utc(from_s), to = utc(to_s), why, "rounds missed");
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
            round = utc(round.start_s()),
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
}

/// What the scanner waits for, other than the start of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// A clock that can be trusted.
    ForTime,
    /// Rounds whose keys are not used yet.
    ForLater,
}

/// Logs once that scanning waits for the clock, and why.
fn waits_for_time(why: NoTime, told: &mut Option<Waits>) {
    if told.replace(Waits::ForTime) != Some(Waits::ForTime) {
        tracing::error!(%why, "waiting for a trustworthy clock before the next round");
    }
}

/// Logs once that scanning waits for a later round.
fn waits_for_later(round: Round, told: &mut Option<Waits>) {
    if told.replace(Waits::ForLater) != Some(Waits::ForLater) {
        tracing::warn!(
            round = utc(round.start_s()),
            "waiting for this round, as the spool has parts of later ones: was this host's clock \
             set back?"
        );
    }
}
