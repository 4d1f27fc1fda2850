//! The rules that decide verdicts: which of them an operator may set, and what a change of them
//! makes of the epochs.
//!
//! Owns the names of these settings and the moment a change begins. Pure. Refuses to touch an epoch
//! that has begun; the time is passed in.

pub mod commands;

use std::path::Path;

use uptime_proto::settings::Settings;
use uptime_proto::{Epoch, Period, v1};

use crate::publish::utc_stamp;

/// A change begins at most so many seconds after it was made: three of the longest rounds, and the
/// way to the next start of a UTC day, which is on every grid.
const AHEAD_S_MAX: u64 = 4 * 86_400;

/// One setting that is part of the rules.
#[derive(Debug)]
pub struct Rule {
    /// The long name of its flag. Its unit stands last.
    pub name: &'static str,
    field: fn(&mut v1::Epoch) -> &mut u32,
}

/// All of them. What each may be is the vocabulary's to say: see [`Epoch`].
pub const RULES: [Rule; 6] = [
    Rule { name: "round-period-s", field: |epoch| &mut epoch.round_period_s },
    Rule { name: "grace-s", field: |epoch| &mut epoch.grace_s },
    Rule { name: "positive-probes-min", field: |epoch| &mut epoch.positive_probes_min },
    Rule { name: "freshness-s", field: |epoch| &mut epoch.freshness_s },
    Rule { name: "relay-session-age-min-s", field: |epoch| &mut epoch.relay_session_age_min_s },
    Rule { name: "direct-timeout-ms", field: |epoch| &mut epoch.direct_timeout_ms },
];

impl Rule {
    /// Its value in these rules.
    #[must_use]
    pub fn of(&self, rules: &Epoch) -> u32 {
        *(self.field)(&mut v1::Epoch::from(rules))
    }

    /// Reads a value, as it is typed.
    ///
    /// # Errors
    /// What it may be instead.
    pub fn read(&self, text: &str) -> Result<u32, String> {
        let value = text.parse().map_err(|_| "a whole number is wanted".to_owned())?;
        let mut wire = v1::Epoch::from(&Epoch::with_defaults(Period::DEFAULT));
        *(self.field)(&mut wire) = value;
        Epoch::try_from(&wire).map_err(|error| error.to_string())?;
        Ok(value)
    }
}

/// Values of some of the [`RULES`]: those that somebody named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GivenRules([Option<u32>; RULES.len()]);

impl GivenRules {
    /// Reads what settings say of them. Faults stay with the settings.
    pub fn read(settings: &mut Settings) -> Self {
        Self(RULES.each_ref().map(|rule| settings.optional(rule.name, |text| rule.read(text))))
    }

    /// These rules with the values that are given, from the same start on.
    #[must_use]
    pub fn over(&self, rules: &Epoch) -> Epoch {
        // The start may be off the grid of another period.
        let mut wire = v1::Epoch { start_unix_s: 0, ..v1::Epoch::from(rules) };
        for (rule, value) in RULES.iter().zip(self.0) {
            let field = (rule.field)(&mut wire);
            *field = value.unwrap_or(*field);
        }
        // Each value was read, and none depends on another.
        let changed = Epoch::try_from(&wire).unwrap_or_else(|_| rules.clone());
        Epoch { start_s: rules.start_s, ..changed }
    }
}

/// A rule of which two epochs have different values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The name of the setting.
    pub name: &'static str,
    /// Its value in the first.
    pub first: u32,
    /// Its value in the second.
    pub second: u32,
}

/// The rules of which two epochs have different values.
#[must_use]
pub fn differences(first: &Epoch, second: &Epoch) -> Vec<Difference> {
    let both = RULES.iter().map(|rule| {
        let (first, second) = (rule.of(first), rule.of(second));
        Difference { name: rule.name, first, second }
    });
    both.filter(|it| it.first != it.second).collect()
}

