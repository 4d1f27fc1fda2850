//! Explanations of each kind, as they are printed.

use expect_test::{Expect, expect};

use super::*;
use crate::fresh::tests::fresh;
use crate::nodes::tests::node;

const ROUND_S: u64 = 1_769_862_870;

fn epoch() -> v1::Epoch {
    v1::Epoch {
        round_period_s: 30,
        positive_probes_min: 1,
        freshness_s: 20,
        direct_timeout_ms: 4_000,
        direct_attempts: 2,
        ..v1::Epoch::default()
    }
}

fn part(kind: PartKind, evidence: &[EvidenceClass]) -> v1::PartEvidence {
    let at_ms = i64::try_from(ROUND_S).unwrap() * 1000 + 21_500;
    v1::PartEvidence {
        kind: kind as i32,
        subnet: if kind == PartKind::Market { "public".into() } else { String::new() },
        outcome: Outcome::Looked as i32,
        observed_at_unix_ms: at_ms,
        received_at_unix_ms: at_ms + 200,
        evidence: evidence.iter().map(|class| *class as i32).collect(),
        ..v1::PartEvidence::default()
    }
}

fn probe(name: &str, eligible: bool, parts: Vec<v1::PartEvidence>) -> v1::ProbeEvidence {
    v1::ProbeEvidence { probe: name.into(), eligible, ineligibilities: vec![], parts }
}

fn explanation(verdict: Verdict, rule: &str, counts: [u32; 4]) -> v1::ExplainResponse {
    v1::ExplainResponse {
        id: node().id,
        round_unix_s: ROUND_S,
        verdict: verdict as i32,
        rule: rule.into(),
        positive_probes: counts[0],
        eligible_probes: counts[1],
        eligible_looked: counts[2],
        eligible_unreachable: counts[3],
        epoch: Some(epoch()),
        ..v1::ExplainResponse::default()
    }
}

fn told(explanation: &v1::ExplainResponse, shown: Option<&v1::Node>) -> String {
    let screen = Screen { width: None, colours: false };
    let text = tell(explanation, shown, &fresh(), &screen);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let painted = tell(explanation, shown, &fresh(), &Screen { colours: true, ..screen });
    let mut plain = painted.clone();
    for code in ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, text, "colours change nothing else");
    assert_ne!(painted, text);
    text
}

fn check(explanation: &v1::ExplainResponse, shown: Option<&v1::Node>, wanted: &Expect) {
    wanted.assert_eq(&told(explanation, shown));
}

