//! The clock check: whether the ages of `seen` can be right.
//!
//! Owns the evidence of the relay's time: the nodes it heard of last. With impossible ages a
//! look-up does not count. Does not blame a clock for dead nodes: if all known nodes are old
//! and the relay heard of none since the last check, they are dead. Pure: times are passed in.

use std::time::Duration;

use tokio::time::Instant;
use uptime_proto::NodeId;

/// With fewer nodes the smallest age does not show a wrong clock.
pub(super) const NODES_MIN: usize = 10;
/// Possible ages of the youngest `seen` of ten living nodes: each is seen every 15 s.
const YOUNGEST_S: std::ops::RangeInclusive<i64> = -1..=15;
/// Nodes looked up only to check the clock, and stamps kept of one round.
pub(super) const SAMPLE_MAX: usize = 20;

/// What look-ups show of the relay's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ages {
    /// Nodes the relay knew.
    known: usize,
    youngest_s: Option<i64>,
    /// When the relay heard of whom, by its clock: the latest of all, at most [`SAMPLE_MAX`].
    latest: Vec<(i64, NodeId)>,
}

/// The latest stamps of an earlier round.
#[derive(Debug, Clone)]
pub(super) struct Earlier {
    at: Instant,
    latest: Vec<(i64, NodeId)>,
}

impl Ages {
    /// Adds a node: when the relay heard of it, by the relay's clock, and its age by ours.
    pub(super) fn note(&mut self, id: NodeId, seen_unix_s: i64, age_s: i64) {
        self.known += 1;
        self.youngest_s = Some(self.youngest_s.map_or(age_s, |youngest| youngest.min(age_s)));
        self.keep(seen_unix_s, id);
    }

    fn keep(&mut self, seen_unix_s: i64, id: NodeId) {
        let place = self.latest.partition_point(|(there, _)| *there >= seen_unix_s);
        self.latest.insert(place, (seen_unix_s, id));
        self.latest.truncate(SAMPLE_MAX);
    }

    /// Adds the ages of other look-ups.
    pub(super) fn join(&mut self, other: Self) {
        self.known += other.known;
        self.youngest_s = self.youngest_s.into_iter().chain(other.youngest_s).min();
        for (seen_unix_s, id) in other.latest {
            self.keep(seen_unix_s, id);
        }
    }

    fn youngest_of_enough_s(&self) -> Option<i64> {
        self.youngest_s.filter(|_| self.known >= NODES_MIN)
    }

    /// Nodes were seen in the future: the clock is wrong.
    #[must_use]
    pub fn in_future(&self) -> bool {
        self.youngest_of_enough_s().is_some_and(|age_s| age_s < *YOUNGEST_S.start())
    }

    /// No node was seen lately: all are dead, or the clocks disagree.
    #[must_use]
    pub fn all_old(&self) -> bool {
        self.youngest_of_enough_s().is_some_and(|age_s| age_s > *YOUNGEST_S.end())
    }

    /// The smallest age, as text.
    #[must_use]
    pub fn told(&self) -> String {
        let age_s = self.youngest_s.unwrap_or_default();
        format!("of {} nodes the one seen last was seen {age_s} s ago", self.known)
    }

    /// The stamps to keep for the next round. Stamps stay until the relay must have heard of each
    /// living node again, however short rounds are.
    pub(super) fn kept(
        self,
        earlier: Option<Earlier>,
        now: Instant,
        freshness: Duration,
    ) -> Option<Earlier> {
        let is_young = earlier.as_ref().is_some_and(|earlier| now - earlier.at < freshness);
        if is_young || self.latest.is_empty() {
            return earlier;
        }
        Some(Earlier { at: now, latest: self.latest })
    }
}

impl Earlier {
    /// Whose stamps these are.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.latest.iter().map(|(_, id)| *id).collect()
    }

    /// Whether the relay heard of none of these nodes again, by the ages found `now`, in a time in
    /// which it must have heard of each living one.
    pub(super) fn none_came_back(&self, found: &Ages, now: Instant, freshness: Duration) -> bool {
        now - self.at >= freshness
            && found.latest.len() >= NODES_MIN
            && found.latest.iter().all(|stamp| self.latest.contains(stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: i64 = 1_800_000_000;
    const FRESHNESS: Duration = Duration::from_secs(20);

    fn id(byte: u8) -> NodeId {
        NodeId::new([byte; 20])
    }

    /// Nodes by number and age.
    fn ages(nodes: impl IntoIterator<Item = (u8, i64)>) -> Ages {
        let mut ages = Ages::default();
        nodes.into_iter().for_each(|(byte, age_s)| ages.note(id(byte), NOW_S - age_s, age_s));
        ages
    }

    #[test]
    fn enough_nodes_of_which_one_is_young_tell_that_the_clocks_agree() {
        let is = |ages: &Ages| (ages.in_future(), ages.all_old());
        assert_eq!(is(&ages((0..9).map(|byte| (byte, 60)))), (false, false), "too few to tell");
        assert_eq!(is(&ages((0..10).map(|byte| (byte, 60)))), (false, true));
        assert_eq!(is(&ages((0..10).map(|byte| (byte, 15)))), (false, false));
        assert_eq!(is(&ages((0..10).map(|byte| (byte, -2)))), (true, false));
        let mut dead = ages((0..12).map(|byte| (byte, 60)));
        dead.join(ages([(20, 3)]));
        assert_eq!(is(&dead), (false, false), "one of the living is enough");
        assert_eq!(dead.told(), "of 13 nodes the one seen last was seen 3 s ago");
    }

    #[test]
    fn only_the_latest_stamps_are_kept() {
        let many = ages((0..200).map(|byte| (byte, i64::from(byte % 50))));
        assert_eq!(many.latest.len(), SAMPLE_MAX);
        assert!(many.latest.iter().all(|(seen_s, _)| *seen_s > NOW_S - 5), "{many:?}");
    }

    #[test]
    fn the_dead_are_not_heard_of_again() {
        let begun = Instant::now();
        let first = ages((0..12).map(|byte| (byte, 60)));
        let earlier = first.clone().kept(None, begun, FRESHNESS).expect("there are stamps");
        assert_eq!(earlier.nodes().len(), 12);
        let later = begun + FRESHNESS;
        assert!(earlier.none_came_back(&first, later, FRESHNESS));
        let soon = begun + FRESHNESS / 2;
        assert!(!earlier.none_came_back(&first, soon, FRESHNESS), "too early to tell");
        let one_came_back = ages((0..12).map(|byte| (byte, if byte == 7 { 30 } else { 60 })));
        assert!(!earlier.none_came_back(&one_came_back, later, FRESHNESS));
        let purged = ages((0..9).map(|byte| (byte, 60)));
        assert!(!earlier.none_came_back(&purged, later, FRESHNESS), "too few are left");
        // Stamps are replaced only when they have told what they can.
        let kept = ages([(9, 1)]).kept(Some(earlier.clone()), soon, FRESHNESS).expect("kept");
        assert_eq!(kept.at, begun);
        let kept = ages([(9, 1)]).kept(Some(earlier.clone()), later, FRESHNESS).expect("new");
        assert_eq!((kept.at, kept.latest.len()), (later, 1));
        let kept = Ages::default().kept(Some(earlier), later, FRESHNESS).expect("nothing newer");
        assert_eq!(kept.at, begun);
    }
}
