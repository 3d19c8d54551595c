//! A record as a point in InfluxDB's line protocol.
//!
//! A point's tags are the generator (for an alert also its rule, severity and state). Its time is the event time: the
//! record's timestamp, or an alert's `at`. Every number of the JSON object becomes a float field, so that a field never
//! changes its type, whether a producer writes `80` or `80.5`. Nested objects are flattened with `_`; null, lists and
//! members without a name are left out.
//!
//! InfluxDB keeps one type for each field and drops a whole point with another type. So a reading is written only if
//! the worker accepts it ([`genwatch_core::reading::parse`]), and members that genwatch doesn't know, which may have
//! any type, go on a line of their own: if InfluxDB refuses that line, the reading is still there.
//!
//! At nanosecond precision a reading's time has the offset in its last six digits: two readings of one generator
//! within a millisecond stay two points, a repeat stays one. An alert has the offset of its reading, hence its time. An
//! aggregate has none, so that a correction overwrites it.
//!
//! The format can't express a line feed, or a backslash before a delimiter or another backslash, outside a quoted
//! string (its readers disagree there). A tag with one makes no point, because the point would be another generator's;
//! a field whose name has one is left out; in a quoted string a line feed is written as `\n`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use genwatch_core::reading::{self, ErrorCode, Field, Parsed, Values};
use genwatch_core::types::{Millis, Offset};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::sink::SourceRecord;

/// The object's member that names the generator; the record's key is the tag.
pub(super) const GENERATOR: &str = "generatorID";

/// An alert's member with its event time; the record's timestamp is the time of writing.
pub(super) const AT: &str = "at";

/// An alert's member with the place of its reading, and the offset in it.
const SOURCE: &str = "source";
const OFFSET: &str = "offset";

/// The times that InfluxDB accepts, in whole milliseconds: it keeps nanoseconds in 64 bits.
const TIMES: std::ops::RangeInclusive<i64> = -9_223_372_036_854..=9_223_372_036_853;

/// A reading's numbers in the order of their names, as InfluxDB sorts them.
const FIELDS: [Field; 7] =
    [Field::Fuel, Field::Lat, Field::Load, Field::Lon, Field::Power, Field::Pressure, Field::Temperature];

/// The unit of a point's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Milliseconds, as Kafka has them: readings of one generator within a millisecond overwrite each other.
    Ms,
    /// Seconds: readings of one generator within a second overwrite each other.
    S,
    /// Microseconds.
    Us,
    /// Nanoseconds, with the record's offset as the last six digits: no reading overwrites another.
    Ns,
}

impl Precision {
    /// Returns the write API's name of it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Precision::Ms => "ms",
            Precision::S => "s",
            Precision::Us => "us",
            Precision::Ns => "ns",
        }
    }

    /// Converts a time to this unit, with the offset if there is room for it; `None` if InfluxDB can't keep it.
    fn ticks(self, at: Millis, offset: Offset) -> Option<i64> {
        if !TIMES.contains(&at.0) {
            return None;
        }
        Some(match self {
            Precision::Ms => at.0,
            Precision::S => at.0.div_euclid(1000),
            Precision::Us => at.0 * 1000,
            Precision::Ns => at.0 * 1_000_000 + offset.0.rem_euclid(1_000_000),
        })
    }
}

/// Why a record makes no point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum SkipReason {
    /// A tombstone, which decommissions a generator: nothing to write.
    #[error("a tombstone")]
    Tombstone,
    /// No key, so its generator is unknown.
    #[error("it has no key")]
    NoKey,
    /// A key, or another tag, that a tag can't hold.
    #[error("a tag can't hold its key, rule, state or severity")]
    BadTag,
    /// Not a reading: the worker makes it a dead letter, with this code.
    #[error("it is not a reading, but a dead letter: {0}")]
    DeadLetter(ErrorCode),
    /// Not one JSON document, or a number too large for a float.
    #[error("it is not JSON")]
    NotJson,
    /// JSON, but not an object.
    #[error("it is not a JSON object")]
    NotObject,
    /// `generatorID` differs from the key.
    #[error("its generatorID is not its key")]
    KeyMismatch,
    /// No timestamp, or one that InfluxDB can't keep.
    #[error("it has no timestamp that InfluxDB can keep")]
    BadTime,
    /// An object without a field to write.
    #[error("it has no field")]
    NoField,
}

