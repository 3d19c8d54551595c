//! How a record becomes a point in InfluxDB.

use std::collections::BTreeSet;

use super::{expected, progress, progress_of, readings, sink, sink_to_the_end, total};
use crate::world::influxdb::{Bucket, shared};
use crate::world::process::Process;
use crate::world::records::{self, Outgoing};
use crate::world::{World, http, now_ms, until};

/// Every reading in the log is a point, and there are no others.
#[track_caller]
fn assert_all_arrived(world: &World, bucket: &Bucket<'_>) {
    let expected: BTreeSet<_> = expected(world).into_values().collect();
    let found: BTreeSet<_> = bucket.points(&world.topic, "fuel").into_keys().collect();
    let missing: Vec<_> = expected.difference(&found).take(5).collect();
    let strange: Vec<_> = found.difference(&expected).take(5).collect();
    assert!(missing.is_empty() && strange.is_empty(), "missing: {missing:?}, strange: {strange:?}");
}

#[test]
fn readings_alerts_and_aggregates_become_points_once() {
    let world = World::new(3);
    let bucket = shared().bucket();
    let at = 1_766_400_000_123;
    world.produce(&[
        Outgoing::reading("generator4", 80.0, 150.5).at(at),
        Outgoing::reading("generator4", 80.0, 400.0).at(at + 1000),
        Outgoing::tombstone("generator5").at(at),
    ]);
    world.work_to_the_end(&[]);
    let aggregates = format!("{}_1m", world.topic);
    let aggregate =
        Outgoing::new("generator4", br#"{"generatorID":"generator4","fuel":{"min":150.5},"n":2}"#);
    records::produce(&world.brokers, &aggregates, &[aggregate.clone().at(at), aggregate.at(at)]);

    let ended = sink_to_the_end(&world, &bucket, &[]);
    assert_eq!(
        [ended.number("records"), ended.number("points"), ended.number("skipped"), ended.number("retries")],
        [7, 6, 1, 0],
        "{ended:#?}"
    );
    assert!(ended.number("writes") >= 1 && ended.json()["seconds"].as_f64().unwrap() > 0.0, "{ended:#?}");
    assert!(ended.stderr.contains("a tombstone"), "{}", ended.stderr);

    assert_all_arrived(&world, &bucket);
    let topic = &world.topic;
    let first = |field: &str| bucket.points(topic, field).into_values().next().expect("a point");
    for (field, value) in [
        ("fuel", "150.5"),
        ("lat", "40.65995"),
        ("lon", "-111.99633"),
        ("pressure", "198"),
        ("temperature", "80"),
    ] {
        assert_eq!(first(field), value, "{field}");
    }
    let alerts = format!("{topic}_alerts");
    let rows = bucket.rows(&alerts, "value");
    let state = |row: &std::collections::BTreeMap<String, String>| {
        ["rule", "severity", "state", "_value"].map(|name| row[name].clone())
    };
    let mut states: Vec<_> = rows.iter().map(state).collect();
    states.sort();
    assert_eq!(
        states,
        [["low_fuel", "warning", "cleared", "400"], ["low_fuel", "warning", "raised", "150.5"]]
    );
    // At the time of its reading, to the nanosecond, not the time of processing.
    let times = |measurement: &str, field: &str| -> BTreeSet<i64> {
        bucket.points(measurement, field).into_keys().map(|(_, time)| time).collect()
    };
    assert_eq!(times(&alerts, "source_offset"), times(topic, "fuel"));
    // The second one corrects the first.
    assert_eq!(times(&format!("{topic}_1m"), "fuel_min"), BTreeSet::from([at * 1_000_000]));

    for topic in [topic, &world.alerts_topic(), &aggregates] {
        // Transaction markers aren't left as lag, either.
        assert_eq!(progress_of(&world, topic).lag(), 0, "{topic}");
    }
    assert_eq!(sink_to_the_end(&world, &bucket, &[]).number("records"), 0);
}

#[test]
fn a_record_that_is_no_reading_decides_no_type_and_costs_nobody_a_point() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let bad = r#"{"generatorID":"generator0","lat":1,"lon":2,"temperature":"74","pressure":198,"fuel":901}"#;
    // The very first of all records in an empty bucket.
    world.produce(&[Outgoing::new("generator0", bad.as_bytes()), Outgoing::new("generator0", b"no JSON")]);
    world.produce(&readings(20, 20_000));

    let sink = sink(&world, &bucket, &["--http", "127.0.0.1:0"]);
    let page = sink.http();
    until("all is committed", || progress(&world).lag() == 0);
    let metrics = http::get(&page, "/metrics").1;
    for code in ["wrong_type", "not_json"] {
        let series = format!(r#"genwatch_sink_skipped_total{{reason="{code}""#);
        assert_eq!(total(&metrics, &series), 1.0, "{metrics}");
    }
    let ended = sink.stop();
    assert_eq!([ended.number("points"), ended.number("skipped")], [20_000, 2], "{ended:#?}");
    assert_eq!(bucket.count_and_sum(&world.topic, "temperature"), (20_000, 20_000.0 * 80.0));
    assert!(ended.stderr.contains("wrong_type"), "{}", ended.stderr);
}

#[test]
fn a_member_that_devices_type_differently_costs_no_reading() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let with = |generator: &str, member: &str| {
        let value = format!(
            r#"{{"generatorID":"{generator}","lat":1,"lon":2,"temperature":74,"pressure":198,"fuel":901,{member}}}"#
        );
        Outgoing::new(generator, value.as_bytes())
    };
    // Each comes first once: in a bucket, and in a batch.
    let of = |n: usize| match n % 4 {
        0 => with("generator0", r#""humidity":"wet","site":"north""#),
        1 => with("generator1", r#""humidity":0.5"#),
        2 => with("generator2", r#""humidity":true,"time":5"#),
        _ => with("generator3", r#""_field":1,"_measurement":"x","_time":7"#),
    };
    for begun in 0..4 {
        world.produce(&(0..500).map(|n| of(begun + n)).collect::<Vec<_>>());
        sink_to_the_end(&world, &bucket, &["--linger", "1s"]);
        assert_all_arrived(&world, &bucket);
    }
    assert_eq!(bucket.count_and_sum(&world.topic, "temperature").0, 2000);
    assert_eq!(bucket.points(&world.topic, "site").len(), 500);
    assert_eq!(progress(&world).lag(), 0);
}

#[test]
fn readings_of_one_millisecond_stay_points_of_their_own_also_when_written_twice() {
    let mut world = World::new(3);
    let bucket = shared().bucket();
    // 200 generators, 100 readings a second each: and five of each in every millisecond.
    let second = now_ms() - 10_000;
    let readings: Vec<_> = readings(200, 100_000)
        .into_iter()
        .enumerate()
        .map(|(n, reading)| reading.at(second + (n / 1000) as i64 * 10))
        .collect();
    world.produce(&readings);
    let sum = (0..100_000_u64).sum::<u64>() as f64;
    for group in ["once", "twice"] {
        world.group = format!("{}-{group}", world.topic);
        let ended = sink_to_the_end(&world, &bucket, &[]);
        assert_eq!([ended.number("points"), ended.number("skipped")], [100_000, 0], "{ended:#?}");
        assert_eq!(bucket.count_and_sum(&world.topic, "fuel"), (100_000, sum), "written {group}");
    }
}

#[test]
fn measurement_and_precision_are_for_users_to_choose() {
    let world = World::new(1);
    let bucket = shared().bucket();
    world.produce(&[Outgoing::reading("g", 80.0, 1.0).at(1_766_400_000_123)]);
    sink_to_the_end(&world, &bucket, &["--measurement", "gensets", "--precision", "s"]);
    let points: Vec<_> = bucket.points("gensets", "fuel").into_keys().collect();
    assert_eq!(points, [("g".to_owned(), 1_766_400_000_000_000_000)]);
}

#[test]
fn points_beyond_the_retention_are_counted_as_the_server_counts_them() {
    let world = World::new(1);
    let hours = 3_600_000;
    let bucket = shared().bucket_for(3600);
    let old = readings(10, 4000).into_iter().map(|reading| reading.at(now_ms() - 3 * hours));
    // And a device that has lost its clock.
    let of_1970 = [Outgoing::reading("generator1", 80.0, 1.0).at(86_400_000)];
    let new = readings(10, 6000).into_iter().map(|reading| reading.at(now_ms() - 1000));
    world.produce(&old.chain(of_1970).chain(new).collect::<Vec<_>>());

    let ended = sink_to_the_end(&world, &bucket, &["--batch", "5000"]);
    assert_eq!(
        [ended.number("records"), ended.number("points"), ended.number("skipped")],
        [10_001, 6000, 4001],
        "{ended:#?}"
    );
    assert_eq!(bucket.count_and_sum(&world.topic, "fuel").0, 6000);
    assert!(ended.number("writes") < 20, "no request for each of them: {ended:#?}");
    assert!(ended.stderr.contains("outside retention policy"), "{}", ended.stderr);
    assert_eq!(progress(&world).lag(), 0);
}

#[test]
fn a_clock_of_1970_is_a_time_like_any_other_where_all_is_kept() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let times = [0, 1, 86_400_000, now_ms()];
    world.produce(&times.map(|at| Outgoing::reading("g", 80.0, at as f64).at(at)));
    let ended = sink_to_the_end(&world, &bucket, &[]);
    assert_eq!([ended.number("points"), ended.number("skipped")], [4, 0], "{ended:#?}");
    assert_all_arrived(&world, &bucket);
}

#[test]
fn two_sinks_share_the_partitions() {
    let world = World::new(4);
    let bucket = shared().bucket();
    let sinks = [sink(&world, &bucket, &[]), sink(&world, &bucket, &[])];
    sinks.iter().for_each(Process::wait_until_assigned);
    until("one has given up what the other got", || {
        sinks.iter().any(|sink| !sink.revocations().is_empty())
            || sinks.iter().all(|sink| sink.assignments().len() == 1)
    });
    world.produce(&readings(100, 4000));
    until("all is committed", || progress(&world).lag() == 0);
    assert_all_arrived(&world, &bucket);
    let points = sinks.map(|sink| sink.stop().number("points"));
    assert!(points.iter().all(|points| *points > 0), "{points:?}");
    assert_eq!(points.iter().sum::<u64>(), 4000);
}
