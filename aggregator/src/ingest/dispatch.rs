//! Who looks whom up in this round: the standing lists, then the suspects.
//!
//! Owns what each stream was told last and sends only what changed. Holds up nobody: a stream
//! that has no room for a message is told the whole list again next time.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use roaring::RoaringBitmap;
use tokio_util::sync::CancellationToken;
use uptime_proto::v1::{self, LookupStage, aggregator_message::Message};
use uptime_proto::{NodeId, Round};

use super::assignment::{Candidate, share_out};
use super::connections::{Connections, Live, message};
use super::schedule::{self, schedule_for};
use crate::ledger::{Ledger, LookupState};
use crate::publish::utc_stamp;

/// Ids in one message: 600 kB, well below the limit of a message.
const IDS_PER_MESSAGE: usize = 30_000;
/// Suspects are asked by so many probes at least, as a node is down only when three looked.
const SUSPECT_PROBES_MIN: u32 = 3;

struct Told {
    serial: u64,
    standing: RoaringBitmap,
    /// The round of its first list.
    since: Round,
}

/// For so many rounds a new stream is taken to be able: its first ones have not closed yet.
const BENEFIT_OF_DOUBT: u64 = 3;

/// Sends assignments until told to stop.
pub async fn run(ledger: Ledger, connections: Connections, shutdown: CancellationToken) {
    let mut told: HashMap<u32, Told> = HashMap::new();
    let mut witnesses = Witnesses::default();
    loop {
        let clock = ledger.clock().now();
        let now_ms = clock.time_ms.unwrap_or(clock.wall_ms);
        let round = ledger.epochs().round_at_ms(now_ms);
        let schedule = schedule_for(ledger.epochs().at(round.start_s()));
        let standing_ms = standing_ms(&ledger, round);
        let suspects_ms = round.start_ms() + i64::from(schedule.suspects_offset_ms);
        let next_standing = self::standing_ms(&ledger, ledger.epochs().next(round));
        let (due_ms, suspects) = if now_ms < standing_ms {
            (standing_ms, false)
        } else if now_ms < suspects_ms {
            (suspects_ms, true)
        } else {
            (next_standing, false)
        };
        let wait = Duration::from_millis(u64::try_from(due_ms - now_ms).unwrap_or(0));
        let came = tokio::select! {
            () = shutdown.cancelled() => return,
            () = connections.changed() => true,
            () = tokio::time::sleep(wait) => false,
        };
        let live = connections.all();
        if live.is_empty() {
            continue;
        }
        let round = if came { round } else { ledger.epochs().round_at_ms(due_ms) };
        let Some(state) = ledger.lookups(round.start_s()).await else {
            return;
        };
        if came || !suspects {
            for (probe, nodes) in send_standing(&state, &live, &mut told, &ledger, round) {
                ledger.assigned(probe, nodes).await;
            }
        } else {
            send_suspects(&state, &live, &told, &mut witnesses, &ledger, round);
        }
    }
}

fn standing_ms(ledger: &Ledger, round: Round) -> i64 {
    round.start_ms() + i64::from(schedule::standing_ms(ledger.epochs().at(round.start_s())))
}

/// The probes that can look, or all where none is known to.
fn able<'a>(live: &'a [(u32, Live)], state: &LookupState, fresh: &[u32]) -> Vec<&'a (u32, Live)> {
    let could = |probe: &u32| state.could_look.contains(probe) || fresh.contains(probe);
    let able: Vec<_> = live.iter().filter(|(probe, _)| could(probe)).collect();
    if able.is_empty() { live.iter().collect() } else { able }
}

fn share(
    state: &LookupState,
    nodes: &RoaringBitmap,
    probes: &[&(u32, Live)],
    copies: u32,
) -> BTreeMap<u32, RoaringBitmap> {
    let candidates: Vec<Candidate> =
        probes.iter().map(|(probe, live)| Candidate::new(*probe, &live.name)).collect();
    let ids: Vec<(u32, NodeId)> =
        nodes.iter().filter_map(|number| Some((number, state.ids.id(number)?))).collect();
    share_out(ids.iter().map(|(number, id)| (*number, id)), &candidates, copies as usize)
}

fn send_standing(
    state: &LookupState,
    live: &[(u32, Live)],
    told: &mut HashMap<u32, Told>,
    ledger: &Ledger,
    round: Round,
) -> Vec<(u32, u64)> {
    let k = ledger.epochs().at(round.start_s()).positive_probes_min;
    told.retain(|probe, told| {
        live.iter().any(|(there, live)| there == probe && live.serial == told.serial)
    });
    // A stream that has just begun had no chance to show that it can look.
    let is_new = |probe: &u32| {
        told.get(probe).is_none_or(|told| {
            ledger.epochs().rounds_between(told.since.start_s(), round.start_s()) < BENEFIT_OF_DOUBT
        })
    };
    let fresh: Vec<u32> = live.iter().map(|(probe, _)| *probe).filter(is_new).collect();
    let mut shares = share(state, &state.candidates, &able(live, state, &fresh), k);
    let mut sizes = Vec::new();
    for (probe, live) in live {
        let wanted = shares.remove(probe).unwrap_or_default();
        sizes.push((*probe, wanted.len()));
        let since = told.get(probe).map_or(round, |told| told.since);
        let before = told.get(probe).map(|told| &told.standing);
        let empty = RoaringBitmap::new();
        let full = before.is_none();
        let before = before.unwrap_or(&empty);
        let (added, removed) = (&wanted - before, before - &wanted);
        if !full && added.is_empty() && removed.is_empty() {
            continue;
        }
        let list = List { round, stage: LookupStage::First, full, added, removed };
        if send(state, live, &list) {
            told.insert(*probe, Told { serial: live.serial, standing: wanted, since });
        } else {
            told.remove(probe);
        }
    }
    sizes
}

