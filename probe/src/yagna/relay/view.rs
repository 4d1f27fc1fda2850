//! What is known of the relay's nodes between two listings.
//!
//! Owns how news and listings come together. A listing is some seconds long, and news arrive
//! meanwhile; for each node the later of the two counts: its page of the listing, by the moment it
//! was asked for, or the news, by the moment they came. Pure: is told what time it is.

use std::collections::BTreeMap;

use uptime_proto::NodeId;

use super::listing::Listing;
use super::moment::{Listed, Moment, listed};

/// What the relay tells of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It has a session now.
    New,
    /// It has none any more.
    Lost,
}

/// The nodes, and what the listings under way need.
#[derive(Debug, Default)]
pub(super) struct View {
    nodes_max: usize,
    nodes: BTreeMap<NodeId, Moment>,
    /// The last news of each node since the oldest listing under way began.
    news: BTreeMap<NodeId, (Moment, News)>,
    listings_under_way: usize,
    /// When the listing began that this view last took over; `None` before the first.
    listed: Option<Moment>,
    /// Since when something may be missing here; a listing that began later mends it.
    stale: Option<Moment>,
}

impl View {
    pub(super) fn new(nodes_max: usize) -> Self {
        Self { nodes_max, ..Self::default() }
    }

    /// Takes news that came `now`. Answers `false` when there is no room for them: then something
    /// is missing from now on.
    #[must_use]
    pub(super) fn take_news(&mut self, id: NodeId, news: News, now: Moment) -> bool {
        let fits = |known: bool, count: usize| known || count < self.nodes_max;
        let mut kept = true;
        match news {
            News::Lost => drop(self.nodes.remove(&id)),
            News::New if fits(self.nodes.contains_key(&id), self.nodes.len()) => {
                self.nodes.insert(id, now);
            }
            News::New => kept = false,
        }
        if self.listings_under_way > 0 {
            if fits(self.news.contains_key(&id), self.news.len()) {
                self.news.insert(id, (now, news));
            } else {
                kept = false;
            }
        }
        kept
    }

    /// From here on news are kept for a listing; every call is followed by one of
    /// [`View::end_listing`].
    pub(super) fn begin_listing(&mut self) {
        self.listings_under_way += 1;
    }

    /// A listing is over, whatever came of it.
    pub(super) fn end_listing(&mut self) {
        self.listings_under_way = self.listings_under_way.saturating_sub(1);
        if self.listings_under_way == 0 {
            self.news = BTreeMap::new();
        }
    }

    /// Takes over a listing that is under way, and answers what it comes to with the news. Of two
    /// listings at the same time the one that began later stays.
    pub(super) fn take_listing(&mut self, mut listing: Listing, now: Moment) -> Vec<Listed> {
        let begun = listing.begun;
        let mut nodes = std::mem::take(&mut listing.nodes);
        for (&id, &(at, news)) in &self.news {
            if at < listing.asked_for(id) {
                continue;
            }
            match news {
                News::New => drop(nodes.insert(id, at)),
                News::Lost => drop(nodes.remove(&id)),
            }
        }
        let answer = tell(&nodes, now);
        if self.listed.is_none_or(|listed| listed <= begun) {
            self.nodes = nodes;
            self.listed = Some(begun);
            self.stale = self.stale.filter(|since| *since > begun);
        }
        answer
    }

    /// News have been missed, as far as is known up to `now`.
    pub(super) fn news_missed(&mut self, now: Moment) {
        self.stale = Some(now);
    }

    pub(super) fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// Everybody known; `None` before the first listing.
    pub(super) fn known(&self, now: Moment) -> Option<Vec<Listed>> {
        self.listed.map(|_| tell(&self.nodes, now))
    }
}

