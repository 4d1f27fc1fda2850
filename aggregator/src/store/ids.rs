//! The ids of nodes by number, in the embedded store.
//!
//! Owns the tables `node_block` and `forgotten`. Ids are random bytes and there may be a million of
//! them, so they stand close: [`PER_BLOCK`] to a row, which fills a page of the file. Knows nothing
//! of what a node is.

use std::collections::{BTreeSet, HashMap};

use prost::encoding::{decode_varint, encode_varint};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uptime_proto::NodeId;
use uptime_proto::node_id::NODE_ID_BYTES;

use super::connection::{SqliteStore, check_token};
use super::damage::{is_damage, vital};
use super::error::StoreError;
use super::records::{NamesKnown, NewNames, Token};

/// What version 5 added, that of names of subnets it is known which probe brought them (0: it is
/// not) included. A block holds the ids of the numbers from [`PER_BLOCK`] times its own on,
/// one after the other; who brought them, as stretches of (probe, how many), both varints; and the
/// CRC-32 of both in this order. The last block grows. The table of earlier versions, a row per id,
/// goes once [`compact`] has taken it over.
pub(super) const SCHEMA_IDS: &str = "
CREATE TABLE node_block (
    block INTEGER PRIMARY KEY, ids BLOB NOT NULL, brought_by BLOB NOT NULL, crc INTEGER NOT NULL
) STRICT;
CREATE TABLE forgotten (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT;
INSERT INTO forgotten SELECT number, forgotten_at_ms FROM node WHERE forgotten_at_ms IS NOT NULL;
ALTER TABLE subnet ADD COLUMN brought_by INTEGER NOT NULL DEFAULT 0;
";

/// A page of 4,096 bytes takes a row of 4,061: so many ids and some stretches.
const PER_BLOCK: usize = 200;

/// What is known of an id: itself, and the probe that brought it.
type Brought = (NodeId, u32);

fn damaged(block: usize, why: &str) -> StoreError {
    let (first, last) = (block * PER_BLOCK, (block + 1) * PER_BLOCK - 1);
    StoreError::Damaged(format!(
        "the ids of the nodes {first} to {last}: {why}; without them nothing stored has a meaning; \
         keep the file and restore a backup: uptime-aggregator restore --help"
    ))
}

fn checksum(ids: &[u8], brought_by: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(ids);
    hasher.update(brought_by);
    i64::from(hasher.finalize())
}

fn stretches(nodes: &[Brought]) -> Vec<u8> {
    let mut coded = Vec::new();
    for stretch in nodes.chunk_by(|(_, a), (_, b)| a == b) {
        let probe = stretch.first().map_or(0, |(_, probe)| *probe);
        encode_varint(u64::from(probe), &mut coded);
        encode_varint(stretch.len() as u64, &mut coded);
    }
    coded
}

fn read_block(block: usize, row: &SqliteRow) -> Result<Vec<Brought>, StoreError> {
    let (ids, mut brought_by): (&[u8], &[u8]) = (row.get(1), row.get(2));
    if checksum(ids, brought_by) != row.get::<i64, _>(3) {
        return Err(damaged(block, "the checksum does not match"));
    }
    let mut probes = Vec::new();
    while !brought_by.is_empty() {
        let numbers = (decode_varint(&mut brought_by), decode_varint(&mut brought_by));
        let (Ok(probe), Ok(count)) = numbers else {
            return Err(damaged(block, "who brought them is not told"));
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(PER_BLOCK + 1);
        probes.extend(std::iter::repeat_n(u32::try_from(probe).unwrap_or(u32::MAX), count));
    }
    let (ids, rest) = ids.as_chunks::<NODE_ID_BYTES>();
    if !rest.is_empty() || ids.len() != probes.len() || ids.len() > PER_BLOCK {
        return Err(damaged(block, "they do not fill their place"));
    }
    Ok(ids.iter().map(|id| NodeId::new(*id)).zip(probes).collect())
}

async fn write_block(
    connection: &mut SqliteConnection,
    block: usize,
    nodes: &[Brought],
) -> Result<(), StoreError> {
    let ids: Vec<u8> = nodes.iter().flat_map(|(id, _)| *id.as_bytes()).collect();
    let brought_by = stretches(nodes);
    let crc = checksum(&ids, &brought_by);
    sqlx::query("INSERT OR REPLACE INTO node_block VALUES (?, ?, ?, ?)")
        .bind(i64::try_from(block).unwrap_or(i64::MAX))
        .bind(ids)
        .bind(brought_by)
        .bind(crc)
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives these ids the next numbers.
pub(super) async fn append(
    connection: &mut SqliteConnection,
    new: &[Brought],
) -> Result<(), StoreError> {
    if new.is_empty() {
        return Ok(());
    }
    let select = "SELECT block, ids, brought_by, crc FROM node_block ORDER BY block DESC LIMIT 1";
    let last = sqlx::query(select).fetch_optional(&mut *connection).await?;
    let last = last.map(|row| {
        let block = usize::try_from(row.get::<i64, _>(0)).unwrap_or(usize::MAX);
        read_block(block, &row).map(|nodes| (block, nodes))
    });
    let (mut block, mut nodes) = last.transpose()?.unwrap_or_default();
    if nodes.len() == PER_BLOCK {
        (block, nodes) = (block + 1, Vec::new());
    }
    nodes.extend_from_slice(new);
    for nodes in nodes.chunks(PER_BLOCK) {
        write_block(connection, block, nodes).await?;
        block += 1;
    }
    Ok(())
}

/// How many ids and subnets have a number.
pub(super) async fn count(connection: &mut SqliteConnection) -> Result<NamesKnown, StoreError> {
    let select = "SELECT block, length(ids) / 20 FROM node_block ORDER BY block DESC LIMIT 1";
    let last: Option<(i64, i64)> = sqlx::query_as(select).fetch_optional(&mut *connection).await?;
    let narrow = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
    let per_block = u32::try_from(PER_BLOCK).unwrap_or(u32::MAX);
    let nodes = last.map_or(0, |(block, ids)| {
        narrow(block).saturating_mul(per_block).saturating_add(narrow(ids))
    });
    let subnets: i64 =
        sqlx::query_scalar("SELECT count(*) FROM subnet").fetch_one(connection).await?;
    Ok(NamesKnown { nodes, subnets: narrow(subnets) })
}

/// Takes over the ids of the versions before, which had a row for each.
pub(super) async fn compact(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT number, id, brought_by FROM node ORDER BY number")
        .fetch_all(&mut *connection)
        .await;
    let rows = vital(rows, "the ids of nodes")?;
    let node = |(number, row): (i64, &SqliteRow)| {
        let id = NodeId::from_slice(row.get(1)).ok();
        let id = id.filter(|_| number == row.get::<i64, _>(0));
        let id = id.ok_or_else(|| StoreError::Damaged(format!("the id of node {number}")))?;
        Ok((id, u32::try_from(row.get::<i64, _>(2)).unwrap_or(u32::MAX)))
    };
    let nodes = (0..).zip(&rows).map(node).collect::<Result<Vec<Brought>, StoreError>>()?;
    append(connection, &nodes).await?;
    sqlx::raw_sql("DROP TABLE node").execute(connection).await?;
    Ok(())
}

/// The numbers whose id has a later one, too: an id gets another number only when it was forgotten
/// under the one before.
fn outnumbered(nodes: &[Brought]) -> BTreeSet<u32> {
    let mut last = HashMap::new();
    let earlier = |(number, (id, _)): (u32, &Brought)| last.insert(*id, number);
    (0..).zip(nodes).filter_map(earlier).collect()
}

impl SqliteStore {
    /// All ids by number, each with the probe that brought it, and the numbers of forgotten ones.
    pub(super) async fn all_ids(&mut self) -> Result<(Vec<Brought>, BTreeSet<u32>), StoreError> {
        let select = "SELECT block, ids, brought_by, crc FROM node_block ORDER BY block";
        let rows = sqlx::query(select).fetch_all(&mut self.connection).await;
        let rows = vital(rows, "the ids of nodes")?;
        let mut all = Vec::with_capacity(rows.len() * PER_BLOCK);
        for (block, row) in rows.iter().enumerate() {
            let in_place = usize::try_from(row.get::<i64, _>(0)) == Ok(block);
            if !in_place || all.len() != block * PER_BLOCK {
                return Err(damaged(block, "some are missing"));
            }
            all.extend(read_block(block, row)?);
        }
        let forgotten: Result<Vec<i64>, sqlx::Error> =
            sqlx::query_scalar("SELECT number FROM forgotten")
                .fetch_all(&mut self.connection)
                .await;
        let forgotten = match forgotten {
            Err(error) if is_damage(&error) => {
                tracing::error!(
                    %error,
                    "which ids are forgotten cannot be read: they are known again; \
                     uptime-aggregator verify tells more, a backup may have it"
                );
                outnumbered(&all)
            }
            numbers => {
                numbers?.into_iter().filter_map(|number| u32::try_from(number).ok()).collect()
            }
        };
        Ok((all, forgotten))
    }

    /// The ids of these numbers, in their order.
    pub(super) async fn ids_of(
        &mut self,
        numbers: impl IntoIterator<Item = u32>,
    ) -> Result<Vec<(u32, NodeId)>, StoreError> {
        let select = "SELECT block, ids, brought_by, crc FROM node_block WHERE block = ?";
        let mut at: Option<(usize, Vec<Brought>)> = None;
        let mut found = Vec::new();
        for number in numbers {
            let (block, place) = (number as usize / PER_BLOCK, number as usize % PER_BLOCK);
            if at.as_ref().is_none_or(|(there, _)| *there != block) {
                let row = sqlx::query(select)
                    .bind(i64::try_from(block).unwrap_or(i64::MAX))
                    .fetch_optional(&mut self.connection)
                    .await?;
                let nodes = row.map(|row| read_block(block, &row)).transpose()?;
                at = Some((block, nodes.unwrap_or_default()));
            }
            let id = at.as_ref().and_then(|(_, nodes)| nodes.get(place)).map(|(id, _)| *id);
            found.push((number, id.ok_or_else(|| damaged(block, "some are missing"))?));
        }
        Ok(found)
    }

    /// The ids and subnets whose numbers come after those that are known.
    pub(super) async fn names_after(&mut self, known: NamesKnown) -> Result<NewNames, StoreError> {
        let mut new = NewNames::default();
        let first = known.nodes as usize / PER_BLOCK;
        let select = "SELECT block, ids, brought_by, crc FROM node_block WHERE block >= ?
             ORDER BY block";
        let rows = sqlx::query(select)
            .bind(i64::try_from(first).unwrap_or(i64::MAX))
            .fetch_all(&mut self.connection)
            .await?;
        for (block, row) in (first..).zip(&rows) {
            new.nodes.extend(read_block(block, row)?);
        }
        new.nodes.drain(..new.nodes.len().min(known.nodes as usize % PER_BLOCK));
        let select = "SELECT name, brought_by FROM subnet WHERE number >= ? ORDER BY number";
        let rows = sqlx::query(select)
            .bind(i64::from(known.subnets))
            .fetch_all(&mut self.connection)
            .await?;
        let subnet =
            |row: &SqliteRow| (row.get(0), u32::try_from(row.get::<i64, _>(1)).unwrap_or(0));
        new.subnets.extend(rows.iter().map(subnet));
        Ok(new)
    }

    pub(super) async fn forget(
        &mut self,
        numbers: &[u32],
        now_ms: i64,
        token: Token,
    ) -> Result<(), StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        check_token(&mut transaction, token).await?;
        for number in numbers {
            sqlx::query("INSERT OR REPLACE INTO forgotten VALUES (?, ?)")
                .bind(i64::from(*number))
                .bind(now_ms)
                .execute(&mut *transaction)
                .await?;
        }
        self.opened.commit(transaction).await?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::Lease;
    use super::*;

    fn node(number: u32) -> Brought {
        let mut bytes = [7; NODE_ID_BYTES];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        (NodeId::new(bytes), number / 70 % 3)
    }

    #[tokio::test]
    async fn ids_come_back_however_they_came() {
        let place = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(place.path()).await.unwrap();
        let mut count = 0;
        for more in [1, 198, 1, 1, 0, 199, 700, 3] {
            let new: Vec<_> = (count..count + more).map(node).collect();
            append(&mut store.connection, &new).await.unwrap();
            count += more;
            let (all, _) = store.all_ids().await.unwrap();
            assert_eq!(all, (0..count).map(node).collect::<Vec<_>>());
        }
        let some = [0, 5, 199, 200, 1_102, 5];
        let found = store.ids_of(some).await.unwrap();
        assert_eq!(found, some.map(|number| (number, node(number).0)));
        assert!(store.ids_of([count]).await.is_err());
        let token = store.acquire_lease(0).await.unwrap().unwrap();
        store.forget(&[4, 1_000], 7, token).await.unwrap();
        store.forget(&[4], 9, token).await.unwrap();
        assert_eq!(store.all_ids().await.unwrap().1, [4, 1_000].into());
    }

    #[test]
    fn an_id_with_several_numbers_is_forgotten_under_all_but_the_last() {
        let nodes = [1, 2, 3, 1, 4, 1, 3].map(node);
        assert_eq!(outnumbered(&nodes), [0, 2, 3].into());
        assert_eq!(outnumbered(&nodes[..3]), [].into());
    }

    #[tokio::test]
    async fn a_block_that_does_not_agree_is_named() {
        let all: Vec<_> = (0..450).map(node).collect();
        for (harm, wanted) in [
            ("UPDATE node_block SET ids = zeroblob(4000) WHERE block = 1", "200 to 399: the check"),
            ("UPDATE node_block SET brought_by = x'01' WHERE block = 2", "400 to 599: the check"),
            ("DELETE FROM node_block WHERE block = 0", "0 to 199: some are missing"),
            ("DELETE FROM node_block WHERE block = 1", "200 to 399: some are missing"),
        ] {
            let place = tempfile::tempdir().unwrap();
            let mut store = SqliteStore::open(place.path()).await.unwrap();
            append(&mut store.connection, &all).await.unwrap();
            sqlx::raw_sql(harm).execute(&mut store.connection).await.unwrap();
            let fault = store.all_ids().await.unwrap_err().to_string();
            assert!(fault.contains(wanted) && fault.contains("restore"), "{fault}");
        }
    }
}
