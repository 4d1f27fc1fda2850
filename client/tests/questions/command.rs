//! `uptimectl` against a real aggregator.

use std::collections::BTreeSet;

use uptime_client::NodeId;

use crate::genuine::Genuine;
use crate::help::run;
use crate::id;

fn names(id: &NodeId) -> String {
    format!("node-{}", &id.to_string()[38..])
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_listed_filtered_and_ordered() {
    let there = Genuine::start().await;
    let (up, down) = ([id(1), id(2), id(0x0a00_0003)], [id(4)]);
    there.observe(&up, &down, names).await;
    let url = there.url();
    let listed = async |arguments: &[&str]| {
        let all = [&["nodes", "--address", &url, "--output", "csv"], arguments].concat();
        let ran = run(&all).await;
        assert_eq!(ran.status, 0, "{arguments:?}: {}", ran.err);
        assert!(ran.out.starts_with("id,name,is_online,verdict,"), "{}", ran.out);
        assert!(ran.err.contains("as of round 2"), "{}", ran.err);
        let ends = ran.out.lines().skip(1).map(|line| line[40..42].to_owned());
        ends.collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]).await, ["01", "02", "04", "03"]);
    assert_eq!(listed(&["--desc"]).await, ["03", "04", "02", "01"]);
    assert_eq!(listed(&["--online"]).await, ["01", "02", "03"]);
    assert_eq!(listed(&["--offline"]).await, ["04"]);
    assert_eq!(listed(&["--subnet", "public", "--limit", "2"]).await, ["01", "02"]);
    assert_eq!(listed(&["--subnet", "elsewhere"]).await, [""; 0]);
    assert_eq!(listed(&["--name", "e-0004"]).await, ["04"]);
    let prefix = format!("{}0a", "0".repeat(32));
    assert_eq!(listed(&["--id-prefix", &prefix]).await, ["03"]);
    assert_eq!(listed(&["--order", "name", "--desc", "--limit", "1"]).await, ["04"]);
    let by_uptime = listed(&["--order", "uptime", "--retired"]).await;
    assert_eq!(by_uptime.first().map(String::as_str), Some("04"));
    assert_eq!(listed(&["--order", "last-seen", "--limit", "1"]).await, ["04"]);

    let ran = run(&["nodes", "--address", &url, "--limit", "1"]).await;
    let table: Vec<&str> = ran.out.lines().collect();
    assert!(table[0].starts_with("ID ") && table[0].ends_with("NAME"), "{}", ran.out);
    assert!(table[1].starts_with(&id(1).to_string()) && table[1].ends_with("public   node-0001"));
    assert!(ran.err.contains("1 of 4 nodes\n"), "{}", ran.err);
    assert!(!ran.out.contains('\u{1b}'));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_answers_its_provider() {
    let there = Genuine::start().await;
    there.observe(&[id(1)], &[id(2)], names).await;
    let url = there.url();
    let ask = async |id: NodeId, more: &[&str]| {
        let id = id.to_string();
        run(&[&["node", &id, "--address", &url], more].concat()).await
    };
    let up = ask(id(1), &[]).await;
    assert_eq!(up.status, 0, "{}", up.err);
    for line in ["Last known  up\n", "Uptime      100.00 % of", "(1 round up, 0 down)\n"] {
        assert!(up.out.contains(line), "{line}: {}", up.out);
    }
    for title in ["Verdict ", "Last seen ", "Coverage ", "First seen ", "As of       round 2"] {
        assert!(up.out.contains(&format!("\n{title}")), "{title}: {}", up.out);
    }
    assert!(up.out.starts_with(&format!("{}  node-0001\n", id(1))), "{}", up.out);
    assert_eq!(ask(id(1), &["--exit-status"]).await.status, 0);
    assert_eq!(ask(id(2), &[]).await.status, 0);
    let down = ask(id(2), &["--exit-status"]).await;
    assert_eq!(down.status, 3);
    assert!(
        down.out.contains("Last known  down\n") && down.out.contains("0.00 % of"),
        "{}",
        down.out
    );
    let json = ask(id(2), &["--output", "json", "--exit-status"]).await;
    assert_eq!(json.status, 3);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["node"]["id"], id(2).to_string());
    assert_eq!(json["node"]["is_online"], false);
    assert_eq!(json["node"]["down_rounds"], 1);
    assert_eq!(json["freshness"]["method"], "fresh-v1");
    assert_eq!(json["freshness"]["round_period_s"], 1);
    let unknown = ask(id(9), &["--exit-status"]).await;
    assert_eq!((unknown.status, unknown.out.as_str()), (4, ""));
    assert!(unknown.err.contains(&format!("{} was never seen", id(9))), "{}", unknown.err);
    assert_eq!(ask(id(9), &[]).await.status, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_shown_as_it_was() {
    let there = Genuine::start().await;
    there.observe(&[id(1)], &[id(2)], names).await;
    let url = there.url();
    let up = run(&["rounds", "--address", &url, "--limit", "1000", "--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&up.out).unwrap();
    let rounds = json["rounds"].as_array().unwrap();
    let round = rounds.iter().find(|round| round["up"] == 1).unwrap();
    let start_s = round["start_unix_s"].as_u64().unwrap();
    let ask = async |start_s: u64, more: &[&str]| {
        let (id, round) = (id(2).to_string(), start_s.to_string());
        run(&[&["node", &id, &round, "--address", &url], more].concat()).await
    };
    let then = ask(start_s, &["--exit-status"]).await;
    assert_eq!(then.status, 3, "{}", then.err);
    assert!(then.out.contains("\nVerdict     down since round "), "{}", then.out);
    assert!(then.out.contains("\nAs of       the close of round "), "{}", then.out);
    let json = ask(start_s, &["--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["round_unix_s"], &json["node"]["down_rounds"]), (&start_s.into(), &1.into()));
    let before = ask(start_s - 1, &[]).await;
    assert_eq!((before.status, before.out.as_str()), (1, ""));
    assert!(before.err.contains("not confirmed, by the end of round"), "{}", before.err);
    let client = uptime_client::Client::connect(&url).await.unwrap();
    let answer = client.node_at(&id(2), start_s).await.unwrap();
    assert_eq!(answer.value.all.unwrap().window.unwrap().to_unix_s, start_s + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_rounds_are_shown() {
    let there = Genuine::start().await;
    there.observe(&[id(1)], &[id(2)], names).await;
    let url = there.url();
    let probes = run(&["probes", "--address", &url]).await;
    assert_eq!(probes.status, 0, "{}", probes.err);
    assert!(probes.out.contains("\nalpha  no "), "{}", probes.out);
    let json = run(&["--address", &url, "probes", "--output", "json"]).await.out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["probes"][0]["name"], "alpha");
    assert_eq!(json["probes"][0]["parts_accepted"], 2);

    let json = run(&["rounds", "--address", &url, "--limit", "1000", "--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let rounds = json["rounds"].as_array().unwrap();
    let round = rounds.iter().find(|round| round["up"] == 1).unwrap();
    assert_eq!((&round["down"], &round["probes_eligible"]), (&1.into(), &1.into()));
    assert_eq!(round["probes"][0]["offers"], 2);
    let starts = rounds.iter().map(|round| round["start_unix_s"].as_u64().unwrap());
    assert!(starts.is_sorted_by(|later, earlier| later > earlier));
    let csv = run(&["rounds", "--address", &url, "--limit", "1", "--output", "csv"]).await;
    assert_eq!(csv.out.lines().count(), 2, "{}", csv.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_csv_is_the_aggregators_byte_for_byte() {
    let there = Genuine::start().await;
    // More than one piece of 64 KiB.
    let up: Vec<NodeId> = (0..1_500).map(id).collect();
    let down: Vec<NodeId> = (1_500..1_520).map(id).collect();
    there.observe(&up, &down, names).await;
    let agreed = std::fs::read_to_string(there.csv()).unwrap();
    assert!(agreed.len() > 65_536);
    let url = there.url();
    let ran = run(&["csv", "--address", &url]).await;
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.out == agreed, "standard output is not the file");
    assert!(ran.err.starts_with("as of round 2"), "{}", ran.err);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("copy.csv");
    let ran = run(&["csv", "--out", file.to_str().unwrap(), "--address", &url]).await;
    assert_eq!((ran.status, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert!(std::fs::read_to_string(&file).unwrap() == agreed, "the copy is not the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pages_make_one_listing() {
    let there = Genuine::start().await;
    let up: Vec<NodeId> = (0..2_500).map(id).collect();
    there.observe(&up, &[], names).await;
    let ran = run(&["nodes", "--address", &there.url(), "--output", "csv"]).await;
    assert_eq!(ran.status, 0, "{}", ran.err);
    let listed: BTreeSet<&str> = ran.out.lines().skip(1).filter_map(|l| l.get(..42)).collect();
    assert_eq!((ran.out.lines().count(), listed.len()), (2_501, 2_500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_aggregator_answers_every_question() {
    let there = Genuine::start().await;
    there.observe(&[id(1)], &[id(2)], names).await;
    let (url, second) = (there.url(), id(2).to_string());
    for (arguments, words) in [
        (&["summary", "--output", "csv"][..], "nodes,online,"),
        (&["uptime", &second, "--window", "7d"], second.as_str()),
        (&["outages", &second], "FROM"),
        (&["explain", &second], "found it unreachable"),
        (&["watch", "--initial", "--count", "1"], "present"),
    ] {
        let ran = run(&[arguments, &["--address", &url]].concat()).await;
        assert_eq!(ran.status, 0, "{arguments:?}: {}", ran.err);
        assert!(ran.out.contains(words), "{arguments:?}: {}", ran.out);
    }
}
