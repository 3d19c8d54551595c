//! The query as given, and how it is told the range that it is asked for.
//!
//! Flux has the variables that InfluxDB's own page and Grafana set: `v.timeRangeStart`, `v.timeRangeStop`, and
//! `v.windowPeriod` if ranges are aligned. SQL has Grafana's macros: `$__timeFrom`, `$__timeTo`, `$__timeFilter(column)`.

use std::time::Duration;

use serde_json::{Value, json};
use twox_hash::XxHash3_64;

use crate::source::slices::Slice;
use crate::source::time::nanos;

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// For version 2.
    Flux {
        /// The organization.
        org: String,
        /// The query.
        text: String,
    },
    /// For version 3.
    Sql {
        /// The database.
        database: String,
        /// The query.
        text: String,
    },
}

/// Why a query can't be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It would return everything each time.
    #[error(
        "--query: the query has to read the range that it is asked for: put |> range(start: v.timeRangeStart, \
         stop: v.timeRangeStop) behind from(...)"
    )]
    FluxWithoutRange,
    /// The same for SQL.
    #[error(
        "--query: the query has to read the range that it is asked for: write WHERE $__timeFilter(time), or use \
         $__timeFrom and $__timeTo"
    )]
    SqlWithoutRange,
}

impl Query {
    /// Checks that the query uses its range.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn check(&self) -> Result<(), QueryError> {
        match self {
            Query::Flux { text, .. } => {
                let uses = text.contains("timeRangeStart") && text.contains("timeRangeStop");
                if uses { Ok(()) } else { Err(QueryError::FluxWithoutRange) }
            }
            Query::Sql { text, .. } => {
                let has = |name| text.contains(name);
                let uses = has("$__timeFilter(") || has("$__timeFrom") && has("$__timeTo");
                if uses { Ok(()) } else { Err(QueryError::SqlWithoutRange) }
            }
        }
    }

    /// Returns the path of the API.
    #[must_use]
    pub fn path(&self) -> &'static str {
        match self {
            Query::Flux { .. } => "/api/v2/query",
            Query::Sql { .. } => "/api/v3/query_sql",
        }
    }

    /// Returns the column that has a row's time, unless the user names another.
    #[must_use]
    pub fn time_column(&self) -> &'static str {
        match self {
            Query::Flux { .. } => "_time",
            Query::Sql { .. } => "time",
        }
    }

    /// Returns a digest of the query: another query is another source of rows.
    #[must_use]
    pub fn digest(&self) -> String {
        let (kind, of, text) = match self {
            Query::Flux { org, text } => ("flux", org, text),
            Query::Sql { database, text } => ("sql", database, text),
        };
        format!("{:016x}", XxHash3_64::oneshot(format!("{kind}\0{of}\0{}", text.trim()).as_bytes()))
    }

    /// Returns the body of a request for this range. `window` is what the ranges are aligned to.
    #[must_use]
    pub fn body(&self, range: Slice, window: Option<Duration>) -> Value {
        match self {
            Query::Flux { text, .. } => json!({
                "query": text,
                "type": "flux",
                "dialect": { "annotations": ["datatype", "group", "default"], "header": true, "delimiter": "," },
                "extern": variables(range, window),
            }),
            Query::Sql { database, text } => {
                json!({ "db": database, "q": with_range(text, range), "format": "jsonl" })
            }
        }
    }
}

/// `option v = {timeRangeStart: ..., timeRangeStop: ...}` as Flux's syntax tree: a text could not stand in front of the
/// query's own imports.
fn variables(range: Slice, window: Option<Duration>) -> Value {
    let property = |name: &str, value: Value| json!({ "type": "Property", "key": { "type": "Identifier", "name": name }, "value": value });
    let time = |at: String| json!({ "type": "DateTimeLiteral", "value": at });
    let mut properties = vec![
        property("timeRangeStart", time(range.start.to_string())),
        property("timeRangeStop", time(range.stop.to_string())),
    ];
    properties.extend(window.map(|window| {
        let values = json!([{ "magnitude": nanos(window), "unit": "ns" }]);
        property("windowPeriod", json!({ "type": "DurationLiteral", "values": values }))
    }));
    let assignment = json!({
        "type": "VariableAssignment",
        "id": { "type": "Identifier", "name": "v" },
        "init": { "type": "ObjectExpression", "properties": properties },
    });
    json!({
        "type": "File", "package": null, "imports": null,
        "body": [{ "type": "OptionStatement", "assignment": assignment }],
    })
}

