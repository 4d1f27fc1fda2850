//! What a watcher knows: the state of each node, and what changed.
//!
//! Pure. Owns telling a change from a mere repetition, also when everything comes anew, so that no
//! change is lost or told twice through an interruption. Holds of each node only what that needs.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use uptime_client::NodeId;
use uptime_client::v1::{self, Freshness, Verdict};

use crate::nodes::{since_s, verdict_text};

/// Four times the million nodes that an aggregator is made for. Who sends more never ends.
pub(crate) const NODES_MAX: usize = 4_000_000;

/// What happened to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// It is there, as the watch begins.
    Present,
    /// It was not there before.
    New,
    /// Its verdict changed.
    Verdict,
    /// It is retired.
    Retired,
    /// It is no longer retired.
    Returned,
    /// Its name, subnets, runtime or networks changed.
    Details,
    /// It is no longer listed.
    Gone,
}

impl What {
    /// Its stable text.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::New => "new",
            Self::Verdict => "verdict",
            Self::Retired => "retired",
            Self::Returned => "returned",
            Self::Details => "details",
            Self::Gone => "gone",
        }
    }
}

/// A change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    /// Since when; else the last closed round.
    pub(crate) at_unix_s: u64,
    pub(crate) id: String,
    pub(crate) name: String,
    /// At least one thing, the most important first.
    pub(crate) what: Vec<What>,
    /// The verdict before, if it was known.
    pub(crate) was: Option<&'static str>,
    /// The node now; `None`: it is gone.
    pub(crate) node: Option<v1::Node>,
}

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) verdict: Verdict,
    pub(crate) retired: bool,
    /// Since when this very verdict stands: what a change is dated by.
    pub(crate) since_unix_s: u64,
    /// The same, but that unknown rounds do not end up and down.
    pub(crate) stood_since_unix_s: u64,
    pub(crate) name: String,
    /// Of all its texts.
    details: u64,
}

/// Nodes by state; retired ones count only as retired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) up: u64,
    pub(crate) down: u64,
    pub(crate) unknown: u64,
    pub(crate) retired: u64,
}

/// More nodes came than any network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} nodes came: this is no Golem network")]
pub(crate) struct TooMany(usize);

/// All that is known.
#[derive(Debug)]
pub(crate) struct WatchState {
    /// Only these nodes count; empty: all do.
    wanted: HashSet<String>,
    nodes: HashMap<String, Standing>,
    nodes_max: usize,
    /// Everything has come once.
    synced: bool,
    /// Nodes received since the last reset.
    anew: Option<HashSet<String>>,
    counts: Counts,
}

fn standing(node: &v1::Node) -> Standing {
    let mut details = DefaultHasher::new();
    (&node.name, &node.subnets, &node.networks).hash(&mut details);
    (&node.runtime, &node.runtime_version).hash(&mut details);
    Standing {
        verdict: node.verdict(),
        retired: node.retired,
        since_unix_s: node.verdict_since_unix_s,
        stood_since_unix_s: since_s(node),
        name: node.name.clone(),
        details: details.finish(),
    }
}

fn differences(was: &Standing, is: &Standing) -> Vec<What> {
    let mut what = Vec::new();
    match (was.retired, is.retired) {
        (false, true) => what.push(What::Retired),
        (true, false) => what.push(What::Returned),
        _ => {}
    }
    if was.verdict != is.verdict {
        what.push(What::Verdict);
    }
    if was.details != is.details {
        what.push(What::Details);
    }
    what
}

impl Counts {
    fn of(&mut self, standing: &Standing) -> &mut u64 {
        match standing.verdict {
            _ if standing.retired => &mut self.retired,
            Verdict::Up => &mut self.up,
            Verdict::Down => &mut self.down,
            Verdict::Unknown | Verdict::Unspecified => &mut self.unknown,
        }
    }

    /// Those that are not retired.
    pub(crate) fn nodes(&self) -> u64 {
        self.up + self.down + self.unknown
    }
}

