//! The network of a course: what happens in it, and who really lives.
//!
//! Owns the truth that verdicts are held to. Refuses to know what the relay or a daemon says.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use uptime_proto::{NodeId, Round};
use uptime_testkit::fake_yagna::{
    Daemon, DaemonOptions, Limits, NetTiming, ProviderSpec, Restart, UnixTime, World,
};

/// The start of the first round, unix seconds.
pub(super) const START_S: u64 = 1_800_000_000;
/// Enough that a probe can tell when it loses sight of most of them.
const NODES: usize = 30;
const DAEMONS_MAX: usize = 4;
/// A node whose link was away is back with the relay after so long at the latest.
const REGISTERED_AFTER: Duration = Duration::from_secs(28);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Process,
    Host,
    Frozen,
    Stopped,
    Link,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Leave(usize, Way),
    Return(usize),
    /// From now on the relay's `seen` of it grows, though it lives.
    Hold(usize),
    Resume(usize),
    /// It makes another identity.
    Second(usize),
    RelayDown,
    RelayUp,
    Freeze(usize),
    Thaw(usize),
    Cold(usize),
}

/// Trouble is short: while it lasts nothing can be said of the dead. Half of the nodes never leave.
pub(super) fn steps() -> impl Strategy<Value = Step> {
    let (mortal, any) = (0..NODES / 2, 0..NODES);
    let daemon = 0..DAEMONS_MAX;
    let ways = vec![Way::Process, Way::Host, Way::Frozen, Way::Stopped, Way::Link];
    let way = prop::sample::select(ways);
    prop_oneof![
        18 => (mortal.clone(), way).prop_map(|(at, way)| Step::Leave(at, way)),
        9 => mortal.prop_map(Step::Return),
        4 => any.clone().prop_map(Step::Hold),
        4 => any.clone().prop_map(Step::Resume),
        2 => any.prop_map(Step::Second),
        1 => Just(Step::RelayDown),
        8 => Just(Step::RelayUp),
        1 => daemon.clone().prop_map(Step::Freeze),
        6 => daemon.clone().prop_map(Step::Thaw),
        2 => daemon.prop_map(Step::Cold),
    ]
}

/// How a node fares.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// It can be reached since then.
    Here(UnixTime),
    Away(UnixTime, Way),
}

pub(super) struct Network {
    pub(super) world: World,
    pub(super) daemons: Vec<Daemon>,
    ids: Vec<String>,
    lives: Vec<Life>,
    /// Every identity, and whose it is.
    owners: BTreeMap<NodeId, usize>,
    relay_is_down: bool,
}

impl Network {
    /// Nodes that all live, and so many daemons, every other one with channels to all of them.
    pub(super) async fn open(seed: u64, daemons: usize) -> Self {
        let world = World::at(seed, Duration::from_secs(START_S));
        world.set_timing(NetTiming::realistic());
        let spec = || ProviderSpec::in_subnet("public");
        let ids: Vec<String> = (0..NODES).map(|_| world.add_provider(spec())).collect();
        // No time passes but by pushing the clock.
        let limits = Limits::momentary();
        let mut started = Vec::new();
        for number in 0..daemons {
            let gossips = (seed >> number) & 1 == 1;
            let options = DaemonOptions { limits, gossips, ..DaemonOptions::default() };
            started.push(Daemon::start(world.clone(), options).await.unwrap());
        }
        let owners = ids.iter().enumerate().map(|(at, id)| (id.parse().unwrap(), at)).collect();
        let lives = vec![Life::Here(Duration::ZERO); NODES];
        Self { world, daemons: started, ids, lives, owners, relay_is_down: false }
    }

    /// Every identity there is.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.owners.keys().copied().collect()
    }

    /// Unix milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.world.now().as_millis()).unwrap()
    }

    /// Pushes the clock to this moment of a round.
    pub(super) fn pass_until(&self, round: Round, offset: Duration) {
        let moment = Duration::from_secs(round.start_s()) + offset;
        self.world.advance(moment.saturating_sub(self.world.now()));
    }

    pub(super) async fn take(&mut self, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Leave(at, way) => self.leave(at, way),
                Step::Return(at) => self.come_back(at),
                Step::Hold(at) => self.world.hold_pings(&self.ids[at]),
                Step::Resume(at) => self.world.resume_pings(&self.ids[at]),
                Step::Second(at) => self.make_second(at),
                Step::RelayDown if !self.relay_is_down => {
                    self.world.relay_down();
                    self.relay_is_down = true;
                }
                Step::RelayUp if self.relay_is_down => {
                    self.world.relay_up();
                    self.relay_is_down = false;
                }
                Step::RelayDown | Step::RelayUp => {}
                Step::Freeze(at) => self.daemons[at % self.daemons.len()].freeze(),
                Step::Thaw(at) => self.daemons[at % self.daemons.len()].thaw(),
                Step::Cold(at) => {
                    let daemon = &self.daemons[at % self.daemons.len()];
                    // Its port may be a client's for a moment.
                    while daemon.restart(Restart::default()).await.is_err() {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    fn leave(&mut self, at: usize, way: Way) {
        let (Life::Here(_), id) = (self.lives[at], &self.ids[at]) else { return };
        match way {
            Way::Process => self.world.kill_process(id),
            Way::Host => self.world.kill(id),
            Way::Frozen => self.world.freeze(id),
            Way::Stopped => self.world.stop(id),
            Way::Link => self.world.link_down(id),
        }
        self.lives[at] = Life::Away(self.world.now(), way);
    }

    fn come_back(&mut self, at: usize) {
        let Life::Away(_, way) = self.lives[at] else { return };
        let now = self.world.now();
        if way == Way::Link {
            self.world.link_up(&self.ids[at]);
            self.lives[at] = Life::Here(now + REGISTERED_AFTER);
        } else {
            self.world.revive(&self.ids[at]);
            self.lives[at] = Life::Here(now);
        }
    }

    fn make_second(&mut self, at: usize) {
        if matches!(self.lives[at], Life::Here(_)) {
            let identity = self.world.add_identity(&self.ids[at]);
            self.owners.insert(identity.parse().unwrap(), at);
        }
    }

    /// Whether the node could be reached from the beginning of a round to now.
    pub(super) fn lived_through(&self, id: NodeId, round: Round) -> bool {
        let begin = Duration::from_secs(round.start_s());
        matches!(self.lives[self.owners[&id]], Life::Here(since) if since <= begin)
    }

    /// How many rounds after its death a round is; `None`: it is not dead.
    pub(super) fn dead_for_rounds(&self, id: NodeId, round: Round) -> Option<u64> {
        let Life::Away(since, _) = self.lives[self.owners[&id]] else { return None };
        let period_s = u64::from(round.period().seconds());
        let died_s = since.as_secs() / period_s * period_s;
        Some(round.start_s().saturating_sub(died_s) / period_s)
    }

    /// For people.
    pub(super) fn told(&self, id: NodeId) -> String {
        let at = self.owners[&id];
        format!("number {at}, {:?}, at {:?}", self.lives[at], self.world.now())
    }
}
