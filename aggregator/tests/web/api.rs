//! `/api/v1`: every route, held to its document and to what the query service says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::site::{END_S, HOSTILE, HOSTILE_PROBE, MIDNIGHT_S, NODES, PERIOD_S, Site, node};

/// Holds a value to a schema: types, required fields, and no field that the schema does not have.
fn hold(value: &Value, schema: &Value, document: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/components/schemas/");
        return hold(value, &document["components"]["schemas"][name], document, at);
    }
    match schema["type"].as_str() {
        Some("object") => {
            let fields = value.as_object().unwrap_or_else(|| panic!("{at} is no object"));
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(fields.contains_key(name.as_str().unwrap()), "{at} lacks {name}");
            }
            for (name, value) in fields {
                let schema = &schema["properties"][name];
                assert!(schema.is_object(), "{at}.{name} is not in the schema");
                hold(value, schema, document, &format!("{at}.{name}"));
            }
        }
        Some("array") => {
            for (place, value) in value.as_array().unwrap().iter().enumerate() {
                hold(value, &schema["items"], document, &format!("{at}[{place}]"));
            }
        }
        Some("string") => {
            let text = value.as_str().unwrap_or_else(|| panic!("{at} is no string: {value}"));
            if let Some(words) = schema["enum"].as_array() {
                assert!(words.contains(&json!(text)), "{at}: {text}");
            }
        }
        Some("integer") => {
            assert!(value.is_i64() || value.is_u64(), "{at} is no whole number: {value}");
            if let (Some(max), Some(value)) = (schema["maximum"].as_u64(), value.as_u64()) {
                assert!(value <= max, "{at}: {value}");
            }
        }
        Some("number") => assert!(value.is_number(), "{at} is no number: {value}"),
        Some("boolean") => assert!(value.is_boolean(), "{at} is no boolean: {value}"),
        other => panic!("{at} has a schema of type {other:?}"),
    }
}

