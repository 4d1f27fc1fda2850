//! `spool list`, `verify` and `repair`.

use super::*;

/// Two segments: in the first a bit of the third entry is flipped.
fn damaged(directory: &Path) {
    let (spool, _) = open_quick(directory, true);
    for number in 1..=130 {
        append(&spool, part(number, [1, 2, u8::try_from(number).unwrap()]));
    }
    spool.acknowledge(1);
    drop(spool);
    let (spool, _) = open_quick(directory, true);
    append(&spool, part(200, [1]));
    spool.report_gap(gap(131, 200, Reason::Missed));
    drop(spool);
    let path = segment::path(directory, 1);
    let mut bytes = std::fs::read(&path).unwrap();
    // Both copies of an entry that brings an id: what builds on it goes too.
    let at = bytes.len() / 2;
    bytes[at..at + 300].fill(0);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_spool_is_listed_without_being_touched() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open_quick(directory.path(), true);
    append(&spool, part(1, [1]));
    let second = append(&spool, part(2, [1]));
    spool.report_gap(gap(3, 5, Reason::Missed));
    spool.acknowledge(second);
    let listing = inspect::list(directory.path()).unwrap();
    assert!(listing.in_use);
    let segment = &listing.segments[0];
    assert_eq!((segment.parts_waiting, segment.gaps_waiting), (1, 1));
    assert_eq!(segment.first_round.as_deref(), Some("1970-01-01T00:00:30Z"));
    assert_eq!((listing.segments.len(), listing.damaged_stretches()), (1, 0));
    assert!(inspect::check(directory.path()).unwrap().in_use, "a running probe is no fault");
    drop(spool);
    assert!(!inspect::check(directory.path()).unwrap().in_use);
    std::fs::write(segment::path(directory.path(), 2), "garbage").unwrap();
    let listing = inspect::list(directory.path()).unwrap();
    assert_eq!((listing.damaged_stretches(), listing.lines().len()), (1, 4));
    assert!(inspect::list(&directory.path().join("absent")).is_err());
    assert!(inspect::check(&segment::path(directory.path(), 2)).is_err());
}

#[test]
fn every_fault_is_named_and_repair_leaves_none() {
    let directory = tempfile::tempdir().unwrap();
    damaged(directory.path());
    let (spool, _) = open_quick(directory.path(), true);
    let (lost_before, before) = told(drain_all(&spool));
    let refused = repair::repair(directory.path(), LIMITS).unwrap_err();
    assert!(refused.to_string().contains("another probe uses this spool"), "{refused}");
    drop(spool);
    damaged_again(directory.path());

    let verified = inspect::verify(directory.path()).unwrap();
    assert!(verified.faults.len() > 1, "{verified:?}");
    assert!(verified.faults.iter().all(|fault| fault.file == "00000001.spool"));
    let whole = std::fs::read(segment::path(directory.path(), 1)).unwrap();
    let repaired = repair::repair(directory.path(), LIMITS).unwrap();
    assert_eq!(repaired.len(), 1);
    assert_eq!(repaired[0].left_out, verified.faults);
    assert_eq!(repaired[0].quarantined, "00000001.spool.damaged");
    let quarantined = std::fs::read(directory.path().join("00000001.spool.damaged")).unwrap();
    assert!(quarantined == whole, "the damaged file is kept as it was");
    let after = inspect::verify(directory.path()).unwrap();
    assert_eq!((&after.faults, after.parts), (&vec![], verified.parts));
    assert_eq!(repair::repair(directory.path(), LIMITS).unwrap(), []);

    // The same waits as before, and what was not known before is not taken for known.
    let (spool, found) = open_quick(directory.path(), true);
    assert_eq!(found.damaged, 0);
    assert!(!spool.may_make(round(200)) && spool.may_make(round(201)));
    assert_eq!(drain_all(&spool), before);
    assert!(append(&spool, part(201, [1])) > 132);
    // What a repair leaves out is told like what a reader passes over.
    let (lost, _) = told(drain_all(&spool));
    let holds = |gap: &v1::Gap| {
        let within = |it: &v1::Gap| {
            it.from_round_unix_s <= gap.from_round_unix_s
                && gap.to_round_unix_s <= it.to_round_unix_s
        };
        lost.iter().any(within)
    };
    assert!(lost_before.iter().all(holds), "{lost:?}, before {lost_before:?}");
}

/// The damaged segment may have been given up in part by a reader; that is another story.
fn damaged_again(directory: &Path) {
    for (_, path) in segment::list(directory).unwrap() {
        std::fs::remove_file(path).unwrap();
    }
    std::fs::remove_file(directory.join("spool.lock")).unwrap();
    damaged(directory);
}

#[test]
fn a_header_and_a_mark_are_repaired_too() {
    for file in ["00000001.spool", "00000002.spool", "spool.lock"] {
        let directory = tempfile::tempdir().unwrap();
        for number in [7, 9] {
            let (spool, _) = open_quick(directory.path(), true);
            append(&spool, part(number, [1]));
        }
        let path = directory.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(inspect::verify(directory.path()).unwrap().faults.len(), 1, "{file}");
        repair::repair(directory.path(), LIMITS).unwrap();
        assert_eq!(inspect::verify(directory.path()).unwrap().faults, [], "{file}");
        let (spool, found) = open_quick(directory.path(), true);
        assert_eq!(found, Found { waiting: 2, damaged: 0 });
        assert!(!spool.may_make(round(9)) && spool.may_make(round(10)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is done to the bytes, a repair keeps every part that could be read before, and
    /// leaves nothing to repair.
    #[test]
    fn a_repair_keeps_all_that_could_be_read(
        harm in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = open_quick(directory.path(), true);
        for number in 1..=20 {
            append(&spool, part(1 + number / 2, 0..u8::try_from(number).unwrap()));
        }
        drop(spool);
        let path = segment::path(directory.path(), 1);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in harm {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut.index(200));
        std::fs::write(&path, bytes).unwrap();
        let before = inspect::verify(directory.path()).unwrap();
        let repaired = repair::repair(directory.path(), LIMITS).unwrap();
        prop_assert_eq!(repaired.is_empty(), before.faults.is_empty());
        let after = inspect::verify(directory.path()).unwrap();
        prop_assert_eq!(after.faults, vec![]);
        prop_assert_eq!(after.parts, before.parts);
        let (spool, found) = open_quick(directory.path(), true);
        prop_assert_eq!(found, Found { waiting: before.parts, damaged: 0 });
        prop_assert_eq!(drain(&spool).len() as u64, before.parts);
    }
}
