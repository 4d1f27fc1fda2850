//! What readers see: the state as it was when a round closed, never to change again.
//!
//! Owns the presentation of one node (accounting page, "Uptime" and "The canonical CSV"). Cheap to
//! make and to hold: it shares everything with the state that made it.

use std::sync::{Arc, OnceLock};

use roaring::RoaringBitmap;
use uptime_proto::{Epochs, NodeId, Reason, Round};

use crate::cow_vec::CowVec;
use crate::dictionary::NodeIds;
use crate::fact::Gap;
use crate::last_seen::LastSeenIndex;
use crate::node::Node;
use crate::outage::{Outage, outages};
use crate::probe_status::ProbeStatus;
use crate::retirement::Rule;
use crate::seed::Seed;
use crate::state::{RoundSummary, State};
use crate::uptime::Tally;
use crate::verdict::{Decision, Verdict};

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
    /// Since when the last decided verdict has stood, unknown rounds aside, as far as is known
    /// round by round; unix seconds; 0: it was never decided.
    pub state_since_s: u64,
    /// The unknown rounds in that time, those after the last decided round aside.
    pub state_unknown_rounds: u64,
    /// The round of its first offer.
    pub first_seen_s: u64,
    /// Unix milliseconds.
    pub last_seen_ms: Option<i64>,
    /// Looked up no more.
    pub retired: bool,
    /// The verdict changed often of late.
    pub flapping: bool,
    /// Over all its rounds.
    pub tally: Tally,
    /// Where it offered.
    pub subnets: Vec<&'a str>,
    /// The last round trip to it, microseconds.
    pub round_trip_us: Option<u32>,
}

/// What the canonical CSV says of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeLine {
    /// Its identity.
    pub id: NodeId,
    /// See [`NodeView::is_online`].
    pub is_online: bool,
    /// Unix milliseconds.
    pub last_seen_ms: Option<i64>,
    /// Looked up no more.
    pub retired: bool,
    /// Over all its rounds.
    pub tally: Tally,
}

/// What of a node's past is not in its timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOf {
    /// It appeared in listings.
    pub confirmed: bool,
    /// Its last sign of life, unix milliseconds.
    pub last_seen_ms: Option<i64>,
    /// The start of the round of its last offer, unix milliseconds; only looked for as far back as
    /// retirement depends on it.
    pub last_offer_ms: Option<i64>,
}

/// What nodes say of themselves, which no verdict depends on. The caller keeps it; a snapshot
/// carries it along, so that a reader sees both as they were at one moment.
pub trait Metadata: Clone + Default {
    /// The numbers of nodes that say something else here than in an earlier copy.
    fn changed_since(&self, before: &Self) -> RoaringBitmap;
    /// The numbers of nodes that said something new at this moment or later; unix seconds.
    fn changed_after(&self, second: u64) -> RoaringBitmap;
}

/// For whoever keeps none.
impl Metadata for () {
    fn changed_since(&self, (): &Self) -> RoaringBitmap {
        RoaringBitmap::new()
    }

    fn changed_after(&self, _: u64) -> RoaringBitmap {
        RoaringBitmap::new()
    }
}

/// The state at one moment, with metadata of nodes of type `M`.
#[derive(Debug, Clone)]
pub struct Snapshot<M = ()> {
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
    pub ids: NodeIds,
    /// Subnet names by number.
    pub subnets: Arc<Vec<String>>,
    /// What nodes say of themselves, by number.
    pub details: M,
    /// The probes, by name.
    pub probes: Vec<ProbeStatus>,
    /// Recent closed rounds, oldest first.
    pub rounds: Vec<Arc<RoundSummary>>,
    /// Nodes that appear in listings.
    pub confirmed: RoaringBitmap,
    unconfirmed: u64,
    round_trips_us: CowVec<u32>,
    nodes: CowVec<Arc<Node>>,
    last: Decision,
    seen: LastSeenIndex,
    last_offer: LastSeenIndex,
    rolled_up_to_s: u64,
    changes_from_s: u64,
    seed: Option<Seed>,
    counts: Arc<OnceLock<Counts>>,
}

