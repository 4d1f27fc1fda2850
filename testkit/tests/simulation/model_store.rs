//! A model of a store that several processes share: the traits over plain maps, with the faults of
//! a database that is not on this host.
//!
//! Owns what is committed, who is a writer, who has the lease, and which calls fail how. A commit
//! may
//! be refused, be stored without its answer, be lost with an unknown outcome, or be stored after
//! the
//! answer "unknown" was given. Checkpoints are local to a process and outlive it. Refuses what the
//! simulation does not use: identities are there to be read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use uptime_accounting::fact::{Fact, FactKey, Gap};
use uptime_accounting::position::{Position, Positions, WriterId};
use uptime_accounting::retraction::Retraction;
use uptime_aggregator::store::{
    AuditRecord, Batch, By, Catalogue, Changed, Checked, Checkpoints, CompactedDay, CompactionPlan,
    Delivery, Details, Ends, EpochChange, FactLog, Identities, IdentityStore, Latency, Lease,
    NamesKnown, NewCredential, NewIdentity, NewNames, NodeSamples, Opening, ProbeRecord, Progress,
    Put, Read, Registry, Samples, Since, Store, StoreError, Stored, Token,
};
use uptime_proto::round::DAY_S;
use uptime_proto::{Digest, Epoch, NodeId};

use crate::chance::Chance;

/// The lease ends so long after it was renewed.
const LEASE_MS: i64 = 10_000;

/// What may become of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is stored, and that is said.
    Refused,
    /// Nothing is stored, and nobody knows.
    Lost,
    /// It is stored, and nobody knows.
    Unanswered,
    /// It is stored some time later, if it still can be, and nobody knows.
    Lands,
    /// It is stored, and the process dies before it hears so.
    Dies,
}

/// What all processes see.
#[derive(Debug)]
pub struct Database {
    pub now_ms: i64,
    facts: BTreeMap<(FactKey, Digest), (Fact, Position)>,
    compacted: BTreeSet<(FactKey, Digest)>,
    /// Which commit stored what, whatever happened to it since.
    stored_by: BTreeMap<(FactKey, Digest), Position>,
    day_positions: BTreeMap<u64, Positions>,
    writers: BTreeMap<WriterId, (u64, i64, bool)>,
    nodes: Vec<(NodeId, u32)>,
    subnets: Vec<(String, u32)>,
    forgotten: BTreeSet<u32>,
    epochs: Vec<Epoch>,
    retractions: Vec<Retraction>,
    roll_up: Vec<Vec<u8>>,
    pub probes: Vec<ProbeRecord>,
    lease: Option<(Token, i64)>,
    tokens: u64,
    chance: Chance,
    /// Percentage of commits with a fault.
    pub faults: u64,
    /// Batches that land later, with their writers as they knew themselves.
    pub in_flight: Vec<(Writer, Batch)>,
    /// A process that dies now.
    pub dies: Option<usize>,
    /// What was tried with a token that was not the newest.
    pub stale: u64,
    pub count: BTreeMap<&'static str, u64>,
    /// Nothing may expire that is younger by the true time, seconds.
    pub retention_s: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Writer {
    id: WriterId,
    known: u64,
}

impl Database {
    pub fn new(seed: u64, epoch: Epoch, probes: u32, retention_s: u64) -> Self {
        let probe = |number: u32| ProbeRecord {
            number,
            name: format!("probe-{number}"),
            subnets_allowed: Vec::new(),
            enrolled_at_ms: 0,
            revoked: false,
        };
        Self {
            now_ms: 0,
            facts: BTreeMap::new(),
            compacted: BTreeSet::new(),
            stored_by: BTreeMap::new(),
            day_positions: BTreeMap::new(),
            writers: BTreeMap::new(),
            nodes: Vec::new(),
            subnets: vec![(String::new(), 0)],
            forgotten: BTreeSet::new(),
            epochs: vec![epoch],
            retractions: Vec::new(),
            roll_up: Vec::new(),
            probes: (1..=probes).map(probe).collect(),
            lease: None,
            tokens: 0,
            chance: Chance::of(seed, 1),
            faults: 0,
            in_flight: Vec::new(),
            dies: None,
            stale: 0,
            count: BTreeMap::new(),
            retention_s,
        }
    }

