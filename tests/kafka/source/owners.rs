//! One source of a name at a time; what happens to topics and Kafka meanwhile.

use super::{counts, now_ns, point, source, source_to_the_end};
use crate::world::broker::Cluster;
use crate::world::influxdb::shared;
use crate::world::{World, http, until};

#[test]
fn a_second_source_of_the_same_name_replaces_the_first_one_which_says_so() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let mut count = 0;
    let mut write = || {
        count += 1;
        bucket.write(&point("g", count, now_ns()));
        count as usize
    };
    let first = source(&world, &bucket, &[]);
    let expected = write();
    until("the first one produces", || counts(&world).0 == expected);
    let second = source(&world, &bucket, &[]);
    second.wait_until_it_says("producing the rows");
    let expected = write();
    let ended = first.wait().refused(1, &["another source with --name", &world.topic, "different names"]);
    assert_eq!(ended.stdout, "");
    until("the second one produces", || counts(&world).0 == expected);
    // And goes on.
    let expected = write();
    until("the second one produces more", || counts(&world).0 == expected);
    second.stop();
    assert_eq!(counts(&world), (expected, vec![]));
}

#[test]
fn sources_of_different_names_don_t_meet() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let running = source(&world, &bucket, &["--name", "one"]);
    running.wait_until_it_says("producing the rows");
    bucket.write(&point("g", 1, now_ns()));
    until("it produces", || counts(&world).0 == 1);
    let ended = source_to_the_end(&world, &bucket, &["--name", "two"]);
    assert_eq!(ended.number("rows"), 1, "it has a cursor of its own");
    bucket.write(&point("g", 2, now_ns()));
    until("the first one goes on", || counts(&world).0 == 2);
    running.stop();
}

#[test]
fn a_missing_topic_is_named_with_what_to_do_and_so_is_one_that_is_deleted() {
    let world = World::empty();
    let bucket = shared().bucket();
    source(&world, &bucket, &[]).wait().refused(1, &[&world.topic, "genwatch topics create"]);

    let world = World::new(1);
    let running = source(&world, &bucket, &[]);
    running.wait_until_it_says("producing the rows");
    world.delete(&world.topic);
    bucket.write(&point("g", 1, now_ns()));
    running.wait().refused(1, &[&world.topic, "genwatch topics create"]);
}

#[test]
fn a_cursor_that_is_deleted_ends_the_source_and_nothing_is_repeated() {
    let world = World::new(1);
    let bucket = shared().bucket();
    bucket.write(&point("g", 1, now_ns()));
    let running = source(&world, &bucket, &[]);
    until("it produces", || counts(&world).0 == 1);
    let cursors = format!("{}_sources", world.group);
    world.delete(&cursors);
    running.wait().refused(1, &[&cursors, "--from"]);
    assert_eq!(counts(&world), (1, vec![]));
}

#[test]
fn an_outage_of_kafka_is_waited_out_and_nothing_is_lost_or_repeated() {
    let cluster = Cluster::start("source-outage", &[]);
    let world = World::in_cluster(&cluster, 3);
    let bucket = shared().bucket();
    let running = source(&world, &bucket, &["--http", "127.0.0.1:0"]);
    let page = running.http();
    bucket.write(&point("g", 1, now_ns()));
    until("it produces", || counts(&world).0 == 1);
    cluster.crash();
    bucket.write(&point("g", 2, now_ns()));
    until("it is not ready", || http::get(&page, "/readyz").0 == 503);
    assert_eq!(http::get(&page, "/livez").0, 200);
    bucket.write(&point("g", 3, now_ns()));
    cluster.recover();
    until("all are produced", || {
        let page = http::get(&page, "/metrics").1;
        http::samples(&page, "genwatch_source_rows_total")[0].1 == 3.0
    });
    until("it is ready", || http::get(&page, "/readyz").0 == 200);
    running.stop();
    assert_eq!(counts(&world), (3, vec![]));
}

#[test]
fn sigterm_ends_it_soon_also_while_kafka_is_away() {
    let cluster = Cluster::start("source-stop", &[]);
    let world = World::in_cluster(&cluster, 1);
    let bucket = shared().bucket();
    let running = source(&world, &bucket, &[]);
    bucket.write(&point("g", 1, now_ns()));
    until("it produces", || counts(&world).0 == 1);
    cluster.crash();
    bucket.write(&point("g", 2, now_ns()));
    running.wait_until_it_says("a transaction failed");
    let told = std::time::Instant::now();
    running.stop();
    assert!(told.elapsed().as_secs() < 12, "{:?}", told.elapsed());
    cluster.recover();
    source_to_the_end(&world, &bucket, &[]);
    assert_eq!(counts(&world), (2, vec![]));
}
