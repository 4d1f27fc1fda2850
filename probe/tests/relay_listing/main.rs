//! The relay room against a fake relay, over real sockets.
//!
//! What the tests send is judged by the counters of the fake. Limits are short where a test waits
//! for one to pass; nothing here waits for a fixed time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod faults;
mod listing;
mod watching;

use std::fmt::Debug;
use std::time::Duration;

use uptime_probe::yagna::relay::{Listed, RelayWatch};
use uptime_probe::yagna::{CouldNotLook, Relay, RelayLimits, RelayOptions};
use uptime_proto::{NodeId, Reason};
use uptime_testkit::fake_yagna::{self, Fault, FaultKind, Flavour, ProviderSpec, World};

/// The first listing asks for the sixteen single digits.
const FIRST_PAGES: u64 = 16;

fn world() -> World {
    World::at(7, Duration::from_secs(1_800_000_000))
}

/// Limits under which the pace and the whole time do not matter.
fn brisk() -> RelayLimits {
    RelayLimits {
        requests_per_s_max: 100_000,
        listing_timeout: Duration::from_secs(60),
        answer_timeout: Duration::from_secs(20),
        reconnect_first: Duration::from_millis(5),
        reconnect_last: Duration::from_millis(50),
        relist_pause: Duration::from_millis(1),
        ..RelayLimits::default()
    }
}

async fn fake_relay(world: &World, flavour: Flavour) -> fake_yagna::Relay {
    let options = fake_yagna::RelayOptions { flavour, ..fake_yagna::RelayOptions::default() };
    fake_yagna::Relay::start(world.clone(), options).await.unwrap()
}

fn relay_with(fake: &fake_yagna::Relay, limits: RelayLimits) -> Relay {
    Relay::new(RelayOptions { base_url: fake.base_url(), limits }).unwrap()
}

fn relay(fake: &fake_yagna::Relay) -> Relay {
    relay_with(fake, brisk())
}

/// Adds a node without offers whose id begins with these digits.
fn add(world: &World, digits: &str, number: usize) -> String {
    let id = format!("0x{digits}{number:0>width$x}", width = 40 - digits.len());
    let spec = ProviderSpec { id: Some(id), runtimes: Vec::new(), ..ProviderSpec::default() };
    world.add_provider(spec)
}

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn ids(listed: &[Listed]) -> Vec<NodeId> {
    listed.iter().map(|listed| listed.node_id).collect()
}

/// The same form: in order, nobody twice.
fn expected<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<NodeId> {
    let mut ids: Vec<NodeId> = texts.into_iter().map(|text| id(text)).collect();
    ids.sort_unstable();
    ids
}

fn reason<T: Debug>(result: Result<T, CouldNotLook>) -> Reason {
    result.unwrap_err().reason
}

fn asked(fake: &fake_yagna::Relay, route: &str) -> u64 {
    fake.requests().get(route).copied().unwrap_or(0)
}

/// How many pages were asked for so far.
fn pages(fake: &fake_yagna::Relay) -> u64 {
    asked(fake, "GET /nodes/{prefix}")
}

/// Waits for something that other tasks bring about.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        while !condition() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect(what);
}

fn knows(watch: &RelayWatch, id: &str) -> bool {
    let id: NodeId = id.parse().unwrap();
    watch.known().is_some_and(|known| known.iter().any(|listed| listed.node_id == id))
}
