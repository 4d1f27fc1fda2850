//! A probe of a course: the shipped look-ups and memory of the long dead, put together as a round
//! puts them together.
//!
//! Owns which session a part is said to rest on, and that a probe without one does not look.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use uptime_probe::clock::now_unix_ms;
use uptime_probe::scan::{Dormant, Findings, Fresh, SuspectPlan, first_look_ups, suspects};
use uptime_probe::yagna::{AppKey, Limits, Yagna, YagnaOptions};
use uptime_proto::clock::Moment;
use uptime_proto::{Class, Kind, NodeId, Outcome, Part, PartKey, Reason, Round, Sets};
use uptime_testkit::fake_yagna::Daemon;

use super::network::{Network, START_S};

/// Start-up, session and all else are over long before.
const PATIENCE: Duration = Duration::from_secs(20);
/// A frozen daemon is given up after so long.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(400);
const FRESHNESS_S: i64 = 20;

pub(super) struct Vantage {
    /// Of the last suspects, those whose earlier questions stood in.
    pub(super) stood_in: usize,
    yagna: Yagna,
    dormant: Dormant,
    /// It had a session when first look-ups were put.
    looks: bool,
    parts: u16,
}

impl Vantage {
    pub(super) fn new(at: usize, daemon: &Daemon) -> Self {
        let limits = Limits {
            answer_timeout: ANSWER_TIMEOUT,
            finds_per_s_max: 1_000_000,
            ..Limits::default()
        };
        let options = YagnaOptions {
            base_url: daemon.base_url(),
            app_key: AppKey::new(uptime_testkit::fake_yagna::DaemonOptions::default().app_key),
            limits,
            now_unix_ms,
        };
        let yagna = Yagna::new(options).unwrap();
        let dormant = Dormant::new(&at.to_string());
        Self { stood_in: 0, yagna, dormant, looks: false, parts: 0 }
    }

    /// The first look-ups of a round.
    pub(super) async fn first(
        &mut self,
        network: &Network,
        round: Round,
        ids: &BTreeSet<NodeId>,
    ) -> Vec<Part> {
        self.parts = 0;
        let mut parts = Vec::new();
        let session = self.session(network, round, &mut parts).await;
        self.looks = session.is_some();
        if self.looks {
            let (ids, deadline) = (ids.iter().copied(), Instant::now() + PATIENCE);
            let fresh = fresh(network);
            let findings = first_look_ups(&self.yagna, ids, fresh, deadline, || {}).await;
            let session = self.session(network, round, &mut parts).await;
            self.tell(network, round, findings, session, &mut parts);
        }
        parts
    }

    /// The questions about the suspects of a round.
    pub(super) async fn suspects(
        &mut self,
        network: &Network,
        round: Round,
        ids: &BTreeSet<NodeId>,
    ) -> Vec<Part> {
        self.stood_in = 0;
        let (mut parts, now) = (Vec::new(), moment(network));
        if !self.looks {
            return parts;
        }
        if ids.is_empty() {
            self.dormant.note(round, now.boot, std::iter::empty());
            return parts;
        }
        let Some(session) = self.session(network, round, &mut parts).await else {
            return parts;
        };
        let plan = SuspectPlan {
            direct_timeout: Duration::from_secs(1),
            direct_attempts: 2,
            between_questions: Duration::ZERO,
            find_node: true,
            may_stand_in: self.dormant.may_stand_in(round, now, session, self.yagna.address()),
        };
        let (ids, deadline) = (ids.iter().copied(), Instant::now() + PATIENCE);
        let findings = suspects(&self.yagna, ids, fresh(network), &plan, deadline, || {}).await;
        self.dormant.note(round, now.boot, findings.silences.iter().copied());
        self.stood_in = findings.asked_earlier.len();
        let session = self.session(network, round, &mut parts).await;
        self.tell(network, round, findings, session, &mut parts);
        parts
    }

    /// The age of the session with the relay; where it has none a part says so.
    async fn session(
        &mut self,
        network: &Network,
        round: Round,
        parts: &mut Vec<Part>,
    ) -> Option<Duration> {
        let reason = match self.yagna.relay_session_age().await {
            Ok(Some(age)) => return Some(age),
            Ok(None) => Reason::RelaySessionMissing,
            Err(failure) => failure.reason,
        };
        let outcome = Outcome::CouldNotLook(reason);
        parts.push(self.part(network, round, outcome, None, Sets::default()));
        None
    }

    fn tell(
        &mut self,
        network: &Network,
        round: Round,
        findings: Findings,
        session: Option<Duration>,
        parts: &mut Vec<Part>,
    ) {
        for (outcome, sets, _) in findings.into_parts() {
            parts.push(self.part(network, round, outcome, session, sets));
        }
    }

    fn part(
        &mut self,
        network: &Network,
        round: Round,
        outcome: Outcome,
        session: Option<Duration>,
        sets: Sets,
    ) -> Part {
        let key = PartKey { subnet: String::new(), round, number: self.parts };
        self.parts += 1;
        assert!(sets.of(Class::Offer).is_empty());
        Part {
            key,
            kind: Kind::Lookup,
            outcome,
            observed_at_ms: network.now_ms(),
            relay_session_age_s: session.map(|age| u32::try_from(age.as_secs()).unwrap()),
            sets,
        }
    }
}

/// `seen` is judged by the network's clock.
fn fresh(network: &Network) -> Fresh {
    let offset_ms = network.now_ms() - now_unix_ms();
    Fresh { freshness_s: FRESHNESS_S, now_ms: now_unix_ms, offset_ms }
}

/// The network's clock, which nobody sets.
fn moment(network: &Network) -> Moment {
    let boot = network.world.now().saturating_sub(Duration::from_secs(START_S - 86_400));
    Moment { wall_ms: network.now_ms(), boot }
}
