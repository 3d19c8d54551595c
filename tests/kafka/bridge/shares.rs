//! Several bridges, each with its share of the fleet.

use super::{ByGenerator, assert_same, bridge, by_generator, expected, is_replayed_once, simulate};
use crate::world::mosquitto::Mosquitto;
use crate::world::process::Process;
use crate::world::{World, until};

const GENERATORS: &str = "20";
const COUNT: &str = "8000";

#[test]
fn several_bridges_forward_each_reading_once_and_in_order() {
    let mut wanted = None;
    for bridges in [1, 2, 4] {
        let (mqtt, world) = (Mosquitto::start(), World::new(4));
        all_of(&world, &mqtt, bridges).into_iter().for_each(|bridge| drop(bridge.stop()));
        simulate(&world, &mqtt, GENERATORS, COUNT).wait().success();
        let running = all_of(&world, &mqtt, bridges);
        until("all are in Kafka", || world.readings().len() >= 8000);
        let ended: Vec<_> = running.into_iter().map(Process::stop).collect();
        let sum = |name: &str| -> u64 { ended.iter().map(|ended| ended.number(name)).sum() };
        assert_eq!(sum("readings"), 8000);
        assert!(ended.iter().all(|ended| ended.number("readings") > 0), "each has generators of its own");
        let wanted = wanted.get_or_insert_with(|| expected(&world, GENERATORS, COUNT));
        assert_same(&by_generator(&world.readings()), wanted);
    }
}

#[test]
fn one_of_several_bridges_that_is_killed_loses_nothing() {
    let (mqtt, world) = (Mosquitto::start(), World::new(4));
    let mut running = all_of(&world, &mqtt, 4);
    let simulator = simulate(&world, &mqtt, GENERATORS, COUNT);
    until("they are at work", || world.readings().len() > 1000);
    running.remove(1).kill();
    simulator.wait().success();
    running.push(bridge(&world, &mqtt, &["--share", "2/4"]));
    let wanted = expected(&world, GENERATORS, COUNT);
    let in_order = |found: &ByGenerator| {
        found.len() == wanted.len()
            && found.iter().all(|(generator, values)| is_replayed_once(values, &wanted[generator]))
    };
    until("all are in Kafka, in order, but for those that came again together", || {
        in_order(&by_generator(&world.readings()))
    });
    let ended: Vec<_> = running.into_iter().map(Process::stop).collect();
    assert!(ended.iter().all(|ended| ended.number("unacknowledged") == 0));
}

fn all_of(world: &World, mqtt: &Mosquitto, bridges: usize) -> Vec<Process> {
    (1..=bridges).map(|one| bridge(world, mqtt, &["--share", &format!("{one}/{bridges}")])).collect()
}
