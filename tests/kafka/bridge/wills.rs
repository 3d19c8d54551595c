//! MQTT keeps order only within a topic: a last will may overtake the last reading, which was sent before it, and a
//! birth may follow it soon. What counts is who is online in the end.

use super::{bridge, reading, statuses};
use crate::world::mosquitto::{Device, Mosquitto};
use crate::world::{World, until};

#[test]
fn a_last_will_that_overtakes_the_last_reading_leaves_the_generator_offline() {
    let (mqtt, world) = (Mosquitto::start(), World::new(3));
    let bridge = bridge(&world, &mqtt, &[]);
    let mut generator = Device::connect_with_will(&mqtt, "g1", "generators/g1/status");
    generator.say_retained("generators/g1/status", b"online", None);
    generator.say("generators/g1/telemetry", &reading("g1", 1));
    until("it is online", || statuses(&world).get("g1").is_some_and(|word| word == "online"));
    drop(generator);
    until("it is offline", || statuses(&world)["g1"] == "offline");
    // A reading that was still on its way.
    let mut network = Device::connect(&mqtt, "network");
    network.say("generators/g1/telemetry", &reading("g1", 2));
    until("its last reading is in Kafka", || world.readings().len() == 2);
    assert_eq!(statuses(&world)["g1"], "offline", "a reading is no birth");
    let mut generator = Device::connect_with_will(&mqtt, "g1", "generators/g1/status");
    generator.say_retained("generators/g1/status", b"online", None);
    until("it is online again", || statuses(&world)["g1"] == "online");
    bridge.stop();
}

#[test]
fn a_generator_that_connects_anew_before_its_old_connection_has_died_is_online() {
    let (mqtt, world) = (Mosquitto::start(), World::new(3));
    let bridge = bridge(&world, &mqtt, &[]);
    let mut old = Device::connect_with_will(&mqtt, "g1", "generators/g1/status");
    old.say_retained("generators/g1/status", b"online", None);
    // The broker closes the old connection for the new one, and publishes its will.
    let mut new = Device::connect_with_will(&mqtt, "g1", "generators/g1/status");
    new.say_retained("generators/g1/status", b"online", None);
    new.say("generators/g1/telemetry", &reading("g1", 1));
    let said = |world: &World| world.read(&format!("{}_status", world.topic)).len();
    until("birth, will and birth are in Kafka", || world.readings().len() == 1 && said(&world) == 3);
    assert_eq!(statuses(&world)["g1"], "online");
    bridge.stop();
}
