//! The library's listings: batches, pages, and those that never end.

use futures_util::TryStreamExt;
use tonic::Status;
use uptime_client::v1::{self, NodeFilter};
use uptime_client::{Client, Error, NodeId, Options, Order};

use crate::contrary::{Contrary, Script, fresh, only};
use crate::id;

fn figures(up_rounds: u64) -> Option<v1::UptimeFigures> {
    Some(v1::UptimeFigures { up_rounds, ..v1::UptimeFigures::default() })
}

/// Answers every id that was asked for, two pages to a batch. From the second batch on the window
/// ends where the first one's did.
fn batches() -> Script {
    Script {
        uptime: Box::new(|call, request| {
            assert!(request.ids.len() <= 1_000, "{}", request.ids.len());
            let to_unix_s = request.window.unwrap().to_unix_s;
            assert_eq!(to_unix_s, if call < 2 { 0 } else { 1_769_862_900 });
            let half = request.ids.len().div_ceil(2);
            let (ids, next) = match request.page_token.as_str() {
                "" if half < request.ids.len() => (&request.ids[..half], "half"),
                "" => (&request.ids[..], ""),
                _ => (&request.ids[half..], ""),
            };
            let node = |id: &String| v1::NodeUptime {
                id: id.clone(),
                figures: figures(7),
                ..Default::default()
            };
            Ok(v1::GetUptimeResponse {
                nodes: ids.iter().map(node).collect(),
                next_page_token: next.into(),
                freshness: None,
            })
        }),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_nodes_is_asked_about_in_batches_of_one_window() {
    let there = Contrary::start(batches()).await;
    let client = Client::connect(&there.url()).await.unwrap();
    let ids: Vec<NodeId> = (0..2_001).map(id).collect();
    let pages = client.uptime(&ids, v1::Window::default());
    let pages: Vec<_> = pages.try_collect().await.unwrap();
    let sizes: Vec<usize> = pages.iter().map(|page| page.value.len()).collect();
    assert_eq!(sizes, [500, 500, 500, 500, 1]);
    let answered = pages.into_iter().flat_map(|page| page.value).map(|node| node.id);
    assert_eq!(answered.collect::<Vec<_>>(), ids.iter().map(NodeId::to_string).collect::<Vec<_>>());
    assert_eq!(there.calls(), 5);
    let none: Vec<_> = client.uptime(&[], v1::Window::default()).try_collect().await.unwrap();
    assert!(none.is_empty() && there.calls() == 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_nodes_nobody_asked_for_are_not_taken() {
    let script = Script {
        uptime: Box::new(|_, _| {
            let node = |number| v1::NodeUptime { id: id(number).to_string(), ..Default::default() };
            let nodes = (0..2).map(node).collect();
            Ok(v1::GetUptimeResponse { nodes, ..v1::GetUptimeResponse::default() })
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let client = Client::connect(&there.url()).await.unwrap();
    let failure = client.uptime(&[id(1)], v1::Window::default()).try_next().await.unwrap_err();
    assert!(matches!(failure, Error::Endless { limit: 1, what: "rows", .. }), "{failure:?}");
}

/// Pages without end, each naming another as the next.
fn endless() -> Script {
    let node = |number: usize| v1::Node {
        id: id(u32::try_from(number).unwrap()).to_string(),
        ..v1::Node::default()
    };
    Script {
        nodes: Box::new(move |call, request| {
            let nodes = (0..request.page_size as usize).map(|at| node(call * 1_000 + at));
            Ok(v1::ListNodesResponse {
                nodes: nodes.collect(),
                next_page_token: format!("{call}"),
                total: u64::MAX,
                freshness: None,
            })
        }),
        outages: Box::new(|call, _| {
            Ok(v1::ListOutagesResponse {
                outages: vec![v1::Outage::default()],
                next_page_token: format!("{call}"),
                freshness: None,
            })
        }),
        csv: Box::new(|_, _| {
            let data: tonic::codegen::Bytes = vec![b'x'; 60_000].into();
            let piece = v1::ExportCsvResponse { data, freshness: Some(fresh()) };
            let pieces = std::iter::repeat_with(move || Ok(piece.clone()));
            Ok(Box::pin(tokio_stream::iter(pieces)))
        }),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_without_end_is_ended() {
    let there = Contrary::start(endless()).await;
    let options = Options::new(there.url()).rows_max(5_500).csv_bytes_max(1_000_000);
    let client = options.connect().await.unwrap();
    let pages = client.nodes(NodeFilter::default(), Order::default(), 0);
    let mut taken = 0;
    let ended = pages.try_for_each(|page| {
        taken += page.value.nodes.len();
        std::future::ready(Ok(()))
    });
    let failure = ended.await.unwrap_err();
    assert!(matches!(failure, Error::Endless { call: "ListNodes", limit: 5_500, .. }));
    assert_eq!((taken, there.calls()), (5_000, 6));
    let outages: Result<Vec<_>, Error> =
        client.outages(&id(1), v1::Window::default()).try_collect().await;
    assert!(matches!(outages, Err(Error::Endless { call: "ListOutages", .. })), "{outages:?}");
    let csv = client.csv().await.unwrap().value;
    let read = csv.try_fold(0, |sum, piece| std::future::ready(Ok(sum + piece.len()))).await;
    let words = "sent more than 1000000 bytes for ExportCsv: stopped";
    assert!(read.unwrap_err().to_string().contains(words));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_lead_nowhere_are_not_followed() {
    let asked = async |rows: bool, token: &'static str| {
        let script = Script {
            outages: Box::new(move |_, _| {
                let outages = if rows { vec![v1::Outage::default()] } else { Vec::new() };
                Ok(v1::ListOutagesResponse {
                    outages,
                    next_page_token: token.into(),
                    freshness: None,
                })
            }),
            ..Script::default()
        };
        let there = Contrary::start(script).await;
        let client = Client::connect(&there.url()).await.unwrap();
        let pages: Result<Vec<_>, Error> =
            client.outages(&id(1), v1::Window::default()).try_collect().await;
        (pages.map(|pages| pages.len()), there.calls())
    };
    assert_eq!(asked(true, "").await, (Ok(1), 1));
    let (pages, calls) = asked(false, "more").await;
    assert!(matches!(pages, Err(Error::Malformed { .. })) && calls == 1, "{pages:?}");
    let (pages, calls) = asked(true, "itself").await;
    assert!(matches!(pages, Err(Error::Malformed { .. })) && calls == 2, "{pages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_say_how_fresh_it_is_is_none() {
    let script = Script {
        freshness: None,
        summary: Box::new(|_, _| Ok(v1::GetSummaryResponse::default())),
        explain: Box::new(|_, _| Ok(v1::ExplainResponse::default())),
        csv: Box::new(|_, _| Ok(only(vec![Ok(v1::ExportCsvResponse::default())]))),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let client = Client::connect(&there.url()).await.unwrap();
    assert!(matches!(client.summary().await, Err(Error::Malformed { .. })));
    assert!(matches!(client.explain(&id(1), None).await, Err(Error::Malformed { .. })));
    assert!(matches!(client.csv().await, Err(Error::Malformed { .. })));
    assert!(matches!(client.rounds(1).await, Err(Error::Malformed { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_aggregator_says_of_a_wrong_question_is_passed_on() {
    let script = Script {
        explain: Box::new(|_, request| {
            assert_eq!(request.round_unix_s, 30);
            Err(Status::out_of_range("round_unix_s: that round is no longer kept"))
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let client = Client::connect(&there.url()).await.unwrap();
    let failure = client.explain(&id(1), Some(30)).await.unwrap_err();
    let detail = "round_unix_s: that round is no longer kept".to_owned();
    assert_eq!(failure, Error::Refused { detail, faults: Vec::new() });
    assert_eq!(there.calls(), 1);
}
