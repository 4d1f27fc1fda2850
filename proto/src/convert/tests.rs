//! The message by itself: what is taken, what is refused, and that both forms mean the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use prost::Message;

use super::*;

fn id(number: u32) -> NodeId {
    let mut bytes = [0; 20];
    // Scattered, so that the order of ids is not the order of numbers.
    bytes[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    bytes[16..].copy_from_slice(&number.to_be_bytes());
    NodeId::new(bytes)
}

fn lookup(round: u64, number: u16, seen: &[u32], unreachable: &[u32]) -> Part {
    let ids = |numbers: &[u32]| numbers.iter().map(|number| id(*number)).collect();
    Part {
        key: PartKey {
            subnet: String::new(),
            round: Round::new(round * 30, Period::new(30).unwrap()).unwrap(),
            number,
        },
        kind: Kind::Lookup,
        outcome: Outcome::Looked,
        observed_at_ms: i64::try_from(round).unwrap() * 30_000 + 17,
        relay_session_age_s: Some(3_600),
        sets: Sets::default()
            .with(Class::Seen, ids(seen))
            .with(Class::Unreachable, ids(unreachable)),
    }
}

/// What a message is refused for, after one change to a good one.
fn refusal(change: impl FnOnce(&mut v1::Part)) -> RefusalReason {
    let mut wire = part_to_plain(&lookup(2, 0, &[1, 2, 3], &[4]));
    change(&mut wire);
    part_from_wire(&wire, None, &PartLimits::default()).unwrap_err().reason
}

fn group(class: v1::EvidenceClass, node_ids: Vec<u8>) -> Option<Evidence> {
    let group = v1::PlainGroup { evidence_class: class as i32, node_ids: node_ids.into() };
    Some(Evidence::Plain(v1::PlainEvidence { groups: vec![group] }))
}

#[test]
fn each_fault_of_a_message_has_its_reason() {
    use RefusalReason as R;
    use v1::EvidenceClass as C;
    assert_eq!(refusal(|part| part.kind = 0), R::FieldMissing);
    assert_eq!(refusal(|part| part.outcome = 0), R::FieldMissing);
    assert_eq!(refusal(|part| part.outcome = 2), R::FieldMissing);
    assert_eq!(refusal(|part| part.round_period_s = 0), R::PeriodInvalid);
    assert_eq!(refusal(|part| part.round_period_s = 31), R::PeriodInvalid);
    assert_eq!(refusal(|part| part.round_unix_s += 1), R::RoundOffGrid);
    assert_eq!(refusal(|part| part.number = 64), R::PartNumberTooLarge);
    assert_eq!(refusal(|part| part.number = u32::MAX), R::PartNumberTooLarge);
    assert_eq!(refusal(|part| part.subnet = "public".into()), R::SubnetInvalid);
    assert_eq!(refusal(|part| part.kind = 1), R::SubnetInvalid);
    let long = |part: &mut v1::Part| (part.kind, part.subnet) = (1, "s".repeat(65));
    assert_eq!(refusal(long), R::SubnetInvalid);
    let control = |part: &mut v1::Part| (part.kind, part.subnet) = (1, "a\nb".into());
    assert_eq!(refusal(control), R::SubnetInvalid);
    let ragged = |part: &mut v1::Part| part.evidence = group(C::Seen, vec![0; 39]);
    assert_eq!(refusal(ragged), R::MalformedNodeId);
    let twice = |part: &mut v1::Part| part.evidence = group(C::Seen, vec![0; 40]);
    assert_eq!(refusal(twice), R::Contradiction);
    let unset = |part: &mut v1::Part| part.evidence = group(C::Unspecified, vec![0; 20]);
    assert_eq!(refusal(unset), R::FieldMissing);
    let offer = |part: &mut v1::Part| part.evidence = group(C::Offer, vec![0; 20]);
    assert_eq!(refusal(offer), R::ClassNotInKind);
    let many = |part: &mut v1::Part| part.evidence = group(C::Seen, vec![0; 40_001 * 20]);
    assert_eq!(refusal(many), R::TooManyObservations);
    let blind = |part: &mut v1::Part| (part.outcome, part.reason) = (2, 1);
    assert_eq!(refusal(blind), R::Contradiction);
    let compact = |part: &mut v1::Part| {
        part.evidence = Some(Evidence::Compact(v1::CompactEvidence::default()));
    };
    assert_eq!(refusal(compact), R::CompactNotAllowed);
}

#[test]
fn dead_and_alive_at_once_is_a_contradiction() {
    let wire = part_to_plain(&lookup(2, 0, &[1, 2], &[2]));
    let refusal = part_from_wire(&wire, None, &PartLimits::default()).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Contradiction);
    assert!(refusal.detail.contains(&id(2).to_string()), "{refusal}");
}

