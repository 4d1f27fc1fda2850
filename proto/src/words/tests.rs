//! Every sentence, and which of them is said when.

use super::*;
use crate::v1::{CouldNotLookReason, Epoch, ProbeEvidence};

const EPOCH: Epoch = Epoch {
    start_unix_s: 0,
    round_period_s: 30,
    grace_s: 5,
    positive_probes_min: 1,
    freshness_s: 20,
    relay_session_age_min_s: 60,
    direct_timeout_ms: 4_000,
    direct_attempts: 2,
    retire_after_s: 0,
    method: String::new(),
};

fn lookup(evidence: &[EvidenceClass]) -> PartEvidence {
    PartEvidence {
        kind: PartKind::Lookup as i32,
        outcome: Outcome::Looked as i32,
        evidence: evidence.iter().map(|class| *class as i32).collect(),
        age_kept: true,
        ..PartEvidence::default()
    }
}

/// A part that could not look, with so many nodes whose question failed.
fn failed(failed_nodes: u64, evidence: &[EvidenceClass]) -> PartEvidence {
    PartEvidence {
        outcome: Outcome::CouldNotLook as i32,
        reason: CouldNotLookReason::NetError as i32,
        failed_nodes,
        ..lookup(evidence)
    }
}

fn of(kind: PartKind, part: PartEvidence) -> PartEvidence {
    PartEvidence { kind: kind as i32, ..part }
}

fn probe(parts: Vec<PartEvidence>) -> ProbeEvidence {
    ProbeEvidence { probe: "alpha".into(), eligible: true, parts, ..ProbeEvidence::default() }
}

const SEEN: &[EvidenceClass] = &[EvidenceClass::Seen];
const ANSWERED: &[EvidenceClass] = &[EvidenceClass::Answered];
const GONE: &[EvidenceClass] = &[EvidenceClass::Unreachable];
const GONE_EARLIER: &[EvidenceClass] = &[EvidenceClass::Unreachable, EvidenceClass::AskedEarlier];
const FAILED: &[EvidenceClass] = &[EvidenceClass::Failed];
const OFFER: &[EvidenceClass] = &[EvidenceClass::Offer];

#[test]
fn what_a_part_says() {
    let setting = Setting { epoch: Some(&EPOCH), subnet: "public", asked_round: Some("12:30:00") };
    let aged = PartEvidence { seen_age_ms: Some(243_000), ..lookup(GONE) };
    let lost = PartEvidence { age_kept: false, ..lookup(GONE) };
    let quick = PartEvidence { answered_in_ms: Some(45), ..lookup(ANSWERED) };
    let fresh = PartEvidence { seen_age_ms: Some(3_240), ..lookup(SEEN) };
    for (part, wanted) in [
        (
            lookup(GONE),
            "look-up: the relay did not know it; asked directly (2 times, 4 s each): no answer",
        ),
        (
            aged,
            "look-up: the relay last saw it 4 min 3 s before (a sign of life is at most 20 s old); \
             asked directly (2 times, 4 s each): no answer",
        ),
        (
            lost,
            "look-up: the relay had not seen it lately (the age is no longer kept); asked directly \
             (2 times, 4 s each): no answer",
        ),
        (
            lookup(GONE_EARLIER),
            "look-up: the relay did not know it; not asked again in this round: its questions of \
             round 12:30:00 went unanswered and still stand",
        ),
        (
            failed(3, FAILED),
            "look-up: asked, but its own daemon gave an error: its yagna daemon answered the \
             network question with an error; that says nothing about the node",
        ),
        (
            failed(0, &[]),
            "look-up: could not look: its yagna daemon answered the network question with an error",
        ),
        (
            failed(1, &[]),
            "look-up: not asked; its daemon gave an error for 1 other node: its yagna daemon \
             answered the network question with an error",
        ),
        (
            failed(0, SEEN),
            "look-up: the relay saw it at most 20 s before; then it could not look: its yagna \
             daemon answered the network question with an error",
        ),
        (lookup(&[]), "look-up: not asked"),
        (fresh, "look-up: the relay saw it 3.2 s before"),
        (quick, "look-up: asked directly: it answered in 45 ms"),
        (lookup(ANSWERED), "look-up: asked directly: it answered"),
        (
            of(PartKind::Market, lookup(OFFER)),
            "market of public: its offer was there, which is no sign of life: an offer outlives \
             its node by up to an hour",
        ),
        (of(PartKind::Market, lookup(&[])), "market of public: no offer of it was there"),
        (of(PartKind::Relay, lookup(&[])), "list of the relay: it was not there, or not fresh"),
        (
            of(PartKind::Relay, lookup(SEEN)),
            "list of the relay: the relay saw it at most 20 s before",
        ),
    ] {
        assert_eq!(super::part(&part, &setting), wanted);
    }
}

