//! Faults on the side of Kafka: it deletes records before the sink has read them, and goes away.

use std::time::{Duration, Instant};

use super::{progress, readings, sink, sink_to_the_end, total};
use crate::offsets::delete_records_below;
use crate::world::influxdb::shared;
use crate::world::{World, broker::Cluster, http, until};

#[test]
fn records_that_retention_took_before_they_were_read_are_an_error_unless_accepted() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let readings = readings(10, 200);
    world.produce(&readings[..100]);
    sink_to_the_end(&world, &bucket, &[]);
    world.produce(&readings[100..]);
    delete_records_below(&world, 150);

    let refused = sink(&world, &bucket, &["--exit-at-end"]).wait();
    refused.refused(1, &[&world.topic, "offset 100", "150", "--on-out-of-range earliest"]);
    assert_eq!(progress(&world).done(), 100, "nothing was skipped");

    let accepting = sink(&world, &bucket, &["--on-out-of-range", "earliest", "--http", "127.0.0.1:0"]);
    let page = accepting.http();
    until("all is committed", || progress(&world).lag() == 0);
    assert_eq!(total(&http::get(&page, "/metrics").1, "genwatch_sink_lost_total"), 50.0);
    let ended = accepting.stop();
    assert_eq!([ended.number("records"), ended.number("lost")], [50, 50], "{ended:#?}");
    assert!(ended.stderr.contains("lost=50"), "{}", ended.stderr);
    assert_eq!(bucket.count_and_sum(&world.topic, "fuel").0, 150);
}

#[test]
fn records_that_retention_took_before_a_group_began_are_no_error() {
    let world = World::new(1);
    let bucket = shared().bucket();
    world.produce(&readings(10, 600));
    delete_records_below(&world, 50);
    let ended = sink_to_the_end(&world, &bucket, &[]);
    assert_eq!([ended.number("records"), ended.number("lost")], [550, 0], "{ended:#?}");
    assert_eq!(bucket.count_and_sum(&world.topic, "fuel").0, 550);
}

#[test]
fn an_outage_of_kafka_is_a_few_lines_with_the_reason_and_the_sink_is_not_ready_meanwhile() {
    let cluster = Cluster::start("influx-outage", &[]);
    let world = World::in_cluster(&cluster, 3);
    let bucket = shared().bucket();
    let sink = sink(&world, &bucket, &["--http", "127.0.0.1:0"]);
    let page = sink.http();
    world.produce(&readings(10, 300));
    until("all is committed", || progress(&world).lag() == 0);
    assert_eq!(http::get(&page, "/readyz").0, 200);

    cluster.crash();
    until("it is not ready", || {
        http::get(&page, "/readyz") == (503, "no broker of Kafka answers\n".to_owned())
    });
    let begun = Instant::now();
    until("the outage has lasted", || begun.elapsed() > Duration::from_secs(20));
    assert_eq!(http::get(&page, "/livez").0, 200);
    let said = sink.stderr();
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("WARN")).collect();
    assert!((1..=4).contains(&warnings.len()), "{said}");
    assert!(
        warnings.iter().any(|line| line.contains("no broker answers") && line.contains("reason=")),
        "{said}"
    );
    assert!(said.contains("Connection refused"), "{said}");

    cluster.recover();
    until("it is ready again", || http::get(&page, "/readyz").0 == 200);
    world.produce(&readings(10, 300));
    until("all is committed", || progress(&world).lag() == 0);
    assert_eq!(bucket.count_and_sum(&world.topic, "fuel").0, 600);
    sink.stop();
}
