//! Every kind of damage: what is whole is delivered, nothing wrong ever is, no key is made twice.

use super::*;

/// Rounds that `written` makes parts of, the last twice.
const ROUNDS: u64 = 4;

/// A spool of a few rounds and a gap, closed; the bytes of its only segment.
fn written(directory: &Path) -> Vec<u8> {
    let (spool, _) = open_quick(directory, true);
    for number in 1..=ROUNDS {
        append(&spool, part(number, 0..1 + u8::try_from(number / 3).unwrap()));
        if number == 2 {
            spool.report_gap(gap(1, 3, Reason::Missed));
        }
    }
    append(&spool, part(ROUNDS, [1]));
    std::fs::read(segment::path(directory, 1)).unwrap()
}

/// Where its frames begin and end, and what is in them.
fn frames(whole: &[u8]) -> Vec<(usize, usize, u8)> {
    let mut at = segment::HEADER_BYTES;
    let mut frames = Vec::new();
    while let segment::Parsed::Whole { kind, body } = segment::parse(&whole[at..], usize::MAX) {
        let end = at + segment::frame_bytes(body);
        frames.push((at, end, kind));
        at = end;
    }
    assert_eq!(at, whole.len());
    frames
}

/// What is left when the files of a spool are these.
struct Left {
    /// What of it is delivered.
    items: Vec<(u64, Item)>,
    found: Found,
    /// The rounds that are reported as lost.
    told: Vec<v1::Gap>,
}

impl Left {
    /// Whatever is not delivered is told: the rounds of parts, and that something was lost.
    fn lost_is_told(&self, all: &[(u64, Item)]) {
        let is_told = |start_s: u64| {
            let holds =
                |gap: &v1::Gap| (gap.from_round_unix_s..gap.to_round_unix_s).contains(&start_s);
            self.told.iter().any(holds)
        };
        for (sequence, item) in all.iter().filter(|item| !self.items.contains(item)) {
            if let Item::Part(part) = item {
                assert!(is_told(part.key.round.start_s()), "{sequence}: {:?}", self.told);
            }
        }
        assert_eq!(self.told.is_empty(), self.items.len() == all.len(), "{:?}", self.told);
    }
}

/// Opens what is left of `written` after something was done to its directory, and looks whether
/// the spool goes on: that it delivers, and makes no key and no sequence number twice.
fn left(all: &[(u64, Item)], harm: impl FnOnce(&Path)) -> Left {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path());
    harm(directory.path());
    let (spool, found) = open_quick(directory.path(), true);
    let (mut told_of, items) = told(drain_all(&spool));
    assert!(items.iter().all(|item| all.contains(item)), "nothing wrong is ever sent");
    let mut keys: Vec<PartKey> = all
        .iter()
        .filter_map(|(_, item)| match item {
            Item::Part(part) => Some(part.key.clone()),
            Item::Gap(_) => None,
        })
        .collect();
    let mut last = all.last().unwrap().0;
    for number in (1..=ROUNDS).chain([100]) {
        let made = spool.append(part(number, [9]), &PartLimits::default());
        assert_eq!(made.is_ok(), spool.may_make(round(number)));
        assert!(number < 100 || made.is_ok(), "damage never stops it");
        if let Ok(sequence) = made {
            assert!(sequence > last, "sequence {sequence} was given out before");
            last = sequence;
        }
    }
    let (more, items_now) = told(drain_all(&spool));
    told_of.extend(more);
    for (sequence, item) in items_now {
        if let Item::Part(part) = item
            && sequence > all.last().unwrap().0
        {
            assert!(!keys.contains(&part.key), "made twice: {:?}", part.key);
            keys.push(part.key);
        }
    }
    // What was told is told once: it is settled for the next run.
    drop(spool);
    let (again, _) = open_quick(directory.path(), true);
    again.report_gap(gap(1, 2, Reason::Missed));
    let (told_again, _) = told(drain_all(&again));
    assert!(told_again.iter().all(|gap| told_of.contains(gap)), "{told_again:?} {told_of:?}");
    Left { items, found, told: told_of }
}

fn all() -> (Vec<u8>, Vec<(u64, Item)>) {
    let directory = tempfile::tempdir().unwrap();
    let whole = written(directory.path());
    let (spool, _) = open_quick(directory.path(), true);
    let all = drain_all(&spool);
    assert_eq!(all.len(), usize::try_from(ROUNDS).unwrap() + 2);
    (whole, all)
}

fn replace(bytes: Vec<u8>) -> impl FnOnce(&Path) {
    move |directory| std::fs::write(segment::path(directory, 1), bytes).unwrap()
}

