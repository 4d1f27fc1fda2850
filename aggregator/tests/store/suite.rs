//! What every store must do, a verb or two at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use uptime_accounting::fact::Fact;
use uptime_accounting::fact::Gap;
use uptime_aggregator::store::{
    Batch, By, Changed, Checkpoints, CredentialKind, Details, Ends, EpochChange, FactLog,
    IdentityStore, Latency, NewCredential, NewIdentity, NodeSample, Opening, OpeningRow, Put,
    Registry, Retraction, Role, Samples, Store,
};
use uptime_proto::{Epoch, Period, Reason};

use crate::stage::{
    DAY_S, NODES, PERIOD_S, Provider, alike, fact, id, introduce, lease, put, round,
};

/// Rounds of a day.
const ROUNDS: u64 = DAY_S / PERIOD_S;

pub(crate) async fn a_new_store_is_empty_and_keeps_its_name<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    let catalogue = store.catalogue().await.unwrap();
    assert!(catalogue.epochs.is_empty() && catalogue.nodes.is_empty());
    assert_eq!(catalogue.subnets, [String::new()]);
    assert_eq!(store.extent().await.unwrap(), None);
    assert_eq!(store.read(0, u64::from(u32::MAX)).await.unwrap(), []);
    let epoch = Epoch::with_defaults(Period::new(30).unwrap());
    store.add_epoch(&epoch).await.unwrap();
    let probe = store.add_probe("alpha", &[1; 32], &["public".to_owned()], 7).await.unwrap();
    assert_eq!(store.add_probe("alpha", &[2; 32], &[], 8).await.unwrap(), None, "it is taken");
    drop(store);
    let mut store = P::open(place).await;
    let again = store.catalogue().await.unwrap();
    let name = (again.store_id, again.generation);
    assert_eq!(name, (catalogue.store_id, catalogue.generation));
    assert_eq!(again.epochs, [epoch]);
    assert_eq!(again.probes, [probe.unwrap()]);
    assert_eq!(again.probes, store.probes().await.unwrap());
}

pub(crate) async fn facts_come_back_by_round_and_key<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    introduce(&mut store).await;
    let facts = [
        fact((7, 1, 1, 0), &[1, 2, 3], 100),
        fact((7, 1, 2, 0), &[], 100),
        fact((7, 2, 1, 1), &[39], 100),
        fact((8, 1, 1, 0), &[1, 3], 100),
        fact((9, 0, 1, 0), &[], 100),
    ];
    // In an order of their own, in several batches.
    for at in [[3usize, 0].as_slice(), &[4], &[2, 1]] {
        let batch = at.iter().map(|at| facts[*at].clone()).collect();
        assert_eq!(put(&mut store, batch).await, vec![Put::New; at.len()]);
    }
    let mut reader = store.reader().await.unwrap();
    alike(reader.read(PERIOD_S, DAY_S).await.unwrap(), &facts);
    drop((store, reader));
    let mut store = P::open(place).await;
    alike(store.read(PERIOD_S, DAY_S).await.unwrap(), &facts);
    alike(store.read(7 * PERIOD_S, 8 * PERIOD_S).await.unwrap(), &facts[..3]);
    alike(store.read(7 * PERIOD_S + 1, 9 * PERIOD_S).await.unwrap(), &facts[3..4]);
    assert_eq!(store.extent().await.unwrap(), Some((0, 9 * PERIOD_S)));
}

pub(crate) async fn repetitions_and_conflicts_are_told_apart<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    introduce(&mut store).await;
    let mut versions: Vec<Fact> = (1..=3).map(|node| fact((7, 1, 1, 0), &[node], 100)).collect();
    versions.sort_by_key(|fact| fact.digest);
    let [small, middle, large] = <[Fact; 3]>::try_from(versions).unwrap();
    let batch = vec![middle.clone(), middle.clone(), large.clone(), small.clone(), large.clone()];
    let wanted =
        [Put::New, Put::Duplicate, Put::ConflictLarger, Put::ConflictSmallest, Put::Duplicate];
    assert_eq!(put(&mut store, batch).await, wanted);
    // Also for who opens the store later.
    drop(store);
    let mut store = P::open(place).await;
    let all = vec![small, middle, large];
    assert_eq!(put(&mut store, all.clone()).await, [Put::Duplicate; 3]);
    alike(store.read(PERIOD_S, DAY_S).await.unwrap(), &all);
}

