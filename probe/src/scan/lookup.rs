//! Looking nodes up: `FindNode` by the age of `seen`, then the direct question.
//!
//! Owns what an answer is evidence of. A question that failed is counted by its reason and is no
//! evidence at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;
use uptime_proto::{NodeId, Reason};

use crate::yagna::{CouldNotLook, Found, PeerAnswer, Yagna};

/// Questions prepared at a time; how many are really asked at once is the daemon room's limit.
const ASKED_AT_ONCE: usize = 256;

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
    /// How often it is put.
    pub direct_attempts: u32,
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
    /// Nodes whose question was still open at the deadline.
    pub unanswered: u64,
    /// The smallest age of `seen`, and over how many nodes.
    pub youngest_s: Option<(i64, u64)>,
}

/// The smallest age over fewer nodes says nothing about clocks.
const CLOCK_NODES_MIN: u64 = 10;
/// Of ten living nodes the youngest `seen` is at most so old, as each is seen every 15 s.
const YOUNGEST_S: std::ops::RangeInclusive<i64> = -1..=15;

impl Findings {
    /// Whether the ages of `seen` cannot be right: the clocks disagree.
    #[must_use]
    pub fn clocks_disagree(&self) -> bool {
        self.youngest_s
            .is_some_and(|(age, over)| over >= CLOCK_NODES_MIN && !YOUNGEST_S.contains(&age))
    }

    /// The most frequent reason for which questions failed.
    #[must_use]
    pub fn main_failure(&self) -> Option<(Reason, &str)> {
        let most = self.failed.iter().max_by_key(|(_, (count, _))| *count);
        match most {
            Some((reason, (count, detail))) if *count >= self.unanswered => Some((*reason, detail)),
            _ if self.unanswered > 0 => Some((Reason::TimedOut, "the round was over")),
            _ => None,
        }
    }

    fn fail(&mut self, failure: CouldNotLook) {
        let (count, _) = self.failed.entry(failure.reason).or_insert((0, failure.detail));
        *count += 1;
    }

    fn note_age(&mut self, age_s: i64) {
        let (youngest, over) = self.youngest_s.unwrap_or((age_s, 0));
        self.youngest_s = Some((youngest.min(age_s), over + 1));
    }
}

enum Looked {
    Fresh(i64),
    NotFresh(Option<i64>),
    Answered,
    Unreachable,
    Failed(CouldNotLook),
}

/// First stage: `FindNode` for each, until the deadline.
pub async fn first_look_ups(
    yagna: &Yagna,
    ids: &BTreeSet<NodeId>,
    fresh: Fresh,
    deadline: Instant,
    mut progress: impl FnMut(),
) -> Findings {
    let mut findings = Findings::default();
    let questions = futures_util::stream::iter(ids.iter().copied())
        .map(|id| async move { (id, find(yagna, id, fresh).await) })
        .buffer_unordered(ASKED_AT_ONCE);
    collect(questions, ids.len(), deadline, &mut findings, &mut progress).await;
    findings
}

/// Second stage: `FindNode` again and, for those not fresh, the direct question.
pub async fn suspects(
    yagna: &Yagna,
    ids: &BTreeSet<NodeId>,
    fresh: Fresh,
    plan: SuspectPlan,
    deadline: Instant,
    mut progress: impl FnMut(),
) -> Findings {
    let mut findings = Findings::default();
    let questions = futures_util::stream::iter(ids.iter().copied())
        .map(|id| async move { (id, suspect(yagna, id, fresh, plan).await) })
        .buffer_unordered(ASKED_AT_ONCE);
    collect(questions, ids.len(), deadline, &mut findings, &mut progress).await;
    findings
}

async fn collect(
    questions: impl futures_util::Stream<Item = (NodeId, Looked)>,
    asked: usize,
    deadline: Instant,
    findings: &mut Findings,
    progress: &mut impl FnMut(),
) {
    tokio::pin!(questions);
    let mut answered = 0;
    while let Ok(Some((id, looked))) = tokio::time::timeout_at(deadline, questions.next()).await {
        answered += 1;
        progress();
        match looked {
            Looked::Fresh(age_s) => {
                findings.note_age(age_s);
                findings.seen.push(id);
            }
            Looked::NotFresh(age_s) => {
                if let Some(age_s) = age_s {
                    findings.note_age(age_s);
                }
                findings.not_fresh.push(id);
            }
            Looked::Answered => findings.answered.push(id),
            Looked::Unreachable => findings.unreachable.push(id),
            Looked::Failed(failure) => findings.fail(failure),
        }
    }
    findings.unanswered = (asked - answered) as u64;
}

async fn find(yagna: &Yagna, id: NodeId, fresh: Fresh) -> Looked {
    match yagna.find_node(id).await {
        Ok(Found::Known { seen_unix_s, .. }) => {
            let age_s = fresh.age_s(seen_unix_s);
            if age_s <= fresh.freshness_s {
                Looked::Fresh(age_s)
            } else {
                Looked::NotFresh(Some(age_s))
            }
        }
        Ok(Found::NotKnown) => Looked::NotFresh(None),
        Err(failure) => Looked::Failed(failure),
    }
}

async fn suspect(yagna: &Yagna, id: NodeId, fresh: Fresh, plan: SuspectPlan) -> Looked {
    match find(yagna, id, fresh).await {
        Looked::NotFresh(_) => {}
        other => return other,
    }
    for _ in 0..plan.direct_attempts {
        match yagna.ask_peer(id, plan.direct_timeout).await {
            Ok(PeerAnswer::Answered { .. }) => return Looked::Answered,
            Ok(PeerAnswer::Silent | PeerAnswer::NotKnown) => {}
            Err(failure) => return Looked::Failed(failure),
        }
    }
    Looked::Unreachable
}
