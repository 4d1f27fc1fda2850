//! The verdicts, the rows and the CSV, from plain lists of facts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use chrono::{DateTime, SecondsFormat};

use uptime_proto::{Class, Digest, Epoch, Epochs, Kind, NodeId, Outcome, Part, PartKey, Round};

/// A part and its probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OracleFact {
    /// The probe's number.
    pub probe: u32,
    /// What it found.
    pub part: Part,
}

/// A retraction: facts of this probe do not count if their round starts in `[from_s, to_s)`, by the
/// period that the probe knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as on the accounting page")]
pub struct Retracted {
    pub probe: u32,
    pub from_s: u64,
    pub to_s: u64,
}

/// Without the facts that are retracted.
#[must_use]
pub fn standing(facts: &[OracleFact], retracted: &[Retracted]) -> Vec<OracleFact> {
    let out = |fact: &OracleFact| {
        retracted.iter().any(|it| {
            let start_s = fact.part.key.round.start_s();
            it.probe == fact.probe && it.from_s <= start_s && start_s < it.to_s
        })
    };
    facts.iter().filter(|fact| !out(fact)).cloned().collect()
}

/// The verdict on one node in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as on the accounting page")]
pub enum Verdict {
    Up,
    Down,
    Unknown,
}

/// The figures of one confirmed node.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named as on the accounting page")]
pub struct Row {
    pub id: NodeId,
    pub is_online: bool,
    pub last_seen_ms: Option<i64>,
    pub up_rounds: u64,
    pub up_s: u64,
    pub down_s: u64,
    pub unknown_s: u64,
    pub first_seen_s: u64,
    pub retired: bool,
    /// Of the last closed round.
    pub verdict: Verdict,
}

/// A round in force and the facts that count in it.
pub(super) struct RoundBook<'a> {
    pub(super) round: Round,
    pub(super) facts: Vec<&'a OracleFact>,
    /// Per probe with look-up parts: how many nodes it looked for, how many of them it found.
    shares: BTreeMap<u32, (u64, u64)>,
}

/// The facts that count, in their rounds, up to the last closed one.
pub struct Oracle<'a> {
    pub(super) epochs: &'a Epochs,
    /// Every round in force from the first with a fact, including rounds without facts.
    pub(super) rounds: Vec<RoundBook<'a>>,
}

const MASS_LOSS_LOOKED_MIN: u64 = 10;
const MASS_LOSS_ROUNDS: usize = 20;
const LOOKED_MIN: usize = 3;

/// The canonical CSV, `utc` dialect.
#[must_use]
pub fn csv(facts: &[OracleFact], epochs: &Epochs, last_closed: Option<Round>) -> String {
    let rows = Oracle::new(facts, epochs, last_closed).rows();
    let mut text = "issuer_id,is_online,last_seen,total_online_scans,uptime\n".to_owned();
    for row in rows {
        let online = if row.is_online { "True" } else { "False" };
        let seen = row.last_seen_ms.map(stamp).unwrap_or_default();
        let uptime = decimal(row.uptime_percent());
        // Writing to a string cannot fail.
        writeln!(text, "{},{online},{seen},{},{uptime}", row.id, row.up_rounds).ok();
    }
    text
}

/// The last round that is over at a moment, its grace included; `None` before there is any.
#[must_use]
pub fn last_closed(epochs: &Epochs, now_ms: i64) -> Option<Round> {
    let over = |round: Round| epoch_at(epochs, round.start_s()).closes_at_ms(round) <= now_ms;
    let mut round = round_in_force(epochs, now_ms);
    while !over(round) {
        round = round_in_force(epochs, round.start_ms().checked_sub(1).filter(|ms| *ms >= 0)?);
    }
    Some(round)
}

impl Row {
    /// `100 · up_s / (up_s + down_s)`, 0 if nothing was decided.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "seconds stay far below 2^53")]
    pub fn uptime_percent(&self) -> f64 {
        match self.up_s + self.down_s {
            0 => 0.0,
            decided => (100 * self.up_s) as f64 / decided as f64,
        }
    }

    /// `(up_s + down_s) / seconds since first seen`, in percent.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "seconds stay far below 2^53")]
    pub fn coverage_percent(&self) -> f64 {
        let decided = self.up_s + self.down_s;
        (100 * decided) as f64 / (decided + self.unknown_s) as f64
    }
}

impl<'a> Oracle<'a> {
    /// Sorts the facts that count into their rounds.
    #[must_use]
    pub fn new(facts: &'a [OracleFact], epochs: &'a Epochs, last_closed: Option<Round>) -> Self {
        let mut rounds: Vec<RoundBook<'a>> = Vec::new();
        let mut by_round: BTreeMap<u64, Vec<&OracleFact>> = BTreeMap::new();
        for fact in effective(facts) {
            by_round.entry(round_of(epochs, &fact.part).start_s()).or_default().push(fact);
        }
        if let (Some(last), Some(first)) = (last_closed, by_round.keys().next().copied()) {
            let mut start_s = first;
            while start_s <= last.start_s() {
                let round = round_in_force(epochs, millis(start_s));
                let facts = by_round.remove(&start_s).unwrap_or_default();
                let shares = shares(&facts);
                rounds.push(RoundBook { round, facts, shares });
                start_s = round.end_s();
            }
        }
        Self { epochs, rounds }
    }

