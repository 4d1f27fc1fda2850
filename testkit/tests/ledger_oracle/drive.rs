//! The real engine on a real store, led through a history step by step and compared with the
//! oracle.
//!
//! Owns the steps and the comparisons. Refuses to generate histories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tempfile::TempDir;
use uptime_accounting::snapshot::{NodeView, Windowed};
use uptime_accounting::verdict::Verdict as LedgerVerdict;
use uptime_aggregator::engine::replay::rebuild;
use uptime_aggregator::engine::{
    Engine, EngineOptions, PartOutcome, RETENTION_S_MIN, RebuildJob, Rebuilt, Snapshot, Submission,
    as_of, explain,
};
use uptime_aggregator::publish::write_csv;
use uptime_aggregator::rules::plan;
use uptime_aggregator::store::{
    By, Checkpoints, EpochChange, FactLog, Lease, Registry, Retraction, SqliteStore, Store,
    StoreError,
};
use uptime_proto::{Digest, Epoch, Epochs, NodeId, PartKey, Round};
use uptime_testkit::oracle::{
    Oracle, OracleFact, Retracted, Row, Sums, Verdict, csv, last_closed, standing,
};

use crate::aggregator::directory;
use crate::stepping::{self, catch_up, compact, submit};
use crate::world::{BEGIN_S, Delivery, Dice, Rules, World};

/// An oracle is slow: no more comparisons than this on the way to the end.
const COMPARISONS_MAX: usize = 6;

pub struct Driver {
    // Dropped before the directory it works in.
    engine: Option<Engine<SqliteStore>>,
    /// As they are stored; the engine may not know the last one yet.
    pub epochs: Arc<Epochs>,
    /// By the number a fact's probe has in the history, less one.
    probes: Vec<u32>,
    rules: Epoch,
    pub accepted: Vec<OracleFact>,
    keys: BTreeSet<(u32, PartKey)>,
    facts: BTreeSet<(u32, PartKey, Digest)>,
    /// Those that hold, with their numbers.
    retracted: Vec<(u64, Retracted)>,
    refold: Option<Refold>,
    directory: TempDir,
}

/// A background replay.
enum Refold {
    Begun(RebuildJob<SqliteStore>),
    Folded(Result<Rebuilt, StoreError>),
}

fn options(rules: &Epoch) -> EngineOptions {
    EngineOptions {
        unconfirmed_nodes_max: 1_000_000,
        with_seed: true,
        retention_s: Some(RETENTION_S_MIN),
        ..EngineOptions::new(rules.clone())
    }
}

fn by(now_ms: i64) -> By {
    By { actor: "a test".to_owned(), now_ms }
}

impl Driver {
    pub async fn new(rules: &Epoch, probes: u32, now_ms: i64) -> Self {
        let directory = directory();
        let mut store = SqliteStore::open(directory.path()).await.unwrap();
        let mut numbers = Vec::new();
        for probe in 1..=u8::try_from(probes).unwrap() {
            let name = format!("probe-{probe}");
            let record = store.add_probe(&name, &[probe; 32], &[], now_ms).await.unwrap();
            numbers.push(record.unwrap().number);
        }
        let engine = Engine::open(store, options(rules), now_ms).await.unwrap();
        Self {
            epochs: Arc::clone(engine.epochs()),
            engine: Some(engine),
            probes: numbers,
            rules: rules.clone(),
            accepted: Vec::new(),
            keys: BTreeSet::new(),
            facts: BTreeSet::new(),
            retracted: Vec::new(),
            refold: None,
            directory,
        }
    }

    fn engine(&mut self) -> &mut Engine<SqliteStore> {
        self.engine.as_mut().unwrap()
    }