fn send_suspects(
    state: &LookupState,
    live: &[(u32, Live)],
    told: &HashMap<u32, Told>,
    witnesses: &mut Witnesses,
    ledger: &Ledger,
    round: Round,
) {
    let k = ledger.epochs().at(round.start_s()).positive_probes_min;
    let mut asked = RoaringBitmap::new();
    for told in told.values() {
        asked |= &told.standing;
    }
    // Offers of this very round are suspects, too: nobody had them on a list yet.
    let suspects = (asked | &state.candidates) - &state.found;
    let (probes, copies) = (able(live, state, &[]), k.max(SUSPECT_PROBES_MIN));
    let mut shares = share(state, &suspects, &probes, copies);
    // One that can look again counts from its first look-ups on, and then it must have looked for
    // whoever is to be down. Where those known to look are enough, they are enough without it.
    if probes.len() < copies as usize {
        for (probe, _) in live {
            shares.entry(*probe).or_insert_with(|| suspects.clone());
        }
    }
    witnesses.note(&suspects, &state.last_alive);
    for (probe, share) in &mut shares {
        if let Some(witnessed) = witnesses.0.get(probe) {
            *share |= witnessed;
        }
    }
    let at = utc_stamp(round.start_ms());
    tracing::debug!(round = at, suspects = suspects.len(), "suspects named");
    for (probe, live) in live {
        let Some(added) = shares.remove(probe) else { continue };
        let list = List {
            round,
            stage: LookupStage::Suspects,
            full: true,
            added,
            removed: RoaringBitmap::new(),
        };
        send(state, live, &list);
    }
}

/// The probe that last had a sign of life from each suspect: it is always among those that ask
/// about it, as it is the one most likely to reach it. The ledger tells for as long as facts are in
/// memory; here it is known for as long as the node stays a suspect.
#[derive(Debug, Default)]
struct Witnesses(BTreeMap<u32, RoaringBitmap>);

impl Witnesses {
    fn note(&mut self, suspects: &RoaringBitmap, last_alive: &BTreeMap<u32, RoaringBitmap>) {
        let told = last_alive.values().fold(RoaringBitmap::new(), |all, nodes| all | nodes);
        for nodes in self.0.values_mut() {
            *nodes &= suspects;
            *nodes -= &told;
        }
        for (probe, nodes) in last_alive {
            *self.0.entry(*probe).or_default() |= nodes & suspects;
        }
        self.0.retain(|_, nodes| !nodes.is_empty());
    }
}

struct List {
    round: Round,
    stage: LookupStage,
    full: bool,
    added: RoaringBitmap,
    removed: RoaringBitmap,
}

/// Sends a list in as many messages as it takes; answers whether there was room for all.
fn send(state: &LookupState, live: &Live, list: &List) -> bool {
    let ids = |set: &RoaringBitmap| -> Vec<NodeId> {
        set.iter().filter_map(|number| state.ids.id(number)).collect()
    };
    let (added, removed) = (ids(&list.added), ids(&list.removed));
    let messages = added.len().max(removed.len()).div_ceil(IDS_PER_MESSAGE).max(1);
    (0..messages).all(|index| {
        let piece = |ids: &[NodeId]| {
            let from = (index * IDS_PER_MESSAGE).min(ids.len());
            let to = (from + IDS_PER_MESSAGE).min(ids.len());
            NodeId::concatenate(&ids[from..to]).into()
        };
        let assignment = v1::LookupAssignment {
            round_unix_s: list.round.start_s(),
            stage: list.stage as i32,
            full: list.full && index == 0,
            added_node_ids: piece(&added),
            removed_node_ids: piece(&removed),
            more: index + 1 < messages,
        };
        live.outbound.try_send(Ok(message(Message::Assignment(assignment)))).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_witness_of_a_suspect_is_known_for_as_long_as_it_is_one() {
        let set = |nodes: &[u32]| nodes.iter().copied().collect::<RoaringBitmap>();
        let mut witnesses = Witnesses::default();
        witnesses.note(&set(&[1, 2, 3]), &BTreeMap::from([(7, set(&[1, 9])), (8, set(&[2]))]));
        assert_eq!(witnesses.0, BTreeMap::from([(7, set(&[1])), (8, set(&[2]))]));
        // The facts are forgotten; another probe saw node 2; node 1 is no suspect any more.
        witnesses.note(&set(&[2, 3]), &BTreeMap::from([(7, set(&[2]))]));
        assert_eq!(witnesses.0, BTreeMap::from([(7, set(&[2]))]));
        witnesses.note(&set(&[2, 3]), &BTreeMap::new());
        assert_eq!(witnesses.0, BTreeMap::from([(7, set(&[2]))]));
        witnesses.note(&set(&[3]), &BTreeMap::new());
        assert_eq!(witnesses.0, BTreeMap::new());
    }
}
