//! Stores that are checked, copied, restored and damaged: what is damaged is found, named, and does
//! not take the rest down.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::TempDir;
#[path = "shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod fixture;
#[path = "shared/stepping.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod stepping;

use fixture::{DAY_S, period};
use stepping::{catch_up, compact, submit};
use uptime_aggregator::engine::{Engine, EngineOptions, PartOutcome, Submission};
use uptime_aggregator::publish::write_csv;
use uptime_aggregator::store::{Checkpoints, FactLog, Registry, SqliteStore, Store, StoreError};
use uptime_aggregator::upkeep::{UpkeepError, backup, restore, verify, verify_held};
use uptime_proto::{Class, Kind, NodeId, Part, Round, Sets};

const FILE: &str = "uptime.sqlite3";
const PERIOD_S: u64 = 600;
/// A day that is compacted and a piece of the next.
const ROUNDS: u64 = 144 + 60;
const NODES: u64 = 60;
const PAGE_BYTES: u64 = 4_096;

fn node(number: u64) -> NodeId {
    let mut id = [7; 20];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    NodeId::new(id)
}

/// Parts of one probe and round; nodes come and go, so that no two rounds look alike.
fn parts(probe: u64, at: u64) -> Vec<Part> {
    let round = Round::new(DAY_S + at * PERIOD_S, period(PERIOD_S)).unwrap();
    let part = |subnet: &str, kind, sets| Part {
        observed_at_ms: round.start_ms() + 300_000 + i64::try_from(probe * 7 + at % 5).unwrap(),
        relay_session_age_s: Some(600),
        ..fixture::part(round, subnet, kind, sets)
    };
    let up = |number: &u64| !(at / (2 + number % 9) + number).is_multiple_of(4);
    let (seen, dead): (Vec<u64>, Vec<u64>) = (0..NODES).partition(up);
    let ids = |numbers: Vec<u64>| numbers.into_iter().map(node).collect::<Vec<_>>();
    vec![
        part("public", Kind::Market, Sets::default().with(Class::Offer, ids((0..NODES).collect()))),
        part(
            "",
            Kind::Lookup,
            Sets::default().with(Class::Seen, ids(seen)).with(Class::Unreachable, ids(dead)),
        ),
    ]
}

fn options() -> EngineOptions {
    fixture::options(PERIOD_S)
}

fn end_ms(rounds: u64) -> i64 {
    i64::try_from((DAY_S + rounds * PERIOD_S) * 1000).unwrap() + 10_000
}

struct Filled {
    directory: TempDir,
    csv: String,
}