/// Facts of the first two days, each a little different from the one before.
fn two_days() -> Vec<Fact> {
    let at = (1..2 * ROUNDS).step_by(97);
    let nodes = |at: u64| (0..NODES).filter(move |node| !(u64::from(*node) + at).is_multiple_of(5));
    at.map(|at| fact((at, 1, 1, 0), &nodes(at).collect::<Vec<_>>(), 100)).collect()
}

pub(crate) async fn compaction_changes_no_answer<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    introduce(&mut store).await;
    let facts = two_days();
    put(&mut store, facts.clone()).await;
    assert!(store.plan_compaction(DAY_S - 1).await.unwrap().is_none(), "it is not over");
    let day = store.plan_compaction(2 * DAY_S - 1).await.unwrap().unwrap();
    let token = lease(&mut store).await;
    let compacted = store.commit_compaction(&day, token).await.unwrap().unwrap();
    assert_eq!(
        (compacted.day_s, compacted.bytes < compacted.before_bytes),
        (0, true),
        "{compacted:?}"
    );
    assert!(store.plan_compaction(2 * DAY_S - 1).await.unwrap().is_none(), "only once");
    for _ in 0..2 {
        alike(store.read(PERIOD_S, 2 * DAY_S).await.unwrap(), &facts);
        let (from_s, to_s) = (DAY_S / 2, DAY_S + DAY_S / 2);
        let within = |fact: &&Fact| (from_s..to_s).contains(&fact.key.round.start_s());
        let some: Vec<Fact> = facts.iter().filter(within).cloned().collect();
        alike(store.read(from_s, to_s).await.unwrap(), &some);
        assert_eq!(put(&mut store, vec![facts[0].clone()]).await, [Put::Duplicate]);
        store = P::open(place).await;
    }
    // One that contradicts a compacted fact stands beside it.
    let other = fact((1, 1, 1, 0), &[7], 100);
    let outcome = put(&mut store, vec![other.clone()]).await;
    let smallest = other.digest < facts[0].digest;
    let wanted = if smallest { Put::ConflictSmallest } else { Put::ConflictLarger };
    assert_eq!(outcome, [wanted]);
    let mut both = vec![facts[0].clone(), other];
    both.sort_by_key(|fact| fact.digest);
    alike(store.read(PERIOD_S, 2 * PERIOD_S).await.unwrap(), &both);
}

pub(crate) async fn a_day_that_something_came_to_is_not_swapped_in<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    introduce(&mut store).await;
    let mut facts = two_days();
    let late = facts.remove(3);
    put(&mut store, facts.clone()).await;
    let mut beside = store.reader().await.unwrap();
    let day = beside.plan_compaction(DAY_S).await.unwrap().unwrap();
    put(&mut store, vec![late.clone()]).await;
    let token = lease(&mut store).await;
    assert_eq!(store.commit_compaction(&day, token).await.unwrap(), None);
    facts.insert(3, late);
    alike(store.read(PERIOD_S, 2 * DAY_S).await.unwrap(), &facts);
    let day = beside.plan_compaction(DAY_S).await.unwrap().unwrap();
    assert!(store.commit_compaction(&day, token).await.unwrap().is_some());
    alike(beside.read(PERIOD_S, 2 * DAY_S).await.unwrap(), &facts);
}

pub(crate) async fn a_round_takes_no_more_parts_than_it_may<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    introduce(&mut store).await;
    let of = |number, probe| fact((7, 1, probe, number), &[1], 100);
    let batch = Batch {
        facts: vec![of(0, 1), of(1, 1), of(0, 1), of(2, 1), of(2, 2)],
        parts_per_round_max: Some(2),
        ..Batch::default()
    };
    let wanted = [Put::New, Put::New, Put::Duplicate, Put::RoundFull, Put::New];
    assert_eq!(store.put(&batch).await.unwrap().puts, wanted);
    alike(store.read(PERIOD_S, DAY_S).await.unwrap(), &[of(0, 1), of(1, 1), of(2, 2)]);
}

