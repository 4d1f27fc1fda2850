//! The fold: from accepted facts to the state of every node.
//!
//! Pure, neither async nor aware of the clock or the store. Owns everything that is derived from
//! facts. Its invariant: whatever the order in which facts came, and whether a round was decided
//! once or often, the same set of facts and the same last closed round give the same state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use roaring::RoaringBitmap;
use uptime_proto::{Class, Epochs, Round};

use crate::cow_vec::CowVec;
use crate::evidence::{Inserted, MASS_LOSS_ROUNDS, ProbeRound, RoundFacts};
use crate::fact::Fact;
use crate::last_seen::LastSeenIndex;
use crate::node::Node;
use crate::retirement::Rule;
use crate::retraction::Retraction;
use crate::seed::Seed;
use crate::verdict::{Decision, Verdict, decide};

/// Closed rounds whose facts stay in memory: what mass loss looks back on, and then some for parts
/// that come a little late.
const WINDOW_CLOSED: usize = MASS_LOSS_ROUNDS + 4;
/// Rounds of which a summary is kept: an hour at the default period.
const SUMMARIES_MAX: usize = 120;

/// Facts by the start of the round in force they fall into.
pub type Window = BTreeMap<u64, RoundFacts>;

/// One closed round in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundSummary {
    /// Which.
    pub round: Round,
    /// Nodes that were up, down.
    pub up: u64,
    /// Nodes that were down.
    pub down: u64,
    /// Confirmed nodes that were neither.
    pub unknown: u64,
    /// What each probe that reported amounted to, by its number; ballots are left out.
    pub probes: BTreeMap<u32, ProbeRound>,
}

/// Everything derived from facts.
#[derive(Debug, Clone)]
pub struct State {
    epochs: Arc<Epochs>,
    closed: Option<Round>,
    window: Window,
    nodes: CowVec<Arc<Node>>,
    offered: RoaringBitmap,
    offered_by_two: RoaringBitmap,
    ever_positive: RoaringBitmap,
    offered_to_probe: BTreeMap<u32, RoaringBitmap>,
    offered_in_subnet: BTreeMap<u32, RoaringBitmap>,
    last: Decision,
    seen: LastSeenIndex,
    last_offer: LastSeenIndex,
    summaries: VecDeque<Arc<RoundSummary>>,
    retractions: Arc<Vec<Retraction>>,
    seed: Option<Seed>,
    /// Rounds before this are known by their sums only.
    rolled_up_to_s: u64,
    /// What changed by rounds that ended before this is not known; see [`Node::changed_s`].
    changes_from_s: u64,
}

/// What was kept of a state.
pub(crate) struct Restored {
    pub(crate) closed: Round,
    pub(crate) rolled_up_to_s: u64,
    pub(crate) changes_from_s: u64,
    pub(crate) nodes: CowVec<Arc<Node>>,
    pub(crate) offered: RoaringBitmap,
    pub(crate) offered_by_two: RoaringBitmap,
    pub(crate) ever_positive: RoaringBitmap,
    pub(crate) offered_to_probe: BTreeMap<u32, RoaringBitmap>,
    pub(crate) offered_in_subnet: BTreeMap<u32, RoaringBitmap>,
    pub(crate) last: Decision,
    pub(crate) seen: LastSeenIndex,
    pub(crate) last_offer: LastSeenIndex,
    pub(crate) summaries: VecDeque<Arc<RoundSummary>>,
    pub(crate) seed: Option<Seed>,
}

/// What only a keeper of states wants to see of one.
pub(crate) struct Derived<'a> {
    pub(crate) offered: &'a RoaringBitmap,
    pub(crate) offered_by_two: &'a RoaringBitmap,
    pub(crate) ever_positive: &'a RoaringBitmap,
    pub(crate) offered_to_probe: &'a BTreeMap<u32, RoaringBitmap>,
    pub(crate) offered_in_subnet: &'a BTreeMap<u32, RoaringBitmap>,
}