    /// Submits facts of one probe, and checks the outcome of each.
    pub async fn submit(&mut self, facts: &[OracleFact], now_ms: i64) {
        let Some(first) = facts.first() else { return };
        let probe = self.probes[first.probe as usize - 1];
        let parts = facts.iter().map(|fact| fact.part.clone()).collect();
        let submission = Submission { probe, parts, ..Submission::default() };
        let outcomes = submit(self.engine(), submission, now_ms).await;
        assert_eq!(outcomes.len(), facts.len());
        for (fact, outcome) in facts.iter().zip(outcomes) {
            let key = (fact.probe, fact.part.key.clone());
            let new = self.facts.insert((fact.probe, fact.part.key.clone(), fact.part.digest()));
            let first = self.keys.insert(key);
            let wanted = match (new, first) {
                (false, _) => PartOutcome::Duplicate,
                (true, true) => PartOutcome::Accepted,
                (true, false) => PartOutcome::Conflict,
            };
            assert_eq!(outcome, wanted, "{fact:?}");
            if new {
                self.accepted.push(fact.clone());
            }
        }
    }

    pub async fn catch_up(&mut self, now_ms: i64) {
        catch_up(self.engine(), now_ms).await;
    }

    /// One step of a background replay.
    pub async fn refold(&mut self, now_ms: i64) {
        self.refold = match self.refold.take() {
            None => self.engine().begin_rebuild(now_ms).await.unwrap().map(Refold::Begun),
            Some(Refold::Begun(rebuild)) => Some(Refold::Folded(rebuild.run().await)),
            Some(Refold::Folded(folded)) => {
                self.engine().finish_rebuild(folded, now_ms).await;
                None
            }
        };
    }

    /// Catches up with everything, including a background replay and rules that others stored.
    pub async fn settle(&mut self, now_ms: i64) {
        self.learn().await;
        while self.refold.is_some() {
            self.refold(now_ms).await;
        }
        self.catch_up(now_ms).await;
    }

    /// Compacts every day that is over, whether or not it is time.
    pub async fn compact(&mut self, now_ms: i64) -> usize {
        let days = compact(self.engine(), now_ms + 3_600_000).await;
        days.len()
    }

    pub async fn keep(&mut self) {
        self.engine().save_checkpoint().await;
    }

    /// As if the checkpoint was damaged.
    pub async fn forget_kept(&mut self) {
        let mut store = SqliteStore::open(self.directory.path()).await.unwrap();
        store.save_checkpoint(&[vec![0; 8]]).await.unwrap();
    }

    /// As if the facts of rounds before this were damaged.
    pub async fn lose_facts(&mut self, before_s: u64) {
        let mut store = SqliteStore::open(self.directory.path()).await.unwrap();
        let (roll_up, token) = (store.load_roll_up().await.unwrap(), store.acquire_lease(0).await);
        let token = token.unwrap().unwrap();
        assert!(store.expire(before_s, &roll_up, token).await.unwrap() > 0);
    }

    /// A node as it was when a round was closed; `None`: it was no confirmed node.
    pub async fn last_seen_by(
        &mut self,
        node: NodeId,
        round: Round,
    ) -> Result<Option<i64>, StoreError> {
        let number = self.snapshot().ids.number(&node).unwrap();
        let (mut reader, snapshot) = self.reader().await;
        Ok(as_of(&mut reader, &snapshot, number, round).await?.last_seen_ms)
    }

    pub async fn let_go(&mut self, now_ms: i64) -> u64 {
        stepping::expire(self.engine(), now_ms).await
    }

    pub async fn retract(&mut self, retracted: Retracted, now_ms: i64) {
        let retraction = Retraction {
            number: 0,
            probe: self.probes[retracted.probe as usize - 1],
            from_s: retracted.from_s,
            to_s: retracted.to_s,
            reason: "its clock was wrong".to_owned(),
            made_at_ms: now_ms,
            undone_at_ms: None,
        };
        let number = self.engine().retract(&retraction, &by(now_ms)).await.unwrap();
        self.retracted.push((number, retracted));
    }

