//! Rows as Apache Parquet, compressed with zstd.
//!
//! Owns the schema that follows from a table's columns and how many rows are held before they are
//! written. Refuses a row that is not of its table.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::columns::{Cell, Column, Type};

/// Rows of a group, which are in memory at once: some 20 MB of the widest table.
const GROUP_ROWS_MAX: usize = 65_536;

enum Values {
    Texts(Vec<ByteArray>),
    Numbers(Vec<i64>),
    Fractions(Vec<f64>),
    Flags(Vec<bool>),
}

/// One column of the group being filled.
struct Filling {
    column: &'static Column,
    values: Values,
    /// Where a row may have none or several: 1 for each that is there.
    present: Vec<i16>,
    /// Where a row may have several: 0 for the first of a row.
    repeated: Vec<i16>,
}

impl Filling {
    fn new(column: &'static Column) -> Self {
        let values = match column.kind {
            Type::Text | Type::Texts => Values::Texts(Vec::new()),
            Type::Number => Values::Numbers(Vec::new()),
            Type::Fraction => Values::Fractions(Vec::new()),
            Type::Flag => Values::Flags(Vec::new()),
        };
        Self { column, values, present: Vec::new(), repeated: Vec::new() }
    }

    fn take(&mut self, cell: &Cell<'_>) -> io::Result<()> {
        if *cell == Cell::Absent && self.column.optional {
            self.present.push(0);
            return Ok(());
        }
        match (&mut self.values, cell) {
            (Values::Texts(values), Cell::Texts(texts)) if self.column.kind == Type::Texts => {
                for (index, text) in texts.iter().enumerate() {
                    self.present.push(1);
                    self.repeated.push(i16::from(index > 0));
                    values.push(ByteArray::from(*text));
                }
                if texts.is_empty() {
                    self.present.push(0);
                    self.repeated.push(0);
                }
                return Ok(());
            }
            (Values::Texts(values), Cell::Text(text)) if self.column.kind == Type::Text => {
                // Neighbours often say the same and share it.
                let same = values.last().filter(|last| last.data() == text.as_bytes()).cloned();
                values.push(same.unwrap_or_else(|| ByteArray::from(*text)));
            }
            (Values::Numbers(values), Cell::Number(number)) => values.push(*number),
            (Values::Fractions(values), Cell::Fraction(number)) => values.push(*number),
            (Values::Flags(values), Cell::Flag(flag)) => values.push(*flag),
            (_, cell) => {
                let Column { name, kind, .. } = self.column;
                return Err(io::Error::other(format!("{cell:?} in {name}, a {}", kind.name())));
            }
        }
        if self.column.optional {
            self.present.push(1);
        }
        Ok(())
    }

    fn write<W: Write + Send>(
        &self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        let next = group.next_column()?;
        let mut column = next.ok_or_else(|| ParquetError::EOF("no such column".to_owned()))?;
        let listed = self.column.kind == Type::Texts;
        let present = (self.column.optional || listed).then_some(self.present.as_slice());
        let repeated = listed.then_some(self.repeated.as_slice());
        match &self.values {
            Values::Texts(values) => {
                column.typed::<ByteArrayType>().write_batch(values, present, repeated)?;
            }
            Values::Numbers(values) => {
                column.typed::<Int64Type>().write_batch(values, present, repeated)?;
            }
            Values::Fractions(values) => {
                column.typed::<DoubleType>().write_batch(values, present, repeated)?;
            }
            Values::Flags(values) => {
                column.typed::<BoolType>().write_batch(values, present, repeated)?;
            }
        }
        column.close()
    }
}

/// Writes rows.
pub(super) struct Parquet<W: Write + Send> {
    columns: &'static [Column],
    filling: Vec<Filling>,
    rows: usize,
    file: SerializedFileWriter<W>,
}

/// The schema, in Parquet's own notation.
fn schema(table: &str, columns: &[Column]) -> String {
    let mut text = format!("message {table} {{\n");
    for Column { name, kind, optional, .. } in columns {
        let must = if *optional { "optional" } else { "required" };
        let column = match kind {
            Type::Text => format!("{must} binary {name} (STRING);"),
            Type::Number => format!("{must} int64 {name};"),
            Type::Fraction => format!("{must} double {name};"),
            Type::Flag => format!("{must} boolean {name};"),
            Type::Texts => format!(
                "required group {name} (LIST) {{ repeated group list {{ required binary element \
                 (STRING); }} }}"
            ),
        };
        text.push_str(&column);
        text.push('\n');
    }
    text.push('}');
    text
}

