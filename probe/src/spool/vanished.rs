//! What is taken away under a running probe: the folder, the lock, the open segment.
//!
//! Owns that this is damage like any other. What waited in it is told as a gap, and the spool is
//! made anew where it was: whoever went on writing into files that lie nowhere would keep nothing.
//! What a running probe knows of its keys it does not forget by it.

use uptime_proto::convert::Encoder;

use super::missing_sequences::Lost;
use super::opening::NotOpen;
use super::segment;
use super::state::Inner;

impl Inner {
    /// Compares what is open with what lies there, before anything is written or read. Two looks at
    /// the disk where all is well.
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
        // Not as it is closed otherwise: its file is not ours to remove any more.
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
