//! What clients get: the documents of the HTTP interface, and the events.

use std::collections::BTreeMap;

use genwatch_core::alarm::machine::Phase;
use genwatch_core::reading::Field;
use genwatch_core::types::{GeneratorId, Millis, Offset, PartitionId};
use genwatch_kafka::topics::Role;
use serde::{Serialize, Serializer};

use super::advice::PlanEvent;
use super::alerts::{Alert, AlertState, HourRate, Incident, Worst};
use super::fleet::{Alarm, Generator};
use super::lineage::{Facts, Lineage, PartitionFacts};
use super::names::{Names, rank};
use super::rules::{self, show};
use super::timeline::{self, phase_name};
use super::{Kafka, Model, progress, workers};

/// Active alarms in a document, at most: the gravest and newest.
const ACTIVE_MAX: usize = 1000;
/// Recent events in a snapshot, and in a document unless another number is asked for.
pub const RECENT: usize = 200;
/// Incidents of a generator in its document, at most: the newest.
const INCIDENTS_MAX: usize = 100;
/// What an operator can bear in an hour (ISA-18.2).
const BENCHMARK: Benchmark = Benchmark { acceptable: 6, maximum: 12 };

/// `/api/partitions`.
#[derive(Debug, Serialize)]
pub struct Partitions<'m> {
    at: Millis,
    group: &'m str,
    topic: &'m str,
    #[serde(flatten)]
    total: progress::Total,
    partitions: Vec<Partition>,
    workers: Vec<workers::Shown<'m>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<timeline::Shown>,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: PartitionId,
    owner: Option<String>,
    phase: Option<&'static str>,
    #[serde(flatten)]
    progress: progress::Shown,
    since: Option<Millis>,
}

/// `/api/fleet`.
#[derive(Serialize)]
pub struct FleetDocument<'m> {
    at: Millis,
    count: usize,
    active: BTreeMap<&'m str, usize>,
    generators: GeneratorRows<'m>,
}

/// The generators as they are, or as they were: made one by one while they are written, as there may be
/// 100,000.
struct GeneratorRows<'m> {
    model: &'m Model,
    at: Option<Millis>,
}

impl Serialize for GeneratorRows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.model.fleet.iter().filter_map(|(id, generator)| match self.at {
            Some(at) => self.model.row_at(id, generator, at),
            None => Some(self.model.row(id, generator)),
        }))
    }
}

/// A generator in the list of all.
#[derive(Debug, Serialize)]
struct GeneratorRow<'m> {
    #[serde(rename = "generatorID")]
    generator: &'m GeneratorId,
    lat: Option<f64>,
    lon: Option<f64>,
    partition: Option<PartitionId>,
    last_seen: Option<Millis>,
    temperature: Option<f64>,
    pressure: Option<f64>,
    fuel: Option<f64>,
    alarm: Option<&'m str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<&'m str>,
}

/// How many generators there are, and their active alarms by severity.
#[derive(Debug, Serialize)]
struct FleetCount<'m> {
    count: usize,
    active: BTreeMap<&'m str, usize>,
}

/// `/api/generators/{id}`.
#[derive(Debug, Serialize)]
pub struct GeneratorDocument<'m> {
    #[serde(rename = "generatorID")]
    generator: &'m str,
    partition: Option<PartitionId>,
    owner: Option<String>,
    lat: Option<f64>,
    lon: Option<f64>,
    last_seen: Option<Millis>,
    offset: Option<Offset>,
    online: Option<bool>,
    last: Option<LastReading>,
    rules: Vec<RuleState<'m>>,
    series: SeriesDocument,
    incidents: Vec<IncidentDocument<'m>>,
}

#[derive(Debug, Serialize)]
struct LastReading {
    at: Millis,
    temperature: Option<f64>,
    pressure: Option<f64>,
    fuel: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    power: Option<f64>,
}

#[derive(Debug, Serialize)]
struct RuleState<'m> {
    #[serde(flatten)]
    rule: rules::Shown<'m>,
    phase: Option<Phase>,
    since: Option<Millis>,
}

#[derive(Debug, Default, Serialize)]
struct SeriesDocument {
    at: Vec<i64>,
    temperature: Vec<f32>,
    pressure: Vec<f32>,
    fuel: Vec<f32>,
}

#[derive(Debug, Serialize)]
struct IncidentDocument<'m> {
    rule: &'m str,
    severity: &'m str,
    raised: Option<Millis>,
    cleared: Option<Millis>,
    value: Option<f64>,
    threshold: Option<f64>,
    reason: Option<&'m str>,
}

