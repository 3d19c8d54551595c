//! Messages that the MQTT broker retains for later subscribers aren't new.

use super::{bridge, reading};
use crate::world::mosquitto::{Device, Mosquitto};
use crate::world::{World, now_ms, until};

#[test]
fn a_reconnect_brings_no_retained_reading_or_status_again() {
    let (mut mqtt, world) = (Mosquitto::start(), World::new(1));
    let first = bridge(&world, &mqtt, &[]);
    let mut device = Device::connect(&mqtt, "device");
    device.say_retained("generators/g1/telemetry", &reading("g1", 100), None);
    device.say_retained("generators/g1/status", b"offline", None);
    until("they are in Kafka", || (world.readings().len(), statuses(&world).len()) == (1, 1));
    mqtt.stop();
    first.wait_until_it_says("is lost");
    mqtt.start_again();
    mark(&world, &mqtt, 1);
    // Nor does a restart in the old session deliver them.
    first.stop();
    let second = bridge(&world, &mqtt, &[]);
    mark(&world, &mqtt, 2);
    let ended = second.stop();
    assert_eq!(ended.number("dropped"), 0, "none was even sent: {}", ended.stdout);
    let of_g1 = world.readings().iter().filter(|record| record.key() == "g1").count();
    assert_eq!(of_g1, 1);
    assert_eq!(statuses(&world), ["g1 offline", "mark online", "mark online"]);
}

#[test]
fn a_first_start_learns_statuses_and_no_old_readings() {
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    let mut device = Device::connect(&mqtt, "device");
    let a_week_ago = now_ms() - 7 * 24 * 3_600_000;
    device.say_retained("generators/g1/telemetry", &reading("g1", 100), None);
    device.say_retained("generators/g1/status", b"offline", Some(&a_week_ago.to_string()));
    let bridge = bridge(&world, &mqtt, &[]);
    mark(&world, &mqtt, 1);
    bridge.stop();
    assert_eq!(world.readings().iter().filter(|record| record.key() == "g1").count(), 0);
    let status = world.read(&format!("{}_status", world.topic));
    let of_g1 = status.iter().find(|record| record.key() == "g1").expect("its status");
    assert_eq!(of_g1.json()["at"], a_week_ago, "since when it is offline");
}

/// Waits until a message sent now has arrived; so all earlier ones have arrived too.
fn mark(world: &World, mqtt: &Mosquitto, number: usize) {
    let mut device = Device::connect(mqtt, "mark");
    device.say("generators/mark/telemetry", &reading("mark", 1));
    device.say("generators/mark/status", b"online");
    let marks = |all: Vec<String>| all.iter().filter(|said| said.starts_with("mark")).count();
    until("the mark is in Kafka", || {
        let readings = world.readings().iter().map(|record| record.key().to_owned()).collect();
        marks(readings) == number && marks(statuses(world)) == number
    });
}

/// All statuses, not only the last one.
fn statuses(world: &World) -> Vec<String> {
    let records = world.read(&format!("{}_status", world.topic));
    let said = |json: serde_json::Value| json["status"].as_str().unwrap().to_owned();
    records.iter().map(|record| format!("{} {}", record.key(), said(record.json()))).collect()
}
