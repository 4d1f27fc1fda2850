//! What every command prints in every form, word for word, for answers that never change.

use expect_test::expect_file;
use tonic::Status;
use uptime_client::v1::{self, CouldNotLookReason, EvidenceClass, Outcome, PartKind, Verdict};

use crate::contrary::{Contrary, Script, fresh, only};
use crate::help::run;
use crate::id;

const ROUND_S: u64 = 1_769_862_870;
const FIRST_SEEN_S: u64 = 1_767_250_800;

fn figures(up: u64, down: u64, unknown: u64, from_s: u64) -> v1::UptimeFigures {
    let percent = |part: u64, whole: u64| {
        let (part, whole) = (u32::try_from(part).unwrap(), u32::try_from(whole).unwrap());
        (whole > 0).then(|| 100.0 * f64::from(part) / f64::from(whole))
    };
    v1::UptimeFigures {
        uptime_percent: percent(up, up + down),
        coverage_percent: percent(up + down, up + down + unknown),
        up_s: up * 30,
        down_s: down * 30,
        unknown_s: unknown * 30,
        up_rounds: up,
        down_rounds: down,
        unknown_rounds: unknown,
        window: Some(v1::Window { from_unix_s: from_s, to_unix_s: ROUND_S + 30 }),
    }
}

/// The first is up, the second down, the third unknown.
fn node(number: u32) -> v1::Node {
    let verdict = [Verdict::Up, Verdict::Down, Verdict::Unknown][number as usize - 1];
    v1::Node {
        id: id(number).to_string(),
        is_online: number == 1,
        verdict: verdict as i32,
        verdict_since_unix_s: if number == 3 { 0 } else { ROUND_S - 3_600 * u64::from(number) },
        first_seen_unix_s: FIRST_SEEN_S,
        last_seen_unix_ms: (number < 3)
            .then_some(1_769_862_896_789 - 7_200_000 * i64::from(number)),
        all: Some(figures(80_000, 3_000 * u64::from(number), 70, FIRST_SEEN_S)),
        subnets: vec!["public".into(), "test".into()],
        name: format!("node-{number}, \"quoted\""),
        runtime: "vm".into(),
        runtime_version: "0.4.1".into(),
        networks: vec!["holesky".into(), "polygon".into()],
        round_trip_us: (number == 1).then_some(12_345),
        flapping: number == 2,
        ..v1::Node::default()
    }
}

fn explanation() -> v1::ExplainResponse {
    let part = |kind: PartKind, number, evidence: &[EvidenceClass]| v1::PartEvidence {
        kind: kind as i32,
        subnet: if kind == PartKind::Market { "public".into() } else { String::new() },
        number,
        outcome: Outcome::Looked as i32,
        observed_at_unix_ms: 1_769_862_891_500,
        received_at_unix_ms: 1_769_862_891_700,
        evidence: evidence.iter().map(|class| *class as i32).collect(),
        relay_session_age_s: (kind == PartKind::Lookup).then_some(600),
        ..v1::PartEvidence::default()
    };
    let lost = v1::PartEvidence {
        seen_age_ms: Some(243_000),
        ..part(PartKind::Lookup, 1, &[EvidenceClass::Unreachable])
    };
    let failed = v1::PartEvidence {
        outcome: Outcome::CouldNotLook as i32,
        reason: CouldNotLookReason::TimedOut as i32,
        relay_session_age_s: None,
        ..part(PartKind::Lookup, 1, &[])
    };
    let probe = |name: &str, reasons: &[i32], parts| v1::ProbeEvidence {
        probe: name.into(),
        eligible: reasons.is_empty(),
        ineligibilities: reasons.to_vec(),
        parts,
    };
    v1::ExplainResponse {
        id: id(2).to_string(),
        round_unix_s: ROUND_S,
        verdict: Verdict::Down as i32,
        rule: "down: most of the eligible probes that looked found it unreachable".into(),
        probes: vec![
            probe(
                "alpha",
                &[],
                vec![part(PartKind::Market, 0, &[EvidenceClass::Offer]), lost.clone()],
            ),
            probe("beta", &[3], vec![lost]),
            probe("gamma", &[4], vec![failed]),
        ],
        positive_probes: 0,
        eligible_probes: 1,
        eligible_looked: 1,
        eligible_unreachable: 1,
        epoch: Some(v1::Epoch {
            round_period_s: 30,
            positive_probes_min: 1,
            freshness_s: 20,
            direct_timeout_ms: 4_000,
            direct_attempts: 2,
            ..v1::Epoch::default()
        }),
        freshness: None,
    }
}

fn outages() -> v1::ListOutagesResponse {
    let window = |from_unix_s, to_unix_s| v1::Window { from_unix_s, to_unix_s };
    let closed = v1::Outage {
        from_unix_s: ROUND_S - 86_400,
        to_unix_s: ROUND_S - 86_400 + 4_530,
        open: false,
        unknown_stretches: vec![window(ROUND_S - 86_000, ROUND_S - 85_940)],
    };
    let open = v1::Outage {
        from_unix_s: ROUND_S - 7_200,
        to_unix_s: ROUND_S + 30,
        open: true,
        unknown_stretches: vec![],
    };
    v1::ListOutagesResponse { outages: vec![closed, open], ..v1::ListOutagesResponse::default() }
}

