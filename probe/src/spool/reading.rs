//! Reading a segment: whole frames, and the stretches between them that are none.
//!
//! Owns what counts as damage, and the one pass over a segment that everything else builds on.
//! Reads in pieces, so that a file of any size takes little memory.

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

/// So much is read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// A stretch without a frame is named in pieces of this, so that it need not be kept in memory.
const DAMAGE_PIECE_BYTES: usize = 256 * 1024;
/// Bytes that may be summed up in vain per file. Beyond them only small frames are looked for, or
/// a file made of beginnings of frames would take hours.
const VAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How large a frame is looked for then.
const VAIN_BODY_BYTES_MAX: usize = 4 * 1024;
/// Damaged stretches that are kept by place, per file; more are only counted.
pub(super) const STRETCHES_MAX: usize = 32;

/// Bytes of a file that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// From the beginning of the file.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) length: u64,
}

/// Damaged stretches of one file: all counted, the first ones known by place.
#[derive(Debug, Clone, Default)]
pub(super) struct Damage {
    /// How many.
    pub(super) count: u64,
    /// The first [`STRETCHES_MAX`] of them, in the order in which they were found.
    pub(super) stretches: Vec<Stretch>,
}

impl Damage {
    /// Notes a stretch; answers whether it is a new one. One that follows on the last is part of
    /// it.
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
    /// No frame.
    Damage(Stretch),
}

/// A segment's frames, one after another. At the end it may be asked again later: the file may
/// have grown. A last frame that is not all there is no damage: it was never promised to anyone.
#[derive(Debug)]
pub(super) struct Frames {
    file: File,
    /// What was read and not passed yet.
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
    at: usize,
    vain: usize,
}

impl Frames {
    /// Opens a segment; answers the high water of its header too, `None` when that is damaged.
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

    /// Forgets what was passed and reads more; answers whether there was more.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.at);
        self.start += self.at as u64;
        self.at = 0;
        // The capacity a large frame took is given back with the next small one.
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
    /// What it says was acknowledged, here or in earlier segments.
    pub(super) acknowledged: Sequences,
    /// Part numbers given out.
    pub(super) numbers: Numbers,
    /// Rounds of its entries and gaps.
    pub(super) rounds: Option<Rounds>,
    /// The highest round (start) of its entries.
    pub(super) high_water_s: u64,
    /// What in it is no frame.
    pub(super) damage: Damage,
}

/// Something in a segment, as the one pass over it meets it.
#[derive(Debug)]
pub(super) enum Met<'a> {
    /// Its header, with the high water of parts made before; `None` where it is damaged.
    Header(Option<u64>),
    /// A frame that has a sequence number: its kind, that number, what follows it, and the rounds
    /// of an entry or gap where they can be read.
    Frame { kind: u8, number: u64, rest: &'a [u8], rounds: Option<Rounds> },
    /// A stretch without a frame.
    Damage,
}

/// Reads a segment through. `read` meets what is in it, in order.
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
