//! `uptime-probe scan`: one look at the network, without an aggregator.
//!
//! Owns what is asked and what is said of each node. Uses the questions of the rounds, with the
//! default rules, and keeps nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::Instant;
use uptime_proto::{Epoch, NodeId, Period};

use crate::clock::now_unix_ms;
use crate::scan::{Findings, Fresh, SuspectPlan, first_look_ups, suspects};
use crate::yagna::{CouldNotLook, Yagna};

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
    /// `seen`, `answered`, `unreachable` or `could not look`.
    pub state: &'static str,
}

/// A whole survey.
#[derive(Debug)]
pub struct Survey {
    /// A row per node and subnet, ascending by id.
    pub rows: Vec<Row>,
    /// What could not be looked at, and why.
    pub failures: Vec<String>,
}

/// Looks once. `progress` hears how many questions there will be, and of each that was answered.
///
/// # Errors
/// When not even the market of one subnet could be listed.
pub async fn survey(
    yagna: &Yagna,
    subnets: &[String],
    mut progress: impl FnMut(Progress),
) -> Result<Survey, CouldNotLook> {
    let mut failures = Vec::new();
    let mut nodes: BTreeMap<(NodeId, String), (String, String)> = BTreeMap::new();
    let mut last_failure = None;
    let listings =
        subnets.iter().map(|subnet| async move { (subnet, yagna.list_market(subnet).await) });
    for (subnet, listed) in join_all(listings).await {
        match listed {
            Ok(offers) => {
                for offer in offers {
                    let runtime = format!("{} {}", offer.runtime, offer.runtime_version);
                    nodes
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
    if let (true, Some(failure)) = (failures.len() == subnets.len(), last_failure) {
        return Err(failure);
    }
    let ids: BTreeSet<NodeId> = nodes.keys().map(|(id, _)| *id).collect();
    progress(Progress::Asking(ids.len()));
    let findings = look(yagna, &ids, || progress(Progress::Answered)).await;
    if findings.ages.in_future() || findings.ages.all_old() {
        failures.push("the ages of what the relay saw cannot be right: check the clock".to_owned());
    }
    if let Some((reason, detail)) = findings.main_failure() {
        failures.push(format!("look-ups: {reason}: {detail}"));
    }
    let states = [
        (&findings.seen, "seen"),
        (&findings.answered, "answered"),
        (&findings.unreachable, "unreachable"),
    ];
    let state_of: BTreeMap<NodeId, &'static str> =
        states.iter().flat_map(|(ids, word)| ids.iter().map(|id| (*id, *word))).collect();
    let rows = nodes.into_iter().map(|((id, subnet), (name, runtime))| Row {
        node_id: id.to_string(),
        name,
        subnet,
        runtime,
        state: state_of.get(&id).copied().unwrap_or("could not look"),
    });
    Ok(Survey { rows: rows.collect(), failures })
}

/// How far a survey is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many nodes will be asked for.
    Asking(usize),
    /// One of them was.
    Answered,
}

/// How to look without an aggregator: by the default rules.
pub(crate) fn default_rules() -> (Fresh, SuspectPlan) {
    let rules = Period::new(30).map(Epoch::with_defaults);
    let (freshness_s, timeout_ms, direct_attempts) = rules.map_or((20, 4_000, 2), |rules| {
        (i64::from(rules.freshness_s), rules.direct_timeout_ms, rules.direct_attempts)
    });
    let direct_timeout = Duration::from_millis(u64::from(timeout_ms));
    (
        Fresh { freshness_s, now_ms: now_unix_ms, offset_ms: 0 },
        SuspectPlan { direct_timeout, direct_attempts, find_node: true },
    )
}

async fn look(yagna: &Yagna, ids: &BTreeSet<NodeId>, mut answered: impl FnMut()) -> Findings {
    let (fresh, plan) = default_rules();
    let deadline = Instant::now() + STAGE_MAX;
    let mut first =
        first_look_ups(yagna, ids.iter().copied(), fresh, deadline, &mut answered).await;
    let not_fresh = std::mem::take(&mut first.not_fresh);
    let deadline = Instant::now() + STAGE_MAX;
    let second = suspects(yagna, not_fresh, fresh, plan, deadline, || {}).await;
    first.seen.extend(second.seen);
    first.answered = second.answered;
    first.unreachable = second.unreachable;
    first.failed.extend(second.failed);
    first.cut_off |= second.cut_off;
    first
}