    pub fn note(&mut self, what: &'static str) {
        *self.count.entry(what).or_default() += 1;
    }

    /// The commit that stored a part with this key and digest.
    pub fn stored_by(&self, key: FactKey, digest: Digest) -> Option<Position> {
        self.stored_by.get(&(key, digest)).copied()
    }

    pub fn subnet_number(&self, name: &str) -> Option<u32> {
        let place = self.subnets.iter().position(|(there, _)| there == name)?;
        u32::try_from(place).ok()
    }

    fn names(&self) -> NamesKnown {
        let count = |length: usize| u32::try_from(length).unwrap();
        NamesKnown { nodes: count(self.nodes.len()), subnets: count(self.subnets.len()) }
    }

    fn fault(&mut self) -> Option<Fault> {
        if !self.chance.percent(self.faults) {
            return None;
        }
        Some(match self.chance.below(5) {
            0 => Fault::Refused,
            1 => Fault::Lost,
            2 => Fault::Unanswered,
            3 => Fault::Lands,
            _ => Fault::Dies,
        })
    }

    /// Stores a batch as one transaction: wholly or not at all.
    fn commit(&mut self, writer: Writer, batch: &Batch) -> Result<Stored, StoreError> {
        if batch.names_known.is_some_and(|known| known != self.names()) {
            return Err(StoreError::NamesChanged);
        }
        let now_ms = self.now_ms;
        let (last, seen_ms, ended) = self.writers.entry(writer.id).or_insert((0, now_ms, false));
        if *ended || *last != writer.known {
            return Err(StoreError::Damaged("this writer was ended".to_owned()));
        }
        let mut position = None;
        if !batch.facts.is_empty() {
            *last += 1;
            *seen_ms = now_ms;
            position = Some(Position { writer: writer.id, commit: *last });
        }
        self.nodes.extend(&batch.new_nodes);
        self.subnets.extend(batch.new_subnets.iter().cloned());
        let mut puts = Vec::new();
        for fact in &batch.facts {
            let digest = fact.digest.unwrap();
            let alike =
                self.facts.range((fact.key, Digest([0; 16]))..=(fact.key, Digest([255; 16])));
            let alike: Vec<Digest> = alike.map(|((_, digest), _)| *digest).collect();
            puts.push(match alike.first() {
                _ if alike.contains(&digest) => Put::Duplicate,
                None => Put::New,
                Some(smallest) if digest < *smallest => Put::ConflictSmallest,
                Some(_) => Put::ConflictLarger,
            });
            // What is contradicted stands beside the other again, in the past of everybody.
            for digest in alike {
                if self.compacted.remove(&(fact.key, digest)) {
                    let there = self.facts.get_mut(&(fact.key, digest)).unwrap();
                    there.1 = Position { writer: WriterId::LEGACY, commit: 0 };
                }
            }
            let stored = (fact.clone(), position.unwrap());
            self.stored_by.entry((fact.key, digest)).or_insert(stored.1);
            self.facts.entry((fact.key, digest)).or_insert(stored);
        }
        Ok(Stored { puts, position })
    }

    /// Lets the oldest batch that is on its way land, if its writer and names still are as it knew
    /// them.
    pub fn land(&mut self) {
        if !self.in_flight.is_empty() {
            let (writer, batch) = self.in_flight.remove(0);
            let landed = self.commit(writer, &batch).is_ok();
            self.note(if landed { "landed" } else { "landed too late" });
        }
    }

