//! The generators: their last values, their history, their alarms.
//!
//! Two sources say which alarms are active: the records of `<group>_state`, which hold all of them however
//! old they are, and, where that topic is missing, the alert events.

use std::collections::{BTreeMap, HashMap, HashSet};

use genwatch_core::alarm::machine::Phase;
use genwatch_core::handler::StoredState;
use genwatch_core::reading::{Field, Values};
use genwatch_core::types::{GeneratorId, Millis, Offset, PartitionId};

use super::alerts::{Alert, AlertState};
use super::history::{Detail, Point, Series};
use super::names::{Name, Names, rank};

/// The most generators: more is a fault of a producer, or an attack.
pub const GENERATORS_MAX: usize = 500_000;
/// The most generators that are known to be decommissioned.
const GONE_MAX: usize = 200_000;
/// More changes than this are told as "get all again".
pub const CHANGES_MAX: usize = 2000;
/// While many readings arrive, one that is so much newer than the last parsed one, in milliseconds, is
/// parsed.
const ENOUGH: i64 = 500;

/// Where a reading is, and its event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its event time.
    pub at: Millis,
}

/// One generator.
#[derive(Debug, Default)]
pub struct Generator {
    /// The newest reading.
    pub last: Option<Last>,
    /// Whether it is connected by MQTT, if that is known.
    pub online: Option<bool>,
    /// Its values over time.
    pub series: Series,
    /// Its alarms that are not in the phase `normal`.
    pub alarms: Vec<Alarm>,
}

/// The newest reading of a generator.
#[derive(Clone, Copy, Debug)]
pub struct Last {
    /// Where it is.
    pub place: Place,
    /// What it says.
    pub values: Values,
}

/// The state of one rule for one generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The rule.
    pub rule: Name,
    /// Its severity.
    pub severity: Name,
    /// The phase.
    pub phase: Phase,
    /// When it was entered.
    pub since: Millis,
}

/// What has changed since the last time that somebody asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// These are new, have moved, or their alarms have changed.
    pub changed: HashSet<GeneratorId>,
    /// These are decommissioned.
    pub removed: HashSet<GeneratorId>,
    /// There are too many to name.
    pub too_many: bool,
}

impl Changes {
    fn note(&mut self, id: &GeneratorId) {
        self.removed.remove(id);
        if self.changed.len() >= CHANGES_MAX {
            self.too_many = true;
        } else if !self.changed.contains(id) {
            self.changed.insert(id.clone());
        }
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty() && !self.too_many
    }
}

/// All generators.
#[derive(Debug)]
pub struct Fleet {
    /// Boxed: a map of large values takes twice their size when it is sparse, and again when it grows.
    generators: HashMap<GeneratorId, Box<Generator>>,
    /// Where the decommissioning of a generator is: readings before it are not its own any more.
    gone: HashMap<GeneratorId, (PartitionId, Offset)>,
    detail: Detail,
    /// Seconds that the series cover.
    kept: u32,
    /// Active alarms by severity.
    active: BTreeMap<Name, usize>,
    /// Active alarms by rule.
    by_rule: BTreeMap<Name, usize>,
    /// Generators with a reading or an active alarm.
    count: usize,
    changes: Changes,
}

impl Fleet {
    /// An empty fleet, whose series cover so many seconds.
    #[must_use]
    pub fn new(kept: u32) -> Fleet {
        Fleet {
            generators: HashMap::new(),
            gone: HashMap::new(),
            detail: Detail::of(1, kept),
            kept,
            active: BTreeMap::new(),
            by_rule: BTreeMap::new(),
            count: 0,
            changes: Changes::default(),
        }
    }

    /// Whether a reading that has just arrived is worth parsing; `busy`: there are so many that it matters.
    #[must_use]
    pub fn wants_live(&self, key: &[u8], at: Millis, busy: bool) -> bool {
        if !busy {
            return true;
        }
        let last = std::str::from_utf8(key).ok().and_then(|id| self.generators.get(id)?.last);
        last.is_none_or(|last| !(0..ENOUGH).contains(&at.since(last.place.at)))
    }

    /// Whether a reading from long ago is worth parsing: its series wants a point at that time.
    #[must_use]
    pub fn wants_old(&self, key: &[u8], at: Millis, now: Millis) -> bool {
        let known = std::str::from_utf8(key).ok().and_then(|id| self.generators.get(id));
        known.is_none_or(|known| {
            known.last.is_none() || known.series.wants(seconds(at), seconds(now), &self.detail)
        })
    }