impl State {
    /// The state of no facts.
    #[must_use]
    pub fn new(epochs: Arc<Epochs>) -> Self {
        Self {
            epochs,
            closed: None,
            window: Window::new(),
            nodes: CowVec::default(),
            offered: RoaringBitmap::new(),
            offered_by_two: RoaringBitmap::new(),
            ever_positive: RoaringBitmap::new(),
            offered_to_probe: BTreeMap::new(),
            offered_in_subnet: BTreeMap::new(),
            last: Decision::default(),
            seen: LastSeenIndex::default(),
            last_offer: LastSeenIndex::default(),
            summaries: VecDeque::new(),
            retractions: Arc::default(),
            seed: None,
            rolled_up_to_s: 0,
            changes_from_s: 0,
        }
    }

    /// With these retractions: facts they cover are passed over as if they had never come.
    #[must_use]
    pub fn with_retractions(mut self, retractions: Arc<Vec<Retraction>>) -> Self {
        self.retractions = retractions;
        self
    }

    /// With `seed-v1` beside the method in force.
    #[must_use]
    pub fn with_seed(mut self) -> Self {
        self.seed = Some(Seed::default());
        self
    }

    pub(crate) fn restore(&mut self, kept: Restored) {
        self.closed = Some(kept.closed);
        self.rolled_up_to_s = kept.rolled_up_to_s;
        self.changes_from_s = kept.changes_from_s;
        self.nodes = kept.nodes;
        self.offered = kept.offered;
        self.offered_by_two = kept.offered_by_two;
        self.ever_positive = kept.ever_positive;
        self.offered_to_probe = kept.offered_to_probe;
        self.offered_in_subnet = kept.offered_in_subnet;
        self.last = kept.last;
        self.seen = kept.seen;
        self.last_offer = kept.last_offer;
        self.summaries = kept.summaries;
        self.seed = kept.seed;
    }

