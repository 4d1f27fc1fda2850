//! The library against a real aggregator.

use futures_util::TryStreamExt;
use uptime_client::v1::NodeFilter;
use uptime_client::{Client, Error, NodeId, Order};

use crate::genuine::Genuine;
use crate::id;

fn nameless(_: &NodeId) -> String {
    String::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cover_all_nodes_once_and_are_of_one_round() {
    let there = Genuine::start().await;
    let up: Vec<NodeId> = (0..2_500).map(id).collect();
    let client = there.observe(&up, &[], nameless).await;
    let pages = client.nodes(NodeFilter::default(), Order::default(), 0);
    let pages: Vec<_> = pages.try_collect().await.unwrap();
    let sizes: Vec<usize> = pages.iter().map(|page| page.value.nodes.len()).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
    assert!(pages.iter().all(|page| page.value.total == 2_500));
    let rounds = pages.iter().map(|page| page.freshness.last_closed_round_unix_s);
    assert!(rounds.clone().all(|round| Some(round) == rounds.clone().next()));
    let ids: Vec<String> =
        pages.into_iter().flat_map(|page| page.value.nodes).map(|node| node.id).collect();
    assert_eq!(ids, up.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_ends_a_listing_but_not_the_client() {
    let mut there = Genuine::start().await;
    let up = [id(1), id(2), id(3)];
    let client = there.observe(&up, &[], nameless).await;
    let mut pages = client.nodes(NodeFilter::default(), Order::default(), 2);
    assert_eq!(pages.try_next().await.unwrap().unwrap().value.nodes.len(), 2);
    there.restart().await;
    assert_eq!(pages.try_next().await.unwrap_err(), Error::ListingGone);
    assert_eq!(client.node(&id(1)).await.unwrap().value.id, id(1).to_string());
    let anew = client.nodes(NodeFilter::default(), Order::default(), 2);
    let anew: Vec<_> = anew.try_collect().await.unwrap();
    assert_eq!(anew.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_come_newest_first_and_no_more_than_asked() {
    let there = Genuine::start().await;
    let client = there.observe(&[id(1)], &[], nameless).await;
    assert_eq!(client.rounds(0).await.unwrap().value, []);
    let one = client.rounds(1).await.unwrap();
    assert_eq!(one.value.len(), 1);
    assert_eq!(one.value[0].start_unix_s, one.freshness.last_closed_round_unix_s);
    assert_eq!(client.probes().await.unwrap().value[0].name, "alpha");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_node_is_not_found() {
    let there = Genuine::start().await;
    let client = Client::connect(&there.url()).await.unwrap();
    assert!(matches!(client.node(&id(7)).await, Err(Error::NotFound(_))));
}
