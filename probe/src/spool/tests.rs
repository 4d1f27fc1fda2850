//! The outbox against a plain list, its limits, and a disk that takes nothing. Damage, golden
//! files, commands and size have files of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use uptime_proto::convert::PartLimits;
use uptime_proto::{
    Class, Kind, NodeId, Outcome, Part, PartKey, Period, Reason, Round, Sample, Sets, v1,
};

use super::attachments::DETAILS_MAX;
use super::state::Switches;
use super::*;

mod commands;
mod damage;
mod golden;
mod size;
mod vanished;

const LIMITS: SpoolLimits = SpoolLimits::of_bytes(64 << 20);

fn round(number: u64) -> Round {
    Round::new(number * 30, Period::new(30).unwrap()).unwrap()
}

fn part(round_number: u64, seen: impl IntoIterator<Item = u8>) -> Part {
    let ids = seen.into_iter().map(|byte| NodeId::new([byte; 20])).collect();
    Part {
        key: PartKey { subnet: String::new(), round: round(round_number), number: 0 },
        kind: Kind::Lookup,
        outcome: Outcome::Looked,
        observed_at_ms: round(round_number).start_ms() + 20_000,
        relay_session_age_s: Some(600),
        sets: Sets::default().with(Class::Seen, ids),
    }
}

fn open(directory: &Path) -> (Spool, Found) {
    Spool::open(directory, LIMITS).unwrap()
}

/// As `open`, without syncing, and trying again at once.
fn open_quick(directory: &Path, disk_takes: bool) -> (Spool, Found) {
    let switches = Switches { synced: false, disk_takes, try_again: std::time::Duration::ZERO };
    Spool::open_with(directory, LIMITS, switches).unwrap()
}

fn gap(first: u64, end: u64, reason: Reason) -> v1::Gap {
    v1::Gap {
        from_round_unix_s: round(first).start_s(),
        to_round_unix_s: round(end).start_s(),
        reason: reason.to_wire() as i32,
    }
}

fn append(spool: &Spool, part: Part) -> u64 {
    spool.append(part, &PartLimits::default()).unwrap()
}

/// Everything that waits, in the order in which it would be sent.
fn drain_all(spool: &Spool) -> Vec<(u64, Item)> {
    let mut cursor = spool.cursor();
    std::iter::from_fn(|| cursor.next_item()).collect()
}

/// The gaps that tell of loss, and the other items.
fn told(items: Vec<(u64, Item)>) -> (Vec<v1::Gap>, Vec<(u64, Item)>) {
    let mut gaps = Vec::new();
    let mut others = Vec::new();
    for (sequence, item) in items {
        match item {
            Item::Gap(gap) if gap.reason == Reason::SpoolFull.to_wire() as i32 => gaps.push(gap),
            item => others.push((sequence, item)),
        }
    }
    (gaps, others)
}

/// The parts that wait.
fn drain(spool: &Spool) -> Vec<(u64, Part)> {
    let parts = drain_all(spool).into_iter().filter_map(|(sequence, item)| match item {
        Item::Part(part) => Some((sequence, part)),
        Item::Gap(_) => None,
    });
    parts.collect()
}

/// The gaps that wait.
fn drain_gaps(spool: &Spool) -> Vec<v1::Gap> {
    let gaps = drain_all(spool).into_iter().filter_map(|(_, item)| match item {
        Item::Gap(gap) => Some(gap),
        Item::Part(_) => None,
    });
    gaps.collect()
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64, Vec<u8>),
    Gap,
    /// Of what waits, the one at this place.
    Acknowledge(prop::sample::Index),
    /// The process ends without notice and starts again.
    Crash,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..3, prop::collection::vec(0u8..40, 0..30)).prop_map(|(r, s)| Step::Append(r, s)),
        1 => Just(Step::Gap),
        3 => any::<prop::sample::Index>().prop_map(Step::Acknowledge),
        1 => Just(Step::Crash),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is appended waits until it is acknowledged, over any number of crashes; no key is
    /// given out twice.
    #[test]
    fn the_outbox_is_a_list(steps in prop::collection::vec(step(), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let (mut spool, _) = open(directory.path());
        let mut list: BTreeMap<u64, Item> = BTreeMap::new();
        let mut keys = std::collections::BTreeSet::new();
        let mut now = 1_000;
        for step in steps {
            match step {
                Step::Append(ahead, seen) => {
                    now += ahead;
                    let wanted = part(now, seen);
                    if !spool.may_make(wanted.key.round) {
                        continue;
                    }
                    let sequence = append(&spool, wanted.clone());
                    let kept = drain(&spool).into_iter().find(|(s, _)| *s == sequence).unwrap().1;
                    prop_assert!(keys.insert(kept.key.clone()), "a key made twice: {:?}", kept.key);
                    prop_assert_eq!(&kept.sets, &wanted.sets);
                    list.insert(sequence, Item::Part(kept));
                }
                Step::Gap => {
                    let wanted = gap(now, now + 1, Reason::Missed);
                    spool.report_gap(wanted);
                    let (sequence, kept) = drain_all(&spool).pop().unwrap();
                    prop_assert_eq!(&kept, &Item::Gap(wanted));
                    prop_assert!(list.insert(sequence, kept).is_none());
                }
                Step::Acknowledge(at) if !list.is_empty() => {
                    let sequence = *list.keys().nth(at.index(list.len())).unwrap();
                    spool.acknowledge(sequence);
                    list.remove(&sequence);
                }
                Step::Acknowledge(_) => {}
                Step::Crash => {
                    drop(spool);
                    let (again, found) = open(directory.path());
                    prop_assert_eq!(found, Found { waiting: list.len() as u64, damaged: 0 });
                    spool = again;
                }
                Step::Drain => {
                    let wanted: Vec<_> = list.clone().into_iter().collect();
                    prop_assert_eq!(drain_all(&spool), wanted);
                }
            }
        }
        prop_assert_eq!(spool.waiting(), list.len() as u64);
    }
}

