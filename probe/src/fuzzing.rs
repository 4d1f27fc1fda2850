//! What the probe's readers must stand, whatever bytes come. Only with the feature `fuzzing`.
//!
//! Owns the fuzz targets of this crate, which are here since they reach into private rooms. They
//! are run by libFuzzer (see `deploy/fuzz.sh`) and, over the committed corpus and changes of it,
//! by `tests/fuzz_corpus.rs`. A new target is a line in [`TARGETS`], a `[[bin]]` in
//! `fuzz/Cargo.toml`, a copy of any file in `fuzz/fuzz_targets` under its name, and a corpus.

use std::path::Path;

use prost::Message;
use uptime_proto::convert::PartLimits;
use uptime_proto::{Class, Kind, NodeId, Outcome, Part, PartKey, Period, Round, Sets, v1};

use crate::control_state::{ControlState, Plan};
use crate::spool::{Item, Spool, SpoolLimits};
use crate::yagna::fuzzing as yagna;

/// A target's name, and what it does with any bytes: it panics where it finds a fault.
pub type Target = (&'static str, fn(&[u8]));

/// Every target by its name.
pub const TARGETS: &[Target] = &[
    ("bus_find_node", yagna::bus_find_node),
    ("bus_ping", yagna::bus_ping),
    ("bus_sessions", yagna::bus_sessions),
    ("demands", yagna::demands),
    ("events", yagna::events),
    ("identity", yagna::identity),
    ("net_find", yagna::net_find),
    ("offers_events", yagna::offers_events),
    ("offers_scan", yagna::offers_scan),
    ("opened", yagna::opened),
    ("control_state", control_state),
    ("relay_page", crate::yagna::relay::fuzzing::relay_page),
    ("round_trips", yagna::round_trips),
    ("scan_reply", yagna::scan_reply),
    ("spool_file", spool_file),
    ("spool_frames", spool_frames),
];

/// Runs the target of this name.
///
/// # Panics
/// When there is none, and when it finds a fault.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    assert!(target.is_some(), "no target {name}");
    target.into_iter().for_each(|(_, target)| target(bytes));
}

/// What an aggregator says: messages, each after its length (u16, little-endian).
fn control_state(bytes: &[u8]) {
    let mut control: Option<ControlState> = None;
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (message, after) = after.split_at(length);
        rest = after;
        let Ok(message) = v1::AggregatorMessage::decode(message) else { continue };
        // Refused or taken: only a panic is a fault.
        match (message.message, &control) {
            (Some(v1::aggregator_message::Message::Welcome(welcome)), _) => {
                control = Plan::from_welcome(&welcome).ok().map(ControlState::fixed);
            }
            (Some(v1::aggregator_message::Message::Epochs(told)), Some(control)) => {
                control.announced(&told).ok();
            }
            (Some(v1::aggregator_message::Message::Assignment(told)), Some(control)) => {
                control.assigned(&told).ok();
            }
            _ => {}
        }
        if let Some(plan) = control.as_ref().and_then(|control| control.now().plan) {
            std::hint::black_box(plan.part_limits());
        }
    }
}

/// The bytes as a segment of a spool.
fn spool_file(bytes: &[u8]) {
    spool_with(bytes);
}

/// A segment of whole frames, since hardly any bytes have a right checksum: the high water mark
/// (u64), then for each frame its kind, the length of its body (u8) and the body.
fn spool_frames(bytes: &[u8]) {
    let Some((high_water_s, mut rest)) = bytes.split_first_chunk::<8>() else { return };
    let mut segment = crate::spool::fuzzing::header(u64::from_le_bytes(*high_water_s));
    while let Some(([kind, length], after)) = rest.split_first_chunk::<2>() {
        let (body, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        segment.extend(crate::spool::fuzzing::frame(*kind, body).unwrap_or_default());
    }
    spool_with(&segment);
}

/// A spool with such a segment delivers what it can, takes new parts, and empties.
#[expect(clippy::expect_used, reason = "a target that cannot work has failed")]
fn spool_with(segment: &[u8]) {
    // In memory where there is such a place: each run syncs several times.
    let memory = Some(Path::new("/dev/shm")).filter(|path| path.is_dir());
    let directory = memory.map_or_else(tempfile::tempdir, tempfile::tempdir_in);
    let directory = directory.expect("a directory");
    std::fs::write(directory.path().join("00000001.spool"), segment).expect("a segment");
    let limits = SpoolLimits::of_bytes(1 << 20);
    let (spool, found) = Spool::open(directory.path(), limits).expect("damage is no error");
    assert_eq!(spool.waiting(), found.waiting);
    let fresh = new_part();
    let kept = spool.may_make(fresh.key.round).then(|| spool.append(fresh, &PartLimits::default()));
    let mut cursor = spool.cursor();
    let (mut delivered, mut last_part) = (Vec::new(), None);
    // What waited, the new part, and a gap for whatever of it turned out to be damaged.
    let most = 2 * found.waiting + 2;
    while let Some((sequence, item)) = cursor.next_item() {
        assert!(!delivered.contains(&sequence), "delivered twice");
        delivered.push(sequence);
        if matches!(item, Item::Part(_)) {
            last_part = Some(sequence);
        }
        assert!(delivered.len() as u64 <= most, "more was delivered than waited");
    }
    if let Some(Ok(sequence)) = kept {
        // What damage took is told of after it.
        assert_eq!(last_part, Some(sequence), "a new part comes after all others");
    }
    assert_eq!(spool.waiting(), delivered.len() as u64);
    delivered.iter().for_each(|sequence| spool.acknowledge(*sequence));
    assert_eq!(spool.waiting(), 0);
    // Both hold the lock.
    drop(cursor);
    drop(spool);
    let (_, found) = Spool::open(directory.path(), limits).expect("damage is no error");
    assert_eq!(found.waiting, 0, "an acknowledged part waits again");
}

#[expect(clippy::expect_used, reason = "a target that cannot work has failed")]
fn new_part() -> Part {
    // Far from now, so that it can be made whatever rounds a segment speaks of, but for absurd
    // ones.
    let period = Period::new(30).expect("a period");
    let round = Round::new(u64::from(u32::MAX) / 30 * 30, period).expect("a round");
    Part {
        key: PartKey { subnet: String::new(), round, number: 0 },
        kind: Kind::Lookup,
        outcome: Outcome::Looked,
        observed_at_ms: round.start_ms(),
        relay_session_age_s: None,
        sets: Sets::default().with(Class::Seen, vec![NodeId::new([3; 20])]),
    }
}
