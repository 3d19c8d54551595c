//! What becomes of rows: new ones, late ones, corrected ones.

use rdkafka::consumer::Consumer as _;
use serde_json::{Value, json};

use super::{counts, now_ns, point, produced, query, source, source_of, source_to_the_end};
use crate::oracle::log::Stored;
use crate::world::influxdb::shared;
use crate::world::process::Process;
use crate::world::{PATIENCE, World, http, until};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;

#[test]
fn a_row_becomes_a_record_with_its_time_and_its_key() {
    let world = World::new(3);
    let bucket = shared().bucket();
    let at = (now_ns() - MINUTE) / SECOND * SECOND + 123_456_789;
    bucket.write(&format!(
        "plant,generatorID=generator\\ 4,site=a fuel=901.5,on=true,n=9007199254740993i,u=18446744073709551615u,\
         note=\"say \\\"hi\\\", now\n#x\" {at}"
    ));
    let ended = source_to_the_end(&world, &bucket, &[]);
    assert_eq!([ended.number("rows"), ended.number("commits"), ended.number("errors")], [1, 1, 0]);
    let records: Vec<Stored> = world.readings().0;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].key(), "generator 4");
    assert_eq!(records[0].timestamp, at / 1_000_000);
    let mut value = records[0].json();
    let time: jiff::Timestamp = value["_time"].as_str().expect("a text").parse().expect("a time");
    assert_eq!(i64::try_from(time.as_nanosecond()).unwrap(), at);
    value.as_object_mut().expect("an object").remove("_time");
    let expected = json!({
        "_measurement": "plant", "generatorID": "generator 4", "site": "a", "fuel": 901.5, "on": true,
        "n": 9_007_199_254_740_993_i64, "u": u64::MAX, "note": "say \"hi\", now\n#x",
    });
    assert_eq!(value, expected);
}

#[test]
fn without_a_key_column_the_key_is_the_group_key_and_each_field_is_a_row() {
    let world = World::new(3);
    let bucket = shared().bucket();
    bucket.write(&format!("plant,generatorID=g a=1,b=\"x\" {}", now_ns() - SECOND));
    let query = format!(
        r#"from(bucket: "{}") |> range(start: v.timeRangeStart, stop: v.timeRangeStop)"#,
        bucket.name
    );
    let access = bucket.access();
    let access: Vec<&str> = access.iter().map(String::as_str).collect();
    let own = ["--query", &query, "--to-topic", &world.topic, "--from", "1h", "--exit-at-end"];
    world.run("source influx", &[&access[..], &own].concat()).success();
    let mut keys: Vec<Value> =
        world.readings().iter().map(|record| serde_json::from_str(record.key()).expect("JSON")).collect();
    keys.sort_by_key(|key| key["_field"].to_string());
    let key = |field| json!({ "_field": field, "_measurement": "plant", "generatorID": "g" });
    assert_eq!(keys, [key("a"), key("b")]);
}

#[test]
fn rows_arrive_once_and_late_ones_too_and_a_restart_resumes() {
    let world = World::new(3);
    let bucket = shared().bucket();
    let begun = now_ns() - 5 * MINUTE;
    let points = |from: i64, to: i64, shift: i64| {
        let lines: Vec<String> =
            (from..to).map(|n| point(&format!("g{}", n % 10), n, begun + n * SECOND / 10 + shift)).collect();
        bucket.write(&lines.join("\n"));
    };
    points(0, 1000, 0);
    let running = source(&world, &bucket, &["--http", "127.0.0.1:0"]);
    let page = running.http();
    until("all are there", || counts(&world).0 == 1000);
    until("it is ready", || http::get(&page, "/readyz").0 == 200);
    // Between those that are there.
    points(1000, 1300, -90 * SECOND - 7);
    until("the late ones are there", || counts(&world).0 == 1300);
    let metric = |name: &str| http::samples(&http::get(&page, "/metrics").1, name)[0].1;
    until("they are counted", || metric("genwatch_source_late_total") == 300.0);
    until("rows are skipped", || metric("genwatch_source_repeats_total") > 2000.0);
    assert_eq!(metric("genwatch_source_rows_total"), 1300.0);
    until("they are remembered", || metric("genwatch_source_remembered_rows") == 1300.0);
    let lag = metric("genwatch_source_lag_seconds");
    assert!((100.0..400.0).contains(&lag), "{lag}");
    let ended = running.stop();
    assert_eq!([ended.number("rows"), ended.number("late"), ended.number("corrections")], [1300, 300, 0]);

    // While it is away.
    points(1300, 1400, -7);
    let ended = source_to_the_end(&world, &bucket, &[]);
    assert_eq!([ended.number("rows"), ended.number("repeats")], [100, 1300], "{ended:#?}");
    assert!(ended.stderr.contains("continuing"), "{}", ended.stderr);
    let ended = source_to_the_end(&world, &bucket, &[]);
    assert_eq!([ended.number("rows"), ended.number("repeats"), ended.number("commits")], [0, 1400, 0]);
    assert_eq!(counts(&world), (1400, vec![]));
}