    /// Takes in a reading.
    pub fn reading(&mut self, id: &str, place: Place, values: Values, now: Millis) {
        let gone = self
            .gone
            .get(id)
            .is_some_and(|(partition, offset)| *partition == place.partition && place.offset <= *offset);
        if gone {
            return;
        }
        let Some(generator) = generator_of(&mut self.generators, id) else { return };
        let was = generator.last;
        let is_news = was.is_none_or(|last| place.at >= last.place.at);
        if is_news {
            generator.last = Some(Last { place, values });
        }
        let of = |field| values.get(field).unwrap_or(f64::NAN) as f32;
        let point = Point {
            at: seconds(place.at),
            temperature: of(Field::Temperature),
            pressure: of(Field::Pressure),
            fuel: of(Field::Fuel),
        };
        generator.series.push(point, seconds(now), &self.detail);
        if was.is_none() && !has_active(&generator.alarms) {
            self.count += 1;
        }
        let moved = was.is_none_or(|was| {
            is_news
                && ((was.values.lat(), was.values.lon()) != (values.lat(), values.lon())
                    || was.place.partition != place.partition)
        });
        if moved {
            self.changes.note(&GeneratorId::from(id));
        }
    }

    /// A generator is decommissioned: what came before is forgotten.
    pub fn decommission(&mut self, id: &str, place: Place) {
        let id = GeneratorId::from(id);
        let known = self
            .gone
            .get(&id)
            .is_some_and(|(partition, offset)| *partition == place.partition && place.offset <= *offset);
        if !known && (self.gone.len() < GONE_MAX || self.gone.contains_key(&id)) {
            self.gone.insert(id.clone(), (place.partition, place.offset));
        }
        let last = self.generators.get(&id).and_then(|generator| generator.last);
        // Seen again since: what is read from long ago may hold an earlier decommissioning.
        if last.is_some_and(|last| last.place.at > place.at && last.place.offset > place.offset) {
            return;
        }
        if let Some(generator) = self.generators.remove(&id) {
            self.count_alarms(&generator.alarms, false);
            if generator.last.is_some() || has_active(&generator.alarms) {
                self.count -= 1;
            }
            self.changes.changed.remove(&id);
            if self.changes.removed.len() < CHANGES_MAX {
                self.changes.removed.insert(id);
            } else {
                self.changes.too_many = true;
            }
        }
    }

    /// Takes in a record of the state topic, or that there is none any more.
    pub fn state(
        &mut self,
        id: &str,
        state: Option<&StoredState>,
        names: &mut Names,
        severity: impl Fn(&str) -> Option<String>,
    ) {
        let standings = state.filter(|state| !state.decommissioned).map(|state| &state.body.rules);
        let alarms = standings.into_iter().flatten().filter(|(_, standing)| standing.phase != Phase::Normal);
        let alarms: Vec<Alarm> = alarms
            .map(|(rule, standing)| Alarm {
                rule: names.number(rule),
                severity: {
                    let told = standing.severity().map(str::to_owned).or_else(|| severity(rule));
                    names.number(told.as_deref().unwrap_or("warning"))
                },
                phase: standing.phase,
                since: standing.since,
            })
            .collect();
        self.set_alarms(id, alarms);
    }

    /// Takes in an alert event, where no state topic says which alarms are active.
    pub fn alert(&mut self, alert: &Alert, names: &mut Names) {
        let (rule, severity) = (names.number(&alert.rule), names.number(&alert.severity));
        let known = self.generators.get(alert.generator.as_str());
        let mut alarms = known.map(|generator| generator.alarms.clone()).unwrap_or_default();
        match alert.state {
            AlertState::Raised if alarms.iter().any(|alarm| alarm.rule == rule) => {}
            AlertState::Raised => {
                alarms.push(Alarm { rule, severity, phase: Phase::Raised, since: alert.at })
            }
            AlertState::Cleared => alarms.retain(|alarm| alarm.rule != rule),
        }
        self.set_alarms(&alert.generator, alarms);
    }

    fn set_alarms(&mut self, id: &str, alarms: Vec<Alarm>) {
        if alarms.is_empty() && !self.generators.contains_key(id) {
            return;
        }
        let Some(generator) = generator_of(&mut self.generators, id) else { return };
        if generator.alarms == alarms {
            return;
        }
        let shown = |generator: &Generator| generator.last.is_some() || has_active(&generator.alarms);
        let was_shown = shown(generator);
        let active = |alarms: &[Alarm]| -> Vec<Name> {
            alarms.iter().filter(|alarm| alarm.phase.is_active()).map(|alarm| alarm.rule).collect()
        };
        let same = active(&generator.alarms) == active(&alarms);
        let was = std::mem::replace(&mut generator.alarms, alarms.clone());
        generator.alarms.shrink_to_fit();
        match (was_shown, shown(generator)) {
            (false, true) => self.count += 1,
            (true, false) => self.count -= 1,
            _ => {}
        }
        self.count_alarms(&was, false);
        self.count_alarms(&alarms, true);
        if !same {
            self.changes.note(&GeneratorId::from(id));
        }
    }

