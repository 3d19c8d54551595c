//! MQTT messages of generators reach Kafka: none lost, in order, whatever ends or breaks on the way.
//!
//! * [`retained`]: retained messages aren't news. [`wills`]: who is online in the end.
//! * [`left_out`]: messages that aren't forwarded, and stop nothing.
//! * [`access`]: which clients are let in, and which wait. [`shares`]: several bridges. [`bench`]: the benchmark.
//! * `--transform`: [`transforming`].

mod access;
mod bench;
mod left_out;
mod retained;
mod shares;
mod transforming;
mod wills;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use rdkafka::consumer::Consumer as _;

use crate::world::broker::Cluster;
use crate::world::mosquitto::{Device, Mosquitto};
use crate::world::process::Process;
use crate::world::records::Records;
use crate::world::{PATIENCE, World, http, now_ms, until};

type ByGenerator = BTreeMap<String, Vec<Vec<u8>>>;

#[test]
fn readings_by_mqtt_are_those_by_kafka() {
    let (mqtt, world) = (Mosquitto::start(), World::new(3));
    let bridge = bridge(&world, &mqtt, &[]);
    let simulated = simulate(&world, &mqtt, "20", "3000").wait().success();
    assert_eq!(simulated.number("delivered"), 3000, "{simulated:?}");
    until("all are in Kafka", || world.readings().len() == 3000);
    until("all have gone offline", || {
        statuses(&world).values().filter(|word| *word == "offline").count() == 20
    });
    let ended = bridge.stop();
    assert_eq!(ended.number("readings"), 3000);

    let straight = world.another(3);
    straight
        .run("simulate", &["--generators", "20", "--count", "3000", "--rate", "0", "--seed", "7"])
        .success();
    assert_same(&by_generator(&world.readings()), &by_generator(&straight.readings()));
    let partitions = |world: &World| -> BTreeMap<String, i32> {
        world.readings().iter().map(|record| (record.key().to_owned(), record.partition)).collect()
    };
    assert_eq!(partitions(&world), partitions(&straight), "by the same partitioner");
}

#[test]
fn a_bridge_that_is_killed_loses_nothing() {
    let (mqtt, world) = (Mosquitto::start(), World::new(3));
    let first = bridge(&world, &mqtt, &[]);
    let simulator = simulate(&world, &mqtt, "20", "20000");
    until("it's at work", || world.readings().len() > 2000);
    first.kill();
    simulator.wait().success();
    let second = bridge(&world, &mqtt, &[]);
    let wanted = expected(&world, "20", "20000");
    let all_there = || {
        let found = by_generator(&world.readings());
        found.len() == 20
            && found.iter().all(|(generator, values)| is_replayed_once(values, &wanted[generator]))
    };
    until(
        "each generator's readings are in Kafka, in order, but for those that came again together",
        all_there,
    );
    second.stop();
}

#[test]
fn a_broker_that_goes_away_and_comes_back_neither_loses_nor_repeats() {
    let (mut mqtt, world) = (Mosquitto::start(), World::new(3));
    // Creates the session, so that the broker keeps messages for it.
    bridge(&world, &mqtt, &[]).stop();
    simulate(&world, &mqtt, "20", "60000").wait().success();
    // A thousand messages are in flight at a time, and each batch lingers: six seconds in all, on any machine.
    let mut bridge =
        bridge(&world, &mqtt, &["-X", "linger.ms=100", "-X", "queue.buffering.max.messages=1000"]);
    // By the ends of the partitions: reading all records takes so long that the bridge would be done.
    let client = world.consumer();
    let end = |id| client.fetch_watermarks(&world.topic, id, PATIENCE).map_or(0, |(_, end)| end);
    until("it's at work", || (0..3).map(end).sum::<i64>() > 2000);
    mqtt.stop();
    bridge.wait_until_it_says("is lost");
    let before = world.readings().len();
    assert!(before < 60_000, "the outage came too late");
    mqtt.start_again();
    until("all are in Kafka", || world.readings().len() >= 60_000);
    assert!(bridge.is_running());
    let ended = bridge.stop();
    assert_same(&by_generator(&world.readings()), &expected(&world, "20", "60000"));
    assert_eq!(ended.number("readings"), 60_000, "{}", ended.stdout);
}

