//! Where a worker begins, where it ends, and how fast it goes between.

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::{Offset, TopicPartitionList};

use crate::verify;
use crate::world::records::stormy_readings;
use crate::world::{World, until};

#[test]
fn exit_at_end_works_all_there_is_and_ends() {
    let world = World::new(3);
    world.produce(&stormy_readings(10, 1000));
    assert_eq!(world.work_to_the_end(&[]).number("records"), 1000);
    assert_eq!(world.work_to_the_end(&[]).number("records"), 0, "nothing is left for a second run");
    assert_eq!(world.progress().lag(), 0);
    verify::all(&world);
}

#[test]
fn with_exit_at_end_replicas_share_the_work_and_all_of_them_end() {
    let world = World::new(1);
    world.produce(&stormy_readings(10, 1000));
    let replicas = [0; 2].map(|_| world.worker(&["--exit-at-end", "--work", "1ms", "--concurrency", "1"]));
    let records: u64 = replicas.map(|replica| replica.wait().success().number("records")).iter().sum();
    assert_eq!(records, 1000);
    verify::all(&world);
}

#[test]
fn rate_limit_holds_a_replica_back() {
    let world = World::new(3);
    world.produce(&stormy_readings(10, 2500));
    let ended = world.work_to_the_end(&["--rate-limit", "500"]);
    let rate = ended.json()["records_per_second"].as_f64().unwrap();
    assert!((350.0..550.0).contains(&rate), "{rate} records a second");
    verify::all(&world);
}

#[test]
fn readings_that_retention_took_before_they_were_worked_are_an_error_unless_accepted() {
    let world = World::new(1);
    let readings = stormy_readings(10, 200);
    world.produce(&readings[..100]);
    world.work_to_the_end(&[]);
    world.produce(&readings[100..]);
    delete_records_below(&world, 150);

    let refused = world.run("worker", &["--exit-at-end"]);
    refused.refused(1, &["offset 100", "150", "--on-out-of-range earliest"]);
    assert_eq!(world.progress().done(), 100, "nothing was skipped");

    let ended = world.work_to_the_end(&["--on-out-of-range", "earliest"]);
    assert_eq!(ended.number("records"), 50);
    assert!(ended.stderr.contains("going on from the earliest record"), "{}", ended.stderr);
    assert_eq!(world.progress().lag(), 0);
}

#[test]
fn readings_that_retention_takes_from_a_running_worker_are_passed_over_if_accepted() {
    let world = World::new(1);
    world.produce(&stormy_readings(5, 100));
    // Nearly always full, so that it is paused and drops what it fetched: it has to fetch again.
    let slow = ["--work", "300ms", "--concurrency", "1", "--max-in-flight", "2", "--rate-limit", "4"];
    let worker = world.working(&[&slow[..], &["--on-out-of-range", "earliest"]].concat());
    until("it's at work", || world.progress().done() > 1);
    delete_records_below(&world, 95);
    world.wait_until_worked();
    worker.stop();
}

#[test]
fn readings_that_retention_took_before_a_group_began_are_no_error() {
    let world = World::new(1);
    world.produce(&stormy_readings(10, 200));
    delete_records_below(&world, 150);
    assert_eq!(world.work_to_the_end(&[]).number("records"), 50);
    verify::all(&world);
}

/// As retention does.
pub fn delete_records_below(world: &World, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &world.brokers).create().expect("an admin client");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&world.topic, 0, Offset::Offset(offset)).unwrap();
    block_on(admin.delete_records(&list, &AdminOptions::new())).expect("records deleted");
}
