//! A large network read page by page while rounds close and nodes come: all pages together are the
//! listing as it was when its first page was given out.

use std::sync::Arc;

use uptime_aggregator::engine::Snapshot;
use uptime_proto::v1;

use crate::service::Service;

const PAGE: usize = 1_000;

/// Every page of one listing. After every so many, some nodes come, and one round closes in which
/// only those that have come are seen.
async fn pages_of(
    service: &mut Service,
    order: v1::NodeOrder,
    descending: bool,
    mut nodes: u64,
    pages_between: usize,
) -> Vec<v1::Node> {
    let (mut all, mut token, mut pages) = (Vec::new(), String::new(), 0);
    let total = service.snapshot().confirmed.len();
    loop {
        let request = v1::ListNodesRequest {
            page_size: u32::try_from(PAGE).unwrap(),
            page_token: token,
            order: order as i32,
            descending,
            ..Default::default()
        };
        let page = service.query.list_nodes(request).await.unwrap().into_inner();
        assert_eq!(page.total, total, "as it was for the first page");
        // Whatever page it is, it costs its own rows: the order is found once, for the first (the
        // listings' own tests count that), and a page begins at the place that its token names.
        let whole = usize::try_from(total).unwrap();
        assert_eq!(page.nodes.len(), PAGE.min(whole - all.len()));
        all.extend(page.nodes);
        pages += 1;
        token = page.next_page_token;
        if token.is_empty() {
            assert_eq!(pages, whole.div_ceil(PAGE));
            return all;
        }
        if pages % pages_between == 0 {
            let at = service.rounds_closed();
            service.arrive(at, nodes..nodes + 10).await;
            nodes += 10;
        }
    }
}

/// Fails unless these are the rows of a snapshot in its own order.
fn check(all: &[v1::Node], then: &Snapshot, sorted: impl Fn(&mut Vec<(u64, String)>)) {
    let key = |node: &v1::Node| (node.all.as_ref().unwrap().up_rounds, node.id.clone());
    let mut wanted: Vec<(u64, String)> =
        then.nodes().map(|view| (view.tally.up_rounds, view.id.to_string())).collect();
    sorted(&mut wanted);
    let listed: Vec<(u64, String)> = all.iter().map(key).collect();
    assert!(listed == wanted, "every node once, in order, as it was then");
    for node in all {
        let window = node.all.as_ref().unwrap().window.unwrap();
        assert_eq!(window.to_unix_s, then.closed_end_s(), "{}", node.id);
        let view = then.node(&node.id.parse().unwrap()).unwrap();
        assert_eq!((node.is_online, node.first_seen_unix_s), (view.is_online, view.first_seen_s));
    }
}

async fn listed_while_rounds_close(nodes: u64, pages_between: usize) {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 1).await;
    service.arrive(0, 0..nodes).await;
    // Every third is up for another round.
    service.arrive(1, (0..nodes).step_by(3)).await;
    let then: Arc<Snapshot> = service.snapshot();
    let by_id = pages_of(&mut service, v1::NodeOrder::Id, false, nodes, pages_between).await;
    check(&by_id, &then, |_| ());
    let now = service.snapshot();
    let came = now.confirmed.len() - then.confirmed.len();
    assert!(came >= 90 && now.closed > then.closed, "{came} nodes have come meanwhile");
    let most = nodes + came;
    let by_uptime = pages_of(&mut service, v1::NodeOrder::Uptime, true, most, pages_between).await;
    check(&by_uptime, &now, |rows| {
        let percent = |id: &String| {
            let view = now.node(&id.parse().unwrap()).unwrap();
            view.tally.uptime_percent().unwrap_or(-1.0)
        };
        // Those that are equal come as they would ascending, turned around.
        let mut keyed: Vec<_> = rows.drain(..).map(|row| (percent(&row.1), row)).collect();
        keyed.sort_by(|one, other| one.0.total_cmp(&other.0));
        rows.extend(keyed.into_iter().rev().map(|(_, row)| row));
    });
}

#[tokio::test]
async fn twenty_thousand_nodes_are_listed_while_rounds_close() {
    listed_while_rounds_close(20_000, 2).await;
}

#[tokio::test]
async fn long_a_million_nodes_are_listed_while_rounds_close() {
    listed_while_rounds_close(1_000_000, 50).await;
}
