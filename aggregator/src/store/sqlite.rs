//! The embedded store: one SQLite file in the data directory.
//!
//! Owns the schema. Written ahead (WAL) and synced in full at every commit, so a commit that
//! returned survives power loss. Each fact is one row with its sets as one blob, coded as the
//! difference to the fact one period before, with a full set at least every 120 rounds and at the
//! start of every UTC day, so that a day can be read, rewritten or dropped alone.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uptime_accounting::fact::{Fact, Gap};
use uptime_accounting::position::Positions;
use uptime_proto::round::DAY_S;
use uptime_proto::{Digest, Epoch, Outcome, Reason};

use super::blob::{self};
use super::compaction::merged;
use super::connection::{
    Base, CHAIN_MAX, SqliteStore, Writer, check_token, lines, read_fact, signed, slot, unsigned,
};
use super::damage::{dispensable, vital};
use super::error::StoreError;
use super::identities::{PROBE_COLUMNS, read_probe};
use super::identity_store::By;
use super::opening::Opening;
use super::records::{
    Batch, Catalogue, Checked, CompactedDay, CompactionPlan, Delivery, Details, EpochChange,
    Latency, NamesKnown, NewNames, NodeSamples, ProbeRecord, Progress, Put, Read, Retraction,
    Since, Stored, Token,
};
use super::states::{CHECKPOINT, ROLL_UP};
use super::verbs::{Checkpoints, FactLog, Lease, Registry, Samples, Store};
use super::{epochs, ids};

impl SqliteStore {
    async fn meta<const N: usize>(&mut self, name: &str) -> Result<[u8; N], StoreError> {
        let value = sqlx::query_scalar("SELECT value FROM meta WHERE name = ?")
            .bind(name)
            .fetch_one(&mut self.connection)
            .await;
        let value: Vec<u8> = vital(value, "the store's name and generation")?;
        value.try_into().map_err(|_| StoreError::Damaged(format!("meta value {name:?}")))
    }

    async fn period_max(&mut self) -> Result<u64, StoreError> {
        let periods = self.epochs().await?;
        let longest = periods.iter().map(|epoch| epoch.period.seconds()).max();
        Ok(u64::from(longest.unwrap_or(DAY_S)))
    }

    async fn read_both(&mut self, from_s: u64, to_s: u64) -> Result<Vec<Read>, StoreError> {
        self.learn_compacted_anew().await?;
        let compacted = self.read_compacted(from_s, to_s).await?;
        let rows = self.read_rows(from_s, to_s).await?;
        Ok(merged(compacted, rows))
    }

    /// The facts that stand in rows of their own.
    async fn read_rows(&mut self, from_s: u64, to_s: u64) -> Result<Vec<Read>, StoreError> {
        // Far enough back for the full set that every difference in the range goes back to.
        let period = self.period_max().await?;
        let day = from_s - from_s % u64::from(DAY_S);
        let start = from_s.saturating_sub(u64::from(CHAIN_MAX) * period).max(day);
        let (mut facts, mut bases) = (Vec::new(), HashMap::new());
        for row in self.rows_of(start, to_s).await? {
            match row {
                Ok(row) => {
                    let fact = read_fact(&row, &mut bases);
                    if row.get::<i64, _>(0) >= signed(from_s) {
                        facts.push(fact);
                    }
                }
                Err(damaged) => facts.push(Err(damaged)),
            }
        }
        Ok(facts)
    }

    async fn write(&mut self, batch: &Batch) -> Result<Stored, StoreError> {
        self.opened.check()?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        let written = self.write_all(batch).await;
        let end = if written.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = sqlx::raw_sql(end).execute(&mut self.connection).await;
        let (puts, writer) = written?;
        if let Err(error) = ended {
            // A commit that failed (disk full) leaves the transaction open; one that nobody can
            // undo any more may have been stored.
            let undone = sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await;
            let unknown = undone.is_err_and(|it| it.as_database_error().is_none());
            return Err(match unknown {
                true => StoreError::Indeterminate(error.to_string()),
                false => error.into(),
            });
        }
        self.writer = writer.or(self.writer);
        self.opened.check()?;
        Ok(Stored { puts, position: writer.map(|writer| writer.position) })
    }

