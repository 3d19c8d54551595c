//! A failed fetch gives the worker a notice in the place of a record: no reading is skipped for it.
//!
//! No real broker fails a fetch on request; librdkafka's mock cluster does.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::verify;
use crate::world::records::stormy_readings;
use crate::world::{World, http, until};

type Mock = MockCluster<'static, DefaultProducerContext>;

/// A world of one partition in a cluster whose fetches fail on request.
fn world() -> (Mock, World) {
    let cluster = Mock::new(1).expect("a mock cluster");
    let world = World::at(&cluster.bootstrap_servers());
    for topic in [world.topic.clone(), world.alerts_topic(), world.dlq_topic(), world.state_topic()] {
        cluster.create_topic(&topic, 1, 1).expect("a topic");
    }
    (cluster, world)
}

/// The mock cluster supports no transactions.
const DELIVERY: [&str; 2] = ["--delivery", "at-least-once"];

#[test]
fn a_fetch_that_fails_skips_no_reading() {
    let (cluster, world) = world();
    let worker = world.working(&DELIVERY);
    let readings = stormy_readings(10, 300);
    world.produce(&readings[..100]);
    world.wait_until_worked();
    let notices = || worker.stderr().lines().filter(|line| line.contains("the consumer reports")).count();
    until("a fetch has failed where the next reading will be", || {
        cluster.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; 1]);
        notices() > 0
    });
    cluster.clear_request_errors(RDKafkaApiKey::Fetch);
    // A rebalance pauses the fetches, and a pause is what makes the fetcher go on where the notice has put it.
    let another = world.worker(&[&DELIVERY[..], &["--http", "127.0.0.1:0"]].concat());
    let http = another.http();
    until("the other one has joined", || http::get(&http, "/readyz").0 == 200);
    world.produce(&readings[100..]);
    world.wait_until_worked();
    another.stop();
    worker.stop();
    verify::all_but_repeats(&world);
}

#[test]
fn a_batch_that_cannot_be_read_stops_its_partition_and_is_told() {
    let (cluster, world) = world();
    let worker = world.working(&[&DELIVERY[..], &["--http", "127.0.0.1:0"]].concat());
    let http = worker.http();
    until("the worker is ready", || http::get(&http, "/readyz").0 == 200);
    cluster.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_MSG; 20]);
    world.produce(&stormy_readings(10, 100));
    until("the worker isn't ready any more", || http::get(&http, "/readyz").0 == 503);
    cluster.clear_request_errors(RDKafkaApiKey::Fetch);
    let ended = worker.stop();
    assert!(ended.stderr.contains("can't be read at offset 0"), "{}", ended.stderr);
    assert_eq!(world.progress().done(), 0, "nothing was skipped");

    let next = world.working(&DELIVERY);
    world.wait_until_worked();
    next.stop();
    verify::all_but_repeats(&world);
}