/// The network in a few numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Confirmed nodes that are not retired.
    pub listed: u64,
    /// Those of them that are online.
    pub online: u64,
    /// Confirmed nodes that are retired.
    pub retired: u64,
    /// Ids that made an offer and are not confirmed.
    pub unconfirmed: u64,
}

/// A node whose verdict changed so often within [`FLAPPING_WITHIN_S`] is said to flap. Presentation
/// only: three outages in a day.
const FLAPPING_CHANGES: usize = 6;
/// See [`FLAPPING_CHANGES`].
const FLAPPING_WITHIN_S: u64 = 86_400;
/// A node is a member of the market for so long after an offer.
const MEMBER_FOR_S: u64 = 86_400;

/// A window after clipping, and the sums over its rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Windowed {
    /// The start of its first round, unix seconds.
    pub from_s: u64,
    /// The end of its last round, unix seconds; not before `from_s`.
    pub to_s: u64,
    /// The sums.
    pub tally: Tally,
}

/// How a node stood at the end of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The verdict of its last round.
    pub verdict: Verdict,
    /// The last verdict in it that was not unknown was up.
    pub is_online: bool,
    /// The start of its first round up and the end of its last, unix seconds.
    pub up: Option<(u64, u64)>,
}

/// What a snapshot takes besides the state. Its fields are those of [`Snapshot`].
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "documented at the fields of `Snapshot`")]
pub struct SnapshotInputs<M = ()> {
    pub serial: u64,
    pub store_id: [u8; 16],
    pub generation: u64,
    pub ids: NodeIds,
    pub subnets: Arc<Vec<String>>,
    pub details: M,
    /// The last round trip to each node by number, microseconds; 0: none was measured.
    pub round_trips_us: CowVec<u32>,
    pub probes: Vec<ProbeStatus>,
}

impl<M: Metadata> Snapshot<M> {
    /// How many of the last closed rounds, as far as they are known, no probe could look in. A
    /// ledger that nobody ever reported to has none.
    #[must_use]
    pub fn blind_rounds(&self) -> u64 {
        let sees = |round: &RoundSummary| round.probes.values().any(|it| it.ballot.eligible);
        self.rounds.iter().rev().take_while(|round| !sees(round)).count() as u64
    }

    /// The snapshot of a state.
    #[must_use]
    pub fn new(state: &State, inputs: SnapshotInputs<M>) -> Self {
        Self {
            serial: inputs.serial,
            store_id: inputs.store_id,
            generation: inputs.generation,
            epochs: Arc::clone(state.epochs()),
            closed: state.closed(),
            ids: inputs.ids,
            subnets: inputs.subnets,
            details: inputs.details,
            round_trips_us: inputs.round_trips_us,
            probes: inputs.probes,
            rounds: state.summaries().iter().cloned().collect(),
            confirmed: state.confirmed(),
            nodes: state.nodes().clone(),
            last: state.last().clone(),
            seen: state.seen().clone(),
            last_offer: state.last_offer().clone(),
            rolled_up_to_s: state.rolled_up_to_s(),
            changes_from_s: state.changes_from_s(),
            unconfirmed: state.unconfirmed().len(),
            counts: Arc::default(),
            seed: state.seed().cloned(),
        }
    }

    /// The snapshot of a ledger without any fact, under these rules.
    #[must_use]
    pub fn empty(epochs: Arc<Epochs>) -> Self {
        Self::new(&State::new(epochs), SnapshotInputs::default())
    }

    /// The end of the last closed round, unix seconds; 0 before any.
    #[must_use]
    pub fn closed_end_s(&self) -> u64 {
        self.closed.map_or(0, Round::end_s)
    }

