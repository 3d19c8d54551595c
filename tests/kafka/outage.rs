//! A broker that crashes and returns under a worker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::verify;
use crate::world::broker::Cluster;
use crate::world::records::{Outgoing, stormy_readings};
use crate::world::{World, http, until};

#[test]
fn an_outage_of_the_broker_is_waited_out_and_nothing_is_lost() {
    let world = outlive_an_outage("outage", "exactly-once");
    assert!(verify::all(&world.1).alert_count() > 300);
}

#[test]
fn at_least_once_waits_out_an_outage_too() {
    let world = outlive_an_outage("outage-at-least-once", "at-least-once");
    assert!(verify::all_but_repeats(&world.1).alert_count() > 300);
}

/// A worker whose broker crashes and returns.
fn outlive_an_outage(name: &str, delivery: &str) -> (Cluster, World) {
    // A crashed node may register again only when its old session has ended.
    let cluster = Cluster::start(name, &["broker.session.timeout.ms=6000"]);
    let world = World::in_cluster(&cluster, 3);
    world.produce(&stormy_readings(30, 3000));
    let mut worker = world.working(&[
        "--work",
        "2ms",
        "--concurrency",
        "1",
        "--commit-interval",
        "1s",
        "--http",
        "127.0.0.1:0",
        "--delivery",
        delivery,
    ]);
    let address = worker.http();
    until("it's at work", || world.progress().done() > 500);
    // Just after a commit, so that none is in flight: if a single node dies between a transaction's decision and its
    // markers, Kafka (4.3.1) loses the markers when it returns, because its partitions have no leader then, and the
    // offsets stay unstable for ever. tests/chaos breaks brokers at any time, and has three.
    let before = world.progress().done();
    until("the next commit is done", || world.progress().done() > before);

    cluster.crash();
    let crashed = Instant::now();
    until("it says that commits wait", || http::get(&address, "/readyz").0 == 503);
    assert_eq!(http::get(&address, "/livez").0, 200);
    // Longer than a transaction may last: the broker then refuses the one that was open.
    until("the transaction's time is over", || crashed.elapsed() > Duration::from_secs(12));
    cluster.recover();

    world.produce(&stormy_readings(30, 300));
    world.wait_until_worked();
    until("it's ready again", || http::get(&address, "/readyz").0 == 200);
    assert!(worker.is_running());
    let ended = worker.stop();
    ended.stderr.lines().filter(|line| line.contains("WARN")).for_each(|line| println!("{line}"));
    // It can't know of a commit whose answer was lost with the broker.
    assert!((3000..=3300).contains(&ended.number("records")), "{}", ended.stdout);
    // The leader epoch distinguishes a reading from one at the same offset under an earlier leader.
    let states = world.read(&world.state_topic());
    let stored = states.iter().filter(|state| state.value.is_some());
    let epochs: BTreeSet<Option<i64>> = stored.map(|state| state.json()["epoch"].as_i64()).collect();
    assert!(epochs.len() > 1 && !epochs.contains(&None), "{epochs:?}");
    (cluster, world)
}

/// The broker has written the alert, its answer is lost, and the commit is refused. librdkafka then gives the alert's
/// sequence number to the next record, so that the broker would take the repeated alert for a duplicate of what was
/// aborted (tests/conformance/sequence.rs).
#[test]
fn an_alert_that_was_written_and_not_acknowledged_is_written_again_after_a_refusal() {
    let (mut world, link) = World::behind_a_cut("cut", 1);
    let worker = world.working_by(&link.brokers, &[]);
    link.cut.break_when_written(&world.alerts_topic());
    world.produce(&[Outgoing::reading("generator1", 70.0, 100.0)]);
    world.wait_until_worked();
    let ended = worker.stop();
    assert!(ended.stderr.contains("a commit was refused"), "nothing is shown: {}", ended.stderr);
    assert_eq!(verify::all(&world).alert_count(), 1);
}