pub(crate) async fn what_travels_beside_facts_is_kept<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    introduce(&mut store).await;
    let gap = |from, to| Gap {
        probe: 1,
        from_s: from * PERIOD_S,
        to_s: to * PERIOD_S,
        reason: Reason::Missed,
    };
    let details = |name: &str| Details {
        name: name.to_owned(),
        runtime: "vm".to_owned(),
        runtime_version: "0.4.2".to_owned(),
        networks: vec!["polygon".to_owned(), "holesky".to_owned()],
        changed_s: 90,
    };
    let sample = |at: u64, round_trip_us| NodeSample {
        probe: 1,
        node: 3,
        round_s: at * PERIOD_S,
        seen_age_ms: Some(21_000),
        answered_in_ms: None,
        round_trip_us,
    };
    for (name, gaps, samples) in [
        ("ada", vec![gap(5, 9), gap(20, 21)], vec![sample(5, Some(400))]),
        ("eve", vec![gap(5, 9)], vec![sample(6, Some(600)), sample(7, None)]),
    ] {
        let details = BTreeMap::from([(3, details(name))]);
        let batch = Batch { details, gaps, samples, now_ms: 300_000, ..Batch::default() };
        store.put(&batch).await.unwrap();
    }
    let mut store = P::open(place).await;
    assert_eq!(store.details(0, 9).await.unwrap(), BTreeMap::from([(3, details("eve"))]));
    let several = (0..5).map(|number| (number * 3, details("bob"))).collect();
    store.put(&Batch { details: several, ..Batch::default() }).await.unwrap();
    for (from, most, wanted) in [(0, 2, &[0, 3][..]), (3, 9, &[3, 6, 9, 12]), (13, 9, &[])] {
        let some = store.details(from, most).await.unwrap();
        assert_eq!(some.into_keys().collect::<Vec<_>>(), wanted);
    }
    assert_eq!(store.gaps(0, DAY_S).await.unwrap(), [gap(5, 9), gap(20, 21)]);
    assert_eq!(store.gaps(9 * PERIOD_S, 20 * PERIOD_S).await.unwrap(), []);
    assert_eq!(store.gaps(8 * PERIOD_S, 9 * PERIOD_S).await.unwrap(), [gap(5, 9)]);
    assert_eq!(store.round_trips().await.unwrap(), [(3, 600)]);
    let samples = store.samples(3).await.unwrap();
    assert_eq!(samples.aged, [(1, 7 * PERIOD_S, 21_000)]);
    let later = NodeSample { round_s: DAY_S + PERIOD_S, ..sample(0, Some(2_000)) };
    let later = NodeSample { node: 5, ..later };
    let next_day = NodeSample { node: 3, round_trip_us: Some(801), ..later };
    let samples = vec![later, next_day];
    store.put(&Batch { samples, now_ms: 400_000, ..Batch::default() }).await.unwrap();
    let of = |samples, min_us, max_us, sum_us| Some(Latency { samples, min_us, max_us, sum_us });
    let (first, both) = (of(2, 400, 600, 1_000), of(3, 400, 801, 1_801));
    assert_eq!(both.unwrap().mean_us(), 600);
    for (from_s, to_s, wanted) in [
        (0, u64::MAX, [of(1, 2_000, 2_000, 2_000), None, both]),
        (DAY_S - 1, DAY_S, [None, None, first]),
        (DAY_S - 1, DAY_S + 1, [of(1, 2_000, 2_000, 2_000), None, both]),
        (DAY_S, 2 * DAY_S, [of(1, 2_000, 2_000, 2_000), None, of(1, 801, 801, 801)]),
        (2 * DAY_S, u64::MAX, [None; 3]),
    ] {
        assert_eq!(store.latency(&[5, 4, 3], from_s, to_s).await.unwrap(), wanted, "{from_s}");
    }
    assert_eq!(store.samples(4).await.unwrap(), Default::default());
}

pub(crate) async fn a_checkpoint_takes_the_place_of_the_one_before<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    assert!(store.load_checkpoint().await.unwrap().is_empty());
    assert!(store.load_roll_up().await.unwrap().is_empty());
    let pieces = |byte: u8| vec![vec![byte; 70_000], vec![], vec![byte, 0]];
    store.save_checkpoint(&pieces(1)).await.unwrap();
    let token = lease(&mut store).await;
    store.expire(0, &pieces(2), token).await.unwrap();
    let mut store = P::open(place).await;
    assert_eq!(store.load_checkpoint().await.unwrap(), pieces(1));
    store.save_checkpoint(&pieces(3)).await.unwrap();
    assert_eq!(store.load_checkpoint().await.unwrap(), pieces(3));
    assert_eq!(store.load_roll_up().await.unwrap(), pieces(2));
    store.save_checkpoint(&[]).await.unwrap();
    assert!(store.load_checkpoint().await.unwrap().is_empty());
}

