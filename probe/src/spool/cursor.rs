//! Reading what waits, in order, for one stream.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use prost::Message;
use uptime_proto::convert::{Decoder, PartLimits, part_from_wire};
use uptime_proto::{Part, v1};

use super::Spool;
use super::segment::{ENTRY, first_frame, next_frame, sequence};

/// A place in the spool. Passes every waiting part once, the oldest first.
#[derive(Debug)]
pub struct Cursor {
    spool: Spool,
    segment: u64,
    /// A later segment has something waiting, so this one will not grow.
    done: bool,
    path: PathBuf,
    /// The bytes of the segment that were read and not passed yet, and where they begin.
    read: Vec<u8>,
    read_from: u64,
    at: usize,
    last_sequence: u64,
    decoder: Decoder,
}

/// Limits for reading back what this program wrote itself: those of the format, not of a peer.
fn own_limits() -> PartLimits {
    PartLimits {
        observations_per_part_max: usize::MAX,
        part_numbers_max: u16::MAX,
        subnet_bytes_max: usize::MAX,
        compact_bases_max: usize::MAX,
        compact_nodes_max: u32::MAX,
    }
}

impl Cursor {
    pub(super) fn new(spool: Spool) -> Self {
        Self {
            spool,
            segment: 0,
            done: false,
            path: PathBuf::new(),
            read: Vec::new(),
            read_from: 0,
            at: 0,
            last_sequence: 0,
            decoder: Decoder::default(),
        }
    }

    /// The next waiting part and its sequence number; `None` when there is none now.
    pub fn next_part(&mut self) -> Option<(u64, Part)> {
        loop {
            let from = if self.done { self.segment + 1 } else { self.segment };
            let (number, path, waiting) = self.spool.next_waiting(from)?;
            if number != self.segment {
                self.done = false;
                self.segment = number;
                self.path = path;
                self.read = Vec::new();
                self.read_from = first_frame();
                self.at = 0;
                self.last_sequence = 0;
                self.decoder = Decoder::default();
            }
            if let Some(found) = self.next_in_segment() {
                return Some(found);
            }
            // What still waits here and lies behind us is on its way; what lies before us and was
            // not found is damaged.
            let lost = waiting.range(self.last_sequence + 1..).copied().collect::<Vec<_>>();
            let open = self.spool.next_waiting(number + 1).is_none();
            if open && lost.is_empty() {
                return None;
            }
            for sequence in lost {
                self.spool.give_up(number, sequence);
            }
            if open {
                return None;
            }
            self.done = true;
        }
    }

    fn next_in_segment(&mut self) -> Option<(u64, Part)> {
        loop {
            let Some((frame, _)) = next_frame(&self.read, self.at) else {
                if self.refill() {
                    continue;
                }
                return None;
            };
            self.at = frame.end;
            if frame.kind != ENTRY {
                continue;
            }
            let Some((number, body)) = sequence(frame.body) else {
                continue;
            };
            // Entries ascend; what does not is no entry of this stream, see `segment::scan`.
            if number <= self.last_sequence {
                continue;
            }
            // Every entry passes the decoder, since later ones build on it.
            let part = v1::Part::decode(body).ok().and_then(|wire| {
                part_from_wire(&wire, Some(&mut self.decoder), &own_limits()).ok()
            });
            self.last_sequence = number;
            if !self.spool.is_waiting(self.segment, number) {
                continue;
            }
            match part {
                Some(part) => return Some((number, part)),
                None => self.spool.give_up(self.segment, number),
            }
        }
    }

    /// Reads what the file has beyond what was read; answers whether there was anything.
    fn refill(&mut self) -> bool {
        let reach = self.read_from + self.read.len() as u64;
        let rest = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(reach))?;
            let mut rest = Vec::new();
            file.read_to_end(&mut rest)?;
            Ok(rest)
        };
        let rest = match rest() {
            Ok(rest) => rest,
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "the spool cannot be read");
                return false;
            }
        };
        if rest.is_empty() {
            return false;
        }
        self.read.drain(..self.at);
        self.read_from += self.at as u64;
        self.at = 0;
        self.read.extend(rest);
        true
    }
}
