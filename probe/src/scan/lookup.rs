//! Looking nodes up: `FindNode` by the age of `seen`, then the direct question.
//!
//! Owns what an answer is evidence of. A question that failed is counted by its reason and is no
//! evidence at all.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;
use uptime_proto::{NodeId, Reason};

use super::clocks::Ages;
use crate::yagna::{CouldNotLook, Found, PeerAnswer, Yagna};

/// Look-ups prepared at a time; how many are really asked at once is the daemon room's limit.
const ASKED_AT_ONCE: usize = 256;
/// Beyond those who are asked directly, so many suspects are under way: most of them are long dead,
/// which the relay says at once, and must not stand in line behind the silent.
const SUSPECTS_BESIDE: usize = 100;

/// How `seen` is judged.
#[derive(Debug, Clone, Copy)]
pub struct Fresh {
    /// The greatest age that is still positive, seconds.
    pub freshness_s: i64,
    /// Now, in the clock the ages are counted by, unix milliseconds.
    pub now_ms: fn() -> i64,
    /// To be added to it.
    pub offset_ms: i64,
}

impl Fresh {
    fn age_s(&self, seen_unix_s: i64) -> i64 {
        ((self.now_ms)() + self.offset_ms).div_euclid(1000) - seen_unix_s
    }
}

/// How suspects are asked.
#[derive(Debug, Clone, Copy)]
pub struct SuspectPlan {
    /// The limit of one direct question.
    pub direct_timeout: Duration,
    /// How often it is put; 0 where it is switched off, and then nobody is found unreachable.
    pub direct_attempts: u32,
    /// Whether the relay is asked first. Where it is not, nobody is found unreachable.
    pub find_node: bool,
}

/// When the relay last heard of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// By the relay's clock.
    pub unix_s: i64,
    /// How long ago that was when it was asked.
    pub age_s: i64,
}

/// What was learnt of one node beside its evidence, for explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aside {
    /// The node.
    pub node_id: NodeId,
    /// When the relay last heard of it, where it knew the node.
    pub seen: Option<Seen>,
    /// How long the direct question took, where it was answered.
    pub answered_in: Option<Duration>,
}

/// What look-ups found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Fresh by the age of `seen`.
    pub seen: Vec<NodeId>,
    /// Answered a direct question.
    pub answered: Vec<NodeId>,
    /// `FindNode` answered, the direct question was not.
    pub unreachable: Vec<NodeId>,
    /// Not fresh: `FindNode` answered stale or not known.
    pub not_fresh: Vec<NodeId>,
    /// Questions that failed, by reason, with what one of them said.
    pub failed: BTreeMap<Reason, (u64, String)>,
    /// Whether questions were still open at the deadline.
    pub cut_off: bool,
    /// The ages of `seen`.
    pub ages: Ages,
    /// Of suspects that were none of the fresh: what else was learnt of them. Of the living each
    /// `seen` is fresh, and its exact age says nothing more.
    pub asides: Vec<Aside>,
}

impl Findings {
    /// The most frequent reason for which questions failed.
    #[must_use]
    pub fn main_failure(&self) -> Option<(Reason, &str)> {
        let most = self.failed.iter().max_by_key(|(_, (count, _))| *count);
        match most {
            Some((reason, (_, detail))) => Some((*reason, detail)),
            None if self.cut_off => Some((Reason::TimedOut, "the round was over")),
            None => None,
        }
    }

    fn fail(&mut self, failure: CouldNotLook) {
        let (count, _) = self.failed.entry(failure.reason).or_insert((0, failure.detail));
        *count += 1;
    }
}

/// What came of asking for one node.
struct Looked {
    evidence: Evidence,
    seen: Option<Seen>,
}

enum Evidence {
    Fresh,
    NotFresh,
    Answered(Duration),
    Unreachable,
    Failed(CouldNotLook),
}

impl Looked {
    fn of(evidence: Evidence) -> Self {
        Self { evidence, seen: None }
    }
}

