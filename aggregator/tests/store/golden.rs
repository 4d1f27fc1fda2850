//! Files that earlier versions of the embedded store wrote, and one that this version does.
//!
//! Owns the golden files: `version-N.sqlite3.zst` by version of the schema, and what a release
//! wrote under its own name. Each is opened as whoever upgrades opens it, and must say all that was
//! put into it. With `UPDATE_GOLDEN` set the one of this version is made
//! anew; those of earlier versions were made by the programs that wrote them and are never changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use uptime_accounting::fact::{Fact, Gap};
use uptime_accounting::position::Position;
use uptime_aggregator::engine::replay::rebuild;
use uptime_aggregator::publish::write_csv;
use uptime_aggregator::store::{
    Batch, By, Checkpoints, Details, FactLog, IdentityStore, Lease, NewCredential, NewIdentity,
    NodeSample, Opening, OpeningRow, Registry, Retraction, Role, STORE_FILE_NAME, Samples,
    SqliteStore, Store, StoreError,
};
use uptime_aggregator::{lock::DirectoryLock, upkeep};
use uptime_proto::{Epoch, Period, Reason};

use crate::stage::{DAY_S, NODES, PERIOD_S, alike, fact, id, introduce, put};

/// What this program writes.
const VERSION: u32 = 7;

