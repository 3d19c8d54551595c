//! Kafka away: every long-running command reports it, with the cause, and its end; none floods its log, and all can be
//! ended.

use std::time::{Duration, Instant};

use crate::world::broker::Cluster;
use crate::world::process::{Ended, Process};
use crate::world::records::stormy_readings;
use crate::world::{World, until};

const OUTAGE: &str = "no broker answers";

#[test]
fn who_follows_or_produces_says_that_kafka_is_away_and_why_and_that_it_is_back() {
    let cluster = Cluster::start("away", &["broker.session.timeout.ms=6000"]);
    let world = World::in_cluster(&cluster, 3);
    let alerts = world.start("alerts", &["--from", "now"]);
    let simulate = world.start("simulate", &["--rate", "100", "--generators", "20"]);
    until("readings arrive", || world.progress().end() > 100);

    cluster.crash();
    let crashed = Instant::now();
    for process in [&alerts, &simulate] {
        until("it says that Kafka is away", || warnings(process, &world).len() == 1);
        let said = &warnings(process, &world)[0];
        assert!(said.contains("refused"), "and why: {said}");
    }
    // Librdkafka logs many lines a second.
    until("the outage lasts", || crashed.elapsed() > Duration::from_secs(12));
    cluster.recover();
    for process in [&alerts, &simulate] {
        until("it says that Kafka is back", || process.stderr().contains("answer again"));
        let lines = warnings(process, &world).len();
        let (minutes, lasted) = (lines as u64 / 2, crashed.elapsed().as_secs());
        assert!(minutes <= lasted / 60 + 1, "{lines} lines in {lasted} s");
    }
    assert_all_counted(&simulate.stop());
    alerts.stop();
}

#[test]
fn a_simulator_that_is_asked_to_end_while_kafka_is_away_ends_soon_and_counts_right() {
    let cluster = Cluster::start("away-at-the-end", &[]);
    let world = World::in_cluster(&cluster, 3);
    // At full speed the client's queue is soon full.
    let all = [&["--rate", "200"][..], &["--rate", "0", "-X", "queue.buffering.max.messages=1000"]];
    let simulators = all.map(|arguments| world.start("simulate", arguments));
    until("readings arrive", || world.progress().end() > 2000);
    cluster.crash();
    for simulate in &simulators {
        until("it says that Kafka is away", || !warnings(simulate, &world).is_empty());
    }
    for simulate in simulators {
        let asked = Instant::now();
        simulate.signal("TERM");
        let ended = simulate.wait().exited(1);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        assert!(ended.number("failed") > 0, "{ended:?}");
        assert_all_counted(&ended);
    }
}

#[test]
fn a_record_that_is_refused_ends_a_simulator_with_its_count() {
    let world = World::new(1);
    // Every reading is larger than this.
    let ended = world.run(
        "simulate",
        &["--count", "100", "--generators", "5", "-X", "message.max.bytes=1000", "--faults"],
    );
    // About one record in a hundred is a fault; too large or not, all are counted.
    assert!(ended.code.is_some_and(|code| code < 2), "{ended:?}");
    assert_all_counted(&ended);
    let refused = world
        .run("simulate", &["--count", "20000", "--rate", "0", "-X", "message.max.bytes=1000", "--faults"]);
    let refused = refused.exited(1);
    assert_all_counted(&refused);
    assert!(refused.number("failed") > 0 && refused.number("delivered") > 0, "{refused:?}");
}

/// A broker counts as alive for nine seconds after its crash, and may be named as the controller for so long: members of
/// a group that it coordinated, who start all partitions anew meanwhile, must not go on asking it.
#[test]
fn a_broker_crashes_and_soon_all_partitions_are_worked_on_without_it() {
    let cluster = Cluster::start_three("away-one-of-three");
    let world = World::in_cluster(&cluster, 24);
    let workers: Vec<_> = (0..8).map(|_| world.working(&[])).collect();
    world.produce(&stormy_readings(200, 2000));
    world.wait_until_worked();
    cluster.crash_node(cluster.coordinator(&world.group));
    world.produce(&stormy_readings(200, 2000));
    world.wait_until_worked();
    workers.into_iter().for_each(|worker| drop(worker.stop()));
}

/// Its outage warnings that contain the address.
fn warnings(process: &Process, world: &World) -> Vec<String> {
    let text = process.stderr();
    let lines = text.lines().filter(|line| line.contains(OUTAGE) && line.contains(&world.brokers));
    lines.map(str::to_owned).collect()
}

fn assert_all_counted(ended: &Ended) {
    let (sent, delivered, failed) = (ended.number("sent"), ended.number("delivered"), ended.number("failed"));
    assert_eq!(sent, delivered + failed, "{ended:?}");
}