    pub async fn undo_retraction(&mut self, retracted: Retracted, now_ms: i64) {
        let at = self.retracted.iter().position(|(_, there)| *there == retracted).unwrap();
        let (number, _) = self.retracted.remove(at);
        assert!(self.engine().undo_retraction(number, &by(now_ms)).await.unwrap());
        assert!(!self.engine().undo_retraction(number, &by(now_ms)).await.unwrap(), "only once");
    }

    /// What answers questions about the past: a connection of its own, and what readers see.
    async fn reader(&self) -> (SqliteStore, Arc<Snapshot>) {
        (self.engine.as_ref().unwrap().reader().await.unwrap(), self.snapshot())
    }

    /// The facts that count.
    fn standing(&self) -> Vec<OracleFact> {
        let retracted: Vec<Retracted> = self.retracted.iter().map(|(_, it)| *it).collect();
        standing(&self.accepted, &retracted)
    }

    /// Stops and starts: with the store in hand, or from the file.
    pub async fn restart(&mut self, from_file: bool, now_ms: i64) {
        self.refold = None;
        let mut store = self.engine.take().unwrap().into_store();
        if from_file {
            drop(store);
            store = SqliteStore::open(self.directory.path()).await.unwrap();
        }
        let engine = Engine::open(store, options(&self.rules), now_ms).await.unwrap();
        assert_eq!(*engine.epochs(), self.epochs);
        self.engine = Some(engine);
    }

    /// Stores other rules, as another process does.
    pub async fn announce(&mut self, rules: &Epoch, now_ms: i64) {
        let mut store = SqliteStore::open(self.directory.path()).await.unwrap();
        let there = store.epochs().await.unwrap();
        if let Some(planned) = plan(&there, rules, now_ms) {
            let (kept, epoch, detail) = (planned.kept, planned.epoch, String::new());
            let change = EpochChange { there, kept, epoch, detail };
            assert!(store.change_epochs(&change, &by(now_ms)).await.unwrap());
        }
        self.epochs = Arc::new(Epochs::new(store.epochs().await.unwrap()).unwrap());
    }

    /// The engine reads the stored rules.
    pub async fn learn(&mut self) {
        self.engine().learn_epochs().await.unwrap();
    }

    /// Stores other rules, stops and starts.
    pub async fn reopen(&mut self, rules: &Epoch, from_file: bool, now_ms: i64) {
        self.announce(rules, now_ms).await;
        self.restart(from_file, now_ms).await;
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(self.engine.as_ref().unwrap().snapshot())
    }

    pub fn csv(&self) -> String {
        let mut bytes = Vec::new();
        write_csv(&self.snapshot(), &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// What another process makes of the store.
    pub async fn compare_rebuilt(&self, now_ms: i64) {
        let mut store = SqliteStore::open(self.directory.path()).await.unwrap();
        store.hold().await.unwrap();
        let rebuilt = rebuild(&mut store, now_ms, false).await.unwrap().unwrap();
        assert_eq!(rebuilt.left_out.count, 0, "{:?}", rebuilt.left_out.listed);
        let mut bytes = Vec::new();
        write_csv(&rebuilt.snapshot, &mut bytes).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), self.csv(), "rebuilt beside the engine");
    }

    /// Compares the engine with the oracle on the facts accepted so far.
    pub fn compare(&self, now_ms: i64, when: &str) {
        let snapshot = self.snapshot();
        let closed = last_closed(&self.epochs, now_ms);
        assert_eq!(snapshot.closed, closed, "the last closed round {when}");
        let facts = self.standing();
        let wanted = csv(&facts, &self.epochs, closed);
        let got = self.csv();
        if got != wanted {
            let wrong = wanted.lines().zip(got.lines()).find(|(wanted, got)| wanted != got);
            panic!("{when}, now {now_ms}, {closed:?}: wanted, got {wrong:#?}\n{wanted}\n{got}");
        }
        self.compare_views(&snapshot, &facts, when);
    }