/// From so long before the last closed round until so long before it.
fn gap(from_ago_s: u64, to_ago_s: u64, reason: i32) -> v1::ProbeGap {
    let (from_round_unix_s, to_round_unix_s) = (ROUND_S - from_ago_s, ROUND_S - to_ago_s);
    v1::ProbeGap { from_round_unix_s, to_round_unix_s, reason }
}

fn probe(name: &str, eligible: bool) -> v1::Probe {
    v1::Probe {
        name: name.into(),
        connected: eligible,
        software_version: "0.1.0".into(),
        subnets: vec!["public".into()],
        last_report_unix_ms: 1_769_862_900_000,
        last_round_unix_s: ROUND_S,
        eligible,
        ineligibilities: if eligible { vec![] } else { vec![1] },
        could_not_look: if eligible { vec![] } else { vec![6] },
        parts_accepted: 1_200,
        parts_refused: 1,
        assigned_nodes: 340,
        gaps: if eligible { vec![] } else { vec![gap(7_200, 3_600, 10), gap(900, 300, 12)] },
        ..v1::Probe::default()
    }
}

fn round() -> v1::Round {
    let probe = |name: &str, eligible| v1::RoundProbe {
        probe: name.into(),
        eligible,
        ineligibilities: if eligible { vec![] } else { vec![3] },
        offers: 1_352,
        looked: 1_352,
        found: 1_340,
        ..v1::RoundProbe::default()
    };
    v1::Round {
        start_unix_s: ROUND_S,
        period_s: 30,
        up: 1_340,
        down: 11,
        unknown: 1,
        probes_reported: 2,
        probes_eligible: 1,
        probes: vec![probe("alpha", true), probe("beta", false)],
    }
}

fn summary() -> v1::GetSummaryResponse {
    v1::GetSummaryResponse {
        nodes: 1_352,
        online: 1_340,
        retired: 12,
        unconfirmed: 3,
        coverage_percent: Some(99.95),
        probes_connected: 3,
        probes_eligible: 2,
        clock_state: v1::ClockState::Sure as i32,
        ..v1::GetSummaryResponse::default()
    }
}

