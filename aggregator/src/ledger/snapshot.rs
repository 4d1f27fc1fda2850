//! What readers see: the state as it was when a round closed, never to change again.
//!
//! Owns the presentation of one node (accounting page, "Uptime" and "The canonical CSV"). Cheap to
//! make and to hold: it shares everything with the state that made it.

use std::sync::{Arc, OnceLock};

use roaring::RoaringBitmap;
use uptime_proto::{Epochs, NodeId, Reason, Round};

use super::chunked::Chunked;
use super::details::ToldByNodes;
use super::latest::Latest;
use super::node::Node;
use super::nodes::NodeNames;
use super::outage::{Outage, outages};
use super::past::Past;
use super::retirement::Rule;
use super::seed::Seed;
use super::state::{RoundSummary, State};
use super::uptime::Tally;
use super::verdict::{Decision, Verdict};
use crate::store::Gap;

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
    /// Ids it brought that were never confirmed.
    pub unconfirmed_nodes: u64,
    /// The last gaps it reported, by their rounds; at most [`ProbeStatus::GAPS_MAX`].
    pub gaps: Vec<Gap>,
}

impl ProbeStatus {
    /// Older gaps are stored and not shown: so many tell what a probe suffers from.
    pub const GAPS_MAX: usize = 8;
    /// Gaps that ended longer ago are not shown after a start.
    pub const GAPS_WITHIN_S: u64 = 7 * 86_400;

    /// Takes a gap in, unless it is known.
    pub fn note_gap(&mut self, gap: Gap) {
        let place = self.gaps.partition_point(|there| {
            (there.to_s, there.from_s, there.reason) < (gap.to_s, gap.from_s, gap.reason)
        });
        if self.gaps.get(place) != Some(&gap) {
            self.gaps.insert(place, gap);
        }
        if self.gaps.len() > Self::GAPS_MAX {
            self.gaps.remove(0);
        }
    }
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
    pub details: ToldByNodes,
    /// The probes, by name.
    pub probes: Vec<ProbeStatus>,
    /// Recent closed rounds, oldest first.
    pub rounds: Vec<Arc<RoundSummary>>,
    /// Nodes that appear in listings.
    pub confirmed: RoaringBitmap,
    unconfirmed: u64,
    round_trips_us: Chunked<u32>,
    nodes: Chunked<Arc<Node>>,
    last: Decision,
    seen: Latest,
    last_offer: Latest,
    carried_to_s: u64,
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

/// What a snapshot takes from the ledger besides the state.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) serial: u64,
    pub(super) store_id: [u8; 16],
    pub(super) generation: u64,
    pub(super) names: NodeNames,
    pub(super) subnets: Arc<Vec<String>>,
    pub(super) details: ToldByNodes,
    pub(super) round_trips_us: Chunked<u32>,
    pub(super) probes: Vec<ProbeStatus>,
}

impl Snapshot {
    /// How many of the last closed rounds, as far as they are known, no probe could look in. A
    /// ledger that nobody ever reported to has none.
    #[must_use]
    pub fn blind_rounds(&self) -> u64 {
        let sees = |round: &RoundSummary| round.probes.values().any(|it| it.ballot.eligible);
        self.rounds.iter().rev().take_while(|round| !sees(round)).count() as u64
    }

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
            round_trips_us: around.round_trips_us,
            probes: around.probes,
            rounds: state.summaries().iter().cloned().collect(),
            confirmed: state.confirmed(),
            nodes: state.nodes().clone(),
            last: state.last().clone(),
            seen: state.seen().clone(),
            last_offer: state.last_offer().clone(),
            carried_to_s: state.carried_to_s(),
            changes_from_s: state.changes_from_s(),
            unconfirmed: state.unconfirmed().len(),
            counts: Arc::default(),
            seed: state.seed().cloned(),
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
            details: ToldByNodes::default(),
            round_trips_us: Chunked::default(),
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
            id: self.names.id(number)?,
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
        let by_id = self.names.by_id().iter().copied();
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
    pub fn view_at(&self, number: u32, round: Round, past: &Past) -> Option<NodeView<'_>> {
        let end_s = round.end_s();
        let node = self.nodes.get(number as usize).filter(|_| past.confirmed)?;
        let first_seen_s = node.first_seen_s.filter(|first_seen_s| *first_seen_s < end_s)?;
        let node = node.until(end_s, &self.epochs);
        let (seen_ms, offered_ms) = (past.last_seen_ms, past.last_offer_ms);
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
        let from_s = self.ceiling(from_s.max(first_seen_s).max(self.carried_to_s));
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
            outages(&node.timeline, first_seen_s.max(self.carried_to_s), self.closed_end_s());
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
    pub(super) fn up_within(&self, number: u32, from_s: u64, to_s: u64) -> Option<(u64, u64)> {
        self.nodes.get(number as usize)?.timeline.up_within(from_s, to_s)
    }

    /// The round of a node's first offer, unix seconds; `None`: it never made one.
    pub(super) fn first_seen_s(&self, number: u32) -> Option<u64> {
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
        changed.extend(self.details.changed_since(&before.details));
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
    pub fn carried_to_s(&self) -> u64 {
        self.carried_to_s
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
    pub(super) fn offers_matter_from_s(
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
