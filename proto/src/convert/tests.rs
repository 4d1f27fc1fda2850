//! The message by itself: what is taken, what is refused, and that both forms mean the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{Kind, NodeId, PartKey, Period, Reason, Round, Sets};

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
    let failed = |part: &mut v1::Part| part.evidence = group(C::Failed, vec![0; 20]);
    assert_eq!(refusal(failed), R::Contradiction, "FAILED where the probe looked");
    let earlier = |part: &mut v1::Part| part.evidence = group(C::AskedEarlier, vec![0; 20]);
    assert_eq!(refusal(earlier), R::Contradiction, "ASKED_EARLIER without UNREACHABLE");
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
    // The number 0 alone.
    compact.seen = vec![0, 0x80].into();
    let refusal = part_from_wire(&wire, Some(&mut Decoder::default()), &limits).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Resync);
}

#[test]
fn an_id_numbered_twice_is_refused_and_forgotten() {
    let limits = PartLimits::default();
    let mut decoder = Decoder::default();
    let mut wire = Encoder::default().encode(&lookup(1, 0, &[1, 2], &[]), &limits);
    part_from_wire(&wire, Some(&mut decoder), &limits).unwrap();
    let refusal = part_from_wire(&wire, Some(&mut decoder), &limits).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Resync);
    assert_eq!(decoder.numbered(), 2);
    // The numbers after the refused ones are not there either.
    let Some(Evidence::Compact(compact)) = &mut wire.evidence else { panic!("compact") };
    compact.new_node_ids = Vec::new().into();
    compact.seen = runs::encode(std::iter::once(0..4)).into();
    let refusal = part_from_wire(&wire, Some(&mut decoder), &limits).unwrap_err();
    assert!(refusal.detail.contains("the 2 ids"), "{refusal}");
}

#[test]
fn unchanged_rounds_cost_a_few_bytes() {
    let limits = PartLimits::default();
    let everyone: Vec<u32> = (0..10_000).filter(|number| number % 7 != 0).collect();
    for (mut encoder, most) in [(Encoder::default(), 40), (Encoder::for_stream(), 10)] {
        let mut bytes = (1..=3).map(|round| {
            let mut part = lookup(round, 0, &everyone, &[]);
            part.relay_session_age_s = Some(3_600 + u32::try_from(round).unwrap() * 30);
            encoder.encode(&part, &limits).encoded_len()
        });
        let first = bytes.next().unwrap();
        assert!(first > 170_000, "{first}");
        assert!(bytes.all(|bytes| bytes <= most));
    }
}

#[test]
fn only_a_file_has_full_sets_again_and_again() {
    let limits = PartLimits::default();
    let full = |mut encoder: Encoder| -> Vec<u64> {
        let full = |round: &u64| {
            let wire = encoder.encode(&lookup(*round, 0, &[1, 2], &[3]), &limits);
            matches!(&wire.evidence, Some(Evidence::Compact(compact)) if compact.full)
        };
        (1..=300).filter(full).collect()
    };
    assert_eq!(full(Encoder::default()), [1, 121, 241]);
    assert_eq!(full(Encoder::for_stream()), [1]);
}

/// The second part of a stream, as it stands on the wire, and the far end before it comes.
fn second(part: &Part) -> (v1::Part, v1::CompactEvidence, Decoder) {
    let limits = PartLimits::default();
    let (mut encoder, mut decoder) = (Encoder::for_stream(), Decoder::default());
    let first = encoder.encode(&lookup(2, 0, &[1, 2], &[3]), &limits);
    part_from_wire(&first, Some(&mut decoder), &limits).unwrap();
    let wire = encoder.encode(part, &limits);
    let Some(Evidence::Compact(compact)) = wire.evidence.clone() else { panic!("compact") };
    (wire, compact, decoder)
}

