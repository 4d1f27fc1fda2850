//! Random events in the network: the answer to a direct question always has one of the recorded
//! forms. Which one depends on the channel and on what the relay knows.
//!
//! The model beside it knows no sessions, timers or seeds: only who is away since when, and who
//! talked to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use uptime_testkit::fake_yagna::{
    Daemon, DaemonOptions, Limits, NetTiming, Restart, UnixTime, World,
};

use super::client::{Client, daemon, populate};

const NODES: usize = 3;
const DAEMONS: usize = 2;

/// What an answer looks like, and from which recording that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    /// 200 [43].
    Answered,
    /// 504 [45].
    Silent,
    /// 500, at once [a0].
    Closed,
    /// 500, with the relay's 404 [a1].
    NotFound,
    /// 500, with the relay's silence [94b].
    RelaySilent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Process,
    Host,
    Frozen,
    Link,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Leave(usize, Way),
    Return(usize),
    Ping(usize, usize),
    Ask(usize, usize),
    RestartDaemon(usize),
    Relay(bool),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let way = prop::sample::select(vec![Way::Process, Way::Host, Way::Frozen, Way::Link]);
    let pass = prop::sample::select(vec![1_u64, 5, 11, 15, 25, 40, 170, 620]);
    let step = prop_oneof![
        2 => (0..NODES, way).prop_map(|(node, way)| Step::Leave(node, way)),
        2 => (0..NODES).prop_map(Step::Return),
        2 => (0..DAEMONS, 0..NODES).prop_map(|(daemon, node)| Step::Ping(daemon, node)),
        6 => (0..DAEMONS, 0..NODES).prop_map(|(daemon, node)| Step::Ask(daemon, node)),
        1 => (0..DAEMONS).prop_map(Step::RestartDaemon),
        1 => any::<bool>().prop_map(Step::Relay),
        4 => pass.prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..60)
}

/// What is visible from outside.
#[derive(Default)]
struct Model {
    away: BTreeMap<usize, (UnixTime, Way)>,
    /// When a node's link came back last.
    link_returned: BTreeMap<usize, UnixTime>,
    /// Who talked to whom, and whether the peer has had a new life since a long absence.
    channels: BTreeMap<(usize, usize), bool>,
    relay_is_down: bool,
    relay_restarted: Option<UnixTime>,
}

impl Model {
    fn since(at: Option<UnixTime>, now: UnixTime) -> f64 {
        at.map_or(f64::MAX, |at| now.saturating_sub(at).as_secs_f64())
    }

    /// What the relay must, or may, know of a node.
    fn may_be_known(&self, node: usize, now: UnixTime) -> BTreeSet<bool> {
        let restarted = Model::since(self.relay_restarted, now);
        let returned = Model::since(self.link_returned.get(&node).copied(), now);
        let settled = restarted > 35.0 && returned > 28.0;
        let Some(&(left, way)) = self.away.get(&node) else {
            return if settled { BTreeSet::from([true]) } else { BTreeSet::from([true, false]) };
        };
        let gone = Model::since(Some(left), now);
        // Before it left it may not have come back to the relay.
        let was_settled = restarted - gone > 35.0 && returned - gone > 28.0;
        let (surely_until, never_after) =
            if way == Way::Process { (11.9, 161.0) } else { (584.0, 601.0) };
        match gone {
            _ if restarted < gone => BTreeSet::from([false]),
            gone if gone > never_after => BTreeSet::from([false]),
            gone if gone < surely_until && was_settled => BTreeSet::from([true]),
            _ => BTreeSet::from([true, false]),
        }
    }

    /// What an answer looks like, unless it may be this or that. `known`: whether the relay has a
    /// session of the node.
    fn expects(&self, daemon: usize, node: usize, known: bool, now: UnixTime) -> Option<Shape> {
        let away = self.away.contains_key(&node);
        let Some(&stale) = self.channels.get(&(daemon, node)) else {
            return Some(match (self.relay_is_down, known, away) {
                (true, ..) => Shape::RelaySilent,
                (false, false, _) => Shape::NotFound,
                (false, true, true) => Shape::Silent,
                (false, true, false) => Shape::Answered,
            });
        };
        let reached = if stale { Shape::Silent } else { Shape::Answered };
        match (away, known) {
            (true, true) => Some(Shape::Silent),
            (true, false) => Some(Shape::Closed),
            (false, true) => Some(reached),
            // Alive, and not back at the relay yet.
            (false, false) if self.link_returned.get(&node) > self.relay_restarted.as_ref() => {
                Some(Shape::Closed)
            }
            (false, false) => match Model::since(self.relay_restarted, now) {
                restarted if restarted < 25.5 => Some(Shape::Closed),
                restarted if restarted > 26.5 => Some(reached),
                _ => None,
            },
        }
    }

