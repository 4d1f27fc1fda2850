//! A checkpoint against the one it was made of, and against the golden file of its format.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use uptime_proto::{CLASSES, Class, Digest, Epoch, Kind, Outcome};

use super::*;
use crate::fact::{Fact, FactKey};

fn epochs() -> Arc<Epochs> {
    Arc::new(Epochs::new(vec![Epoch::with_defaults(Period::new(30).unwrap())]).unwrap())
}

fn fact(round: Round, probe: u32, kind: Kind, class: Class, nodes: &[u32]) -> Fact {
    let mut sets: [RoaringBitmap; CLASSES] = Default::default();
    sets[class.index()] = nodes.iter().copied().collect();
    Fact {
        key: FactKey { round, subnet: u32::from(kind == Kind::Market), probe, number: 0 },
        kind,
        outcome: Outcome::Looked,
        digest: Some(Digest([7; 16])),
        observed_at_ms: round.start_ms() + 20_000,
        received_at_ms: round.start_ms() + 20_100,
        relay_session_age_s: Some(3_600),
        sets: Arc::new(sets),
    }
}

/// Everything that a state of the first version could hold: nodes of which one is carried, several
/// probes, `seed-v1`, summaries.
fn first_state() -> State {
    state_with(&[])
}

/// Also a node that offered in a second subnet later.
fn state() -> State {
    state_with(&[5])
}

fn state_with(offer_elsewhere: &[u32]) -> State {
    let mut state = State::new(epochs()).with_seed();
    let mut round = Round::new(1_767_225_600, Period::new(30).unwrap()).unwrap();
    for at in 0..40u64 {
        let listed = fact(round, 1, Kind::Market, Class::Offer, &[0, 1, 2, 5]);
        let up: &[u32] = if at < 25 { &[0, 1] } else { &[0, 2] };
        let found = fact(round, 1, Kind::Lookup, Class::Seen, up);
        let lost = fact(round, 2, Kind::Lookup, Class::Unreachable, &[1, 2]);
        for fact in [listed, found, lost] {
            state.accept(fact).unwrap();
        }
        if at == 30 && !offer_elsewhere.is_empty() {
            let mut fact = fact(round, 1, Kind::Market, Class::Offer, offer_elsewhere);
            fact.key.subnet = 2;
            state.accept(fact).unwrap();
        }
        state.close_through(round);
        if at == 20 {
            state.roll_up(round.start_s());
        }
        round = round.next();
    }
    state
}

fn joined(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend(u32::try_from(piece.len()).unwrap().to_le_bytes());
        bytes.extend(piece);
    }
    bytes
}

fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (piece, after) = rest.split_at(u32::from_le_bytes(*length) as usize);
        pieces.push(piece.to_vec());
        bytes = after;
    }
    pieces
}

#[test]
fn the_writer_writes_and_the_reader_reads_the_golden_file() {
    let state = state();
    let pieces = write(&state, &[], &Positions::default());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ledger/kept/golden-2.bin");
        std::fs::write(path, joined(&pieces)).unwrap();
    }
    let golden = split(include_bytes!("golden-2.bin"));
    assert_eq!(pieces, golden);
    let (read, positions) = read(&golden, state.epochs(), &Arc::default()).unwrap().unwrap();
    assert_eq!(positions, Positions::default(), "it was written without any");
    assert_eq!(read.differs_from(&state), None);
    assert_eq!(read.seed().unwrap().last_up(), state.seed().unwrap().last_up());
    assert_eq!(write(&read, &[], &Positions::default()), golden, "nothing of it was lost");
    assert!(state.rolled_up_to_s() > 0, "some of it is carried");
    let subnets = &read.nodes().get(5).unwrap().subnets;
    let first_s = read.nodes().get(5).unwrap().first_seen_s.unwrap();
    assert_eq!(subnets.iter(first_s).collect::<Vec<_>>(), [(1, first_s), (2, first_s + 900)]);
}

#[test]
fn a_state_of_the_first_version_is_read() {
    let state = first_state();
    let golden = split(include_bytes!("golden-1.bin"));
    let (read, positions) = read(&golden, state.epochs(), &Arc::default()).unwrap().unwrap();
    assert_eq!(positions, Positions::default(), "it was written without any");
    assert_eq!(read.differs_from(&state), None);
    assert_eq!(read.seed().unwrap().last_up(), state.seed().unwrap().last_up());
    let offers = |state: &State| state.last_offer().all(state.nodes().len());
    assert_eq!(offers(&read), offers(&state));
}

#[test]
fn a_state_of_other_rules_or_of_damaged_pieces_is_not_taken() {
    let state = state();
    let pieces = write(&state, &[], &Positions::default());
    let none = Arc::default();
    let other = Epoch { positive_probes_min: 2, ..Epoch::with_defaults(Period::new(30).unwrap()) };
    let others = Arc::new(Epochs::new(vec![other]).unwrap());
    assert_eq!(read(&pieces, &others, &none).unwrap_err(), CheckpointError::Rules);
    for at in 0..pieces.len() {
        for bit in [0, 7, 100] {
            let mut damaged = pieces.clone();
            let place = bit / 8 % damaged[at].len();
            damaged[at][place] ^= 1 << (bit % 8);
            let fault = read(&damaged, state.epochs(), &none).unwrap_err();
            assert_eq!(fault, CheckpointError::Checksum);
        }
        let fewer: Vec<_> = pieces.iter().take(at).cloned().collect();
        let taken = read(&fewer, state.epochs(), &none);
        assert!(at == 0 || taken.is_err(), "a piece that is missing is missed");
    }
}