#[test]
fn a_head_is_left_out_where_it_follows() {
    let base = lookup(3, 0, &[1, 2], &[3]);
    let mut aged = base.clone();
    aged.relay_session_age_s = Some(3_630);
    let (wire, compact, _) = second(&aged);
    assert_eq!(v1::Part { evidence: None, ..wire }, v1::Part::default());
    let all = (compact.sequence, compact.rounds_between, compact.observed_later_ms);
    assert_eq!((all, compact.relay_session_older_s), ((1, 0, 0), 0));
    // A new session, three rounds later, 2 s earlier in its round.
    let mut later = lookup(6, 0, &[1], &[]);
    later.observed_at_ms -= 2_000;
    later.relay_session_age_s = Some(5);
    let (_, compact, _) = second(&later);
    let all = (compact.sequence, compact.rounds_between, compact.observed_later_ms);
    assert_eq!((all, compact.relay_session_older_s), ((1, 3, -2_000), 5 - 3_720));

    let whole_head: [fn(&mut Part); 7] = [
        |part| part.key.number = 1,
        |part| part.relay_session_age_s = None,
        |part| part.kind = Kind::Relay,
        |part| (part.kind, part.key.subnet) = (Kind::Market, "public".to_owned()),
        |part| part.outcome = Outcome::CouldNotLook(Reason::TimedOut),
        |part| part.key.round = Round::new(120, Period::new(60).unwrap()).unwrap(),
        |part| part.key.round = Round::new(60, Period::new(30).unwrap()).unwrap(),
    ];
    for change in whole_head {
        let mut part = Part { sets: Sets::default(), ..base.clone() };
        change(&mut part);
        let (wire, compact, mut decoder) = second(&part);
        assert_eq!(compact.sequence, 0, "{part:?}");
        let back = part_from_wire(&wire, Some(&mut decoder), &PartLimits::default());
        assert_eq!(back, Ok(part));
    }
}

#[test]
fn a_head_that_does_not_follow_is_refused() {
    use RefusalReason as R;
    let refusal = |change: fn(&mut v1::Part, &mut v1::CompactEvidence)| {
        let (mut wire, mut compact, mut decoder) = second(&lookup(3, 0, &[1, 2], &[3]));
        change(&mut wire, &mut compact);
        wire.evidence = Some(Evidence::Compact(compact));
        part_from_wire(&wire, Some(&mut decoder), &PartLimits::default()).unwrap_err().reason
    };
    assert_eq!(refusal(|_, compact| compact.sequence = 2), R::Resync);
    assert_eq!(refusal(|_, compact| compact.sequence = u32::MAX), R::Resync);
    assert_eq!(refusal(|_, compact| compact.sequence = 0), R::FieldMissing);
    assert_eq!(refusal(|_, compact| compact.rounds_between = 1), R::Resync);
    assert_eq!(refusal(|_, compact| compact.observed_later_ms = 1), R::Resync);
    assert_eq!(refusal(|_, compact| compact.observed_later_ms = i64::MAX), R::Resync);
    assert_eq!(refusal(|_, compact| compact.relay_session_older_s += 1), R::Resync);
    assert_eq!(refusal(|_, compact| compact.relay_session_older_s = i64::MIN), R::Resync);
    assert_eq!(refusal(|_, compact| compact.digest_prefix = vec![0; 4].into()), R::Resync);
    let short = |compact: &mut v1::CompactEvidence| {
        compact.digest_prefix = compact.digest_prefix[..3].to_vec().into();
    };
    let (mut wire, mut compact, mut decoder) = second(&lookup(3, 0, &[1, 2], &[3]));
    short(&mut compact);
    wire.evidence = Some(Evidence::Compact(compact));
    let refused = part_from_wire(&wire, Some(&mut decoder), &PartLimits::default()).unwrap_err();
    assert_eq!(refused.reason, R::Resync);
    assert_eq!(refusal(|_, compact| compact.seen = vec![0, 0x88].into()), R::Resync);
    assert_eq!(refusal(|_, compact| compact.whole = vec![0]), R::FieldMissing);
    // Both kinds of head at once.
    assert_eq!(refusal(|wire, _| wire.number = 1), R::Contradiction);
    assert_eq!(refusal(|wire, _| wire.kind = 2), R::Contradiction);
    assert_eq!(refusal(|wire, _| wire.relay_session_age_s = Some(1)), R::Contradiction);
}