    /// Every round in force from the first with a fact to the last closed one.
    #[must_use]
    pub fn rounds(&self) -> Vec<Round> {
        self.rounds.iter().map(|book| book.round).collect()
    }

    /// The verdict on a node in a round; `index` counts from the first round with a fact.
    #[must_use]
    pub fn verdict(&self, node: NodeId, index: usize) -> Verdict {
        let book = &self.rounds[index];
        let probes: BTreeSet<u32> = book.facts.iter().map(|fact| fact.probe).collect();
        let found: BTreeSet<u32> =
            probes.iter().copied().filter(|probe| book.positive(*probe, node)).collect();
        let epoch = epoch_at(self.epochs, book.round.start_s());
        if found.len() >= epoch.positive_probes_min as usize {
            return Verdict::Up;
        }
        let eligible: Vec<u32> =
            probes.iter().copied().filter(|probe| self.eligible(*probe, index)).collect();
        let found = eligible.iter().filter(|probe| found.contains(probe)).count();
        let against = eligible
            .iter()
            .filter(|probe| !book.positive(**probe, node))
            .filter(|probe| {
                book.sound(**probe, epoch).any(|part| part.has(Class::Unreachable, node))
            })
            .count();
        let looked = found + against;
        if against > looked - against && looked >= eligible.len().min(LOOKED_MIN) {
            Verdict::Down
        } else {
            Verdict::Unknown
        }
    }

    /// Whether a probe's negative votes count in a round.
    #[must_use]
    pub fn eligible(&self, probe: u32, index: usize) -> bool {
        let book = &self.rounds[index];
        let epoch = epoch_at(self.epochs, book.round.start_s());
        let sound = book.sound(probe, epoch).next().is_some();
        sound && !self.mass_loss(probe, index)
    }

    /// Whether a probe found less than half of its own best share in the rounds before.
    #[must_use]
    pub fn mass_loss(&self, probe: u32, index: usize) -> bool {
        let share = |index: usize| {
            let share = self.rounds[index].shares.get(&probe).copied();
            share.filter(|(looked, _)| *looked >= MASS_LOSS_LOOKED_MIN)
        };
        let Some((looked, found)) = share(index) else { return false };
        let before = index.saturating_sub(MASS_LOSS_ROUNDS)..index;
        // found / looked < 1/2 · best found / best looked, without fractions.
        before
            .filter_map(share)
            .any(|(best_looked, best_found)| 2 * found * best_looked < best_found * looked)
    }

    /// All confirmed nodes, by id.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut ids: BTreeSet<NodeId> = BTreeSet::new();
        for fact in self.rounds.iter().flat_map(|book| &book.facts) {
            ids.extend(fact.part.sets.of(Class::Offer));
        }
        ids.into_iter().filter(|id| self.confirmed(*id)).filter_map(|id| self.row(id)).collect()
    }

    /// Positive evidence from any probe, or offers from two.
    fn confirmed(&self, node: NodeId) -> bool {
        let facts = || self.rounds.iter().flat_map(|book| &book.facts);
        let offered = facts().filter(|fact| fact.part.has(Class::Offer, node));
        let offered_to: BTreeSet<u32> = offered.map(|fact| fact.probe).collect();
        offered_to.len() >= 2 || facts().any(|fact| fact.part.positive(node))
    }

    fn row(&self, id: NodeId) -> Option<Row> {
        let offered =
            |book: &RoundBook<'_>| book.facts.iter().any(|fact| fact.part.has(Class::Offer, id));
        let first = self.rounds.iter().position(offered)?;
        let last_offer = self.rounds.iter().rev().find(|book| offered(book))?.round;
        let last = self.rounds.last()?.round;
        let seen = self.rounds.iter().flat_map(|book| &book.facts);
        let seen = seen.filter(|fact| fact.part.positive(id));
        let first_seen_s = self.rounds[first].round.start_s();
        let mut row = Row {
            id,
            is_online: false,
            last_seen_ms: seen.map(|fact| fact.part.observed_at_ms).max(),
            up_rounds: 0,
            up_s: 0,
            down_s: 0,
            unknown_s: 0,
            first_seen_s,
            retired: false,
            verdict: Verdict::Unknown,
        };
        let mut decided: Vec<Round> = Vec::new();
        for index in first..self.rounds.len() {
            let round = self.rounds[index].round;
            let seconds = round.end_s() - round.start_s();
            row.verdict = self.verdict(id, index);
            decided.extend((row.verdict != Verdict::Unknown).then_some(round));
            match row.verdict {
                Verdict::Up => {
                    row.is_online = true;
                    row.up_rounds += 1;
                    row.up_s += seconds;
                }
                Verdict::Down => {
                    row.is_online = false;
                    row.down_s += seconds;
                }
                Verdict::Unknown => row.unknown_s += seconds,
            }
        }
        let after_s = u64::from(epoch_at(self.epochs, last.start_s()).retire_after_s);
        row.retired = is_retired(&decided, row.last_seen_ms, last_offer, after_s);
        row.is_online &= !row.retired;
        Some(row)
    }
}

