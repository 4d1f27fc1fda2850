//! The one definition of a round, and of the epochs whose rules decide it.
//!
//! Owns the arithmetic of the grid. Refuses to know what time it is: instants come in as arguments.

use crate::v1;

/// Seconds in a UTC day; every period divides it.
pub const DAY_S: u32 = 86_400;

/// The first method of accounting; see the accounting page.
pub const METHOD_FRESH: &str = "fresh-v1";

/// P, the length of a round in seconds. Divides 86,400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u32);

/// A round or epoch that the grid does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GridError {
    /// The period does not divide a day.
    #[error("a round period must divide 86,400 s, {0} s does not")]
    Period(u32),
    /// The start is no multiple of the period.
    #[error("round {start_s} is not a multiple of the period, {period_s} s")]
    OffGrid {
        /// The start that was given, unix seconds.
        start_s: u64,
        /// The period that was given.
        period_s: u32,
    },
    /// An epoch has a setting that cannot be.
    #[error("epoch setting {name} must be {wanted}, not {got}")]
    Setting {
        /// Which setting.
        name: &'static str,
        /// What it may be.
        wanted: &'static str,
        /// What it was.
        got: u64,
    },
    /// The method is not known to this version.
    #[error("accounting method {0:?} is not known here; known: fresh-v1")]
    Method(String),
    /// Epochs do not ascend, or one starts off the grid of the one before.
    #[error("epoch {0} must start after the one before it, on the grids of both periods")]
    Order(u64),
}

impl Period {
    /// Where nobody sets another (accounting page, "Rounds").
    pub const DEFAULT: Self = Self(30);

    /// The period of so many seconds.
    ///
    /// # Errors
    /// When it does not divide 86,400.
    pub fn new(seconds: u32) -> Result<Self, GridError> {
        if seconds > 0 && DAY_S.is_multiple_of(seconds) {
            Ok(Self(seconds))
        } else {
            Err(GridError::Period(seconds))
        }
    }

    /// Its length in seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// Its length in milliseconds.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0 as i64 * 1000
    }
}

/// The interval `[start, start + P)` of UTC unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round {
    start_s: u64,
    period: Period,
}

impl Round {
    /// The round that starts then.
    ///
    /// # Errors
    /// When the start is not on the period's grid.
    pub fn new(start_s: u64, period: Period) -> Result<Self, GridError> {
        if start_s.is_multiple_of(u64::from(period.0)) {
            Ok(Self { start_s, period })
        } else {
            Err(GridError::OffGrid { start_s, period_s: period.0 })
        }
    }

    /// The round an instant lies in. Instants before 1970 lie in the first round.
    #[must_use]
    pub fn containing(unix_ms: i64, period: Period) -> Self {
        let second = u64::try_from(unix_ms.div_euclid(1000)).unwrap_or(0);
        Self { start_s: second - second % u64::from(period.0), period }
    }

    /// Its start, unix seconds; its name.
    #[must_use]
    pub const fn start_s(self) -> u64 {
        self.start_s
    }

    /// Its start, unix milliseconds.
    #[must_use]
    pub fn start_ms(self) -> i64 {
        i64::try_from(self.start_s.saturating_mul(1000)).unwrap_or(i64::MAX)
    }

    /// The start of the next one, unix seconds.
    #[must_use]
    pub const fn end_s(self) -> u64 {
        self.start_s.saturating_add(self.period.0 as u64)
    }

    /// The start of the next one, unix milliseconds.
    #[must_use]
    pub fn end_ms(self) -> i64 {
        i64::try_from(self.end_s().saturating_mul(1000)).unwrap_or(i64::MAX)
    }

    /// The period of its grid.
    #[must_use]
    pub const fn period(self) -> Period {
        self.period
    }

    /// The round after it on the same grid.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { start_s: self.end_s(), period: self.period }
    }
}

/// A stretch of time with one set of rules. See `Epoch` in `types.proto` for each setting.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named and documented as in types.proto")]
pub struct Epoch {
    pub start_s: u64,
    pub period: Period,
    pub grace_s: u32,
    pub positive_probes_min: u32,
    pub freshness_s: u32,
    pub relay_session_age_min_s: u32,
    pub direct_timeout_ms: u32,
    pub direct_attempts: u32,
    pub retire_after_s: u32,
}