fn path(version: u32) -> PathBuf {
    let name = format!("tests/store/golden/version-{version}.sqlite3.zst");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn facts() -> Vec<Fact> {
    let odd: Vec<u32> = (0..NODES).filter(|node| node % 2 == 1).collect();
    let last = DAY_S / PERIOD_S - 1;
    let mut facts = vec![
        fact((7, 1, 1, 0), &odd, 100),
        fact((7, 1, 2, 3), &[], 100),
        fact((8, 2, 1, 0), &odd[..9], 200),
        fact((last, 1, 1, 0), &[1, 3, 39], 100),
        fact((last, 1, 1, 0), &[1, 3], 100),
        fact((last + 1, 1, 1, 0), &[0], 100),
        fact((last + 2, 1, 1, 0), &[0, 2, 4], 100),
    ];
    facts.sort_by_key(|fact| (fact.key, fact.digest));
    facts
}

fn details(number: u32) -> Details {
    Details {
        name: format!("node {number}"),
        runtime: "vm".to_owned(),
        runtime_version: "0.4.2".to_owned(),
        networks: vec!["polygon".to_owned(), "holesky".to_owned()],
        changed_s: u64::from(number) * 7,
    }
}

fn gap() -> Gap {
    Gap { probe: 2, from_s: 9 * PERIOD_S, to_s: 12 * PERIOD_S, reason: Reason::Missed }
}

fn opening() -> Opening {
    let row = OpeningRow { id: id(7), is_online: true, last_seen_ms: Some(9), online_scans: 3 };
    Opening {
        imported_at_ms: 7,
        scan_count: 4,
        time_zone: "Europe/Warsaw".to_owned(),
        subnet: Some("public".to_owned()),
        rows: vec![row],
    }
}

fn retraction() -> Retraction {
    Retraction {
        number: 1,
        probe: 2,
        from_s: 30,
        to_s: 90,
        reason: "its clock was wrong".to_owned(),
        made_at_ms: 7,
        undone_at_ms: Some(9),
    }
}

fn reader() -> NewIdentity {
    NewIdentity {
        name: "grafana".to_owned(),
        role: Role::Reader,
        subnets_allowed: Vec::new(),
        credential: Some(NewCredential {
            hash: [9; 32],
            kind: uptime_aggregator::store::CredentialKind::Token,
            valid_until_ms: Some(500),
        }),
    }
}

/// Puts something of everything in.
async fn fill(store: &mut SqliteStore) {
    store.add_epoch(&Epoch::with_defaults(Period::new(30).unwrap())).await.unwrap();
    introduce(store).await;
    let more = Batch {
        new_nodes: (NODES..500).map(|number| (id(number), 2 - number % 2)).collect(),
        details: (0..NODES).step_by(3).map(|number| (number, details(number))).collect(),
        gaps: vec![gap()],
        samples: vec![NodeSample {
            probe: 1,
            node: 3,
            round_s: 7 * PERIOD_S,
            seen_age_ms: Some(21_000),
            answered_in_ms: Some(70),
            round_trip_us: Some(400),
        }],
        now_ms: 300_000,
        ..Batch::default()
    };
    store.put(&more).await.unwrap();
    let facts = facts();
    put(store, facts.clone()).await;
    let day = store.plan_compaction(DAY_S).await.unwrap().unwrap();
    let token = store.acquire_lease(0).await.unwrap().unwrap();
    store.commit_compaction(&day, token).await.unwrap().unwrap();
    store.expire(0, &[vec![7; 300], Vec::new()], token).await.unwrap();
    store.save_checkpoint(&[vec![8; 300]]).await.unwrap();
    put(store, vec![fact((9, 1, 1, 0), &[5], 100)]).await;
    let number =
        store.retract(&retraction(), &By { actor: "host".to_owned(), now_ms: 0 }).await.unwrap();
    assert!(
        store.undo_retraction(number, &By { actor: "host".to_owned(), now_ms: 9 }).await.unwrap()
    );
    store.put_opening(&opening()).await.unwrap();
    store.forget_nodes(&[41, 450], 7, token).await.unwrap();
    let by = By { actor: "host".to_owned(), now_ms: 100 };
    assert!(store.enrol(&reader(), &by).await.unwrap());
    store.add_authority(&[5; 32]).await.unwrap();
}

/// All of it is there.
async fn holds_everything(store: &mut SqliteStore, version: u32) {
    let catalogue = store.catalogue().await.unwrap();
    // What earlier versions did not note is not made up.
    let brought_by = if version < 5 { [0; 3] } else { [0, 1, 1] };
    assert_eq!(catalogue.subnets_brought_by, brought_by);
    assert_eq!(catalogue.generation, 1);
    assert_eq!(catalogue.epochs, [Epoch::with_defaults(Period::new(30).unwrap())]);
    assert_eq!(catalogue.subnets, ["", "public", "testnet"]);
    let nodes = (0..NODES).map(|number| (id(number), 1));
    let more = (NODES..500).map(|number| (id(number), 2 - number % 2));
    assert_eq!(catalogue.nodes, nodes.chain(more).collect::<Vec<_>>());
    assert_eq!(catalogue.forgotten, [41, 450].into());
    let told: BTreeMap<_, _> = (0..NODES).step_by(3).map(|at| (at, details(at))).collect();
    assert_eq!(store.details(0, 1_000).await.unwrap(), told);
    let mut wanted = facts();
    wanted.push(fact((9, 1, 1, 0), &[5], 100));
    wanted.sort_by_key(|fact| (fact.key, fact.digest));
    alike(store.read(PERIOD_S, 2 * DAY_S).await.unwrap(), &wanted);
    assert_eq!(put(store, wanted).await, [uptime_aggregator::store::Put::Duplicate; 8]);
    assert_eq!(store.gaps(0, DAY_S).await.unwrap(), [gap()]);
    let samples = store.samples(3).await.unwrap();
    assert_eq!(samples.aged, [(1, 7 * PERIOD_S, 21_000)]);
    assert_eq!(samples.answered, [(1, 7 * PERIOD_S, 70)]);
    assert_eq!(store.round_trips().await.unwrap(), [(3, 400)]);
    assert_eq!(store.load_roll_up().await.unwrap(), [vec![7; 300], Vec::new()]);
    assert_eq!(store.load_checkpoint().await.unwrap(), [vec![8; 300]]);
    // Of every writer all but its last commit.
    let positions = store.positions().await.unwrap();
    let before = positions.iter().map(|it| Position { commit: it.commit - 1, ..it }).collect();
    let since = store.since(&before, u64::MAX).await.unwrap();
    assert_eq!(since.late.keys, [fact((9, 1, 1, 0), &[5], 100).key].into());
    assert_eq!(store.retractions().await.unwrap(), [retraction()]);
    assert_eq!(store.opening().await.unwrap(), Some(opening()));
    let identities = store.identities().await.unwrap();
    assert_eq!(identities.probes.keys().collect::<Vec<_>>(), ["probe-1", "probe-2"]);
    let shown = identities.credential(&[9; 32]).unwrap();
    assert_eq!((shown.name.as_str(), shown.valid_until_ms), ("grafana", Some(500)));
    // What earlier versions did not note is not made up.
    let noted = version >= 6;
    assert_eq!(shown.not_after_ms, noted.then_some(500));
    assert_eq!(identities.authorities.contains(&[5; 32]), noted);
    let audit_log = store.audit_log(None, 9).await.unwrap();
    assert!(audit_log.iter().any(|line| line.subject == "grafana"), "{audit_log:?}");
    assert_eq!(store.check(&mut |_| {}).await.unwrap().faults, Vec::<String>::new());
}

async fn write_golden() {
    let place = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(place.path()).await.unwrap();
    fill(&mut store).await;
    let copy = place.path().join("copy");
    store.copy_to(&copy).await.unwrap();
    let bytes = zstd::bulk::compress(&std::fs::read(copy).unwrap(), 19).unwrap();
    std::fs::write(path(VERSION), bytes).unwrap();
}

#[tokio::test]
async fn only_serve_and_migrate_bring_a_store_up_to_date() {
    let place = tempfile::tempdir().unwrap();
    let compacted = std::fs::read(path(VERSION - 1)).unwrap();
    let file = zstd::bulk::decompress(&compacted, 1 << 24).unwrap();
    std::fs::write(place.path().join(STORE_FILE_NAME), &file).unwrap();
    for _ in 0..2 {
        let fault = SqliteStore::open_existing(place.path()).await.err().unwrap();
        assert!(matches!(fault, StoreError::TooOld { .. }), "{fault}");
        assert!(fault.to_string().contains("uptime-aggregator migrate"), "{fault}");
    }
    assert_eq!(std::fs::read(place.path().join(STORE_FILE_NAME)).unwrap(), file, "untouched");
    let lock = DirectoryLock::take(place.path()).unwrap();
    let held = upkeep::migrate(place.path()).await.unwrap_err();
    assert!(held.to_string().contains("in use by another aggregator"), "{held}");
    assert_eq!(std::fs::read(place.path().join(STORE_FILE_NAME)).unwrap(), file, "untouched");
    drop(lock);
    for was in [VERSION - 1, VERSION] {
        let migrated = upkeep::migrate(place.path()).await.unwrap();
        assert_eq!(migrated, (i64::from(was), i64::from(VERSION)));
    }
    holds_everything(&mut SqliteStore::open_existing(place.path()).await.unwrap(), VERSION - 1)
        .await;
}

#[tokio::test]
async fn what_any_version_wrote_is_all_there() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        write_golden().await;
    }
    for version in 4..=VERSION {
        let place = tempfile::tempdir().unwrap();
        let compacted = std::fs::read(path(version)).unwrap();
        let file = zstd::bulk::decompress(&compacted, 1 << 24).unwrap();
        std::fs::write(place.path().join(STORE_FILE_NAME), file).unwrap();
        // The second time it is of this version already.
        for _ in 0..2 {
            let mut store = SqliteStore::open(place.path()).await.unwrap();
            holds_everything(&mut store, version).await;
            store.close().await.unwrap();
        }
    }
}