/// `/api/alerts`.
#[derive(Debug, Serialize)]
pub struct AlertsDocument<'m> {
    at: Millis,
    active: Vec<ActiveAlarm>,
    /// All of them: the list may be cut.
    active_count: usize,
    recent: Vec<&'m Alert>,
    by_rule: Vec<RuleCount<'m>>,
    rate_per_hour: Vec<HourRate>,
    last_hour: u64,
    benchmark: Benchmark,
    top: Vec<Worst>,
    chattering: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ActiveAlarm {
    #[serde(flatten)]
    alert: Alert,
    chattering: bool,
}

#[derive(Debug, Serialize)]
struct RuleCount<'m> {
    rule: &'m str,
    severity: Option<&'m str>,
    active: usize,
    last_hour: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Benchmark {
    acceptable: u32,
    maximum: u32,
}

/// `/api/time`.
#[derive(Debug, Serialize)]
pub struct TimeDocument {
    now: Millis,
    kept_from: Millis,
}

/// The event `snapshot`.
#[derive(Debug, Serialize)]
pub struct Snapshot<'m> {
    at: Millis,
    version: &'static str,
    topic: &'m str,
    group: &'m str,
    kafka: &'m Kafka,
    rules: Vec<rules::Shown<'m>>,
    kept_from: Millis,
    partitions: Partitions<'m>,
    lineage: Lineage,
    alerts: AlertsDocument<'m>,
    fleet: FleetCount<'m>,
    plan: PlanEvent,
}

/// The event `state`.
#[derive(Debug, Serialize)]
pub struct StateEvent<'m> {
    at: Millis,
    kafka: &'m Kafka,
    kept_from: Millis,
    partitions: Partitions<'m>,
    lineage: Lineage,
    fleet: FleetCount<'m>,
    rate_per_hour: Vec<HourRate>,
}

/// The event `alert`.
#[derive(Debug, Serialize)]
pub struct AlertEvent<'a> {
    /// The new ones, oldest first.
    pub alerts: Vec<&'a Alert>,
}

/// The event `fleet`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum FleetEvent<'m> {
    /// There are too many changes: get all again.
    Reload {
        /// Always true.
        reload: bool,
    },
    /// These have changed.
    Changes(FleetChanges<'m>),
}

/// What has changed in the fleet.
#[derive(Debug, Serialize)]
pub struct FleetChanges<'m> {
    changed: Vec<GeneratorRow<'m>>,
    /// Those that are decommissioned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<GeneratorId>,
}

