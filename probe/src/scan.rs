//! When a round is due and how it becomes parts, failures included.
//!
//! Owns the course of a round: the market of each subnet at its start, first look-ups, then
//! suspects. Every part goes to the spool and nowhere else. Refuses to judge: freshness of `seen`
//! is all it decides. Whatever could not be looked at becomes a part that says so and why.

mod lookup;
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uptime_proto::{Epoch, NodeId, Round, v1};

use crate::clock::now_unix_ms;
use crate::orders::{Orders, Plan};
use crate::spool::Spool;
use crate::yagna::{Offer, Yagna};
pub use lookup::{Findings, Fresh, SuspectPlan, first_look_ups, suspects};
use round::RoundScan;

/// Nodes whose last offer is older are not looked up by a probe left to itself.
const REMEMBERED_S: u64 = 86_400;
/// A round is begun late by at most this share of its period, else it is missed.
const LATE_START_SHARE: i64 = 4;
/// Look-ups end so long before their time is over, so that their part is still on time.
const REPORT_MS: i64 = 500;
/// The fixed jitter of a probe is below this share of the period, and below two seconds.
const JITTER_SHARE: i64 = 20;

/// What a scanner works with.
#[derive(Clone)]
pub struct Scanner {
    yagna: Yagna,
    spool: Spool,
    orders: Orders,
    subnets: Arc<Vec<String>>,
    /// 0 to 999: where in the jitter this probe begins its rounds.
    jitter_permille: u16,
    memory: Arc<Mutex<Memory>>,
}

/// What a probe remembers of nodes between rounds.
#[derive(Debug, Default)]
struct Memory {
    /// Round of the last offer, unix seconds.
    offered_s: BTreeMap<NodeId, u64>,
    /// Details as they were last left for sending.
    details: BTreeMap<NodeId, v1::NodeDetails>,
}

impl Memory {
    /// Notes offers and answers the details that are new or changed.
    fn note(&mut self, offers: &[Offer], round_s: u64) -> Vec<v1::NodeDetails> {
        let mut changed = Vec::new();
        for offer in offers {
            self.offered_s.insert(offer.node_id, round_s);
            let details = v1::NodeDetails {
                node_id: offer.node_id.as_bytes().to_vec().into(),
                name: offer.name.clone(),
                runtime: offer.runtime.clone(),
                runtime_version: offer.runtime_version.clone(),
                networks: offer.networks.clone(),
                subnet: offer.subnet.clone(),
            };
            // A node with several offers has one set of details here: that of its first one.
            let first =
                changed.iter().any(|seen: &v1::NodeDetails| seen.node_id == details.node_id);
            if !first && self.details.get(&offer.node_id) != Some(&details) {
                self.details.insert(offer.node_id, details.clone());
                changed.push(details);
            }
        }
        let old = round_s.saturating_sub(REMEMBERED_S);
        self.offered_s.retain(|_, offered| *offered >= old);
        let offered = &self.offered_s;
        self.details.retain(|id, _| offered.contains_key(id));
        changed
    }
}

impl Scanner {
    /// A scanner of these subnets. `name` only decides the probe's place in the jitter.
    #[must_use]
    pub fn new(
        yagna: Yagna,
        spool: Spool,
        orders: Orders,
        subnets: Vec<String>,
        name: &str,
    ) -> Self {
        let jitter = crc32fast::hash(name.as_bytes()) % 1000;
        Self {
            yagna,
            spool,
            orders,
            subnets: Arc::new(subnets),
            jitter_permille: u16::try_from(jitter).unwrap_or(0),
            memory: Arc::default(),
        }
    }