/// Replaces Grafana's macros.
fn with_range(sql: &str, range: Slice) -> String {
    let time = |at: crate::source::time::Nanos| format!("cast('{at}' as timestamp)");
    let (from, to) = (time(range.start), time(range.stop));
    let mut text = String::with_capacity(sql.len() + 200);
    let mut rest = sql;
    while let Some(at) = rest.find("$__timeFilter(") {
        let (before, behind) = (&rest[..at], &rest[at + "$__timeFilter(".len()..]);
        let Some((column, after)) = behind.split_once(')') else { break };
        text.push_str(before);
        text.push_str(&format!("{column} >= {from} AND {column} < {to}"));
        rest = after;
    }
    text.push_str(rest);
    for (name, value) in [("$__timeFrom", &from), ("$__timeTo", &to)] {
        text = text.replace(&format!("{name}()"), value).replace(name, value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::time::Nanos;

    const RANGE: Slice = Slice { start: Nanos(0), stop: Nanos(60_000_000_001) };

    fn flux(text: &str) -> Query {
        Query::Flux { org: "o".to_owned(), text: text.to_owned() }
    }

    fn sql(text: &str) -> Query {
        Query::Sql { database: "d".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_query_that_does_not_use_its_range_is_refused_with_what_to_write() {
        let query = flux(r#"from(bucket: "b") |> range(start: -1h)"#);
        assert_eq!(query.check(), Err(QueryError::FluxWithoutRange));
        assert_eq!(flux("range(start: v.timeRangeStart, stop: v.timeRangeStop)").check(), Ok(()));
        for (text, expected) in [
            ("select * from t", Err(QueryError::SqlWithoutRange)),
            ("select * from t where time > $__timeFrom", Err(QueryError::SqlWithoutRange)),
            ("select * from t where $__timeFilter(time)", Ok(())),
            ("select * from t where time >= $__timeFrom and time < $__timeTo()", Ok(())),
        ] {
            assert_eq!(sql(text).check(), expected, "{text}");
        }
    }

    #[test]
    fn flux_has_the_range_as_variables_and_sql_as_text() {
        let body = flux("import \"math\" x").body(RANGE, Some(Duration::from_secs(60)));
        assert_eq!(body["query"], "import \"math\" x");
        let properties = &body["extern"]["body"][0]["assignment"]["init"]["properties"];
        let value = |at: usize| properties[at]["value"]["value"].clone();
        assert_eq!(value(0), "1970-01-01T00:00:00Z");
        assert_eq!(value(1), "1970-01-01T00:01:00.000000001Z");
        assert_eq!(properties[2]["value"]["values"][0]["magnitude"], 60_000_000_000_i64);

        let text = "select * from t where $__timeFilter(\"time\") or x > $__timeFrom() and y < $__timeTo";
        let body = sql(text).body(RANGE, None);
        let (from, to) = (
            "cast('1970-01-01T00:00:00Z' as timestamp)",
            "cast('1970-01-01T00:01:00.000000001Z' as timestamp)",
        );
        let expected = format!(
            "select * from t where \"time\" >= {from} AND \"time\" < {to} or x > {from} and y < {to}"
        );
        assert_eq!((&body["q"], &body["db"]), (&Value::from(expected), &Value::from("d")));
    }

    #[test]
    fn another_query_has_another_digest_and_the_digest_is_what_it_was() {
        assert_eq!(flux("a").digest(), flux(" a\n").digest());
        assert_ne!(flux("a").digest(), flux("b").digest());
        assert_ne!(flux("a").digest(), sql("a").digest());
        assert_eq!(flux("a").digest(), "5660c1b86279748c");
    }
}
