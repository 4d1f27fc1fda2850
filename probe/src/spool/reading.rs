//! Reading a segment: whole frames, and the damaged stretches between them.
//!
//! Owns what counts as damage, and the single pass over a segment that everything else uses. Reads
//! in chunks, so that large files take little memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use prost::Message;
use uptime_proto::v1;

use super::numbers::Numbers;
use super::records::Rounds;
use super::segment::{
    ACK, ENTRY, FRAME_HEAD_BYTES, GAP, HEADER_BYTES, MARK, Parsed, frame_bytes, parse, read_header,
    sequence,
};
use super::sequences::Sequences;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// A damaged stretch is reported in pieces of this size, to bound memory.
const DAMAGE_PIECE_BYTES: usize = 256 * 1024;
/// Bytes per file with a wrong checksum. Beyond them only small frames are searched, or a file made
/// of frame beginnings would take hours.
const VAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The largest frame body searched for then.
const VAIN_BODY_BYTES_MAX: usize = 4 * 1024;
/// Damaged stretches per file that are kept with their position; more are only counted.
pub(super) const STRETCHES_MAX: usize = 32;

/// Bytes of a file that are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Bytes from the beginning of the file.
    pub(super) offset: u64,
    /// Length in bytes.
    pub(super) length: u64,
}

/// Damaged stretches of one file: all counted, the first ones with their position.
#[derive(Debug, Clone, Default)]
pub(super) struct Damage {
    /// The number of all stretches.
    pub(super) count: u64,
    /// The first [`STRETCHES_MAX`] of them, in the order in which they were found.
    pub(super) stretches: Vec<Stretch>,
}

impl Damage {
    /// Adds a stretch. Returns whether it is new: one that follows the last directly extends it.
    pub(super) fn note(&mut self, stretch: Stretch) -> bool {
        let end = stretch.offset.saturating_add(stretch.length);
        let known = |there: &Stretch| {
            there.offset <= stretch.offset && end <= there.offset.saturating_add(there.length)
        };
        if self.stretches.iter().any(known) {
            return false;
        }
        if let Some(last) = self.stretches.last_mut()
            && last.offset.saturating_add(last.length) == stretch.offset
            && self.count <= STRETCHES_MAX as u64
        {
            last.length = last.length.saturating_add(stretch.length);
            return false;
        }
        self.count += 1;
        if self.stretches.len() < STRETCHES_MAX {
            self.stretches.push(stretch);
        }
        true
    }
}

/// What comes next in a segment.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// A whole frame.
    Frame {
        /// Its kind.
        kind: u8,
        /// From the beginning of the file.
        offset: u64,
        /// What it holds.
        body: &'a [u8],
    },
    /// A damaged stretch.
    Damage(Stretch),
}

/// A segment's frames, in order. At the end, `next` can be called again later: the file may have
/// grown. An incomplete last frame is not damage: its write was never confirmed.
#[derive(Debug)]
pub(super) struct Frames {
    file: File,
    /// What was read but not consumed.
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
    at: usize,
    vain: usize,
}

impl Frames {
    /// Opens a segment. Also returns the high water of its header; `None`: damaged.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<u64>)> {
        let mut file = File::open(path)?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        (&mut file).take(HEADER_BYTES as u64).read_to_end(&mut header)?;
        let start = HEADER_BYTES as u64;
        file.seek(SeekFrom::Start(start))?;
        let high_water_s = read_header(&header);
        Ok((Self { file, buffer: Vec::new(), start, at: 0, vain: 0 }, high_water_s))
    }

    /// The next frame or damaged stretch.
    pub(super) fn next(&mut self) -> io::Result<Option<Step<'_>>> {
        let (mut look, mut ended) = (self.at, false);
        let mut first_cut = None;
        loop {
            let body_max =
                if self.vain > VAIN_BYTES_MAX { VAIN_BODY_BYTES_MAX } else { usize::MAX };
            match parse(&self.buffer[look..], body_max) {
                Parsed::Whole { kind, body } if look == self.at => {
                    let offset = self.start + self.at as u64;
                    self.at = look + frame_bytes(body);
                    let from = look + FRAME_HEAD_BYTES;
                    let body = &self.buffer[from..from + body];
                    return Ok(Some(Step::Frame { kind, offset, body }));
                }
                Parsed::Whole { .. } => return Ok(Some(self.damage_up_to(look))),
                Parsed::Cut if !ended => {
                    look -= self.at;
                    ended = !self.fill()?;
                    continue;
                }
                Parsed::Cut => first_cut = first_cut.or(Some(look)),
                Parsed::Nothing(summed) => self.vain = self.vain.saturating_add(summed),
            }
            look = self.next_mark(look + 1);
            if look - self.at >= DAMAGE_PIECE_BYTES && first_cut.is_none() {
                return Ok(Some(self.damage_up_to(look)));
            }
            if look < self.buffer.len() {
                continue;
            }
            look = self.buffer.len();
            if !ended {
                look -= self.at;
                ended = !self.fill()?;
                continue;
            }
            return match first_cut.unwrap_or(look) {
                end if end == self.at => Ok(None),
                end => Ok(Some(self.damage_up_to(end))),
            };
        }
    }

    fn damage_up_to(&mut self, end: usize) -> Step<'static> {
        let stretch =
            Stretch { offset: self.start + self.at as u64, length: (end - self.at) as u64 };
        self.at = end;
        Step::Damage(stretch)
    }

    /// Where the next frame may begin, from here on.
    fn next_mark(&self, from: usize) -> usize {
        let rest = self.buffer.get(from..).unwrap_or_default();
        let mark = rest.iter().position(|byte| *byte == MARK[0]);
        mark.map_or(self.buffer.len(), |mark| from + mark)
    }

    /// Drops what was consumed and reads more. Returns whether there was more.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.at);
        self.start += self.at as u64;
        self.at = 0;
        // Release the memory of a large frame.
        self.buffer.shrink_to(4 * CHUNK_BYTES);
        let room = CHUNK_BYTES as u64;
        Ok((&mut self.file).take(room).read_to_end(&mut self.buffer)? > 0)
    }
}

