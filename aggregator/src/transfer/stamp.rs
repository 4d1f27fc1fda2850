//! Instants as people and programs write them.
//!
//! Pure. Owns which forms are taken and what a local time means that a clock shows twice, or never,
//! when it is set forward or back. Refuses to guess a time zone: it is told.

use chrono::{DateTime, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime};
use chrono::{TimeDelta, TimeZone};
use chrono_tz::Tz;

/// Longer texts are no instants: the longest is `2026-01-31 12:34:56.123456789+01:00:00`.
const STAMP_BYTES_MAX: usize = 64;
/// Years that can be written again in any offset, with four digits.
const YEARS: std::ops::RangeInclusive<u32> = 1900..=9998;

/// How a text was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It means one instant.
    Plain,
    /// The clock showed it twice; the earlier was taken.
    Ambiguous,
    /// The clock skipped it; it was moved forward by as much as the clock was.
    Skipped,
}

/// An instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Unix milliseconds, what is finer cut off.
    pub unix_ms: i64,
    /// How it was read.
    pub reading: Reading,
}

/// Reads `2026-01-31 12:34:56.789012` or with a `T`, with or without the fraction. What carries an
/// offset (`Z`, `+01:00`) is read by that, everything else in the zone.
///
/// # Errors
/// What is wrong with it.
pub fn read(text: &str, zone: Tz) -> Result<Stamp, &'static str> {
    const WANTED: &str = "a stamp as 2026-01-31 12:34:56.789012 is wanted";
    if text.len() > STAMP_BYTES_MAX || !text.is_ascii() {
        return Err(WANTED);
    }
    let (date, rest) = text.split_at_checked(10).ok_or(WANTED)?;
    let date = read_date(date).ok_or("no date of the calendar, as 2026-01-31")?;
    let rest = rest.strip_prefix([' ', 'T']).ok_or(WANTED)?;
    let end = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (time, offset) = rest.split_at(end);
    let time = read_time(time).ok_or("no time of the day, as 12:34:56.789012")?;
    let local = NaiveDateTime::new(date, time);
    let (instant, reading) = if offset.is_empty() {
        resolve(local, zone).ok_or("a local time this time zone does not have")?
    } else {
        let offset = read_offset(offset).ok_or("no offset from UTC, as +01:00")?;
        let instant = offset.from_local_datetime(&local).single().ok_or(WANTED)?;
        (instant.to_utc(), Reading::Plain)
    };
    Ok(Stamp { unix_ms: instant.timestamp_millis(), reading })
}

/// A date: its first instant in UTC, unix milliseconds.
#[must_use]
pub fn read_day(text: &str) -> Option<i64> {
    let midnight = read_date(text)?.and_time(NaiveTime::MIN);
    Some(midnight.and_utc().timestamp_millis())
}

/// So many digits and nothing else, as a number.
fn digits(text: &str, count: usize) -> Option<u32> {
    let good = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| text.parse().ok()).flatten()
}

/// `a-b-c` or the like, with two-digit parts after the first.
fn parts(text: &str, between: char) -> impl Iterator<Item = Option<u32>> + '_ {
    text.split(between).map(|part| digits(part, 2))
}

fn read_date(text: &str) -> Option<NaiveDate> {
    let (year, rest) = text.split_once('-')?;
    let mut rest = parts(rest, '-');
    let (month, day, end) = (rest.next()??, rest.next()??, rest.next());
    let year = i32::try_from(digits(year, 4).filter(|year| YEARS.contains(year))?).ok()?;
    end.is_none().then(|| NaiveDate::from_ymd_opt(year, month, day)).flatten()
}

