//! The course of a soak: what goes wrong in which round, and how it ends.
//!
//! Owns the random choices. Refuses to judge the result.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::transport::{Channel, Endpoint};
use uptime_proto::v1;
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;

use super::aggregator::enrol_at;
use super::children::{self, PROBES, Program, Waiting};
use super::damage::damage;
use super::network::{Network, now_ms};
use super::{PATIENCE, PERIOD_S};

/// The interval between polls.
const AGAIN: Duration = Duration::from_millis(200);
/// Trouble lasts so many rounds at most.
const TROUBLE_ROUNDS_MAX: u64 = 3;
/// But for an aggregator that stands still: longer than a probe waits for an answer, and not so
/// long that its own peers would all have gone.
const STILL_ROUNDS_MAX: u64 = 12;

/// So often the memory of everything is told on the way.
const TOLD_TIMES: u64 = 20;

/// A probe is killed more often by this factor while the aggregator accepts nothing: then parts
/// wait.
const KILLED_WHILE_ALONE: f64 = 3.0;
/// The one trouble that lasts longer.
pub(crate) const STANDS_STILL: &str = "aggregator stands still";
/// Noted beside the kind of damage.
pub(crate) const DAMAGED_FULL: &str = "spool: damaged while parts waited";

/// Where trouble can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Aggregator,
    Relay,
    Daemon(usize),
    Probe(usize),
}

/// Every place, and how likely trouble begins there in a round. The first probe is never killed:
/// its memory is that of one process from beginning to end.
const PLACES: [(Place, f64); 7] = [
    (Place::Aggregator, 0.08),
    (Place::Relay, 0.15),
    (Place::Daemon(0), 0.15),
    (Place::Daemon(1), 0.15),
    (Place::Daemon(2), 0.15),
    (Place::Probe(1), 0.1),
    (Place::Probe(2), 0.1),
];

/// Resident bytes, round by round: of the second tenth of all, after what every program needs to
/// have once, and of the last.
#[derive(Debug, Default)]
pub(crate) struct Resident {
    pub(crate) early: Vec<u64>,
    pub(crate) late: Vec<u64>,
}

/// Everything that runs, and what has been noted of it.
pub(crate) struct Soak {
    pub(crate) network: Network,
    pub(crate) directory: TempDir,
    pub(crate) aggregator: Program,
    pub(crate) probes: Vec<Program>,
    dice: StdRng,
    pace: Interval,
    /// Until which round there is trouble.
    troubled: BTreeMap<Place, u64>,
    pub(crate) troubles: BTreeMap<&'static str, u64>,
    /// Probes whose spool was damaged, by their place.
    pub(crate) damaged: BTreeSet<usize>,
    pub(crate) resident: BTreeMap<String, Resident>,
    /// What the aggregator said at the very end.
    pub(crate) nodes: Vec<v1::Node>,
}

impl Soak {
    /// Starts everything and waits until all nodes are up.
    pub(crate) async fn open(seed: u64) -> Self {
        let network = Network::open(seed).await;
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let mut probes = Vec::new();
        for number in 0..PROBES {
            let token = enrol_at(&data, &format!("probe-{number}"), &[], 0).await;
            let (daemon, relay) = (network.daemons[number].base_url(), network.relay.base_url());
            probes.push(children::probe(number, directory.path(), &daemon, &relay, &token));
        }
        let aggregator = children::aggregator(directory.path());
        let mut pace = tokio::time::interval(Duration::from_secs(PERIOD_S));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut soak = Self {
            network,
            directory,
            aggregator,
            probes,
            dice: StdRng::seed_from_u64(seed),
            pace,
            troubled: BTreeMap::new(),
            troubles: BTreeMap::new(),
            damaged: BTreeSet::new(),
            resident: BTreeMap::new(),
            nodes: Vec::new(),
        };
        soak.aggregator.start();
        soak.probes.iter_mut().for_each(Program::start);
        soak.all_decided().await;
        soak
    }