/// When the programs of 0.1.0 that wrote it were stopped: 2026-11-30T22:51:47Z.
const STOPPED_MS: i64 = 1_796_079_107_000;

/// `v0.1.0.sqlite3.zst` and `v0.1.0.csv` are what the programs of that release wrote in eight
/// rounds of ten seconds: two probes, thirty providers in two subnets, one of them dead.
#[tokio::test]
async fn a_store_of_0_1_0_is_taken_over_and_says_the_same() {
    let file = |name: &str| {
        let path = format!("tests/store/golden/v0.1.0.{name}");
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    };
    let place = tempfile::tempdir().unwrap();
    let stored = zstd::bulk::decompress(&file("sqlite3.zst"), 1 << 24).unwrap();
    std::fs::write(place.path().join(STORE_FILE_NAME), stored).unwrap();
    assert_eq!(SqliteStore::found_version(place.path()).await.unwrap(), 5);
    let mut store = SqliteStore::open(place.path()).await.unwrap();
    assert_eq!(store.check(&mut |_| {}).await.unwrap().faults, Vec::<String>::new());
    store.hold().await.unwrap();
    let rebuilt = rebuild(&mut store, STOPPED_MS, false).await.unwrap().unwrap();
    assert_eq!(rebuilt.left_out.count, 0, "{:?}", rebuilt.left_out.listed);
    let mut csv = Vec::new();
    write_csv(&rebuilt.snapshot, &mut csv).unwrap();
    assert_eq!(String::from_utf8(csv).unwrap(), String::from_utf8(file("csv")).unwrap());
}
