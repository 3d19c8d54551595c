//! `status` and `alerts`: the user's view of a group and its alarms.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::verify;
use crate::world::records::{Outgoing, produce, stormy_readings};
use crate::world::{World, now_ms, until};

/// The only partition as `status --json` shows it.
fn status(world: &World) -> Value {
    let status = world.run("status", &["--json"]).success().json();
    assert_eq!(status["group"], world.group.as_str());
    assert_eq!(status["topic"], world.topic.as_str());
    assert_eq!(status["partitions"].as_array().unwrap().len(), 1);
    status["partitions"][0].clone()
}

#[test]
fn status_tells_who_owns_a_partition_and_how_it_fares() {
    let world = World::new(1);
    let minute_ago = now_ms() - 60_000;
    world.produce(&vec![Outgoing::reading("g", 80.0, 500.0).at(minute_ago); 10]);

    let waiting = status(&world);
    assert_eq!(waiting["verdict"], "UNOWNED");
    assert_eq!(
        [&waiting["partition"], &waiting["owner"], &waiting["committed"], &waiting["end"], &waiting["lag"]],
        [&Value::from(0), &Value::Null, &Value::Null, &Value::from(10), &Value::from(10)]
    );
    let time_lag = waiting["time_lag_ms"].as_i64().unwrap();
    assert!((60_000..120_000).contains(&time_lag), "{time_lag}");

    let stuck = world.working(&["--work", "10m", "--drain-timeout", "0s"]);
    assert_eq!(status(&world)["verdict"], "STALLED");
    stuck.stop();

    let slow = world.working(&["--work", "900ms", "--concurrency", "1", "-X", "client.id=the slow one"]);
    until("it's behind", || status(&world)["verdict"] == "BEHIND");
    assert_eq!(status(&world)["owner"], "the slow one");
    world.wait_until_worked();
    let done = status(&world);
    assert_eq!(done["verdict"], "OK");
    assert_eq!(
        [&done["owner"], &done["committed"], &done["end"], &done["lag"], &done["time_lag_ms"]],
        [&Value::from("the slow one"), &Value::from(10), &Value::from(10), &Value::from(0), &Value::from(0)]
    );
    slow.stop();
    assert_eq!(status(&world)["verdict"], "OK", "no worker is needed if there's nothing to do");
}

#[test]
fn status_shows_people_a_table() {
    let world = World::new(2);
    let table = world.run("status", &[]).success().stdout;
    assert!(
        table.contains("PARTITION") && table.contains("VERDICT") && table.contains("lag in all: 0"),
        "{table}"
    );
}