#[test]
fn a_part_refused_for_its_head_does_not_lose_the_thread() {
    let limits = PartLimits::default();
    let (mut encoder, mut decoder) = (Encoder::for_stream(), Decoder::default());
    let mut take = |part: &Part| {
        let wire = encoder.encode(part, &limits);
        part_from_wire(&wire, Some(&mut decoder), &limits)
    };
    take(&lookup(1, 0, &[1, 2], &[])).unwrap();
    let mut bad = lookup(2, 0, &[1, 2, 3], &[]);
    bad.kind = Kind::Market;
    assert_eq!(take(&bad).unwrap_err().reason, RefusalReason::SubnetInvalid);
    let mut third = lookup(3, 0, &[1, 2, 3], &[4]);
    // Its head is whole, since the kind is another than before.
    assert_eq!(take(&third), Ok(third.clone()));
    third = lookup(4, 0, &[1, 3], &[4]);
    assert_eq!(take(&third), Ok(third));
}

/// A part of any kind, near in time to the ones around it or not.
fn any_part() -> impl Strategy<Value = Part> {
    let head = (0u16..3, 0u8..4, prop_oneof![4 => Just(30), 1 => Just(60)], any::<bool>());
    let times = (0u64..40, prop_oneof![-5i64..40_000, any::<i64>()], prop::option::of(0u32..200));
    let nodes = (prop::collection::btree_set(0u32..60, 0..40), 0u32..60);
    (head, times, nodes).prop_map(|(head, times, (found, split))| {
        let ((number, kind, period_s, looked), (round, observed_ms, session)) = (head, times);
        let period = Period::new(period_s).unwrap();
        let round = Round::new(round * u64::from(period_s), period).unwrap();
        let (dead, alive) =
            found.into_iter().map(id).partition::<Vec<_>, _>(|id| *id < self::id(split));
        let (kind, subnet, sets) = match kind {
            0 => (Kind::Market, "public", Sets::default().with(Class::Offer, alive)),
            1 => (Kind::Relay, "", Sets::default().with(Class::Seen, alive)),
            _ => {
                let sets = Sets::default().with(Class::Seen, alive.clone());
                let earlier = dead.iter().step_by(2).copied().collect();
                let sets = sets.with(Class::Unreachable, dead.clone());
                let sets = sets.with(Class::AskedEarlier, earlier);
                (Kind::Lookup, "", sets.with(Class::Answered, alive))
            }
        };
        let failed = match kind {
            Kind::Lookup => Sets::default().with(Class::Failed, dead),
            _ => Sets::default(),
        };
        let could_not = Outcome::CouldNotLook(Reason::NetError);
        Part {
            key: PartKey { subnet: subnet.to_owned(), round, number },
            kind,
            outcome: if looked { Outcome::Looked } else { could_not },
            observed_at_ms: round.start_ms().saturating_add(observed_ms),
            relay_session_age_s: session,
            sets: if looked { sets } else { failed },
        }
    })
}

proptest! {
    #[test]
    fn both_forms_mean_exactly_the_same(
        parts in prop::collection::vec(any_part(), 1..40),
        for_stream in any::<bool>(),
        bases_max in 0usize..6,
        nodes_max in 10u32..80,
    ) {
        let limits = PartLimits {
            compact_bases_max: bases_max,
            compact_nodes_max: nodes_max,
            ..PartLimits::default()
        };
        let mut encoder = if for_stream { Encoder::for_stream() } else { Encoder::default() };
        let mut decoder = Decoder::default();
        for part in parts {
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

    /// A stream on which one byte was changed: what is taken from then on is what was sent, or is
    /// refused. (A part that is taken for another takes a digest that agrees by chance.)
    #[test]
    fn no_fault_of_a_stream_goes_unnoticed(
        parts in prop::collection::vec(any_part(), 1..12),
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        other in 1u8..=255,
    ) {
        let limits = PartLimits::default();
        let (mut encoder, mut decoder) = (Encoder::for_stream(), Decoder::default());
        let which = which.index(parts.len());
        for (place, part) in parts.iter().enumerate() {
            let mut bytes = encoder.encode(part, &limits).encode_to_vec();
            if place == which {
                let at = at.index(bytes.len());
                bytes[at] ^= other;
            }
            let Ok(wire) = v1::Part::decode(bytes.as_slice()) else { continue };
            // A change may turn the compact form into another that has no digest.
            let Some(Evidence::Compact(_)) = wire.evidence else { continue };
            if let Ok(back) = part_from_wire(&wire, Some(&mut decoder), &limits) {
                prop_assert_eq!(&back, part);
            }
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
