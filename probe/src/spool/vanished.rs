//! Files removed under a running probe: the directory, the lock, the open segment.
//!
//! Owns the recovery. This counts as damage: what waited is reported as a gap, and the spool is
//! created again, because writing to a deleted file stores nothing. The used keys stay known.

use uptime_proto::convert::Encoder;

use super::missing_sequences::Lost;
use super::opening::NotOpen;
use super::segment;
use super::state::Inner;

impl Inner {
    /// Checks before each read or write that the open files still exist. Costs two stat calls.
    pub(super) fn look_after_files(&mut self) {
        let (Some(directory), Some(lock)) = (self.directory.clone(), &self.locked) else {
            return;
        };
        let lock_lies = lock.lies_in(&directory);
        let segment_lies = self.writer.as_ref().is_none_or(|writer| writer.lies_in(&directory));
        if lock_lies && segment_lies {
            return;
        }
        tracing::error!(
            directory = %directory.display(),
            "spool files were removed while in use; they are created again, and lost parts are \
             reported as a gap"
        );
        // Without the usual close: its file is not ours to remove any more.
        self.writer = None;
        self.encoder = Encoder::default();
        let gone: Vec<u64> = self.segments.keys().copied().collect();
        for number in gone {
            if !segment::path(&directory, number).exists() {
                self.lose_segment(number);
            }
        }
        if !lock_lies {
            self.locked = None;
            if let Err(NotOpen::Never(error) | NotOpen::NotNow(error)) = self.read() {
                self.failed(error);
                self.report();
                return;
            }
        }
        self.write_lost();
    }

    fn lose_segment(&mut self, number: u64) {
        let Some(held) = self.segments.remove(&number) else { return };
        if !held.waiting.is_empty() {
            let rounds = held.rounds.into_iter().collect();
            self.lose(Lost { rounds, numbers: held.waiting.iter().collect() });
        }
    }
}
