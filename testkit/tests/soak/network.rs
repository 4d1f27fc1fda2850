//! The network the probes look at: providers that die and come back, three daemons and a relay
//! that misbehave.
//!
//! Owns the record of who was there when, which is the truth the aggregator is held to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use uptime_testkit::fake_yagna::{
    Daemon, DaemonOptions, Fault, FaultKind, NetTiming, ProviderSpec, Relay, RelayOptions, Restart,
    View, World,
};

use super::PATIENCE;
use super::children::{APP_KEY, PROBES, SUBNETS};

/// Providers that are there all the time, and such that may die.
const STEADFAST: usize = 90;
const MORTAL: usize = 90;
/// More are never dead at once: a probe that loses sight of half of all nodes is not believed.
const DEAD_MAX: usize = 60;
/// So many die or come back in a round, at most: a mortal lives, or is dead, for a minute or so.
const CHANGES_MAX: usize = 6;

/// Whoever comes back publishes another offer beside those of before: they end after this, so that
/// the market, which the memory of a probe is measured beside, does not grow with every round.
const OFFER_LIFETIME: Duration = Duration::from_secs(120);

/// A stretch of a provider's life or death, unix milliseconds. While its beginning or end is
/// going on it is neither alive nor dead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) alive: bool,
    pub(crate) from_ms: i64,
    /// The maximum: it has not ended.
    pub(crate) to_ms: i64,
}

/// The network, and who was there when.
pub(crate) struct Network {
    pub(crate) world: World,
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) relay: Relay,
    mortal: Vec<String>,
    pub(crate) lives: BTreeMap<String, Vec<Stretch>>,
}

impl Network {
    /// Providers in two subnets, daemons with different partial views, one relay.
    pub(crate) async fn open(seed: u64) -> Self {
        let world = World::new(seed);
        let quick = NetTiming {
            ping_interval: Duration::from_secs(1),
            offer_lifetime: OFFER_LIFETIME,
            ..world.timing()
        };
        world.set_timing(quick);
        let ids: Vec<String> = (0..STEADFAST + MORTAL)
            .map(|number| SUBNETS[usize::from(number % 3 == 0)])
            .map(|subnet| world.add_provider(ProviderSpec::in_subnet(subnet)))
            .collect();
        let mut daemons = Vec::new();
        for number in 0..PROBES {
            let seen = ids.iter().enumerate().filter(|(at, _)| number == 0 || at % 3 != number);
            let options = DaemonOptions {
                app_key: APP_KEY.into(),
                view: View::Only(seen.map(|(_, id)| id.clone()).collect::<BTreeSet<_>>()),
                relay_session_age: Duration::from_secs(3_600),
                ..DaemonOptions::default()
            };
            daemons.push(Daemon::start(world.clone(), options).await.unwrap());
        }
        let relay = Relay::start(world.clone(), RelayOptions::default()).await.unwrap();
        let from_ms = now_ms(&world);
        let life = Stretch { alive: true, from_ms, to_ms: i64::MAX };
        let lives = ids.iter().map(|id| (id.clone(), vec![life])).collect();
        Self { world, daemons, relay, mortal: ids[STEADFAST..].to_vec(), lives }
    }

    fn is_alive(&self, id: &str) -> bool {
        self.lives[id].last().is_some_and(|stretch| stretch.alive)
    }

    /// How many providers are alive and dead now.
    pub(crate) fn count(&self) -> (u64, u64) {
        let alive = self.lives.keys().filter(|id| self.is_alive(id)).count();
        (alive as u64, (self.lives.len() - alive) as u64)
    }

    /// Some providers die or freeze, others come back, as the dice say.
    pub(crate) fn live_on(&mut self, dice: &mut StdRng) {
        for _ in 0..dice.random_range(0..=CHANGES_MAX) {
            self.change_one(dice);
        }
    }

    fn change_one(&mut self, dice: &mut StdRng) {
        let any = self.mortal[dice.random_range(0..self.mortal.len())].clone();
        let (frozen, alive) = (dice.random_bool(0.3), self.is_alive(&any));
        let (_, dead) = self.count();
        if alive && dead >= DEAD_MAX as u64 {
            return;
        }
        let from = now_ms(&self.world);
        match (alive, frozen) {
            (true, true) => self.world.freeze(&any),
            (true, false) => self.world.kill(&any),
            (false, _) => self.world.revive(&any),
        }
        let to = now_ms(&self.world);
        if let Some(stretches) = self.lives.get_mut(&any) {
            stretches.iter_mut().rev().take(1).for_each(|last| last.to_ms = from);
            stretches.push(Stretch { alive: !alive, from_ms: to, to_ms: i64::MAX });
        }
    }

    /// Something goes wrong with a daemon; answers what.
    pub(crate) async fn trouble_daemon(&self, number: usize, dice: &mut StdRng) -> &'static str {
        let daemon = &self.daemons[number];
        let fault = |kind| daemon.set_fault(Some(Fault::new("/", kind)));
        match dice.random_range(0..10) {
            0 => {
                daemon.freeze();
                "daemon frozen"
            }
            1 => {
                daemon.stop_listening().await;
                "daemon refuses connections"
            }
            2 => {
                fault(FaultKind::Status(503, "busy".into()));
                "daemon answers 503"
            }
            3 => {
                fault(FaultKind::MalformedJson);
                "daemon malformed"
            }
            4 => {
                fault(FaultKind::TruncatedJson);
                "daemon truncated"
            }
            5 => {
                fault(FaultKind::CloseWithoutByte);
                "daemon closes"
            }
            6 => {
                fault(FaultKind::Latency(Duration::from_millis(700)));
                "daemon slow"
            }
            7 => {
                fault(FaultKind::SlowDrip(Duration::from_millis(5)));
                "daemon drips"
            }
            8 => {
                daemon.refuse_key(true);
                "daemon refuses the key"
            }
            _ => {
                // Its port may be a client's for a moment; healing listens until it is free.
                daemon.restart(Restart::default()).await.ok();
                "daemon restarted"
            }
        }
    }

    /// Whatever was wrong with a daemon is so no more.
    pub(crate) async fn heal_daemon(&self, number: usize) {
        let daemon = &self.daemons[number];
        daemon.set_fault(None);
        daemon.refuse_key(false);
        daemon.thaw();
        let listens = async {
            while daemon.listen().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listens).await.expect("the daemon's port is free again");
    }

    /// Something goes wrong with the relay's listing; answers what.
    pub(crate) fn trouble_relay(&self, dice: &mut StdRng) -> &'static str {
        match dice.random_range(0..4) {
            0 => {
                self.relay.freeze();
                "relay frozen"
            }
            1 => {
                let fault = Fault::new("/", FaultKind::Status(500, "broken".into()));
                self.relay.set_faults(vec![fault]);
                "relay answers 500"
            }
            2 => {
                self.relay.set_faults(vec![Fault::new("/", FaultKind::CutShort)]);
                "relay cuts short"
            }
            _ => {
                self.relay.lag();
                "relay lags"
            }
        }
    }

    /// Whatever was wrong with the relay is so no more.
    pub(crate) fn heal_relay(&self) {
        self.relay.set_faults(Vec::new());
        self.relay.thaw();
    }
}

/// The world's time, which is the machine's: unix milliseconds.
pub(crate) fn now_ms(world: &World) -> i64 {
    i64::try_from(world.now().as_millis()).unwrap()
}
