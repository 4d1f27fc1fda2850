//! The control state: what the aggregator last told this probe.
//!
//! Owns the schedule, the lists of look-ups and the comparison of this host's clock with the
//! aggregator's. The uplink writes them, the scanner reads them. A file stores the schedule and,
//! while this host runs, the aggregator's time, so that a probe can start without a connection.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::sync::watch;
use uptime_proto::clock::{Exchange, Moment};
use uptime_proto::convert::PartLimits;
use uptime_proto::v1::{self, ClockState, LookupStage};
use uptime_proto::{Epoch, Epochs, NodeId};

use crate::atomic_file;
use crate::clock::{Timekeeper, boot_id};
use crate::spool::waiting_for_the_disk;

/// The stored time of the aggregator is refreshed this often; the boot clock carries it on.
const TIME_KEPT_FOR: Duration = Duration::from_secs(600);
/// The first bytes of the file. The file of 0.1, which had a wall clock offset, lacks them.
const MAGIC: &[u8; 8] = b"GUSCHED2";

/// The rules, the schedule and the limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The rules.
    pub epochs: Epochs,
    /// When to do what in a round.
    pub schedule: v1::Schedule,
    /// What the aggregator accepts.
    pub limits: v1::Limits,
}

/// Everything the aggregator told.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// `None` until the first connection ever.
    pub plan: Option<Arc<Plan>>,
    /// Whether there is a stream now. The lists below apply only with one.
    pub connected: bool,
    /// The standing list of look-ups; `None` until it arrives on this stream.
    pub standing: Option<Arc<BTreeSet<NodeId>>>,
    /// The suspects of a round, by the round's start.
    pub suspects: Option<(u64, Arc<BTreeSet<NodeId>>)>,
    /// A list of suspects that is not complete yet.
    gathering: BTreeSet<NodeId>,
}

/// A cheap handle to the control state.
#[derive(Debug, Clone)]
pub struct ControlState {
    state: Arc<watch::Sender<State>>,
    clock: Timekeeper,
    file: Option<Arc<KeptFile>>,
}

/// The file of the schedule, and what this process last wrote to it.
#[derive(Debug)]
struct KeptFile {
    path: PathBuf,
    kept: Mutex<Option<(v1::Welcome, Option<Moment>)>>,
}

impl Plan {
    /// Reads a welcome.
    ///
    /// # Errors
    /// What is invalid in it; the probe must not use it then.
    pub fn from_welcome(welcome: &v1::Welcome) -> Result<Self, String> {
        let epochs: Result<Vec<Epoch>, _> = welcome.epochs.iter().map(Epoch::try_from).collect();
        let epochs = epochs.and_then(Epochs::new).map_err(|error| error.to_string())?;
        let schedule = welcome.schedule.ok_or("the aggregator sent no schedule")?;
        let limits = welcome.limits.ok_or("the aggregator sent no limits")?;
        Ok(Self { epochs, schedule, limits })
    }

    /// The limits on single parts.
    #[must_use]
    pub fn part_limits(&self) -> PartLimits {
        let limits = &self.limits;
        PartLimits {
            observations_per_part_max: limits.observations_per_part_max as usize,
            part_numbers_max: u16::try_from(limits.part_numbers_max).unwrap_or(u16::MAX),
            parts_per_round_max: match limits.parts_per_round_max {
                0 => u32::MAX,
                most => most,
            },
            subnet_bytes_max: limits.subnet_bytes_max as usize,
            compact_bases_max: limits.compact_bases_max as usize,
            compact_nodes_max: limits.compact_nodes_max,
        }
    }
}

impl ControlState {
    /// Starts with the plan that an earlier run stored in this directory, if any.
    #[must_use]
    pub fn open(directory: &Path, clock: Timekeeper) -> Self {
        let path = directory.join("schedule");
        let kept = read_plan(&path).unwrap_or_else(|why| {
            tracing::warn!(file = %path.display(), why, "cannot use the stored schedule");
            None
        });
        let state = match kept {
            Some((plan, carried)) => {
                if let Some(carried) = carried {
                    clock.carry(carried);
                }
                State { plan: Some(Arc::new(plan)), ..State::default() }
            }
            None => State::default(),
        };
        let file = KeptFile { path, kept: Mutex::default() };
        Self { state: Arc::new(watch::Sender::new(state)), clock, file: Some(Arc::new(file)) }
    }

