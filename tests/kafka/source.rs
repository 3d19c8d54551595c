//! `source influx`: each row of a query is in the topic once, whatever happens on the way. Against a real InfluxDB 2; a
//! stand-in does what a real one can't be made to do, and is all that InfluxDB 3 is tested against.

mod aggregates;
mod killed;
mod owners;
mod refusals;
mod rows;
mod stand_in;
mod transforming;

use std::collections::BTreeMap;

use crate::world::World;
use crate::world::influxdb::Bucket;
use crate::world::process::{Ended, Process};

/// One row for each point, all fields in columns.
fn query(bucket: &Bucket<'_>) -> String {
    format!(
        r#"from(bucket: "{}") |> range(start: v.timeRangeStart, stop: v.timeRangeStop)
        |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")"#,
        bucket.name
    )
}

/// A source of this bucket's points to the readings topic, with more arguments.
fn source(world: &World, bucket: &Bucket<'_>, more: &[&str]) -> Process {
    source_of(world, bucket, &query(bucket), more)
}

fn source_of(world: &World, bucket: &Bucket<'_>, query: &str, more: &[&str]) -> Process {
    let access = bucket.access();
    let mut options: Vec<&str> = access.iter().map(String::as_str).collect();
    options.extend(["--query", query, "--to-topic", &world.topic]);
    for (option, value) in [("--key-column", "generatorID"), ("--from", "1h"), ("--every", "200ms")] {
        if !more.contains(&option) {
            options.extend([option, value]);
        }
    }
    world.start("source influx", &[&options, more].concat())
}

/// Runs a source to the end of what is there.
fn source_to_the_end(world: &World, bucket: &Bucket<'_>, more: &[&str]) -> Ended {
    source(world, bucket, &[&["--exit-at-end"], more].concat()).wait().success()
}

/// A point of a generator.
fn point(generator: &str, fuel: i64, nanos: i64) -> String {
    format!("plant,generatorID={generator} fuel={fuel}i {nanos}")
}

fn now_ns() -> i64 {
    crate::world::now_ms() * 1_000_000
}

/// How often each row is in the topic, for a reader of committed records: by generator, time and fuel.
fn produced(world: &World) -> BTreeMap<(String, String, i64), usize> {
    let mut found = BTreeMap::new();
    for value in world.readings().values() {
        let text = |name: &str| value[name].as_str().expect("a text").to_owned();
        let row = (text("generatorID"), text("_time"), value["fuel"].as_i64().expect("a number"));
        *found.entry(row).or_default() += 1;
    }
    found
}

/// Rows that are in the topic, and those that are there more than once.
fn counts(world: &World) -> (usize, Vec<(String, String, i64)>) {
    let found = produced(world);
    let repeated = found.iter().filter(|(_, count)| **count > 1).map(|(row, _)| row.clone()).collect();
    (found.len(), repeated)
}
