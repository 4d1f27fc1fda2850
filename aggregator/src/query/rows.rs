//! Rows of nodes: the one way in which gRPC and the pages order nodes and find ids by prefix.
//!
//! Owns the keys of every order. Refuses to know filters and pages, which differ between the two.

use uptime_accounting::snapshot::NodeView;
use uptime_accounting::verdict::Verdict;

use super::filter::{begins, lowest};
use crate::engine::Snapshot;

/// The sort key; equal rows go by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Id,
    Name,
    Subnet,
    Uptime,
    LastSeen,
}

/// What filters and orders need of a node; small, so that a million rows can be kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) number: u32,
    /// Below zero: no round was decided.
    pub(crate) uptime_percent: f64,
    last_seen_ms: i64,
    /// The place of its first subnet in the snapshot's list.
    pub(crate) subnet: u32,
    pub(crate) verdict: Verdict,
    pub(crate) retired: bool,
}

/// The rows of these views, in their order.
pub(crate) fn rows_of<'a>(
    snapshot: &'a Snapshot,
    views: impl Iterator<Item = NodeView<'a>>,
) -> Vec<Row> {
    let place = |name: &str| snapshot.subnets.iter().position(|known| known == name);
    // Most nodes are in the subnet of the one before.
    let mut before: (&str, u32) = ("", 0);
    let rows = views.map(|view| {
        let subnet = view.subnets.first().copied().unwrap_or("");
        if subnet != before.0 {
            let found = place(subnet).and_then(|place| u32::try_from(place).ok());
            before = (subnet, found.unwrap_or(0));
        }
        Row {
            number: view.number,
            uptime_percent: view.tally.uptime_percent().unwrap_or(-1.0),
            last_seen_ms: view.last_seen_ms.unwrap_or(i64::MIN),
            subnet: before.1,
            verdict: view.verdict,
            retired: view.retired,
        }
    });
    rows.collect()
}

/// Numbers in order. Rows come ascending by id and sorting is stable.
pub(crate) fn sorted(
    mut rows: Vec<Row>,
    snapshot: &Snapshot,
    order: Order,
    descending: bool,
) -> Vec<u32> {
    match order {
        Order::Id => {}
        Order::Uptime => rows.sort_by(|a, b| a.uptime_percent.total_cmp(&b.uptime_percent)),
        Order::LastSeen => rows.sort_by_key(|row| row.last_seen_ms),
        Order::Subnet => rows.sort_by_key(|row| snapshot.subnets.get(row.subnet as usize)),
        Order::Name => {
            let names = snapshot.details.names();
            rows.sort_by(|a, b| names.of(a.number).cmp(names.of(b.number)));
        }
    }
    if descending {
        rows.reverse();
    }
    rows.into_iter().map(|row| row.number).collect()
}

/// Numbers of the nodes whose id begins with a prefix, confirmed or not.
pub(crate) fn with_id_prefix<'a>(
    snapshot: &'a Snapshot,
    prefix: &'a str,
) -> impl Iterator<Item = u32> + 'a {
    // Ids are in order, so those with one prefix stand together.
    let first = lowest(prefix).map(|lowest| {
        let before = |number: &u32| snapshot.ids.id(*number).is_some_and(|id| id < lowest);
        snapshot.ids.by_id().partition_point(before)
    });
    let from_first = first.map(|first| snapshot.ids.by_id().iter().skip(first).copied());
    let fits = |number: &u32| snapshot.ids.id(*number).is_some_and(|id| begins(&id, prefix));
    from_first.into_iter().flatten().take_while(fits)
}