fn tell(nodes: &BTreeMap<NodeId, Moment>, now: Moment) -> Vec<Listed> {
    nodes.iter().map(|(id, seen)| listed(*id, *seen, now)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId::new([number; 20])
    }

    /// So many seconds after the beginning.
    fn at(seconds: u64) -> Moment {
        Moment(0).after(Duration::from_secs(seconds))
    }

    /// Nodes by number and when they were last seen.
    fn listing(nodes: &[(u8, u64)], begun: u64) -> Listing {
        Listing::of(nodes.iter().map(|&(number, seen)| (id(number), at(seen))), at(begun))
    }

    /// The same form, from what a view tells at second 100.
    fn told(listed: &[Listed]) -> Vec<(u8, u64)> {
        let tell =
            |listed: &Listed| (listed.node_id.as_bytes()[0], 100 - listed.seen_ago.as_secs());
        listed.iter().map(tell).collect()
    }

    fn known(view: &View) -> Option<Vec<(u8, u64)>> {
        view.known(at(100)).map(|listed| told(&listed))
    }

    fn news(view: &mut View, number: u8, news: News, seconds: u64) {
        assert!(view.take_news(id(number), news, at(seconds)));
    }

    #[test]
    fn news_between_listings() {
        let mut view = View::new(10);
        news(&mut view, 9, News::New, 1);
        assert_eq!(known(&view), None, "news alone are no listing");
        view.begin_listing();
        view.take_listing(listing(&[(1, 5), (2, 6)], 10), at(12));
        view.end_listing();
        assert_eq!(known(&view), Some(vec![(1, 5), (2, 6)]));
        news(&mut view, 2, News::Lost, 20);
        news(&mut view, 3, News::New, 21);
        news(&mut view, 1, News::New, 22);
        news(&mut view, 7, News::Lost, 23);
        assert_eq!(known(&view), Some(vec![(1, 22), (3, 21)]));
        assert_eq!(view.news.len(), 0, "nothing is kept for a listing that is not under way");
    }

    #[test]
    fn of_a_page_and_news_the_later_counts() {
        let mut view = View::new(10);
        view.begin_listing();
        for number in [1, 2] {
            news(&mut view, number, News::New, 9);
            news(&mut view, number + 2, News::Lost, 9);
        }
        for number in [5, 6] {
            news(&mut view, number, News::New, 10);
            news(&mut view, number + 2, News::Lost, 11);
        }
        // Asked for at 10, these pages know better than what came at 9.
        let merged = view.take_listing(listing(&[(1, 4), (3, 4), (5, 4), (7, 4)], 10), at(100));
        assert_eq!(told(&merged), [(1, 4), (3, 4), (5, 10), (6, 10)]);
        assert_eq!(known(&view), Some(told(&merged)));
        view.end_listing();
    }

    #[test]
    fn the_last_news_of_a_node_count() {
        let mut view = View::new(10);
        view.begin_listing();
        news(&mut view, 1, News::New, 11);
        news(&mut view, 1, News::Lost, 12);
        news(&mut view, 2, News::Lost, 11);
        news(&mut view, 2, News::New, 12);
        let merged = view.take_listing(listing(&[(1, 4), (2, 4)], 10), at(100));
        assert_eq!(told(&merged), [(2, 12)]);
        view.end_listing();
    }

    #[test]
    fn of_two_listings_the_one_that_began_later_stays() {
        let mut view = View::new(10);
        view.begin_listing();
        view.begin_listing();
        view.take_listing(listing(&[(1, 20)], 20), at(21));
        view.end_listing();
        news(&mut view, 2, News::New, 22);
        let old = view.take_listing(listing(&[(3, 10)], 10), at(100));
        view.end_listing();
        assert_eq!(told(&old), [(2, 22), (3, 10)], "its own answer has the news");
        assert_eq!(known(&view), Some(vec![(1, 20), (2, 22)]));
        assert_eq!((view.listings_under_way, view.news.len()), (0, 0));
    }

    #[test]
    fn what_was_missed_is_mended_by_a_listing_that_began_later() {
        let mut view = View::new(10);
        view.begin_listing();
        view.news_missed(at(15));
        view.take_listing(listing(&[], 14), at(16));
        assert!(view.is_stale());
        view.take_listing(listing(&[], 15), at(17));
        assert!(!view.is_stale());
    }

    #[test]
    fn memory_has_a_limit() {
        let mut view = View::new(2);
        view.begin_listing();
        news(&mut view, 1, News::New, 1);
        news(&mut view, 2, News::New, 1);
        assert!(!view.take_news(id(3), News::New, at(2)));
        assert!(!view.take_news(id(4), News::Lost, at(2)));
        news(&mut view, 1, News::Lost, 2);
        news(&mut view, 2, News::New, 2);
        assert_eq!((view.nodes.len(), view.news.len()), (1, 2));
    }
}
