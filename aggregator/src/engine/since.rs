//! Following the log: what other processes committed to the store, and what this one committed
//! without learning so.
//!
//! Owns how stored facts and names enter the state by another way than a commit of this engine. A
//! fact that enters twice changes nothing.

use std::sync::Arc;

use uptime_accounting::position::Positions;
use uptime_accounting::replay::{Late, LeftOut, winning_facts};
use uptime_accounting::retraction::Retraction;
use uptime_proto::round::DAY_S;
use uptime_proto::{Epochs, NodeId};

use super::core::Engine;
use super::replay::report;
use crate::store::{NamesKnown, Put, Since, Store, StoreError};

/// What a state is made of: engines on one store whose stamps are equal have equal CSVs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The commits that it includes.
    pub positions: Positions,
    /// The end of its last closed round, unix seconds.
    pub closed_end_s: u64,
    /// Totals stand in the place of facts of rounds before this, unix seconds.
    pub rolled_up_to_s: u64,
    /// By which rules.
    pub epochs: Arc<Epochs>,
    /// With which retractions.
    pub retractions: Arc<Vec<Retraction>>,
}

impl<S: Store> Engine<S> {
    /// Learns what became of a commit that may be stored, before anything else is.
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        if self.unsettled { self.apply_since().await } else { Ok(()) }
    }

    /// Takes in what was committed to the store and is not in the state.
    ///
    /// # Errors
    /// When the store cannot be read. What was taken in by then is taken in again later.
    pub async fn apply_since(&mut self) -> Result<(), StoreError> {
        self.learn_names().await?;
        if self.store.positions().await? == self.positions {
            self.unsettled = false;
            return Ok(());
        }
        let since = self.store.since(&self.positions, u64::MAX).await?;
        let (mut left_out, mut deliveries) = (LeftOut::default(), Vec::new());
        for stretch in since.late.stretches() {
            let facts = self.store.read(stretch.from_s, stretch.to_s).await?;
            for fact in winning_facts(facts) {
                match fact {
                    Ok(fact) if since.late.contains(&fact.key) => {
                        let outranks = since.outranked.contains(&fact.key);
                        let put = if outranks { Put::ConflictSmallest } else { Put::New };
                        self.apply(fact, put, &mut deliveries);
                    }
                    Ok(_) => {}
                    Err(what) => left_out.add(what),
                }
            }
        }
        report(&left_out);
        self.positions.merge(&since.to);
        self.unsettled = false;
        Ok(())
    }

    /// What was committed after these positions; where that cannot be read, any fact may have been.
    pub(super) async fn since_or_all(
        &mut self,
        positions: &Positions,
        before_s: u64,
    ) -> Result<Since, StoreError> {
        let error = match self.store.since(positions, before_s).await {
            Ok(since) => return Ok(since),
            Err(error) => error,
        };
        tracing::error!(%error, "cannot read the newest commits: all days are folded again");
        let day_s = u64::from(DAY_S);
        let (first_s, last_s) = self.store.extent().await?.unwrap_or_default();
        let first_day = first_s / day_s;
        let end_s = before_s.min(last_s.saturating_add(1));
        let days = (first_day..end_s.div_ceil(day_s)).map(|day| day * day_s).collect();
        let late = Late { days, ..Late::default() };
        Ok(Since { late, to: positions.clone(), ..Since::default() })
    }

    async fn learn_names(&mut self) -> Result<(), StoreError> {
        let known = self.names_known();
        let new = self.store.names_since(known).await?;
        for (id, _) in &new.nodes {
            self.nodes.push(*id);
        }
        if !new.subnets.is_empty() {
            let names = new.subnets.iter().map(|(name, _)| name.clone());
            Arc::make_mut(&mut self.subnets).extend(names);
        }
        self.note_brought(known, &new.nodes, &new.subnets);
        Ok(())
    }
}

