//! Sums over a node's verdicts, and the percentages made of them.
//!
//! Pure. Owns the formulas of the accounting page ("Uptime"). Refuses to guess: where nothing was
//! decided there is no percentage.

use crate::verdict::Verdict;

/// Seconds and numbers of rounds by verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "named by verdict and unit")]
pub struct Tally {
    pub up_s: u64,
    pub down_s: u64,
    pub unknown_s: u64,
    pub up_rounds: u64,
    pub down_rounds: u64,
    pub unknown_rounds: u64,
}

impl Tally {
    /// Adds a stretch of one verdict.
    pub fn add(&mut self, verdict: Verdict, seconds: u64, rounds: u64) {
        let (sum_s, sum_rounds) = match verdict {
            Verdict::Up => (&mut self.up_s, &mut self.up_rounds),
            Verdict::Down => (&mut self.down_s, &mut self.down_rounds),
            Verdict::Unknown => (&mut self.unknown_s, &mut self.unknown_rounds),
        };
        *sum_s += seconds;
        *sum_rounds += rounds;
    }

    /// Adds another's sums.
    pub fn merge(&mut self, other: &Self) {
        self.up_s += other.up_s;
        self.down_s += other.down_s;
        self.unknown_s += other.unknown_s;
        self.up_rounds += other.up_rounds;
        self.down_rounds += other.down_rounds;
        self.unknown_rounds += other.unknown_rounds;
    }

    /// `100 · up_s / (up_s + down_s)`; `None` while nothing was decided.
    #[inline]
    #[must_use]
    pub fn uptime_percent(&self) -> Option<f64> {
        percent(self.up_s, self.up_s + self.down_s)
    }

    /// The share of time in which the verdict was not unknown, in percent; `None` for no time.
    #[must_use]
    pub fn coverage_percent(&self) -> Option<f64> {
        let decided = self.up_s + self.down_s;
        percent(decided, decided + self.unknown_s)
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds stay far below 2^53")]
fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_decided_is_no_percentage() {
        let mut tally = Tally::default();
        assert_eq!((tally.uptime_percent(), tally.coverage_percent()), (None, None));
        tally.add(Verdict::Unknown, 30, 1);
        assert_eq!((tally.uptime_percent(), tally.coverage_percent()), (None, Some(0.0)));
        tally.add(Verdict::Up, 30, 1);
        tally.add(Verdict::Down, 60, 2);
        assert_eq!(tally.uptime_percent(), Some(33.333_333_333_333_336));
        assert_eq!(tally.coverage_percent(), Some(75.0));
    }
}
