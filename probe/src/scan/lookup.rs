//! Looking nodes up: `FindNode` by the age of `seen`, then the direct question.
//!
//! Owns what an answer is evidence of (accounting page, "Evidence"). A failed question is not
//! evidence: the node is listed with the reason. Does not know the wording of any daemon.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout_at};
use uptime_proto::{Class, NodeId, Outcome, Reason, Sets};

use super::clock_check::Ages;
use super::dormant::Silence;
use crate::yagna::{CouldNotLook, Found, PeerAnswer, PeerQuestions, Yagna};

/// Look-ups prepared at a time; `yagna` limits how many are in flight.
const ASKED_AT_ONCE: usize = 256;
/// Suspects in flight beyond those that are asked directly: most are long dead, which the relay
/// answers at once, and must not queue behind silent ones.
const SUSPECTS_EXTRA: usize = 100;
/// The least time between two questions about a node (accounting page): if the first one fails at
/// once, a second one at the same moment would prove nothing.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);
/// How often a question is repeated after a failure of the daemon.
const REPEATED_MAX: u32 = 2;
/// The last `FindNode` about a suspect ends this long before the deadline, so that the earlier
/// questions count in any case.
const LAST_FIND_ENDS: Duration = Duration::from_millis(200);
/// A `seen` further in the future than this means that the clocks disagree.
const AGE_MIN_S: i64 = -2;

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
#[derive(Debug, Clone)]
pub struct SuspectPlan {
    /// The limit of one direct question.
    pub direct_timeout: Duration,
    /// How often it is asked; 0: switched off, and then no node is found unreachable.
    pub direct_attempts: u32,
    /// The least time between two questions about a node: a second by default.
    pub between_questions: Duration,
    /// Whether the relay is asked first. If not, no node is found unreachable.
    pub find_node: bool,
    /// Nodes whose earlier questions stand in while the relay still does not know them.
    pub may_stand_in: HashSet<NodeId>,
}

impl Default for SuspectPlan {
    /// Asks nothing.
    fn default() -> Self {
        Self {
            direct_timeout: Duration::ZERO,
            direct_attempts: 0,
            between_questions: BETWEEN_QUESTIONS,
            find_node: false,
            may_stand_in: HashSet::new(),
        }
    }
}

/// When the relay last heard of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// By the relay's clock.
    pub unix_s: i64,
    /// How long ago that was when the relay was asked.
    pub age_s: i64,
}

/// More about one node than its evidence, for explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookupDetail {
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
    /// `FindNode` found them not fresh, before and after, and the direct questions went unanswered.
    pub unreachable: Vec<NodeId>,
    /// Those of them whose earlier questions stood in.
    pub asked_earlier: Vec<NodeId>,
    /// Not fresh: `FindNode` answered stale or not known.
    pub not_fresh: Vec<NodeId>,
    /// Nodes whose question failed, by reason, with the text of one failure.
    pub failed: BTreeMap<Reason, (Vec<NodeId>, String)>,
    /// The ages of `seen`.
    pub ages: Ages,
    /// More about suspects that were not fresh. A fresh `seen` needs no exact age.
    pub details: Vec<LookupDetail>,
    /// Silences of suspects, to recognise nodes that are long dead.
    pub silences: Vec<(NodeId, Silence)>,
}

impl Findings {
    fn fail(&mut self, id: NodeId, CouldNotLook { reason, detail }: CouldNotLook) {
        self.failed.entry(reason).or_insert_with(|| (Vec::new(), detail)).0.push(id);
    }

