//! Results: what was measured, on which machine, with which versions; as JSON, CSV and a table.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::BenchError;
use super::targets::Results;

/// Results of one benchmark: flat rows, so that JSON and CSV hold the same.
#[derive(Clone, Debug)]
pub struct Report {
    /// `drain`, `scale`, `latency` or `partitions`.
    pub benchmark: &'static str,
    /// Its parameters.
    pub configuration: Value,
    /// Each repetition, as measured.
    pub runs: Vec<Map<String, Value>>,
    /// The results over all repetitions.
    pub results: Vec<Map<String, Value>>,
}

impl Report {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(benchmark: &'static str, configuration: Value) -> Report {
        Report { benchmark, configuration, runs: Vec::new(), results: Vec::new() }
    }

    /// Returns a column's value for each repetition of a contender.
    #[must_use]
    pub fn measured(&self, contender: &str, column: &str) -> Vec<f64> {
        let of = self.runs.iter().filter(|row| row["contender"] == contender);
        of.filter_map(|row| row[column].as_f64()).collect()
    }

    /// One JSON document.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "benchmark": self.benchmark,
            "at": jiff::Timestamp::now().to_string(),
            "machine": machine(),
            "versions": {
                "genwatch": env!("CARGO_PKG_VERSION"),
                "librdkafka": genwatch_kafka::librdkafka_version(),
            },
            "configuration": self.configuration,
            "results": self.results,
            "runs": self.runs,
        })
    }

    /// Writes `NAME.json`, and `NAME.csv` with the repetitions, into a folder named by the date below `directory`.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn write(&self, directory: &Path, name: &str) -> Result<PathBuf, BenchError> {
        let folder = directory.join(jiff::Zoned::now().date().to_string());
        std::fs::create_dir_all(&folder).map_err(|error| BenchError::file(&folder, error))?;
        let path = folder.join(format!("{name}.json"));
        std::fs::write(&path, format!("{:#}\n", self.to_json()))
            .map_err(|error| BenchError::file(&path, error))?;
        let table = folder.join(format!("{name}.csv"));
        std::fs::write(&table, csv(&self.runs)).map_err(|error| BenchError::file(&table, error))?;
        Ok(path)
    }

    /// Returns the results as a table for a terminal.
    #[must_use]
    pub fn to_table(&self) -> String {
        table(&self.results)
    }
}

/// Checks that results can be written, before the measurement.
///
/// # Errors
/// When the folder can't be made or written to.
pub fn check_writable(directory: &Path) -> Result<(), BenchError> {
    let refused = |error| BenchError::file(directory, error);
    std::fs::create_dir_all(directory).map_err(refused)?;
    let probe = directory.join(format!(".genwatch-{}", std::process::id()));
    std::fs::write(&probe, "").and_then(|()| std::fs::remove_file(&probe)).map_err(refused)
}

/// Reads the results in a folder, by file name.
///
/// # Errors
/// When one can't be read.
pub fn read(folder: &Path) -> Result<Results, BenchError> {
    let entries = std::fs::read_dir(folder).map_err(|error| BenchError::file(folder, error))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let json = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    json.map(|path| {
        let text = std::fs::read_to_string(&path).map_err(|error| BenchError::file(&path, error))?;
        let result = serde_json::from_str(&text).map_err(|error| BenchError::file(&path, error))?;
        Ok((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), result))
    })
    .collect()
}

/// Makes a row of any value that serializes to an object.
pub fn row(cells: impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(cells) {
        Ok(Value::Object(cells)) => cells,
        _ => Map::new(),
    }
}

/// Rounds to two decimals: more would be noise.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    if value.abs() >= 1000.0 { value.round() } else { (value * 100.0).round() / 100.0 }
}

/// The hardware and its system.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

/// Returns the columns in order of first appearance.
fn columns(rows: &[Map<String, Value>]) -> Vec<&str> {
    let mut columns: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    columns
}

fn cell(row: &Map<String, Value>, column: &str) -> String {
    match row.get(column) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

fn csv(rows: &[Map<String, Value>]) -> String {
    let columns = columns(rows);
    let quoted = |text: String| {
        let special = text.contains([',', '"', '\n']);
        if special { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    let line = |cells: Vec<String>| cells.into_iter().map(quoted).collect::<Vec<_>>().join(",") + "\n";
    let head = line(columns.iter().map(ToString::to_string).collect());
    let body = rows.iter().map(|row| line(columns.iter().map(|column| cell(row, column)).collect()));
    head + &body.collect::<String>()
}

fn table(rows: &[Map<String, Value>]) -> String {
    let columns = columns(rows);
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|name| name.replace('_', " ")).collect()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()));
    let width = |index: usize| lines.iter().map(|line| line[index].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (index, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Names left-aligned, numbers right-aligned.
            let padded = if index == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            text.push_str(&padded);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_and_table_hold_each_cell_under_its_column() {
        let rows =
            [row(json!({"name": "a, b", "rate": 12.5})), row(json!({"name": "c", "more": "say \"x\""}))];
        assert_eq!(csv(&rows), "name,rate,more\n\"a, b\",12.5,\nc,,\"say \"\"x\"\"\"\n");
        let shown = table(&rows);
        assert_eq!(shown.lines().next(), Some("name  rate     more"), "{shown}");
        assert_eq!(shown.lines().nth(1), Some("a, b  12.5"), "{shown}");
    }
}
