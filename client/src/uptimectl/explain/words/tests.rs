//! Explanations of each kind, as they are printed.

use expect_test::{Expect, expect};

use uptime_client::v1::{EvidenceClass, Ineligibility, Outcome, PartKind};

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
        age_kept: true,
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

/// Found unreachable in every way that there is, and not found out about in every other.
fn down() -> v1::ExplainResponse {
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
    let asked_for_nothing = v1::PartEvidence {
        failed_nodes: 2,
        ..v1::PartEvidence {
            evidence: vec![EvidenceClass::Failed as i32],
            reason: v1::CouldNotLookReason::NetError as i32,
            ..failed.clone()
        }
    };
    let earlier = [EvidenceClass::Unreachable, EvidenceClass::AskedEarlier];
    let standing = v1::PartEvidence {
        asked_round_unix_s: Some(ROUND_S - 120),
        ..part(PartKind::Lookup, &earlier)
    };
    let gone = v1::PartEvidence { age_kept: false, ..stale(None) };
    let offer = part(PartKind::Market, &[EvidenceClass::Offer]);
    let rule = "down: none of the 2 probes that looked could reach it";
    let mut down = explanation(Verdict::Down, rule, [0, 2, 2, 2]);
    down.probes = vec![
        probe("alpha", true, vec![offer.clone(), stale(Some(243_000))]),
        probe("beta", true, vec![part(PartKind::Lookup, &[]), gone]),
        probe("beta-2", true, vec![standing]),
        young,
        probe("delta", false, vec![part(PartKind::Market, &[]), failed]),
        probe("epsilon", true, vec![part(PartKind::Lookup, &[]), asked_for_nothing]),
        probe("zeta", true, vec![part(PartKind::Lookup, &[])]),
    ];
    down
}

