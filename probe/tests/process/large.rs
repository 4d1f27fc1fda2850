//! A network of the size this is planned for.

use std::collections::BTreeSet;

use uptime_proto::{Class, Kind, NodeId};
use uptime_testkit::fake_yagna::{DaemonOptions, ProviderSpec, World};

use super::fake_collector::{Manner, Received, collector_with, daemon_with, probe, wait_for};

const NODES: usize = 10_000;
const PROBES: usize = 3;
/// As many as fit beside those at once, should a busy machine wake them together.
const IN_FLIGHT_MAX: usize = 50;
const PER_S_MAX: usize = 400;
const FIND_NODE: &str = "POST /_gsb/local/net/FindNode";

/// The nodes that the look-ups of one round have seen; of the last round that has any.
fn seen(received: &Received) -> (u64, BTreeSet<NodeId>) {
    let looked = received.parts.values().map(|copies| &copies[0].1);
    let looked = looked.filter(|part| part.kind == Kind::Lookup);
    let mut last = (0, BTreeSet::new());
    for part in looked {
        let round_s = part.key.round.start_s();
        if round_s > last.0 {
            last = (round_s, BTreeSet::new());
        }
        last.1.extend(part.sets.of(Class::Seen));
    }
    last
}

/// Takes some 70 s: up to the end of the next whole round of half a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_ten_thousand_nodes_are_looked_up_within_one_round() {
    let world = World::new(5);
    for _ in 0..NODES {
        world.add_provider(ProviderSpec::in_subnet("large"));
    }
    let nodes: Vec<NodeId> =
        world.subnet_ids("large").iter().map(|id| id.parse().unwrap()).collect();
    let directory = tempfile::tempdir().unwrap();
    let mut fixtures = Vec::new();
    for number in 0..PROBES {
        let share: Vec<NodeId> = nodes.iter().copied().skip(number).step_by(PROBES).collect();
        let daemon = daemon_with(&world, DaemonOptions::default()).await;
        let standing = Some(share.clone());
        let manner = Manner { standing, whole_rounds: true, ..Manner::default() };
        let collector = collector_with(true, None, manner).await;
        let spool = directory.path().join(number.to_string());
        let child = probe("run", &daemon, &collector.address, &spool)
            .args(["--sources", "find-node,direct"])
            .spawn()
            .unwrap();
        fixtures.push((daemon, collector, share, child));
    }
    for (daemon, collector, share, child) in &mut fixtures {
        wait_for(&collector.received, |received| !seen(received).1.is_empty()).await;
        child.kill().await.unwrap();
        let (_, seen) = seen(&collector.received.borrow());
        let share: BTreeSet<NodeId> = share.iter().copied().collect();
        assert_eq!(share.difference(&seen).count(), 0, "of {} nodes", share.len());
        let busiest = daemon.busiest(FIND_NODE);
        assert!(busiest.at_once <= IN_FLIGHT_MAX, "{busiest:?}");
        assert!(busiest.per_s <= PER_S_MAX + IN_FLIGHT_MAX, "{busiest:?}");
        assert_eq!(daemon.count(FIND_NODE), share.len() as u64, "each once");
    }
}
