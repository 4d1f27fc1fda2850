//! The engine itself: what it holds, how it is opened, and what readers see of it.
//!
//! Owns the fields; each of the files beside this one has the verbs of one concern.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use roaring::RoaringBitmap;
use uptime_accounting::agreement::Record;
use uptime_accounting::cow_vec::CowVec;
use uptime_accounting::dictionary::NodeDictionary;
use uptime_accounting::position::Positions;
use uptime_accounting::probe_status::ProbeStatus;
use uptime_accounting::replay::LateRounds;
use uptime_accounting::snapshot::SnapshotInputs;
use uptime_accounting::state::State;
use uptime_proto::convert::PartLimits;
use uptime_proto::{Epoch, Epochs};

use super::details::{DetailsTable, NodeMetadata};
use super::done::Done;
use super::names::{names_of, note_round_trip, subnets_brought};
use super::urgency::Rebuild;
use crate::store::{Identities, ProbeRecord, Store, StoreError, Token};

/// What readers see, with what nodes say of themselves.
pub type Snapshot = uptime_accounting::snapshot::Snapshot<NodeMetadata>;

/// Facts of rounds that began longer ago are refused: 35 days, the age limit of a probe's spool.
pub const LATENESS_S_MAX: u64 = 35 * 86_400;

/// What is known of the time when the state is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeAtStart {
    /// It is the moment given.
    AsGiven,
    /// It is this, unix milliseconds; the moment given is that up to which rounds may close.
    Later(i64),
    /// Nothing: no round closes that was not closed before.
    Unknown,
}

/// What an engine may be told.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The rules of a new store. A store that has rules keeps them: they change by `rules set`.
    pub rules: Epoch,
    /// Ids one probe may have brought that were never confirmed.
    pub unconfirmed_nodes_max: u64,
    /// Parts of one round that one probe may have stored, over all subnets and contents.
    pub parts_per_round_max: u32,
    /// Whether `seed-v1` is kept beside the method in force.
    pub with_seed: bool,
    /// Facts of days that ended so long ago are dropped, their sums carried; `None`: all are kept.
    /// Never less than [`RETENTION_S_MIN`].
    pub retention_s: Option<u64>,
    /// A directory for files that end with the process.
    pub scratch: PathBuf,
    /// What is known of the time at the start.
    pub time: TimeAtStart,
}

impl EngineOptions {
    /// These rules, a hundred thousand unconfirmed ids a probe, as many parts of a round as is
    /// announced unless told otherwise, no `seed-v1`, everything kept, files that end with the
    /// process where the system has such.
    #[must_use]
    pub fn new(rules: Epoch) -> Self {
        Self {
            rules,
            unconfirmed_nodes_max: 100_000,
            parts_per_round_max: PartLimits::default().parts_per_round_max,
            with_seed: false,
            retention_s: None,
            scratch: std::env::temp_dir(),
            time: TimeAtStart::AsGiven,
        }
    }
}

/// The shortest retention: no fact may come late to a day that is gone, and the named windows of 30
/// days stay exact.
pub const RETENTION_S_MIN: u64 = 40 * 86_400;

