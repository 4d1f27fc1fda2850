//! A generated network, and the reports of good and bad probes about it.
//!
//! Owns the making of facts and of the order in which they arrive. Everything is a function of a
//! seed and of the question (never of earlier questions), so that a failing history stays the same
//! while its numbers shrink. Refuses to know the expected results.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uptime_proto::{
    Class, Epoch, Epochs, Kind, NodeId, Outcome, Part, PartKey, Period, Reason, Round, Sets,
};
use uptime_testkit::oracle::{OracleFact, Retracted};

/// Ten rounds of 30 s before the end of a UTC day, so that histories cross into the next.
pub const BEGIN_S: u64 = 1_769_904_000 - 300;
/// The unit in which the lives of nodes are told.
const SLOT_S: u64 = 30;
const GRACE_S: u32 = 5;
/// A fact that is not late arrives within this.
const ON_TIME_MS: u64 = 6_000;

/// A die that falls the same way whenever it is asked the same thing.
#[derive(Debug, Clone, Copy)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(self, about: &[u64]) -> u64 {
        let mut state = self.0;
        for word in about.iter().chain([&about.len().try_into().unwrap_or(0)]) {
            state = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            state ^= state >> 31;
        }
        state
    }

    pub fn chance(self, percent: u64, about: &[u64]) -> bool {
        self.roll(about) % 100 < percent
    }
}

/// Rules that come into force some time after an announcement.
#[derive(Debug, Clone)]
pub struct Rules {
    /// When the aggregator is opened with them, slots after the beginning.
    pub announced_slot: u64,
    pub period_s: u32,
    pub k: u32,
    pub retire_after_s: u32,
}

#[derive(Debug, Clone)]
pub struct World {
    pub seed: u64,
    pub probes: u32,
    pub nodes: u64,
    pub subnets: u64,
    pub slots: u64,
    /// Slots without any report at the end.
    pub tail_slots: u64,
    /// Percentage of a probe's rounds in which something is wrong with it.
    pub trouble: u64,
    /// Percentage of parts that come with another content, too.
    pub conflicts: u64,
    /// How often evidence is retracted, or put back.
    pub disowns: u64,
    /// Percentage of nodes that are seen for half of the time before they make their first offer.
    pub newcomers: u64,
    /// Never empty.
    pub rules: Vec<Rules>,
}

impl Rules {
    pub fn epoch(&self) -> Epoch {
        Epoch {
            grace_s: GRACE_S,
            positive_probes_min: self.k,
            retire_after_s: self.retire_after_s,
            ..Epoch::with_defaults(Period::new(self.period_s).unwrap())
        }
    }

    pub fn announced_ms(&self) -> i64 {
        ms(BEGIN_S + self.announced_slot * SLOT_S)
    }
}

/// Worlds in which nodes are seen by few, long before they make an offer, and more must see them.
pub fn worlds_of_newcomers() -> impl Strategy<Value = World> {
    (worlds(0..=1), 40u64..100, 2u32..=3, 1u32..=2).prop_map(|(world, newcomers, k, probes)| {
        let rules = world.rules.iter().map(|rules| Rules { k, ..rules.clone() }).collect();
        World { newcomers, rules, probes, ..world }
    })
}

/// Worlds with so many changes of the rules.
pub fn worlds(changes: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = World> {
    let sizes = (1u32..=5, 15u64..=40, 1u64..=2, 5u64..=40, 0u64..=45);
    let quality = (0u64..=70, prop_oneof![Just(0u64), 1u64..=20], prop_oneof![Just(0u64), 1u64..4]);
    let first = rules(0..1, &[30]);
    let later = prop::collection::vec(rules(1..30, &[30, 60, 15, 20, 120, 10]), changes);
    (any::<u64>(), sizes, quality, first, later).prop_map(|(seed, sizes, quality, first, later)| {
        let (probes, nodes, subnets, slots, tail_slots) = sizes;
        let (trouble, conflicts, disowns) = quality;
        let mut rules: Vec<Rules> = std::iter::once(first).chain(later).collect();
        rules.sort_by_key(|rules| rules.announced_slot);
        World {
            seed,
            probes,
            nodes,
            subnets,
            slots,
            tail_slots,
            trouble,
            conflicts,
            disowns,
            newcomers: 0,
            rules,
        }
    })
}

fn rules(announced: std::ops::Range<u64>, periods: &'static [u32]) -> impl Strategy<Value = Rules> {
    let k = prop_oneof![4 => Just(1u32), 2 => Just(2), 1 => Just(3)];
    let retire = prop::sample::select(&[30 * 86_400u32, 300, 150, 600]);
    let parts = (announced, prop::sample::select(periods), k, retire);
    parts.prop_map(|(announced_slot, period_s, k, retire_after_s)| Rules {
        announced_slot,
        period_s,
        k,
        retire_after_s,
    })
}

/// What is wrong with a probe in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Silent,
    CouldNotLook,
    SessionYoung,
    SessionMissing,
    Blind,
    LooksForFew,
}

