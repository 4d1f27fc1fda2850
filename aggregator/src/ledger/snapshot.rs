//! What readers see: the state as it was when a round closed, never to change again.
//!
//! Owns the presentation of one node (accounting page, "Uptime" and "The canonical CSV"). Cheap to
//! make and to hold: it shares everything with the state that made it.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use uptime_proto::{Epochs, NodeId, Round};

use super::chunked::Chunked;
use super::latest::Latest;
use super::nodes::NodeNames;
use super::state::{Node, RoundSummary, State};
use super::uptime::Tally;
use super::verdict::{Decision, Verdict};
use crate::store::Details;

/// How one probe fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProbeStatus {
    /// Its number in facts.
    pub number: u32,
    /// Its identity.
    pub name: String,
    /// It may speak no more.
    pub revoked: bool,
    /// It has a live stream.
    pub connected: bool,
    /// What it said of its software.
    pub software_version: String,
    /// The subnets it says it scans.
    pub subnets: Vec<String>,
    /// When it last handed in a part, unix milliseconds.
    pub last_report_ms: Option<i64>,
    /// Since the start of this process.
    pub parts_accepted: u64,
    /// Since the start of this process.
    pub parts_refused: u64,
    /// Since the start of this process.
    pub conflicts: u64,
    /// Nodes on its standing list of look-ups.
    pub assigned_nodes: u64,
}

/// One node as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView<'a> {
    /// Its number in this store.
    pub number: u32,
    /// Its identity.
    pub id: NodeId,
    /// The verdict of its last closed round that was not unknown; never for a retired node.
    pub is_online: bool,
    /// The verdict of the last closed round.
    pub verdict: Verdict,
    /// Since when that verdict has stood, unix seconds; 0: it was never decided.
    pub verdict_since_s: u64,
    /// The round of its first offer.
    pub first_seen_s: u64,
    /// Unix milliseconds.
    pub last_seen_ms: Option<i64>,
    /// Looked up no more.
    pub retired: bool,
    /// Over all its rounds.
    pub tally: Tally,
    /// Where it offered.
    pub subnets: Vec<&'a str>,
    /// What it says of itself.
    pub details: Option<&'a Details>,
}

/// The state at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Tells the snapshots of one process apart.
    pub serial: u64,
    /// Names the store.
    pub store_id: [u8; 16],
    /// Raised by a restore.
    pub generation: u64,
    /// The rules.
    pub epochs: Arc<Epochs>,
    /// The last closed round.
    pub closed: Option<Round>,
    /// Ids and numbers.
    pub names: NodeNames,
    /// Subnet names by number.
    pub subnets: Arc<Vec<String>>,
    /// What nodes say of themselves, by number.
    pub details: Arc<BTreeMap<u32, Details>>,
    /// The probes, by name.
    pub probes: Vec<ProbeStatus>,
    /// Recent closed rounds, oldest first.
    pub rounds: Vec<Arc<RoundSummary>>,
    /// Nodes that appear in listings.
    pub confirmed: RoaringBitmap,
    nodes: Chunked<Arc<Node>>,
    last: Decision,
    seen: Latest,
    last_offer: Latest,
}

/// What a snapshot takes from the ledger besides the state.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) serial: u64,
    pub(super) store_id: [u8; 16],
    pub(super) generation: u64,
    pub(super) names: NodeNames,
    pub(super) subnets: Arc<Vec<String>>,
    pub(super) details: Arc<BTreeMap<u32, Details>>,
    pub(super) probes: Vec<ProbeStatus>,
}

impl Snapshot {
    pub(super) fn new(state: &State, around: Surroundings) -> Self {
        Self {
            serial: around.serial,
            store_id: around.store_id,
            generation: around.generation,
            epochs: Arc::clone(state.epochs()),
            closed: state.closed(),
            names: around.names,
            subnets: around.subnets,
            details: around.details,
            probes: around.probes,
            rounds: state.summaries().iter().cloned().collect(),
            confirmed: state.confirmed(),
            nodes: state.nodes().clone(),
            last: state.last().clone(),
            seen: state.seen().clone(),
            last_offer: state.last_offer().clone(),
        }
    }

