//! Instants, lengths and windows, as people write and read them.
//!
//! Owns what `window`, `from` and `to` may be, and how seconds, counts and percentages are shown. A
//! window is taken apart here as far as it can be without the ledger: what is reversed, empty or
//! before anything could be recorded is refused, and it is said which. Clipping to what is known is
//! the query service's.

use std::fmt::Write;

use chrono::{DateTime, NaiveDate, Utc};
use uptime_proto::v1;

use super::error::WebError;
use super::query_params::QueryParams;

/// The last second of the year 9999.
const LAST_S: i64 = 253_402_300_799;
/// The first second of the year 1.
const FIRST_S: i64 = -62_135_596_800;
/// The longest window by length: a century.
const SPAN_S_MAX: u64 = 36_525 * 86_400;
/// The longest text of an instant that is looked at.
const INSTANT_BYTES_MAX: usize = 40;

/// The accepted forms of an instant.
const INSTANT_FORMS: &str = "must be a date (2026-01-31), an instant with its zone \
     (2026-01-31T12:00:00Z) or unix seconds, from the year 1 to 9999";
/// The accepted forms of a length.
const SPAN_FORMS: &str = "must be all, or a whole number and a unit (s, min, h, d, w), such as 24h \
     or 30d, up to 36525d";

/// A window by length: the last so many seconds before the last closed round ended; `None`: all.
pub(super) fn span(name: &str, text: &str) -> Result<Option<u64>, WebError> {
    if text == "all" {
        return Ok(None);
    }
    let unit_at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let unit_s: u64 = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(WebError::of(name, SPAN_FORMS)),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit_s));
    match seconds {
        Some(0) => Err(WebError::of(name, "is empty: it must be longer than 0")),
        Some(seconds) if seconds <= SPAN_S_MAX => Ok(Some(seconds)),
        _ => Err(WebError::of(name, SPAN_FORMS)),
    }
}

/// An instant, in unix seconds; those before 1970 are below zero.
pub(super) fn instant(name: &str, text: &str) -> Result<i64, WebError> {
    let error = || WebError::of(name, INSTANT_FORMS);
    if text.len() > INSTANT_BYTES_MAX {
        return Err(error());
    }
    let second = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        date.and_hms_opt(0, 0, 0).map(|midnight| midnight.and_utc().timestamp())
    } else {
        // A plus sign in an address means a blank.
        let text = text.replace(' ', "+");
        DateTime::parse_from_rfc3339(&text).ok().map(|instant| instant.timestamp())
    };
    second.filter(|second| (FIRST_S..=LAST_S).contains(second)).ok_or_else(error)
}

/// The requested window, by length or by its ends [default: all].
pub(super) fn window(params: &QueryParams, closed_end_s: u64) -> Result<v1::Window, WebError> {
    let (from, to) = (params.get("from"), params.get("to"));
    if let Some(text) = params.get("window") {
        if from.or(to).is_some() {
            return Err(WebError::of("window", "give either window, or from and to"));
        }
        let span_s = span("window", text)?;
        let from_unix_s = span_s.map_or(0, |span_s| closed_end_s.saturating_sub(span_s));
        return Ok(v1::Window { from_unix_s, to_unix_s: closed_end_s });
    }
    let from = from.map(|text| instant("from", text)).transpose()?;
    let to = to.map(|text| instant("to", text)).transpose()?;
    if let (Some(from), Some(to)) = (from, to) {
        if from > to {
            return Err(WebError::of("from", "is after to: the window is reversed"));
        }
        if from == to {
            let message = "is the same instant as from: the window is empty (to is exclusive)";
            return Err(WebError::of("to", message));
        }
    }
    // On the wire 0 means that an end was not given, which must not come of one that was.
    if to.is_some_and(|to| to <= 0) {
        let message = "lies before anything could be recorded: the window is empty; leave it out \
             for all up to the last closed round";
        return Err(WebError::of("to", message));
    }
    let second = |end: Option<i64>| end.map_or(0, |end| u64::try_from(end).unwrap_or(0));
    Ok(v1::Window { from_unix_s: second(from), to_unix_s: second(to) })
}

