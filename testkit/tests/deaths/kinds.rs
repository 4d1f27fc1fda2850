//! Every kind of death, left dead for an hour of shortened time, and the provider back after it.

use std::collections::BTreeMap;

use serde_json::json;
use uptime_proto::v1::{EvidenceClass, Verdict};
use uptime_testkit::fake_yagna::{NetTiming, World};

use super::fixture::{Fixture, PROBES, Rules, shortened};

const PERIOD_S: u64 = 5;
/// From this round after the death on (the next one is the first) every round must be down.
const DOWN_FROM: u64 = 3;
/// A provider that comes back is up so many rounds later at the latest.
const UP_AFTER: u64 = 2;
/// Rounds watched after the return.
const WATCHED: u64 = 2;
/// Of them a probe has a third on its list: enough that it never loses sight of half of all it
/// looks for when the mortals die.
const LIVING: usize = 60;

/// How a provider dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its process died; daemons that never had a channel to it ask in vain in another way.
    Process,
    /// The same, after every daemon has talked to it.
    ProcessTalkedTo,
    /// Its host is gone: the relay keeps its session until it forgets it.
    Host,
    Frozen,
    /// Stopped gracefully, without withdrawing its offers.
    Stopped,
    /// Its link failed.
    Link,
}

const KINDS: [Kind; 6] =
    [Kind::Process, Kind::ProcessTalkedTo, Kind::Host, Kind::Frozen, Kind::Stopped, Kind::Link];

impl Kind {
    fn die(self, world: &World, id: &str) {
        match self {
            Self::Process | Self::ProcessTalkedTo => world.kill_process(id),
            Self::Host => world.kill(id),
            Self::Frozen => world.freeze(id),
            Self::Stopped => world.stop(id),
            Self::Link => world.link_down(id),
        }
    }

    fn come_back(self, world: &World, id: &str) {
        match self {
            Self::Link => world.link_up(id),
            _ => world.revive(id),
        }
    }
}

/// An offer by another identity of a provider that runs, in the form of a scan.
fn offer_by(identity: &str, world: &World) -> serde_json::Value {
    let seconds = i64::try_from(world.now().as_secs()).unwrap();
    let published = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
    json!({
        "offerId": format!("{}-{}", "5".repeat(32), "e".repeat(64)),
        "providerId": identity,
        "timestamp": published.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
        "constraints": "(golem.node.debug.subnet=public)",
        "properties": {
            "golem.node.debug.subnet": "public",
            "golem.node.id.name": "second",
            "golem.runtime.name": "vm",
        },
    })
}

/// The scenario, and what is asked of it.
struct Hour {
    fixture: Fixture,
    mortal: Vec<(Kind, String)>,
    /// How many rounds it has.
    rounds: u64,
    died_s: u64,
    /// ERROR lines of all daemons before the deaths, and after so many rounds.
    lines: BTreeMap<u64, u64>,
}

impl Hour {
    async fn begin(channels: [bool; PROBES], rounds: u64, timing: NetTiming) -> Self {
        let rules = Rules {
            period_s: PERIOD_S,
            aggregator: &[
                ("--grace-s", "3"),
                ("--freshness-s", "3"),
                ("--direct-timeout-ms", "300"),
                ("--relay-session-age-min-s", "4"),
            ],
            timing,
            channels,
            nodes: LIVING + KINDS.len(),
        };
        let fixture = Fixture::open(&rules).await;
        let mortal: Vec<_> = KINDS.into_iter().zip(fixture.ids.iter().cloned()).collect();
        // One that lives looks old to the relay and is asked in every round.
        fixture.world.hold_pings(&fixture.ids[KINDS.len()]);
        for (_, id) in mortal.iter().filter(|(kind, _)| *kind == Kind::ProcessTalkedTo) {
            fixture.daemons.iter().for_each(|daemon| daemon.connect(id));
        }
        Self { fixture, mortal, rounds, died_s: 0, lines: BTreeMap::new() }
    }

    fn after(&self, rounds: u64) -> u64 {
        self.died_s + rounds * PERIOD_S
    }

    /// All of them die within a moment, and stay dead for all the rounds.
    async fn die(&mut self) {
        self.died_s = self.fixture.at_next_round(200).await;
        for (kind, id) in &self.mortal {
            kind.die(&self.fixture.world, id);
        }
        self.lines.insert(0, self.fixture.error_lines());
        for rounds in [4, self.rounds / 2, self.rounds] {
            self.fixture.closed(self.after(rounds)).await;
            self.lines.insert(rounds, self.fixture.error_lines());
        }
    }