    /// One round of trouble: old trouble ends, new trouble begins, somebody dies or comes back.
    pub(crate) async fn round(&mut self, round: u64, rounds: u64) {
        self.pace.tick().await;
        let over: Vec<Place> = self
            .troubled
            .iter()
            .filter(|(_, end)| **end <= round)
            .map(|(place, _)| *place)
            .collect();
        for place in over {
            self.heal_at(place).await;
        }
        for (place, likely) in PLACES {
            let alone = self.troubled.contains_key(&Place::Aggregator);
            let likely = match place {
                Place::Probe(_) if alone => likely * KILLED_WHILE_ALONE,
                _ => likely,
            };
            if !self.troubled.contains_key(&place) && self.dice.random_bool(likely) {
                let what = self.trouble_at(place).await;
                *self.troubles.entry(what).or_default() += 1;
                // In the same round already, for a program: ended and started at once.
                let lasts = match what {
                    STANDS_STILL => self.dice.random_range(1..=STILL_ROUNDS_MAX),
                    _ => self.dice.random_range(0..=TROUBLE_ROUNDS_MAX),
                };
                self.troubled.insert(place, round + lasts);
                if lasts == 0 && matches!(place, Place::Aggregator | Place::Probe(_)) {
                    self.heal_at(place).await;
                }
            }
        }
        self.network.live_on(&mut self.dice);
        self.measure(round, rounds);
        self.no_conflicts(false).await;
    }