fn csv_of(engine: &Engine<SqliteStore>) -> String {
    let mut bytes = Vec::new();
    write_csv(engine.snapshot(), &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// A store with compacted days, rows and a checkpoint.
async fn filled() -> Filled {
    let directory = tempfile::tempdir().unwrap();
    let names = ["probe-0", "probe-1", "probe-2"];
    let (mut engine, probes) =
        fixture::engine(directory.path(), &names, options(), end_ms(0)).await;
    for at in 0..ROUNDS {
        for probe in &probes {
            let parts = parts(u64::from(*probe), at);
            let submission = Submission { probe: *probe, parts, ..Submission::default() };
            let outcomes = submit(&mut engine, submission, end_ms(at + 1) - 5_000).await;
            assert!(outcomes.iter().all(|outcome| *outcome == PartOutcome::Accepted));
        }
        catch_up(&mut engine, end_ms(at + 1)).await;
        if at == 144 + 10 {
            engine.save_checkpoint().await;
        }
    }
    assert_eq!(compact(&mut engine, end_ms(ROUNDS)).await.len(), 1);
    let csv = csv_of(&engine);
    engine.into_store().close().await.unwrap();
    Filled { directory, csv }
}

async fn csv_in(data_dir: &Path) -> String {
    let store = SqliteStore::open(data_dir).await.unwrap();
    let engine = Engine::open(store, options(), end_ms(ROUNDS)).await.unwrap();
    csv_of(&engine)
}

#[tokio::test]
async fn a_sound_store_is_said_to_be_sound_and_comes_back_from_a_backup() {
    let Filled { directory, csv } = filled().await;
    let verified = verify(directory.path(), end_ms(ROUNDS)).await.unwrap();
    assert!(verified.is_sound(), "{:#?}", verified.lines());
    let counted =
        (verified.checked.parts, verified.checked.compacted_parts, verified.checked.nodes);
    assert_eq!(counted, (60 * 6, 144 * 6, NODES));
    assert!(matches!(verified.state, Some(Ok(_))), "{:#?}", verified.lines());

    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("backup.sqlite3");
    // While it is written: an open transaction of the writer holds nothing up.
    let mut writer = SqliteStore::open(directory.path()).await.unwrap();
    writer.add_probe("late", &[99; 32], &[], 0).await.unwrap();
    assert!(backup(directory.path(), &file, None, 0).await.unwrap().bytes > 0);
    let again = backup(directory.path(), &file, None, 0).await;
    assert!(matches!(again, Err(UpkeepError::Exists(_))), "nothing is overwritten");

    let data_dir = elsewhere.path().join("data");
    let restored = restore(&file, &data_dir).await.unwrap();
    assert_eq!((restored.generation, restored.aside.len()), (2, 0), "the generation is raised");
    assert_eq!(csv_in(&data_dir).await, csv);
    let mut store = SqliteStore::open(&data_dir).await.unwrap();
    let (old, new) = (writer.catalogue().await.unwrap(), store.catalogue().await.unwrap());
    assert_eq!((old.store_id, old.generation + 1), (new.store_id, new.generation));
    let again = restore(&file, &data_dir).await.unwrap_err();
    assert!(matches!(again, UpkeepError::StoreExists(_)), "nothing is overwritten");
    let advice = again.to_string();
    let files = [FILE, "uptime.sqlite3-wal", "uptime.sqlite3-shm", "uptime.sqlite3-journal"];
    assert!(files.iter().all(|file| advice.contains(file)), "{advice}");
    assert!(!data_dir.join("restore.partial").exists());
}

#[tokio::test]
async fn what_is_written_ahead_is_given_back_to_the_system() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = SqliteStore::open(directory.path()).await.unwrap();
    let mut reader = writer.reader().await.unwrap();
    reader.hold().await.unwrap();
    let wal = || directory.path().join("uptime.sqlite3-wal").metadata().unwrap().len();
    // While somebody reads, nothing can be taken out of it.
    let word = |at: u32| at.wrapping_mul(2_654_435_761).rotate_left(at % 31).to_le_bytes();
    let piece: Vec<u8> = (0..1 << 18).flat_map(word).collect();
    for _ in 0..6 {
        let pieces = vec![piece.clone(); 4];
        writer.save_checkpoint(&pieces).await.unwrap();
    }
    let peak = wal();
    drop(reader);
    for _ in 0..3 {
        writer.save_checkpoint(&[vec![1; 10]]).await.unwrap();
    }
    let limit = 16 << 20;
    assert!(peak > limit && wal() <= limit, "{peak} {}", wal());
}

#[tokio::test]
async fn what_comes_while_it_is_checked_is_no_fault() {
    let Filled { directory, .. } = filled().await;
    let before = verify(directory.path(), end_ms(ROUNDS)).await.unwrap();
    let mut store = SqliteStore::open_existing(directory.path()).await.unwrap();
    store.hold().await.unwrap();
    // A probe drains its spool: late parts, a checkpoint that knows them, another day compacted.
    let writer = SqliteStore::open(directory.path()).await.unwrap();
    let mut engine = Engine::open(writer, options(), end_ms(ROUNDS)).await.unwrap();
    for at in ROUNDS..ROUNDS + 90 {
        let submission = Submission { probe: 1, parts: parts(1, at), ..Submission::default() };
        submit(&mut engine, submission, end_ms(ROUNDS + 90)).await;
    }
    catch_up(&mut engine, end_ms(ROUNDS + 90)).await;
    engine.save_checkpoint().await;
    assert_eq!(compact(&mut engine, end_ms(ROUNDS + 90)).await.len(), 1);
    let verified = verify_held(&mut store, end_ms(ROUNDS)).await.unwrap();
    assert!(verified.is_sound(), "{:#?}", verified.lines());
    assert_eq!(verified.lines(), before.lines(), "of the moment it began");
}

#[tokio::test]
async fn what_is_no_backup_is_not_restored() {
    let Filled { directory, .. } = filled().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("backup.sqlite3");
    backup(directory.path(), &file, None, 0).await.unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4_096].fill(0xa5);
    std::fs::write(&file, &bytes).unwrap();
    for bad in [bytes, b"no database at all".to_vec(), Vec::new()] {
        std::fs::write(&file, &bad).unwrap();
        let data_dir = elsewhere.path().join("data");
        let fault = restore(&file, &data_dir).await;
        assert!(matches!(fault, Err(UpkeepError::Damaged { .. })), "{fault:?}");
        assert!(!data_dir.join(FILE).exists());
    }
    let nowhere = verify(&elsewhere.path().join("nothing"), 0).await;
    assert!(matches!(nowhere, Err(UpkeepError::Store(StoreError::Missing(_)))));
}