    /// Fixed rules, without an aggregator, by this host's clock.
    #[must_use]
    pub fn fixed(plan: Plan) -> Self {
        let state = State { plan: Some(Arc::new(plan)), ..State::default() };
        let state = Arc::new(watch::Sender::new(state));
        Self { state, clock: Timekeeper::trusted(), file: None }
    }

    /// This host's clock.
    #[must_use]
    pub fn clock(&self) -> &Timekeeper {
        &self.clock
    }

    /// The state now.
    #[must_use]
    pub fn now(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until the state fulfils a condition.
    pub async fn wait_for(&self, so: impl FnMut(&State) -> bool) {
        // Fails only without a sender, and this handle holds it.
        self.state.subscribe().wait_for(so).await.ok();
    }

    /// A stream began.
    pub(crate) fn connected(&self, plan: Plan, welcome: &v1::Welcome, greeting: Exchange) {
        let clock_state = ClockState::try_from(welcome.clock_state).unwrap_or_default();
        self.clock.connected(greeting, clock_state);
        self.keep(Some(welcome));
        self.state.send_modify(|state| {
            *state = State { plan: Some(Arc::new(plan)), connected: true, ..State::default() };
        });
    }

    /// The aggregator answered a heartbeat.
    pub(crate) fn heard(&self, theirs: &v1::Heartbeat) {
        self.clock.heard(theirs);
        self.keep(None);
    }

    /// Stores what a restart needs, unless the file has it already.
    fn keep(&self, welcome: Option<&v1::Welcome>) {
        let Some(file) = &self.file else {
            return;
        };
        let mut kept = file.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // These differ in every welcome and do not matter after a restart.
        let stripped = |welcome: &v1::Welcome| v1::Welcome {
            server_time_unix_ms: 0,
            clock_state: 0,
            ..welcome.clone()
        };
        let carried = self.clock.carried();
        let before = kept.as_ref();
        let Some(welcome) = welcome.map(stripped).or(before.map(|(welcome, _)| welcome.clone()))
        else {
            return;
        };
        let is_young = |there: &Option<Moment>| match (there, carried) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(there), Some(now)) => now.boot.saturating_sub(there.boot) < TIME_KEPT_FOR,
        };
        let same = before.is_some_and(|(there, kept)| *there == welcome && is_young(kept));
        // The file may have been removed together with the spool.
        if same && file.path.exists() {
            return;
        }
        let kept_now = waiting_for_the_disk(|| keep_plan(&file.path, &welcome, carried));
        match kept_now {
            Ok(()) => *kept = Some((welcome, carried)),
            Err(error) => {
                tracing::warn!(%error, file = %file.path.display(), "cannot store the schedule");
            }
        }
    }

    /// Stores announced epochs like those of a welcome, for a restart.
    fn keep_announced(&self, announcement: &v1::EpochAnnouncement) {
        let kept = self
            .file
            .as_ref()
            .and_then(|file| file.kept.lock().unwrap_or_else(PoisonError::into_inner).clone());
        // Nothing is stored where the file cannot be written.
        let Some((welcome, _)) = kept else { return };
        let welcome = v1::Welcome {
            epochs: announcement.epochs.clone(),
            schedule: announcement.schedule.or(welcome.schedule),
            ..welcome
        };
        self.keep(Some(&welcome));
    }

    /// A stream ended; the plan stays in force.
    pub(crate) fn disconnected(&self) {
        self.clock.disconnected();
        self.state.send_modify(|state| {
            *state = State { plan: state.plan.clone(), ..State::default() };
        });
    }

    /// New epochs were announced.
    pub(crate) fn announced(&self, announcement: &v1::EpochAnnouncement) -> Result<(), String> {
        let epochs: Result<Vec<Epoch>, _> =
            announcement.epochs.iter().map(Epoch::try_from).collect();
        let epochs = epochs.and_then(Epochs::new).map_err(|error| error.to_string())?;
        self.keep_announced(announcement);
        self.state.send_modify(|state| {
            if let Some(plan) = &state.plan {
                let schedule = announcement.schedule.unwrap_or(plan.schedule);
                let plan = Plan { epochs, schedule, limits: plan.limits };
                state.plan = Some(Arc::new(plan));
            }
        });
        Ok(())
    }

    /// Look-ups were assigned.
    pub(crate) fn assigned(&self, assignment: &v1::LookupAssignment) -> Result<(), String> {
        let ids = |bytes: &[u8]| -> Result<Vec<NodeId>, String> {
            Ok(NodeId::split(bytes).map_err(|error| error.to_string())?.collect())
        };
        let added = ids(&assignment.added_node_ids)?;
        let removed = ids(&assignment.removed_node_ids)?;
        let stage = LookupStage::try_from(assignment.stage).unwrap_or_default();
        self.state.send_modify(|state| match stage {
            LookupStage::First => {
                let mut list = match (&state.standing, assignment.full) {
                    (Some(list), false) => (**list).clone(),
                    _ => BTreeSet::new(),
                };
                list.extend(added);
                removed.iter().for_each(|id| {
                    list.remove(id);
                });
                state.standing = Some(Arc::new(list));
            }
            LookupStage::Suspects => {
                if assignment.full {
                    state.gathering.clear();
                }
                state.gathering.extend(added);
                if !assignment.more {
                    let list = std::mem::take(&mut state.gathering);
                    state.suspects = Some((assignment.round_unix_s, Arc::new(list)));
                }
            }
            LookupStage::Unspecified => {}
        });
        Ok(())
    }
}

