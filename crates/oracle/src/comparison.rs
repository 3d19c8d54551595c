//! Whether aggregates are the expected ones, and how they differ, in words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The relative error that percentiles may have.
const ACCURACY: f64 = 0.01;

/// A percentile of a smaller magnitude may be given as 0.
const ZERO: f64 = 1e-9;

/// Returns how `actual` differs from `expected`, a line for each difference; nothing if they are equal. Both are values
/// of the aggregates topic; only the order within a generator counts. Every number must be equal, percentiles within
/// 1 %.
#[must_use]
pub fn compare_aggregates(expected: &[Value], actual: &[Value]) -> Vec<String> {
    let (expected, actual) = (by_generator(expected), by_generator(actual));
    let generators: BTreeSet<&str> = expected.keys().chain(actual.keys()).copied().collect();
    let mut differences = Vec::new();
    for generator in generators {
        let none = Vec::new();
        let expected = expected.get(generator).unwrap_or(&none);
        let actual = actual.get(generator).unwrap_or(&none);
        for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
            if name(expected) != name(actual) {
                differences.push(format!(
                    "{generator}: its aggregate {index} is of {}, not of {}",
                    name(actual),
                    name(expected)
                ));
                break;
            }
            compare(&format!("{generator}, {}", name(expected)), "", expected, actual, &mut differences);
        }
        for missing in expected.iter().skip(actual.len()) {
            differences.push(format!("{generator}: {} is missing", name(missing)));
        }
        for surplus in actual.iter().skip(expected.len()) {
            differences.push(format!("{generator}: {} is unexpected", name(surplus)));
        }
    }
    differences
}

fn by_generator(values: &[Value]) -> BTreeMap<&str, Vec<&Value>> {
    let mut all: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for value in values {
        all.entry(value["generatorID"].as_str().unwrap_or_default()).or_default().push(value);
    }
    all
}

fn name(value: &Value) -> String {
    let revision = value.get("revision").map_or(String::new(), |revision| format!(", revision {revision}"));
    format!("window {} to {}{revision}", value["window"]["start"], value["window"]["end"])
}

fn compare(what: &str, path: &str, expected: &Value, actual: &Value, differences: &mut Vec<String>) {
    if let (Value::Object(wanted), Value::Object(found)) = (expected, actual) {
        let names: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match (wanted.get(name), found.get(name)) {
                (Some(expected), Some(actual)) => compare(what, &path, expected, actual, differences),
                (Some(expected), None) => {
                    differences.push(format!("{what}: {path} is missing, not {expected}"));
                }
                (None, found) => {
                    let found = found.unwrap_or(&Value::Null);
                    differences.push(format!("{what}: {path} is {found}, and should be absent"));
                }
            }
        }
        return;
    }
    let percentile =
        path.starts_with("fields.") && [".p50", ".p95", ".p99"].iter().any(|p| path.ends_with(p));
    let equal = match (expected.as_f64(), actual.as_f64()) {
        // The bound itself is rounded, too.
        (Some(expected), Some(actual)) if percentile => {
            (expected - actual).abs() <= expected.abs() * (ACCURACY + 1e-12) + ZERO
        }
        (Some(expected), Some(actual)) => expected == actual,
        _ => expected == actual,
    };
    if !equal {
        differences.push(format!("{what}: {path} is {actual}, not {expected}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn aggregate() -> Value {
        json!({"generatorID": "g", "window": {"start": 0, "end": 60000}, "count": 1,
            "fields": {"fuel": {"min": 1.0, "p50": 100.0}}, "above": {"low": 0.0}, "hours_left": null, "final": true})
    }

    fn differences(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut changed = aggregate();
        change(&mut changed);
        compare_aggregates(&[aggregate()], &[changed])
    }

    #[test]
    fn each_difference_is_put_in_words() {
        assert_eq!(differences(|_| ()), [""; 0]);
        assert_eq!(differences(|a| a["fields"]["fuel"]["p50"] = json!(100.9)), [""; 0]);
        assert_eq!(differences(|a| a["count"] = json!(1.0)), [""; 0], "a number is a number");
        let place = "g, window 0 to 60000: ";
        for (difference, changed) in [
            (
                "fields.fuel.p50 is 101.1, not 100.0",
                differences(|a| a["fields"]["fuel"]["p50"] = json!(101.1)),
            ),
            (
                "fields.fuel.min is 1.000001, not 1.0",
                differences(|a| a["fields"]["fuel"]["min"] = json!(1.000_001)),
            ),
            ("hours_left is 1.0, not null", differences(|a| a["hours_left"] = json!(1.0))),
            ("above.high is 1.0, and should be absent", differences(|a| a["above"]["high"] = json!(1.0))),
            ("above.low is missing, not 0.0", differences(|a| a["above"] = json!({}))),
        ] {
            assert_eq!(changed, [format!("{place}{difference}")]);
        }
        assert_eq!(
            differences(|a| a["revision"] = json!(1)),
            ["g: its aggregate 0 is of window 0 to 60000, revision 1, not of window 0 to 60000"]
        );
        assert_eq!(compare_aggregates(&[aggregate()], &[]), ["g: window 0 to 60000 is missing"]);
        assert_eq!(compare_aggregates(&[], &[aggregate()]), ["g: window 0 to 60000 is unexpected"]);
    }
}
