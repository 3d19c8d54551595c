//! `topics create` checks before it creates anything, and `topics describe` names what is wrong.

use crate::world::records::{self, Outgoing};
use crate::world::{World, broker, now_ms, until};

const HOUR: i64 = 3_600_000;

#[test]
fn topics_create_makes_nothing_where_one_topic_is_in_the_way() {
    let world = World::empty();
    make(&world, &world.state_topic(), 3, "compact");

    let refused = world.run("topics create", &["--partitions", "2"]);
    refused.refused(1, &[&world.state_topic(), "3 partitions", "pass --partitions 3"]);
    assert_eq!(topics(&world), [world.state_topic()]);

    world.run("topics create", &["--partitions", "3"]).success();
    assert_eq!(topics(&world).len(), 7);
}

#[test]
fn all_that_is_in_the_way_is_named_at_once_with_what_to_do() {
    let world = World::empty();
    make(&world, &world.topic, 2, "delete");
    make(&world, &world.alerts_topic(), 5, "delete");
    make(&world, &world.state_topic(), 2, "delete");
    make(&world, &world.dlq_topic(), 2, "compact");
    let before = topics(&world);

    let asked = ["--partitions", "3", "--config", "retention.mss=1000"];
    let refused = world.run("topics create", &asked).refused(1, &["nothing was created"]);

    let others = format!("{0}_status, {0}_1m, {1}", world.topic, world.workers_topic());
    let delete = format!("delete {}, with what they hold and pass --partitions 2", world.alerts_topic());
    for words in [
        delete.as_str(),
        &format!("{} has cleanup.policy=delete, not compact", world.state_topic()),
        &format!("{} has cleanup.policy=compact, not delete", world.dlq_topic()),
        &format!("topic {others} could not be created: the broker does not take retention.mss=1000"),
    ] {
        assert!(refused.stderr.contains(words), "'{words}' is not in: {}", refused.stderr);
    }
    assert_eq!(refused.stdout, "");
    assert_eq!(topics(&world), before);
}

#[test]
fn a_replication_that_the_cluster_cannot_carry_leaves_nothing_behind() {
    let world = World::empty();
    world.run("topics create", &["--replication-factor", "7"]).refused(1, &["7 on 1 broker"]);
    assert_eq!(topics(&world), [""; 0]);
}

#[test]
fn properties_are_given_to_all_topics_or_to_one() {
    let world = World::empty();
    let config = ["--config", "dlq:retention.ms=2000000", "-c", "retention.ms=1000000"];
    world.run("topics create", &[&config[..], &["--partitions", "1"]].concat()).success();
    let retention = |topic: &str| property(&world, topic, "retention.ms");
    assert_eq!(retention(&world.topic), "1000000");
    assert_eq!(retention(&world.alerts_topic()), "1000000");
    assert_eq!(retention(&world.dlq_topic()), "2000000");

    // An existing topic stays as it is, and the difference is reported.
    let other = ["--config", "alerts:retention.ms=3000000", "--min-insync", "2", "--replication-factor", "2"];
    let again = world.run("topics create", &[&other[..], &["--partitions", "1"]].concat()).success();
    let of_alerts = again.stdout.lines().find(|line| line.starts_with(&world.alerts_topic())).unwrap();
    for words in
        ["retention.ms=1000000, not 3000000", "replication factor 1, not 2", "min.insync.replicas=1, not 2"]
    {
        assert!(of_alerts.contains(words), "'{words}' is not in: {of_alerts}");
    }
    assert_eq!(retention(&world.alerts_topic()), "1000000");
}

#[test]
fn what_genwatch_needs_of_its_topics_is_not_for_users_to_set() {
    let world = World::empty();
    for (config, words) in [
        ("state:cleanup.policy=delete", "as long as the alarm stands"),
        ("cleanup.policy=compact", "without a key"),
        ("dlq:message.timestamp.after.max.ms=1000", "keeps its timestamp"),
        ("message.timestamp.type=LogAppendTime", "event time"),
        ("min.insync.replicas=2", "--min-insync"),
        ("deadletters:retention.ms=1", "readings, alerts, dlq, state, status, 1m, workers"),
    ] {
        let ended = world.run("topics create", &["--config", config]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(words), "'{words}' is not in: {}", ended.stderr);
    }
    assert_eq!(topics(&world), [""; 0]);
}

