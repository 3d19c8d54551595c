//! An aggregate: the result of one window of one generator, as a record of `<topic>_1m`.

use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::part::Part;
use super::rule_name::RuleName;
use super::window::{FIELDS, Window};
use crate::types::{GeneratorId, Millis};

/// A closed window of one generator. Cheap to make, clone and send: it is the window itself, encoded on demand.
#[derive(Clone)]
pub struct Aggregate {
    pub(super) generator: GeneratorId,
    pub(super) window: Arc<Window>,
    /// The names of the aggregator's rules.
    pub(super) rules: Arc<[RuleName]>,
    pub(super) revision: Option<u32>,
    /// What a revision has added.
    pub(super) added: Option<Arc<Part>>,
}

impl Aggregate {
    /// The generator: the record's key.
    #[must_use]
    pub fn generator(&self) -> &GeneratorId {
        &self.generator
    }

    /// The first instant of the window, in milliseconds of event time.
    #[must_use]
    pub fn start(&self) -> Millis {
        Millis(self.window.span.start)
    }

    /// The first instant behind the window, in milliseconds of event time: the record's time.
    #[must_use]
    pub fn end(&self) -> Millis {
        Millis(self.window.span.end)
    }

    /// The number of readings.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.window.count
    }

    /// How often late readings have corrected the window; `None` in its first output.
    #[must_use]
    pub fn revision(&self) -> Option<u32> {
        self.revision
    }

    /// The record's value: JSON, by `docs/formats.md`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Only strings, integers and finite numbers: serializing them into memory can't fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The value of the record's header [`super::HEADER`]: JSON, as [`Part::from_json`] reads it. For a revision it is
    /// only what the revision adds.
    #[must_use]
    pub fn part_json(&self) -> Vec<u8> {
        self.part().to_json()
    }

    /// The part of the record's header.
    #[must_use]
    pub fn part(&self) -> Part {
        match &self.added {
            Some(added) => Part::clone(added),
            None => self.window.to_part(&self.rules),
        }
    }
}

impl fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_json()))
    }
}

impl Serialize for Aggregate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let window = &*self.window;
        let hours_left = window.outlook.and_then(|outlook| outlook.hours);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("generatorID", &self.generator)?;
        map.serialize_entry("window", &Bounds { start: window.span.start, end: window.span.end })?;
        map.serialize_entry("count", &window.count)?;
        map.serialize_entry("fields", &Fields(window))?;
        map.serialize_entry("above", &Above { window, rules: &self.rules })?;
        map.serialize_entry("fuel_used", &window.fuel_used.value().map(|litres| litres.max(0.0)))?;
        map.serialize_entry("hours_left", &hours_left)?;
        map.serialize_entry("final", &true)?;
        if let Some(revision) = self.revision {
            map.serialize_entry("revision", &revision)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Bounds {
    start: i64,
    end: i64,
}

struct Fields<'w>(&'w Window);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let known = FIELDS.iter().zip(&self.0.fields);
        let known = known.filter_map(|(field, stats)| Some((field.name(), stats.as_ref()?.summary())));
        serializer.collect_map(known)
    }
}

/// Every rule of the aggregator, then the other ones that held, by name.
struct Above<'w> {
    window: &'w Window,
    rules: &'w [RuleName],
}

impl Serialize for Above<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = self.rules.iter().zip(&self.window.above).chain(&self.window.other);
        serializer.collect_map(all.map(|(name, millis)| (name, *millis as f64 / 1000.0)))
    }
}
