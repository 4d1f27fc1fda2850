//! How far this host's clock is trusted (accounting page, "When a clock is wrong").
//!
//! Owns the three states and what follows from each: by which time rounds close, and whether the
//! clock has been sure for long enough to delete anything. Pure: readings, comparisons and what was
//! stored come in. Refuses to believe any single clock, and to let any single probe stop anything.

use std::collections::BTreeMap;
use std::time::Duration;

use uptime_proto::clock::{
    AGREES_MS, ClockState, Comparison, KernelClock, Measure, Moment, STEP_MS,
};
use uptime_proto::words::ahead_or_behind;

use crate::publish::format::utc_stamp;
use crate::store::Delivery;

const DAY_MS: i64 = 86_400_000;
/// A probe that was enrolled later has no vote.
const ENROLLED_MS_MIN: i64 = DAY_MS;
/// Nor has one that has been connected for less.
const CONNECTED_MIN: Duration = Duration::from_secs(60);
/// A quorum has so many probes at least.
const QUORUM_MIN: usize = 2;
/// A step is confirmed by so long a time in which the kernel or a quorum agrees.
const STEP_CONFIRMED_AFTER: Duration = Duration::from_secs(60);
/// While the clock is not sure rounds close no later than so long after the newest stored part.
const CLOSES_AHEAD_MS_MAX: i64 = 3_600_000;
/// The clock must have been sure for so long before anything is deleted.
const SURE_BEFORE_DELETING: Duration = Duration::from_secs(600);
/// And for so long before a part is refused for its time: three exchanges of a probe that has been
/// connected for a minute say by then whether they contradict.
const SURE_BEFORE_REFUSING: Duration = Duration::from_secs(180);
/// What holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// How far the clock is trusted.
    pub state: ClockState,
    /// Why it is not sure, and what to do; empty where it is.
    pub why: String,
    /// The wall clock, unix milliseconds.
    pub wall_ms: i64,
    /// The time, unix milliseconds: the wall clock, or the last sure time carried on. `None`: it is
    /// not known.
    pub time_ms: Option<i64>,
    /// The time by which rounds close, unix milliseconds: no later than an hour past the newest
    /// part where the clock is not sure. `None`: none closes now.
    pub closing_ms: Option<i64>,
    /// The clock has been sure for so long that probes would have contradicted it.
    pub may_refuse: bool,
    /// The clock has been sure for ten minutes.
    pub may_delete: bool,
}

impl Judged {
    /// Whether the clock is sure.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.state == ClockState::Sure
    }
}

/// A probe's clock as it is seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerClock {
    /// The probe's clock less this one; `None`: they were not compared yet.
    pub measure: Option<Measure>,
    /// What the kernel of the probe's host says.
    pub kernel: KernelClock,
    /// Whether it counts.
    pub votes: bool,
}

#[derive(Debug)]
struct Peer {
    enrolled_at_ms: i64,
    since: Duration,
    kernel: KernelClock,
    comparison: Comparison,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    at: Duration,
    by_ms: i64,
    agreed_since: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quorum {
    Agrees,
    /// So many probes contradict, by so much.
    Contradicts(usize, i64),
}

/// The rule, with what it has seen.
#[derive(Debug, Default)]
pub struct Rule {
    last: Option<Moment>,
    /// The last reading at which the clock was sure.
    sure: Option<Moment>,
    sure_since: Option<Duration>,
    step: Option<Step>,
    peers: BTreeMap<u32, Peer>,
    /// When the newest part of each probe was observed, unix milliseconds.
    delivered: BTreeMap<u32, i64>,
    newest_part_ms: Option<i64>,
    newest_confirmed_ms: Option<i64>,
}

impl Rule {
    /// A rule for a clock that has been sure since its host started.
    pub fn sure_since_boot() -> Self {
        Self { sure_since: Some(Duration::ZERO), ..Self::default() }
    }

    /// A part is in the store.
    pub fn stored(&mut self, part: Delivery) {
        let there = self.delivered.entry(part.probe).or_insert(part.observed_at_ms);
        *there = part.observed_at_ms.max(*there);
        self.newest_part_ms = self.newest_part_ms.max(Some(part.observed_at_ms));
        self.newest_confirmed_ms = self.newest_confirmed_ms.max(part.prompt_ms);
    }