#[test]
fn alerts_begin_at_the_beginning_now_or_at_a_time() {
    let world = World::new(2);
    world.produce(&[Outgoing::reading("first", 80.0, 100.0)]);
    world.work_to_the_end(&[]);
    let between = now_ms() + 1;
    until("the clock has moved", || now_ms() > between);
    let follower = world.start("alerts", &["--from", "now", "--json"]);
    let following = |process: &crate::world::process::Process| process.stdout().contains("second");
    // It may begin a moment after its start: more alarms come until it has seen one.
    let mut n = 0;
    until("the follower has seen a new alert", || {
        n += 1;
        world.produce(&[Outgoing::reading(&format!("second{n}"), 80.0, 100.0)]);
        world.work_to_the_end(&[]);
        following(&follower)
    });
    assert!(!follower.stdout().contains("first"), "{}", follower.stdout());
    follower.stop();

    let printed = |from: &[&str]| {
        let ended = world.run("alerts", &[&["--exit-at-end", "--json"], from].concat()).success();
        ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(printed(&[]), world.alerts());
    assert_eq!(printed(&["--from", "beginning"]).len(), n + 1);
    assert_eq!(printed(&["--from", "now"]).len(), 0);
    assert_eq!(printed(&["--from", "1h"]).len(), n + 1);
    for before_kafka in ["100y", "99999999999h", "1969-01-01T00:00:00Z"] {
        assert_eq!(printed(&["--from", before_kafka]).len(), n + 1, "{before_kafka}");
    }
    assert_eq!(printed(&["--from", "2100-01-01T00:00:00Z"]).len(), 0);
    let time = rfc3339(between);
    let later = printed(&["--from", &time]);
    assert_eq!(later.len(), n);
    assert!(later.iter().all(|alert| alert["generatorID"] != "first"), "{later:#?}");
}

/// By the system's `date`, so that the test needs no calendar.
fn rfc3339(ms: i64) -> String {
    let seconds = format!("@{}.{:03}", ms / 1000, ms % 1000);
    let output =
        Command::new("date").args(["-u", "-d", &seconds, "+%Y-%m-%dT%H:%M:%S.%3NZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn alerts_are_lines_for_people_and_cloud_events_for_programs() {
    let world = World::new(1);
    world.produce(&[Outgoing::reading("g", 80.0, 150.0).at(1_766_400_000_000), Outgoing::tombstone("g")]);
    world.work_to_the_end(&[]);

    let lines = world.run("alerts", &["--exit-at-end"]).success().stdout;
    let first = lines.lines().next().unwrap();
    assert_eq!(first, "2025-12-22T10:40:00.000Z RAISED   warning  g low_fuel: fuel 150 (threshold 200)");
    assert!(
        lines.lines().nth(1).unwrap().ends_with("CLEARED  warning  g low_fuel: decommissioned"),
        "{lines}"
    );

    let alerts = world.read(&world.alerts_topic());
    let raised = &alerts.0[0];
    assert_eq!(raised.key(), "g");
    let source = format!("/genwatch/{}", world.group);
    let id = format!("{}-0-0-low_fuel", world.topic);
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", id.as_str()),
        ("ce_type", "genwatch.alert.raised"),
        ("ce_source", source.as_str()),
        ("ce_subject", "g"),
        ("ce_time", "2025-12-22T10:40:00Z"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(raised.header(name), Some(value), "{name}");
    }
    assert_eq!(alerts.0[1].header("ce_type"), Some("genwatch.alert.cleared"));
    verify::all(&world);
}

#[test]
fn a_device_can_not_write_to_the_terminal_of_an_operator() {
    let world = World::new(1);
    let id = "g\u{1b}]0;gone\u{7}\r\n2026-01-01T00:00:00.000Z CLEARED  warning  g low_fuel\u{9b}2J";
    world.produce(&[Outgoing::reading(id, 80.0, 100.0)]);
    world.work_to_the_end(&[]);
    // Any writer of the topic may write anything.
    let foreign = Outgoing::new("x", b"\x1b[2J no alert \n at all").to(0);
    produce(&world.brokers, &world.alerts_topic(), &[foreign]);

    let shown = world.run("alerts", &["--exit-at-end"]).success().stdout;
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    assert!(shown.contains("\\u{1b}]0;gone"), "{shown}");

    let json = world.run("alerts", &["--exit-at-end", "--json"]).success();
    assert_eq!(json.json()["generatorID"], id);
    assert!(!json.stdout.trim_end().contains(char::is_control), "{:?}", json.stdout);
    assert!(json.stderr.contains("partition=0 offset="), "the skipped record: {}", json.stderr);
}

#[test]
fn whoever_reads_a_result_may_stop_reading() {
    let world = World::new(1);
    for arguments in
        [&["status", "--json"][..], &["status"], &["topics", "describe", "--json"], &["topics", "describe"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Command::new(env!("CARGO_BIN_EXE_genwatch"))
            .args(arguments)
            .args(["--brokers", &world.brokers, "--topic", &world.topic, "--group", &world.group])
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(ended.status.success(), "{arguments:?}: {ended:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{arguments:?}");
    }
}

#[test]
fn whoever_reads_the_alerts_may_stop_reading() {
    let world = World::new(1);
    world.produce(&stormy_readings(50, 5000));
    world.work_to_the_end(&[]);
    let mut alerts = Command::new(env!("CARGO_BIN_EXE_genwatch"))
        .args(["alerts", "--exit-at-end", "--brokers", &world.brokers, "--topic", &world.topic])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::with_capacity(64, alerts.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ended = alerts.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