impl<S> Engine<S> {
    /// What the state is made of. `None`: something waits to be judged again.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        let settled = self.late_rounds.is_empty() && !self.is_outdated() && !self.unsettled;
        settled.then(|| Stamp {
            positions: self.positions.clone(),
            closed_end_s: self.state.closed_end_s(),
            rolled_up_to_s: self.state.rolled_up_to_s(),
            epochs: Arc::clone(&self.epochs),
            retractions: Arc::clone(self.state.retractions()),
        })
    }

    pub(super) fn names_known(&self) -> NamesKnown {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        NamesKnown { nodes: count(self.nodes.len()), subnets: count(self.subnets.len()) }
    }

    /// Notes who brought ids and subnets whose numbers come after those that were known.
    pub(super) fn note_brought(
        &mut self,
        known: NamesKnown,
        nodes: &[(NodeId, u32)],
        subnets: &[(String, u32)],
    ) {
        for (number, (_, probe)) in (known.nodes..).zip(nodes) {
            self.brought.entry(*probe).or_default().insert(number);
        }
        for (_, probe) in subnets {
            *self.subnets_brought.entry(*probe).or_default() += 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use sqlx::{Connection, SqliteConnection};
    use uptime_proto::{Class, Epoch, Kind, NodeId, Outcome, Part, PartKey, Period, Round, Sets};

    use super::super::{Engine, EngineOptions, Submission};
    use crate::store::{Registry, SqliteStore};

    const BEGIN_S: u64 = 1_769_904_000;

    fn now_ms(round: u64) -> i64 {
        i64::try_from((BEGIN_S + round * 30) * 1000).unwrap()
    }

    async fn opened(place: &Path, round: u64) -> Engine<SqliteStore> {
        let store = SqliteStore::open(place).await.unwrap();
        let rules = Epoch::with_defaults(Period::new(30).unwrap());
        Engine::open(store, EngineOptions::new(rules), now_ms(round)).await.unwrap()
    }

    fn submission(round: u64) -> Submission {
        let round = Round::new(BEGIN_S + round * 30, Period::new(30).unwrap()).unwrap();
        let node = NodeId::new([7; 20]);
        let part = |number, kind, class| Part {
            key: PartKey { subnet: "public".to_owned(), round, number },
            kind,
            outcome: Outcome::Looked,
            observed_at_ms: round.start_ms() + 20_000,
            relay_session_age_s: Some(3_600),
            sets: Sets::default().with(class, [node].into_iter().collect()),
        };
        let parts = vec![part(0, Kind::Market, Class::Offer), part(1, Kind::Lookup, Class::Seen)];
        Submission { probe: 1, parts, ..Submission::default() }
    }

    async fn harm(place: &Path, sql: &'static str) {
        let url = format!("sqlite://{}", place.join("uptime.sqlite3").display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// A store with some closed rounds and a checkpoint, and the sums of its one node.
    async fn filled(place: &Path) -> u64 {
        let mut store = SqliteStore::open(place).await.unwrap();
        store.add_probe("alpha", &[1; 32], &[], 0).await.unwrap().unwrap();
        drop(store);
        let mut engine = opened(place, 0).await;
        for round in 0..6 {
            engine.commit(vec![submission(round)], now_ms(round) + 25_000).await.unwrap();
            engine.close_due(now_ms(round + 1) + 6_000, false).await;
        }
        engine.save_checkpoint().await;
        up_s(&mut engine)
    }

    fn up_s(engine: &mut Engine<SqliteStore>) -> u64 {
        let snapshot = engine.take_snapshot();
        snapshot.nodes().map(|node| node.tally.up_s).sum()
    }

    #[tokio::test]
    async fn where_positions_are_damaged_everything_is_folded_and_served() {
        for sql in ["DROP TABLE day_position", "DROP TABLE writer"] {
            let place = tempfile::tempdir().unwrap();
            let up = filled(place.path()).await;
            assert_eq!(up, 180);
            harm(place.path(), sql).await;
            let mut engine = opened(place.path(), 7).await;
            assert_eq!(up_s(&mut engine), up, "{sql}");
        }
    }

    #[tokio::test]
    async fn a_rebuild_ends_though_the_newest_commits_cannot_be_read() {
        let place = tempfile::tempdir().unwrap();
        let up = filled(place.path()).await;
        let mut engine = opened(place.path(), 7).await;
        harm(place.path(), "DROP TABLE day_position").await;
        let job = engine.begin_rebuild(now_ms(7)).await.unwrap().unwrap();
        engine.finish_rebuild(job.run().await, now_ms(7)).await;
        assert_eq!(engine.rebuild_wanted(), None);
        while engine.has_late_rounds() {
            engine.judge_late_rounds().await.unwrap();
        }
        assert_eq!(up_s(&mut engine), up);
    }

    #[tokio::test]
    async fn what_cannot_be_looked_up_is_said() {
        let place = tempfile::tempdir().unwrap();
        filled(place.path()).await;
        harm(place.path(), "DROP TABLE writer").await;
        let mut engine = opened(place.path(), 7).await;
        assert!(engine.commit(vec![submission(8)], now_ms(8)).await.is_err());
        assert!(engine.trouble().is_some());
    }
}
