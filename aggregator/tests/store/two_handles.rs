//! What every store must do for two handles on one place, each as a process of its own has one.

use std::collections::BTreeSet;
use std::path::Path;

use uptime_accounting::fact::{Fact, FactKey};
use uptime_accounting::position::{Position, Positions, WriterId};
use uptime_aggregator::store::{
    Batch, FactLog, Lease, NamesKnown, NewNames, Put, Registry, StoreError,
};

use crate::stage::{DAY_S, NODES, PERIOD_S, Provider, alike, fact, id, introduce, lease, put};

fn batch(facts: Vec<Fact>) -> Batch {
    Batch { facts, ..Batch::default() }
}

fn keys(facts: &[&Fact]) -> BTreeSet<FactKey> {
    facts.iter().map(|fact| fact.key).collect()
}

pub(crate) async fn each_process_is_a_writer_and_its_commits_have_no_gaps<P: Provider>(
    place: &Path,
) {
    let (mut a, mut b) = (P::open(place).await, P::open(place).await);
    introduce(&mut a).await;
    let mut seen: Vec<Position> = Vec::new();
    for at in 1..6 {
        let store = if at % 2 == 0 { &mut a } else { &mut b };
        let stored = store.put(&batch(vec![fact((at, 1, 1, 0), &[1], 100)])).await.unwrap();
        seen.extend(stored.position);
    }
    let [b1, a2, b2, a3, b3] = <[Position; 5]>::try_from(seen).unwrap();
    assert_ne!(a2.writer, b1.writer);
    let of = |position: Position| (position.writer, position.commit);
    assert_eq!([of(a2), of(a3)], [(a2.writer, 2), (a2.writer, 3)], "the first made the names");
    assert_eq!([of(b1), of(b2), of(b3)], [1, 2, 3].map(|commit| (b1.writer, commit)));
    // What has no facts takes no position, and neither does what is not stored.
    assert_eq!(a.put(&Batch::default()).await.unwrap().position, None);
    for store in [&mut a, &mut b] {
        let positions = store.positions().await.unwrap();
        assert_eq!((positions.of(a2.writer), positions.of(b1.writer)), (3, 3));
    }
    drop(a);
    let mut again = P::open(place).await;
    let stored = again.put(&batch(vec![fact((9, 1, 1, 0), &[1], 100)])).await.unwrap();
    let Position { writer, commit } = stored.position.unwrap();
    assert!(writer != a2.writer && writer != b1.writer && writer != WriterId::LEGACY);
    assert_eq!(commit, 1, "each process begins as a new writer");
}

pub(crate) async fn whoever_is_behind_learns_what_was_committed<P: Provider>(place: &Path) {
    let (mut a, mut b) = (P::open(place).await, P::open(place).await);
    introduce(&mut a).await;
    let [one, two, three] = [7, 5, 9].map(|at| fact((at, 1, 1, 0), &[1], 100));
    let known = b.positions().await.unwrap();
    assert_eq!(b.since(&known, u64::MAX).await.unwrap().late.keys, [].into());
    put(&mut a, vec![one.clone(), two.clone()]).await;
    put(&mut b, vec![three.clone()]).await;
    let since = b.since(&known, u64::MAX).await.unwrap();
    assert_eq!(since.late.keys, keys(&[&one, &two, &three]));
    assert_eq!((since.late.days, since.outranked), ([].into(), [].into()));
    let before = a.since(&known, 7 * PERIOD_S).await.unwrap();
    assert_eq!(before.late.keys, keys(&[&two]), "of rounds that start before");
    assert_eq!(a.since(&since.to, u64::MAX).await.unwrap().late, Default::default());
    // A repetition is a commit without a fact of its own.
    put(&mut b, vec![one.clone()]).await;
    let after = a.since(&since.to, u64::MAX).await.unwrap();
    assert_eq!(after.late, Default::default());
    assert_ne!(after.to, since.to);
    let all = a.since(&Positions::default(), u64::MAX).await.unwrap();
    assert_eq!(all.late.keys.len(), 4, "the one that made the names included");
}

