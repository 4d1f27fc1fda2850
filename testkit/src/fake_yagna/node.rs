//! One node of the fake network: a daemon somewhere, provider or requestor, with its relay
//! sessions and its offers.
//!
//! Owns what the relay knows of it and when that ends; `pings` has the arithmetic of "seen".
//! Everything is a function of the time passed in; nothing here reads a clock or waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::clock::UnixTime;
use super::link::Link;
use super::offer::Offer;
use super::pings::Pings;
use super::timing::NetTiming;

/// After a graceful stop the relay lists the node as `[null]` for this long [98: 0.5–0.75 s].
const LEAVING_NULL: Duration = Duration::from_millis(700);
/// … and as `[]` until this long after the stop [98: 2.8–4.3 s], then not at all.
const LEAVING_EMPTY: Duration = Duration::from_millis(3500);

/// Whether a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Answers, and pings the relay.
    Alive,
    /// Killed without a word at that time.
    Dead(UnixTime),
    /// Stopped in its tracks at that time; may thaw.
    Frozen(UnixTime),
}

/// A session of a node with the relay.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) port: u16,
    pub(crate) slot: u32,
    pub(crate) since: UnixTime,
    /// When its node stopped pinging; `None` while it does.
    pub(crate) silent_since: Option<UnixTime>,
    /// When the relay drops it, if it learns of the end before it would forget the session.
    pub(crate) dropped_at: Option<UnixTime>,
    /// Until then channels to its node are closed though the node lives.
    pub(crate) closed_until: UnixTime,
}

impl Session {
    /// The last ping: the node's newest that it was there for.
    pub(crate) fn last_seen(&self, pings: &Pings, now: UnixTime, timing: &NetTiming) -> UnixTime {
        let until = self.silent_since.map_or(now, |end| end.min(now));
        pings.last(until, timing).max(self.since)
    }

    /// When the relay will drop or forget it, if its node stays silent.
    pub(crate) fn purged_at(&self, pings: &Pings, timing: &NetTiming) -> Option<UnixTime> {
        let end = self.silent_since?;
        let purged = self.last_seen(pings, end, timing) + timing.purge_after;
        Some(self.dropped_at.map_or(purged, |at| at.min(purged)))
    }
}

/// An offer and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) offer: Arc<Offer>,
    pub(crate) withdrawn: Option<UnixTime>,
}

/// A daemon somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The first is the default one, and the one that publishes offers.
    pub(crate) identities: Vec<String>,
    pub(crate) name: String,
    pub(crate) subnet: String,
    /// Empty for a requestor.
    pub(crate) runtimes: Vec<String>,
    pub(crate) firewalled: bool,
    pub(crate) life: Life,
    pub(crate) pings: Pings,
    pub(crate) sessions: Vec<Session>,
    pub(crate) left: Option<UnixTime>,
    pub(crate) listings: Vec<Listing>,
    pub(crate) withdrawn: bool,
    /// Counts restarts and returns: a peer's connection to an earlier life is stale.
    pub(crate) incarnation: u32,
    /// How long it was away before this life.
    pub(crate) outage: Duration,
    pub(crate) link: Link,
    /// Since when its link has been down, if it is.
    pub(crate) link_down: Option<UnixTime>,
    /// How often its link has come back.
    pub(crate) link_returns: u32,
    /// Identities made since it started: it is found by them, and does not answer to them (a3).
    pub(crate) made_since: BTreeSet<String>,
}

/// What the relay's listing says of an identity that has no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// `{id: [null]}`.
    Null,
    /// `{id: []}`.
    Empty,
    /// `{}`.
    Absent,
}

impl Node {
    /// Sessions the relay knows at `now`, oldest first.
    pub(crate) fn known(
        &self,
        now: UnixTime,
        timing: &NetTiming,
    ) -> impl Iterator<Item = &Session> {
        let (pings, timing) = (self.pings, *timing);
        self.sessions.iter().filter(move |session| {
            let purged = session.purged_at(&pings, &timing).is_some_and(|at| at <= now);
            session.since <= now && !purged
        })
    }

