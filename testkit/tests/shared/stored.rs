//! What an aggregator has stored, in the oracle's words. For the suites that judge whole networks.

use std::path::Path;

use uptime_aggregator::store::{SqliteStore, Store};
use uptime_proto::{Class, Epochs, NodeId, Part, PartKey, Sets};
use uptime_testkit::oracle::OracleFact;

/// Every stored fact, in the oracle's words, and the rules.
pub(crate) async fn stored(data_dir: &Path) -> (Vec<OracleFact>, Epochs) {
    let mut store = SqliteStore::open(data_dir).await.unwrap();
    let catalogue = store.catalogue().await.unwrap();
    let ids: Vec<NodeId> = catalogue.nodes.iter().map(|(id, _)| *id).collect();
    let stored = store.read(0, u64::from(u32::MAX)).await.unwrap();
    let facts = stored.into_iter().map(|fact| {
        let fact = fact.unwrap();
        let mut sets = Sets::default();
        for class in Class::ALL {
            let members = fact.of(class).iter().map(|number| ids[number as usize]);
            sets.set(class, members.collect());
        }
        let subnet = catalogue.subnets[fact.key.subnet as usize].clone();
        let part = Part {
            key: PartKey { subnet, round: fact.key.round, number: fact.key.number },
            kind: fact.kind,
            outcome: fact.outcome,
            observed_at_ms: fact.observed_at_ms,
            relay_session_age_s: fact.relay_session_age_s,
            sets,
        };
        assert_eq!(part.digest(), fact.digest, "what is stored is what was sent");
        OracleFact { probe: fact.key.probe, part }
    });
    (facts.collect(), Epochs::new(catalogue.epochs).unwrap())
}
