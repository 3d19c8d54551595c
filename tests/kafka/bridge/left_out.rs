//! A message that can't be forwarded is dropped and counted; all others go on, in order.

use serde_json::json;

use super::{bridge, by_generator, padded_reading, reading};
use crate::world::mosquitto::{Device, Mosquitto};
use crate::world::records::Records;
use crate::world::{World, now_ms, until};

#[test]
fn messages_of_an_old_subscription_are_left_out_and_it_is_ended() {
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    bridge(&world, &mqtt, &["--mqtt-topic", "sites/+/{generatorID}/t"]).stop();
    let mut device = Device::connect(&mqtt, "device");
    device.say("sites/north/g1/t", &reading("g1", 1));
    for (start, of_old_subscription) in [(1, 1), (2, 0)] {
        let bridge = bridge(&world, &mqtt, &[]);
        device.say("generators/g2/telemetry", &reading("g2", start));
        until("the reading is in Kafka", || world.readings().len() == start as usize);
        let ended = bridge.stop();
        assert_eq!(ended.number("dropped"), of_old_subscription, "{}", ended.stdout);
        device.say("sites/north/g1/t", &reading("g1", 2));
    }
    assert!(world.readings().iter().all(|record| record.key() == "g2"));
}

#[test]
fn a_status_topic_that_does_not_say_whose_status_it_is_is_refused() {
    let world = World::empty();
    let topic = ["--mqtt-status-topic", "generators/status"];
    world.run("bridge", &topic).refused(2, &["--mqtt-status-topic", "{generatorID}"]);
}

#[test]
fn a_reading_that_is_too_old_for_kafka_stops_no_other() {
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    world.configure(&world.topic, "message.timestamp.before.max.ms=3600000");
    let mut bridge = bridge(&world, &mqtt, &[]);
    let mut device = Device::connect(&mqtt, "device");
    let (fresh, old) = (now_ms() - 60_000, now_ms() - 2 * 3_600_000);
    for (fuel, at) in [(1, fresh), (2, old), (3, fresh)] {
        device.say_at("generators/g1/telemetry", &reading("g1", fuel), Some(&at.to_string()));
        device.say("generators/g2/telemetry", &reading("g2", fuel));
    }
    until("all others are in Kafka", || world.readings().len() == 5);
    assert!(bridge.is_running());
    let ended = bridge.stop();
    assert_eq!(ended.json()["dropped_by"], json!({ "invalid_timestamp": 1 }));
    assert_eq!(ended.number("unacknowledged"), 0);
    assert_eq!(fuels(&world.readings(), "g1"), [1, 3]);
    assert_eq!(fuels(&world.readings(), "g2"), [1, 2, 3]);
}

/// Kafka refuses a whole batch when one record in it is wrong.
#[test]
fn what_was_refused_only_for_its_company_is_delivered() {
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    let mut bridge = bridge(&world, &mqtt, &["-X", "linger.ms=2000"]);
    // The bridge has read the topic's limits by now: it can't know of a change.
    world.configure(&world.topic, "message.timestamp.before.max.ms=3600000,max.message.bytes=20000");
    let mut device = Device::connect(&mqtt, "device");
    let old = (now_ms() - 2 * 3_600_000).to_string();
    device.say("generators/g2/telemetry", &reading("g2", 1));
    device.say_at("generators/g1/telemetry", &reading("g1", 1), Some(&old));
    device.say("generators/g2/telemetry", &reading("g2", 2));
    until("both of the other one are in Kafka", || world.readings().len() == 2);
    // Together too large; one of them is too large alone.
    for (fuel, bytes) in [(3, 12_000), (4, 30_000), (5, 12_000), (6, 0)] {
        device.say("generators/g2/telemetry", &noise(padded_reading("g2", fuel, bytes)));
    }
    until("all that Kafka takes is there", || world.readings().len() == 5);
    assert!(bridge.is_running());
    let ended = bridge.stop();
    assert_eq!(ended.json()["dropped_by"], json!({ "invalid_timestamp": 1, "too_large": 1 }));
    assert_eq!((ended.number("readings"), ended.number("unacknowledged")), (5, 0));
    assert_eq!(fuels(&world.readings(), "g2"), [1, 2, 3, 5, 6]);
}

#[test]
fn requests_are_no_larger_than_the_topic_takes() {
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    world.configure(&world.topic, "max.message.bytes=20000");
    let bridge = bridge(&world, &mqtt, &["-X", "linger.ms=2000"]);
    let mut device = Device::connect(&mqtt, "device");
    for fuel in 1..=10 {
        device.say("generators/g1/telemetry", &noise(padded_reading("g1", fuel, 12_000)));
    }
    until("all are in Kafka", || world.readings().len() == 10);
    let ended = bridge.stop();
    assert_eq!(ended.number("dropped"), 0, "{}", ended.stdout);
    assert_eq!(fuels(&world.readings(), "g1"), (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_message_larger_than_kafka_takes_is_counted() {
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    let bridge = bridge(&world, &mqtt, &[]);
    let mut device = Device::connect(&mqtt, "device");
    device.say("generators/g1/telemetry", &noise(padded_reading("g1", 1, 20 << 20)));
    device.say("generators/g1/telemetry", &reading("g1", 2));
    until("the other one is in Kafka", || world.readings().len() == 1);
    let ended = bridge.stop();
    assert_eq!(ended.json()["dropped_by"], json!({ "too_large": 1 }));
    assert_eq!(fuels(&world.readings(), "g1"), [2]);
}

/// With incompressible padding: limits hold for what is sent.
fn noise(mut reading: Vec<u8>) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    for byte in reading.iter_mut().filter(|byte| **byte == b'x') {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = b'a' + (state % 26) as u8;
    }
    reading
}

fn fuels(readings: &Records, generator: &str) -> Vec<u32> {
    let of = by_generator(readings).remove(generator).unwrap_or_default();
    of.iter()
        .map(|value| {
            let reading: serde_json::Value = serde_json::from_slice(value).expect("JSON");
            u32::try_from(reading["fuel"].as_u64().expect("a number")).expect("small")
        })
        .collect()
}
