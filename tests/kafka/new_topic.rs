//! A readings topic that was deleted and recreated is another log: offsets and states of the former mean nothing in it.
//! The worker notices it, at start and while it runs, and `--on-new-topic` decides.

use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::world::broker;
use crate::world::process::Process;
use crate::world::records::Outgoing;
use crate::world::{World, until};

const REQUEST: Duration = Duration::from_secs(20);
const KEEP: [&str; 2] = ["--on-new-topic", "keep-states"];
const FORGET: [&str; 2] = ["--on-new-topic", "forget-states"];

fn low(generator: &str) -> Outgoing {
    Outgoing::reading(generator, 74.0, 100.0)
}

fn calm(generator: &str) -> Outgoing {
    Outgoing::reading(generator, 74.0, 900.0)
}

fn calm_ones(count: usize) -> Vec<Outgoing> {
    (0..count).map(|n| calm(&format!("calm{}", n % 7))).collect()
}

/// Generator and state of each alert, in order.
fn told(world: &World) -> Vec<String> {
    let alerts = world.alerts();
    let told = |alert: &Value| format!("{} {}", alert["generatorID"], alert["state"]).replace('"', "");
    alerts.iter().map(told).collect()
}

/// The state topic's records: each generator's last one.
fn states(world: &World) -> Vec<Value> {
    world.read(&world.state_topic()).compacted().values().map(|state| state.json()).collect()
}

/// A world in which `g` and `h` are low on fuel, at offsets beyond all that the tests write into the recreated topic.
fn world_with_alarms() -> World {
    let world = World::new(1);
    world.produce(&[calm_ones(40), vec![low("g"), low("h")]].concat());
    world.work_to_the_end(&[]);
    assert_eq!(told(&world), ["g raised", "h raised"]);
    world
}

/// The group's committed offset of the first partition, and its metadata.
fn committed(world: &World) -> Option<(i64, String)> {
    let list = world.consumer().committed_offsets(first_partition(world), REQUEST).expect("an answer");
    let element = list.elements().into_iter().next().expect("a partition");
    match element.offset() {
        Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
        _ => None,
    }
}

/// As a tool does, or a late commit.
fn commit(world: &World, offset: i64, metadata: &str) {
    let list = first_partition(world);
    {
        let mut element = list.find_partition(&world.topic, 0).expect("listed");
        element.set_offset(Offset::Offset(offset)).expect("an offset");
        element.set_metadata(metadata);
    }
    world.consumer().commit(&list, CommitMode::Sync).expect("the group is empty");
}

fn first_partition(world: &World) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&world.topic, 0);
    list
}

/// As Kafka's own tool prints it.
fn topic_id(world: &World) -> String {
    let said = broker::tool(
        "org.apache.kafka.tools.TopicCommand",
        &["--bootstrap-server", &world.brokers, "--describe", "--topic", &world.topic],
    );
    let id = said.split_once("TopicId: ").expect("a topic id").1;
    id.split_whitespace().next().expect("an id").to_owned()
}

#[test]
fn without_a_decision_the_worker_ends_and_says_what_each_value_means() {
    let world = world_with_alarms();
    world.make_topic_anew(1);
    world.produce(&[low("g")]);
    let words = ["the topic was deleted and ", "--on-new-topic", "keep-states", "forget-states", "fail"];
    world.run("worker", &["--exit-at-end"]).refused(1, &words);
    assert_eq!(world.progress().done(), 0, "nothing was processed");
}

#[test]
fn states_that_are_kept_stand_in_the_new_log_and_are_kept_once() {
    let world = world_with_alarms();
    world.make_topic_anew(1);
    world.produce(&[low("g"), calm("g"), low("i")]);
    assert_eq!(world.work_to_the_end(&KEEP).number("records"), 3);
    assert_eq!(told(&world)[2..], ["g cleared", "i raised"]);

    // Decided once and for all: also for h, of which nothing has come since.
    world.produce(&[calm("h")]);
    assert_eq!(world.work_to_the_end(&[]).number("records"), 1);
    assert_eq!(told(&world)[4..], ["h cleared"]);
    let id = topic_id(&world);
    assert!(states(&world).iter().all(|state| state["topic"] == id.as_str()), "{id}: {:?}", states(&world));
}

#[test]
fn states_that_are_forgotten_are_deleted_and_alarms_are_raised_anew() {
    let world = world_with_alarms();
    world.make_topic_anew(1);
    world.produce(&[low("g")]);
    assert_eq!(world.work_to_the_end(&FORGET).number("records"), 1);
    assert_eq!(told(&world)[2..], ["g raised"]);
    let known: Vec<Value> = states(&world).into_iter().map(|state| state["generatorID"].clone()).collect();
    assert_eq!(known, ["g"], "h is unknown now");
    assert_eq!(world.work_to_the_end(&[]).number("records"), 0);
}