#[test]
fn a_reference_that_cannot_be_followed_asks_for_a_full_set() {
    let limits = PartLimits::default();
    let mut encoder = Encoder::default();
    encoder.encode(&lookup(1, 0, &[1, 2], &[]), &limits);
    let difference = encoder.encode(&lookup(2, 0, &[1, 2, 3], &[]), &limits);
    let mut stranger = Decoder::default();
    let refusal = part_from_wire(&difference, Some(&mut stranger), &limits).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Resync);
}

#[test]
fn a_set_that_expands_to_something_else_is_noticed() {
    let limits = PartLimits::default();
    let mut wire = Encoder::default().encode(&lookup(1, 0, &[1, 2, 3], &[]), &limits);
    let Some(Evidence::Compact(compact)) = &mut wire.evidence else { panic!("compact") };
    compact.groups[0].toggled_runs = vec![0, 1].into();
    let refusal = part_from_wire(&wire, Some(&mut Decoder::default()), &limits).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Resync);
}

#[test]
fn unchanged_rounds_cost_a_few_dozen_bytes() {
    let limits = PartLimits::default();
    let everyone: Vec<u32> = (0..10_000).filter(|number| number % 7 != 0).collect();
    let mut encoder = Encoder::default();
    let first = encoder.encode(&lookup(1, 0, &everyone, &[]), &limits).encoded_len();
    let second = encoder.encode(&lookup(2, 0, &everyone, &[]), &limits).encoded_len();
    assert!(first > 170_000, "{first}");
    assert!(second < 60, "{second}");
}

proptest! {
    #[test]
    fn both_forms_mean_exactly_the_same(
        rounds in prop::collection::vec(
            (0u16..3, prop::collection::btree_set(0u32..60, 0..40), 0u32..60), 1..30),
        bases_max in 0usize..4,
        nodes_max in 10u32..80,
    ) {
        let limits = PartLimits {
            compact_bases_max: bases_max,
            compact_nodes_max: nodes_max,
            ..PartLimits::default()
        };
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for (round, (number, found, split)) in rounds.into_iter().enumerate() {
            let (dead, alive): (Vec<u32>, Vec<u32>) = found.into_iter().partition(|n| *n < split);
            let part = lookup(round as u64, number, &alive, &dead);
            let compact = encoder.encode(&part, &limits);
            let compact = v1::Part::decode(compact.encode_to_vec().as_slice()).unwrap();
            let from_compact = part_from_wire(&compact, Some(&mut decoder), &limits).unwrap();
            let plain = part_to_plain(&part);
            let from_plain = part_from_wire(&plain, None, &limits).unwrap();
            prop_assert_eq!(&from_compact, &part);
            prop_assert_eq!(from_plain.digest(), from_compact.digest());
            prop_assert_eq!(from_plain, part);
        }
    }

    #[test]
    fn the_order_of_plain_ids_does_not_matter(ids in prop::collection::btree_set(0u32..99, 0..30)) {
        let ids: Vec<NodeId> = ids.into_iter().map(id).collect();
        let mut wire = part_to_plain(&lookup(2, 0, &[], &[]));
        wire.evidence = group(v1::EvidenceClass::Seen, NodeId::concatenate(&ids));
        let forward = part_from_wire(&wire, None, &PartLimits::default()).unwrap();
        wire.evidence = group(v1::EvidenceClass::Seen, NodeId::concatenate(ids.iter().rev()));
        let backward = part_from_wire(&wire, None, &PartLimits::default()).unwrap();
        prop_assert_eq!(forward.digest(), backward.digest());
    }
}
