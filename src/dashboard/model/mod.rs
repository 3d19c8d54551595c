//! What the dashboard knows: everything that its readers have read so far, and how it is shown. No I/O.
//!
//! [`Model`] has one owner, the dashboard's loop. Readers and the observer of the cluster tell it what they
//! have seen; [`documents`] makes what clients get.
//!
//! * [`fleet`]: the generators. [`history`]: their values over time. [`alerts`]: alert events and incidents.
//! * [`workers`]: who reports. [`connectors`]: those of Kafka Connect, which don't.
//! * [`timeline`]: who held which partition when. [`progress`], [`time_index`]: lag.
//! * [`advice`]: which limit binds the group, and what to run. [`lineage`]: the graph. [`rules`], [`names`]: rules and their names.

pub mod advice;
pub mod alerts;
pub mod connectors;
pub mod documents;
pub mod fleet;
pub mod history;
pub mod lineage;
pub mod names;
pub mod progress;
pub mod rules;
pub mod time_index;
pub mod timeline;
pub mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use genwatch_core::alarm::rules::Rules;
use genwatch_core::handler::StoredState;
use genwatch_core::lag::{LagTrack, Look};
use genwatch_core::reading::{Parsed, parse};
use genwatch_core::report::Report;
use genwatch_core::types::{Millis, Offset, PartitionId};
use genwatch_kafka::topics::{Role, Topics};
use serde::Serialize;

use advice::{Advice, NoAdvice, Watched};
use alerts::{Alert, AlertLog};
use connectors::{ConnectorLook, Connectors};
use fleet::{Fleet, Place};
use lineage::TopicFacts;
use names::Names;
use progress::{Bounds, Bursts, GroupProgress};
use timeline::Timeline;
use workers::{Workers, is_worker_of};

/// A longer key is no id of ours.
const KEY_BYTES_MAX: usize = 256;

/// Everything that is known.
#[derive(Debug)]
pub struct Model {
    names: Topics,
    group: String,
    rules: Rules,
    /// Since when the series of the time machine are complete.
    kept_from: Millis,
    /// The oldest reading that was read.
    oldest: Option<Millis>,
    words: Names,
    fleet: Fleet,
    alerts: AlertLog,
    timeline: Timeline,
    workers: Workers,
    progress: GroupProgress,
    watched: Watched,
    /// The progress of the sinks' group, topic by topic.
    sinks: BTreeMap<Role, GroupProgress>,
    /// The progress of the group that makes one-minute aggregates.
    downsample: GroupProgress,
    connectors: Connectors,
    topics: BTreeMap<Role, Topic>,
    kafka: Kafka,
    bad: u64,
}

/// Whether Kafka answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kafka {
    /// It does.
    pub ok: bool,
    /// Why it doesn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Millis>,
}

/// One topic.
#[derive(Debug, Default)]
struct Topic {
    exists: Option<bool>,
    partitions: usize,
    /// Records that were written to it, by time.
    written: LagTrack,
    /// The same over minutes, for a topic that is written in bursts: a window closes for all generators at once.
    bursts: Bursts,
}

/// What a record of the readings topic is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It has just arrived; `busy`: so many arrive that it matters.
    New {
        /// So many arrive that it matters.
        busy: bool,
    },
    /// It is read for the time machine.
    Old,
}

impl Model {
    /// A model that knows nothing yet, of these topics and this group.
    #[must_use]
    pub fn new(names: Topics, group: &str, rules: Rules, history: Duration, now: Millis) -> Model {
        Model {
            names,
            group: group.to_owned(),
            rules,
            kept_from: now,
            oldest: None,
            words: Names::default(),
            fleet: Fleet::new(u32::try_from(history.as_secs()).unwrap_or(u32::MAX)),
            alerts: AlertLog::default(),
            timeline: Timeline::default(),
            workers: Workers::default(),
            progress: GroupProgress::default(),
            watched: Watched::default(),
            sinks: BTreeMap::new(),
            downsample: GroupProgress::default(),
            connectors: Connectors::default(),
            topics: BTreeMap::new(),
            kafka: Kafka { ok: false, reason: Some("connecting".to_owned()), since: Some(now) },
            bad: 0,
        }
    }

    /// Takes in a record of the readings topic, parsed only if it is worth it.
    pub fn reading(&mut self, place: Place, key: Option<&[u8]>, value: Option<&[u8]>, age: Age, now: Millis) {
        self.oldest = Some(self.oldest.map_or(place.at, |oldest| oldest.min(place.at)));
        if let Age::New { .. } = age {
            self.progress.note_time(place.partition, place.offset, place.at);
        }
        if let (Some(key), Some(_)) = (key, value) {
            let wanted = match age {
                Age::New { busy } => self.fleet.wants_live(key, place.at, busy),
                Age::Old => self.fleet.wants_old(key, place.at, now),
            };
            if !wanted {
                return;
            }
        }
        match parse(key, value) {
            Ok(Parsed::Reading { generator, values }) => self.fleet.reading(generator, place, values, now),
            Ok(Parsed::Decommissioned { generator }) => {
                self.fleet.decommission(generator, place);
                if age != Age::Old {
                    self.alerts.forget_generator(&generator.into());
                }
            }
            // The worker makes it a dead letter.
            Err(_) => self.bad += 1,
        }
    }