impl<W: Write + Send> Parquet<W> {
    pub(super) fn new(table: &str, columns: &'static [Column], out: W) -> io::Result<Self> {
        let schema = parse_message_type(&schema(table, columns))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("uptime-aggregator ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        let filling = columns.iter().map(Filling::new).collect();
        Ok(Self { columns, filling, rows: 0, file })
    }

    pub(super) fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        if cells.len() != self.columns.len() {
            return Err(io::Error::other("a row of another table"));
        }
        for (filling, cell) in self.filling.iter_mut().zip(cells) {
            filling.take(cell)?;
        }
        self.rows += 1;
        if self.rows == GROUP_ROWS_MAX { self.end_group() } else { Ok(()) }
    }

    fn end_group(&mut self) -> io::Result<()> {
        let mut group = self.file.next_row_group()?;
        for filling in &self.filling {
            filling.write(&mut group)?;
        }
        group.close()?;
        self.filling = self.columns.iter().map(Filling::new).collect();
        self.rows = 0;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.rows > 0 {
            self.end_group()?;
        }
        self.file.close()?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Seek;

    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    use serde_json::Value;

    use super::super::columns::{NODES, OBSERVATIONS, VERDICTS};
    use super::*;

    const TABLE: &[Column] = &[
        Column { name: "text", kind: Type::Text, optional: true, about: "" },
        Column { name: "number", kind: Type::Number, optional: false, about: "" },
        Column { name: "fraction", kind: Type::Fraction, optional: true, about: "" },
        Column { name: "flag", kind: Type::Flag, optional: false, about: "" },
        Column { name: "texts", kind: Type::Texts, optional: false, about: "" },
    ];

    fn value(field: &Field) -> Value {
        match field {
            Field::Null => Value::Null,
            Field::Str(text) => text.as_str().into(),
            Field::Long(number) => (*number).into(),
            Field::Double(number) => (*number).into(),
            Field::Bool(flag) => (*flag).into(),
            Field::ListInternal(list) => list.elements().iter().map(value).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_type_reads_back_over_several_groups() {
        let mut file = tempfile::tempfile().unwrap();
        let mut parquet = Parquet::new("table", TABLE, &mut file).unwrap();
        let rows = GROUP_ROWS_MAX + 3;
        let words = ["", "a", "ä \"quoted\""];
        for row in 0..rows {
            let number = i64::try_from(row).unwrap();
            let absent = row % 3 == 0;
            parquet
                .row(&[
                    if absent { Cell::Absent } else { Cell::Text(words[row % 3]) },
                    Cell::Number(number - 5),
                    if absent { Cell::Fraction(0.5) } else { Cell::Absent },
                    Cell::Flag(row % 2 == 0),
                    Cell::Texts(&words[..row % 4]),
                ])
                .unwrap();
        }
        parquet.finish().unwrap();
        file.rewind().unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 2);
        let mut count = 0;
        for (row, there) in reader.get_row_iter(None).unwrap().enumerate() {
            let absent = row % 3 == 0;
            let wanted: [Value; 5] = [
                if absent { Value::Null } else { words[row % 3].into() },
                (i64::try_from(row).unwrap() - 5).into(),
                if absent { 0.5.into() } else { Value::Null },
                (row % 2 == 0).into(),
                words[..row % 4].to_vec().into(),
            ];
            let there = there.unwrap();
            let there: Vec<Value> =
                there.get_column_iter().map(|(_, field)| value(field)).collect();
            assert_eq!(there, wanted, "{row}");
            count += 1;
        }
        assert_eq!(count, rows);
    }

    #[test]
    fn a_row_of_another_table_is_refused() {
        let mut parquet = Parquet::new("table", TABLE, Vec::new()).unwrap();
        assert!(parquet.row(&[Cell::Absent]).is_err());
        let wrong =
            [Cell::Number(1), Cell::Number(1), Cell::Absent, Cell::Flag(true), Cell::Texts(&[])];
        let fault = parquet.row(&wrong).unwrap_err();
        assert!(fault.to_string().contains("in text, a string"), "{fault}");
    }

    #[test]
    fn the_schemas_are_schemas() {
        for columns in [OBSERVATIONS, VERDICTS, NODES] {
            Parquet::new("table", columns, Vec::new()).unwrap().finish().unwrap();
        }
    }
}