    /// What the CSV does not show: coverage, first seen, retirement, the last verdict.
    fn compare_views(&self, snapshot: &Snapshot, facts: &[OracleFact], when: &str) {
        let oracle = Oracle::new(facts, &self.epochs, snapshot.closed);
        for (view, row) in snapshot.nodes().zip(oracle.rows()) {
            let verdict = in_words(view.verdict);
            assert_eq!((view.id, verdict), (row.id, row.verdict), "{when}");
            let tally = (view.tally.up_s, view.tally.down_s, view.tally.unknown_s);
            assert_eq!(tally, (row.up_s, row.down_s, row.unknown_s), "{when} {}", row.id);
            assert_eq!(view.tally.coverage_percent(), Some(row.coverage_percent()), "{when}");
            let shown = (view.first_seen_s, view.retired);
            assert_eq!(shown, (row.first_seen_s, row.retired), "{when} {}", row.id);
            self.compare_past(snapshot, &oracle, &view, when);
        }
    }

    /// Windows, outages and the second method.
    fn compare_past(
        &self,
        snapshot: &Snapshot,
        oracle: &Oracle<'_>,
        view: &NodeView<'_>,
        when: &str,
    ) {
        let dice = Dice(self.accepted.len() as u64);
        let (number, id) = (view.number, view.id);
        for at in 0..3u64 {
            let bound = |salt| BEGIN_S - 60 + dice.roll(&[at, salt, u64::from(number)]) % 2_700;
            let (from_s, to_s) = (bound(0), bound(1));
            let got = snapshot.windowed(number, from_s, to_s);
            compare_ending(snapshot, oracle, (number, id), &got, when);
            let wanted = oracle.sums(id, from_s, to_s);
            let got = Sums {
                up_s: got.tally.up_s,
                down_s: got.tally.down_s,
                unknown_s: got.tally.unknown_s,
                rounds: got.tally.up_rounds + got.tally.down_rounds + got.tally.unknown_rounds,
            };
            assert_eq!(got, wanted, "{when} {id} [{from_s}, {to_s})");
        }
        let outages = snapshot.outages(number, 0, u64::MAX);
        let got: Vec<_> = outages.iter().map(|it| (it.from_s, it.to_s, it.open)).collect();
        assert_eq!(got, oracle.outages(id), "{when} {id}");
        for outage in outages {
            let unknown: u64 = outage.unknown.iter().map(|(from_s, to_s)| to_s - from_s).sum();
            let wanted = oracle.sums(id, outage.from_s, outage.to_s);
            assert_eq!((wanted.up_s, wanted.unknown_s), (0, unknown), "{when} {id}");
        }
        let seed = snapshot.seed().unwrap();
        for (subnet, name) in (0u32..).zip(&*snapshot.subnets).skip(1) {
            let (epochs, end_s) = (&self.epochs, snapshot.closed_end_s());
            let got = (
                seed.scan_count(subnet, end_s, epochs),
                seed.online_scans(number, subnet, end_s, epochs),
            );
            assert_eq!(got, oracle.seed_counts(id, name), "{when} {id} in {name}");
        }
    }

    /// Some rounds of some nodes, explained from the store.
    pub async fn compare_accounts(&mut self, when: &str) {
        let ((mut reader, snapshot), facts) = (self.reader().await, self.standing());
        let epochs = Arc::clone(&self.epochs);
        let oracle = Oracle::new(&facts, &epochs, snapshot.closed);
        let dice = Dice(facts.len() as u64);
        let (rounds, rows) = (oracle.rounds(), oracle.rows());
        for at in 0..4u64 {
            let pick = |salt, of: usize| {
                usize::try_from(dice.roll(&[salt, at]) % u64::try_from(of.max(1)).unwrap()).unwrap()
            };
            let (index, row) = (pick(1, rounds.len()), rows.get(pick(2, rows.len())));
            let (Some(round), Some(row)) = (rounds.get(index).copied(), row) else { return };
            let number = snapshot.ids.number(&row.id).unwrap();
            let account = explain(&mut reader, &epochs, number, round).await.unwrap();
            let got = [account.positive, account.eligible, account.looked, account.unreachable];
            assert_eq!(got, oracle.votes(row.id, index), "{when} {} {round:?}", row.id);
            assert_eq!(in_words(account.verdict), oracle.verdict(row.id, index), "{when}");
        }
    }
}

