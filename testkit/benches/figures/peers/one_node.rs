//! One node's uptime over a day, asked of VictoriaMetrics over the same observations: the peer of
//! `uptime_one_p50` and `uptime_one_p99`.
//!
//! Owns how much of the network the peer gets: the first tenth of the nodes, or loading would take
//! longer than all else. It is asked one question after the other with nothing else to do, as
//! `uptime_one_alone` is, and not five thousand a second, as the percentiles are.

use std::time::Duration;

use anyhow::{Context, ensure};
use uptime_proto::Round;

use super::samples::Feed;
use super::{DIFFER_MAX, Extent, Kind, Peer, peers};
use crate::loaded::Size;
use crate::report::{figure, percentile_s, progress, ratio};

/// How often it is asked, each time about another node.
pub(crate) const TIMES: usize = 500;
/// The share of nodes it gets, as a divisor.
const SHARE: usize = 10;

/// What ours took.
pub(crate) struct OneNode {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) alone_ms: f64,
}

/// Asks the peer what ours was asked, and prints both ways to compare.
pub(crate) fn compare_one_node(
    first: Round,
    size: &Size,
    ours: &OneNode,
    extent: Extent,
) -> anyhow::Result<()> {
    for kind in peers(extent)? {
        if matches!(kind, Kind::VictoriaMetrics) {
            ask(kind, kind.open()?.as_mut(), first, size, ours)?;
        }
    }
    Ok(())
}

fn ask(
    kind: Kind,
    peer: &mut dyn Peer,
    first: Round,
    size: &Size,
    ours: &OneNode,
) -> anyhow::Result<()> {
    let name = kind.name();
    let nodes = size.nodes / SHARE;
    let mut feed = Feed::new(size.network(), size.rounds, size.rounds)?
        .starting(first)
        .of_first(u32::try_from(nodes)?);
    let mut took = Duration::ZERO;
    while let Some(stretch) = feed.stretch()? {
        took += peer.take_in(&stretch)?;
    }
    progress(&format!("{name}: {} observations taken in, {took:.1?}", feed.observations));
    peer.settle(feed.observations, true)?;
    let known = feed.seen();
    let mut answers = Vec::new();
    for time in 0..=TIMES {
        let (id, share) = known.get(time * 7_919 % nodes).context("no such node")?;
        let (answer, took) = peer.uptimes(&feed.question(id))?;
        let said = answer.get(id).with_context(|| format!("{name} does not know {id}"))?;
        let right = answer.len() == 1 && (said - share).abs() <= DIFFER_MAX;
        ensure!(right, "{name}: {id} was up for {said} of the time, but really for {share}");
        // The first is to warm up.
        if time > 0 {
            answers.push(took);
        }
    }
    let empty = peer.round_trip()?;
    progress(&format!("{name}: {TIMES} questions; {empty:.2?} for an empty one"));
    for (which, percent, ours_ms) in
        [("p50", 50, ours.p50_ms), ("p99", 99, ours.p99_ms), ("alone", 50, ours.alone_ms)]
    {
        let theirs_ms = percentile_s(&answers, percent) * 1e3;
        let figure_name = format!("uptime_one_{which}{}", size.suffix);
        figure(&format!("{figure_name}_{name}"), theirs_ms, "ms");
        ratio(&figure_name, ours_ms / theirs_ms, name);
    }
    Ok(())
}