    fn count_alarms(&mut self, alarms: &[Alarm], plus: bool) {
        for alarm in alarms.iter().filter(|alarm| alarm.phase.is_active()) {
            for count in [self.active.entry(alarm.severity), self.by_rule.entry(alarm.rule)] {
                let count = count.or_default();
                *count = if plus { *count + 1 } else { count.saturating_sub(1) };
            }
        }
        self.active.retain(|_, count| *count > 0);
        self.by_rule.retain(|_, count| *count > 0);
    }

    /// Takes in whether a generator is connected; `None`: nobody knows any more.
    pub fn status(&mut self, id: &str, online: Option<bool>) {
        if (online.is_some() || self.generators.contains_key(id))
            && let Some(generator) = generator_of(&mut self.generators, id)
        {
            generator.online = online;
        }
    }

    /// The topic of the readings began again: its offsets mean nothing any more.
    pub fn forget_offsets(&mut self) {
        self.gone.clear();
        for generator in self.generators.values_mut() {
            if let Some(last) = &mut generator.last {
                last.place.offset = Offset(-1);
            }
        }
    }

    /// Fits the series to the number of generators. Call it now and then.
    pub fn fit(&mut self, now: Millis) {
        let detail = Detail::of(self.generators.len(), self.kept);
        // A fleet that grows would otherwise be fitted at each step.
        let shrinks = detail.capacity() * 10 < self.detail.capacity() * 9;
        if shrinks {
            for generator in self.generators.values_mut() {
                generator.series.fit(seconds(now), &detail);
            }
        }
        if shrinks || detail.capacity() > self.detail.capacity() {
            self.detail = detail;
        }
    }

    /// How many generators there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Active alarms by severity.
    #[must_use]
    pub fn active(&self) -> &BTreeMap<Name, usize> {
        &self.active
    }

    /// Active alarms by rule.
    #[must_use]
    pub fn by_rule(&self) -> &BTreeMap<Name, usize> {
        &self.by_rule
    }

    /// One generator.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Generator> {
        self.generators.get(id).map(|generator| &**generator)
    }

    /// One generator, with its id.
    #[must_use]
    pub fn entry(&self, id: &str) -> Option<(&GeneratorId, &Generator)> {
        self.generators.get_key_value(id).map(|(id, generator)| (id, &**generator))
    }

    /// All generators with a reading or an active alarm.
    pub fn iter(&self) -> impl Iterator<Item = (&GeneratorId, &Generator)> {
        let all = self.generators.iter().map(|(id, generator)| (id, &**generator));
        all.filter(|(_, generator)| generator.last.is_some() || has_active(&generator.alarms))
    }

    /// Returns what has changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Whether something has changed.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }
}

impl Generator {
    /// Its active alarms, the gravest first.
    #[must_use]
    pub fn active(&self, names: &Names) -> Vec<Alarm> {
        let mut active: Vec<Alarm> =
            self.alarms.iter().filter(|alarm| alarm.phase.is_active()).copied().collect();
        active.sort_by_key(|alarm| std::cmp::Reverse(rank(names.name(alarm.severity))));
        active
    }
}

/// Returns a generator, a new one where there is room.
fn generator_of<'m>(
    generators: &'m mut HashMap<GeneratorId, Box<Generator>>,
    id: &str,
) -> Option<&'m mut Generator> {
    if !generators.contains_key(id) {
        if generators.len() >= GENERATORS_MAX {
            return None;
        }
        generators.insert(GeneratorId::from(id), Box::default());
    }
    generators.get_mut(id).map(|generator| &mut **generator)
}

fn has_active(alarms: &[Alarm]) -> bool {
    alarms.iter().any(|alarm| alarm.phase.is_active())
}

