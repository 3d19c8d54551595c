//! What InfluxDB refuses, and queries that can't be polled.

use super::{counts, now_ns, point, query, source, source_of, source_to_the_end};
use crate::world::influxdb::{Server, shared};
use crate::world::{World, http, until};

#[test]
fn a_wrong_token_organization_bucket_or_address_is_one_clear_sentence() {
    let world = World::new(1);
    let bucket = shared().bucket();
    let query = query(&bucket);
    for (option, value, words) in [
        ("--token", "wr0ng-t0k3n", &["401", "unauthorized", "--token"][..]),
        ("--org", "nobody", &["400", "nobody", "not found"]),
        ("--query", &query.replace(&bucket.name, "nowhere"), &["404", "nowhere", "--query"]),
        ("--query", &query.replace("pivot", "pivott"), &["400", "pivott"]),
        ("--url", &format!("{}/elsewhere", bucket.server.url), &["404", "--url"]),
        ("--key-column", "site", &["no column site", "generatorID", "--key-column"]),
        ("--time-column", "fuel", &["fuel is 1, which is not a time", "--time-column"]),
    ] {
        bucket.write(&point("g", 1, now_ns()));
        let mut options = bucket.access();
        options.extend(["--query", &query, "--to-topic", &world.topic].map(str::to_owned));
        options.extend(["--key-column", "generatorID", "--time-column", "_time"].map(str::to_owned));
        let at = options.iter().position(|name| name == option).expect("an option");
        options[at + 1] = value.to_owned();
        let options: Vec<&str> = options.iter().map(String::as_str).chain(["--from", "1h"]).collect();
        let ended = world.run("source influx", &options).refused(1, words);
        assert!(!format!("{ended:?}").contains("wr0ng-t0k3n"), "{ended:?}");
    }
}

#[test]
fn a_token_that_may_only_read_is_enough() {
    let world = World::new(1);
    let bucket = shared().bucket();
    bucket.write(&point("g", 1, now_ns()));
    let query = query(&bucket);
    let run = |token: &str| {
        let mut options = bucket.access();
        let at = options.iter().position(|name| name == "--token").expect("an option");
        token.clone_into(&mut options[at + 1]);
        let own = ["--query", &query, "--to-topic", &world.topic, "--from", "1h", "--exit-at-end"];
        let options: Vec<&str> = options.iter().map(String::as_str).chain(own).collect();
        world.run("source influx", &options)
    };
    // InfluxDB doesn't show what a token may not read.
    run(&bucket.write_only_token()).refused(1, &["--token", "404"]);
    assert_eq!(run(&bucket.read_only_token()).success().number("rows"), 1);
}

#[test]
fn an_error_in_the_middle_of_an_answer_ends_a_new_source_and_is_waited_out_by_one_that_works() {
    let world = World::new(1);
    let bucket = shared().bucket();
    // Fails while it runs, if there is a text among the numbers, after the status was sent.
    let query = format!(
        r#"from(bucket: "{}") |> range(start: v.timeRangeStart, stop: v.timeRangeStop) |> group(columns: ["generatorID"])"#,
        bucket.name
    );
    let running = source_of(&world, &bucket, &query, &["--http", "127.0.0.1:0"]);
    let page = running.http();
    bucket.write(&format!("plant,generatorID=g a=1 {}", now_ns()));
    until("it produces", || world.readings().len() == 1);
    bucket.write(&format!("plant,generatorID=g b=\"text\" {}", now_ns()));
    until("it is not ready", || http::get(&page, "/readyz").0 == 503);
    running.wait_until_it_says("schema collision");
    assert_eq!(running.stderr().matches("schema collision").count(), 1, "one line");
    let errors = http::samples(&http::get(&page, "/metrics").1, "genwatch_source_errors_total");
    assert!(errors.iter().any(|(series, count)| series.contains("query") && *count >= 1.0), "{errors:?}");
    running.stop();
    let ended = source_of(&world, &bucket, &query, &["--name", "new"]).wait();
    ended.refused(1, &["the query failed", "schema collision"]);
}

#[test]
fn a_query_that_does_not_keep_to_its_range_is_refused() {
    let world = World::new(1);
    let bucket = shared().bucket();
    bucket.write(&point("g", 1, now_ns() - 30_000_000_000));
    let all = query(&bucket).replace("v.timeRangeStart, stop: v.timeRangeStop", "-1h");
    source_of(&world, &bucket, &all, &[]).wait().refused(2, &["--query", "v.timeRangeStart"]);
    let shifted = format!("{} |> timeShift(duration: -1d)", query(&bucket));
    source_of(&world, &bucket, &shifted, &[]).wait().refused(1, &["but was asked for", "v.timeRangeStart"]);
    assert_eq!(world.readings().len(), 0);
}

#[test]
fn an_outage_of_the_database_is_waited_out() {
    let world = World::new(1);
    let server = Server::start("source", &[]);
    let bucket = server.bucket();
    let running = source(&world, &bucket, &["--http", "127.0.0.1:0"]);
    let page = running.http();
    bucket.write(&point("g", 1, now_ns()));
    until("it produces", || counts(&world).0 == 1);
    server.crash();
    until("it is not ready", || {
        http::get(&page, "/readyz") == (503, "the database does not answer the query\n".to_owned())
    });
    server.recover();
    bucket.write(&point("g", 2, now_ns()));
    until("all are there", || counts(&world).0 == 2);
    until("it is ready", || http::get(&page, "/readyz").0 == 200);
    running.stop();
    let ended = source_to_the_end(&world, &bucket, &[]);
    assert_eq!(ended.number("repeats"), 2);
    assert_eq!(counts(&world), (2, vec![]));
}