pub fn node_id(node: u64) -> NodeId {
    // Not ascending, so that numbers and ids sort differently.
    let byte = u8::try_from(node * 37 % 251).unwrap_or(0);
    NodeId::new([byte; 20])
}

fn slot_of(round: Round) -> u64 {
    round.start_s().saturating_sub(BEGIN_S) / SLOT_S
}

fn ms(second: u64) -> i64 {
    i64::try_from(second * 1000).unwrap()
}

impl World {
    /// When everything has been made and delivered.
    pub fn end_ms(&self) -> i64 {
        let longest_s = 120 + u64::from(GRACE_S) + ON_TIME_MS / 1000;
        let end_ms = ms(BEGIN_S + (self.slots + self.tail_slots) * SLOT_S + longest_s);
        self.rules.iter().map(Rules::announced_ms).fold(end_ms, i64::max)
    }

    /// Retractions, and which of them are undone, in the order in which they come to be.
    pub fn retractions(&self) -> Vec<(Retracted, bool)> {
        let mut steps: Vec<(Retracted, bool)> = Vec::new();
        for at in 0..self.disowns {
            let probe = 1 + u32::try_from(self.dice(&[30, at]) % u64::from(self.probes)).unwrap();
            let from_s = BEGIN_S + self.dice(&[31, at]) % self.slots * SLOT_S;
            let to_s = from_s + (1 + self.dice(&[32, at]) % 20) * SLOT_S;
            let retracted = Retracted { probe, from_s, to_s };
            // Two alike could not be told apart when one is undone.
            if steps.iter().any(|(there, _)| *there == retracted) {
                continue;
            }
            steps.push((retracted, false));
            if self.chance(40, &[33, at]) {
                steps.push((retracted, true));
            }
        }
        steps
    }

    fn dice(&self, about: &[u64]) -> u64 {
        Dice(self.seed).roll(about)
    }

    fn chance(&self, percent: u64, about: &[u64]) -> bool {
        Dice(self.seed).chance(percent, about)
    }

    /// Every fact that comes to be, in the order in which probes make them.
    pub fn facts(&self, epochs: &Epochs) -> Vec<OracleFact> {
        let mut facts = Vec::new();
        for probe in 1..=self.probes {
            for round in self.rounds_of(probe, epochs) {
                for part in self.parts(u64::from(probe), round) {
                    facts.push(OracleFact { probe, part });
                }
            }
        }
        facts
    }

    /// The rounds a probe knows: it hears of an epoch early, in time, or many rounds late.
    fn rounds_of(&self, probe: u32, epochs: &Epochs) -> Vec<Round> {
        let mut switches: Vec<(u64, Period)> = vec![(0, epochs.all()[0].period)];
        for (index, pair) in epochs.all().windows(2).enumerate() {
            let about = [1, u64::from(probe), index as u64];
            let (old, new) = (pair[0].period, pair[1].period);
            let step = u64::from(old.seconds().max(new.seconds()) * 2);
            let at = match self.dice(&about) % 4 {
                0 => pair[1].start_s + (self.dice(&[2, about[1], about[2]]) % 12) * step,
                1 => pair[1].start_s.saturating_sub(step),
                _ => pair[1].start_s,
            };
            // Onto the grid of both periods.
            let both = (1..).map(|n| n * u64::from(old.seconds()));
            let both = both.into_iter().find(|s| s.is_multiple_of(u64::from(new.seconds())));
            switches.push((at.next_multiple_of(both.unwrap_or(1)), new));
        }
        let mut rounds = Vec::new();
        let end_s = BEGIN_S + self.slots * SLOT_S;
        let mut start_s = BEGIN_S;
        while start_s < end_s {
            let period = switches.iter().rev().find(|(at, _)| *at <= start_s).unwrap().1;
            let start_on_grid = start_s - start_s % u64::from(period.seconds());
            let round = Round::new(start_on_grid, period).unwrap();
            rounds.push(round);
            start_s = round.end_s();
        }
        rounds
    }

