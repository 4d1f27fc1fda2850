//! What is said, and done, when there is no answer.

use std::time::Duration;

use futures_util::TryStreamExt;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use uptime_client::v1::{self, NodeFilter};
use uptime_client::{Client, Error, Options, Order};

use crate::contrary::{Contrary, Script, fresh, only};
use crate::genuine::Genuine;
use crate::help::run;
use crate::id;
use crate::wire::Wire;

fn node(number: u32) -> v1::Node {
    v1::Node { id: id(number).to_string(), ..v1::Node::default() }
}

/// Answers after so many refusals with a code.
fn after(refusals: usize, code: Code) -> Script {
    Script {
        node: Box::new(move |call, _| match call {
            call if call < refusals => Err(Status::new(code, "not now")),
            _ => Ok(node(1)),
        }),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_named_with_what_to_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let ran = run(&["nodes", "--address", &url]).await;
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    for words in [&*url, "refused", "Is it running?", "--address", "UPTIME_ADDRESS"] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
    assert!(matches!(Client::connect(&url).await, Err(Error::Unreachable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_port_is_recognised() {
    let there = Genuine::start().await;
    let ran = run(&["probes", "--address", &format!("http://{}", there.http)]).await;
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("By default gRPC is served on 7640"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_unavailable_is_asked_again_and_not_for_ever() {
    let asked = async |script| {
        let there = Contrary::start(script).await;
        let client = Client::connect(&there.url()).await.unwrap();
        let answer = client.node(&id(1)).await.map(|answer| answer.value.id);
        (answer, there.calls())
    };
    assert_eq!(asked(after(2, Code::Unavailable)).await, (Ok(id(1).to_string()), 3));
    let (answer, calls) = asked(after(9, Code::Unavailable)).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    assert_eq!(calls, 3);
    let (answer, calls) = asked(after(1, Code::Internal)).await;
    assert!(matches!(answer, Err(Error::Failed { call: "GetNode", .. })), "{answer:?}");
    assert_eq!(calls, 1);
    let (answer, calls) = asked(Script::default()).await;
    assert!(matches!(answer, Err(Error::NotServed { call: "GetNode", .. })), "{answer:?}");
    assert_eq!(calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_aggregator_is_given_up() {
    let there = Contrary::start(Script::default()).await;
    let wire = Wire::to(there.address).await;
    // The connection is accepted all the same.
    wire.freeze();
    let options = Options::new(wire.url()).answer_within(Duration::from_secs(1));
    let client = options.connect().await.unwrap();
    let failure = client.rounds(1).await.unwrap_err();
    assert!(matches!(failure, Error::TimedOut { call: "ListRounds", .. }), "{failure:?}");
    let words = format!("{} did not answer ListRounds within 1s", wire.url());
    assert_eq!(failure.to_string(), words);
    assert_eq!(there.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_read_a_byte_is_given_up_too() {
    // Accepted by the system, taken by nobody.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ran = run(&["probes", "--address", &url, "--timeout", "1s"]).await;
    assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{}", ran.err);
    assert!(ran.err.contains("did not answer ListProbes within 1s"), "{}", ran.err);
    assert!(ran.err.contains("--timeout"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_made_anew_and_the_question_put_again() {
    let there = Contrary::start(after(0, Code::Ok)).await;
    let wire = Wire::to(there.address).await;
    let client = Client::connect(&wire.url()).await.unwrap();
    assert!(client.node(&id(1)).await.is_ok());
    for _ in 0..3 {
        wire.cut();
        let answer = client.node(&id(1)).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_went_away_is_begun_anew_by_the_command() {
    let page = |nodes, token: &str| v1::ListNodesResponse {
        nodes,
        next_page_token: token.into(),
        total: 2,
        freshness: None,
    };
    let script = Script {
        nodes: Box::new(move |call, request| match (call, request.page_token.as_str()) {
            (0 | 2, "") => Ok(page(vec![node(1)], "more")),
            (1, "more") => Err(Status::aborted("too old")),
            (3, "more") => Ok(page(vec![node(2)], "")),
            other => panic!("unexpected {other:?}"),
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let ran = run(&["nodes", "--output", "csv", "--address", &there.url()]).await;
    assert_eq!(ran.status, 0, "{}", ran.err);
    let listed: Vec<&str> = ran.out.lines().skip(1).map(|line| &line[..42]).collect();
    assert_eq!(listed, [id(1).to_string(), id(2).to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_too_large_for_a_message_are_asked_for_in_halves() {
    const NODES: u32 = 600;
    let script = Script {
        nodes: Box::new(|_, request| {
            let from: u32 = request.page_token.parse().unwrap_or(0);
            let to = (from + request.page_size).min(NODES);
            let long = |number| v1::Node { name: "n".repeat(4_096), ..node(number) };
            Ok(v1::ListNodesResponse {
                nodes: (from..to).map(long).collect(),
                next_page_token: if to < NODES { to.to_string() } else { String::new() },
                total: NODES.into(),
                freshness: None,
            })
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let client = Client::connect(&there.url()).await.unwrap();
    let pages = client.nodes(NodeFilter::default(), Order::default(), 0);
    let pages: Vec<_> = pages.try_collect().await.unwrap();
    let ids: Vec<String> =
        pages.into_iter().flat_map(|page| page.value.nodes).map(|node| node.id).collect();
    assert_eq!(ids, (0..NODES).map(|number| id(number).to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_that_breaks_off_replaces_nothing() {
    let piece = |data: &'static str, freshness| v1::ExportCsvResponse {
        data: data.as_bytes().into(),
        freshness,
    };
    let script = Script {
        csv: Box::new(move |_, _| {
            Ok(only(vec![
                Ok(piece("issuer_id\n", Some(fresh()))),
                Ok(piece("0x", None)),
                Err(Status::internal("\u{1b}[31mdisk")),
            ]))
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nodes.csv");
    std::fs::write(&path, "before").unwrap();
    let file = path.to_str().unwrap();
    let ran = run(&["csv", "--out", file, "--address", &there.url()]).await;
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("failed to answer ExportCsv: \\u{1b}[31mdisk\n"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(run(&["csv", "--address", &there.url()]).await.status, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_out_of_date_comes_with_a_warning() {
    let stale = v1::Freshness { answered_at_unix_ms: 1_769_862_991_000, ..fresh() };
    let script = Script { freshness: Some(stale), ..after(0, Code::Ok) };
    let there = Contrary::start(script).await;
    let ran = run(&["node", &id(1).to_string(), "--address", &there.url()]).await;
    assert_eq!(ran.status, 0);
    assert!(ran.err.starts_with("warning: no round has closed for 1 min 31 s"), "{}", ran.err);
    let there = Contrary::start(after(0, Code::Ok)).await;
    let ran = run(&["node", &id(1).to_string(), "--address", &there.url()]).await;
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
}

/// What stands only in the details of a refusal reaches programs and people: which field, why, and
/// which argument it comes from.
#[tokio::test(flavor = "multi_thread")]
async fn the_details_of_a_refusal_are_told() {
    let script = Script {
        outages: Box::new(|_, _| {
            let mut details = ErrorDetails::with_bad_request_violation("window.to_unix_s", "late");
            details.add_bad_request_violation("id", "not\u{1b}[2Jone");
            let code = Code::InvalidArgument;
            Err(Status::with_error_details(code, "the question cannot be", details))
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let client = Client::connect(&there.url()).await.unwrap();
    let failure = client.outages(&id(1), v1::Window::default()).try_next().await.unwrap_err();
    let Error::Refused { detail, faults } = failure else { panic!("{failure}") };
    assert_eq!(detail, "the question cannot be");
    let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!((fields, faults[0].why.as_str()), (vec!["window.to_unix_s", "id"], "late"));
    let ran = run(&["outages", &id(1).to_string(), "--address", &there.url()]).await;
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    for words in [
        "uptimectl: the aggregator refused the request: the question cannot be\n",
        "uptimectl: window.to_unix_s, which comes from --to: late\n",
        "uptimectl: id, which comes from ID: not\\u{1b}[2Jone\n",
    ] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
}
