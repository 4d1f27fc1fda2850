//! Golden files: small spools as this version writes them. `UPDATE_GOLDEN=1` writes them anew;
//! once released, a change of them is a change of the format and needs a new version.

use std::path::PathBuf;

use super::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/spool/golden").join(name)
}

fn market(number: u64, offers: impl IntoIterator<Item = u8>) -> Part {
    let plain = part(number, []);
    let ids = offers.into_iter().map(|byte| NodeId::new([byte; 20])).collect();
    Part {
        key: PartKey { subnet: "public".to_owned(), ..plain.key },
        kind: Kind::Market,
        relay_session_age_s: None,
        sets: Sets::default().with(Class::Offer, ids),
        ..plain
    }
}

/// What the golden spool was given: two runs, every kind of frame.
fn write(directory: &Path) {
    let (spool, _) = open_quick(directory, true);
    append(&spool, market(1_000, 1..5));
    let second = append(&spool, part(1_000, 1..4));
    append(&spool, part(1_000, []));
    append(&spool, market(1_001, 1..6));
    let blind = Part { outcome: Outcome::CouldNotLook(Reason::Unauthorised), ..part(1_001, []) };
    append(&spool, blind);
    spool.acknowledge(second);
    drop(spool);
    let (spool, _) = open_quick(directory, true);
    spool.report_gap(gap(1_002, 1_010, Reason::Missed));
    let lookup = append(&spool, part(1_010, 2..7));
    let silent = Sets::default().with(Class::Unreachable, vec![NodeId::new([9; 20])]);
    append(&spool, Part { sets: silent, ..part(1_010, []) });
    spool.acknowledge(lookup);
    spool.report_gap(gap(1_000, 1_001, Reason::SpoolFull));
}

/// What waits in it.
fn waits() -> Vec<(u64, Item)> {
    let numbered = |number: u16, mut part: Part| {
        part.key.number = number;
        Item::Part(part)
    };
    let blind = Part { outcome: Outcome::CouldNotLook(Reason::Unauthorised), ..part(1_001, []) };
    let silent = Sets::default().with(Class::Unreachable, vec![NodeId::new([9; 20])]);
    vec![
        (1, numbered(0, market(1_000, 1..5))),
        (3, numbered(1, part(1_000, []))),
        (4, numbered(0, market(1_001, 1..6))),
        (5, numbered(0, blind)),
        (6, Item::Gap(gap(1_002, 1_010, Reason::Missed))),
        (8, numbered(1, Part { sets: silent, ..part(1_010, []) })),
        (9, Item::Gap(gap(1_000, 1_001, Reason::SpoolFull))),
    ]
}

/// The damage of the other golden spool: a bit, and the end of the second segment.
fn harm(directory: &Path) {
    let first = segment::path(directory, 1);
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[60] ^= 4;
    std::fs::write(&first, bytes).unwrap();
    let second = segment::path(directory, 2);
    let bytes = std::fs::read(&second).unwrap();
    std::fs::write(&second, &bytes[..bytes.len() - 3]).unwrap();
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for (name, bytes) in files(from) {
        std::fs::write(to.join(name), bytes).unwrap();
    }
}

#[test]
fn the_writer_writes_and_the_reader_reads_the_golden_files() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    let damaged = tempfile::tempdir().unwrap();
    copy(directory.path(), damaged.path());
    harm(damaged.path());
    for (name, made) in [("v1", directory.path()), ("v1-damaged", damaged.path())] {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::remove_dir_all(golden(name)).ok();
            copy(made, &golden(name));
        }
        assert!(files(made) == files(&golden(name)), "{name}: other bytes; see UPDATE_GOLDEN");
    }

    let read = |name: &str| {
        let place = tempfile::tempdir().unwrap();
        copy(&golden(name), place.path());
        let (spool, found) = open_quick(place.path(), true);
        (drain_all(&spool), found, spool.may_make(round(1_010)))
    };
    assert_eq!(read("v1"), (waits(), Found { waiting: 7, damaged: 0 }, true));
    // The first entry stands twice; the last gap was cut.
    let mut left = waits();
    left.pop();
    assert_eq!(read("v1-damaged"), (left, Found { waiting: 6, damaged: 1 }, false));
}