    fn check(&mut self, token: Token) -> Result<(), StoreError> {
        let holds =
            self.lease.is_some_and(|(held, until_ms)| held == token && self.now_ms < until_ms);
        if holds {
            return Ok(());
        }
        self.stale += 1;
        Err(StoreError::LeaseLost)
    }
}

/// What a process keeps on its own disk.
pub type Disk = Arc<Mutex<Vec<Vec<u8>>>>;

/// A process's handle.
#[derive(Debug)]
pub struct ModelStore {
    database: Arc<Mutex<Database>>,
    disk: Disk,
    process: usize,
    writer: Option<Writer>,
    /// A reader does not write, so it has no faults.
    writers: Chance,
}

impl ModelStore {
    pub fn new(database: &Arc<Mutex<Database>>, disk: &Disk, process: usize, start: u64) -> Self {
        let (database, disk) = (Arc::clone(database), Arc::clone(disk));
        let writers = Chance::of(start, process as u64 + 77);
        Self { database, disk, process, writer: None, writers }
    }

    fn db(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap()
    }
}

fn not_simulated<T>() -> Result<T, StoreError> {
    Err(StoreError::Damaged("this is not simulated".to_owned()))
}

impl FactLog for ModelStore {
    async fn put(&mut self, batch: &Batch) -> Result<Stored, StoreError> {
        let writer = match self.writer {
            Some(writer) if !self.db().writers.get(&writer.id).is_some_and(|it| it.2) => writer,
            _ => {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&self.writers.next().to_be_bytes());
                Writer { id: WriterId(id), known: 0 }
            }
        };
        let mut db = self.database.lock().unwrap();
        let fault = db.fault();
        let unknown = || Err(StoreError::Indeterminate("the connection broke".to_owned()));
        let stored = match fault {
            Some(Fault::Refused) => {
                db.note("refused");
                return Err(StoreError::Damaged("the database refused".to_owned()));
            }
            Some(Fault::Lost) => {
                db.note("lost");
                self.writer = None;
                return unknown();
            }
            Some(Fault::Lands) => {
                db.note("on its way");
                let copy = Batch {
                    names_known: batch.names_known,
                    new_nodes: batch.new_nodes.clone(),
                    new_subnets: batch.new_subnets.clone(),
                    facts: batch.facts.clone(),
                    ..Batch::default()
                };
                db.in_flight.push((writer, copy));
                self.writer = None;
                return unknown();
            }
            None | Some(Fault::Unanswered | Fault::Dies) => db.commit(writer, batch)?,
        };
        match fault {
            Some(Fault::Unanswered) => {
                db.note("unanswered");
                self.writer = None;
                unknown()
            }
            Some(Fault::Dies) => {
                db.note("died at a commit");
                db.dies = Some(self.process);
                self.writer = None;
                unknown()
            }
            _ => {
                let known = stored.position.map_or(writer.known, |it| it.commit);
                self.writer = Some(Writer { known, ..writer });
                Ok(stored)
            }
        }
    }

    async fn positions(&mut self) -> Result<Positions, StoreError> {
        let db = self.db();
        let position = |(writer, (commit, ..)): (&WriterId, &(u64, i64, bool))| Position {
            writer: *writer,
            commit: *commit,
        };
        Ok(db.writers.iter().map(position).collect())
    }

    async fn since(&mut self, positions: &Positions, before_s: u64) -> Result<Since, StoreError> {
        let to = self.positions().await?;
        let db = self.db();
        let mut since = Since { to, ..Since::default() };
        for ((key, digest), (_, position)) in &db.facts {
            let compacted = db.compacted.contains(&(*key, *digest));
            let known = compacted || positions.include(*position);
            if known || key.round.start_s() >= before_s {
                continue;
            }
            since.late.keys.insert(*key);
            let others = db.facts.range((*key, Digest([0; 16]))..=(*key, Digest([255; 16])));
            let known = others.filter(|(at, (_, position))| {
                db.compacted.contains(*at) || positions.include(*position)
            });
            let known: Vec<Digest> = known.map(|((_, digest), _)| *digest).collect();
            if known.first().is_some_and(|smallest| digest < smallest) {
                since.outranked.insert(*key);
            }
        }
        for (day_s, there) in db.day_positions.range(..before_s) {
            if there.iter().any(|position| !positions.include(position)) {
                since.late.days.insert(*day_s);
            }
        }
        Ok(since)
    }

