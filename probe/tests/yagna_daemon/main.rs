//! The yagna room against a fake daemon, over real sockets.
//!
//! Time limits are short; nothing here waits for a fixed time. What is put to the fake is
//! judged by what it counts: requests, and the scans and demands that are still open.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod command;
mod faults;
mod market;
mod net;
mod peer;
mod ping;
mod real;
mod suspects;

use std::fmt::Debug;
use std::time::Duration;

use uptime_probe::yagna::{AppKey, CouldNotLook, Limits, Yagna, YagnaOptions};
use uptime_proto::{NodeId, Reason};
use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, World};

const KEY: &str = "fake-key";

/// The world's time at the start of a test, unix seconds.
const START_S: u64 = 1_800_000_000;

fn world() -> World {
    World::at(7, Duration::from_secs(START_S))
}

fn now_unix_ms() -> i64 {
    1_800_000_000_000
}

fn limits() -> Limits {
    Limits { market_timeout: Duration::from_secs(4), page_offers_max: 4, ..Limits::default() }
}

/// For tests that wait for a time limit to pass.
fn impatient() -> Limits {
    Limits { answer_timeout: Duration::from_millis(500), ..limits() }
}

fn yagna_with(daemon: &Daemon, limits: Limits) -> Yagna {
    Yagna::new(YagnaOptions {
        base_url: daemon.base_url(),
        app_key: AppKey::new(KEY.to_owned()),
        limits,
        now_unix_ms,
    })
    .unwrap()
}

fn yagna(daemon: &Daemon) -> Yagna {
    yagna_with(daemon, limits())
}

async fn daemon(world: &World) -> Daemon {
    Daemon::start(world.clone(), DaemonOptions::default()).await.unwrap()
}

async fn old_daemon(world: &World) -> Daemon {
    let options = DaemonOptions { has_scan_api: false, ..DaemonOptions::default() };
    Daemon::start(world.clone(), options).await.unwrap()
}

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn reason<T: Debug>(result: Result<T, CouldNotLook>) -> Reason {
    result.unwrap_err().reason
}

/// Waits for something that other tasks bring about.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        while !condition() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect(what);
}