#[test]
fn a_row_that_is_later_than_the_rescan_is_not_found_and_one_that_is_not_is() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let newest = now_ns() - MINUTE;
    bucket.write(&point("g", 1, newest));
    source_to_the_end(&world, &bucket, &["--rescan", "1m"]);
    bucket.write(&[point("g", 2, newest - MINUTE + 1), point("g", 3, newest - MINUTE - 1)].join("\n"));
    let ended = source_to_the_end(&world, &bucket, &["--rescan", "1m"]);
    assert_eq!([ended.number("rows"), ended.number("late")], [1, 1]);
    // By the time of rows, not of a clock: the database may be an hour behind.
    assert!(produced(&world).keys().any(|(_, _, fuel)| *fuel == 2));
}

#[test]
fn a_value_that_changes_is_produced_again_and_so_is_one_that_changes_back() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let at = now_ns() - MINUTE;
    for (fuel, expected) in [(1, [1, 0]), (2, [1, 1]), (1, [1, 1]), (1, [0, 0])] {
        bucket.write(&point("g", fuel, at));
        let ended = source_to_the_end(&world, &bucket, &[]);
        assert_eq!([ended.number("rows"), ended.number("corrections")], expected, "{fuel}");
    }
    let values: Vec<i64> = world.readings().values().map(|value| value["fuel"].as_i64().unwrap()).collect();
    assert_eq!(values, [1, 2, 1]);
}

#[test]
fn another_query_begins_after_the_rows_of_the_old_one() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let at = now_ns() - MINUTE;
    bucket.write(&point("g", 1, at));
    source_to_the_end(&world, &bucket, &[]);
    bucket.write(&point("g", 2, at + 1));
    let other = format!("{} |> map(fn: (r) => ({{r with more: 1}}))", super::query(&bucket));
    let ended = source_of(&world, &bucket, &other, &["--exit-at-end"]).wait().success();
    assert_eq!([ended.number("rows"), ended.number("repeats")], [1, 0], "{ended:#?}");
    assert!(ended.stderr.contains("the query has changed"), "{}", ended.stderr);
}

#[test]
fn more_rows_than_fit_into_a_transaction_are_committed_in_parts() {
    let world = World::new(3);
    let bucket = shared().bucket();
    let at = (now_ns() - MINUTE) / SECOND * SECOND;
    // Within a tenth of a second: no slice of it is small enough.
    for batch in 0..12 {
        let lines: Vec<String> = (0..10_000)
            .map(|n| point(&format!("g{}", n % 100), n, at + (batch * 100 + n / 100) * 50_000))
            .collect();
        bucket.write(&lines.join("\n"));
    }
    let ended = source_to_the_end(&world, &bucket, &[]);
    assert_eq!(ended.number("rows"), 120_000, "{ended:#?}");
    assert!(ended.number("commits") >= 3, "{ended:#?}");
    let ended = source_to_the_end(&world, &bucket, &[]);
    assert_eq!([ended.number("rows"), ended.number("repeats")], [0, 120_000], "{ended:#?}");
    assert_eq!(counts(&world), (120_000, vec![]));
}

#[test]
fn the_state_of_a_hundred_thousand_rows_is_small_records_and_goes_when_it_is_old() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let end = now_ns() - SECOND;
    for batch in 0..10 {
        let lines: Vec<String> = (0..10_000)
            .map(|n| point(&format!("g{}", n % 100), n, end - (batch * 10_000 + n) * 5_000_000))
            .collect();
        bucket.write(&lines.join("\n"));
    }
    let ended = source_to_the_end(&world, &bucket, &["--rescan", "10m"]);
    assert_eq!(ended.number("rows"), 100_000);
    let state = world.read(&format!("{}_sources", world.group));
    let sizes = state.iter().filter_map(|record| record.value.as_ref()).map(Vec::len);
    assert!(sizes.max().expect("records") < 40_000);
    let compacted = state.compacted();
    assert!((100..150).contains(&compacted.len()), "{}", compacted.len());
    // Two minutes without a row are no reason to forget, a newer row is.
    bucket.write(&point("g", 1, now_ns()));
    let running: Process = source(&world, &bucket, &["--rescan", "0s"]);
    until("old digests are deleted", || {
        // Those of the newest minute stay: twelve and the cursor.
        world.read(&format!("{}_sources", world.group)).compacted().len() <= 14
    });
    running.stop();
    assert_eq!(counts(&world).0, 100_001);
}

#[test]
fn a_topic_that_is_missing_is_created_on_demand_with_the_partitions_of_the_readings() {
    let (world, bucket) = (World::new(3), shared().bucket());
    let at = now_ns() - MINUTE;
    for number in 0..20 {
        bucket.write(&point(&format!("g{number}"), number, at));
    }
    let to = format!("{}_influx", world.topic);
    let access = bucket.access();
    let query = query(&bucket);
    let more = [
        "--query",
        &query,
        "--to-topic",
        &to,
        "--key-column",
        "generatorID",
        "--from",
        "1h",
        "--exit-at-end",
    ];
    let options: Vec<&str> = access.iter().map(String::as_str).chain(more).collect();
    world.run("source influx", &options).refused(1, &[&to, "does not exist"]);
    let with_it = [&options[..], &["--create-topic"]].concat();
    assert_eq!(world.run("source influx", &with_it).success().number("rows"), 20);
    let partitions = |topic: &str| {
        world.consumer().fetch_metadata(Some(topic), PATIENCE).unwrap().topics()[0].partitions().len()
    };
    assert_eq!(partitions(&to), 3);
    assert_eq!(world.read(&to).len(), 20);
    assert_eq!(world.run("source influx", &with_it).success().number("repeats"), 20, "it is there now");
}
