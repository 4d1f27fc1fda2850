//! A small network over some rounds, told to a real ledger by two probes.

use std::path::Path;
use std::sync::Arc;

pub(crate) use crate::fixture::PERIOD_S;
use crate::fixture::{self, directory, engine, options, period};
use crate::stepping::{catch_up, submit};
use tempfile::TempDir;
use uptime_aggregator::engine::Snapshot;
use uptime_aggregator::engine::{Engine, EngineOptions, Submission};
use uptime_aggregator::store::{Details, SqliteStore};
use uptime_proto::{Class, Kind, NodeId, Part, PartKey, Round, Sets};

/// 2026-01-31T00:00:00Z.
pub(crate) const START_S: u64 = 1_769_817_600;

pub(crate) fn id(byte: u8) -> NodeId {
    NodeId::new([byte; 20])
}

/// A round of the network's, by its number.
pub(crate) fn round(number: u64) -> Round {
    Round::new(START_S + number * PERIOD_S, period(PERIOD_S)).unwrap()
}

/// A moment in it.
fn moment_ms(number: u64, into_ms: i64) -> i64 {
    round(number).start_ms() + into_ms
}

/// A part that looked.
pub(crate) fn part(kind: Kind, subnet: &str, number: u64, sets: Sets) -> Part {
    let at = if kind == Kind::Market { 1_250 } else { 20_500 };
    Part {
        key: PartKey {
            subnet: subnet.to_owned(),
            round: round(number),
            number: u16::from(kind != Kind::Market),
        },
        observed_at_ms: moment_ms(number, at),
        ..fixture::part(round(number), subnet, kind, sets)
    }
}

pub(crate) fn market(subnet: &str, number: u64, offers: &[u8]) -> Part {
    let ids = offers.iter().copied().map(id).collect();
    part(Kind::Market, subnet, number, Sets::default().with(Class::Offer, ids))
}

pub(crate) fn lookup(number: u64, seen: &[u8], answered: &[u8], dead: &[u8]) -> Part {
    let ids = |bytes: &[u8]| bytes.iter().copied().map(id).collect();
    let sets = Sets::default()
        .with(Class::Seen, ids(seen))
        .with(Class::Answered, ids(answered))
        .with(Class::Unreachable, ids(dead));
    part(Kind::Lookup, "", number, sets)
}

/// A ledger on a store, and its probes.
pub(crate) struct Network {
    engine: Engine<SqliteStore>,
    probes: Vec<u32>,
    directory: TempDir,
}

impl Network {
    pub(crate) async fn new() -> Self {
        let directory = directory();
        let options =
            EngineOptions { unconfirmed_nodes_max: 1_000, with_seed: true, ..options(PERIOD_S) };
        let (data_dir, start_ms) = (directory.path(), round(0).start_ms());
        let (engine, probes) = engine(data_dir, &["alpha", "beta"], options, start_ms).await;
        Self { engine, probes, directory }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    /// Hands in parts of one probe at the end of a round.
    pub(crate) async fn submit(&mut self, probe: usize, parts: Vec<Part>, number: u64) {
        self.submit_with(probe, parts, Vec::new(), number).await;
    }

    pub(crate) async fn submit_with(
        &mut self,
        probe: usize,
        parts: Vec<Part>,
        details: Vec<(NodeId, Details)>,
        number: u64,
    ) {
        let probe = self.probes[probe];
        let submission = Submission { probe, parts, details, ..Submission::default() };
        submit(&mut self.engine, submission, moment_ms(number, 29_000)).await;
    }

    /// Closes all rounds up to this one, and answers when that is, unix milliseconds.
    pub(crate) async fn close(&mut self, number: u64) -> i64 {
        let now_ms = round(number).end_ms() + 5_000;
        catch_up(&mut self.engine, now_ms).await;
        now_ms
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.engine.snapshot().clone()
    }
}