    async fn end_writers(&mut self, before_ms: i64, token: Token) -> Result<u64, StoreError> {
        let mut db = self.database.lock().unwrap();
        db.check(token)?;
        let me = self.writer.map(|writer| writer.id);
        let mut count = 0;
        for (id, (_, seen_ms, ended)) in &mut db.writers {
            if Some(*id) != me && *seen_ms < before_ms && !*ended {
                *ended = true;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn read(&mut self, from_s: u64, to_s: u64) -> Result<Vec<Read>, StoreError> {
        let db = self.db();
        let mut facts = Vec::new();
        for (at, (fact, _)) in &db.facts {
            if (from_s..to_s).contains(&fact.key.round.start_s()) {
                let digest = fact.digest.filter(|_| !db.compacted.contains(at));
                facts.push(Ok(Fact { digest, ..fact.clone() }));
            }
        }
        Ok(facts)
    }

    async fn gaps(&mut self, _: u64, _: u64) -> Result<Vec<Gap>, StoreError> {
        Ok(Vec::new())
    }

    async fn extent(&mut self) -> Result<Option<(u64, u64)>, StoreError> {
        let db = self.db();
        let starts = db.facts.keys().map(|(key, _)| key.round.start_s());
        Ok(starts.clone().min().zip(starts.max()))
    }

    async fn deliveries(&mut self) -> Result<Vec<Delivery>, StoreError> {
        Ok(self.db().facts.values().map(|(fact, _)| Delivery::of(fact)).collect())
    }

    async fn plan_compaction(
        &mut self,
        before_s: u64,
    ) -> Result<Option<CompactionPlan>, StoreError> {
        let db = self.db();
        let loose = |at: &(FactKey, Digest)| {
            let start_s = at.0.round.start_s();
            let day_s = start_s - start_s % u64::from(DAY_S);
            let over = day_s + u64::from(DAY_S) <= before_s;
            (over && !db.compacted.contains(at)).then_some(day_s)
        };
        let Some(day_s) = db.facts.keys().filter_map(loose).min() else { return Ok(None) };
        let of_day = |at: &&(FactKey, Digest)| {
            (day_s..day_s + u64::from(DAY_S)).contains(&at.0.round.start_s())
        };
        let made_of: Vec<(FactKey, Digest)> = db.facts.keys().filter(of_day).copied().collect();
        Ok(Some(CompactionPlan::new(day_s, made_of)))
    }

    async fn commit_compaction(
        &mut self,
        plan: &CompactionPlan,
        token: Token,
    ) -> Result<Option<CompactedDay>, StoreError> {
        let made_of: &Vec<(FactKey, Digest)> = plan.prepared()?;
        let mut db = self.database.lock().unwrap();
        db.check(token)?;
        let days = plan.day_s..plan.day_s + u64::from(DAY_S);
        let there = db.facts.keys().filter(|at| days.contains(&at.0.round.start_s()));
        if !there.eq(made_of) {
            db.note("came to a day meanwhile");
            return Ok(None);
        }
        let alone = |at: &(FactKey, Digest)| made_of.iter().filter(|it| it.0 == at.0).count() == 1;
        let alone: Vec<(FactKey, Digest)> =
            made_of.iter().filter(|at| alone(at)).copied().collect();
        let mut positions = db.day_positions.remove(&plan.day_s).unwrap_or_default();
        made_of.iter().for_each(|at| positions.add(db.facts[at].1));
        db.day_positions.insert(plan.day_s, positions);
        let parts = alone.len() as u64;
        db.compacted.extend(alone);
        db.note("compacted");
        Ok(Some(CompactedDay { day_s: plan.day_s, parts, bytes: 0, before_bytes: 0 }))
    }

    async fn expire(
        &mut self,
        before_s: u64,
        roll_up: &[Vec<u8>],
        token: Token,
    ) -> Result<u64, StoreError> {
        let mut db = self.database.lock().unwrap();
        db.check(token)?;
        let true_s = u64::try_from(db.now_ms / 1000).unwrap();
        assert!(before_s + db.retention_s <= true_s, "facts expired ahead of their time");
        let before = db.facts.len();
        db.facts.retain(|(key, _), _| key.round.start_s() >= before_s);
        db.roll_up = roll_up.to_vec();
        db.note("expired");
        Ok((before - db.facts.len()) as u64)
    }

    async fn load_roll_up(&mut self) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.db().roll_up.clone())
    }
}

impl Registry for ModelStore {
    async fn catalogue(&mut self) -> Result<Catalogue, StoreError> {
        let db = self.db();
        Ok(Catalogue {
            store_id: [7; 16],
            generation: 1,
            epochs: db.epochs.clone(),
            probes: db.probes.clone(),
            subnets: db.subnets.iter().map(|(name, _)| name.clone()).collect(),
            subnets_brought_by: db.subnets.iter().map(|(_, probe)| *probe).collect(),
            nodes: db.nodes.clone(),
            forgotten: db.forgotten.clone(),
        })
    }