/// A store and what its facts make.
pub struct Engine<S> {
    pub(super) store: S,
    pub(super) state: State,
    pub(super) nodes: NodeDictionary,
    pub(super) subnets: Arc<Vec<String>>,
    pub(super) details: DetailsTable,
    /// The last round trip of each node; 0: none.
    pub(super) round_trips_us: CowVec<u32>,
    pub(super) probes: BTreeMap<u32, ProbeStatus>,
    /// Ids by the probe that brought them.
    pub(super) brought: HashMap<u32, RoaringBitmap>,
    /// How many subnets each probe brought.
    pub(super) subnets_brought: HashMap<u32, usize>,
    pub(super) late_rounds: LateRounds,
    /// The commits that the state includes.
    pub(super) positions: Positions,
    /// Whether a commit may be stored that the state does not include.
    pub(super) unsettled: bool,
    /// Says that this engine may compact, expire and forget.
    pub(super) lease: Option<Token>,
    /// Who made its last part of an open round.
    pub(super) done: Done,
    pub(super) rebuild: Rebuild,
    pub(super) options: EngineOptions,
    /// The end of the last closed round of the checkpoint on disk, unix seconds.
    pub(super) checkpoint_s: u64,
    /// The day on which it was last looked which ids may be forgotten.
    pub(super) forgot_day: u64,
    pub(super) serial: u64,
    pub(super) store_id: [u8; 16],
    pub(super) generation: u64,
    pub(super) agreement: Record,
    /// As they are stored; those of the state are others while a rebuild is under way.
    pub(super) epochs: Arc<Epochs>,
    pub(super) identities: Arc<Identities>,
    /// Why nothing can be stored now.
    pub(super) trouble: Option<String>,
    pub(super) snapshot: Arc<Snapshot>,
}

impl<S: Store> Engine<S> {
    /// Reads the store, gives a new one its first rules, and makes the state up to the last round
    /// that is over.
    ///
    /// # Errors
    /// When the store cannot be read, or holds epochs that cannot be.
    pub async fn open(
        mut store: S,
        options: EngineOptions,
        now_ms: i64,
    ) -> Result<Self, StoreError> {
        let mut catalogue = store.catalogue().await?;
        let there = std::mem::take(&mut catalogue.epochs);
        let epochs = stored_or_first(&mut store, there, &options.rules).await?;
        let (nodes, brought) = names_of(&catalogue);
        let details = DetailsTable::load(&mut store, &options.scratch).await?;
        let probes = probes_of(&catalogue.probes, &mut store, now_ms).await?;
        let mut round_trips_us = CowVec::default();
        for (node, round_trip_us) in store.round_trips().await? {
            note_round_trip(&mut round_trips_us, node, round_trip_us);
        }
        let subnets_brought = subnets_brought(&catalogue.subnets_brought_by);
        let retractions = Arc::new(store.retractions().await?);
        let state = State::new(Arc::clone(&epochs)).with_retractions(retractions);
        let identities = Arc::new(store.identities().await?);
        let snapshot = Arc::new(Snapshot::empty(Arc::clone(&epochs)));
        let mut engine = Self {
            store,
            state,
            nodes,
            subnets: Arc::new(catalogue.subnets),
            details,
            round_trips_us,
            probes,
            brought,
            subnets_brought,
            late_rounds: LateRounds::default(),
            positions: Positions::default(),
            unsettled: false,
            lease: None,
            done: Done::default(),
            rebuild: Rebuild::NotWanted,
            options,
            checkpoint_s: 0,
            forgot_day: 0,
            serial: 0,
            store_id: catalogue.store_id,
            generation: catalogue.generation,
            agreement: Record::default(),
            epochs,
            identities,
            trouble: None,
            snapshot,
        };
        engine.resume(now_ms).await?;
        engine.look_after_store();
        engine.take_snapshot();
        Ok(engine)
    }

    /// Another connection to the same store, for reading beside this engine.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn reader(&self) -> Result<S, StoreError> {
        self.store.reader().await
    }

    /// The store, for identities and the audit log alone. Whoever changes identities
    /// has them read anew: [`Engine::refresh_identities`].
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// Reads the identities. They may be changed by another process; a probe that was enrolled and
    /// never came is worth showing, too.
    pub async fn refresh_identities(&mut self) {
        let identities = match self.store.identities().await {
            Ok(identities) => identities,
            Err(error) => {
                tracing::error!(%error, "identities are those that were read before");
                return;
            }
        };
        for probe in identities.probes.values() {
            self.probe_mut(probe).revoked = probe.revoked;
        }
        if *self.identities != identities {
            self.identities = Arc::new(identities);
        }
    }

    /// Gives the store back, as a stop at any moment would leave it.
    #[must_use]
    pub fn into_store(self) -> S {
        self.store
    }
}