impl Driver {
    /// All nodes as they were when some rounds were closed.
    pub async fn compare_some_past(&mut self, when: &str) {
        let (snapshot, facts) = (self.snapshot(), self.standing());
        let rounds = Oracle::new(&facts, &self.epochs, snapshot.closed).rounds();
        let is_known = |round: &&Round| round.start_s() >= snapshot.rolled_up_to_s();
        let known: Vec<Round> = rounds.iter().filter(is_known).copied().collect();
        for at in 0..AS_OF {
            let of = u64::try_from(known.len().max(1)).unwrap();
            let pick = Dice(facts.len() as u64).roll(&[13, at]) % of;
            let Some(round) = known.get(usize::try_from(pick).unwrap()).copied() else { return };
            self.compare_as_of(round, when).await;
        }
    }

    /// All nodes as they were when a round was closed: what the oracle makes of the facts known now
    /// and the rounds up to then.
    pub async fn compare_as_of(&mut self, round: Round, when: &str) {
        let ((mut reader, snapshot), facts) = (self.reader().await, self.standing());
        let epochs = Arc::clone(&self.epochs);
        let when = format!("{when}, as of {round:?}");
        let oracle = Oracle::new(&facts, &epochs, Some(round));
        let mut rows: BTreeMap<NodeId, Row> =
            oracle.rows().into_iter().map(|row| (row.id, row)).collect();
        for NodeView { number, id, .. } in snapshot.nodes() {
            let past = as_of(&mut reader, &snapshot, number, round).await.unwrap();
            let got = snapshot.view_at(number, round, &past);
            match (got, rows.remove(&id)) {
                (None, None) => {}
                (Some(view), Some(row)) => {
                    compare_row(&view, &row, &when);
                    let subnets: BTreeSet<&str> = view.subnets.into_iter().collect();
                    assert_eq!(subnets, oracle.subnets(id), "{when} {id}");
                }
                (got, wanted) => panic!("{when} {id}: {got:?} is not {wanted:?}; {past:?}"),
            }
        }
        assert!(rows.is_empty(), "{when}: {rows:?}");
    }
}

/// Rounds that the past is asked for at once.
const AS_OF: u64 = 3;

fn compare_row(view: &NodeView<'_>, row: &Row, when: &str) {
    let shown = (view.is_online, view.last_seen_ms, view.first_seen_s, view.retired);
    let wanted = (row.is_online, row.last_seen_ms, row.first_seen_s, row.retired);
    assert_eq!(shown, wanted, "{when} {}", row.id);
    let sums = (view.tally.up_s, view.tally.down_s, view.tally.unknown_s, view.tally.up_rounds);
    let wanted = (row.up_s, row.down_s, row.unknown_s, row.up_rounds);
    assert_eq!(sums, wanted, "{when} {}", row.id);
    assert_eq!(in_words(view.verdict), row.verdict, "{when} {}", row.id);
}

/// How a node stood at the end of a window, round by round.
fn compare_ending(
    snapshot: &Snapshot,
    oracle: &Oracle<'_>,
    (number, id): (u32, NodeId),
    windowed: &Windowed,
    when: &str,
) {
    let rounds = oracle.rounds().into_iter().enumerate();
    let within = windowed.from_s..windowed.to_s;
    let verdicts: Vec<(Round, Verdict)> = rounds
        .filter(|(_, round)| within.contains(&round.start_s()))
        .map(|(index, round)| (round, oracle.verdict(id, index)))
        .collect();
    let mut ups = verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Up);
    let first_s = ups.next().map(|(round, _)| round.start_s());
    let until = verdicts.iter().rfind(|(_, verdict)| *verdict == Verdict::Up);
    let decided = verdicts.iter().rfind(|(_, verdict)| *verdict != Verdict::Unknown);
    let wanted = verdicts.last().map(|(_, last)| {
        let up = first_s.zip(until.map(|(round, _)| round.end_s()));
        (*last, decided.is_some_and(|(_, verdict)| *verdict == Verdict::Up), up)
    });
    let got = snapshot.ending(number, windowed);
    let got = got.map(|ending| (in_words(ending.verdict), ending.is_online, ending.up));
    assert_eq!(got, wanted, "{when} {id} {windowed:?}");
}

