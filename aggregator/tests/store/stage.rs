//! What the suite works with: a way to have stores, and facts with right digests.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use roaring::RoaringBitmap;
use uptime_accounting::fact::{Fact, FactKey};
use uptime_aggregator::store::{Batch, Put, Read, Store, Token};
use uptime_proto::{
    CLASSES, Class, Kind, NodeId, Outcome, Part, PartKey, Period, Reason, Round, Sets,
};

/// A way to have stores of one kind.
pub(crate) trait Provider {
    /// The kind.
    type Store: Store + Send;

    /// The store at a place, made where there is none.
    async fn open(place: &Path) -> Self::Store;
}

pub(crate) const PERIOD_S: u64 = 30;
pub(crate) const DAY_S: u64 = 86_400;
/// Nodes that [`introduce`] gives the numbers from 0 on.
pub(crate) const NODES: u32 = 40;
/// By number.
pub(crate) const SUBNETS: [&str; 3] = ["", "public", "testnet"];

pub(crate) fn round(number: u64) -> Round {
    Round::new(number * PERIOD_S, Period::new(30).unwrap()).unwrap()
}

pub(crate) fn id(number: u32) -> NodeId {
    let mut bytes = [0xc0; 20];
    bytes[16..].copy_from_slice(&number.to_be_bytes());
    NodeId::new(bytes)
}

/// Where a fact stands: the number of its round, subnet, probe, number.
pub(crate) type At = (u64, u32, u32, u16);

/// A look-up that saw these nodes, and one that could not look where they are none.
pub(crate) fn fact((at, subnet, probe, number): At, seen: &[u32], after_ms: i64) -> Fact {
    let round = round(at);
    let seen: BTreeSet<u32> = seen.iter().copied().collect();
    let outcome = match seen.is_empty() {
        true => Outcome::CouldNotLook(Reason::TimedOut),
        false => Outcome::Looked,
    };
    let part = Part {
        key: PartKey { subnet: SUBNETS[subnet as usize].to_owned(), round, number },
        kind: Kind::Lookup,
        outcome,
        observed_at_ms: round.start_ms() + after_ms,
        relay_session_age_s: (!seen.is_empty()).then_some(600 + u32::from(number)),
        sets: Sets::default().with(Class::Seen, seen.iter().map(|number| id(*number)).collect()),
    };
    let mut sets: [RoaringBitmap; CLASSES] = Default::default();
    sets[Class::Seen.index()] = seen.into_iter().collect();
    Fact {
        key: FactKey { round, subnet, probe, number },
        kind: part.kind,
        outcome,
        digest: Some(part.digest()),
        observed_at_ms: part.observed_at_ms,
        received_at_ms: part.observed_at_ms + 40,
        relay_session_age_s: part.relay_session_age_s,
        sets: Arc::new(sets),
    }
}

/// Makes the probes, subnets and nodes known that facts name.
pub(crate) async fn introduce(store: &mut impl Store) {
    for probe in 1..=2u8 {
        let name = format!("probe-{probe}");
        let record = store.add_probe(&name, &[probe; 32], &[], 0).await.unwrap();
        assert_eq!(record.map(|record| record.number), Some(u32::from(probe)));
    }
    let batch = Batch {
        new_nodes: (0..NODES).map(|number| (id(number), 1)).collect(),
        new_subnets: SUBNETS[1..].iter().map(|name| ((*name).to_owned(), 1)).collect(),
        facts: vec![fact((0, 0, 1, 0), &[], 1)],
        ..Batch::default()
    };
    assert_eq!(store.put(&batch).await.unwrap().puts, [Put::New]);
}

pub(crate) async fn lease(store: &mut impl Store) -> Token {
    store.acquire_lease(0).await.unwrap().unwrap()
}

pub(crate) async fn put(store: &mut impl Store, facts: Vec<Fact>) -> Vec<Put> {
    store.put(&Batch { facts, ..Batch::default() }).await.unwrap().puts
}

/// Facts as they were handed in: those that are compacted have no digest where they stand alone.
pub(crate) fn alike(read: Vec<Read>, wanted: &[Fact]) {
    let read: Vec<Fact> = read.into_iter().map(|fact| fact.expect("it can be read")).collect();
    let keys = |facts: &[Fact]| facts.iter().map(|fact| fact.key).collect::<Vec<_>>();
    assert_eq!(keys(&read), keys(wanted));
    for (read, wanted) in read.iter().zip(wanted) {
        assert!(read.same_content(wanted), "{read:?} is not {wanted:?}");
        assert_eq!(read.received_at_ms, wanted.received_at_ms);
        assert!(read.digest.is_none_or(|digest| Some(digest) == wanted.digest));
    }
}
