//! One generator's last minutes: its readings, and the alarms that are active.
//!
//! Must not know: clients, clocks.

use std::collections::{BTreeMap, VecDeque};

use genwatch_core::alarm::machine::Limits;
use genwatch_core::alarm::rules::{Condition, Rules};
use genwatch_core::reading::{Field, Parsed, parse};
use genwatch_core::types::{Millis, PartitionId};
use serde::Deserialize;

/// The fields that are shown.
pub const FIELDS: [Field; 3] = [Field::Temperature, Field::Pressure, Field::Fuel];
/// How far back it goes, in milliseconds.
pub const SPAN: i64 = 5 * 60_000;
/// A generator that reports many times a second has a shorter history.
const READINGS_MAX: usize = 20_000;

/// The history of one generator.
#[derive(Clone, Debug)]
pub struct History {
    /// The generator.
    pub generator: String,
    /// The partition of its readings.
    pub partition: PartitionId,
    /// Whether the past is read: what comes now is new.
    pub caught_up: bool,
    readings: VecDeque<Sample>,
    alarms: BTreeMap<String, Alarm>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Millis,
    values: [f64; FIELDS.len()],
}

/// An alarm that is active.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Alarm {
    /// The rule.
    pub rule: String,
    /// Its severity.
    pub severity: String,
    /// The time of the reading that raised it.
    pub at: Millis,
    /// The value that raised it.
    pub value: Option<f64>,
    /// The threshold that it crossed.
    pub threshold: f64,
}

/// What an alert says beside the alarm.
#[derive(Deserialize)]
struct Alert {
    #[serde(rename = "generatorID")]
    generator: String,
    state: String,
    #[serde(flatten)]
    alarm: Alarm,
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new(generator: &str, partition: PartitionId) -> History {
        History {
            generator: generator.to_owned(),
            partition,
            caught_up: false,
            readings: VecDeque::new(),
            alarms: BTreeMap::new(),
        }
    }

    /// Takes in a record of the readings topic; ignores other generators and what is no reading. Returns whether it
    /// belongs to the history.
    pub fn hear_reading(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, at: Millis) -> bool {
        if key != Some(self.generator.as_bytes()) {
            return false;
        }
        let Ok(Parsed::Reading { values, .. }) = parse(key, value) else { return false };
        let values = FIELDS.map(|field| values.get(field).unwrap_or(f64::NAN));
        self.readings.push_back(Sample { at, values });
        let last = self.readings.iter().map(|of| of.at).max().unwrap_or(at);
        while self.readings.len() > READINGS_MAX
            || self.readings.front().is_some_and(|first| last.since(first.at) > SPAN)
        {
            self.readings.pop_front();
        }
        true
    }

    /// Takes in a record of the alerts topic; ignores other generators and what is no alert. Returns whether it belongs
    /// to the history.
    pub fn hear_alert(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
        if key != Some(self.generator.as_bytes()) {
            return false;
        }
        let alert = value.and_then(|value| serde_json::from_slice::<Alert>(value).ok());
        let Some(Alert { generator, state, alarm }) = alert else { return false };
        if generator != self.generator {
            return false;
        }
        if state == "raised" {
            self.alarms.insert(alarm.rule.clone(), alarm);
        } else {
            self.alarms.remove(&alarm.rule);
        }
        true
    }

    /// The alarms that are active, by rule.
    pub fn alarms(&self) -> impl Iterator<Item = &Alarm> {
        self.alarms.values()
    }

    /// How many readings it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.readings.len()
    }

    /// Whether it has no reading.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.readings.is_empty()
    }

    /// The times of its first and its last reading.
    #[must_use]
    pub fn span(&self) -> Option<(Millis, Millis)> {
        Some((self.readings.front()?.at, self.readings.back()?.at))
    }

    /// The last value of one of [`FIELDS`], and the least and the greatest one.
    #[must_use]
    pub fn range(&self, field: usize) -> Option<(f64, f64, f64)> {
        let last = self.readings.back()?.values[field];
        let values = self.readings.iter().map(|of| of.values[field]);
        Some(
            values.fold((last, last, last), |(last, min, max), value| (last, min.min(value), max.max(value))),
        )
    }

    /// One of [`FIELDS`] over time, in so many columns: each has the last value of its time, or `None` if there is none.
    /// Few readings have a column each.
    #[must_use]
    pub fn columns(&self, field: usize, columns: usize) -> Vec<Option<f64>> {
        let Some((first, last)) = self.span() else { return Vec::new() };
        if columns == 0 || self.readings.len() <= columns {
            return self.readings.iter().map(|of| Some(of.values[field])).collect();
        }
        let mut shown = vec![None; columns];
        let span = last.since(first).max(1) + 1;
        for of in &self.readings {
            // Times may be out of order, and even before the first one.
            let place = of.at.since(first).clamp(0, span - 1) as i128 * columns as i128 / i128::from(span);
            if let Some(column) = usize::try_from(place).ok().and_then(|place| shown.get_mut(place)) {
                *column = Some(of.values[field]);
            }
        }
        shown
    }
}

