//! Texts that providers choose, made to do harm.

use uptime_client::v1;

use crate::contrary::{Contrary, Script};
use crate::help::run;
use crate::id;

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

#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_printing_lets_them_through() {
    let script = Script {
        node: Box::new(|_, _| Ok(node())),
        nodes: Box::new(|_, _| {
            let nodes = vec![node()];
            Ok(v1::ListNodesResponse { nodes, total: 1, ..v1::ListNodesResponse::default() })
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let url = there.url();
    for output in ["table", "json", "csv"] {
        for question in [&["nodes"][..], &["node", &id(1).to_string()]] {
            let arguments = [question, &["--output", output, "--address", &url]].concat();
            let ran = run(&arguments).await;
            assert_eq!(ran.status, 0, "{}", ran.err);
            assert!(harmless(&ran.out) && harmless(&ran.err), "{arguments:?}: {:?}", ran.out);
            let lines = ran.out.lines().filter(|line| line.starts_with("fake line")).count();
            assert_eq!(lines, 0, "{arguments:?}");
            if output == "json" {
                let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
                let node = json.get("node").or_else(|| json["nodes"].get(0)).unwrap();
                assert_eq!(node["name"], HOSTILE);
            }
        }
    }
}
