//! One course of events: engines, probes, clocks and faults on one queue.
//!
//! Owns the order of events and what must hold in it. Time is a number, every chance comes from the
//! seed, and nothing waits: a course is played as fast as it computes, and twice the same.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use uptime_accounting::fact::FactKey;
use uptime_accounting::position::Position;
use uptime_aggregator::clock::{Judged, Rule};
use uptime_aggregator::engine::{
    Engine, EngineOptions, PartOutcome, RETENTION_S_MIN, RebuildJob, Stamp, Submission,
    TimeAtStart, expiry_plan, has_expired, vouched_ms,
};
use uptime_aggregator::publish::write_csv;
use uptime_aggregator::store::{By, CompactionPlan, FactLog, Retraction, StoreError};
use uptime_proto::clock::{KernelClock, Moment};
use uptime_proto::{Epoch, Epochs, Part, PartKey, Period};
use uptime_testkit::oracle::{self, OracleFact, Retracted, last_closed, standing};

use crate::chance::Chance;
use crate::model_store::{Database, Disk, ModelStore};
use crate::probes::{Network, Probe};

/// Ten minutes before the end of a UTC day, so that courses cross into the next.
const BEGIN_MS: i64 = (1_769_904_000 - 600) * 1000;
/// A course has rounds of 30 s, or, to see facts expire, some weeks of rounds of an hour.
const PERIODS_S: [u32; 2] = [30, 3_600];
/// Only this course has rounds of an hour: it takes as long as fifty others.
const LONG: u64 = 0;
/// So many of the stamps in a course are held to the oracle, which is slow.
const ORACLE_PERCENT: u64 = 3;

/// What happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// An engine reads its clocks and does what is due.
    Tick(usize),
    /// A probe's round is about to end.
    Observe(usize),
    Send(usize),
    Crash(usize),
    Start(usize),
    /// Something happens to the clock of an engine's host.
    Clock(usize),
    /// An engine compacts, expires, or commits what it prepared.
    Maintain(usize),
    Land,
    Retract,
}

/// What a host's clocks do.
#[derive(Debug)]
struct HostClock {
    /// The wall clock less the true time.
    offset_ms: i64,
    /// Parts per million, since the moment.
    drift: (i64, i64),
    /// How long the host slept is in both clocks; a start of the host begins the boot clock anew.
    booted_ms: i64,
    kernel: KernelClock,
}

impl HostClock {
    fn moment(&self, now_ms: i64) -> Moment {
        let drifted_ms = (now_ms - self.drift.1) * self.drift.0 / 1_000_000;
        let boot_ms = u64::try_from(now_ms - self.booted_ms).unwrap();
        let wall_ms = now_ms + self.offset_ms + drifted_ms;
        Moment { wall_ms, boot: Duration::from_millis(boot_ms) }
    }
}

/// One aggregator: a host, its disk, and a process that may be down.
struct Process {
    engine: Option<Engine<ModelStore>>,
    rule: Rule,
    host: HostClock,
    disk: Disk,
    starts: u64,
    rebuild: Option<RebuildJob<ModelStore>>,
    planned: Option<CompactionPlan>,
}

/// A course while it is played.
pub struct Course {
    seed: u64,
    now_ms: i64,
    end_ms: i64,
    queue: BinaryHeap<Reverse<(i64, u64, Event)>>,
    serial: u64,
    chance: Chance,
    database: Arc<Mutex<Database>>,
    processes: Vec<Process>,
    probes: Vec<Probe>,
    network: Network,
    epoch: Epoch,
    /// Every part that was acknowledged, with its probe.
    acknowledged: Vec<(u32, Part)>,
    /// Every part that was ever sent, for the oracle.
    sent: BTreeMap<(u32, Vec<u8>), Part>,
    retracted: Vec<(Retracted, u64)>,
    stamps: Vec<(Stamp, String, usize)>,
    /// Everything takes so many times as long as in rounds of 30 s.
    scale: i64,
    pub trace: String,
    pub count: BTreeMap<&'static str, u64>,
}

/// The result of a future that never waits.
fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing waits in a simulation")
}