/// Copies everything in a data directory, as a kill would leave it.
fn as_after_a_kill(data_dir: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for ending in ["", "-wal", "-shm"] {
        let name = format!("{FILE}{ending}");
        std::fs::copy(data_dir.join(&name), to.join(&name)).unwrap();
    }
}

#[tokio::test]
async fn what_a_kill_left_beside_the_store_does_not_get_into_the_restored_one() {
    let Filled { directory, csv } = filled().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("backup.sqlite3");
    backup(directory.path(), &file, None, 0).await.unwrap();
    // It goes on, and is killed: what it wrote last is in the -wal alone.
    let mut writer = SqliteStore::open(directory.path()).await.unwrap();
    for number in 0..50u8 {
        writer.add_probe(&format!("later-{number}"), &[number + 100; 32], &[], 0).await.unwrap();
    }
    let data_dir = elsewhere.path().join("data");
    as_after_a_kill(directory.path(), &data_dir);
    // A store's own file is no backup: the -wal beside it belongs to it.
    let fault = restore(&data_dir.join(FILE), &elsewhere.path().join("other")).await;
    assert!(matches!(fault, Err(UpkeepError::NotABackup(_))), "{fault:?}");
    // As whoever knows of the one file moves it away.
    std::fs::remove_file(data_dir.join(FILE)).unwrap();
    let restored = restore(&file, &data_dir).await.unwrap();
    assert_eq!(restored.aside.len(), 2, "{restored:?}");
    assert!(verify(&data_dir, end_ms(ROUNDS)).await.unwrap().is_sound());
    assert_eq!(csv_in(&data_dir).await, csv);
    let mut store = SqliteStore::open(&data_dir).await.unwrap();
    let catalogue = store.catalogue().await.unwrap();
    assert_eq!((catalogue.probes.len(), catalogue.generation), (3, 2));
}

