//! `status` of a group that reads several topics; `status --watch` piped, on a terminal, and through an outage.

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::formats::Strict;
use crate::world::broker::Cluster;
use crate::world::records::Outgoing;
use crate::world::tty::Tty;
use crate::world::{World, until};

#[test]
fn status_of_a_sink_shows_every_topic_that_its_group_commits_to() {
    let mut world = World::new(2);
    // In partition 1, and so is their alert.
    world.produce(&vec![Outgoing::reading("g", 120.0, 500.0); 5]);
    world.work_to_the_end(&[]);

    // A worker commits to one topic.
    let of_worker = world.run("status", &["--json"]).success().json();
    let keys: Vec<&String> = of_worker.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["group", "topic", "partitions"]);

    let alerts = world.alerts_topic();
    world.group = format!("{}_influx", world.group);
    commit(&world, &world.topic, 1, 3);
    commit(&world, &alerts, 1, 1);
    let status = world.run("status", &["--json"]).success().json();
    assert_eq!(status["topic"], world.topic.as_str());
    assert_eq!(status["partitions"][1]["committed"], 3);
    assert_eq!(status["partitions"][1]["lag"], 2);
    let others = status["other_topics"].as_array().unwrap();
    assert_eq!(others.len(), 1, "{status}");
    assert_eq!(others[0]["topic"], alerts.as_str());
    assert_eq!(others[0]["partitions"][0]["committed"], Value::Null);
    assert_eq!(others[0]["partitions"][1]["committed"], 1);

    let table = world.run("status", &[]).success().stdout;
    assert!(table.contains("TOPIC"), "{table}");
    let rows = |topic: &str| table.lines().filter(|line| line.starts_with(&format!("{topic} "))).count();
    assert_eq!((rows(&world.topic), rows(&alerts)), (2, 2), "{table}");
    let lag = others[0]["partitions"][1]["lag"].as_i64().unwrap() + 2;
    assert!(table.ends_with(&format!("lag in all: {lag}\n")), "{table}");
}

#[test]
fn status_of_a_sink_shows_what_it_owns_before_it_has_committed() {
    let world = World::new(1);
    let names = [world.topic.clone(), world.alerts_topic(), format!("{}_1m", world.topic)];
    let consumer = world.consumer();
    consumer.subscribe(&names.each_ref().map(String::as_str)).unwrap();
    until("all that it owns is shown", || {
        consumer.poll(std::time::Duration::from_millis(50));
        let status = world.run("status", &["--json"]).success().json();
        let others = status["other_topics"].as_array().cloned().unwrap_or_default();
        let shown: Vec<&str> = others.iter().map(|other| other["topic"].as_str().unwrap()).collect();
        shown == names[1..] && others.iter().all(|other| !other["partitions"][0]["owner"].is_null())
    });
}

#[test]
fn status_watch_outlives_an_outage_and_says_that_there_is_one() {
    let cluster = Cluster::start("status-outage", &["broker.session.timeout.ms=6000"]);
    let world = World::in_cluster(&cluster, 1);
    world.produce(&[Outgoing::reading("g", 80.0, 500.0)]);
    let mut for_programs = world.start("status", &["--watch", "--json"]);
    let mut for_people = world.start("status", &["--watch"]);
    let impatient = world.start("status", &["--watch"]);
    let documents = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).expect("one document a line")).collect()
    };
    let turns = |text: &str| text.lines().filter(|line| is_time(line.split(' ').next().unwrap())).count();
    until("all have shown it twice", || {
        documents(&for_programs.stdout()).len() > 1
            && turns(&for_people.stdout()) > 1
            && turns(&impatient.stdout()) > 1
    });

    cluster.crash();
    until("both say that nobody answers", || {
        for_programs.stderr().contains(&world.brokers) && for_people.stderr().contains(&world.brokers)
    });
    impatient.stop();
    assert!(for_programs.is_running() && for_people.is_running());
    let (seen, shown) = (documents(&for_programs.stdout()).len(), turns(&for_people.stdout()));
    cluster.recover();

    until("both go on", || {
        documents(&for_programs.stdout()).len() > seen && turns(&for_people.stdout()) > shown
    });
    let ended = for_programs.stop();
    let times: Vec<i64> = documents(&ended.stdout).iter().map(|of| of["at"].as_i64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    for_people.stop();
}