    /// One node by id; `None` if it is not known or not confirmed.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<NodeView<'_>> {
        self.view(self.ids.number(id)?)
    }

    /// One node by number; `None` if it is not confirmed.
    #[must_use]
    pub fn view(&self, number: u32) -> Option<NodeView<'_>> {
        let seen = self.seen.of(number);
        self.confirmed.contains(number).then(|| self.present(number, seen)).flatten()
    }

    /// When a node, confirmed or not, last gave a sign of life, unix milliseconds.
    #[must_use]
    pub fn last_seen_ms(&self, number: u32) -> Option<i64> {
        self.seen.of(number)
    }

    /// The start of the round in which a node, confirmed or not, last offered, unix milliseconds.
    #[must_use]
    pub fn last_offer_ms(&self, number: u32) -> Option<i64> {
        self.last_offer.of(number)
    }

    /// All confirmed nodes, ascending by id.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        self.listed().filter_map(|(number, seen)| self.present(number, seen))
    }

    /// The same in short, as the canonical CSV has them.
    pub fn lines(&self) -> impl Iterator<Item = NodeLine> + '_ {
        self.listed().filter_map(|(number, seen)| self.line(number, seen).map(|(line, _, _)| line))
    }

    /// A node in short, all that is known of it, and the round of its first offer.
    fn line(&self, number: u32, last_seen_ms: Option<i64>) -> Option<(NodeLine, &Node, u64)> {
        let node = self.nodes.get(number as usize)?;
        let first_seen_s = node.first_seen_s?;
        let retired = self.retired(number, node, last_seen_ms);
        let end_s = self.closed_end_s();
        let line = self.line_of(number, node, first_seen_s, (last_seen_ms, retired), end_s)?;
        Some((line, node, first_seen_s))
    }

    /// A node in short when the round that ends then was closed; its timeline ends there, too.
    fn line_of(
        &self,
        number: u32,
        node: &Node,
        first_seen_s: u64,
        (last_seen_ms, retired): (Option<i64>, bool),
        end_s: u64,
    ) -> Option<NodeLine> {
        let decided = node.timeline.last_decided(first_seen_s);
        Some(NodeLine {
            id: self.ids.id(number)?,
            is_online: decided == Some(Verdict::Up) && !retired,
            last_seen_ms,
            retired,
            tally: node.tally(end_s, &self.epochs),
        })
    }

    /// The numbers of all confirmed nodes, ascending by id, and when each was last seen, unix
    /// milliseconds.
    fn listed(&self) -> impl Iterator<Item = (u32, Option<i64>)> + '_ {
        let seen = self.seen.all(self.nodes.len());
        let by_id = self.ids.by_id().iter().copied();
        by_id.filter(|number| self.confirmed.contains(*number)).map(move |number| {
            (number, seen.get(number as usize).copied().filter(|ms| *ms > i64::MIN))
        })
    }

    fn present(&self, number: u32, last_seen_ms: Option<i64>) -> Option<NodeView<'_>> {
        let (line, node, first_seen_s) = self.line(number, last_seen_ms)?;
        let view = self.shown(number, line, node, first_seen_s, self.closed_end_s());
        let round_trip_us = self.round_trips_us.get(number as usize).copied().filter(|us| *us > 0);
        Some(NodeView { round_trip_us, ..view })
    }

    /// One node by number as it was when a closed round of this snapshot was closed: facts known
    /// now, rounds up to it. `None` if it was no node then, or not confirmed.
    #[must_use]
    pub fn view_at(&self, number: u32, round: Round, as_of: &AsOf) -> Option<NodeView<'_>> {
        let end_s = round.end_s();
        let node = self.nodes.get(number as usize).filter(|_| as_of.confirmed)?;
        let first_seen_s = node.first_seen_s.filter(|first_seen_s| *first_seen_s < end_s)?;
        let node = node.until(end_s, &self.epochs);
        let (seen_ms, offered_ms) = (as_of.last_seen_ms, as_of.last_offer_ms);
        let retired = self.retired_at(&node, seen_ms, || offered_ms, end_s);
        let line = self.line_of(number, &node, first_seen_s, (seen_ms, retired), end_s)?;
        Some(self.shown(number, line, &node, first_seen_s, end_s))
    }

    fn shown(
        &self,
        number: u32,
        line: NodeLine,
        node: &Node,
        first_seen_s: u64,
        end_s: u64,
    ) -> NodeView<'_> {
        let NodeLine { id, is_online, last_seen_ms, retired, tally } = line;
        let subnets = node.subnets.iter(first_seen_s).filter(|(_, from_s)| *from_s < end_s);
        let subnets = subnets.filter_map(|(at, _)| self.subnets.get(at as usize));
        let since_s = node.timeline.last_start_s();
        let standing = node.timeline.standing(first_seen_s);
        let unknown = standing.iter().flat_map(|standing| &standing.unknown);
        let flapping_from_s = end_s.saturating_sub(FLAPPING_WITHIN_S);
        let changes = node.timeline.changes_since(flapping_from_s.max(first_seen_s));
        NodeView {
            number,
            id,
            is_online,
            verdict: node.timeline.at(end_s.saturating_sub(1)),
            verdict_since_s: since_s.map_or(0, |since| since.max(first_seen_s)),
            state_unknown_rounds: unknown
                .map(|(from_s, to_s)| self.epochs.rounds_between(*from_s, *to_s))
                .sum(),
            state_since_s: standing.as_ref().map_or(0, |standing| standing.since_s),
            first_seen_s,
            last_seen_ms,
            retired,
            flapping: changes >= FLAPPING_CHANGES,
            tally,
            subnets: subnets.map(String::as_str).collect(),
            round_trip_us: None,
        }
    }

    /// The sums of a node over the rounds that start in `[from_s, to_s)`, clipped to its first
    /// offer and the last closed round. A window that begins at or before the first offer is over
    /// all its rounds, those whose facts are gone included; any other begins no earlier than what
    /// is still known round by round.
    #[must_use]
    pub fn windowed(&self, number: u32, from_s: u64, to_s: u64) -> Windowed {
        let Some(node) = self.nodes.get(number as usize) else { return Windowed::default() };
        let Some(first_seen_s) = node.first_seen_s else { return Windowed::default() };
        let closed_end_s = self.closed_end_s();
        if from_s <= first_seen_s && to_s >= closed_end_s {
            let tally = node.tally(closed_end_s, &self.epochs);
            return Windowed { from_s: first_seen_s, to_s: closed_end_s.max(first_seen_s), tally };
        }
        let from_s = self.ceiling(from_s.max(first_seen_s).max(self.rolled_up_to_s));
        let to_s = self.ceiling(to_s.min(closed_end_s)).max(from_s);
        Windowed { from_s, to_s, tally: node.tally_between(from_s, to_s, &self.epochs) }
    }

    /// The start of the first round in force that does not start before this.
    fn ceiling(&self, second: u64) -> u64 {
        let round = self.epochs.round_at_ms(millis(second));
        if round.start_s() < second { round.end_s() } else { second }
    }

    /// The outages of a node among the rounds of a window, clipped as [`Snapshot::windowed`] does.
    /// One that began before the window is shown from its own beginning.
    #[must_use]
    pub fn outages(&self, number: u32, from_s: u64, to_s: u64) -> Vec<Outage> {
        let Some(node) = self.nodes.get(number as usize) else { return Vec::new() };
        let Some(first_seen_s) = node.first_seen_s else { return Vec::new() };
        let to_s = self.ceiling(to_s.min(self.closed_end_s()));
        let mut all =
            outages(&node.timeline, first_seen_s.max(self.rolled_up_to_s), self.closed_end_s());
        all.retain(|outage| outage.from_s < to_s && outage.to_s > from_s);
        all
    }

    /// How a node stood at the end of a window that [`Snapshot::windowed`] has clipped; `None`: the
    /// window has no round.
    #[must_use]
    pub fn ending(&self, number: u32, windowed: &Windowed) -> Option<Ending> {
        let timeline = &self.nodes.get(number as usize)?.timeline;
        let Windowed { from_s, to_s, .. } = *windowed;
        let mut backwards: Vec<_> = timeline.stretches(from_s, to_s).collect();
        backwards.reverse();
        let (_, _, verdict) = *backwards.first()?;
        let decided = backwards.iter().find(|(_, _, verdict)| *verdict != Verdict::Unknown);
        let is_online = decided.is_some_and(|(_, _, verdict)| *verdict == Verdict::Up);
        Some(Ending { verdict, is_online, up: timeline.up_within(from_s, to_s) })
    }

    /// The start of the first round up of a node, confirmed or not, and the end of the last, of
    /// those that start in `[from_s, to_s)`.
    #[must_use]
    pub fn up_within(&self, number: u32, from_s: u64, to_s: u64) -> Option<(u64, u64)> {
        self.nodes.get(number as usize)?.timeline.up_within(from_s, to_s)
    }

    /// The round of a node's first offer, unix seconds; `None`: it never made one.
    #[must_use]
    pub fn first_seen_s(&self, number: u32) -> Option<u64> {
        self.nodes.get(number as usize)?.first_seen_s
    }

    /// The stretches of equal verdict that make up `[from_s, to_s)`, which lies between the first
    /// offer and the last closed round.
    #[must_use]
    pub fn stretches(&self, number: u32, from_s: u64, to_s: u64) -> Vec<(u64, u64, Verdict)> {
        let node = self.nodes.get(number as usize);
        node.map_or_else(Vec::new, |node| node.timeline.stretches(from_s, to_s).collect())
    }

    /// The network in a few numbers; counted once per snapshot.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.counts.get_or_init(|| {
            let mut counts = Counts { unconfirmed: self.unconfirmed, ..Counts::default() };
            for node in self.nodes() {
                counts.retired += u64::from(node.retired);
                counts.listed += u64::from(!node.retired);
                counts.online += u64::from(node.is_online);
            }
            counts
        })
    }

    /// Nodes whose verdict, subnets, details or confirmation are not those of an earlier snapshot
    /// of this process. Retirement is not looked at: see [`Snapshot::retired_since`].
    #[must_use]
    pub fn changed_since(&self, before: &Self) -> RoaringBitmap {
        let mut changed =
            &(&self.last.up ^ &before.last.up) | &(&self.last.down ^ &before.last.down);
        changed |= &self.confirmed ^ &before.confirmed;
        let none = Node::default();
        for index in self.nodes.unshared(&before.nodes) {
            let node = self.nodes.get(index).map_or(&none, |node| &**node);
            let there = before.nodes.get(index).map_or(&none, |node| &**node);
            if !std::ptr::eq(node, there) && !node.subnets.numbers().eq(there.subnets.numbers()) {
                changed.insert(u32::try_from(index).unwrap_or(u32::MAX));
            }
        }
        changed |= self.details.changed_since(&before.details);
        changed & &self.confirmed
    }

    /// Nodes that may have changed since the round that ended then was closed, by this process or
    /// another one; unix seconds. `None`: it is not known, all may have.
    #[must_use]
    pub fn changed_after(&self, closed_end_s: u64) -> Option<RoaringBitmap> {
        if closed_end_s < self.changes_from_s {
            return None;
        }
        let mut changed = self.retired_since(closed_end_s);
        for (number, node) in (0u32..).zip(self.nodes.iter()) {
            let decided = node.timeline.last_start_s().is_some_and(|start_s| {
                // The round that was open then starts where that one ended.
                start_s >= closed_end_s
            });
            if decided || node.changed_s >= closed_end_s {
                changed.insert(number);
            }
        }
        changed |= self.details.changed_after(closed_end_s);
        Some(changed & &self.confirmed)
    }

    /// Nodes that may have been retired, or brought back, since a moment; unix seconds.
    #[must_use]
    pub fn retired_since(&self, closed_end_s: u64) -> RoaringBitmap {
        let silent = &self.confirmed - &self.last.up;
        let may = |number: &u32| {
            let Some(node) = self.nodes.get(*number as usize) else { return false };
            let (seen_ms, offered_ms) = (self.seen.of(*number), self.last_offer.of(*number));
            let at = |end_s| self.retired_at(node, seen_ms, || offered_ms, end_s);
            let brought_back = offered_ms >= Some(millis(closed_end_s));
            at(self.closed_end_s()) != at(closed_end_s)
                || (brought_back && self.retires_at_s(node, seen_ms, closed_end_s).is_some())
        };
        silent.iter().filter(may).collect()
    }

    /// The probes whose gaps, of those shown, hold a round, and why.
    pub fn gaps_of(&self, round: Round) -> impl Iterator<Item = (&ProbeStatus, Reason)> {
        let of_round = move |gap: &&Gap| (gap.from_s..gap.to_s).contains(&round.start_s());
        self.probes.iter().filter_map(move |status| {
            let gap = status.gaps.iter().find(of_round)?;
            Some((status, gap.reason))
        })
    }

    /// Whether a node made an offer in the last 24 hours before the last round closed.
    #[must_use]
    pub fn is_member(&self, number: u32) -> bool {
        let since_ms = millis(self.closed_end_s().saturating_sub(MEMBER_FOR_S));
        self.last_offer.of(number).is_some_and(|offered_ms| offered_ms >= since_ms)
    }

    /// Rounds before this are known by their sums only; 0: all are known. Unix seconds.
    #[must_use]
    pub fn rolled_up_to_s(&self) -> u64 {
        self.rolled_up_to_s
    }

    /// `seed-v1`, where it is kept.
    #[must_use]
    pub fn seed(&self) -> Option<&Seed> {
        self.seed.as_ref()
    }

    /// Whether a node is looked up no more. An id that is no node yet is not retired.
    #[must_use]
    pub fn is_retired(&self, number: u32) -> bool {
        let node = self.nodes.get(number as usize);
        node.is_some_and(|node| self.retired(number, node, self.seen.of(number)))
    }

    fn retired(&self, number: u32, node: &Node, last_seen_ms: Option<i64>) -> bool {
        let offered_ms = || self.last_offer.of(number);
        self.closed.is_some()
            && self.retired_at(node, last_seen_ms, offered_ms, self.closed_end_s())
    }

    /// Whether it was retired when a round ended. The last offer is only asked for where it
    /// matters.
    fn retired_at(
        &self,
        node: &Node,
        last_seen_ms: Option<i64>,
        last_offer_ms: impl FnOnce() -> Option<i64>,
        end_s: u64,
    ) -> bool {
        let Some(first_seen_s) = node.first_seen_s else { return false };
        let rule = Rule::at(&self.epochs, end_s);
        let silent_from_s = rule.silent_from_s(first_seen_s, last_seen_ms);
        rule.is_retired(node, silent_from_s, || last_offer_ms().map(seconds))
    }

    /// From when on it is retired at the end of a round, were it not for offers.
    fn retires_at_s(&self, node: &Node, last_seen_ms: Option<i64>, end_s: u64) -> Option<u64> {
        let rule = Rule::at(&self.epochs, end_s);
        rule.retires_at_s(node, rule.silent_from_s(node.first_seen_s?, last_seen_ms))
    }

    /// From when on an offer would keep a node from being retired at the end of a round; `None`: it
    /// is not retired, whatever it offered.
    #[must_use]
    pub fn offers_matter_from_s(
        &self,
        number: u32,
        last_seen_ms: Option<i64>,
        end_s: u64,
    ) -> Option<u64> {
        self.retires_at_s(self.nodes.get(number as usize)?, last_seen_ms, end_s)
    }
}

fn seconds(ms: i64) -> u64 {
    u64::try_from(ms.div_euclid(1000)).unwrap_or(0)
}

fn millis(second: u64) -> i64 {
    i64::try_from(second.saturating_mul(1000)).unwrap_or(i64::MAX)
}
