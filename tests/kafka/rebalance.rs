//! Workers come and go; whatever the group's protocol, nothing is lost, repeated or reordered.

use std::collections::BTreeSet;
use std::time::Duration;

use genwatch_oracle::NaiveRule;
use rdkafka::consumer::Consumer as _;
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::oracle;
use crate::verify;
use crate::world::broker::Cluster;
use crate::world::process::Process;
use crate::world::records::{Outgoing, stormy_readings};
use crate::world::{PATIENCE, World, http, until};

/// Readings for 6 partitions, which take one worker about 8 s.
const READINGS: usize = 8000;
const WORK: [&str; 4] = ["--work", "2ms", "--concurrency", "2"];

/// A second worker joins the first one in the middle of its work. Returns them when all is done.
fn scale_out(world: &World, first: &[&str], second: &[&str]) -> (Process, Process) {
    world.produce(&stormy_readings(60, READINGS));
    let first = world.working(&[&WORK[..], first].concat());
    until("the first is at work", || world.progress().done() > 200);
    let second = world.working(&[&WORK[..], second].concat());
    world.wait_until_worked();
    (first, second)
}

/// Stops both; together they must have processed everything, once.
fn stop_both(first: Process, second: Process) {
    let (first, second) = (first.stop().number("records"), second.stop().number("records"));
    assert!(first > 0 && second > 0, "{first} and {second}");
    assert_eq!(first + second, u64::try_from(READINGS).unwrap());
}

/// `0-2, 5` as a set.
fn set(ranges: &[String]) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    for range in ranges.iter().flat_map(|ranges| ranges.split(", ")).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        all.extend(first.parse::<u32>().unwrap()..=last.parse().unwrap());
    }
    all
}

#[test]
fn a_new_replica_takes_its_share_and_what_stays_is_not_interrupted() {
    let world = World::new(6);
    let (first, second) = scale_out(&world, &[], &[]);
    assert_eq!(set(&first.revocations()).len(), 3, "only what moves is given up: {:?}", first.revocations());
    assert_eq!(set(&second.assignments()), set(&first.revocations()));
    stop_both(first, second);
    assert!(verify::all(&world).alert_count() > 500);
}

/// As after a crash within a commit; the transaction's own timeout is longer than the test waits.
#[test]
fn what_a_dead_worker_left_open_is_ended_by_who_takes_over() {
    let world = World::new(1);
    world.produce(&[Outgoing::reading("generator1", 70.0, 100.0)]);
    let dead = world.working(&[]);
    world.wait_until_worked();
    dead.stop().success();
    let client = world.consumer();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition(&world.topic, 0);
    let committed = client.committed_offsets(offsets, PATIENCE).unwrap();
    let note = committed.elements()[0].metadata().to_owned();
    let instance = note.split('/').next().unwrap();

    let producer = world.transactional_producer(instance, Duration::from_secs(600));
    producer.begin_transaction().unwrap();
    let mut pending = TopicPartitionList::new();
    pending.add_partition_offset(&world.topic, 0, Offset::Offset(1)).unwrap();
    producer.send_offsets_to_transaction(&pending, &client.group_metadata().unwrap(), PATIENCE).unwrap();

    world.produce(&[Outgoing::reading("generator1", 70.0, 900.0)]);
    let heir = world.working(&[]);
    world.wait_until_worked();
    assert!(producer.commit_transaction(PATIENCE).is_err(), "the id is the heir's to end");
    heir.stop().success();
    assert_eq!(verify::all(&world).alert_count(), 2);
}

#[test]
fn an_eager_assignor_gives_the_same_results() {
    let world = World::new(6);
    let eager = ["-X", "partition.assignment.strategy=range"];
    let (first, second) = scale_out(&world, &eager, &eager);
    assert_eq!(set(&first.revocations()).len(), 6, "an eager protocol stops everything");
    stop_both(first, second);
    verify::all(&world);
}

#[test]
fn the_consumer_protocol_gives_the_same_results() {
    let world = World::new(6);
    let protocol = ["--group-protocol", "consumer"];
    let (first, second) = scale_out(&world, &protocol, &protocol);
    assert_eq!(set(&first.revocations()).len(), 3, "only what moves is given up: {:?}", first.revocations());
    stop_both(first, second);
    verify::all(&world);
}

#[test]
fn at_least_once_loses_nothing_and_repeats_with_the_same_id() {
    let world = World::new(6);
    let delivery = ["--delivery", "at-least-once"];
    let (first, second) = scale_out(&world, &delivery, &delivery);
    stop_both(first, second);
    verify::all_but_repeats(&world);
}

#[test]
fn a_static_member_comes_back_to_its_partitions_and_disturbs_nobody() {
    let world = World::new(6);
    let id = |id| format!("group.instance.id={id}");
    let (first, second) = scale_out(&world, &["-X", &id("one")], &["-X", &id("two")]);
    let (before, had) = (first.assignments(), set(&second.assignments()));
    second.stop();

    let again = world.working(&["-X", &id("two")]);
    world.produce(&stormy_readings(60, 600));
    world.wait_until_worked();

    assert_eq!(set(&again.assignments()), had);
    assert_eq!(first.assignments(), before, "the other one has not noticed");
    first.stop();
    again.stop();
    verify::all(&world);
}