impl Epoch {
    /// The rules of the accounting page for rounds of this period, from the beginning of time.
    #[must_use]
    pub fn with_defaults(period: Period) -> Self {
        Self {
            start_s: 0,
            period,
            grace_s: 5,
            positive_probes_min: 1,
            freshness_s: 20,
            relay_session_age_min_s: 60,
            direct_timeout_ms: 4_000,
            direct_attempts: 2,
            retire_after_s: 30 * DAY_S,
        }
    }

    /// When a round that ends then is closed: after its grace, unix milliseconds.
    #[must_use]
    pub fn closes_at_ms(&self, round: Round) -> i64 {
        round.end_ms().saturating_add(i64::from(self.grace_s) * 1000)
    }
}

impl TryFrom<&v1::Epoch> for Epoch {
    type Error = GridError;

    fn try_from(wire: &v1::Epoch) -> Result<Self, Self::Error> {
        let period = Period::new(wire.round_period_s)?;
        Round::new(wire.start_unix_s, period)?;
        let within = |name, got: u32, low: u32, high: u32, wanted| {
            if (low..=high).contains(&got) {
                Ok(got)
            } else {
                Err(GridError::Setting { name, wanted, got: u64::from(got) })
            }
        };
        if wire.method != METHOD_FRESH {
            return Err(GridError::Method(wire.method.chars().take(32).collect()));
        }
        Ok(Self {
            start_s: wire.start_unix_s,
            period,
            grace_s: within("grace_s", wire.grace_s, 0, 3_600, "0 to 3,600")?,
            positive_probes_min: within(
                "positive_probes_min",
                wire.positive_probes_min,
                1,
                100,
                "1 to 100",
            )?,
            freshness_s: within("freshness_s", wire.freshness_s, 1, 3_600, "1 to 3,600")?,
            relay_session_age_min_s: within(
                "relay_session_age_min_s",
                wire.relay_session_age_min_s,
                0,
                DAY_S,
                "0 to 86,400",
            )?,
            direct_timeout_ms: within(
                "direct_timeout_ms",
                wire.direct_timeout_ms,
                1,
                30_000,
                "1 to 30,000",
            )?,
            direct_attempts: within("direct_attempts", wire.direct_attempts, 1, 10, "1 to 10")?,
            retire_after_s: within(
                "retire_after_s",
                wire.retire_after_s,
                1,
                u32::MAX,
                "1 or more",
            )?,
        })
    }
}

impl From<&Epoch> for v1::Epoch {
    fn from(epoch: &Epoch) -> Self {
        Self {
            start_unix_s: epoch.start_s,
            round_period_s: epoch.period.seconds(),
            grace_s: epoch.grace_s,
            positive_probes_min: epoch.positive_probes_min,
            freshness_s: epoch.freshness_s,
            relay_session_age_min_s: epoch.relay_session_age_min_s,
            direct_timeout_ms: epoch.direct_timeout_ms,
            direct_attempts: epoch.direct_attempts,
            retire_after_s: epoch.retire_after_s,
            method: METHOD_FRESH.to_owned(),
        }
    }
}

/// All epochs, ascending. Never empty; the first is taken to hold before its start, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epochs(Vec<Epoch>);

impl Epochs {
    /// These epochs.
    ///
    /// # Errors
    /// When there are none, they do not ascend, or one starts off the grid of its own period or of
    /// the period before it.
    pub fn new(epochs: Vec<Epoch>) -> Result<Self, GridError> {
        if epochs.is_empty() {
            return Err(GridError::Order(0));
        }
        for pair in epochs.windows(2) {
            let [before, after] = pair else { continue };
            let on_grids = Round::new(after.start_s, before.period).is_ok()
                && Round::new(after.start_s, after.period).is_ok();
            if after.start_s <= before.start_s || !on_grids {
                return Err(GridError::Order(after.start_s));
            }
        }
        Ok(Self(epochs))
    }

    /// The epoch in force at an instant.
    #[must_use]
    pub fn at(&self, unix_s: u64) -> &Epoch {
        let after = self.0.partition_point(|epoch| epoch.start_s <= unix_s);
        &self.0[after.saturating_sub(1)]
    }

    /// The round in force that an instant lies in.
    #[must_use]
    pub fn round_at_ms(&self, unix_ms: i64) -> Round {
        let second = u64::try_from(unix_ms.div_euclid(1000)).unwrap_or(0);
        Round::containing(unix_ms, self.at(second).period)
    }