    pub(crate) fn derived(&self) -> Derived<'_> {
        Derived {
            offered: &self.offered,
            offered_by_two: &self.offered_by_two,
            ever_positive: &self.ever_positive,
            offered_to_probe: &self.offered_to_probe,
            offered_in_subnet: &self.offered_in_subnet,
        }
    }

    /// The probes that heard a node offer, by number.
    pub fn probes_offered_to(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let offered = self.offered_to_probe.iter().filter(move |(_, nodes)| nodes.contains(node));
        offered.map(|(probe, _)| *probe)
    }

    /// The first thing in which this state says something else than another of the same facts.
    pub fn differs_from(&self, other: &Self) -> Option<String> {
        if self.closed != other.closed {
            return Some(format!("the last closed round: {:?}, {:?}", self.closed, other.closed));
        }
        if self.confirmed() != other.confirmed() {
            return Some("which nodes are confirmed".to_owned());
        }
        if self.last != other.last {
            return Some("the verdicts of the last closed round".to_owned());
        }
        let nodes = self.nodes.len().max(other.nodes.len());
        let (mut seen, mut others_seen) = (self.seen.all(nodes), other.seen.all(nodes));
        // Ids that were seen and never offered stand in no list of nodes.
        let nodes = seen.len().max(others_seen.len());
        seen.resize(nodes, i64::MIN);
        others_seen.resize(nodes, i64::MIN);
        let none = Node::default();
        for number in 0..nodes {
            let node = self.nodes.get(number).map_or(&none, |node| &**node);
            let there = other.nodes.get(number).map_or(&none, |node| &**node);
            let sums = |node: &Node| node.tally(self.closed_end_s(), &self.epochs);
            let same = node.first_seen_s == there.first_seen_s
                && node.subnets == there.subnets
                && node.timeline == there.timeline
                && sums(node) == sums(there)
                && seen.get(number) == others_seen.get(number);
            if !same {
                return Some(format!("node number {number}"));
            }
        }
        None
    }

    /// Puts a fact of a closed round that this state knows already where mass loss looks for it.
    pub fn recall(&mut self, fact: Fact) {
        let round = self.round_of(&fact);
        if !self.is_retracted(&fact) && self.in_memory_from_s() <= round.start_s() {
            let _: Inserted = self.window.entry(round.start_s()).or_default().insert(fact);
        }
    }

    /// These facts in their rounds, as far as they count.
    pub fn window_of(&self, facts: impl Iterator<Item = Fact>) -> Window {
        let mut window = Window::new();
        for fact in facts.filter(|fact| !self.is_retracted(fact)) {
            let start_s = self.round_of(&fact).start_s();
            let _: Inserted = window.entry(start_s).or_default().insert(fact);
        }
        window
    }

    /// From now on; what they cover already must be replayed.
    pub fn set_retractions(&mut self, retractions: Arc<Vec<Retraction>>) {
        self.retractions = retractions;
    }

    /// From now on; what was decided by others must be replayed.
    pub fn set_epochs(&mut self, epochs: Arc<Epochs>) {
        self.epochs = epochs;
    }

    /// The retractions, the undone ones included.
    pub fn retractions(&self) -> &Arc<Vec<Retraction>> {
        &self.retractions
    }

    /// Forgets the rounds before this moment, the start of a round, but for their sums.
    pub fn roll_up(&mut self, to_s: u64) {
        let epochs = Arc::clone(&self.epochs);
        let rule = Rule::at(&epochs, to_s);
        for number in 0..self.nodes.len() {
            let index = u32::try_from(number).unwrap_or(u32::MAX);
            let (seen_ms, offered_ms) = (self.seen.of(index), self.last_offer.of(index));
            let offered_s = || offered_ms.map(seconds).filter(|offered_s| *offered_s < to_s);
            if let Some(node) = self.nodes.get_mut(number) {
                let first_seen_s = node.first_seen_s.unwrap_or(0);
                let silent_from_s = rule.silent_from_s(first_seen_s, seen_ms);
                Arc::make_mut(node).roll_up(to_s, silent_from_s, offered_s(), &epochs);
            }
        }
        self.rolled_up_to_s = to_s;
    }

    /// Rounds before this are known by their sums only; 0: all are known. Unix seconds.
    #[must_use]
    pub fn rolled_up_to_s(&self) -> u64 {
        self.rolled_up_to_s
    }

    /// What changed by rounds that ended before this is not known, because all facts were folded
    /// anew then; unix seconds. See [`Node::changed_s`].
    #[must_use]
    pub fn changes_from_s(&self) -> u64 {
        self.changes_from_s
    }

    /// The facts were folded anew: what changed up to now, and when, cannot be told.
    pub fn forget_changes(&mut self) {
        self.changes_from_s = self.closed_end_s();
    }

    /// `seed-v1`, where it is wanted.
    #[must_use]
    pub fn seed(&self) -> Option<&Seed> {
        self.seed.as_ref()
    }

    /// Whether a fact counts no more.
    #[must_use]
    pub fn is_retracted(&self, fact: &Fact) -> bool {
        self.retractions.iter().any(|retraction| retraction.covers(&fact.key))
    }

    /// The round in force a fact falls into: its own, or, if its grid is outdated, the one in
    /// force when it was observed.
    #[must_use]
    pub fn round_of(&self, fact: &Fact) -> Round {
        if self.epochs.in_force(fact.key.round) {
            fact.key.round
        } else {
            self.epochs.round_at_ms(fact.observed_at_ms)
        }
    }

    /// Takes a fact of a round that is not closed. A fact of a closed round is handed back: see
    /// [`State::late`].
    pub fn accept(&mut self, fact: Fact) -> Result<Inserted, Fact> {
        let round = self.round_of(&fact);
        if self.closed.is_some_and(|closed| round <= closed) {
            return Err(fact);
        }
        if self.is_retracted(&fact) {
            return Ok(Inserted::Outranked);
        }
        Ok(self.window.entry(round.start_s()).or_default().insert(fact))
    }

    /// Closes every round up to and including this one, in order.
    pub fn close_through(&mut self, target: Round) {
        let mut round = match (self.closed, self.window.keys().next()) {
            (Some(closed), _) => self.epochs.next(closed),
            // Before the first fact every round is unknown for everyone: nothing to close.
            (None, Some(first)) if *first <= target.start_s() => {
                self.epochs.round_at_ms(i64::try_from(first * 1000).unwrap_or(i64::MAX))
            }
            (None, _) => {
                self.closed = Some(target);
                return;
            }
        };
        while round <= target {
            self.close(round);
            round = self.after(round, target);
        }
    }

    /// The round to close after this one. Where nobody looked for long, the rounds between are
    /// unknown for everyone, as this one is: of them only those are closed that are listed, or
    /// looked back on. A clock that was set may leave millions of them.
    fn after(&self, closed: Round, target: Round) -> Round {
        let next = self.epochs.next(closed);
        let has_facts = |(_, facts): &(&u64, &RoundFacts)| !facts.is_empty();
        let decided = !self.last.up.is_empty() || !self.last.down.is_empty();
        if decided || self.window.range(..next.start_s()).any(|entry| has_facts(&entry)) {
            return next;
        }
        let facts = self.window.range(next.start_s()..).find(has_facts);
        let until_s = facts.map_or(u64::MAX, |(start_s, _)| *start_s).min(target.start_s());
        let period_s = u64::from(self.epochs.at(until_s).period.seconds());
        let from_s = until_s.saturating_sub((SUMMARIES_MAX + WINDOW_CLOSED) as u64 * period_s);
        self.epochs.round_at_ms(i64::try_from(from_s * 1000).unwrap_or(0)).max(next)
    }

    fn close(&mut self, round: Round) {
        self.closed = Some(round);
        let empty = RoundFacts::default();
        let facts = self.window.get(&round.start_s()).unwrap_or(&empty);
        let nothing_known = self.offered.is_empty() && self.ever_positive.is_empty();
        if facts.is_empty() && nothing_known && self.summaries.is_empty() {
            return;
        }
        let (decision, probes) = judge(&self.epochs, &self.window, round);
        if let Some(facts) = self.window.remove(&round.start_s()) {
            self.discover(&facts, round);
            self.window.insert(round.start_s(), facts);
        }
        let changed = (&decision.up ^ &self.last.up) | (&decision.down ^ &self.last.down);
        for node in &changed {
            self.set_verdict(node, round, decision.of(node));
        }
        if let Some(seed) = &mut self.seed {
            seed.close(round, self.window.get(&round.start_s()));
            extend_to(&mut self.nodes, seed.lines());
        }
        self.last = decision;
        self.summarise(round, probes);
        self.forget_old();
        // The store still holds the sets of the round just closed, as those to differ from.
        let before = self.epochs.previous(round).map_or(0, Round::start_s);
        if let Some(facts) = self.window.get_mut(&before) {
            facts.compact();
        }
    }

    /// Takes the facts of a closed round that came late. Their rounds, and those whose mass-loss
    /// test looks back on them, must then be judged again: see [`State::judge_again`].
    pub fn late(&mut self, fact: &Fact) -> Inserted {
        let round = self.round_of(fact);
        if self.is_retracted(fact) {
            return Inserted::Outranked;
        }
        // A round no longer kept is judged from the store, which has the fact already.
        let inserted = if self.in_memory_from_s() <= round.start_s() {
            self.window.entry(round.start_s()).or_default().insert(fact.clone())
        } else {
            Inserted::New
        };
        if inserted == Inserted::New {
            self.discover_late(fact);
        }
        inserted
    }

    /// Takes what a late fact says besides verdicts, as [`State::late`] does with one that is new.
    pub fn discover_late(&mut self, fact: &Fact) {
        if !self.is_retracted(fact) {
            let mut alone = RoundFacts::default();
            alone.insert(fact.clone());
            self.discover(&alone, self.round_of(fact));
        }
    }

    /// Judges a closed round again. `window` has its facts and those of the rounds that mass loss
    /// looks back on; `None` takes the facts in memory.
    pub fn judge_again(&mut self, round: Round, window: Option<&Window>) {
        let facts_of = window.unwrap_or(&self.window);
        let (decision, probes) = judge(&self.epochs, facts_of, round);
        let mut touched = &decision.up | &decision.down;
        if let Some(facts) = facts_of.get(&round.start_s()) {
            for fact in facts.facts() {
                touched |= fact.positive() | fact.of(Class::Unreachable);
            }
        }
        for node in &touched {
            self.set_verdict(node, round, decision.of(node));
        }
        let closed_end_s = self.closed_end_s();
        if let Some(seed) = &mut self.seed {
            let facts = window.unwrap_or(&self.window).get(&round.start_s());
            seed.again(round, facts, closed_end_s);
            extend_to(&mut self.nodes, seed.lines());
        }
        let listed = self.confirmed();
        if let Some(summary) = self.summaries.iter_mut().find(|there| there.round == round) {
            let summary = Arc::make_mut(summary);
            (summary.up, summary.down) = (decision.up.len(), decision.down.len());
            summary.unknown = (listed - &decision.up - &decision.down).len();
            summary.probes = probes.into_iter().map(without_ballot).collect();
        }
        if self.closed == Some(round) {
            let changed = (&decision.up ^ &self.last.up) | (&decision.down ^ &self.last.down);
            self.last = decision;
            for node in &changed {
                self.node_mut(node).changed_s = closed_end_s;
            }
        }
    }

    /// Whether a round's facts, and all that its judgement looks back on, are in memory.
    #[must_use]
    pub fn in_memory(&self, round: Round) -> bool {
        let mut earliest = round;
        for _ in 0..MASS_LOSS_ROUNDS {
            earliest = self.epochs.previous(earliest).unwrap_or(earliest);
        }
        self.in_memory_from_s() <= earliest.start_s()
    }

    fn set_verdict(&mut self, node: u32, round: Round, verdict: Verdict) {
        let closed_end = self.closed_end_s();
        let epochs = Arc::clone(&self.epochs);
        let node = self.node_mut(node);
        if node.timeline.at(round.start_s()) != verdict {
            node.timeline.set(round.start_s(), round.end_s(), verdict, closed_end);
            node.resettle(&epochs);
        }
    }

    fn node_mut(&mut self, node: u32) -> &mut Node {
        extend_to(&mut self.nodes, node as usize + 1);
        #[expect(clippy::expect_used, reason = "the line above made the entry")]
        Arc::make_mut(self.nodes.get_mut(node as usize).expect("entry"))
    }

    /// What facts say besides verdicts: which ids are nodes, where, and when last seen.
    fn discover(&mut self, facts: &RoundFacts, round: Round) {
        let epochs = Arc::clone(&self.epochs);
        let confirmed = self.confirmed();
        let closed_end_s = self.closed_end_s();
        for fact in facts.facts() {
            let positive = fact.positive();
            self.ever_positive |= &positive;
            self.seen.note(fact.observed_at_ms, positive);
            let offers = fact.of(Class::Offer);
            if offers.is_empty() {
                continue;
            }
            self.last_offer.note(round.start_ms(), offers.clone());
            let to_probe = self.offered_to_probe.entry(fact.key.probe).or_default();
            let new_to_probe = offers - &*to_probe;
            *to_probe |= &new_to_probe;
            self.offered_by_two |= &new_to_probe & &self.offered;
            let in_subnet = self.offered_in_subnet.entry(fact.key.subnet).or_default();
            let new_in_subnet = offers - &*in_subnet;
            *in_subnet |= &new_in_subnet;
            // On time, only nodes without any offer so far can be new.
            let late = self.closed.is_some_and(|closed| round < closed);
            let candidates = if late { offers } else { &new_in_subnet };
            for number in candidates {
                let node = self.node_mut(number);
                node.subnets.offer(fact.key.subnet, round.start_s(), node.first_seen_s);
                if new_in_subnet.contains(number) {
                    node.changed_s = closed_end_s;
                }
            }
            let candidates = if late { offers.clone() } else { offers - &self.offered };
            self.offered |= offers;
            for number in &candidates {
                let node = self.node_mut(number);
                if node.first_seen_s.is_none_or(|first| round.start_s() < first) {
                    node.first_seen_s = Some(round.start_s());
                    node.resettle(&epochs);
                }
            }
        }
        for number in &(self.confirmed() - confirmed) {
            self.node_mut(number).changed_s = closed_end_s;
        }
    }

    fn summarise(&mut self, round: Round, probes: BTreeMap<u32, ProbeRound>) {
        let (up, down) = (self.last.up.len(), self.last.down.len());
        let listed = self.confirmed();
        let unknown = (&listed - &self.last.up - &self.last.down).len();
        let probes = probes.into_iter().map(without_ballot).collect();
        let summary = RoundSummary { round, up, down, unknown, probes };
        self.summaries.push_back(Arc::new(summary));
        if self.summaries.len() > SUMMARIES_MAX {
            self.summaries.pop_front();
        }
    }

    /// The start of the first round whose facts are all in memory, whether it has any or not.
    pub fn in_memory_from_s(&self) -> u64 {
        let Some(mut oldest) = self.closed else {
            return 0;
        };
        for _ in 0..WINDOW_CLOSED {
            oldest = self.epochs.previous(oldest).unwrap_or(oldest);
        }
        oldest.start_s()
    }

    /// Forgets the facts of rounds that are not closed.
    pub fn forget_open(&mut self) {
        let _: Window = self.window.split_off(&self.closed_end_s());
    }

    fn forget_old(&mut self) {
        self.window = self.window.split_off(&self.in_memory_from_s());
    }

    /// Nodes that appear in listings: they made an offer, and either gave positive evidence or
    /// offered to two probes.
    #[must_use]
    pub fn confirmed(&self) -> RoaringBitmap {
        &self.offered & (&self.ever_positive | &self.offered_by_two)
    }

    /// Ids that made an offer and are not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> RoaringBitmap {
        &self.offered - &self.confirmed()
    }

    /// The rules.
    #[must_use]
    pub fn epochs(&self) -> &Arc<Epochs> {
        &self.epochs
    }

    /// The last closed round.
    #[must_use]
    pub fn closed(&self) -> Option<Round> {
        self.closed
    }

    /// The end of the last closed round, unix seconds; 0 before any.
    #[must_use]
    pub fn closed_end_s(&self) -> u64 {
        self.closed.map_or(0, Round::end_s)
    }

    /// The nodes by number. May be shorter than the numbers given: the rest has no facts yet.
    #[must_use]
    pub fn nodes(&self) -> &CowVec<Arc<Node>> {
        &self.nodes
    }

    /// The decision of the last closed round.
    #[must_use]
    pub fn last(&self) -> &Decision {
        &self.last
    }

    /// When each node last gave positive evidence, unix milliseconds.
    #[must_use]
    pub fn seen(&self) -> &LastSeenIndex {
        &self.seen
    }

    /// When each node last offered: starts of rounds, unix milliseconds.
    #[must_use]
    pub fn last_offer(&self) -> &LastSeenIndex {
        &self.last_offer
    }

    /// Recent rounds, oldest first.
    #[must_use]
    pub fn summaries(&self) -> &VecDeque<Arc<RoundSummary>> {
        &self.summaries
    }

    /// The facts in memory.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Every id that is or may become a node: it offered in a closed round or an open one.
    #[must_use]
    pub fn offered_anywhere(&self) -> RoaringBitmap {
        let mut offered = self.offered.clone();
        let after = self.closed_end_s();
        for facts in self.window.range(after..).map(|(_, facts)| facts) {
            for fact in facts.facts() {
                offered |= fact.of(Class::Offer);
            }
        }
        offered
    }
}

