//! `bridge --transform`: readings are changed on their way; one that can't be goes to the dead letters.

use serde_json::json;

use super::{assert_same, bridge, by_generator, expected, padded_reading, reading, simulate};
use crate::world::mosquitto::{Device, Mosquitto};
use crate::world::transformations::Transformations;
use crate::world::{World, http, now_ms, until};

#[test]
fn a_reading_is_changed_and_keeps_its_key_partition_and_untouched_text() {
    let (mqtt, world) = (Mosquitto::start(), World::new(3));
    let steps = Transformations::new(
        r#"
        [[step]]
        kind = "flatten"
        [[step]]
        kind = "convert"
        fields = ["temperature"]
        from = "fahrenheit"
        to = "celsius"
        [[step]]
        kind = "insert"
        field = "site"
        from = "mqtt_topic"
        [[step]]
        kind = "insert"
        field = "taken"
        header = "timestamp"
        [[step]]
        kind = "timestamp"
        field = "at"
        unit = "s"
        when = { exists = "at" }
        "#,
    );
    let bridge = bridge(&world, &mqtt, &["--transform", steps.path()]);
    let mut device = Device::connect(&mqtt, "device");
    let now = now_ms() / 1000 * 1000;
    let value = format!(
        r#"{{"generatorID":"g1","temperature":212,"fuel":1.10,"serial":12345678901234567890,"gps":{{"lat":1.0}},"at":{}}}"#,
        now / 1000 - 60
    );
    device.say_at("generators/g1/telemetry", value.as_bytes(), Some(&now.to_string()));
    until("it is in Kafka", || world.readings().len() == 1);
    let expected = format!(
        r#"{{"generatorID":"g1","temperature":100.0,"fuel":1.10,"serial":12345678901234567890,"gps_lat":1.0,"at":{},"site":"generators/g1/telemetry","taken":"{now}"}}"#,
        now / 1000 - 60
    );
    let found = world.readings().0.remove(0);
    assert_eq!(String::from_utf8_lossy(found.value.as_deref().unwrap()), expected);
    assert_eq!((found.key(), found.timestamp), ("g1", now - 60_000));
    let ended = bridge.stop();
    assert_eq!([ended.number("readings"), ended.number("dead_letters"), ended.number("filtered")], [1, 0, 0]);
}

#[test]
fn what_no_step_applies_to_passes_byte_for_byte_and_each_generator_keeps_its_order() {
    let (mqtt, world) = (Mosquitto::start(), World::new(3));
    let steps = Transformations::new(
        r#"
        [[step]]
        kind = "mask"
        fields = ["fuel"]
        when = { field = "generatorID", equals = "nobody" }
        "#,
    );
    let bridge = bridge(&world, &mqtt, &["--transform", steps.path()]);
    simulate(&world, &mqtt, "20", "5000").wait().success();
    until("all are in Kafka", || world.readings().len() == 5000);
    assert_eq!(bridge.stop().number("readings"), 5000);
    assert_same(&by_generator(&world.readings()), &expected(&world, "20", "5000"));
}

