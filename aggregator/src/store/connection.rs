//! The embedded store as one connection: what it holds, and how a row becomes a fact.
//!
//! Owns the fields, so that the files that have its verbs need not know each other. Refuses to
//! write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use roaring::RoaringBitmap;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uptime_accounting::fact::{Fact, FactKey};
use uptime_accounting::position::Position;
use uptime_proto::{CLASSES, Digest, Kind, Outcome, Period, Reason, Round};

use super::blob::{self, BlobError};
use super::error::StoreError;
use super::place;
use super::records::{Read, Token};

/// The file in the data directory.
pub const FILE_NAME: &str = "uptime.sqlite3";
/// A difference builds on at most so many others.
pub(super) const CHAIN_MAX: u32 = 120;

/// Facts in rows, by key.
pub(super) const SELECT_ROWS: &str = "
    SELECT round, subnet, period, probe, number, digest, kind, reason, observed_ms, received_ms,
        relay_session_age_s, sets
    FROM part WHERE round >= ? AND round < ?
    ORDER BY round, subnet, period, probe, number, digest";

pub(super) type Sets = Arc<[RoaringBitmap; CLASSES]>;
/// What a difference can build on: the parts of one probe under one number.
pub(super) type Slot = (u32, Period, u32, u16);

pub(super) struct Base {
    pub(super) round_s: u64,
    pub(super) digest: Digest,
    pub(super) chain: u32,
    pub(super) sets: Sets,
}

/// The store.
pub struct SqliteStore {
    pub(super) connection: SqliteConnection,
    pub(super) opened: place::Opened,
    pub(super) delivery: place::Delivery,
    pub(super) path: PathBuf,
    pub(super) bases: HashMap<Slot, Base>,
    pub(super) compacted: Compacted,
    pub(super) round_parts: RoundParts,
    /// What this process is as a writer; `None`: it has stored no facts yet.
    pub(super) writer: Option<Writer>,
    /// Of the database, when it was last asked whether others have written to it.
    pub(super) data_version: Option<i64>,
}

pub(super) fn slot(key: &FactKey) -> Slot {
    (key.subnet, key.round.period(), key.probe, key.number)
}

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What is known in memory of segments.
#[derive(Debug, Default)]
pub(super) struct Compacted {
    /// Ends by beginnings.
    pub(super) spans: BTreeMap<u64, u64>,
    pub(super) keys: HashMap<u64, HashSet<FactKey>>,
    /// Days that hold something damaged, or had an error: not tried again by this process.
    pub(super) left: HashSet<u64>,
    /// The database's number for what other connections wrote.
    pub(super) learnt_at: Option<i64>,
}

impl Compacted {
    pub(super) fn forget_keys(&mut self) {
        self.keys.clear();
    }

    /// The starts of the first and the last second that is compacted.
    pub(super) fn extent(&self) -> Option<(u64, u64)> {
        let first = *self.spans.keys().next()?;
        let last = self.spans.values().max()?.saturating_sub(1);
        Some((first, last))
    }

    /// Where segments begin, ascending.
    pub(super) fn beginnings(&self) -> Vec<u64> {
        self.spans.keys().copied().collect()
    }

    /// The compacted keys of a probe in a round, of those that are in memory: where a part of a
    /// compacted day was just looked for, all of its segment.
    pub(super) fn keys_of(&self, round: Round, probe: u32) -> impl Iterator<Item = &FactKey> {
        let keys = self.span_of(round.start_s()).and_then(|begin| self.keys.get(&begin));
        let of = move |key: &&FactKey| key.round == round && key.probe == probe;
        keys.into_iter().flatten().filter(of)
    }

    /// The beginning of the segment a round lies in.
    pub(super) fn span_of(&self, start_s: u64) -> Option<u64> {
        let (from_s, to_s) = self.spans.range(..=start_s).next_back()?;
        (start_s < *to_s).then_some(*from_s)
    }
}

/// Counts by round and probe, of those that were asked for.
#[derive(Debug, Default)]
pub(super) struct RoundParts(pub(super) HashMap<(Round, u32), u32>);

impl RoundParts {
    /// A part was stored under this key, after its round was counted.
    pub(super) fn one_more(&mut self, key: &FactKey) {
        if let Some(count) = self.0.get_mut(&(key.round, key.probe)) {
            *count = count.saturating_add(1);
        }
    }

    /// What was counted is not what is stored.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// This process as a writer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    /// Its number in the tables.
    pub(super) number: i64,
    /// Its last commit.
    pub(super) position: Position,
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Fails when the lease was taken by another process since this token was given.
pub(super) async fn check_token(
    connection: &mut SqliteConnection,
    token: Token,
) -> Result<(), StoreError> {
    let there: i64 = sqlx::query_scalar("SELECT token FROM lease").fetch_one(connection).await?;
    if unsigned(there) == token.0 { Ok(()) } else { Err(StoreError::LeaseLost) }
}

pub(super) fn read_fact(
    row: &SqliteRow,
    bases: &mut HashMap<Slot, Vec<(u64, Digest, Sets)>>,
) -> Read {
    let number = |index: usize| u32::try_from(row.get::<i64, _>(index)).unwrap_or(u32::MAX);
    let round_s = u64::try_from(row.get::<i64, _>(0)).unwrap_or(u64::MAX);
    let name = || {
        format!(
            "part {} of probe {} in round {round_s}, subnet {}",
            number(4),
            number(3),
            number(1)
        )
    };
    let damaged = |why: &str| format!("{}: {why}", name());
    let period = Period::new(number(2)).map_err(|error| damaged(&error.to_string()))?;
    let round = Round::new(round_s, period).map_err(|error| damaged(&error.to_string()))?;
    let digest: &[u8] = row.get(5);
    let digest = Digest(digest.try_into().map_err(|_| damaged("its digest is not 16 bytes"))?);
    let key = FactKey {
        round,
        subnet: number(1),
        probe: number(3),
        number: u16::try_from(number(4)).map_err(|_| damaged("its number is too large"))?,
    };
    let outcome = match row.get::<i64, _>(7) {
        0 => Outcome::Looked,
        reason => i32::try_from(reason)
            .ok()
            .and_then(Reason::from_wire)
            .map(Outcome::CouldNotLook)
            .ok_or_else(|| damaged("its reason is not known"))?,
    };
    let observed_at_ms = round.start_ms().saturating_add(row.get::<i64, _>(8));
    let before = round_s.checked_sub(u64::from(period.seconds()));
    let candidates = bases.entry(slot(&key)).or_default();
    candidates.retain(|(there, ..)| *there == round_s || Some(*there) == before);
    let sets = blob::decode(row.get(11), |tag| {
        let base = candidates
            .iter()
            .find(|(there, digest, _)| Some(*there) == before && digest.0.starts_with(&tag));
        base.map(|(.., sets)| &**sets)
    });
    let sets = Arc::new(sets.map_err(|error: BlobError| damaged(&error.to_string()))?);
    candidates.push((round_s, digest, Arc::clone(&sets)));
    Ok(Fact {
        key,
        kind: i32::try_from(row.get::<i64, _>(6))
            .ok()
            .and_then(Kind::from_wire)
            .ok_or_else(|| damaged("its kind is not known"))?,
        outcome,
        digest: Some(digest),
        observed_at_ms,
        received_at_ms: observed_at_ms.saturating_add(row.get::<i64, _>(9)),
        relay_session_age_s: row
            .get::<Option<i64>, _>(10)
            .map(|age| u32::try_from(age).unwrap_or(u32::MAX)),
        sets,
    })
}

/// Lists of names are stored one per line; names have no control characters.
pub(super) fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