/// The file, integers little-endian: [`MAGIC`]; the aggregator's time (i64, unix milliseconds) at a
/// moment of the boot clock (u64, milliseconds) of the boot with this id (36 bytes), all zero where
/// it is not known; a Welcome message; the CRC-32 (u32) of all before it.
fn keep_plan(file: &Path, welcome: &v1::Welcome, carried: Option<Moment>) -> std::io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    let told = carried.zip(boot_id()).filter(|(_, id)| id.len() == BOOT_ID_BYTES);
    if let Some((Moment { wall_ms, boot }, id)) = told {
        bytes.extend(wall_ms.to_le_bytes());
        bytes.extend(u64::try_from(boot.as_millis()).unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend(id.into_bytes());
    } else {
        bytes.resize(MAGIC.len() + TIME_BYTES, 0);
    }
    welcome.encode_raw(&mut bytes);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    atomic_file::replace(file, &bytes)
}

const BOOT_ID_BYTES: usize = 36;
const TIME_BYTES: usize = 8 + 8 + BOOT_ID_BYTES;

/// The stored plan, and the aggregator's time if this host has not rebooted since.
fn read_plan(file: &Path) -> Result<Option<(Plan, Option<Moment>)>, String> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Err("it is damaged".to_owned());
    }
    let (magic, rest) = body.split_first_chunk::<8>().ok_or("it is too short")?;
    let (carried, welcome) = if magic == MAGIC {
        let (time, welcome) = rest.split_first_chunk::<TIME_BYTES>().ok_or("it is too short")?;
        (read_time(time), welcome)
    } else {
        (None, rest)
    };
    let welcome = v1::Welcome::decode(welcome).map_err(|error| error.to_string())?;
    Ok(Some((Plan::from_welcome(&welcome)?, carried)))
}