/// First stage: `FindNode` for each, until the deadline.
pub async fn first_look_ups(
    yagna: &Yagna,
    ids: impl IntoIterator<Item = NodeId>,
    fresh: Fresh,
    deadline: Instant,
    progress: impl FnMut(),
) -> Findings {
    let questions = futures_util::stream::iter(ids)
        .map(|id| async move { (id, find(yagna, id, fresh).await) })
        .buffer_unordered(ASKED_AT_ONCE);
    collect(questions, deadline, progress).await
}

/// Second stage: `FindNode` again and, for those not fresh, the direct question. In the order
/// given: those most likely to take long come first.
pub async fn suspects(
    yagna: &Yagna,
    ids: impl IntoIterator<Item = NodeId>,
    fresh: Fresh,
    plan: SuspectPlan,
    deadline: Instant,
    progress: impl FnMut(),
) -> Findings {
    let mut asides = Vec::new();
    let questions = futures_util::stream::iter(ids)
        .map(|id| async move { (id, suspect(yagna, id, fresh, plan).await) })
        .buffer_unordered(yagna.limits().direct_in_flight_max + SUSPECTS_BESIDE);
    let questions = questions.inspect(|(id, looked)| {
        let answered_in = match looked.evidence {
            Evidence::Answered(took) => Some(took),
            Evidence::Fresh => return,
            _ => None,
        };
        if looked.seen.is_some() || answered_in.is_some() {
            asides.push(Aside { node_id: *id, seen: looked.seen, answered_in });
        }
    });
    let findings = collect(questions, deadline, progress).await;
    Findings { asides, ..findings }
}

async fn collect(
    questions: impl futures_util::Stream<Item = (NodeId, Looked)>,
    deadline: Instant,
    mut progress: impl FnMut(),
) -> Findings {
    let mut findings = Findings::default();
    tokio::pin!(questions);
    loop {
        let (id, looked) = match tokio::time::timeout_at(deadline, questions.next()).await {
            Ok(Some(next)) => next,
            Ok(None) => return findings,
            Err(_) => break,
        };
        progress();
        if let Some(seen) = looked.seen {
            findings.ages.note(id, seen.unix_s, seen.age_s);
        }
        match looked.evidence {
            Evidence::Fresh => findings.seen.push(id),
            Evidence::NotFresh => findings.not_fresh.push(id),
            Evidence::Answered(_) => findings.answered.push(id),
            Evidence::Unreachable => findings.unreachable.push(id),
            Evidence::Failed(failure) => findings.fail(failure),
        }
    }
    findings.cut_off = true;
    findings
}

async fn find(yagna: &Yagna, id: NodeId, fresh: Fresh) -> Looked {
    match yagna.find_node(id).await {
        Ok(Found::Known { seen_unix_s, .. }) => {
            let age_s = fresh.age_s(seen_unix_s);
            let is_fresh = age_s <= fresh.freshness_s;
            let evidence = if is_fresh { Evidence::Fresh } else { Evidence::NotFresh };
            Looked { evidence, seen: Some(Seen { unix_s: seen_unix_s, age_s }) }
        }
        Ok(Found::NotKnown) => Looked::of(Evidence::NotFresh),
        Err(failure) => Looked::of(Evidence::Failed(failure)),
    }
}

async fn suspect(yagna: &Yagna, id: NodeId, fresh: Fresh, plan: SuspectPlan) -> Looked {
    let found =
        if plan.find_node { find(yagna, id, fresh).await } else { Looked::of(Evidence::NotFresh) };
    if !matches!(found.evidence, Evidence::NotFresh) {
        return found;
    }
    if plan.direct_attempts == 0 {
        return found;
    }
    let evidence = match yagna.ask_peer_times(id, plan.direct_timeout, plan.direct_attempts).await {
        Ok(PeerAnswer::Answered { took }) => Evidence::Answered(took),
        Err(failure) => Evidence::Failed(failure),
        // Unreachable is said only when both were asked.
        Ok(PeerAnswer::Silent | PeerAnswer::NotKnown) if plan.find_node => Evidence::Unreachable,
        Ok(PeerAnswer::Silent | PeerAnswer::NotKnown) => Evidence::NotFresh,
    };
    Looked { evidence, ..found }
}
