//! Comma-separated values with a header: columns are found by name and may stand in any order; others are passed over.
//!
//! Quotes are not known: the traces that are read have none, and a comma within quotes is refused by the number of columns.

use crate::error::{Fault, TraceError};
use crate::read::Place;

/// A file whose header has what is needed.
pub(super) struct Csv<'a> {
    file: &'a str,
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
    width: usize,
    header: Vec<&'a str>,
}

/// A row.
pub(super) struct Row<'a> {
    pub(super) place: Place<'a>,
    fields: Vec<&'a str>,
}

/// Where a column stands.
#[derive(Clone, Copy)]
pub(super) struct Column(usize);

impl<'a> Csv<'a> {
    /// Reads the header and finds these columns in it.
    pub(super) fn open<const N: usize>(
        file: &'a str,
        text: &'a str,
        needed: [&'static str; N],
    ) -> Result<(Self, [Column; N]), TraceError> {
        // A byte order mark is no part of the first name.
        let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
        let header: Vec<&str> = lines.next().map_or("", |(_, line)| line).split(',').map(str::trim).collect();
        let find = |name: &str| header.iter().position(|column| *column == name);
        let missing: Vec<&'static str> = needed.into_iter().filter(|name| find(name).is_none()).collect();
        if !missing.is_empty() {
            return Err(Place { file, line: 1 }.error(Fault::MissingColumns { missing, needed: needed.to_vec() }));
        }
        let columns = needed.map(|name| Column(find(name).unwrap_or_default()));
        Ok((Self { file, lines, width: header.len(), header }, columns))
    }

    /// A column that need not be there.
    pub(super) fn optional(&self, name: &str) -> Option<Column> {
        self.header.iter().position(|column| *column == name).map(Column)
    }

    /// The next row; empty lines are passed over.
    pub(super) fn next(&mut self) -> Option<Result<Row<'a>, TraceError>> {
        let (index, line) = self.lines.find(|(_, line)| !line.trim().is_empty())?;
        let place = Place { file: self.file, line: index + 1 };
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        if fields.len() == self.width {
            return Some(Ok(Row { place, fields }));
        }
        Some(Err(place.error(Fault::Width { got: fields.len(), expected: self.width, first_missing: None })))
    }
}

impl<'a> Row<'a> {
    /// What stands in a column.
    pub(super) fn get(&self, column: Column) -> &'a str {
        self.fields[column.0]
    }
}
