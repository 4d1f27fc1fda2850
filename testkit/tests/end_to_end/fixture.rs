//! The fixture: a small world, an aggregator and probes, and handles to all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uptime_accounting::state::RoundSummary;
use uptime_aggregator::access::commands::Place;
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::config::{RuleArgs, RulesCommand, SettingArgs};
use uptime_aggregator::ledger::Ledger;
use uptime_aggregator::rules::commands::rules;
use uptime_probe::clock::Timekeeper;
use uptime_probe::control_state::ControlState;
use uptime_probe::scan::{Enabled, Scanner, Sources};
use uptime_probe::spool::{Spool, SpoolLimits};
use uptime_probe::uplink::{Tls, Token, Uplink, UplinkOptions};
use uptime_probe::yagna::{AppKey, Limits, Yagna, YagnaOptions};
use uptime_proto::convert::PartLimits;
use uptime_proto::{Epochs, Outcome, Part, Reason, Round};
use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, NetTiming, ProviderSpec, View, World};
use uptime_testkit::oracle::OracleFact;

use super::aggregator::{Aggregator, enrol, settings};
use super::stored::stored;

pub(crate) type Summary = RoundSummary;

/// The shortest round in which a direct question, asked twice with a limit of one second, fits.
pub(crate) const PERIOD_S: u64 = 4;
/// The time limit of a condition.
const PATIENCE: Duration = Duration::from_secs(60);
const SUBNETS: [&str; 2] = ["public", "testnet"];

pub(crate) struct Fixture {
    pub(crate) world: World,
    pub(crate) daemons: Vec<Daemon>,
    directory: tempfile::TempDir,
    tokens: Vec<String>,
    address: String,
    aggregator: Option<Aggregator>,
    probes: BTreeMap<usize, (JoinSet<()>, Spool, ControlState)>,
    last_closed: Option<Round>,
}