#[tokio::test]
async fn nothing_is_acknowledged_into_files_that_do_not_lie_there_any_more() {
    for ending in ["", "-wal", "-shm"] {
        for replaced in [false, true] {
            let Filled { directory, .. } = filled().await;
            let store = SqliteStore::open(directory.path()).await.unwrap();
            let mut engine = Engine::open(store, options(), end_ms(ROUNDS)).await.unwrap();
            let submission =
                |at| Submission { probe: 1, parts: parts(1, at), ..Submission::default() };
            submit(&mut engine, submission(ROUNDS), end_ms(ROUNDS + 1)).await;
            assert_eq!(engine.trouble(), None);
            let path = directory.path().join(format!("{FILE}{ending}"));
            let away = directory.path().join("away");
            std::fs::rename(&path, &away).unwrap();
            if replaced {
                std::fs::copy(&away, &path).unwrap();
            }
            let refused = engine.commit(vec![submission(ROUNDS + 1)], end_ms(ROUNDS + 2)).await;
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("removed or replaced"), "{refused}");
            assert!(refused.contains(&path.display().to_string()), "{refused}");
            assert!(engine.trouble().unwrap().contains("removed or replaced"));
            // What is in memory is not what is stored: putting it back does not mend that.
            std::fs::rename(&away, &path).unwrap();
            engine.commit(vec![submission(ROUNDS + 1)], end_ms(ROUNDS + 2)).await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn a_removed_store_is_noticed_while_nothing_comes_in() {
    let Filled { directory, .. } = filled().await;
    let store = SqliteStore::open(directory.path()).await.unwrap();
    let mut engine = Engine::open(store, options(), end_ms(ROUNDS)).await.unwrap();
    std::fs::remove_file(directory.path().join(FILE)).unwrap();
    catch_up(&mut engine, end_ms(ROUNDS + 1)).await;
    assert!(engine.trouble().unwrap().contains("removed or replaced"));
}

/// What became of a store with one damaged page.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Fates {
    sound: usize,
    served: usize,
    refused: usize,
}

/// Any page of the file, overwritten: `verify` finds it, and serving goes on with the rest unless
/// the page holds what nothing can be read without.
async fn damage(every: u64) -> Fates {
    let Filled { directory, .. } = filled().await;
    let path = directory.path().join(FILE);
    let whole = std::fs::read(&path).unwrap();
    let pages = whole.len() as u64 / PAGE_BYTES;
    let mut fates = Fates::default();
    for page in 1..pages {
        if page % every != 0 {
            continue;
        }
        std::fs::write(&path, &whole).unwrap();
        let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(page * PAGE_BYTES)).unwrap();
        file.write_all(&vec![0x5a; usize::try_from(PAGE_BYTES).unwrap()]).unwrap();
        drop(file);
        let faults = match verify(directory.path(), end_ms(ROUNDS)).await {
            Ok(verified) if verified.is_sound() => {
                // A free page holds nothing.
                fates.sound += 1;
                continue;
            }
            Ok(verified) => verified.lines(),
            Err(error) => vec![error.to_string()],
        };
        assert!(!faults.is_empty());
        let served = async {
            let mut store = SqliteStore::open(directory.path()).await?;
            let read = store.read(0, u64::from(u32::MAX)).await?;
            let engine = Engine::open(store, options(), end_ms(ROUNDS)).await?;
            Ok::<_, StoreError>((read, csv_of(&engine)))
        };
        match served.await {
            Ok((read, csv)) => {
                fates.served += 1;
                let facts = read.iter().filter(|fact| fact.is_ok()).count();
                assert!(facts > 0 && csv.lines().count() > 1, "page {page}: nothing is left");
            }
            Err(error) => {
                fates.refused += 1;
                // It is said what is lost and what to do.
                let text = error.to_string();
                assert!(text.contains("restore a backup"), "page {page}: {text}; {faults:?}");
            }
        }
        for leftover in ["uptime.sqlite3-wal", "uptime.sqlite3-shm"] {
            std::fs::remove_file(directory.path().join(leftover)).ok();
        }
    }
    fates
}

#[tokio::test]
async fn a_damaged_page_does_not_take_the_rest_down() {
    let fates = damage(5).await;
    assert!(fates.served >= 4, "{fates:?}");
}

#[tokio::test]
async fn long_no_damaged_page_takes_the_rest_down() {
    let fates = damage(1).await;
    // Names of probes and subnets, ids, epochs, retractions and the store's own name.
    assert!(fates.refused <= 10 && fates.served >= 20, "{fates:?}");
}