    /// Parts up to this moment are in the store, of which nothing else is known.
    pub fn stored_until(&mut self, newest_ms: i64) {
        self.newest_part_ms = self.newest_part_ms.max(Some(newest_ms));
        self.newest_confirmed_ms = self.newest_confirmed_ms.max(Some(newest_ms));
    }

    /// A probe's stream began.
    pub fn connected(&mut self, probe: u32, enrolled_at_ms: i64, boot: Duration) {
        let (kernel, comparison) = (KernelClock::Unknown, Comparison::default());
        self.peers.insert(probe, Peer { enrolled_at_ms, since: boot, kernel, comparison });
    }

    /// A probe's stream ended.
    pub fn left(&mut self, probe: u32) {
        self.peers.remove(&probe);
    }

    /// What a probe's heartbeat told.
    pub fn heard(
        &mut self,
        probe: u32,
        kernel: KernelClock,
        measure: Option<Measure>,
        boot: Duration,
    ) {
        let Some(peer) = self.peers.get_mut(&probe) else { return };
        peer.kernel = kernel;
        if let Some(measure) = measure {
            peer.comparison.note(measure, boot);
        }
    }

    /// The clock of a connected probe.
    #[must_use]
    pub fn peer(&self, probe: u32) -> Option<PeerClock> {
        let peer = self.peers.get(&probe)?;
        let votes = self.last.is_some_and(|now| self.votes(probe, peer, now.boot));
        Some(PeerClock { measure: peer.comparison.best(), kernel: peer.kernel, votes })
    }

    /// Judges the clock by a new reading.
    pub fn judge(&mut self, now: Moment, kernel: KernelClock) -> Judged {
        let before = self.last.replace(now);
        if let Some(before) = before.filter(|before| now.has_stepped_since(*before)) {
            // What was compared is of the clock before.
            self.peers.values_mut().for_each(|peer| peer.comparison = Comparison::default());
            let by_ms = now.stepped_by_ms(before);
            self.step = Some(Step { at: now.boot, by_ms, agreed_since: None });
        }
        let synchronised = kernel == KernelClock::Synchronised;
        let quorum = self.quorum(now.boot);
        let contradicts = matches!(quorum, Some(Quorum::Contradicts(..)));
        let agrees = quorum == Some(Quorum::Agrees);
        self.age_step(now.boot, synchronised || agrees, contradicts);
        // Parts that were received within a minute of their observation are the word of two clocks,
        // and a quorum that agrees now is the word of more.
        let early = self.newest_confirmed_ms.filter(|newest_ms| now.wall_ms + STEP_MS < *newest_ms);
        let early = early.filter(|_| !agrees);
        let state = if !synchronised && (contradicts || self.step.is_some() || early.is_some()) {
            ClockState::Wrong
        } else if contradicts || self.step.is_some() || !(synchronised || agrees) {
            ClockState::Doubtful
        } else {
            ClockState::Sure
        };
        let bound_ms = self.newest_part_ms.map(|newest_ms| newest_ms + CLOSES_AHEAD_MS_MAX);
        let bounded = |at_ms: i64| bound_ms.map_or(at_ms, |bound_ms| at_ms.min(bound_ms));
        let time_ms = match state {
            ClockState::Sure | ClockState::Doubtful => Some(now.wall_ms),
            ClockState::Wrong => self.sure.map(|sure| now.carried_from_ms(sure)),
        };
        let closing_ms = if state == ClockState::Sure { time_ms } else { time_ms.map(bounded) };
        if state == ClockState::Sure {
            self.sure = Some(now);
            self.sure_since.get_or_insert(now.boot);
        } else {
            self.sure_since = None;
        }
        let sure_for = self.sure_since.map(|since| now.boot.saturating_sub(since));
        Judged {
            state,
            why: self.why(state, kernel, quorum, early),
            wall_ms: now.wall_ms,
            time_ms,
            closing_ms,
            may_refuse: sure_for.is_some_and(|sure_for| sure_for >= SURE_BEFORE_REFUSING),
            may_delete: sure_for.is_some_and(|sure_for| sure_for >= SURE_BEFORE_DELETING),
        }
    }

