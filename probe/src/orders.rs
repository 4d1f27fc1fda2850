//! What the aggregator last told this probe.
//!
//! Owns the schedule, the measured clock offset and the lists of look-ups: the uplink writes them,
//! the scanner reads them. Schedule and offset are kept in a file, so that a probe that starts
//! without a connection goes on with the rules it knew.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use tokio::sync::watch;
use uptime_proto::convert::PartLimits;
use uptime_proto::v1::{self, LookupStage};
use uptime_proto::{Epoch, Epochs, NodeId};

use crate::clock::now_unix_ms;
use crate::spool::waiting_for_the_disk;

/// The kept offset is written anew when it is so far off; the way of a message is not worth a sync.
const OFFSET_KEPT_WITHIN_MS: i64 = 100;

/// More than so much between the two clocks is a reason not to look.
pub const CLOCK_OFFSET_MS_MAX: i64 = 2_000;

/// The rules and when to do what.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The rules.
    pub epochs: Epochs,
    /// When in a round.
    pub schedule: v1::Schedule,
    /// What the aggregator takes.
    pub limits: v1::Limits,
}

/// Everything that was told.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// `None` until the first connection ever.
    pub plan: Option<Arc<Plan>>,
    /// Whether there is a stream now. Without one the lists below are not in force.
    pub connected: bool,
    /// Aggregator time less this host's time, milliseconds.
    pub clock_offset_ms: i64,
    /// The standing list of look-ups; `None` until it was told on this stream.
    pub standing: Option<Arc<BTreeSet<NodeId>>>,
    /// The suspects of a round, by the round's start.
    pub suspects: Option<(u64, Arc<BTreeSet<NodeId>>)>,
    /// A list of suspects of which more is to come.
    gathering: BTreeSet<NodeId>,
}

impl State {
    /// Now, in aggregator time.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        now_unix_ms().saturating_add(self.clock_offset_ms)
    }
}

/// A cheap handle to what was told.
#[derive(Debug, Clone)]
pub struct Orders {
    state: Arc<watch::Sender<State>>,
    file: Option<Arc<KeptFile>>,
}

/// Where the schedule is kept, and what was written there last by this process.
#[derive(Debug)]
struct KeptFile {
    path: PathBuf,
    kept: Mutex<Option<(v1::Welcome, i64)>>,
}

impl Plan {
    /// Reads what Welcome says.
    ///
    /// # Errors
    /// With what makes no sense; the probe then must not work by it.
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

impl Orders {
    /// Nothing told yet, but for the plan that an earlier run left in this directory.
    #[must_use]
    pub fn open(directory: &Path) -> Self {
        let path = directory.join("schedule");
        let kept = read_plan(&path).unwrap_or_else(|why| {
            tracing::warn!(file = %path.display(), why, "the kept schedule is not used");
            None
        });
        let state = match kept {
            Some((plan, clock_offset_ms)) => {
                State { plan: Some(Arc::new(plan)), clock_offset_ms, ..State::default() }
            }
            None => State::default(),
        };
        let file = KeptFile { path, kept: Mutex::default() };
        Self { state: Arc::new(watch::Sender::new(state)), file: Some(Arc::new(file)) }
    }

    /// These rules for good, without any aggregator.
    #[must_use]
    pub fn fixed(plan: Plan) -> Self {
        let state = State { plan: Some(Arc::new(plan)), ..State::default() };
        Self { state: Arc::new(watch::Sender::new(state)), file: None }
    }

