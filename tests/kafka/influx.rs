//! `sink influx`: all data in Kafka reaches InfluxDB, whatever happens on the way. Against a real one; a stand-in does
//! what a real one can't be made to do.

mod faults;
mod kafka_side;
mod points;
mod refusals;
mod stand_in;
mod transforming;

use std::collections::BTreeMap;

use crate::world::influxdb::Bucket;
use crate::world::process::{Ended, Process};
use crate::world::records::{self, Group, Outgoing};
use crate::world::{World, http, now_ms};

/// A sink into this bucket, with more arguments.
fn sink(world: &World, bucket: &Bucket<'_>, more: &[&str]) -> Process {
    let options = bucket.options();
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    if !more.contains(&"--linger") {
        options.extend(["--linger", "20ms"]);
    }
    world.start("sink influx", &[&options, more].concat())
}

/// Runs a sink to the end of the topics.
fn sink_to_the_end(world: &World, bucket: &Bucket<'_>, more: &[&str]) -> Ended {
    sink(world, bucket, &[&["--exit-at-end"], more].concat()).wait().success()
}

/// The sinks' committed offsets of the readings.
fn progress(world: &World) -> Group {
    progress_of(world, &world.topic)
}

fn progress_of(world: &World, topic: &str) -> Group {
    records::progress(&world.brokers, topic, &format!("{}_influx", world.group))
}

/// `count` readings, the last ones now. The fuel is the number of each.
fn readings(generators: usize, count: usize) -> Vec<Outgoing> {
    let begun = now_ms() - 1_000_000;
    (0..count)
        .map(|n| {
            let reading = Outgoing::reading(&format!("generator{}", n % generators), 80.0, n as f64);
            reading.at(begun + n as i64)
        })
        .collect()
}

/// The points expected for the readings in the log, by generator and time.
fn expected(world: &World) -> BTreeMap<(i32, i64), (String, i64)> {
    let records = world.readings();
    let identity = |record: &crate::oracle::log::Stored| {
        let time = record.timestamp * 1_000_000 + record.offset % 1_000_000;
        ((record.partition, record.offset), (record.key().to_owned(), time))
    };
    records.0.iter().filter(|record| record.value.is_some()).map(identity).collect()
}

fn total(page: &str, name: &str) -> f64 {
    http::samples(page, name).iter().map(|(_, value)| value).sum()
}
