//! `uptime-probe scan`: one look at the network, without an aggregator.
//!
//! Owns what is asked and what is said of each node. Uses the questions of the rounds, with the
//! default rules, and keeps nothing. Refuses to call a node unreachable where a probe could not
//! vote so: without the daemon's session with the relay, with one that is too young, by a clock
//! that is wrong, or with a question left out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::Instant;
use uptime_proto::{Epoch, NodeId, Period};

use crate::clock::now_unix_ms;
use crate::scan::{Enabled, Findings, Fresh, SuspectPlan, first_look_ups, suspects};
use crate::yagna::{CouldNotLook, Relay, Yagna};

/// For each of the two stages of look-ups.
const STAGE_MAX: Duration = Duration::from_secs(120);

/// What is said of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its identity.
    pub node_id: String,
    /// As it calls itself.
    pub name: String,
    /// Where it offers.
    pub subnet: String,
    /// What it runs.
    pub runtime: String,
    /// `seen`, `answered`, `unreachable`, `could not look`, or, where the question that would tell
    /// is switched off, `not asked`.
    pub state: &'static str,
}

/// What is looked at, and by which questions.
#[derive(Debug)]
pub struct Scope<'a> {
    /// Whom to ask.
    pub yagna: &'a Yagna,
    /// The relay's own listing, where one is configured.
    pub relay: Option<&'a Relay>,
    /// Whose markets are listed.
    pub subnets: &'a [String],
    /// Which questions are put. The market is listed in any case: it says whom to ask for.
    pub enabled: Enabled,
}

/// A whole survey.
#[derive(Debug)]
pub struct Survey {
    /// A row per node and subnet, ascending by id.
    pub rows: Vec<Row>,
    /// What could not be looked at, and why.
    pub failures: Vec<String>,
}

/// A node's name and runtime, by node and subnet.
type Offered = BTreeMap<(NodeId, String), (String, String)>;

/// Looks once. `progress` hears how many questions there will be, and of each that was answered.
///
/// # Errors
/// When not even the market of one subnet could be listed.
pub async fn survey(
    scope: &Scope<'_>,
    mut progress: impl FnMut(Progress),
) -> Result<Survey, CouldNotLook> {
    let mut failures = Vec::new();
    let offered = markets(scope, &mut failures).await?;
    let ids: BTreeSet<NodeId> = offered.keys().map(|(id, _)| *id).collect();
    progress(Progress::Asking(ids.len()));
    let answered = || progress(Progress::Answered);
    let states = look(scope, &ids, &mut failures, answered).await;
    let rows = offered.into_iter().map(|((id, subnet), (name, runtime))| Row {
        node_id: id.to_string(),
        name,
        subnet,
        runtime,
        state: states.get(&id).copied().unwrap_or("could not look"),
    });
    Ok(Survey { rows: rows.collect(), failures })
}

/// Every node on offer in any of the subnets.
async fn markets(scope: &Scope<'_>, failures: &mut Vec<String>) -> Result<Offered, CouldNotLook> {
    let mut offered = Offered::new();
    let mut last_failure = None;
    let listings = scope
        .subnets
        .iter()
        .map(|subnet| async move { (subnet, scope.yagna.list_market(subnet).await) });
    for (subnet, listed) in join_all(listings).await {
        match listed {
            Ok(offers) => {
                for offer in offers {
                    let runtime = format!("{} {}", offer.runtime, offer.runtime_version);
                    offered
                        .entry((offer.node_id, offer.subnet))
                        .or_insert((offer.name, runtime.trim().to_owned()));
                }
            }
            Err(failure) => {
                failures.push(format!("market of {subnet}: {failure}"));
                last_failure = Some(failure);
            }
        }
    }
    match last_failure {
        Some(failure) if failures.len() == scope.subnets.len() => Err(failure),
        _ => Ok(offered),
    }
}

/// How far a survey is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many nodes will be asked for.
    Asking(usize),
    /// One of them was.
    Answered,
}

/// The default rules.
fn epoch() -> Option<Epoch> {
    Period::new(30).map(Epoch::with_defaults).ok()
}

/// From when on a session with the relay tells who is not there.
pub(crate) fn session_age_min() -> Duration {
    let age_s = epoch().map_or(60, |rules| rules.relay_session_age_min_s);
    Duration::from_secs(u64::from(age_s))
}

/// How to look without an aggregator: by the default rules.
pub(crate) fn default_rules() -> (Fresh, SuspectPlan) {
    let (freshness_s, timeout_ms, direct_attempts) = epoch().map_or((20, 4_000, 2), |rules| {
        (i64::from(rules.freshness_s), rules.direct_timeout_ms, rules.direct_attempts)
    });
    let direct_timeout = Duration::from_millis(u64::from(timeout_ms));
    (
        Fresh { freshness_s, now_ms: now_unix_ms, offset_ms: 0 },
        SuspectPlan { direct_timeout, direct_attempts, find_node: true, ..SuspectPlan::default() },
    )
}