fn read_time(bytes: &[u8; TIME_BYTES]) -> Option<Moment> {
    let (time_ms, rest) = bytes.split_first_chunk::<8>()?;
    let (boot_ms, id) = rest.split_first_chunk::<8>()?;
    let boot = Duration::from_millis(u64::from_le_bytes(*boot_ms));
    let moment = Moment { wall_ms: i64::from_le_bytes(*time_ms), boot };
    (boot_id()?.as_bytes() == id).then_some(moment)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use uptime_proto::Period;
    use uptime_proto::clock::KernelClock;

    fn welcome() -> v1::Welcome {
        let epoch = Epoch::with_defaults(Period::new(30).unwrap());
        v1::Welcome {
            epochs: vec![v1::Epoch::from(&epoch)],
            schedule: Some(v1::Schedule::default()),
            limits: Some(v1::Limits::default()),
            ..v1::Welcome::default()
        }
    }

    #[test]
    fn the_schedule_outlives_the_process_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let clock = Timekeeper::new(Some(KernelClock::Unsynchronised));
            ControlState::open(directory.path(), clock)
        };
        let control = open();
        assert!(control.now().plan.is_none() && control.clock().now().offset_ms.is_err());
        let now_ms = control.clock().now().moment.wall_ms;
        let (received_ms, answered_ms) = (now_ms + 7_000, now_ms + 7_000);
        let greeting = Exchange { asked_ms: now_ms, received_ms, answered_ms, back_ms: now_ms };
        control.connected(Plan::from_welcome(&welcome()).unwrap(), &welcome(), greeting);
        // Read while there is a stream, so that it can be carried on.
        assert_eq!(control.clock().now().offset_ms, Ok(7_000));
        control.keep(None);
        control.disconnected();
        for control in [control, open()] {
            assert!(control.now().plan.is_some());
            let offset_ms = control.clock().now().offset_ms.unwrap();
            assert!((6_900..=7_100).contains(&offset_ms), "{offset_ms}");
        }
        let file = directory.path().join("schedule");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[3] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(open().now().plan.is_none());
    }

    #[test]
    fn the_schedule_of_the_version_before_is_read_without_its_offset() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = 7i64.to_le_bytes().to_vec();
        welcome().encode_raw(&mut bytes);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        std::fs::write(directory.path().join("schedule"), bytes).unwrap();
        let clock = Timekeeper::new(Some(KernelClock::Unsynchronised));
        let control = ControlState::open(directory.path(), clock);
        assert!(control.now().plan.is_some() && control.clock().now().offset_ms.is_err());
    }

    #[test]
    fn announced_rules_outlive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let open = || ControlState::open(directory.path(), Timekeeper::trusted());
        let control = open();
        let greeting = Exchange { asked_ms: 1, received_ms: 1, answered_ms: 1, back_ms: 1 };
        control.connected(Plan::from_welcome(&welcome()).unwrap(), &welcome(), greeting);
        let later = Epoch { start_s: 600, ..Epoch::with_defaults(Period::new(60).unwrap()) };
        let schedule = v1::Schedule { lookups_offset_ms: 9, ..v1::Schedule::default() };
        let epochs = [welcome().epochs, vec![v1::Epoch::from(&later)]].concat();
        let announcement = v1::EpochAnnouncement { epochs, schedule: Some(schedule) };
        control.announced(&announcement).unwrap();
        let nonsense = v1::EpochAnnouncement::default();
        assert!(control.announced(&nonsense).is_err());
        for now in [control.now(), open().now()] {
            let plan = now.plan.unwrap();
            assert_eq!((plan.epochs.all().len(), plan.epochs.at(600)), (2, &later));
            assert_eq!(plan.schedule, schedule);
        }
    }

    #[test]
    fn lists_follow_what_was_told() {
        let id = |byte| NodeId::new([byte; 20]);
        let list =
            |ids: &[u8]| NodeId::concatenate(&ids.iter().map(|b| id(*b)).collect::<Vec<_>>());
        let control = ControlState::fixed(Plan::from_welcome(&welcome()).unwrap());
        let told = |stage: LookupStage, full, added: &[u8], removed: &[u8], more| {
            control.assigned(&v1::LookupAssignment {
                round_unix_s: 60,
                stage: stage as i32,
                full,
                added_node_ids: list(added).into(),
                removed_node_ids: list(removed).into(),
                more,
            })
        };
        told(LookupStage::First, true, &[1, 2, 3], &[], false).unwrap();
        told(LookupStage::First, false, &[4], &[1], false).unwrap();
        let standing: Vec<_> = control.now().standing.unwrap().iter().copied().collect();
        assert_eq!(standing, [id(2), id(3), id(4)]);
        told(LookupStage::Suspects, true, &[2], &[], true).unwrap();
        assert!(control.now().suspects.is_none());
        told(LookupStage::Suspects, false, &[3], &[], false).unwrap();
        let (round, suspects) = control.now().suspects.unwrap();
        assert_eq!((round, suspects.len()), (60, 2));
        control.disconnected();
        assert!(control.now().standing.is_none() && control.now().suspects.is_none());
    }
}