    /// What the answer means for the next.
    fn saw(&mut self, daemon: usize, node: usize, shape: Shape) {
        let away = self.away.contains_key(&node);
        match self.channels.get_mut(&(daemon, node)) {
            // The first question after the return was lost, the next is not.
            Some(stale) if !away && shape != Shape::Closed => *stale = false,
            None if shape == Shape::Answered => {
                self.channels.insert((daemon, node), false);
            }
            _ => {}
        }
    }

    fn came_back(&mut self, node: usize, outage: f64) {
        for ((_, peer), stale) in &mut self.channels {
            if *peer == node {
                *stale = outage >= 20.0;
            }
        }
    }
}

struct Course {
    world: World,
    ids: Vec<String>,
    daemons: Vec<(Daemon, Client)>,
    model: Model,
}

impl Course {
    async fn begin() -> Course {
        let world = World::new(71);
        let timing = NetTiming { older_session_share: 0.0, ..NetTiming::default() };
        world.set_timing(timing);
        let ids = populate(&world, NODES, "public");
        let limits = Limits::momentary();
        let mut daemons = Vec::new();
        for _ in 0..DAEMONS {
            daemons.push(daemon(&world, DaemonOptions { limits, ..Default::default() }).await);
        }
        Course { world, ids, daemons, model: Model::default() }
    }

    async fn take(&mut self, step: Step) {
        let now = self.world.now();
        match step {
            Step::Leave(node, way) if !self.model.away.contains_key(&node) => {
                let id = &self.ids[node];
                match way {
                    Way::Process => self.world.kill_process(id),
                    Way::Host => self.world.kill(id),
                    Way::Frozen => self.world.freeze(id),
                    Way::Link => self.world.link_down(id),
                }
                self.model.away.insert(node, (now, way));
            }
            Step::Leave(..) => {}
            Step::Return(node) => self.bring_back(node, now),
            Step::Ping(daemon, node) => self.ping(daemon, node).await,
            Step::Ask(daemon, node) => self.ask(daemon, node).await,
            Step::RestartDaemon(daemon) => {
                let how = Restart { relearn_after: Duration::ZERO, blind_for: Duration::ZERO };
                self.daemons[daemon].0.restart(how).await.unwrap();
                self.model.channels.retain(|(by, _), _| *by != daemon);
            }
            Step::Relay(false) if !self.model.relay_is_down => {
                self.world.relay_down();
                self.model.relay_is_down = true;
            }
            Step::Relay(true) if self.model.relay_is_down => {
                self.world.relay_up();
                self.model.relay_is_down = false;
                self.model.relay_restarted = Some(now);
            }
            Step::Relay(_) => {}
            Step::Pass(seconds) => self.world.advance(Duration::from_secs(seconds)),
        }
    }

    fn bring_back(&mut self, node: usize, now: UnixTime) {
        let Some((left, way)) = self.model.away.remove(&node) else { return };
        let id = &self.ids[node];
        let goes_on = way == Way::Frozen && self.world.seen_age(id).is_some();
        self.model.link_returned.remove(&node);
        if way == Way::Link {
            self.world.link_up(id);
            self.model.link_returned.insert(node, now);
        } else {
            self.world.revive(id);
        }
        if !goes_on {
            self.model.came_back(node, now.saturating_sub(left).as_secs_f64());
        }
    }

    /// The answer now. Compares what the relay knows with the model.
    fn expects(&self, daemon: usize, node: usize) -> Option<Shape> {
        let now = self.world.now();
        let known = self.world.seen_age(&self.ids[node]).is_some();
        let may = self.model.may_be_known(node, now);
        assert!(may.contains(&known), "known: {known}, {:?}", self.model.away.get(&node));
        self.model.expects(daemon, node, known, now)
    }

    async fn ask(&mut self, daemon: usize, node: usize) {
        let Some(expected) = self.expects(daemon, node) else { return };
        let (status, body) = self.daemons[daemon].1.ask(&self.ids[node]).await;
        let text = body["message"].as_str().unwrap_or_default();
        let no_channel = text.starts_with("GSB failure: Net: error forwarding message: Fail to");
        let shape = match status.as_u16() {
            200 if body.is_array() => Shape::Answered,
            504 if text == "Timeout while attempting to fetch data from a peer" => Shape::Silent,
            500 if text == "GSB failure: Net: error sending message: session closed" => {
                Shape::Closed
            }
            500 if no_channel && text.ends_with("code 404") => Shape::NotFound,
            500 if no_channel && text.ends_with("out after 3000 ms") => Shape::RelaySilent,
            _ => panic!("no recorded shape: {status} {body}"),
        };
        assert_eq!(shape, expected);
        self.model.saw(daemon, node, shape);
    }

    async fn ping(&mut self, daemon: usize, node: usize) {
        let Some(expected) = self.expects(daemon, node) else { return };
        let answered = self.daemons[daemon].1.ping(&[&self.ids[node]]).await[0];
        assert_eq!(answered, expected == Shape::Answered, "{expected:?}");
        self.model.saw(daemon, node, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn answers_depend_on_channel_and_life(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut course = Course::begin().await;
            for step in steps {
                course.take(step).await;
            }
        });
    }
}
