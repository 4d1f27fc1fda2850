//! Times as yagna's command line writes them.
//!
//! Owns reading two texts, exactly: a moment, `2026-11-23 21:24:17 UTC`, and a span, `8m 17s`.
//! Anything else is nothing; a time half understood would make evidence of a guess.

use std::time::Duration;

/// Longer texts are not looked at; the longest span of all units has 53 bytes.
const SPAN_BYTES_MAX: usize = 64;

const DAY_S: i64 = 86_400;

/// The units of a span, the larger first, with their nanoseconds. Months and years are those of
/// the crate yagna writes spans with: 30.44 and 365.25 days.
const UNITS: [(&str, &str, u64); 9] = [
    ("year", "years", 31_557_600_000_000_000),
    ("month", "months", 2_630_016_000_000_000),
    ("day", "days", 86_400_000_000_000),
    ("h", "h", 3_600_000_000_000),
    ("m", "m", 60_000_000_000),
    ("s", "s", 1_000_000_000),
    ("ms", "ms", 1_000_000),
    ("us", "us", 1_000),
    ("ns", "ns", 1),
];

/// Unix seconds of a moment such as `2026-11-23 21:24:17 UTC`, in the years 1970 to 9999.
pub(super) fn parse_utc(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix(" UTC")?.split_once(' ')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let fits = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    fits.then(|| days_since_1970(year, month, day) * DAY_S + hour * 3_600 + minute * 60 + second)
}

/// Three numbers of exactly so many digits each.
fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut numbers = [0; 3];
    let mut parts = text.split(separator);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        let plain = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = if plain { part.parse().ok()? } else { return None };
    }
    parts.next().is_none().then_some(numbers)
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    // 719,162 days lie between the first day of year 1 and that of 1970.
    let years = before * 365 + before / 4 - before / 100 + before / 400 - 719_162;
    let months: i64 = (1..month).map(|month| days_in_month(year, month)).sum();
    years + months + day - 1
}

/// A span such as `8m 17s`, `1h 2m`, `5ms` or `0s`: units in their order, none twice.
pub(super) fn parse_span(text: &str) -> Option<Duration> {
    if text.is_empty() || text.len() > SPAN_BYTES_MAX {
        return None;
    }
    let mut units = UNITS.iter();
    let mut nanos = 0_u64;
    for part in text.split(' ') {
        let end = part.find(|digit: char| !digit.is_ascii_digit())?;
        let (number, unit) = part.split_at(end);
        let number: u64 = number.parse().ok()?;
        let (_, _, worth) = units.find(|(one, many, _)| [*one, *many].contains(&unit))?;
        nanos = nanos.checked_add(number.checked_mul(*worth)?)?;
    }
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments() {
        for (text, expected) in [
            ("1970-01-01 00:00:00 UTC", Some(0)),
            ("1999-12-31 23:59:59 UTC", Some(946_684_799)),
            ("2000-02-29 00:00:00 UTC", Some(951_782_400)),
            ("2000-03-01 00:00:00 UTC", Some(951_868_800)),
            ("2024-02-29 12:00:00 UTC", Some(1_709_208_000)),
            ("2026-11-23 21:24:17 UTC", Some(1_795_469_057)),
            ("2038-01-19 03:14:08 UTC", Some(2_147_483_648)),
            ("2100-03-01 00:00:00 UTC", Some(4_107_542_400)),
            ("9999-12-31 23:59:59 UTC", Some(253_402_300_799)),
            ("2100-02-29 00:00:00 UTC", None),
            ("2026-02-29 00:00:00 UTC", None),
            ("2026-04-31 00:00:00 UTC", None),
            ("2026-00-10 00:00:00 UTC", None),
            ("2026-13-10 00:00:00 UTC", None),
            ("2026-11-00 00:00:00 UTC", None),
            ("2026-11-23 24:00:00 UTC", None),
            ("2026-11-23 21:60:17 UTC", None),
            ("2026-11-23 21:24:60 UTC", None),
            ("1969-12-31 23:59:59 UTC", None),
            ("2026-11-23 21:24:17", None),
            ("2026-11-23T21:24:17Z", None),
            ("2026-11-23 21:24:17 CET", None),
            ("2026-11-23 21:24:17.5 UTC", None),
            ("2026-11-23 21:24:17 UTC ", None),
            (" 2026-11-23 21:24:17 UTC", None),
            ("2026-11-3 21:24:17 UTC", None),
            ("2026-11-23 +1:24:17 UTC", None),
            ("２026-11-23 21:24:17 UTC", None),
            ("26-11-23 21:24:17 UTC", None),
            ("2026-11-23-01 21:24:17 UTC", None),
            ("", None),
            (" UTC", None),
        ] {
            assert_eq!(parse_utc(text), expected, "{text:?}");
        }
    }

    /// Every day of 1970 to 2400 is a day after the one before it.
    #[test]
    fn days_follow_each_other() {
        let mut expected = 0;
        for year in 1970..=2400 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    let text = format!("{year}-{month:02}-{day:02} 00:00:00 UTC");
                    assert_eq!(parse_utc(&text), Some(expected), "{text}");
                    expected += DAY_S;
                }
            }
        }
    }

    #[test]
    fn spans() {
        let day = 86_400;
        for (text, expected_s) in [
            ("0s", Some(0)),
            ("8m 17s", Some(497)),
            ("1m", Some(60)),
            ("1h 2m 3s", Some(3_723)),
            ("1day 3s", Some(day + 3)),
            ("2days", Some(2 * day)),
            ("1month 1day", Some(2_630_016 + day)),
            ("2years 3months", Some(2 * 31_557_600 + 3 * 2_630_016)),
            ("1s 500ms", None), // not whole seconds, see below
            ("", None),
            ("5", None),
            ("s", None),
            ("5 s", None),
            ("5x", None),
            ("-5s", None),
            ("1.5s", None),
            ("5s 1m", None),
            ("5s 5s", None),
            ("5s  1ms", None),
            ("99999999999years", None),
            ("99999999999999999999s", None),
        ] {
            let whole = parse_span(text).filter(|span| span.subsec_nanos() == 0);
            assert_eq!(whole.map(|span| span.as_secs()), expected_s, "{text:?}");
        }
        assert_eq!(parse_span("1s 500ms"), Some(Duration::from_millis(1_500)));
        assert_eq!(parse_span("7us 1ns"), Some(Duration::from_nanos(7_001)));
        assert_eq!(parse_span(&"1s".repeat(100)), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}", near in "[0-9 :UTCdhms-]{0,30}") {
            for text in [text, near] {
                let moment = parse_utc(&text);
                prop_assert!(moment.is_none_or(|moment| moment >= 0));
                let span = parse_span(&text);
                prop_assert!(span.is_none() || !text.is_empty());
            }
        }
    }
}