#[test]
fn status_watch_shows_how_each_partition_moves_and_who_says_so() {
    let world = World::new(2);
    world.produce(&vec![Outgoing::reading("g", 80.0, 500.0); 50]);
    let worker = world.working(&[]);
    let for_programs = world.start("status", &["--watch", "--json"]);
    let for_people = world.start("status", &["--watch"]);
    let documents = || -> Vec<Value> {
        for_programs.stdout().lines().map(|line| serde_json::from_str(line).expect("a document")).collect()
    };
    until("its worker says that it is at work", || {
        documents().last().is_some_and(|last| {
            last["partitions"].as_array().unwrap().iter().all(|of| of["phase"] == "active" && of["lag"] == 0)
        })
    });
    until("the last look is for people, too", || for_people.stdout().matches("lag in all: 0, ").count() > 2);
    let seen = documents();
    assert!(Strict::of("group-status").check_all(&seen) > 1);
    let last = seen.last().unwrap();
    assert_eq!((&last["eta_seconds"], &last["eta_never"]), (&Value::from(0.0), &Value::from(false)));
    // The one with readings.
    let of = &last["partitions"][1];
    // What waited at the start may still be in the window.
    assert!(of["trend"] == "steady" || of["trend"] == "falling", "{of}");
    assert_eq!(of["verdict"], "OK");
    for field in ["partition", "owner", "committed", "end", "lag", "time_lag_ms", "verdict"] {
        assert!(of.get(field).is_some_and(|value| !value.is_null()), "{field} in {of}");
    }
    let table = for_people.stdout();
    let heading = table.lines().find(|line| line.trim_start().starts_with("PARTITION")).unwrap();
    let columns: Vec<&str> = heading.split_whitespace().collect();
    let wanted = "PARTITION OWNER COMMITTED END LAG TIME LAG TREND ARRIVALS/S PROCESSED/S ETA VERDICT";
    assert_eq!(columns.join(" "), wanted);
    assert!(!table.contains('\u{1b}'), "no screen in a pipe");
    let once = world.run("status", &["--json"]).success().json();
    let fields: Vec<&String> = once["partitions"][0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["partition", "owner", "committed", "end", "lag", "time_lag_ms", "verdict"]);
    for ended in [for_programs, for_people, worker] {
        ended.stop();
    }
}

#[test]
fn status_watch_on_a_terminal_is_a_screen_and_leaves_it_as_it_was() {
    let world = World::new(2);
    world.produce(&[Outgoing::reading("generator7", 81.5, 500.0)]);
    for by_key in [true, false] {
        let mut tty = Tty::start(&world, "status", &["--watch"]);
        until("the screen shows the group", || {
            tty.text().contains("\u{1b}[?1049h") && tty.text().contains("UNOWNED") && !tty.edits_lines()
        });
        if by_key {
            tty.press("/unowned\rggenerator7\r");
            until("a generator's history is there", || tty.text().contains("81.5 "));
            tty.press("q");
        } else {
            tty.terminate();
        }
        assert_eq!(tty.wait(), Some(0));
        until("the screen is left", || tty.text().contains("\u{1b}[?1049l"));
        let after = tty.text();
        let after = after.rsplit_once("\u{1b}[?1049l").unwrap().1;
        assert!(after.contains("\u{1b}[?25h"), "the cursor is back: {after:?}");
        assert!(!after.contains("UNOWNED"), "nothing is drawn on what was there: {after:?}");
        assert!(tty.edits_lines());
    }
}

#[test]
fn a_screen_whose_terminal_is_closed_ends() {
    let mut tty = Tty::start(&World::new(1), "status", &["--watch"]);
    until("the screen is there", || tty.text().contains("VERDICT") || tty.text().contains("PARTITION"));
    tty.hang_up();
    tty.wait();
}

#[test]
fn a_terminal_gets_alerts_in_colour_and_a_pipe_gets_them_plain() {
    let world = World::new(1);
    world.produce(&[Outgoing::reading("g", 120.0, 500.0), Outgoing::reading("g", 80.0, 500.0)]);
    world.work_to_the_end(&[]);
    let mut tty = Tty::start(&world, "alerts", &["--follow"]);
    until("both are there", || tty.text().contains("CLEARED"));
    let shown = tty.text();
    assert!(
        shown.contains("\u{1b}[31m\u{1b}[1mRAISED   critical\u{1b}[0m g              over_temperature: "),
        "{shown:?}"
    );
    assert!(shown.contains("\u{1b}[32mCLEARED  critical\u{1b}[0m g "), "{shown:?}");
    tty.terminate();
    assert_eq!(tty.wait(), Some(0));
    let plain = world.run("alerts", &["--exit-at-end"]).success().stdout;
    assert!(
        !plain.contains('\u{1b}') && plain.contains(" RAISED   critical g over_temperature: "),
        "{plain}"
    );
}

/// Such as `2026-11-24T13:25:03Z`.
fn is_time(word: &str) -> bool {
    word.len() == 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T'
}

fn commit(world: &World, topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    until("the coordinator takes it", || world.consumer().commit(&list, CommitMode::Sync).is_ok());
}