/// The state of each node of which something can be said.
async fn look(
    scope: &Scope<'_>,
    ids: &BTreeSet<NodeId>,
    failures: &mut Vec<String>,
    answered: impl FnMut(),
) -> BTreeMap<NodeId, &'static str> {
    let Enabled { find_node, direct, .. } = scope.enabled;
    if !(find_node || direct) {
        return ids.iter().map(|id| (*id, "not asked")).collect();
    }
    let Some(can_tell) = session_tells(scope.yagna, failures).await else {
        return BTreeMap::new();
    };
    let listed = listing(scope, ids, failures).await;
    let findings = ask(scope, ids, &listed, answered).await;
    // That a wrong clock makes the living look old is told by their answers.
    let all_old = findings.ages.all_old() && !findings.answered.is_empty();
    let clock_is_wrong = findings.ages.in_future() || all_old;
    if clock_is_wrong {
        failures.push(format!("look-ups: clock: {}: check the clock", findings.ages.told()));
    }
    if let Some((reason, detail)) = findings.main_failure() {
        failures.push(format!("look-ups: {reason}: {detail}"));
    }
    let mut states: BTreeMap<NodeId, &'static str> = BTreeMap::new();
    let mut say = |ids: &[NodeId], state| states.extend(ids.iter().map(|id| (*id, state)));
    say(&findings.not_fresh, "not asked");
    if can_tell && !clock_is_wrong {
        say(&findings.unreachable, "unreachable");
    }
    if !findings.ages.in_future() {
        say(&findings.seen, "seen");
    }
    say(&findings.answered, "answered");
    say(&listed.into_iter().collect::<Vec<_>>(), "seen");
    states
}

/// Whether the daemon's session with the relay is old enough for "not found" to mean something.
/// `None`: there is none, and nobody can be looked up.
async fn session_tells(yagna: &Yagna, failures: &mut Vec<String>) -> Option<bool> {
    match yagna.relay_session_age().await {
        Ok(Some(age)) => {
            let tells = age >= session_age_min();
            if !tells {
                failures.push(format!(
                    "look-ups: the daemon's session with the relay is {} s old; that a node is not \
                     found means something from {} s on",
                    age.as_secs(),
                    session_age_min().as_secs()
                ));
            }
            Some(tells)
        }
        Ok(None) => {
            failures.push("look-ups: the daemon has no session with the relay".to_owned());
            None
        }
        Err(failure) => {
            failures.push(format!("look-ups: {failure}"));
            None
        }
    }
}

/// Those of these nodes that the relay's own listing shows to be fresh.
async fn listing(
    scope: &Scope<'_>,
    ids: &BTreeSet<NodeId>,
    failures: &mut Vec<String>,
) -> BTreeSet<NodeId> {
    let Some(relay) = scope.relay else {
        return BTreeSet::new();
    };
    match relay.list().await {
        Ok(listed) => {
            let (fresh, _) = default_rules();
            let freshness = Duration::from_secs(u64::try_from(fresh.freshness_s).unwrap_or(0));
            let fresh = listed.into_iter().filter(|listed| listed.seen_ago <= freshness);
            fresh.map(|listed| listed.node_id).filter(|id| ids.contains(id)).collect()
        }
        Err(failure) => {
            failures.push(format!("relay's listing: {failure}"));
            BTreeSet::new()
        }
    }
}

/// Both stages. Those that are not fresh and could not be asked directly are left as that.
async fn ask(
    scope: &Scope<'_>,
    ids: &BTreeSet<NodeId>,
    listed: &BTreeSet<NodeId>,
    mut answered: impl FnMut(),
) -> Findings {
    let Enabled { find_node, direct, .. } = scope.enabled;
    let (yagna, (fresh, plan)) = (scope.yagna, default_rules());
    let asked = ids.difference(listed).copied();
    listed.iter().for_each(|_| answered());
    let deadline = Instant::now() + STAGE_MAX;
    let mut first = match find_node {
        true => first_look_ups(yagna, asked, fresh, deadline, &mut answered).await,
        false => Findings { not_fresh: asked.collect(), ..Findings::default() },
    };
    if !direct {
        return first;
    }
    let not_fresh = std::mem::take(&mut first.not_fresh);
    let plan = SuspectPlan { find_node, ..plan };
    let deadline = Instant::now() + STAGE_MAX;
    let second = suspects(yagna, not_fresh, fresh, &plan, deadline, || {
        if !find_node {
            answered();
        }
    });
    let second = second.await;
    first.seen.extend(second.seen);
    first.answered = second.answered;
    first.unreachable = second.unreachable;
    first.not_fresh = second.not_fresh;
    first.failed.extend(second.failed);
    first
}