#[test]
fn what_a_part_says_where_less_is_known() {
    let bare = Setting::default();
    let words = super::part(&lookup(GONE_EARLIER), &bare);
    assert!(words.ends_with("still stand; their round is no longer known"), "{words}");
    assert!(super::part(&lookup(GONE), &bare).ends_with("asked directly: no answer"));
    let once = Epoch { direct_attempts: 1, ..EPOCH };
    let words = super::part(&lookup(GONE), &Setting { epoch: Some(&once), ..bare });
    assert!(words.ends_with("asked directly (once, 4 s): no answer"), "{words}");
    let odd = PartEvidence { kind: 77, evidence: vec![79], ..lookup(&[]) };
    let wanted = "part of an unknown kind (77): evidence that this version does not know (79)";
    assert_eq!(super::part(&odd, &bare), wanted);
}

#[test]
fn what_a_probe_found_in_all() {
    let market = |part| of(PartKind::Market, part);
    let relay = |part| of(PartKind::Relay, part);
    let gone = |part: PartEvidence| PartEvidence { retracted: true, ..part };
    let outranked = |part: PartEvidence| PartEvidence { conflict: true, ..part };
    for (parts, wanted) in [
        (vec![], Found::NotAsked),
        (vec![lookup(GONE), lookup(SEEN)], Found::Alive),
        (vec![failed(2, FAILED), lookup(ANSWERED)], Found::Alive),
        (vec![relay(lookup(SEEN)), lookup(GONE)], Found::Alive),
        (vec![lookup(&[]), lookup(GONE)], Found::Unreachable),
        (vec![lookup(&[]), lookup(GONE_EARLIER)], Found::Unreachable),
        (vec![lookup(GONE), failed(2, FAILED)], Found::Unreachable),
        (vec![lookup(&[]), failed(2, FAILED)], Found::DaemonError),
        // It failed for other nodes: of this one that is not known.
        (vec![lookup(&[]), failed(2, &[])], Found::NotAsked),
        (vec![lookup(&[]), failed(0, &[])], Found::CouldNotLook),
        (vec![failed(0, &[])], Found::CouldNotLook),
        (vec![relay(failed(0, &[]))], Found::CouldNotLook),
        (vec![relay(failed(0, &[])), lookup(&[])], Found::NotAsked),
        // The market says nothing of life.
        (vec![market(lookup(OFFER))], Found::NotAsked),
        (vec![market(failed(0, &[]))], Found::NotAsked),
        (vec![gone(lookup(SEEN))], Found::TakenOut),
        (vec![gone(lookup(SEEN)), market(lookup(OFFER))], Found::TakenOut),
        (vec![gone(lookup(SEEN)), lookup(&[])], Found::NotAsked),
        (vec![gone(market(lookup(OFFER)))], Found::NotAsked),
        (vec![outranked(lookup(SEEN)), lookup(GONE)], Found::Unreachable),
    ] {
        assert_eq!(Found::of(&probe(parts.clone())), wanted, "{parts:?}");
    }
}