    /// The round that follows one in force, on the grid then in force.
    #[must_use]
    pub fn next(&self, round: Round) -> Round {
        Round { start_s: round.end_s(), period: self.at(round.end_s()).period }
    }

    /// The round in force before one in force; `None` before the first round of time.
    #[must_use]
    pub fn previous(&self, round: Round) -> Option<Round> {
        let before = round.start_s.checked_sub(1)?;
        let period = self.at(before).period;
        Some(Round { start_s: before - before % u64::from(period.0), period })
    }

    /// Whether rounds of this grid are in force at the round's start.
    #[must_use]
    pub fn in_force(&self, round: Round) -> bool {
        self.at(round.start_s).period == round.period
    }

    /// How many rounds in force start in `[from_s, to_s)`, both on the grid in force.
    #[must_use]
    pub fn rounds_between(&self, from_s: u64, to_s: u64) -> u64 {
        let mut count = 0;
        for (index, epoch) in self.0.iter().enumerate() {
            let begin = if index == 0 { 0 } else { epoch.start_s };
            let end = self.0.get(index + 1).map_or(u64::MAX, |next| next.start_s);
            let (low, high) = (begin.max(from_s), end.min(to_s));
            if low < high {
                count += (high - low).div_ceil(u64::from(epoch.period.seconds()));
            }
        }
        count
    }

    /// All of them, ascending.
    #[must_use]
    pub fn all(&self) -> &[Epoch] {
        &self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn epoch(start_s: u64, period_s: u32) -> Epoch {
        Epoch { start_s, ..Epoch::with_defaults(Period::new(period_s).unwrap()) }
    }

    #[test]
    fn a_period_divides_the_day() {
        for good in [1, 2, 5, 10, 30, 60, 3_600, DAY_S] {
            assert_eq!(Period::new(good).unwrap().seconds(), good);
        }
        for bad in [0, 7, 31, 86_401, u32::MAX] {
            assert_eq!(Period::new(bad), Err(GridError::Period(bad)));
        }
    }

    #[test]
    fn rounds_are_named_by_their_start() {
        let period = Period::new(30).unwrap();
        for (ms, start) in [(0, 0), (29_999, 0), (30_000, 30), (61_234, 60), (-5, 0)] {
            assert_eq!(Round::containing(ms, period).start_s(), start, "{ms}");
        }
        assert!(Round::new(31, period).is_err());
        assert_eq!(Round::new(u64::MAX - u64::MAX % 30, period).unwrap().end_s(), u64::MAX);
    }

    #[test]
    fn epochs_ascend_on_both_grids() {
        assert!(Epochs::new(vec![]).is_err());
        assert!(Epochs::new(vec![epoch(0, 30), epoch(45, 15)]).is_err());
        assert!(Epochs::new(vec![epoch(0, 30), epoch(30, 60)]).is_err());
        assert!(Epochs::new(vec![epoch(60, 30), epoch(60, 60)]).is_err());
        let epochs = Epochs::new(vec![epoch(0, 30), epoch(120, 60)]).unwrap();
        assert_eq!(epochs.at(119).period.seconds(), 30);
        assert_eq!(epochs.at(120).period.seconds(), 60);
        let last_old = Round::new(90, Period::new(30).unwrap()).unwrap();
        assert_eq!(epochs.next(last_old).period().seconds(), 60);
        assert_eq!(epochs.previous(epochs.next(last_old)), Some(last_old));
        assert_eq!(epochs.rounds_between(30, 240), 3 + 2);
        assert_eq!(epochs.rounds_between(120, 120), 0);
    }

    #[test]
    fn an_epoch_survives_the_wire_and_bad_ones_do_not() {
        let good = epoch(60, 30);
        let wire = v1::Epoch::from(&good);
        assert_eq!(Epoch::try_from(&wire).unwrap(), good);
        assert!(Epoch::try_from(&v1::Epoch { method: "guess".into(), ..wire.clone() }).is_err());
        assert!(Epoch::try_from(&v1::Epoch { direct_attempts: 0, ..wire.clone() }).is_err());
        assert!(Epoch::try_from(&v1::Epoch { start_unix_s: 61, ..wire }).is_err());
    }
}
