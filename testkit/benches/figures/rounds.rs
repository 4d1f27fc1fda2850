//! What closing a round costs by itself: `round_close_10k` and `round_close_1m`.
//!
//! No store and no wire: facts go into the state, the round closes. A copy of the state is held
//! while it does, as the published snapshot is, so that copying what is shared is paid for.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use roaring::RoaringBitmap;
use uptime_accounting::evidence::Inserted;
use uptime_accounting::fact::{Fact, FactKey};
use uptime_accounting::state::State;
use uptime_proto::{CLASSES, Class, Digest, Epoch, Epochs, Kind, Outcome, Period, Round};

use super::Extent;
use super::history::{ROUND_S, first_round};
use super::network::{Network, Piece, session_age_s};
use super::report::{figure, median_ms, progress, spread};

const PROBES: usize = 10;
/// Closes measured, after those that fill what mass loss looks back on.
const CLOSES: usize = 31;
const WARM_UP: usize = 24;

fn fact(piece: &Piece, round: Round, probe: u32) -> Fact {
    let mut sets: [RoaringBitmap; CLASSES] = Default::default();
    for (class, nodes) in &piece.groups {
        // As the ledger makes them, number by number.
        let set = &mut sets[class.index()];
        for node in nodes {
            set.insert(*node);
        }
    }
    let market = piece.kind == Kind::Market;
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&round.start_s().to_le_bytes());
    digest[8..12].copy_from_slice(&probe.to_le_bytes());
    digest[12..14].copy_from_slice(&piece.number.to_le_bytes());
    Fact {
        key: FactKey { round, subnet: u32::from(market), probe, number: piece.number },
        kind: piece.kind,
        outcome: Outcome::Looked,
        digest: Some(Digest(digest)),
        observed_at_ms: piece.observed_at_ms,
        received_at_ms: piece.observed_at_ms + 40,
        relay_session_age_s: (!market).then(|| session_age_s(round)),
        sets: Arc::new(sets),
    }
}

fn close(name: &str, seed: u64, nodes: usize) -> anyhow::Result<()> {
    let period = Period::new(ROUND_S)?;
    let epochs = Arc::new(Epochs::new(vec![Epoch::with_defaults(period)])?);
    let mut state = State::new(epochs);
    let mut network = Network::new(seed, nodes, PROBES, ROUND_S);
    let mut round = first_round(period)?;
    let (mut took, mut accepting) = (Vec::new(), Vec::new());
    for at in 0..WARM_UP + CLOSES {
        let seen = network.look();
        let mut facts = Vec::new();
        for (probe, view) in (1..).zip(seen.views) {
            let stages = network.stages(view, round);
            facts.extend(stages.all().map(|piece| fact(piece, round, probe)));
        }
        let published = state.clone();
        let started = Instant::now();
        for fact in facts {
            let inserted = state.accept(fact);
            ensure!(matches!(inserted, Ok(Inserted::New)), "a new fact was not taken");
        }
        let accepted = started.elapsed();
        state.close_through(round);
        let closed = started.elapsed();
        drop(published);
        ensure!(state.closed() == Some(round), "the round was not closed");
        let last = state.summaries().back().context("the round was not summed up")?;
        let found = (last.up, last.down);
        ensure!(found == (seen.up, seen.down), "{found:?}, not {:?}", (seen.up, seen.down));
        if at >= WARM_UP {
            took.push(closed);
            accepting.push(accepted);
        }
        round = round.next();
        network.advance();
    }
    check(&state, nodes)?;
    progress(&format!("{name}: {}", spread(&took)));
    progress(&format!("{name}: {:.3} ms of it taking facts in", median_ms(accepting)));
    figure(name, median_ms(took), "ms");
    Ok(())
}

/// Counters must add up: every node was decided or not in every round.
fn check(state: &State, nodes: usize) -> anyhow::Result<()> {
    ensure!(state.confirmed().len() == nodes as u64, "not every node is confirmed");
    let end_s = state.closed_end_s();
    let rounds = (WARM_UP + CLOSES) as u64;
    for node in state.nodes().iter().take(1_000) {
        let tally = node.tally(end_s, state.epochs());
        let sum = tally.up_rounds + tally.down_rounds + tally.unknown_rounds;
        let first = node.first_seen_s.context("a node was never seen")?;
        let since = (end_s - first) / u64::from(ROUND_S);
        ensure!(sum == since && since <= rounds, "{sum} rounds were counted, not {since}");
    }
    let offers = state.window().values().flat_map(|facts| facts.facts());
    let offers: u64 = offers.map(|fact| fact.of(Class::Offer).len()).sum();
    ensure!(offers > 0, "no facts are held");
    Ok(())
}

/// `round_close_10k`.
pub(crate) fn close_10k(_: Extent) -> anyhow::Result<()> {
    close("round_close_10k", 21, 10_000)
}

/// `round_close_1m`.
pub(crate) fn close_1m(_: Extent) -> anyhow::Result<()> {
    close("round_close_1m", 22, 1_000_000)
}