    pub(crate) fn nothing(&self, now: UnixTime) -> Nothing {
        match self.left.map(|left| now.saturating_sub(left)) {
            Some(gone) if gone < LEAVING_NULL => Nothing::Null,
            Some(gone) if gone < LEAVING_EMPTY => Nothing::Empty,
            _ => Nothing::Absent,
        }
    }

    /// Its last ping was at `at`. More than an interval ago: it has put the next one off by
    /// another interval.
    pub(crate) fn set_last_ping(&mut self, at: UnixTime, now: UnixTime, timing: &NetTiming) {
        let interval = timing.ping_interval;
        self.pings.set(at, timing);
        if now.saturating_sub(at) > interval {
            self.pings.hold(at);
            self.pings.let_go(now + interval, timing);
        }
        // A younger session would hide it.
        for session in &mut self.sessions {
            session.since = session.since.min(at);
        }
    }

    /// The node falls silent.
    pub(crate) fn silence(&mut self, life: Life, since: UnixTime) {
        self.life = life;
        self.end_pings(since);
    }

    /// Whoever falls silent before it has registered does not register.
    pub(crate) fn forget_registering(&mut self, now: UnixTime) {
        self.sessions.retain(|session| session.since <= now);
    }

    /// The relay hears no more of it.
    pub(crate) fn end_pings(&mut self, since: UnixTime) {
        for session in &mut self.sessions {
            session.silent_since.get_or_insert(since);
        }
    }

    /// Since when it has been silent, if it is.
    pub(crate) fn silent_since(&self) -> Option<UnixTime> {
        match self.life {
            Life::Alive => self.link_down,
            Life::Dead(since) | Life::Frozen(since) => Some(since),
        }
    }

    /// Whether a packet reaches it and is answered.
    pub(crate) fn is_there(&self) -> bool {
        self.silent_since().is_none()
    }

    /// Offers that have neither ended nor been withdrawn: what the node itself would answer.
    pub(crate) fn standing(&self, now: UnixTime) -> impl Iterator<Item = &Arc<Offer>> {
        self.listings
            .iter()
            .filter(move |listing| listing.withdrawn.is_none() && listing.offer.expires > now)
            .map(|listing| &listing.offer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(since: u64, silent_since: Option<u64>) -> Session {
        Session {
            id: String::new(),
            port: 0,
            slot: 0,
            since: Duration::from_secs(since),
            silent_since: silent_since.map(Duration::from_secs),
            dropped_at: None,
            closed_until: Duration::ZERO,
        }
    }

    #[test]
    fn seen_stands_on_the_grid() {
        let timing = NetTiming::default();
        let seen = |session: &Session, phase, now| {
            session.last_seen(&Pings::new(phase, 0), Duration::from_secs(now), &timing).as_secs()
        };
        let living = session(0, None);
        assert_eq!(seen(&living, 0.0, 1000), 990);
        assert_eq!(seen(&living, 0.2, 1000), 993);
        assert_eq!(seen(&living, 0.2, 1007), 993);
        assert_eq!(seen(&living, 0.2, 1008), 1008);
        // Before its first grid point a session was seen when it began.
        assert_eq!(seen(&session(995, None), 0.0, 1000), 995);
        // The dead stay where they were.
        assert_eq!(seen(&session(0, Some(1000)), 0.0, 5000), 990);
    }

    #[test]
    fn purge_counts_from_the_last_ping() {
        let timing = NetTiming::default();
        let dead = session(0, Some(1000));
        assert_eq!(dead.purged_at(&Pings::new(0.0, 0), &timing), Some(Duration::from_secs(1590)));
        assert_eq!(session(0, None).purged_at(&Pings::new(0.0, 0), &timing), None);
        let dropped = Session { dropped_at: Some(Duration::from_secs(1020)), ..dead };
        assert_eq!(
            dropped.purged_at(&Pings::new(0.0, 0), &timing),
            Some(Duration::from_secs(1020))
        );
    }
}