fn retraction(probe: u32) -> Retraction {
    Retraction {
        number: 0,
        probe,
        from_s: 30,
        to_s: 90,
        reason: "its clock was wrong".to_owned(),
        made_at_ms: 7,
        undone_at_ms: None,
    }
}

pub(crate) async fn retractions_hold_until_they_are_undone<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    let by = |now_ms| By { actor: "someone".to_owned(), now_ms };
    for (name, hash) in [("alpha", [1; 32]), ("beta", [2; 32])] {
        store.add_probe(name, &hash, &[], 0).await.unwrap().unwrap();
    }
    let numbers = [
        store.retract(&retraction(1), &by(7)).await.unwrap(),
        store.retract(&retraction(2), &by(7)).await.unwrap(),
    ];
    assert!(store.undo_retraction(numbers[0], &by(9)).await.unwrap());
    assert!(!store.undo_retraction(numbers[0], &by(10)).await.unwrap(), "only once");
    assert!(!store.undo_retraction(99, &by(10)).await.unwrap());
    let mut store = P::open(place).await;
    let wanted = [
        Retraction { number: numbers[0], undone_at_ms: Some(9), ..retraction(1) },
        Retraction { number: numbers[1], ..retraction(2) },
    ];
    assert_eq!(store.retractions().await.unwrap(), wanted);
}

pub(crate) async fn epochs_that_have_not_begun_are_replaced_and_no_others<P: Provider>(
    place: &Path,
) {
    let rules = |start_s, period_s| {
        let period = Period::new(period_s).unwrap();
        Epoch { start_s, ..Epoch::with_defaults(period) }
    };
    let (first, second, third) = (rules(0, 30), rules(600, 60), rules(900, 10));
    let mut store = P::open(place).await;
    let mut other = P::open(place).await;
    assert_eq!(store.epochs().await.unwrap(), []);
    store.add_epoch(&first).await.unwrap();
    let change = |there: &[&Epoch], kept, epoch: Option<&Epoch>| EpochChange {
        there: there.iter().copied().cloned().collect(),
        kept,
        epoch: epoch.cloned(),
        detail: format!("change to {epoch:?}"),
    };
    let by = |now_s: i64| By { actor: "someone".to_owned(), now_ms: now_s * 1000 };
    // Announced, replaced by another handle, withdrawn, announced again.
    for (there, kept, epoch) in [
        (&[&first][..], 1, Some(&second)),
        (&[&first, &second], 1, Some(&third)),
        (&[&first, &third], 1, None),
        (&[&first], 1, Some(&second)),
    ] {
        let change = change(there, kept, epoch);
        assert!(other.change_epochs(&change, &by(599)).await.unwrap(), "{change:?}");
        let wanted: Vec<Epoch> = [&first].into_iter().chain(epoch).cloned().collect();
        assert_eq!(store.epochs().await.unwrap(), wanted);
        std::mem::swap(&mut store, &mut other);
    }
    // Of epochs that are not those stored, of one that has begun, and of the first nothing is done.
    for (there, kept, now_s) in [(&[&first][..], 1, 0), (&[&first, &second], 1, 600)] {
        let change = change(there, kept, Some(&third));
        assert!(!store.change_epochs(&change, &by(now_s)).await.unwrap(), "{change:?}");
    }
    assert!(!store.change_epochs(&change(&[&first, &second], 0, None), &by(-1)).await.unwrap());
    // Nobody could start with these.
    let off_grid = change(&[&first, &second], 2, Some(&rules(630, 30)));
    assert!(store.change_epochs(&off_grid, &by(601)).await.is_err());
    drop((store, other));
    let mut store = P::open(place).await;
    assert_eq!(store.epochs().await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!(store.catalogue().await.unwrap().epochs, [first, second]);
    let audit_log = store.audit_log(None, 10).await.unwrap();
    assert_eq!(audit_log.len(), 4, "{audit_log:?}");
    assert!(audit_log.iter().all(|line| line.actor == "someone" && line.action == "rules-set"));
}

pub(crate) async fn pruning_takes_what_is_before_and_nothing_else<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    introduce(&mut store).await;
    let facts = two_days();
    put(&mut store, facts.clone()).await;
    let day = store.plan_compaction(DAY_S).await.unwrap().unwrap();
    let token = lease(&mut store).await;
    store.commit_compaction(&day, token).await.unwrap().unwrap();
    let roll_up = [vec![5; 9]];
    assert!(store.expire(DAY_S, &roll_up, token).await.unwrap() > 0);
    assert_eq!(store.load_roll_up().await.unwrap(), roll_up);
    let rest: Vec<Fact> =
        facts.into_iter().filter(|fact| fact.key.round.start_s() >= DAY_S).collect();
    alike(store.read(0, 2 * DAY_S).await.unwrap(), &rest);
    assert_eq!(store.extent().await.unwrap().unwrap().0, rest[0].key.round.start_s());
    assert_eq!(store.expire(DAY_S, &roll_up, token).await.unwrap(), 0);
}