    fn parts(&self, probe: u64, round: Round) -> Vec<Part> {
        let about = [3, probe, round.start_s()];
        let trouble = self.trouble(probe, round);
        let slot = slot_of(round);
        let everybody_silent = self.chance(self.trouble / 4, &[4, slot / 3]);
        if trouble == Trouble::Silent || everybody_silent {
            return Vec::new();
        }
        let mut parts = Vec::new();
        for subnet in 0..self.subnets {
            let pieces = 1 + self.dice(&[5, about[1], about[2]]) % 2;
            for number in 0..pieces {
                parts.extend(self.versions(probe, round, |salt| {
                    self.market(probe, round, subnet, (number, pieces), trouble, salt)
                }));
            }
        }
        let pieces = 1 + self.dice(&about) % 3;
        for number in 0..pieces {
            parts.extend(self.versions(probe, round, |salt| {
                self.lookup(probe, round, (number, pieces), trouble, salt)
            }));
        }
        if self.chance(25, &[6, about[1], about[2]]) {
            parts.extend(self.versions(probe, round, |salt| self.relay(probe, round, salt)));
        }
        parts
    }

    fn trouble(&self, probe: u64, round: Round) -> Trouble {
        // Trouble lasts: some probes have it for several rounds on end.
        let streak = slot_of(round) / (1 + self.dice(&[26, probe]) % 5);
        if !self.chance(self.trouble, &[7, probe, streak]) {
            return Trouble::None;
        }
        match self.dice(&[8, probe, streak]) % 12 {
            0 | 1 => Trouble::Silent,
            2 => Trouble::CouldNotLook,
            3 | 4 => Trouble::SessionYoung,
            5 => Trouble::SessionMissing,
            6..=10 => Trouble::Blind,
            _ => Trouble::LooksForFew,
        }
    }

    /// A part, and now and then one or two others under the same key.
    fn versions(&self, probe: u64, round: Round, make: impl Fn(u64) -> Part) -> Vec<Part> {
        let part = make(0);
        let about = [9, probe, round.start_s(), u64::from(part.key.number)];
        let more = if self.chance(self.conflicts, &about) { 1 + self.dice(&about) % 2 } else { 0 };
        std::iter::once(part).chain((1..=more).map(make)).collect()
    }

    /// A part without observations, made in its round or the grace of it.
    fn part(
        &self,
        kind: Kind,
        subnet: &str,
        number: u64,
        probe: u64,
        round: Round,
        salt: u64,
    ) -> Part {
        let about = [10, probe, round.start_s(), number + 100 * subnet.len() as u64, salt];
        let spread = u64::try_from(round.period().millis()).unwrap() + 1000 * u64::from(GRACE_S);
        let number = u16::try_from(number).unwrap();
        Part {
            key: PartKey { subnet: subnet.to_owned(), round, number },
            kind,
            outcome: Outcome::Looked,
            observed_at_ms: round.start_ms() + i64::try_from(self.dice(&about) % spread).unwrap(),
            relay_session_age_s: Some(600),
            sets: Sets::default(),
        }
    }

    fn market(
        &self,
        probe: u64,
        round: Round,
        subnet: u64,
        (number, pieces): (u64, u64),
        trouble: Trouble,
        salt: u64,
    ) -> Part {
        let name = if subnet == 0 { "public" } else { "testnet" };
        let mut part = self.part(Kind::Market, name, number, probe, round, salt);
        let slot = slot_of(round);
        let offers = (0..self.nodes).filter(|node| {
            node % pieces == number
                && (node % self.subnets == subnet || self.chance(10, &[11, *node, subnet]))
                && self.offers(*node, slot)
                && self.shows_offer_to(*node, probe)
                && self.chance(90, &[12, *node, probe, slot, salt])
        });
        part.sets.set(Class::Offer, offers.map(node_id).collect());
        if trouble == Trouble::CouldNotLook {
            part.outcome = Outcome::CouldNotLook(Reason::MarketError);
            if self.chance(70, &[13, probe, slot]) {
                part.sets = Sets::default();
            }
        }
        part
    }