    async fn write_all(&mut self, batch: &Batch) -> Result<(Vec<Put>, Option<Writer>), StoreError> {
        if let Some(known) = batch.names_known
            && known != ids::count(&mut self.connection).await?
        {
            return Err(StoreError::NamesChanged);
        }
        let connection = &mut self.connection;
        for (name, brought_by) in &batch.new_subnets {
            let insert = "INSERT INTO subnet VALUES ((SELECT max(number) + 1 FROM subnet), ?, ?)";
            sqlx::query(insert)
                .bind(name)
                .bind(i64::from(*brought_by))
                .execute(&mut *connection)
                .await?;
        }
        ids::append(connection, &batch.new_nodes).await?;
        for (node, details) in &batch.details {
            sqlx::query("INSERT OR REPLACE INTO node_details VALUES (?, ?, ?, ?, ?, ?)")
                .bind(i64::from(*node))
                .bind(&details.name)
                .bind(&details.runtime)
                .bind(&details.runtime_version)
                .bind(details.networks.join("\n"))
                .bind(signed(details.changed_s))
                .execute(&mut *connection)
                .await?;
        }
        for gap in &batch.gaps {
            sqlx::query("INSERT OR IGNORE INTO gap VALUES (?, ?, ?, ?)")
                .bind(i64::from(gap.probe))
                .bind(signed(gap.from_s))
                .bind(signed(gap.to_s))
                .bind(i64::from(gap.reason.to_wire() as i32))
                .execute(&mut *connection)
                .await?;
        }
        for sample in &batch.samples {
            self.write_sample(sample, batch.now_ms).await?;
        }
        if batch.facts.is_empty() {
            return Ok((Vec::new(), None));
        }
        let writer = self.next_position(batch.now_ms).await?;
        let most = batch.parts_per_round_max.unwrap_or(u32::MAX);
        let mut puts = Vec::with_capacity(batch.facts.len());
        for fact in &batch.facts {
            puts.push(self.write_fact(fact, writer, most).await?);
        }
        Ok((puts, Some(writer)))
    }

    async fn write_fact(
        &mut self,
        fact: &Fact,
        writer: Writer,
        most: u32,
    ) -> Result<Put, StoreError> {
        let key = &fact.key;
        let digest = fact.digest.ok_or_else(|| {
            StoreError::Damaged("a fact without a digest was put into the store".to_owned())
        })?;
        if let Some(put) = self.settle_with_compacted(fact).await? {
            return Ok(put);
        }
        let find = "SELECT digest FROM part WHERE round = ? AND subnet = ? AND period = ?
             AND probe = ? AND number = ? ORDER BY digest";
        let there: Vec<Vec<u8>> = sqlx::query_scalar(find)
            .bind(signed(key.round.start_s()))
            .bind(i64::from(key.subnet))
            .bind(i64::from(key.round.period().seconds()))
            .bind(i64::from(key.probe))
            .bind(i64::from(key.number))
            .fetch_all(&mut self.connection)
            .await?;
        if there.iter().any(|there| there.as_slice() == digest.0) {
            return Ok(Put::Duplicate);
        }
        if self.parts_of_round(key).await? >= most {
            return Ok(Put::RoundFull);
        }
        let (blob, chain) = self.encode(fact);
        self.insert_row(fact, digest, blob, Some(writer)).await?;
        self.round_parts.one_more(key);
        let (round_s, sets) = (key.round.start_s(), Arc::clone(&fact.sets));
        self.bases.insert(slot(key), Base { round_s, digest, chain, sets });
        Ok(match there.first() {
            None => Put::New,
            Some(smallest) if smallest.as_slice() < digest.0.as_slice() => Put::ConflictLarger,
            Some(_) => Put::ConflictSmallest,
        })
    }

