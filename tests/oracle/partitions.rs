//! The alerts of a topic that may have grown meanwhile: a generator's alerts then go to another partition, and Kafka
//! keeps order only within a partition.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::{alert, assert_same};
use super::log::Records;
use super::{Alert, Expected};

/// Whether an alert may occur again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// Exactly-once.
    Forbidden,
    /// At-least-once: equal in every field.
    Allowed,
}

/// One alert as found in the topic.
struct Found {
    alert: Alert,
    partitions: BTreeSet<i32>,
}

/// Checks all alerts, and within each partition the order of each generator's alerts by their first appearance. An
/// alert carries its id as `ce_id`, and so does a repeat. Returns the number of repeats.
///
/// For an alert in two partitions the order is unknown, so it is left out of the order check.
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
        // An unexpected alert comes last, and is a difference there.
        alerts.sort_by_key(|alert| index.get(alert.id.as_str()).copied().unwrap_or(usize::MAX));
    }
    assert_same("alerts", &expected.alerts, &by_generator);
    repeated
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use genwatch_oracle::{Limit, NaiveRule};

    use super::super::evaluate;
    use super::super::log::Stored;
    use super::*;

    /// The expected results of three readings of a generator, and a record for each alert, in partition 0 of the
    /// alerts.
    fn three() -> (Expected, Vec<Stored>) {
        let reading = |offset: i64| Stored {
            partition: 0,
            offset,
            timestamp: 1000 + 10 * offset,
            key: Some(b"g".to_vec()),
            value: Some(
                br#"{"generatorID":"g","lat":1.0,"lon":2.0,"temperature":70,"pressure":198,"fuel":900}"#
                    .to_vec(),
            ),
            headers: Vec::new(),
        };
        let each = Limit { realarm: Some(1), ..Limit::above("temperature", -1000.0) };
        let rules = [NaiveRule::limit("heartbeat", "info", each)];
        let expected = evaluate("t", &Records((0..3).map(reading).collect()), &rules);
        let record = |alert: &Alert| {
            Stored {
            value: Some(
                serde_json::json!({
                    "id": alert.id, "generatorID": alert.generator, "rule": alert.rule, "state": alert.state,
                    "severity": alert.severity, "field": alert.field, "value": alert.value,
                    "threshold": alert.threshold, "at": alert.at, "since": alert.since, "lat": 1.0, "lon": 2.0,
                    "source": {"topic": "t", "partition": alert.source.1, "offset": alert.source.2},
                })
                .to_string()
                .into_bytes(),
            ),
            headers: vec![("ce_id".to_owned(), Some(alert.id.clone().into_bytes()))],
            ..reading(0)
        }
        };
        let records = expected.alerts["g"].iter().map(record).collect();
        (expected, records)
    }

    fn complaint(records: Vec<Stored>, expected: &Expected, repeats: Repeats) -> String {
        let check = || check_alert_records(expected, &Records(records), repeats);
        match catch_unwind(AssertUnwindSafe(check)) {
            Ok(_) => String::new(),
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        }
    }

    #[test]
    fn what_is_lost_or_out_of_order_or_told_otherwise_is_found() {
        let (expected, all) = three();
        assert_eq!(complaint(all.clone(), &expected, Repeats::Forbidden), "");
        for repeats in [Repeats::Forbidden, Repeats::Allowed] {
            let lost = vec![all[0].clone(), all[2].clone()];
            assert!(complaint(lost, &expected, repeats).contains("3 are expected and 2 found"));
            let swapped = vec![all[0].clone(), all[2].clone(), all[1].clone()];
            assert!(complaint(swapped, &expected, repeats).contains("comes before"));
            let mut renamed = all.clone();
            renamed[1].headers[0].1 = Some(b"another".to_vec());
            assert!(complaint(renamed, &expected, repeats).contains("ce_id is the alert's id"));
        }
    }

    #[test]
    fn a_repeat_is_counted_where_it_may_be() {
        let (expected, all) = three();
        let repeated =
            Records(vec![all[0].clone(), all[1].clone(), all[0].clone(), all[1].clone(), all[2].clone()]);
        assert_eq!(check_alert_records(&expected, &repeated, Repeats::Allowed), 2);
        assert!(complaint(repeated.0, &expected, Repeats::Forbidden).contains("is there twice"));
    }

    #[test]
    fn a_generator_whose_alerts_move_to_another_partition_keeps_its_order_in_each() {
        let (expected, mut all) = three();
        all[1].partition = 1;
        all.sort_by_key(|record| record.partition);
        assert_eq!(complaint(all.clone(), &expected, Repeats::Forbidden), "");
        all.swap(0, 1);
        assert!(complaint(all, &expected, Repeats::Forbidden).contains("comes before"));
    }
}