    async fn probes(&mut self) -> Result<Vec<ProbeRecord>, StoreError> {
        Ok(self.db().probes.clone())
    }

    async fn add_probe(
        &mut self,
        _: &str,
        _: &[u8; 32],
        _: &[String],
        _: i64,
    ) -> Result<Option<ProbeRecord>, StoreError> {
        not_simulated()
    }

    async fn epochs(&mut self) -> Result<Vec<Epoch>, StoreError> {
        Ok(self.db().epochs.clone())
    }

    async fn add_epoch(&mut self, _: &Epoch) -> Result<(), StoreError> {
        not_simulated()
    }

    async fn change_epochs(&mut self, _: &EpochChange, _: &By) -> Result<bool, StoreError> {
        not_simulated()
    }

    async fn retractions(&mut self) -> Result<Vec<Retraction>, StoreError> {
        Ok(self.db().retractions.clone())
    }

    async fn details(&mut self, _: u32, _: u32) -> Result<BTreeMap<u32, Details>, StoreError> {
        Ok(BTreeMap::new())
    }

    async fn names_since(&mut self, known: NamesKnown) -> Result<NewNames, StoreError> {
        let db = self.db();
        let nodes = db.nodes.iter().skip(known.nodes as usize).copied().collect();
        let subnets = db.subnets.iter().skip(known.subnets as usize).cloned().collect();
        Ok(NewNames { nodes, subnets })
    }

    async fn forget_nodes(
        &mut self,
        numbers: &[u32],
        _: i64,
        token: Token,
    ) -> Result<(), StoreError> {
        let mut db = self.database.lock().unwrap();
        db.check(token)?;
        db.forgotten.extend(numbers);
        Ok(())
    }

    async fn opening(&mut self) -> Result<Option<Opening>, StoreError> {
        Ok(None)
    }

    async fn put_opening(&mut self, _: &Opening) -> Result<(), StoreError> {
        not_simulated()
    }
}

impl Samples for ModelStore {
    async fn samples(&mut self, _: u32) -> Result<NodeSamples, StoreError> {
        Ok(NodeSamples::default())
    }

    async fn latency(
        &mut self,
        nodes: &[u32],
        _: u64,
        _: u64,
    ) -> Result<Vec<Option<Latency>>, StoreError> {
        Ok(vec![None; nodes.len()])
    }

    async fn round_trips(&mut self) -> Result<Vec<(u32, u32)>, StoreError> {
        Ok(Vec::new())
    }