    /// The parts to report: one, and one more for each reason for which questions failed, with the
    /// text of one of the failures.
    #[must_use]
    pub fn into_parts(self) -> Vec<(Outcome, Sets, String)> {
        let Self { seen, answered, unreachable, asked_earlier, not_fresh, failed, .. } = self;
        let mut parts = Vec::new();
        let found = [&seen, &answered, &unreachable, &not_fresh].iter().any(|ids| !ids.is_empty());
        if found || failed.is_empty() {
            let sets = Sets::default()
                .with(Class::Seen, seen)
                .with(Class::Answered, answered)
                .with(Class::Unreachable, unreachable)
                .with(Class::AskedEarlier, asked_earlier);
            parts.push((Outcome::Looked, sets, String::new()));
        }
        parts.extend(failed.into_iter().map(|(reason, (ids, detail))| {
            let detail = format!("{} questions failed; one of them: {detail}", ids.len());
            (Outcome::CouldNotLook(reason), Sets::default().with(Class::Failed, ids), detail)
        }));
        parts
    }

    /// The reason for which most questions failed, if any did.
    #[must_use]
    pub fn main_failure(&self) -> Option<(Reason, &str)> {
        let most = self.failed.iter().max_by_key(|(_, (ids, _))| ids.len());
        most.map(|(reason, (_, detail))| (*reason, detail.as_str()))
    }
}

enum Evidence {
    Fresh,
    NotFresh,
    Answered(Duration),
    /// The relay did not know the node.
    Unreachable,
    AskedEarlier,
    Failed(CouldNotLook),
}

struct Looked {
    evidence: Evidence,
    seen: Option<Seen>,
    /// Whether every `FindNode` answered "not known".
    not_known: bool,
}

impl Looked {
    fn silence(&self) -> Silence {
        match self.evidence {
            Evidence::AskedEarlier => Silence::StoodIn,
            Evidence::Unreachable if self.not_known => Silence::NotKnown,
            Evidence::Unreachable => Silence::Stale,
            _ => Silence::Broken,
        }
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
    let ids: Vec<NodeId> = ids.into_iter().collect();
    let questions = futures_util::stream::iter(ids.clone())
        .map(|id| async move { (id, find(yagna, id, fresh).await) })
        .buffer_unordered(ASKED_AT_ONCE);
    collect(ids, questions, deadline, progress).await
}

/// Second stage: `FindNode` again and, for those not fresh, the direct question. In the order
/// given: those most likely to take long come first.
pub async fn suspects(
    yagna: &Yagna,
    ids: impl IntoIterator<Item = NodeId>,
    fresh: Fresh,
    plan: &SuspectPlan,
    deadline: Instant,
    progress: impl FnMut(),
) -> Findings {
    let ids: Vec<NodeId> = ids.into_iter().collect();
    let (mut details, mut silences) = (Vec::new(), Vec::new());
    let asking = Asking { yagna, fresh, plan, deadline };
    let questions = futures_util::stream::iter(ids.clone())
        .map(|id| async move { (id, asking.suspect(id).await) })
        .buffer_unordered(yagna.limits().direct_in_flight_max + SUSPECTS_EXTRA);
    let questions = questions.inspect(|(id, looked)| {
        silences.push((*id, looked.silence()));
        let answered_in = match looked.evidence {
            Evidence::Answered(took) => Some(took),
            Evidence::Fresh => return,
            _ => None,
        };
        if looked.seen.is_some() || answered_in.is_some() {
            details.push(LookupDetail { node_id: *id, seen: looked.seen, answered_in });
        }
    });
    let findings = collect(ids, questions, deadline, progress).await;
    Findings { details, silences, ..findings }
}

async fn collect(
    ids: Vec<NodeId>,
    questions: impl futures_util::Stream<Item = (NodeId, Looked)>,
    deadline: Instant,
    mut progress: impl FnMut(),
) -> Findings {
    let mut findings = Findings::default();
    let mut open: BTreeSet<NodeId> = ids.into_iter().collect();
    tokio::pin!(questions);
    while let Ok(Some((id, looked))) = timeout_at(deadline, questions.next()).await {
        progress();
        open.remove(&id);
        if let Some(seen) = looked.seen {
            findings.ages.note(id, seen.unix_s, seen.age_s);
        }
        match looked.evidence {
            Evidence::Fresh => findings.seen.push(id),
            Evidence::NotFresh => findings.not_fresh.push(id),
            Evidence::Answered(_) => findings.answered.push(id),
            Evidence::Unreachable => findings.unreachable.push(id),
            Evidence::AskedEarlier => {
                findings.unreachable.push(id);
                findings.asked_earlier.push(id);
            }
            Evidence::Failed(failure) => findings.fail(id, failure),
        }
    }
    for id in open {
        let detail = "the round was over before it was answered".to_owned();
        findings.fail(id, CouldNotLook { reason: Reason::TimedOut, detail });
    }
    findings
}

async fn find(yagna: &Yagna, id: NodeId, fresh: Fresh) -> Looked {
    let (evidence, seen, not_known) = match yagna.find_node(id).await {
        Ok(Found::Known { seen_unix_s, .. }) => {
            let age_s = fresh.age_s(seen_unix_s);
            let evidence = if age_s < AGE_MIN_S {
                let detail = format!("{id} was seen {} s in the future: check the clock", -age_s);
                Evidence::Failed(CouldNotLook { reason: Reason::Clock, detail })
            } else if age_s <= fresh.freshness_s {
                Evidence::Fresh
            } else {
                Evidence::NotFresh
            };
            (evidence, Some(Seen { unix_s: seen_unix_s, age_s }), false)
        }
        Ok(Found::NotKnown) => (Evidence::NotFresh, None, true),
        Err(failure) => (Evidence::Failed(failure), None, false),
    };
    Looked { evidence, seen, not_known }
}

/// The questions about suspects.
#[derive(Clone, Copy)]
struct Asking<'a> {
    yagna: &'a Yagna,
    fresh: Fresh,
    plan: &'a SuspectPlan,
    deadline: Instant,
}

