//! How nodes of the stand-in network die, freeze, stop and come back.
//!
//! Owns the ways to go away and what the relay makes of each: a session that is dropped at once,
//! after half a minute, or forgotten after ten. Refuses to know what a daemon then answers.

use std::time::Duration;

use super::chance::{between, draw};
use super::clock::UnixTime;
use super::node::Life;
use super::state::State;
use super::world::World;

impl World {
    /// The node's host is gone without a word: the relay keeps its session and `seen` grows until
    /// it forgets it, its offers live on in the daemons that know them.
    pub fn kill(&self, id: &str) {
        self.kill_ago(id, Duration::ZERO);
    }

    /// As [`World::kill`], but the death happened `ago`.
    pub fn kill_ago(&self, id: &str, ago: Duration) {
        self.with(|state, now| state.kill(id, now.saturating_sub(ago)));
    }

    /// The node's process dies and its host lives on: it tells the relay so (ICMP port
    /// unreachable), which drops the session after a time drawn from the seed. Until then the
    /// node is like one whose host is gone.
    pub fn kill_process(&self, id: &str) {
        self.kill_process_ago(id, Duration::ZERO);
    }

    /// As [`World::kill_process`], but the death happened `ago`.
    pub fn kill_process_ago(&self, id: &str, ago: Duration) {
        self.with(|state, now| {
            let since = now.saturating_sub(ago);
            state.kill(id, since);
            let dropped_at = since + state.drop_after(id);
            for session in &mut state.node(id).sessions {
                session.dropped_at = Some(dropped_at);
            }
        });
    }

    /// Freezes the node: silent like a dead one, but [`World::revive`] lets it go on.
    pub fn freeze(&self, id: &str) {
        self.with(|state, now| state.node(id).silence(Life::Frozen(now), now));
    }

    /// Starts a dead node again, on the same port: a new life publishes new offers beside the
    /// old. A frozen one goes on where it stood.
    pub fn revive(&self, id: &str) {
        self.with(|state, now| state.revive(id, now, false));
    }

    /// As [`World::revive`], but on another port: the relay shows two sessions until it purges
    /// the old one.
    pub fn revive_elsewhere(&self, id: &str) {
        self.with(|state, now| state.revive(id, now, true));
    }

    /// Stops the node gracefully, without withdrawing its offers: its session ends at once, and
    /// the relay's listing passes through its shapes of nothing.
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
}

impl State {
    fn kill(&mut self, id: &str, since: UnixTime) {
        let began = since.saturating_sub(self.timing.ping_interval);
        let node = self.node(id);
        // It had lived a while before.
        for session in &mut node.sessions {
            session.since = session.since.min(began);
            session.closed_until = session.closed_until.min(began);
        }
        node.silence(Life::Dead(since), since);
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
}
