//! What standard output is: a terminal of some width, or a pipe.
//!
//! Owns the decision to cut and to colour. In a pipe neither is done.

use std::io::{IsTerminal, stdout};

use terminal_size::{Height, Width, terminal_size_of};

/// Of a terminal that does not say.
const WIDTH_DEFAULT: usize = 80;
const HEIGHT_DEFAULT: usize = 24;
/// Sentences are not drawn out further: longer lines are hard to read.
const SENTENCE_WIDTH_MAX: usize = 100;
/// Nor pressed together further.
const SENTENCE_WIDTH_MIN: usize = 40;

/// Where answers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Characters to a line; `None`: no limit.
    pub(crate) width: Option<usize>,
    /// Colours are wanted.
    pub(crate) colours: bool,
}

/// A way to stand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are colours")]
pub(crate) enum Colour {
    Bold,
    Green,
    Red,
    Yellow,
}

/// What the environment says that matters here.
#[derive(Debug, Default)]
struct Said {
    terminal: bool,
    terminal_width: Option<usize>,
    columns: Option<String>,
    no_color: Option<String>,
    term: Option<String>,
}

impl Screen {
    /// Standard output.
    pub(crate) fn of_stdout() -> Self {
        let said = |name| std::env::var_os(name).map(|text| text.to_string_lossy().into_owned());
        Self::decide(&Said {
            terminal: stdout().is_terminal(),
            terminal_width: terminal_size_of(stdout()).map(|(Width(width), _)| width.into()),
            columns: said("COLUMNS"),
            no_color: said("NO_COLOR"),
            term: said("TERM"),
        })
    }

    fn decide(said: &Said) -> Self {
        if !said.terminal {
            return Self { width: None, colours: false };
        }
        let columns = said.columns.as_deref().and_then(|text| text.parse().ok());
        let width = said.terminal_width.or(columns).filter(|width| *width > 0);
        let unwanted = said.no_color.as_deref().is_some_and(|text| !text.is_empty());
        let colours = !unwanted && said.term.as_deref() != Some("dumb");
        Self { width: Some(width.unwrap_or(WIDTH_DEFAULT)), colours }
    }

    /// How many lines a view on the terminal may have; `None`: nothing can be drawn upon.
    pub(crate) fn height_of_stdout() -> Option<usize> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let height = terminal_size_of(stdout()).map(|(_, Height(height))| height.into());
        let height = height.filter(|height| *height > 0).unwrap_or(HEIGHT_DEFAULT);
        (stdout().is_terminal() && !dumb).then_some(height)
    }

    /// How wide sentences may be.
    pub(crate) fn sentence_width(&self) -> usize {
        let width = self.width.unwrap_or(WIDTH_DEFAULT);
        width.clamp(SENTENCE_WIDTH_MIN, SENTENCE_WIDTH_MAX)
    }

    /// The text in its colour, if colours are wanted.
    pub(crate) fn paint(&self, text: &str, colour: Option<Colour>) -> String {
        let code = match colour {
            Some(colour) if self.colours && !text.is_empty() => match colour {
                Colour::Bold => 1,
                Colour::Red => 31,
                Colour::Green => 32,
                Colour::Yellow => 33,
            },
            _ => return text.to_owned(),
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_neither_cut_nor_coloured() {
        let said = Said { columns: Some("40".into()), ..Said::default() };
        assert_eq!(Screen::decide(&said), Screen { width: None, colours: false });
    }

    #[test]
    fn sentences_are_neither_drawn_out_nor_pressed() {
        for (width, wanted) in [(None, 80), (Some(10), 40), (Some(90), 90), (Some(300), 100)] {
            assert_eq!(Screen { width, colours: false }.sentence_width(), wanted);
        }
    }

    #[test]
    fn a_terminal_has_a_width_and_colours_unless_told_otherwise() {
        let terminal = || Said { terminal: true, ..Said::default() };
        let plain = Screen { width: Some(80), colours: true };
        assert_eq!(Screen::decide(&terminal()), plain);
        let said = Said { columns: Some("120".into()), ..terminal() };
        assert_eq!(Screen::decide(&said).width, Some(120));
        let said = Said { terminal_width: Some(99), columns: Some("120".into()), ..terminal() };
        assert_eq!(Screen::decide(&said).width, Some(99));
        assert!(!Screen::decide(&Said { no_color: Some("1".into()), ..terminal() }).colours);
        assert!(Screen::decide(&Said { no_color: Some(String::new()), ..terminal() }).colours);
        assert!(!Screen::decide(&Said { term: Some("dumb".into()), ..terminal() }).colours);
    }
}
