//! What travels beside parts: ages and round trips of single nodes, in the embedded store.
//!
//! Owns the tables `sample` and `latency_day`. No verdict looks at them. Of each probe and node the
//! last age and the last answer are kept, as probes tell them when they are news; of round trips a
//! line per node and day.

use sqlx::Row;
use uptime_proto::round::DAY_S;

use super::connection::{SqliteStore, signed, unsigned};
use super::damage::dispensable;
use super::error::StoreError;
use super::records::{Latency, NodeSample, NodeSamples};

/// Lines of round trips are kept for so long.
const LATENCY_DAYS: u64 = 90;

fn narrow(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl SqliteStore {
    pub(super) async fn write_sample(
        &mut self,
        it: &NodeSample,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let insert = "INSERT INTO sample (node, probe) VALUES (?, ?) ON CONFLICT DO NOTHING";
        let keys = [i64::from(it.node), i64::from(it.probe)];
        if it.seen_age_ms.is_some() || it.answered_in_ms.is_some() {
            sqlx::query(insert).bind(keys[0]).bind(keys[1]).execute(&mut self.connection).await?;
        }
        if let Some(age_ms) = it.seen_age_ms {
            let update = "UPDATE sample SET seen_age_ms = ?, aged_round = ?
                 WHERE node = ? AND probe = ? AND coalesce(aged_round, 0) <= ?";
            self.update(update, i64::from(age_ms), it.round_s, keys).await?;
        }
        if let Some(in_ms) = it.answered_in_ms {
            let update = "UPDATE sample SET answered_in_ms = ?, answered_round = ?
                 WHERE node = ? AND probe = ? AND coalesce(answered_round, 0) <= ?";
            self.update(update, i64::from(in_ms), it.round_s, keys).await?;
        }
        let Some(round_trip_us) = it.round_trip_us.map(i64::from) else { return Ok(()) };
        let upsert = "INSERT INTO latency_day VALUES (?1, ?2, 1, ?3, ?3, ?3, ?3, ?4)
             ON CONFLICT (node, day) DO UPDATE SET samples = samples + 1,
                 min_us = min(min_us, ?3), max_us = max(max_us, ?3), sum_us = sum_us + ?3,
                 last_us = ?3, last_at_ms = ?4";
        sqlx::query(upsert)
            .bind(keys[0])
            .bind(signed(it.round_s / u64::from(DAY_S)))
            .bind(round_trip_us)
            .bind(now_ms)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    async fn update(
        &mut self,
        update: &'static str,
        value: i64,
        round_s: u64,
        keys: [i64; 2],
    ) -> Result<(), StoreError> {
        sqlx::query(update)
            .bind(value)
            .bind(signed(round_s))
            .bind(keys[0])
            .bind(keys[1])
            .bind(signed(round_s))
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    pub(super) async fn samples_of(&mut self, node: u32) -> Result<NodeSamples, StoreError> {
        let select = "SELECT probe, seen_age_ms, aged_round, answered_in_ms, answered_round
             FROM sample WHERE node = ? ORDER BY probe";
        let rows = sqlx::query(select).bind(i64::from(node)).fetch_all(&mut self.connection).await;
        let mut samples = NodeSamples::default();
        for row in dispensable(rows, "samples")? {
            let probe = narrow(row.get(0));
            let part = |value: usize, round: usize| {
                let value: Option<i64> = row.get(value);
                value.zip(row.get::<Option<i64>, _>(round))
            };
            if let Some((age_ms, round)) = part(1, 2) {
                let age_ms = i32::try_from(age_ms).unwrap_or(i32::MAX);
                samples.aged.push((probe, unsigned(round), age_ms));
            }
            if let Some((in_ms, round)) = part(3, 4) {
                samples.answered.push((probe, unsigned(round), narrow(in_ms)));
            }
        }
        Ok(samples)
    }

    pub(super) async fn latency_of(
        &mut self,
        nodes: &[u32],
        from_s: u64,
        to_s: u64,
    ) -> Result<Vec<Option<Latency>>, StoreError> {
        let day_s = u64::from(DAY_S);
        let select = "SELECT sum(samples), min(min_us), max(max_us), sum(sum_us) FROM latency_day
             WHERE node = ? AND day >= ? AND day < ?";
        let mut all = Vec::with_capacity(nodes.len());
        for node in nodes {
            let row = sqlx::query(select)
                .bind(i64::from(*node))
                .bind(signed(from_s / day_s))
                .bind(signed(to_s.div_ceil(day_s)))
                .fetch_all(&mut self.connection)
                .await;
            let rows = dispensable(row, "round trips")?;
            // Of nothing there is one row, without a sum.
            let row = rows.first().filter(|row| row.get::<Option<i64>, _>(0).is_some());
            all.push(row.map(|row| Latency {
                samples: unsigned(row.get(0)),
                min_us: narrow(row.get(1)),
                max_us: narrow(row.get(2)),
                sum_us: unsigned(row.get(3)),
            }));
        }
        Ok(all)
    }

    /// The last round trip of each node that has one, by its number.
    pub(super) async fn last_round_trips(&mut self) -> Result<Vec<(u32, u32)>, StoreError> {
        let select = "SELECT node, last_us, max(last_at_ms) FROM latency_day GROUP BY node";
        let rows = sqlx::query(select).fetch_all(&mut self.connection).await;
        let rows = dispensable(rows, "round trips")?;
        Ok(rows.iter().map(|row| (narrow(row.get(0)), narrow(row.get(1)))).collect())
    }

    pub(super) async fn drop_old_latency(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let day = unsigned(now_ms / 1000) / u64::from(DAY_S);
        sqlx::query("DELETE FROM latency_day WHERE day < ?")
            .bind(signed(day.saturating_sub(LATENCY_DAYS)))
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }
}