impl Asking<'_> {
    async fn suspect(self, id: NodeId) -> Looked {
        let found = match self.plan.find_node {
            true => find(self.yagna, id, self.fresh).await,
            false => Looked { evidence: Evidence::NotFresh, seen: None, not_known: false },
        };
        if !matches!(found.evidence, Evidence::NotFresh) || self.plan.direct_attempts == 0 {
            return found;
        }
        if found.not_known && self.plan.may_stand_in.contains(&id) {
            return Looked { evidence: Evidence::AskedEarlier, ..found };
        }
        let asked = async { self.ask(&self.yagna.peer_questions(id).await?).await };
        match asked.await {
            Ok(Some(took)) => Looked { evidence: Evidence::Answered(took), ..found },
            Err(failure) => Looked { evidence: Evidence::Failed(failure), ..found },
            // Unreachable requires that the relay was asked, too.
            Ok(None) if self.plan.find_node => self.once_more(id, found).await,
            Ok(None) => found,
        }
    }

    /// Asks until the node answers or as many questions as are planned went unanswered. A question
    /// that failed is put again and does not cancel the silence of another one.
    async fn ask(self, peer: &PeerQuestions<'_>) -> Result<Option<Duration>, CouldNotLook> {
        let (mut unanswered, mut failed) = (0, 0);
        loop {
            match peer.ask(self.plan.direct_timeout).await {
                Ok(PeerAnswer::Answered { took }) => return Ok(Some(took)),
                Ok(PeerAnswer::Unanswered) => unanswered += 1,
                Err(failure) if failed == REPEATED_MAX => return Err(failure),
                Err(_) => failed += 1,
            }
            if unanswered >= self.plan.direct_attempts {
                return Ok(None);
            }
            sleep(self.plan.between_questions).await;
        }
    }

    /// Asks the relay once more after the last silence: of living nodes with a stale `seen` most
    /// are fresh by then. An error, or no answer in time, changes nothing.
    async fn once_more(self, id: NodeId, found: Looked) -> Looked {
        let until = self.deadline.checked_sub(LAST_FIND_ENDS).unwrap_or(self.deadline);
        let last = timeout_at(until, find(self.yagna, id, self.fresh)).await;
        match last {
            Ok(last) if matches!(last.evidence, Evidence::Fresh) => last,
            last => {
                let not_known = found.not_known && last.is_ok_and(|last| last.not_known);
                Looked { evidence: Evidence::Unreachable, not_known, ..found }
            }
        }
    }
}