impl SkipReason {
    /// Returns the reason as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::Tombstone => "tombstone",
            SkipReason::DeadLetter(code) => code.as_str(),
            SkipReason::NoKey => "no_key",
            SkipReason::BadTag => "bad_tag",
            SkipReason::NotJson => "not_json",
            SkipReason::NotObject => "not_object",
            SkipReason::KeyMismatch => "key_mismatch",
            SkipReason::BadTime => "bad_time",
            SkipReason::NoField => "no_field",
        }
    }
}

/// The shape of the points that one topic's records become.
#[derive(Clone, Debug)]
pub struct PointShape {
    pub(super) measurement: String,
    pub(super) kind: Kind,
    pub(super) precision: Precision,
}

/// A record that makes a point.
#[derive(Debug)]
pub(super) struct Judged<'r> {
    pub(super) generator: &'r str,
    content: Content,
    /// In the points' unit.
    pub(super) time: i64,
    /// The offset that is a part of the time.
    pub(super) offset: Offset,
}

#[derive(Debug)]
enum Content {
    Reading(Values),
    Object(Map<String, Value>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Readings,
    Alerts,
    Aggregates,
}

impl Kind {
    /// Returns the tags in InfluxDB's sort order.
    pub(super) fn tags(self) -> &'static [&'static str] {
        match self {
            Kind::Readings | Kind::Aggregates => &[],
            Kind::Alerts => &["rule", "severity", "state"],
        }
    }
}

impl PointShape {
    /// Returns the shape of readings.
    #[must_use]
    pub fn of_readings(measurement: &str, precision: Precision) -> PointShape {
        PointShape { measurement: escaped(measurement, MEASUREMENT), kind: Kind::Readings, precision }
    }

    /// Returns the shape of alert events.
    #[must_use]
    pub fn of_alerts(measurement: &str, precision: Precision) -> PointShape {
        PointShape { kind: Kind::Alerts, ..PointShape::of_readings(measurement, precision) }
    }

    /// Returns the shape of aggregates.
    #[must_use]
    pub fn of_aggregates(measurement: &str, precision: Precision) -> PointShape {
        PointShape { kind: Kind::Aggregates, ..PointShape::of_readings(measurement, precision) }
    }

    /// Appends the record as one line, or as two lines of the same point, each with its line feed.
    ///
    /// # Errors
    /// When the record makes no point; then nothing is appended.
    pub fn append(&self, record: &SourceRecord<'_>, lines: &mut String) -> Result<(), SkipReason> {
        let judged = self.judge(record)?;
        self.write(&judged, record, lines)
    }

