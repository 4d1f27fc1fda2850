//! Foreign text, escaped.
//!
//! Owns how a text that came from outside (names of nodes, subnets and probes, what a visitor
//! asked for) stands in HTML, in SVG and in a link. Such text is data: it never becomes markup,
//! never turns the direction of what stands beside it, never hides, and never grows without end.
//! Nothing else in this room may write foreign text.

use std::fmt::{self, Display, Formatter, Write};

/// Letters of a foreign text that are shown; what is cut off is marked by `…`.
pub(super) const ESCAPED_CHARS_MAX: usize = 96;

/// A text as HTML and SVG show it, in elements and in quoted attributes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Escaped<'a>(pub(super) &'a str);

/// Whether a letter could pass for nothing, break a line, or turn the direction of writing.
fn is_deceptive(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            // Soft hyphen, Arabic letter mark, Hangul fillers, Mongolian vowel separator, blanks
            // that show nothing.
            '\u{ad}' | '\u{61c}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}'
            // Zero width, direction marks, line and paragraph separators, embeddings, isolates.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            // Variation selectors, byte order mark, annotations, tags.
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
            // Private use shows whatever a font likes.
            | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}'
        )
}

/// Marks that stand on the letter before them: a pile of them covers the lines above and below.
fn is_combining(letter: char) -> bool {
    matches!(
        letter,
        '\u{300}'..='\u{36f}'
            | '\u{483}'..='\u{489}'
            | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}'
            | '\u{20d0}'..='\u{20ff}'
            | '\u{fe20}'..='\u{fe2f}'
    )
}

/// Marks shown on one letter: some languages need two.
const COMBINING_MAX: usize = 2;

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let mut piled = 0;
        for (place, letter) in self.0.chars().enumerate() {
            if place == ESCAPED_CHARS_MAX {
                return out.write_char('…');
            }
            piled = if is_combining(letter) { piled + 1 } else { 0 };
            match letter {
                _ if piled > COMBINING_MAX => {}
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                '`' => out.write_str("&#96;")?,
                letter if is_deceptive(letter) => out.write_char('\u{fffd}')?,
                letter => out.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// A sentence of our own that may quote foreign text, whole: its length is bounded where it is
/// made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sentence<'a>(pub(super) &'a str);

impl Display for Sentence<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.0.split_inclusive(' ').try_for_each(|word| Escaped(word).fmt(out))
    }
}

/// A text as it stands in the query of a link or in one segment of its path, whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct InLink<'a>(pub(super) &'a str);

impl Display for InLink<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                out.write_char(char::from(byte))?;
            } else {
                write!(out, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &str) -> String {
        Escaped(text).to_string()
    }

    #[test]
    fn hostile_text_stays_text() {
        for (text, wanted) in [
            (
                "<script>alert('x & \"y\"')</script>",
                "&lt;script&gt;alert(&#39;x &amp; &quot;y&quot;&#39;)&lt;/script&gt;",
            ),
            ("`onerror=x`", "&#96;onerror=x&#96;"),
            ("a\u{202e}b\u{200b}", "a\u{fffd}b\u{fffd}"),
            ("a\u{2066}b\u{2069}\u{61c}", "a\u{fffd}b\u{fffd}\u{fffd}"),
            (
                "a\0b\u{1b}[31mc\r\nd\u{85}\u{2028}",
                "a\u{fffd}b\u{fffd}[31mc\u{fffd}\u{fffd}d\u{fffd}\u{fffd}",
            ),
            (
                "\u{feff}\u{e0041}\u{3164}\u{fe0f}\u{e001}",
                "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
            ),
            ("日本語 ñ é", "日本語 ñ é"),
        ] {
            assert_eq!(escaped(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn text_neither_piles_up_nor_goes_on_for_ever() {
        let pile = format!("a{}", "\u{301}".repeat(50));
        assert_eq!(escaped(&pile), "a\u{301}\u{301}");
        let long = "ä".repeat(10_000);
        assert_eq!(escaped(&long), format!("{}…", "ä".repeat(ESCAPED_CHARS_MAX)));
        assert_eq!(escaped(&"<".repeat(ESCAPED_CHARS_MAX)), "&lt;".repeat(ESCAPED_CHARS_MAX));
    }

    #[test]
    fn sentences_are_shown_whole_and_what_they_quote_is_text() {
        let sentence = "there is no parameter \"<b>\" here; ".repeat(10);
        let escaped = Sentence(&sentence).to_string();
        assert_eq!(escaped.matches("&quot;&lt;b&gt;&quot; here; ").count(), 10);
    }

    proptest! {
        /// Whatever comes in, no markup comes out, and nothing that deceives.
        #[test]
        fn nothing_gets_through(text in any::<String>()) {
            let escaped = escaped(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'', '`']), "{}", escaped);
            prop_assert!(!escaped.chars().any(is_deceptive), "{:?}", escaped);
            let bare = escaped.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
            let bare = bare.replace("&quot;", "").replace("&#39;", "").replace("&#96;", "");
            prop_assert!(!bare.contains('&'), "{}", escaped);
            prop_assert!(bare.chars().count() <= ESCAPED_CHARS_MAX + 1);
        }
    }

    #[test]
    fn links_carry_text_whole() {
        let text = "a b&c=\"<ü\u{202e}>/../?#%";
        let link = InLink(text).to_string();
        assert_eq!(link, "a%20b%26c%3D%22%3C%C3%BC%E2%80%AE%3E%2F..%2F%3F%23%25");
        assert!(link.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
    }
}