#[test]
fn an_outage_of_kafka_is_waited_out() {
    let (world, _cluster, wanted) = outlive_an_outage("bridge-outage", |_, _, bridge, recover| {
        let address = bridge.http();
        recover();
        until("it's ready again", || http::get(&address, "/readyz").0 == 200);
        let (_, page) = http::get(&address, "/metrics");
        assert!(page.contains("genwatch_bridge_connected 1"), "{page}");
        bridge
    });
    assert_same(&by_generator(&world.readings()), &wanted);
}

#[test]
fn a_bridge_that_is_killed_while_kafka_is_away_loses_nothing() {
    let kill = |world: &World, mqtt: &Mosquitto, first: Process, recover: &dyn Fn()| {
        first.kill();
        recover();
        bridge(world, mqtt, &[])
    };
    let (world, _cluster, wanted) = outlive_an_outage("bridge-killed", kill);
    for (generator, values) in by_generator(&world.readings()) {
        assert!(is_replayed_once(&values, &wanted[&generator]), "{generator}");
    }
}

#[test]
fn a_generator_whose_connection_dies_is_offline() {
    let (mqtt, world) = (Mosquitto::start(), World::new(3));
    let bridge = bridge(&world, &mqtt, &[]);
    let endless = world.start("simulate", &["--to", "mqtt", "--mqtt", &mqtt.url(), "--generators", "5"]);
    until("all are online", || statuses(&world).values().filter(|word| *word == "online").count() == 5);
    endless.kill();
    until("all are offline", || statuses(&world).values().filter(|word| *word == "offline").count() == 5);
    bridge.stop();
}

