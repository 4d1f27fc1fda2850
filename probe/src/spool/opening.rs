//! Opening a spool: takes the lock and reads what earlier runs left, once.
//!
//! Owns finding out which keys are used. Skips what is damaged or unreadable.

use std::io;
use std::path::Path;

use metrics::counter;

use super::lock::{self, Lock, NoLock};
use super::missing_sequences::MissingSequences;
use super::reading::{Contents, Damage, Stretch, contents};
use super::records::Found;
use super::segment;
use super::sequences::Sequences;
use super::state::{Held, Inner, log_stretch};

/// Damaged stretches of one file that are named in the log.
const LINES_MAX: usize = 8;

/// Why a spool is not open.
#[derive(Debug)]
pub(super) enum NotOpen {
    /// It can never work with these settings.
    Never(io::Error),
    /// It may work later.
    NotNow(io::Error),
}

/// What is gathered from segment to segment.
#[derive(Default)]
struct Gathered {
    found: Found,
    seen: Sequences,
    acknowledged: Sequences,
    high_water_s: u64,
    missing: MissingSequences,
}

impl Inner {
    /// Takes the lock and reads the segments. Writes only the directory and the lock, so that it
    /// works on a full disk.
    pub(super) fn read(&mut self) -> Result<Found, NotOpen> {
        let Some(directory) = self.directory.clone() else {
            return Err(NotOpen::NotNow(io::ErrorKind::NotFound.into()));
        };
        make(&directory)?;
        let lock = Lock::take(&directory).map_err(|no_lock| match no_lock {
            NoLock::Held(error) => NotOpen::Never(error),
            NoLock::NotNow(error) => NotOpen::NotNow(error),
        })?;
        let segments = segment::list(&directory).map_err(NotOpen::NotNow)?;
        let last_number = segments.last().map_or(0, |(number, _)| *number);
        let mark = lock::read_mark(&directory);
        let mut gathered = Gathered::default();
        gathered.missing.waiting_since(mark.as_ref().map_or(0, |mark| mark.waiting_since_s));
        for (number, path) in segments {
            self.read_segment(number, &path, &mut gathered);
        }
        let Gathered { mut found, seen, acknowledged, high_water_s, mut missing } = gathered;
        for number in acknowledged.iter() {
            for held in self.segments.values_mut() {
                held.waiting.remove(number);
            }
        }
        if let Err(error) = &mark {
            tracing::error!(
                error,
                file = lock::name(),
                "cannot read this spool file; it is created again"
            );
            found.damaged += 1;
        }
        missing.end(mark.as_ref().ok().copied());
        self.lose(missing.lost(&seen, &acknowledged));
        let mark = mark.unwrap_or_default();
        self.high_water_s = self.high_water_s.max(high_water_s).max(mark.high_water_s);
        self.waiting_since_s = mark.waiting_since_s;
        let last = seen.last().unwrap_or(0);
        // With damage or missing entries, used part numbers may be lost.
        if found.damaged > 0 || seen.has_missing() || mark.sequence > last {
            self.numbers.unknown_through(self.high_water_s);
        }
        let last = last.max(mark.sequence).max(acknowledged.last().unwrap_or(0));
        self.next_sequence = self.next_sequence.max(last.saturating_add(1));
        let last_number = last_number.max(super::quarantine::last_number(&directory));
        self.next_segment = self.next_segment.max(last_number.saturating_add(1));
        self.locked = Some(lock);
        found.waiting = self.waiting();
        counter!("uptime_spool_damaged_stretches_total").increment(found.damaged);
        self.drop_finished();
        self.report();
        Ok(found)
    }

    fn read_segment(&mut self, number: u64, path: &Path, gathered: &mut Gathered) {
        let file = segment::name(number);
        let contents = contents(path, |met| gathered.missing.meet(&met));
        let contents = contents.unwrap_or_else(|error| {
            tracing::error!(%error, file, "cannot read a spool segment");
            let bytes = path.metadata().map_or(0, |of| of.len());
            let mut damage = Damage::default();
            damage.note(Stretch { offset: 0, length: bytes });
            gathered.missing.damage();
            Contents { bytes, damage, ..Contents::default() }
        });
        let damage = &contents.damage;
        for stretch in damage.stretches.iter().take(LINES_MAX) {
            log_stretch(&file, *stretch);
        }
        if damage.count > LINES_MAX as u64 {
            tracing::error!(file, stretches = damage.count, "this segment has more damage");
        }
        gathered.found.damaged += damage.count;
        // Earlier segments had rounds that they no longer show.
        let earlier_s = contents.earlier_high_water_s.unwrap_or(0);
        if earlier_s > gathered.high_water_s {
            self.numbers.unknown_through(earlier_s);
        }
        gathered.high_water_s = gathered.high_water_s.max(earlier_s).max(contents.high_water_s);
        for sequence in contents.sequences.iter() {
            gathered.seen.insert(sequence);
        }
        for sequence in contents.acknowledged.iter() {
            gathered.acknowledged.insert(sequence);
        }
        self.numbers.join(contents.numbers);
        let held = Held {
            bytes: contents.bytes,
            has_entries: contents.sequences.last().is_some(),
            waiting: contents.sequences,
            rounds: contents.rounds,
            damage: contents.damage,
        };
        self.segments.insert(number, held);
    }
}

fn make(directory: &Path) -> Result<(), NotOpen> {
    use io::ErrorKind::{AlreadyExists, InvalidFilename, InvalidInput, NotADirectory};
    let made = std::fs::create_dir_all(directory);
    made.map_err(|error| match error.kind() {
        AlreadyExists | NotADirectory | InvalidFilename | InvalidInput => {
            NotOpen::Never(io::Error::new(error.kind(), format!("it is not a directory: {error}")))
        }
        _ => NotOpen::NotNow(error),
    })
}
