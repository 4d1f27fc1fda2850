//! Samples: what is of interest of a node beside the evidence.
//!
//! Owns the word. Refuses to be evidence: no sample decides anything, and any of them may be lost.

use crate::node_id::NodeId;

/// What one probe learnt of one node in one round. A node may have several in a round, each of
/// which says something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Of whom.
    pub node: NodeId,
    /// In the round of this start, unix seconds.
    pub round_start_s: u64,
    /// Of a suspect: how long before it was asked for the relay had heard of it. Told once, and
    /// again when the relay heard of it again: until then it grows by the time that passes.
    pub seen_age_ms: Option<i32>,
    /// Of a suspect that answered the direct question: how long that took.
    pub answered_in_ms: Option<u32>,
    /// The round trip of a ping over the reliable channel.
    pub tcp_round_trip_us: Option<u32>,
    /// The same over the channel that may lose messages.
    pub udp_round_trip_us: Option<u32>,
}

impl Sample {
    /// Of this node in this round, nothing yet.
    #[must_use]
    pub const fn new(node: NodeId, round_start_s: u64) -> Self {
        Self {
            node,
            round_start_s,
            seen_age_ms: None,
            answered_in_ms: None,
            tcp_round_trip_us: None,
            udp_round_trip_us: None,
        }
    }
}