    /// Takes in a record of the alerts topic. Returns the event, unless it is a repeat or none.
    pub fn alert(&mut self, value: Option<&[u8]>, now: Millis) -> Option<Arc<Alert>> {
        let Some(alert) = value.and_then(Alert::from_json) else {
            self.bad += 1;
            return None;
        };
        let alert = self.alerts.add(alert, &mut self.words, now)?;
        // The states say more, where there are any.
        if self.topic_exists(Role::State) == Some(false) {
            self.fleet.alert(&alert, &mut self.words);
        }
        Some(alert)
    }

    /// Takes in a record of the state topic.
    pub fn state(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let Some(id) = id_of(key) else {
            self.bad += 1;
            return;
        };
        let state = match value.map(StoredState::from_json) {
            Some(Err(_)) => {
                self.bad += 1;
                return;
            }
            Some(Ok(state)) => Some(state),
            None => None,
        };
        let rules = self.rules.as_slice();
        let severity = |name: &str| Some(rules.iter().find(|rule| rule.name == name)?.severity.clone());
        self.fleet.state(id, state.as_ref(), &mut self.words, severity);
    }

    /// Takes in a record of the status topic.
    pub fn status(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        #[derive(serde::Deserialize)]
        struct Status<'a> {
            status: &'a str,
        }
        let Some(id) = id_of(key) else {
            self.bad += 1;
            return;
        };
        let status = value.map(serde_json::from_slice::<Status<'_>>);
        match status {
            None => self.fleet.status(id, None),
            Some(Ok(Status { status: "online" })) => self.fleet.status(id, Some(true)),
            Some(Ok(Status { status: "offline" })) => self.fleet.status(id, Some(false)),
            Some(_) => self.bad += 1,
        }
    }

    /// Takes in a record of the topic of workers.
    pub fn report(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, at: Millis) {
        let (Some(name), value) = (id_of(key), value) else {
            self.bad += 1;
            return;
        };
        let Some(value) = value else {
            self.workers.left(name, at);
            self.watched.left(name);
            self.timeline.left(name, at);
            return;
        };
        // The key is the identity: a report can't speak for another.
        match Report::from_json(value) {
            Ok(report) if report.worker == name => {
                let is_owner = is_worker_of(&report, &self.group);
                let held = self.workers.report(report.clone());
                if is_owner {
                    self.watched.report(&report);
                    self.timeline.report(&report, &held);
                }
            }
            _ => self.bad += 1,
        }
    }

    /// Takes in what the brokers tell of the workers' group.
    pub fn look(&mut self, at: Millis, bounds: &BTreeMap<PartitionId, Bounds>) {
        self.progress.look(at, bounds);
        self.watched.look(at, bounds);
    }

    /// Takes in what the brokers tell of the sinks' group in one of its topics.
    pub fn look_at_sink(&mut self, role: Role, at: Millis, bounds: &BTreeMap<PartitionId, Bounds>) {
        self.sinks.entry(role).or_default().look(at, bounds);
    }

    /// Takes in what the brokers tell of the group that makes one-minute aggregates.
    pub fn look_at_downsample(&mut self, at: Millis, bounds: &BTreeMap<PartitionId, Bounds>) {
        self.downsample.look(at, bounds);
    }

    /// Takes in what the brokers tell of the connectors of Kafka Connect.
    pub fn look_at_connectors(&mut self, at: Millis, looks: Vec<ConnectorLook>) {
        self.connectors.look(at, looks);
    }

    /// Returns the partitions whose oldest waiting record has to be read to know its age.
    #[must_use]
    pub fn unknown_ages(&self) -> BTreeMap<PartitionId, Bounds> {
        self.progress.unknown_ages()
    }

    /// Takes in such a record's timestamp.
    pub fn oldest(&mut self, partition: PartitionId, offset: Offset, at: Millis) {
        self.progress.note_oldest(partition, offset, at);
    }

    /// Takes in whether a topic exists, and its partitions.
    pub fn topic(&mut self, role: Role, exists: bool, partitions: usize) {
        let topic = self.topics.entry(role).or_default();
        (topic.exists, topic.partitions) = (Some(exists), partitions);
    }

    /// Takes in how many records were written to a topic.
    pub fn written(&mut self, role: Role, at: Millis, records: i64) {
        let end = Offset(records);
        let topic = self.topics.entry(role).or_default();
        topic.written.push(Look { at, next: end, end, time_lag: 0 });
        if role == Role::Aggregates {
            topic.bursts.push(at, records);
        }
    }

