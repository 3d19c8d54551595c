//! How a row becomes a record: the one place that decides about keys, values and identities.

use std::borrow::Cow;

use twox_hash::XxHash3_64;

use super::seen::Digest;
use super::time::Nanos;

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether its value is part of the group key: the same for all rows of a series.
    pub in_group: bool,
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// No value.
    Null,
    /// A text or a time.
    Text(Cow<'a, str>),
    /// A number, a boolean, a list: a JSON value that is no string.
    Json(Cow<'a, str>),
}

/// A row as a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// The row's time.
    pub time: Nanos,
    /// What tells it from other rows, and from other versions of itself.
    pub digest: Digest,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value: a JSON object.
    pub value: Vec<u8>,
}

/// Why a row makes no record. Another row of the same query won't make one either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// There is no such column.
    #[error("the query's rows have no column {column}, they have {columns}: look at {option}")]
    NoColumn {
        /// The column.
        column: String,
        /// The option that names it.
        option: &'static str,
        /// The columns that they have.
        columns: String,
    },
    /// A row's time is none.
    #[error("a row's {column} is {value}, which is not a time: look at --time-column")]
    NoTime {
        /// The column.
        column: String,
        /// Its value.
        value: String,
    },
}

/// How rows become records.
#[derive(Clone, Debug)]
pub struct RecordShape {
    /// The column that has a row's time.
    pub time_column: String,
    /// The column whose value is the record's key. `None`: the group key.
    pub key_column: Option<String>,
}