#[test]
fn a_file_cut_at_any_length_loses_only_what_was_cut() {
    let (whole, all) = all();
    let frames = frames(&whole);
    for length in 0..=whole.len() {
        let left = left(&all, replace(whole[..length].to_vec()));
        // The first of two equal entries is enough.
        let mut last = 0;
        let mut wanted = 0;
        for (start, end, _) in frames.iter().filter(|(_, end, _)| *end <= length) {
            let (sequence, _) = segment::sequence(&whole[start + 7..*end]).unwrap();
            wanted += usize::from(sequence > last);
            last = sequence;
        }
        assert_eq!(left.items, all[..wanted], "cut at {length}");
        left.lost_is_told(&all);
    }
}

#[test]
fn any_flipped_bit_is_noticed_and_what_is_whole_is_delivered() {
    let (whole, all) = all();
    let frames = frames(&whole);
    let sequence_of =
        |start: usize, end: usize| segment::sequence(&whole[start + 7..end]).unwrap().0;
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let left = left(&all, replace(bytes));
        let hit = frames.iter().find(|(start, end, _)| (*start..*end).contains(&(bit / 8)));
        let Some((start, end, _)) = hit else {
            assert_eq!((left.items.len(), left.found.damaged), (all.len(), 1), "the header");
            left.lost_is_told(&all);
            continue;
        };
        let sequence = sequence_of(*start, *end);
        let twice = frames.iter().filter(|(s, e, _)| sequence_of(*s, *e) == sequence).count() == 2;
        // An entry that stands twice is not lost. Else what builds on it may be, up to the next
        // full set, but no gap and nothing before it.
        for (of, item) in &all {
            let spared =
                twice || *of < sequence || (*of > sequence && matches!(item, Item::Gap(_)));
            if spared {
                assert!(left.items.contains(&(*of, item.clone())), "bit {bit}: {of} is lost");
            }
        }
        // A last frame that seems to go on beyond the end looks like one that was never finished.
        let last = *end == whole.len();
        assert!(left.found.damaged == 1 || last, "bit {bit} went unnoticed");
        assert!(twice || !left.items.iter().any(|(of, _)| *of == sequence), "bit {bit}");
        left.lost_is_told(&all);
    }
}

#[test]
fn a_file_replaced_emptied_or_deleted_is_passed_over() {
    let (whole, all) = all();
    let garbage: [Vec<u8>; 6] = [
        vec![],
        vec![0; whole.len()],
        vec![0; 5_000_000],
        b"not a spool at all".repeat(100_000),
        vec![0xa5; 999],
        // Beginnings of large frames, one after another: found out in bounded time.
        [0xa5, 0x5a, 1, 0, 0, 8, 0].repeat(300_000),
    ];
    for garbage in garbage {
        let left = left(&all, replace(garbage));
        left.lost_is_told(&all);
        assert_eq!((left.items, left.found.damaged), (vec![], 1));
    }
    let deleted = |directory: &Path| {
        std::fs::remove_file(segment::path(directory, 1)).unwrap();
    };
    let without = left(&all, deleted);
    without.lost_is_told(&all);
    assert_eq!(without.items, []);
    let a_directory = |directory: &Path| {
        std::fs::remove_file(segment::path(directory, 1)).unwrap();
        std::fs::create_dir(segment::path(directory, 1)).unwrap();
    };
    assert_eq!(left(&all, a_directory).items, []);
}

#[test]
fn garbage_before_among_and_after_frames_takes_none_of_them() {
    let (whole, all) = all();
    for (start, _, _) in frames(&whole) {
        for garbage in [vec![0; 700_000], b"\xa5\x5a\x01".to_vec(), vec![0x5a, 0xa5]] {
            let mut bytes = whole[..start].to_vec();
            bytes.extend(&garbage);
            bytes.extend(&whole[start..]);
            let left = left(&all, replace(bytes));
            assert_eq!((left.items.len(), left.found.damaged), (all.len(), 1), "at {start}");
        }
    }
}

#[test]
fn a_mark_that_is_damaged_cut_or_gone_costs_no_part() {
    let (_, all) = all();
    let length = all.len();
    for cut in 0..28 {
        let harm = |directory: &Path| {
            let path = directory.join("spool.lock");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..cut]).unwrap();
        };
        let left = left(&all, harm);
        assert_eq!((left.items.len(), left.found.damaged), (length, u64::from(cut > 0)));
    }
    for bit in 0..28 * 8 {
        let harm = |directory: &Path| {
            let path = directory.join("spool.lock");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(path, bytes).unwrap();
        };
        let left = left(&all, harm);
        assert_eq!((left.items.len(), left.found.damaged), (length, 1));
    }
    let gone = |directory: &Path| std::fs::remove_file(directory.join("spool.lock")).unwrap();
    assert_eq!(left(&all, gone).items.len(), length);
}

#[test]
fn a_segment_missing_between_others_makes_its_rounds_unknown() {
    let directory = tempfile::tempdir().unwrap();
    for number in 1..=3 {
        let (spool, _) = open_quick(directory.path(), true);
        append(&spool, part(10 * number, [1]));
    }
    std::fs::remove_file(segment::path(directory.path(), 2)).unwrap();
    let (spool, found) = open_quick(directory.path(), true);
    assert_eq!(found, Found { waiting: 2, damaged: 0 });
    assert!(!spool.may_make(round(20)) && !spool.may_make(round(30)));
    assert!(spool.may_make(round(31)));
}

