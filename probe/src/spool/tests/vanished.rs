//! Files that are taken away under a running probe, frames beyond the format, a disk that hangs.

use std::fs;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;

fn lost(first: u64, end: u64) -> v1::Gap {
    gap(first, end, Reason::SpoolFull)
}

/// What waits: the gaps that tell of loss, and the rounds of the parts.
fn found(spool: &Spool) -> (Vec<v1::Gap>, Vec<u64>) {
    let (gaps, others) = told(drain_all(spool));
    let rounds = others.into_iter().filter_map(|(_, item)| match item {
        Item::Part(part) => Some(part.key.round.start_s() / 30),
        Item::Gap(_) => None,
    });
    (gaps, rounds.collect())
}

#[test]
fn a_removed_folder_is_made_anew_and_what_waited_is_a_gap() {
    for written_after in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("spool");
        let (spool, _) = open_quick(&place, true);
        for number in 10..13 {
            append(&spool, part(number, [1, 2]));
        }
        assert_eq!(found(&spool).1, [10, 11, 12]);
        fs::remove_dir_all(&place).unwrap();
        let mut wanted = Vec::new();
        if written_after {
            append(&spool, part(13, [1, 2]));
            wanted.push(13);
        }
        assert_eq!(found(&spool), (vec![lost(10, 13)], wanted), "{written_after}");
        // It goes on, and what it knows it keeps: no key is made twice.
        append(&spool, part(14, [1, 3]));
        let again = append(&spool, part(12, [4]));
        let parts = drain(&spool);
        let last = &parts.iter().find(|(sequence, _)| *sequence == again).unwrap().1;
        assert_eq!(last.key.number, 1, "number 0 of round 12 was given out");
        let waiting = spool.waiting();
        drop(spool);
        let (spool, there) = open_quick(&place, true);
        assert_eq!((there.waiting, there.damaged), (waiting, 0));
        assert_eq!(found(&spool).0, [lost(10, 13)], "told once");
    }
}

#[test]
fn a_removed_lock_or_segment_costs_what_it_held() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open_quick(directory.path(), true);
    append(&spool, part(10, [1]));
    fs::remove_file(directory.path().join("spool.lock")).unwrap();
    append(&spool, part(11, [1]));
    assert_eq!(found(&spool), (Vec::new(), vec![10, 11]));
    let second = Spool::open(directory.path(), LIMITS);
    assert!(second.is_err(), "it is locked again");
    let open = segment::list(directory.path()).unwrap().pop().unwrap().1;
    fs::remove_file(&open).unwrap();
    append(&spool, part(12, [1]));
    let (gaps, parts) = found(&spool);
    assert_eq!(parts.last(), Some(&12), "{parts:?}");
    let all: u64 = gaps.len() as u64 + parts.len() as u64;
    assert!(all >= 2 && all == spool.waiting(), "{gaps:?} {parts:?}");
}

#[test]
fn a_part_beyond_the_format_takes_nothing_along() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open_quick(directory.path(), true);
    let large = |number| {
        let id = |at: u32| {
            let mut id = [7; 20];
            id[..4].copy_from_slice(&at.to_be_bytes());
            NodeId::new(id)
        };
        let sets = Sets::default().with(Class::Seen, (0..60_000).map(id).collect());
        Part { sets, ..part(number, []) }
    };
    let limits = PartLimits { observations_per_part_max: 100_000, ..PartLimits::default() };
    append(&spool, part(10, [1, 2]));
    let refused = spool.append(large(11), &limits).unwrap_err();
    assert!(refused.to_string().contains("larger than the format allows"), "{refused}");
    append(&spool, part(12, [1, 2, 3]));
    append(&spool, part(13, [1, 3]));
    for _ in 0..2 {
        assert_eq!(found(&spool), (vec![lost(11, 12)], vec![10, 12, 13]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn while_the_disk_hangs_other_tasks_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open_quick(directory.path(), true);
    append(&spool, part(10, [1]));
    // As long as somebody waits for the disk.
    let hanging = Arc::clone(&spool.inner);
    let (begun, hangs) = std::sync::mpsc::channel();
    let (ends, ended) = std::sync::mpsc::channel::<()>();
    let disk = std::thread::spawn(move || {
        let _inner = hanging.lock().unwrap();
        begun.send(()).unwrap();
        ended.recv().unwrap();
    });
    hangs.recv().unwrap();
    let mut waiting = JoinSet::new();
    for number in 11..14 {
        let spool = spool.clone();
        waiting.spawn(async move { append(&spool, part(number, [1])) });
    }
    // The one worker is not held up by any of them.
    let mut others = JoinSet::new();
    for _ in 0..3 {
        others.spawn(tokio::task::yield_now());
        others.join_next().await.unwrap().unwrap();
        assert_eq!(spool.waiting(), 1);
    }
    assert!(waiting.try_join_next().is_none());
    ends.send(()).unwrap();
    disk.join().unwrap();
    while let Some(ended) = waiting.join_next().await {
        ended.unwrap();
    }
    assert_eq!(spool.waiting(), 4);
}
