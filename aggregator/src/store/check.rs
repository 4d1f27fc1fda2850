//! Checking the embedded store against itself, and copying it while it is written.
//!
//! Owns what must agree: the file's pages, each part with its digest, each compacted day with the
//! sum of its digests, each number with something it is a number of. Changes nothing.

use std::collections::HashMap;
use std::path::Path;

use sqlx::Row;
use uptime_accounting::fact::Fact;
use uptime_proto::NodeId;
use uptime_proto::round::DAY_S;

use super::compaction::add;
use super::connection::{SqliteStore, read_fact};
use super::damage::is_damage;
use super::error::StoreError;
use super::records::{Catalogue, Checked, Progress};
use super::verbs::Registry;

/// Pages the database may name before it gives up.
const PAGE_FAULTS_MAX: u32 = 100;
/// Rows read at once.
const CHUNK_S: u64 = 7_200;

impl SqliteStore {
    pub(super) async fn check_all(
        &mut self,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Checked, StoreError> {
        // One moment for all that is read, whatever a writer does meanwhile. Within `hold` it is
        // that one.
        sqlx::raw_sql("SAVEPOINT checking").execute(&mut self.connection).await?;
        let checked = self.check_in_turn(told).await;
        let ended = sqlx::raw_sql("RELEASE checking").execute(&mut self.connection).await;
        if ended.is_err() {
            // A damaged page may stand in the way of an orderly end, too.
            sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await?;
        }
        checked
    }

    async fn check_in_turn(
        &mut self,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        self.check_pages(&mut checked).await?;
        let catalogue = self.catalogue().await?;
        checked.nodes = catalogue.nodes.len() as u64;
        let count =
            "SELECT (SELECT count(*) FROM part) + (SELECT coalesce(sum(parts), 0) FROM segment)";
        let of = sqlx::query_scalar::<_, i64>(count).fetch_one(&mut self.connection).await;
        // Where rows cannot be counted the faults say so already.
        let of = of.ok().and_then(|of| u64::try_from(of).ok()).unwrap_or(0);
        self.check_rows(&catalogue, &mut checked, of, told).await?;
        self.check_segments(&catalogue, &mut checked, of, told).await?;
        Ok(checked)
    }

    async fn check_pages(&mut self, checked: &mut Checked) -> Result<(), StoreError> {
        let pragma = format!("PRAGMA integrity_check({PAGE_FAULTS_MAX})");
        let said: Result<Vec<String>, sqlx::Error> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(pragma)).fetch_all(&mut self.connection).await;
        match said {
            Ok(said) => said
                .into_iter()
                .filter(|line| line != "ok")
                .for_each(|line| checked.fault(format!("the file: {line}"))),
            Err(error) if is_damage(&error) => checked.fault(format!("the file: {error}")),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn check_rows(
        &mut self,
        catalogue: &Catalogue,
        checked: &mut Checked,
        of: u64,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), StoreError> {
        let Some((first, last)) = self.extent_of_rows().await? else {
            return Ok(());
        };
        // Differences never reach over the beginning of a day.
        let mut from_s = first - first % u64::from(DAY_S);
        let mut bases = HashMap::new();
        while from_s <= last {
            for row in self.rows_of(from_s, from_s + CHUNK_S).await? {
                checked.parts += 1;
                match row.and_then(|row| read_fact(&row, &mut bases)) {
                    Ok(fact) => {
                        if let Err(fault) = check_fact(&fact, catalogue) {
                            checked.fault(fault);
                        }
                    }
                    Err(damaged) => checked.fault(damaged),
                }
            }
            told(Progress { done: checked.parts, of });
            from_s += CHUNK_S;
        }
        Ok(())
    }

    async fn check_segments(
        &mut self,
        catalogue: &Catalogue,
        checked: &mut Checked,
        of: u64,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), StoreError> {
        self.learn_compacted().await?;
        // Sums by day: the one that is stored, and the one that the parts have.
        let mut sums: Vec<(u64, u128, u128, bool)> = Vec::new();
        for from_s in self.compacted.beginnings() {
            let day_s = from_s - from_s % u64::from(DAY_S);
            if sums.last().is_none_or(|(there, ..)| *there != day_s) {
                sums.push((day_s, self.digest_sum(from_s).await?, 0, true));
            }
            let Some((.., sum, whole)) = sums.last_mut() else { continue };
            let mut segment_reader = match self.segment(from_s).await? {
                Ok(segment_reader) => segment_reader,
                Err(damaged) => {
                    *whole = false;
                    checked.fault(damaged);
                    continue;
                }
            };
            while let Some(next) = segment_reader.next(|_| true) {
                checked.compacted_parts += 1;
                let digest = match next {
                    Ok((_, fact)) => fact.map(|fact| check_fact(&fact, catalogue)),
                    Err(error) => Some(Err(format!("the segment from {from_s}: {error}"))),
                };
                match digest {
                    Some(Ok(digest)) => add(sum, digest),
                    Some(Err(fault)) => {
                        *whole = false;
                        checked.fault(fault);
                        break;
                    }
                    None => {}
                }
            }
            told(Progress { done: checked.parts + checked.compacted_parts, of });
        }
        for (day_s, stored, found, whole) in sums {
            if whole && stored != found {
                checked.fault(format!(
                    "the compacted day from {day_s}: the digests of its parts do not add up to the \
                     sum that was written beside them"
                ));
            }
        }
        Ok(())
    }

    pub(super) async fn vacuum_into(&mut self, path: &Path) -> Result<(), StoreError> {
        let text = path.to_str().ok_or_else(|| StoreError::Path {
            path: path.to_owned(),
            detail: "the name must be valid UTF-8".to_owned(),
        })?;
        sqlx::query("VACUUM INTO ?").bind(text).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Raises the generation: what was told of this store before, by tokens for example, is of
    /// another one from now on.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn raise_generation(&mut self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'generation'")
            .fetch_one(&mut self.connection)
            .await?;
        let value: [u8; 8] = row
            .get::<Vec<u8>, _>(0)
            .try_into()
            .map_err(|_| StoreError::Damaged("the generation".to_owned()))?;
        let raised = u64::from_le_bytes(value).saturating_add(1);
        sqlx::query("UPDATE meta SET value = ? WHERE name = 'generation'")
            .bind(raised.to_le_bytes().as_slice())
            .execute(&mut self.connection)
            .await?;
        Ok(raised)
    }

    /// As [`SqliteStore::raise_generation`], the last that is done: then as
    /// [`SqliteStore::close`].
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn raise_generation_and_close(mut self) -> Result<u64, StoreError> {
        let generation = self.raise_generation().await?;
        self.close().await?;
        Ok(generation)
    }

    /// The first thing that is wrong with the pages of the file; `None`: nothing is.
    ///
    /// # Errors
    /// When they cannot be read for another reason than damage.
    pub async fn first_page_fault(&mut self) -> Result<Option<String>, StoreError> {
        let mut checked = Checked::default();
        self.check_pages(&mut checked).await?;
        Ok(checked.faults.into_iter().next())
    }

    /// Writes the log back into the file and closes it.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn close(mut self) -> Result<(), StoreError> {
        use sqlx::Connection;
        sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.connection).await?;
        self.connection.close().await?;
        Ok(())
    }
}

/// The digest of a fact as its ids make it; an error where it is not the one that was stored, or a
/// number means nothing.
fn check_fact(fact: &Fact, catalogue: &Catalogue) -> Result<uptime_proto::Digest, String> {
    let named = |why: &str| {
        let key = fact.key;
        format!(
            "part {} of probe {} in round {}, subnet {}: {why}",
            key.number,
            key.probe,
            key.round.start_s(),
            key.subnet
        )
    };
    let subnet = catalogue.subnets.get(fact.key.subnet as usize);
    let subnet = subnet.ok_or_else(|| named("its subnet has no name"))?;
    if !catalogue.probes.iter().any(|probe| probe.number == fact.key.probe) {
        return Err(named("its probe has no name"));
    }
    let id =
        |number: u32| -> Option<NodeId> { catalogue.nodes.get(number as usize).map(|(id, _)| *id) };
    let part = fact.to_part(subnet, id).ok_or_else(|| named("a node in it has no id"))?;
    let digest = part.digest();
    if fact.digest.is_some_and(|stored| stored != digest) {
        return Err(named("its digest is not that of its content"));
    }
    Ok(digest)
}
