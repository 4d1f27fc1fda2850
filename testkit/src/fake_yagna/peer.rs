//! What a daemon remembers of one peer: its channel, and what bad links did to questions.

use super::clock::UnixTime;

/// A channel to a peer.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) since: UnixTime,
    /// The life of the peer it was made with; a later one does not know of it.
    pub(crate) incarnation: u32,
    /// Whether a question has failed because it is closed.
    pub(crate) closed: bool,
}

impl Peer {
    pub(crate) fn new(since: UnixTime, incarnation: u32) -> Peer {
        Peer { since, incarnation, closed: false }
    }
}

/// What bad links did to questions to one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chances {
    /// How many numbers were drawn.
    pub(crate) drawn: u64,
    /// Whether the last question was lost.
    pub(crate) failed: bool,
}
