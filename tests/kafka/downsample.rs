//! `genwatch downsample`: the aggregates of a topic are those of a batch over it, whatever happens to who makes them.

use std::time::{Duration, Instant};

use genwatch_oracle::{AggregateOracle, Ending, NaiveRule, Windows, compare_aggregates};
use serde_json::Value;

use crate::world::records::{Outgoing, Records};
use crate::world::{World, now_ms, until};

const MINUTE: i64 = 60_000;
const WINDOWS: Windows = Windows { length: MINUTE, grace: 10_000, correct_within: None };

/// Readings of some generators, a second apart, from a full minute on; each twentieth comes late.
fn fleet(generators: usize, from: i64, count: usize) -> Vec<Outgoing> {
    let reading = |n: usize| {
        let (generator, step) = (n % generators, n / generators);
        let temperature = 80.0 + ((step * 7 + generator * 3) % 25) as f64 + 0.1;
        let fuel = 900.0 - (step % 300) as f64 * 1.7;
        let late = if n % 20 == 19 { 30_000 } else { 0 };
        let at = from + 1000 * step as i64 - late;
        Outgoing::reading(&format!("generator{generator}"), temperature, fuel).at(at)
    };
    (0..count).map(reading).collect()
}

/// A full minute, so long ago that the wall clock is past all windows.
fn long_ago() -> i64 {
    let ago = now_ms() - 6 * 60 * MINUTE;
    ago - ago % MINUTE
}

fn expected(readings: &Records, windows: Windows, ending: Ending) -> Vec<Value> {
    let mut oracle = AggregateOracle::new(windows, &NaiveRule::built_in());
    for record in readings.iter() {
        oracle.record(record.topic_record());
    }
    oracle.aggregates(ending)
}

fn minutes(world: &World) -> Records {
    world.read(&format!("{}_1m", world.topic))
}

fn verify(world: &World, windows: Windows) {
    let told: Vec<Value> = minutes(world).values().collect();
    let differences = compare_aggregates(&expected(&world.readings(), windows, Ending::Closed), &told);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(!told.is_empty());
}

/// Waits until the last window is closed.
fn wait_for_all(world: &World, windows: Windows) {
    let wanted = expected(&world.readings(), windows, Ending::Closed).len();
    until("every window is closed", || minutes(world).len() >= wanted);
}

#[test]
fn several_threads_make_the_same_aggregates() {
    let world = World::new(6);
    world.produce(&fleet(50, long_ago(), 60_000));
    let downsample = world.start("downsample", &["--grace", "10s", "--threads", "3"]);
    wait_for_all(&world, WINDOWS);
    verify(&world, WINDOWS);
    downsample.stop();
}

#[test]
fn the_aggregates_are_those_of_a_batch_and_the_last_window_of_who_is_silent_closes() {
    let world = World::new(3);
    let mut records = fleet(7, long_ago(), 3_000);
    records.insert(1_000, Outgoing::new("generator1", b"no reading"));
    records.push(Outgoing::tombstone("generator3"));
    world.produce(&records);
    let downsample = world.start("downsample", &["--grace", "10s"]);
    wait_for_all(&world, WINDOWS);
    verify(&world, WINDOWS);
    for record in minutes(&world).iter() {
        let value = record.json();
        assert_eq!(
            record.timestamp,
            value["window"]["end"].as_i64().unwrap(),
            "its time is the window's end"
        );
        assert_eq!(record.key(), value["generatorID"].as_str().unwrap());
        assert_eq!(record.header("content-type"), Some("application/json"));
    }
    let place = |records: &Records| -> std::collections::BTreeMap<String, i32> {
        records.iter().map(|record| (record.key().to_owned(), record.partition)).collect()
    };
    assert_eq!(place(&minutes(&world)), place(&world.readings()), "the partition of its readings");
    let summary = downsample.stop().success().json();
    assert_eq!(summary["records"], 3_002);
    assert_eq!(summary["skipped"], 1);
    assert!(summary["late_dropped"].as_u64().unwrap() > 20, "{summary}");
    assert_eq!(world.read(&world.dlq_topic()).len(), 0, "bad readings are the workers'");
}

#[test]
fn a_reading_s_value_is_back_within_the_grace_and_some_seconds() {
    let world = World::new(1);
    let downsample = world.start("downsample", &["--window", "5s", "--grace", "2s"]);
    let topic = format!("{}_5s", world.topic);
    downsample.wait_until_assigned();
    let at = now_ms();
    world.produce(&[Outgoing::reading("generator1", 81.5, 700.0).at(at)]);
    let end = at - at % 5_000 + 5_000;
    until("its window is told", || world.read(&topic).len() == 1);
    let told = now_ms();
    assert!(told >= end + 2_000, "not before the grace is over");
    assert!(told < end + 2_000 + 5_000, "{} ms after the window's end", told - end);
    assert_eq!(world.read(&topic).0[0].json()["fields"]["temperature"]["mean"], 81.5);
}

