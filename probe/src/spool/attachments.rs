//! Attachments of parts: node details and samples.
//!
//! Owns the queue of attachments and which part each was sent with. Not durable: after a restart
//! the probe sends them again, or they are out of date. A lost connection loses none, and
//! attachments that do not fit go back to the caller.

use std::collections::{BTreeMap, VecDeque};

use uptime_proto::{Sample, v1};

/// Details queued or in flight: five times the largest network planned for.
pub(super) const DETAILS_MAX: usize = 50_000;
/// Samples queued or in flight: those of some rounds.
pub(super) const SAMPLES_MAX: usize = 5_000;

/// Details, samples, and the last finished round.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    pub(super) details: Line<v1::NodeDetails>,
    pub(super) samples: Line<Sample>,
    /// The round that finished last, until it is reported.
    pub(super) done: Option<Done>,
    /// The sequence number of the last part that this run appended.
    pub(super) last_sequence: u64,
}

/// A round that gets no further part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The sequence number of the last part before it.
    pub after: u64,
    /// The round's start, unix seconds.
    pub round_s: u64,
}

/// A queue, and what was sent but not acknowledged.
#[derive(Debug)]
pub(super) struct Line<T> {
    waiting: VecDeque<T>,
    /// By the sequence number of the part they were sent with.
    on_their_way: BTreeMap<u64, Vec<T>>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), on_their_way: BTreeMap::new() }
    }
}

impl Attachments {
    /// The part of this number was answered: its attachments are not sent again.
    pub(super) fn acknowledged(&mut self, sequence: u64) {
        self.details.on_their_way.remove(&sequence);
        self.samples.on_their_way.remove(&sequence);
    }

    /// A new stream begins: what was in flight on the last one is queued again.
    pub(super) fn requeue(&mut self) {
        self.details.requeue();
        self.samples.requeue();
    }
}

impl<T: Clone> Line<T> {
    fn len(&self) -> usize {
        self.waiting.len() + self.on_their_way.values().map(Vec::len).sum::<usize>()
    }

    /// Queues what fits; returns the rest.
    pub(super) fn leave(&mut self, mut things: Vec<T>, most: usize) -> Vec<T> {
        let room = most.saturating_sub(self.len());
        let rest = things.split_off(room.min(things.len()));
        self.waiting.extend(things);
        rest
    }

    /// Queues everything; returns the oldest entries that no longer fit.
    pub(super) fn push(&mut self, things: Vec<T>, most: usize) -> Vec<T> {
        self.waiting.extend(things);
        let over = self.len().saturating_sub(most);
        self.waiting.drain(..over.min(self.waiting.len())).collect()
    }

    /// Takes the next ones, for the part of this number.
    pub(super) fn take(&mut self, sequence: u64, most: usize) -> Vec<T> {
        let taken: Vec<T> = self.waiting.drain(..most.min(self.waiting.len())).collect();
        if !taken.is_empty() {
            self.on_their_way.insert(sequence, taken.clone());
        }
        // The first round brings details of every node, later ones of hardly any.
        self.waiting.shrink_to(2 * self.waiting.len());
        taken
    }

    fn requeue(&mut self) {
        for (_, things) in std::mem::take(&mut self.on_their_way).into_iter().rev() {
            for thing in things.into_iter().rev() {
                self.waiting.push_front(thing);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_with_a_connection() {
        let mut line = Line::default();
        assert!(line.leave((0..10).collect(), 100).is_empty());
        assert_eq!(line.take(7, 4), [0, 1, 2, 3]);
        assert_eq!(line.take(8, 4), [4, 5, 6, 7]);
        line.on_their_way.remove(&7);
        line.requeue();
        assert_eq!(line.take(8, 100), [4, 5, 6, 7, 8, 9], "in order, and none twice");
        line.on_their_way.remove(&8);
        line.requeue();
        assert!(line.take(9, 100).is_empty() && line.on_their_way.is_empty());
        assert_eq!(line.waiting.capacity(), 0, "and it takes no room");
    }

    #[test]
    fn what_finds_no_room_is_handed_back() {
        let mut line = Line::default();
        line.leave((0..8).collect(), 10);
        line.take(1, 3);
        assert_eq!(line.leave((8..12).collect(), 10), [10, 11], "what is on its way counts");
        assert_eq!(line.push((12..14).collect(), 10), [3, 4], "or the oldest go");
        assert_eq!(line.len(), 10);
    }
}