    async fn drop_old_samples(&mut self, _: i64) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Checkpoints for ModelStore {
    async fn save_checkpoint(&mut self, pieces: &[Vec<u8>]) -> Result<(), StoreError> {
        *self.disk.lock().unwrap() = pieces.to_vec();
        self.db().note("checkpoint");
        Ok(())
    }

    async fn load_checkpoint(&mut self) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.disk.lock().unwrap().clone())
    }
}

impl Lease for ModelStore {
    async fn acquire_lease(&mut self, _: i64) -> Result<Option<Token>, StoreError> {
        let mut db = self.db();
        if db.lease.is_some_and(|(_, until_ms)| db.now_ms < until_ms) {
            db.note("lease is held");
            return Ok(None);
        }
        db.tokens += 1;
        let token = Token(db.tokens);
        db.lease = Some((token, db.now_ms + LEASE_MS));
        Ok(Some(token))
    }

    async fn renew_lease(&mut self, token: Token, _: i64) -> Result<bool, StoreError> {
        let mut db = self.db();
        let holds = db.check(token).is_ok();
        if holds {
            db.lease = Some((token, db.now_ms + LEASE_MS));
        }
        Ok(holds)
    }
}

impl IdentityStore for ModelStore {
    async fn identities(&mut self) -> Result<Identities, StoreError> {
        let probes = self.db().probes.iter().map(|it| (it.name.clone(), it.clone())).collect();
        Ok(Identities { probes, ..Identities::default() })
    }

    async fn written_by_others(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn add_authority(&mut self, _: &[u8; 32]) -> Result<(), StoreError> {
        not_simulated()
    }

    async fn enrol(&mut self, _: &NewIdentity, _: &By) -> Result<bool, StoreError> {
        not_simulated()
    }

    async fn renew(
        &mut self,
        _: &str,
        _: &NewCredential,
        _: Ends,
        _: i64,
        _: &By,
    ) -> Result<Changed, StoreError> {
        not_simulated()
    }

    async fn end_credential(&mut self, _: &[u8; 32], _: &By) -> Result<Changed, StoreError> {
        not_simulated()
    }

    async fn redeem(
        &mut self,
        _: &[u8; 32],
        _: &[u8; 32],
        _: &By,
    ) -> Result<(Changed, Option<String>), StoreError> {
        not_simulated()
    }

    async fn revoke(&mut self, _: &str, _: &By) -> Result<Changed, StoreError> {
        not_simulated()
    }

    async fn retract(&mut self, retraction: &Retraction, _: &By) -> Result<u64, StoreError> {
        let mut db = self.db();
        let number = db.retractions.len() as u64 + 1;
        db.retractions.push(Retraction { number, ..retraction.clone() });
        Ok(number)
    }

    async fn undo_retraction(&mut self, number: u64, by: &By) -> Result<bool, StoreError> {
        let mut db = self.db();
        let mut there = db.retractions.iter_mut();
        let there = there.find(|it| it.number == number && it.undone_at_ms.is_none());
        let undone = there.map(|it| it.undone_at_ms = Some(by.now_ms));
        Ok(undone.is_some())
    }

    async fn note(&mut self, _: &[AuditRecord]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn audit_log(&mut self, _: Option<u64>, _: u32) -> Result<Vec<AuditRecord>, StoreError> {
        Ok(Vec::new())
    }
}

impl Store for ModelStore {
    fn still_there(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn reader(&self) -> Result<Self, StoreError> {
        let (database, disk) = (Arc::clone(&self.database), Arc::clone(&self.disk));
        let (process, writers) = (self.process, self.writers.clone());
        Ok(Self { database, disk, process, writer: None, writers })
    }

    async fn hold(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn check(&mut self, _: &mut (dyn FnMut(Progress) + Send)) -> Result<Checked, StoreError> {
        Ok(Checked::default())
    }

    async fn copy_to(&mut self, _: &Path) -> Result<(), StoreError> {
        not_simulated()
    }
}