pub(crate) async fn whoever_is_behind_a_compacted_day_folds_it_again<P: Provider>(place: &Path) {
    let (mut a, mut b) = (P::open(place).await, P::open(place).await);
    introduce(&mut a).await;
    let [first, second, other] =
        [(7, 1), (8, 2), (7, 2)].map(|(at, node)| fact((at, 1, 1, 0), &[node], 100));
    put(&mut a, vec![first.clone()]).await;
    let known = b.positions().await.unwrap();
    put(&mut a, vec![second.clone()]).await;
    let plan = b.plan_compaction(DAY_S).await.unwrap().unwrap();
    let token = lease(&mut b).await;
    b.commit_compaction(&plan, token).await.unwrap().unwrap();
    for store in [&mut a, &mut b] {
        let since = store.since(&known, u64::MAX).await.unwrap();
        assert_eq!((since.late.keys, since.late.days), ([].into(), [0].into()));
        assert!(store.since(&since.to, u64::MAX).await.unwrap().late.days.is_empty());
        alike(store.read(PERIOD_S, DAY_S).await.unwrap(), &[first.clone(), second.clone()]);
    }
    // What contradicts a compacted part, and is compacted with it, keeps its position.
    let known = a.positions().await.unwrap();
    let smaller = other.digest < first.digest;
    put(&mut a, vec![other.clone()]).await;
    let plan = b.plan_compaction(DAY_S).await.unwrap();
    if let Some(plan) = plan {
        b.commit_compaction(&plan, token).await.unwrap();
    }
    let since = b.since(&known, u64::MAX).await.unwrap();
    assert_eq!(since.late.keys, keys(&[&other]));
    assert_eq!(since.outranked.is_empty(), !smaller);
}

pub(crate) async fn a_part_that_outranks_one_that_is_known_is_named<P: Provider>(place: &Path) {
    let (mut a, mut b) = (P::open(place).await, P::open(place).await);
    introduce(&mut a).await;
    let mut three: Vec<Fact> = (1..=3).map(|node| fact((7, 1, 1, 0), &[node], 100)).collect();
    three.sort_by_key(|fact| fact.digest);
    let [small, middle, large] = <[Fact; 3]>::try_from(three).unwrap();
    let before = a.positions().await.unwrap();
    put(&mut a, vec![middle.clone()]).await;
    let known = a.positions().await.unwrap();
    put(&mut b, vec![large.clone()]).await;
    let since = a.since(&known, u64::MAX).await.unwrap();
    assert_eq!((since.late.keys, since.outranked), (keys(&[&large]), [].into()));
    put(&mut b, vec![small.clone()]).await;
    let since = a.since(&known, u64::MAX).await.unwrap();
    assert_eq!(since.outranked, keys(&[&small]));
    let since = a.since(&before, u64::MAX).await.unwrap();
    assert_eq!(since.outranked, [].into(), "none of them is known there");
    // One between two that are known changes nothing.
    let mut three: Vec<Fact> = (1..=3).map(|node| fact((8, 1, 1, 0), &[node], 100)).collect();
    three.sort_by_key(|fact| fact.digest);
    let [small, middle, large] = <[Fact; 3]>::try_from(three).unwrap();
    put(&mut a, vec![small, large]).await;
    let known = a.positions().await.unwrap();
    put(&mut b, vec![middle.clone()]).await;
    let since = a.since(&known, u64::MAX).await.unwrap();
    assert_eq!((since.late.keys, since.outranked), (keys(&[&middle]), [].into()));
}

