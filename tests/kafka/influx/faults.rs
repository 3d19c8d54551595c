//! Everything that can break on the way, one after the other, during a million readings.

use super::{progress, sink};
use crate::world::influxdb::Server;
use crate::world::{World, broker::Cluster, http, until};

const READINGS: i64 = 1_000_000;

#[test]
fn a_million_readings_are_a_million_points_though_sink_database_and_kafka_are_killed() {
    let cluster = Cluster::start("influx-faults", &[]);
    let world = World::in_cluster(&cluster, 6);
    let server = Server::start("faults", &[]);
    let bucket = server.bucket();
    let arguments = ["--rate", "0", "--count", &READINGS.to_string(), "--generators", "1000"];
    world.run("simulate", &arguments).success();

    let quick = ["--batch", "2000", "-X", "session.timeout.ms=6000", "--http", "127.0.0.1:0"];
    let first = sink(&world, &bucket, &quick);
    until("the sink is in the middle", || progress(&world).done() > READINGS / 20);
    first.kill();
    let second = sink(&world, &bucket, &quick);
    let page = second.http();
    until_done(&world, READINGS / 5);

    server.crash();
    until("it waits for the database", || http::get(&page, "/readyz").0 == 503);
    server.recover();
    until_done(&world, READINGS * 2 / 5);

    cluster.crash();
    until("it waits for Kafka", || http::get(&page, "/readyz").0 == 503);
    cluster.recover();
    until_done(&world, READINGS * 3 / 5);

    // In the middle again, and both at once.
    second.kill();
    server.crash();
    let third = sink(&world, &bucket, &quick);
    server.recover();
    until_done(&world, READINGS);
    third.stop();

    let (points, _) = bucket.count_and_sum(&world.topic, "fuel");
    assert_eq!(points, READINGS as u64);
    for field in ["lat", "lon", "temperature", "pressure"] {
        assert_eq!(bucket.count_and_sum(&world.topic, field).0, READINGS as u64, "{field}");
    }
}

/// As [`until`], as long as there is progress: a million readings take their time.
#[track_caller]
fn until_done(world: &World, wanted: i64) {
    let mut done = progress(world).done();
    while done < wanted {
        let before = done;
        until("more is committed", || {
            done = progress(world).done();
            done > before
        });
    }
}