impl Fixture {
    /// Providers in two subnets and three daemons with different partial views.
    pub(crate) async fn open(providers: usize) -> Self {
        let world = World::new(11);
        let quick = NetTiming { ping_interval: Duration::from_secs(1), ..world.timing() };
        world.set_timing(quick);
        for number in 0..providers {
            world.add_provider(ProviderSpec::in_subnet(SUBNETS[usize::from(number % 3 == 0)]));
        }
        let ids = world.ids();
        let mut daemons = Vec::new();
        for missing in 0..3 {
            let seen = ids.iter().enumerate().filter(|(at, _)| at % 3 != missing);
            let view = if missing == 0 {
                View::Everything
            } else {
                View::Only(seen.map(|(_, id)| id.clone()).collect::<BTreeSet<_>>())
            };
            let options = DaemonOptions {
                app_key: "fixture-key".into(),
                view,
                relay_session_age: Duration::from_secs(3_600),
                ..DaemonOptions::default()
            };
            daemons.push(Daemon::start(world.clone(), options).await.unwrap());
        }
        let directory = tempfile::tempdir().unwrap();
        let mut tokens = Vec::new();
        for name in ["alpha", "beta", "gamma"] {
            tokens.push(enrol(&directory.path().join("data"), name, &[]).await);
        }
        Self {
            world,
            daemons,
            directory,
            tokens,
            address: "127.0.0.1:0".into(),
            aggregator: None,
            probes: BTreeMap::new(),
            last_closed: None,
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) async fn start_aggregator(&mut self) {
        let args = SettingArgs {
            grpc_addr: Some(self.address.clone()),
            round_period_s: Some(PERIOD_S.to_string()),
            grace_s: Some("2".into()),
            freshness_s: Some("3".into()),
            direct_timeout_ms: Some("1000".into()),
            ..settings(&self.data_dir())
        };
        let aggregator = Aggregator::start(args).await;
        // The same address after a restart, as probes know it.
        self.address = aggregator.grpc.to_string();
        self.aggregator = Some(aggregator);
    }

    /// `rules set --round-period-s`, as the operator would type it beside the running aggregator.
    pub(crate) async fn set_period(&self, period_s: u64) {
        let data_dir = self.data_dir();
        let place = Place { data_dir: &data_dir, now_ms: now_unix_ms(), tell: |_| Ok(()) };
        let period_s = Some(period_s.to_string());
        let args = RuleArgs { round_period_s: period_s, ..RuleArgs::default() };
        rules(place, &RulesCommand::Set(args)).await.unwrap();
    }

    /// How many parts of all probes were refused.
    pub(crate) fn parts_refused(&self) -> u64 {
        self.ledger().snapshot().probes.iter().map(|probe| probe.parts_refused).sum()
    }

    pub(crate) async fn stop_aggregator(&mut self) {
        let aggregator = self.aggregator.take().expect("it runs");
        let ledger = aggregator.ledger.clone();
        aggregator.stop().await;
        self.last_closed = ledger.snapshot().closed;
    }

    pub(crate) fn start_probe(&mut self, number: usize) {
        let yagna = Yagna::new(YagnaOptions {
            base_url: self.daemons[number].base_url(),
            app_key: AppKey::new("fixture-key".into()),
            limits: Limits {
                answer_timeout: Duration::from_secs(1),
                market_timeout: Duration::from_secs(2),
                ..Limits::default()
            },
            now_unix_ms: uptime_probe::clock::now_unix_ms,
        })
        .unwrap();
        let directory = self.directory.path().join(format!("spool-{number}"));
        let limits = SpoolLimits::of_bytes(64 << 20);
        let (spool, found) = Spool::open(&directory, limits).unwrap();
        assert_eq!(found.damaged, 0);
        let control = ControlState::open(&directory, Timekeeper::trusted());
        let subnets: Vec<String> = SUBNETS.iter().map(|subnet| (*subnet).to_owned()).collect();
        let options = UplinkOptions {
            aggregators: vec![format!("http://{}", self.address)],
            tls: Tls::default(),
            token: Some(Token::new(&self.tokens[number]).unwrap()),
            subnets: subnets.clone(),
        };
        let uplink = Uplink::new(options, spool.clone(), control.clone());
        let sources = Sources { yagna, relay: None, subnets, enabled: Enabled::ALL };
        let (_, sources) = watch::channel(Arc::new(sources));
        let name = number.to_string();
        let scanner = Scanner::new(sources, spool.clone(), control.clone(), &name);
        let mut tasks = JoinSet::new();
        tasks.spawn(uplink.run(CancellationToken::new()));
        tasks.spawn(scanner.run(CancellationToken::new()));
        self.probes.insert(number, (tasks, spool, control));
    }

    /// Waits until a probe that runs has lost its stream.
    pub(crate) async fn stream_lost(&self, number: usize) {
        let control = self.probes[&number].2.clone();
        control.wait_for(|state| !state.connected).await;
    }

    /// `uptime-probe check`, as the operator of this probe would type it.
    pub(crate) async fn check(&self, number: usize) -> Output {
        // As it was built with this test.
        let own = std::env::current_exe().unwrap();
        let program = own.parent().and_then(Path::parent).unwrap().join("uptime-probe");
        assert!(program.is_file(), "no uptime-probe is built; use: cargo build --workspace");
        Command::new(program)
            .args(["check", "--subnet-tag", &SUBNETS.join(",")])
            .args(["--yagna-url", &self.daemons[number].base_url()])
            .args(["--aggregator", &format!("http://{}", self.address), "--spool-dir"])
            .arg(self.directory.path().join(format!("spool-{number}")))
            .env("YAGNA_APPKEY", "fixture-key")
            .env("UPTIME_TOKEN", &self.tokens[number])
            .kill_on_drop(true)
            .output()
            .await
            .unwrap()
    }

    /// Kills a probe.
    pub(crate) async fn kill_probe(&mut self, number: usize) {
        let (mut tasks, spool, _) = self.probes.remove(&number).expect("it runs");
        tasks.shutdown().await;
        drop(spool);
        // Running rounds release the spool a moment later.
        let directory = self.directory.path().join(format!("spool-{number}"));
        let free = async {
            while Spool::open(&directory, SpoolLimits::of_bytes(64 << 20)).is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, free).await.expect("the spool is let go of");
    }

    /// Leaves parts in a probe's spool.
    pub(crate) fn leave_parts(&self, number: usize, parts: &[Part]) {
        let directory = self.directory.path().join(format!("spool-{number}"));
        let (spool, _) = Spool::open(&directory, SpoolLimits::of_bytes(64 << 20)).unwrap();
        for part in parts {
            spool.append(part.clone(), &PartLimits::default()).unwrap();
        }
        assert_eq!(spool.waiting(), parts.len() as u64);
    }

    /// Leaves a gap in a probe's spool.
    pub(crate) fn leave_gap(&self, number: usize, gap: uptime_proto::v1::Gap) {
        let directory = self.directory.path().join(format!("spool-{number}"));
        let (spool, _) = Spool::open(&directory, SpoolLimits::of_bytes(64 << 20)).unwrap();
        spool.report_gap(gap);
        assert_eq!(spool.waiting(), 1);
    }

    fn ledger(&self) -> &Ledger {
        &self.aggregator.as_ref().expect("it runs").ledger
    }

    /// Waits until so many rounds have closed for which this holds, from now on.
    pub(crate) async fn rounds_closed_with(&self, mut count: usize, so: impl Fn(&Summary) -> bool) {
        let mut snapshots = self.ledger().snapshots();
        let mut last = snapshots.borrow_and_update().closed;
        let mut seen: Vec<Arc<RoundSummary>> = Vec::new();
        let wait = async {
            while count > 0 {
                snapshots.changed().await.unwrap();
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                let newer = |summary: &&Arc<RoundSummary>| Some(summary.round) > last;
                for summary in snapshot.rounds.iter().filter(newer) {
                    count = count.saturating_sub(usize::from(so(summary)));
                    seen.push(Arc::clone(summary));
                }
                last = snapshot.closed;
            }
        };
        let patient = tokio::time::timeout(PATIENCE, wait).await;
        assert!(patient.is_ok(), "not within {PATIENCE:?}; rounds since: {seen:#?}");
    }

    /// Starts only an uplink for every spool that is left, until all spools are empty.
    pub(crate) async fn all_delivered(&self) {
        self.all_drained().await;
        // What came late is judged when nothing else is to be done: with the next close at the
        // latest.
        self.rounds_closed_with(1, |_| true).await;
    }

    /// The same, without waiting until the delivered parts are judged.
    pub(crate) async fn all_drained(&self) {
        for number in 0..3 {
            let directory = self.directory.path().join(format!("spool-{number}"));
            let limits = SpoolLimits::of_bytes(64 << 20);
            let (spool, _) = Spool::open(&directory, limits).unwrap();
            let options = UplinkOptions {
                aggregators: vec![format!("http://{}", self.address)],
                tls: Tls::default(),
                token: Some(Token::new(&self.tokens[number]).unwrap()),
                subnets: Vec::new(),
            };
            let uplink =
                Uplink::new(options, spool, ControlState::open(&directory, Timekeeper::trusted()));
            assert_eq!(uplink.drain(Duration::from_secs(20)).await, 0);
        }
    }

    /// Every stored fact in the oracle's form, with the rules and the last closed round.
    pub(crate) async fn facts(&self) -> (Vec<OracleFact>, Epochs, Option<Round>) {
        let (facts, epochs) = stored(&self.data_dir()).await;
        (facts, epochs, self.last_closed)
    }

    pub(crate) fn csv(&self) -> String {
        std::fs::read_to_string(self.data_dir().join("nodes_status.csv")).unwrap()
    }

    /// Why a probe could not look, ever.
    pub(crate) fn reasons(&self, facts: &[OracleFact], probe: usize) -> BTreeSet<Reason> {
        let number = u32::try_from(probe + 1).unwrap();
        let of_probe = facts.iter().filter(|fact| fact.probe == number);
        let reasons = of_probe.filter_map(|fact| match fact.part.outcome {
            Outcome::CouldNotLook(reason) => Some(reason),
            Outcome::Looked => None,
        });
        reasons.collect()
    }
}