/// The command that gives these rules the second values.
fn command(differences: &[Difference], data_dir: &Path) -> String {
    let flags: Vec<String> =
        differences.iter().map(|it| format!("--{} {}", it.name, it.second)).collect();
    format!("uptime-aggregator rules set {} --data-dir {}", flags.join(" "), data_dir.display())
}

/// What is said where settings of serve are not the rules that are stored last; `None`: all of them
/// are. Settings that nobody named say nothing.
#[must_use]
pub fn differing(given: &GivenRules, stored: &Epoch, data_dir: &Path) -> Option<String> {
    let differences = differences(stored, &given.over(stored));
    if differences.is_empty() {
        return None;
    }
    let each: Vec<String> = differences
        .iter()
        .map(|it| format!("--{} is {} in the store and {} here", it.name, it.first, it.second))
        .collect();
    Some(format!(
        "settings differ from the stored rules, which stay: {}; to change the rules: {}",
        each.join(", "),
        command(&differences, data_dir)
    ))
}

/// What is said where rules are announced for later than any announcement made now could be, as by
/// a clock that was wrong; `None`: there are none such.
#[must_use]
pub fn far_ahead(epochs: &[Epoch], now_ms: i64, data_dir: &Path) -> Option<String> {
    let (first, last) = (epochs.first()?, epochs.last()?);
    let now_s = second_of(now_ms);
    if last.start_s <= now_s.saturating_add(AHEAD_S_MAX) {
        return None;
    }
    let in_force = epochs.iter().rev().find(|epoch| epoch.start_s <= now_s).unwrap_or(first);
    Some(format!(
        "rules are announced for {}, later than any change made now would begin: this clock, or \
         the one at that time, is wrong; once this clock is right, this lets them begin soon: {}",
        stamp(last.start_s),
        command(&differences(in_force, last), data_dir)
    ))
}

/// What a change makes of the epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// So many of them stay, from the first on: those that have begun.
    pub kept: usize,
    /// What follows in the place of the others; `None`: the rules in force are those wanted.
    pub epoch: Option<Epoch>,
}

/// How the rules wanted come into force; `None`: nothing is to be done, or there are no epochs.
///
/// Epochs that have not begun are replaced. The new one starts on the grids of both periods, at
/// least two rounds ahead, so that everybody learns of it before. One that is announced already
/// stays, unless it would begin earlier if it were announced now, as after a wrong clock.
#[must_use]
pub fn plan(there: &[Epoch], wanted: &Epoch, now_ms: i64) -> Option<Planned> {
    let now_s = second_of(now_ms);
    let kept = there.partition_point(|epoch| epoch.start_s <= now_s).max(1);
    let in_force = there.get(kept - 1)?;
    let last = there.last()?;
    let same = |epoch: &Epoch| Epoch { start_s: epoch.start_s, ..wanted.clone() } == *epoch;
    let epoch = (!same(in_force)).then(|| following(in_force, wanted, now_s));
    let soon = epoch.as_ref().is_some_and(|epoch| last.start_s <= epoch.start_s);
    if same(last) && (kept == there.len() || soon) {
        return None;
    }
    Some(Planned { kept, epoch })
}

/// The rules wanted as the epoch that follows the one in force.
fn following(in_force: &Epoch, wanted: &Epoch, now_s: u64) -> Epoch {
    let (old, new) = (u64::from(in_force.period.seconds()), u64::from(wanted.period.seconds()));
    // Both divide the day, so the day's grid is common to both; a smaller one often is, too.
    let both = (1..).map(|n| n * old).find(|step| step.is_multiple_of(new)).unwrap_or(old * new);
    let earliest = now_s.max(in_force.start_s) + 2 * old.max(new) + old;
    Epoch { start_s: earliest.next_multiple_of(both), ..wanted.clone() }
}

fn second_of(unix_ms: i64) -> u64 {
    u64::try_from(unix_ms.div_euclid(1000)).unwrap_or(0)
}

/// A moment in unix seconds as people read it.
fn stamp(unix_s: u64) -> String {
    utc_stamp(i64::try_from(unix_s.saturating_mul(1000)).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "rules/tests.rs"]
mod tests;