/// Whole seconds since the epoch.
#[must_use]
pub fn seconds(at: Millis) -> u32 {
    u32::try_from(at.0.div_euclid(1000).max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_766_400_000_000);

    fn values(fuel: f64) -> Values {
        Values::new(40.5, -111.5, 74.0, 198.0, fuel, None, None)
    }

    fn place(offset: i64) -> Place {
        Place { partition: PartitionId(3), offset: Offset(offset), at: Millis(NOW.0 + offset * 1000) }
    }

    fn fleet(readings: &[(&str, i64)]) -> Fleet {
        let mut fleet = Fleet::new(86_400);
        for (id, offset) in readings {
            fleet.reading(id, place(*offset), values(*offset as f64), NOW);
        }
        fleet
    }

    fn stored(json: &str) -> StoredState {
        StoredState::from_json(json.as_bytes()).unwrap()
    }

    fn state(fleet: &mut Fleet, names: &mut Names, phase: &str) {
        let json = format!(
            r#"{{"generatorID":"g","offset":1,"rules":{{"low_fuel":{{"phase":"{phase}","since":5,"severity":"critical"}}}}}}"#
        );
        fleet.state("g", Some(&stored(&json)), names, |_| None);
    }

    #[test]
    fn the_newest_reading_counts_however_late_another_comes() {
        let fleet = fleet(&[("g", 5), ("g", 3)]);
        let last = fleet.get("g").unwrap().last.unwrap();
        assert_eq!((last.place.offset, last.values.get(Field::Fuel)), (Offset(5), Some(5.0)));
        assert!(fleet.get("g").unwrap().series.at(NOW.0 / 1000 + 3).is_some(), "for the time machine");
    }

    #[test]
    fn many_readings_are_not_parsed_twice_in_half_a_second() {
        let fleet = fleet(&[("g", 0)]);
        assert!(fleet.wants_live(b"g", Millis(NOW.0 + 10), false));
        assert!(!fleet.wants_live(b"g", Millis(NOW.0 + 10), true));
        assert!(fleet.wants_live(b"g", Millis(NOW.0 + 600), true));
        assert!(fleet.wants_live(b"new", Millis(NOW.0 + 10), true));
        assert!(!fleet.wants_old(b"g", NOW, Millis(NOW.0 + 60_000)));
        assert!(fleet.wants_old(b"g", Millis(NOW.0 - 600_000), Millis(NOW.0 + 60_000)));
    }

    #[test]
    fn a_decommissioned_generator_is_gone_with_what_came_before_and_comes_back_after() {
        let mut fleet = fleet(&[("g", 5)]);
        fleet.take_changes();
        fleet.decommission("g", place(6));
        assert_eq!((fleet.count(), fleet.get("g").is_none()), (0, true));
        assert!(fleet.take_changes().removed.contains("g"));
        fleet.reading("g", place(4), values(4.0), NOW);
        assert_eq!(fleet.count(), 0, "read from long ago");
        fleet.reading("g", place(7), values(7.0), NOW);
        assert_eq!(fleet.count(), 1);
        fleet.decommission("g", place(2));
        assert_eq!(fleet.count(), 1, "an earlier one, read from long ago");
    }

    #[test]
    fn alarms_come_from_the_state_and_are_counted() {
        let (mut fleet, mut names) = (fleet(&[("g", 5)]), Names::default());
        state(&mut fleet, &mut names, "pending");
        assert!(fleet.active().is_empty());
        fleet.take_changes();
        state(&mut fleet, &mut names, "raised");
        let critical = names.known("critical").unwrap();
        assert_eq!(fleet.active().get(&critical), Some(&1));
        assert!(fleet.take_changes().changed.contains("g"));
        state(&mut fleet, &mut names, "clearing");
        assert_eq!((fleet.active().get(&critical), fleet.has_changes()), (Some(&1), false), "still active");
        fleet.state("g", None, &mut names, |_| None);
        assert!(fleet.active().is_empty() && fleet.has_changes());
    }

    #[test]
    fn an_alarm_without_a_reading_shows_its_generator() {
        let (mut fleet, mut names) = (fleet(&[]), Names::default());
        fleet.status("other", Some(true));
        state(&mut fleet, &mut names, "raised");
        assert_eq!((fleet.count(), fleet.iter().count()), (1, 1));
        fleet.state("g", None, &mut names, |_| None);
        assert_eq!((fleet.count(), fleet.iter().count()), (0, 0));
    }

    #[test]
    fn many_changes_are_told_as_one() {
        let mut fleet = Fleet::new(86_400);
        for n in 0..CHANGES_MAX + 1 {
            fleet.reading(&format!("g{n}"), place(1), values(1.0), NOW);
        }
        assert!(fleet.take_changes().too_many);
        fleet.reading("g1", place(2), values(1.0), NOW);
        assert!(!fleet.has_changes(), "neither new nor moved");
    }
}
