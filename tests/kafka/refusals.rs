//! A setup that a worker can't work with is reported at once, in one line that says what to do.

use crate::world::World;
use crate::world::broker;

#[test]
fn a_missing_topic_names_the_command_that_makes_it() {
    let world = World::empty();
    for (command, arguments) in [
        ("worker", &[][..]),
        ("simulate", &["--count", "1"]),
        ("alerts", &["--exit-at-end"]),
        ("status", &[]),
    ] {
        let refused = world.run(command, arguments);
        refused.refused(1, &[&world.topic, "does not exist", "genwatch topics create"]);
    }
}

#[test]
fn any_topic_that_is_missing_is_named() {
    for missing in ["alerts_topic", "dlq_topic"] {
        let world = World::new(1);
        let topic = if missing == "alerts_topic" { world.alerts_topic() } else { world.dlq_topic() };
        topic_tool(&world, &["--delete", "--topic", &topic]);
        world.run("worker", &[]).refused(1, &[&topic, "genwatch topics create"]);
        world.run("topics create", &["--partitions", "1"]).success();
        world.work_to_the_end(&[]);
    }
}

#[test]
fn a_worker_makes_its_own_state_topic() {
    let world = World::new(3);
    topic_tool(&world, &["--delete", "--topic", &world.state_topic()]);
    world.work_to_the_end(&[]);
    let described = world.run("topics describe", &["--json"]).success().json();
    let state =
        described.as_array().unwrap().iter().find(|topic| topic["topic"] == world.state_topic()).unwrap();
    assert_eq!(state["partitions"].as_array().unwrap().len(), 3);
    assert_eq!(state["cleanup_policy"], "compact");
}

#[test]
fn topics_whose_partitions_do_not_match_are_refused() {
    // The states may be of generators anywhere: only their owner can decide what to do. (For the other way round, see
    // `isolation`.)
    let world = World::new(2);
    topic_tool(&world, &["--alter", "--topic", &world.state_topic(), "--partitions", "3"]);
    world.run("worker", &[]).refused(1, &[&world.state_topic(), "has 3 partitions", "has 2"]);
    world.run("topics create", &["--partitions", "2"]).refused(1, &[&world.state_topic(), "3 partitions"]);
}

#[test]
fn a_state_topic_that_forgets_is_refused() {
    let world = World::new(1);
    let entity = ["--entity-type", "topics", "--entity-name", &world.state_topic()];
    let alter = ["--bootstrap-server", &world.brokers, "--alter", "--add-config", "cleanup.policy=delete"];
    broker::tool("kafka.admin.ConfigCommand", &[&alter[..], &entity].concat());
    world.run("worker", &[]).refused(1, &[&world.state_topic(), "cleanup.policy=delete", "compact"]);
}

#[test]
fn brokers_that_speak_another_security_protocol_are_told_of() {
    let world = World::new(1);
    for security in ["security.protocol=ssl", "security.protocol=sasl_plaintext"] {
        let sasl = ["-X", "sasl.mechanism=PLAIN", "-X", "sasl.username=me", "-X", "sasl.password=hunter2"];
        let ended = world.run("worker", &[&["-X", security], &sasl[..]].concat());
        let ended = ended.refused(1, &[&world.brokers]);
        assert!(!ended.stderr.contains("hunter2"));
    }
}

#[test]
fn a_second_run_of_topics_create_changes_nothing() {
    let world = World::new(3);
    let before = world.run("topics describe", &["--json"]).success().stdout;
    let again = world.run("topics create", &["--partitions", "3"]).success();
    assert_eq!(again.stdout.matches(": exists").count(), 7, "{}", again.stdout);
    assert_eq!(world.run("topics describe", &["--json"]).success().stdout, before);
}

fn topic_tool(world: &World, arguments: &[&str]) {
    let server = ["--bootstrap-server", &world.brokers];
    broker::tool("org.apache.kafka.tools.TopicCommand", &[&server[..], arguments].concat());
}