    fn lookup(
        &self,
        probe: u64,
        round: Round,
        (number, pieces): (u64, u64),
        trouble: Trouble,
        salt: u64,
    ) -> Part {
        let mut part = self.part(Kind::Lookup, "", number, probe, round, salt);
        let about = [14, probe, round.start_s(), number, salt];
        // Sessions differ from part to part only where the daemon had a bad round.
        let odd = trouble != Trouble::None && self.chance(30, &about);
        part.relay_session_age_s = match trouble {
            Trouble::SessionYoung if !odd => {
                Some(self.dice(&about) % 2 * 59).map(|age| u32::try_from(age).unwrap())
            }
            Trouble::SessionMissing if !odd => None,
            _ => Some(60 + u32::try_from(self.dice(&about) % 2 * 540).unwrap()),
        };
        if trouble == Trouble::CouldNotLook && !odd {
            part.outcome = Outcome::CouldNotLook(Reason::TimedOut);
        }
        let (mut seen, mut answered, mut unreachable) = (Vec::new(), Vec::new(), Vec::new());
        for node in 0..self.nodes {
            let about = [15, probe, round.start_s(), node, number, salt];
            let covered = node % pieces == number || self.chance(10, &about);
            let few = trouble == Trouble::LooksForFew && node >= 8;
            if few || !covered || self.chance(8, &[16, probe, round.start_s(), node]) {
                continue;
            }
            match self.finding(node, probe, round, trouble, salt + 10 * number) {
                0 => seen.push(node_id(node)),
                1 => answered.push(node_id(node)),
                2 => {
                    seen.push(node_id(node));
                    answered.push(node_id(node));
                }
                3 if part.outcome == Outcome::Looked => unreachable.push(node_id(node)),
                _ => {}
            }
        }
        part.sets.set(Class::Seen, seen);
        part.sets.set(Class::Answered, answered);
        part.sets.set(Class::Unreachable, unreachable);
        part
    }

    /// 0 seen, 1 answered, 2 both, 3 unreachable, 4 nothing.
    fn finding(&self, node: u64, probe: u64, round: Round, trouble: Trouble, salt: u64) -> u64 {
        let slot = slot_of(round);
        let die = self.dice(&[17, node, probe, round.start_s(), salt]) % 100;
        let blind = trouble == Trouble::Blind && self.chance(80, &[18, node, probe, slot]);
        if self.up(node, slot) && !blind {
            match die {
                0..60 => 0,
                60..80 => 1,
                80..90 => 2,
                90..95 => 3,
                _ => 4,
            }
        } else {
            match die {
                0..90 => 3,
                90..94 => 0,
                _ => 4,
            }
        }
    }

    fn relay(&self, probe: u64, round: Round, salt: u64) -> Part {
        let mut part = self.part(Kind::Relay, "", 20, probe, round, salt);
        part.relay_session_age_s = None;
        let slot = slot_of(round);
        let seen = (0..self.nodes).filter(|node| {
            self.up(*node, slot) && self.chance(40, &[19, *node, probe, round.start_s(), salt])
        });
        part.sets.set(Class::Seen, seen.map(node_id).collect());
        part
    }

    /// The truth about a node.
    fn up(&self, node: u64, slot: u64) -> bool {
        let turn = 1 + self.dice(&[20, node]) % self.slots.max(1);
        match self.dice(&[21, node]) % 8 {
            0..=2 => true,
            3 => slot < turn,
            4 => (slot / (1 + turn % 4)).is_multiple_of(2),
            5 => slot >= turn,
            6 => slot < turn / 2 || slot > turn / 2 + 15,
            _ => false,
        }
    }

    /// Whether its offer is on the market.
    fn offers(&self, node: u64, slot: u64) -> bool {
        if self.chance(self.newcomers, &[34, node]) && slot < self.slots / 2 {
            return false;
        }
        let turn = 1 + self.dice(&[22, node]) % self.slots.max(1);
        match self.dice(&[23, node]) % 8 {
            // Only ever asks for computation; the relay knows it all the same.
            0 => false,
            1 => slot >= turn,
            2 => slot < turn,
            3 => slot < turn / 3 || slot >= turn,
            4 => slot == turn / 4,
            _ => true,
        }
    }

