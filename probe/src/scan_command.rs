//! The command `scan`: scans the network once, without an aggregator.
//!
//! Owns the questions and the state of each node. Asks like a round, by the default rules, and
//! stores nothing. Calls no node unreachable where a probe could not vote so: without a relay
//! session of the daemon, with one that is too young, with a wrong clock, or with a source left
//! out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::Instant;
use uptime_proto::{Epoch, NodeId, Period, Reason};

use crate::clock::now_unix_ms;
use crate::scan::{Enabled, Findings, Fresh, SuspectPlan, first_look_ups, suspects};
use crate::yagna::{CouldNotLook, Relay, Yagna};

/// Limit for each of the two stages of look-ups.
const STAGE_MAX: Duration = Duration::from_secs(120);

/// A node in the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its identity.
    pub node_id: String,
    /// The name it gives itself.
    pub name: String,
    /// The subnet of its offer.
    pub subnet: String,
    /// Its runtime and version.
    pub runtime: String,
    /// `seen`, `answered`, `unreachable`, `could not look`, or, if the source is switched off,
    /// `not asked`.
    pub state: &'static str,
}

/// What to scan, from which sources.
#[derive(Debug)]
pub struct Scope<'a> {
    /// The daemon.
    pub yagna: &'a Yagna,
    /// The relay's own listing, where one is configured.
    pub relay: Option<&'a Relay>,
    /// The subnets whose markets are listed.
    pub subnets: &'a [String],
    /// The sources. The market is always listed: it names the nodes to look up.
    pub enabled: Enabled,
}

/// The result of a scan.
#[derive(Debug)]
pub struct ScanReport {
    /// A row per node and subnet, ascending by id.
    pub rows: Vec<Row>,
    /// Failed questions, and why they failed.
    pub failures: Vec<String>,
    /// Notes for reading the rows; not failures.
    pub notes: Vec<String>,
}

/// The state of a node if nothing is known.
const COULD_NOT_LOOK: &str = "could not look";

impl ScanReport {
    /// Whether the scan worked: some state is known, or the market is empty.
    #[must_use]
    pub fn looked(&self) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|row| row.state != COULD_NOT_LOOK)
    }
}

/// Failures and notes of a scan.
#[derive(Debug, Default)]
struct Remarks {
    failures: Vec<String>,
    notes: Vec<String>,
}

/// A node's name and runtime, by node and subnet.
type Offered = BTreeMap<(NodeId, String), (String, String)>;

/// Scans once. `progress` gets the number of questions, then each answer.
///
/// # Errors
/// When no subnet's market could be listed.
pub async fn scan_once(
    scope: &Scope<'_>,
    mut progress: impl FnMut(Progress),
) -> Result<ScanReport, CouldNotLook> {
    let mut remarks = Remarks::default();
    let offered = markets(scope, &mut remarks).await?;
    let ids: BTreeSet<NodeId> = offered.keys().map(|(id, _)| *id).collect();
    progress(Progress::Asking(ids.len()));
    let answered = || progress(Progress::Answered);
    let states = look(scope, &ids, &mut remarks, answered).await;
    let rows = offered.into_iter().map(|((id, subnet), (name, runtime))| Row {
        node_id: id.to_string(),
        name,
        subnet,
        runtime,
        state: states.get(&id).copied().unwrap_or(COULD_NOT_LOOK),
    });
    let rows = rows.collect();
    let Remarks { failures, notes } = remarks;
    Ok(ScanReport { rows, failures, notes })
}

/// Every node on offer in any of the subnets.
async fn markets(scope: &Scope<'_>, remarks: &mut Remarks) -> Result<Offered, CouldNotLook> {
    let mut offered = Offered::new();
    let mut last_failure = None;
    let listings = scope
        .subnets
        .iter()
        .map(|subnet| async move { (subnet, scope.yagna.list_market(subnet).await) });
    for (subnet, listed) in join_all(listings).await {
        match listed {
            Ok(offers) => {
                if offers.is_empty() {
                    remarks.notes.push(format!("the daemon knows no offer in subnet {subnet}"));
                }
                for offer in offers {
                    let runtime = format!("{} {}", offer.runtime, offer.runtime_version);
                    offered
                        .entry((offer.node_id, offer.subnet))
                        .or_insert((offer.name, runtime.trim().to_owned()));
                }
            }
            Err(failure) => {
                let text = format!("the daemon did not list the market of subnet {subnet}");
                remarks.failures.push(format!("{text} ({failure})"));
                last_failure = Some(failure);
            }
        }
    }
    match last_failure {
        Some(failure) if remarks.failures.len() == scope.subnets.len() => Err(failure),
        _ => Ok(offered),
    }
}

/// The progress of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// This many nodes will be looked up.
    Asking(usize),
    /// One of them is done.
    Answered,
}

/// The default rules.
fn rules() -> Epoch {
    Epoch::with_defaults(Period::DEFAULT)
}

