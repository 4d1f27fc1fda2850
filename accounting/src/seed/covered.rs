//! `seed-v1` of one subnet, for whoever asks for many nodes at once.
//!
//! Pure. Owns sums over the covered rounds of the subnet, so that a node costs as much as it has
//! runs. Says the same as [`Seed::scan_count`] and [`Seed::online_scans`].

use uptime_proto::Epochs;

use super::Seed;
use crate::verdict::Verdict;

/// A stretch of covered rounds.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from_s: u64,
    to_s: u64,
    /// Covered rounds before it.
    before: u64,
}

/// The covered rounds of one subnet, up to the last closed round.
#[derive(Debug)]
pub struct Covered<'a> {
    seed: &'a Seed,
    epochs: &'a Epochs,
    closed_end_s: u64,
    stretches: Vec<Stretch>,
    scan_count: u64,
    last_s: Option<u64>,
}

impl Seed {
    /// What `seed-v1` says in a subnet; `None`: it has no name here yet, and no covered round.
    #[must_use]
    pub fn in_subnet<'a>(
        &'a self,
        subnet: Option<u32>,
        closed_end_s: u64,
        epochs: &'a Epochs,
    ) -> Covered<'a> {
        let mut scan_count = 0;
        let mut stretches = Vec::new();
        let line = subnet.and_then(|subnet| self.covered.get(&subnet));
        for (from_s, to_s, verdict) in line.iter().flat_map(|line| line.stretches(0, closed_end_s))
        {
            if verdict == Verdict::Up {
                stretches.push(Stretch { from_s, to_s, before: scan_count });
                scan_count += epochs.rounds_between(from_s, to_s);
            }
        }
        let last_s = stretches.last().map(|last| {
            let end_ms = i64::try_from(last.to_s.saturating_mul(1000)).unwrap_or(i64::MAX);
            epochs.round_at_ms(end_ms - 1).start_s()
        });
        Covered { seed: self, epochs, closed_end_s, stretches, scan_count, last_s }
    }
}

impl Covered<'_> {
    /// How many rounds were covered.
    #[must_use]
    pub fn scan_count(&self) -> u64 {
        self.scan_count
    }

    /// In how many of them a node was online.
    #[must_use]
    pub fn online_scans(&self, node: u32) -> u64 {
        let online = self.seed.line(node).into_iter().flat_map(|line| {
            line.stretches(0, self.closed_end_s).filter(|(.., verdict)| *verdict == Verdict::Up)
        });
        online.map(|(from_s, to_s, _)| self.before(to_s) - self.before(from_s)).sum()
    }

    /// Whether a node was online in the last of them.
    #[must_use]
    pub fn is_online(&self, node: u32) -> bool {
        let last = self.last_s.zip(self.seed.line(node));
        last.is_some_and(|(last_s, line)| line.at(last_s) == Verdict::Up)
    }

    /// Covered rounds that start before this moment, which is on the grid.
    fn before(&self, moment_s: u64) -> u64 {
        let after = self.stretches.partition_point(|stretch| stretch.from_s < moment_s);
        let last = after.checked_sub(1).and_then(|at| self.stretches.get(at));
        last.map_or(0, |last| {
            last.before + self.epochs.rounds_between(last.from_s, last.to_s.min(moment_s))
        })
    }
}