#[test]
fn a_damaged_segment_is_quarantined_when_it_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    for segment in 1..=12 {
        let (spool, _) = open_quick(directory.path(), true);
        let sequence = append(&spool, part(10 * segment, [1]));
        append(&spool, part(10 * segment + 1, [1]));
        drop(spool);
        let path = segment::path(directory.path(), segment);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - 20;
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (spool, found) = open_quick(directory.path(), true);
        assert_eq!(found, Found { waiting: 1, damaged: 1 });
        assert_eq!(drain(&spool).len(), 1);
        spool.acknowledge(sequence);
        spool.report_gap(gap(1, 2, Reason::Missed));
        for (sequence, _) in drain_all(&spool) {
            spool.acknowledge(sequence);
        }
        drop(spool);
        for (_, path) in segment::list(directory.path()).unwrap() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(name > segment::name(segment), "{name} is still there");
            // The next number is the next test's.
            std::fs::remove_file(path).unwrap();
        }
        std::fs::remove_file(directory.path().join("spool.lock")).unwrap();
    }
    let quarantined = quarantine::list(directory.path()).unwrap();
    let names: Vec<_> = quarantined.iter().map(|(path, _)| path.file_name().unwrap()).collect();
    assert_eq!(names.len(), 8);
    assert_eq!(names[7], "00000012.spool.damaged");
}

#[test]
fn damage_that_comes_while_running_is_met_and_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open_quick(directory.path(), true);
    let first = append(&spool, part(1, [1]));
    let second = append(&spool, part(2, [1]));
    let third = append(&spool, part(3, [1]));
    let path = segment::path(directory.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = frames(&bytes)[2].0 + 12;
    bytes[at] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    let (told_of, items) = told(drain_all(&spool));
    let sequences: Vec<u64> = items.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(sequences, [first, third]);
    assert_eq!(told_of, [gap(1, 4, Reason::SpoolFull)], "of the segment: it may have been any");
    assert_eq!(spool.waiting(), 3, "{second} is given up, and a gap waits in its stead");
    assert_eq!(spool.lock().segments[&1].damage.count, 1);
    // And a file that goes: nothing waits there any more.
    std::fs::remove_file(&path).unwrap();
    let (told_of, items) = told(drain_all(&spool));
    assert_eq!(items, []);
    assert_eq!(told_of, [gap(1, 4, Reason::SpoolFull)]);
    assert_eq!(spool.waiting(), 1);
}

#[test]
fn a_frame_that_stands_twice_is_sent_once() {
    let directory = tempfile::tempdir().unwrap();
    let whole = written(directory.path());
    let (spool, found) = open_quick(directory.path(), true);
    let all = drain_all(&spool);
    drop(spool);
    for (from, end, _) in frames(&whole) {
        let again = [&whole[..end], &whole[from..end], &whole[end..]].concat();
        std::fs::write(segment::path(directory.path(), 1), again).unwrap();
        let (spool, now) = open_quick(directory.path(), true);
        assert_eq!(now, found);
        assert_eq!(drain_all(&spool), all);
    }
}

#[test]
fn numbers_that_no_spool_gets_to_are_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = written(directory.path());
    for number in [0, segment::SEQUENCE_MAX + 1, u64::MAX] {
        for kind in [segment::ACK, segment::ENTRY, segment::GAP] {
            bytes.extend(segment::frame(kind, &number.to_le_bytes()).unwrap());
        }
    }
    let (spool, found) = open_quick(directory.path(), true);
    let last = drain_all(&spool).last().unwrap().0;
    drop(spool);
    std::fs::write(segment::path(directory.path(), 1), bytes).unwrap();
    let (spool, now) = open_quick(directory.path(), true);
    assert_eq!(now.waiting, found.waiting);
    assert_eq!(append(&spool, part(9, 0..3)), last + 1);
}

#[test]
fn a_clock_that_was_once_far_ahead_does_not_stop_the_rounds_of_today() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open_quick(directory.path(), true);
    append(&spool, part(5, [1]));
    append(&spool, part(1_000_000, [1]));
    drop(spool);
    // Something is damaged, so it is not known which keys of rounds up to the highest were made.
    let path = segment::path(directory.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (spool, _) = open_quick(directory.path(), true);
    assert!(!spool.may_make(round(8)));
    spool.settle_clock(round(7).start_s(), round(8).start_s());
    assert!(!spool.may_make(round(7)), "this one may have been begun");
    assert!(spool.may_make(round(8)));
    append(&spool, part(8, [1]));
    spool.settle_clock(round(9).start_s(), round(10).start_s());
    assert!(
        spool.append(part(8, [2]), &PartLimits::default()).is_ok(),
        "a right clock changes nothing"
    );
}
