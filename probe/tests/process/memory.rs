//! What a daemon answers does not decide how much memory the probe takes.

use std::collections::BTreeSet;

use uptime_proto::{Kind, Outcome, Reason};
use uptime_testkit::fake_yagna::{Fault, FaultKind};

use super::fake_collector::{Received, collector, daemon, probe, wait_for};

const MARKET: &str = "GET /market-api/v1/scan";
const FIND_NODE: &str = "POST /_gsb/local/net/FindNode";
/// While the largest answer there may be, 16 MiB, is read: it grows by doubling, and the old half
/// stands beside the new.
const GROWTH_BYTES_MAX: u64 = 40 << 20;

/// The most a process ever had resident.
fn peak_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() * 1_024
}

fn too_large(received: &Received) -> BTreeSet<Kind> {
    let parts = received.parts.values().map(|copies| &copies[0].1);
    let refused =
        parts.filter(|part| part.outcome == Outcome::CouldNotLook(Reason::AnswerTooLarge));
    refused.map(|part| part.kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_end_take_no_memory() {
    for (on_market, on_find) in
        [(FaultKind::Huge(1 << 30), FaultKind::Flood), (FaultKind::Flood, FaultKind::Huge(1 << 30))]
    {
        let daemon = daemon().await;
        let collector = collector(true, None).await;
        let spool = tempfile::tempdir().unwrap();
        let mut child = probe("run", &daemon, &collector.address, spool.path()).spawn().unwrap();
        let process = child.id().unwrap();
        wait_for(&collector.received, |received| received.parts.len() >= 4).await;
        let before = peak_bytes(process);
        daemon.set_faults(vec![Fault::new(MARKET, on_market), Fault::new(FIND_NODE, on_find)]);
        wait_for(&collector.received, |received| too_large(received).len() == 2).await;
        let grown = peak_bytes(process) - before;
        child.kill().await.unwrap();
        assert!(grown <= GROWTH_BYTES_MAX, "{grown} bytes more than {before}");
    }
}