/// Retired after `after_s` seconds of decided rounds since the last sign of life, and as many again
/// since an offer that came after that.
fn is_retired(
    decided: &[Round],
    last_seen_ms: Option<i64>,
    last_offer: Round,
    after_s: u64,
) -> bool {
    let full = |from: &dyn Fn(Round) -> bool| {
        let mut silent_s = 0;
        decided.iter().copied().filter(|round| from(*round)).find(|round| {
            silent_s += round.end_s() - round.start_s();
            silent_s >= after_s
        })
    };
    let retires = full(&|round| last_seen_ms.is_none_or(|seen_ms| round.start_ms() > seen_ms));
    retires.is_some_and(|retires| {
        last_offer <= retires || full(&|round| round >= last_offer).is_some()
    })
}

impl<'a> RoundBook<'a> {
    fn parts(&self, probe: u32) -> impl Iterator<Item = &'a Part> {
        self.facts.iter().filter(move |fact| fact.probe == probe).map(|fact| &fact.part)
    }

    /// The parts whose negative votes may count: looked, with a session that is old enough.
    pub(super) fn sound(&self, probe: u32, epoch: &Epoch) -> impl Iterator<Item = &'a Part> {
        let old_enough_s = epoch.relay_session_age_min_s;
        self.parts(probe).filter(move |part| {
            part.kind == Kind::Lookup
                && part.outcome == Outcome::Looked
                && part.relay_session_age_s.is_some_and(|age_s| age_s >= old_enough_s)
        })
    }

    pub(super) fn positive(&self, probe: u32, node: NodeId) -> bool {
        self.parts(probe).any(|part| part.positive(node))
    }
}

/// Questions about a part.
pub(super) trait Evidence {
    fn has(&self, class: Class, node: NodeId) -> bool;

    fn positive(&self, node: NodeId) -> bool {
        self.has(Class::Seen, node) || self.has(Class::Answered, node)
    }
}

impl Evidence for Part {
    fn has(&self, class: Class, node: NodeId) -> bool {
        self.sets.of(class).binary_search(&node).is_ok()
    }
}

/// Of the facts with one key, the one with the smallest digest.
fn effective(facts: &[OracleFact]) -> Vec<&OracleFact> {
    let mut by_key: BTreeMap<(u32, &PartKey), (Digest, &OracleFact)> = BTreeMap::new();
    for fact in facts {
        let digest = fact.part.digest();
        let counts = by_key.entry((fact.probe, &fact.part.key)).or_insert((digest, fact));
        if digest < counts.0 {
            *counts = (digest, fact);
        }
    }
    by_key.into_values().map(|(_, fact)| fact).collect()
}

fn shares(facts: &[&OracleFact]) -> BTreeMap<u32, (u64, u64)> {
    let mut looked: BTreeMap<u32, BTreeSet<NodeId>> = BTreeMap::new();
    let mut found = looked.clone();
    for fact in facts.iter().filter(|fact| fact.part.kind == Kind::Lookup) {
        let looked = looked.entry(fact.probe).or_default();
        let found = found.entry(fact.probe).or_default();
        for class in [Class::Seen, Class::Answered] {
            looked.extend(fact.part.sets.of(class));
            found.extend(fact.part.sets.of(class));
        }
        looked.extend(fact.part.sets.of(Class::Unreachable));
    }
    let size = |sets: &BTreeMap<u32, BTreeSet<NodeId>>, probe| sets[probe].len() as u64;
    looked.keys().map(|probe| (*probe, (size(&looked, probe), size(&found, probe)))).collect()
}

/// The round in force a part falls into.
fn round_of(epochs: &Epochs, part: &Part) -> Round {
    let round = part.key.round;
    if epoch_at(epochs, round.start_s()).period == round.period() {
        round
    } else {
        round_in_force(epochs, part.observed_at_ms)
    }
}

fn round_in_force(epochs: &Epochs, unix_ms: i64) -> Round {
    let second = u64::try_from(unix_ms.div_euclid(1000)).unwrap_or(0);
    Round::containing(unix_ms, epoch_at(epochs, second).period)
}

/// The epoch in force: the last that has started; the first holds before its start, too.
pub(super) fn epoch_at(epochs: &Epochs, unix_s: u64) -> &Epoch {
    let all = epochs.all();
    all.iter().rev().find(|epoch| epoch.start_s <= unix_s).unwrap_or(&all[0])
}

fn millis(unix_s: u64) -> i64 {
    i64::try_from(unix_s * 1000).unwrap_or(i64::MAX)
}

fn stamp(unix_ms: i64) -> String {
    let instant = DateTime::from_timestamp_millis(unix_ms).unwrap_or_default();
    instant.to_rfc3339_opts(SecondsFormat::Micros, false)
}

fn decimal(value: f64) -> String {
    let text = value.to_string();
    if text.contains('.') { text } else { text + ".0" }
}