impl Course {
    /// A course of this seed. What it holds follows from the seed alone.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::of(seed, 0);
        let long = seed == LONG;
        let period_s = PERIODS_S[usize::from(long)];
        let period = Period::new(period_s).unwrap();
        let epoch = Epoch { grace_s: 5, ..Epoch::with_defaults(period) };
        let probes = 2 + u32::try_from(chance.below(3)).unwrap();
        let mut database = Database::new(seed, epoch.clone(), probes, RETENTION_S_MIN);
        database.now_ms = BEGIN_MS;
        let faults = [0, 5, 15, 30][usize::try_from(chance.below(4)).unwrap()];
        database.faults = if long { 1 } else { faults };
        let rounds = if long { 24 * 42 } else { 30 } + i64::try_from(chance.below(40)).unwrap();
        let engines = if long { 3 } else { 1 + usize::try_from(chance.below(3)).unwrap() };
        let process = |_| Process {
            engine: None,
            rule: Rule::default(),
            host: HostClock {
                offset_ms: 0,
                drift: (0, BEGIN_MS),
                booted_ms: BEGIN_MS - 3_600_000,
                kernel: KernelClock::Synchronised,
            },
            disk: Disk::default(),
            starts: 0,
            rebuild: None,
            planned: None,
        };
        let mut course = Self {
            seed,
            now_ms: BEGIN_MS,
            end_ms: BEGIN_MS + rounds * 1000 * i64::from(period_s),
            queue: BinaryHeap::new(),
            serial: 0,
            database: Arc::new(Mutex::new(database)),
            processes: (0..engines).map(process).collect(),
            probes: (1..=probes).map(|number| Probe::new(seed, number)).collect(),
            network: Network::new(seed, 12 + chance.below(8)),
            epoch,
            acknowledged: Vec::new(),
            sent: BTreeMap::new(),
            retracted: Vec::new(),
            stamps: Vec::new(),
            scale: i64::from(period_s / PERIODS_S[0]),
            trace: String::new(),
            count: BTreeMap::new(),
            chance,
        };
        course.plan();
        course
    }

    fn plan(&mut self) {
        for engine in 0..self.processes.len() {
            self.at(0, Event::Start(engine));
            // In a long course, after the first facts have expired.
            let right_ms = if self.scale > 1 { 41 * 86_400_000 / self.scale } else { 0 };
            let after_ms = self.chance.between(60_000, 900_000);
            self.at(right_ms + after_ms, Event::Clock(engine));
            let after_ms = self.chance.between(30_000, 600_000);
            self.at(after_ms, Event::Crash(engine));
            self.at(700_000, Event::Maintain(engine));
        }
        for probe in 0..self.probes.len() {
            self.at(29_000, Event::Observe(probe));
            self.at(1_000, Event::Send(probe));
        }
        self.at(20_000, Event::Land);
        let after_ms = self.chance.between(100_000, 2_000_000);
        self.at(after_ms, Event::Retract);
    }

    fn at(&mut self, after_ms: i64, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse((self.now_ms + after_ms * self.scale, self.serial, event)));
    }

    fn note(&mut self, what: &'static str) {
        *self.count.entry(what).or_default() += 1;
    }

    fn say(&mut self, text: &str) {
        writeln!(self.trace, "{} {text}", self.now_ms - BEGIN_MS).unwrap();
    }

    /// Plays it to its end, and holds what is left to the oracle.
    pub fn play(&mut self) {
        while let Some(Reverse((at_ms, _, event))) = self.queue.pop() {
            if at_ms >= self.end_ms {
                break;
            }
            self.now_ms = at_ms;
            self.database.lock().unwrap().now_ms = at_ms;
            self.happen(event);
            let dies = self.database.lock().unwrap().dies.take();
            if let Some(engine) = dies {
                self.crash(engine);
            }
        }
        self.quiesce();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(engine) => {
                self.tick(engine);
                // Where rounds are long, most of the ticks in one find nothing to do.
                let most_ms = if self.scale > 1 { 40_000 } else { 4_000 };
                let after_ms = self.chance.between(500, most_ms);
                if self.processes[engine].engine.is_some() {
                    self.at(after_ms, event);
                }
            }
            Event::Observe(probe) => {
                let (period, now_ms) = (self.epoch.period, self.now_ms);
                self.probes[probe].observe(&self.network, period, now_ms);
                self.at(30_000, event);
                // Most of it is sent at once, however long the rounds are.
                let most = if self.scale > 1 { 20 } else { 1 };
                for _ in 0..most {
                    self.send(probe);
                }
            }
            Event::Send(probe) => {
                self.send(probe);
                // Now and then a probe is away for minutes, and what it made comes late.
                let away = self.chance.percent(3);
                let most_ms = if away { 600_000 } else { 8_000 };
                let after_ms = self.chance.between(200, most_ms);
                self.at(after_ms, event);
            }
            Event::Crash(engine) => {
                self.crash(engine);
                let after_ms = self.chance.between(60_000, 900_000);
                self.at(after_ms, event);
            }
            Event::Start(engine) => self.start(engine),
            Event::Clock(engine) => {
                self.change_clock(engine);
                let after_ms = self.chance.between(60_000, 900_000);
                self.at(after_ms, event);
            }
            Event::Maintain(engine) => {
                self.maintain(engine);
                let after_ms = self.chance.between(5_000, 60_000);
                self.at(after_ms, event);
            }
            Event::Land => {
                self.database.lock().unwrap().land();
                let after_ms = self.chance.between(1_000, 30_000);
                self.at(after_ms, event);
            }
            Event::Retract => {
                self.retract();
                let after_ms = self.chance.between(300_000, 2_000_000);
                self.at(after_ms, event);
            }
        }
    }

    fn judged(&mut self, engine: usize) -> Judged {
        let now_ms = self.now_ms;
        let Process { rule, host, .. } = &mut self.processes[engine];
        rule.judge(host.moment(now_ms), host.kernel)
    }

    fn start(&mut self, engine: usize) {
        if self.processes[engine].engine.is_some() {
            return;
        }
        let process = &mut self.processes[engine];
        process.starts += 1;
        process.rule = Rule::default();
        let start = self.seed ^ (process.starts << 8);
        let mut store = ModelStore::new(&self.database, &process.disk, engine, start);
        for delivery in done(store.deliveries()).unwrap() {
            self.processes[engine].rule.stored(delivery);
        }
        let judged = self.judged(engine);
        let options = EngineOptions {
            retention_s: Some(RETENTION_S_MIN),
            time: judged.time_ms.map_or(TimeAtStart::Unknown, TimeAtStart::Later),
            ..EngineOptions::new(self.epoch.clone())
        };
        let now_ms = judged.closing_ms.unwrap_or(judged.wall_ms);
        let opened = done(Engine::open(store, options, now_ms)).unwrap();
        self.processes[engine].engine = Some(opened);
        self.say(&format!("engine {engine} starts, its clock is {}", judged.state.as_str()));
        self.note("start");
        self.at(100, Event::Tick(engine));
    }

    fn crash(&mut self, engine: usize) {
        let process = &mut self.processes[engine];
        if process.engine.take().is_some() {
            (process.rebuild, process.planned) = (None, None);
            self.say(&format!("engine {engine} dies"));
            self.note("crash");
            let after_ms = self.chance.between(500, 120_000);
            self.at(after_ms, Event::Start(engine));
        }
    }

    fn change_clock(&mut self, engine: usize) {
        let now_ms = self.now_ms;
        let what = self.chance.below(6);
        let step_ms = self.chance.between(-7_200_000, 7_200_000);
        let far_ms = self.chance.between(1, 800) * 86_400_000;
        let host = &mut self.processes[engine].host;
        let text = match what {
            0 => {
                host.offset_ms = step_ms;
                "is set"
            }
            1 => {
                host.offset_ms = far_ms;
                "is set far ahead"
            }
            2 => {
                host.drift = (step_ms / 100, now_ms);
                "drifts"
            }
            3 => {
                host.kernel = KernelClock::Unsynchronised;
                "is not synchronised"
            }
            _ => {
                (host.offset_ms, host.drift) = (0, (0, now_ms));
                host.kernel = KernelClock::Synchronised;
                "is right"
            }
        };
        // The kernel does not vouch for a clock that somebody set to another time.
        if what < 3 {
            host.kernel = KernelClock::Unsynchronised;
        }
        self.say(&format!("the clock of engine {engine} {text}"));
    }

    fn send(&mut self, probe: usize) {
        let up: Vec<usize> =
            (0..self.processes.len()).filter(|it| self.processes[*it].engine.is_some()).collect();
        if up.is_empty() {
            return;
        }
        let engine = up[usize::try_from(self.chance.below(up.len() as u64)).unwrap()];
        let parts = self.probes[probe].next_parts();
        if parts.is_empty() {
            return;
        }
        let number = self.probes[probe].number;
        for part in &parts {
            self.sent.insert((number, part.digest().0.to_vec()), part.clone());
        }
        let wall_ms = self.judged(engine).wall_ms;
        let submission =
            Submission { probe: number, parts: parts.clone(), ..Submission::default() };
        let process = &mut self.processes[engine];
        let Some(there) = process.engine.as_mut() else { return };
        match done(there.commit(vec![submission], wall_ms)) {
            Ok(committed) => {
                committed.deliveries.into_iter().for_each(|it| process.rule.stored(it));
                for (part, outcome) in parts.into_iter().zip(committed.outcomes.concat()) {
                    let taken = matches!(
                        outcome,
                        PartOutcome::Accepted | PartOutcome::Duplicate | PartOutcome::Conflict
                    );
                    assert!(taken, "{outcome:?}");
                    self.acknowledged.push((number, part.clone()));
                    self.probes[probe].acknowledged.push(part);
                }
                self.note("acknowledged");
            }
            Err(error) => {
                self.say(&format!("engine {engine} took nothing: {error}"));
                self.probes[probe].spool.extend(parts);
                self.note("not acknowledged");
            }
        }
    }

    fn tick(&mut self, engine: usize) {
        let judged = self.judged(engine);
        let both = self.chance.next();
        let process = &mut self.processes[engine];
        let Some(there) = process.engine.as_mut() else { return };
        if both.is_multiple_of(3) {
            // Whether it is polled is no matter of rounds.
            done(there.apply_since()).ok();
        }
        let Some(closing_ms) = judged.closing_ms else { return };
        let closed = done(there.close_due(closing_ms, judged.may_delete));
        if let Some(job) = process.rebuild.take() {
            let rebuilt = done(job.run());
            done(there.finish_rebuild(rebuilt, closing_ms));
            *self.count.entry("rebuild").or_default() += 1;
        } else if there.rebuild_wanted().is_some() && both.is_multiple_of(2) {
            process.rebuild = done(there.begin_rebuild(closing_ms)).unwrap();
        } else if there.has_late_rounds() && both.is_multiple_of(5) {
            done(there.judge_late_rounds()).unwrap();
        }
        if both.is_multiple_of(7) {
            done(there.save_checkpoint());
        }
        if closed {
            self.say(&format!("engine {engine} closes"));
        }
        self.compare(engine);
    }

    /// Holds the CSV of an engine in which nothing waits to the one of its stamp.
    fn compare(&mut self, engine: usize) {
        let Some(there) = self.processes[engine].engine.as_mut() else { return };
        let Some(stamp) = there.stamp() else { return };
        let text = csv_of(there);
        // An older stamp does not come back but after a crash.
        let mut recent = self.stamps.iter().rev().take(10);
        if let Some((_, before, by)) = recent.find(|(before, ..)| *before == stamp) {
            assert_eq!(*before, text, "engine {engine} has another CSV at {stamp:?}");
            let other = *by != engine;
            self.note(if other { "equal stamps of two engines" } else { "equal stamps" });
            return;
        }
        if self.chance.percent(ORACLE_PERCENT) {
            let facts = self.facts(|position| stamp.positions.include(position));
            let last_s = stamp.closed_end_s.saturating_sub(1);
            let closed = stamp.epochs.round_at_ms(i64::try_from(last_s * 1000).unwrap());
            let holds = |it: &&Retraction| it.undone_at_ms.is_none();
            let retracted = stamp.retractions.iter().filter(holds).map(|it| Retracted {
                probe: it.probe,
                from_s: it.from_s,
                to_s: it.to_s,
            });
            let standing = standing(&facts, &retracted.collect::<Vec<_>>());
            let closed = (stamp.closed_end_s > 0).then_some(closed);
            let wanted = oracle::csv(&standing, &stamp.epochs, closed);
            assert_eq!(text, wanted, "engine {engine} against the oracle at {stamp:?}");
            self.note("against the oracle");
        }
        self.stamps.push((stamp, text, engine));
    }

    /// The parts that were stored by these commits.
    fn facts(&self, by: impl Fn(Position) -> bool) -> Vec<OracleFact> {
        let database = self.database.lock().unwrap();
        let subnet = database.subnet_number("public").unwrap_or(0);
        let facts = self.sent.iter().filter(|((probe, _), part)| {
            let PartKey { round, number, .. } = part.key;
            let key = FactKey { round, subnet, probe: *probe, number };
            database.stored_by(key, part.digest()).is_some_and(&by)
        });
        facts.map(|((probe, _), part)| OracleFact { probe: *probe, part: part.clone() }).collect()
    }

    fn maintain(&mut self, engine: usize) {
        let judged = self.judged(engine);
        let now_ms = judged.wall_ms;
        let Process { engine: there, planned, .. } = &mut self.processes[engine];
        let Some(there) = there.as_mut() else { return };
        if let Some(plan) = planned.take() {
            match done(there.commit_compaction(&plan, now_ms)) {
                Ok(Some(_)) => self.note("compacted"),
                Ok(None) => {}
                Err(StoreError::LeaseLost) => self.note("lease lost"),
                Err(error) => panic!("{error}"),
            }
            return;
        }
        let mut reader = done(there.reader()).unwrap();
        // A day may be compacted as soon as it is over.
        let before_s = u64::try_from(now_ms / 1000).unwrap();
        *planned = done(reader.plan_compaction(before_s)).unwrap();
        let retention = there.retention();
        if !judged.may_delete || !done(has_expired(&mut reader, &retention, now_ms)).unwrap() {
            return;
        }
        let Some(vouched_ms) = done(vouched_ms(&mut reader, now_ms)).unwrap() else {
            self.note("nothing expires: parts do not confirm the clock");
            return;
        };
        let epochs = Arc::clone(there.epochs());
        let expiry = done(expiry_plan(&mut reader, &epochs, &retention, vouched_ms)).unwrap();
        if let Some(expiry) = expiry {
            done(there.expire(&expiry, now_ms)).ok();
        }
    }

    fn retract(&mut self) {
        let Some(there) = self.processes.iter_mut().find_map(|it| it.engine.as_mut()) else {
            return;
        };
        let probe = 1 + u32::try_from(self.chance.below(self.probes.len() as u64)).unwrap();
        let to_s = u64::try_from(self.now_ms / 1000).unwrap();
        let (from_s, reason) = (to_s - 120, "its clock was wrong".to_owned());
        let (made_at_ms, undone_at_ms) = (self.now_ms, None);
        let retraction =
            Retraction { number: 0, probe, from_s, to_s, reason, made_at_ms, undone_at_ms };
        let by = By { actor: "an operator".to_owned(), now_ms: self.now_ms };
        let number = done(there.retract(&retraction, &by)).unwrap();
        self.retracted.push((Retracted { probe, from_s, to_s }, number));
        self.say(&format!("probe {probe} is retracted"));
    }

    /// Ends all faults, delivers everything, and compares all engines with each other and with the
    /// oracle.
    fn quiesce(&mut self) {
        {
            let mut database = self.database.lock().unwrap();
            database.faults = 0;
            while !database.in_flight.is_empty() {
                database.land();
            }
        }
        for engine in 0..self.processes.len() {
            let host = &mut self.processes[engine].host;
            (host.offset_ms, host.drift) = (0, (0, self.now_ms));
            host.kernel = KernelClock::Synchronised;
            self.start(engine);
        }
        for probe in 0..self.probes.len() {
            while !self.probes[probe].spool.is_empty() {
                self.send(probe);
            }
        }
        let now_ms = self.end_ms + 3_600_000;
        self.now_ms = now_ms;
        self.database.lock().unwrap().now_ms = now_ms;
        let mut texts = Vec::new();
        for engine in 0..self.processes.len() {
            let Process { engine: there, rebuild, .. } = &mut self.processes[engine];
            let there = there.as_mut().unwrap();
            if let Some(job) = rebuild.take() {
                let rebuilt = done(job.run());
                done(there.finish_rebuild(rebuilt, now_ms));
            }
            done(there.learn_from_others());
            loop {
                done(there.close_due(now_ms, true));
                if there.rebuild_wanted().is_some() {
                    if let Some(job) = done(there.begin_rebuild(now_ms)).unwrap() {
                        let rebuilt = done(job.run());
                        done(there.finish_rebuild(rebuilt, now_ms));
                    }
                } else if there.has_late_rounds() {
                    done(there.judge_late_rounds()).unwrap();
                } else {
                    break;
                }
            }
            texts.push(csv_of(there));
        }
        self.check(&texts, now_ms);
    }

    fn check(&mut self, texts: &[String], now_ms: i64) {
        let facts = self.facts(|_| true);
        for (probe, part) in &self.acknowledged {
            let there = facts.iter().any(|it| it.probe == *probe && it.part == *part);
            assert!(there, "an acknowledged part is lost: {:?}", part.key);
        }
        let made: u64 = self.probes.iter().map(|it| it.made).sum();
        assert_eq!(facts.len() as u64, made, "every part that was made is stored once");
        let retracted: Vec<Retracted> = self.retracted.iter().map(|(it, _)| *it).collect();
        let epochs = Epochs::new(vec![self.epoch.clone()]).unwrap();
        let closed = last_closed(&epochs, now_ms);
        let wanted = oracle::csv(&standing(&facts, &retracted), &epochs, closed);
        for (engine, text) in texts.iter().enumerate() {
            assert_eq!(*text, wanted, "engine {engine} against the oracle");
        }
        let database = self.database.lock().unwrap();
        for (what, count) in &database.count {
            *self.count.entry(what).or_default() += count;
        }
        *self.count.entry("stale tokens").or_default() += database.stale;
        drop(database);
        let digest = wanted
            .bytes()
            .fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        self.say(&format!("ends with {digest:x}"));
    }
}

fn csv_of(engine: &mut Engine<ModelStore>) -> String {
    let mut bytes = Vec::new();
    write_csv(&engine.take_snapshot(), &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}