    fn shows_offer_to(&self, node: u64, probe: u64) -> bool {
        let only = 1 + self.dice(&[24, node]) % u64::from(self.probes);
        !self.chance(25, &[25, node]) || probe == only
    }
}

/// How facts reach the aggregator.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub seed: u64,
    /// Percentage of facts that are late by some rounds, or come at any time up to the end.
    pub late: u64,
    /// From this slot on the aggregator cannot be reached by anybody, or by some probes...
    pub outage_from: u64,
    /// ... for so many slots; what was made meanwhile comes afterwards.
    pub outage_slots: u64,
    /// Percentage of facts that come once more.
    pub again: u64,
    /// Percentage of steps after which the aggregator is stopped and started.
    pub restarts: u64,
    /// Percentage of steps after which it catches up.
    pub catch_ups: u64,
    /// Percentage of steps after which it compacts what is over, or keeps its state.
    pub chores: u64,
}

pub fn deliveries() -> impl Strategy<Value = Delivery> {
    let late = prop_oneof![Just(0u64), 1u64..50, Just(100)];
    let outage = (0u64..30, prop_oneof![Just(0u64), 1u64..40]);
    let steps = (0u64..30, 0u64..6, prop_oneof![Just(2u64), 5u64..60], 0u64..12);
    (any::<u64>(), late, outage, steps).prop_map(|(seed, late, outage, steps)| {
        let (outage_from, outage_slots) = outage;
        let (again, restarts, catch_ups, chores) = steps;
        Delivery { seed, late, outage_from, outage_slots, again, restarts, catch_ups, chores }
    })
}

/// With many restarts, from states that were kept.
pub fn busy_deliveries() -> impl Strategy<Value = Delivery> {
    (deliveries(), 4u64..12, 6u64..20).prop_map(|(delivery, restarts, chores)| Delivery {
        restarts,
        chores,
        ..delivery
    })
}

impl Delivery {
    /// The moments at which facts (by index) arrive, ascending.
    pub fn arrivals(&self, facts: &[OracleFact], end_ms: i64) -> Vec<(i64, usize)> {
        let dice = Dice(self.seed);
        let mut arrivals = BTreeSet::new();
        for (index, fact) in facts.iter().enumerate() {
            let about = index as u64;
            let made_ms = fact.part.observed_at_ms;
            let first_ms = if dice.chance(self.late, &[1, about]) {
                self.some_time(made_ms, end_ms, &[2, about])
            } else {
                made_ms + i64::try_from(dice.roll(&[3, about]) % ON_TIME_MS).unwrap()
            };
            let first_ms = self.after_outage(first_ms, fact.probe).min(end_ms);
            arrivals.insert((first_ms, dice.roll(&[4, about]), index));
            if dice.chance(self.again, &[5, about]) {
                let again_ms = self.some_time(first_ms, end_ms, &[6, about]);
                arrivals.insert((again_ms, dice.roll(&[7, about]), index));
            }
        }
        arrivals.into_iter().map(|(at_ms, _, index)| (at_ms, index)).collect()
    }

    /// Mostly within a few rounds, else whenever, or at the very end.
    fn some_time(&self, from_ms: i64, end_ms: i64, about: &[u64]) -> i64 {
        let dice = Dice(self.seed);
        let left = u64::try_from(end_ms - from_ms).unwrap_or(0).max(1);
        let roll = dice.roll(about);
        let wait = match roll % 4 {
            0 => roll / 4 % left,
            1 => left - 1 - roll / 4 % left.min(60_000),
            _ => roll / 4 % left.min(200_000),
        };
        from_ms + i64::try_from(wait).unwrap()
    }

    fn after_outage(&self, at_ms: i64, probe: u32) -> i64 {
        let begins_ms = ms(BEGIN_S + self.outage_from * SLOT_S);
        let ends_ms = begins_ms + ms(self.outage_slots * SLOT_S);
        let everybody = Dice(self.seed).chance(50, &[8]);
        let cut_off = everybody || Dice(self.seed).chance(50, &[9, u64::from(probe)]);
        if cut_off && (begins_ms..ends_ms).contains(&at_ms) { ends_ms } else { at_ms }
    }
}