fn utc(unix_s: u64) -> Option<DateTime<Utc>> {
    i64::try_from(unix_s).ok().and_then(|second| DateTime::<Utc>::from_timestamp(second, 0))
}

/// A second as people read it, in UTC.
pub(super) fn stamp(unix_s: u64) -> String {
    utc(unix_s).map_or_else(|| "–".to_owned(), |at| at.format("%Y-%m-%d %H:%M:%S").to_string())
}

/// A second as `<time datetime>` wants it.
pub(super) fn machine_stamp(unix_s: u64) -> String {
    utc(unix_s).map_or_else(String::new, |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The UTC day of a second.
pub(super) fn date(unix_s: u64) -> String {
    utc(unix_s).map_or_else(|| "–".to_owned(), |at| at.format("%Y-%m-%d").to_string())
}

/// The hour and minute of a second, UTC.
pub(super) fn clock_time(unix_s: u64) -> String {
    utc(unix_s).map_or_else(|| "–".to_owned(), |at| at.format("%H:%M").to_string())
}

/// The ends of a stretch, as short as they can be told apart: by the clock within a day, else by
/// the date.
pub(super) fn ends(from_s: u64, to_s: u64) -> (String, String) {
    let of: fn(u64) -> String =
        if to_s.saturating_sub(from_s) < 86_400 { clock_time } else { date };
    (of(from_s), of(to_s))
}

/// An instant as `Last-Modified` has it.
pub(super) fn http_date(unix_s: u64) -> String {
    utc(unix_s).map_or_else(String::new, |at| at.format("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

/// The second of a date in `If-Modified-Since`; `None` if it is malformed.
pub(super) fn from_http_date(text: &str) -> Option<u64> {
    let at = chrono::NaiveDateTime::parse_from_str(text, "%a, %d %b %Y %H:%M:%S GMT").ok()?;
    u64::try_from(at.and_utc().timestamp()).ok()
}

/// A length in its two largest units.
pub(super) fn length(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut text = String::new();
    let largest = UNITS.iter().position(|(unit_s, _)| seconds >= *unit_s).unwrap_or(3);
    let mut rest = seconds;
    for (unit_s, unit) in UNITS.iter().skip(largest).take(2) {
        let count = rest / unit_s;
        rest %= unit_s;
        if count > 0 || text.is_empty() {
            let gap = if text.is_empty() { "" } else { " " };
            // Writing to a String cannot fail.
            write!(text, "{gap}{count} {unit}").ok();
        }
    }
    text
}

/// A count with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A percentage with two decimals, rounded down so that only what is whole is shown as whole.
pub(super) fn percent(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(100.0) => "100 %".to_owned(),
        // The nudge keeps 99.29, which no double is, from becoming 99.28.
        Some(value) => format!("{:.2} %", (value * 100.0 + 1e-9).floor() / 100.0),
    }
}

/// Seconds from then to now; 0 when it lies ahead.
pub(super) fn age_s(then_ms: i64, now_ms: i64) -> u64 {
    u64::try_from((now_ms - then_ms) / 1000).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["window", "from", "to"];
    const CLOSED_S: u64 = 1_800_000_000;

    fn read(query: &str) -> Result<(u64, u64), WebError> {
        let params = QueryParams::read(Some(query), &NAMES, 4_096).unwrap();
        window(&params, CLOSED_S).map(|window| (window.from_unix_s, window.to_unix_s))
    }

    #[test]
    fn windows_are_what_people_write() {
        for (query, wanted) in [
            ("", (0, 0)),
            ("window=all", (0, CLOSED_S)),
            ("window=7d", (CLOSED_S - 7 * 86_400, CLOSED_S)),
            ("window=24h", (CLOSED_S - 86_400, CLOSED_S)),
            ("window=90min", (CLOSED_S - 5_400, CLOSED_S)),
            ("window=2w", (CLOSED_S - 14 * 86_400, CLOSED_S)),
            ("window=36525d", (0, CLOSED_S)),
            ("from=2026-01-01", (1_767_225_600, 0)),
            ("from=1767225600&to=1767225630", (1_767_225_600, 1_767_225_630)),
            ("to=2026-01-01T01:00:00%2B01:00", (0, 1_767_225_600)),
            ("to=2026-01-01T01:00:00+01:00", (0, 1_767_225_600)),
            // From the year 1 to the year 9999: all there is.
            ("from=0001-01-01&to=9999-12-31", (0, 253_402_214_400)),
            ("from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z", (0, 253_402_300_799)),
        ] {
            assert_eq!(read(query), Ok(wanted), "{query}");
        }
    }

    #[test]
    fn windows_that_cannot_be_say_why() {
        for (query, field, part) in [
            ("from=2026-01-02&to=2026-01-01", "from", "reversed"),
            ("from=9999-12-31&to=0001-01-01", "from", "reversed"),
            ("from=2026-01-01&to=2026-01-01", "to", "empty"),
            ("from=0001-01-01&to=1969-12-31", "to", "before anything"),
            ("to=1970-01-01", "to", "before anything"),
            ("to=0", "to", "before anything"),
            ("window=0d", "window", "empty"),
            ("window=7d&from=2026-01-01", "window", "either"),
            ("window=7", "window", "a unit"),
            ("window=d", "window", "a unit"),
            ("window=-7d", "window", "a unit"),
            ("window=7y", "window", "a unit"),
            ("window=36526d", "window", "36525d"),
            ("window=99999999999999999999d", "window", "36525d"),
            ("from=0000-12-31", "from", "9999"),
            ("from=10000-01-01", "from", "9999"),
            ("from=253402300800", "from", "9999"),
            ("from=99999999999999999999999", "from", "9999"),
            ("from=2026-02-30", "from", "a date"),
            ("from=2026-01-01T12:00:00", "from", "its zone"),
            ("from=yesterday", "from", "a date"),
            ("from=%00", "from", "a date"),
        ] {
            let error = read(query).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(field), "{query}: {}", error.message);
            assert!(error.message.contains(part), "{query}: {}", error.message);
        }
    }

    #[test]
    fn lengths_counts_and_percentages_read_well() {
        for (number, wanted) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (123_456, "123,456"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(number), wanted);
        }
        assert_eq!(ends(0, 3_600), ("00:00".to_owned(), "01:00".to_owned()));
        assert_eq!(ends(0, 86_400), ("1970-01-01".to_owned(), "1970-01-02".to_owned()));
        for (seconds, wanted) in [
            (0, "0 s"),
            (30, "30 s"),
            (90, "1 min 30 s"),
            (3_600, "1 h"),
            (3_630, "1 h"),
            (93_600, "1 d 2 h"),
            (86_400 * 400, "400 d"),
        ] {
            assert_eq!(length(seconds), wanted);
        }
        for (value, wanted) in [
            (None, "–"),
            (Some(100.0), "100 %"),
            (Some(99.999_9), "99.99 %"),
            (Some(99.29), "99.29 %"),
            (Some(0.0), "0.00 %"),
        ] {
            assert_eq!(percent(value), wanted);
        }
    }

    #[test]
    fn dates_of_http_come_back() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(from_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(from_http_date("yesterday"), None);
        assert_eq!(stamp(1_767_225_600), "2026-01-01 00:00:00");
        assert_eq!(machine_stamp(1_767_225_600), "2026-01-01T00:00:00Z");
        assert_eq!((date(0), clock_time(3_660)), ("1970-01-01".to_owned(), "01:01".to_owned()));
    }
}
