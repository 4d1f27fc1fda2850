//! Tables of fixed-width text.
//!
//! Pure. Owns how wide columns are and what is given up when a terminal is too narrow: first whole
//! columns that can be spared, then the ends of long texts. Without a width nothing is cut.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::screen::{Colour, Screen};

/// Between columns.
const GAP: &str = "  ";

/// One column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    right: bool,
    /// Its texts may be cut to so many characters; `None`: never.
    cut_to: Option<usize>,
    /// It may be left out; the greatest first.
    spare: Option<u8>,
}

/// What is in a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Without anything hostile.
    pub(crate) text: String,
    /// How it stands out.
    pub(crate) colour: Option<Colour>,
}

/// A table as it is printed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Printed {
    /// With the header, each line ended.
    pub(crate) text: String,
    /// Columns that found no place.
    pub(crate) left_out: Vec<&'static str>,
}

impl Printed {
    /// What is to be said of columns that found no place.
    pub(crate) fn note(&self) -> Option<String> {
        let left_out = self.left_out.join(", ");
        (!left_out.is_empty()).then(|| format!("no place for: {left_out}"))
    }
}

impl Column {
    /// A column of texts.
    pub(crate) const fn left(title: &'static str) -> Self {
        Self { title, right: false, cut_to: None, spare: None }
    }

    /// A column of figures.
    pub(crate) const fn right(title: &'static str) -> Self {
        Self { title, right: true, cut_to: None, spare: None }
    }

    /// Its texts may be cut to so many characters.
    pub(crate) const fn cut_to(self, width: usize) -> Self {
        Self { cut_to: Some(width), ..self }
    }

    /// It may be left out; the greatest first.
    pub(crate) const fn spare(self, rank: u8) -> Self {
        Self { spare: Some(rank), ..self }
    }

    fn narrowest(&self, natural: usize) -> usize {
        self.cut_to.map_or(natural, |least| natural.min(least.max(self.title.width())))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, colour: None }
    }
}

impl Cell {
    /// A cell that stands out.
    pub(crate) fn coloured(text: impl Into<String>, colour: Colour) -> Self {
        Self { text: text.into(), colour: Some(colour) }
    }
}

/// Prints rows, each with a cell for every column.
pub(crate) fn print(columns: &[Column], rows: &[Vec<Cell>], screen: &Screen) -> Printed {
    let natural: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.text.width());
            cells.chain([column.title.width()]).max().unwrap_or(0)
        })
        .collect();
    let widths = fit(columns, &natural, screen.width);
    let mut text = String::new();
    let header: Vec<Cell> =
        columns.iter().map(|column| Cell::coloured(column.title, Colour::Bold)).collect();
    for row in std::iter::once(&header).chain(rows) {
        push_line(&mut text, columns, row, &widths, screen);
    }
    let left_out = columns.iter().zip(&widths).filter(|(_, width)| width.is_none());
    Printed { text, left_out: left_out.map(|(column, _)| column.title).collect() }
}

/// The width of each column; `None`: left out.
fn fit(columns: &[Column], natural: &[usize], width: Option<usize>) -> Vec<Option<usize>> {
    let mut widths: Vec<Option<usize>> = natural.iter().copied().map(Some).collect();
    let Some(width) = width else { return widths };
    let total = |widths: &[Option<usize>]| {
        let there = widths.iter().flatten();
        there.clone().sum::<usize>() + GAP.len() * there.count().saturating_sub(1)
    };
    loop {
        let least: Vec<Option<usize>> = columns
            .iter()
            .zip(&widths)
            .map(|(column, width)| width.map(|natural| column.narrowest(natural)))
            .collect();
        if total(&least) <= width {
            break;
        }
        let there = columns.iter().zip(widths.iter_mut()).filter(|(_, width)| width.is_some());
        match there
            .filter_map(|(column, width)| Some((column.spare?, width)))
            .max_by_key(|(r, _)| *r)
        {
            Some((_, spared)) => *spared = None,
            None => break,
        }
    }
    // The last column gives first: names stand there.
    for (at, column) in columns.iter().enumerate().rev() {
        let excess = total(&widths).saturating_sub(width);
        if let Some(Some(there)) = widths.get_mut(at) {
            *there = there.saturating_sub(excess).max(column.narrowest(*there));
        }
    }
    widths
}

fn push_line(
    line: &mut String,
    columns: &[Column],
    row: &[Cell],
    widths: &[Option<usize>],
    screen: &Screen,
) {
    let begin = line.len();
    let mut pending = 0;
    let there =
        columns.iter().zip(row).zip(widths).filter_map(|(cell, width)| Some((cell, (*width)?)));
    for (index, ((column, cell), width)) in there.enumerate() {
        let text = cut(&cell.text, width);
        let padding = width.saturating_sub(text.width());
        if index > 0 {
            pending += GAP.len();
        }
        if column.right {
            pending += padding;
        }
        line.extend(std::iter::repeat_n(' ', pending));
        line.push_str(&screen.paint(&text, cell.colour));
        pending = if column.right { 0 } else { padding };
    }
    let end = line.trim_end().len().max(begin);
    line.truncate(end);
    line.push('\n');
}

/// The text, its end replaced by `…` if it is wider than that.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for letter in text.chars() {
        used += letter.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(letter);
    }
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::left("ID").cut_to(6),
        Column::right("ROUNDS"),
        Column::left("SUBNETS").spare(1),
        Column::left("NAME").cut_to(4),
    ];

    fn rows() -> Vec<Vec<Cell>> {
        let row = |texts: [&str; 4]| texts.map(|text| Cell::from(text.to_owned())).to_vec();
        vec![row(["0x1234567890", "7", "public", "漢字漢字漢字"]), row(["0x2", "1,234", "", ""])]
    }

    fn printed(width: Option<usize>) -> Printed {
        print(&COLUMNS, &rows(), &Screen { width, colours: false })
    }

    #[test]
    fn without_a_width_nothing_is_cut() {
        let wide = "ID            ROUNDS  SUBNETS  NAME\n\
                    0x1234567890       7  public   漢字漢字漢字\n\
                    0x2            1,234\n";
        assert_eq!(printed(None), Printed { text: wide.into(), left_out: vec![] });
        assert_eq!(printed(Some(43)).text, wide);
    }

    #[test]
    fn names_are_cut_first_then_columns_are_spared_then_ids_are_cut() {
        let text = "ID            ROUNDS  SUBNETS  NAME\n\
                    0x1234567890       7  public   漢字…\n\
                    0x2            1,234\n";
        assert_eq!(printed(Some(37)).text, text);
        let narrow = "ID         ROUNDS  NAME\n\
                      0x123456…       7  漢…\n\
                      0x2         1,234\n";
        assert_eq!(printed(Some(23)).text, narrow);
        assert_eq!(printed(Some(23)).left_out, ["SUBNETS"]);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_down_to_what_cannot_be_cut() {
        for width in 20..60 {
            for line in printed(Some(width)).text.lines() {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
        assert_eq!(printed(Some(1)).text, printed(Some(20)).text);
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let rows = [vec![Cell::coloured("up", Colour::Green), Cell::from("x".to_owned())]];
        let columns = [Column::left("VERDICT"), Column::left("N")];
        let printed = print(&columns, &rows, &Screen { width: None, colours: true });
        let bold = "\u{1b}[1mVERDICT\u{1b}[0m  \u{1b}[1mN\u{1b}[0m\n";
        assert_eq!(printed.text, format!("{bold}\u{1b}[32mup\u{1b}[0m       x\n"));
    }
}
