//! How nodes of the fake network die, freeze, stop and come back.
//!
//! Owns the ways to go away and how the relay reacts to each: it drops a session at once, after
//! half a minute, or after ten minutes. Refuses to know what a daemon then answers.

use std::time::Duration;

use super::chance::{between, draw};
use super::clock::UnixTime;
use super::node::Life;
use super::state::State;
use super::world::World;

/// An outage of a link is long if it takes longer than this [b0: 60 s, b6: 20 s].
const SHORT_OUTAGE: Duration = Duration::from_secs(40);
/// How old `seen` of an older session is if it reappears, and for how long it does (b6).
const OLDER_SEEN_AGE: Duration = Duration::from_secs(531);
const OLDER_SHOWN_FOR: Duration = Duration::from_secs(2);

impl World {
    /// The node's host is gone without notice: the relay keeps its session, and `seen` grows until
    /// the relay forgets it. Its offers stay in the daemons that know them.
    pub fn kill(&self, id: &str) {
        self.kill_ago(id, Duration::ZERO);
    }

    /// As [`World::kill`], but the death happened `ago`.
    pub fn kill_ago(&self, id: &str, ago: Duration) {
        self.with(|state, now| state.end(id, Life::Dead(now.saturating_sub(ago)), now));
    }

    /// The node's process dies and its host stays: the host tells the relay (ICMP port
    /// unreachable), which drops the session after a time drawn from the seed. Until then the node
    /// looks like one whose host is gone.
    pub fn kill_process(&self, id: &str) {
        self.kill_process_ago(id, Duration::ZERO);
    }

    /// As [`World::kill_process`], but the death happened `ago`.
    pub fn kill_process_ago(&self, id: &str, ago: Duration) {
        self.with(|state, now| {
            let since = now.saturating_sub(ago);
            state.end(id, Life::Dead(since), now);
            let dropped_at = since + state.drop_after(id);
            for session in &mut state.node(id).sessions {
                session.dropped_at = Some(dropped_at);
            }
        });
    }

    /// Freezes the node: silent like a dead one, but [`World::revive`] continues it.
    pub fn freeze(&self, id: &str) {
        self.freeze_ago(id, Duration::ZERO);
    }

    /// As [`World::freeze`], but it froze `ago`.
    pub fn freeze_ago(&self, id: &str, ago: Duration) {
        self.with(|state, now| state.end(id, Life::Frozen(now.saturating_sub(ago)), now));
    }

    /// Starts a dead node again, on the same port: it publishes new offers beside the old ones. A
    /// frozen one continues.
    pub fn revive(&self, id: &str) {
        self.with(|state, now| state.revive(id, now, false));
    }

    /// As [`World::revive`], but on another port: the relay shows two sessions until it purges
    /// the old one.
    pub fn revive_elsewhere(&self, id: &str) {
        self.with(|state, now| state.revive(id, now, true));
    }

    /// Stops the node gracefully, without withdrawing its offers: its session ends at once, and
    /// the relay's listing shows its forms of an empty answer one after the other.
    pub fn stop(&self, id: &str) {
        self.with(|state, now| {
            let node = state.node(id);
            node.silence(Life::Dead(now), now);
            node.sessions.clear();
            node.left = Some(now);
        });
    }

    /// The relay forgets the node now, as after ten silent minutes; a living one dies first.
    pub fn purge(&self, id: &str) {
        self.with(|state, now| {
            let node = state.node(id);
            if node.life == Life::Alive {
                node.silence(Life::Dead(now), now);
            }
            node.sessions.clear();
        });
    }

    /// The node's link fails: from outside its host is gone, until [`World::link_up`].
    pub fn link_down(&self, id: &str) {
        self.with(|state, now| {
            let node = state.node(id);
            node.link_down.get_or_insert(now);
            node.forget_registering(now);
            node.end_pings(now);
        });
    }

