//! Instants, durations and rounds as people write them.
//!
//! Pure: what is relative stays so until it is said, by the aggregator's own clock, what it is
//! relative to. Owns the bounds, so that a mistyped year is told and not searched.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime};
use uptime_client::v1::Freshness;

use crate::fresh::closed_end_s;
use crate::text::{counted, second, span, stamp};

/// Rounds are named by unix seconds, which begin then.
const YEAR_MIN: i32 = 1970;
/// Nobody asks about later years on purpose.
const YEAR_MAX: i32 = 2199;
/// The first second after them.
const UNIX_S_END: u64 = 7_258_118_400;
/// Longer than any network has been watched: a hundred years.
const SPAN_S_MAX: u64 = 36_525 * DAY_S;
/// Digits alone are unix seconds from here on (March 1973); `2026` is a year that lacks its day.
const BARE_UNIX_S_MIN: u64 = 100_000_000;
const DAY_S: u64 = 86_400;

/// An instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeArgument {
    /// This unix second.
    At(u64),
    /// So many seconds before the answer.
    Ago(u64),
}

/// A round, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoundChoice {
    /// So many before the last closed one.
    Back(u64),
    /// The one this instant lies in.
    Of(TimeArgument),
}

impl TimeArgument {
    /// The unix second, if the answer was given then.
    pub(crate) fn unix_s(self, answered_at_s: u64) -> u64 {
        match self {
            Self::At(unix_s) => unix_s,
            Self::Ago(seconds) => answered_at_s.saturating_sub(seconds),
        }
    }
}

impl RoundChoice {
    /// The start of the round; `None`: the last closed one.
    pub(crate) fn start_unix_s(self, fresh: &Freshness) -> Result<Option<u64>, String> {
        let closed_s = fresh.last_closed_round_unix_s;
        let period_s = u64::from(fresh.round_period_s).max(1);
        match self {
            Self::Back(0) => Ok(None),
            Self::Back(_) if closed_s == 0 => Err("no round has closed yet".to_owned()),
            Self::Back(rounds) => {
                let start_s = closed_s.checked_sub(rounds.saturating_mul(period_s));
                let start_s = start_s.filter(|start_s| *start_s >= fresh.epoch_start_unix_s);
                start_s.map(Some).ok_or_else(|| {
                    format!(
                        "{} before the last is before {}, since when rounds are {} long: give the \
                         time instead",
                        counted(rounds, "round"),
                        stamp(fresh.epoch_start_unix_s),
                        span(period_s)
                    )
                })
            }
            Self::Of(time) => {
                let unix_s = time.unix_s(second(fresh.answered_at_unix_ms));
                if unix_s >= closed_end_s(fresh) {
                    return Err(match closed_s {
                        0 => "no round has closed yet".to_owned(),
                        _ => format!(
                            "the round of {} has not closed yet; the last closed one is that of {}",
                            stamp(unix_s),
                            stamp(closed_s)
                        ),
                    });
                }
                // How long rounds were before the present rules is not known here.
                let known = unix_s >= fresh.epoch_start_unix_s;
                Ok(Some(if known { unix_s - unix_s % period_s } else { unix_s }))
            }
        }
    }
}

/// Reads a round: `last`, `-3`, or an instant.
pub(crate) fn round(text: &str) -> Result<RoundChoice, String> {
    let text = text.trim();
    if text == "last" {
        return Ok(RoundChoice::Back(0));
    }
    if let Some(digits) = text.strip_prefix('-') {
        let rounds = digits.parse().map_err(|_| "-N is N rounds before the last, as -3")?;
        return Ok(RoundChoice::Back(rounds));
    }
    let of = time_argument(text).map(RoundChoice::Of);
    of.map_err(|fault| format!("{fault}; or as `last` or -3"))
}

/// Reads a duration, in whole seconds: `90s`, `15 min`, `3h`, `7d`, `2w`, `1d 12h`.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    let wanted = || format!("{text:?} is no duration; write it as 90s, 15m, 3h, 7d or 2w");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wanted());
    }
    let mut seconds = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wanted)?;
        let (count, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|letter: char| !letter.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit_s = match unit {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600,
            "d" | "day" | "days" => DAY_S,
            "w" | "week" | "weeks" => 7 * DAY_S,
            _ => return Err(wanted()),
        };
        let count: u64 = count.parse().map_err(|_| wanted())?;
        seconds = seconds.saturating_add(count.saturating_mul(unit_s));
        rest = after.trim_start();
    }
    if seconds > SPAN_S_MAX {
        return Err(format!("{text:?} is longer than {}, the longest taken", span(SPAN_S_MAX)));
    }
    Ok(seconds)
}

