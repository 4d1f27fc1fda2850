//! The outbox against a plain list, and against every kind of damage.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use uptime_proto::{Class, Kind, NodeId, Outcome, Part, PartKey, Period, Reason, Round, Sets};

use super::*;

const LIMITS: SpoolLimits = SpoolLimits { bytes_max: 64 << 20 };

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

fn append(spool: &Spool, part: Part) -> u64 {
    spool.append(part, &PartLimits::default()).unwrap()
}

/// Everything that waits, in the order in which it would be sent.
fn drain(spool: &Spool) -> Vec<(u64, Part)> {
    let mut cursor = spool.cursor();
    std::iter::from_fn(|| cursor.next_part()).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64, Vec<u8>),
    /// Of what waits, the one at this place.
    Acknowledge(prop::sample::Index),
    /// The process ends without notice and starts again.
    Crash,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..3, prop::collection::vec(0u8..40, 0..30)).prop_map(|(r, s)| Step::Append(r, s)),
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
        let mut list: BTreeMap<u64, Part> = BTreeMap::new();
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
                    list.insert(sequence, kept);
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
                    prop_assert_eq!(drain(&spool), wanted);
                }
            }
        }
        prop_assert_eq!(spool.waiting(), list.len() as u64);
    }
}

/// A spool of a few rounds, closed; the path of its only segment with entries.
fn written(directory: &Path) -> std::path::PathBuf {
    let (spool, _) = open(directory);
    for number in 1..=6 {
        append(&spool, part(number, 0..4 + u8::try_from(number).unwrap()));
    }
    segment::path(directory, 1)
}

/// What is left of `written` after its bytes became these: the parts, and that going on works.
fn left(bytes: &[u8]) -> (Vec<Part>, Found) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(segment::path(directory.path(), 1), bytes).unwrap();
    let (spool, found) = open(directory.path());
    let parts = drain(&spool).into_iter().map(|(_, part)| part).collect();
    // Damage never stops it.
    append(&spool, part(100, [1]));
    assert_eq!(drain(&spool).last().unwrap().1.key.round, round(100));
    (parts, found)
}

#[test]
fn a_file_cut_at_any_length_loses_only_what_was_cut() {
    let directory = tempfile::tempdir().unwrap();
    let whole = std::fs::read(written(directory.path())).unwrap();
    let (all, _) = left(&whole);
    assert_eq!(all.len(), 6);
    let mut before = 0;
    for length in 0..=whole.len() {
        let (parts, _) = left(&whole[..length]);
        assert_eq!(parts, all[..parts.len()], "cut at {length}");
        assert!(parts.len() >= before);
        before = parts.len();
    }
    assert_eq!(before, 6);
}

#[test]
fn any_flipped_bit_is_noticed_and_no_wrong_part_is_ever_sent() {
    let directory = tempfile::tempdir().unwrap();
    let whole = std::fs::read(written(directory.path())).unwrap();
    let (all, _) = left(&whole);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let (parts, found) = left(&bytes);
        assert!(parts.iter().all(|part| all.contains(part)), "a wrong part, flip at {at}");
        // The last frame with a flipped bit looks like one that was never finished.
        assert!(found.damaged > 0 || parts.len() == 5, "flip at {at} went unnoticed");
    }
}

#[test]
fn a_file_replaced_by_garbage_is_passed_over() {
    for garbage in [vec![], vec![0; 5_000], b"not a spool at all".repeat(100), vec![0xa5; 999]] {
        let (parts, _) = left(&garbage);
        assert_eq!(parts, []);
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
    spool.acknowledge(sequence);
    // Everything is delivered and deleted; only the highest round is still known.
    drop(spool);
    drop(open(directory.path()));
    let (spool, _) = open(directory.path());
    assert!(!spool.may_make(round(7)));
    assert!(spool.append(part(7, [3]), &PartLimits::default()).is_err());
    assert!(spool.may_make(round(8)));
}

#[test]
fn a_full_spool_gives_up_the_oldest_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let limits = SpoolLimits { bytes_max: 9 << 20 };
    let (spool, _) = Spool::open(directory.path(), limits).unwrap();
    let many = |number: u64| {
        let ids = (0..30_000u32).map(|node| {
            let mut bytes = [0; 20];
            bytes[..4].copy_from_slice(&node.to_be_bytes());
            bytes[4..12].copy_from_slice(&number.to_be_bytes());
            NodeId::new(bytes)
        });
        let sets = Sets::default().with(Class::Seen, ids.collect());
        Part { sets, ..part(number, []) }
    };
    for number in 1..=30 {
        append(&spool, many(number));
    }
    let held: u64 = segment::list(directory.path())
        .unwrap()
        .iter()
        .map(|(_, path)| path.metadata().unwrap().len())
        .sum();
    assert!(held <= limits.bytes_max, "{held}");
    let waiting = drain(&spool);
    assert!(waiting.last().unwrap().1 == many(30), "the newest stays");
    let first_kept = waiting[0].1.key.round.start_s();
    let gaps = spool.take_gaps();
    assert!(!gaps.is_empty());
    assert_eq!(gaps[0].from_round_unix_s, round(1).start_s());
    assert!(gaps.last().unwrap().to_round_unix_s <= first_kept + 1);
    assert_eq!(spool.take_gaps(), []);
}

#[test]
fn a_disk_that_takes_nothing_is_an_error_and_no_end() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    append(&spool, part(1, [1]));
    // The open segment's file is replaced by one that cannot be written.
    spool.lock().writer = Writer::full(directory.path());
    let refused = spool.append(part(2, [2]), &PartLimits::default());
    assert!(matches!(refused, Err(SpoolError::Write { .. })), "{refused:?}");
    // A new segment was begun, and the next part is kept.
    append(&spool, part(3, [3]));
    let rounds: Vec<_> = drain(&spool).iter().map(|(_, part)| part.key.round).collect();
    assert_eq!(rounds, [round(1), round(3)]);
}

#[test]
fn parts_that_could_not_look_keep_their_reason() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let blind = Part { outcome: Outcome::CouldNotLook(Reason::Unauthorised), ..part(1, []) };
    append(&spool, blind.clone());
    assert_eq!(drain(&spool)[0].1, blind);
}

#[test]
fn a_frame_that_stands_twice_is_damage_and_its_part_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path());
    let bytes = std::fs::read(&path).unwrap();
    let first = usize::try_from(segment::first_frame()).unwrap();
    let second = segment::next_frame(&bytes, first).unwrap().0.end;
    let end = segment::next_frame(&bytes, second).unwrap().0.end;
    let torn = [&bytes[..end], &bytes[second..end], &bytes[end..]].concat();
    std::fs::write(&path, torn).unwrap();
    let (spool, found) = open(directory.path());
    assert_eq!(found, Found { waiting: 6, damaged: 1 });
    assert_eq!(drain(&spool).iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn numbers_that_no_spool_gets_to_are_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path());
    let mut bytes = std::fs::read(&path).unwrap();
    for number in [0, segment::SEQUENCE_MAX + 1, u64::MAX] {
        bytes.extend(segment::frame(ACK, &number.to_le_bytes()));
        bytes.extend(segment::frame(ENTRY, &number.to_le_bytes()));
    }
    std::fs::write(&path, bytes).unwrap();
    let (spool, found) = open(directory.path());
    assert_eq!(found.waiting, 6);
    assert_eq!(append(&spool, part(9, 0..3)), 7);
}