#[test]
fn an_offset_that_comes_back_by_a_late_commit_is_known_as_one_of_the_former_log() {
    let world = World::new(1);
    // No alarm, so no state: only the offset can show it.
    world.produce(&calm_ones(50));
    world.work_to_the_end(&[]);
    let (offset, note) = committed(&world).expect("committed");
    world.make_topic_anew(1);
    world.produce(&calm_ones(80));
    commit(&world, offset, &note);

    world.run("worker", &["--exit-at-end"]).refused(1, &["--on-new-topic"]);
    assert_eq!(world.work_to_the_end(&FORGET).number("records"), 80);
    assert_eq!(world.work_to_the_end(&[]).number("records"), 0, "the new log's offset has taken its place");
}

#[test]
fn each_offset_bears_a_note_that_names_the_topic_and_the_member() {
    for delivery in ["exactly-once", "at-least-once"] {
        let world = world_of_one_reading(delivery);
        let (offset, note) = committed(&world).expect("committed");
        let parts: Vec<&str> = note.split('/').collect();
        assert_eq!((offset, parts.len()), (1, 5), "{note}");
        assert_eq!((parts[2], parts[3]), (&*topic_id(&world), "-"), "{note}");
        assert!(parts[4].starts_with("genwatch-"), "{note}");
        let states = states(&world);
        assert_eq!((&states[0]["topic"], &states[0]["epoch"]), (&Value::from(parts[2]), &Value::from(0)));
    }
}

fn world_of_one_reading(delivery: &str) -> World {
    let world = World::new(1);
    world.produce(&[low("g")]);
    world.work_to_the_end(&["--delivery", delivery]);
    world
}

#[test]
fn states_ahead_of_an_offset_that_somebody_has_set_back_are_told() {
    let world = world_with_alarms();
    commit(&world, 0, "");
    let ended = world.work_to_the_end(&[]);
    assert_eq!(ended.number("records"), 42);
    assert_eq!(told(&world), ["g raised", "h raised"], "the states cover these readings");
    assert!(ended.stderr.contains("use another --group"), "{}", ended.stderr);
    assert!(ended.stderr.contains("generators=2"), "{}", ended.stderr);
}

#[test]
fn two_topics_under_one_group_are_refused_whatever_was_decided() {
    let world = world_with_alarms();
    let mut other = world.another(1);
    other.group.clone_from(&world.group);
    other.produce(&[low("g")]);
    for decided in [&[][..], &KEEP, &FORGET] {
        let arguments = [&["--exit-at-end"], decided].concat();
        other.run("worker", &arguments).refused(1, &[&world.topic, "--group"]);
    }
    assert_eq!(states(&world).len(), 2, "the states are as they were");
}

#[test]
fn under_a_running_worker_it_is_noticed_and_ends_it() {
    let world = World::new(1);
    let worker = worker_with_alarms(&world, &[]);
    world.make_topic_anew(1);
    world.produce(&[low("g")]);
    worker.wait().refused(1, &["--on-new-topic", "keep-states", "forget-states"]);
}

#[test]
fn a_running_worker_that_keeps_states_goes_on_in_the_new_log() {
    let world = World::new(1);
    let worker = worker_with_alarms(&world, &KEEP);
    world.make_topic_anew(1);
    world.produce(&[low("g"), calm("g"), low("i")]);
    until("the new log is processed", || told(&world).len() == 4);
    assert_eq!(told(&world)[2..], ["g cleared", "i raised"]);
    world.wait_until_worked();
    worker.stop();
}

#[test]
fn a_running_worker_that_forgets_states_begins_anew_in_a_log_that_is_longer_than_the_former() {
    let world = World::new(1);
    let worker = worker_with_alarms(&world, &FORGET);
    world.make_topic_anew(1);
    // The new log has records at the old offset, too.
    world.produce(&[vec![low("g"), low("i")], calm_ones(100)].concat());
    until("the new log is processed from its first reading", || told(&world).len() == 4);
    assert_eq!(told(&world)[2..], ["g raised", "i raised"]);
    world.wait_until_worked();
    worker.stop();
}

fn worker_with_alarms(world: &World, arguments: &[&str]) -> Process {
    world.produce(&[calm_ones(40), vec![low("g"), low("h")]].concat());
    let worker = world.working(arguments);
    world.wait_until_worked();
    assert_eq!(told(world), ["g raised", "h raised"]);
    worker
}
