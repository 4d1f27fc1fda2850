//! Model probes: what each would have observed of a made-up network.
//!
//! Owns who is alive when, and the parts that a probe makes of a round. Refuses to know what
//! becomes of them.

use std::collections::VecDeque;

use uptime_proto::{Class, Kind, NodeId, Outcome, Part, PartKey, Period, Reason, Round, Sets};

use crate::chance::Chance;

/// The network: each node is up or down for some rounds at a time.
#[derive(Debug, Clone)]
pub struct Network {
    seed: u64,
    pub nodes: u64,
}

impl Network {
    pub fn new(seed: u64, nodes: u64) -> Self {
        Self { seed, nodes }
    }

    pub fn id(node: u64) -> NodeId {
        let mut bytes = [0xab; 20];
        bytes[12..].copy_from_slice(&node.to_be_bytes());
        NodeId::new(bytes)
    }

    fn is_up(&self, node: u64, round: u64) -> bool {
        let stretch = round / (3 + node % 5);
        Chance::of(self.seed ^ (node << 32), stretch).percent(70)
    }
}

/// Of so many parts that were acknowledged last some are sent again: those of a week at most.
const AGAIN_MAX: usize = 200;

/// A model probe and its spool.
#[derive(Debug)]
pub struct Probe {
    pub number: u32,
    chance: Chance,
    /// Its clock less the true time.
    pub offset_ms: i64,
    pub spool: VecDeque<Part>,
    /// What was acknowledged; some of it is sent again.
    pub acknowledged: Vec<Part>,
    pub made: u64,
}

impl Probe {
    pub fn new(seed: u64, number: u32) -> Self {
        let mut chance = Chance::of(seed, 100 + u64::from(number));
        let offset_ms = chance.between(-800, 800);
        let (spool, acknowledged) = (VecDeque::new(), Vec::new());
        Self { number, chance, offset_ms, spool, acknowledged, made: 0 }
    }

    /// Makes its parts of a round that is about to end by its clock.
    pub fn observe(&mut self, network: &Network, period: Period, now_ms: i64) {
        let own_ms = now_ms + self.offset_ms;
        let start_s = u64::try_from(own_ms / 1000).unwrap() / u64::from(period.seconds());
        let round = Round::new(start_s * u64::from(period.seconds()), period).unwrap();
        let offers = (0..network.nodes).filter(|_| self.chance.percent(95));
        let offers: Vec<NodeId> = offers.map(Network::id).collect();
        let market = Sets::default().with(Class::Offer, offers.into_iter().collect());
        self.push(round, 0, Kind::Market, market, own_ms - 2_000);
        let (mut seen, mut gone) = (Vec::new(), Vec::new());
        for node in 0..network.nodes {
            match (network.is_up(node, start_s), self.chance.below(20)) {
                (_, 0) => {}
                (true, 1) | (false, _) => gone.push(Network::id(node)),
                (true, _) => seen.push(Network::id(node)),
            }
        }
        let lookups = Sets::default()
            .with(Class::Seen, seen.into_iter().collect())
            .with(Class::Unreachable, gone.into_iter().collect());
        self.push(round, 1, Kind::Lookup, lookups, own_ms - 1_000);
    }

    fn push(&mut self, round: Round, number: u16, kind: Kind, sets: Sets, at_ms: i64) {
        let failed = self.chance.percent(4);
        let part = Part {
            key: PartKey { subnet: "public".to_owned(), round, number },
            kind,
            outcome: if failed { Outcome::CouldNotLook(Reason::TimedOut) } else { Outcome::Looked },
            observed_at_ms: at_ms.max(round.start_ms()),
            relay_session_age_s: Some(3_600),
            sets: if failed { Sets::default() } else { sets },
        };
        self.made += 1;
        // Two processes with one token, or one that lost its disk: another content, one key.
        if self.chance.percent(3) {
            let other = Part { observed_at_ms: part.observed_at_ms + 1, ..part.clone() };
            self.made += 1;
            self.spool.push_back(other);
        }
        self.spool.push_back(part);
    }

    /// The next parts to send, oldest or newest first, now and then one that was acknowledged.
    pub fn next_parts(&mut self) -> Vec<Part> {
        let count = 1 + self.chance.below(4);
        let mut parts = Vec::new();
        for _ in 0..count {
            let newest = self.chance.percent(30);
            parts.extend(if newest { self.spool.pop_back() } else { self.spool.pop_front() });
        }
        if !self.acknowledged.is_empty() && self.chance.percent(10) {
            // Older ones are refused before they come to an engine.
            let most = self.acknowledged.len().min(AGAIN_MAX) as u64;
            let back = 1 + usize::try_from(self.chance.below(most)).unwrap();
            parts.push(self.acknowledged[self.acknowledged.len() - back].clone());
        }
        parts
    }
}
