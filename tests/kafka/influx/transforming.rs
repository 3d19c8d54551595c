//! `sink influx --transform`: points of changed records; records that a step fails on are dead letters.

use std::collections::BTreeSet;

use super::{progress, sink, sink_to_the_end, total};
use crate::world::influxdb::shared;
use crate::world::records::{self, Outgoing};
use crate::world::transformations::Transformations;
use crate::world::{World, http, now_ms, until};

/// A reading with more members.
fn reading(generator: &str, temperature: &str, members: &str) -> Outgoing {
    let value = format!(
        r#"{{"generatorID":"{generator}","lat":1,"lon":2,"temperature":{temperature},"pressure":198,"fuel":901{members}}}"#
    );
    Outgoing::new(generator, value.as_bytes())
}

#[test]
fn points_have_the_fields_tags_measurement_and_time_that_the_steps_made() {
    let world = World::new(2);
    let bucket = shared().bucket();
    let steps = Transformations::new(&format!(
        r#"
        [[step]]
        kind = "convert"
        fields = ["temperature"]
        from = "celsius"
        to = "fahrenheit"
        when = {{ topic = "{topic}" }}

        [[step]]
        kind = "rename"
        fields = {{ temperature = "coolant" }}
        when = {{ topic = "{topic}" }}

        [[step]]
        kind = "tag"
        fields = ["site"]

        [[step]]
        kind = "timestamp"
        field = "taken"
        unit = "rfc3339"
        when = {{ exists = "taken" }}

        [[step]]
        kind = "drop"
        fields = ["taken", "lat", "lon"]

        [[step]]
        kind = "insert"
        field = "partition"
        from = "partition"
        when = {{ topic_matches = ".*_1m" }}

        [[step]]
        kind = "route"
        field = "site"
        regex = "(north|south).*"
        to = "site_$1"
        "#,
        topic = world.topic
    ));
    let at = 1_766_400_000_123;
    world.produce(&[
        reading("g1", "74", r#","site":"north-1","taken":"2025-12-22T10:00:00Z""#).at(at),
        reading("g1", "80.5", r#","site":"east""#).at(at),
    ]);
    let aggregates = format!("{}_1m", world.topic);
    let aggregate = Outgoing::new("g1", br#"{"generatorID":"g1","temperature":{"mean":74}}"#).at(at);
    records::produce(&world.brokers, &aggregates, &[aggregate]);

    let ended = sink_to_the_end(&world, &bucket, &["--transform", steps.path()]);
    assert_eq!([ended.number("points"), ended.number("skipped")], [3, 0], "{ended:#?}");
    let row = |measurement: &str, field: &str| {
        let rows = bucket.rows(measurement, field);
        assert_eq!(rows.len(), 1, "{measurement} {field}: {rows:?}");
        let row = rows.into_iter().next().expect("a row");
        ["_time", "generatorID", "_value"].map(|name| row[name].clone()).to_vec().join(" ")
            + &row.get("site").map(|site| format!(" {site}")).unwrap_or_default()
    };
    let offsets: BTreeSet<_> = world.readings().iter().map(|record| record.offset).collect();
    assert_eq!(offsets, BTreeSet::from([0, 1]));
    assert_eq!(row("site_north", "coolant"), "2025-12-22T10:00:00Z g1 165.2 north-1");
    assert_eq!(row(&world.topic, "coolant"), "2025-12-22T10:40:00.123000001Z g1 176.9 east");
    assert_eq!(row(&aggregates, "temperature_mean"), "2025-12-22T10:40:00.123Z g1 74");
    assert!(["0", "1"].iter().any(|id| row(&aggregates, "partition").ends_with(id)));
    for field in ["lat", "temperature", "taken", "site"] {
        assert!(bucket.rows(&world.topic, field).is_empty(), "{field}");
    }
    assert_eq!(progress(&world).lag(), 0);
}

#[test]
fn a_record_that_a_step_fails_on_is_a_dead_letter_before_its_offset_is_committed() {
    let world = World::new(2);
    let bucket = shared().bucket();
    let steps = Transformations::new(
        "[[step]]\nkind = \"filter\"\nwhen = { field = \"temperature\", above = 1000 }\n\n\
         [[step]]\nkind = \"cast\"\nfields = [\"serial\"]\nto = \"integer\"\n",
    );
    let at = now_ms() - 1000;
    let bad = reading("g1", "74", r#", "serial":"x7""#);
    let bad = Outgoing { headers: vec![("trace".to_owned(), Some(b"1".to_vec()))], ..bad.at(at).to(1) };
    world.produce(&[
        reading("g1", "1", "").at(at).to(1),
        bad.clone(),
        reading("g1", "1001", "").at(at).to(1),
        reading("g1", "2", r#","serial":"7""#).at(at).to(1),
        Outgoing::new("g1", b"no reading").at(at).to(1),
    ]);
    let sink = sink(&world, &bucket, &["--transform", steps.path(), "--http", "127.0.0.1:0"]);
    let page = sink.http();
    until("all is committed", || progress(&world).lag() == 0);
    let letters = world.read(&world.dlq_topic());
    assert_eq!(letters.len(), 1, "what is no reading is the worker's to report");
    let letter = &letters.0[0];
    assert_eq!((letter.partition, letter.timestamp), (1, at));
    assert_eq!((&letter.key, &letter.value), (&bad.key, &bad.value));
    let message =
        format!("step 2 (cast, {}:5): field `serial` is no integer of 64 bits; found `\"x7\"`", steps.path());
    for (name, value) in [
        ("trace", "1"),
        ("dlq.topic", world.topic.as_str()),
        ("dlq.partition", "1"),
        ("dlq.offset", "1"),
        ("dlq.error.code", "transform"),
        ("dlq.error.message", &message),
    ] {
        assert_eq!(letter.header(name), Some(value), "{name}");
    }
    assert!(letter.header("dlq.worker").is_some_and(|name| !name.is_empty()));
    let metrics = http::get(&page, "/metrics").1;
    for (name, expected) in [
        (r#"genwatch_sink_dead_letters_total{step="2-cast""#, 1.0),
        ("genwatch_sink_filtered_total", 1.0),
        (r#"genwatch_sink_skipped_total{reason="not_json""#, 1.0),
    ] {
        assert_eq!(total(&metrics, name), expected, "{name} in {metrics}");
    }
    let ended = sink.stop().success();
    let counts = ["records", "points", "skipped", "filtered", "dead_letters"].map(|name| ended.number(name));
    assert_eq!(counts, [5, 2, 1, 1, 1], "{ended:#?}");
    assert_eq!(bucket.count_and_sum(&world.topic, "serial"), (1, 7.0));
}

#[test]
fn many_dead_letters_are_all_written_and_everything_is_committed() {
    let world = World::new(2);
    let bucket = shared().bucket();
    let steps = Transformations::new("[[step]]\nkind = \"timestamp\"\nfield = \"at\"\nunit = \"ms\"\n");
    let readings: Vec<_> = (0..6000)
        .map(|n| match n % 3 {
            0 => reading(&format!("g{}", n % 7), "1", &format!(r#","at":{}"#, 1_766_400_000_000_i64 + n)),
            _ => reading(&format!("g{}", n % 7), "1", ""),
        })
        .collect();
    world.produce(&readings);
    let ended = sink_to_the_end(&world, &bucket, &["--transform", steps.path()]);
    assert_eq!([ended.number("points"), ended.number("dead_letters")], [2000, 4000], "{ended:#?}");
    assert_eq!(progress(&world).lag(), 0);
    let letters = world.read(&world.dlq_topic());
    let of = |name: &str, letter: &crate::oracle::log::Stored| letter.header(name).map(str::to_owned);
    let places: BTreeSet<_> =
        letters.iter().map(|letter| (of("dlq.partition", letter), of("dlq.offset", letter))).collect();
    assert_eq!((letters.len(), places.len()), (4000, 4000), "each once");
}

#[test]
fn no_offset_is_committed_past_a_dead_letter_that_kafka_does_not_have() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let steps = Transformations::new("[[step]]\nkind = \"cast\"\nfields = [\"n\"]\nto = \"integer\"\n");
    let of = |n: usize| reading("g1", "1", if n == 2 { r#","n":"x""# } else { "" });
    world.produce(&(0..5).map(of).collect::<Vec<_>>());
    // A dead letter waits for company, for minutes.
    let first = sink(&world, &bucket, &["--transform", steps.path(), "-X", "linger.ms=200000"]);
    until("all others are written", || bucket.count_and_sum(&world.topic, "fuel").0 == 4);
    until("what is below is committed", || progress(&world).done() == 2);
    // It says so, and commits no more.
    first.wait_until_it_says("Kafka takes no dead letters");
    assert_eq!(progress(&world).done(), 2);
    first.kill();
    assert!(world.read(&world.dlq_topic()).0.is_empty());

    let ended = sink_to_the_end(&world, &bucket, &["--transform", steps.path()]);
    assert_eq!([ended.number("records"), ended.number("dead_letters")], [3, 1], "{ended:#?}");
    assert_eq!((progress(&world).lag(), world.read(&world.dlq_topic()).len()), (0, 1));
}

#[test]
fn a_dead_letter_that_is_too_large_for_its_topic_goes_without_its_value() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let steps = Transformations::new("[[step]]\nkind = \"timestamp\"\nfield = \"at\"\nunit = \"ms\"\n");
    world.configure(&world.dlq_topic(), "compression.type=uncompressed,max.message.bytes=20000");
    let large = reading("g1", "1", &format!(r#","pad":"{}""#, "x".repeat(30_000)));
    world.produce(&[reading("g1", "1", ""), large.clone(), reading("g1", "1", "")]);
    let options = ["--transform", steps.path(), "-X", "compression.type=none"];
    let ended = sink_to_the_end(&world, &bucket, &options);
    assert_eq!(ended.number("dead_letters"), 3, "{ended:#?}");
    let letters = world.read(&world.dlq_topic());
    let letter = letters.iter().find(|letter| letter.value.is_none()).expect("one without a value");
    let bytes = large.value.expect("a value").len().to_string();
    assert_eq!(letter.header("dlq.value.dropped"), Some(bytes.as_str()));
    assert_eq!((letters.len(), progress(&world).lag()), (3, 0));
}

#[test]
fn a_file_with_a_mistake_or_a_missing_dead_letter_topic_ends_the_sink_at_its_start() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let options = bucket.options();
    let run = |steps: &Transformations| {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        world.run("sink influx", &[&options[..], &["--transform", steps.path()]].concat())
    };
    let steps = Transformations::new("[[step]]\nkind = \"insert\"\nfield = \"a\"\nfrom = \"mqtt_topic\"\n");
    let words = format!("{}:4: a record of `sink influx` has no `mqtt_topic`", steps.path());
    run(&steps).refused(2, &[&words]);
    world.delete(&world.dlq_topic());
    let steps = Transformations::new("[[step]]\nkind = \"drop\"\nfields = [\"a\"]\n");
    run(&steps).refused(1, &[&world.dlq_topic(), "topics create"]);
}