    /// Scans round after round until told to stop. Rounds overlap by their grace, so that a slow
    /// one never delays the next.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut rounds: JoinSet<()> = JoinSet::new();
        let mut last: Option<Round> = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                due = self.next_round(last) => {
                    last = Some(due.0);
                    let scanner = self.clone();
                    rounds.spawn(async move {
                        let (round, plan) = due;
                        let end_ms = plan.epochs.at(round.start_s()).closes_at_ms(round);
                        scanner.round(round, &plan, end_ms).await;
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
        self.yagna.close().await;
    }

    /// Scans the round that is due now or next, and answers which it was.
    pub async fn once(&self) -> Round {
        let (round, plan) = self.next_round(None).await;
        let epoch = plan.epochs.at(round.start_s());
        // A timer starts the next one with the next round, and skips it while this one runs: so
        // this one does not make use of the grace, unless the questions would not fit without.
        let questions_ms = i64::from(epoch.direct_timeout_ms) * i64::from(epoch.direct_attempts);
        let suspects_ms = i64::from(plan.schedule.suspects_offset_ms);
        let asked_ms = round.start_ms() + suspects_ms + questions_ms + REPORT_MS;
        let end_ms = round.end_ms().max(asked_ms + REPORT_MS).min(epoch.closes_at_ms(round));
        self.round(round, &plan, end_ms).await;
        self.yagna.close().await;
        round
    }

    /// Waits for the start of the next round to scan, with the plan it is scanned by.
    async fn next_round(&self, last: Option<Round>) -> (Round, Arc<Plan>) {
        loop {
            self.orders.wait_for(|state| state.plan.is_some()).await;
            let state = self.orders.now();
            let Some(plan) = state.plan.clone() else {
                continue;
            };
            let now_ms = state.now_ms();
            let current = plan.epochs.round_at_ms(now_ms);
            let begins = |round: Round| round.start_ms() + self.jitter_ms(round);
            let late_ms = current.period().millis() / LATE_START_SHARE;
            let fits = now_ms <= begins(current) + late_ms
                && last.is_none_or(|last| current > last)
                && self.spool.may_make(current);
            let mut round = if fits { current } else { plan.epochs.next(current) };
            while last.is_some_and(|last| round <= last) || !self.spool.may_make(round) {
                round = plan.epochs.next(round);
            }
            let wait = Duration::from_millis(
                u64::try_from(begins(round).saturating_sub(now_ms)).unwrap_or(0),
            );
            tokio::time::sleep(wait).await;
            // The clock, its offset or the plan may have changed meanwhile.
            let state = self.orders.now();
            let current = state.plan.as_ref().is_some_and(|there| **there == *plan);
            if current && state.now_ms() >= begins(round) - 5 {
                if let Some(last) = last {
                    count_missed(last, round);
                }
                return (round, plan);
            }
        }
    }

    fn jitter_ms(&self, round: Round) -> i64 {
        let most = (round.period().millis() / JITTER_SHARE).min(2_000);
        most * i64::from(self.jitter_permille) / 1000
    }

    /// Scans a round; look-ups end shortly before `end_ms`, in aggregator time.
    async fn round(&self, round: Round, plan: &Arc<Plan>, end_ms: i64) {
        let started_ms = now_unix_ms();
        let epoch: &Epoch = plan.epochs.at(round.start_s());
        let counts = RoundScan::new(self, round, epoch, plan, end_ms).run().await;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
        histogram!("uptime_scan_round_seconds")
            .record((now_unix_ms() - started_ms) as f64 / 1000.0);
        tracing::info!(
            round = round.start_s(),
            offers = counts.offers,
            looked_up = counts.looked_up,
            found = counts.found,
            unreachable = counts.unreachable,
            could_not_look = counts.failures.join(","),
            waiting = self.spool.waiting(),
            "round scanned"
        );
    }

    /// The nodes a probe left to itself looks up.
    fn remembered(&self) -> BTreeSet<NodeId> {
        // A leaf: nothing is awaited while it is held, and each change to it is whole.
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.offered_s.keys().copied().collect()
    }

    fn note_offers(&self, offers: &[Offer], round: Round) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = memory.note(offers, round.start_s());
        drop(memory);
        self.spool.leave_details(changed);
    }
}

fn count_missed(last: Round, next: Round) {
    let missed = (next.start_s() - last.end_s()) / u64::from(last.period().seconds());
    if missed > 0 {
        tracing::warn!(missed, from = last.end_s(), to = next.start_s(), "rounds were missed");
        counter!("uptime_scan_rounds_missed_total").increment(missed);
    }
}
