//! The verdict: the workers' results, compared with what the logs call for; and when they became visible.

use crate::aggregates;
use crate::delays::Stretch;
use crate::faults::World;
use crate::oracle;
use crate::past;
use crate::report::{Report, Visible};

/// This many faults of a kind without a hit aren't chance.
const MISSES: usize = 3;

/// Panics if records differ. What no comparison of records shows is a complaint. `acknowledged` records of the last
/// topic were acknowledged, all are committed, and no worker is left.
pub fn judge(world: &mut World, acknowledged: u64, calms: &[Stretch], report: &mut Report) -> Vec<String> {
    past::judge(world, acknowledged);
    let past = &mut world.past;
    let states = oracle::log::read(&world.cluster.brokers, &format!("{}_state", world.group));
    oracle::check_states(past.expected(), &states);
    aggregates::judge(&world.cluster.brokers, &world.topic, past, world.options.delivery, report);
    report.records = past.records() as u64;
    report.surplus = past.surplus;
    report.alerts = past.expected().alert_count();
    report.dead_letters = past.expected().dead_letter_count();
    report.states = past.expected().states.len();
    report.repeated_alerts = past.repeated_alerts;
    report.repeated_letters = past.repeated_letters;

    let visible = &past.visible;
    for (kind, observations) in &report.faults {
        let stretches: Vec<Stretch> = observations.iter().map(|one| one.stretch.clone()).collect();
        report.delays.insert(*kind, visible.delays(&stretches));
    }
    let waited = visible.waited(calms);
    let mut complaints = std::mem::take(&mut past.complaints);
    report.visible = Visible {
        calms: calms.len(),
        all: visible.delays(calms),
        beside_the_slow: visible.delays_beside_the_slow(calms),
        of_the_slow: visible.delays_of_the_slow(calms),
        waited,
    };
    complaints.extend(waited.complaint());
    let tried = report.revocations;
    if tried.met == 0 && tried.tried >= MISSES {
        complaints.push(format!("none of {} workers was stopped while it gave partitions back", tried.tried));
    }
    complaints
}
