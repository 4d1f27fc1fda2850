//! The aggregator of a course: the shipped ledger on a store, led from round to round, and who
//! looks whom up.
//!
//! Owns the sharing out, as dispatch does it: each node on one probe's list, suspects on three, of
//! those that can look where there are so many.

use std::collections::{BTreeMap, BTreeSet};

use uptime_accounting::verdict::Verdict;

use crate::aggregator::directory;
use crate::stepping::{catch_up, submit};
use tempfile::TempDir;
use uptime_aggregator::engine::{Engine, EngineOptions, PartOutcome, Submission};
use uptime_aggregator::store::{Registry, SqliteStore};
use uptime_proto::{Class, Epoch, Kind, NodeId, Outcome, Part, PartKey, Period, Round, Sets};

use super::network::START_S;

/// Suspects are asked by so many.
const SUSPECT_PROBES: usize = 3;

pub(super) struct Ledger {
    pub(super) round: Round,
    // Dropped before the directory it works in.
    engine: Engine<SqliteStore>,
    rules: Epoch,
    /// By their place.
    probes: Vec<u32>,
    candidates: BTreeSet<NodeId>,
    /// With a sign of life in this round.
    found: BTreeSet<NodeId>,
    /// Who had the last sign of life of a node.
    witnesses: BTreeMap<NodeId, usize>,
    /// Probes that could look in the last round, and those that have looked in this one so far.
    could_look: BTreeSet<usize>,
    look: BTreeSet<usize>,
    /// Probes that could not look for any suspect, those whose session began anew, and nodes whose
    /// question failed.
    blind: BTreeSet<usize>,
    young: BTreeSet<usize>,
    asked: Vec<BTreeSet<NodeId>>,
    failed: BTreeSet<NodeId>,
    _directory: TempDir,
}

impl Ledger {
    pub(super) async fn open(probes: usize) -> Self {
        let directory = directory();
        let period = Period::new(30).unwrap();
        let round = Round::new(START_S, period).unwrap();
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        let mut numbers = Vec::new();
        for at in 0..probes {
            let (name, hash) = (at.to_string(), [u8::try_from(at).unwrap(); 32]);
            let record = store.add_probe(&name, &hash, &[], round.start_ms()).await.unwrap();
            numbers.push(record.unwrap().number);
        }
        let rules = Epoch::with_defaults(period);
        let options = EngineOptions::new(rules.clone());
        let engine = Engine::open(store, options, round.start_ms()).await.unwrap();
        Self {
            round,
            engine,
            rules,
            probes: numbers,
            candidates: BTreeSet::new(),
            found: BTreeSet::new(),
            witnesses: BTreeMap::new(),
            could_look: BTreeSet::new(),
            look: BTreeSet::new(),
            blind: BTreeSet::new(),
            young: BTreeSet::new(),
            asked: Vec::new(),
            failed: BTreeSet::new(),
            _directory: directory,
        }
    }

    /// Every probe found all of these on the market.
    pub(super) async fn offers(&mut self, nodes: &[NodeId], now_ms: i64) {
        self.candidates = nodes.iter().copied().collect();
        for at in 0..self.probes.len() {
            let part = Part {
                key: PartKey { subnet: "public".into(), round: self.round, number: 0 },
                kind: Kind::Market,
                outcome: Outcome::Looked,
                observed_at_ms: now_ms,
                relay_session_age_s: None,
                sets: Sets::default().with(Class::Offer, nodes.to_vec()),
            };
            self.take(at, vec![part], now_ms).await;
        }
    }

