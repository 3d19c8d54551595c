//! Reads annotated CSV, InfluxDB 2's answer to a query in Flux, row by row.
//!
//! An answer is a sequence of tables. Each begins with annotations (`#datatype`, `#group`, `#default`) and a row of
//! names; the first cell of a row belongs to annotations. An error in the middle of an answer comes as a table with the
//! columns `error` and `reference`: the status was 200 by then.

use std::io::Read;

use csv::{ByteRecord, ReaderBuilder};

use crate::source::record::{Cell, Column};

/// Columns that say where a row stands in the answer, or what was asked, and nothing of the row.
const OF_THE_ANSWER: [&str; 4] = ["result", "table", "_start", "_stop"];

/// Why an answer can't be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// It breaks off.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// InfluxDB says that the query failed.
    #[error("{0}")]
    Query(String),
    /// It isn't annotated CSV.
    #[error("the answer is not annotated CSV: {0}")]
    Malformed(String),
}

/// Passes each row to `each`.
///
/// # Errors
/// When the answer breaks off, isn't annotated CSV, or says that the query failed; and with an error of `each`.
pub fn read<E: From<CsvError>>(
    answer: impl Read,
    mut each: impl FnMut(&[Column], &[Cell<'_>]) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(answer);
    let mut table = Table::default();
    let mut record = ByteRecord::new();
    let broken = |error: csv::Error| CsvError::Broken(error.to_string());
    while reader.read_byte_record(&mut record).map_err(broken)? {
        match table.take(&record)? {
            Line::Heading => {}
            Line::Row(cells) => each(&table.kept, &cells)?,
        }
    }
    // Annotations without a table.
    if table.is_begun() {
        Err(CsvError::Broken("a table has no rows of names".to_owned()).into())
    } else {
        Ok(())
    }
}

/// A line of an answer.
enum Line<'a> {
    /// An annotation, or names.
    Heading,
    /// The cells of the columns that are kept.
    Row(Vec<Cell<'a>>),
}

/// The table that is being read.
#[derive(Default)]
struct Table {
    datatypes: Vec<String>,
    groups: Vec<String>,
    defaults: Vec<String>,
    /// Whether the next line that is no annotation has the names.
    names_follow: bool,
    /// The columns of the answer; `None` is one that is left out.
    columns: Vec<Option<Kind>>,
    kept: Vec<Column>,
    /// Where the message is, if the table says that the query failed.
    error: Option<usize>,
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Integer,
    Float,
    Boolean,
    Text,
}

impl Table {
    fn is_begun(&self) -> bool {
        self.names_follow
    }

    fn take<'a>(&mut self, record: &'a ByteRecord) -> Result<Line<'a>, CsvError> {
        let first = record.get(0).unwrap_or_default();
        if let Some(annotation) = first.strip_prefix(b"#") {
            self.annotate(annotation, record);
            return Ok(Line::Heading);
        }
        // Without annotations, as errors come from some versions.
        let bare = first == b"error" && record.get(1) == Some(b"reference");
        if self.names_follow || bare {
            self.name(record)?;
            return Ok(Line::Heading);
        }
        if let Some(at) = self.error {
            return Err(CsvError::Query(text(record.get(at).unwrap_or_default()).into_owned()));
        }
        if record.len() != self.columns.len() {
            let (found, expected) = (record.len(), self.columns.len());
            return Err(CsvError::Malformed(format!("a row has {found} cells, its table has {expected}")));
        }
        Ok(Line::Row(self.cells(record)))
    }

    fn annotate(&mut self, annotation: &[u8], record: &ByteRecord) {
        if !self.names_follow {
            *self = Table { names_follow: true, ..Table::default() };
        }
        let mut cells: Vec<String> = record.iter().map(|cell| text(cell).into_owned()).collect();
        cells[0].clear();
        match annotation {
            b"datatype" => self.datatypes = cells,
            b"group" => self.groups = cells,
            b"default" => self.defaults = cells,
            _ => {}
        }
    }

    fn name(&mut self, record: &ByteRecord) -> Result<(), CsvError> {
        let names: Vec<_> = record.iter().map(text).collect();
        let position = |name: &str| names.iter().position(|found| found == name);
        if position("reference").is_some() && position("result").is_none() && position("table").is_none() {
            self.error = position("error");
        }
        self.names_follow = false;
        self.kept.clear();
        self.columns.clear();
        if self.error.is_none() && self.datatypes.len() != names.len() {
            return Err(CsvError::Malformed("a table has no #datatype for each column".to_owned()));
        }
        for (at, name) in names.iter().enumerate() {
            let is_kept = at > 0 && !OF_THE_ANSWER.contains(&name.as_ref());
            self.columns.push(is_kept.then(|| Kind::of(self.datatypes.get(at).map_or("", String::as_str))));
            if is_kept {
                let in_group = self.groups.get(at).is_some_and(|group| group == "true");
                self.kept.push(Column { name: name.clone().into_owned(), in_group });
            }
        }
        Ok(())
    }

    fn cells<'a>(&self, record: &'a ByteRecord) -> Vec<Cell<'a>> {
        let mut cells = Vec::with_capacity(self.kept.len());
        for (at, (kind, raw)) in self.columns.iter().zip(record).enumerate() {
            let Some(kind) = kind else { continue };
            cells.push(match self.defaults.get(at) {
                Some(default) if raw.is_empty() && !default.is_empty() => {
                    owned(kind.cell(default.as_bytes()))
                }
                _ => kind.cell(raw),
            });
        }
        cells
    }
}

