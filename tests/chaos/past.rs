//! The results of the readings: of the present topic, and of those that were deleted before.
//!
//! A recreated topic begins at offset 0 again, and so do the ids of its alerts. So each topic is judged separately, at
//! its end, by the records since its creation. The oracle goes through all of them as one: alarms keep their state
//! (`--on-new-topic keep-states`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::delays::Alerts;
use crate::faults::World;
use crate::fleet::rules;
use crate::observer::Seen;
use crate::options::Delivery;
use crate::oracle::log::{Records, Stored};
use crate::oracle::{self, Expected, Repeats};
use crate::reaper::pause;

/// How long a reader may take to see the last alerts.
const LAST_ALERTS: Duration = Duration::from_secs(30);

/// Everything that was judged so far.
#[derive(Default)]
pub struct Past {
    readings: Vec<Stored>,
    expected: Expected,
    /// Where the present topic's records begin in the topics of alerts and dead letters.
    alerts: BTreeMap<i32, i64>,
    letters: BTreeMap<i32, i64>,
    /// When alerts became visible.
    pub visible: Alerts,
    /// Readings that the feed's own client wrote a second time.
    pub surplus: u64,
    pub repeated_alerts: usize,
    pub repeated_letters: usize,
    /// Complaints that no comparison of records shows.
    pub complaints: Vec<String>,
}

impl Past {
    pub fn records(&self) -> usize {
        self.readings.len()
    }

    /// The readings of all topics, one after the other.
    pub fn readings(&self) -> &[Stored] {
        &self.readings
    }

    /// What all topics together call for, one after the other.
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    /// Where the alerts of the next topic begin.
    pub fn alerts_end(&self) -> &BTreeMap<i32, i64> {
        &self.alerts
    }
}

/// Judges the results of the present topic: this many records were acknowledged, and all are committed. Panics if they
/// differ from what its log calls for.
pub fn judge(world: &mut World, acknowledged: u64) {
    let (brokers, topic) = (world.cluster.brokers.clone(), world.topic.clone());
    let past = &mut world.past;
    let readings = oracle::log::read(&brokers, &topic);
    // The feed's client may write a record twice if an answer was lost and its idempotence began a new epoch
    // (librdkafka); but no acknowledged record may be missing.
    let surplus = (readings.len() as u64).checked_sub(acknowledged);
    past.surplus += surplus.expect("the log holds all that was acknowledged");

    past.readings.extend(readings.iter().cloned());
    let all = oracle::evaluate(&topic, &Records(past.readings.clone()), &rules());
    let present = behind(&all, &past.expected);
    let alerts = since(&mut past.alerts, oracle::log::read(&brokers, &format!("{topic}_alerts")));
    let letters = since(&mut past.letters, oracle::log::read(&brokers, &format!("{topic}_dlq")));
    match world.options.delivery {
        Delivery::ExactlyOnce => {
            oracle::check_alert_records(&present, &alerts, Repeats::Forbidden);
            oracle::check_dead_letters(&present, &topic, &readings, &letters);
        }
        Delivery::AtLeastOnce => {
            past.repeated_alerts += oracle::check_alert_records(&present, &alerts, Repeats::Allowed);
            let first = oracle::without_repeats(&letters);
            past.repeated_letters += letters.len() - first.len();
            oracle::check_dead_letters(&present, &topic, &readings, &first);
        }
    }
    past.expected = all;

    let deadline = Instant::now() + LAST_ALERTS;
    while world.observer.count() < present.alert_count() && Instant::now() < deadline {
        pause(Duration::from_millis(100));
    }
    let seen: Vec<Seen> = world.observer.finish();
    if seen.len() != present.alert_count() {
        let told = format!(
            "a reader that went on all the time saw {} of {} alerts",
            seen.len(),
            present.alert_count()
        );
        past.complaints.push(told);
    }
    past.visible.extend(seen, &world.feed.delivered.produced());
}

/// Appends expectations to earlier ones.
fn behind(all: &Expected, before: &Expected) -> Expected {
    let alerts = all.alerts.iter().map(|(id, alerts)| {
        let known = before.alerts.get(id).map_or(0, Vec::len);
        (id.clone(), alerts[known..].to_vec())
    });
    let dead_letters = all.dead_letters.iter().map(|(id, letters)| {
        let known = before.dead_letters.get(id).map_or(0, Vec::len);
        (*id, letters[known..].to_vec())
    });
    Expected {
        alerts: alerts.filter(|(_, alerts)| !alerts.is_empty()).collect(),
        dead_letters: dead_letters.filter(|(_, letters)| !letters.is_empty()).collect(),
        ..Expected::default()
    }
}

/// The records that came since the last time.
fn since(ends: &mut BTreeMap<i32, i64>, mut records: Records) -> Records {
    records.0.retain(|record| record.offset >= ends.get(&record.partition).copied().unwrap_or(0));
    for record in records.iter() {
        let end = ends.entry(record.partition).or_default();
        *end = (*end).max(record.offset + 1);
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64) -> Stored {
        let value = br#"{"generatorID":"g","lat":1.0,"lon":2.0,"temperature":70,"pressure":198,"fuel":900}"#;
        Stored {
            partition: 3,
            offset,
            timestamp: 1000 + offset,
            key: Some(b"g".to_vec()),
            value: (offset != 2).then(|| value.to_vec()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn each_topic_is_judged_by_what_came_since_it_was_made() {
        let rules = rules();
        let evaluate = |records: &[Stored]| oracle::evaluate("t", &Records(records.to_vec()), &rules);
        let first: Vec<Stored> = (0..2).map(record).collect();
        let second: Vec<Stored> =
            (0..3).map(|offset| Stored { timestamp: 2000 + offset, ..record(offset) }).collect();
        let before = evaluate(&first);
        let all = evaluate(&[first, second].concat());
        let present = behind(&all, &before);
        assert_eq!(present.alerts["g"].len() + before.alerts["g"].len(), all.alerts["g"].len());
        assert_eq!(present.alerts["g"][0].id, "t-3-0-heartbeat");
        assert_eq!(present.alerts["g"][0].since, 1001, "its alarms stand as they stood");

        let mut ends = BTreeMap::new();
        assert_eq!(since(&mut ends, Records((0..2).map(record).collect())).len(), 2);
        assert_eq!(since(&mut ends, Records((0..5).map(record).collect())).len(), 3);
    }
}