/// The note on a relay session that is too young to show that a node is missing; `None`: it is old
/// enough.
pub(crate) fn too_young(age: Duration) -> Option<String> {
    let least_s = u64::from(rules().relay_session_age_min_s);
    let age_s = age.as_secs();
    let wait_s = least_s.checked_sub(age_s).filter(|wait_s| *wait_s > 0)?;
    Some(format!(
        "the daemon's relay session is {age_s} s old; its 'not found' counts from {least_s} s on; \
         wait {wait_s} s and try again"
    ))
}

/// The default rules, for use without an aggregator.
pub(crate) fn default_rules() -> (Fresh, SuspectPlan) {
    let Epoch { freshness_s, direct_timeout_ms, direct_attempts, .. } = rules();
    let direct_timeout = Duration::from_millis(u64::from(direct_timeout_ms));
    (
        Fresh { freshness_s: i64::from(freshness_s), now_ms: now_unix_ms, offset_ms: 0 },
        SuspectPlan { direct_timeout, direct_attempts, find_node: true, ..SuspectPlan::default() },
    )
}

/// The state of each node that has one.
async fn look(
    scope: &Scope<'_>,
    ids: &BTreeSet<NodeId>,
    remarks: &mut Remarks,
    answered: impl FnMut(),
) -> BTreeMap<NodeId, &'static str> {
    let Enabled { find_node, direct, .. } = scope.enabled;
    if !(find_node || direct) {
        return ids.iter().map(|id| (*id, "not asked")).collect();
    }
    let Some(can_tell) = session_tells(scope.yagna, remarks).await else {
        return BTreeMap::new();
    };
    let listed = listing(scope, ids, remarks).await;
    let findings = ask(scope, ids, &listed, answered).await;
    // Nodes that look old but answer mean that the clock is wrong.
    let all_old = findings.ages.all_old() && !findings.answered.is_empty();
    let clock_is_wrong = findings.ages.in_future() || all_old;
    if clock_is_wrong {
        remarks.failures.push(format!(
            "the clocks of this host and of the relay disagree: {}, by this host's clock; run an \
             NTP client on this host",
            findings.ages.told()
        ));
    }
    // A wrong clock is already reported; do not repeat it for each node.
    let is_told = |reason| clock_is_wrong && reason == Reason::Clock;
    let failure = findings.main_failure().filter(|(reason, _)| !is_told(*reason));
    if let Some((reason, detail)) = failure {
        let failed: usize = findings.failed.values().map(|(nodes, _)| nodes.len()).sum();
        remarks.failures.push(format!(
            "the questions about {failed} of {} nodes failed ({reason}: {detail})",
            ids.len()
        ));
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

/// Whether the daemon's relay session is old enough for "not found" to count. `None`: there is no
/// session, so no node can be looked up.
async fn session_tells(yagna: &Yagna, remarks: &mut Remarks) -> Option<bool> {
    match yagna.relay_session_age().await {
        Ok(Some(age)) => {
            let young = too_young(age);
            let tells = young.is_none();
            remarks.notes.extend(young);
            Some(tells)
        }
        Ok(None) => {
            let text = "the daemon has no session with the relay, so it cannot look up any node; \
                        run `yagna net status` to see what it knows of the relay";
            remarks.failures.push(text.to_owned());
            None
        }
        Err(failure) => {
            remarks.failures.push(format!("the daemon did not list its sessions ({failure})"));
            None
        }
    }
}

/// The nodes that the relay's own listing shows as fresh.
async fn listing(
    scope: &Scope<'_>,
    ids: &BTreeSet<NodeId>,
    remarks: &mut Remarks,
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
            remarks.failures.push(format!("the relay did not list its nodes ({failure})"));
            BTreeSet::new()
        }
    }
}

/// Both stages. Nodes that are not fresh and were not asked directly stay "not fresh".
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
    for (reason, (ids, detail)) in second.failed {
        first.failed.entry(reason).or_insert_with(|| (Vec::new(), detail)).0.extend(ids);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_session_is_too_young_for_a_minute() {
        let said = |age_s| too_young(Duration::from_secs(age_s));
        assert_eq!(
            said(20).as_deref(),
            Some(
                "the daemon's relay session is 20 s old; its 'not found' counts from 60 s on; \
                 wait 40 s and try again"
            )
        );
        assert!(said(59).is_some_and(|text| text.contains("wait 1 s")));
        assert!(too_young(Duration::from_millis(59_999)).is_some());
        assert_eq!(said(60), None);
        assert_eq!(said(3_600), None);
    }

    #[test]
    fn it_looked_where_a_state_is_known_or_nobody_could_have_one() {
        let looked = |states: &[&'static str]| {
            let row = |state: &&'static str| Row {
                node_id: String::new(),
                name: String::new(),
                subnet: String::new(),
                runtime: String::new(),
                state,
            };
            let rows = states.iter().map(row).collect();
            ScanReport { rows, failures: Vec::new(), notes: Vec::new() }.looked()
        };
        assert!(looked(&[]));
        assert!(looked(&[COULD_NOT_LOOK, "seen"]));
        assert!(looked(&["unreachable"]));
        assert!(looked(&["not asked", "not asked"]));
        assert!(!looked(&[COULD_NOT_LOOK, COULD_NOT_LOOK]));
    }
}
