//! A network that comes and goes, and what probes see of it round by round, drawn from a seed.
//!
//! Nodes stay up for 12 h and down for 2 h on average, without memory. A probe asked about a node
//! says nothing of it in one case of 500, at random. Each node is looked up by one probe first;
//! those not found are asked for by three. Or, where that is wanted, every probe looks for every
//! node in every round. Knows what the verdicts must come to, so that no figure is taken from a
//! ledger that is wrong.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uptime_proto::{Class, Kind, NodeId, Outcome, Part, PartKey, Round, Sets};

/// The first second of simulated time: 2026-01-01 UTC.
pub(crate) const FIRST_S: u64 = 1_767_225_600;
/// How long nodes stay up and down on average.
const UP_S: f64 = 12.0 * 3_600.0;
const DOWN_S: f64 = 2.0 * 3_600.0;
/// How often a probe says nothing of a node that it was asked about.
const MISSED: f64 = 0.002;
/// As many probes ask for a suspect, and must have looked before a node is down.
const SUSPECT_PROBES: usize = 3;
/// A part has no more observations; the aggregator's limit.
const PIECE_MAX: usize = 40_000;
/// The relay sessions of all daemons were this old at the beginning.
const SESSION_AGE_S: u64 = 3_600;

/// The network. Nodes go by their place in the order of ids.
pub(crate) struct Network {
    dice: StdRng,
    pub(crate) ids: Vec<NodeId>,
    up: Vec<bool>,
    first_asked_by: Vec<usize>,
    probes: usize,
    round_s: f64,
    looks: Looks,
}

/// Who looks for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// Every probe lists the market; look-ups are shared out.
    SharedOut,
    /// Every probe looks for every node. The first round also lists the market, or the ids would
    /// be no nodes.
    Everywhere { listed: bool },
}

/// What one probe came to know in one round.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) offers: Vec<u32>,
    pub(crate) first: Vec<u32>,
    pub(crate) second: Vec<u32>,
    pub(crate) unreachable: Vec<u32>,
}

/// What all probes came to know, and what the verdicts must come to.
pub(crate) struct Seen {
    pub(crate) views: Vec<View>,
    pub(crate) up: u64,
    pub(crate) down: u64,
}

/// One part to be, with nodes by their place.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) kind: Kind,
    pub(crate) number: u16,
    pub(crate) observed_at_ms: i64,
    pub(crate) groups: Vec<(Class, Vec<u32>)>,
}

/// What a probe sends in one round, in the order of sending.
pub(crate) struct Stages {
    pub(crate) market: Vec<Piece>,
    pub(crate) first: Vec<Piece>,
    pub(crate) second: Vec<Piece>,
}

/// The age of every daemon's relay session in a round.
pub(crate) fn session_age_s(round: Round) -> u32 {
    let age = round.start_s().saturating_sub(FIRST_S) + SESSION_AGE_S;
    u32::try_from(age).unwrap_or(u32::MAX)
}