/// Says at which values of a field alarms are raised and cleared.
#[must_use]
pub fn thresholds(rules: &Rules, of: Field) -> Vec<String> {
    let told = rules.as_slice().iter().filter_map(|rule| match &rule.condition {
        Condition::Threshold { field, limits, .. } if *field == of => {
            let (raises, clears) = match limits {
                Limits::Low { raise, clear } => {
                    (format!("below {raise}"), clear.map(|clear| format!("above {clear}")))
                }
                Limits::High { raise, clear } => {
                    (format!("above {raise}"), clear.map(|clear| format!("below {clear}")))
                }
            };
            let clears = clears.map_or_else(String::new, |clears| format!(", clears {clears}"));
            Some(format!("{} {raises}{clears} ({})", rule.name, rule.severity))
        }
        _ => None,
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(temperature: f64) -> Vec<u8> {
        format!(
            r#"{{"generatorID":"g","lat":1,"lon":2,"temperature":{temperature},"pressure":200,"fuel":900}}"#
        )
        .into_bytes()
    }

    fn alert(state: &str, rule: &str) -> Vec<u8> {
        format!(
            r#"{{"id":"i","generatorID":"g","rule":"{rule}","state":"{state}","severity":"critical","field":"temperature","value":104.0,"threshold":100.0,"at":7,"since":7}}"#
        )
        .into_bytes()
    }

    #[test]
    fn a_history_is_of_one_generator_and_some_minutes() {
        let mut history = History::new("g", PartitionId(1));
        assert_eq!((history.range(0), history.columns(0, 10)), (None, vec![]));
        assert!(!history.hear_reading(Some(b"h"), Some(&reading(80.0)), Millis(0)));
        assert!(!history.hear_reading(Some(b"g"), Some(b"no reading"), Millis(0)));
        for second in 0..400_i32 {
            let at = Millis(i64::from(second) * 1000);
            assert!(history.hear_reading(Some(b"g"), Some(&reading(f64::from(second))), at));
        }
        assert_eq!(history.span(), Some((Millis(99_000), Millis(399_000))));
        assert_eq!(history.range(0), Some((399.0, 99.0, 399.0)));
        let columns = history.columns(0, 30);
        assert_eq!(columns.len(), 30);
        assert_eq!((columns[0], columns[29]), (Some(109.0), Some(399.0)));
    }

    #[test]
    fn a_pause_is_a_gap_and_few_readings_have_a_column_each() {
        let mut history = History::new("g", PartitionId(1));
        for second in (0..10).chain(90..100) {
            history.hear_reading(Some(b"g"), Some(&reading(80.0)), Millis(second * 1000));
        }
        let columns = history.columns(0, 10);
        assert_eq!(columns.iter().filter(|column| column.is_none()).count(), 8, "{columns:?}");
        assert_eq!(history.columns(0, 40), vec![Some(80.0); 20]);
    }

    #[test]
    fn an_alarm_is_active_until_it_is_cleared() {
        let mut history = History::new("g", PartitionId(1));
        history.hear_alert(Some(b"g"), Some(&alert("raised", "a")));
        history.hear_alert(Some(b"g"), Some(&alert("raised", "b")));
        history.hear_alert(Some(b"g"), Some(&alert("cleared", "a")));
        assert!(!history.hear_alert(Some(b"h"), Some(&alert("cleared", "b"))));
        assert!(!history.hear_alert(Some(b"g"), Some(b"{}")));
        let active: Vec<&str> = history.alarms().map(|alarm| alarm.rule.as_str()).collect();
        assert_eq!(active, ["b"]);
    }

    #[test]
    fn thresholds_are_told_in_words() {
        let rules = Rules::default();
        assert_eq!(thresholds(&rules, Field::Fuel), ["low_fuel below 200, clears above 250 (warning)"]);
        assert_eq!(
            thresholds(&rules, Field::Temperature),
            ["over_temperature above 100, clears below 95 (critical)"]
        );
        assert!(thresholds(&rules, Field::Pressure).is_empty());
    }
}
