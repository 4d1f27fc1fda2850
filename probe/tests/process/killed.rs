//! Killed without notice: what a probe had written is delivered by the next one, and no key is
//! ever made with another content.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use uptime_proto::PartKey;

use super::fake_collector::{Received, collector, daemon, probe, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_probe_had_written_is_delivered_by_the_next() {
    let daemon = daemon().await;
    let collector = collector(false, None).await;
    let received = &collector.received;
    let start = |spool: &Path| probe("run", &daemon, &collector.address, spool).spawn().unwrap();
    let spool = tempfile::tempdir().unwrap();
    // Killed three times, each time with more in its spool, at moments that differ.
    for (run, parts) in [3, 6, 10].into_iter().enumerate() {
        let mut child = start(spool.path());
        wait_for(received, |received| received.parts.len() >= parts).await;
        tokio::time::sleep(Duration::from_millis(170 * run as u64)).await;
        child.kill().await.unwrap();
    }
    let before: BTreeMap<PartKey, usize> =
        received.borrow().parts.iter().map(|(key, copies)| (key.clone(), copies.len())).collect();
    // The next one delivers all of it, and may then forget it.
    collector.answer.send_replace(true);
    let mut child = start(spool.path());
    let again = |received: &Received| before.iter().all(|(key, n)| received.parts[key].len() > *n);
    wait_for(received, again).await;
    child.kill().await.unwrap();
    for (key, copies) in &received.borrow().parts {
        assert!(copies.iter().all(|copy| copy.0 == copies[0].0), "{key:?} has two contents");
    }
    assert!(received.borrow().parts.values().any(|copies| copies[0].1.sets.count() > 0));
}
