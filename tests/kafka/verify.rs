//! The workers' results in a world, compared with what its readings call for.

use genwatch_oracle::NaiveRule;

use crate::oracle::{self, Expected};
use crate::world::World;

/// Alerts, dead letters and states: none missing, none twice, in order.
#[track_caller]
pub fn all(world: &World) -> Expected {
    let readings = world.readings();
    let expected = oracle::evaluate(&world.topic, &readings, &NaiveRule::built_in());
    oracle::check_alerts(&expected, world.alerts());
    oracle::check_dead_letters(&expected, &world.topic, &readings, &world.read(&world.dlq_topic()));
    oracle::check_states(&expected, &world.read(&world.state_topic()));
    expected
}

/// As [`all`], where dead letters and alerts may be repeated.
#[track_caller]
pub fn all_but_repeats(world: &World) -> Expected {
    let readings = world.readings();
    let expected = oracle::evaluate(&world.topic, &readings, &NaiveRule::built_in());
    oracle::check_alerts_but_repeats(&expected, world.alerts());
    let letters = oracle::without_repeats(&world.read(&world.dlq_topic()));
    oracle::check_dead_letters(&expected, &world.topic, &readings, &letters);
    oracle::check_states(&expected, &world.read(&world.state_topic()));
    expected
}
