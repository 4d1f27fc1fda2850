//! Replay: the state that stored facts make, stretch by stretch.
//!
//! Owns the order in which stored facts are folded, and which rounds are judged again because
//! something came late. It says which stretch of facts it needs, and takes them. So it can be put
//! aside between any two stretches, and [`STRETCH_S`] bounds its memory. Refuses to read: whoever
//! calls does, from wherever facts are stored.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::successors;
use std::sync::Arc;

use uptime_proto::round::DAY_S;
use uptime_proto::{Epoch, Epochs, Round};

use crate::evidence::MASS_LOSS_ROUNDS;
use crate::fact::{Fact, FactKey};
use crate::state::{State, Window};

/// Rounds of so much time are read at once, besides those that mass loss looks back on: 240 rounds
/// of 30 s. A hundred probes hand in some 70,000 parts in it.
pub const STRETCH_S: u64 = 7_200;
/// What was left out is told one by one up to so many.
const LEFT_OUT_LISTED_MAX: usize = 100;

/// A stored fact, or the place of one that cannot be read.
pub type Read = Result<Fact, String>;

/// Facts to read: those whose key has a round that starts in `[from_s, to_s)`, unix seconds. They
/// come ascending by key, conflicting ones by digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The start, unix seconds.
    pub from_s: u64,
    /// The end, unix seconds; not included.
    pub to_s: u64,
}

/// What of the stored facts does not enter what is made from them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeftOut {
    /// The first hundred, each by its place.
    pub listed: Vec<String>,
    /// How many there are in all.
    pub count: u64,
}

impl LeftOut {
    /// Notes one.
    pub fn add(&mut self, what: String) {
        if self.listed.len() < LEFT_OUT_LISTED_MAX {
            self.listed.push(what);
        }
        self.count += 1;
    }

    /// Notes all that another noted.
    pub fn merge(&mut self, other: Self) {
        let room = LEFT_OUT_LISTED_MAX.saturating_sub(self.listed.len());
        self.listed.extend(other.listed.into_iter().take(room));
        self.count += other.count;
    }
}

/// Of the facts of one key only the one with the smallest digest, which comes first.
pub fn winning_facts(facts: Vec<Read>) -> impl Iterator<Item = Read> {
    let mut last = None;
    facts.into_iter().filter(move |fact| match fact {
        Ok(fact) => last.replace(fact.key) != Some(fact.key),
        Err(_) => true,
    })
}

/// How far the key of a fact may lie from the round it counts in: a part on an outdated grid lies
/// up to one of its periods, and its grace, earlier or later. Seconds; 0 where there is one grid.
#[must_use]
pub fn slack_s(epochs: &Epochs) -> u64 {
    let reach = |epoch: &Epoch| u64::from(epoch.period.seconds()) + u64::from(epoch.grace_s);
    let longest = epochs.all().iter().map(reach).max().unwrap_or(0);
    if epochs.all().len() > 1 { longest } else { 0 }
}

/// Where the facts lie that decide these rounds: their own, and those that mass loss looks back on.
#[must_use]
pub fn stretch_around(epochs: &Epochs, first: Round, last: Round) -> Stretch {
    let mut earliest = first;
    for _ in 0..MASS_LOSS_ROUNDS {
        earliest = epochs.previous(earliest).unwrap_or(earliest);
    }
    let slack_s = slack_s(epochs);
    Stretch {
        from_s: earliest.start_s().saturating_sub(slack_s),
        to_s: last.end_s().saturating_add(slack_s),
    }
}

/// The last round whose grace is over at a moment, unix milliseconds.
#[must_use]
pub fn last_over(epochs: &Epochs, now_ms: i64) -> Round {
    let mut round = epochs.round_at_ms(now_ms);
    while epochs.at(round.start_s()).closes_at_ms(round) > now_ms {
        match epochs.previous(round) {
            Some(before) => round = before,
            None => break,
        }
    }
    round
}

/// Closed rounds that are to be judged again, because a fact came late to them or to a round they
/// look back on.
#[derive(Debug, Clone, Default)]
pub struct LateRounds {
    starts: BTreeSet<u64>,
    /// Those of them that wait for the facts of the stretch that was asked for.
    reading: Vec<u64>,
}