#[test]
fn a_round_of_which_keys_may_be_lost_is_not_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let sequence = append(&spool, part(7, [1]));
    spool.acknowledge(sequence);
    drop(spool);
    let (spool, _) = open(directory.path());
    assert!(spool.may_make(round(7)), "the file still tells which numbers were used");
    let sequence = append(&spool, part(7, [2]));
    assert_eq!(drain(&spool)[0].1.key.number, 1);
    assert_eq!(segment::list(directory.path()).unwrap().len(), 1, "the first one went");
    spool.acknowledge(sequence);
    // Everything is delivered; a write by the next run lets the rest go.
    drop(spool);
    let (spool, _) = open(directory.path());
    spool.report_gap(gap(1, 2, Reason::Missed));
    drop(spool);
    // Only the highest round is still known.
    let (spool, _) = open(directory.path());
    assert!(!spool.may_make(round(7)));
    assert!(spool.append(part(7, [3]), &PartLimits::default()).is_err());
    assert!(spool.may_make(round(8)));
}

#[test]
fn what_was_acknowledged_by_several_runs_is_not_taken_for_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let sequences: Vec<u64> = (0..3).map(|_| append(&spool, part(7, [1]))).collect();
    // The last one first, so that the run after this does not tell of it.
    spool.acknowledge(sequences[2]);
    drop(spool);
    let (spool, _) = open(directory.path());
    spool.acknowledge(sequences[0]);
    spool.acknowledge(sequences[1]);
    drop(spool);
    let (spool, found) = open(directory.path());
    assert_eq!(found, Found::default());
    append(&spool, part(8, [1]));
    assert_eq!(drain_gaps(&spool), []);
    assert_eq!(segment::list(directory.path()).unwrap().len(), 1, "the finished ones went");
}

#[test]
fn runs_that_write_nothing_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        drop(open(directory.path()));
    }
    assert_eq!(segment::list(directory.path()).unwrap(), []);
}

#[test]
fn a_spool_has_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let refused = Spool::open(directory.path(), LIMITS).unwrap_err();
    assert!(refused.to_string().contains("another probe uses this spool"), "{refused}");
    // Another handle or a place in it keeps it.
    let cursor = spool.cursor();
    drop(spool);
    assert!(Spool::open(directory.path(), LIMITS).is_err());
    drop(cursor);
    assert!(Spool::open(directory.path(), LIMITS).is_ok());
}

/// A part of a round with so many nodes that no other round has.
fn many(number: u64, count: u32) -> Part {
    let ids = (0..count).map(|node| {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&node.to_be_bytes());
        bytes[4..12].copy_from_slice(&number.to_be_bytes());
        NodeId::new(bytes)
    });
    let sets = Sets::default().with(Class::Seen, ids.collect());
    Part { sets, ..part(number, []) }
}

