//! A network to show things with: daemons with different partial views, providers over several
//! subnets, one of them dead but still on the market.
//!
//! Owns how such a network is drawn from a seed. What can be learnt from it: no daemon sees
//! everything, every provider is seen by two, and an offer is no proof of life.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::daemon::Daemon;
use super::offer::ProviderSpec;
use super::options::{DaemonOptions, View};
use super::relay::{Relay, RelayOptions};
use super::world::World;

/// The share of providers in the first subnet; the others share the rest.
const FIRST_SUBNET: f64 = 0.7;
/// Long enough that `seen` is stale by any measure, short enough that the relay remembers.
const DEAD_FOR: Duration = Duration::from_secs(60);
/// Daemons are old hands from the start: a young one is not to be believed.
const SESSION_AGE: Duration = Duration::from_secs(3600);

/// What the network consists of. Not `Debug`: it carries the key.
#[derive(Clone)]
pub struct Plan {
    /// Draws everything.
    pub seed: u64,
    /// How many daemons.
    pub daemons: usize,
    /// How many providers, the dead one included.
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
    /// The dead provider, if there are providers.
    pub dead: Option<String>,
}

impl Demonstration {
    /// Draws the network and starts its servers on free ports.
    ///
    /// # Errors
    /// If a port cannot be bound.
    pub async fn start(plan: &Plan) -> io::Result<Demonstration> {
        let world = World::new(plan.seed);
        let mut rng = StdRng::seed_from_u64(plan.seed ^ 0xdead);
        let ids: Vec<String> = (0..plan.providers)
            .map(|at| subnet(&plan.subnets, at, plan.providers))
            .map(|subnet| world.add_provider(ProviderSpec::in_subnet(subnet)))
            .collect();
        let dead = (!ids.is_empty()).then(|| ids[rng.random_range(0..ids.len())].clone());
        if let Some(id) = &dead {
            world.kill_ago(id, DEAD_FOR);
        }
        let mut daemons = Vec::new();
        for view in views(&ids, dead.as_deref(), plan.daemons, &mut rng) {
            let options = DaemonOptions {
                app_key: plan.app_key.clone(),
                view: View::Only(view),
                relay_session_age: SESSION_AGE,
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

/// Every provider is in at least two views where there are two, the dead one in all; no view has
/// everything where there are three.
fn views(
    ids: &[String],
    dead: Option<&str>,
    daemons: usize,
    rng: &mut StdRng,
) -> Vec<BTreeSet<String>> {
    let mut views = vec![BTreeSet::new(); daemons];
    let mut order: Vec<usize> = (0..daemons).collect();
    for id in ids {
        order.shuffle(rng);
        let most = daemons.saturating_sub(2);
        let blind = if dead == Some(id) { 0 } else { rng.random_range(0..=most) };
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
            let views = views(&ids, Some(&ids[5]), daemons, &mut rng);
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
