//! A topic deleted under a running worker: the worker names it, once, and waits; when the topic is recreated it goes
//! on.

use std::time::Duration;

use crate::world::process::Process;
use crate::world::records::Outgoing;
use crate::world::{World, http, until};

const DELIVERIES: [&str; 2] = ["exactly-once", "at-least-once"];
/// How long the topic stays away after the worker missed it.
const AWAY: Duration = Duration::from_secs(6);
/// How many lines a waiting worker may log meanwhile.
const FEW: usize = 12;

fn low(generator: &str) -> Outgoing {
    Outgoing::reading(generator, 74.0, 100.0)
}

fn bad() -> Outgoing {
    Outgoing::new("someone", b"not json")
}

fn generators(world: &World) -> Vec<String> {
    let mut ids: Vec<String> =
        world.alerts().iter().map(|alert| alert["generatorID"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// Deletes the topic under a worker that has processed the first of these, and lets it go on with the others when the
/// topic is back.
fn deleted(
    topic: impl Fn(&World) -> String,
    first: &[Outgoing],
    then: &[Outgoing],
    delivery: &str,
) -> (World, Process) {
    let world = World::new(2);
    let topic = topic(&world);
    let options = ["--delivery", delivery, "--http", "127.0.0.1:0", "--on-new-topic", "keep-states"];
    let mut worker = world.working(&options);
    world.produce(first);
    world.wait_until_worked();

    world.delete(&topic);
    if topic != world.topic {
        world.produce(then);
    }
    let before = worker.stderr().lines().count();
    worker.wait_until_it_says(&format!("topic {topic} does not exist any more"));
    let address = worker.http();
    until("the probe says so", || {
        let (status, body) = http::get(&address, "/readyz");
        status == 503 && body.contains("a topic does not exist any more")
    });
    std::thread::sleep(AWAY);
    assert!(worker.is_running(), "{}", worker.stderr());
    let log = worker.stderr();
    let said: Vec<&str> = log.lines().skip(before).collect();
    assert!(said.len() <= FEW, "{}", said.join("\n"));

    world.run("topics create", &["--partitions", "2"]).success();
    if topic == world.topic {
        world.produce(then);
    }
    world.wait_until_worked();
    until("it's ready", || http::get(&address, "/readyz").0 == 200);
    (world, worker)
}

#[test]
fn a_readings_topic_that_is_deleted_is_waited_for() {
    let (world, worker) = deleted(|world| world.topic.clone(), &[low("a")], &[low("b")], DELIVERIES[0]);
    worker.stop().success();
    assert_eq!(generators(&world), ["a", "b"]);
}

#[test]
fn an_alerts_topic_that_is_deleted_is_waited_for() {
    for delivery in DELIVERIES {
        let (world, worker) = deleted(World::alerts_topic, &[low("a")], &[low("b")], delivery);
        worker.stop().success();
        assert_eq!(generators(&world), ["b"], "the earlier alerts are gone with the topic");
    }
}

#[test]
fn a_dead_letter_topic_that_is_deleted_is_waited_for() {
    for delivery in DELIVERIES {
        let (world, worker) = deleted(World::dlq_topic, &[low("a"), bad()], &[bad(), low("b")], delivery);
        worker.stop().success();
        assert_eq!(world.read(&world.dlq_topic()).len(), 1);
        assert_eq!(generators(&world), ["a", "b"]);
    }
}

#[test]
fn a_state_topic_that_is_deleted_is_waited_for_and_states_are_written_again() {
    for delivery in DELIVERIES {
        let (world, worker) = deleted(World::state_topic, &[low("a")], &[low("b")], delivery);
        worker.stop().success();
        world.produce(&[low("a"), low("b")]);
        world.work_to_the_end(&["--delivery", delivery]);
        assert_eq!(generators(&world), ["a", "b"], "both are known to be low");
    }
}

#[test]
fn states_that_are_lost_while_nobody_works_are_told() {
    let world = World::new(1);
    world.produce(&[low("a")]);
    let first = world.work_to_the_end(&[]);
    assert!(!first.stderr.contains("no alarm is known"), "{}", first.stderr);
    world.delete(&world.state_topic());
    world.produce(&[low("a")]);
    let told = world.work_to_the_end(&[]).stderr;
    assert!(told.contains("the group has committed before, but its state topic was gone"), "{told}");
    assert_eq!(generators(&world), ["a", "a"], "raised again");
}
