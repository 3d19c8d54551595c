//! `status` of a group that reads several topics, and `status --watch` through an outage.

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::world::broker::Cluster;
use crate::world::records::Outgoing;
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

/// Such as `2026-11-24T13:25:03Z`.
fn is_time(word: &str) -> bool {
    word.len() == 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T'
}

fn commit(world: &World, topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    until("the coordinator takes it", || world.consumer().commit(&list, CommitMode::Sync).is_ok());
}