#[test]
fn one_that_is_down_is_told_who_found_what_and_what_to_do() {
    let stale = |age_ms| v1::PartEvidence {
        seen_age_ms: age_ms,
        ..part(PartKind::Lookup, &[EvidenceClass::Unreachable])
    };
    let young = v1::ProbeEvidence {
        ineligibilities: vec![Ineligibility::RelaySessionYoung as i32],
        ..probe("gamma", false, vec![stale(None)])
    };
    let failed = v1::PartEvidence {
        outcome: Outcome::CouldNotLook as i32,
        reason: v1::CouldNotLookReason::TimedOut as i32,
        ..part(PartKind::Lookup, &[])
    };
    let offer = part(PartKind::Market, &[EvidenceClass::Offer]);
    let rule = "down: 2 of the 2 eligible probes that looked found it unreachable";
    let mut down = explanation(Verdict::Down, rule, [0, 2, 2, 2]);
    down.probes = vec![
        probe("alpha", true, vec![offer.clone(), stale(Some(243_000))]),
        probe("beta", true, vec![stale(None)]),
        young,
        probe("delta", false, vec![part(PartKind::Market, &[]), failed]),
    ];
    let shown = v1::Node { is_online: false, verdict: Verdict::Down as i32, ..node() };
    check(
        &down,
        Some(&shown),
        &expect![[r#"
            0x85f06344fde97d390e87b0840b0325212f26eba7  a-node-with-a-long-name
            Shown now   not online: down since 2026-01-31 12:00:00 UTC, for 35 min 7 s
            Round       2026-01-31 12:34:30 UTC, 30 s long, ended 7 s ago
            Verdict     down
            Rule        down: 2 of the 2 eligible probes that looked found it unreachable
            Votes       0 probes found it alive; 1 is enough to be up. 2 probes could see
                        well; 2 of those looked for it, and 2 found it unreachable.

            alpha       Found it unreachable. That counts.
                        2026-01-31 12:34:51 UTC, 16 s ago, market of public: its offer was
                        there, which proves no life: offers outlive their node by up to an
                        hour.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: the relay had last seen
                        it 4 min 3 s before, and 20 s is the most for a sign of life; asked
                        directly (2 times, with 4 s to answer) it did not answer.

            beta        Found it unreachable. That counts.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: the relay did not know
                        it; asked directly (2 times, with 4 s to answer) it did not answer.

            gamma       Found it unreachable. That does not count: its daemon had only just
                        met the relay, and for half a minute after that living nodes are not
                        found.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: the relay did not know
                        it; asked directly (2 times, with 4 s to answer) it did not answer.

            delta       Could not look. It has no vote.
                        2026-01-31 12:34:51 UTC, 16 s ago, market of public: no offer of it
                        was there.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: could not look, because
                        no answer came in time.

            What to do  1. Is the yagna daemon of this identity running on its host? `yagna
                        id show` has to print this id.
                        2. Does it reach the relay? `yagna net status` tells. Its UDP must
                        be let out by firewalls and routers, and answers let in.
                        3. Start the daemon anew if in doubt. Within two rounds after it is
                        back, `uptimectl explain` says so.
                        It last gave a sign of life at 2026-01-31 12:34:56 UTC: what does
                        its log say then?
            As of       round 2026-01-31 12:34:30 UTC, ended 7 s ago, fresh-v1
        "#]],
    );
}

#[test]
fn one_that_is_up_has_nothing_to_do() {
    let seen = v1::PartEvidence {
        seen_age_ms: Some(3_240),
        ..part(PartKind::Lookup, &[EvidenceClass::Seen])
    };
    let answered = v1::PartEvidence {
        answered_in_ms: Some(45),
        received_at_unix_ms: i64::try_from(ROUND_S).unwrap() * 1000 + 400_000,
        ..part(PartKind::Lookup, &[EvidenceClass::Answered])
    };
    let listed = part(PartKind::Relay, &[EvidenceClass::Seen]);
    let mut up = explanation(Verdict::Up, "up: 1 probe is enough", [3, 2, 2, 0]);
    up.probes = vec![
        probe("alpha", true, vec![seen]),
        probe("beta", false, vec![answered, listed]),
        probe("gamma", true, vec![]),
    ];
    check(
        &up,
        Some(&node()),
        &expect![[r#"
            0x85f06344fde97d390e87b0840b0325212f26eba7  a-node-with-a-long-name
            Shown now   online: up since 2026-01-31 12:00:00 UTC, for 35 min 7 s
            Round       2026-01-31 12:34:30 UTC, 30 s long, ended 7 s ago
            Verdict     up
            Rule        up: 1 probe is enough
            Votes       3 probes found it alive; 1 is enough to be up. 2 probes could see
                        well; 2 of those looked for it, and 0 found it unreachable.

            alpha       Found it alive. That counts.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: the relay had seen it
                        3.2 s before.

            beta        Found it alive. That counts.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: it answered a direct
                        question in 45 ms. It was reported 6 min 18 s later.
                        2026-01-31 12:34:51 UTC, 16 s ago, relay's listing: the relay had
                        just seen it.

            gamma       Says nothing of whether it lives: it did not ask for it. It has no
                        vote.

            What to do  Nothing: it was up.
            As of       round 2026-01-31 12:34:30 UTC, ended 7 s ago, fresh-v1
        "#]],
    );
}

#[test]
fn of_one_that_is_unknown_the_reason_is_told() {
    let unknown = |counts, probes: usize| {
        let mut unknown = explanation(Verdict::Unknown, "neither", counts);
        unknown.probes = (0..probes).map(|at| probe(&format!("p{at}"), true, vec![])).collect();
        let text = told(&unknown, None);
        assert!(text.contains("Shown now   not at all"), "{text}");
        let advice = text.split("What to do  ").nth(1).unwrap();
        advice.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (counts, probes, words) in [
        ([0, 0, 0, 0], 0, "no probe reported in this round"),
        ([0, 0, 0, 0], 1, "no probe could see well"),
        ([0, 4, 0, 0], 4, "no probe that could see well looked for it"),
        ([0, 4, 2, 2], 4, "too few of the probes that could see well"),
        ([0, 4, 4, 2], 4, "do not agree that it is unreachable"),
    ] {
        let advice = unknown(counts, probes);
        assert!(advice.starts_with("Nothing on the node:"), "{advice}");
        assert!(advice.contains(words), "{words}: {advice}");
        assert!(advice.contains("counts neither as up nor as down"), "{advice}");
    }
    let mut shy = explanation(Verdict::Unknown, "neither", [1, 2, 2, 0]);
    shy.epoch = Some(v1::Epoch { positive_probes_min: 2, ..epoch() });
    shy.probes = vec![probe("alpha", true, vec![])];
    assert!(told(&shy, None).contains("showed life, but to too few probes"));
}

#[test]
fn what_was_taken_out_of_the_count_is_no_vote() {
    let retracted = |class| v1::PartEvidence {
        retracted: true,
        conflict: true,
        ..part(PartKind::Lookup, &[class])
    };
    let probe = probe("alpha", true, vec![retracted(EvidenceClass::Seen)]);
    assert_eq!(found(&probe), Found::Nothing);
    let mut unknown = explanation(Verdict::Unknown, "neither", [0, 0, 0, 0]);
    unknown.probes = vec![probe];
    let text = told(&unknown, Some(&v1::Node { retired: true, ..node() }));
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "was taken out of the count by the aggregator's operator",
        "twice with different content",
        "The operator took this out of the count",
        "not online, and retired",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_sign_of_life_outweighs_its_absence_and_values_of_later_versions_do_no_harm() {
    let (seen, gone) = (EvidenceClass::Seen, EvidenceClass::Unreachable);
    let lookup = |evidence: &[EvidenceClass]| part(PartKind::Lookup, evidence);
    let both = vec![lookup(&[gone]), lookup(&[seen])];
    assert_eq!(found(&probe("alpha", true, both)), Found::Alive);
    assert_eq!(found(&probe("alpha", true, vec![lookup(&[gone])])), Found::Unreachable);
    let offer = part(PartKind::Market, &[EvidenceClass::Offer]);
    assert_eq!(found(&probe("alpha", true, vec![offer])), Found::Nothing);
    let odd = v1::PartEvidence {
        kind: 77,
        outcome: 78,
        evidence: vec![79],
        observed_at_unix_ms: i64::MIN,
        received_at_unix_ms: i64::MAX,
        seen_age_ms: Some(i32::MIN),
        subnet: "\u{1b}[2J".into(),
        ..v1::PartEvidence::default()
    };
    let odd = v1::ProbeEvidence {
        ineligibilities: vec![80],
        ..probe("\u{1b}]0;x\u{7}", false, vec![odd, lookup(&[gone])])
    };
    let mut later = explanation(Verdict::Unspecified, "\u{202e}rule\n", [0, 0, 0, 0]);
    later.probes = vec![odd];
    later.epoch = None;
    let screen = Screen { width: Some(1), colours: false };
    let text = tell(&later, None, &fresh(), &screen);
    assert!(text.contains("value_79") && text.contains("value_77"), "{text}");
    let hostile = |letter| crate::text::is_hostile(letter) && letter != '\n';
    assert!(!text.contains(hostile), "{text:?}");
}
