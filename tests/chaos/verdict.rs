//! The verdict: what the workers left, compared with what the log calls for; and when it became visible.

use std::time::{Duration, Instant};

use crate::delays::{Alerts, Stretch};
use crate::feed::Delivered;
use crate::fleet::RULES;
use crate::observer::Observer;
use crate::options::{Delivery, Options};
use crate::oracle::{self, Repeats};
use crate::reaper::pause;
use crate::report::{Report, Visible};

/// How long a reader may take to see the last alerts.
const LAST_ALERTS: Duration = Duration::from_secs(30);
/// So many faults of a kind without a hit aren't chance.
const MISSES: usize = 3;

/// Panics where records differ. What no comparison of records shows is a complaint.
pub fn judge(
    (brokers, topic, group): (&str, &str, &str),
    options: &Options,
    delivered: &Delivered,
    observer: Observer,
    calms: &[Stretch],
    report: &mut Report,
) -> Vec<String> {
    let alerts = compare(brokers, (topic, group), options, report);
    let mut complaints = Vec::new();
    let deadline = Instant::now() + LAST_ALERTS;
    while observer.count() < alerts && Instant::now() < deadline {
        pause(Duration::from_millis(100));
    }
    let seen = observer.finish();
    if seen.len() != alerts {
        complaints.push(format!("a reader that went on all the time saw {} of {alerts} alerts", seen.len()));
    }

    let visible = Alerts::new(seen, &delivered.produced());
    for (kind, observations) in &report.faults {
        let stretches: Vec<Stretch> = observations.iter().map(|one| one.stretch.clone()).collect();
        report.delays.insert(*kind, visible.delays(&stretches));
    }
    let waited = visible.waited(calms);
    complaints.extend(waited.complaint());
    report.visible = Visible {
        calms: calms.len(),
        all: visible.delays(calms),
        beside_the_slow: visible.delays_beside_the_slow(calms),
        of_the_slow: visible.delays_of_the_slow(calms),
        waited,
    };
    let tried = report.revocations;
    if tried.met == 0 && tried.tried >= MISSES {
        complaints.push(format!("none of {} workers was stopped while it gave partitions back", tried.tried));
    }
    complaints
}

/// Gives how many alerts there are, without repeats.
fn compare(brokers: &str, (topic, group): (&str, &str), options: &Options, report: &mut Report) -> usize {
    let readings = oracle::log::read(brokers, topic);
    // The feed's client may write a record twice where an answer was lost and its idempotence began a new epoch
    // (librdkafka); nothing that was acknowledged may be missing.
    let surplus = (readings.len() as u64).checked_sub(report.records);
    report.surplus = surplus.expect("the log holds all that was acknowledged");
    report.records = readings.len() as u64;
    let expected = oracle::evaluate(topic, &readings, &RULES);
    report.alerts = expected.alert_count();
    report.dead_letters = expected.dead_letter_count();
    report.states = expected.states.len();
    let alerts = oracle::log::read(brokers, &format!("{topic}_alerts"));
    let letters = oracle::log::read(brokers, &format!("{topic}_dlq"));
    match options.delivery {
        Delivery::ExactlyOnce => {
            oracle::check_alert_records(&expected, &alerts, Repeats::Forbidden);
            oracle::check_dead_letters(&expected, topic, &readings, &letters);
        }
        Delivery::AtLeastOnce => {
            report.repeated_alerts = oracle::check_alert_records(&expected, &alerts, Repeats::Allowed);
            let first = oracle::without_repeats(&letters);
            report.repeated_letters = letters.len() - first.len();
            oracle::check_dead_letters(&expected, topic, &readings, &first);
        }
    }
    oracle::check_states(&expected, &oracle::log::read(brokers, &format!("{group}_state")));
    report.alerts
}