    pub(super) async fn insert_row(
        &mut self,
        fact: &Fact,
        digest: Digest,
        blob: Vec<u8>,
        writer: Option<Writer>,
    ) -> Result<(), StoreError> {
        let key = &fact.key;
        let reason = match fact.outcome {
            Outcome::Looked => 0,
            Outcome::CouldNotLook(reason) => reason.to_wire() as i64,
        };
        sqlx::query("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(signed(key.round.start_s()))
            .bind(i64::from(key.subnet))
            .bind(i64::from(key.round.period().seconds()))
            .bind(i64::from(key.probe))
            .bind(i64::from(key.number))
            .bind(digest.0.as_slice())
            .bind(fact.kind.to_wire() as i64)
            .bind(reason)
            .bind(fact.observed_at_ms.saturating_sub(key.round.start_ms()))
            .bind(fact.received_at_ms.saturating_sub(fact.observed_at_ms))
            .bind(fact.relay_session_age_s.map(i64::from))
            .bind(blob)
            .bind(writer.map_or(0, |writer| writer.number))
            .bind(writer.map_or(0, |writer| signed(writer.position.commit)))
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// The blob of a fact, and the length of the chain of differences it ends.
    fn encode(&self, fact: &Fact) -> (Vec<u8>, u32) {
        let key = &fact.key;
        let before = key.round.start_s().checked_sub(u64::from(key.round.period().seconds()));
        let base = self.bases.get(&slot(key)).filter(|base| {
            let same_day = !key.round.start_s().is_multiple_of(u64::from(DAY_S));
            before == Some(base.round_s) && same_day && base.chain < CHAIN_MAX
        });
        let [a, b, c, d, ..] = base.map_or([0; 16], |base| base.digest.0);
        let blob = blob::encode(&fact.sets, base.map(|base| ([a, b, c, d], &*base.sets)));
        (blob, base.map_or(1, |base| base.chain + 1))
    }
}

fn read_details(row: &SqliteRow) -> (u32, Details) {
    let node = u32::try_from(row.get::<i64, _>(0)).unwrap_or(u32::MAX);
    let details = Details {
        name: row.get(1),
        runtime: row.get(2),
        runtime_version: row.get(3),
        networks: lines(row.get(4)),
        changed_s: u64::try_from(row.get::<i64, _>(5)).unwrap_or(0),
    };
    (node, details)
}

impl FactLog for SqliteStore {
    async fn put(&mut self, batch: &Batch) -> Result<Stored, StoreError> {
        let stored = self.write(batch).await;
        if let Err(error) = &stored {
            // Nothing learnt on the way may be built upon.
            self.bases.clear();
            self.compacted.forget_keys();
            self.round_parts.forget();
            if matches!(error, StoreError::Indeterminate(_)) {
                self.writer = None;
            }
        }
        stored
    }

    async fn positions(&mut self) -> Result<Positions, StoreError> {
        Ok(self.writers().await?.into_values().collect())
    }

    async fn since(&mut self, positions: &Positions, before_s: u64) -> Result<Since, StoreError> {
        // One moment for all of it, as in `read`.
        sqlx::raw_sql("SAVEPOINT since").execute(&mut self.connection).await?;
        let since = self.since_in_turn(positions, before_s).await;
        let ended = sqlx::raw_sql("RELEASE since").execute(&mut self.connection).await;
        if ended.is_err() {
            sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await?;
        }
        since
    }

    async fn end_writers(&mut self, before_ms: i64, token: Token) -> Result<u64, StoreError> {
        check_token(&mut self.connection, token).await?;
        self.end_others(before_ms).await
    }

    async fn read(&mut self, from_s: u64, to_s: u64) -> Result<Vec<Read>, StoreError> {
        // One moment for all of it: another connection may compact the day meanwhile. Within `hold`
        // it is that one.
        sqlx::raw_sql("SAVEPOINT reading").execute(&mut self.connection).await?;
        let read = self.read_both(from_s, to_s).await;
        let ended = sqlx::raw_sql("RELEASE reading").execute(&mut self.connection).await;
        if ended.is_err() {
            // A damaged page may stand in the way of an orderly end, too.
            sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await?;
        }
        read
    }

    async fn gaps(&mut self, from_s: u64, to_s: u64) -> Result<Vec<Gap>, StoreError> {
        let select = "SELECT probe, from_s, to_s, reason FROM gap WHERE to_s > ? AND from_s < ?
             ORDER BY probe, from_s, to_s, reason";
        let rows = sqlx::query_as(select)
            .bind(signed(from_s))
            .bind(signed(to_s))
            .fetch_all(&mut self.connection)
            .await;
        let rows: Vec<(i64, i64, i64, i64)> = dispensable(rows, "gaps that probes reported")?;
        let gap = |(probe, from_s, to_s, reason): (i64, i64, i64, i64)| {
            let reason = i32::try_from(reason).ok().and_then(Reason::from_wire)?;
            let second = |value: i64| u64::try_from(value).ok();
            let probe = u32::try_from(probe).ok()?;
            Some(Gap { probe, from_s: second(from_s)?, to_s: second(to_s)?, reason })
        };
        let damaged = || StoreError::Damaged("a gap that is none".to_owned());
        rows.into_iter().map(|row| gap(row).ok_or_else(damaged)).collect()
    }

    async fn extent(&mut self) -> Result<Option<(u64, u64)>, StoreError> {
        let rows = self.extent_of_rows().await?;
        self.learn_compacted_anew().await?;
        let both = rows.into_iter().chain(self.compacted.extent());
        Ok(both.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))))
    }

    async fn deliveries(&mut self) -> Result<Vec<Delivery>, StoreError> {
        let Some((_, last_s)) = self.extent_of_rows().await? else { return Ok(Vec::new()) };
        let select = "SELECT probe, MAX(round * 1000 + observed_ms),
                MAX(CASE WHEN ABS(received_ms) <= ? THEN round * 1000 + observed_ms + received_ms
                    END)
             FROM part WHERE round > ? GROUP BY probe";
        let rows = sqlx::query_as(select)
            .bind(Delivery::PROMPT_MS)
            .bind(signed(last_s.saturating_sub(u64::from(DAY_S))))
            .fetch_all(&mut self.connection)
            .await;
        let rows: Vec<(i64, i64, Option<i64>)> = dispensable(rows, "what probes delivered last")?;
        let delivery = |(probe, observed_at_ms, prompt_ms): (i64, i64, Option<i64>)| {
            Some(Delivery { probe: u32::try_from(probe).ok()?, observed_at_ms, prompt_ms })
        };
        Ok(rows.into_iter().filter_map(delivery).collect())
    }

    async fn plan_compaction(
        &mut self,
        before_s: u64,
    ) -> Result<Option<CompactionPlan>, StoreError> {
        self.prepare_day(before_s).await
    }

    async fn commit_compaction(
        &mut self,
        prepared: &CompactionPlan,
        token: Token,
    ) -> Result<Option<CompactedDay>, StoreError> {
        self.commit_day(prepared, token).await
    }

    async fn expire(
        &mut self,
        before_s: u64,
        roll_up: &[Vec<u8>],
        token: Token,
    ) -> Result<u64, StoreError> {
        self.roll_up_before(before_s, roll_up, token).await
    }

    async fn load_roll_up(&mut self) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read_state(ROLL_UP).await
    }
}