impl LateRounds {
    /// Notes the round of a late fact, and the closed rounds whose mass-loss test looks back on it.
    pub fn note(&mut self, state: &State, fact: &Fact) {
        let Some(closed) = state.closed() else { return };
        let mut round = state.round_of(fact);
        for _ in 0..=MASS_LOSS_ROUNDS {
            if round > closed {
                break;
            }
            self.starts.insert(round.start_s());
            round = state.epochs().next(round);
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// One turn, oldest rounds first: judges again the rounds of one stretch whose facts are in
    /// memory, or answers which facts the next ones need; see [`LateRounds::take`].
    pub fn judge(&mut self, state: &mut State) -> Option<Stretch> {
        let first = *self.starts.first()?;
        let starts = self.starts.range(first..first.saturating_add(STRETCH_S));
        let starts: Vec<u64> = starts.copied().collect();
        let last = starts.last().copied().unwrap_or(first);
        let (first, last) = (round_at(state.epochs(), first), round_at(state.epochs(), last));
        if !state.in_memory(first) {
            self.reading = starts;
            return Some(stretch_around(state.epochs(), first, last));
        }
        self.judge_all(state, starts, None);
        None
    }

    fn judge_all(&mut self, state: &mut State, starts: Vec<u64>, window: Option<&Window>) {
        let epochs = Arc::clone(state.epochs());
        for start_s in starts {
            state.judge_again(round_at(&epochs, start_s), window);
            self.starts.remove(&start_s);
        }
    }

    /// Judges again the rounds for which these facts were asked for. Answers what cannot be read.
    pub fn take(&mut self, state: &mut State, facts: Vec<Read>) -> LeftOut {
        let mut left_out = LeftOut::default();
        let readable =
            winning_facts(facts).filter_map(|fact| fact.map_err(|what| left_out.add(what)).ok());
        let window = state.window_of(readable);
        let starts = std::mem::take(&mut self.reading);
        self.judge_all(state, starts, Some(&window));
        left_out
    }
}

fn round_at(epochs: &Epochs, start_s: u64) -> Round {
    epochs.round_at_ms(i64::try_from(start_s.saturating_mul(1000)).unwrap_or(i64::MAX))
}

/// What a [`Replay`] needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The facts of this stretch: see [`Replay::take`].
    Read(Stretch),
    /// Another turn; nothing has to be read for it.
    Again,
    /// Nothing: every round up to the target is closed and judged.
    Done,
}

/// Facts that came to closed rounds of a state after it was saved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Late {
    /// Their keys.
    pub keys: BTreeSet<FactKey>,
    /// Starts of UTC days, unix seconds, of which any fact may be one of them.
    pub days: BTreeSet<u64>,
}

impl Late {
    /// Whether a fact with this key may have come after the state was saved.
    #[must_use]
    pub fn contains(&self, key: &FactKey) -> bool {
        let start_s = key.round.start_s();
        self.keys.contains(key) || self.days.contains(&(start_s - start_s % u64::from(DAY_S)))
    }

    /// Where they lie, ascending; each at most [`STRETCH_S`] long.
    #[must_use]
    pub fn stretches(&self) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        for (from_s, to_s) in self.places_before(u64::MAX) {
            match stretches.last_mut() {
                Some(last) if to_s <= last.from_s.saturating_add(STRETCH_S) => {
                    last.to_s = to_s.max(last.to_s);
                }
                _ => stretches.push(Stretch { from_s, to_s }),
            }
        }
        stretches
    }

    /// Where those of rounds that start before a moment lie: ends by beginnings, unix seconds; no
    /// longer than [`STRETCH_S`] each.
    fn places_before(&self, before_s: u64) -> BTreeMap<u64, u64> {
        let keys = self.keys.iter().map(|key| (key.round.start_s(), key.round.start_s() + 1));
        let mut places: BTreeMap<u64, u64> =
            keys.filter(|(start_s, _)| *start_s < before_s).collect();
        for day_s in &self.days {
            let end_s = (day_s + u64::from(DAY_S)).min(before_s);
            let next = |from_s: &u64| Some(from_s + STRETCH_S).filter(|it| *it < end_s);
            let starts = successors(Some(*day_s).filter(|it| *it < end_s), next);
            places.extend(starts.map(|from_s| (from_s, end_s.min(from_s + STRETCH_S))));
        }
        places
    }
}

#[derive(Debug, Clone)]
enum Phase {
    /// Late facts of rounds before what is read anyway: ends of their places by beginnings.
    LongLate(BTreeMap<u64, u64>),
    /// All facts from here on, unix seconds.
    Forward(u64),
    Late,
}

/// Where the facts to replay lie, and how far.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Unix seconds between which, both included, every round that has a fact starts; `None`: there
    /// are no facts.
    pub extent: Option<(u64, u64)>,
    /// The round to close last.
    pub target: Round,
    /// Facts of rounds that start at or after this are not looked at; unix seconds.
    pub until_s: u64,
    /// Facts that came to closed rounds of the state after it was saved.
    pub late: Late,
}

impl Plan {
    /// Of all facts, up to this round.
    #[must_use]
    pub fn new(extent: Option<(u64, u64)>, target: Round) -> Self {
        Self { extent, target, until_s: u64::MAX, late: Late::default() }
    }
}

/// Folds stored facts into a state that does not know them: from nothing, from a roll-up or from a
/// checkpoint.
#[derive(Debug)]
pub struct Replay {
    state: State,
    plan: Plan,
    /// The last round that the state had closed at the beginning.
    known: Option<Round>,
    /// Where reading begins, unix seconds.
    from_s: u64,
    late_rounds: LateRounds,
    phase: Phase,
    reading: Option<Stretch>,
    left_out: LeftOut,
}

