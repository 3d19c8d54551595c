//! The acceptance test: a fleet with faults, two workers, one killed midway and replaced.

use serde_json::Value;

use crate::oracle::{self, Expected};
use crate::verify;
use crate::world::{World, until};

/// Simulates, processes, kills, replaces; returns the world when everything has been processed.
fn work_with_a_crash(count: u32, delivery: &str) -> World {
    let world = World::new(12);
    let count = count.to_string();
    let simulated =
        world.run("simulate", &["--count", &count, "--seed", "7", "--faults", "--rate", "0"]).success();
    assert_eq!(simulated.number("delivered").to_string(), count);

    // At full speed they would be done before one can be killed in the middle.
    let arguments = ["--delivery", delivery, "--rate-limit", "5000", "-X", "session.timeout.ms=6000"];
    let [survivor, victim] = [(), ()].map(|()| world.working(&arguments));
    let begun = world.progress().done();
    until("both are in the middle", || world.progress().done() > begun + 20_000);
    victim.kill();
    let midway = world.progress();
    assert!(midway.lag() > 0, "one was killed midway: {midway:?}");
    let replacement = world.working(&arguments);
    world.wait_until_worked();
    for worker in [survivor, replacement] {
        assert!(worker.stop().number("records") > 0);
    }
    world
}

/// The alerts that `genwatch alerts` prints for programs.
fn printed_alerts(world: &World) -> Vec<Value> {
    let printed = world.run("alerts", &["--json", "--exit-at-end"]).success().stdout;
    printed.lines().map(|line| serde_json::from_str(line).expect("a JSON document a line")).collect()
}

fn report(expected: &Expected, what: &str) {
    println!("{what}: {} alerts, {} dead letters", expected.alert_count(), expected.dead_letter_count());
    assert!(
        expected.alert_count() > 100 && expected.dead_letter_count() > 100,
        "the fleet produced too few alerts"
    );
}

#[test]
fn exactly_once_survives_a_kill() {
    let world = work_with_a_crash(200_000, "exactly-once");
    let expected = verify::all(&world);
    oracle::check_alerts(&expected, printed_alerts(&world));
    report(&expected, "exactly-once");
}

#[test]
fn at_least_once_survives_a_kill_and_repeats_carry_the_same_id() {
    let world = work_with_a_crash(100_000, "at-least-once");
    let expected = verify::all_but_repeats(&world);
    oracle::check_alerts_but_repeats(&expected, printed_alerts(&world));
    report(&expected, "at-least-once");
}

#[test]
fn the_same_seed_gives_the_same_readings_in_the_same_order() {
    let values = |seed: &str| {
        let world = World::new(3);
        world
            .run("simulate", &["--count", "5000", "--generators", "50", "--seed", seed, "--rate", "0"])
            .success();
        world.readings().0.into_iter().map(|record| (record.partition, record.value)).collect::<Vec<_>>()
    };
    assert_eq!(values("7"), values("7"));
    assert_ne!(values("7"), values("8"));
}