impl Network {
    pub(crate) fn new(seed: u64, nodes: usize, probes: usize, round_s: u32) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut ids: Vec<NodeId> = (0..nodes).map(|_| NodeId::new(dice.random())).collect();
        ids.sort_unstable();
        let up = ids.iter().map(|_| dice.random_bool(UP_S / (UP_S + DOWN_S))).collect();
        let first_asked_by = ids.iter().map(|_| dice.random_range(0..probes)).collect();
        let (round_s, looks) = (f64::from(round_s), Looks::SharedOut);
        Self { dice, ids, up, first_asked_by, probes, round_s, looks }
    }

    /// The same, but every probe looks for every node in every round.
    pub(crate) fn looked_for_everywhere(mut self) -> Self {
        self.looks = Looks::Everywhere { listed: false };
        self
    }

    /// Which nodes are up now, in the order of ids.
    pub(crate) fn up(&self) -> &[bool] {
        &self.up
    }

    /// One round later.
    pub(crate) fn advance(&mut self) {
        let (falls, rises) = (self.round_s / UP_S, self.round_s / DOWN_S);
        for up in &mut self.up {
            let turns = self.dice.random_bool(if *up { falls } else { rises });
            *up ^= turns;
        }
    }

    fn misses(&mut self) -> bool {
        self.dice.random_bool(MISSED)
    }

    /// What a probe finds that looks for all nodes alone: those up, those down.
    pub(crate) fn look_for_all(&mut self) -> (Vec<u32>, Vec<u32>) {
        let (mut seen, mut unreachable) = (Vec::new(), Vec::new());
        for (node, up) in (0u32..).zip(self.up.clone()) {
            match (self.misses(), up) {
                (true, _) => {}
                (false, true) => seen.push(node),
                (false, false) => unreachable.push(node),
            }
        }
        (seen, unreachable)
    }

    /// What all probes find in one round.
    pub(crate) fn look(&mut self) -> Seen {
        match self.looks {
            Looks::SharedOut => self.look_shared_out(),
            Looks::Everywhere { listed } => {
                self.looks = Looks::Everywhere { listed: true };
                self.look_everywhere(listed)
            }
        }
    }

    fn look_everywhere(&mut self, listed: bool) -> Seen {
        let nodes = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        let (mut views, mut answers) = (Vec::new(), vec![0; self.ids.len()]);
        for _ in 0..self.probes {
            let offers = if listed { Vec::new() } else { (0..nodes).collect() };
            let (first, unreachable) = self.look_for_all();
            for node in first.iter().chain(&unreachable) {
                answers[*node as usize] += 1;
            }
            views.push(View { offers, first, second: Vec::new(), unreachable });
        }
        let least = SUSPECT_PROBES.min(self.probes);
        let (mut up, mut down) = (0, 0);
        for (is_up, answers) in self.up.iter().zip(answers) {
            up += u64::from(*is_up && answers > 0);
            down += u64::from(!is_up && answers >= least);
        }
        Seen { views, up, down }
    }

    fn look_shared_out(&mut self) -> Seen {
        let nodes = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        let mut views = vec![View::default(); self.probes];
        for view in &mut views {
            view.offers = (0..nodes).filter(|_| !self.dice.random_bool(MISSED)).collect();
        }
        let asked = SUSPECT_PROBES.min(self.probes);
        let (mut up, mut down) = (0, 0);
        for node in 0..nodes {
            let place = node as usize;
            let (is_up, first) = (self.up[place], self.first_asked_by[place]);
            if is_up && !self.misses() {
                views[first].first.push(node);
                up += 1;
                continue;
            }
            let mut answers = 0;
            for next in 0..asked {
                if self.misses() {
                    continue;
                }
                let view = &mut views[(first + next) % self.probes];
                let found = if is_up { &mut view.second } else { &mut view.unreachable };
                found.push(node);
                answers += 1;
            }
            up += u64::from(is_up && answers > 0);
            down += u64::from(!is_up && answers == asked);
        }
        Seen { views, up, down }
    }

    /// A view as the parts that a probe makes of it.
    pub(crate) fn stages(&mut self, view: View, round: Round) -> Stages {
        let mut made = |share: i64, kind, first_number, groups| {
            let period_ms = round.period().millis();
            let jitter_ms = self.dice.random_range(0..period_ms / 50);
            let observed_at_ms = round.start_ms() + period_ms * share / 100 + jitter_ms;
            pieces(kind, first_number, observed_at_ms, groups)
        };
        if let Looks::Everywhere { .. } = self.looks {
            let looked = vec![(Class::Seen, view.first), (Class::Unreachable, view.unreachable)];
            let first = made(70, Kind::Lookup, 0, looked);
            let market = if view.offers.is_empty() {
                Vec::new()
            } else {
                made(5, Kind::Market, 0, vec![(Class::Offer, view.offers)])
            };
            return Stages { market, first, second: Vec::new() };
        }
        let market = made(5, Kind::Market, 0, vec![(Class::Offer, view.offers)]);
        let first = made(70, Kind::Lookup, 0, vec![(Class::Seen, view.first)]);
        let number = u16::try_from(first.len()).unwrap_or(u16::MAX);
        let suspects = vec![(Class::Seen, view.second), (Class::Unreachable, view.unreachable)];
        let second = made(97, Kind::Lookup, number, suspects);
        Stages { market, first, second }
    }
}

fn pieces(
    kind: Kind,
    first_number: u16,
    observed_at_ms: i64,
    groups: Vec<(Class, Vec<u32>)>,
) -> Vec<Piece> {
    let count: usize = groups.iter().map(|(_, nodes)| nodes.len()).sum();
    let split: Vec<Vec<(Class, Vec<u32>)>> = if count <= PIECE_MAX {
        vec![groups]
    } else {
        let chunks = groups.iter().flat_map(|(class, nodes)| {
            nodes.chunks(PIECE_MAX).map(|chunk| vec![(*class, chunk.to_vec())])
        });
        chunks.collect()
    };
    (first_number..)
        .zip(split)
        .map(|(number, groups)| Piece { kind, number, observed_at_ms, groups })
        .collect()
}

impl Stages {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Piece> {
        self.market.iter().chain(&self.first).chain(&self.second)
    }
}

impl Piece {
    pub(crate) fn observations(&self) -> u64 {
        self.groups.iter().map(|(_, nodes)| nodes.len() as u64).sum()
    }

    /// The part a probe would make.
    pub(crate) fn part(&self, ids: &[NodeId], round: Round) -> Part {
        let sets = self.groups.iter().fold(Sets::default(), |sets, (class, nodes)| {
            sets.with(*class, nodes.iter().map(|node| ids[*node as usize]).collect())
        });
        let market = self.kind == Kind::Market;
        let subnet = if market { "public".to_owned() } else { String::new() };
        Part {
            key: PartKey { subnet, round, number: self.number },
            kind: self.kind,
            outcome: Outcome::Looked,
            observed_at_ms: self.observed_at_ms,
            relay_session_age_s: (!market).then(|| session_age_s(round)),
            sets,
        }
    }
}
