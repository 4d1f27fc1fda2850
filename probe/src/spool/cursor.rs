//! Reading what waits, in order, for one stream.

use std::io;

use prost::Message;
use uptime_proto::convert::{Decoder, PartLimits, part_from_wire};
use uptime_proto::{Part, v1};

use super::handle::Spool;
use super::reading::{Frames, Step, part_rounds};
use super::records::Rounds;
use super::segment::{ENTRY, GAP, sequence};

/// What waits.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A part.
    Part(Part),
    /// Rounds that are lost.
    Gap(v1::Gap),
}

/// A place in the spool. Passes everything that waits once, the oldest first.
#[derive(Debug)]
pub struct Cursor {
    spool: Spool,
    segment: u64,
    /// A later segment has something waiting, so this one will not grow.
    done: bool,
    frames: Option<Frames>,
    /// The last that passed the decoder.
    decoded: u64,
    /// The last that was passed on or left out.
    last_sequence: u64,
    decoder: Decoder,
    /// Parts of this segment that could not be expanded, and their rounds.
    lost: Vec<(u64, Option<Rounds>)>,
}

/// Limits for reading back what this program wrote itself: those of the format, not of a peer.
pub(super) fn own_limits() -> PartLimits {
    PartLimits {
        observations_per_part_max: usize::MAX,
        part_numbers_max: u16::MAX,
        parts_per_round_max: u32::MAX,
        subnet_bytes_max: usize::MAX,
        compact_bases_max: usize::MAX,
        compact_nodes_max: u32::MAX,
    }
}

/// The part of an entry as the next one of its segment; `None` when it cannot be expanded.
pub(super) fn expand(bytes: &[u8], decoder: &mut Decoder) -> Option<Part> {
    let wire = v1::Part::decode(bytes).ok()?;
    part_from_wire(&wire, Some(decoder), &own_limits()).ok()
}

impl Spool {
    /// Reads what waits, oldest first, for a new stream. Attachments that the last stream sent and
    /// did not get acknowledged are handed out again.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.attachments().requeue();
        Cursor::new(self.clone())
    }
}

impl Cursor {
    pub(super) fn new(spool: Spool) -> Self {
        Self {
            spool,
            segment: 0,
            done: false,
            frames: None,
            decoded: 0,
            last_sequence: 0,
            decoder: Decoder::default(),
            lost: Vec::new(),
        }
    }

    /// What waits next, and its sequence number; `None` when there is nothing now.
    pub fn next_item(&mut self) -> Option<(u64, Item)> {
        loop {
            let from = if self.done { self.segment + 1 } else { self.segment };
            let waiting = self.spool.next_waiting(from)?;
            let number = waiting.number;
            if number != self.segment {
                *self = Self { segment: number, ..Self::new(self.spool.clone()) };
            }
            let found = self.next_in_segment(&waiting.path);
            let lost = std::mem::take(&mut self.lost);
            self.spool.give_up(number, lost);
            match found {
                Ok(Some(found)) => return Some(found),
                // What still waits here and lies behind us is on its way; what lies before us and
                // was not found is damaged.
                Ok(None) => self.spool.give_up_between(
                    number,
                    self.last_sequence.saturating_add(1),
                    waiting.last_sequence,
                ),
                // It stays, for another stream or another day.
                Err(error) => {
                    let path = waiting.path.display();
                    tracing::error!(%error, %path, "cannot read a spool segment");
                    self.frames = None;
                }
            }
            // While nothing waits later, this one may still grow.
            self.spool.next_waiting(number.saturating_add(1))?;
            self.done = true;
        }
    }

    fn next_in_segment(&mut self, path: &std::path::Path) -> io::Result<Option<(u64, Item)>> {
        if self.frames.is_none() {
            match Frames::open(path) {
                Ok((frames, _)) => self.frames = Some(frames),
                // It was taken away, or the whole directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.spool.gone(self.segment);
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
            // From its beginning again, for the ids; what was passed is not passed again.
            self.decoder = Decoder::default();
            self.decoded = 0;
        }
        let Some(frames) = &mut self.frames else {
            return Ok(None);
        };
        while let Some(step) = frames.next()? {
            let (kind, body) = match step {
                Step::Frame { kind, body, .. } => (kind, body),
                Step::Damage(stretch) => {
                    self.spool.damaged(self.segment, stretch);
                    continue;
                }
            };
            let Some((number, rest)) = sequence(body) else {
                continue;
            };
            // An entry that stands twice passes the decoder once.
            if !(kind == ENTRY || kind == GAP) || number <= self.decoded {
                continue;
            }
            self.decoded = number;
            // Every entry passes the decoder, since later ones build on it.
            let item = match kind {
                ENTRY => expand(rest, &mut self.decoder).map(Item::Part),
                _ => v1::Gap::decode(rest).ok().map(Item::Gap),
            };
            if number <= self.last_sequence {
                continue;
            }
            // What should stand between was not found.
            let after = self.last_sequence.saturating_add(1);
            self.spool.give_up_between(self.segment, after, number.saturating_sub(1));
            self.last_sequence = number;
            if !self.spool.is_waiting(self.segment, number) {
                continue;
            }
            match item {
                Some(item) => return Ok(Some((number, item))),
                None => self.lost.push((number, part_rounds(rest).map(|(_, rounds)| rounds))),
            }
        }
        Ok(None)
    }
}