impl RecordShape {
    /// Makes the record of a row. Values that are null are left out.
    ///
    /// # Errors
    /// When the row lacks a column that the shape needs, or its time.
    pub fn record(&self, columns: &[Column], cells: &[Cell<'_>]) -> Result<SourceRow, RowError> {
        let at = column(columns, &self.time_column, "--time-column")?;
        let time = match &cells[at] {
            Cell::Text(text) => Nanos::parse(text),
            Cell::Null | Cell::Json(_) => None,
        };
        let time = time
            .ok_or_else(|| RowError::NoTime { column: self.time_column.clone(), value: shown(&cells[at]) })?;
        let key = match &self.key_column {
            Some(name) => Key::Column(column(columns, name, "--key-column")?),
            None => Key::Group,
        };
        let mut value = Vec::with_capacity(cells.len() * 24);
        write_object(&mut value, columns, cells, |_| true);
        Ok(SourceRow { time, digest: digest(time, columns, cells, &key), key: key.of(columns, cells), value })
    }
}

/// What is the key of a record.
enum Key {
    /// The value of this column.
    Column(usize),
    /// The columns of the group key, as a JSON object.
    Group,
}

impl Key {
    fn of(&self, columns: &[Column], cells: &[Cell<'_>]) -> Option<Vec<u8>> {
        match self {
            Key::Column(at) => match &cells[*at] {
                Cell::Null => None,
                Cell::Text(text) | Cell::Json(text) => Some(text.as_bytes().to_vec()),
            },
            Key::Group => {
                let mut key = Vec::new();
                write_object(&mut key, columns, cells, |column| column.in_group);
                (key != b"{}").then_some(key)
            }
        }
    }

    fn has(&self, at: usize, column: &Column) -> bool {
        column.in_group || matches!(self, Key::Column(key) if *key == at)
    }
}

fn column(columns: &[Column], name: &str, option: &'static str) -> Result<usize, RowError> {
    columns.iter().position(|column| column.name == name).ok_or_else(|| {
        let columns: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        RowError::NoColumn { column: name.to_owned(), option, columns: columns.join(", ") }
    })
}

fn shown(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Text(text) | Cell::Json(text) => text.chars().take(100).collect(),
    }
}

/// Writes the cells of some columns as a JSON object.
fn write_object(
    into: &mut Vec<u8>,
    columns: &[Column],
    cells: &[Cell<'_>],
    wanted: impl Fn(&Column) -> bool,
) {
    into.push(b'{');
    for (column, cell) in columns.iter().zip(cells) {
        if *cell == Cell::Null || !wanted(column) {
            continue;
        }
        if into.last() != Some(&b'{') {
            into.push(b',');
        }
        write_text(into, &column.name);
        into.push(b':');
        match cell {
            Cell::Text(text) => write_text(into, text),
            Cell::Json(text) => into.extend_from_slice(text.as_bytes()),
            Cell::Null => {}
        }
    }
    into.push(b'}');
}

fn write_text(into: &mut Vec<u8>, text: &str) {
    // Writing a text to memory can't fail.
    let _ = serde_json::to_writer(into, text);
}

/// XXH3 of each cell, added up: stored in Kafka, so it must stay what it is. The order of columns and new columns that
/// are null change nothing, because a pivot orders its columns by what it finds.
fn digest(time: Nanos, columns: &[Column], cells: &[Cell<'_>], key: &Key) -> Digest {
    let mut scratch = Vec::with_capacity(64);
    let mut digest = Digest { identity: XxHash3_64::oneshot(&time.0.to_le_bytes()), content: 0 };
    for (at, (column, cell)) in columns.iter().zip(cells).enumerate() {
        let (kind, text) = match cell {
            Cell::Null => continue,
            Cell::Text(text) => (b'"', text),
            Cell::Json(text) => (b'=', text),
        };
        scratch.clear();
        scratch.extend_from_slice(column.name.as_bytes());
        scratch.extend_from_slice(&[0xff, kind]);
        scratch.extend_from_slice(text.as_bytes());
        let hash = XxHash3_64::oneshot(&scratch);
        if key.has(at, column) {
            digest.identity = digest.identity.wrapping_add(hash);
        }
        digest.content = digest.content.wrapping_add(hash);
    }
    digest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn column(name: &str, in_group: bool) -> Column {
        Column { name: name.to_owned(), in_group }
    }

    fn text(text: &str) -> Cell<'_> {
        Cell::Text(text.into())
    }

    fn shape(key: Option<&str>) -> RecordShape {
        RecordShape { time_column: "_time".to_owned(), key_column: key.map(str::to_owned) }
    }

    const AT: &str = "2025-12-22T10:40:00.123456789Z";

    #[test]
    fn a_row_is_an_object_without_its_nulls_and_its_key_is_the_group_s_or_a_column_s() {
        let columns = [
            column("_time", false),
            column("generatorID", true),
            column("fuel", false),
            column("note", false),
        ];
        let cells = [text(AT), text("a \"b\"\n"), Cell::Json("901.5".into()), Cell::Null];
        let row = shape(None).record(&columns, &cells).unwrap();
        let said = String::from_utf8(row.value).unwrap();
        assert_eq!(said, format!(r#"{{"_time":"{AT}","generatorID":"a \"b\"\n","fuel":901.5}}"#));
        assert_eq!(row.key.unwrap(), br#"{"generatorID":"a \"b\"\n"}"#);
        assert_eq!(row.time.to_string(), AT);
        let row = shape(Some("generatorID")).record(&columns, &cells).unwrap();
        assert_eq!(row.key.unwrap(), b"a \"b\"\n");
        assert_eq!(shape(Some("note")).record(&columns, &cells).unwrap().key, None);
        let none = [column("_time", false)];
        assert_eq!(shape(None).record(&none, &[text(AT)]).unwrap().key, None);
    }

    #[test]
    fn a_row_without_its_columns_is_an_error_that_names_the_option() {
        let columns = [column("time", false)];
        let said = shape(None).record(&columns, &[text(AT)]).unwrap_err().to_string();
        assert!(said.contains("no column _time, they have time: look at --time-column"), "{said}");
        let columns = [column("_time", false)];
        let said = shape(Some("id")).record(&columns, &[text(AT)]).unwrap_err().to_string();
        assert!(said.contains("id") && said.contains("--key-column"), "{said}");
        for cell in [Cell::Null, text("yesterday"), Cell::Json("5".into())] {
            assert!(matches!(shape(None).record(&columns, &[cell]), Err(RowError::NoTime { .. })));
        }
    }

    /// These are in users' topics.
    #[test]
    fn digests_are_what_they_were() {
        let columns = [column("_time", false), column("id", true), column("v", false)];
        let of = |columns: &[Column], cells: &[Cell<'_>]| shape(None).record(columns, cells).unwrap().digest;
        let first = of(&columns, &[text(AT), text("g"), Cell::Json("1".into())]);
        assert_eq!(first, Digest { identity: 0x24a0_adb0_3563_6a1f, content: 0x8f37_e0f7_8167_e4e1 });
        let changed = of(&columns, &[text(AT), text("g"), Cell::Json("2".into())]);
        assert!(changed.identity == first.identity && changed.content != first.content);
        let as_text = of(&columns, &[text(AT), text("g"), text("1")]);
        assert_ne!(as_text, first, "a text is no number");
        let other = of(&columns, &[text(AT), text("h"), Cell::Json("1".into())]);
        assert_ne!(other.identity, first.identity);
        let swapped = [column("v", false), column("new", false), column("id", true), column("_time", false)];
        let same = of(&swapped, &[Cell::Json("1".into()), Cell::Null, text("g"), text(AT)]);
        assert_eq!(same, first, "a pivot orders its columns as it finds them");
    }
}