fn bytes_of(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn a_full_spool_gives_up_the_oldest_and_says_so_durably() {
    let directory = tempfile::tempdir().unwrap();
    let limits = SpoolLimits::of_bytes(2 << 20);
    let (spool, _) = Spool::open(directory.path(), limits).unwrap();
    let first = append(&spool, many(1, 3_000));
    spool.acknowledge(first);
    for number in 2..=60 {
        append(&spool, many(number, 3_000));
        let held = bytes_of(directory.path());
        assert!(held <= limits.bytes_max + 28, "{held} bytes");
    }
    drop(spool);
    let (spool, _) = Spool::open(directory.path(), limits).unwrap();
    let waiting = drain(&spool);
    assert!(waiting.last().unwrap().1 == many(60, 3_000), "the newest stays");
    // The gaps tell of every round that went and of none that stayed; of none that was delivered.
    let kept: Vec<u64> = waiting.iter().map(|(_, part)| part.key.round.start_s()).collect();
    let gaps = drain_gaps(&spool);
    assert!(gaps.iter().all(|gap| gap.reason == Reason::SpoolFull.to_wire() as i32));
    for number in 1..=60 {
        let start_s = round(number).start_s();
        let told =
            gaps.iter().any(|gap| (gap.from_round_unix_s..gap.to_round_unix_s).contains(&start_s));
        assert_eq!(told, number > 1 && !kept.contains(&start_s), "round {number}");
    }
}

#[test]
fn a_gap_is_given_up_only_as_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let limits = SpoolLimits::of_bytes(1 << 20);
    let (spool, _) = Spool::open(directory.path(), limits).unwrap();
    append(&spool, part(5, [1]));
    let missed = gap(2, 4, Reason::Missed);
    spool.report_gap(missed);
    for number in 10..40 {
        append(&spool, many(number, 2_000));
    }
    let gaps = drain_gaps(&spool);
    assert!(gaps.contains(&missed), "{gaps:?}");
    assert!(gaps.iter().any(|gap| gap.from_round_unix_s == round(5).start_s()), "{gaps:?}");
}

#[test]
fn what_is_too_old_goes_as_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let limits = SpoolLimits { bytes_max: 2 << 20, age_max_s: 3_000 };
    let (spool, _) = Spool::open(directory.path(), limits).unwrap();
    // More than an eighth of what it may take, so that the next one begins another segment.
    append(&spool, many(1, 15_000));
    append(&spool, part(100, [1]));
    assert_eq!(drain(&spool).len(), 2, "old by 2,970 s");
    append(&spool, part(102, [1]));
    assert_eq!(drain(&spool).len(), 3, "by a clock that nothing confirms nothing is too old");
    spool.settle_clock(round(102).start_s(), round(103).start_s());
    append(&spool, part(103, [1]));
    let rounds: Vec<_> = drain(&spool).iter().map(|(_, part)| part.key.round).collect();
    assert_eq!(rounds, [round(100), round(102), round(103)]);
    assert_eq!(drain_gaps(&spool), [gap(1, 2, Reason::SpoolFull)]);
}

#[test]
fn a_disk_that_takes_nothing_is_an_error_and_no_end() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    append(&spool, part(1, [1]));
    // The open segment's file is replaced by one that cannot be written.
    spool.lock().writer.as_mut().unwrap().fill_disk();
    let refused = spool.append(part(2, [2]), &PartLimits::default());
    assert!(matches!(refused, Err(SpoolError::Write { .. })), "{refused:?}");
    // A new segment is begun, the next part is kept, and what was lost is told.
    append(&spool, part(3, [3]));
    let rounds: Vec<_> = drain(&spool).iter().map(|(_, part)| part.key.round).collect();
    assert_eq!(rounds, [round(1), round(3)]);
    assert_eq!(drain_gaps(&spool), [gap(2, 3, Reason::SpoolFull)]);
}

#[test]
fn on_a_full_disk_it_opens_and_goes_on_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open_quick(directory.path(), true);
    let first = append(&spool, part(1, [1]));
    drop(spool);
    let (spool, found) = open_quick(directory.path(), false);
    assert_eq!(found, Found { waiting: 1, damaged: 0 });
    for number in 2..200 {
        assert!(spool.may_make(round(number)));
        let refused = spool.append(part(number, [1]), &PartLimits::default());
        assert!(matches!(refused, Err(SpoolError::Write { .. })), "{refused:?}");
    }
    spool.report_gap(gap(200, 201, Reason::Missed));
    assert_eq!(drain(&spool).len(), 1, "what waited is sent all the same");
    spool.lock().switches.disk_takes = true;
    append(&spool, part(201, [1]));
    assert_eq!(drain_gaps(&spool), [gap(2, 200, Reason::SpoolFull), gap(200, 201, Reason::Missed)]);
    // Space that gives out in the middle leaves no heap of empty files.
    for number in 202..300 {
        append(&spool, part(number, [1]));
        spool.lock().writer.as_mut().unwrap().fill_disk();
        spool.append(part(number, [2]), &PartLimits::default()).unwrap_err();
    }
    spool.lock().switches.disk_takes = false;
    spool.append(part(300, [1]), &PartLimits::default()).unwrap_err();
    spool.acknowledge(first);
    for (sequence, _) in drain_all(&spool) {
        spool.acknowledge(sequence);
    }
    assert_eq!(spool.waiting(), 0);
    assert_eq!(segment::list(directory.path()).unwrap().len(), 1);
}