#[test]
fn readings_from_the_future_are_refused_and_dead_letters_are_not() {
    let world = World::new(1);
    let ahead = Outgoing::reading("g", 80.0, 500.0).at(now_ms() + 2 * HOUR);
    for topic in [&world.topic, &world.alerts_topic(), &world.state_topic()] {
        records::produce(&world.brokers, topic, std::slice::from_ref(&ahead));
        assert_eq!(world.read(topic).0.len(), 0, "{topic}");
    }
    records::produce(&world.brokers, &world.dlq_topic(), &[ahead]);
    assert_eq!(world.read(&world.dlq_topic()).0.len(), 1);
}

#[test]
fn describe_fails_where_topics_are_missing_or_wrong() {
    let world = World::empty();
    let missing = world.run("topics describe", &[]).refused(1, &["7 of 7"]);
    assert_eq!(missing.stdout.matches(": missing").count(), 7, "{}", missing.stdout);

    world.run("topics create", &["--partitions", "2"]).success();
    until("every partition has its leader", || world.run("topics describe", &[]).code == Some(0));
    alter(&world, &world.state_topic(), "cleanup.policy=delete");
    alter(&world, &world.topic, "message.timestamp.type=LogAppendTime");
    let wrong = world.run("topics describe", &["--json"]).refused(1, &["2 of 7"]);
    let described = wrong.json();
    let problems = |topic: &str| {
        let of = described.as_array().unwrap().iter().find(|of| of["topic"] == topic).unwrap();
        of["problems"].to_string()
    };
    assert!(problems(&world.state_topic()).contains("cleanup.policy=delete, not compact"), "{described}");
    assert!(problems(&world.topic).contains("message.timestamp.type=LogAppendTime"), "{described}");
    assert_eq!(problems(&world.alerts_topic()), "[]");
    let told =
        world.run("topics create", &["--partitions", "2"]).refused(1, &[&world.state_topic(), "compact"]);
    assert_eq!(told.stdout, "");
}

#[test]
fn one_name_is_not_two_topics() {
    let mut world = World::empty();
    for taken in [world.state_topic(), world.workers_topic()] {
        world.topic = taken;
        for command in ["topics create", "topics describe"] {
            world.run(command, &[]).refused(2, &[&world.topic, "a topic of its group"]);
        }
        assert_eq!(topics(&world), [""; 0]);
    }
}

/// The topics of this world that exist.
fn topics(world: &World) -> Vec<String> {
    let all = broker::tool(
        "org.apache.kafka.tools.TopicCommand",
        &["--bootstrap-server", &world.brokers, "--list"],
    );
    // The group's name begins with the topic's.
    all.lines().filter(|name| name.starts_with(&world.topic)).map(str::to_owned).collect()
}

fn make(world: &World, name: &str, partitions: u32, cleanup: &str) {
    let (partitions, cleanup) = (partitions.to_string(), format!("cleanup.policy={cleanup}"));
    let server = ["--bootstrap-server", &world.brokers, "--create", "--topic", name];
    let how = ["--partitions", &partitions, "--replication-factor", "1", "--config", &cleanup];
    broker::tool("org.apache.kafka.tools.TopicCommand", &[&server[..], &how].concat());
}

fn alter(world: &World, topic: &str, property: &str) {
    let entity = ["--entity-type", "topics", "--entity-name", topic];
    let alter = ["--bootstrap-server", &world.brokers, "--alter", "--add-config", property];
    broker::tool("kafka.admin.ConfigCommand", &[&alter[..], &entity].concat());
}

fn property(world: &World, topic: &str, key: &str) -> String {
    let entity = ["--entity-type", "topics", "--entity-name", topic];
    let describe = ["--bootstrap-server", &world.brokers, "--describe", "--all"];
    let told = broker::tool("kafka.admin.ConfigCommand", &[&describe[..], &entity].concat());
    let prefix = format!("{key}=");
    let value = told.lines().find_map(|line| line.trim().strip_prefix(&prefix)).expect("the property");
    value.split_whitespace().next().expect("a value").to_owned()
}