pub(crate) fn script() -> Script {
    Script {
        node: Box::new(|_, request| {
            let numbered = (1..=3).map(node).find(|node| node.id == request.id);
            numbered.ok_or_else(|| Status::not_found(format!("{} was never seen", request.id)))
        }),
        nodes: Box::new(|_, _| {
            let nodes = (1..=3).map(node).collect();
            Ok(v1::ListNodesResponse { nodes, total: 3, ..v1::ListNodesResponse::default() })
        }),
        uptime: Box::new(|_, request| {
            let all = (1..=3).map(|number| id(number).to_string()).collect();
            let ids: Vec<String> = if request.ids.is_empty() { all } else { request.ids };
            let from_s = request.window.unwrap().from_unix_s.max(FIRST_SEEN_S);
            let known = |number: u64| (number <= 3).then(|| figures(2_000, 16 * number, 4, from_s));
            let node = |id: String| {
                let number = u64::from_str_radix(&id[34..], 16).unwrap();
                let figures = known(number);
                let (up, verdict) = match number {
                    1 => (true, v1::Verdict::Up),
                    _ => (false, v1::Verdict::Down),
                };
                v1::NodeUptime {
                    verdict: figures.map(|_| verdict as i32),
                    is_online: figures.map(|_| up),
                    first_up_unix_s: figures.map(|_| from_s),
                    up_until_unix_s: figures.map(|_| from_s + 60_000),
                    latency: (request.with_latency && number == 1).then_some(v1::Latency {
                        samples: 24,
                        min_us: 4_000,
                        mean_us: 12_345,
                        max_us: 80_150,
                    }),
                    figures,
                    id,
                }
            };
            let nodes = ids.into_iter().map(node).collect();
            Ok(v1::GetUptimeResponse { nodes, ..v1::GetUptimeResponse::default() })
        }),
        outages: Box::new(|_, _| Ok(outages())),
        explain: Box::new(|_, request| match request.round_unix_s {
            0 | ROUND_S => Ok(explanation()),
            other => Ok(v1::ExplainResponse { round_unix_s: other, ..explanation() }),
        }),
        summary: Box::new(|_, _| Ok(summary())),
        rounds: Box::new(|_, _| {
            let rounds = vec![round()];
            Ok(v1::ListRoundsResponse { rounds, ..v1::ListRoundsResponse::default() })
        }),
        probes: Box::new(|_, _| {
            let probes = vec![probe("alpha", true), probe("beta", false)];
            Ok(v1::ListProbesResponse { probes, freshness: None })
        }),
        csv: Box::new(|_, _| {
            let data = b"issuer_id,is_online\n".to_vec().into();
            Ok(only(vec![Ok(v1::ExportCsvResponse { data, freshness: Some(fresh()) })]))
        }),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_what_was_agreed() {
    let there = Contrary::start(script()).await;
    let url = there.url();
    let (first, second, ninth) = (id(1).to_string(), id(2).to_string(), id(9).to_string());
    for (name, arguments) in [
        ("summary", &["summary"][..]),
        ("nodes", &["nodes"]),
        ("node", &["node", &second]),
        ("explain", &["explain", &second]),
        ("uptime", &["uptime", &first, &second, &ninth, "--window", "24h"]),
        ("latency", &["uptime", &first, &second, "--window", "24h", "--latency"]),
        ("outages", &["outages", &second]),
        ("probes", &["probes"]),
        ("rounds", &["rounds"]),
    ] {
        let mut found = String::new();
        for output in ["table", "csv", "json"] {
            let arguments = [arguments, &["--output", output]].concat();
            let ran = run(&[&arguments[..], &["--address", &url]].concat()).await;
            found += &format!("$ uptimectl {}\n{}", arguments.join(" "), ran.out);
            found += &format!("--- standard error, exit status {}\n{}\n", ran.status, ran.err);
        }
        expect_file![format!("../snapshots/{name}.txt")].assert_eq(&found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_and_rounds_are_asked_for_by_the_aggregators_clock() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = [(); 3].map(|()| std::sync::Arc::clone(&asked));
    let [uptime, outages, explain] = notes;
    // Beside an account the node is asked for, too.
    let nodes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let node = std::sync::Arc::clone(&nodes);
    let script = Script {
        uptime: Box::new(move |_, request| {
            let window = request.window.unwrap();
            uptime.lock().unwrap().push((window.from_unix_s, window.to_unix_s));
            Ok(v1::GetUptimeResponse::default())
        }),
        outages: Box::new(move |_, request| {
            let window = request.window.unwrap();
            outages.lock().unwrap().push((window.from_unix_s, window.to_unix_s));
            Ok(v1::ListOutagesResponse::default())
        }),
        explain: Box::new(move |_, request| {
            explain.lock().unwrap().push((request.round_unix_s, 0));
            Ok(explanation())
        }),
        node: Box::new(move |_, request| {
            node.lock().unwrap().push((request.round_unix_s, 1));
            Ok(v1::Node::default())
        }),
        ..script()
    };
    let there = Contrary::start(script).await;
    let url = there.url();
    let second = id(2).to_string();
    let end_s = ROUND_S + 30;
    for (arguments, wanted) in [
        (&["uptime"][..], (0, 0)),
        (&["uptime", "--window", "7d"], (end_s - 604_800, 0)),
        (&["uptime", "--from", "2026-01-01", "--to", "2026-01-02"], (1_767_225_600, 1_767_312_000)),
        (&["outages", &second, "--window", "2w"], (end_s - 1_209_600, 0)),
        (&["outages", &second, "--from", "3 days ago"], (1_769_862_907 - 259_200, 0)),
        (&["explain", &second], (0, 0)),
        (&["explain", &second, "last"], (0, 0)),
        (&["explain", &second, "-3"], (ROUND_S - 90, 0)),
        (&["explain", &second, "2026-01-31T12:00:10Z"], (1_769_860_800, 0)),
        (&["explain", &second, "1769860829"], (1_769_860_800, 0)),
        (&["node", &second], (0, 1)),
        (&["node", &second, "-3", "--exit-status"], (ROUND_S - 90, 1)),
        (&["node", &second, "2026-01-31T12:00:10Z"], (1_769_860_800, 1)),
    ] {
        let ran = run(&[arguments, &["--address", &url]].concat()).await;
        let cannot_tell = arguments.contains(&"--exit-status");
        assert_eq!(ran.status, if cannot_tell { 4 } else { 0 }, "{arguments:?}: {}", ran.err);
        let node = std::mem::take(&mut *nodes.lock().unwrap()).pop();
        assert_eq!(asked.lock().unwrap().pop().or(node), Some(wanted), "{arguments:?}");
    }
    for (arguments, words) in [
        (&["uptime", "--from", "2026-01-02", "--to", "2026-01-01"][..], "is reversed"),
        (&["uptime", "--from", "2026-01-02", "--to", "2026-01-02"], "is empty"),
        (&["outages", &second, "--from", "2027-01-01"], "nothing is decided there yet"),
        (&["explain", &second, "2026-02-01"], "has not closed yet"),
        (&["node", &second, "2026-02-01"], "has not closed yet"),
    ] {
        let ran = run(&[arguments, &["--address", &url]].concat()).await;
        assert_eq!((ran.status, ran.out.as_str()), (64, ""), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(words), "{arguments:?}: {}", ran.err);
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_told_by_the_exit_status() {
    let there = Contrary::start(script()).await;
    let url = there.url();
    for (number, wanted) in [(1, 0), (2, 3), (3, 4), (9, 4)] {
        let id = id(number).to_string();
        let ran = run(&["node", &id, "--exit-status", "--address", &url]).await;
        assert_eq!(ran.status, wanted, "{number}: {}", ran.err);
        let without = run(&["node", &id, "--address", &url]).await;
        assert_eq!(without.status, i32::from(number == 9), "{number}: {}", without.err);
    }
}