#[test]
fn a_message_that_a_step_fails_on_is_a_dead_letter_and_delays_no_other() {
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    let steps = Transformations::new(
        "[[step]]\nkind = \"filter\"\nwhen = { field = \"fuel\", equals = 3 }\n\n\
         [[step]]\nkind = \"cast\"\nfields = [\"temperature\"]\nto = \"integer\"\n",
    );
    let bridge = bridge(&world, &mqtt, &["--transform", steps.path(), "--http", "127.0.0.1:0"]);
    let address = bridge.http();
    let mut device = Device::connect(&mqtt, "device");
    let (now, topic) = (now_ms(), "generators/g1/telemetry");
    let hot = br#"{"generatorID":"g1", "temperature":"hot"}"#;
    device.say(topic, &reading("g1", 1));
    device.say_at(topic, hot, Some(&now.to_string()));
    device.say(topic, &reading("g1", 2));
    device.say(topic, &reading("g1", 3));
    device.say(topic, b"no JSON");
    device.say(topic, &reading("g1", 4));
    until("all are in Kafka", || world.readings().len() == 3 && world.read(&world.dlq_topic()).len() == 2);
    let fuels: Vec<_> = world.readings().values().map(|value| value["fuel"].clone()).collect();
    assert_eq!(fuels, [1, 2, 4]);

    let letters = world.read(&world.dlq_topic());
    let first = &letters.0[0];
    assert_eq!((first.key(), first.value.as_deref(), first.timestamp), ("g1", Some(&hot[..]), now));
    let now = now.to_string();
    let message = format!(
        "step 2 (cast, {}:5): field `temperature` is no integer of 64 bits; found `\"hot\"`",
        steps.path()
    );
    for (name, value) in [
        ("timestamp", now.as_str()),
        ("dlq.topic", &world.topic),
        ("dlq.mqtt.topic", topic),
        ("dlq.error.code", "transform"),
        ("dlq.error.message", &message),
        ("dlq.worker", "genwatch-bridge"),
    ] {
        assert_eq!(first.header(name), Some(value), "{name}");
    }
    let second = letters.0[1].header("dlq.error.message").unwrap();
    assert!(second.contains("step 1 (filter, ") && second.contains("the value is not JSON"), "{second}");

    until("metrics count them", || {
        let page = http::get(&address, "/metrics").1;
        page.contains(r#"genwatch_bridge_messages_total{outcome="dead_letter"} 2"#)
            && page.contains(r#"genwatch_bridge_messages_total{outcome="filtered"} 1"#)
            && page.contains(r#"genwatch_bridge_transform_failures_total{step="2-cast"} 1"#)
    });
    let ended = bridge.stop().success();
    assert_eq!(ended.json()["failed_by"], json!({ "1-filter": 1, "2-cast": 1 }));
    assert_eq!(
        [ended.number("readings"), ended.number("dead_letters"), ended.number("filtered")],
        [3, 2, 1],
        "{}",
        ended.stdout
    );
    assert_eq!(ended.number("unacknowledged"), 0);
}

#[test]
fn a_route_leads_to_topics_that_exist() {
    let (mqtt, world) = (Mosquitto::start(), World::new(2));
    let other = world.another(2);
    let steps = Transformations::new(
        r#"
        [[step]]
        kind = "route"
        field = "to"
        regex = "(.*)"
        to = "$1"
        "#,
    );
    let mut bridge = bridge(&world, &mqtt, &["--transform", steps.path()]);
    let mut device = Device::connect(&mqtt, "device");
    let to = |topic: &str, fuel: u32| json!({ "generatorID": "g1", "fuel": fuel, "to": topic }).to_string();
    for fuel in [1, 2] {
        device.say("generators/g1/telemetry", to(&other.topic, fuel).as_bytes());
        device.say("generators/g1/telemetry", to("nowhere", fuel).as_bytes());
        device.say("generators/g1/telemetry", to("no topic", fuel).as_bytes());
        device.say("generators/g1/telemetry", &reading("g1", fuel));
    }
    let letters = || world.read(&world.dlq_topic());
    until("all are in Kafka", || {
        world.readings().len() == 2 && other.readings().len() == 2 && letters().len() == 4
    });
    assert!(bridge.is_running());
    for topic in [&world, &other] {
        let fuels: Vec<_> = topic.readings().values().map(|value| value["fuel"].clone()).collect();
        assert_eq!(fuels, [1, 2]);
    }
    let reasons: Vec<_> =
        letters().iter().map(|letter| letter.header("dlq.error.message").unwrap().to_owned()).collect();
    assert!(reasons[0].contains("there is no topic nowhere"), "{reasons:?}");
    assert!(reasons[1].contains("it can't go to `no topic`: a topic's name is"), "{reasons:?}");
    bridge.stop().success();
}

#[test]
fn no_message_goes_where_the_group_keeps_its_own_records() {
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    let (state, workers) = (world.state_topic(), world.workers_topic());
    let steps =
        Transformations::new("[[step]]\nkind = \"route\"\nfield = \"to\"\nregex = \"(.*)\"\nto = \"$1\"\n");
    let bridge = bridge(&world, &mqtt, &["--transform", steps.path()]);
    let mut device = Device::connect(&mqtt, "device");
    for topic in [&state, &workers] {
        let value = json!({ "generatorID": "rogue", "fuel": 1, "to": topic }).to_string();
        device.say("generators/rogue/telemetry", value.as_bytes());
    }
    let letters = || world.read(&world.dlq_topic());
    until("both are dead letters", || letters().len() == 2);
    for (letter, topic) in letters().iter().zip([&state, &workers]) {
        let reason = letter.header("dlq.error.message").unwrap();
        assert!(
            reason.contains(&format!("no record goes to {topic}: the group keeps its own records there")),
            "{reason}"
        );
    }
    assert_eq!(bridge.stop().number("dead_letters"), 2);
    for topic in [&state, &workers] {
        assert!(world.read(topic).iter().all(|record| record.key() != "rogue"), "{topic}");
    }

    // One that the file names is a mistake in the file.
    let steps =
        Transformations::new(&format!("[[step]]\nkind = \"route\"\nregex = \"x\"\nto = \"{state}\"\n"));
    let options = ["--mqtt", &mqtt.url(), "--transform", steps.path()];
    world
        .run("bridge", &options)
        .refused(2, &["step 1 (route", &state, "the group keeps its own records there"]);
}

#[test]
fn a_message_is_acknowledged_once_its_dead_letter_is_durable() {
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    let steps = Transformations::new("[[step]]\nkind = \"drop\"\nfields = [\"a\"]\n");
    // A dead letter waits for company, for minutes.
    let options = ["--transform", steps.path(), "--http", "127.0.0.1:0", "-X", "linger.ms=200000"];
    let first = bridge(&world, &mqtt, &options);
    let address = first.http();
    let mut device = Device::connect(&mqtt, "device");
    device.say("generators/g1/telemetry", b"no JSON");
    let waits = || http::get(&address, "/metrics").1.contains("genwatch_bridge_unacknowledged 1");
    until("it is under way", waits);
    first.kill();
    assert!(world.read(&world.dlq_topic()).0.is_empty());

    let second = bridge(&world, &mqtt, &["--transform", steps.path()]);
    until("the broker sent it again", || world.read(&world.dlq_topic()).len() == 1);
    let ended = second.stop().success();
    assert_eq!([ended.number("dead_letters"), ended.number("unacknowledged")], [1, 0], "{}", ended.stdout);
}

#[test]
fn a_dead_letter_that_is_too_large_for_its_topic_goes_without_its_value() {
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    let steps = Transformations::new("[[step]]\nkind = \"timestamp\"\nfield = \"at\"\nunit = \"ms\"\n");
    let mut bridge = bridge(&world, &mqtt, &["--transform", steps.path(), "-X", "compression.type=none"]);
    world.configure(&world.dlq_topic(), "max.message.bytes=20000");
    let mut device = Device::connect(&mqtt, "device");
    let large = padded_reading("g1", 1, 30_000);
    device.say("generators/g1/telemetry", &large);
    device.say("generators/g1/telemetry", &reading("g1", 2));
    let letters = || world.read(&world.dlq_topic());
    until("both are there", || letters().len() == 2);
    assert!(bridge.is_running());
    let sizes: Vec<_> =
        letters().iter().map(|letter| letter.header("dlq.value.dropped").map(str::to_owned)).collect();
    assert!(sizes.contains(&Some(large.len().to_string())) && sizes.contains(&None), "{sizes:?}");
    bridge.stop().success();
}

#[test]
fn a_file_with_a_mistake_ends_the_bridge_at_its_start() {
    let world = World::empty();
    let steps = Transformations::new("[[step]]\nkind = \"drop\"\nfeilds = [\"a\"]\n");
    let place = format!("{}:1: `fields` is missing", steps.path());
    world.run("bridge", &["--transform", steps.path()]).refused(2, &[&place]);
    world.run("bridge", &["--transform", "/nowhere.toml"]).refused(2, &["/nowhere.toml", "No such file"]);

    // A topic that the file names must be there.
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    let steps = Transformations::new("[[step]]\nkind = \"route\"\nregex = \"x\"\nto = \"nowhere\"\n");
    let options = ["--mqtt", &mqtt.url(), "--transform", steps.path()];
    world.run("bridge", &options).refused(1, &["nowhere", "step 1 (route"]);
}