/// Reads an instant: `2026-01-01`, `2026-01-01T12:00Z`, `3 days ago`, `7d`, `now`, unix seconds.
pub(crate) fn time_argument(text: &str) -> Result<TimeArgument, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(TimeArgument::Ago(0));
    }
    if let Some(span) = text.strip_suffix("ago") {
        return duration(span).map(TimeArgument::Ago);
    }
    let digits = text.strip_prefix('@').unwrap_or(text);
    if !digits.is_empty() && digits.chars().all(|letter| letter.is_ascii_digit()) {
        return unix_s(digits, digits.len() < text.len());
    }
    if text.starts_with(|letter: char| letter.is_ascii_digit()) && !text.contains('-') {
        return duration(text).map(TimeArgument::Ago);
    }
    stamped(text)
}

fn unix_s(digits: &str, marked: bool) -> Result<TimeArgument, String> {
    match digits.parse::<u64>() {
        Ok(unix_s) if unix_s < BARE_UNIX_S_MIN && !marked => Err(format!(
            "{digits} is no time; write a day as 2026-01-31, a unix second as @{digits}"
        )),
        Ok(unix_s) if unix_s < UNIX_S_END => Ok(TimeArgument::At(unix_s)),
        Ok(unix_s) if unix_s / 1000 < UNIX_S_END => {
            Err(format!("{digits} unix seconds lie after {YEAR_MAX}; milliseconds are not taken"))
        }
        _ => Err(format!("{digits} unix seconds lie after {YEAR_MAX}")),
    }
}

/// A day, or a day and a time of it, with a zone or in UTC.
fn stamped(text: &str) -> Result<TimeArgument, String> {
    let wanted = || {
        format!(
            "{text:?} is no time; write it as 2026-01-31, 2026-01-31T12:00Z, '3 days ago', 7d or \
             1769862870 (unix seconds)"
        )
    };
    let (day, time) = match text.split_once(['T', 't', ' ']) {
        Some((day, time)) => (day, time.trim()),
        None => (text, "00:00"),
    };
    let day = NaiveDate::parse_from_str(day, "%Y-%m-%d").map_err(|_| wanted())?;
    let (time, offset) = zone(time).ok_or_else(wanted)?;
    let formats = ["%H:%M", "%H:%M:%S", "%H:%M:%S%.f"];
    let time = formats.iter().find_map(|format| NaiveTime::parse_from_str(time, format).ok());
    let local = NaiveDateTime::new(day, time.ok_or_else(wanted)?);
    if !(YEAR_MIN..=YEAR_MAX).contains(&day.year()) {
        return Err(format!(
            "the year {} is out of reach: {YEAR_MIN} to {YEAR_MAX} are taken",
            day.year()
        ));
    }
    let instant: DateTime<FixedOffset> =
        local.and_local_timezone(offset).single().ok_or_else(wanted)?;
    // The first hours of 1970 may lie before it, in UTC.
    u64::try_from(instant.timestamp()).map(TimeArgument::At).map_err(|_| wanted())
}