    /// The readings topic was deleted and recreated: its offsets mean nothing any more.
    pub fn readings_begin_again(&mut self) {
        self.fleet.forget_offsets();
        self.progress.begin_again();
        self.watched.begin_again();
        self.downsample.begin_again();
        self.connectors.readings_begin_again();
        self.sinks.remove(&Role::Readings);
    }

    /// Whether a topic exists, if that is known.
    #[must_use]
    pub fn topic_exists(&self, role: Role) -> Option<bool> {
        self.topics.get(&role)?.exists
    }

    /// Kafka answers.
    pub fn kafka_answers(&mut self) {
        self.kafka = Kafka { ok: true, reason: None, since: None };
    }

    /// Kafka doesn't answer.
    pub fn kafka_is_away(&mut self, reason: String, now: Millis) {
        let since = self.kafka.since.unwrap_or(now);
        self.kafka = Kafka { ok: false, reason: Some(reason), since: Some(since) };
    }

    /// The series are complete since this time.
    pub fn history_reaches(&mut self, at: Millis) {
        self.kept_from = self.kept_from.min(at);
    }

    /// Since when there is something to see.
    fn kept_from(&self) -> Millis {
        self.kept_from.max(self.oldest.unwrap_or(self.kept_from))
    }

    /// Forgets what is too old, and fits the series to their memory. Call it every few seconds.
    pub fn forget(&mut self, now: Millis) {
        self.alerts.forget(now);
        self.timeline.forget(now);
        self.workers.forget(now);
        self.watched.forget(now);
        self.fleet.fit(now);
    }

    /// Whether a generator has changed since [`documents`] last said so.
    #[must_use]
    pub fn fleet_has_changes(&self) -> bool {
        self.fleet.has_changes()
    }

    /// Records that are not what their topic is for.
    #[must_use]
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// The generators that are known.
    #[must_use]
    pub fn generators(&self) -> usize {
        self.fleet.count()
    }

    /// What to run for `target_rate` readings a second; for the rate that arrives if there is none.
    ///
    /// # Errors
    /// When there is nothing to say.
    pub fn advice(&self, target_rate: Option<f64>, now: Millis) -> Result<Advice, NoAdvice> {
        self.watched.advice(target_rate, now)
    }

    fn facts(&self) -> BTreeMap<Role, TopicFacts> {
        let facts = |(role, topic): (&Role, &Topic)| {
            let is_in_bursts = *role == Role::Aggregates;
            let rate = if is_in_bursts { topic.bursts.rate() } else { topic.written.arrivals() };
            (*role, TopicFacts { exists: topic.exists, partitions: topic.partitions, rate })
        };
        self.topics.iter().map(facts).collect()
    }
}

/// A key that can be the id of a generator, or a worker's name.
fn id_of(key: Option<&[u8]>) -> Option<&str> {
    let id = std::str::from_utf8(key?).ok()?;
    (!id.is_empty() && id.len() <= KEY_BYTES_MAX).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_766_400_000_000);

    fn hear(model: &mut Model, worker: &str, kind: &str, group: &str, held: &str) {
        let report = format!(
            r#"{{"worker":"{worker}","kind":"{kind}","at":{NOW},"since":{NOW},"every":1000,"version":"1","host":"h",
                "group":"{group}","rate":1.0,"busy":0.1,"cpu":0.1,"records":1,"held":"{held}"}}"#
        );
        model.report(Some(worker.as_bytes()), Some(report.as_bytes()), NOW);
    }

    #[test]
    fn only_workers_of_the_group_own_partitions_and_have_hand_overs() {
        let mut model = Model::new(Topics::new("t", "g"), "g", Rules::default(), Duration::ZERO, NOW);
        let bounds = Bounds { start: Offset(0), end: Offset(9), committed: Some(Offset(2)) };
        model.look(NOW, &BTreeMap::from([(PartitionId(0), bounds)]));
        let ahead = Bounds { committed: Some(Offset(8)), ..bounds };
        model.look_at_downsample(NOW, &BTreeMap::from([(PartitionId(0), ahead)]));
        hear(&mut model, "d", "downsample", "g_1m", "0");
        hear(&mut model, "m", "mirror", "g", "0");
        let shown = |model: &Model| serde_json::to_value(model.partitions(NOW, true)).unwrap();
        let partitions = shown(&model);
        assert_eq!(partitions["partitions"][0]["owner"], serde_json::Value::Null);
        assert_eq!(partitions["timeline"]["rows"], serde_json::json!([]));
        assert_eq!(partitions["lag"], 7, "that of the workers");
        assert_eq!(partitions["workers"].as_array().unwrap().len(), 2);
        hear(&mut model, "w", "worker", "g", "0");
        assert_eq!(shown(&model)["partitions"][0]["owner"], "w");
        assert_eq!(shown(&model)["timeline"]["rows"][0]["spans"].as_array().unwrap().len(), 1);
        assert_eq!(model.bad(), 0, "a kind of a newer version is no fault");
    }
}
