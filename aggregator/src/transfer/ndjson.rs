//! Rows as JSON, one object a line.
//!
//! Owns the bytes. Every row has every column, in the order of the table; what is absent is `null`.

use std::io::{self, Write};

use super::columns::{Cell, Column};

/// Writes rows.
#[derive(Debug)]
pub(super) struct Ndjson<W> {
    columns: &'static [Column],
    out: W,
}

impl<W: Write> Ndjson<W> {
    pub(super) fn new(columns: &'static [Column], out: W) -> Self {
        Self { columns, out }
    }

    pub(super) fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        let mut before = '{';
        for (column, cell) in self.columns.iter().zip(cells) {
            // Names of columns need no escapes.
            write!(self.out, "{before}\"{}\":", column.name)?;
            match cell {
                Cell::Absent => self.out.write_all(b"null")?,
                Cell::Text(text) => serde_json::to_writer(&mut self.out, text)?,
                Cell::Number(number) => write!(self.out, "{number}")?,
                Cell::Fraction(number) => serde_json::to_writer(&mut self.out, number)?,
                Cell::Flag(flag) => write!(self.out, "{flag}")?,
                Cell::Texts(texts) => serde_json::to_writer(&mut self.out, texts)?,
            }
            before = ',';
        }
        self.out.write_all(b"}\n")
    }
}