impl Model {
    /// `/api/partitions`; the timeline is left out where it hasn't changed.
    #[must_use]
    pub fn partitions(&self, now: Millis, with_timeline: bool) -> Partitions<'_> {
        let from = Millis(now.0 - timeline::KEPT);
        let total = self.progress.total();
        let unseen = self.is_worked_unseen(&total);
        let partition = |id: PartitionId| {
            let owner = self.timeline.owner(id, now);
            let progress = self.progress.show(id, unseen || owner.is_some())?;
            Some(Partition {
                partition: id,
                phase: owner.as_ref().map(|owner| phase_name(owner.phase)),
                since: owner.as_ref().map(|owner| owner.since),
                owner: owner.map(|owner| owner.worker),
                progress,
            })
        };
        Partitions {
            at: now,
            group: &self.group,
            topic: &self.names.readings,
            total,
            partitions: self.progress.partitions().filter_map(partition).collect(),
            workers: self.workers.show(now),
            timeline: with_timeline.then(|| self.timeline.show(from, now)),
        }
    }

    /// The rows of the timeline, to see whether they have changed.
    #[must_use]
    pub fn timeline_rows(&self, now: Millis) -> Vec<timeline::Row> {
        self.timeline.show(Millis(now.0 - timeline::KEPT), now).rows
    }

    /// Whether partitions are worked by somebody who doesn't report, as in an older release.
    fn is_worked_unseen(&self, total: &progress::Total) -> bool {
        !self.workers.has_worker_of(&self.group) && total.processed > 0.0
    }

    /// `/api/lineage`.
    #[must_use]
    pub fn lineage(&self, now: Millis) -> Lineage {
        let total = self.progress.total();
        let unseen = self.is_worked_unseen(&total);
        let partition = |id: PartitionId| {
            let owner = self.timeline.owner(id, now);
            let progress = self.progress.show(id, unseen || owner.is_some())?;
            Some(PartitionFacts {
                partition: id,
                owner: owner.map(|owner| owner.worker),
                lag: progress.lag(),
                verdict: progress.verdict(),
                time_lag_ms: progress.time_lag_ms(),
                processed: progress.processed(),
            })
        };
        let partitions: Vec<_> = self.progress.partitions().filter_map(partition).collect();
        let sink = |(role, progress): (&Role, &progress::GroupProgress)| {
            let mut total = progress.has_committed().then(|| progress.total())?;
            if *role == Role::Readings {
                total.time_lag_ms = self.progress.time_lag_of(progress, now).unwrap_or(0);
            }
            Some((*role, total))
        };
        Lineage::of(&Facts {
            at: now,
            names: &self.names,
            group: &self.group,
            topics: &self.facts(),
            partitions: &partitions,
            total: &total,
            workers: &self.workers,
            sinks: &self.sinks.iter().filter_map(sink).collect(),
            downsample: &self.downsampled(now),
            connectors: &self.connectors.facts(&self.progress, now),
        })
    }

    /// The partitions of the readings as the group that makes aggregates sees them; none if it has committed nothing.
    fn downsampled(&self, now: Millis) -> Vec<PartitionFacts> {
        let progress = &self.downsample;
        if !progress.has_committed() {
            return Vec::new();
        }
        let partition = |id: PartitionId| {
            let shown = progress.show(id, true)?;
            Some(PartitionFacts {
                partition: id,
                owner: None,
                lag: shown.lag(),
                verdict: self.progress.verdict_of(progress, id, now),
                time_lag_ms: self.progress.time_lag_in(progress, id, now).unwrap_or(0),
                processed: progress.processed_slowly(id),
            })
        };
        progress.partitions().filter_map(partition).collect()
    }

    /// `/api/fleet`, as it is or as it was.
    #[must_use]
    pub fn fleet(&self, at: Option<Millis>, now: Millis) -> FleetDocument<'_> {
        let generators = GeneratorRows { model: self, at };
        let Some(at) = at else {
            let FleetCount { count, active } = self.count();
            return FleetDocument { at: now, count, active, generators };
        };
        let (mut count, mut active) = (0, BTreeMap::new());
        for (id, generator) in self.fleet.iter() {
            if generator.series.at(at.0.div_euclid(1000)).is_some() {
                count += 1;
                for incident in self.incidents_at(id, at) {
                    *active.entry(self.words.name(incident.severity)).or_default() += 1;
                }
            }
        }
        FleetDocument { at, count, active, generators }
    }

    fn count(&self) -> FleetCount<'_> {
        let by_severity =
            |(severity, count): (&super::names::Name, &usize)| (self.words.name(*severity), *count);
        FleetCount {
            count: self.fleet.count(),
            active: self.fleet.active().iter().map(by_severity).collect(),
        }
    }

    fn row<'m>(&'m self, id: &'m GeneratorId, generator: &Generator) -> GeneratorRow<'m> {
        let active = generator.active(&self.words);
        let last = generator.last.as_ref();
        let value = |field| last.and_then(|last| last.values.get(field));
        GeneratorRow {
            generator: id,
            lat: value(Field::Lat),
            lon: value(Field::Lon),
            partition: last.map(|last| last.place.partition),
            last_seen: last.map(|last| last.place.at),
            temperature: value(Field::Temperature),
            pressure: value(Field::Pressure),
            fuel: value(Field::Fuel),
            alarm: active.first().map(|alarm| self.words.name(alarm.severity)),
            rules: active.iter().map(|alarm| self.words.name(alarm.rule)).collect(),
        }
    }

    fn row_at<'m>(
        &'m self,
        id: &'m GeneratorId,
        generator: &Generator,
        at: Millis,
    ) -> Option<GeneratorRow<'m>> {
        let point = generator.series.at(at.0.div_euclid(1000))?;
        let mut active: Vec<&Incident> = self.incidents_at(id, at).collect();
        active.sort_by_key(|incident| std::cmp::Reverse(rank(self.words.name(incident.severity))));
        let last = generator.last.as_ref();
        Some(GeneratorRow {
            generator: id,
            lat: last.map(|last| last.values.lat()),
            lon: last.map(|last| last.values.lon()),
            partition: last.map(|last| last.place.partition),
            last_seen: Some(Millis(i64::from(point.at) * 1000)),
            temperature: Some(decimal(point.temperature)),
            pressure: Some(decimal(point.pressure)),
            fuel: Some(decimal(point.fuel)),
            alarm: active.first().map(|incident| self.words.name(incident.severity)),
            rules: active.iter().map(|incident| self.words.name(incident.rule)).collect(),
        })
    }

    fn incidents_at<'m>(&'m self, id: &GeneratorId, at: Millis) -> impl Iterator<Item = &'m Incident> {
        self.alerts.incidents(id.as_str()).iter().filter(move |incident| incident.is_active_at(at))
    }

    /// `/api/generators/{id}`; the series from one time to another.
    #[must_use]
    pub fn generator<'m>(
        &'m self,
        id: &'m str,
        from: Option<Millis>,
        to: Option<Millis>,
        now: Millis,
    ) -> Option<GeneratorDocument<'m>> {
        let generator = self.fleet.get(id)?;
        let last = generator.last;
        let value = |field| last.and_then(|last| last.values.get(field));
        let seconds = |at: Option<Millis>, otherwise| at.map_or(otherwise, |at| at.0.div_euclid(1000));
        let points = generator.series.between(seconds(from, i64::MIN), seconds(to, i64::MAX));
        let mut series = SeriesDocument::default();
        for point in points {
            series.at.push(i64::from(point.at) * 1000);
            series.temperature.push(point.temperature);
            series.pressure.push(point.pressure);
            series.fuel.push(point.fuel);
        }
        let partition = last.map(|last| last.place.partition);
        let incident = |incident: &Incident| IncidentDocument {
            rule: self.words.name(incident.rule),
            severity: self.words.name(incident.severity),
            raised: incident.raised,
            cleared: incident.cleared,
            value: incident.value,
            threshold: incident.threshold,
            reason: incident.reason.map(|reason| self.words.name(reason)),
        };
        Some(GeneratorDocument {
            generator: id,
            partition,
            owner: partition.and_then(|id| Some(self.timeline.owner(id, now)?.worker)),
            lat: value(Field::Lat),
            lon: value(Field::Lon),
            last_seen: last.map(|last| last.place.at),
            offset: last.map(|last| last.place.offset),
            online: generator.online,
            last: last.map(|last| LastReading {
                at: last.place.at,
                temperature: value(Field::Temperature),
                pressure: value(Field::Pressure),
                fuel: value(Field::Fuel),
                load: value(Field::Load),
                power: value(Field::Power),
            }),
            rules: self
                .rules
                .as_slice()
                .iter()
                .map(|rule| rule_state(show(rule), generator, &self.words))
                .collect(),
            series,
            incidents: self.alerts.incidents(id).iter().rev().take(INCIDENTS_MAX).map(incident).collect(),
        })
    }

    /// `/api/alerts` with so many recent ones.
    #[must_use]
    pub fn alerts(&self, limit: usize, now: Millis) -> AlertsDocument<'_> {
        let last_hour = self.alerts.last_hour(now);
        let name = |rule| self.words.name(rule);
        let mut by_rule: BTreeMap<&str, RuleCount<'_>> = BTreeMap::new();
        let entry = |rule| RuleCount { rule, severity: None, active: 0, last_hour: 0 };
        for rule in self.rules.as_slice() {
            by_rule.entry(&rule.name).or_insert_with(|| entry(&rule.name)).severity = Some(&rule.severity);
        }
        for (rule, count) in self.fleet.by_rule() {
            by_rule.entry(name(*rule)).or_insert_with(|| entry(name(*rule))).active = *count;
        }
        for (rule, count) in &last_hour {
            by_rule.entry(name(*rule)).or_insert_with(|| entry(name(*rule))).last_hour = *count;
        }
        let (active, active_count) = self.active_alarms();
        AlertsDocument {
            at: now,
            active,
            active_count,
            recent: self.alerts.recent().take(limit).collect(),
            by_rule: by_rule.into_values().collect(),
            rate_per_hour: self.alerts.per_hour(now),
            last_hour: last_hour.values().sum(),
            benchmark: BENCHMARK,
            top: self.alerts.top(),
            chattering: self
                .alerts
                .chattering()
                .into_iter()
                .map(|(generator, rule)| format!("{generator}/{}", name(rule)))
                .collect(),
        }
    }

    /// The gravest and newest active alarms, and how many there are.
    fn active_alarms(&self) -> (Vec<ActiveAlarm>, usize) {
        let alarms = |(id, generator): (_, &'_ Generator)| -> Vec<(GeneratorId, Alarm)> {
            let id: &GeneratorId = id;
            let active = generator.alarms.iter().filter(|alarm| alarm.phase.is_active());
            active.map(|alarm| (id.clone(), *alarm)).collect()
        };
        let mut all: Vec<(GeneratorId, Alarm)> = self.fleet.iter().flat_map(alarms).collect();
        let count = all.len();
        let grave = |alarm: &Alarm| rank(self.words.name(alarm.severity));
        let order = |(a_id, a): &(GeneratorId, Alarm), (b_id, b): &(GeneratorId, Alarm)| {
            let newer = b.since.cmp(&a.since);
            grave(b).cmp(&grave(a)).then(newer).then_with(|| a_id.cmp(b_id))
        };
        if all.len() > ACTIVE_MAX {
            all.select_nth_unstable_by(ACTIVE_MAX, order);
            all.truncate(ACTIVE_MAX);
        }
        all.sort_unstable_by(order);
        let shown = all.into_iter().map(|(id, alarm)| ActiveAlarm {
            chattering: self.alerts.is_chattering(&id, alarm.rule),
            alert: self
                .alerts
                .raised_by(&id, alarm.rule)
                .cloned()
                .unwrap_or_else(|| self.told_by_state(&id, &alarm)),
        });
        (shown.collect(), count)
    }

    /// An alarm that is older than the events that are kept, as far as its state tells.
    fn told_by_state(&self, id: &GeneratorId, alarm: &Alarm) -> Alert {
        let rule = self.words.name(alarm.rule);
        let known = self.rules.as_slice().iter().find(|known| known.name == rule).map(|known| show(known));
        let last = self.fleet.get(id.as_str()).and_then(|generator| generator.last);
        Alert {
            id: format!("{id}/{rule}"),
            generator: id.to_string(),
            rule: rule.to_owned(),
            state: AlertState::Raised,
            severity: self.words.name(alarm.severity).to_owned(),
            field: known.as_ref().and_then(|known| known.field.map(str::to_owned)),
            value: None,
            threshold: known.and_then(|known| known.raise),
            at: alarm.since,
            since: alarm.since,
            lat: last.map(|last| last.values.lat()),
            lon: last.map(|last| last.values.lon()),
            source: None,
            reason: None,
        }
    }

    /// `/api/time`.
    #[must_use]
    pub fn time(&self, now: Millis) -> TimeDocument {
        TimeDocument { now, kept_from: self.kept_from() }
    }

    /// The event `snapshot`.
    #[must_use]
    pub fn snapshot(&self, now: Millis) -> Snapshot<'_> {
        Snapshot {
            at: now,
            version: env!("CARGO_PKG_VERSION"),
            topic: &self.names.readings,
            group: &self.group,
            kafka: &self.kafka,
            rules: self.rules.as_slice().iter().map(|rule| show(rule)).collect(),
            kept_from: self.kept_from(),
            partitions: self.partitions(now, true),
            lineage: self.lineage(now),
            alerts: self.alerts(RECENT, now),
            fleet: self.count(),
            plan: self.plan_event(now),
        }
    }

    /// The event `plan`.
    #[must_use]
    pub fn plan_event(&self, now: Millis) -> PlanEvent {
        self.advice(None, now).into()
    }

    /// The event `state`.
    #[must_use]
    pub fn state_event(&self, now: Millis, with_timeline: bool) -> StateEvent<'_> {
        StateEvent {
            at: now,
            kafka: &self.kafka,
            kept_from: self.kept_from(),
            partitions: self.partitions(now, with_timeline),
            lineage: self.lineage(now),
            fleet: self.count(),
            rate_per_hour: self.alerts.per_hour(now),
        }
    }

    /// The event `fleet`: what has changed since the last one.
    pub fn fleet_event(&mut self) -> FleetEvent<'_> {
        let changes = self.fleet.take_changes();
        if changes.too_many {
            return FleetEvent::Reload { reload: true };
        }
        let known = changes.changed.iter().filter_map(|id| self.fleet.entry(id.as_str()));
        FleetEvent::Changes(FleetChanges {
            changed: known.map(|(id, generator)| self.row(id, generator)).collect(),
            removed: changes.removed.into_iter().collect(),
        })
    }
}

fn rule_state<'m>(rule: rules::Shown<'m>, generator: &Generator, words: &Names) -> RuleState<'m> {
    let state = generator.alarms.iter().find(|alarm| words.name(alarm.rule) == rule.rule);
    RuleState {
        rule,
        phase: state.map(|alarm| alarm.phase).or(Some(Phase::Normal)),
        since: state.map(|alarm| alarm.since),
    }
}

/// A number as it was written: 74.1, not 74.0999984741211.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