impl Registry for SqliteStore {
    async fn catalogue(&mut self) -> Result<Catalogue, StoreError> {
        let store_id = self.meta("store_id").await?;
        let generation = u64::from_le_bytes(self.meta("generation").await?);
        let epochs = self.epochs().await?;
        let probes = self.probes().await?;
        let rows = sqlx::query("SELECT name, brought_by FROM subnet ORDER BY number")
            .fetch_all(&mut self.connection)
            .await;
        let rows = vital(rows, "the names of subnets")?;
        let subnets = rows.iter().map(|row| row.get(0)).collect();
        let brought_by = |row: &SqliteRow| u32::try_from(row.get::<i64, _>(1)).unwrap_or(0);
        let subnets_brought_by = rows.iter().map(brought_by).collect();
        let (nodes, forgotten) = self.all_ids().await?;
        Ok(Catalogue {
            store_id,
            generation,
            epochs,
            probes,
            subnets,
            subnets_brought_by,
            nodes,
            forgotten,
        })
    }

    async fn probes(&mut self) -> Result<Vec<ProbeRecord>, StoreError> {
        let rows = sqlx::query(PROBE_COLUMNS).fetch_all(&mut self.connection).await;
        let rows = vital(rows, "the names of probes")?;
        Ok(rows.iter().map(read_probe).collect())
    }

    async fn add_probe(
        &mut self,
        name: &str,
        token_hash: &[u8; 32],
        subnets_allowed: &[String],
        now_ms: i64,
    ) -> Result<Option<ProbeRecord>, StoreError> {
        self.enrol_by_token(name, token_hash, subnets_allowed, now_ms).await
    }