impl Kind {
    fn of(datatype: &str) -> Kind {
        match datatype {
            "long" | "unsignedLong" => Kind::Integer,
            "double" => Kind::Float,
            "boolean" => Kind::Boolean,
            _ => Kind::Text,
        }
    }

    /// CSV doesn't tell an empty text from none: both are null.
    fn cell(self, raw: &[u8]) -> Cell<'_> {
        if raw.is_empty() {
            return Cell::Null;
        }
        let text = text(raw);
        match self {
            // InfluxDB writes a line feed within a text as these two.
            Kind::Text if text.contains("\r\n") => Cell::Text(text.replace("\r\n", "\n").into()),
            Kind::Text => Cell::Text(text),
            Kind::Integer | Kind::Float if is_json_number(raw) => Cell::Json(text),
            // `+Inf`, `NaN`: JSON has no such numbers.
            Kind::Float => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Cell::Json(number.to_string().into()),
                _ => Cell::Null,
            },
            Kind::Boolean if matches!(raw, b"true" | b"false") => Cell::Json(text),
            Kind::Integer | Kind::Boolean => Cell::Text(text),
        }
    }
}

/// InfluxDB takes texts that are no UTF-8; a record must not stop for them.
fn text(raw: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(raw)
}

fn owned(cell: Cell<'_>) -> Cell<'static> {
    match cell {
        Cell::Null => Cell::Null,
        Cell::Text(text) => Cell::Text(text.into_owned().into()),
        Cell::Json(text) => Cell::Json(text.into_owned().into()),
    }
}

/// Whether this is a number by RFC 8259.
fn is_json_number(raw: &[u8]) -> bool {
    let digits = |rest: &mut &[u8]| {
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        *rest = &rest[count..];
        count
    };
    let mut rest = raw.strip_prefix(b"-").unwrap_or(raw);
    let begins_with_zero = rest.first() == Some(&b'0');
    match digits(&mut rest) {
        0 => return false,
        1 => {}
        _ if begins_with_zero => return false,
        _ => {}
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        rest = fraction;
        if digits(&mut rest) == 0 {
            return false;
        }
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        rest = exponent.strip_prefix(b"-").or_else(|| exponent.strip_prefix(b"+")).unwrap_or(exponent);
        if digits(&mut rest) == 0 {
            return false;
        }
    }
    rest.is_empty()
}

#[cfg(test)]
#[path = "annotated_csv/tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