/// What a segment holds, without expanding any part.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Bytes of the file.
    pub(super) bytes: u64,
    /// From the header; `None`: the header is damaged.
    pub(super) earlier_high_water_s: Option<u64>,
    /// Sequence numbers of entries and gaps.
    pub(super) sequences: Sequences,
    /// Those of gaps alone.
    pub(super) gaps: Sequences,
    /// Numbers that it acknowledges, here or in earlier segments.
    pub(super) acknowledged: Sequences,
    /// Used part numbers.
    pub(super) numbers: Numbers,
    /// Rounds of its entries and gaps.
    pub(super) rounds: Option<Rounds>,
    /// The highest round (start) of its entries.
    pub(super) high_water_s: u64,
    /// Its damage.
    pub(super) damage: Damage,
}

/// An element of a segment, in the order of the file.
#[derive(Debug)]
pub(super) enum Met<'a> {
    /// The header with its high water; `None`: damaged.
    Header(Option<u64>),
    /// A frame with a sequence number: its kind, that number, the rest of the body, and the rounds
    /// of an entry or gap if readable.
    Frame { kind: u8, number: u64, rest: &'a [u8], rounds: Option<Rounds> },
    /// A damaged stretch.
    Damage,
}

/// Reads a whole segment. `read` gets its elements in order.
pub(super) fn contents(path: &Path, mut read: impl FnMut(Met<'_>)) -> io::Result<Contents> {
    let (mut frames, earlier_high_water_s) = Frames::open(path)?;
    let bytes = frames.file.metadata()?.len();
    let mut contents = Contents { bytes, earlier_high_water_s, ..Contents::default() };
    read(Met::Header(earlier_high_water_s));
    if earlier_high_water_s.is_none() {
        contents.damage.note(Stretch { offset: 0, length: bytes.min(HEADER_BYTES as u64) });
    }
    while let Some(step) = frames.next()? {
        match step {
            Step::Damage(stretch) => {
                contents.damage.note(stretch);
                read(Met::Damage);
            }
            Step::Frame { kind, body, .. } => {
                if let Some((number, rest)) = sequence(body) {
                    let rounds = contents.take(kind, number, rest);
                    read(Met::Frame { kind, number, rest, rounds });
                }
            }
        }
    }
    Ok(contents)
}

impl Contents {
    fn take(&mut self, kind: u8, number: u64, rest: &[u8]) -> Option<Rounds> {
        let rounds = match kind {
            ACK => {
                self.acknowledged.insert(number);
                None
            }
            GAP => {
                self.sequences.insert(number);
                self.gaps.insert(number);
                v1::Gap::decode(rest).ok().and_then(|gap| gap_rounds(&gap))
            }
            ENTRY => {
                self.sequences.insert(number);
                part_rounds(rest).map(|(part, rounds)| {
                    self.high_water_s = self.high_water_s.max(part.round_unix_s);
                    let next = u16::try_from(part.number).unwrap_or(u16::MAX).saturating_add(1);
                    self.numbers.used_up_to(part.round_unix_s, part.subnet, next);
                    rounds
                })
            }
            _ => None,
        };
        if let Some(rounds) = rounds {
            Rounds::join(&mut self.rounds, rounds);
        }
        rounds
    }
}

/// An entry's part as it is written, and its round.
pub(super) fn part_rounds(bytes: &[u8]) -> Option<(v1::Part, Rounds)> {
    let part = v1::Part::decode(bytes).ok()?;
    let rounds = rounds_of(&part);
    Some((part, rounds))
}

/// The round of a part.
pub(super) fn rounds_of(part: &v1::Part) -> Rounds {
    let first_s = part.round_unix_s;
    let end_s = first_s.saturating_add(u64::from(part.round_period_s).max(1));
    Rounds { first_s, last_s: first_s, end_s }
}

/// The rounds of a gap; `None` when it has none.
pub(super) fn gap_rounds(gap: &v1::Gap) -> Option<Rounds> {
    let (first_s, end_s) = (gap.from_round_unix_s, gap.to_round_unix_s);
    (first_s < end_s).then(|| Rounds { first_s, last_s: end_s - 1, end_s })
}