fn read_time(text: &str) -> Option<NaiveTime> {
    let (text, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut clock = parts(text, ':');
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if clock.next().is_some() || !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let missing = u32::try_from(9 - fraction.len()).ok()?;
    let nanos = digits(fraction, fraction.len())? * 10u32.pow(missing);
    NaiveTime::from_hms_nano_opt(hour, minute, second, nanos)
}

fn read_offset(text: &str) -> Option<FixedOffset> {
    if text == "Z" {
        return FixedOffset::east_opt(0);
    }
    let (sign, text) = text.split_at_checked(1)?;
    let mut clock = parts(text, ':');
    let (hour, minute) = (clock.next()??, clock.next()??);
    let second = clock.next().unwrap_or(Some(0))?;
    if clock.next().is_some() || minute > 59 || second > 59 {
        return None;
    }
    let seconds = i32::try_from(hour * 3_600 + minute * 60 + second).ok()?;
    match sign {
        "+" => FixedOffset::east_opt(seconds),
        "-" => FixedOffset::west_opt(seconds),
        _ => None,
    }
}

/// How far back the offset is looked for that held before a skipped time, and in which steps: the
/// longest skip on record was a whole day.
const SKIP_STEPS_MAX: i32 = 26 * 4;
const SKIP_STEP: TimeDelta = TimeDelta::minutes(15);

fn resolve(local: NaiveDateTime, zone: Tz) -> Option<(DateTime<chrono::Utc>, Reading)> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(instant) => Some((instant.to_utc(), Reading::Plain)),
        LocalResult::Ambiguous(earlier, _) => Some((earlier.to_utc(), Reading::Ambiguous)),
        LocalResult::None => (1..=SKIP_STEPS_MAX).find_map(|step| {
            let back = SKIP_STEP * step;
            let before = zone.from_local_datetime(&local.checked_sub_signed(back)?).latest()?;
            // With the offset from before the skip, so that it lands as far behind it as it lay in.
            Some((before.to_utc().checked_add_signed(back)?, Reading::Skipped))
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::publish::utc_stamp;

    fn utc(text: &str, zone: Tz) -> (String, Reading) {
        let stamp = read(text, zone).unwrap();
        (utc_stamp(stamp.unix_ms).replace("000+00:00", ""), stamp.reading)
    }

    #[test]
    fn stamps_as_the_script_and_others_write_them() {
        let plain = |text: &str| (text.to_owned(), Reading::Plain);
        for (text, wanted) in [
            ("2026-01-31 12:34:56.789012", "2026-01-31T11:34:56.789"),
            ("2026-01-31T12:34:56", "2026-01-31T11:34:56.000"),
            ("2026-07-31 12:34:56.7", "2026-07-31T10:34:56.700"),
            ("2026-01-31T12:34:56.789012+00:00", "2026-01-31T12:34:56.789"),
            ("2026-01-31 12:34:56Z", "2026-01-31T12:34:56.000"),
            ("2026-01-31 12:34:56-05:30", "2026-01-31T18:04:56.000"),
            ("2026-01-31 12:34:56+01:00:30", "2026-01-31T11:34:26.000"),
            // Midnight of a leap day, and what is finer than a millisecond is cut off.
            ("2024-02-29 00:00:00.999999999", "2024-02-28T23:00:00.999"),
        ] {
            assert_eq!(utc(text, Tz::Europe__Warsaw), plain(wanted), "{text}");
        }
        assert_eq!(read("1969-12-31 23:59:59.9999", Tz::UTC).unwrap().unix_ms, -1);
    }

    #[test]
    fn what_the_clock_shows_twice_or_never() {
        let warsaw = Tz::Europe__Warsaw;
        let (twice, never) = (Reading::Ambiguous, Reading::Skipped);
        for (zone, text, wanted, reading) in [
            (warsaw, "2025-10-26 02:30:00", "2025-10-26T00:30:00.000", twice),
            (warsaw, "2025-10-26 01:59:59", "2025-10-25T23:59:59.000", Reading::Plain),
            (warsaw, "2025-10-26 03:00:00", "2025-10-26T02:00:00.000", Reading::Plain),
            // At two the clock was set to three: half past two is half past three.
            (warsaw, "2026-03-29 02:30:00.25", "2026-03-29T01:30:00.250", never),
            (warsaw, "2026-03-29 02:00:00", "2026-03-29T01:00:00.000", never),
            (warsaw, "2026-03-29 03:00:00", "2026-03-29T01:00:00.000", Reading::Plain),
            // Half an hour only.
            (Tz::Australia__Lord_Howe, "2025-10-05 02:10:00", "2025-10-04T15:40:00.000", never),
            // A whole day, from ten hours behind UTC to fourteen ahead.
            (Tz::Pacific__Apia, "2011-12-30 12:00:00", "2011-12-30T22:00:00.000", never),
        ] {
            assert_eq!(utc(text, zone), (wanted.to_owned(), reading), "{text}");
        }
    }

    #[test]
    fn what_is_no_stamp_is_refused() {
        let long = format!("2026-01-31 12:34:56.{}", "1".repeat(64));
        for text in [
            "",
            "2026-01-31",
            "2026-01-31 12:34",
            "2026-02-30 12:34:56",
            "1899-12-31 12:34:56",
            "9999-01-01 12:34:56",
            "2026-1-31 12:34:56",
            "+026-01-31 12:34:56",
            "2026-01-31x12:34:56",
            "2026-01-31 24:00:00",
            "2026-01-31 12:34:60",
            "2026-01-31 12:34:56.",
            "2026-01-31 12:34:56.1234567890",
            "2026-01-31 12:34:56 ",
            "2026-01-31 12:34:56+",
            "2026-01-31 12:34:56+1",
            "2026-01-31 12:34:56+24:00",
            "2026-01-31 12:34:56+01:60",
            "2026-01-31 12:34:56Zulu",
            "2026-01-31\u{a0}12:34:56",
            "1769862896",
            long.as_str(),
        ] {
            assert!(read(text, Tz::UTC).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9T:. Z+]{0,40}|\\PC{0,80}") {
            for zone in [Tz::UTC, Tz::Pacific__Apia] {
                read(&text, zone).ok();
            }
            std::hint::black_box(read_day(&text));
        }

        #[test]
        fn what_is_written_is_read(ms in -2_000_000_000_000i64..10_000_000_000_000) {
            let wanted = Ok(Stamp { unix_ms: ms, reading: Reading::Plain });
            prop_assert_eq!(read(&utc_stamp(ms), Tz::Asia__Tokyo), wanted);
            let naive = utc_stamp(ms).replace("+00:00", "").replace('T', " ");
            prop_assert_eq!(read(&naive, Tz::UTC), wanted);
        }
    }
}