fn in_words(verdict: LedgerVerdict) -> Verdict {
    match verdict {
        LedgerVerdict::Up => Verdict::Up,
        LedgerVerdict::Down => Verdict::Down,
        LedgerVerdict::Unknown => Verdict::Unknown,
    }
}

/// The epochs that a world's rules become, which its facts must know before they are made.
pub async fn epochs_of(world: &World) -> Arc<Epochs> {
    let first = &world.rules[0];
    let mut driver = Driver::new(&first.epoch(), 0, first.announced_ms()).await;
    for rules in &world.rules[1..] {
        driver.announce(&rules.epoch(), rules.announced_ms()).await;
    }
    Arc::clone(&driver.epochs)
}

/// Leads a ledger through a world as it is delivered; answers its last CSV.
pub async fn run(world: &World, facts: &[OracleFact], delivery: &Delivery) -> String {
    let first = &world.rules[0];
    let mut driver = Driver::new(&first.epoch(), world.probes, first.announced_ms()).await;
    driver.compare(first.announced_ms(), "at the very start");
    let mut announced: &[Rules] = &world.rules[1..];
    let arrivals = delivery.arrivals(facts, world.end_ms());
    let dice = Dice(delivery.seed);
    let (mut comparisons, mut disowned) = (0, 0);
    let (mut at, mut before_ms) = (0, first.announced_ms());
    while let Some(&(now_ms, _)) = arrivals.get(at) {
        let untouched = announced.len();
        while let Some((rules, rest)) = announced.split_first()
            && rules.announced_ms() <= now_ms
        {
            driver.announce(&rules.epoch(), rules.announced_ms()).await;
            change(&mut driver, dice.roll(&[1, at as u64]), rules.announced_ms()).await;
            announced = rest;
        }
        // Time passes between what comes, and rounds close while nothing does.
        let between = u64::try_from(now_ms - before_ms).unwrap_or(0).max(1);
        if announced.len() == untouched && dice.chance(delivery.catch_ups, &[8, at as u64]) {
            let passed = i64::try_from(dice.roll(&[9, at as u64]) % between).unwrap();
            driver.catch_up(before_ms + passed).await;
        }
        // A probe's share of what comes together is committed together.
        let together = 1 + usize::try_from(dice.roll(&[2, at as u64]) % 16).unwrap();
        let next_rules_ms = announced.first().map_or(i64::MAX, Rules::announced_ms);
        let batch = &arrivals[at..arrivals.len().min(at + together)];
        let batch = &batch[..batch.partition_point(|(at_ms, _)| *at_ms < next_rules_ms)];
        at += batch.len();
        let now_ms = batch.last().map_or(now_ms, |last| last.0);
        before_ms = now_ms;
        for probe in 1..=world.probes {
            let of_probe = batch.iter().map(|(_, index)| &facts[*index]);
            let of_probe = of_probe.filter(|fact| fact.probe == probe).cloned();
            driver.submit(&of_probe.collect::<Vec<_>>(), now_ms).await;
        }
        let about = at as u64;
        if dice.chance(delivery.catch_ups, &[3, about]) {
            driver.catch_up(now_ms).await;
            if comparisons < COMPARISONS_MAX && dice.chance(20, &[4, about]) {
                comparisons += 1;
                driver.settle(now_ms).await;
                driver.compare(now_ms, "on the way");
            }
        }
        if dice.chance(20, &[15, about]) {
            driver.learn().await;
        }
        chores(&mut driver, delivery, about, now_ms).await;
        disown(&mut driver, world, &mut disowned, Some(&[10, about]), now_ms).await;
        if dice.chance(delivery.restarts, &[5, about]) {
            driver.restart(dice.chance(50, &[6, about]), now_ms).await;
            if comparisons < COMPARISONS_MAX && dice.chance(40, &[7, about]) {
                comparisons += 1;
                driver.compare(now_ms, "after a restart");
            }
        }
    }
    disown(&mut driver, world, &mut disowned, None, world.end_ms()).await;
    finish(driver, world, announced).await
}