    /// Down to the end, each second of it counted, and `False` in the CSV.
    async fn were_down(&self) {
        let (nodes, csv) = (self.fixture.nodes().await, self.fixture.csv());
        let hour_s = self.rounds * PERIOD_S;
        for (kind, id) in &self.mortal {
            for number in DOWN_FROM..=self.rounds {
                let verdict = self.fixture.verdict(id, self.after(number)).await;
                assert_eq!(verdict, Verdict::Down, "{kind:?}, round {number} after its death");
            }
            let figures = nodes[id].all.as_ref().unwrap();
            // The round of the death and the one after it may have found it alive.
            let counted = hour_s - (DOWN_FROM - 1) * PERIOD_S..=hour_s + 2 * PERIOD_S;
            assert!(counted.contains(&figures.down_s), "{kind:?}: {figures:?}");
            assert!(!nodes[id].is_online, "{kind:?}");
            assert_eq!(csv[id], "False", "{kind:?}");
            let outages = self.fixture.outages(id).await;
            assert!(matches!(outages.as_slice(), [outage] if outage.open), "{kind:?}: {outages:?}");
        }
    }

    /// The long dead are asked less often, and it is told when they were.
    async fn were_asked_less_often(&self) {
        let lines = |from: u64, to: u64| self.lines[&to] - self.lines[&from];
        let (half, end) = (self.rounds / 2, self.rounds);
        let (early, late) = (lines(0, 4), lines(half, end));
        eprintln!("error lines: {early} in 4 rounds, then {late} in {}", end - half);
        assert!(late * 4 * 2 < early * (end - half), "{:?}", self.lines);
        for (kind, id) in &self.mortal {
            let mut earlier = 0;
            for number in half..=end {
                let told = self.fixture.explain(id, self.after(number)).await;
                for part in told.probes.iter().flat_map(|probe| &probe.parts) {
                    let stood_in = part.evidence().any(|it| it == EvidenceClass::AskedEarlier);
                    assert_eq!(part.asked_round_unix_s.is_some(), stood_in, "{part:?}");
                    let Some(round_s) = part.asked_round_unix_s else { continue };
                    assert!((self.died_s..self.after(number)).contains(&round_s), "{part:?}");
                    earlier += 1;
                }
            }
            let votes = (end - half + 1) * PROBES as u64;
            assert!(earlier * 2 > votes, "{kind:?}: {earlier} of {votes} votes");
        }
    }

    /// All are back: up within two rounds, and they stay so.
    async fn come_back(&self) {
        let back_s = self.fixture.at_next_round(200).await;
        for (kind, id) in &self.mortal {
            kind.come_back(&self.fixture.world, id);
        }
        let last = UP_AFTER + WATCHED;
        self.fixture.closed(back_s + last * PERIOD_S).await;
        let csv = self.fixture.csv();
        for (kind, id) in &self.mortal {
            for number in UP_AFTER..=last {
                let verdict = self.fixture.verdict(id, back_s + number * PERIOD_S).await;
                assert_eq!(verdict, Verdict::Up, "{kind:?}, round {number} after its return");
            }
            assert_eq!(csv[id], "True", "{kind:?}");
            let outages = self.fixture.outages(id).await;
            let [outage] = outages.as_slice() else { panic!("{kind:?}: {outages:?}") };
            assert!(!outage.open && outage.unknown_stretches.is_empty(), "{kind:?}: {outage:?}");
            assert!(outage.from_unix_s <= self.after(DOWN_FROM), "{kind:?}: {outage:?}");
            assert!(outage.to_unix_s <= back_s + UP_AFTER * PERIOD_S, "{kind:?}: {outage:?}");
        }
    }

    /// Nobody who lived was down in any round, and nothing was unheard of.
    async fn end(self, second: &str) {
        let mut living = self.fixture.ids[KINDS.len()..].to_vec();
        living.push(second.to_owned());
        self.fixture.always_lived(&living).await;
        let nodes = self.fixture.nodes().await;
        assert_eq!(nodes.len(), living.len() + KINDS.len());
        assert!(living.iter().all(|id| nodes[id].is_online));
        self.fixture.nothing_was_strange().await;
        self.fixture.end().await;
    }
}

async fn hour(channels: [bool; PROBES], rounds: u64, timing: NetTiming) {
    let mut hour = Hour::begin(channels, rounds, timing).await;
    // Made while its provider runs: the node itself answers to it only after its next start.
    let living = hour.fixture.ids[KINDS.len() + 1].clone();
    let second = hour.fixture.world.add_identity(&living);
    let offer = offer_by(&second, &hour.fixture.world);
    hour.fixture.world.publish_recorded(&[offer]);
    // The relay's `seen` of it is old, so that it is asked, too.
    hour.fixture.world.hold_pings(&living);
    hour.die().await;
    hour.were_down().await;
    hour.were_asked_less_often().await;
    hour.come_back().await;
    hour.end(&second).await;
}

/// One probe's daemon has channels to everybody, two have none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_dead_is_an_hour_down_with_one_daemon_that_has_channels() {
    hour([true, false, false], 20, shortened(36)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_dead_is_an_hour_down_where_all_daemons_have_channels() {
    hour([true; PROBES], 12, shortened(60)).await;
}

/// As many rounds as an hour has by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_hour_dead_is_an_hour_down() {
    hour([true, false, false], 120, shortened(6)).await;
}