    /// Judges whether a record is what its topic has, and whose.
    pub(super) fn judge<'r>(&self, record: &SourceRecord<'r>) -> Result<Judged<'r>, SkipReason> {
        match self.kind {
            Kind::Readings => self.judge_reading(record),
            Kind::Alerts | Kind::Aggregates => self.judge_object(record),
        }
    }

    fn judge_reading<'r>(&self, record: &SourceRecord<'r>) -> Result<Judged<'r>, SkipReason> {
        let (generator, values) = match reading::parse(record.key, record.value) {
            Ok(Parsed::Reading { generator, values }) => (generator, values),
            Ok(Parsed::Decommissioned { .. }) => return Err(SkipReason::Tombstone),
            Err(bad) => return Err(SkipReason::DeadLetter(bad.code)),
        };
        if !is_representable(generator) {
            return Err(SkipReason::BadTag);
        }
        let at = record.at.ok_or(SkipReason::BadTime)?;
        let time = self.ticks(at, record.offset).ok_or(SkipReason::BadTime)?;
        Ok(Judged { generator, content: Content::Reading(values), time, offset: record.offset })
    }

    fn judge_object<'r>(&self, record: &SourceRecord<'r>) -> Result<Judged<'r>, SkipReason> {
        let value = record.value.ok_or(SkipReason::Tombstone)?;
        let key = record.key.filter(|key| !key.is_empty()).ok_or(SkipReason::NoKey)?;
        let generator =
            std::str::from_utf8(key).ok().filter(|key| is_representable(key)).ok_or(SkipReason::BadTag)?;
        let object = match serde_json::from_slice(value) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Err(SkipReason::NotObject),
            Err(_) => return Err(SkipReason::NotJson),
        };
        if object.get(GENERATOR).is_some_and(|id| id.as_str() != Some(generator)) {
            return Err(SkipReason::KeyMismatch);
        }
        let (at, offset) = self.at(&object, record);
        let time = at.and_then(|at| self.ticks(at, offset)).ok_or(SkipReason::BadTime)?;
        Ok(Judged { generator, content: Content::Object(object), time, offset })
    }

    /// Appends what was judged.
    pub(super) fn write(
        &self,
        judged: &Judged<'_>,
        record: &SourceRecord<'_>,
        lines: &mut String,
    ) -> Result<(), SkipReason> {
        match &judged.content {
            Content::Reading(values) => {
                self.write_reading(judged, values, record.value.unwrap_or_default(), lines);
                Ok(())
            }
            Content::Object(object) => self.write_object(judged, object, lines),
        }
    }

    fn write_reading(&self, judged: &Judged<'_>, values: &Values, value: &[u8], lines: &mut String) {
        let begun = lines.len();
        lines.push_str(&self.measurement);
        append_pair(lines, ',', GENERATOR, judged.generator);
        let series = begun..lines.len();
        let mut separator = ' ';
        for field in FIELDS {
            let Some(number) = values.get(field) else { continue };
            lines.push(separator);
            lines.push_str(field.name());
            lines.push('=');
            append_number(lines, number);
            separator = ',';
        }
        append_time(lines, judged.time);
        if may_have_unknown_members(value, values) {
            let fields = unknown_members(value);
            if !fields.is_empty() {
                lines.extend_from_within(series);
                append_fields(lines, &fields);
                append_time(lines, judged.time);
            }
        }
    }

    fn write_object(
        &self,
        judged: &Judged<'_>,
        object: &Map<String, Value>,
        lines: &mut String,
    ) -> Result<(), SkipReason> {
        let tags = self.tags(object)?;
        let mut fields = BTreeMap::new();
        for (name, value) in object {
            // A field with a tag's name is hard to query.
            let is_told = name == GENERATOR
                || self.kind.tags().contains(&name.as_str())
                || (self.kind == Kind::Alerts && name == AT);
            if !is_told {
                collect("", name, value, &mut fields);
            }
        }
        if fields.is_empty() {
            return Err(SkipReason::NoField);
        }

        lines.push_str(&self.measurement);
        append_pair(lines, ',', GENERATOR, judged.generator);
        for (name, value) in tags {
            append_pair(lines, ',', name, value);
        }
        append_fields(lines, &fields);
        append_time(lines, judged.time);
        Ok(())
    }

    /// Converts a time to the points' unit; `None` if InfluxDB can't keep it.
    pub(super) fn ticks(&self, at: Millis, offset: Offset) -> Option<i64> {
        self.precision.ticks(at, offset)
    }

    /// The time of an alert or an aggregate, and the offset that is a part of it.
    fn at(&self, object: &Map<String, Value>, record: &SourceRecord<'_>) -> (Option<Millis>, Offset) {
        let (at, offset) = match self.kind {
            Kind::Alerts => {
                let offset = object.get(SOURCE).and_then(|source| source.get(OFFSET)).and_then(Value::as_i64);
                (object.get(AT).and_then(Value::as_i64).map(Millis), offset.map_or(record.offset, Offset))
            }
            Kind::Readings | Kind::Aggregates => (None, Offset(0)),
        };
        (at.or(record.at), offset)
    }

    fn tags<'o>(&self, object: &'o Map<String, Value>) -> Result<Vec<(&'static str, &'o str)>, SkipReason> {
        let mut tags = Vec::with_capacity(self.kind.tags().len());
        for name in self.kind.tags() {
            // The format has no empty tag.
            let Some(value) = object.get(*name).and_then(Value::as_str).filter(|value| !value.is_empty())
            else {
                continue;
            };
            if !is_representable(value) {
                return Err(SkipReason::BadTag);
            }
            tags.push((*name, value));
        }
        Ok(tags)
    }
}

