//! Reads JSON lines, InfluxDB 3's answer to a query in SQL: one object a row.

use std::io::{BufRead, BufReader, Read};

use serde_json::{Map, Value};

use crate::source::record::{Cell, Column};

/// Why an answer can't be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// It breaks off.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// InfluxDB says that the query failed.
    #[error("{0}")]
    Query(String),
}

/// Passes each row to `each`. No column is part of a group key: SQL has none.
///
/// # Errors
/// When the answer breaks off or a line is no row; and with an error of `each`.
pub fn read<E: From<LinesError>>(
    answer: impl Read,
    mut each: impl FnMut(&[Column], &[Cell<'_>]) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = BufReader::with_capacity(64 * 1024, answer);
    let (mut line, mut columns) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line);
        if read.map_err(|error| LinesError::Broken(error.to_string()))? == 0 {
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Ok(row) = serde_json::from_slice::<Map<String, Value>>(&line) else {
            let said: String = String::from_utf8_lossy(line.trim_ascii()).chars().take(300).collect();
            return Err(LinesError::Query(format!("a line of the answer is no row: {said}")).into());
        };
        let fits = columns.iter().map(|column: &Column| &column.name).eq(row.keys());
        if !fits {
            columns = row.keys().map(|name| Column { name: name.clone(), in_group: false }).collect();
        }
        let cells: Vec<Cell<'_>> = row.values().map(cell).collect();
        each(&columns, &cells)?;
    }
}

fn cell(value: &Value) -> Cell<'_> {
    match value {
        Value::Null => Cell::Null,
        Value::String(text) => Cell::Text(text.into()),
        other => Cell::Json(other.to_string().into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rows(answer: &str) -> (Vec<String>, Result<(), LinesError>) {
        let mut rows = Vec::new();
        let ended = read(answer.as_bytes(), |columns, cells| {
            let cells = columns.iter().zip(cells).map(|(column, cell)| format!("{}={cell:?}", column.name));
            rows.push(cells.collect::<Vec<_>>().join(" "));
            Ok::<(), LinesError>(())
        });
        (rows, ended)
    }

    #[test]
    fn a_line_is_a_row_with_its_own_columns() {
        let (rows, ended) =
            rows("{\"time\":\"2025-01-01T00:00:00\",\"n\":18446744073709551615}\n\n{\"n\":0.1}");
        ended.unwrap();
        assert_eq!(
            rows,
            ["time=Text(\"2025-01-01T00:00:00\") n=Json(\"18446744073709551615\")", "n=Json(\"0.1\")"]
        );
        assert!(self::rows("").1.is_ok());
    }

    #[test]
    fn a_line_that_is_no_row_is_an_error_with_its_words() {
        for answer in ["{\"n\":1}\n{\"n\":", "{\"n\":1}\n\"out of memory\"\n", "<html>"] {
            assert!(matches!(rows(answer).1, Err(LinesError::Query(_))), "{answer}");
        }
        assert!(rows("out of memory").1.unwrap_err().to_string().contains("out of memory"));
    }
}