    /// Hands in parts of a probe.
    pub(super) async fn take(&mut self, at: usize, parts: Vec<Part>, now_ms: i64) {
        for part in parts.iter().filter(|part| part.kind == Kind::Lookup) {
            if part.outcome == Outcome::Looked {
                self.look.extend(part.relay_session_age_s.map(|_| at));
                if part.relay_session_age_s < Some(self.rules.relay_session_age_min_s) {
                    self.young.insert(at);
                }
            } else if part.sets.of(Class::Failed).is_empty() {
                self.blind.insert(at);
            }
            self.failed.extend(part.sets.of(Class::Failed));
            for id in part.sets.of(Class::Seen).iter().chain(part.sets.of(Class::Answered)) {
                self.found.insert(*id);
                self.witnesses.insert(*id, at);
            }
        }
        let wanted = parts.len();
        let submission = Submission { probe: self.probes[at], parts, ..Submission::default() };
        let outcomes = submit(&mut self.engine, submission, now_ms).await;
        assert_eq!(outcomes, vec![PartOutcome::Accepted; wanted]);
    }

    /// The probes that can look, or all where none is known to.
    fn able(&self) -> Vec<usize> {
        let able: Vec<usize> = self.could_look.iter().copied().collect();
        if able.is_empty() { (0..self.probes.len()).collect() } else { able }
    }

    /// Shares nodes out among those that can look, to so many each.
    fn share<'a>(
        &self,
        nodes: impl Iterator<Item = &'a NodeId>,
        copies: usize,
    ) -> Vec<BTreeSet<NodeId>> {
        let able = self.able();
        let mut shares = vec![BTreeSet::new(); self.probes.len()];
        for id in nodes {
            let first = usize::from(id.as_bytes()[0]);
            for copy in 0..copies.min(able.len()) {
                shares[able[(first + copy) % able.len()]].insert(*id);
            }
        }
        shares
    }

    /// Whom each probe looks up first.
    pub(super) fn standing(&self) -> Vec<BTreeSet<NodeId>> {
        self.share(self.candidates.iter(), 1)
    }

    /// The suspects that each probe asks about.
    pub(super) fn suspects(&mut self) -> Vec<BTreeSet<NodeId>> {
        let mut shares = self.share(self.candidates.difference(&self.found), SUSPECT_PROBES);
        let able = self.able();
        for id in self.candidates.difference(&self.found) {
            if let Some(at) = self.witnesses.get(id).filter(|at| able.contains(at)) {
                shares[*at].insert(*id);
            }
        }
        if able.len() < SUSPECT_PROBES {
            let suspects = || self.candidates.difference(&self.found).copied();
            let others = (0..shares.len()).filter(|at| !able.contains(at));
            others.for_each(|at| shares[at] = suspects().collect());
        }
        self.asked.clone_from(&shares);
        shares
    }

    /// Closes the round when its grace is over.
    pub(super) async fn close(&mut self) {
        catch_up(&mut self.engine, self.rules.closes_at_ms(self.round)).await;
        assert_eq!(self.engine.snapshot().closed, Some(self.round));
    }

    /// The next round begins.
    pub(super) fn next(&mut self) {
        self.round = self.round.next();
        self.could_look = std::mem::take(&mut self.look);
        self.found.clear();
        self.blind.clear();
        self.young.clear();
        self.failed.clear();
    }

    /// The places of the probes that were eligible in the round that has just closed.
    pub(super) fn eligible(&self) -> Vec<usize> {
        let snapshot = self.engine.snapshot();
        let probes = &snapshot.rounds.last().unwrap().probes;
        let counts =
            |at: &usize| probes.get(&self.probes[*at]).is_some_and(|probe| probe.ballot.eligible);
        (0..self.probes.len()).filter(counts).collect()
    }

    /// The verdict on every node in the round that has just closed.
    pub(super) fn verdicts(&self) -> Vec<(NodeId, Verdict)> {
        let snapshot = self.engine.snapshot();
        snapshot.nodes().map(|node| (node.id, node.verdict)).collect()
    }

    /// Whether one of those asked about the node failed for its daemon's own reasons.
    pub(super) fn failed(&self, id: NodeId) -> bool {
        // A probe that counts by its first look-ups, and whose session began anew after them.
        let eligible = self.eligible();
        let young = eligible.iter().filter(|at| self.young.contains(at));
        let mut blind = self.blind.iter().chain(young);
        self.failed.contains(&id) || blind.any(|at| self.asked[*at].contains(&id))
    }
}
