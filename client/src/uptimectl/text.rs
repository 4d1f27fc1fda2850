//! How instants, durations, figures and foreign texts are written for people.
//!
//! Pure. Owns what may reach a terminal: every text that came from outside goes through [`clean`].

use std::borrow::Cow;
use std::fmt::Write;

use chrono::{DateTime, Utc};
use unicode_width::UnicodeWidthStr;

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;

/// Whether a character could move the cursor, start an escape sequence, break a line, turn the
/// direction of what follows, or hide.
pub(crate) fn is_hostile(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            // Soft hyphen, combining grapheme joiner, Arabic letter mark, Hangul fillers.
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'
            // Khmer inherent vowels, Mongolian selectors and separator.
            | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            // Zero width, direction marks, line and paragraph separators, embeddings, isolates.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            // Byte order mark, interlinear annotation, musical format, tags.
            | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// The text with every hostile character written out.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '\n' | '\r' | '\t' => cleaned.extend(letter.escape_default()),
            _ if is_hostile(letter) => cleaned.extend(letter.escape_unicode()),
            _ => cleaned.push(letter),
        }
    }
    Cow::Owned(cleaned)
}

/// An instant, to the second.
pub(crate) fn stamp(unix_s: u64) -> String {
    let instant = i64::try_from(unix_s).ok().and_then(|s| DateTime::<Utc>::from_timestamp(s, 0));
    instant.map_or_else(
        || format!("unix second {unix_s}"),
        |instant| instant.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

/// The unix second an instant lies in; those before 1970 lie in the first.
pub(crate) fn second(unix_ms: i64) -> u64 {
    u64::try_from(unix_ms.div_euclid(1000)).unwrap_or(0)
}

/// A duration in its two greatest units: `4 min 37 s`, `3 d`.
pub(crate) fn span(seconds: u64) -> String {
    let pair = |great: u64, unit: &str, small: u64, small_unit: &str| match seconds % great / small
    {
        0 => format!("{} {unit}", number(seconds / great)),
        rest => format!("{} {unit} {rest} {small_unit}", number(seconds / great)),
    };
    match seconds {
        0..MINUTE_S => format!("{seconds} s"),
        MINUTE_S..HOUR_S => pair(MINUTE_S, "min", 1, "s"),
        HOUR_S..DAY_S => pair(HOUR_S, "h", MINUTE_S, "min"),
        _ => pair(DAY_S, "d", HOUR_S, "h"),
    }
}

/// A duration in its greatest unit, rounded down: for columns.
pub(crate) fn brief(seconds: u64) -> String {
    match seconds {
        0..MINUTE_S => format!("{seconds} s"),
        MINUTE_S..HOUR_S => format!("{} min", seconds / MINUTE_S),
        HOUR_S..DAY_S => format!("{} h", seconds / HOUR_S),
        _ => format!("{} d", number(seconds / DAY_S)),
    }
}

/// A whole number with its thousands apart: `1,234,567`.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A percentage with two decimals. What is not quite all is never shown as all, nor what is not
/// quite nothing as nothing.
pub(crate) fn percent(value: Option<f64>) -> String {
    let Some(value) = value else {
        return "-".to_owned();
    };
    let mut text = format!("{value:.2}");
    if text == "100.00" && value < 100.0 {
        "99.99".clone_into(&mut text);
    } else if text == "0.00" && value > 0.0 {
        "0.01".clone_into(&mut text);
    }
    text + " %"
}

/// `1 round`, `2 rounds`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let mut text = format!("{} {noun}", number(count));
    if count != 1 {
        text.push('s');
    }
    text
}

/// The text in lines of at most so many columns, the first begun with `first` and the others with
/// `rest`; each line ended. A word that is longer stands alone.
pub(crate) fn wrap(text: &str, width: usize, first: &str, rest: &str) -> String {
    let mut wrapped = String::with_capacity(text.len() + 64);
    let (mut line, mut empty) = (first.to_owned(), true);
    for word in text.split_whitespace() {
        if !empty && line.width() + 1 + word.width() > width {
            wrapped.push_str(line.trim_end());
            wrapped.push('\n');
            rest.clone_into(&mut line);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    wrapped.push_str(line.trim_end());
    wrapped.push('\n');
    wrapped
}

/// Bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String does not fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hostile_is_left_and_the_rest_is_as_it_was() {
        for (from, to) in [
            ("golem-node_1", "golem-node_1"),
            ("Łódź 漢字 😀 שלום", "Łódź 漢字 😀 שלום"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[2J\u{1b}]0;x\u{7}", "\\u{1b}[2J\\u{1b}]0;x\\u{7}"),
            ("\u{9b}31m\u{7f}\u{0}", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("abc\u{202e}fed\u{2066}", "abc\\u{202e}fed\\u{2066}"),
            ("\u{200f}\u{200b}\u{feff}\u{2028}", "\\u{200f}\\u{200b}\\u{feff}\\u{2028}"),
            ("\u{e0041}\u{61c}", "\\u{e0041}\\u{61c}"),
        ] {
            assert_eq!(clean(from), to);
            assert!(!clean(from).contains(is_hostile));
        }
    }

    #[test]
    fn durations_are_for_people() {
        for (seconds, long, short) in [
            (0, "0 s", "0 s"),
            (59, "59 s", "59 s"),
            (60, "1 min", "1 min"),
            (277, "4 min 37 s", "4 min"),
            (3_599, "59 min 59 s", "59 min"),
            (3_600, "1 h", "1 h"),
            (7_265, "2 h 1 min", "2 h"),
            (86_399, "23 h 59 min", "23 h"),
            (86_400, "1 d", "1 d"),
            (2_696_400, "31 d 5 h", "31 d"),
            (u64::MAX, "213,503,982,334,601 d 7 h", "213,503,982,334,601 d"),
        ] {
            assert_eq!((span(seconds).as_str(), brief(seconds).as_str()), (long, short));
        }
    }

    #[test]
    fn texts_are_wrapped_between_words() {
        let text = "one two  three four-and-a-half five";
        let wrapped = "x one two\n  three\n  four-and-a-half\n  five\n";
        assert_eq!(wrap(text, 10, "x ", "  "), wrapped);
        assert_eq!(wrap("漢字 漢字", 8, "", ""), "漢字\n漢字\n");
        assert_eq!(wrap("", 10, "x ", "  "), "x\n");
    }

    #[test]
    fn instants_are_utc_and_impossible_ones_do_no_harm() {
        assert_eq!(stamp(1_769_862_870), "2026-01-31 12:34:30 UTC");
        assert_eq!(stamp(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(stamp(u64::MAX), "unix second 18446744073709551615");
        assert_eq!((second(1_999), second(-1), second(i64::MIN)), (1, 0, 0));
    }

    #[test]
    fn figures_do_not_promise_more_than_they_hold() {
        for (value, text) in [
            (None, "-"),
            (Some(100.0), "100.00 %"),
            (Some(99.999_99), "99.99 %"),
            (Some(98.526), "98.53 %"),
            (Some(0.000_1), "0.01 %"),
            (Some(0.0), "0.00 %"),
        ] {
            assert_eq!(percent(value), text);
        }
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), text);
        }
        assert_eq!(
            (counted(1, "round"), counted(0, "round")),
            ("1 round".into(), "0 rounds".into())
        );
        assert_eq!(hex(&[0, 0xaf]), "00af");
    }
}
