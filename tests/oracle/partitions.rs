//! The alerts of a topic that may have grown meanwhile: a generator's alerts go to another partition then, and Kafka keeps
//! order within a partition only.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::{alert, assert_same};
use super::log::Records;
use super::{Alert, Expected};

/// Whether an alert may be there again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// Exactly-once.
    Forbidden,
    /// At-least-once: the same in every field.
    Allowed,
}

/// What was found of one alert.
struct Found {
    alert: Alert,
    partitions: BTreeSet<i32>,
}

/// All alerts, and within each partition those of a generator in the order of its log, by their first appearance. An alert
/// bears its id as `ce_id`, and so does a repeat. Gives how many are repeats.
///
/// Of an alert that is in two partitions nobody can tell which came first, so it is left out of the order.
#[track_caller]
pub fn check_alert_records(expected: &Expected, records: &Records, repeats: Repeats) -> usize {
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    let mut order: BTreeMap<(String, i32), Vec<String>> = BTreeMap::new();
    let mut repeated = 0;
    for record in records.iter() {
        let alert = alert(&record.json());
        let id = alert.id.clone();
        assert_eq!(record.header("ce_id"), Some(id.as_str()), "ce_id is the alert's id: {record:?}");
        let place = (alert.generator.clone(), record.partition);
        let known = found.get(&id).map(|found| found.partitions.clone()).unwrap_or_default();
        if let Some(before) = found.get_mut(&id) {
            assert_eq!(before.alert, alert, "a repeat differs");
            assert_eq!(repeats, Repeats::Allowed, "alert {id} is there twice");
            repeated += 1;
            before.partitions.insert(record.partition);
        } else {
            found.insert(id.clone(), Found { alert, partitions: BTreeSet::from([record.partition]) });
        }
        if !known.contains(&record.partition) {
            order.entry(place).or_default().push(id);
        }
    }
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    for alerts in expected.alerts.values() {
        index.extend(alerts.iter().enumerate().map(|(index, alert)| (alert.id.as_str(), index)));
    }
    for ((generator, partition), ids) in &order {
        let places = ids.iter().filter(|id| found[*id].partitions.len() == 1);
        let places: Vec<usize> = places.filter_map(|id| index.get(id.as_str()).copied()).collect();
        for pair in places.windows(2) {
            let alerts = &expected.alerts[generator];
            assert!(
                pair[0] < pair[1],
                "{} of {generator} comes before {} in partition {partition} of the alerts",
                alerts[pair[0]].id,
                alerts[pair[1]].id
            );
        }
    }
    let mut by_generator: BTreeMap<String, Vec<Alert>> = BTreeMap::new();
    for (_, Found { alert, .. }) in found {
        by_generator.entry(alert.generator.clone()).or_default().push(alert);
    }
    for alerts in by_generator.values_mut() {
        // What isn't expected comes last, and is a difference there.
        alerts.sort_by_key(|alert| index.get(alert.id.as_str()).copied().unwrap_or(usize::MAX));
    }
    assert_same("alerts", &expected.alerts, &by_generator);
    repeated
}