impl WatchState {
    /// An empty one for these nodes; for all nodes if there are none.
    pub(crate) fn new(ids: &[NodeId], nodes_max: usize) -> Self {
        Self {
            wanted: ids.iter().map(NodeId::to_string).collect(),
            nodes: HashMap::new(),
            nodes_max,
            synced: false,
            anew: None,
            counts: Counts::default(),
        }
    }

    /// How many nodes stand how.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Everything has come once.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced
    }

    /// Those that are neither up nor retired.
    pub(crate) fn not_up(&self) -> impl Iterator<Item = (&str, &Standing)> {
        let nodes = self.nodes.iter().map(|(id, standing)| (id.as_str(), standing));
        nodes.filter(|(_, standing)| !standing.retired && standing.verdict != Verdict::Up)
    }

    /// Takes nodes in and tells what changed. As the watch begins they are [`What::Present`].
    pub(crate) fn changed(
        &mut self,
        nodes: Vec<v1::Node>,
        fresh: &Freshness,
    ) -> Result<Vec<Change>, TooMany> {
        let mut changes = Vec::new();
        for node in nodes {
            if self.wanted.is_empty() || self.wanted.contains(&node.id) {
                changes.extend(self.take(node, fresh));
            }
            if self.nodes.len() > self.nodes_max {
                return Err(TooMany(self.nodes_max));
            }
        }
        Ok(changes)
    }

    fn take(&mut self, node: v1::Node, fresh: &Freshness) -> Option<Change> {
        let is = standing(&node);
        if let Some(anew) = &mut self.anew {
            anew.insert(node.id.clone());
        }
        *self.counts.of(&is) += 1;
        let before = self.nodes.insert(node.id.clone(), is.clone());
        if let Some(was) = &before {
            *self.counts.of(was) -= 1;
        }
        let what = match &before {
            Some(was) => differences(was, &is),
            None if self.synced => vec![What::New],
            None => vec![What::Present],
        };
        if what.is_empty() {
            return None;
        }
        let dated = what.iter().any(|what| matches!(what, What::Verdict | What::Present));
        let at_unix_s = match is.since_unix_s {
            since if since > 0 && dated => since,
            _ => fresh.last_closed_round_unix_s,
        };
        let was = before.map(|was| verdict_text(was.verdict));
        Some(Change { at_unix_s, id: node.id.clone(), name: is.name, what, was, node: Some(node) })
    }

    /// Starts over: everything follows again.
    pub(crate) fn reset(&mut self) {
        self.anew = Some(HashSet::new());
    }

    /// Everything has come. Nodes that did not come again are gone.
    pub(crate) fn synced(&mut self, fresh: &Freshness) -> Vec<Change> {
        self.synced = true;
        let Some(anew) = self.anew.take() else {
            return Vec::new();
        };
        let missing = self.nodes.keys().filter(|id| !anew.contains(*id)).cloned();
        let mut missing: Vec<String> = missing.collect();
        missing.sort_unstable();
        missing.into_iter().filter_map(|id| self.remove(id, fresh)).collect()
    }

    fn remove(&mut self, id: String, fresh: &Freshness) -> Option<Change> {
        let was = self.nodes.remove(&id)?;
        *self.counts.of(&was) -= 1;
        Some(Change {
            at_unix_s: fresh.last_closed_round_unix_s,
            id,
            what: vec![What::Gone],
            was: Some(verdict_text(was.verdict)),
            name: was.name,
            node: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fresh::tests::fresh;

    fn node(number: u8, verdict: Verdict) -> v1::Node {
        v1::Node {
            id: id(number),
            verdict: verdict as i32,
            verdict_since_unix_s: 1_769_862_000,
            name: format!("n{number}"),
            ..v1::Node::default()
        }
    }

    fn id(number: u8) -> String {
        NodeId::new([number; 20]).to_string()
    }

    /// Each change as the number of its node, what it was and what it was before.
    fn told(changes: Vec<Change>) -> Vec<String> {
        let line = |change: Change| {
            let what: Vec<&str> = change.what.iter().map(|what| what.text()).collect();
            format!("{} {} {}", change.name, what.join("+"), change.was.unwrap_or("-"))
        };
        changes.into_iter().map(line).collect()
    }

    fn state(nodes: Vec<v1::Node>) -> WatchState {
        let mut state = WatchState::new(&[], 10);
        let present = state.changed(nodes, &fresh()).unwrap();
        assert!(present.iter().all(|change| change.what == [What::Present]));
        assert_eq!((state.is_synced(), state.synced(&fresh())), (false, vec![]));
        state
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut state = state(vec![node(1, Verdict::Up), node(2, Verdict::Up)]);
        assert_eq!(state.counts(), Counts { up: 2, ..Counts::default() });
        let mut change = |node: v1::Node| told(state.changed(vec![node], &fresh()).unwrap());
        // A later sign of life is no change.
        let seen = v1::Node { last_seen_unix_ms: Some(5), ..node(1, Verdict::Up) };
        assert_eq!(change(seen), [""; 0]);
        assert_eq!(change(node(1, Verdict::Down)), ["n1 verdict up"]);
        assert_eq!(change(node(3, Verdict::Unknown)), ["n3 new -"]);
        let retired = v1::Node { retired: true, ..node(1, Verdict::Unknown) };
        assert_eq!(change(retired), ["n1 retired+verdict down"]);
        let named = v1::Node { name: "other".into(), ..node(2, Verdict::Up) };
        assert_eq!(change(named), ["other details up"]);
        let both = v1::Node { subnets: vec!["s".into()], ..node(1, Verdict::Up) };
        assert_eq!(change(both), ["n1 returned+verdict+details unknown"]);
        assert_eq!(state.counts(), Counts { up: 2, unknown: 1, ..Counts::default() });
        assert_eq!(state.not_up().map(|(_, is)| is.name.as_str()).collect::<Vec<_>>(), ["n3"]);
    }

    #[test]
    fn a_change_is_dated_by_its_verdict_or_by_the_round() {
        let mut state = state(vec![node(1, Verdict::Up)]);
        let at = |changes: Vec<Change>| changes[0].at_unix_s;
        let down = state.changed(vec![node(1, Verdict::Down)], &fresh()).unwrap();
        assert_eq!(at(down), 1_769_862_000);
        let named = v1::Node { name: "other".into(), ..node(1, Verdict::Down) };
        assert_eq!(at(state.changed(vec![named], &fresh()).unwrap()), 1_769_862_870);
    }

    #[test]
    fn when_everything_comes_anew_only_what_changed_meanwhile_is_told() {
        let nodes = [1, 2, 3].map(|number| node(number, Verdict::Up));
        let mut state = state(nodes.to_vec());
        state.reset();
        assert_eq!(state.counts().up, 3, "what is known stays until it is known better");
        let anew = vec![node(1, Verdict::Up), node(2, Verdict::Down), node(4, Verdict::Up)];
        let changes = state.changed(anew, &fresh()).unwrap();
        assert_eq!(told(changes), ["n2 verdict up", "n4 new -"]);
        assert_eq!(told(state.synced(&fresh())), ["n3 gone up"]);
        assert_eq!(state.counts(), Counts { up: 2, down: 1, ..Counts::default() });
        // Synced again, as after a short interruption: nothing is gone.
        assert_eq!(state.synced(&fresh()), []);
        // Interrupted while everything came anew, and begun anew once more.
        state.reset();
        assert!(state.changed(vec![node(1, Verdict::Up)], &fresh()).unwrap().is_empty());
        state.reset();
        let all = vec![node(2, Verdict::Down), node(4, Verdict::Up)];
        assert!(state.changed(all, &fresh()).unwrap().is_empty());
        assert_eq!(told(state.synced(&fresh())), ["n1 gone up"]);
    }

    #[test]
    fn only_the_nodes_that_were_named_count_and_never_too_many() {
        let mut state = WatchState::new(&[NodeId::new([2; 20])], 10);
        let nodes = [1, 2, 3].map(|number| node(number, Verdict::Up));
        assert_eq!(told(state.changed(nodes.to_vec(), &fresh()).unwrap()), ["n2 present -"]);
        let mut small = WatchState::new(&[], 2);
        let many = small.changed(nodes.to_vec(), &fresh());
        assert_eq!(many, Err(TooMany(2)));
    }
}