#[test]
fn whatever_a_device_says_is_carried_and_judged_by_the_worker() {
    let (mqtt, world) = (Mosquitto::start(), World::new(3));
    let bridge = bridge(&world, &mqtt, &["--mqtt-topic", "sites/+/{generatorID}/telemetry"]);
    let mut device = Device::connect(&mqtt, "device");
    let reading = |id: &str, more: &str| {
        format!(
            r#"{{"generatorID":"{id}","lat":1,"lon":2,"temperature":70,"pressure":200,"fuel":100{more}}}"#
        )
    };
    let taken = now_ms() - 3_600_000;
    device.say_at(
        "sites/north/g1/telemetry",
        reading("g1", r#","model":"X"#).as_bytes(),
        Some(&taken.to_string()),
    );
    device.say_at(
        "sites/north/g1/telemetry",
        reading("g1", r#","model":"X""#).as_bytes(),
        Some(&taken.to_string()),
    );
    device.say("sites/north/g2/telemetry", reading("g1", "").as_bytes());
    device.say("sites/north/g2/telemetry", b"\xff\xfe");
    device.say("sites/north/g2/telemetry", b"");
    device.say(
        "sites/north/g2/telemetry",
        reading("g2", &format!(r#","pad":"{}""#, "x".repeat(2 << 20))).as_bytes(),
    );
    device.say("sites/north/g2/other", b"not asked for");
    device.say("generators/g3/status", b"perhaps");
    device.say("generators/g3/status", br#"{"status":"online"}"#);
    device.say("sites/south/g4/telemetry", reading("g4", "").as_bytes());
    until("all are in Kafka", || world.readings().len() == 7);
    until("the status too", || statuses(&world).len() == 1);
    assert_eq!(statuses(&world)["g3"], "online");
    let ended = bridge.stop();
    assert_eq!(ended.number("dropped"), 1, "the status that is none");
    assert_eq!(ended.json()["dropped_by"], json!({ "not_a_status": 1 }));

    let readings = world.readings();
    let of_g1: Vec<_> = readings.iter().filter(|record| record.key() == "g1").collect();
    assert_eq!(of_g1.len(), 2);
    assert_eq!(of_g1[1].timestamp, taken);
    assert_eq!(of_g1[1].json()["model"], json!("X"), "carried as it came");
    let worked = world.work_to_the_end(&[]);
    assert_eq!((worked.number("records"), worked.number("dlq"), worked.number("alerts")), (7, 5, 2));
    let mut codes: Vec<String> = world
        .read(&world.dlq_topic())
        .iter()
        .map(|record| record.header("dlq.error.code").unwrap().to_owned())
        .collect();
    codes.sort();
    assert_eq!(codes, ["key_mismatch", "not_json", "not_json", "not_utf8", "too_large"]);
}

#[test]
fn a_stop_finishes_what_is_under_way() {
    let (mqtt, world) = (Mosquitto::start(), World::new(3));
    bridge(&world, &mqtt, &[]).stop();
    simulate(&world, &mqtt, "20", "30000").wait().success();
    // Each of them is stopped in the middle, by a signal.
    let mut in_all = 0;
    while in_all < 30_000 {
        let next = bridge(&world, &mqtt, &[]);
        until("it's at work", || world.readings().len() as u64 > in_all);
        let ended = next.stop();
        in_all += ended.number("readings");
        assert!(ended.took < Duration::from_secs(30), "{:?}", ended.took);
    }
    assert_same(&by_generator(&world.readings()), &expected(&world, "20", "30000"));
}

#[test]
fn a_full_producer_is_waited_for() {
    let (mqtt, world) = (Mosquitto::start(), World::new(3));
    bridge(&world, &mqtt, &[]).stop();
    simulate(&world, &mqtt, "20", "20000").wait().success();
    let bridge = bridge(&world, &mqtt, &["-X", "queue.buffering.max.messages=10"]);
    until("all are in Kafka", || world.readings().len() >= 20_000);
    let ended = bridge.stop();
    assert_eq!(ended.number("dropped"), 0);
    assert_same(&by_generator(&world.readings()), &expected(&world, "20", "20000"));
}

#[test]
fn only_what_kafka_has_is_counted() {
    let cluster = Cluster::start("bridge-counts", &[]);
    let (mqtt, world) = (Mosquitto::start(), World::in_cluster(&cluster, 1));
    let bridge = bridge(&world, &mqtt, &[]);
    let mut device = Device::connect(&mqtt, "device");
    device.say("generators/g1/telemetry", &reading("g1", 1));
    until("the first is in Kafka", || world.readings().len() == 1);
    cluster.crash();
    for fuel in 2..=20 {
        device.say("generators/g1/telemetry", &reading("g1", fuel));
    }
    let why = "Kafka doesn't take readings";
    bridge.wait_until_it_says(why);
    let said = bridge.stderr();
    let line = said.lines().find(|line| line.contains(why)).unwrap();
    assert!(line.contains(&world.brokers), "who isn't reached, in: {line}");
    let ended = bridge.stop();
    assert_eq!((ended.number("received"), ended.number("readings")), (20, 1), "{}", ended.stdout);
    assert_eq!(ended.number("unacknowledged"), 19);
}

#[test]
fn who_cannot_work_says_why() {
    let (mqtt, world) = (Mosquitto::start(), World::new(1));
    world
        .run("bridge", &["--mqtt", "mqtt://127.0.0.1:1"])
        .refused(1, &["no MQTT broker answers", "127.0.0.1:1"]);
    world
        .run("simulate", &["--to", "mqtt", "--mqtt", "mqtt://127.0.0.1:1", "--generators", "3"])
        .refused(1, &["0 of 3 generators are connected"]);
    let elsewhere = ["bridge", "--brokers", &world.brokers, "--topic", "missing", "--mqtt", &mqtt.url()];
    Process::start("bridge", &elsewhere).wait().refused(1, &["topics create"]);
    // Two of one name would take the session from each other for ever.
    let first = bridge(&world, &mqtt, &[]);
    let second = bridge(&world, &mqtt, &[]);
    let hint = "does another client use this --client-id?";
    until("one of them says so", || first.stderr().contains(hint) || second.stderr().contains(hint));
    first.stop();
    second.stop();
}

/// Kafka goes away under a bridge; `meanwhile` returns the bridge that goes on when Kafka is back.
fn outlive_an_outage(
    name: &str,
    meanwhile: impl Fn(&World, &Mosquitto, Process, &dyn Fn()) -> Process,
) -> (World, Cluster, ByGenerator) {
    let cluster = Cluster::start(name, &["broker.session.timeout.ms=6000"]);
    let (mqtt, world) = (Mosquitto::start(), World::in_cluster(&cluster, 3));
    let first = bridge(&world, &mqtt, &["--http", "127.0.0.1:0"]);
    let address = first.http();
    assert_eq!(http::get(&address, "/readyz").0, 200);
    simulate(&world, &mqtt, "20", "10000").wait().success();
    until("it's at work", || world.readings().len() > 500);
    cluster.crash();
    simulate(&world, &mqtt, "20", "5000").wait().success();
    first.wait_until_it_says("Kafka doesn't take readings");
    assert_eq!(http::get(&address, "/readyz"), (503, "Kafka takes no records\n".to_owned()));
    assert_eq!(http::get(&address, "/livez").0, 200);
    let mut bridge = meanwhile(&world, &mqtt, first, &|| cluster.recover());
    let mut wanted = expected(&world, "20", "10000");
    for (generator, values) in expected(&world, "20", "5000") {
        wanted.get_mut(&generator).unwrap().extend(values);
    }
    let last_ones =
        |all: &ByGenerator| -> Vec<Option<Vec<u8>>> { all.values().map(|of| of.last().cloned()).collect() };
    until("all are in Kafka", || {
        world.readings().len() >= 15_000 && last_ones(&by_generator(&world.readings())) == last_ones(&wanted)
    });
    assert!(bridge.is_running());
    bridge.stop();
    (world, cluster, wanted)
}

fn bridge(world: &World, mqtt: &Mosquitto, more: &[&str]) -> Process {
    let url = mqtt.url();
    let bridge = world.start("bridge", &[&["--mqtt", &url], more].concat());
    bridge.wait_until_it_says("connected to the MQTT broker");
    bridge
}

/// A good reading, identifiable by its fuel.
fn reading(generator: &str, fuel: u32) -> Vec<u8> {
    padded_reading(generator, fuel, 0)
}

/// As [`reading`], with `bytes` of padding.
fn padded_reading(generator: &str, fuel: u32, bytes: usize) -> Vec<u8> {
    let pad = "x".repeat(bytes);
    json!({
        "generatorID": generator, "lat": 1, "lon": 2, "temperature": 70, "pressure": 200, "fuel": fuel, "pad": pad,
    })
    .to_string()
    .into_bytes()
}

fn simulate(world: &World, mqtt: &Mosquitto, generators: &str, count: &str) -> Process {
    let (url, fast) = (mqtt.url(), ["--rate", "0", "--seed", "7"]);
    let what = ["--to", "mqtt", "--mqtt", &url, "--generators", generators, "--count", count];
    world.start("simulate", &[&what[..], &fast].concat())
}

/// What [`simulate`] sends, through Kafka alone.
fn expected(world: &World, generators: &str, count: &str) -> ByGenerator {
    let world = world.another(1);
    let what = ["--generators", generators, "--count", count, "--rate", "0", "--seed", "7"];
    world.run("simulate", &what).success();
    by_generator(&world.readings())
}

fn by_generator(readings: &Records) -> ByGenerator {
    let mut all = ByGenerator::new();
    for record in readings.iter() {
        all.entry(record.key().to_owned()).or_default().push(record.value.clone().unwrap());
    }
    all
}

/// Nothing lost, nothing twice, in order. (A message with all of them would have megabytes.)
#[track_caller]
fn assert_same(found: &ByGenerator, wanted: &ByGenerator) {
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (generator, values) in found {
        let (here, there) = (values.len(), wanted[generator].len());
        assert!(
            *values == wanted[generator],
            "{generator}: {here} readings, {there} wanted, or in another order"
        );
    }
}

/// Whether these are the wanted readings, with the stretch before one point twice: it was in Kafka and not yet
/// acknowledged when the bridge was killed.
fn is_replayed_once(values: &[Vec<u8>], wanted: &[Vec<u8>]) -> bool {
    let Some(repeats) = values.len().checked_sub(wanted.len()) else { return false };
    (repeats..=wanted.len()).any(|at| values[..at] == wanted[..at] && values[at..] == wanted[at - repeats..])
}

/// The last status of each generator.
fn statuses(world: &World) -> BTreeMap<String, String> {
    let topic = format!("{}_status", world.topic);
    let records = world.read(&topic);
    let word = |json: serde_json::Value| json["status"].as_str().unwrap().to_owned();
    records.compacted().into_iter().map(|(key, record)| (key, word(record.json()))).collect()
}