#[tokio::test]
async fn every_route_answers_as_its_document_says() {
    let site = Site::open().await;
    let (_, document) = site.json("/api/v1/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 9);
    for (path, item) in paths {
        let path = path.replace("{id}", &node(1).to_string());
        let (status, body) = site.json(&path).await;
        let responses = &item["get"]["responses"];
        assert_eq!(status, 200, "{path}: {body}");
        let schema = &responses["200"]["content"]["application/json"]["schema"];
        hold(&body, schema, &document, &path);
        assert_eq!(
            body["freshness"]["last_closed_round_unix_s"],
            json!(END_S - PERIOD_S),
            "{path}"
        );
        // Whatever it does not know it refuses, and says what it knows.
        let (status, body) = site.json(&format!("{path}?nonsense=1")).await;
        let error = &responses["default"]["content"]["application/json"]["schema"];
        hold(&body, error, &document, &path);
        assert_eq!((status, &body["field"]), (400, &json!("nonsense")), "{path}");
        let known: BTreeSet<&str> = item["get"]["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let message = body["message"].as_str().unwrap();
        let named = message.split("known: ").nth(1).unwrap();
        let named: BTreeSet<&str> = named.split(", ").filter(|name| *name != "none").collect();
        assert_eq!(named, known, "{path}");
    }
}

#[tokio::test]
async fn nodes_are_filtered_ordered_and_turned_page_by_page() {
    let site = Site::open().await;
    let ids = |body: &Value| -> Vec<String> {
        let nodes = body["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["id"].as_str().unwrap().to_owned()).collect()
    };
    let (_, all) = site.json("/api/v1/nodes").await;
    assert_eq!((all["total"].as_u64(), ids(&all).len()), (Some(NODES), 12));
    assert_eq!(all["nodes"][4]["name"], HOSTILE, "what programs read is what it is");
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let path =
            format!("/api/v1/nodes?page_size=5&order=uptime&descending=true&page_token={token}");
        let (_, body) = site.json(&path).await;
        found.extend(ids(&body));
        token = body["next_page_token"].as_str().unwrap().to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found.len(), 12);
    // Least first when not turned round: nothing decided, half of the time, most of it.
    let (_, least) = site.json("/api/v1/nodes?order=uptime&page_size=3").await;
    assert_eq!(ids(&least), [node(2), node(1), node(3)].map(|id| id.to_string()));
    for (query, wanted) in [
        ("is_online=false", vec![1, 2]),
        ("name_contains=provider-1", vec![1, 10, 11]),
        ("name_contains=%3Cscript%3E", vec![4]),
        ("subnet=nowhere", vec![]),
        ("include_retired=true&page_size=1", vec![0]),
        ("page_size=1000000000&is_online=false", vec![1, 2]),
    ] {
        let (status, body) = site.json(&format!("/api/v1/nodes?{query}")).await;
        let wanted: Vec<String> = wanted.into_iter().map(|one| node(one).to_string()).collect();
        assert_eq!((status, ids(&body)), (200, wanted), "{query}");
    }
    let (_, probes) = site.json("/api/v1/probes").await;
    assert_eq!(probes["probes"][1]["name"], HOSTILE_PROBE);
    let gap = &probes["probes"][1]["gaps"][0];
    assert_eq!(gap["from_round_unix_s"], json!(MIDNIGHT_S - 3_600));
    assert_eq!(gap["to_round_unix_s"], json!(MIDNIGHT_S - 3_000));
    assert!(gap["reason"].as_str().unwrap().ends_with("SPOOL_FULL"), "{gap}");
    let (_, rounds) = site.json("/api/v1/rounds?page_size=2").await;
    assert_eq!(rounds["rounds"][0]["start_unix_s"], json!(END_S - PERIOD_S));
    assert_eq!(rounds["rounds"][0]["up"], json!(10));
}

#[tokio::test]
async fn uptime_outages_and_the_account_of_a_round() {
    let site = Site::open().await;
    let (down, was_down) = (node(1), node(3));
    for (query, up_s, down_s) in [
        ("", 300, 300),
        ("?window=all", 300, 300),
        ("?window=5min", 0, 300),
        ("?from=2030-01-01", 0, 300),
        ("?to=2030-01-01T00:00:00Z", 300, 0),
        ("?from=0001-01-01&to=9999-12-31", 300, 300),
        ("?from=2031-01-01", 0, 0),
    ] {
        let (status, body) = site.json(&format!("/api/v1/nodes/{down}/uptime{query}")).await;
        let figures = &body["nodes"][0]["figures"];
        let found = (&figures["up_s"], &figures["down_s"]);
        assert_eq!((status, found), (200, (&json!(up_s), &json!(down_s))), "{query}: {body}");
    }
    let path = format!("/api/v1/uptime?ids={down},{was_down},{}&window=7d", node(77));
    let (_, body) = site.json(&path).await;
    let nodes = body["nodes"].as_array().unwrap();
    assert_eq!(nodes[1]["figures"]["down_rounds"], json!(4));
    assert_eq!(nodes[2].as_object().unwrap().len(), 1, "a node that is not known has no figures");
    let (_, body) = site.json("/api/v1/uptime?page_size=5").await;
    assert_eq!(body["nodes"].as_array().unwrap().len(), 5);
    let (_, body) = site.json(&format!("/api/v1/nodes/{was_down}/outages")).await;
    let outage = &body["outages"][0];
    assert_eq!(outage["open"], json!(false));
    assert_eq!(
        outage["to_unix_s"].as_u64().unwrap() - outage["from_unix_s"].as_u64().unwrap(),
        120
    );
    let round = END_S - PERIOD_S;
    let (_, body) = site.json(&format!("/api/v1/nodes/{down}/explain?round={round}")).await;
    assert_eq!((&body["verdict"], &body["round_unix_s"]), (&json!("VERDICT_DOWN"), &json!(round)));
    assert_eq!(body["probes"].as_array().unwrap().len(), 3);
    let (_, body) = site.json("/api/v1/summary").await;
    assert_eq!((&body["nodes"], &body["online"]), (&json!(NODES), &json!(10)));
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_with_code_status_and_field() {
    let site = Site::open().await;
    let id = node(1);
    let many: Vec<String> = (0..251).map(|number| node(number).to_string()).collect();
    let many = many.join(",");
    for (path, status, code, field) in [
        ("/api/v1/nodes/0x12".to_owned(), 400, "INVALID_ARGUMENT", "id"),
        (format!("/api/v1/nodes/{}", node(77)), 404, "NOT_FOUND", ""),
        (format!("/api/v1/nodes/{}/uptime", node(77)), 404, "NOT_FOUND", ""),
        (format!("/api/v1/nodes/{}/outages", node(77)), 404, "NOT_FOUND", ""),
        (format!("/api/v1/nodes/{}/explain", node(77)), 404, "NOT_FOUND", ""),
        ("/api/v1/nodes?page_size=-1".to_owned(), 400, "INVALID_ARGUMENT", "page_size"),
        ("/api/v1/nodes?page_token=x".to_owned(), 400, "INVALID_ARGUMENT", "page_token"),
        ("/api/v1/nodes?order=age".to_owned(), 400, "INVALID_ARGUMENT", "order"),
        ("/api/v1/nodes?is_online=yes".to_owned(), 400, "INVALID_ARGUMENT", "is_online"),
        ("/api/v1/rounds?page_token=1-2".to_owned(), 400, "INVALID_ARGUMENT", "page_token"),
        (format!("/api/v1/uptime?ids={id},x"), 400, "INVALID_ARGUMENT", "ids"),
        (format!("/api/v1/uptime?ids={many}"), 400, "INVALID_ARGUMENT", "ids"),
        (format!("/api/v1/uptime?ids={many},{}", &many[..2_000]), 414, "INVALID_ARGUMENT", ""),
        (format!("/api/v1/nodes/{id}/uptime?window=0d"), 400, "INVALID_ARGUMENT", "window"),
        (
            format!("/api/v1/nodes/{id}/uptime?from=2030-01-02&to=2030-01-01"),
            400,
            "INVALID_ARGUMENT",
            "from",
        ),
        (
            format!("/api/v1/nodes/{id}/uptime?from=2030-01-01&to=2030-01-01"),
            400,
            "INVALID_ARGUMENT",
            "to",
        ),
        (format!("/api/v1/nodes/{id}/explain?round=0"), 400, "INVALID_ARGUMENT", "round"),
        (format!("/api/v1/nodes/{id}/explain?round=17"), 400, "INVALID_ARGUMENT", "round"),
        ("/api/v1/nowhere".to_owned(), 404, "NOT_FOUND", ""),
        ("/api/v2".to_owned(), 404, "NOT_FOUND", ""),
    ] {
        let (found, body) = site.json(&path).await;
        let path = path.get(..120).unwrap_or(&path);
        assert_eq!((found, &body["code"]), (status, &json!(code)), "{path}: {body}");
        assert_eq!(body["field"].as_str().unwrap_or(""), field, "{path}: {body}");
        assert!(body["message"].as_str().is_some_and(|text| text.len() > 10), "{path}: {body}");
    }
    let refused = site.client.delete(format!("{}/api/v1/nodes", site.address)).send().await;
    let refused = refused.unwrap();
    assert_eq!(refused.status(), 405);
    let body: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(body["code"], "UNIMPLEMENTED");
}