/// Takes the zone off a time of day; none is UTC.
fn zone(time: &str) -> Option<(&str, FixedOffset)> {
    let utc = FixedOffset::east_opt(0)?;
    for suffix in ["Z", "z", "UTC"] {
        if let Some(time) = time.strip_suffix(suffix) {
            return Some((time.trim_end(), utc));
        }
    }
    let Some(at) = time.rfind(['+', '-']) else {
        return Some((time, utc));
    };
    let (time, offset) = time.split_at(at);
    Some((time.trim_end(), offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fresh::tests::fresh;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("15 min", 900),
            ("3h", 10_800),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1d 12h", 129_600),
            ("1d12h", 129_600),
            ("3 days", 259_200),
            ("1 hour 5 minutes", 3_900),
            ("0s", 0),
            ("36525d", SPAN_S_MAX),
        ] {
            assert_eq!(duration(text), Ok(seconds), "{text}");
        }
        for bad in ["", " ", "d", "7", "7 x", "-7d", "1.5h", "7d-", "3 months", "1y", "٣d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for long in ["36526d", "99999999999999999999d", "18446744073709551615w"] {
            assert!(duration(long).is_err(), "{long}");
        }
    }

    #[test]
    fn instants_are_read_as_people_write_them() {
        for (text, unix_s) in [
            ("2026-01-31", 1_769_817_600),
            ("2026-01-31T12:34Z", 1_769_862_840),
            ("2026-01-31T12:34:30Z", 1_769_862_870),
            ("2026-01-31 12:34:30 UTC", 1_769_862_870),
            ("2026-01-31 12:34", 1_769_862_840),
            ("2026-01-31T13:34:30.250+01:00", 1_769_862_870),
            ("2026-01-31T13:34:30 +0100", 1_769_862_870),
            ("2026-01-31T11:34:30-01:00", 1_769_862_870),
            ("1769862870", 1_769_862_870),
            ("@0", 0),
            ("1970-01-01", 0),
            ("2199-12-31T23:59:59Z", UNIX_S_END - 1),
        ] {
            assert_eq!(time_argument(text), Ok(TimeArgument::At(unix_s)), "{text}");
        }
        for (text, seconds) in [
            ("now", 0),
            ("3 days ago", 259_200),
            ("3d ago", 259_200),
            ("90s", 90),
            (" 7d ", 604_800),
        ] {
            assert_eq!(time_argument(text), Ok(TimeArgument::Ago(seconds)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_an_instant_is_told_why() {
        for (text, words) in [
            ("", "is no time"),
            ("yesterday", "is no time"),
            ("2026", "write a day as 2026-01-31"),
            ("2026-13-01", "is no time"),
            ("2026-02-30", "is no time"),
            ("2026-01-31T25:00Z", "is no time"),
            ("2026-01-31T12:00+99:00", "is no time"),
            ("9999-12-31", "the year 9999 is out of reach: 1970 to 2199"),
            ("0001-01-01", "the year 1 is out of reach"),
            ("1769862870000", "milliseconds are not taken"),
            ("99999999999999999999", "lie after 2199"),
            ("5 fortnights ago", "is no duration"),
            ("ago", "is no duration"),
            ("12:00", "is no duration"),
        ] {
            let fault = time_argument(text).unwrap_err();
            assert!(fault.contains(words), "{text}: {fault}");
        }
    }

    #[test]
    fn rounds_are_found_by_name_by_count_and_by_time() {
        let closed_s = fresh().last_closed_round_unix_s;
        for (text, start_s) in [
            ("last", None),
            ("-0", None),
            ("-1", Some(closed_s - 30)),
            ("-120", Some(closed_s - 3_600)),
            ("2026-01-31 12:34:30 UTC", Some(closed_s)),
            ("2026-01-31T12:34:59Z", Some(closed_s)),
            ("1769862869", Some(closed_s - 30)),
            ("1h ago", Some(closed_s - 3_570)),
        ] {
            let choice = round(text).unwrap();
            assert_eq!(choice.start_unix_s(&fresh()), Ok(start_s), "{text}");
        }
        for (text, words) in [
            ("now", "has not closed yet; the last closed one is that of 2026-01-31 12:34:30"),
            ("2026-01-31T12:35Z", "has not closed yet"),
            ("-99999999999", "give the time instead"),
        ] {
            let fault = round(text).unwrap().start_unix_s(&fresh()).unwrap_err();
            assert!(fault.contains(words), "{text}: {fault}");
        }
        for bad in ["first", "-", "-x", "--3", "9999-01-01"] {
            assert!(round(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rounds_before_the_present_rules_are_left_to_the_aggregator() {
        let fresh = Freshness { epoch_start_unix_s: 1_769_860_800, ..fresh() };
        let of = |text| round(text).unwrap().start_unix_s(&fresh);
        assert_eq!(of("1769860799"), Ok(Some(1_769_860_799)));
        assert_eq!(of("-69"), Ok(Some(1_769_860_800)));
        assert!(of("-70").unwrap_err().contains("since when rounds are 30 s long"));
        let none = Freshness { last_closed_round_unix_s: 0, ..fresh.clone() };
        for text in ["-1", "now", "2026-01-31"] {
            let fault = round(text).unwrap().start_unix_s(&none).unwrap_err();
            assert_eq!(fault, "no round has closed yet", "{text}");
        }
    }
}