/// When the engine learns of other rules: at a restart, at once, or later, when they may have
/// begun.
async fn change(driver: &mut Driver, how: u64, now_ms: i64) {
    match how % 4 {
        0 => driver.restart(true, now_ms).await,
        1 => driver.restart(false, now_ms).await,
        2 => driver.settle(now_ms).await,
        _ => return,
    }
    driver.compare(now_ms, "after a change of the rules");
}

/// What an aggregator does beside its work, at any moment.
async fn chores(driver: &mut Driver, delivery: &Delivery, about: u64, now_ms: i64) {
    let dice = Dice(delivery.seed);
    if dice.chance(delivery.chores, &[11, about]) {
        driver.compact(now_ms).await;
    }
    if dice.chance(delivery.chores, &[12, about]) {
        driver.keep().await;
    }
    if dice.chance(delivery.chores * 4, &[14, about]) {
        driver.refold(now_ms).await;
    }
}

/// Makes, and undoes, the retractions of a world, one step after the other: now and then, or all
/// that are left.
async fn disown(
    driver: &mut Driver,
    world: &World,
    done: &mut usize,
    about: Option<&[u64]>,
    now_ms: i64,
) {
    let steps = world.retractions();
    while let Some((retracted, undo)) = steps.get(*done).copied() {
        if about.is_some_and(|about| !Dice(world.seed).chance(3, about)) {
            return;
        }
        *done += 1;
        if undo {
            driver.undo_retraction(retracted, now_ms).await;
        } else {
            driver.retract(retracted, now_ms).await;
        }
    }
}

async fn finish(mut driver: Driver, world: &World, announced: &[Rules]) -> String {
    let end_ms = world.end_ms();
    for rules in announced {
        driver.reopen(&rules.epoch(), true, rules.announced_ms()).await;
    }
    driver.settle(end_ms).await;
    driver.compare(end_ms, "at the end");
    driver.compare_accounts("at the end").await;
    driver.compare_some_past("at the end").await;
    driver.compact(end_ms).await;
    driver.compare_accounts("compacted").await;
    driver.compare_some_past("compacted").await;
    driver.compare_rebuilt(end_ms).await;
    let before = driver.csv();
    driver.restart(true, end_ms).await;
    driver.compare(end_ms, "at the end, after a restart");
    assert_eq!(driver.csv(), before, "a restart changes nothing");
    // It closes every round of six weeks, three times.
    if world.newcomers > 0 && world.seed.is_multiple_of(4) {
        expire(&mut driver, end_ms).await;
    }
    before
}

/// Time passes until all facts have expired: the running state, the checkpoint and a replay must
/// all still know the same as before.
async fn expire(driver: &mut Driver, end_ms: i64) {
    let later_ms = end_ms + i64::try_from((RETENTION_S_MIN + 2 * 86_400) * 1000).unwrap();
    driver.catch_up(later_ms).await;
    let before = driver.csv();
    driver.let_go(later_ms).await;
    assert_eq!(driver.csv(), before, "expired, the state that ran");
    driver.restart(true, later_ms).await;
    assert_eq!(driver.csv(), before, "expired, the state that was kept");
    driver.forget_kept().await;
    driver.restart(true, later_ms).await;
    assert_eq!(driver.csv(), before, "expired, the state made anew");
}
