//! The network of the demonstration: daemons with different partial views, and providers in several
//! subnets. Three providers are dead, each in a different way, and still on the market.
//!
//! Owns how the network is drawn from a seed. It shows that no daemon sees all providers, that two
//! see each provider, that an offer is not a sign of life, and that a daemon that once talked to a
//! dead node answers differently from one that did not.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::daemon::Daemon;
use super::offer::ProviderSpec;
use super::options::{DaemonOptions, View};
use super::relay::{Relay, RelayOptions};
use super::timing::NetTiming;
use super::world::World;

/// The share of providers in the first subnet; the others share the rest.
const FIRST_SUBNET: f64 = 0.7;
/// Long enough that `seen` is stale by any measure, short enough that the relay remembers.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// Long enough that the relay has learnt of the death of a process.
const PROCESS_DEAD_FOR: Duration = Duration::from_secs(300);
const DEATHS: [Death; 3] = [Death::ProcessDied, Death::HostGone, Death::Frozen];
/// Sessions are old from the start: a young one does not count.
const SESSION_AGE: Duration = Duration::from_secs(3600);

/// What the network consists of. Not `Debug`: it carries the key.
#[derive(Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How many daemons.
    pub daemons: usize,
    /// How many providers, the dead ones included.
    pub providers: usize,
    /// The first gets about 70 % of them.
    pub subnets: Vec<String>,
    /// The key all daemons take.
    pub app_key: String,
    /// Whether there is a relay listing too.
    pub relay: bool,
}

/// A running demonstration network. Dropping it stops it.
#[derive(Debug)]
pub struct Demonstration {
    /// The network.
    pub world: World,
    /// The daemons, in the order of their indices.
    pub daemons: Vec<Daemon>,
    /// The relay listing, if planned.
    pub relay: Option<Relay>,
    /// The dead providers and how each died; three, if there are so many.
    pub dead: Vec<(String, Death)>,
}

/// How a provider of the demonstration died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Its process died: the relay has dropped it, the daemons' channels to it are closed.
    ProcessDied,
    /// Its host is gone: the relay still knows it, and questions to it time out.
    HostGone,
    /// It is frozen: from outside, the same as a host that is gone.
    Frozen,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Death::ProcessDied => "process-died",
            Death::HostGone => "host-gone",
            Death::Frozen => "frozen",
        })
    }
}

impl Demonstration {
    /// Draws the network and starts its servers on free ports.
    ///
    /// # Errors
    /// If a port cannot be bound.
    pub async fn start(plan: &Plan) -> io::Result<Demonstration> {
        let world = World::new(plan.seed);
        world.set_timing(NetTiming::realistic());
        let mut rng = StdRng::seed_from_u64(plan.seed ^ 0xdead);
        let ids: Vec<String> = (0..plan.providers)
            .map(|at| subnet(&plan.subnets, at, plan.providers))
            .map(|subnet| world.add_provider(ProviderSpec::in_subnet(subnet)))
            .collect();
        let drawn = ids.choose_multiple(&mut rng, DEATHS.len()).cloned();
        let dead: Vec<(String, Death)> = drawn.zip(DEATHS).collect();
        for (id, death) in &dead {
            match death {
                Death::ProcessDied => world.kill_process_ago(id, PROCESS_DEAD_FOR),
                Death::HostGone => world.kill_ago(id, SILENT_FOR),
                Death::Frozen => world.freeze_ago(id, SILENT_FOR),
            }
        }
        let dead_ids: BTreeSet<String> = dead.iter().map(|(id, _)| id.clone()).collect();
        let mut daemons = Vec::new();
        for view in views(&ids, &dead_ids, plan.daemons, &mut rng) {
            let options = DaemonOptions {
                app_key: plan.app_key.clone(),
                view: View::Only(view),
                relay_session_age: SESSION_AGE,
                gossips: true,
                ..DaemonOptions::default()
            };
            daemons.push(Daemon::start(world.clone(), options).await?);
        }
        let relay = if plan.relay {
            Some(Relay::start(world.clone(), RelayOptions::default()).await?)
        } else {
            None
        };
        Ok(Demonstration { world, daemons, relay, dead })
    }
}

/// Where the provider of this number belongs.
fn subnet(subnets: &[String], at: usize, providers: usize) -> &str {
    let share = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
    let in_first = share(at) < share(providers) * FIRST_SUBNET;
    match subnets {
        [] => "public",
        [only] => only,
        [first, ..] if in_first => first,
        [_, others @ ..] => &others[at % others.len()],
    }
}

/// Every provider is in at least two views if there are two, and the dead ones are in all. With
/// three or more daemons, no view has all providers.
fn views(
    ids: &[String],
    dead: &BTreeSet<String>,
    daemons: usize,
    rng: &mut StdRng,
) -> Vec<BTreeSet<String>> {
    let mut views = vec![BTreeSet::new(); daemons];
    let mut order: Vec<usize> = (0..daemons).collect();
    for id in ids {
        order.shuffle(rng);
        let most = daemons.saturating_sub(2);
        let blind = if dead.contains(id) { 0 } else { rng.random_range(0..=most) };
        for &at in &order[blind..] {
            views[at].insert(id.clone());
        }
    }
    views
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_partial_and_overlap() {
        let ids: Vec<String> = (0..300).map(|n| format!("0x{n:040x}")).collect();
        for daemons in 1..6 {
            let mut rng = StdRng::seed_from_u64(7);
            let views = views(&ids, &BTreeSet::from([ids[5].clone()]), daemons, &mut rng);
            for id in &ids {
                let seen_by = views.iter().filter(|view| view.contains(id)).count();
                assert!(seen_by >= daemons.min(2), "{id} of {daemons}");
            }
            assert!(views.iter().all(|view| view.contains(&ids[5])));
            assert!(daemons < 3 || views.iter().all(|view| view.len() < ids.len()));
        }
    }

    #[test]
    fn subnets_share_seventy_to_thirty() {
        let subnets = ["public".to_owned(), "testnet".to_owned()];
        let first = (0..300).filter(|&at| subnet(&subnets, at, 300) == "public").count();
        assert_eq!(first, 210);
    }
}
