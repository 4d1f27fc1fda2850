//! Segments written and read back, damaged, and made up.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const DAY_S: u64 = 1_769_817_600;

fn compacted(facts: &[Fact]) -> Vec<u8> {
    let mut segment_writer = SegmentWriter::new(DAY_S);
    for fact in facts {
        segment_writer.push(fact);
    }
    segment_writer.finish().unwrap()
}

fn unpacked(bytes: &[u8], wanted: impl Fn(&FactKey) -> bool) -> Result<Vec<Fact>, SegmentError> {
    let mut segment_reader = SegmentReader::open(bytes)?;
    let mut facts = Vec::new();
    while let Some(next) = segment_reader.next(&wanted) {
        facts.extend(next?.1);
    }
    Ok(facts)
}

/// One part, by a few small numbers.
type Raw =
    ((u8, u8, u8, u8), (u8, i32, i32, Option<u32>), [std::collections::BTreeSet<u32>; CLASSES]);

fn raw() -> impl Strategy<Value = Raw> {
    let set_of = |most| prop::collection::btree_set(prop_oneof![0u32..40, 0u32..70_000], 0..most);
    let set = || set_of(20);
    // Mostly empty, so that both versions are written.
    let later = || set_of(2);
    (
        (0u8..60, 0u8..2, 0u8..2, 0u8..2),
        (0u8..3, any::<i32>(), any::<i32>(), prop::option::of(any::<u32>())),
        [set(), set(), set(), set(), later(), later()],
    )
}

fn facts(raw: Vec<Raw>) -> Vec<Fact> {
    let mut facts: BTreeMap<FactKey, Fact> = BTreeMap::new();
    for ((round, slow, probe, number), (form, observed, received, age), sets) in raw {
        let period = Period::new(if slow == 0 { 30 } else { 60 }).unwrap();
        let start_s = DAY_S + u64::from(round) * u64::from(period.seconds());
        let round = Round::new(start_s, period).unwrap();
        let (probe, number) = (u32::from(probe), u16::from(number));
        let key = FactKey { round, subnet: u32::from(form), probe, number };
        let (kind, outcome) = match form {
            0 => (Kind::Lookup, Outcome::Looked),
            1 => (Kind::Market, Outcome::CouldNotLook(Reason::TimedOut)),
            _ => (Kind::Relay, Outcome::Looked),
        };
        let observed_at_ms = round.start_ms() + i64::from(observed);
        let sets = Arc::new(sets.map(|set| set.into_iter().collect()));
        facts.insert(
            key,
            Fact {
                key,
                kind,
                outcome,
                digest: None,
                observed_at_ms,
                received_at_ms: observed_at_ms + i64::from(received),
                relay_session_age_s: age,
                sets,
            },
        );
    }
    facts.into_values().collect()
}

proptest! {
    #[test]
    fn parts_come_back_in_order(
        raw in prop::collection::vec(raw(), 0..60),
        from in 0u64..60,
        rounds in 0u64..60,
    ) {
        let facts = facts(raw);
        let bytes = compacted(&facts);
        prop_assert_eq!(unpacked(&bytes, |_| true).unwrap(), facts.clone());
        let range = DAY_S + from * 30..DAY_S + (from + rounds) * 30;
        let some = unpacked(&bytes, |key| range.contains(&key.round.start_s())).unwrap();
        let wanted: Vec<Fact> =
            facts.into_iter().filter(|fact| range.contains(&fact.key.round.start_s())).collect();
        prop_assert_eq!(some, wanted);
    }

    #[test]
    fn any_damage_is_noticed(
        raw in prop::collection::vec(raw(), 0..8),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let mut bytes = compacted(&facts(raw));
        let at = at.index(bytes.len());
        prop_assert!(unpacked(&bytes[..at], |_| true).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(unpacked(&bytes, |_| true), Err(SegmentError::Checksum));
    }

    /// Bytes of a stranger with a right checksum end in an error or in parts, never in a panic.
    #[test]
    fn nonsense_is_refused(
        raw in prop::collection::vec(raw(), 0..8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = compacted(&facts(raw));
        let end = bytes.len() - 4;
        for (at, byte) in changes {
            bytes[at.index(end)] = byte;
        }
        let checksum = crc32fast::hash(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&checksum);
        let wanted = |_: &FactKey| true;
        if let Ok(mut segment_reader) = SegmentReader::open(&bytes) {
            while let Some(Ok(_)) = segment_reader.next(wanted) {}
        }
    }
}

/// The columns before compression are what the head of the file says; zstd's own output may change
/// with its version and still be read.
fn golden_is_read(name: &str, golden: &[u8], earlier: &[u32]) {
    let sets = |nodes: &[u32]| nodes.iter().copied().collect::<RoaringBitmap>();
    let fact = |minute: u64, seen: &[u32]| {
        let round = Round::new(DAY_S + minute * 60, Period::new(60).unwrap()).unwrap();
        let mut found = Sets::default();
        found[1] = sets(seen);
        found[3] = sets(&[9]);
        found[5] = sets(earlier);
        Fact {
            key: FactKey { round, subnet: 0, probe: 3, number: 1 },
            kind: Kind::Lookup,
            outcome: Outcome::Looked,
            digest: None,
            observed_at_ms: round.start_ms() + 50_000 + i64::try_from(minute).unwrap(),
            received_at_ms: round.start_ms() + 50_100,
            relay_session_age_s: Some(600 + u32::try_from(minute).unwrap() * 60),
            sets: Arc::new(found),
        }
    };
    let facts = [fact(0, &[1, 2, 3]), fact(1, &[1, 3]), fact(3, &[1, 2, 3, 70_000])];
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/segment");
        std::fs::write(format!("{directory}/{name}"), compacted(&facts)).unwrap();
    }
    assert_eq!(unpacked(golden, |_| true).unwrap(), facts);
}

#[test]
fn a_segment_of_the_first_version_is_read() {
    golden_is_read("golden-1.bin", include_bytes!("golden-1.bin"), &[]);
}

#[test]
fn a_segment_of_the_second_version_is_read() {
    golden_is_read("golden-2.bin", include_bytes!("golden-2.bin"), &[9]);
}
