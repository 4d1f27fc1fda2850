//! Reads the facts of a store into the oracle's form. For the suites that check whole networks.

use std::path::Path;

use uptime_aggregator::store::{FactLog, Registry, SqliteStore};
use uptime_proto::{Epochs, NodeId};
use uptime_testkit::oracle::OracleFact;

/// Every stored fact in the oracle's form, and the rules.
pub(crate) async fn stored(data_dir: &Path) -> (Vec<OracleFact>, Epochs) {
    let mut store = SqliteStore::open(data_dir).await.unwrap();
    let catalogue = store.catalogue().await.unwrap();
    let ids: Vec<NodeId> = catalogue.nodes.iter().map(|(id, _)| *id).collect();
    let stored = store.read(0, u64::from(u32::MAX)).await.unwrap();
    let facts = stored.into_iter().map(|fact| {
        let fact = fact.unwrap();
        let subnet = &catalogue.subnets[fact.key.subnet as usize];
        let part = fact.to_part(subnet, |number| ids.get(number as usize).copied()).unwrap();
        // A compacted day keeps no digests.
        assert!(
            fact.digest.is_none_or(|digest| digest == part.digest()),
            "what is stored is what was sent"
        );
        OracleFact { probe: fact.key.probe, part }
    });
    (facts.collect(), Epochs::new(catalogue.epochs).unwrap())
}
