//! The samples of a simulated probe: what it would tell beside its parts.
//!
//! Owns what the model of the network leaves open: ages of `seen` and round trips, drawn from a
//! seed. Which of them are told is as the probe has it: the age of a suspect when it becomes one
//! the relay knows, a node's round trips once an hour.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uptime_proto::{NodeId, Round, Sample};

use super::network::View;

/// The relay knows a dead node for so long.
const KNOWN_S: u64 = 600;
/// Each node is pinged in one round of so many, as in the probe.
const PINGED_EVERY: u64 = 120;
/// Of suspects when they are found: not fresh any more, and looked for in every round.
const AGE_S: std::ops::RangeInclusive<i32> = 21..=50;
/// Round trips lie between these, with as many in each doubling.
const ROUND_TRIP_US: (f64, f64) = (5_000.0, 300_000.0);
/// The two channels differ by so much at most.
const CHANNELS_DIFFER: f64 = 0.15;

/// What one probe keeps in mind.
pub(crate) struct Samples {
    dice: StdRng,
    round_trips_us: Vec<(f64, f64)>,
    /// Suspects, when they became some, and the last round in which they were.
    suspects: HashMap<u32, (u64, u64)>,
}

impl Samples {
    /// Of a network of so many nodes.
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let (least, most) = ROUND_TRIP_US;
        let round_trips_us = (0..nodes).map(|_| {
            let tcp = least * (most / least).powf(dice.random());
            (tcp, tcp * (1.0 - CHANNELS_DIFFER * dice.random::<f64>()))
        });
        let round_trips_us = round_trips_us.collect();
        Self { dice, round_trips_us, suspects: HashMap::new() }
    }

    /// What is told in a round in which this was found.
    pub(crate) fn of_round(&mut self, view: &View, ids: &[NodeId], round: Round) -> Vec<Sample> {
        let of = |node: u32| Sample::new(ids[node as usize], round.start_s());
        let mut samples = Vec::new();
        let number = round.start_s() / u64::from(round.period().seconds());
        // As in the probe, those of one round follow each other.
        let slot = |id: &NodeId| {
            let [high, low, ..] = *id.as_bytes();
            (u64::from(u16::from_be_bytes([high, low])) * PINGED_EVERY) >> 16
        };
        let is_due = |node: &&u32| slot(&ids[**node as usize]) == number % PINGED_EVERY;
        for node in view.first.iter().filter(is_due) {
            let (tcp, udp) = self.round_trips_us[*node as usize];
            #[expect(
                clippy::cast_possible_truncation,
                reason = "some milliseconds, in microseconds"
            )]
            let whole = |us: f64| us as u32;
            samples.push(Sample {
                tcp_round_trip_us: Some(whole(tcp)),
                udp_round_trip_us: Some(whole(udp)),
                ..of(*node)
            });
        }
        for node in view.first.iter().chain(&view.second) {
            self.suspects.remove(node);
        }
        for node in &view.unreachable {
            let (since_s, before_s) =
                self.suspects.get(node).copied().unwrap_or((round.start_s(), 0));
            self.suspects.insert(*node, (since_s, round.start_s()));
            // One that was asked about in vain for a round is told of again.
            let is_told = before_s + u64::from(round.period().seconds()) == round.start_s();
            if !is_told && round.start_s() - since_s < KNOWN_S {
                let age_s = self.dice.random_range(AGE_S)
                    + i32::try_from(round.start_s() - since_s).unwrap_or(0);
                samples.push(Sample { seen_age_ms: Some(age_s * 1_000), ..of(*node) });
            }
        }
        samples
    }
}

/// Whether samples are those told, but for what telling rounds.
pub(crate) fn are_told(told: &[Sample], back: &[Sample]) -> bool {
    let near = |one: Option<u32>, other: Option<u32>| match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) <= one / 8,
        (one, other) => one == other,
    };
    let find = |sample: &Sample| back.iter().find(|it| it.node == sample.node);
    told.len() == back.len()
        && told.iter().all(|sample| {
            find(sample).is_some_and(|it| {
                it.round_start_s == sample.round_start_s
                    && it.seen_age_ms == sample.seen_age_ms
                    && near(sample.answered_in_ms, it.answered_in_ms)
                    && near(sample.tcp_round_trip_us, it.tcp_round_trip_us)
                    && near(sample.udp_round_trip_us, it.udp_round_trip_us)
            })
        })
}