    /// The snapshot of a ledger without any fact, under these rules.
    #[must_use]
    pub fn empty(epochs: Arc<Epochs>) -> Self {
        let around = Surroundings {
            serial: 0,
            store_id: [0; 16],
            generation: 0,
            names: NodeNames::default(),
            subnets: Arc::default(),
            details: Arc::default(),
            probes: Vec::new(),
        };
        Self::new(&State::new(epochs), around)
    }

    /// The end of the last closed round, unix seconds; 0 before any.
    #[must_use]
    pub fn closed_end_s(&self) -> u64 {
        self.closed.map_or(0, Round::end_s)
    }

    /// One node by id; `None` if it is not known or not confirmed.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<NodeView<'_>> {
        self.view(self.names.number(id)?)
    }

    /// One node by number; `None` if it is not confirmed.
    #[must_use]
    pub fn view(&self, number: u32) -> Option<NodeView<'_>> {
        let seen = self.seen.of(number);
        self.confirmed.contains(number).then(|| self.present(number, seen)).flatten()
    }

    /// All confirmed nodes, ascending by id.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        let seen = self.seen.all(self.nodes.len());
        self.names.by_id().iter().filter(|number| self.confirmed.contains(**number)).filter_map(
            move |number| {
                let seen = seen.get(*number as usize).copied().filter(|ms| *ms > i64::MIN);
                self.present(*number, seen)
            },
        )
    }

    /// The sums over a node's rounds that start in `[from_s, to_s)`, no earlier than first seen and
    /// no later than the last closed round.
    #[must_use]
    pub fn tally_between(&self, number: u32, from_s: u64, to_s: u64) -> Tally {
        let to_s = to_s.min(self.closed_end_s());
        let node = self.nodes.get(number as usize);
        node.map_or_else(Tally::default, |node| node.tally_between(from_s, to_s, &self.epochs))
    }

    fn present(&self, number: u32, last_seen_ms: Option<i64>) -> Option<NodeView<'_>> {
        let node = self.nodes.get(number as usize)?;
        let first_seen_s = node.first_seen_s?;
        let retired = self.retired(number, first_seen_s, last_seen_ms);
        let decided = node.timeline.last_decided(first_seen_s);
        let subnets = node.subnets.iter().filter_map(|at| self.subnets.get(*at as usize));
        Some(NodeView {
            number,
            id: self.names.id(number)?,
            is_online: decided == Some(Verdict::Up) && !retired,
            verdict: self.last.of(number),
            verdict_since_s: node
                .timeline
                .last_start_s()
                .map_or(0, |since| since.max(first_seen_s)),
            first_seen_s,
            last_seen_ms,
            retired,
            tally: node.tally(self.closed_end_s(), &self.epochs),
            subnets: subnets.map(String::as_str).collect(),
            details: self.details.get(&number),
        })
    }

    /// Whether a node is looked up no more. An id that is no node yet is not retired.
    #[must_use]
    pub fn is_retired(&self, number: u32) -> bool {
        let first_seen = self.nodes.get(number as usize).and_then(|node| node.first_seen_s);
        first_seen.is_some_and(|first| self.retired(number, first, self.seen.of(number)))
    }

    /// No positive evidence for so long, and no offer since that brought it back.
    fn retired(&self, number: u32, first_seen_s: u64, last_seen_ms: Option<i64>) -> bool {
        let Some(closed) = self.closed else {
            return false;
        };
        let after = u64::from(self.epochs.at(closed.start_s()).retire_after_s);
        let second = |ms: i64| u64::try_from(ms.div_euclid(1000)).unwrap_or(0);
        let alive = last_seen_ms.map_or(first_seen_s, second);
        let retires = alive.saturating_add(after);
        if closed.end_s() < retires {
            return false;
        }
        let offered = self.last_offer.of(number).map_or(0, second);
        offered < retires || closed.end_s() >= offered.saturating_add(after)
    }
}