/// Tests run as root, whom permissions do not bind: a directory that cannot be reached stands for
/// one that may not be.
#[test]
fn a_directory_that_cannot_be_read_makes_nothing_until_it_can() {
    let place = tempfile::tempdir().unwrap();
    let (directory, away) = (place.path().join("spool"), place.path().join("away"));
    let (spool, _) = open_quick(&directory, true);
    append(&spool, part(5, [1]));
    drop(spool);
    std::fs::rename(&directory, &away).unwrap();
    // A link to nowhere: neither can be made, nor is it something else for good.
    std::os::unix::fs::symlink(place.path().join("nowhere/at/all"), &directory).unwrap();
    let refused = Spool::open(&directory, LIMITS);
    assert!(refused.is_err(), "what is no directory can never work: {refused:?}");
    std::fs::remove_file(&directory).unwrap();
    std::fs::write(&directory, "a file").unwrap();
    assert!(Spool::open(&directory, LIMITS).is_err());
    std::fs::remove_file(&directory).unwrap();
    // A lock that cannot be opened: nothing of the directory is believed.
    std::fs::create_dir_all(directory.join("spool.lock")).unwrap();
    let (spool, found) = open_quick(&directory, true);
    assert_eq!(found, Found::default());
    assert!(!spool.is_readable() && !spool.may_make(round(6)));
    let refused = spool.append(part(6, [1]), &PartLimits::default());
    assert!(matches!(refused, Err(SpoolError::NoKey { .. })), "{refused:?}");
    assert_eq!(drain_all(&spool), []);
    std::fs::remove_dir_all(&directory).unwrap();
    std::fs::rename(&away, &directory).unwrap();
    // Read in full before anything is made.
    assert!(spool.is_readable() && spool.may_make(round(5)));
    append(&spool, part(5, [2]));
    let numbers: Vec<u16> = drain(&spool).iter().map(|(_, part)| part.key.number).collect();
    assert_eq!(numbers, [0, 1]);
    assert_eq!(drain_gaps(&spool), [gap(6, 7, Reason::SpoolFull)]);
}

#[test]
fn a_directory_taken_away_and_given_back_is_told_as_a_gap_and_delivered_all_the_same() {
    let place = tempfile::tempdir().unwrap();
    let (directory, away) = (place.path().join("spool"), place.path().join("away"));
    let (spool, _) = open_quick(&directory, true);
    append(&spool, part(1, [1]));
    std::fs::rename(&directory, &away).unwrap();
    std::fs::write(&directory, "a file in its place").unwrap();
    for number in 2..5 {
        spool.append(part(number, [1]), &PartLimits::default()).unwrap_err();
    }
    assert_eq!(drain_all(&spool), [], "nothing can be read or written");
    std::fs::remove_file(&directory).unwrap();
    std::fs::rename(&away, &directory).unwrap();
    append(&spool, part(5, [1]));
    let rounds: Vec<_> = drain(&spool).iter().map(|(_, part)| part.key.round).collect();
    assert_eq!(rounds, [round(1), round(5)]);
    assert_eq!(drain_gaps(&spool), [gap(1, 5, Reason::SpoolFull)]);
}

#[test]
fn what_travels_beside_a_part_is_kept_until_it_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let first = append(&spool, part(1, [1]));
    let details = |name: &str| v1::NodeDetails { name: name.into(), ..v1::NodeDetails::default() };
    let sample = |byte| Sample::new(NodeId::new([byte; 20]), 30);
    assert!(spool.leave_details(vec![details("a"), details("b")]).is_empty());
    assert!(spool.leave_samples(vec![sample(1)]).is_empty());
    let take = || (spool.take_details(first, 500), spool.take_samples(first, 500));
    let wanted = (vec![details("a"), details("b")], vec![sample(1)]);
    assert_eq!(take(), wanted);
    assert_eq!(take(), (vec![], vec![]), "they are on their way");
    // The stream breaks; another begins.
    drop(spool.cursor());
    assert_eq!(take(), wanted);
    spool.acknowledge(first);
    drop(spool.cursor());
    assert_eq!(take(), (vec![], vec![]));
    let many = vec![v1::NodeDetails::default(); DETAILS_MAX + 10];
    assert_eq!(spool.leave_details(many).len(), 10, "no more than this waits");
}

#[test]
fn parts_that_could_not_look_keep_their_reason() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let blind = Part { outcome: Outcome::CouldNotLook(Reason::Unauthorised), ..part(1, []) };
    append(&spool, blind.clone());
    assert_eq!(drain(&spool)[0].1, blind);
}
