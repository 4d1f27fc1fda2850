//! Compaction of closed days in the embedded store, and reading them again.
//!
//! Owns which parts stand in rows and which in segments. A day is compacted whole, in one
//! transaction. Parts that share a key stay in rows, with their digests; a row wins over the copy
//! of it that a segment may still hold. What is damaged is not compacted: it stays where it can be
//! looked at.

use std::collections::{HashMap, HashSet, VecDeque};

use futures_util::TryStreamExt;
use roaring::RoaringBitmap;
use sqlx::Row;
use uptime_accounting::fact::{Fact, FactKey};
use uptime_proto::round::DAY_S;
use uptime_proto::{Digest, NodeId};

use super::blob;
use super::connection::{SELECT_ROWS, SqliteStore, check_token, read_fact, signed};
use super::damage::is_damage;
use super::error::StoreError;
use super::positions::note_day;
use super::records::{CompactedDay, CompactionPlan, Put, Read, Token};
use super::segment::{SegmentError, SegmentReader, SegmentWriter};

/// A segment is closed with the round in which it grows beyond this, so that reading one round of a
/// large network does not mean unpacking a day of it.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
/// Of so many segments the keys are kept in memory while late parts come in.
const KEYS_OF_SEGMENTS_MAX: usize = 4;
/// Pages given back to the file system after a day was compacted, at a time.
pub(super) const VACUUM: &str = "PRAGMA incremental_vacuum";

/// Sums digests: the order does not matter, and one can be taken out again.
pub(super) fn add(sum: &mut u128, digest: Digest) {
    *sum = sum.wrapping_add(u128::from_le_bytes(digest.0));
}

/// Both, ascending by key; where a row has the key of a compacted fact, the row counts.
pub(super) fn merged(compacted: Vec<Read>, rows: Vec<Read>) -> Vec<Read> {
    if compacted.is_empty() {
        return rows;
    }
    let keys: HashSet<FactKey> =
        rows.iter().filter_map(|row| row.as_ref().ok().map(|fact| fact.key)).collect();
    let mut all: Vec<Read> = compacted
        .into_iter()
        .filter(|fact| fact.as_ref().map_or(true, |fact| !keys.contains(&fact.key)))
        .chain(rows)
        .collect();
    // Stable: what cannot be read has no key and comes first, conflicting rows keep their order.
    all.sort_by_key(|fact| fact.as_ref().ok().map(|fact| fact.key));
    all
}

/// Parts of a span, compacted.
#[derive(Debug)]
struct Segment {
    from_s: u64,
    to_s: u64,
    parts: u64,
    body: Vec<u8>,
}

/// A day compacted, ready to take the place of its rows.
#[derive(Debug)]
struct PreparedDay {
    day_s: u64,
    /// What the day consisted of; see [`SqliteStore::extent_of_day`].
    made_of: (i64, i64),
    segments: Vec<Segment>,
    conflicting: Vec<Fact>,
    digests: u128,
    before_bytes: u64,
}

/// Compacts one day.
struct DayCompactor {
    day_s: u64,
    from_s: u64,
    segment_writer: SegmentWriter,
    approximate: usize,
    parts: u64,
    digests: u128,
    last_round_s: u64,
    finished: Vec<Segment>,
    conflicting: Vec<Fact>,
}

impl DayCompactor {
    fn new(day_s: u64) -> Self {
        Self {
            day_s,
            from_s: day_s,
            segment_writer: SegmentWriter::new(day_s),
            approximate: 0,
            parts: 0,
            digests: 0,
            last_round_s: 0,
            finished: Vec::new(),
            conflicting: Vec::new(),
        }
    }

    fn push(&mut self, fact: &Fact) -> std::io::Result<()> {
        let start_s = fact.key.round.start_s();
        if start_s != self.last_round_s && self.approximate > SEGMENT_BYTES {
            self.cut(start_s)?;
        }
        self.last_round_s = start_s;
        self.approximate += self.segment_writer.push(fact);
        self.parts += 1;
        Ok(())
    }

    fn cut(&mut self, to_s: u64) -> std::io::Result<()> {
        let segment_writer = std::mem::replace(&mut self.segment_writer, SegmentWriter::new(to_s));
        if self.parts > 0 {
            let (from_s, parts, body) = (self.from_s, self.parts, segment_writer.finish()?);
            self.finished.push(Segment { from_s, to_s, parts, body });
        }
        (self.from_s, self.parts, self.approximate) = (to_s, 0, 0);
        Ok(())
    }