impl<S> Engine<S> {
    /// The snapshot that was taken last.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Takes a snapshot of the state as it is.
    pub fn take_snapshot(&mut self) -> Arc<Snapshot> {
        self.serial += 1;
        let inputs = SnapshotInputs {
            serial: self.serial,
            store_id: self.store_id,
            generation: self.generation,
            ids: self.nodes.ids(),
            subnets: Arc::clone(&self.subnets),
            details: self.details.told(),
            round_trips_us: self.round_trips_us.clone(),
            probes: self.probes_now(),
        };
        self.snapshot = Arc::new(Snapshot::new(&self.state, inputs));
        Arc::clone(&self.snapshot)
    }

    /// The epochs that are stored, as far as is known.
    #[must_use]
    pub fn epochs(&self) -> &Arc<Epochs> {
        &self.epochs
    }

    /// The identities as they were read last.
    #[must_use]
    pub fn identities(&self) -> &Arc<Identities> {
        &self.identities
    }

    /// Why nothing can be stored now; `None`: as far as is known, all can.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// How one probe fares, to be changed by whoever sees its connection; made where it is new.
    pub fn probe_mut(&mut self, probe: &ProbeRecord) -> &mut ProbeStatus {
        self.probes.entry(probe.number).or_insert_with(|| status_of(probe))
    }

    /// The same by its number, where it is known.
    pub fn known_probe_mut(&mut self, number: u32) -> Option<&mut ProbeStatus> {
        self.probes.get_mut(&number)
    }

    fn probes_now(&self) -> Vec<ProbeStatus> {
        let confirmed = self.state.confirmed();
        let probes = self.probes.values().map(|status| {
            let brought = self.brought.get(&status.number);
            let unconfirmed_nodes = brought.map_or(0, |ids| ids.difference_len(&confirmed));
            ProbeStatus { unconfirmed_nodes, ..status.clone() }
        });
        probes.collect()
    }
}

/// The probes as they are at a start, by number.
async fn probes_of<S: Store>(
    enrolled: &[ProbeRecord],
    store: &mut S,
    now_ms: i64,
) -> Result<BTreeMap<u32, ProbeStatus>, StoreError> {
    let probes = enrolled.iter().map(|probe| (probe.number, status_of(probe)));
    let mut probes: BTreeMap<u32, ProbeStatus> = probes.collect();
    let now_s = u64::try_from(now_ms / 1_000).unwrap_or(0);
    for gap in store.gaps(now_s.saturating_sub(ProbeStatus::GAPS_WITHIN_S), u64::MAX).await? {
        if let Some(status) = probes.get_mut(&gap.probe) {
            status.note_gap(gap);
        }
    }
    Ok(probes)
}

fn status_of(probe: &ProbeRecord) -> ProbeStatus {
    ProbeStatus {
        number: probe.number,
        name: probe.name.clone(),
        revoked: probe.revoked,
        ..ProbeStatus::default()
    }
}

/// The epochs of a store; a new one is given its first, which holds from the beginning.
async fn stored_or_first<S: Store>(
    store: &mut S,
    mut there: Vec<Epoch>,
    rules: &Epoch,
) -> Result<Arc<Epochs>, StoreError> {
    if there.is_empty() {
        let first = Epoch { start_s: 0, ..rules.clone() };
        store.add_epoch(&first).await?;
        tracing::info!(period_s = first.period.seconds(), "these are the rules of the new store");
        there.push(first);
    }
    checked(there)
}

/// These epochs, where they can follow one another.
pub(super) fn checked(epochs: Vec<Epoch>) -> Result<Arc<Epochs>, StoreError> {
    let epochs = Epochs::new(epochs);
    let epochs = epochs.map_err(|error| StoreError::Damaged(format!("the epochs: {error}")))?;
    Ok(Arc::new(epochs))
}
