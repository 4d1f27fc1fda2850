//! Texts that providers choose, made to do harm.

use tonic::Status;
use uptime_client::v1;
use uptime_client::v1::watch_nodes_response::Event;

use crate::contrary::{Contrary, Script, fresh, then_silence};
use crate::help::run;
use crate::id;
use crate::watching::word;

/// Clears the screen, sets its title, breaks the line, turns the direction, hides.
const HOSTILE: &str =
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\r\nfake line\u{202e}txt\u{200f}\u{feff}\u{7f}";

fn node() -> v1::Node {
    let hostile = || HOSTILE.to_owned();
    v1::Node {
        id: id(1).to_string(),
        name: hostile(),
        subnets: vec![hostile()],
        runtime: hostile(),
        runtime_version: hostile(),
        networks: vec![hostile()],
        ..v1::Node::default()
    }
}

fn harmless(text: &str) -> bool {
    !text.contains(|letter: char| {
        (letter.is_control() && letter != '\n') || "\u{202e}\u{200f}\u{feff}".contains(letter)
    })
}

/// Whatever has a text in it has a hostile one.
fn script() -> Script {
    let hostile = || HOSTILE.to_owned();
    let probe = move || v1::ProbeEvidence {
        probe: hostile(),
        parts: vec![v1::PartEvidence {
            kind: v1::PartKind::Market as i32,
            subnet: hostile(),
            outcome: v1::Outcome::Looked as i32,
            ..v1::PartEvidence::default()
        }],
        ..v1::ProbeEvidence::default()
    };
    let listed = move || v1::Probe {
        name: hostile(),
        software_version: hostile(),
        subnets: vec![hostile()],
        gaps: vec![v1::ProbeGap { from_round_unix_s: u64::MAX, to_round_unix_s: 1, reason: -7 }],
        ..v1::Probe::default()
    };
    let round = move || v1::Round {
        probes: vec![v1::RoundProbe {
            probe: hostile(),
            ineligibilities: vec![1],
            ..v1::RoundProbe::default()
        }],
        ..v1::Round::default()
    };
    Script {
        node: Box::new(|_, _| Ok(node())),
        nodes: Box::new(|_, _| {
            let nodes = vec![node()];
            Ok(v1::ListNodesResponse { nodes, total: 1, ..v1::ListNodesResponse::default() })
        }),
        explain: Box::new(move |_, _| {
            Ok(v1::ExplainResponse {
                id: hostile(),
                rule: hostile(),
                probes: vec![probe()],
                ..v1::ExplainResponse::default()
            })
        }),
        uptime: Box::new(move |_, _| {
            let nodes = vec![v1::NodeUptime { id: hostile(), ..Default::default() }];
            Ok(v1::GetUptimeResponse { nodes, ..v1::GetUptimeResponse::default() })
        }),
        probes: Box::new(move |_, _| {
            Ok(v1::ListProbesResponse { probes: vec![listed()], freshness: None })
        }),
        rounds: Box::new(move |_, _| {
            let rounds = vec![round()];
            Ok(v1::ListRoundsResponse { rounds, ..v1::ListRoundsResponse::default() })
        }),
        summary: Box::new(|_, _| Ok(v1::GetSummaryResponse::default())),
        outages: Box::new(move |_, _| Err(Status::not_found(hostile()))),
        watch: Box::new(|_, _| {
            let changed = Event::Changed(v1::NodesChanged { nodes: vec![node()] });
            Ok(then_silence(vec![word(changed, "a")]))
        }),
        freshness: Some(v1::Freshness { method: hostile(), ..fresh() }),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_printing_lets_them_through() {
    let there = Contrary::start(script()).await;
    let (url, first) = (there.url(), id(1).to_string());
    let questions = [
        &["nodes"][..],
        &["node", &first],
        &["explain", &first],
        &["uptime"],
        &["outages", &first],
        &["probes"],
        &["rounds"],
        &["summary"],
        &["watch", "--initial", "--count", "1"],
    ];
    for output in ["table", "json", "csv"] {
        for question in questions {
            let arguments = [question, &["--output", output, "--address", &url]].concat();
            let ran = run(&arguments).await;
            let failed = question[0] == "outages" || question[0] == "uptime";
            assert_eq!(ran.status, i32::from(failed), "{arguments:?}: {}", ran.err);
            assert!(harmless(&ran.out), "{arguments:?}: {:?}", ran.out);
            assert!(harmless(&ran.err), "{arguments:?}: {:?}", ran.err);
            let lines = ran.out.lines().filter(|line| line.starts_with("fake line")).count();
            assert_eq!(lines, 0, "{arguments:?}");
            if output == "json" && question[0] != "outages" {
                let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
                let node = json.get("node").or_else(|| json["nodes"].get(0));
                if let Some(name) = node.and_then(|node| node.get("name")) {
                    assert_eq!(name, HOSTILE);
                }
            }
        }
    }
}
