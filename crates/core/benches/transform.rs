//! What a step of a `--transform` file costs: `cargo bench --bench transform` prints nanoseconds per step by kind, and
//! what a record costs besides. The goal is 150 ns a step.
//!
//! Each kind runs in a file with 2 and in one with 22 steps; the difference is the cost of 20. Of several runs the
//! fastest counts, as whatever else the machine does only adds to it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use genwatch_core::simulator::{Faults, Fleet};
use genwatch_core::transform::record::{Command, Metadata, Record};
use genwatch_core::transform::{Outcome, Transform};
use genwatch_core::types::Millis;

const READINGS: usize = 2000;
const RUNS: usize = 25;
const GOAL_NS: f64 = 150.0;

/// A kind, and two steps: the second one undoes the first, so that each of many has the same to do.
const KINDS: [(&str, [&str; 2]); 16] = [
    (
        "rename",
        [
            r#"kind = "rename", fields = { temperature = "coolant" }"#,
            r#"kind = "rename", fields = { coolant = "temperature" }"#,
        ],
    ),
    ("drop (nothing)", [r#"kind = "drop", fields = ["serial"]"#; 2]),
    ("keep (all)", [KEEP; 2]),
    ("insert a value", [r#"kind = "insert", field = "site", value = "north""#; 2]),
    ("insert metadata", [r#"kind = "insert", field = "received", from = "timestamp""#; 2]),
    (
        "cast",
        [
            r#"kind = "cast", fields = ["temperature"], to = "string""#,
            r#"kind = "cast", fields = ["temperature"], to = "integer""#,
        ],
    ),
    (
        "mask",
        [
            r#"kind = "mask", fields = ["lat"], with = 0"#,
            r#"kind = "mask", fields = ["lat"], with = "hidden""#,
        ],
    ),
    ("flatten (nothing)", [r#"kind = "flatten""#; 2]),
    (
        "convert",
        [
            r#"kind = "convert", fields = ["temperature"], from = "celsius", to = "fahrenheit", decimals = 2"#,
            r#"kind = "convert", fields = ["temperature"], from = "fahrenheit", to = "celsius", decimals = 2"#,
        ],
    ),
    ("route, fixed target", [r#"kind = "route", regex = "read.*|hot", to = "hot""#; 2]),
    (
        "route by groups",
        [
            r#"kind = "route", regex = "readings(.*)", to = "hot$1""#,
            r#"kind = "route", regex = "hot(.*)", to = "readings$1""#,
        ],
    ),
    (
        "route by a field",
        [r#"kind = "route", field = "generatorID", regex = "([a-z]+)([0-9]+)", to = "readings_$1""#; 2],
    ),
    ("filter by a number", [r#"kind = "filter", when = { field = "fuel", below = -1 }"#; 2]),
    ("filter by a pattern", [r#"kind = "filter", when = { field = "generatorID", matches = "test-.*" }"#; 2]),
    ("filter by topic", [r#"kind = "filter", when = { topic = "readings_alerts" }"#; 2]),
    ("timestamp", [r#"kind = "timestamp", field = "fuel", unit = "s""#; 2]),
];
const KEEP: &str =
    r#"kind = "keep", fields = ["generatorID", "lat", "lon", "temperature", "pressure", "fuel", "load"]"#;

fn main() {
    let values = values();
    println!("{:<22} {:>8}", "kind", "ns/step");
    for (kind, steps) in KINDS {
        let few = nanoseconds(&values, &transform(&steps));
        let many = nanoseconds(&values, &transform(&steps.repeat(11)));
        let each = (many - few) / 20.0;
        println!("{kind:<22} {each:>8.0}{}", if each > GOAL_NS { "  over the goal" } else { "" });
    }
    let whole =
        nanoseconds(&values, &transform(&[KINDS[0].1[0]])) - nanoseconds(&values, &transform(&KINDS[14].1));
    println!("{:<22} {whole:>8.0} ns/record", "parse and write");
}

fn values() -> Vec<Vec<u8>> {
    let mut fleet = Fleet::new(1, 100, Faults::None);
    (0..READINGS).map(|_| fleet.next().value.unwrap_or_default().to_vec()).collect()
}

fn transform(steps: &[&str]) -> Transform {
    let tables: Vec<String> = steps.iter().map(|step| format!("{{ {step} }}")).collect();
    let text = format!("step = [{}]", tables.join(", "));
    Transform::parse(&text, Path::new("bench.toml"), COMMAND).unwrap()
}

const COMMAND: Command = Command { metadata: &[Metadata::Topic, Metadata::Timestamp], ..Command::BRIDGE };

/// The time of one record, parsed, transformed and written.
fn nanoseconds(values: &[Vec<u8>], transform: &Transform) -> f64 {
    let run = || {
        let begun = Instant::now();
        for value in values {
            let record = Record { timestamp: Some(Millis(1)), ..Record::new("readings", value) };
            match transform.apply(black_box(&record)) {
                Ok(Outcome::Changed(changed)) => {
                    drop(black_box(changed.fields.map(|fields| fields.to_json())));
                }
                outcome => drop(black_box(outcome)),
            }
        }
        begun.elapsed().as_nanos() as f64 / values.len() as f64
    };
    (0..RUNS).map(|_| run()).fold(f64::INFINITY, f64::min)
}