fn seconds(ms: i64) -> u64 {
    u64::try_from(ms.div_euclid(1000)).unwrap_or(0)
}

/// So that there is an entry for every number below this.
fn extend_to(nodes: &mut CowVec<Arc<Node>>, len: usize) {
    while nodes.len() < len {
        nodes.push(Arc::default());
    }
}

fn without_ballot((probe, mut round): (u32, ProbeRound)) -> (u32, ProbeRound) {
    let eligible = round.ballot.eligible;
    round.ballot = crate::verdict::Ballot { eligible, ..Default::default() };
    (probe, round)
}

/// Judges a round from the facts of a window.
pub fn judge(
    epochs: &Epochs,
    window: &Window,
    round: Round,
) -> (Decision, BTreeMap<u32, ProbeRound>) {
    let Some(facts) = window.get(&round.start_s()) else {
        return (Decision::default(), BTreeMap::new());
    };
    let mut earlier = Vec::with_capacity(MASS_LOSS_ROUNDS);
    let mut before = epochs.previous(round);
    while let Some(there) = before
        && earlier.len() < MASS_LOSS_ROUNDS
    {
        earlier.push(window.get(&there.start_s()));
        before = epochs.previous(there);
    }
    let epoch = epochs.at(round.start_s());
    let probes = facts.probe_rounds(epoch, &earlier);
    let ballots: Vec<_> = probes.values().map(|probe| probe.ballot.clone()).collect();
    (decide(&ballots, epoch.positive_probes_min), probes)
}