pub(crate) async fn an_opening_balance_takes_the_place_of_the_one_before<P: Provider>(
    place: &Path,
) {
    let mut store = P::open(place).await;
    assert_eq!(store.opening().await.unwrap(), None);
    let opening = |nodes: u32| Opening {
        imported_at_ms: 7,
        scan_count: u64::from(nodes),
        time_zone: "Europe/Warsaw".to_owned(),
        subnet: (nodes > 2).then(|| "public".to_owned()),
        rows: (0..nodes)
            .map(|number| OpeningRow {
                id: id(number),
                is_online: number.is_multiple_of(2),
                last_seen_ms: (number > 0).then_some(i64::from(number)),
                online_scans: u64::from(number) * 3,
            })
            .collect(),
    };
    for nodes in [3, 2] {
        store.put_opening(&opening(nodes)).await.unwrap();
        store = P::open(place).await;
        assert_eq!(store.opening().await.unwrap(), Some(opening(nodes)));
    }
}

pub(crate) async fn who_holds_still_sees_one_moment<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    introduce(&mut store).await;
    let facts = two_days();
    put(&mut store, facts[1..].to_vec()).await;
    let mut still = store.reader().await.unwrap();
    still.hold().await.unwrap();
    put(&mut store, facts[..1].to_vec()).await;
    let day = store.plan_compaction(DAY_S).await.unwrap().unwrap();
    let token = lease(&mut store).await;
    store.commit_compaction(&day, token).await.unwrap().unwrap();
    for _ in 0..2 {
        alike(still.read(PERIOD_S, 2 * DAY_S).await.unwrap(), &facts[1..]);
    }
    alike(store.read(PERIOD_S, 2 * DAY_S).await.unwrap(), &facts);
}

pub(crate) async fn a_copy_is_whole_and_both_are_sound<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    store.add_epoch(&Epoch::with_defaults(Period::new(30).unwrap())).await.unwrap();
    introduce(&mut store).await;
    let facts = two_days();
    put(&mut store, facts.clone()).await;
    let day = store.plan_compaction(DAY_S).await.unwrap().unwrap();
    let token = lease(&mut store).await;
    store.commit_compaction(&day, token).await.unwrap().unwrap();
    let mut told = Vec::new();
    let checked = store.check(&mut |progress| told.push(progress)).await.unwrap();
    assert_eq!((checked.faults.as_slice(), checked.nodes), (&[][..], u64::from(NODES)));
    assert_eq!(checked.parts + checked.compacted_parts, facts.len() as u64 + 1);
    assert!(told.is_sorted_by_key(|progress| progress.done), "{told:?}");
    let copy = place.join("copy");
    store.copy_to(&copy).await.unwrap();
    assert!(copy.metadata().unwrap().len() > 0);
    assert!(store.copy_to(&copy).await.is_err(), "nothing is overwritten");
}

