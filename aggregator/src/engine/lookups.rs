//! Where the look-ups of an open round stand.
//!
//! Owns what is told to those who share look-ups out: whom to ask about, who is found already,
//! which probes can look, and which one last saw each suspect alive. Refuses to choose: `ingest`
//! does.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use uptime_accounting::dictionary::NodeIds;
use uptime_accounting::evidence::Ineligibility;
use uptime_accounting::verdict::at_least;

use super::core::Engine;
use crate::store::Store;

/// Where look-ups stand in the open round.
#[derive(Debug, Clone)]
pub struct LookupState {
    /// Ids and numbers, new ones of the open round included.
    pub ids: NodeIds,
    /// Every id that made an offer and is not retired.
    pub candidates: RoaringBitmap,
    /// Those with enough positive evidence in the round that was asked about.
    pub found: RoaringBitmap,
    /// Of the candidates that are not found, those that a probe had a sign of life from later than
    /// any other, by its number; as far as facts are in memory.
    pub last_alive: BTreeMap<u32, RoaringBitmap>,
    /// Probes that could look in the last closed round; see `Ineligibility::DidNotLook`.
    pub could_look: Vec<u32>,
}

impl<S: Store> Engine<S> {
    /// Where look-ups stand in the round that starts then, unix seconds.
    pub fn lookups(&mut self, round_s: u64) -> LookupState {
        let ids = self.nodes.ids();
        let mut candidates = self.state.offered_anywhere();
        let retired: RoaringBitmap =
            candidates.iter().filter(|number| self.snapshot.is_retired(*number)).collect();
        candidates -= retired;
        let found = self.state.window().get(&round_s).map_or_else(RoaringBitmap::new, |facts| {
            let mut by_probe: BTreeMap<u32, RoaringBitmap> = BTreeMap::new();
            for fact in facts.facts() {
                *by_probe.entry(fact.key.probe).or_default() |= fact.positive();
            }
            let k = self.state.epochs().at(round_s).positive_probes_min;
            at_least(by_probe.values(), k)
        });
        let could_look = self.state.summaries().back().map_or_else(Vec::new, |summary| {
            let looked = summary
                .probes
                .iter()
                .filter(|(_, probe)| !probe.ineligibilities.contains(&Ineligibility::DidNotLook));
            looked.map(|(probe, _)| *probe).collect()
        });
        let last_alive = self.last_alive(&candidates - &found);
        LookupState { ids, candidates, found, last_alive, could_look }
    }

    /// Which probe had the latest sign of life from each of these nodes.
    fn last_alive(&self, mut nodes: RoaringBitmap) -> BTreeMap<u32, RoaringBitmap> {
        let mut last: BTreeMap<u32, RoaringBitmap> = BTreeMap::new();
        for facts in self.state.window().values().rev() {
            let mut alive: Vec<_> = facts
                .facts()
                .map(|fact| (fact.observed_at_ms, fact.key.probe, fact.positive() & &nodes))
                .filter(|(.., alive)| !alive.is_empty())
                .collect();
            alive.sort_by_key(|(observed_at_ms, ..)| std::cmp::Reverse(*observed_at_ms));
            for (_, probe, alive) in alive {
                *last.entry(probe).or_default() |= &alive & &nodes;
                nodes -= alive;
            }
            if nodes.is_empty() {
                break;
            }
        }
        last
    }
}