pub(crate) async fn numbers_are_given_once<P: Provider>(place: &Path) {
    let (mut a, mut b) = (P::open(place).await, P::open(place).await);
    introduce(&mut a).await;
    let known = NamesKnown { nodes: NODES, subnets: 3 };
    assert_eq!(b.names_since(known).await.unwrap(), NewNames::default());
    let new = |node: u32| Batch {
        names_known: Some(known),
        new_nodes: vec![(id(node), 1)],
        new_subnets: vec![(format!("net-{node}"), 2)],
        facts: vec![fact((u64::from(node), 1, 1, 0), &[NODES - 1], 100)],
        ..Batch::default()
    };
    assert_eq!(a.put(&new(100)).await.unwrap().puts, [Put::New]);
    let behind = b.put(&new(200)).await.unwrap_err();
    assert!(matches!(behind, StoreError::NamesChanged), "{behind}");
    let learnt = b.names_since(known).await.unwrap();
    assert_eq!(learnt.nodes, [(id(100), 1)]);
    assert_eq!(learnt.subnets, [("net-100".to_owned(), 2)]);
    let some = b.names_since(NamesKnown { nodes: 7, subnets: 1 }).await.unwrap();
    assert_eq!((some.nodes.len(), some.nodes[0].0), (NODES as usize - 6, id(7)));
    let known = NamesKnown { nodes: NODES + 1, subnets: 4 };
    let again = Batch { names_known: Some(known), ..new(200) };
    assert_eq!(b.put(&again).await.unwrap().puts, [Put::New]);
    let nodes = a.catalogue().await.unwrap().nodes;
    assert_eq!(nodes[NODES as usize..], [(id(100), 1), (id(200), 1)]);
}

pub(crate) async fn a_stale_token_changes_nothing<P: Provider>(place: &Path) {
    let (mut a, mut b) = (P::open(place).await, P::open(place).await);
    introduce(&mut a).await;
    let facts = vec![fact((7, 1, 1, 0), &[1], 100), fact((8, 1, 1, 0), &[1], 100)];
    put(&mut a, facts.clone()).await;
    let stale = lease(&mut a).await;
    assert!(a.renew_lease(stale, 0).await.unwrap());
    let token = lease(&mut b).await;
    assert!(token > stale);
    assert!(!a.renew_lease(stale, 0).await.unwrap());
    let plan = a.plan_compaction(DAY_S).await.unwrap().unwrap();
    let refused = [
        a.commit_compaction(&plan, stale).await.map(|_| ()),
        a.expire(DAY_S, &[vec![1]], stale).await.map(|_| ()),
        a.forget_nodes(&[1], 0, stale).await,
        a.end_writers(i64::MAX, stale).await.map(|_| ()),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(StoreError::LeaseLost)), "{refused:?}");
    }
    alike(b.read(PERIOD_S, DAY_S).await.unwrap(), &facts);
    assert!(b.load_roll_up().await.unwrap().is_empty());
    assert!(b.catalogue().await.unwrap().forgotten.is_empty());
    assert!(b.commit_compaction(&plan, token).await.unwrap().is_some());
}

pub(crate) async fn a_writer_that_was_ended_begins_anew<P: Provider>(place: &Path) {
    let (mut a, mut b) = (P::open(place).await, P::open(place).await);
    introduce(&mut a).await;
    let at = |at, now_ms| Batch { now_ms, ..batch(vec![fact((at, 1, 1, 0), &[1], 100)]) };
    let first = a.put(&at(7, 1_000)).await.unwrap().position.unwrap();
    let own = b.put(&at(8, 1_000)).await.unwrap().position.unwrap();
    let token = lease(&mut b).await;
    assert_eq!(b.end_writers(1_000, token).await.unwrap(), 0, "it committed since");
    assert_eq!(b.end_writers(1_001, token).await.unwrap(), 1, "and itself it does not end");
    let second = a.put(&at(9, 2_000)).await.unwrap().position.unwrap();
    assert_ne!(first.writer, second.writer);
    assert_eq!(second.commit, 1);
    let next = b.put(&at(10, 2_000)).await.unwrap().position.unwrap();
    assert_eq!(next, Position { commit: own.commit + 1, ..own });
    assert_eq!(b.positions().await.unwrap().of(first.writer), first.commit);
}
