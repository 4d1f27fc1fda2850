//! The outcomes of questions about one node.

use std::time::Duration;

use uptime_proto::NodeId;

/// What the relay knows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It has a session, or had one up to ten minutes ago.
    Known {
        /// When the relay last heard of it: unix seconds on the relay's clock.
        seen_unix_s: i64,
        /// All identities of that session.
        identities: Vec<NodeId>,
    },
    /// It has none. Soon after a restart of the relay or of our own session this is no evidence.
    NotKnown,
}

/// The outcome of a direct question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAnswer {
    /// The node answered.
    Answered {
        /// How long the whole question took, the way through the daemon included.
        took: Duration,
    },
    /// The node did not answer within the limit, the relay does not know it, or the daemon's
    /// channel to it is closed.
    Unanswered,
}