    async fn trouble_at(&mut self, place: Place) -> &'static str {
        match place {
            Place::Aggregator => match self.dice.random_range(0..3) {
                0 => {
                    self.aggregator.kill().await;
                    "aggregator killed"
                }
                1 => {
                    self.aggregator.terminate(true).await;
                    "aggregator stopped"
                }
                _ => {
                    self.aggregator.stand_still().await;
                    STANDS_STILL
                }
            },
            Place::Probe(number) => {
                self.probes[number].kill().await;
                self.damage_spool(number).await;
                "probe killed"
            }
            Place::Daemon(number) => self.network.trouble_daemon(number, &mut self.dice).await,
            Place::Relay => self.network.trouble_relay(&mut self.dice),
        }
    }

    /// Half of the times a probe is down its spool suffers.
    async fn damage_spool(&mut self, number: usize) {
        if !self.dice.random_bool(0.5) {
            return;
        }
        // Dice of its own: how often it throws them depends on files, and the rest must not.
        let mut dice = StdRng::seed_from_u64(self.dice.random());
        let done = damage(self.directory.path(), number, &mut dice).await;
        if let Some((how, waiting)) = done {
            self.damaged.insert(number);
            *self.troubles.entry(how).or_default() += 1;
            if waiting.parts > 0 {
                *self.troubles.entry(DAMAGED_FULL).or_default() += 1;
            }
        }
    }

    async fn heal_at(&mut self, place: Place) {
        self.troubled.remove(&place);
        match place {
            Place::Aggregator => self.aggregator.go_on().await,
            Place::Probe(number) => self.probes[number].start(),
            Place::Daemon(number) => self.network.heal_daemon(number).await,
            Place::Relay => self.network.heal_relay(),
        }
    }

    /// Ends all trouble; waits until every node is again what it is.
    pub(crate) async fn heal(&mut self) {
        for place in self.troubled.keys().copied().collect::<Vec<_>>() {
            self.heal_at(place).await;
        }
        self.all_decided().await;
        self.no_conflicts(true).await;
    }

    /// Ends the probes as a service manager does; waits until all they had is delivered and judged.
    pub(crate) async fn settle(&mut self) {
        self.all_connected().await;
        for number in 0..PROBES {
            self.probes[number].terminate(false).await;
            let waiting = children::waiting(self.directory.path(), number).await;
            let nothing = Waiting { parts: 0, gaps: 0 };
            assert_eq!(waiting, nothing, "in the spool of probe {number}");
        }
        let delivered_ms = now_ms(&self.network.world);
        self.round_closed_since(delivered_ms, |_| true).await;
        self.nodes = self.list_nodes().await;
        self.aggregator.terminate(false).await;
    }

    /// Waits for a closed round that began after this, in which the living are up and the dead are
    /// down.
    async fn all_decided(&self) {
        let (up, down) = self.network.count();
        let now_ms = now_ms(&self.network.world);
        self.round_closed_since(now_ms, |round| round.up == up && round.down == down).await;
    }

    /// Waits for a closed round that began after this and of which this holds.
    async fn round_closed_since(&self, unix_ms: i64, so: impl Fn(&v1::Round) -> bool) {
        let mut last: Option<v1::Round> = None;
        let wait = async {
            loop {
                if let Some(round) = newest_round().await {
                    let began_ms = i64::try_from(round.start_unix_s * 1_000).unwrap();
                    if began_ms >= unix_ms && so(&round) {
                        return;
                    }
                    last = Some(round);
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        let patient = tokio::time::timeout(PATIENCE, wait).await;
        let (up, down) = self.network.count();
        assert!(patient.is_ok(), "{up} are alive, {down} dead; the last round: {last:#?}");
    }

    /// Waits until every probe has a stream: two see all there is, and the third may still wait for
    /// its next attempt, up to half a minute after the last of many ends of the aggregator.
    async fn all_connected(&self) {
        for probe in &self.probes {
            let wait = async {
                while probe.metric("uptime_uplink_connected", "").await != Some(1.0) {
                    tokio::time::sleep(AGAIN).await;
                }
            };
            let patient = tokio::time::timeout(PATIENCE, wait).await;
            assert!(patient.is_ok(), "{} does not connect", probe.name);
        }
    }

    async fn list_nodes(&self) -> Vec<v1::Node> {
        let mut client = client().await.expect("the aggregator runs");
        let request = v1::ListNodesRequest { page_size: 1_000, ..Default::default() };
        let answer = client.list_nodes(request).await.unwrap().into_inner();
        assert_eq!(answer.total, answer.nodes.len() as u64, "all on one page");
        answer.nodes
    }

    fn measure(&mut self, round: u64, rounds: u64) {
        let programs = self.probes.iter_mut().chain([&mut self.aggregator]);
        for program in programs {
            let Some(bytes) = program.resident_bytes() else { continue };
            if round.is_multiple_of(rounds.div_ceil(TOLD_TIMES)) {
                eprintln!("round {round}: {} has {bytes} bytes resident", program.name);
            }
            let noted = self.resident.entry(program.name.clone()).or_default();
            if (rounds / 10..=rounds / 5).contains(&round) {
                noted.early.push(bytes);
            } else if round >= rounds - rounds.div_ceil(10) {
                noted.late.push(bytes);
            }
        }
    }

    /// Nobody ever sent two contents under one key, as far as can be asked now; `all` must answer.
    async fn no_conflicts(&self, all: bool) {
        let asked = self.probes.iter().map(|probe| (probe, "uptime_uplink_conflicts_total", ""));
        let aggregator = (&self.aggregator, "uptime_ingest_parts_total", "\"conflict\"");
        for (program, name, label) in asked.chain([aggregator]) {
            if program.is_awake() {
                let found = program.metric(name, label).await;
                assert!(found.is_some() || !all, "{} has no metrics", program.name);
                assert_eq!(found.unwrap_or(0.0), 0.0, "{name} of {}", program.name);
            }
        }
    }
}

/// After a failure, logs, spools and the store are kept for inspection.
impl Drop for Soak {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            eprintln!("everything of this run is kept in {}", self.directory.path().display());
        }
    }
}

async fn client() -> Option<UptimeQueryClient<Channel>> {
    let address = format!("http://{}", children::grpc_address());
    let channel = Endpoint::from_shared(address).unwrap().connect().await;
    channel.ok().map(UptimeQueryClient::new)
}

async fn newest_round() -> Option<v1::Round> {
    let request = v1::ListRoundsRequest { page_size: 1, page_token: String::new() };
    let answer = client().await?.list_rounds(request).await.ok()?.into_inner();
    answer.rounds.into_iter().next()
}