pub(crate) async fn identities_and_what_was_done_about_them_are_kept<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    let by = By { actor: "host".to_owned(), now_ms: 100 };
    let credential = |byte, kind| NewCredential { hash: [byte; 32], kind, valid_until_ms: None };
    let named = |name: &str, role, credential| NewIdentity {
        name: name.to_owned(),
        role,
        subnets_allowed: Vec::new(),
        credential: Some(credential),
    };
    let alpha = named("alpha", Role::Probe, credential(1, CredentialKind::Ticket));
    assert!(store.enrol(&alpha, &by).await.unwrap());
    let taken = named("alpha", Role::Reader, credential(2, CredentialKind::Token));
    assert!(!store.enrol(&taken, &by).await.unwrap(), "one name is one identity");
    let grafana = named("grafana", Role::Reader, credential(3, CredentialKind::Token));
    assert!(store.enrol(&grafana, &by).await.unwrap());
    let redeemed = store.redeem(&[1; 32], &[4; 32], &by).await.unwrap();
    assert_eq!(redeemed, (Changed::Done, Some("alpha".to_owned())));
    assert_eq!(store.redeem(&[1; 32], &[5; 32], &by).await.unwrap().0, Changed::NoSuchTicket);
    let renewed =
        store.renew("alpha", &credential(6, CredentialKind::Token), Ends::All, 500, &by).await;
    assert_eq!(renewed.unwrap(), Changed::Done);
    // Beside what there is, then instead of everything there is, then ended by itself.
    let certificate = |byte| credential(byte, CredentialKind::Certificate);
    let beta = named("beta", Role::Probe, credential(7, CredentialKind::Token));
    assert!(store.enrol(&beta, &by).await.unwrap());
    let beside = store.renew("beta", &certificate(8), Ends::SameKind, 100, &by).await.unwrap();
    let instead = store.renew("beta", &certificate(9), Ends::All, 100, &by).await.unwrap();
    assert_eq!((beside, instead), (Changed::Done, Changed::Done));
    assert_eq!(store.end_credential(&[9; 32], &by).await.unwrap(), Changed::Done);
    assert_eq!(store.end_credential(&[9; 32], &by).await.unwrap(), Changed::Over);
    assert_eq!(store.end_credential(&[99; 32], &by).await.unwrap(), Changed::NoSuchCredential);
    store.add_authority(&[5; 32]).await.unwrap();
    store.add_authority(&[5; 32]).await.unwrap();
    assert_eq!(store.revoke("grafana", &by).await.unwrap(), Changed::Done);
    assert_eq!(store.revoke("nobody", &by).await.unwrap(), Changed::NoSuchName);
    let mut store = P::open(place).await;
    let identities = store.identities().await.unwrap();
    assert!(identities.probes.contains_key("alpha") && identities.callers["grafana"].revoked);
    let of =
        |byte| identities.credential(&[byte; 32]).map(|it| (it.name.as_str(), it.valid_until_ms));
    assert_eq!((of(1), of(5)), (Some(("alpha", Some(100))), None), "it is good once");
    assert_eq!((of(4), of(6)), (Some(("alpha", Some(500))), Some(("alpha", None))));
    assert_eq!([7, 8, 9].map(of), [Some(("beta", Some(100))); 3]);
    assert!(identities.authorities.iter().eq([&[5; 32]]));
    let number = store.retract(&retraction(1), &by).await.unwrap();
    assert!(store.undo_retraction(number, &by).await.unwrap());
    let audit_log = store.audit_log(None, 100).await.unwrap();
    assert!(audit_log.iter().all(|line| line.actor == "host" && line.at_ms == 100));
    assert!(audit_log.is_sorted_by(|a, b| a.number > b.number), "the latest first: {audit_log:?}");
    assert!(audit_log.len() >= 7, "everything that was done is in it: {audit_log:?}");
    let older = store.audit_log(Some(audit_log[2].number), 2).await.unwrap();
    assert_eq!(older, audit_log[3..5]);
}

pub(crate) async fn ids_that_are_forgotten_keep_their_numbers<P: Provider>(place: &Path) {
    let mut store = P::open(place).await;
    introduce(&mut store).await;
    let token = lease(&mut store).await;
    store.forget_nodes(&[3, 5], 7, token).await.unwrap();
    let fresh = Batch {
        new_nodes: vec![(id(3), 2)],
        facts: vec![fact((7, 1, 2, 0), &[NODES - 1], 100)],
        ..Batch::default()
    };
    store.put(&fresh).await.unwrap();
    let catalogue = P::open(place).await.catalogue().await.unwrap();
    assert_eq!(catalogue.forgotten, BTreeSet::from([3, 5]));
    let nodes: Vec<_> = catalogue.nodes.iter().map(|(id, _)| *id).collect();
    let wanted: Vec<_> = (0..NODES).map(id).chain([id(3)]).collect();
    assert_eq!(nodes, wanted);
    assert_eq!(round(7).start_s(), 7 * PERIOD_S);
}