    /// The link is back: the relay drops the node's old session. It knows the node again when the
    /// node has registered again, after a time drawn from the seed
    /// ([`NetTiming::returns_after_short`]), even after a short outage.
    ///
    /// [`NetTiming::returns_after_short`]: super::NetTiming::returns_after_short
    pub fn link_up(&self, id: &str) {
        self.with(|state, now| {
            let node = state.node(id);
            let Some(since) = node.link_down.take() else { return };
            if node.life == Life::Alive {
                state.return_to_relay(id, since, now);
            }
        });
    }
}

impl State {
    /// The node is dead or frozen since a moment that may lie before it was added.
    fn end(&mut self, id: &str, life: Life, now: UnixTime) {
        let (Life::Dead(since) | Life::Frozen(since)) = life else { return };
        let began = since.saturating_sub(self.timing.ping_interval);
        let node = self.node(id);
        node.forget_registering(now);
        // It had lived a while before.
        for session in &mut node.sessions {
            session.since = session.since.min(began);
            session.closed_until = session.closed_until.min(began);
        }
        node.silence(life, since);
    }

    /// How long after the death of this process the relay learns of it.
    fn drop_after(&mut self, id: &str) -> Duration {
        let (seed, timing) = (self.seed, self.timing);
        let life = self.node(id).incarnation;
        if draw(seed, ("dropped late", id, life)) < timing.late_drop_share {
            return timing.late_drop_after;
        }
        between(timing.drop_after, draw(seed, ("dropped", id, life)))
    }
    /// A living node's link is back after an outage.
    fn return_to_relay(&mut self, id: &str, gone_since: UnixTime, now: UnixTime) {
        let (seed, timing, at) = (self.seed, self.timing, self.index(id));
        let outage = now.saturating_sub(gone_since);
        let node = &mut self.nodes[at];
        node.link_returns += 1;
        node.incarnation += 1;
        node.outage = outage;
        let returns = node.link_returns;
        let port = node.sessions.last().map(|session| session.port);
        node.sessions.clear();
        let shows_older = outage < OLDER_SEEN_AGE
            && draw(seed, ("older session", id, returns)) < timing.older_session_share;
        let after = if shows_older {
            let last = now.saturating_sub(OLDER_SEEN_AGE);
            let older = self.open_session(at, last, port);
            older.silent_since = Some(last);
            older.dropped_at = Some(now + OLDER_SHOWN_FOR);
            OLDER_SHOWN_FOR
        } else {
            let short = outage <= SHORT_OUTAGE;
            let bounds = if short { timing.returns_after_short } else { timing.returns_after_long };
            between(bounds, draw(seed, ("returns", id, returns)))
        };
        self.open_session(at, now + after, port);
    }

    fn revive(&mut self, id: &str, now: UnixTime, elsewhere: bool) {
        let at = self.index(id);
        let timing = self.timing;
        let life = std::mem::replace(&mut self.nodes[at].life, Life::Alive);
        let (Life::Dead(since) | Life::Frozen(since)) = life else {
            return;
        };
        let node = &mut self.nodes[at];
        node.left = None;
        let started = matches!(life, Life::Dead(_));
        if started {
            node.made_since.clear();
        }
        let port = node.sessions.last().map(|session| session.port);
        let pings = node.pings;
        node.sessions.retain(|session| session.purged_at(&pings, &timing) > Some(now));
        let link_is_down = node.link_down.is_some();
        if !started && !node.sessions.is_empty() {
            if !link_is_down {
                node.sessions.iter_mut().for_each(|session| session.silent_since = None);
            }
            return;
        }
        node.incarnation += 1;
        node.outage = now.saturating_sub(since);
        if !elsewhere && !link_is_down {
            node.sessions.clear();
        }
        // Behind a link that is down it registers when that returns.
        if !link_is_down {
            self.open_session(at, now, port.filter(|_| !elsewhere));
        }
        if started && !self.nodes[at].withdrawn {
            self.publish(at, now);
        }
    }
}