impl Replay {
    /// Begins with this state.
    #[must_use]
    pub fn new(state: State, plan: Plan) -> Self {
        let known = state.closed();
        let (first_s, _) = plan.extent.unwrap_or((u64::MAX, 0));
        let from_s = match known {
            Some(_) => state.in_memory_from_s().saturating_sub(slack_s(state.epochs())),
            None => first_s,
        };
        let phase = Phase::LongLate(plan.late.places_before(from_s));
        let from_s = from_s.max(first_s);
        let (late_rounds, left_out) = (LateRounds::default(), LeftOut::default());
        Self { state, plan, known, from_s, late_rounds, phase, reading: None, left_out }
    }

    /// Goes on by one turn.
    pub fn step(&mut self) -> Step {
        match &self.phase {
            Phase::LongLate(places) => {
                let Some((from_s, _)) = places.first_key_value() else {
                    self.phase = Phase::Forward(self.from_s);
                    return Step::Again;
                };
                let (from_s, most_s) = (*from_s, from_s.saturating_add(STRETCH_S));
                let within = places.range(from_s..most_s);
                let to_s = within.map(|(_, end_s)| *end_s).max().unwrap_or(from_s).min(most_s);
                self.read(Stretch { from_s, to_s })
            }
            Phase::Forward(from_s) => {
                let from_s = *from_s;
                let end_s = self.plan.extent.map_or(0, |(_, last_s)| last_s.saturating_add(1));
                if from_s < end_s.min(self.plan.until_s) {
                    let to_s = from_s.saturating_add(STRETCH_S).min(self.plan.until_s);
                    return self.read(Stretch { from_s, to_s });
                }
                self.close_up_to(self.plan.target);
                self.phase = Phase::Late;
                Step::Again
            }
            Phase::Late if self.late_rounds.is_empty() => Step::Done,
            Phase::Late => match self.late_rounds.judge(&mut self.state) {
                Some(stretch) => self.read(stretch),
                None => Step::Again,
            },
        }
    }

    fn read(&mut self, stretch: Stretch) -> Step {
        self.reading = Some(stretch);
        Step::Read(stretch)
    }

    /// Takes the facts of the stretch that the last step asked for. Without such a step they are
    /// passed over.
    pub fn take(&mut self, facts: Vec<Read>) {
        let Some(stretch) = self.reading.take() else { return };
        match &mut self.phase {
            Phase::LongLate(places) => {
                let cut = places.range(..stretch.to_s).map(|(_, end_s)| *end_s).max();
                *places = places.split_off(&stretch.to_s);
                // A place that reaches beyond the stretch goes on in the next one.
                if let Some(end_s) = cut.filter(|end_s| *end_s > stretch.to_s) {
                    let there = places.entry(stretch.to_s).or_insert(end_s);
                    *there = end_s.max(*there);
                }
                for fact in winning_facts(facts).flatten() {
                    if self.plan.late.contains(&fact.key) {
                        self.state.discover_late(&fact);
                        self.late_rounds.note(&self.state, &fact);
                    }
                }
            }
            Phase::Forward(from_s) => {
                *from_s = stretch.to_s;
                for fact in winning_facts(facts) {
                    match fact {
                        Ok(fact) => self.fold(fact),
                        Err(what) => self.left_out.add(what),
                    }
                }
                if stretch.to_s < self.plan.target.start_s() {
                    let reached = round_at(self.state.epochs(), stretch.to_s - 1);
                    // The last round of the stretch may have facts in the next one.
                    if let Some(before) = self.state.epochs().previous(reached) {
                        self.close_up_to(before);
                    }
                }
            }
            Phase::Late => {
                // Whatever cannot be read was met on the way forward.
                let _: LeftOut = self.late_rounds.take(&mut self.state, facts);
            }
        }
    }

    /// Puts a stored fact where it belongs.
    fn fold(&mut self, fact: Fact) {
        let Self { state, plan, known, late_rounds, .. } = self;
        if known.is_some_and(|known| state.round_of(&fact) <= known) {
            if plan.late.contains(&fact.key) {
                state.discover_late(&fact);
                late_rounds.note(state, &fact);
            }
            state.recall(fact);
        } else if let Err(fact) = state.accept(fact) {
            state.late(&fact);
            late_rounds.note(state, &fact);
        }
    }

    fn close_up_to(&mut self, target: Round) {
        if self.state.closed().is_none_or(|closed| closed < target) {
            self.state.close_through(target);
        }
    }

    /// The state as it is, what is still to be judged again, and what could not be read.
    #[must_use]
    pub fn end(self) -> (State, LateRounds, LeftOut) {
        (self.state, self.late_rounds, self.left_out)
    }
}