    /// After a minute in which the kernel or a quorum agrees, the new time holds. It also does, as
    /// far as it goes, where neither can say anything: then nothing but the setting of the clock is
    /// known, and the clock stays doubtful.
    fn age_step(&mut self, boot: Duration, confirmed: bool, contradicted: bool) {
        let Some(step) = &mut self.step else { return };
        if contradicted {
            step.agreed_since = None;
            return;
        }
        let since = if confirmed {
            *step.agreed_since.get_or_insert(boot)
        } else {
            step.agreed_since = None;
            step.at
        };
        if boot.saturating_sub(since) >= STEP_CONFIRMED_AFTER {
            self.step = None;
        }
    }

    fn votes(&self, probe: u32, peer: &Peer, boot: Duration) -> bool {
        let Some(newest_ms) = self.newest_part_ms else { return false };
        let delivers = self.delivered.get(&probe).is_some_and(|at_ms| at_ms + DAY_MS > newest_ms);
        delivers
            && peer.kernel == KernelClock::Synchronised
            && boot.saturating_sub(peer.since) >= CONNECTED_MIN
            && peer.enrolled_at_ms.saturating_add(ENROLLED_MS_MIN) <= newest_ms
            && peer.comparison.best().is_some()
    }

    /// At least two voters that agree within a second, and are more than half of the probes that
    /// delivered in the day before the newest part.
    fn quorum(&self, boot: Duration) -> Option<Quorum> {
        let newest_ms = self.newest_part_ms?;
        let delivering = self.delivered.values().filter(|at_ms| **at_ms + DAY_MS > newest_ms);
        let delivering = delivering.count();
        let voters = self.peers.iter().filter(|(probe, peer)| self.votes(**probe, peer, boot));
        let mut voters: Vec<(i64, bool)> = voters
            .filter_map(|(_, peer)| {
                Some((peer.comparison.best()?.offset_ms, peer.comparison.contradicts()))
            })
            .collect();
        voters.sort_unstable();
        let mut members: &[(i64, bool)] = &[];
        for first in 0..voters.len() {
            let reach_ms = voters[first].0.saturating_add(AGREES_MS);
            let end = voters.partition_point(|(offset_ms, _)| *offset_ms <= reach_ms);
            if end - first > members.len() {
                members = &voters[first..end];
            }
        }
        if members.len() < QUORUM_MIN || members.len() * 2 <= delivering {
            return None;
        }
        let against = members.iter().filter(|(_, contradicts)| *contradicts).count();
        let (offset_ms, _) = members[members.len() / 2];
        Some(if against * 2 > members.len() {
            Quorum::Contradicts(against, offset_ms)
        } else {
            Quorum::Agrees
        })
    }

    fn why(
        &self,
        state: ClockState,
        kernel: KernelClock,
        quorum: Option<Quorum>,
        early_ms: Option<i64>,
    ) -> String {
        if state == ClockState::Sure {
            return String::new();
        }
        let mut reasons = Vec::new();
        if let Some(Quorum::Contradicts(count, offset_ms)) = quorum {
            let seconds = apart(offset_ms);
            reasons.push(format!("the clocks of {count} probes are {seconds} this one"));
        }
        if let Some(step) = self.step {
            let by = apart(step.by_ms);
            reasons.push(format!(
                "it was set to a time {by} the old one, and nothing confirms it yet"
            ));
        }
        if let Some(newest_ms) = early_ms {
            let stamp = utc_stamp(newest_ms);
            reasons.push(format!("it is earlier than the newest stored part, received at {stamp}"));
        }
        if reasons.is_empty() {
            reasons.push(
                "neither the kernel nor the clocks of two or more probes confirm it".to_owned(),
            );
        }
        let mend = match kernel {
            KernelClock::Synchronised => "check the time server of this host",
            KernelClock::Unsynchronised => {
                "the kernel says that the clock is not synchronised: run an NTP client on this host"
            }
            KernelClock::Unknown => {
                "the kernel's word on the clock cannot be read: if something keeps the clock \
                 right, say --kernel-clock synchronised"
            }
        };
        format!("{}; {mend}", reasons.join("; "))
    }
}

/// So far ahead of, or behind, something.
fn apart(ms: i64) -> String {
    format!("{} s {}", ms.unsigned_abs().div_ceil(1000), ahead_or_behind(ms))
}

#[cfg(test)]
#[path = "rule/tests.rs"]
mod tests;
