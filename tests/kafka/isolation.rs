//! One partition's trouble stays its own: it stops no other, and metrics and `/readyz` report it.

use std::time::Duration;

use rdkafka::producer::{BaseRecord, Producer};

use crate::offsets::delete_records_below;
use crate::verify;
use crate::world::records::{Outgoing, stormy_readings};
use crate::world::{World, http, until};

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

/// Readings of `count` generators, all in one partition.
fn readings_in(partition: i32, count: usize) -> Vec<Outgoing> {
    let reading = |n| Outgoing::reading(&format!("p{partition}-{n}"), 74.0, 100.0).to(partition);
    (0..count).map(reading).collect()
}

fn done(world: &World, partition: i32) -> Option<i64> {
    world.progress().partitions.get(&partition).and_then(|(done, _, _)| *done)
}

#[test]
fn a_transaction_that_hangs_on_one_partitions_states_holds_up_no_other() {
    let world = World::new(3);
    (0..3).for_each(|partition| world.produce(&readings_in(partition, 20)));
    // As left by a worker that died in the middle of a commit; it ends after its timeout.
    let producer = world.transactional_producer("dead", Duration::from_secs(60));
    // Workers create the state topic; here it has to exist before.
    world.work_to_the_end(&[]);
    (0..3).for_each(|partition| world.produce(&readings_in(partition, 20)));
    producer.begin_transaction().unwrap();
    let state = world.state_topic();
    let record = BaseRecord::to(&state).partition(0).key("p0-0").payload("{}");
    producer.send(record).unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();

    let worker = world.working(&HTTP);
    until("the other partitions are processed", || {
        done(&world, 1) == Some(40) && done(&world, 2) == Some(40)
    });
    assert_eq!(done(&world, 0), Some(20), "this one waits for the transaction's end");
    assert_eq!(http::get(&worker.http(), "/readyz").0, 503);

    producer.abort_transaction(Duration::from_secs(20)).unwrap();
    world.wait_until_worked();
    until("it is ready", || http::get(&worker.http(), "/readyz").0 == 200);
    worker.stop();
    verify::all(&world);
}

#[test]
fn readings_that_retention_took_stop_their_own_partition_alone() {
    let world = World::new(2);
    (0..2).for_each(|partition| world.produce(&readings_in(partition, 40)));
    world.work_to_the_end(&[]);
    (0..2).for_each(|partition| world.produce(&readings_in(partition, 40)));
    delete_records_below(&world, 60);

    let worker = world.working(&HTTP);
    until("the other partition is processed", || done(&world, 1) == Some(80));
    worker.wait_until_it_says("partition 0 of");
    assert_eq!(done(&world, 0), Some(40), "nothing was skipped");
    let address = worker.http();
    until("the partition is reported as stalled", || {
        let stalled = http::samples(&http::get(&address, "/metrics").1, "genwatch_stalled");
        stalled.iter().any(|(series, value)| series.contains("\"0\"") && *value == 1.0)
    });
    let (code, text) = http::get(&address, "/readyz");
    assert_eq!((code, text.contains("can't be processed")), (503, true), "{text}");
    worker.stop();
}

#[test]
fn a_topic_that_grows_is_worked_on_and_its_companions_grow_with_it() {
    let world = World::new(2);
    world.produce(&stormy_readings(20, 400));
    let worker = world.working(&["-X", "topic.metadata.refresh.interval.ms=1000"]);
    world.wait_until_worked();

    world.grow(4);
    // A bad record needs the dead letter topic's partition, an alarm those of alerts and states.
    until("the new partitions take records", || {
        (2..4).all(|partition| world.progress().partitions.contains_key(&partition))
    });
    for partition in 0..4 {
        world.produce(&readings_in(partition, 20));
        world.produce(&[Outgoing::new("nobody", b"{").to(partition)]);
    }
    world.wait_until_worked();
    worker.stop();
    assert_eq!(world.read(&world.dlq_topic()).len(), 4);
    assert_eq!(done(&world, 3), Some(21));
}

#[test]
fn a_topic_that_grew_while_nobody_worked_it_is_worked_and_its_companions_grow_with_it() {
    let world = World::new(2);
    world.produce(&stormy_readings(20, 400));
    world.work_to_the_end(&[]);
    world.grow(4);
    for partition in 0..4 {
        world.produce(&readings_in(partition, 20));
        world.produce(&[Outgoing::new("nobody", b"{").to(partition)]);
    }
    world.work_to_the_end(&[]);
    assert_eq!(world.read(&world.dlq_topic()).len(), 4);
    assert_eq!(done(&world, 3), Some(21));
}
