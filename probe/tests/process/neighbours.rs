//! Several probes beside one daemon leave each other's demands alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, World};

use super::fake_collector::{collector, daemon_with, probe, wait_for};

const PATIENCE: Duration = Duration::from_secs(40);

/// The marks of all demands that are open now.
async fn marks(daemon: &Daemon) -> Vec<String> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let url = format!("{}/market-api/v1/demands", daemon.base_url());
    let asked = reqwest::Client::new().get(url).bearer_auth("the-key").send().await.unwrap();
    let demands: Vec<Value> = asked.json().await.unwrap();
    let mark = |demand: &Value| demand["properties"]["golem.uptime.probe"].as_str().map(Into::into);
    demands.iter().filter_map(mark).collect()
}

/// Watches until demands with so many marks were open.
async fn watch(daemon: &Daemon, marks_seen: &mut BTreeSet<String>, count: usize) {
    let watched = tokio::time::timeout(PATIENCE, async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while marks_seen.len() < count {
            tick.tick().await;
            marks_seen.extend(marks(daemon).await);
        }
    });
    assert!(watched.await.is_ok(), "{marks_seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_probe_marks_its_demands_with_a_name_that_it_keeps() {
    let world = World::new(5);
    let options = DaemonOptions { has_scan_api: false, ..DaemonOptions::default() };
    let daemon = daemon_with(&world, options).await;
    let collector = collector(true, None).await;
    let directory = tempfile::tempdir().unwrap();
    let spool = |name: &str| directory.path().join(name);
    let start = |spool: &Path| probe("run", &daemon, &collector.address, spool).spawn().unwrap();
    let mut first = start(&spool("first"));
    let mut seen = BTreeSet::new();
    watch(&daemon, &mut seen, 1).await;
    let mut second = start(&spool("second"));
    watch(&daemon, &mut seen, 2).await;
    second.kill().await.unwrap();
    // It is started again and goes by the same name: what it left behind is deleted by it.
    let parts = collector.received.borrow().parts.len();
    let mut second = start(&spool("second"));
    wait_for(&collector.received, |received| received.parts.len() >= parts + 6).await;
    seen.extend(marks(&daemon).await);
    assert_eq!(seen.len(), 2, "{seen:?}");
    // One look in between has a name of its own.
    let mut scan = probe("scan", &daemon, &collector.address, &spool("second")).spawn().unwrap();
    watch(&daemon, &mut seen, 3).await;
    scan.kill().await.unwrap();
    first.kill().await.unwrap();
    second.kill().await.unwrap();
    assert!(!seen.contains("default"), "{seen:?}");
}