#[test]
fn a_replica_that_slept_through_its_session_says_nothing_more_and_joins_again() {
    let world = World::new(6);
    let session = ["-X", "session.timeout.ms=6000"];
    world.produce(&stormy_readings(60, READINGS));
    let (sleeper, other) =
        (world.working(&[&WORK[..], &session].concat()), world.working(&[&WORK[..], &session].concat()));
    until("they share the work", || set(&sleeper.revocations()).len() == 3);
    until("both are at work", || world.progress().partitions.values().all(|(done, _, _)| done.is_some()));

    sleeper.signal("STOP");
    world.wait_until_worked();
    sleeper.signal("CONT");
    sleeper.wait_until_it_says("the group went on without us");
    let assigned = sleeper.assignments().len();
    until("it has joined again", || sleeper.assignments().len() > assigned);
    world.produce(&stormy_readings(60, 600));
    world.wait_until_worked();
    sleeper.stop();
    other.stop();

    verify::all(&world);
}

/// A member that is stopped from the moment of its revocation until the group has thrown it out.
fn thrown_out_while_it_drains(world: &World, both: &[&str], sleeper: &[&str]) {
    // Each reading takes a while, so that some are in progress when partitions are revoked.
    let slow = ["--work", "1500ms", "--concurrency", "64", "--http", "127.0.0.1:0"];
    world.produce(&stormy_readings(60, 600));
    let sleeper = world.working(&[&slow[..], both, sleeper].concat());
    let address = sleeper.http();
    until("it is at work", || world.progress().done() > 0);
    let other = world.worker(&[&["--work", "10ms"], both].concat());
    until("it is asked for partitions", || !sleeper.revocations().is_empty());
    sleeper.signal("STOP");
    other.wait_until_assigned();
    until("the other one has all partitions", || set(&other.assignments()).len() == 6);
    sleeper.signal("CONT");
    sleeper.wait_until_it_says("are dropped");
    // Also if the group leaves it its old assignment and reports nothing.
    let owns = || !http::samples(&http::get(&address, "/metrics").1, "genwatch_lag").is_empty();
    until("it has joined again", || http::get(&address, "/readyz").0 == 200 && owns());
    world.produce(&stormy_readings(60, 600));
    world.wait_until_worked();
    sleeper.stop();
    other.stop();
    verify::all(world);
}

const SHORT_SESSION: [&str; 2] = ["-X", "session.timeout.ms=6000"];

#[test]
fn a_member_thrown_out_while_it_drains_joins_again_by_itself() {
    thrown_out_while_it_drains(&World::new(6), &SHORT_SESSION, &[]);
}

#[test]
fn a_static_member_thrown_out_while_it_drains_joins_again_by_itself() {
    thrown_out_while_it_drains(&World::new(6), &SHORT_SESSION, &["-X", "group.instance.id=sleeper"]);
}

/// By KIP-848 the brokers decide the session timeout.
#[test]
fn a_member_by_kip_848_thrown_out_while_it_drains_joins_again_by_itself() {
    let of = |what: &str, ms: u32| format!("group.consumer.{what}.ms={ms}");
    let properties = [
        of("min.session.timeout", 6000),
        of("session.timeout", 6000),
        of("min.heartbeat.interval", 1000),
        of("heartbeat.interval", 1000),
    ];
    let cluster = Cluster::start("short-session", &properties.each_ref().map(String::as_str));
    thrown_out_while_it_drains(&World::in_cluster(&cluster, 6), &["--group-protocol", "consumer"], &[]);
}

/// librdkafka rejoins at once when the topic has grown, even with an unanswered revocation, and from then on doesn't
/// join the group's rebalances, which wait for it
/// (`a_member_that_was_overtaken_joins_no_rebalance_that_waits_for_it`, tests/conformance).
#[test]
fn a_member_that_growth_has_overtaken_while_it_drains_does_not_hold_up_the_group() {
    let world = World::new(4);
    let client = ["-X", "heartbeat.interval.ms=500", "-X", "topic.metadata.refresh.interval.ms=300"];
    world.produce(&stormy_readings(60, 120));
    let first = world.working(&[&client[..], &["--work", "8s", "--http", "127.0.0.1:0"]].concat());
    let address = first.http();
    until("it is at work", || {
        http::samples(&http::get(&address, "/metrics").1, "genwatch_in_flight")[0].1 > 0.0
    });
    let second = world.worker(&client);
    until("it is asked for partitions", || !first.revocations().is_empty());
    let before = first.assignments().len();
    world.grow(6);
    until("the group has gone on without its answer", || first.assignments().len() > before);
    assert_eq!(first.revocations().len(), 1, "nothing else is asked back");

    let third = world.worker(&client);
    third.wait_until_assigned();
    let owns = || !http::samples(&http::get(&address, "/metrics").1, "genwatch_lag").is_empty();
    until("it has joined again", || http::get(&address, "/readyz").0 == 200 && owns());
    world.wait_until_worked();
    for worker in [first, second, third] {
        worker.stop();
    }
    let expected = oracle::evaluate(&world.topic, &world.readings(), &NaiveRule::built_in());
    let alerts = world.read(&world.alerts_topic());
    oracle::check_alert_records(&expected, &alerts, oracle::Repeats::Forbidden);
}