#[test]
fn one_that_is_down_is_told_who_found_what_and_what_to_do() {
    let down = down();
    let shown = v1::Node { is_online: false, verdict: Verdict::Down as i32, ..node() };
    check(
        &down,
        Some(&shown),
        &expect![[r#"
            0x85f06344fde97d390e87b0840b0325212f26eba7  a-node-with-a-long-name
            Shown now   down since 2026-01-31 12:00:00 UTC, for 35 min 7 s
            Round       2026-01-31 12:34:30 UTC, 30 s long, ended 7 s ago
            Verdict     down
            Rule        down: none of the 2 probes that looked could reach it.
            Votes       0 probes found it alive; 1 is enough to be up. 2 probes could see
                        well; 2 of those looked for it, and 2 found it unreachable.

            alpha       Found it unreachable. That counts.
                        2026-01-31 12:34:51 UTC, 16 s ago, market of public: its offer was
                        there, which is no sign of life: an offer outlives its node by up to
                        an hour.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: the relay last saw it 4
                        min 3 s before (a sign of life is at most 20 s old); asked directly
                        (2 times, 4 s each): no answer.

            beta        Found it unreachable. That counts.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: the relay had not seen
                        it lately (the age is no longer kept); asked directly (2 times, 4 s
                        each): no answer.

            beta-2      Found it unreachable. That counts.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: the relay did not know
                        it; not asked again in this round: its questions of round 2026-01-31
                        12:32:30 UTC went unanswered and still stand.

            gamma       Found it unreachable. That does not count: its session with the
                        relay was too new, and living nodes are not found then.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: the relay did not know
                        it; asked directly (2 times, 4 s each): no answer.

            delta       Could not look. It has no vote.
                        2026-01-31 12:34:51 UTC, 16 s ago, market of public: no offer of it
                        was there.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: could not look: the
                        answer did not come in time.

            epsilon     Asked, but its daemon gave an error. It has no vote.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: asked, but its own
                        daemon gave an error: its yagna daemon answered the network question
                        with an error; that says nothing about the node.

            zeta        Did not ask about it. It has no vote.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: not asked.

            What to do  1. Check that the yagna daemon of this identity runs on its host:
                        `yagna id show` must print this id.
                        2. Check that it has a session with the relay: `yagna net status`
                        shows it. Firewalls and routers must let its UDP out, and the
                        answers in.
                        3. If in doubt, restart the daemon. When it is back, `uptimectl
                        explain` shows it as up within two rounds.
                        It last gave a sign of life at 2026-01-31 12:34:56 UTC. See what its
                        log says of that time.
            As of       round 2026-01-31 12:34:30 UTC, ended 7 s ago, fresh-v1
        "#]],
    );
}

#[test]
fn unknown_rounds_are_told_and_begin_nothing_anew() {
    let shown = |node: &v1::Node| {
        let text = told(&down(), Some(node));
        let lines: Vec<&str> = text.lines().skip(1).take_while(|l| !l.contains("Round ")).collect();
        lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let since = |verdict, rounds| v1::Node {
        verdict: verdict as i32,
        verdict_since_unix_s: ROUND_S,
        state_unknown_rounds: rounds,
        ..node()
    };
    for (node, wanted) in [
        (
            since(Verdict::Up, 1),
            "up since 2026-01-31 12:00:00 UTC, for 35 min 7 s, 1 round unknown in between",
        ),
        (
            since(Verdict::Unknown, 2),
            "unknown since 2026-01-31 12:34:30 UTC, for 37 s; before that up since 2026-01-31 \
             12:00:00 UTC, 2 rounds unknown in between",
        ),
        (
            v1::Node { state_since_unix_s: 0, ..since(Verdict::Unknown, 0) },
            "unknown since \
             2026-01-31 12:34:30 UTC, for 37 s",
        ),
    ] {
        assert_eq!(shown(&node), format!("Shown now {wanted}"));
    }
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
            Shown now   up since 2026-01-31 12:00:00 UTC, for 35 min 7 s
            Round       2026-01-31 12:34:30 UTC, 30 s long, ended 7 s ago
            Verdict     up
            Rule        up: 1 probe is enough.
            Votes       3 probes found it alive; 1 is enough to be up. 2 probes could see
                        well; 2 of those looked for it, and 0 found it unreachable.

            alpha       Found it alive. That counts.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: the relay saw it 3.2 s
                        before.

            beta        Found it alive. That counts.
                        2026-01-31 12:34:51 UTC, 16 s ago, look-up: asked directly: it
                        answered in 45 ms. It was reported 6 min 18 s later.
                        2026-01-31 12:34:51 UTC, 16 s ago, list of the relay: the relay saw
                        it at most 20 s before.

            gamma       Did not ask about it. It has no vote.

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
        assert!(advice.starts_with("You need do nothing on the node:"), "{advice}");
        assert!(advice.contains(words), "{words}: {advice}");
        assert!(advice.contains("counts neither as up nor as down"), "{advice}");
    }
    let mut shy = explanation(Verdict::Unknown, "neither", [1, 2, 2, 0]);
    shy.epoch = Some(v1::Epoch { positive_probes_min: 2, ..epoch() });
    shy.probes = vec![probe("alpha", true, vec![])];
    let text = told(&shy, None).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("showed life, but to too few probes"), "{text}");
    let mut failed = explanation(Verdict::Unknown, "neither", [0, 1, 0, 0]);
    failed.probes =
        vec![probe("alpha", true, vec![part(PartKind::Lookup, &[EvidenceClass::Failed])])];
    let text = told(&failed, None).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("node: probes asked about it, but their own daemons gave"), "{text}");
}

#[test]
fn what_was_taken_out_of_the_count_is_no_vote() {
    let retracted = |class| v1::PartEvidence {
        retracted: true,
        conflict: true,
        ..part(PartKind::Lookup, &[class])
    };
    let probe = probe("alpha", true, vec![retracted(EvidenceClass::Seen)]);
    let mut unknown = explanation(Verdict::Unknown, "neither", [0, 0, 0, 0]);
    unknown.probes = vec![probe];
    let text = told(&unknown, Some(&v1::Node { retired: true, ..node() }));
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "The operator took what it reported out of the count",
        "The operator took this out of the count",
        "retired: it showed no sign of life",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn values_of_later_versions_do_no_harm() {
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
        ..probe(
            "\u{1b}]0;x\u{7}",
            false,
            vec![odd, part(PartKind::Lookup, &[EvidenceClass::Unreachable])],
        )
    };
    let mut later = explanation(Verdict::Unspecified, "\u{202e}rule\n", [0, 0, 0, 0]);
    later.probes = vec![odd];
    later.epoch = None;
    let screen = Screen { width: Some(1), colours: false };
    let text = tell(&later, None, &fresh(), &screen);
    assert!(text.contains("(79)") && text.contains("(77)"), "{text}");
    let hostile = |letter| crate::text::is_hostile(letter) && letter != '\n';
    assert!(!text.contains(hostile), "{text:?}");
}