    /// Takes the rows of one key, and the compacted fact with that key, if there is one.
    fn take(&mut self, rows: Vec<Fact>, compacted: Option<Fact>) -> std::io::Result<()> {
        match (rows.as_slice(), compacted) {
            ([], None) => {}
            ([], Some(compacted)) => self.push(&compacted)?,
            ([alone], compacted) => {
                let counted = compacted.is_some_and(|compacted| compacted.same_content(alone));
                if let Some(digest) = alone.digest.filter(|_| !counted) {
                    add(&mut self.digests, digest);
                }
                self.push(alone)?;
            }
            (rows, compacted) => {
                // The compacted copy is one of them, and its digest leaves the sum with it.
                let same = compacted.and_then(|compacted| {
                    rows.iter().find(|row| row.same_content(&compacted)).and_then(|row| row.digest)
                });
                if let Some(digest) = same {
                    self.digests = self.digests.wrapping_sub(u128::from_le_bytes(digest.0));
                }
                self.conflicting.extend(rows.iter().cloned());
            }
        }
        Ok(())
    }
}

/// What was compacted of a day before, one part after another.
struct Before {
    segments: VecDeque<SegmentReader>,
    ahead: Option<Fact>,
}

impl Before {
    fn new(segments: Vec<SegmentReader>) -> Result<Self, SegmentError> {
        let mut before = Self { segments: segments.into(), ahead: None };
        before.step()?;
        Ok(before)
    }

    fn step(&mut self) -> Result<(), SegmentError> {
        self.ahead = None;
        while let Some(segment) = self.segments.front_mut() {
            if let Some(next) = segment.next(|_| true) {
                self.ahead = next?.1;
                break;
            }
            self.segments.pop_front();
        }
        Ok(())
    }

    /// The next part, if this holds of its key.
    fn next_if(&mut self, wanted: impl Fn(&FactKey) -> bool) -> Result<Option<Fact>, SegmentError> {
        let next = self.ahead.take_if(|fact| wanted(&fact.key));
        if next.is_some() {
            self.step()?;
        }
        Ok(next)
    }
}