#[test]
fn nothing_never_stands_above_what_another_part_found() {
    let told = |parts: Vec<PartEvidence>| {
        let setting = Setting { subnet: "public", ..Setting::default() };
        let probe = probe(parts);
        told_parts(&probe).map(|one| super::part(one, &setting)).collect::<Vec<_>>()
    };
    let silent = "look-up: not asked".to_owned();
    for outcome in [lookup(GONE), lookup(ANSWERED), failed(1, FAILED), failed(0, &[])] {
        let words = super::part(&outcome, &Setting::default());
        assert_eq!(
            told(vec![lookup(&[]), outcome.clone(), lookup(&[])]),
            std::slice::from_ref(&words)
        );
        // What does not count does not silence.
        let retracted = PartEvidence { retracted: true, ..outcome };
        assert_eq!(told(vec![lookup(&[]), retracted]), [silent.clone(), words]);
    }
    // Several that say nothing say it once, and an offer says nothing of life.
    let offer = of(PartKind::Market, lookup(OFFER));
    let all = told(vec![offer, lookup(&[]), lookup(&[]), failed(3, &[])]);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[1], silent);
    // The relay's list was read, and that is told.
    let list = of(PartKind::Relay, lookup(&[]));
    assert_eq!(told(vec![list, lookup(GONE)]).len(), 2);
}

#[test]
fn whether_it_counts() {
    let of = |parts, ineligibilities: &[Ineligibility]| {
        let wire: Vec<i32> = ineligibilities.iter().map(|why| *why as i32).collect();
        let probe =
            ProbeEvidence { eligible: wire.is_empty(), ineligibilities: wire, ..probe(parts) };
        format!("{}. {}", Found::of(&probe).words(), vote(&probe))
    };
    let (young, blind) = (Ineligibility::RelaySessionYoung, Ineligibility::DidNotLook);
    let retracted = PartEvidence { retracted: true, ..lookup(SEEN) };
    for (parts, why, wanted) in [
        (vec![lookup(SEEN)], &[young][..], "found it alive. That counts."),
        (vec![lookup(GONE)], &[], "found it unreachable. That counts."),
        (
            vec![lookup(GONE)],
            &[young],
            "found it unreachable. That does not count: its session with the relay was too new, \
             and living nodes are not found then.",
        ),
        (vec![failed(1, FAILED)], &[blind], "asked, but its daemon gave an error. It has no vote."),
        (vec![failed(0, &[])], &[blind], "could not look. It has no vote."),
        (vec![lookup(&[])], &[], "did not ask about it. It has no vote."),
        (
            vec![lookup(&[])],
            &[young],
            "did not ask about it. It has no vote. It could not see well: its session with the \
             relay was too new, and living nodes are not found then.",
        ),
        (
            vec![retracted],
            &[],
            "has no report that counts. The operator took what it reported out of the count.",
        ),
    ] {
        assert_eq!(of(parts.clone(), why), wanted, "{parts:?}");
    }
    let unexplained = ProbeEvidence { eligible: false, ..probe(vec![lookup(GONE)]) };
    assert_eq!(vote(&unexplained), "That does not count: the aggregator does not say why.");
}

#[test]
fn every_reason_has_words_of_its_own_that_html_may_hold() {
    let mut all: Vec<&str> = Reason::ALL.iter().map(|one| reason(*one)).collect();
    all.extend((0..5).filter_map(|value| Ineligibility::try_from(value).ok()).map(ineligibility));
    all.push(reason_on_wire(0));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
    assert!(!all.concat().contains(['<', '>', '&', '"', '\'']));
    assert_eq!(reason_on_wire(9_999), "it does not say why");
}

#[test]
fn counts_and_lengths() {
    for (ms, wanted) in [
        (0, "0 ms"),
        (999, "999 ms"),
        (4_000, "4 s"),
        (3_240, "3.2 s"),
        (59_999, "59.9 s"),
        (60_000, "1 min"),
        (243_000, "4 min 3 s"),
        (7_265_000, "2 h 1 min"),
        (90_000_000, "1 d 1 h"),
    ] {
        assert_eq!(duration(ms), wanted);
    }
    assert_eq!(gave_errors(1), "its daemon gave an error for 1 node");
    assert_eq!(gave_errors(3), "its daemon gave an error for 3 nodes");
}
