//! The network in which the recordings were made: one requestor, three providers with offers,
//! two nodes without that were killed and frozen.

use std::time::Duration;

use serde_json::Value;
use uptime_testkit::fake_yagna::recording::Recording;
use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, Limits, ProviderSpec, World};

pub const REQUESTOR: &str = "0x02b825859950ee253c103a91e082d9670e3a45fa";
pub const PROVIDER_1: &str = "0x85f06344fde97d390e87b0840b0325212f26eba7";
pub const PROVIDER_2: &str = "0x981deac1b74110c26989e9b8b7967614fbf41292";
pub const PROVIDER_3: &str = "0xa6d47feac05940d1ea806facf9513b0c6ddd5c0c";
pub const KILLED: &str = "0x73ad8b57b198631d45e2372581115c0602384f11";
pub const FROZEN: &str = "0xbbb2c21a8f7ce9d7f4a54f3023521b67baefeea4";

/// 2026-11-23T21:18:02Z, when the recordings begin; offers were published at 21:16.
pub const BEGIN: u64 = 1_795_468_682;

/// What seconds of waiting are scaled to.
pub const SCALED: Duration = Duration::from_millis(60);

/// Limits under which every wait of the recordings takes [`SCALED`].
pub fn scaled() -> Limits {
    Limits {
        ping: SCALED,
        direct: SCALED,
        remote_ping: SCALED,
        relay_down: SCALED,
        relay_down_ping: SCALED,
        resend: SCALED / 10,
        poll_default: SCALED,
        poll_max: SCALED,
        // The scenes ask for what was matched long before.
        match_first: Duration::ZERO,
        match_each: Duration::ZERO,
        ..Limits::default()
    }
}

/// Offers as recorded in a scan's answer.
pub fn offers(number: &str, exchange: usize) -> Vec<Value> {
    let recording = Recording::load(number).unwrap();
    let answer = recording.exchanges[exchange].response.clone().unwrap();
    answer.json().as_array().unwrap().clone()
}

pub fn bare(id: &str, port: u16) -> ProviderSpec {
    let id = Some(id.to_owned());
    ProviderSpec { id, runtimes: Vec::new(), port: Some(port), ..ProviderSpec::default() }
}

/// The network at [`BEGIN`] plus `later`; nobody is dead yet.
pub fn network(later: u64) -> World {
    let world = World::at(1, Duration::from_secs(BEGIN + later));
    world.add_provider(bare(REQUESTOR, 11_500));
    for (offer, port) in offers("49", 1).into_iter().zip(11_501..) {
        world.add_recorded(&[offer], port);
    }
    world.add_provider(bare(FROZEN, 11_504));
    world.add_provider(bare(KILLED, 11_505));
    world
}

/// The requestor's daemon.
pub async fn daemon(world: &World, limits: Limits) -> Daemon {
    let options = DaemonOptions {
        app_key: "lab-appkey-0".to_owned(),
        identity: Some(REQUESTOR.to_owned()),
        limits,
        ..DaemonOptions::default()
    };
    Daemon::start(world.clone(), options).await.unwrap()
}

/// Provider 1's daemon.
pub async fn provider_daemon(world: &World) -> Daemon {
    let options = DaemonOptions {
        app_key: "lab-appkey-1".to_owned(),
        identity: Some(PROVIDER_1.to_owned()),
        limits: scaled(),
        ..DaemonOptions::default()
    };
    Daemon::start(world.clone(), options).await.unwrap()
}

/// Waits until a route has been asked that often.
pub async fn asked(daemon: &Daemon, route: &str, times: u64) {
    while daemon.count(route) < times {
        tokio::task::yield_now().await;
    }
}