    async fn epochs(&mut self) -> Result<Vec<Epoch>, StoreError> {
        epochs::all(&mut self.connection).await
    }

    async fn add_epoch(&mut self, epoch: &Epoch) -> Result<(), StoreError> {
        self.insert_epoch(epoch).await
    }

    async fn change_epochs(&mut self, change: &EpochChange, by: &By) -> Result<bool, StoreError> {
        self.put_epochs(change, by).await
    }

    async fn retractions(&mut self) -> Result<Vec<Retraction>, StoreError> {
        self.all_retractions().await
    }

    async fn details(
        &mut self,
        from: u32,
        most: u32,
    ) -> Result<BTreeMap<u32, Details>, StoreError> {
        let select = "SELECT node, name, runtime, runtime_version, networks, changed_s
             FROM node_details WHERE node >= ? ORDER BY node LIMIT ?";
        let rows = sqlx::query(select)
            .bind(i64::from(from))
            .bind(i64::from(most))
            .fetch_all(&mut self.connection)
            .await;
        let rows = dispensable(rows, "the details of nodes")?;
        Ok(rows.iter().map(read_details).collect())
    }

    async fn names_since(&mut self, known: NamesKnown) -> Result<NewNames, StoreError> {
        self.names_after(known).await
    }

    async fn forget_nodes(
        &mut self,
        numbers: &[u32],
        now_ms: i64,
        token: Token,
    ) -> Result<(), StoreError> {
        self.forget(numbers, now_ms, token).await
    }

    async fn opening(&mut self) -> Result<Option<Opening>, StoreError> {
        self.read_opening().await
    }

    async fn put_opening(&mut self, opening: &Opening) -> Result<(), StoreError> {
        self.write_opening(opening).await
    }
}

impl Samples for SqliteStore {
    async fn samples(&mut self, node: u32) -> Result<NodeSamples, StoreError> {
        self.samples_of(node).await
    }

    async fn latency(
        &mut self,
        nodes: &[u32],
        from_s: u64,
        to_s: u64,
    ) -> Result<Vec<Option<Latency>>, StoreError> {
        self.latency_of(nodes, from_s, to_s).await
    }

    async fn round_trips(&mut self) -> Result<Vec<(u32, u32)>, StoreError> {
        self.last_round_trips().await
    }

    async fn drop_old_samples(&mut self, now_ms: i64) -> Result<(), StoreError> {
        self.drop_old_latency(now_ms).await
    }
}

impl Checkpoints for SqliteStore {
    async fn save_checkpoint(&mut self, pieces: &[Vec<u8>]) -> Result<(), StoreError> {
        self.write_checkpoint(pieces).await
    }

    async fn load_checkpoint(&mut self) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read_state(CHECKPOINT).await
    }
}

impl Lease for SqliteStore {
    async fn acquire_lease(&mut self, _now_ms: i64) -> Result<Option<Token>, StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        let token: i64 = sqlx::query_scalar("UPDATE lease SET token = token + 1 RETURNING token")
            .fetch_one(&mut *transaction)
            .await?;
        self.opened.commit(transaction).await?;
        Ok(Some(Token(unsigned(token))))
    }

    async fn renew_lease(&mut self, token: Token, _now_ms: i64) -> Result<bool, StoreError> {
        match check_token(&mut self.connection, token).await {
            Ok(()) => Ok(true),
            Err(StoreError::LeaseLost) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Store for SqliteStore {
    fn still_there(&self) -> Result<(), StoreError> {
        self.opened.check()
    }

    async fn reader(&self) -> Result<Self, StoreError> {
        // A second one would wait for the first in vain.
        if let Some(why) = self.opened.why_read_only() {
            return Err(StoreError::ReadOnly(why.to_owned()));
        }
        Self::connect(&self.path).await
    }

    async fn hold(&mut self) -> Result<(), StoreError> {
        self.hold_still().await
    }

    async fn check(
        &mut self,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Checked, StoreError> {
        self.check_all(told).await
    }

    async fn copy_to(&mut self, path: &Path) -> Result<(), StoreError> {
        self.vacuum_into(path).await
    }
}