#[test]
fn killed_and_joined_by_others_it_tells_each_window_once() {
    let world = World::new(6);
    // The grace is longer than any pause here: no clock closes a window in between.
    let (from, options) = (long_ago(), ["--grace", "10m", "--commit-interval", "300ms"]);
    let windows = Windows { grace: 10 * MINUTE, ..WINDOWS };
    let group = format!("{}_1m", world.group);
    let mut running = vec![world.start("downsample", &options)];
    for round in 0..6 {
        let before = world.progress_of(&group).done();
        world.produce(&fleet(20, from + round * 300_000, 6_000));
        until("a part of them is worked", || world.progress_of(&group).done() > before + 1_000);
        match round % 3 {
            0 => running.push(world.start("downsample", &options)),
            1 => {
                running.remove(0).kill();
                running.push(world.start("downsample", &options));
            }
            _ => {
                running.remove(0).stop().success();
            }
        }
    }
    // The watermark of each partition passes all of these.
    let later = from + 3 * 60 * MINUTE;
    let last = |partition| Outgoing::reading("generator1", 80.0, 500.0).at(later).to(partition);
    world.produce(&(0..6).map(last).collect::<Vec<_>>());
    let wanted = expected(&world.readings(), windows, Ending::Open);
    until("every window is closed", || minutes(&world).len() >= wanted.len());
    let told: Vec<Value> = minutes(&world).values().collect();
    let differences = compare_aggregates(&wanted, &told);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn at_the_end_it_stores_its_states_and_leaves_before_the_next_interval() {
    let world = World::new(2);
    world.produce(&fleet(10, long_ago(), 2_000));
    let options = ["--exit-at-end", "--commit-interval", "1h"];
    for records in [2_000, 0] {
        let summary = world.start("downsample", &options).wait().success().json();
        assert_eq!(summary["records"], records, "{summary}");
    }
}

#[test]
fn a_late_reading_corrects_its_window_where_that_is_asked_for() {
    let world = World::new(2);
    world.produce(&fleet(5, long_ago(), 2_000));
    let _downsample =
        world.start("downsample", &["--grace", "0s", "--late", "correct", "--correct-within", "10m"]);
    let windows = Windows { grace: 0, correct_within: Some(10 * MINUTE), ..WINDOWS };
    wait_for_all(&world, windows);
    verify(&world, windows);
    let revisions = minutes(&world).values().filter(|value| value["revision"].is_u64()).count();
    assert!(revisions > 20, "{revisions}");
}

#[test]
fn a_cascade_equals_what_the_readings_give() {
    let world = World::new(2);
    let in_order: Vec<Outgoing> = fleet(4, long_ago(), 3_000)
        .into_iter()
        .enumerate()
        .map(|(n, record)| {
            if n % 20 == 19 {
                Outgoing { timestamp: record.timestamp.map(|at| at + 30_000), ..record }
            } else {
                record
            }
        })
        .collect();
    world.produce(&in_order);
    let _small = world.start("downsample", &["--window", "10s", "--grace", "5s"]);
    let small = format!("{}_10s", world.topic);
    until("there are small windows", || world.has_topic(&small));
    let _cascade = world.start("downsample", &["--from", "10s", "--window", "1m", "--grace", "5s"]);
    let direct = world.another_group();
    let _direct =
        direct.start("downsample", &["--grace", "5s", "--to-topic", &format!("{}_direct", world.topic)]);
    let windows = Windows { grace: 5_000, ..WINDOWS };
    let wanted = expected(&world.readings(), windows, Ending::Closed);
    let (cascaded, directly) = (format!("{}_1m", world.topic), format!("{}_direct", world.topic));
    for topic in [&cascaded, &directly] {
        until("every window is closed", || world.read(topic).len() >= wanted.len());
        let told: Vec<Value> = world.read(topic).values().collect();
        let differences = compare_aggregates(&wanted, &told);
        assert!(differences.is_empty(), "{topic}: {}", differences.join("\n"));
    }
}

#[test]
fn a_topic_that_grows_and_a_state_of_other_windows() {
    let world = World::new(2);
    let from = long_ago();
    world.produce(&fleet(10, from, 1_000));
    let _downsample = world.start("downsample", &["--grace", "10s"]);
    until("it works", || minutes(&world).len() > 0);
    world.grow(4);
    // The new partitions are worked, and the aggregates topic has them.
    let at = from + 3_600_000;
    world.produce(&[
        Outgoing::reading("generator1", 80.0, 500.0).at(at).to(3),
        Outgoing::reading("generator1", 80.0, 500.0).at(at + 120_000).to(3),
    ]);
    until("a new partition has aggregates", || minutes(&world).iter().any(|record| record.partition == 3));
}

#[test]
fn what_can_t_be_said_is_refused_with_the_reason() {
    let world = World::new(1);
    for (arguments, said) in [
        (&["--window", "0s"][..], "--window"),
        (&["--window", "1s", "--grace", "1h"], "choose a larger --window or less time"),
        (&["--from", "40s", "--window", "1m"], "doesn't divide"),
    ] {
        let ended = world.run("downsample", arguments);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    let began = Instant::now();
    let nothing = World::empty().run("downsample", &[]);
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stderr.contains("topics create"), "{}", nothing.stderr);
    assert!(began.elapsed() < Duration::from_secs(60));
}