    /// What holds now.
    #[must_use]
    pub fn now(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits for what holds to become so.
    pub async fn wait_for(&self, so: impl FnMut(&State) -> bool) {
        // Fails only when the sender is gone, and this handle holds it.
        self.state.subscribe().wait_for(so).await.ok();
    }

    /// A stream began.
    pub(crate) fn connected(&self, plan: Plan, welcome: &v1::Welcome, clock_offset_ms: i64) {
        self.keep(Some(welcome), clock_offset_ms);
        self.state.send_modify(|state| {
            *state = State {
                plan: Some(Arc::new(plan)),
                connected: true,
                clock_offset_ms,
                ..State::default()
            };
        });
    }

    /// The clocks were compared again on a stream that lives: this host's may have been set.
    pub(crate) fn clock_measured(&self, clock_offset_ms: i64) {
        self.state.send_modify(|state| state.clock_offset_ms = clock_offset_ms);
        self.keep(None, clock_offset_ms);
    }

    /// Writes what a restart goes on with, unless it stands there already.
    fn keep(&self, welcome: Option<&v1::Welcome>, clock_offset_ms: i64) {
        let Some(file) = &self.file else {
            return;
        };
        let mut kept = file.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // What differs in every greeting is of no interest after a restart.
        let stripped =
            |welcome: &v1::Welcome| v1::Welcome { server_time_unix_ms: 0, ..welcome.clone() };
        let before = kept.as_ref();
        let Some(welcome) = welcome.map(stripped).or(before.map(|(welcome, _)| welcome.clone()))
        else {
            return;
        };
        let same = before.is_some_and(|(there, offset_ms)| {
            *there == welcome && (offset_ms - clock_offset_ms).abs() <= OFFSET_KEPT_WITHIN_MS
        });
        // It may have been removed, with the spool's folder.
        if same && file.path.exists() {
            return;
        }
        let kept_now = waiting_for_the_disk(|| keep_plan(&file.path, &welcome, clock_offset_ms));
        match kept_now {
            Ok(()) => *kept = Some((welcome, clock_offset_ms)),
            Err(error) => {
                tracing::warn!(%error, file = %file.path.display(), "the schedule is not kept");
            }
        }
    }

    /// Keeps what was announced as if the greeting had said it: a restart goes on with these rules.
    fn keep_announced(&self, announcement: &v1::EpochAnnouncement) {
        let kept = self
            .file
            .as_ref()
            .and_then(|file| file.kept.lock().unwrap_or_else(PoisonError::into_inner).clone());
        // None was kept where that is not possible.
        let Some((welcome, clock_offset_ms)) = kept else { return };
        let welcome = v1::Welcome {
            epochs: announcement.epochs.clone(),
            schedule: announcement.schedule.or(welcome.schedule),
            ..welcome
        };
        self.keep(Some(&welcome), clock_offset_ms);
    }

    /// A stream ended; the offset and the plan hold on.
    pub(crate) fn disconnected(&self) {
        self.state.send_modify(|state| {
            *state = State {
                plan: state.plan.clone(),
                clock_offset_ms: state.clock_offset_ms,
                ..State::default()
            };
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

/// The file, integers little-endian: the clock offset in milliseconds (i64), a Welcome message, the
/// CRC-32 (u32) of all before it.
fn keep_plan(file: &Path, welcome: &v1::Welcome, clock_offset_ms: i64) -> std::io::Result<()> {
    let mut bytes = clock_offset_ms.to_le_bytes().to_vec();
    welcome.encode_raw(&mut bytes);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let fresh = file.with_extension("new");
    let mut out = std::fs::File::create(&fresh)?;
    out.write_all(&bytes)?;
    out.sync_all()?;
    std::fs::rename(&fresh, file)?;
    let directory = file.parent().unwrap_or(Path::new("."));
    std::fs::File::open(directory)?.sync_all()
}

fn read_plan(file: &Path) -> Result<Option<(Plan, i64)>, String> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Err("it is damaged".to_owned());
    }
    let (offset_ms, welcome) = body.split_first_chunk::<8>().ok_or("it is too short")?;
    let welcome = v1::Welcome::decode(welcome).map_err(|error| error.to_string())?;
    Ok(Some((Plan::from_welcome(&welcome)?, i64::from_le_bytes(*offset_ms))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use uptime_proto::Period;

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
        let orders = Orders::open(directory.path());
        assert!(orders.now().plan.is_none());
        orders.connected(Plan::from_welcome(&welcome()).unwrap(), &welcome(), 7);
        orders.disconnected();
        assert_eq!(orders.now().clock_offset_ms, 7);
        let again = Orders::open(directory.path()).now();
        assert!(again.plan.is_some());
        assert_eq!(again.clock_offset_ms, 7);
        orders.clock_measured(-2_500);
        assert_eq!(Orders::open(directory.path()).now().clock_offset_ms, -2_500);
        let file = directory.path().join("schedule");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[3] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(Orders::open(directory.path()).now().plan.is_none());
    }

    #[test]
    fn announced_rules_outlive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let orders = Orders::open(directory.path());
        orders.connected(Plan::from_welcome(&welcome()).unwrap(), &welcome(), 7);
        let later = Epoch { start_s: 600, ..Epoch::with_defaults(Period::new(60).unwrap()) };
        let schedule = v1::Schedule { lookups_offset_ms: 9, ..v1::Schedule::default() };
        let epochs = [welcome().epochs, vec![v1::Epoch::from(&later)]].concat();
        let announcement = v1::EpochAnnouncement { epochs, schedule: Some(schedule) };
        orders.announced(&announcement).unwrap();
        let nonsense = v1::EpochAnnouncement::default();
        assert!(orders.announced(&nonsense).is_err());
        for now in [orders.now(), Orders::open(directory.path()).now()] {
            let plan = now.plan.unwrap();
            assert_eq!((plan.epochs.all().len(), plan.epochs.at(600)), (2, &later));
            assert_eq!((plan.schedule, now.clock_offset_ms), (schedule, 7));
        }
    }

    #[test]
    fn lists_follow_what_was_told() {
        let id = |byte| NodeId::new([byte; 20]);
        let list =
            |ids: &[u8]| NodeId::concatenate(&ids.iter().map(|b| id(*b)).collect::<Vec<_>>());
        let orders = Orders::fixed(Plan::from_welcome(&welcome()).unwrap());
        let told = |stage: LookupStage, full, added: &[u8], removed: &[u8], more| {
            orders.assigned(&v1::LookupAssignment {
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
        let standing: Vec<_> = orders.now().standing.unwrap().iter().copied().collect();
        assert_eq!(standing, [id(2), id(3), id(4)]);
        told(LookupStage::Suspects, true, &[2], &[], true).unwrap();
        assert!(orders.now().suspects.is_none());
        told(LookupStage::Suspects, false, &[3], &[], false).unwrap();
        let (round, suspects) = orders.now().suspects.unwrap();
        assert_eq!((round, suspects.len()), (60, 2));
        orders.disconnected();
        assert!(orders.now().standing.is_none() && orders.now().suspects.is_none());
    }
}
