//! Settings of both daemons: which text wins, and everything that is wrong with any of them.
//!
//! Owns the order flag (or environment), file, default, and the gathering of faults, so that an
//! operator sees all of them at once. Refuses to read files or the environment: texts come in.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// Texts by the long name of their flag, as `round-period-s`; a list has several.
pub type Texts = BTreeMap<String, Vec<String>>;

/// Settings being read.
#[derive(Debug, Default)]
pub struct Settings {
    flags: Texts,
    file: Texts,
    faults: Vec<String>,
}

impl Settings {
    /// Settings from flags (which win) and from a file, whose keys may be written with `_`.
    #[must_use]
    pub fn new(flags: Texts, file: Texts) -> Self {
        let file = file.into_iter().map(|(name, texts)| (name.replace('_', "-"), texts)).collect();
        Self { flags, file, faults: Vec::new() }
    }

    fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let from_file = self.file.remove(name);
        self.flags.remove(name).filter(|texts| !texts.is_empty()).or(from_file)
    }

    /// Notes a fault found elsewhere.
    pub fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    /// A list; empty where nothing is said.
    pub fn many(&mut self, name: &str) -> Vec<String> {
        self.texts(name).unwrap_or_default()
    }

    /// One value where something is said, read and checked by `read`.
    pub fn optional<T>(
        &mut self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let texts = self.texts(name)?;
        let [text] = texts.as_slice() else {
            self.fault(format!("--{name}: one value wanted, {} given", texts.len()));
            return None;
        };
        match read(text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.fault(format!("--{name}: {text:?}: {why}"));
                None
            }
        }
    }

    /// One value, read and checked by `read`, or the default.
    pub fn checked<T>(
        &mut self,
        name: &str,
        default: T,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        self.optional(name, read).unwrap_or(default)
    }

    /// One value of a type that reads itself, or the default.
    pub fn one<T: FromStr<Err: Display>>(&mut self, name: &str, default: T) -> T {
        self.checked(name, default, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// A number within bounds, or the default.
    pub fn number(&mut self, name: &str, default: u64, low: u64, high: u64) -> u64 {
        self.checked(name, default, |text| {
            text.parse()
                .ok()
                .filter(|number| (low..=high).contains(number))
                .ok_or_else(|| format!("a whole number from {low} to {high} is wanted"))
        })
    }

    /// A number of 32 bits within bounds, or the default.
    pub fn number32(&mut self, name: &str, default: u32, low: u32, high: u32) -> u32 {
        let number = self.number(name, u64::from(default), u64::from(low), u64::from(high));
        u32::try_from(number).unwrap_or(default)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All faults, those of names nobody asked for included.
    pub fn finish(mut self) -> Result<(), Vec<String>> {
        let unknown: Vec<String> = self.file.into_keys().collect();
        self.faults.extend(unknown.into_iter().map(|name| {
            format!(
                "{:?} in the configuration file is no setting; see --help",
                name.replace('-', "_")
            )
        }));
        if self.faults.is_empty() { Ok(()) } else { Err(self.faults) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), vec![(*text).to_owned()])).collect()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let flags = texts(&[("round-period-s", "10")]);
        let file = texts(&[("round_period_s", "60"), ("grace_s", "7")]);
        let mut settings = Settings::new(flags, file);
        assert_eq!(settings.number("round-period-s", 30, 1, 86_400), 10);
        assert_eq!(settings.number("grace-s", 5, 0, 60), 7);
        assert_eq!(settings.number("freshness-s", 20, 1, 60), 20);
        assert_eq!(settings.finish(), Ok(()));
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let file = texts(&[("a", "x"), ("b", "99"), ("nonsense", "1")]);
        let mut settings = Settings::new(Texts::new(), file);
        assert_eq!(settings.one("a", 1u8), 1);
        assert_eq!(settings.number("b", 5, 0, 10), 5);
        let faults = settings.finish().err().unwrap_or_default();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[1].contains("from 0 to 10") && faults[2].contains("nonsense"), "{faults:?}");
    }
}