/// Whether there may be members that the worker doesn't know. Each has a name in quotes, and otherwise a reading has
/// quotes only around the known names and one value. (`null` counts as unknown here, and is left out later.)
fn may_have_unknown_members(value: &[u8], values: &Values) -> bool {
    let known = 1 + FIELDS.iter().filter(|field| values.get(**field).is_some()).count();
    value.iter().filter(|byte| **byte == b'"').count() != 2 * (known + 1)
}

/// Returns a reading's unknown members. Leaves out a member that it can't read (nested too deep, a number too large);
/// of a repeated member, the last one stays.
fn unknown_members(value: &[u8]) -> BTreeMap<String, Value> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(value).unwrap_or_default();
    let mut fields = BTreeMap::new();
    for (name, raw) in members {
        if name == GENERATOR || Field::from_name(&name).is_some() {
            continue;
        }
        if let Ok(value) = serde_json::from_str::<Value>(raw.get()) {
            collect("", &name, &value, &mut fields);
        }
    }
    fields
}

/// Collects flattened fields. If two members get one name, as in `{"a":{"b":1},"a_b":2}`, the first stays.
pub(super) fn collect(prefix: &str, name: &str, value: &Value, fields: &mut BTreeMap<String, Value>) {
    if name.is_empty() || !is_representable(name) {
        return;
    }
    match value {
        Value::Null | Value::Array(_) => {}
        Value::Object(inner) => {
            let prefix = format!("{prefix}{name}_");
            for (name, value) in inner {
                collect(&prefix, name, value, fields);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            fields.entry(format!("{prefix}{name}")).or_insert_with(|| value.clone());
        }
    }
}

/// Whether a measurement can have this name: the format can express it, and InfluxDB doesn't read it as a comment.
#[must_use]
pub fn is_measurement(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('#') && is_representable(name)
}

/// The characters to escape in a measurement's name.
pub(super) const MEASUREMENT: &[char] = &[',', ' '];
/// The characters to escape in names of tags and fields and in values of tags.
const NAME: &[char] = &[',', '=', ' '];

/// Whether a name, or a tag's value, reads back unchanged.
pub(super) fn is_representable(text: &str) -> bool {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let unclear = match c {
            '\n' => true,
            '\\' => matches!(chars.peek(), None | Some('\\' | ',' | '=' | ' ')),
            _ => false,
        };
        if unclear {
            return false;
        }
    }
    true
}

pub(super) fn append_pair(lines: &mut String, separator: char, name: &str, value: &str) {
    lines.push(separator);
    append_escaped(lines, name, NAME);
    lines.push('=');
    append_escaped(lines, value, NAME);
}

fn append_escaped(lines: &mut String, text: &str, special: &[char]) {
    if !text.contains(special) {
        lines.push_str(text);
        return;
    }
    for c in text.chars() {
        if special.contains(&c) {
            lines.push('\\');
        }
        lines.push(c);
    }
}

pub(super) fn escaped(text: &str, special: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    append_escaped(&mut escaped, text, special);
    escaped
}

pub(super) fn append_fields(lines: &mut String, fields: &BTreeMap<String, Value>) {
    let mut separator = ' ';
    for (name, value) in fields {
        lines.push(separator);
        append_escaped(lines, name, NAME);
        lines.push('=');
        append_field(lines, value);
        separator = ',';
    }
}

fn append_field(lines: &mut String, value: &Value) {
    match value {
        Value::Bool(yes) => lines.push_str(if *yes { "true" } else { "false" }),
        Value::Number(number) => append_number(lines, number.as_f64().unwrap_or_default()),
        Value::String(text) => {
            lines.push('"');
            for c in text.chars() {
                match c {
                    '"' => lines.push_str("\\\""),
                    '\\' => lines.push_str("\\\\"),
                    '\n' => lines.push_str("\\\\n"),
                    c => lines.push(c),
                }
            }
            lines.push('"');
        }
        Value::Null | Value::Array(_) | Value::Object(_) => {}
    }
}

/// Appends a number without a suffix, so a float, in the shortest form that reads back the same.
fn append_number(lines: &mut String, number: f64) {
    lines.push_str(zmij::Buffer::new().format(number));
}

pub(super) fn append_time(lines: &mut String, time: i64) {
    // Writing into a string can't fail.
    let _ = writeln!(lines, " {time}");
}

#[cfg(test)]
mod tests;