impl SqliteStore {
    /// Learns which spans are compacted, if another connection wrote anything since it was learnt.
    pub(super) async fn learn_compacted_anew(&mut self) -> Result<(), StoreError> {
        let version: i64 =
            sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut self.connection).await?;
        if self.compacted.learnt_at != Some(version) {
            self.learn_compacted().await?;
            self.compacted.learnt_at = Some(version);
        }
        Ok(())
    }

    /// Learns which spans are compacted.
    pub(super) async fn learn_compacted(&mut self) -> Result<(), StoreError> {
        self.compacted.spans = self.compacted_spans().await?;
        self.compacted.keys.clear();
        Ok(())
    }

    pub(super) async fn segment(
        &mut self,
        from_s: u64,
    ) -> Result<Result<SegmentReader, String>, StoreError> {
        let named = |error: &dyn std::fmt::Display| format!("the segment from {from_s}: {error}");
        let body: Result<Option<Vec<u8>>, sqlx::Error> =
            sqlx::query_scalar("SELECT body FROM segment WHERE from_s = ?")
                .bind(signed(from_s))
                .fetch_optional(&mut self.connection)
                .await;
        match body {
            Ok(None) => Ok(Err(format!("the segment from {from_s}: it is not there"))),
            Ok(Some(body)) => Ok(SegmentReader::open(&body).map_err(|error| named(&error))),
            Err(error) if is_damage(&error) => Ok(Err(named(&error))),
            Err(error) => Err(error.into()),
        }
    }

    /// The compacted facts of rounds in `[from_s, to_s)`.
    pub(super) async fn read_compacted(
        &mut self,
        from_s: u64,
        to_s: u64,
    ) -> Result<Vec<Read>, StoreError> {
        let spans = self.compacted.spans.range(..to_s).filter(|(_, end)| **end > from_s);
        let spans: Vec<u64> = spans.map(|(begin, _)| *begin).collect();
        let mut facts = Vec::new();
        for begin in spans {
            let mut segment_reader = match self.segment(begin).await? {
                Ok(segment_reader) => segment_reader,
                Err(damaged) => {
                    facts.push(Err(damaged));
                    continue;
                }
            };
            let wanted = |key: &FactKey| (from_s..to_s).contains(&key.round.start_s());
            while let Some(next) = segment_reader.next(wanted) {
                match next {
                    Ok((_, fact)) => facts.extend(fact.map(Ok)),
                    Err(error) => {
                        facts.push(Err(format!("the segment from {begin}: {error}")));
                        break;
                    }
                }
            }
        }
        Ok(facts)
    }

    /// Whether a fact about to be written is compacted already. One that is there with another
    /// content goes back to a row of its own, so that the two stand side by side.
    pub(super) async fn settle_with_compacted(
        &mut self,
        fact: &Fact,
    ) -> Result<Option<Put>, StoreError> {
        // Whoever writes facts is the only one that compacts, and has learnt then.
        if self.compacted.learnt_at.is_none() {
            self.learn_compacted_anew().await?;
        }
        let Some(begin) = self.compacted.span_of(fact.key.round.start_s()) else {
            return Ok(None);
        };
        if !self.compacted.keys.contains_key(&begin) {
            let Ok(mut segment_reader) = self.segment(begin).await? else {
                // Damaged, and named when it is read: what comes now is taken.
                return Ok(None);
            };
            let mut keys = HashSet::new();
            while let Some(Ok((key, _))) = segment_reader.next(|_| false) {
                keys.insert(key);
            }
            if self.compacted.keys.len() >= KEYS_OF_SEGMENTS_MAX {
                self.compacted.keys.clear();
            }
            self.compacted.keys.insert(begin, keys);
        }
        if !self.compacted.keys.get(&begin).is_some_and(|keys| keys.contains(&fact.key)) {
            return Ok(None);
        }
        let Ok(mut segment_reader) = self.segment(begin).await? else {
            return Ok(None);
        };
        while let Some(Ok((_, there))) = segment_reader.next(|key| *key == fact.key) {
            let Some(there) = there else { continue };
            if there.same_content(fact) {
                return Ok(Some(Put::Duplicate));
            }
            let digest = self.digest_of(&there).await?;
            let select = "SELECT count(*) FROM part WHERE round = ? AND subnet = ? AND period = ?
                 AND probe = ? AND number = ?";
            let rows: i64 = sqlx::query_scalar(select)
                .bind(signed(there.key.round.start_s()))
                .bind(i64::from(there.key.subnet))
                .bind(i64::from(there.key.round.period().seconds()))
                .bind(i64::from(there.key.probe))
                .bind(i64::from(there.key.number))
                .fetch_one(&mut self.connection)
                .await?;
            if rows == 0 {
                // It is in every state that includes the day.
                self.insert_row(&there, digest, blob::encode(&there.sets, None), None).await?;
            }
            break;
        }
        Ok(None)
    }

    /// The digest of a compacted fact, from the ids of its nodes.
    pub(super) async fn digest_of(&mut self, fact: &Fact) -> Result<Digest, StoreError> {
        let subnet: String = sqlx::query_scalar("SELECT name FROM subnet WHERE number = ?")
            .bind(i64::from(fact.key.subnet))
            .fetch_one(&mut self.connection)
            .await?;
        let numbers: RoaringBitmap = fact.sets.iter().flatten().collect();
        let ids: HashMap<u32, NodeId> = self.ids_of(&numbers).await?.into_iter().collect();
        let part = fact.to_part(&subnet, |number| ids.get(&number).copied());
        let part = part.ok_or_else(|| StoreError::Damaged("a node without id".to_owned()))?;
        Ok(part.digest())
    }

    /// Compacts the first day that ends at or before this and has parts in rows that need not be
    /// there, without writing anything.
    pub(super) async fn prepare_day(
        &mut self,
        before_s: u64,
    ) -> Result<Option<CompactionPlan>, StoreError> {
        self.learn_compacted().await?;
        while let Some(day_s) = self.loose_day(before_s).await? {
            // One moment for all that is read, whatever another connection writes meanwhile.
            sqlx::raw_sql("BEGIN").execute(&mut self.connection).await?;
            let prepared = self.compact_up(day_s).await;
            sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await?;
            match prepared {
                Ok(Some(prepared)) => return Ok(Some(CompactionPlan::new(day_s, prepared))),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, day_s, "a day is not compacted"),
            }
            self.compacted.left.insert(day_s);
        }
        Ok(None)
    }

    async fn loose_day(&mut self, before_s: u64) -> Result<Option<u64>, StoreError> {
        let day_length_s = u64::from(DAY_S);
        let mut from_s = 0;
        loop {
            let first: Option<i64> =
                sqlx::query_scalar("SELECT min(round) FROM part WHERE round >= ?")
                    .bind(signed(from_s))
                    .fetch_one(&mut self.connection)
                    .await?;
            let Some(first) = first.and_then(|first| u64::try_from(first).ok()) else {
                return Ok(None);
            };
            let day_s = first - first % day_length_s;
            if day_s + day_length_s > before_s {
                return Ok(None);
            }
            from_s = day_s + day_length_s;
            if !self.compacted.left.contains(&day_s) && self.has_loose(day_s).await? {
                return Ok(Some(day_s));
            }
        }
    }

    /// Puts a prepared day in the place of its rows, unless something came to the day meanwhile.
    pub(super) async fn commit_day(
        &mut self,
        plan: &CompactionPlan,
        token: Token,
    ) -> Result<Option<CompactedDay>, StoreError> {
        let prepared: &PreparedDay = plan.prepared()?;
        self.opened.check()?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        let swapped = match check_token(&mut self.connection, token).await {
            Ok(()) => self.swap_in(prepared).await,
            Err(error) => Err(error),
        };
        let good = matches!(swapped, Ok(true));
        let end = if good { "COMMIT" } else { "ROLLBACK" };
        let ended = sqlx::raw_sql(end).execute(&mut self.connection).await;
        // Differences must not build on rows that are gone.
        self.bases.clear();
        if let Err(error) = ended {
            sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await.ok();
            return Err(error.into());
        }
        if !swapped? {
            return Ok(None);
        }
        self.opened.check()?;
        self.learn_compacted().await?;
        sqlx::raw_sql(VACUUM).execute(&mut self.connection).await?;
        Ok(Some(CompactedDay {
            day_s: prepared.day_s,
            parts: prepared.segments.iter().map(|segment| segment.parts).sum(),
            bytes: prepared.segments.iter().map(|segment| segment.body.len() as u64).sum(),
            before_bytes: prepared.before_bytes,
        }))
    }

    /// Rows and segments of a day: as long as both stay, nothing came to it. Rows are never
    /// changed.
    async fn extent_of_day(&mut self, day_s: u64) -> Result<(i64, i64), StoreError> {
        let select = "SELECT (SELECT count(*) FROM part WHERE round >= ?1 AND round < ?2),
             (SELECT coalesce(sum(parts), 0) FROM segment WHERE from_s >= ?1 AND from_s < ?2)";
        let row = sqlx::query(select)
            .bind(signed(day_s))
            .bind(signed(day_s + u64::from(DAY_S)))
            .fetch_one(&mut self.connection)
            .await?;
        Ok((row.get(0), row.get(1)))
    }

    async fn swap_in(&mut self, prepared: &PreparedDay) -> Result<bool, StoreError> {
        let (day_s, end_s) = (prepared.day_s, prepared.day_s + u64::from(DAY_S));
        if self.extent_of_day(day_s).await? != prepared.made_of {
            return Ok(false);
        }
        note_day(&mut self.connection, day_s).await?;
        for delete in [
            // Those that share their key stay, with their digests.
            "DELETE FROM part WHERE round >= ? AND round < ? AND NOT EXISTS (
                SELECT 1 FROM part o WHERE o.round = part.round AND o.subnet = part.subnet
                    AND o.period = part.period AND o.probe = part.probe
                    AND o.number = part.number AND o.digest != part.digest)",
            "DELETE FROM segment WHERE from_s >= ? AND from_s < ?",
        ] {
            sqlx::query(delete)
                .bind(signed(day_s))
                .bind(signed(end_s))
                .execute(&mut self.connection)
                .await?;
        }
        for fact in &prepared.conflicting {
            self.make_full(fact).await?;
        }
        for segment in &prepared.segments {
            sqlx::query("INSERT INTO segment VALUES (?, ?, ?, ?, ?)")
                .bind(signed(segment.from_s))
                .bind(signed(segment.to_s))
                .bind(signed(segment.parts))
                .bind(prepared.digests.to_le_bytes().as_slice())
                .bind(segment.body.as_slice())
                .execute(&mut self.connection)
                .await?;
        }
        Ok(true)
    }

    /// Writes the sets of a row anew, as no difference to rows that are gone.
    async fn make_full(&mut self, fact: &Fact) -> Result<(), StoreError> {
        let update = "UPDATE part SET sets = ? WHERE round = ? AND subnet = ? AND period = ?
             AND probe = ? AND number = ? AND digest = ?";
        sqlx::query(update)
            .bind(blob::encode(&fact.sets, None))
            .bind(signed(fact.key.round.start_s()))
            .bind(i64::from(fact.key.subnet))
            .bind(i64::from(fact.key.round.period().seconds()))
            .bind(i64::from(fact.key.probe))
            .bind(i64::from(fact.key.number))
            .bind(fact.digest.map_or([0; 16], |digest| digest.0).as_slice())
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Whether a day has rows that share their key with no other.
    async fn has_loose(&mut self, day_s: u64) -> Result<bool, StoreError> {
        let select = "SELECT 1 FROM part WHERE round >= ? AND round < ?
             GROUP BY round, subnet, period, probe, number HAVING count(*) = 1 LIMIT 1";
        let loose: Option<i64> = sqlx::query_scalar(select)
            .bind(signed(day_s))
            .bind(signed(day_s + u64::from(DAY_S)))
            .fetch_optional(&mut self.connection)
            .await?;
        Ok(loose.is_some())
    }

    async fn compact_up(&mut self, day_s: u64) -> Result<Option<PreparedDay>, StoreError> {
        let end_s = day_s + u64::from(DAY_S);
        let made_of = self.extent_of_day(day_s).await?;
        let mut day = DayCompactor::new(day_s);
        let spans: Vec<u64> =
            self.compacted.spans.range(day_s..end_s).map(|(from, _)| *from).collect();
        let mut old = Vec::new();
        for begin in &spans {
            match self.segment(*begin).await? {
                Ok(segment_reader) => old.push(segment_reader),
                Err(damaged) => {
                    tracing::error!(damaged, day_s, "a day is not compacted anew");
                    return Ok(None);
                }
            }
        }
        if let Some(first) = spans.first() {
            day.digests = self.digest_sum(*first).await?;
        }
        let Some(before_bytes) = self.merge_day(&mut day, old).await? else {
            return Ok(None);
        };
        day.cut(end_s)?;
        let DayCompactor { finished: segments, conflicting, digests, .. } = day;
        Ok(Some(PreparedDay { day_s, made_of, segments, conflicting, digests, before_bytes }))
    }

    pub(super) async fn digest_sum(&mut self, from_s: u64) -> Result<u128, StoreError> {
        let sum: Vec<u8> = sqlx::query_scalar("SELECT digest FROM segment WHERE from_s = ?")
            .bind(signed(from_s))
            .fetch_one(&mut self.connection)
            .await?;
        let sum = <[u8; 16]>::try_from(sum.as_slice()).map_err(|_| {
            StoreError::Damaged(format!("the digests of the segment from {from_s}"))
        })?;
        Ok(u128::from_le_bytes(sum))
    }

    /// Leads the rows of a day and what was compacted of it together; answers the bytes of the
    /// rows' sets, or `None` when something cannot be read.
    async fn merge_day(
        &mut self,
        day: &mut DayCompactor,
        old: Vec<SegmentReader>,
    ) -> Result<Option<u64>, StoreError> {
        let mut before = Before::new(old)?;
        let mut rows = sqlx::query(SELECT_ROWS)
            .bind(signed(day.day_s))
            .bind(signed(day.day_s + u64::from(DAY_S)))
            .fetch(&mut self.connection);
        let mut bases = HashMap::new();
        let mut alike: Vec<Fact> = Vec::new();
        let mut bytes = 0u64;
        loop {
            let row = rows.try_next().await?;
            let fact = match row.as_ref().map(|row| read_fact(row, &mut bases)).transpose() {
                Ok(fact) => fact,
                Err(damaged) => {
                    tracing::error!(damaged, day_s = day.day_s, "a day is not compacted");
                    return Ok(None);
                }
            };
            bytes += row.map_or(0, |row| row.get::<&[u8], _>(11).len() as u64);
            let ended = fact.is_none();
            let same = alike.first().zip(fact.as_ref()).is_some_and(|(a, b)| a.key == b.key);
            if !same && let Some(key) = alike.first().map(|fact| fact.key) {
                while let Some(earlier) = before.next_if(|there| *there < key)? {
                    day.take(Vec::new(), Some(earlier))?;
                }
                let there = before.next_if(|there| *there == key)?;
                day.take(std::mem::take(&mut alike), there)?;
            }
            alike.extend(fact);
            if ended {
                break;
            }
        }
        while let Some(later) = before.next_if(|_| true)? {
            day.take(Vec::new(), Some(later))?;
        }
        Ok(Some(bytes))
    }
}
